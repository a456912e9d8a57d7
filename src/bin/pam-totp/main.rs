//! `pam-totp`: enrols people for the module `pam_totp.so`.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

#![allow(clippy::disallowed_methods)] // A program that a person starts may look at its environment.

mod enrol;
mod qr;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// One-time codes for sshd, sudo, su and login: enrolment.
#[derive(Parser)]
#[command(name = "pam-totp", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a secret, show it as a QR code, ask for one code, and store it in ~/.google_authenticator
    #[command(visible_alias = "enroll")]
    Enrol(enrol::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Enrol(arguments) => enrol::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pam-totp: {error:#}");
            ExitCode::FAILURE
        }
    }
}
