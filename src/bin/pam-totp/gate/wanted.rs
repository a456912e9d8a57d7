//! What runs behind the code, and the programs that cannot ask for one.

use anyhow::{Context, Result, anyhow};
use pam_totp::system::passwd::Account;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// passwd(5): where the user database names none.
const SHELL: &str = "/bin/sh";
/// How sshd names its own sftp server (sshd_config(5), Subsystem). It is no program.
const INTERNAL_SFTP: &str = "internal-sftp";
/// Where distributions have the program.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
];
const DIRECTORIES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// What somebody wants.
pub(super) enum Wanted {
    /// What the administrator wrote: these words.
    Command(Vec<OsString>),
    /// What ssh was asked for: a line for a shell.
    Line(OsString),
    /// A login shell.
    Shell,
}

impl Wanted {
    pub(super) fn of(command: &[OsString], original: Option<OsString>) -> Self {
        match original {
            _ if !command.is_empty() => Self::Command(command.to_vec()),
            Some(line) => Self::Line(line),
            None => Self::Shell,
        }
    }

    /// The program that moves files and its words, if it is exactly that.
    pub(super) fn transfer(&self) -> Option<(Transfer, Vec<String>)> {
        let Self::Line(line) = self else { return None };
        let words = words(line.to_str()?)?;
        Some((Transfer::of(&words)?, words))
    }

    /// Becomes it.
    pub(super) fn run(&self, account: &Account) -> Result<ExitCode> {
        let shell = if account.shell.as_os_str().is_empty() { Path::new(SHELL) } else { &account.shell };
        let name = shell.file_name().unwrap_or_default();
        match self {
            Self::Command(words) => {
                let (program, arguments) = words.split_first().context("no command")?;
                become_it(Command::new(program).args(arguments))
            }
            // As sshd does it (session.c, do_child).
            Self::Line(line) => become_it(Command::new(shell).arg0(name).arg("-c").arg(as_a_program(line))),
            Self::Shell => {
                let mut of_login = OsString::from("-");
                of_login.push(name);
                become_it(Command::new(shell).arg0(of_login))
            }
        }
    }

    /// What to tell somebody who has no terminal.
    pub(super) fn needs_a_terminal(&self) -> String {
        match self {
            Self::Line(line) if let Some(name) = mover(line) => format!(
                "{name} is refused: a code is needed, and {name} has no terminal to ask for it on; use ssh -t. Whoever wrote \
                 `pam-totp gate` there can spare you the code for a while after a login (--grace), or let {name} pass without \
                 one (--pass)"
            ),
            Self::Line(_) => {
                "a code is needed, and there is no terminal to ask for it on: use ssh -t HOST COMMAND".to_owned()
            }
            Self::Command(_) | Self::Shell => {
                "a code is needed, and there is no terminal to ask for it on: use ssh -t HOST".to_owned()
            }
        }
    }
}

/// The name of a program that people use without a terminal, for them to read.
fn mover(line: &OsStr) -> Option<&'static str> {
    let line = line.to_string_lossy();
    let first = Path::new(line.split(' ').next()?).file_name()?.to_str()?;
    let names = [(INTERNAL_SFTP, "sftp"), ("sftp-server", "sftp"), ("scp", "scp"), ("rsync", "rsync")];
    let name = names.into_iter().find_map(|(program, name)| (program == first).then_some(name));
    name.or_else(|| first.starts_with("git-").then_some("git"))
}

/// With a program in the place of sshd's own sftp server.
fn as_a_program(line: &OsStr) -> OsString {
    match line.as_bytes().strip_prefix(INTERNAL_SFTP.as_bytes()) {
        Some(rest) if rest.is_empty() || rest.starts_with(b" ") => {
            let mut line = sftp_server().into_os_string();
            line.push(OsString::from_vec(rest.to_vec()));
            line
        }
        _ => line.to_owned(),
    }
}

fn become_it(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(anyhow!("{} cannot be run: {error}", Path::new(command.get_program()).display()))
}

/// Programs that `--pass` can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Transfer {
    Sftp,
    Scp,
    Rsync,
}

impl Transfer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sftp => "sftp",
            Self::Scp => "scp",
            Self::Rsync => "rsync",
        }
    }

    /// Which of them these words start, at the server's end and in no other way.
    fn of(words: &[String]) -> Option<Self> {
        let (program, arguments) = words.split_first()?;
        let is_a = |name: &str| program == name || DIRECTORIES.iter().any(|path| *program == format!("{path}/{name}"));
        if program == INTERNAL_SFTP || SFTP_SERVERS.contains(&program.as_str()) {
            Some(Self::Sftp)
        } else if is_a("scp") && is_scp(arguments) {
            Some(Self::Scp)
        } else if is_a("rsync") && is_rsync(arguments) {
            Some(Self::Rsync)
        } else {
            None
        }
    }

    /// Becomes the program: the one of the system, and not one that somebody's PATH finds, without a shell.
    pub(super) fn run(self, words: &[String]) -> Result<ExitCode> {
        let program = match self {
            Self::Sftp => sftp_server(),
            Self::Scp => in_system("scp"),
            Self::Rsync => in_system("rsync"),
        };
        become_it(Command::new(program).args(words.iter().skip(1)))
    }
}

