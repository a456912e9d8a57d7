//! Failures, a person and a source: charged before a code is judged, given back if it was right.
//!
//! | part of the table | a row for | what it is for |
//! |---|---|---|
//! | known | each person | failures from sources where the person got in within the last 30 days |
//! | strangers | each person | all other failures; these never block a known source |
//! | shared | a group of names | strangers' failures of names that do not exist, and of people for whom there is no row left |
//! | known, shared | a group of people | failures from known sources of people for whom there is no row left |
//! | sources | each source | failures from there, whoever was tried; these never block a person's known source |
//! | people | each person | failures since the last login, and all that there ever were (with a shared part, too) |
//! | marks | a person and a source | when the person last got in from there; with a service, what `grace` needs |
//!
//! Counts survive the process, and where the disk does, the boot. They need not survive a power cut, so nothing waits for
//! the disk. A table that is missing or broken is made anew: that loses counts and gives no permission.

mod people;
mod table;

use crate::fact::Fact;
use crate::identity::Person;
use crate::policy::throttle::{MAX_PERIOD, Throttle, Trigger};
use crate::policy::values::DAY;
use crate::source::Source;
use crate::system::Errno;
use crate::system::clock::Moment;
use crate::system::files::{FileError, Problem};
use crate::system::private::{Directory, RUN};
use crate::system::random;
use crate::system::table::Table;
use hmac::{Hmac, KeyInit, Mac};
use people::{Mark, MarkKey, Tally};
use sha1::Sha1;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use table::{Admission, Entry, LABEL, ROW, Region, Rows, Subject, Time};

pub use people::{MAX_CONSECUTIVE, Notice};
pub use table::{Memory, Unwritable};

/// The file in `state_dir`. Another layout gets another name: while a host is updated, processes with both are at work.
pub const FILE: &str = "ledger-1";

/// The name of a row that several people share.
const SEVERAL: &[u8] = b"(several)";

// The layout, in words.
const MAGIC: u64 = u64::from_be_bytes(*b"pam_totp");
const SHAPE: u64 = 1;
const HEADER: usize = 512;
const KEY: Range<usize> = 2..4;
const BASE: usize = 4;
const LATEST: usize = 5;
const HIGHEST: usize = 6;
const LONGEST: usize = 7;
const KNOWN: Region = Region { start: HEADER, buckets: 256, rows: 8, width: ROW };
const STRANGERS: Region = Region { start: KNOWN.end(), buckets: 256, rows: 8, width: ROW };
const SHARED: Region = Region { start: STRANGERS.end(), buckets: 256, rows: 1, width: ROW };
const KNOWN_SHARED: Region = Region { start: SHARED.end(), buckets: 256, rows: 1, width: ROW };
const SOURCES: Region = Region { start: KNOWN_SHARED.end(), buckets: 512, rows: 8, width: ROW };
const PEOPLE: Region = Region { start: SOURCES.end(), buckets: 512, rows: 16, width: people::PERSON };
const PEOPLE_SHARED: Region = Region { start: PEOPLE.end(), buckets: 256, rows: 1, width: people::PERSON };
const MARKS: Region = Region { start: PEOPLE_SHARED.end(), buckets: 256, rows: 64, width: people::MARK };
/// Words of the whole: 11 MB.
pub const LENGTH: usize = MARKS.end();

/// 2026-01-01: this program is younger than a clock that shows less, so that what is over at that time is over.
pub const EARLIEST: u64 = 1_767_225_600;
/// How long a source stays known after a login from there.
pub const KNOWN_FOR: u64 = 30 * DAY;
/// Failures are remembered for at least so long, for whoever lists them.
const KEEP: u64 = DAY;
/// A machine that has been running for longer than this (34 years) is not a machine.
const LONGEST_UPTIME: u64 = 1 << 30;
/// A guess that took longer than this, in seconds, from the look at the clock until it was written down is written down anew:
/// somebody stopped it, so that it would be too old to count when it is judged.
const PROMPTLY: u32 = 5;
/// How often that is done.
const TRIES: usize = 100;
/// A grace period ends with so many failures of the person, wherever they came from.
pub(crate) const GRACE_FAILURES: u64 = 3;

