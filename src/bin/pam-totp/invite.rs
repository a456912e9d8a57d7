//! `pam-totp invite`: a one-time word by which somebody gets a device inside a login.

use crate::device::ensure_name;
use crate::host::{self, Subject, Whose, by_fact, by_store, ensure_root};
use anyhow::{Context, Result, bail, ensure};
use pam_totp::enrol::{DEVICE, recovery_code};
use pam_totp::ledger::Who;
use pam_totp::options::Options;
use pam_totp::otp::RecoveryCode;
use pam_totp::policy::values::{DAY, Span};
use pam_totp::policy::{Document, Identity, Policy};
use pam_totp::store::{Admission, Ticket};
use pam_totp::system::clock;
use std::io::{self, Write};
use std::path::PathBuf;

/// Longest that a ticket can be good: it lies in somebody's mail for so long.
const LONGEST: u64 = 30 * DAY;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Who is invited
    user: String,
    /// For how long the ticket is good (1m to 30d)
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
    expires: u64,
    /// What the device will be called (default: phone)
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Only for whoever holds this key of the account (SHA256:..., or key-id:... of a certificate)
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Take back all tickets that were not used
    #[arg(long, conflicts_with_all = ["expires", "device"])]
    revoke: bool,
    /// The policy file (default: /etc/security/pam_totp.toml, if it is there)
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn span(text: &str) -> Result<u64, String> {
    let Span(seconds) = Span::try_from(text.to_owned())?;
    if (60..=LONGEST).contains(&seconds) { Ok(seconds) } else { Err("must be from 1m to 30d".to_owned()) }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure_root("invite somebody")?;
    let document = host::document(arguments.conf.as_ref())?;
    let whose = Whose {
        user: Some(arguments.user.clone()),
        key: arguments.key.clone(),
        conf: arguments.conf.clone(),
        ring: None,
        json: arguments.json,
    };
    let subject = whose.subject("invite somebody")?;
    let store = subject.store();
    let admission =
        store.admission().context("people are invited where the policy has store = \"system\" or \"fleet\"")?;
    if arguments.revoke {
        return revoke(&subject, admission, arguments.json);
    }
    let device = arguments.device.as_deref().unwrap_or(DEVICE);
    ensure_name(device)?;
    // Somebody else of a shared account may still come with a key of their own.
    let is_shared = is_shared(&document);
    if subject.person.key().is_some() || !is_shared {
        ensure_no_record(&subject)?;
    }
    let ledger = subject.access.ledger(&subject.policy)?;
    let ticket = ticket(ledger.latest_wall(), arguments.expires, device)?;
    let word = recovery_code().context("the kernel gives no random numbers")?;
    admission.invite(&subject.person, &word, &ticket).map_err(by_store)?;
    // What others have typed meanwhile must not keep out whom root expects.
    let who = if is_shared { Who::newcomers(&subject.person) } else { Who::of(&subject.person) };
    ledger.end_row(who).map_err(by_fact)?;
    show(&subject, &word, &ticket, arguments.json)?;
    if !is_of_use(&document) {
        eprintln!("pam-totp: nobody can use it yet: no service of the policy has enrolment = \"ticket\" or \"inline\"");
    }
    Ok(())
}

/// Whether people are told from each other by their keys somewhere.
fn is_shared(document: &Document) -> bool {
    let policy = |service: &str| Policy::new(service, &Options::default(), document);
    document.services().any(|service| policy(service).identity.value == Identity::LoginKey)
}

/// Whether there is a service at which a ticket is asked for.
fn is_of_use(document: &Document) -> bool {
    let policy = |service: &str| Policy::new(service, &Options::default(), document);
    document.services().chain([""]).any(|service| policy(service).enrolment.is_inside_a_login())
}

/// A ticket is for somebody who has no record, which is more than no device.
fn ensure_no_record(subject: &Subject) -> Result<()> {
    let (store, title) = (subject.store(), subject.title());
    if store.has_record(&subject.person).map_err(by_store)? {
        let record = store.load(&subject.person).map_err(by_store)?;
        let what = if record.devices.is_empty() { "a record, without a device," } else { "a device" };
        bail!("{title} has {what} already: pam-totp device add, or pam-totp remove and a ticket then");
    }
    Ok(())
}

/// `latest`: the latest time that the clock ever showed.
fn ticket(latest: u64, seconds: u64, device: &str) -> Result<Ticket> {
    let made = clock::now();
    let expires = made.saturating_add(seconds);
    ensure!(
        latest < expires,
        "the clock of this host has shown {}, and by that the ticket would be over: if it was wrong then, \
         pam-totp throttle unlock --clock",
        clock::utc(latest)
    );
    Ok(Ticket { made, expires, device: device.to_owned() })
}

fn show(subject: &Subject, word: &RecoveryCode, ticket: &Ticket, json: bool) -> Result<()> {
    let (text, until) = (word.text(), clock::utc(ticket.expires));
    let out = &mut io::stdout();
    if json {
        let object = serde_json::json!({ "ticket": text.expose(), "expires": ticket.expires, "device": ticket.device });
        writeln!(out, "{}", subject.object(object))?;
    } else {
        writeln!(out, "A ticket for {}, good once, until {until}:\n\n  {}\n", subject.title(), text.expose())?;
        writeln!(out, "It is typed at the prompt for the verification code. Give it to nobody else.")?;
    }
    out.flush().map_err(Into::into)
}

fn revoke(subject: &Subject, admission: &dyn Admission, json: bool) -> Result<()> {
    let count = admission.withdraw(&subject.person).map_err(by_store)?;
    if json {
        say!("{}", subject.object(serde_json::json!({ "revoked": count })));
    } else {
        say!("{}: {count} ticket{} taken back.", subject.title(), if count == 1 { "" } else { "s" });
    }
    Ok(())
}
