//! What is counted a person and not forgotten after a day: failures in a row, failures in all, what to tell at the next
//! login; and marks of where somebody got in.

use super::table::{Subject, Time, Unwritable, read_label, write_label};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// At most so many codes of a device are wrong in a row, then it is disabled (NIST SP 800-63B-4 section 3.2.2).
pub const MAX_CONSECUTIVE: u64 = 100;

// A person: the tag, the counters, when the last code failed, the notice, the name.
const TAG: usize = 0;
const COUNTERS: usize = 1;
const LAST_FAILURE: usize = 2;
const NOTICE: usize = 3;
const NAME: usize = 4;
/// Words of a person.
pub(super) const PERSON: usize = 16;

/// The counters: failures in a row in the lower bits, all failures above them.
const ROW_BITS: u32 = 16;
const IN_A_ROW: u64 = (1 << ROW_BITS) - 1;
const BOTH: u64 = (1 << ROW_BITS) + 1;

/// A notice: the time in the lower bits, the number above them.
const TIME_BITS: u32 = 40;

/// What a person is told at a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// So many codes failed since the login before.
    pub failures: u64,
    /// The latest of them, in seconds since 1970.
    pub latest: u64,
}

/// The row of one person.
pub(super) struct Tally<'a> {
    row: &'a [AtomicU64],
    /// No row was left: several people share this one, and nobody is told about the failures of others.
    is_shared: bool,
}

impl<'a> Tally<'a> {
    /// The person's row in a bucket. A row is given away once and for good, in the order of the bucket, so that two
    /// processes that look for one at the same time get the same.
    pub(super) fn find(bucket: &'a [AtomicU64], subject: &Subject) -> Result<Self, Unwritable> {
        for row in bucket.chunks_exact(PERSON) {
            let tag = row.first().ok_or(Unwritable)?;
            match tag.compare_exchange(0, subject.tag, SeqCst, SeqCst) {
                Ok(_) => write_label(row.get(NAME..).unwrap_or_default(), &subject.label),
                Err(other) if other == subject.tag => {}
                Err(_) => continue,
            }
            return Ok(Self { row, is_shared: false });
        }
        let count = bucket.len().checked_div(PERSON).unwrap_or(0) as u64;
        let chosen = subject.tag.checked_rem(count).and_then(|chosen| usize::try_from(chosen).ok()).unwrap_or(0);
        bucket.chunks_exact(PERSON).nth(chosen).map(|row| Self { row, is_shared: true }).ok_or(Unwritable)
    }

    /// Counts a failure in advance. The counter is what [`take_back`] needs.
    pub(super) fn charge(&self) -> Result<&'a AtomicU64, super::Refusal> {
        let counters = self.word(COUNTERS)?;
        let next = |word: u64| (word & IN_A_ROW < MAX_CONSECUTIVE).then(|| word.wrapping_add(BOTH));
        match counters.fetch_update(SeqCst, SeqCst, next) {
            Ok(_) => Ok(counters),
            Err(_) => Err(super::Refusal::Disabled),
        }
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.in_a_row() >= MAX_CONSECUTIVE
    }

    /// Failures since the last login.
    pub(super) fn in_a_row(&self) -> u64 {
        self.load(COUNTERS) & IN_A_ROW
    }

    /// All failures that there ever were.
    pub(super) fn total(&self) -> u64 {
        self.load(COUNTERS) >> ROW_BITS
    }

    /// A code was wrong.
    pub(super) fn failed(&self, now: Time) {
        if let Ok(last) = self.word(LAST_FAILURE) {
            last.store(now.wall.into(), SeqCst);
        }
    }

    /// A code was right: what failed before is told next, and does not count any more.
    pub(super) fn logged_in(&self) {
        let (Ok(counters), Ok(notice)) = (self.word(COUNTERS), self.word(NOTICE)) else { return };
        let before = counters.fetch_and(!IN_A_ROW, SeqCst);
        let failures = before & IN_A_ROW;
        if failures > 0 && !self.is_shared {
            let latest = self.load(LAST_FAILURE) & ((1 << TIME_BITS) - 1);
            let add = |word: u64| Some((word >> TIME_BITS).saturating_add(failures) << TIME_BITS | latest);
            let _ = notice.fetch_update(SeqCst, SeqCst, add);
        }
    }

    pub(super) fn take_notice(&self) -> Option<Notice> {
        if self.is_shared {
            return None;
        }
        let word = self.word(NOTICE).ok()?.swap(0, SeqCst);
        let (failures, latest) = (word >> TIME_BITS, word & ((1 << TIME_BITS) - 1));
        (failures > 0).then_some(Notice { failures, latest })
    }

    fn word(&self, at: usize) -> Result<&'a AtomicU64, Unwritable> {
        self.row.get(at).ok_or(Unwritable)
    }

    fn load(&self, at: usize) -> u64 {
        self.row.get(at).map_or(0, |word| word.load(SeqCst))
    }

    /// A row for somebody who lists them: the name and the failures in a row.
    pub(super) fn read(row: &[AtomicU64]) -> Option<(Vec<u8>, u64)> {
        let person = Tally { row, is_shared: false };
        (person.load(TAG) != 0 && person.in_a_row() > 0)
            .then(|| (read_label(row.get(NAME..).unwrap_or_default()), person.in_a_row()))
    }

    /// Forgets the failures in a row.
    pub(super) fn clear(row: &[AtomicU64]) {
        if let Some(counters) = row.get(COUNTERS) {
            counters.fetch_and(!IN_A_ROW, SeqCst);
        }
    }
}