/// What stands in the place of a key for those whose key has no device. No key is called so.
pub(crate) const NEWCOMERS: &str = "new-keys";

/// Who is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who<'a> {
    /// Somebody who exists.
    Person {
        /// The canonical name.
        name: &'a [u8],
        /// The uid; of whoever owns the files, with `user=`.
        uid: u32,
        /// The key that says which of the people of an account this is; empty for the account itself.
        key: &'a str,
        /// A name that is in no user database (`user=`).
        is_virtual: bool,
    },
    /// A name that nobody has.
    Nobody(&'a [u8]),
}

impl<'a> Who<'a> {
    /// Somebody who was identified.
    pub fn of(person: &'a Person) -> Self {
        Self::Person {
            name: person.name(),
            uid: person.uid(),
            key: person.key().unwrap_or_default(),
            is_virtual: person.is_virtual(),
        }
    }

    /// All together who come with a key of somebody's account and have no device. They are nobody with a device: neither the
    /// account itself nor one of its people is locked out by them.
    pub fn newcomers(person: &'a Person) -> Self {
        Self::Person { name: person.name(), uid: person.uid(), key: NEWCOMERS, is_virtual: person.is_virtual() }
    }

    pub(crate) const fn name(self) -> &'a [u8] {
        match self {
            Self::Person { name, .. } | Self::Nobody(name) => name,
        }
    }
}

/// One login, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Who is tried.
    pub who: Who<'a>,
    /// From where.
    pub source: &'a Source,
    /// PAM_SERVICE.
    pub service: &'a str,
    /// By which rules. `None`: by none.
    pub throttle: Option<&'a Throttle>,
    /// What the person's own file allows besides (`RATE_LIMIT`).
    pub own_limit: Option<Trigger>,
}

impl Login<'_> {
    pub(crate) fn user_triggers(&self) -> Vec<Trigger> {
        let triggers = |throttle: &Throttle| throttle.user.triggers(self.who.name(), self.service.as_bytes());
        self.throttle.map_or_else(Vec::new, triggers).into_iter().chain(self.own_limit).collect()
    }

    pub(crate) fn host_triggers(&self) -> Vec<Trigger> {
        let triggers = |throttle: &Throttle| throttle.host.triggers(self.who.name(), self.service.as_bytes());
        self.throttle.map_or_else(Vec::new, triggers)
    }

    pub(crate) fn is_user_spared(&self) -> bool {
        self.throttle.is_none_or(|throttle| throttle.spares_user(self.who.name(), self.service.as_bytes()))
    }

    pub(crate) fn is_source_spared(&self) -> bool {
        self.throttle.is_none_or(|throttle| throttle.spares_source(self.source))
    }
}

/// What a try has cost, as whoever has made it keeps it: also in another process, where a login goes on there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a charge stands until it is taken back"]
pub struct Receipt {
    /// Which words of the table, and what was written there.
    pub entries: Vec<(u32, u64)>,
    /// Which word counts the person's failures.
    pub counter: Option<u32>,
}

/// A charge in the table.
#[derive(Default)]
struct Charge<'a> {
    entries: Vec<Entry<'a>>,
    counter: Option<&'a AtomicU64>,
}

/// What counts the guesses of logins.
pub trait Ledger {
    /// Charges a guess, before it is judged.
    ///
    /// # Errors
    /// [`Refusal`]: it must not be judged, and has cost nothing.
    fn charge(&self, login: &Login) -> Result<Receipt, Refusal>;

    /// Charges the source alone: for what cannot be a code, and so is no guess at a person's.
    fn charge_source(&self, login: &Login);

    /// A charge that stands: the code was wrong, or could not be judged.
    fn keep(&self, login: &Login, receipt: Receipt);

    /// Takes a charge back, and nothing else: it was no guess. What cannot be found stands.
    fn take_back(&self, login: &Login, receipt: Receipt);

