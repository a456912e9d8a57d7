//! `pam-totp status`.

use crate::host::{Access, Subject, Whose, by_store};
use crate::people;
use crate::self_service;
use anyhow::Result;
use pam_totp::identity::Named;
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::record::{Device, Kind, Record};
use pam_totp::store::StoreError;
use pam_totp::system::clock;
use std::io::{self, Write};
use std::path::PathBuf;

const WHAT: &str = "read the root-only store";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Everybody who has a record, and everybody who can log in (a shell of /etc/shells that is not nologin or false) and has
    /// no device. Whom the user database does not list, as is usual with sssd and LDAP, is shown only with a record
    #[arg(long, conflicts_with_all = ["user", "key"])]
    all: bool,
    #[command(flatten)]
    whose: Whose,
}

/// The name of the key that somebody's record is sealed with, where it is.
pub(crate) fn sealed_with(access: &Access, policy: &Policy, named: &Named) -> Option<String> {
    if !policy.store.value.is_roots() {
        return None;
    }
    access.roster(policy).ok()?.sealed_with(named).ok().flatten()
}

/// Says whether somebody is enrolled, where, and with what.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let whose = &arguments.whose;
    if arguments.all {
        return people::run(whose);
    }
    if let Some(own) = self_service::own(whose, WHAT)? {
        return show(whose, &own.subject, &own.status()?);
    }
    let subject = whose.subject(WHAT)?;
    let store = subject.store();
    let path = store.path(&subject.person).map_err(crate::host::by_fact)?;
    let record = match store.load(&subject.person) {
        Ok(record) => Some(record),
        Err(StoreError::NotEnrolled(_)) => None,
        Err(error) => return Err(by_store(error)),
    };
    let sealed_with = sealed_with(&subject.access, &subject.policy, &subject.person.named());
    let had_one = !store.never_enrolled(&subject.person).map_err(by_store)?;
    let found = record.map(|record| (spares(&record), record));
    show(whose, &subject, &Status { path, found, had_one, sealed_with })
}

/// What there is of somebody.
pub(crate) struct Status {
    pub(crate) path: PathBuf,
    /// How many recovery codes are left, and the record.
    pub(crate) found: Option<(usize, Record)>,
    pub(crate) had_one: bool,
    pub(crate) sealed_with: Option<String>,
}

fn show(whose: &Whose, subject: &Subject, status: &Status) -> Result<()> {
    let Status { path, found, had_one, sealed_with } = status;
    let out = &mut io::stdout();
    if whose.json {
        let object = subject.object(serde_json::json!({
                "store": store_name(&subject.policy),
                "path": path.to_string_lossy(),
                "enrolled": found.is_some(),
                "ever_enrolled": had_one,
                "sealed_with": sealed_with,
                "devices": found.as_ref().map(|(_, record)| devices(record)).unwrap_or_default(),
                "recovery_codes": found.as_ref().map_or(0, |(spares, _)| *spares),
        }));
        return writeln!(out, "{object}").map_err(Into::into);
    }
    let name = subject.title();
    match found {
        None if *had_one => writeln!(out, "{name}: no device any more; had one, and is not let pass without")?,
        None => writeln!(out, "{name}: not enrolled")?,
        Some((spares, record)) => {
            let sealed = sealed_with.as_ref().map_or_else(String::new, |key| format!(", sealed with key {key}"));
            writeln!(out, "{name}: enrolled, in {}{sealed}", path.display())?;
            record.devices.iter().try_for_each(|device| writeln!(out, "  {}", line(device)))?;
            writeln!(out, "  {} left", count(*spares, "recovery code"))?;
        }
    }
    Ok(())
}

/// What the policy calls the store.
pub(crate) const fn store_name(policy: &Policy) -> &'static str {
    match policy.store.value {
        StoreKind::Home => "home",
        StoreKind::System => "system",
        StoreKind::Fleet => "fleet",
    }
}

pub(crate) fn spares(record: &Record) -> usize {
    record.recovery.len().saturating_add(record.scratch.expose().len())
}

pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A device in one line; never its secret.
pub(crate) fn line(device: &Device) -> String {
    let name = if device.name.is_empty() { "(the file's device)" } else { &device.name };
    let at = |what: &str, time: Option<u64>| time.map_or_else(String::new, |t| format!(", {what} {}", clock::utc(t)));
    let kind = kind(device);
    format!("{name}: {kind}{}{}", at("added", device.added), at("last used", device.last_used))
}

/// What codes it shows, in words.
pub(crate) fn kind(device: &Device) -> String {
    match &device.kind {
        Ok(Kind::Totp(totp)) => {
            format!("{} digits every {} seconds ({})", totp.digits.get(), totp.period, totp.algorithm.name())
        }
        Ok(Kind::Hotp(hotp)) => format!("{} digits by counter ({})", hotp.digits.get(), hotp.algorithm.name()),
        Ok(Kind::None) => "neither by time nor by counter".to_owned(),
        Err(bad) => bad.fact().to_string(),
    }
}

/// The devices for a program; never a secret.
pub(crate) fn devices(record: &Record) -> Vec<serde_json::Value> {
    record.devices.iter().map(|device| object(device, None)).collect()
}

/// A device, and with which key one uses it, where several people share the account.
pub(crate) fn object(device: &Device, key: Option<&str>) -> serde_json::Value {
    let (kind, algorithm, digits) = match &device.kind {
        Ok(Kind::Totp(totp)) => ("totp", totp.algorithm.name(), totp.digits.get()),
        Ok(Kind::Hotp(hotp)) => ("hotp", hotp.algorithm.name(), hotp.digits.get()),
        Ok(Kind::None) | Err(_) => ("none", "", 0),
    };
    let (period, mark, counter) = match &device.kind {
        Ok(Kind::Totp(totp)) => (Some(totp.period), totp.mark(), None),
        Ok(Kind::Hotp(hotp)) => (None, None, Some(hotp.counter)),
        Ok(Kind::None) | Err(_) => (None, None, None),
    };
    let mut object = serde_json::json!({
        "name": device.name,
        "kind": kind,
        "algorithm": algorithm,
        "digits": digits,
        "period": period,
        "mark": mark,
        "counter": counter,
        "added": device.added,
        "last_used": device.last_used,
    });
    if let (Some(object), Some(key)) = (object.as_object_mut(), key) {
        object.insert("key".to_owned(), key.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use pam_totp::record::google::Document;
    use pam_totp::secret::Secret;

    fn device(name: &str, options: &str) -> Device {
        let text = Secret::new(format!("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n{options}").into_bytes());
        let device = Document::parse(text).ok().unwrap().record().devices[0].clone();
        Device { name: name.to_owned(), ..device }
    }

    #[test]
    fn a_device_is_a_line_and_an_object_without_its_secret() {
        let dated = Device { added: Some(0), last_used: Some(86400), ..device("phone", "\" TOTP_AUTH\n") };
        for (device, expected) in [
            (
                dated,
                "phone: 6 digits every 30 seconds (SHA1), added 1970-01-01 at 00:00 UTC, last used 1970-01-02 at 00:00 UTC",
            ),
            (device("", "\" HOTP_COUNTER 5\n\" DIGITS 8\n"), "(the file's device): 8 digits by counter (SHA1)"),
            (device("x", ""), "x: neither by time nor by counter"),
        ] {
            assert_eq!(line(&device), expected);
            assert!(!object(&device, None).to_string().contains("GEZDGNBV"));
        }
        let object = object(&device("phone", "\" TOTP_AUTH\n\" DISALLOW_REUSE 7 9\n"), Some("SHA256:x"));
        assert_eq!((object["kind"].as_str(), object["mark"].as_u64()), (Some("totp"), Some(9)));
        assert_eq!(object["key"].as_str(), Some("SHA256:x"));
        assert!(object["counter"].is_null() && object["last_used"].is_null());
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| count(n, "code")), ["0 codes", "1 code", "2 codes"]);
    }
}