/// Takes one failure back that was counted in advance, unless a login has taken it out of the count of those in a row.
pub(super) fn take_back(counters: &AtomicU64) {
    let less = |word: u64| {
        let in_a_row = (word & IN_A_ROW).saturating_sub(1);
        Some((word >> ROW_BITS).saturating_sub(1) << ROW_BITS | in_a_row)
    };
    let _ = counters.fetch_update(SeqCst, SeqCst, less);
}

// A mark: the tag, when, what it was made with, all failures of the person until then.
const WHEN: usize = 1;
const FACTORS: usize = 2;
const TOTAL: usize = 3;
/// Words of a mark.
pub(super) const MARK: usize = 4;
/// The tag of a mark that is being written. If whoever wrote it was killed, it is nobody's.
const IN_WRITING: u64 = 1;

/// Whose mark.
pub(super) struct MarkKey {
    pub(super) tag: u64,
    pub(super) hash: u64,
}

/// Somebody got in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// A [`Time`] as a word.
    pub(super) when: u64,
    pub(super) factors: u64,
    pub(super) total: u64,
}

impl Mark {
    pub(super) fn find(bucket: &[AtomicU64], key: &MarkKey) -> Option<Self> {
        let row = bucket.chunks_exact(MARK).find(|row| tag(row) == key.tag)?;
        let load = |at: usize| row.get(at).map(|word| word.load(SeqCst));
        let mark = Self { when: load(WHEN)?, factors: load(FACTORS)?, total: load(TOTAL)? };
        // Somebody may have begun to write it anew.
        (tag(row) == key.tag).then_some(mark)
    }

    /// Makes or renews a mark, in its own row, in a free one, or in that of the oldest mark.
    pub(super) fn set(bucket: &[AtomicU64], key: &MarkKey, now: Time, factors: u64, total: u64) {
        let when = |row: &[AtomicU64]| row.get(WHEN).map_or(0, |word| word.load(SeqCst));
        let rows = || bucket.chunks_exact(MARK);
        let own = rows().find(|row| tag(row) == key.tag);
        let Some(row) = own.or_else(|| rows().min_by_key(|row| if tag(row) <= IN_WRITING { 0 } else { when(row) }))
        else {
            return;
        };
        let store = |at: usize, value: u64| {
            if let Some(word) = row.get(at) {
                word.store(value, SeqCst);
            }
        };
        store(TAG, IN_WRITING);
        store(WHEN, now.word());
        store(FACTORS, factors);
        store(TOTAL, total);
        store(TAG, key.tag);
    }
}

fn tag(row: &[AtomicU64]) -> u64 {
    row.first().map_or(0, |tag| tag.load(SeqCst))
}