    /// A right code takes back what this login was charged, and nothing else. From here on the source is known, and with
    /// `grace` it is not asked for a while.
    ///
    /// # Errors
    /// [`Unwritable`]: the source is not known, and has no grace.
    fn give_back(&self, login: &Login, receipts: Vec<Receipt>, grace: Option<&Grace>) -> Result<(), Unwritable>;

    /// Whether the person got in here lately enough not to be asked: with the same factors, while nothing blocks them, and
    /// with less than three failures since.
    fn has_grace(&self, login: &Login, grace: &Grace) -> bool;

    /// Whether so many codes of a person failed in a row that the device is disabled. Where that cannot be said, it is.
    fn is_disabled(&self, who: Who) -> bool;

    /// Takes the notice for a person who has just got in: what failed since the last time.
    fn take_notice(&self, who: Who) -> Option<Notice>;

    /// The wall clock, or the latest time that it ever showed: what opens something until a date must not open it again
    /// when the clock is set back.
    fn latest_wall(&self) -> u64;
}

/// Why a try is not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The person's rule.
    Person(Trigger),
    /// The source's rule.
    Source(Trigger),
    /// A hundred failures in a row: the device is disabled until root says otherwise.
    Disabled,
    /// The ledger cannot be written.
    Unwritable,
    /// There is no ledger to be had, for this reason.
    Unreachable(Fact),
}

impl From<Unwritable> for Refusal {
    fn from(_: Unwritable) -> Self {
        Self::Unwritable
    }
}

/// What grace depends on besides person and source.
#[derive(Debug, Clone, Copy)]
pub struct Grace<'a> {
    /// Seconds.
    pub period: u64,
    /// What else has to be the same: what sshd says about the login key, or whom the caller becomes.
    pub circumstances: &'a [u8],
    /// What the person's secret is a part of: with another secret there is no grace.
    pub factors: &'a [u8],
    /// The circumstances alone have to be the same, and neither service nor source: the key by which somebody came to another host
    /// of a fleet. A host by itself knows of no other.
    pub is_elsewhere: bool,
}

/// The ledger of this host.
pub struct HostLedger<M, C> {
    memory: M,
    clock: C,
    /// With the key of the table in it, once somebody was looked for.
    mac: OnceLock<Option<Hmac<Sha1>>>,
}

impl Memory for Table {
    fn words(&self) -> &[AtomicU64] {
        self
    }

    fn prepare(&self, words: Range<usize>) -> bool {
        Table::prepare(self, words).is_ok()
    }
}

/// A ledger that was opened.
pub struct Opened<C> {
    /// It.
    pub ledger: HostLedger<Table, C>,
    /// What an operator should know about it.
    pub remark: Option<&'static str>,
}

