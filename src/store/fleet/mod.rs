//! The fleet's store: records and ledger of many hosts in one cluster, sealed before they leave this one.
//!
//! What is read is as it is now, and what is written is there only if nothing of what it rests on has changed meanwhile; otherwise
//! it is decided again. A guess costs a read and a write of somebody's document, which has their part of the ledger in it, and in the
//! same commit of that of its source, if that can stop it; then it is judged by what was written. A right one is another write, which
//! takes the charge back.
//!
//! A write whose fate is not known is looked for by the id of its attempt: it counts once it is there, and not before.

mod admission;
mod counts;
mod document;
mod envelope;
mod hosts;
mod ledger;
mod marks;
mod root;
mod transaction;
mod turns;

pub use document::Host;
pub use hosts::REPORT_EVERY;
pub use root::{Accepted, Revoked, Rolled, Sealed};

use super::home::HomeStore;
use super::system::{check_room, document as record_of, with_hashed_codes};
use super::{Admission, Attempt, Bill, Change, KeyRing, Paid, Roster, Store, StoreError, gone};
use crate::fact::Fact;
use crate::fleet::conf::Conf;
use crate::fleet::etcd::{Cluster, Commit, Guard, Kv, Put};
use crate::identity::Person;
use crate::ledger::Receipt;
use crate::record::Record;
use crate::system::clock;
use crate::verify::{Charge, Denial, Verdict};
use document::Of;
use marks::Marks;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use transaction::{Transaction, Undone};
use turns::Turns;

/// How long somebody who logs in waits for the cluster in all: an election takes a second or two, and the module waits for the
/// agent for half a second more.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How soon after a right code its session begins. Only another right one could give it something to tell meanwhile, and tells it.
const SESSION: Duration = Duration::from_secs(10);

/// What keeps the documents.
pub trait Engine: Send + Sync {
    /// As [`Cluster::read`].
    ///
    /// # Errors
    /// As there.
    fn read(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<Option<Kv>>, Fact>;

    /// As [`Cluster::list`].
    ///
    /// # Errors
    /// As there.
    fn list(&self, prefix: &[u8], patience: Duration, each: &mut dyn FnMut(Kv) -> Result<(), Fact>)
    -> Result<(), Fact>;

    /// As [`Cluster::commit`].
    fn commit(&self, guards: &[Guard], puts: &[Put], deadline: Instant) -> Commit;
}

impl Engine for Cluster {
    fn read(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<Option<Kv>>, Fact> {
        Cluster::read(self, keys, deadline)
    }

    fn list(
        &self,
        prefix: &[u8],
        patience: Duration,
        each: &mut dyn FnMut(Kv) -> Result<(), Fact>,
    ) -> Result<(), Fact> {
        Cluster::list(self, prefix, patience, each)
    }

    fn commit(&self, guards: &[Guard], puts: &[Put], deadline: Instant) -> Commit {
        Cluster::commit(self, guards, puts, deadline)
    }
}

/// Where the fleet's documents are.
pub struct Fleet {
    /// What keeps them.
    pub engine: Box<dyn Engine>,
    /// What their keys begin with.
    pub prefix: String,
    /// What this host is called there.
    pub host: String,
    turns: Turns,
    /// Whose documents had nothing to tell them when they got in here, and since when.
    untold: Mutex<BTreeMap<String, Instant>>,
}

impl Fleet {
    /// The fleet whose keys begin with `prefix`, on a host called so.
    #[must_use]
    pub fn new(engine: Box<dyn Engine>, prefix: String, host: String) -> Self {
        Self { engine, prefix, host, turns: Turns::default(), untold: Mutex::default() }
    }

    /// The fleet of which a file says where it is. Connects to nobody yet.
    ///
    /// # Errors
    /// What is wrong with the file, or with one that it names.
    pub fn open(path: &Path) -> Result<Self, Fact> {
        let conf = Conf::read(path)?;
        let engine = Box::new(Cluster::new(&conf)?);
        Ok(Self::new(engine, conf.prefix, conf.host))
    }

    /// Somebody has got in, and there is nothing to tell them.
    fn has_nothing_to_tell(&self, key: String) {
        let now = clock::instant();
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.retain(|_, since| now.saturating_duration_since(*since) < SESSION);
        untold.insert(key, now);
    }

