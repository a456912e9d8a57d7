//! The fleet's ledger, for what is charged outside of an attempt.

use super::counts::{self, Charged};
use super::document::{self, Of};
use super::transaction::Transaction;
use super::{FleetStore, Undone};
use crate::fact::Fact;
use crate::identity::{Named, Person};
use crate::ledger::{
    self, Grace, Kept, Kind, Ledger, Listed, Login, NEWCOMERS, Notice, Receipt, Refusal, Unwritable, Who,
};
use crate::policy::throttle::Throttle;
use crate::source::Source;
use crate::store::StoreError;
use std::collections::BTreeSet;

/// The document of who is tried. `None`: of a name that nobody has.
pub(super) fn own_key(who: Who) -> Option<String> {
    match who {
        Who::Person { name, key, .. } => {
            let named = |key: &str| Named { name: name.to_vec(), key: (!key.is_empty()).then(|| key.to_owned()) };
            Some(match key {
                NEWCOMERS => document::of_newcomers(&named("").file_name()),
                key => document::of_person(&named(key).file_name()),
            })
        }
        Who::Nobody(_) => None,
    }
}

/// The document that a guess is charged to in any case.
pub(super) fn key(login: &Login) -> String {
    own_key(login.who).unwrap_or_else(|| document::of_nobody(login.who.name()))
}

/// Whether a source's failures can stop a guess. Where they cannot, it is charged after the verdict, for a wrong code alone: all
/// who come from one address at once would wait for each other's right ones otherwise.
fn is_bound_by_source(login: &Login, is_known: bool) -> bool {
    !is_known && !login.is_source_spared() && !login.host_triggers().is_empty()
}

impl FleetStore<'_> {
    /// Where a login comes from, as all hosts count it.
    pub(super) fn source_of(&self, login: &Login) -> Vec<u8> {
        login.source.key_at(&self.fleet.host)
    }

    /// The bucket, and the row in it, of what is not in a person's document.
    fn bucket_of(&self, login: &Login, kind: Charged) -> Option<(String, Vec<u8>)> {
        match kind {
            Charged::Source => {
                let source = self.source_of(login);
                Some((document::of_source(&source), source))
            }
            Charged::Nobody => Some((document::of_nobody(login.who.name()), Vec::new())),
            Charged::Known | Charged::Strangers => None,
        }
    }

    /// What counts as the source that root names as `throttle list` does, with another host's name behind `@` or without.
    fn named_source(&self, source: &Source) -> Vec<u8> {
        let elsewhere = match source {
            Source::Name(name) => std::str::from_utf8(name).ok().and_then(|name| name.rsplit_once('@')),
            Source::Address(_) | Source::Local(_) => None,
        };
        let elsewhere = elsewhere.map(|(source, host)| (Source::named(source), host));
        match elsewhere.filter(|(source, _)| source.is_of_one_host()) {
            Some((source, host)) => source.key_at(host),
            None => source.key_at(&self.fleet.host),
        }
    }
}

fn receipt(rows: &[(Charged, u64)], is_somebody: bool) -> Receipt {
    let number = |kind: Charged| Charged::ALL.iter().position(|&other| other == kind).unwrap_or_default();
    let entry = |&(kind, time): &(Charged, u64)| (u32::try_from(number(kind)).unwrap_or_default(), time);
    Receipt { entries: rows.iter().map(entry).collect(), counter: is_somebody.then_some(0) }
}

fn rows(receipt: &Receipt) -> Vec<(Charged, u64)> {
    let kind = |number: u32| Charged::ALL.get(usize::try_from(number).ok()?).copied();
    receipt.entries.iter().filter_map(|&(number, time)| Some((kind(number)?, time))).collect()
}

