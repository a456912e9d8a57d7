//! `pam-totp gate`: asks for a code where sshd does not ask PAM, and becomes what was wanted.
//!
//! Nothing but [`Wanted::run`] starts anything, and it is called once: behind a code, or for a program of `--pass`.

mod terminal;
mod wanted;

use crate::host::by_fact;
use anyhow::{Context, Result, bail};
use pam_totp::authenticate::Outcome;
use pam_totp::fact::Fact;
use pam_totp::gate::Gate;
use pam_totp::system::process;
use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use terminal::{End, Terminal};
use wanted::{Transfer, Wanted};

/// How often somebody is asked: as often as sshd's client asks for a password.
const TRIES: usize = 3;
/// sshd's own LoginGraceTime.
const PATIENCE: u32 = 120;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds in which the code has to be typed, all tries together
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// Ask nobody again who comes from the same address within so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    grace: u32,
    /// Let these programs pass WITHOUT A CODE: whoever has the key alone then reads and writes files, the secret too
    #[arg(long, value_name = "PROGRAMS", value_delimiter = ',', conflicts_with = "command")]
    pass: Vec<Transfer>,
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// What runs behind the code (default: what ssh was asked to run, or a login shell)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Comes back only to say why nobody gets in.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    process::hide().context("a core dump cannot be ruled out")?;
    let deadline = Instant::now().checked_add(Duration::from_secs(arguments.timeout.into()));
    let connection = env::var("SSH_CONNECTION").unwrap_or_default();
    let conf = arguments.conf.as_ref().map(|path| path.as_os_str().as_bytes());
    let gate = Gate::new(conf, arguments.grace.into(), &connection).map_err(by_fact)?;
    let wanted = Wanted::of(&arguments.command, env::var_os("SSH_ORIGINAL_COMMAND"));
    if let Some((transfer, words)) = wanted.transfer().filter(|(transfer, _)| arguments.pass.contains(transfer)) {
        gate.log(&Outcome::NotAsked(Fact::new("passed").with("program", transfer.name())));
        return transfer.run(&words);
    }
    let mut terminal = Terminal::new(deadline);
    for _ in 0..TRIES {
        match attempt(&gate, &mut terminal) {
            Outcome::Accepted(_) | Outcome::NotAsked(_) => {
                drop(terminal);
                return wanted.run(gate.account());
            }
            Outcome::Unavailable(_) | Outcome::Denied(_) => {}
        }
        match terminal.end() {
            None => {}
            Some(End::NoTerminal) => bail!("{}", wanted.needs_a_terminal()),
            Some(End::TooLate) => bail!("no code in {} seconds", arguments.timeout),
            Some(End::GaveUp) => bail!("no code"),
        }
        thread::sleep(Duration::from_secs(gate.fail_delay()));
        terminal.show(b"Permission denied.\n");
    }
    bail!("no right code in {TRIES} tries")
}

/// One question, one verdict, which is in the log.
fn attempt(gate: &Gate, terminal: &mut Terminal) -> Outcome {
    let outcome = gate.attempt(terminal);
    match (&outcome, terminal.end()) {
        (Outcome::Denied(_), Some(End::NoTerminal)) => gate.log_refusal(&Fact::new("no-terminal")),
        _ => gate.log(&outcome),
    }
    outcome
}