    /// Whether that was a moment ago. Once: it is of one session.
    fn had_nothing_to_tell(&self, key: &str) -> bool {
        let since = self.untold.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        since.is_some_and(|since| clock::instant().saturating_duration_since(since) < SESSION)
    }
}

/// Records of a fleet, for one login, or for one command of root's.
pub struct FleetStore<'a> {
    fleet: &'a Fleet,
    ring: &'a KeyRing,
    homes: Option<HomeStore<'a>>,
    marks: Marks,
    /// When a login is over, whatever has become of it. `None`: each thing that is done has its own [`PATIENCE`].
    until: Option<Instant>,
    now: fn() -> u64,
    /// The fleet's documents are being made.
    is_new: Cell<bool>,
    /// What was read, until something is written: what one login looks at is of one moment.
    seen: RefCell<BTreeMap<String, Of>>,
}

impl<'a> FleetStore<'a> {
    /// The store, for whoever has the keys. `homes`: where secrets may have been before.
    ///
    /// # Errors
    /// [`StoreError`]: what this host remembers of the fleet cannot be read.
    pub fn new(
        fleet: &'a Fleet,
        ring: &'a KeyRing,
        state_dir: &Path,
        homes: Option<HomeStore<'a>>,
    ) -> Result<Self, StoreError> {
        let marks = Marks::open(state_dir).map_err(|error| StoreError::Failed(error.fact()))?;
        Ok(Self {
            fleet,
            ring,
            homes,
            marks,
            until: None,
            now: clock::now,
            is_new: Cell::new(false),
            seen: RefCell::default(),
        })
    }

    /// The same, for somebody who is waiting.
    #[must_use]
    pub fn in_time(self) -> Self {
        Self { until: clock::instant().checked_add(PATIENCE), ..self }
    }

    fn deadline(&self) -> Instant {
        let now = clock::instant();
        self.until.unwrap_or_else(|| now.checked_add(PATIENCE).unwrap_or(now))
    }

    /// Somebody's document, as it was when this login first looked.
    fn seen<T>(&self, key: &str, look: impl FnOnce(&Of) -> T) -> Result<T, StoreError> {
        if !self.seen.borrow().contains_key(key) {
            let of = self.begin(&[key.to_owned()])?.person(key)?;
            self.seen.borrow_mut().insert(key.to_owned(), of);
        }
        let seen = self.seen.borrow();
        seen.get(key).map(look).ok_or_else(|| StoreError::Failed(Fact::new("bad-document")))
    }

    fn begin(&self, keys: &[String]) -> Result<Transaction<'_, 'a>, StoreError> {
        Transaction::begin(self, keys, self.deadline())
    }

