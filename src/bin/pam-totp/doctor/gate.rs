//! Where sshd starts `pam-totp gate` for whoever comes (ForceCommand): what gets past it.

use super::case::Case;
use super::report::{Finding, Report, Weight};
use super::ways_in::Found;
use crate::sshd_config::{Block, Config, Connection, Criterion, Effective, Forwarding, Origin, PATH, Tunnel};
use std::path::Path;

/// Variables by which code is run, or another program is, before the gate is there: by the shell that starts it (bash runs what
/// BASH_ENV says, `$(…)` in it too, and PS4 where SHELLOPTS traces; zsh reads a file in ZDOTDIR), by what looks for it, and by
/// ld.so.
const RUN_BEFORE: [&str; 9] =
    ["BASH_ENV", "ENV", "SHELLOPTS", "BASH_FUNC_x%%", "ZDOTDIR", "PATH", "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"];

/// Whether the command that sshd starts is the gate.
pub(super) fn is_there(effective: &Effective) -> bool {
    words(effective).is_some()
}

/// Whether a finding is about being asked for a code, which the gate does.
pub(super) const fn answers(found: &Found) -> bool {
    use Found::{
        CommandKeyAlone, EmptyPassword, ForcedCommandForwards, GssapiAlone, HostAlone, KeyAlone, KeyAndPassword,
        OthersWithoutCode, PamOff, PasswordAlone, PasswordForEverything, QuestionsOff,
    };
    matches!(
        found,
        CommandKeyAlone
            | EmptyPassword
            | ForcedCommandForwards
            | GssapiAlone
            | HostAlone
            | KeyAlone
            | KeyAndPassword
            | OthersWithoutCode
            | PamOff
            | PasswordAlone
            | PasswordForEverything
            | QuestionsOff
    )
}

/// Judges each gate that the files of sshd have, whether or not a stack of PAM asks for a code.
pub(super) fn examine(case: &Case<'_>, report: &mut Report) {
    // What is wrong with the file is said where all of it is judged.
    let Ok(config) = Config::read(case.root) else { return };
    let server = config.server();
    let mut gates: Vec<(Option<&Block>, Effective)> = vec![(None, server)];
    let is_about_them = |block: &&Block| !block.is_all() && case.user.is_none_or(|user| may_be_for(block, user));
    gates.extend(config.blocks().iter().filter(is_about_them).map(|block| (Some(block), config.effective_in(block))));
    gates.retain(|(_, effective)| is_there(effective));
    if !gates.is_empty() {
        // It is, if not by PAM.
        report.findings.retain(|finding| finding.name != "not-in-use");
    }
    let mut seen = Vec::new();
    for (block, effective) in &gates {
        for finding in findings(*block, effective) {
            // What holds for everybody is said once.
            if !seen.contains(&(finding.name, finding.lines.clone())) {
                seen.push((finding.name, finding.lines.clone()));
                report.findings.push(finding);
            }
        }
    }
}

/// By groups too, as far as files say: of whom the user is one only the name service knows.
fn may_be_for(block: &Block, user: &str) -> bool {
    let is_about_groups = block.criteria.iter().any(|criterion| matches!(criterion, Criterion::Group(_)));
    let connection = Connection { user: Some(user.to_owned()), ..Connection::default() };
    is_about_groups || block.may_be_for(&connection)
}

/// What stands behind `pam-totp gate`. Where the shell would start something else beside it (`|| sh`, when nobody gives a code)
/// it is no gate.
fn words(effective: &Effective) -> Option<Vec<&str>> {
    let command = effective.force_command.value.as_deref().filter(|command| is_one_command(command))?;
    let mut words = command.split_whitespace().peekable();
    words.next_if(|word| *word == "exec");
    let program = Path::new(words.next()?).file_name()?;
    let is_gate = program == "pam-totp" && words.next() == Some("gate");
    is_gate.then(|| words.take_while(|word| *word != "--").collect())
}

/// Whether a shell makes nothing but one command of a line.
fn is_one_command(line: &str) -> bool {
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None | Some('"'), '\\') => drop(characters.next()),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, ';' | '&' | '|') => return false,
            _ => {}
        }
    }
    true
}

