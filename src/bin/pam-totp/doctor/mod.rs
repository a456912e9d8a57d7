//! `pam-totp doctor`: what is wrong with this installation, worst first, and the way out of each.
//!
//! `case` reads what there is; each of the others judges a part of it.

mod agent;
mod case;
mod fleet;
mod gate;
mod machine;
mod module;
pub(crate) mod paths;
mod people;
mod report;
mod sshd;
mod stack;
mod state;
pub(crate) mod ways_in;

use crate::root::Root;
use crate::setup::{self, Finished};
// By which `ways_in` has it, here as in its tests.
use crate::sshd_config;
use anyhow::{Result, anyhow, ensure};
use case::Case;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Judge this service alone (default: all whose stack asks for a code)
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Judge what holds for this user alone (default: for everybody)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Judge the files of another root, an image say, and nothing else
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The policy file (default: /etc/security/pam_totp.toml)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Success without findings.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { service, user, root: path, conf, json } = arguments;
    let root = Root::open(path).map_err(|error| anyhow!("{} {error}", path.display()))?;
    for service in service {
        ensure!(!service.is_empty() && !service.contains('/'), "`{}` is no service", service.escape_debug());
    }
    let left_over = finish_setup(&root);
    let mut report = examine(&root, service, user.as_deref(), conf.as_deref());
    left_over.into_iter().for_each(|note| report.note(note));
    if *json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        say!("{}", report.in_words().trim_end());
    }
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Undoes a setup that was cut off or not confirmed in time, before anything is judged; what is to be said about it.
fn finish_setup(root: &Root) -> Option<String> {
    match setup::finish(root) {
        Ok(Finished::Nothing) => None,
        Ok(Finished::AtWork) => Some("a `pam-totp setup` is at work: what is judged here may be half of it".to_owned()),
        Ok(Finished::Waiting { command, left }) => Some(format!(
            "`pam-totp {command}` is rolled back in {left}, unless `pam-totp setup confirm` keeps what it wrote"
        )),
        Ok(Finished::RolledBack(what) | Finished::NotYet(what)) => Some(what),
        Err(error) => Some(format!("what an earlier setup left cannot be finished: {error:#}")),
    }
}

/// Judges a root. `services`: these alone; none for all that ask for a code.
pub(crate) fn examine(root: &Root, services: &[String], user: Option<&str>, conf: Option<&Path>) -> Report {
    let mut report = Report::default();
    let mut case = Case::read(root, services, user, conf, &mut report);
    stack::examine(&case, &mut report);
    sshd::examine(&case, &mut report);
    if services.is_empty() || services.iter().any(|service| service == "sshd") {
        gate::examine(&case, &mut report);
    }
    module::examine(&case, &mut report);
    case.is_fleet_out_of_reach = fleet::examine(&case, &mut report);
    state::examine(&case, &mut report);
    agent::examine(&case, &mut report);
    people::examine(&case, &mut report);
    machine::examine(&case, &mut report);
    report.sort();
    report.make_harmless();
    report
}