    /// Does something that may have to be done again, since somebody else was faster.
    fn transact<T>(
        &self,
        keys: &[String],
        mut work: impl FnMut(&mut Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut transaction = Transaction::in_turn(self, keys, self.deadline())?;
        loop {
            let done = work(&mut transaction)?;
            match transaction.commit() {
                Ok(()) => return Ok(done),
                Err(Undone::Failed(error)) => return Err(error),
                Err(Undone::Stale) => transaction = transaction.again()?,
            }
        }
    }

    const fn is_being_made(&self) -> bool {
        self.is_new.get()
    }

    fn key(person: &Person) -> String {
        document::of_person(&person.file_name())
    }

    /// Somebody's record, or why there is none.
    fn record(&self, person: &Person, of: &Of) -> Result<Record, StoreError> {
        let place = self.path_of(&person.named());
        if let Some(uid) = of.uid.filter(|&uid| uid != person.uid() && of.record.is_some()) {
            return Err(StoreError::Failed(
                Fact::new("record-of-another")
                    .with_path(&place)
                    .with_number("uid", uid)
                    .with_number("expected", person.uid())
                    .or("an account has the same uid on all hosts of a fleet; or the name is somebody else's now: pam-totp reset --user NAME"),
            ));
        }
        let absence = || match (&of.revoked, of.had_one) {
            (Some(host), _) => Fact::new("revoked").with("host", host).or(
                "a host that could read the secret was revoked: pam-totp invite, or pam-totp enrol --user NAME --force",
            ),
            (None, true) => gone(),
            (None, false) => Fact::new("not-enrolled").or("enrol with: pam-totp enrol --user NAME"),
        };
        let record = of.record.as_ref().map(|document| document.record.clone());
        record.ok_or_else(|| StoreError::NotEnrolled(absence().with_path(&place)))
    }

    /// One round of an attempt. `None`: the guess has just been paid, or somebody else was faster.
    fn attempt_once<'c>(
        &self,
        transaction: &mut Transaction,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        bill: Option<&Bill>,
        paid: &mut Option<Receipt>,
    ) -> Result<Option<Attempt>, StoreError> {
        let (key, now) = (Self::key(person), (self.now)());
        let record = self.record(person, &transaction.person(&key)?);
        let charge = record.as_ref().map(charge);
        // What cannot be a code of this record is none.
        let is_no_guess = matches!(&charge, Ok(Charge::Refused(decision)) if decision.is_no_guess());
        if let Some(bill) = bill.filter(|bill| bill.is_guess && !is_no_guess && paid.is_none()) {
            match transaction.charge(&bill.login, now)? {
                Ok(receipt) if transaction.is_to_write() => {
                    return match transaction.commit() {
                        Ok(()) => {
                            *paid = Some(receipt);
                            Ok(None)
                        }
                        Err(Undone::Stale) => Ok(None),
                        Err(Undone::Failed(error)) => Err(error),
                    };
                }
                Ok(receipt) => *paid = Some(receipt),
                Err(refusal) => return Ok(Some(self.attempted(person, denied(), Paid::Refused(refusal)))),
            }
        }
        let decision = match charge {
            Ok(Charge::Refused(decision)) => decision,
            Ok(Charge::Due(due)) => match due.commit(|_| Ok::<_, std::convert::Infallible>(())) {
                Ok(charged) => charged.decide(),
                Err(never) => match never {},
            },
            // It is paid all the same.
            Err(error) => return Err(error.clone()),
        };
        let paid_for = |paid: &Option<Receipt>| paid.clone().map_or(Paid::Settled, Paid::Charged);
        let decision = match decision.without_storing() {
            Ok(denial) => return Ok(Some(self.attempted(person, denial, paid_for(paid)))),
            Err(decision) => decision,
        };
        let is_denial = decision.is_denial();
        let mut has_notice = true;
        let stored = decision.commit(|next| {
            let failed = Undone::Failed;
            // Something can be noted of what is wrong. It is no less wrong for that.
            if let Some(bill) = bill.filter(|_| !is_denial) {
                transaction.take_back(&bill.login, bill.receipts).map_err(failed)?;
                transaction.take_back(&bill.login, paid.as_slice()).map_err(failed)?;
            }
            let mut of = transaction.person(&key).map_err(failed)?;
            let generation = of.record.as_ref().map_or(0, |document| document.generation);
            of.record = Some(record_of(person, generation.saturating_add(1), next));
            if !is_denial {
                (of.uid, of.had_one) = (Some(person.uid()), true);
                of.was_let_in(&self.fleet.host, now);
                if let Some(bill) = bill {
                    let source = self.source_of(&bill.login);
                    of.counts.logged_in(&bill.login, &source, bill.grace.as_ref(), now);
                    if let (false, Some(factors)) = (bill.login_key.is_empty(), next.factors()) {
                        of.counts.came_by(bill.login_key, factors.expose(), now);
                    }
                }
            }
            has_notice = of.counts.has_notice();
            transaction.put_person(&key, &of).map_err(failed)?;
            transaction.commit()
        });
        match stored {
            Ok(verdict) => {
                if !is_denial && !has_notice {
                    self.fleet.has_nothing_to_tell(key);
                }
                let paid = if is_denial { paid_for(paid) } else { Paid::Settled };
                Ok(Some(self.attempted(person, verdict, paid)))
            }
            Err(Undone::Stale) => Ok(None),
            Err(Undone::Failed(error)) => Err(error),
        }
    }

    fn attempted(&self, person: &Person, verdict: Verdict, paid: Paid) -> Attempt {
        Attempt { verdict, place: self.path_of(&person.named()), remarks: Vec::new(), paid }
    }

