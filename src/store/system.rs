//! The root-only store: `records/NAME` below `state_dir`, which the account it is about cannot read.
//!
//! | in `state_dir` | what it is |
//! |---|---|
//! | `store.id` | made by `pam-totp setup store` and by nothing else: a directory without it is an empty mount point |
//! | `locks` | a byte for each person, locked while a record is replaced |
//! | `records/NAME` | the record (see [`native`]), named by the percent-encoded name |
//! | `records/NAME~` | its sibling, never read (see [`Slot`]) |
//! | `enrolled/NAME.UID` | the ratchet (see ratchet.rs) |
//! | `tickets/NAME.UID/` | tickets (see tickets.rs) |
//!
//! Where several people share an account, NAME is `ACCOUNT,KEY` for each of them, KEY being the percent-encoded fingerprint.

#[cfg(feature = "seal")]
mod sealed;

use super::home::HomeStore;
use super::ratchet::Ratchet;
use super::tickets::Tickets;
use super::{Admission, Attempt, Bill, Change, Grounds, KeyRing, Paid, Roster, Store, StoreError, Ticket};
use crate::fact::Fact;
use crate::identity::{Named, Person};
use crate::otp::RecoveryCode;
use crate::record::native::{self, Document};
use crate::record::{Record, RecoveryCodes};
use crate::secret::Secret;
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::lock::{NoLock, Patience, RangeLock};
use crate::system::private::{self, Directory};
use crate::system::random;
use crate::system::slot::{Held, Slot, Unread};
use crate::verify::{Charge, Verdict};
use rustix::fs::StatVfsMountFlags;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Says that this is a store, and which.
pub const STORE_ID: &str = "store.id";
const LOCKS: &str = "locks";
const RECORDS: &str = "records";

/// Records that are root's alone.
#[derive(Clone, Copy)]
pub struct SystemStore<'a> {
    /// Where they are.
    pub state_dir: &'a Path,
    /// Where the secrets may have been before, and still be: whoever has one there has had a device. Nothing but that there
    /// is one is looked at.
    pub homes: Option<HomeStore<'a>>,
    /// What opens sealed records. While a key of it is active, what is written is sealed.
    pub ring: Option<&'a KeyRing>,
}

/// What goes wrong here.
#[derive(Debug)]
pub(super) enum Error {
    /// There is no store here.
    NoStore(PathBuf),
    NotEnrolled(Fact),
    File(FileError),
    Lock(NoLock, PathBuf),
    Record(Fact, PathBuf),
    Other(Fact),
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoStore(path) => Self::Unreachable(
                Fact::new("no-store")
                    .with_path(&path)
                    .or("nothing is mounted there, or the store was never made: pam-totp setup store"),
            ),
            Error::NotEnrolled(fact) => Self::NotEnrolled(fact),
            Error::File(error) => Self::Failed(error.fact()),
            Error::Lock(NoLock::Busy, path) => Self::Failed(
                Fact::new("locked").with_path(&path).or("another process has held the person's lock for five seconds"),
            ),
            Error::Lock(NoLock::Refused(error) | NoLock::Failed(error), path) => {
                Self::Failed(Fact::new("no-lock").with_path(&path).with_error(error))
            }
            Error::Record(fact, path) => Self::Failed(fact.with_path(&path)),
            Error::Other(fact) => Self::Failed(fact),
        }
    }
}

