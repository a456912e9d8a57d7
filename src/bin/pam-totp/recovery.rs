//! `pam-totp recovery`: codes for the day when no device is at hand.

use crate::host::{Subject, Whose, by_store};
use crate::new_device::Spares;
use crate::self_service;
use anyhow::{Context, Result, ensure};
use clap::value_parser;
use pam_totp::enrol::SPARES;
use pam_totp::record::Record;
use std::io::{self, Write};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make new recovery codes and show them; all older ones, and scratch codes, stop working
    New {
        /// How many (1 to 10)
        #[arg(long, value_name = "N", default_value_t = SPARES, value_parser = value_parser!(u64).range(1..=10))]
        count: u64,
        #[command(flatten)]
        whose: Whose,
    },
}

const WHAT: &str = "change the root-only store";
const NOT_STORED: &str = "the codes above were not stored, the old ones work";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Command::New { count, whose } = &arguments.command;
    if let Some(own) = self_service::own(whose, WHAT)? {
        let (spares, proposal) = own.recovery(*count)?;
        show(whose, &own.subject, &spares)?;
        return proposal.seen().context(NOT_STORED);
    }
    let subject = whose.subject(WHAT)?;
    subject.ensure_system_store("gets new scratch codes with pam-totp enrol --force")?;
    ensure!(subject.policy.allow_scratch_codes.value, "the policy has allow_scratch_codes = false");
    let store = subject.store();
    // Before anything is shown: codes that cannot be stored are of no use.
    store.load(&subject.person).map_err(by_store)?;
    let spares = Spares::recovery(*count)?;
    let mut record = Record::of(Vec::new());
    spares.put_into(&mut record)?;
    show(whose, &subject, &spares)?;
    store
        .change(&subject.person, &mut |stored| {
            stored.recovery = record.recovery.clone();
            Ok(())
        })
        .map_err(by_store)
        .context(NOT_STORED)
}

/// What cannot be shown is not stored either.
fn show(whose: &Whose, subject: &Subject, spares: &Spares) -> Result<()> {
    if whose.json {
        let codes: Vec<String> = spares.texts().iter().map(|code| code.expose().clone()).collect();
        writeln!(io::stdout(), "{}", subject.object(serde_json::json!({ "recovery_codes": codes })))?;
    } else {
        spares.show(&mut io::stdout())?;
    }
    io::stdout().flush().map_err(Into::into)
}
