//! Secrets in people's homes, of one person or of everybody on this host.
//!
//! With a fleet each of its hosts brings its homes along. The first that is taken over makes the record; what the others have is
//! held against it: the same secret is brought together with it, another one is reported, and stays where it is.

use super::{Arguments, DEVICE, To, ensure_bits, newest};
use crate::host::{self, Access, Whose, by_fact, by_store};
use anyhow::{Context, Result, bail, ensure};
use pam_totp::fact::Fact;
use pam_totp::identity::Person;
use pam_totp::policy::{Policy, StoreKind};
use pam_totp::record::{Device, Kind, Record};
use pam_totp::secret::Secret;
use pam_totp::store::home::HomeStore;
use pam_totp::store::{Store, StoreError};
use pam_totp::system::clock;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// What to do where recovery codes were made since, or scratch codes were spent that nobody knows of.
const NEW_CODES: &str =
    "scratch codes that were spent on this host may be good once more: pam-totp recovery new --user";

/// What has become of a home's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It made the record.
    New,
    /// The record had it already, from another host, and knows now what was used here.
    Same,
    /// The same, but none of the codes for a lost device that are left here is one of the record's: what was spent here cannot be told.
    SameButCodes,
    /// The record has another one.
    Differs,
}

impl Taken {
    const fn word(self) -> &'static str {
        match self {
            Self::New => "taken-over",
            Self::Same => "same",
            Self::SameButCodes => "same-but-recovery-codes",
            Self::Differs => "differs",
        }
    }
}

/// Somebody's home, and where its secret goes.
struct Home<'a> {
    policy: &'a Policy,
    store: &'a dyn Store,
    person: &'a Person,
    force: bool,
}

/// Takes the secret in somebody's home over into a store of root's, and offers to delete the file.
pub(super) fn run_one(arguments: &Arguments) -> Result<()> {
    let whose = &arguments.whose;
    ensure!(whose.user.is_some(), "--user says whose home");
    let subject = whose.subject("change the root-only store")?;
    let (policy, person) = (&subject.policy, &subject.person);
    let store = subject.store();
    let home = Home { policy, store: &*store, person, force: arguments.force };
    let (from, path) = (home.file().path(person).map_err(by_fact)?, store.path(person).map_err(by_fact)?);
    match home.take()? {
        Taken::New => {}
        taken @ (Taken::Same | Taken::SameButCodes) if policy.store.value == StoreKind::Fleet => {
            if taken == Taken::SameButCodes {
                eprintln!("pam-totp: {}: {NEW_CODES}", subject.name());
            }
        }
        // What was used since would work again.
        Taken::Same | Taken::SameButCodes => bail!("{} holds this secret already", path.display()),
        Taken::Differs => bail!(
            "already-enrolled ({} has another secret: --force replaces the record): {} stays as it was",
            path.display(),
            from.display()
        ),
    }
    let deletes = arguments.delete || !arguments.keep && may_delete(whose, &from)?;
    // That it was taken over stands, whether it can be deleted or not.
    let deleted = if deletes { Some(home.file().remove(person).map_err(by_store)) } else { None };
    if whose.json {
        let is_gone = matches!(deleted, Some(Ok(_)));
        say!(
            "{}",
            serde_json::json!({
                "user": subject.name(), "from": from.to_string_lossy(), "path": path.to_string_lossy(), "deleted": is_gone,
            })
        );
    } else {
        say!("{}: {} is in {} now.", subject.name(), from.display(), path.display());
    }
    match deleted {
        Some(result) => result.map(|_| ()).with_context(|| format!("{} was not deleted", from.display())),
        None if whose.json => Ok(()),
        None => {
            say!("{} is there still: whoever reads it can make codes. No login looks at it.", from.display());
            Ok(())
        }
    }
}