    /// What has to be read for an attempt.
    fn keys_of(person: &Person, bill: Option<&Bill>) -> Vec<String> {
        let mut keys = vec![Self::key(person)];
        keys.extend(bill.filter(|bill| bill.is_guess).map(|bill| ledger::key(&bill.login)));
        keys.sort();
        keys.dedup();
        keys
    }
}

fn denied() -> Verdict {
    Verdict::Denied(Denial::Refused)
}

impl Store for FleetStore<'_> {
    /// A guess is paid by a commit of its own, which says nothing about the code: whoever sees how long it is, and can keep it from
    /// the cluster, has learned nothing and guesses for nothing. What comes of a right one is another commit.
    fn attempt<'c>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        bill: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        let mut transaction = Transaction::in_turn(self, &Self::keys_of(person, bill), self.deadline())?.modest();
        let mut paid = None;
        loop {
            let was_paid = paid.is_some();
            if let Some(attempt) = self.attempt_once(&mut transaction, person, charge, bill, &mut paid)? {
                return Ok(attempt);
            }
            // What has just been paid is known: what is there is what was written.
            if was_paid == paid.is_some() || !transaction.is_current() {
                transaction = transaction.again()?;
            }
        }
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        self.seen(&Self::key(person), |of| self.record(person, of))?
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        self.seen(&Self::key(person), |of| of.record.is_some())
    }

    /// As in the root-only store: of somebody who shares an account nor did anybody else of it.
    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        let account = person.account();
        let had_one = |of: &Of| of.had_one || of.record.is_some();
        Ok(!(self.seen(&Self::key(person), had_one)?
            || person.key().is_some() && self.seen(&Self::key(&account), had_one)?
            || self.was_enrolled(&[person, &account])?
            || self.homes.map_or(Ok(false), |homes| homes.may_have_enrolled(&account))?))
    }

    fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        Ok(self.path_of(&person.named()))
    }

    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        let record = with_hashed_codes(record).map_err(StoreError::from)?;
        check_room(person, &record).map_err(StoreError::from)?;
        let keys = self.keys_with_account(person);
        self.ensure_there(&keys)?;
        self.transact(&keys, |transaction| {
            if transaction.person(&Self::key(person))?.record.is_some() && !replace {
                let fact = Fact::new("already-enrolled").or("--force replaces the record");
                return Err(StoreError::Failed(fact));
            }
            self.put_record(transaction, person, &record)
        })
    }

    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        let key = Self::key(person);
        self.transact(std::slice::from_ref(&key), |transaction| {
            let mut of = transaction.person(&key)?;
            let before = self.record(person, &of)?;
            let mut next = before.clone();
            change(&mut next).map_err(StoreError::Failed)?;
            // One that is too full already can still lose something.
            if check_room(person, &before).is_ok() {
                check_room(person, &next).map_err(StoreError::from)?;
            }
            let generation = of.record.as_ref().map_or(0, |document| document.generation);
            of.record = Some(record_of(person, generation.saturating_add(1), &next));
            transaction.put_person(&key, &of)
        })
    }

    /// What is left says that there was one.
    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        let key = Self::key(person);
        let account = Self::key(&person.account());
        self.transact(&self.keys_with_account(person), |transaction| {
            let mut of = transaction.person(&key)?;
            let had_record = of.record.take().is_some();
            if had_record {
                of.had_one = true;
                transaction.put_person(&key, &of)?;
            }
            // One that was not used up would be good again.
            let mut of = transaction.person(&account)?;
            if self.withdraw_from(&mut of, person) > 0 {
                transaction.put_person(&account, &of)?;
            }
            Ok(had_record)
        })
    }

    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        let (key, is_account) = (Self::key(person), person.key().is_none());
        if is_account && !self.people_of_account(person)?.is_empty() {
            return Ok(false);
        }
        let account = Self::key(&person.account());
        let released = self.transact(&self.keys_with_account(person), |transaction| {
            let mut of = transaction.person(&key)?;
            if of.record.is_some() {
                return Ok(None);
            }
            let was_known = of.had_one || of.revoked.is_some();
            if was_known {
                (of.had_one, of.revoked, of.uid) = (false, None, None);
                transaction.put_person(&key, &of)?;
            }
            Self::remember_enrolled(transaction, &[person], false)?;
            let mut of = transaction.person(&account)?;
            if self.withdraw_from(&mut of, person) > 0 {
                transaction.put_person(&account, &of)?;
            }
            Ok(Some(was_known))
        })?;
        let Some(was_known) = released else { return Ok(false) };
        let of_homes = self.homes.filter(|_| is_account).map_or(Ok(false), |homes| homes.forget(person))?;
        Ok(was_known || of_homes)
    }

    fn admission(&self) -> Option<&dyn Admission> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