impl Store for SystemStore<'_> {
    /// A denial leaves no trace in the record and needs no lock: only whoever has a right code can hold one, their own.
    fn attempt<'c>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        _: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        let place = self.place(person)?;
        let attempt = |verdict| Attempt { verdict, place: place.slot.path(), remarks: Vec::new(), paid: Paid::Not };
        let held = place.load(person)?;
        if let Some(verdict) = charge(&held.value.document.record).without_storing() {
            return Ok(attempt(verdict));
        }
        let _lock = place.lock()?;
        let held = place.load_again(person, Some(held))?;
        let charge = charge(&held.value.document.record);
        let mut held = Some(held);
        let decision = match charge {
            Charge::Refused(decision) => decision,
            Charge::Due(due) => due.commit(|next| place.commit(person, &mut held, next))?.decide(),
        };
        let verdict = decision.commit(|next| place.commit(person, &mut held, next))?;
        if matches!(verdict, Verdict::Accepted(_)) {
            place.ratchet.note(person);
            if person.key().is_some() {
                place.ratchet.note(&person.account());
            }
        }
        Ok(attempt(verdict))
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        Ok(self.place(person)?.load(person)?.value.document.record)
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(self.place(person)?.slot.is_taken().map_err(Error::File)?)
    }

    /// Of somebody who shares an account: nor did anybody else of it. A home that is not there has nothing in it, one that
    /// cannot be looked into may.
    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        let account = person.account();
        let place = self.place(person)?;
        let mut had_one = place.slot.is_taken().map_err(Error::File)?
            || place.ratchet.has_enrolled(person).map_err(Error::File)?
            || self.homes.map_or(Ok(false), |homes| homes.may_have_enrolled(&account))?;
        if person.key().is_some() {
            had_one = had_one
                || place.ratchet.has_enrolled(&account).map_err(Error::File)?
                // The marks may be gone, in a restored store.
                || !self.people_of_account(person)?.is_empty();
        }
        Ok(!had_one)
    }

    fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        Ok(self.path_of(&person.named()))
    }

    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        let place = self.place(person)?;
        let _locks = self.lock_account(person, &place)?;
        let is_taken = place.slot.is_taken().map_err(Error::File)?;
        if is_taken && !replace {
            return Err(Error::Other(Fact::new("already-enrolled").or("--force replaces the record")).into());
        }
        place.enrol(person, record, is_taken)?;
        self.forget_tickets(person, &place);
        Ok(())
    }

    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        let place = self.place(person)?;
        let _lock = place.lock()?;
        let held = place.load(person)?;
        let mut next = held.value.document.record.clone();
        change(&mut next).map_err(Error::Other)?;
        // One that is too full already can still lose something.
        if check_room(person, &held.value.document.record).is_ok() {
            check_room(person, &next)?;
        }
        place.commit(person, &mut Some(held), &next)?;
        // What was taken out of the record is still there.
        Ok(place.slot.forget_the_old().map_err(Error::File)?)
    }

    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        let place = self.place(person)?;
        let _locks = self.lock_account(person, &place)?;
        // Of somebody who never had one nothing is remembered.
        if place.slot.is_taken().map_err(Error::File)? {
            place.remember(person)?;
        }
        // One that was not used up would be good again.
        place.tickets(person)?.withdraw().map_err(Error::File)?;
        Ok(place.slot.remove().map_err(Error::File)?)
    }

    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        let place = self.place(person)?;
        let _locks = self.lock_account(person, &place)?;
        // Somebody may have been enrolled meanwhile, or share the account.
        let is_account = person.key().is_none();
        if place.slot.is_taken().map_err(Error::File)? || is_account && !self.people_of_account(person)?.is_empty() {
            return Ok(false);
        }
        place.tickets(person)?.withdraw().map_err(Error::File)?;
        let was_known = place.ratchet.release(person).map_err(Error::File)?;
        // A file of another name has a mark of its own.
        let of_homes = self.homes.filter(|_| is_account).map_or(Ok(false), |homes| homes.forget(person))?;
        Ok(was_known || of_homes)
    }

    fn admission(&self) -> Option<&dyn Admission> {
        Some(self)
    }
}