impl Transaction<'_, '_> {
    /// Charges a guess, in what is to be written.
    pub(super) fn charge(&mut self, login: &Login, now: u64) -> Result<Result<Receipt, Refusal>, StoreError> {
        if login.throttle.is_none() {
            return Ok(Ok(Receipt::default()));
        }
        let own = own_key(login.who);
        let mut of = match &own {
            Some(key) => {
                self.also(std::slice::from_ref(key))?;
                Some(self.person(key)?)
            }
            None => None,
        };
        let is_known = of.as_ref().is_some_and(|of| of.counts.is_known(&self.store.source_of(login), now));
        let mut charged = Vec::new();
        if is_bound_by_source(login, is_known)
            && let Err(refusal) = self.charge_source(login, false, now, &mut charged)?
        {
            self.forget();
            return Ok(Err(refusal));
        }
        let result = match (&own, &mut of) {
            (Some(key), Some(of)) => match of.counts.charge(login, is_known, now) {
                Ok(kind) => {
                    charged.extend(kind.map(|kind| (kind, now)));
                    if let Who::Person { uid, .. } = login.who {
                        of.uid = of.uid.or(Some(uid));
                    }
                    self.put_person(key, of)?;
                    Ok(())
                }
                Err(refusal) => Err(refusal),
            },
            _ => self.charge_nobody(login, now, &mut charged)?,
        };
        match result {
            Ok(()) => Ok(Ok(receipt(&charged, own.is_some()))),
            Err(refusal) => {
                self.forget();
                Ok(Err(refusal))
            }
        }
    }

    fn charge_nobody(
        &mut self,
        login: &Login,
        now: u64,
        charged: &mut Vec<(Charged, u64)>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let key = document::of_nobody(login.who.name());
        self.also(std::slice::from_ref(&key))?;
        let mut bucket = self.bucket(&key)?;
        let Some(row) = bucket.row(b"", now) else { return Ok(Err(Refusal::Unwritable)) };
        match counts::charge_row(row, login, Charged::Nobody, now) {
            Ok(kind) => {
                charged.extend(kind.map(|kind| (kind, now)));
                self.put_bucket(&key, &bucket)?;
                Ok(Ok(()))
            }
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    fn charge_source(
        &mut self,
        login: &Login,
        is_known: bool,
        now: u64,
        charged: &mut Vec<(Charged, u64)>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        if login.is_source_spared() {
            return Ok(Ok(()));
        }
        let source = self.store.source_of(login);
        let key = document::of_source(&source);
        self.also(std::slice::from_ref(&key))?;
        let mut bucket = self.bucket(&key)?;
        // Sources over the bound go uncounted: what binds is the person's row.
        let Some(row) = bucket.row(&source, now) else { return Ok(Ok(())) };
        if let Err(refusal) = counts::charge_source(row, login, is_known, now) {
            return Ok(Err(refusal));
        }
        charged.push((Charged::Source, now));
        self.put_bucket(&key, &bucket)?;
        Ok(Ok(()))
    }

    /// Takes charges back, in what is to be written.
    pub(super) fn take_back(&mut self, login: &Login, receipts: &[Receipt]) -> Result<(), StoreError> {
        // All at once, and so in the order in which a charge takes its turns at them.
        let buckets = receipts
            .iter()
            .flat_map(rows)
            .filter_map(|(kind, _)| self.store.bucket_of(login, kind))
            .map(|(key, _)| key);
        let own = own_key(login.who).filter(|_| receipts.iter().any(|receipt| receipt.counter.is_some()));
        self.also(&buckets.chain(own).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>())?;
        for receipt in receipts {
            let rows = rows(receipt);
            if let Some(key) = own_key(login.who).filter(|_| receipt.counter.is_some()) {
                let mut of = self.person(&key)?;
                of.counts.take_back(&rows);
                self.put_person(&key, &of)?;
            }
            for ((key, name), time) in
                rows.iter().filter_map(|&(kind, time)| Some((self.store.bucket_of(login, kind)?, time)))
            {
                let mut bucket = self.bucket(&key)?;
                if let Some(row) = bucket.row(&name, time) {
                    counts::take_back(row, time);
                    self.put_bucket(&key, &bucket)?;
                }
            }
        }
        Ok(())
    }
}

impl FleetStore<'_> {
    fn charged(&self, keys: &[String], work: impl FnMut(&mut Transaction) -> Result<(), StoreError>) {
        // What cannot be taken back stands, and what cannot be charged to a source alone could not have been stopped by it.
        let _ = self.transact(keys, work);
    }

    /// The ledger's part of who is tried.
    fn counts<T>(&self, who: Who, look: impl FnOnce(&Of) -> T) -> Result<Option<T>, StoreError> {
        own_key(who).map(|key| self.seen(&key, look)).transpose()
    }
}

impl Ledger for FleetStore<'_> {
    fn charge(&self, login: &Login) -> Result<Receipt, Refusal> {
        let mut refused = None;
        let charged = self.transact(&[key(login)], |transaction| {
            refused = None;
            match transaction.charge(login, (self.now)())? {
                Ok(receipt) => Ok(receipt),
                Err(refusal) => {
                    refused = Some(refusal);
                    Ok(Receipt::default())
                }
            }
        });
        match (charged, refused) {
            (_, Some(refusal)) => Err(refusal),
            (Ok(receipt), None) => Ok(receipt),
            (Err(StoreError::Unreachable(fact)), None) => Err(Refusal::Unreachable(fact)),
            (Err(_), None) => Err(Refusal::Unwritable),
        }
    }