/// Opens the ledger of a `state_dir`, makes what is missing, and where there is no writing at all (a read-only or full file
/// system) keeps to one in /run until the next boot.
///
/// # Errors
/// [`FileError`].
pub fn open<C: Fn() -> Moment>(state_dir: &Path, clock: C) -> Result<Opened<C>, FileError> {
    let (memory, remark) = match table(state_dir) {
        Ok((table, false)) => (table, None),
        Ok((table, true)) => (table, Some("ledger-made-anew")),
        Err(error) if is_full_or_read_only(&error) => match table(Path::new(RUN)) {
            Ok((table, _)) => (table, Some("ledger-until-next-boot")),
            Err(_) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    Ok(Opened { ledger: HostLedger { memory, clock, mac: OnceLock::new() }, remark })
}

/// What a login would find in the place of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it makes one.
    Nothing,
    /// A ledger.
    Ledger,
    /// Something cut short or mixed up, which it replaces: what was counted is lost.
    Garbage,
}

/// Looks at the ledger of a `state_dir` without making or replacing anything.
///
/// # Errors
/// [`FileError`]: a login would fail so.
pub fn look(state_dir: &Directory) -> Result<Found, FileError> {
    let Some((file, stat)) = state_dir.open_file(FILE)? else { return Ok(Found::Nothing) };
    let failed = |error| state_dir.file_error(FILE, Problem::Failed("read", error));
    if usize::try_from(stat.st_size).is_ok_and(|size| Some(size) == LENGTH.checked_mul(size_of::<u64>())) {
        let mut header = Vec::new();
        let most = HEADER.saturating_mul(size_of::<u64>()) as u64;
        let read = File::from(file).take(most).read_to_end(&mut header);
        read.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let words: Vec<_> = header.as_chunks().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect();
        if is_good(&words) {
            return Ok(Found::Ledger);
        }
    }
    Ok(Found::Garbage)
}

fn table(directory: &Path) -> Result<(Table, bool), FileError> {
    let directory = Directory::make(directory)?;
    let (table, is_anew) = Table::open(&directory, FILE, LENGTH, new_header, is_good)?;
    let unwritable = |error| FileError { path: directory.path(FILE), problem: Problem::Failed("madvise", error) };
    table.prepare(0..HEADER).map_err(unwritable)?;
    Ok((table, is_anew))
}

fn is_full_or_read_only(error: &FileError) -> bool {
    matches!(error.problem, Problem::Failed(_, Errno::ROFS | Errno::NOSPC | Errno::DQUOT))
}

/// All that is not 0: what is here, the key, and in the place of [`HIGHEST`] the latest time that is known.
fn new_header() -> Result<Vec<u64>, Errno> {
    let [one, two] = [random::bytes()?, random::bytes()?].map(u64::from_ne_bytes);
    Ok(vec![MAGIC, SHAPE, one, two, 0, 0, EARLIEST])
}

fn is_good(words: &[AtomicU64]) -> bool {
    let word = |at: usize| words.get(at).map_or(0, |word| word.load(SeqCst));
    let is_plausible = word(LATEST) < LONGEST_UPTIME && word(BASE) < LONGEST_UPTIME;
    word(0) == MAGIC && word(1) == SHAPE && KEY.clone().any(|at| word(at) != 0) && is_plausible
}

impl<M: Memory, C: Fn() -> Moment> Ledger for HostLedger<M, C> {
    fn charge(&self, login: &Login) -> Result<Receipt, Refusal> {
        for _ in 0..TRIES {
            let now = self.now();
            let charge = self.charge_at(now, login)?;
            if self.now().uptime.saturating_sub(now.uptime) <= PROMPTLY {
                return Ok(self.receipt(&charge));
            }
            charge.take_back();
        }
        Err(Refusal::Unwritable)
    }

    fn charge_source(&self, login: &Login) {
        let now = self.now();
        let mut charge = Charge::default();
        // Whoever is over the limit has nothing left to be charged for.
        let _ = self.charge_source_in(&self.rows(now, login.throttle), login, false, &mut charge);
    }

    fn keep(&self, login: &Login, receipt: Receipt) {
        if receipt.counter.is_some()
            && let now = self.now()
            && let Ok(tally) = self.tally(login.who, now)
        {
            tally.failed(now);
        }
    }

    fn take_back(&self, _: &Login, receipt: Receipt) {
        self.charge_of(&receipt).take_back();
    }

    fn give_back(&self, login: &Login, receipts: Vec<Receipt>, grace: Option<&Grace>) -> Result<(), Unwritable> {
        receipts.iter().for_each(|receipt| self.charge_of(receipt).take_back());
        let now = self.now();
        let person = self.person(login.who);
        let tally = self.tally_of(&person, now)?;
        tally.logged_in();
        let key = self.mark_key(&person, &known_parts(&person, login));
        Mark::set(MARKS.bucket(&self.memory, key.owner)?, &key, now, 0, 0);
        if let Some(grace) = grace {
            let key = self.mark_key(&person, &grace_parts(&person, login, grace));
            let factors = self.hash("factors", &[grace.factors]).0;
            Mark::set(MARKS.bucket(&self.memory, key.owner)?, &key, now, factors, tally.total());
        }
        Ok(())
    }

    fn has_grace(&self, login: &Login, grace: &Grace) -> bool {
        if grace.is_elsewhere {
            return false;
        }
        let now = self.now();
        let person = self.person(login.who);
        let key = self.mark_key(&person, &grace_parts(&person, login, grace));
        let Ok(bucket) = MARKS.bucket(&self.memory, key.owner) else { return false };
        let Some(mark) = Mark::find(bucket, &key) else { return false };
        let factors = self.hash("factors", &[grace.factors]).0;
        let Ok(tally) = self.tally_of(&person, now) else { return false };
        let failures = tally.total().wrapping_sub(mark.total);
        now.longest_since(mark.when, self.latest_wall()).is_some_and(|age| age < grace.period)
            && mark.factors == factors
            && failures < GRACE_FAILURES
            && !tally.is_disabled()
            && !self.is_blocked(login, now)
    }

    fn is_disabled(&self, who: Who) -> bool {
        self.tally(who, self.now()).map_or(true, |tally| tally.is_disabled())
    }

    fn take_notice(&self, who: Who) -> Option<Notice> {
        self.tally(who, self.now()).ok()?.take_notice()
    }

    fn latest_wall(&self) -> u64 {
        let now = self.now();
        self.word(HIGHEST).map_or(u64::MAX, |word| word.load(SeqCst).max(now.wall))
    }
}

impl<M: Memory, C: Fn() -> Moment> HostLedger<M, C> {
    fn charge_at(&self, now: Time, login: &Login) -> Result<Charge<'_>, Refusal> {
        let person = self.person(login.who);
        let is_known = self.is_known(&person, login, now);
        let rows = self.rows(now, login.throttle);
        let mut charge = Charge::default();
        let result = self
            .charge_source_in(&rows, login, is_known, &mut charge)
            .and_then(|()| self.charge_person(&rows, &person, login, is_known, &mut charge));
        match result {
            Ok(()) => Ok(charge),
            Err(refusal) => {
                charge.take_back();
                Err(refusal)
            }
        }
    }

    fn charge_source_in<'a>(
        &'a self,
        rows: &Rows<'a, M>,
        login: &Login,
        is_known: bool,
        charge: &mut Charge<'a>,
    ) -> Result<(), Refusal> {
        if login.is_source_spared() {
            return Ok(());
        }
        let triggers = login.host_triggers();
        match rows.admit(SOURCES, &self.source(login.source), if is_known { &[] } else { &triggers })? {
            Admission::Counted(entry) => charge.entries.push(entry),
            Admission::Reached(trigger) => return Err(Refusal::Source(trigger)),
            // Sources over the bound go uncounted: what binds is the person's row.
            Admission::NoRoom => {}
        }
        Ok(())
    }

    fn charge_person<'a>(
        &'a self,
        rows: &Rows<'a, M>,
        person: &Subject,
        login: &Login,
        is_known: bool,
        charge: &mut Charge<'a>,
    ) -> Result<(), Refusal> {
        let name = login.who.name();
        if !login.is_user_spared() {
            let triggers = login.user_triggers();
            let (region, shared) = if is_known { (KNOWN, KNOWN_SHARED) } else { (STRANGERS, SHARED) };
            let own = match login.who {
                Who::Person { .. } => rows.admit(region, person, &triggers)?,
                Who::Nobody(_) => Admission::NoRoom,
            };
            let admission = match own {
                Admission::NoRoom => rows.admit(shared, &self.shared(name), &triggers)?,
                own => own,
            };
            match admission {
                Admission::Counted(entry) => charge.entries.push(entry),
                Admission::Reached(trigger) => return Err(Refusal::Person(trigger)),
                // A shared row is never somebody else's.
                Admission::NoRoom => return Err(Refusal::Unwritable),
            }
        }
        if let Who::Person { .. } = login.who {
            charge.counter = Some(self.tally_of(person, rows.now)?.charge()?);
        }
        Ok(())
    }

    /// What [`HostLedger::charge_of`] makes the charge again from. Whoever loses it has paid.
    fn receipt(&self, charge: &Charge) -> Receipt {
        let start = self.memory.words().as_ptr().addr();
        let place = |word: &AtomicU64| {
            let bytes = std::ptr::from_ref(word).addr().checked_sub(start)?;
            u32::try_from(bytes.checked_div(size_of::<u64>())?).ok()
        };
        let entries = charge.entries.iter().filter_map(|entry| Some((place(entry.slot)?, entry.word))).collect();
        Receipt { entries, counter: charge.counter.and_then(place) }
    }

    /// The charge of a receipt. What cannot be found stands.
    fn charge_of(&self, receipt: &Receipt) -> Charge<'_> {
        let word = |place: u32| {
            let place = usize::try_from(place).ok().filter(|place| *place >= HEADER)?;
            let word = self.memory.words().get(place)?;
            self.memory.prepare(place..place.saturating_add(1)).then_some(word)
        };
        let entry = |&(place, written): &(u32, u64)| Some(Entry { slot: word(place)?, word: written });
        Charge { entries: receipt.entries.iter().filter_map(entry).collect(), counter: receipt.counter.and_then(word) }
    }

    /// Whether the person's known sources are blocked, by their own row or by the one for those who have none.
    fn is_blocked(&self, login: &Login, now: Time) -> bool {
        let (rows, triggers) = (self.rows(now, login.throttle), login.user_triggers());
        let places = [(KNOWN, self.person(login.who)), (KNOWN_SHARED, self.shared(login.who.name()))];
        places.iter().any(|(region, subject)| rows.is_reached(*region, subject, &triggers) != Ok(None))
    }

    /// Whether the person got in from this source lately.
    fn is_known(&self, person: &Subject, login: &Login, now: Time) -> bool {
        let Who::Person { .. } = login.who else { return false };
        let key = self.mark_key(person, &known_parts(person, login));
        let mark = MARKS.bucket(&self.memory, key.owner).ok().and_then(|bucket| Mark::find(bucket, &key));
        mark.and_then(|mark| now.since(mark.when)).is_some_and(|age| age < KNOWN_FOR)
    }

    // ---- Time ----

    /// The present, in the ledger's time. A boot goes on where the last one ended.
    fn now(&self) -> Time {
        let at = |index: usize| self.word(index);
        let (Some(base), Some(latest), Some(highest)) = (at(BASE), at(LATEST), at(HIGHEST)) else {
            return Time { uptime: 0, wall: 0 };
        };
        // Before the clock is read, or somebody who is stopped in between would take the present for another boot.
        let (started, before) = (base.load(SeqCst), latest.load(SeqCst));
        let moment = (self.clock)();
        let mut uptime = started.saturating_add(moment.boot);
        if uptime >= LONGEST_UPTIME {
            // A clock that says so is none, and nothing gets older by it.
            uptime = before;
        } else if uptime < before {
            // Another boot. Where somebody else has noticed already, theirs counts.
            let _ = base.compare_exchange(started, before.saturating_sub(moment.boot), SeqCst, SeqCst);
            uptime = before;
        }
        latest.fetch_max(uptime, SeqCst);
        highest.fetch_max(moment.wall, SeqCst);
        // One less than there are, as a word is never 0.
        Time { uptime: u32::try_from(uptime).unwrap_or(u32::MAX).min(u32::MAX.saturating_sub(1)), wall: moment.wall }
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.memory.words().get(index)
    }

    fn rows<'a>(&'a self, now: Time, throttle: Option<&Throttle>) -> Rows<'a, M> {
        // What one policy forgets another may still count.
        let longest = throttle.map_or(0, |rules| rules.user.longest_period().max(rules.host.longest_period()));
        let before = self.word(LONGEST).map_or(0, |word| word.fetch_max(longest, SeqCst));
        let keep = longest.max(before).clamp(KEEP, MAX_PERIOD);
        Rows { memory: &self.memory, now, keep, latest: self.word(LATEST) }
    }

    // ---- Subjects ----

    fn tally(&self, who: Who, now: Time) -> Result<Tally<'_>, Unwritable> {
        self.tally_of(&self.person(who), now)
    }

    fn tally_of(&self, person: &Subject, now: Time) -> Result<Tally<'_>, Unwritable> {
        match Tally::find(PEOPLE.bucket(&self.memory, person.hash)?, person, now) {
            Some(tally) => Ok(tally),
            None => Tally::shared(PEOPLE_SHARED.bucket(&self.memory, person.hash)?).ok_or(Unwritable),
        }
    }

    fn person(&self, who: Who) -> Subject {
        match who {
            Who::Person { name, uid, key, is_virtual } => {
                let parts: [&[u8]; 4] = [&uid.to_be_bytes(), &[u8::from(is_virtual)], name, key.as_bytes()];
                self.subject("person", &parts, &label(name, key))
            }
            Who::Nobody(name) => self.shared(name),
        }
    }

    fn source(&self, source: &Source) -> Subject {
        self.subject("source", &[&source.key()], source.to_string().as_bytes())
    }

    /// The row is chosen by the name, and is that of all names that choose it.
    fn shared(&self, name: &[u8]) -> Subject {
        let (_, hash) = self.hash("shared", &[name]);
        Subject { tag: u64::MAX, hash, label: SEVERAL.to_vec() }
    }

    fn mark_key(&self, person: &Subject, parts: &[Vec<u8>]) -> MarkKey {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        MarkKey { tag: self.hash("mark", &parts).0, owner: person.hash }
    }

    fn subject(&self, kind: &str, parts: &[&[u8]], label: &[u8]) -> Subject {
        let (tag, hash) = self.hash(kind, parts);
        Subject { tag, hash, label: label.iter().copied().take(LABEL).collect() }
    }

    /// Two numbers that nobody can foresee who does not have the table.
    fn hash(&self, kind: &str, parts: &[&[u8]]) -> (u64, u64) {
        let keyed = || {
            let words = KEY.filter_map(|at| self.word(at));
            let key: Vec<u8> = words.flat_map(|word| word.load(SeqCst).to_ne_bytes()).collect();
            Hmac::new_from_slice(&key).ok()
        };
        let Some(mut mac) = self.mac.get_or_init(keyed).clone() else { return (2, 0) };
        for part in [&[kind.as_bytes()], parts].concat() {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let digest = mac.finalize().into_bytes();
        let number =
            |from: usize| digest.iter().skip(from).take(8).fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        (number(0).max(2), number(8))
    }
}