/// The same of everybody whom the user database lists and who has such a file. Nobody's record is replaced.
pub(super) fn run_all(arguments: &Arguments, policy: &Policy) -> Result<()> {
    ensure!(matches!(arguments.to, Some(To::System | To::Fleet)), "--all-homes goes with --to system or --to fleet");
    host::ensure_root("read everybody's home")?;
    let access = Access::new(policy, arguments.whose.ring.as_deref())?;
    access.roster(policy)?.check().map_err(by_store)?;
    let store = access.store(policy);
    let (mut done, mut failed) = (Vec::new(), 0_u32);
    for account in host::everybody()? {
        let name = String::from_utf8_lossy(&account.name).into_owned();
        let Ok(person) = Person::from_account(account) else { continue };
        let home = Home { policy, store: &*store, person: &person, force: false };
        match home.file().has_record(&person) {
            Ok(true) => {}
            // Who has no home has no file in it; what cannot be looked into is nobody's login either.
            Ok(false) | Err(_) => continue,
        }
        match home.take() {
            Ok(taken) => {
                let deleted = taken != Taken::Differs && arguments.delete;
                if deleted && let Err(error) = home.file().remove(&person) {
                    eprintln!("pam-totp: {}: {}", name.escape_debug(), by_store(error));
                    failed = failed.saturating_add(1);
                }
                if !arguments.whose.json {
                    say!("{}: {}", name.escape_debug(), home.in_words(taken));
                }
                done.push((name, taken));
            }
            Err(error) => {
                eprintln!("pam-totp: {}: {error:#}", name.escape_debug());
                failed = failed.saturating_add(1);
            }
        }
    }
    let count = |wanted: Taken| done.iter().filter(|(_, taken)| *taken == wanted).count();
    let differing = count(Taken::Differs);
    if arguments.whose.json {
        let object = |(name, taken): &(String, Taken)| serde_json::json!({ "user": name, "became": taken.word() });
        say!("{}", serde_json::json!({ "homes": done.iter().map(object).collect::<Vec<_>>(), "failed": failed }));
    } else {
        let (new, same) = (count(Taken::New), count(Taken::Same).saturating_add(count(Taken::SameButCodes)));
        say!(
            "{new} taken over, {same} there already, {differing} with another secret than the record, {failed} not read."
        );
    }
    ensure!(failed == 0 && differing == 0, "{} left as they were", u64::from(failed).saturating_add(differing as u64));
    Ok(())
}

