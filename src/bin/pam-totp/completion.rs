//! `pam-totp completion`: what a shell completes, and the manual page. Both are made from the definition of the arguments, so
//! that they cannot leave one out.

use anyhow::Result;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::{self, Write};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Of which shell
    #[arg(value_name = "SHELL")]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Bash,
    Zsh,
    Fish,
    /// No shell: the manual page pam-totp(1)
    Man,
}

/// `command` is the whole program's.
pub(crate) fn run(arguments: &Arguments, mut command: Command) -> Result<()> {
    let mut script = |shell| {
        rendered(|out| {
            clap_complete::generate(shell, &mut command, "pam-totp", out);
            Ok(())
        })
    };
    let text = match arguments.format {
        // clap_complete 4.6.11 calls a state by two names where the program's name has a `-`, and completes nothing then.
        Format::Bash => script(Shell::Bash)?.replace("pam__subcmd__totp__subcmd__", "pam__totp__subcmd__"),
        Format::Zsh => script(Shell::Zsh)?,
        Format::Fish => script(Shell::Fish)?,
        Format::Man => page(command)?,
    };
    // Into a closed pipe (`pam-totp completion bash | head`) without a panic.
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// pam-totp(1): what clap_mangen writes of each command, under a heading a command.
fn page(mut command: Command) -> Result<String> {
    command.build();
    let mut page = format!(
        ".TH PAM\\-TOTP 1 \"{DATE}\" \"pam_totp {}\"\n{INTRODUCTION}",
        command.get_version().unwrap_or_default()
    );
    add_commands(&mut page, &command)?;
    page += END;
    Ok(page)
}

/// The sections of all commands below this one, in the order of `--help`.
fn add_commands(page: &mut String, command: &Command) -> Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        if command.has_subcommands() {
            add_commands(page, command)?;
            continue;
        }
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        *page += &format!(".SS \"{}\"\n", name.replace('-', "\\-"));
        let man = Man::new(command.clone());
        let text = rendered(|out| {
            man.render_synopsis_section(out)?;
            man.render_description_section(out)?;
            man.render_options_section(out)
        })?;
        *page += &paragraphs(&text);
    }
    Ok(())
}

/// Sections of a page of its own as paragraphs of a section, without the empty ones that mandoc(1) finds fault with.
fn paragraphs(text: &str) -> String {
    let mut lines: Vec<&str> = vec![".PP"];
    for line in text.lines().map(str::trim_end) {
        let line = if line.starts_with(".SH") { ".PP" } else { line };
        let last = lines.last().copied().unwrap_or_default();
        let is_needless = line.is_empty() || line.starts_with(".ie ") || line.starts_with(".el ") || line == last;
        if is_needless {
            continue;
        }
        if last == ".PP" && line == ".TP" {
            lines.pop();
        }
        lines.push(line);
    }
    // The first paragraph begins with the heading.
    lines.iter().skip(1).flat_map(|line| [line, "\n"]).collect::<String>().replace("\\*(Aq", "\\(aq")
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<String> {
    let mut text = Vec::new();
    render(&mut text)?;
    Ok(String::from_utf8(text)?)
}

/// When the introduction and the end below were last changed.
const DATE: &str = "2026-11-27";

const INTRODUCTION: &str = "\
.SH NAME
pam\\-totp \\- enrols people for one\\-time codes and looks after their devices
.SH SYNOPSIS
.B pam\\-totp
.I COMMAND
.RI [ ARGUMENT \\&...]
.SH DESCRIPTION
Enrols people for the module
.BR pam_totp (8),
looks after their devices, makes tickets and recovery codes, checks the policy and the installation, and shows whose codes
failed.
.PP
Called by the name
.B google\\-authenticator
it takes the flags of
.B pam\\-totp enrol
and asks the questions that google\\-authenticator asks.
.PP
Every command takes
.BR \\-\\-help .
.SH COMMANDS
";

const END: &str = "\
.SH EXIT STATUS
0: done. 1: refused or failed; of
.B check
and
.B doctor
also: something is wrong. 2: wrong usage.
.B gate
ends as what it ran does.
.SH FILES
.TP
.I /etc/security/pam_totp.toml
The policy, see
.BR pam_totp.toml (5).
.TP
.I ~/.google_authenticator
Somebody's secret, where the policy has \\fIstore = \"home\"\\fR.
.TP
.I /var/lib/pam_totp
What is root's alone: failures, and with \\fIstore = \"system\"\\fR the records.
.TP
.I /etc/security/pam_totp.keys
The keys that records are sealed with, if there are any.
.TP
.I /etc/security/pam_totp.fleet.toml
Where the fleet's records are, see
.BR pam_totp.fleet.toml (5).
.SH SEE ALSO
.BR pam_totp (8),
.BR pam_totp.toml (5),
.BR pam_totp.fleet.toml (5),
.BR pam\\-totp\\-agent (8)
";