/// `scp -t` or `scp -f`, which do what the other end says; any other option starts programs.
fn is_scp(arguments: &[String]) -> bool {
    let is_option = |word: &&String| ["-v", "-r", "-p", "-d", "-t", "-f"].contains(&word.as_str());
    let options: Vec<_> = arguments.iter().take_while(is_option).collect();
    let mut rest = arguments.iter().skip(options.len()).peekable();
    let has_dashes = rest.next_if(|word| *word == "--").is_some();
    options.iter().any(|word| ["-t", "-f"].contains(&word.as_str()))
        && rest.peek().is_some()
        && (has_dashes || rest.all(|path| !path.starts_with('-')))
}

/// `rsync --server`, but not as a daemon, whose configuration starts programs: `--daemon` and `--dparam`, cut short too, which
/// `--delete` and `--delay-updates` are not.
fn is_rsync(arguments: &[String]) -> bool {
    let is_of_daemon = |word: &String| ["--da", "--dp", "--config"].iter().any(|start| word.starts_with(start));
    arguments.first().is_some_and(|first| first == "--server")
        && !arguments.iter().any(|word| is_of_daemon(word) || word == "--d")
}

fn sftp_server() -> PathBuf {
    let [first, ..] = SFTP_SERVERS;
    SFTP_SERVERS.iter().find(|path| Path::new(path).exists()).unwrap_or(&first).into()
}

fn in_system(name: &str) -> PathBuf {
    let mut paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
    paths.find(|path| path.exists()).unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

/// The words of a line as a shell would read it, if it would do nothing else with it.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(characters.next().filter(|next| *next != '\n')?),
            '\'' => {
                let (quoted, _) = characters.as_str().split_once('\'')?;
                word.get_or_insert_default().push_str(quoted);
                characters.by_ref().nth(quoted.chars().count());
            }
            plain if plain.is_alphanumeric() || "%+,-./:=@_".contains(plain) => {
                word.get_or_insert_default().push(plain);
            }
            _ => return None,
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(line: &str) -> Option<(Transfer, Vec<String>)> {
        Wanted::Line(line.into()).transfer()
    }

    #[test]
    fn what_passes_is_the_program_and_nothing_beside_it() {
        for (line, expected) in [
            ("internal-sftp", Transfer::Sftp),
            ("internal-sftp -f AUTH -l INFO", Transfer::Sftp),
            ("/usr/lib/openssh/sftp-server", Transfer::Sftp),
            ("scp -t /tmp/x", Transfer::Scp),
            ("scp -v -r -p -d -f 'a b'", Transfer::Scp),
            ("/usr/bin/scp -t -- -x", Transfer::Scp),
            ("rsync --server -vlogDtpre.iLsfxCIvu . a\\ b/", Transfer::Rsync),
            ("rsync --server --sender -e.LsfxC . x", Transfer::Rsync),
            ("rsync --server -re.LsfxC --delete-during --delay-updates . x", Transfer::Rsync),
        ] {
            assert_eq!(transfer(line).map(|(transfer, _)| transfer), Some(expected), "{line}");
        }
        for line in [
            "",
            "sh",
            "sftp-server",
            "/tmp/sftp-server",
            "internal-sftpx",
            "internal-sftp; sh",
            "internal-sftp\nsh",
            "internal-sftp $(sh)",
            "internal-sftp `sh`",
            "internal-sftp \"$(sh)\"",
            "internal-sftp > x",
            "internal-sftp & sh",
            "internal-sftp | sh",
            "x=y internal-sftp",
            "'internal-sftp",
            "scp -t",
            "scp x",
            "scp -S /tmp/x -t y",
            "scp -t -S /tmp/x",
            "scp -t -oProxyCommand=sh x",
            "scp -f *",
            "scp -f ~/x",
            "/tmp/scp -t x",
            "./scp -t x",
            "rsync -e sh x",
            "rsync --server --daemon .",
            "rsync --server --dae .",
            "rsync --server --dparam=pidfile=x .",
            "rsync --server --config=x --daemon .",
            "/tmp/rsync --server . x",
            "git-upload-pack x",
        ] {
            assert_eq!(transfer(line), None, "{line}");
        }
    }

    #[test]
    fn words_are_a_shells() {
        assert_eq!(words("a  b\\ c 'd e'f '' \\'").unwrap(), ["a", "b c", "d ef", "", "'"]);
        assert_eq!(words("'ü;$'x ü").unwrap(), ["ü;$x", "ü"]);
        for line in ["a\\", "'a", "a\tb", "a\\\nb", "#a", "!a", "{a,b}", "a?"] {
            assert_eq!(words(line), None, "{line}");
        }
    }

    #[test]
    fn sshds_own_sftp_server_becomes_a_program() {
        let server = sftp_server().into_os_string().into_string().unwrap();
        assert_eq!(as_a_program("internal-sftp -R".as_ref()).to_str().unwrap(), format!("{server} -R"));
        assert_eq!(as_a_program("internal-sftpx".as_ref()), "internal-sftpx");
        assert_eq!(as_a_program("echo internal-sftp".as_ref()), "echo internal-sftp");
    }
}