impl Admission for SystemStore<'_> {
    fn ticket(&self, person: &Person, word: &RecoveryCode) -> Result<Option<Ticket>, StoreError> {
        Ok(self.place(person)?.tickets(person)?.find(word).map_err(Error::File)?)
    }

    fn is_invited(&self, person: &Person, now: u64) -> Result<bool, StoreError> {
        Ok(self.place(person)?.tickets(person)?.has_one(now).map_err(Error::File)?)
    }

    fn people_of_account(&self, person: &Person) -> Result<Vec<Person>, StoreError> {
        let account = person.account();
        let named = self.named(|named| named.name == account.name())?;
        let person = |named: Named| named.key.map_or_else(|| Some(account.clone()), |key| account.holder(&key));
        Ok(named.into_iter().filter_map(person).collect())
    }

    fn is_new_key(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(person.key().is_some() && !self.place(person)?.ratchet.has_enrolled(person).map_err(Error::File)?)
    }

    fn admit(&self, person: &Person, record: &Record, grounds: &Grounds, now: u64) -> Result<(), StoreError> {
        let place = self.place(person)?;
        let _locks = self.lock_account(person, &place)?;
        if place.slot.is_taken().map_err(Error::File)? {
            return Err(Error::Other(Fact::new("already-enrolled").or("somebody was faster")).into());
        }
        let holds = match grounds {
            Grounds::First => self.never_enrolled(person)?,
            // Nobody whose device was taken away meanwhile vouches for anybody.
            Grounds::Account(voucher, device) => {
                self.is_new_key(person)?
                    && self.load(voucher).is_ok_and(|record| {
                        // One of that name that was enrolled since has not been used.
                        record.device(device).is_some_and(|device| device.last_used.is_some())
                    })
            }
            Grounds::Ticket(word, ticket) => {
                !ticket.is_over(now) && place.tickets(person)?.claim(word).map_err(Error::File)?
            }
        };
        if !holds {
            return Err(Error::Other(Fact::new("not-invited").with("grounds", grounds.name())).into());
        }
        place.enrol(person, record, false)?;
        self.forget_tickets(person, &place);
        Ok(())
    }

    fn invite(&self, person: &Person, word: &RecoveryCode, ticket: &Ticket) -> Result<(), StoreError> {
        let place = self.place(person)?;
        let _locks = self.lock_account(person, &place)?;
        let tickets = Tickets::make(&place.state_dir, person).map_err(Error::File)?;
        Ok(tickets.put(word, ticket).map_err(Error::File)?)
    }

    fn withdraw(&self, person: &Person) -> Result<usize, StoreError> {
        let place = self.place(person)?;
        let _locks = self.lock_account(person, &place)?;
        Ok(place.tickets(person)?.withdraw().map_err(Error::File)?)
    }
}

impl Roster for SystemStore<'_> {
    fn people(&self) -> Result<Vec<Named>, StoreError> {
        Ok(self.named(|_| true)?)
    }

    fn check(&self) -> Result<(), StoreError> {
        // No record is called so.
        let place = self.place_of(String::new())?;
        Ok(place.locks().map(drop)?)
    }

    fn load_of_gone(&self, named: &Named) -> Result<Record, StoreError> {
        let place = self.place_of(named.file_name())?;
        let gone = || Error::NotEnrolled(Fact::new("not-enrolled").with_path(&place.slot.path()));
        Ok(place.read()?.ok_or_else(gone)?.value.document.record)
    }

    fn path_of(&self, named: &Named) -> PathBuf {
        self.state_dir.join(RECORDS).join(named.file_name())
    }

    fn sealed_with(&self, named: &Named) -> Result<Option<String>, StoreError> {
        let place = self.place_of(named.file_name())?;
        let key = |text: &[u8]| Ok::<_, Infallible>(native::sealed_with(text).map(str::to_owned));
        match place.slot.read(None, key) {
            Ok(held) => Ok(held.and_then(|held| held.value)),
            Err(Unread::File(error)) => Err(Error::File(error).into()),
            Err(Unread::Text(never)) => match never {},
        }
    }

    fn reseal(&self, named: &Named) -> Result<bool, StoreError> {
        let place = self.place_of(named.file_name())?;
        let _lock = place.lock()?;
        let Some(held) = place.read()? else { return Ok(false) };
        let Stored { document, is_current } = &held.value;
        if document.user != place.name {
            let fact = Fact::new("record-of-another").with_path(&place.slot.path()).with("user", &document.user);
            return Err(Error::Other(fact).into());
        }
        // The sibling of one that is not settled may yet be the record.
        if *is_current && held.is_settled() {
            place.slot.forget_the_old().map_err(Error::File)?;
            return Ok(false);
        }
        let generation = document.generation.saturating_add(1);
        place.put(&held, &Document { generation, ..document.clone() })?;
        Ok(!is_current)
    }
}

