//! pam-totp-agent: decides logins for the module, and alone reads the records.

mod connections;

use connections::Connections;
use pam_totp::agent::server::Agent;
use pam_totp::fact::Fact;
use pam_totp::fleet::conf;
use pam_totp::policy::AGENT_SOCKET;
use pam_totp::store::seal;
use pam_totp::system::socket::Listener;
use pam_totp::system::{passwd, process, syslog};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: pam-totp-agent [--conf FILE] [--ring FILE] [--fleet FILE] [--socket PATH]

Decides logins for pam_totp.so with `via = \"agent\"` in its policy: pam_totp(8).

  --conf FILE    the policy file (default: /etc/security/pam_totp.toml)
  --ring FILE    the keys that records are sealed with, if it is there
                 (default: /etc/security/pam_totp.keys)
  --fleet FILE   where the fleet's records are, with store = \"fleet\"
                 (default: /etc/security/pam_totp.fleet.toml)
  --socket PATH  where to listen, where systemd has not passed a socket
                 (default: /run/pam_totp-agent.sock)
  --help         print this
  --version      print the version
";

/// What it is started with.
struct Arguments {
    conf: Option<Vec<u8>>,
    ring: PathBuf,
    fleet: PathBuf,
    socket: PathBuf,
}

/// What was asked for instead.
enum Other {
    Print(String),
    Usage(String),
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(Other::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Other::Usage(problem)) => {
            eprint!("pam-totp-agent: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Err(fact) = serve(arguments);
    eprintln!("pam-totp-agent: {fact}");
    syslog::write(c"pam_totp(agent)", libc::LOG_ERR, &format!("ended reason={fact}"));
    ExitCode::FAILURE
}

fn arguments(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<Arguments, Other> {
    let mut arguments =
        Arguments { conf: None, ring: seal::PATH.into(), fleet: conf::PATH.into(), socket: AGENT_SOCKET.into() };
    while let Some(word) = words.next() {
        let mut value = |name: &str| words.next().ok_or_else(|| Other::Usage(format!("{name} needs a value")));
        match word.to_str() {
            Some("--conf") => arguments.conf = Some(value("--conf")?.into_vec()),
            Some("--ring") => arguments.ring = value("--ring")?.into(),
            Some("--fleet") => arguments.fleet = value("--fleet")?.into(),
            Some("--socket") => arguments.socket = value("--socket")?.into(),
            Some("--help" | "-h") => return Err(Other::Print(USAGE.to_owned())),
            Some("--version" | "-V") => {
                return Err(Other::Print(format!("pam-totp-agent {}\n", env!("CARGO_PKG_VERSION"))));
            }
            _ => return Err(Other::Usage(format!("unknown argument `{}`", word.to_string_lossy().escape_debug()))),
        }
    }
    Ok(arguments)
}

fn serve(Arguments { conf, ring, fleet, socket }: Arguments) -> Result<std::convert::Infallible, Fact> {
    if passwd::process_uids().1 != 0 {
        return Err(Fact::new("not-root").or("the records are root's alone"));
    }
    std::panic::set_hook(Box::new(|panic| {
        // Not what it says, which could quote what must not be logged.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let fact = Fact::new("internal-error").with("at", place).or("please report this");
        syslog::write(c"pam_totp(agent)", libc::LOG_ERR, &format!("unanswered reason={fact}"));
    }));
    // Secrets pass through this process: nobody looks into it, and no core is left of it.
    process::hide().map_err(|error| Fact::new("not-hidden").with_error(error))?;
    let agent = Agent::new(conf, ring, fleet).map_err(|error| Fact::new("no-random-numbers").with_error(error))?;
    let listener = match Listener::passed()? {
        Some(listener) => listener,
        None => Listener::new(&socket)?,
    };
    Connections::new(agent).serve(&listener)
}