fn findings(block: Option<&Block>, effective: &Effective) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = lines_against_forwarding(effective);
    if !lines.is_empty() {
        findings.push(Finding {
            lines,
            ..finding(
                block,
                effective,
                (Weight::Open, "gate-forwards"),
                "the gate asks for a code, but forwarding starts before it",
                "Whoever has stolen a key opens ports and tunnels through this host (ssh -N -L, -R, -D, -w) and never comes to \
                 the gate.",
            )
        });
    }
    if words(effective).is_some_and(|words| words.iter().any(|word| word.starts_with("--pass"))) {
        findings.push(Finding {
            way_out: "Take --pass out; --grace lets files be moved for a while after a code.".to_owned(),
            lines: Vec::new(),
            ..finding(
                block,
                effective,
                (Weight::Open, "gate-passes"),
                "the gate lets files be moved without a code",
                "Whoever has stolen a key reads ~/.google_authenticator, and makes codes; or writes what the next shell runs.",
            )
        });
    }
    findings.extend(variables_before(block, effective));
    if effective.permit_user_rc.value {
        findings.push(Finding {
            lines: vec!["PermitUserRC no".to_owned()],
            ..finding(
                block,
                effective,
                (Weight::Weak, "gate-user-rc"),
                "sshd runs ~/.ssh/rc before the gate",
                "Who was in once, or could write one file in that home, leaves something there that no code stops.",
            )
        });
    }
    findings
}

/// What the environment brings in before the gate: from whoever connects, and from the home.
fn variables_before(block: Option<&Block>, effective: &Effective) -> Vec<Finding> {
    let named = |takes: &dyn Fn(&str) -> bool| RUN_BEFORE.into_iter().filter(|name| takes(name)).collect::<Vec<_>>();
    let of_client = named(&|name| effective.takes_from_client(name));
    let of_home = named(&|name| effective.takes_from_home(name));
    let mut findings = Vec::new();
    if !of_client.is_empty() {
        findings.push(Finding {
            way_out: "Name in each AcceptEnv what is meant, and leave out what fits one of these:".to_owned(),
            lines: vec!["AcceptEnv LANG LC_*".to_owned()],
            ..finding(
                block,
                effective,
                (Weight::Open, "gate-environment"),
                &format!("the gate asks for a code, but clients set {} before it (AcceptEnv)", of_client.join(", ")),
                "Whoever has stolen a key has the shell that starts the gate run something else: bash runs what is in BASH_ENV.",
            )
        });
    }
    if !of_home.is_empty() {
        findings.push(Finding {
            way_out: format!("Write into {PATH}, above everything else:"),
            lines: vec!["PermitUserEnvironment no".to_owned()],
            ..finding(
                block,
                effective,
                (Weight::Weak, "gate-user-environment"),
                &format!("~/.ssh/environment sets {} before the gate", of_home.join(", ")),
                "Who was in once, or could write one file in that home, leaves something there that no code stops.",
            )
        });
    }
    findings
}

fn lines_against_forwarding(effective: &Effective) -> Vec<String> {
    let is_on = |forwarding: Forwarding| forwarding != Forwarding::No && !effective.disable_forwarding.value;
    let ports = is_on(effective.allow_tcp_forwarding.value) || is_on(effective.allow_stream_local_forwarding.value);
    let tunnel = effective.permit_tunnel.value != Tunnel::No;
    let lines = [(ports, "DisableForwarding yes"), (tunnel, "PermitTunnel no")];
    lines.into_iter().filter(|(is_needed, _)| *is_needed).map(|(_, line)| line.to_owned()).collect()
}

fn finding(
    block: Option<&Block>,
    effective: &Effective,
    (weight, name): (Weight, &'static str),
    what: &str,
    why: &str,
) -> Finding {
    let place = match &effective.force_command.origin {
        Origin::Line(place) => Some(place.to_string()),
        Origin::Default | Origin::Sshd => None,
    };
    let (what, way_out) = match block {
        None => (what.to_owned(), format!("Write into {PATH}, above everything else:")),
        Some(block) => (
            format!("{what}, for `Match {}`", block.text.escape_debug()),
            format!("Write below the line {}:", block.place),
        ),
    };
    Finding {
        weight,
        name,
        service: Some("sshd".to_owned()),
        what,
        place,
        why: why.to_owned(),
        way_out,
        lines: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shell_starts_beside_the_gate_counts() {
        for line in ["pam-totp gate", "pam-totp gate -- sh -c 'a; b' \"c|d\"", "pam-totp gate -- a\\;b \"\\\"&\""] {
            assert!(is_one_command(line), "{line}");
        }
        for line in
            ["pam-totp gate || sh", "pam-totp gate;sh", "pam-totp gate & sh", "pam-totp gate 'a';sh", "a \\\\;b"]
        {
            assert!(!is_one_command(line), "{line}");
        }
    }
}