/// The same, of whom a file is.
#[cfg(feature = "fleet")]
pub(crate) fn label_of_file(name: &str) -> Vec<u8> {
    match Person::of_file_name(name) {
        Some(named) => label(&named.name, named.key.as_deref().unwrap_or_default()),
        None => label(name.as_bytes(), ""),
    }
}

/// What a list shows of a person: the name, and behind a comma the key of one who shares it. Of what is too long for a row
/// the key stays whole.
fn label(name: &[u8], key: &str) -> Vec<u8> {
    if key.is_empty() {
        return name.get(..LABEL).unwrap_or(name).to_vec();
    }
    let room = LABEL.saturating_sub(key.len().saturating_add(1));
    let mut label = [name.get(..room).unwrap_or(name), b",", key.as_bytes()].concat();
    label.truncate(LABEL);
    label
}

fn known_parts(person: &Subject, login: &Login) -> [Vec<u8>; 2] {
    [person.tag.to_be_bytes().to_vec(), login.source.key()]
}

fn grace_parts(person: &Subject, login: &Login, grace: &Grace) -> [Vec<u8>; 4] {
    let [person, source] = known_parts(person, login);
    [person, source, login.service.as_bytes().to_vec(), grace.circumstances.to_vec()]
}

impl Charge<'_> {
    /// Takes it back, and nothing else.
    fn take_back(self) {
        self.entries.into_iter().for_each(Entry::take_back);
        if let Some(counter) = self.counter {
            people::take_back(counter);
        }
    }
}

mod listing;
pub use listing::{Kept, Kind, Listed};

#[cfg(test)]
pub(crate) mod tests;
