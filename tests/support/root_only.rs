//! A machine with a root-only store.

use super::machine::Machine;
use super::output_of;
use super::totp::{code_at, now};
use std::process::Output;

pub const POLICY: &str = "/etc/security/pam_totp.toml";
pub const STATE: &str = "/var/lib/pam_totp";
pub const STACK: &str = "auth required pam_totp.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
pub const PROMPT: &str = "Verification code: ";

/// The machine. What is in `policy` goes on from `[defaults]`.
pub fn machine(policy: &str) -> Machine {
    ready(Machine::new(), policy)
}

/// Makes one ready.
pub fn ready(machine: Machine, policy: &str) -> Machine {
    for service in ["sshd", "test"] {
        machine.service(service, STACK);
    }
    machine.write(POLICY, format!("version = 1\n[defaults]\nstore = \"system\"\n{policy}"));
    totp(&machine, &["setup", "store"]);
    machine
}

pub fn run(machine: &Machine, arguments: &[&str]) -> Output {
    machine.command(machine.program()).args(arguments).output().unwrap()
}

/// The program, which must not fail.
pub fn totp(machine: &Machine, arguments: &[&str]) -> String {
    output_of(machine.command(machine.program()).args(arguments))
}

/// The same with `--json`.
pub fn json(machine: &Machine, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&totp(machine, &[arguments, &["--json"]].concat())).unwrap()
}

/// A ticket of somebody's.
pub fn ticket(machine: &Machine, user: &str, more: &[&str]) -> String {
    json(machine, &[&["invite", user], more].concat())["ticket"].as_str().unwrap().to_owned()
}

/// The secret in what was scanned.
pub fn secret(uri: &str) -> String {
    let (_, rest) = uri.split_once("secret=").unwrap_or_else(|| panic!("{uri}"));
    rest.split('&').next().unwrap().to_owned()
}

pub fn recovery_codes(screen: &str) -> Vec<String> {
    let is_code = |line: &&str| line.len() == 29 && line.matches('-').count() == 5;
    screen.lines().map(str::trim).filter(is_code).map(str::to_owned).collect()
}

/// The code after the one that is used up.
pub fn next_code(secret: &str) -> String {
    code_at(secret, now() + 30)
}