impl SystemStore<'_> {
    fn named(&self, is_meant: impl Fn(&Named) -> bool) -> Result<Vec<Named>, Error> {
        let records = self.state_dir()?.subdirectory(RECORDS)?.ok_or_else(|| self.no_store())?;
        let failed = |error| Error::File(records.file_error("", Problem::Failed("readdir", error)));
        let mut people = Vec::new();
        records.for_each_name(|name| people.extend(Person::of_file_name(name).filter(&is_meant))).map_err(failed)?;
        people.sort();
        Ok(people)
    }

    /// Somebody who has a record needs no ticket. Those of an account that several people share are theirs.
    fn forget_tickets(&self, person: &Person, place: &Place<'_>) {
        let Ok(tickets) = place.tickets(person) else { return };
        let is_shared = || self.people_of_account(person).map_or(true, |people| people.len() > 1);
        // They are good for nothing now, whether they can be removed or not.
        let _ = if person.key().is_some() || is_shared() { tickets.withdraw_own() } else { tickets.withdraw_usable() };
    }

    fn no_store(&self) -> Error {
        Error::NoStore(self.state_dir.to_owned())
    }

    /// The directory, if it is one of a store.
    fn state_dir(&self) -> Result<Directory, Error> {
        let state_dir = Directory::open(self.state_dir)?.ok_or_else(|| self.no_store())?;
        match state_dir.stat(STORE_ID) {
            Ok(stat) if private::is_file(&stat) && stat.st_uid == 0 && stat.st_size > 0 => Ok(state_dir),
            Ok(_) | Err(Errno::NOENT) => Err(self.no_store()),
            Err(error) => Err(state_dir.file_error(STORE_ID, Problem::Failed("stat", error)).into()),
        }
    }

    /// The lock of a person's account, where that is somebody else, and then that of the person: who is the first of an
    /// account, and whose a ticket is, is decided for one at a time.
    fn lock_account(&self, person: &Person, place: &Place<'_>) -> Result<(Option<RangeLock>, RangeLock), Error> {
        let account = match person.key() {
            Some(_) => Some(self.place(&person.account())?.lock()?),
            None => None,
        };
        Ok((account, place.lock()?))
    }

    /// Where a person's record is, in a store that is there.
    fn place(&self, person: &Person) -> Result<Place<'_>, Error> {
        self.place_of(person.file_name())
    }

    fn place_of(&self, name: String) -> Result<Place<'_>, Error> {
        let state_dir = self.state_dir()?;
        let records = state_dir.subdirectory(RECORDS)?.ok_or_else(|| self.no_store())?;
        let ratchet = Ratchet::new(&state_dir, "")?.ok_or_else(|| self.no_store())?;
        let slot = Slot::new(records, name.clone(), native::SIZE, native::SETTLED);
        Ok(Place { state_dir, ratchet, slot, name, ring: self.ring })
    }
}

/// A person's record, and what belongs to it.
struct Place<'a> {
    state_dir: Directory,
    ratchet: Ratchet,
    slot: Slot,
    /// What the file is called.
    name: String,
    #[cfg_attr(not(feature = "seal"), allow(dead_code))]
    ring: Option<&'a KeyRing>,
}

/// A record as it was read.
struct Stored {
    document: Document,
    /// Whether it is in the form in which it would be written: sealed with the active key, or plain where there is none.
    is_current: bool,
}