    fn charge_source(&self, login: &Login) {
        self.charged(&[document::of_source(&self.source_of(login))], |transaction| {
            // Whoever is over the limit has nothing left to be charged for.
            let _ = transaction.charge_source(login, false, (self.now)(), &mut Vec::new())?;
            Ok(())
        });
    }

    /// It is written down already, but for a source that could not stop it.
    fn keep(&self, login: &Login, receipt: Receipt) {
        let rows = rows(&receipt);
        if login.is_source_spared() || rows.iter().any(|&(kind, _)| kind == Charged::Source) {
            return;
        }
        let time = rows.first().map_or_else(self.now, |&(_, time)| time);
        self.charged(&[document::of_source(&self.source_of(login))], |transaction| {
            let _ = transaction.charge_source(login, true, time, &mut Vec::new())?;
            Ok(())
        });
    }

    fn take_back(&self, login: &Login, receipt: Receipt) {
        self.charged(&[], |transaction| transaction.take_back(login, std::slice::from_ref(&receipt)));
    }

    fn give_back(&self, login: &Login, receipts: Vec<Receipt>, grace: Option<&Grace>) -> Result<(), Unwritable> {
        let given = self.transact(&[], |transaction| {
            transaction.take_back(login, &receipts)?;
            let Some(key) = own_key(login.who) else { return Ok(()) };
            transaction.also(std::slice::from_ref(&key))?;
            let mut of = transaction.person(&key)?;
            of.counts.logged_in(login, &self.source_of(login), grace, (self.now)());
            transaction.put_person(&key, &of)
        });
        given.map_err(|_| Unwritable)
    }

    fn has_grace(&self, login: &Login, grace: &Grace) -> bool {
        self.counts(login.who, |of| of.counts.has_grace(login, &self.source_of(login), grace, (self.now)()))
            == Ok(Some(true))
    }

    fn is_disabled(&self, who: Who) -> bool {
        self.counts(who, |of| of.counts.is_disabled()).map_or(true, |disabled| disabled == Some(true))
    }

    fn take_notice(&self, who: Who) -> Option<Notice> {
        let key = own_key(who)?;
        if self.fleet.had_nothing_to_tell(&key) {
            return None;
        }
        self.transact(std::slice::from_ref(&key), |transaction| {
            let mut of = transaction.person(&key)?;
            let notice = of.counts.take_notice();
            if notice.is_some() {
                transaction.put_person(&key, &of)?;
            }
            Ok(notice)
        })
        .ok()
        .flatten()
    }

    /// Every read holds this host's clock against the cluster's. Where that cannot be done, everything is over that ends at a date.
    fn latest_wall(&self) -> u64 {
        let has_read = !self.seen.borrow().is_empty() || self.begin(&[]).is_ok();
        if has_read { (self.now)().max(ledger::EARLIEST) } else { u64::MAX }
    }
}

