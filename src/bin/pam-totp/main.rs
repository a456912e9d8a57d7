//! `pam-totp`: enrols people and takes their secrets over for the module `pam_totp.so`, looks after their devices, checks its
//! policy, shows its ledger.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

#![allow(clippy::disallowed_methods)] // A program that a person starts may look at its environment.

/// Says what was done. Done it is, whether that can be said or not.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($text)*)));
    }};
}

mod bulk;
mod check;
mod choices;
mod common_ground;
mod completion;
mod device;
mod doctor;
mod enrol;
mod fleet;
mod gate;
mod host;
mod import;
mod invite;
mod key;
mod new_device;
mod pam_config;
mod people;
mod progress;
mod prompt;
#[cfg(test)]
mod properties;
mod qr;
mod recovery;
mod remove;
mod resync;
mod root;
mod self_service;
mod setup;
mod sheet;

mod sshd_config;
mod status;
mod test_login;
mod throttle;
mod verify;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use host::Whose;
use std::env;
use std::path::Path;
use std::process::ExitCode;

/// One-time codes for sshd, sudo, su and login: enrolment, devices, policy, throttling.
#[derive(Parser)]
#[command(name = "pam-totp", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a secret, show it as a QR code, ask for one code, and store it where the policy says
    #[command(visible_alias = "enroll")]
    Enrol(bulk::Arguments),
    /// Make a ticket: a one-time word by which somebody gets a device inside a login
    Invite(invite::Arguments),
    /// Take secrets over from pam_oath's users file, from otpauth URIs, or from a home into the root-only store
    Import(import::Arguments),
    /// Add, show, rename or remove devices
    Device(device::Arguments),
    /// Make new recovery codes
    Recovery(recovery::Arguments),
    /// Say whether somebody, or everybody, is enrolled, and with what
    Status(status::Arguments),
    /// Say whether a code is right, and why not, without using it up
    Verify(verify::Arguments),
    /// Bring a device back whose clock or counter is off, or accept the clock of this host
    Resync(resync::Arguments),
    /// Remove somebody's record; nobody gets in as them from then on
    Remove(Whose),
    /// Remove somebody's record and forget that there ever was one
    Reset(Whose),
    /// The keys that records are sealed with, of the root-only store and of a fleet
    Key(key::Arguments),
    /// The hosts of a fleet, which have their records in common
    Fleet(fleet::Arguments),
    /// Make ready what the module needs
    Setup(setup::Arguments),
    /// Say what is wrong with a policy file, or what it means at each service
    Check(check::Arguments),
    /// Say what is wrong with this installation, the worst first, and what to write
    Doctor(doctor::Arguments),
    /// Log in through the stack of a service and show what each module answers: a real login, which spends codes and counts failures
    TestLogin(test_login::Arguments),
    /// Ask for a code, then run what ssh was asked to run: for ForceCommand or command= where sshd does not ask PAM
    Gate(gate::Arguments),
    /// Show, or forget, whose codes failed
    Throttle(throttle::Arguments),
    /// Print what makes a shell complete the commands and flags of this program
    Completion(completion::Arguments),
}

/// Make a secret, show it as a QR code, ask a few questions, and store it in ~/.google_authenticator.
#[derive(Parser)]
#[command(name = GOOGLE, version, about, max_term_width = 100)]
struct GoogleArguments {
    #[command(flatten)]
    arguments: choices::Arguments,
}

/// Called by this name we ask what google-authenticator asks.
const GOOGLE: &str = "google-authenticator";

fn main() -> ExitCode {
    let name = env::args_os().next().unwrap_or_default();
    let is_google = Path::new(&name).file_name().is_some_and(|name| name == GOOGLE);
    let result = if is_google {
        match google_arguments() {
            Ok(GoogleArguments { arguments }) => enrol::run(&arguments, true),
            Err(code) => return code,
        }
    } else {
        match Arguments::parse().command {
            Command::Enrol(arguments) => bulk::run(&arguments),
            Command::Invite(arguments) => invite::run(&arguments),
            Command::Import(arguments) => import::run(&arguments),
            Command::Device(arguments) => device::run(&arguments),
            Command::Recovery(arguments) => recovery::run(&arguments),
            Command::Status(arguments) => status::run(&arguments),
            Command::Verify(arguments) => return ended(verify::run(&arguments)),
            Command::Resync(arguments) => resync::run(&arguments),
            Command::Remove(whose) => remove::remove(&whose),
            Command::Reset(whose) => remove::reset(&whose),
            Command::Key(arguments) => key::run(&arguments),
            Command::Fleet(arguments) => fleet::run(&arguments),
            Command::Setup(arguments) => setup::run(&arguments),
            Command::Check(arguments) => check::run(&arguments),
            Command::Doctor(arguments) => return ended(doctor::run(&arguments)),
            Command::TestLogin(arguments) => return ended(test_login::run(&arguments)),
            Command::Gate(arguments) => return ended(gate::run(&arguments)),
            Command::Throttle(arguments) => throttle::run(&arguments),
            Command::Completion(arguments) => completion::run(&arguments, Arguments::command()),
        }
    };
    ended(result.map(|()| ExitCode::SUCCESS))
}

fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("pam-totp: {error:#}");
        ExitCode::FAILURE
    })
}

/// google-authenticator ends with 1 at a wrong option, and with 0 at an argument that is none, showing how it is used.
fn google_arguments() -> Result<GoogleArguments, ExitCode> {
    GoogleArguments::try_parse().map_err(|error| {
        let is_positional = error.kind() == ErrorKind::UnknownArgument
            && env::args()
                .skip(1)
                .any(|argument| !argument.starts_with('-') && error.to_string().contains(&format!("'{argument}'")));
        if is_positional {
            let _ = GoogleArguments::command().print_help();
            return ExitCode::SUCCESS;
        }
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_are_consistent() {
        Arguments::command().debug_assert();
        GoogleArguments::command().debug_assert();
    }
}