impl Place<'_> {
    /// Whoever it is of.
    fn read(&self) -> Result<Option<Held<Stored>>, Error> {
        self.read_again(None)
    }

    /// `known`: as it was before.
    fn read_again(&self, known: Option<Held<Stored>>) -> Result<Option<Held<Stored>>, Error> {
        self.slot.read(known, |text| self.parse(text)).map_err(|unread| match unread {
            Unread::File(error) => Error::File(error),
            Unread::Text(fact) => Error::Record(fact, self.slot.path()),
        })
    }

    fn parse(&self, text: &[u8]) -> Result<Stored, Fact> {
        #[cfg(feature = "seal")]
        if let Some(ring) = self.ring {
            return sealed::parse(ring, || self.context(), text);
        }
        let document = Document::parse(text).map_err(|bad| bad.fact())?;
        Ok(Stored { document, is_current: true })
    }

    /// The text of a record as it goes to the disk.
    fn text(&self, document: &Document) -> Result<Secret<Vec<u8>>, Error> {
        let text = document.text().map_err(|too_large| Error::Other(too_large.fact()))?;
        #[cfg(feature = "seal")]
        if let Some(ring) = self.ring.filter(|ring| ring.active().is_some()) {
            return sealed::text(ring, &self.context().map_err(Error::Other)?, &text).map_err(Error::Other);
        }
        Ok(text)
    }

    /// What a sealed record is about: this store, and the name of this file. Whose uid it is says the record itself.
    #[cfg(feature = "seal")]
    fn context(&self) -> Result<Vec<u8>, Fact> {
        let failed = |error| self.state_dir.file_error(STORE_ID, Problem::Failed("read", error)).fact();
        let id = self.state_dir.read(STORE_ID).map_err(failed)?.ok_or_else(|| failed(Errno::NOENT))?;
        Ok([id.expose().trim_ascii(), &[0], self.name.as_bytes()].concat())
    }

    fn load(&self, person: &Person) -> Result<Held<Stored>, Error> {
        self.load_again(person, None)
    }

    /// `known`: as it was before.
    fn load_again(&self, person: &Person, known: Option<Held<Stored>>) -> Result<Held<Stored>, Error> {
        let Some(held) = self.read_again(known)? else { return Err(Error::NotEnrolled(self.absence(person))) };
        let Document { user, uid, .. } = &held.value.document;
        if *user != person.file_name() || *uid != person.uid() {
            return Err(Error::Other(
                Fact::new("record-of-another")
                    .with_path(&self.slot.path())
                    .with("user", user)
                    .with_number("uid", uid)
                    .with_number("expected", person.uid())
                    .or("the name belongs to somebody else now: pam-totp reset --user NAME, and enrol"),
            ));
        }
        Ok(held)
    }

    /// Makes the record, or puts another in its place, and remembers that the person has one.
    fn enrol(&self, person: &Person, record: &Record, is_taken: bool) -> Result<(), Error> {
        let record = with_hashed_codes(record)?;
        check_room(person, &record)?;
        // First: there must be no moment at which somebody has a record and no mark.
        let marked = self.remember(person)?;
        self.write(person, &record, is_taken).inspect_err(|_| {
            if self.slot.is_taken().is_ok_and(|is_taken| !is_taken) {
                // Whoever may log in without a device may still.
                marked.iter().for_each(|who| drop(self.ratchet.release(who)));
            }
        })
    }

    /// Remembers for good that somebody has had a device, and of one who shares an account that the account has. Says of whom
    /// that was not known.
    fn remember(&self, person: &Person) -> Result<Vec<Person>, Error> {
        let mut people = vec![person.account(), person.clone()];
        people.dedup();
        let mut new = Vec::new();
        for who in people {
            let was_known = self.ratchet.has_enrolled(&who)?;
            self.ratchet.set(&who)?;
            new.extend((!was_known).then_some(who));
        }
        Ok(new)
    }

    fn write(&self, person: &Person, record: &Record, is_taken: bool) -> Result<(), Error> {
        if !is_taken {
            return Ok(self.slot.create(&self.text(&document(person, 1, record))?)?);
        }
        // Broken or not, what is there goes; readable, its generation goes on.
        let held = self.load(person).ok();
        let generation = held.as_ref().map_or(0, |held| held.value.document.generation).saturating_add(1);
        self.slot.replace(held.as_ref(), &self.text(&document(person, generation, record))?)?;
        Ok(self.slot.forget_the_old()?)
    }

    fn tickets(&self, person: &Person) -> Result<Tickets, Error> {
        Ok(Tickets::new(&self.state_dir, person)?)
    }

    fn absence(&self, person: &Person) -> Fact {
        match self.ratchet.has_enrolled(person) {
            Ok(true) => super::gone().with_path(&self.slot.path()),
            _ => Fact::new("not-enrolled").with_path(&self.slot.path()).or("enrol with: pam-totp enrol --user NAME"),
        }
    }

    fn locks(&self) -> Result<OwnedFd, Error> {
        let missing = || Error::Lock(NoLock::Failed(Errno::NOENT), self.state_dir.path(LOCKS));
        Ok(self.state_dir.open_file(LOCKS)?.ok_or_else(missing)?.0)
    }

    /// The person's byte of the lock file, which is the same for nobody else.
    fn lock(&self) -> Result<RangeLock, Error> {
        let file = self.locks()?;
        let digest = Sha256::digest(self.slot.path().file_name().unwrap_or_default().as_encoded_bytes());
        let at = digest.iter().take(8).fold(0_i64, |at, &byte| at << 8 | i64::from(byte)) & (i64::MAX >> 1);
        let failed = |error| Error::Lock(error, self.state_dir.path(LOCKS));
        RangeLock::take(file, at, &mut Patience::default()).map_err(failed)
    }

    /// Stores the next record in the place of what is held, which is nothing then: where there is another one to be stored,
    /// this one is read first.
    fn commit(&self, person: &Person, held: &mut Option<Held<Stored>>, next: &Record) -> Result<(), Error> {
        let before = held.take().map_or_else(|| self.load(person), Ok)?;
        let generation = before.value.document.generation.saturating_add(1);
        self.put(&before, &document(person, generation, next))
    }

    /// Puts a record in the place of one that was read. What had another form until now does not stay beside it.
    fn put(&self, before: &Held<Stored>, document: &Document) -> Result<(), Error> {
        self.slot.replace(Some(before), &self.text(document)?)?;
        if !before.value.is_current {
            self.slot.forget_the_old()?;
        }
        Ok(())
    }
}