impl Home<'_> {
    fn file(&self) -> HomeStore<'_> {
        HomeStore { secret: &self.policy.secret, ..HomeStore::default() }
    }

    fn take(&self) -> Result<Taken> {
        let record = taken_over(self.file().load(self.person).map_err(by_store)?, self.policy)?;
        self.ensure_not_taken_away()?;
        // What is replaced is another secret: of the same one it would be forgotten what was used.
        let replaces = self.force && !self.holds(&record)?;
        match self.store.enrol(self.person, &record, replaces) {
            Ok(()) => return Ok(Taken::New),
            Err(StoreError::Failed(fact)) if fact.word() == "already-enrolled" => {}
            Err(error) => return Err(by_store(error)),
        }
        if !self.holds(&record)? {
            return Ok(Taken::Differs);
        }
        let mut taken = Taken::Same;
        if self.policy.store.value == StoreKind::Fleet {
            let mut bring = |there: &mut Record| {
                taken = bring_together(there, &record)?;
                Ok(())
            };
            self.store.change(self.person, &mut bring).map_err(by_store)?;
        }
        Ok(taken)
    }

    /// Fails where a device was taken from the person, whose secret may be known: a file does not bring it back.
    fn ensure_not_taken_away(&self) -> Result<()> {
        let is_fleet = self.policy.store.value == StoreKind::Fleet;
        match self.store.load(self.person) {
            Err(StoreError::NotEnrolled(fact)) if is_fleet && !self.force && fact.word() != "not-enrolled" => {
                Err(by_fact(fact))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a record with the same secret.
    fn holds(&self, record: &Record) -> Result<bool> {
        let there = match self.store.load(self.person) {
            Ok(there) => there,
            Err(StoreError::NotEnrolled(_)) => return Ok(false),
            Err(error) if !self.force => return Err(by_store(error)),
            // What is broken is replaced.
            Err(_) => return Ok(false),
        };
        Ok(secrets(record).any(|secret| there.holds(secret)))
    }

    fn in_words(&self, taken: Taken) -> String {
        let path = self.store.path(self.person).unwrap_or_default();
        let file = self.file().path(self.person).unwrap_or_default();
        match taken {
            Taken::New => format!("{} is in {} now", file.display(), path.display()),
            Taken::Same => format!("{} has the secret already", path.display()),
            Taken::SameButCodes => format!("{} has the secret already; {NEW_CODES}", path.display()),
            Taken::Differs => format!(
                "{} has another secret, and {} stays as it was: let the person say which device is in use, then pam-totp import \
                 --force --user, or pam-totp device add",
                path.display(),
                file.display()
            ),
        }
    }
}

fn secrets(record: &Record) -> impl Iterator<Item = &Secret<Vec<u8>>> {
    record.devices.iter().filter_map(|device| device.secret.as_ref().ok()).map(|secret| &**secret)
}

/// What one host has used up is used up: the later counter and step hold, and only codes that both have left.
fn bring_together(there: &mut Record, record: &Record) -> Result<Taken, Fact> {
    let devices = record.devices.iter().filter_map(|device| Some((device, device.secret.as_ref().ok()?)));
    for (device, secret) in devices {
        let is_same = |other: &&mut Device| other.secret.as_ref().is_ok_and(|own| own.expose() == secret.expose());
        let Some(other) = there.devices.iter_mut().find(is_same) else { continue };
        match (&mut other.kind, &device.kind) {
            (Ok(Kind::Totp(there)), Ok(Kind::Totp(totp))) => {
                there.used = Ok(there.mark().max(totp.mark()).map(|mark| vec![mark]));
            }
            (Ok(Kind::Hotp(there)), Ok(Kind::Hotp(hotp))) => there.counter = there.counter.max(hotp.counter),
            _ => return Err(Fact::new("other-kind").or("the same secret is one by time here, and by counter there")),
        }
    }
    let codes: Vec<_> = record.scratch.expose().iter().map(|code| Secret::new(code.to_string())).collect();
    let had_some = !there.recovery.is_empty();
    let is_known = there.recovery.keep_only(codes.iter().map(|code| code.expose().as_bytes()));
    Ok(if had_some && !is_known { Taken::SameButCodes } else { Taken::Same })
}

/// Asks whoever is at a terminal.
fn may_delete(whose: &Whose, file: &Path) -> Result<bool> {
    if whose.json || !io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("Delete {}? (y/n) ", file.display());
    io::stdout().flush()?;
    let mut answer = String::new();
    io::BufRead::read_line(&mut io::stdin().lock(), &mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes"))
}

/// A home file's record as a store of root's keeps it. Scratch codes work on; a budget of its own it has no more, nor hosts that
/// are not asked again: that is the policy's.
fn taken_over(record: Record, policy: &Policy) -> Result<Record> {
    let mut device = record.devices.into_iter().next().context("there is no device")?;
    let secret = device.secret.as_ref().map_err(|bad| by_fact(bad.fact()))?;
    ensure_bits(secret.expose(), policy)?;
    match device.kind.as_mut().map_err(|bad| by_fact(bad.fact()))? {
        Kind::Totp(totp) => {
            totp.drift.clear();
            // The file may not remember what was used, or may have been taken over before: nothing up to now works again.
            let newest = newest(totp, policy)?;
            totp.used = Ok(Some(vec![totp.mark().map_or(newest, |mark| mark.max(newest))]));
        }
        Kind::Hotp(_) => {}
        Kind::None => bail!("the file has neither a TOTP_AUTH nor a HOTP_COUNTER line: nothing to take over"),
    }
    device.name = DEVICE.to_owned();
    device.added = Some(clock::now());
    Ok(Record { scratch: record.scratch, scratch_before_odd: record.scratch_before_odd, ..Record::of(vec![device]) })
}