impl Kept for FleetStore<'_> {
    fn list(&self, _: Option<&Throttle>) -> Result<Vec<Listed>, Fact> {
        let (mut listed, now) = (Vec::new(), (self.now)());
        let mut row = |kind, name: &[u8], ages: Vec<u64>| {
            if !ages.is_empty() {
                listed.push(Listed { kind, name: name.to_vec(), failures: ages.len() as u64, ages });
            }
        };
        let mut in_a_row = Vec::new();
        self.each(document::PEOPLE, |name, transaction, key| {
            let (of, label) = (transaction.person(key)?, ledger::label_of_file(name));
            row(Kind::Known, &label, of.counts.known.ages(now));
            row(Kind::Strangers, &label, of.counts.strangers.ages(now));
            if of.counts.in_a_row > 0 {
                let failures = of.counts.in_a_row;
                in_a_row.push(Listed { kind: Kind::InARow, name: label, failures, ages: Vec::new() });
            }
            Ok(())
        })
        .map_err(StoreError::into_fact)?;
        for (kind, prefix) in [(Kind::Source, document::SOURCES_AT), (Kind::Shared, document::NOBODY_AT)] {
            self.each(prefix, |_, transaction, key| {
                for (name, failures) in transaction.bucket(key)?.rows() {
                    // Behind the letter that says what kind it is.
                    let name = if kind == Kind::Source { name.get(1..).unwrap_or_default() } else { b"(several)" };
                    row(kind, name, failures.ages(now));
                }
                Ok(())
            })
            .map_err(StoreError::into_fact)?;
        }
        listed.append(&mut in_a_row);
        Ok(listed)
    }

    fn unlock_person(&self, who: Who, _: Option<&Throttle>) -> Result<bool, Fact> {
        let unlocked = self.transact(&[], |transaction| {
            let now = (self.now)();
            let nobody = document::of_nobody(who.name());
            let own = own_key(who);
            let keys: Vec<_> = own.iter().cloned().chain([nobody.clone()]).collect();
            transaction.also(&keys)?;
            let mut bucket = transaction.bucket(&nobody)?;
            let mut had_some = bucket.row(b"", now).is_some_and(|row| row.clear(now));
            if had_some {
                transaction.put_bucket(&nobody, &bucket)?;
            }
            if let Some(key) = own {
                let mut of = transaction.person(&key)?;
                if of.counts.unlock(now) {
                    had_some = true;
                    transaction.put_person(&key, &of)?;
                }
            }
            Ok(had_some)
        });
        unlocked.map_err(StoreError::into_fact)
    }

    fn unlock_name(&self, name: &[u8], key: &str, throttle: Option<&Throttle>) -> Result<bool, Fact> {
        self.unlock_person(Who::Person { name, uid: 0, key, is_virtual: false }, throttle)
    }

    fn unlock_source(&self, source: &Source, _: Option<&Throttle>) -> Result<bool, Fact> {
        let unlocked = self.transact(&[], |transaction| {
            let source = self.named_source(source);
            let key = document::of_source(&source);
            transaction.also(std::slice::from_ref(&key))?;
            let (mut bucket, now) = (transaction.bucket(&key)?, (self.now)());
            let had_some = bucket.row(&source, now).is_some_and(|row| row.clear(now));
            if had_some {
                transaction.put_bucket(&key, &bucket)?;
            }
            Ok(had_some)
        });
        unlocked.map_err(StoreError::into_fact)
    }

    fn end_row(&self, who: Who) -> Result<(), Fact> {
        let Some(key) = own_key(who) else { return Ok(()) };
        let ended = self.transact(std::slice::from_ref(&key), |transaction| {
            let mut of = transaction.person(&key)?;
            if of.counts.in_a_row > 0 {
                of.counts.end_row();
                transaction.put_person(&key, &of)?;
            }
            Ok(())
        });
        ended.map_err(StoreError::into_fact)
    }

    /// There is none: the cluster's clocks say what time it is.
    fn forget_latest_wall(&self) {}
}

/// Of whom a file is, in the list.
pub(super) fn named(name: &str) -> Option<Named> {
    Person::of_file_name(name)
}

impl From<Undone> for StoreError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Stale => Self::Unreachable(Fact::new("fleet-busy")),
            Undone::Failed(error) => error,
        }
    }
}