/// Scratch codes of a home file are hashed like recovery codes.
pub(super) fn with_hashed_codes(record: &Record) -> Result<Record, Error> {
    let mut record = record.clone();
    if record.recovery.is_empty() {
        let salt = random::bytes().map_err(|error| Error::Other(Fact::new("no-random-numbers").with_error(error)))?;
        record.recovery = RecoveryCodes::new(salt, []);
    }
    let codes = std::mem::replace(&mut record.scratch, Arc::new(Secret::new(Vec::new())));
    for code in codes.expose() {
        record.recovery.add(Secret::new(code.to_string()).expose().as_bytes());
    }
    Ok(record)
}

/// A record that is full when it is stored would let nobody in: a login adds to it.
pub(super) fn check_room(person: &Person, record: &Record) -> Result<(), Error> {
    document(person, 0, record).check_room().map_err(|too_large| Error::Other(too_large.fact()))
}

pub(super) fn document(person: &Person, generation: u64, record: &Record) -> Document {
    Document { user: person.file_name(), uid: person.uid(), generation, record: record.clone() }
}

// ---- Setting it up ----

/// What a file system can promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// What is there can be written over: logins go on when the disk is full.
    InPlace(&'static str),
    /// It copies on write: a full disk denies logins.
    CopyOnWrite(&'static str),
    /// Nobody can say: locks, exchange and sync are somebody else's.
    Network(&'static str),
    /// Gone at the next boot.
    Memory(&'static str),
    /// By its magic number of statfs(2).
    Unknown(i64),
}

/// A store that was made ready.
#[derive(Debug)]
pub struct Made {
    /// What identifies it.
    pub id: String,
    /// Whether it was there already.
    pub was_there: bool,
    /// What it is on.
    pub file_system: FileSystem,
}

/// Makes a store ready: the directories, the lock file, and last the file that says that it is one. What is there stays.
///
/// # Errors
/// Why not; also where two files cannot exchange their names.
pub fn make(state_dir: &Path) -> Result<Made, Fact> {
    let fact = |error: FileError| error.fact();
    let directory = Directory::make(state_dir).map_err(fact)?;
    let directory = &directory;
    let failed = |name: &'static str, call: &'static str| {
        move |errno| directory.file_error(name, Problem::Failed(call, errno)).fact()
    };
    let records = directory.make_subdirectory(RECORDS).map_err(fact)?;
    Ratchet::make(directory, "").map_err(fact)?;
    drop(directory.lock_file(LOCKS).map_err(failed(LOCKS, "create"))?);
    try_exchange(&records)?;
    let file_system = file_system(directory).map_err(failed(".", "statfs"))?;
    let there = directory.read(STORE_ID).map_err(failed(STORE_ID, "read"))?;
    let id = there.map(|text| String::from_utf8_lossy(text.expose()).trim().to_owned()).filter(|id| !id.is_empty());
    if let Some(id) = id {
        return Ok(Made { id, was_there: true, file_system });
    }
    let bytes = random::bytes::<16>().map_err(failed(STORE_ID, "getrandom"))?;
    let id = native::hexadecimal(&bytes);
    directory
        .write_for_good(STORE_ID, "store.id.new", format!("{id}\n").as_bytes())
        .map_err(failed(STORE_ID, "write"))?;
    Ok(Made { id, was_there: false, file_system })
}

/// Two files exchange their names, as a record and its sibling will.
fn try_exchange(records: &Directory) -> Result<(), Fact> {
    let names = ["~one", "~two"];
    let tried = names
        .iter()
        .try_for_each(|name| {
            records.remove(name)?;
            records.create(name).map(drop)
        })
        .and_then(|()| records.exchange(names[0], names[1]))
        .and_then(|()| records.sync());
    let removed = names.iter().try_for_each(|name| records.remove(name));
    tried.and(removed).map_err(|error| {
        Fact::new("no-exchange")
            .with_path(&records.path(""))
            .with_error(error)
            .or("this file system cannot exchange two names at once (renameat2): put state_dir on ext4 or xfs")
    })
}

/// What there is on the file system of a `state_dir`.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// What it is.
    pub file_system: FileSystem,
    /// It is mounted so that nobody can write.
    pub is_read_only: bool,
    /// Bytes that anybody can still write. What is set aside is not in it: some of that is root's, some the file system's own.
    pub bytes: u64,
    /// Files that can still be made. `None`: it keeps no count.
    pub files: Option<u64>,
}

/// Looks at the file system of a directory.
///
/// # Errors
/// Why that cannot be told.
pub fn room(directory: &Directory) -> Result<Room, Errno> {
    let usage = directory.usage()?;
    Ok(Room {
        file_system: file_system(directory)?,
        is_read_only: usage.f_flag.contains(StatVfsMountFlags::RDONLY),
        bytes: usage.f_bavail.saturating_mul(usage.f_frsize),
        files: (usage.f_files > 0).then_some(usage.f_ffree),
    })
}

fn file_system(directory: &Directory) -> Result<FileSystem, Errno> {
    // statfs(2), and the kernel's own headers for what it leaves out.
    #[allow(clippy::useless_conversion)] // The type differs between architectures.
    let kind = i64::try_from(directory.file_system()?.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    Ok(match kind {
        0xEF53 => FileSystem::InPlace("ext4"),
        0x5846_5342 => FileSystem::InPlace("xfs"),
        0x9123_683E => FileSystem::CopyOnWrite("btrfs"),
        0x2FC1_2FC1 => FileSystem::CopyOnWrite("zfs"),
        0xCA45_1A4E => FileSystem::CopyOnWrite("bcachefs"),
        0xF2F5_2010 => FileSystem::CopyOnWrite("f2fs"),
        0x0102_1994 => FileSystem::Memory("tmpfs"),
        0x6969 => FileSystem::Network("nfs"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => FileSystem::Network("smb"),
        0x00C3_6400 => FileSystem::Network("ceph"),
        0x6573_5546 => FileSystem::Network("fuse"),
        0x0102_1997 => FileSystem::Network("9p"),
        0x0116_1970 => FileSystem::Network("gfs2"),
        0x7461_636F => FileSystem::Network("ocfs2"),
        other => FileSystem::Unknown(other),
    })
}

#[cfg(test)]
mod tests;
