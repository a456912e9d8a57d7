//! What is counted a person and not forgotten after a day: failures in a row, failures in all, what to tell at the next
//! login; and marks of where somebody got in.

use super::table::{Subject, Time, Unwritable, read_label, write_label};
use crate::system::random;
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
    /// The latest of them, in seconds since 1970. 0: nobody wrote it down.
    pub latest: u64,
}

/// The row of one person.
pub(super) struct Tally<'a> {
    row: &'a [AtomicU64],
    /// No row was left: several people share this one, and nobody is told about the failures of others.
    is_shared: bool,
}

impl<'a> Tally<'a> {
    /// The person's row in a bucket: their own, one that nobody has, or one of somebody who has no failures outstanding and
    /// had none for long, be it that nobody has told them of those before. `None`: there is none.
    ///
    /// Rows are looked at in their order, so that two processes that look for one at the same time get the same, unless just
    /// then a row before it becomes free: then what the later one counted is lost, which the other limits make up for.
    pub(super) fn find(bucket: &'a [AtomicU64], subject: &Subject, now: Time) -> Option<Self> {
        let rows = || bucket.chunks_exact(PERSON).map(|row| Self { row, is_shared: false });
        let tag = |tally: &Self| tally.load(TAG);
        let own = rows().find(|tally| tag(tally) == subject.tag);
        if let Some(own) = own {
            own.write_missing_label(subject);
            return Some(own);
        }
        rows().find_map(|tally| {
            let (before, notice) = (tag(&tally), tally.load(NOTICE));
            // By the time of the exchange somebody else may have made it this person's, too.
            let is_ours = (before == 0 || tally.is_idle(now))
                && match tally.row.first()?.compare_exchange(before, subject.tag, SeqCst, SeqCst) {
                    Ok(_) => {
                        tally.untold(notice);
                        write_label(tally.row.get(NAME..).unwrap_or_default(), &subject.label);
                        true
                    }
                    Err(other) => other == subject.tag,
                };
            is_ours.then_some(tally)
        })
    }

    /// A row that several people share.
    pub(super) fn shared(bucket: &'a [AtomicU64]) -> Option<Self> {
        bucket.chunks_exact(PERSON).next().map(|row| Self { row, is_shared: true })
    }

    /// Whoever made the row was killed before the name was in it.
    fn write_missing_label(&self, subject: &Subject) {
        let name = self.row.get(NAME..).unwrap_or_default();
        if read_label(name).is_empty() {
            write_label(name, &subject.label);
        }
    }

    fn is_idle(&self, now: Time) -> bool {
        let age = now.wall.saturating_sub(self.load(LAST_FAILURE));
        self.in_a_row() == 0 && age >= super::KNOWN_FOR
    }

    /// Forgets what was to be told, unless there is more by now.
    fn untold(&self, notice: u64) {
        if let Ok(word) = self.word(NOTICE) {
            let _ = word.compare_exchange(notice, 0, SeqCst, SeqCst);
        }
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

    #[cfg(test)]
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
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
            last.store(now.wall, SeqCst);
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
        load(self.row, at)
    }

    /// A row for somebody who lists them: the name and the failures in a row.
    pub(super) fn read(row: &[AtomicU64]) -> Option<(Vec<u8>, u64)> {
        let person = Tally { row, is_shared: false };
        (person.load(TAG) != 0 && person.in_a_row() > 0)
            .then(|| (read_label(row.get(NAME..).unwrap_or_default()), person.in_a_row()))
    }

    /// Forgets the failures in a row. Says whether there were any.
    pub(super) fn clear(&self) -> bool {
        let before = self.word(COUNTERS).map_or(0, |counters| counters.fetch_and(!IN_A_ROW, SeqCst));
        before & IN_A_ROW > 0
    }

    /// Forgets those of a row of somebody who is known by name alone.
    pub(super) fn clear_row(row: &'a [AtomicU64]) -> bool {
        Self { row, is_shared: false }.clear()
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

// A mark: the tag, when, what it was made with, all failures of the person until then, whose it is.
const WHEN: usize = 1;
const FACTORS: usize = 2;
const TOTAL: usize = 3;
const OWNER: usize = 4;
/// Words of a mark.
pub(super) const MARK: usize = 8;
/// So many marks of one person are kept; a new one takes the place of the oldest. Nobody who logs in from everywhere takes
/// the place of others' marks.
const MARKS_EACH: usize = 12;

/// Whose mark of what.
pub(super) struct MarkKey {
    /// Of person, source and whatever else.
    pub(super) tag: u64,
    /// Of the person, who has a bucket.
    pub(super) owner: u64,
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
        let row = bucket.chunks_exact(MARK).find(|row| load(row, TAG) == key.tag)?;
        let mark = Self { when: load(row, WHEN), factors: load(row, FACTORS), total: load(row, TOTAL) };
        // Somebody may have begun to write it anew.
        (load(row, TAG) == key.tag).then_some(mark)
    }

    /// Makes or renews a mark: in its own row, in one of nobody or of long ago, or in that of the person's oldest mark. Where
    /// all are live and others', there is none.
    pub(super) fn set(bucket: &[AtomicU64], key: &MarkKey, now: Time, factors: u64, total: u64) {
        let rows = || bucket.chunks_exact(MARK);
        let is_free = |row: &&[AtomicU64]| now.since(load(row, WHEN)).is_none_or(|age| age >= super::KNOWN_FOR);
        let own = || rows().filter(|row| load(row, OWNER) == key.owner && !is_free(row));
        let oldest = || own().max_by_key(|row| now.since(load(row, WHEN)));
        let free = || rows().find(is_free);
        let same = rows().find(|row| load(row, TAG) == key.tag);
        let row = same.or_else(|| if own().count() < MARKS_EACH { free().or_else(oldest) } else { oldest() });
        // Nobody reads a row with this tag, and nobody else writes it.
        let (Some(row), Ok(writing)) = (row, random::bytes().map(u64::from_ne_bytes)) else { return };
        let before = load(row, TAG);
        let Some(tag) = row.first() else { return };
        if tag.compare_exchange(before, writing, SeqCst, SeqCst).is_ok() {
            for (at, value) in [(WHEN, now.word()), (FACTORS, factors), (TOTAL, total), (OWNER, key.owner)] {
                if let Some(word) = row.get(at) {
                    word.store(value, SeqCst);
                }
            }
            // Unless we were stopped for so long that somebody else has taken the row.
            let _ = tag.compare_exchange(writing, key.tag, SeqCst, SeqCst);
        }
    }
}

fn load(row: &[AtomicU64], at: usize) -> u64 {
    row.get(at).map_or(0, |word| word.load(SeqCst))
}
