//! The table behind the ledger: words that processes share, changed by atomic operations alone.
//!
//! A region is a number of buckets, a bucket a few rows, a row the failures of one subject. What a try costs is a slot of a
//! row with the time in it. [`Rows::admit`] takes a slot only while fewer than the limit are taken, to the failure, however
//! many processes try at once:
//!
//! - a process counts, takes a slot, then moves the bucket's version on from where it was before it counted. If somebody
//!   else moved it meanwhile, it gives the slot back and counts again. So of those who count the same, one is admitted.
//! - a row is taken over for another subject only if all its slots are dead, by an exchange that fails if somebody has put
//!   something into it since.
//!
//! A process that is stopped in between keeps at most a slot, and nobody waits for it.

use crate::policy::throttle::Trigger;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// Where the words are.
pub trait Memory {
    /// All of them.
    fn words(&self) -> &[AtomicU64];

    /// Makes some of them writable: where that cannot be, a first write could kill the process. `false`: it cannot be.
    fn prepare(&self, words: Range<usize>) -> bool;
}

/// The words cannot be written, or there are too few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritable;

/// A moment as the ledger counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    /// Seconds that machines with this ledger have been running, all boots together.
    pub(super) uptime: u32,
    /// Seconds since 1970 by the wall clock.
    pub(super) wall: u64,
}

/// A wall clock that is further ahead than this, in seconds (68 years), was set back in truth: a word has 32 bits for it.
const FARTHEST: u32 = 1 << 31;

impl Time {
    /// As a word, which is never 0.
    pub(super) fn word(self) -> u64 {
        u64::from(self.uptime).saturating_add(1) << 32 | u64::from(lower(self.wall))
    }

    /// How long ago `word` was: the shorter of what two clocks say, so that neither a jump ahead of the wall clock nor a
    /// machine whose uptime counts otherwise (a time namespace) makes anything old. Where the wall clock was set back, the
    /// uptime alone says.
    pub(super) fn since(self, word: u64) -> Option<u64> {
        let (uptime, wall) = parts(word)?;
        let by_uptime = self.uptime.saturating_sub(uptime);
        let by_wall = lower(self.wall).wrapping_sub(wall);
        Some(if by_wall < FARTHEST { by_uptime.min(by_wall) } else { by_uptime }.into())
    }

    /// How long ago `word` was at most: for what must not last longer than it should. `latest_wall` is the latest time that
    /// the wall clock ever showed.
    pub(super) fn longest_since(self, word: u64, latest_wall: u64) -> Option<u64> {
        let (uptime, wall) = parts(word)?;
        let by_uptime = self.uptime.saturating_sub(uptime);
        Some(by_uptime.max(lower(latest_wall).wrapping_sub(wall)).into())
    }
}

/// The uptime and the lower bits of the wall clock that a word was made from.
fn parts(word: u64) -> Option<(u32, u32)> {
    Some((lower(word >> 32).checked_sub(1)?, lower(word)))
}

/// The lower half.
const fn lower(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

/// A part of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    /// Its first word.
    pub(super) start: usize,
    /// How many buckets it has.
    pub(super) buckets: usize,
    /// How many rows a bucket has.
    pub(super) rows: usize,
    /// How many words a row has.
    pub(super) width: usize,
}

impl Region {
    /// The word behind it.
    pub(super) const fn end(self) -> usize {
        self.start.saturating_add(self.buckets.saturating_mul(self.bucket_width()))
    }

    const fn bucket_width(self) -> usize {
        self.rows.saturating_mul(self.width)
    }

    /// The words of the bucket that belongs to `hash`.
    pub(super) fn bucket<M: Memory>(self, memory: &M, hash: u64) -> Result<&[AtomicU64], Unwritable> {
        let number = hash.checked_rem(self.buckets as u64).and_then(|number| usize::try_from(number).ok());
        let start = self.start.saturating_add(number.unwrap_or(0).saturating_mul(self.bucket_width()));
        let range = start..start.saturating_add(self.bucket_width());
        let words = memory.words().get(range.clone()).ok_or(Unwritable)?;
        if memory.prepare(range) { Ok(words) } else { Err(Unwritable) }
    }

    /// All rows, for somebody who lists them.
    pub(super) fn all<M: Memory>(self, memory: &M) -> impl Iterator<Item = &[AtomicU64]> {
        memory.words().get(self.start..self.end()).unwrap_or_default().chunks_exact(self.width)
    }
}

/// Whom something is counted for: two numbers from a keyed hash, and a name to show.
pub(super) struct Subject {
    /// 64 bits that are not 0 or 1.
    pub(super) tag: u64,
    /// Which bucket.
    pub(super) hash: u64,
    /// Up to [`LABEL`] bytes of the name.
    pub(super) label: Vec<u8>,
}

/// Words of a name in a row.
const LABEL_WORDS: usize = 8;
/// Bytes of a name in a row.
pub(super) const LABEL: usize = LABEL_WORDS * 8;

/// Writes a name into a row.
pub(super) fn write_label(words: &[AtomicU64], label: &[u8]) {
    for (place, word) in words.iter().enumerate().take(LABEL_WORDS) {
        let part = label.iter().skip(place.saturating_mul(8)).take(8);
        let bytes = part.fold((0_u64, 0_u32), |(sum, shift), &byte| {
            (sum | u64::from(byte).checked_shl(shift).unwrap_or(0), shift.saturating_add(8))
        });
        word.store(bytes.0, SeqCst);
    }
}

/// Reads a name from a row.
pub(super) fn read_label(words: &[AtomicU64]) -> Vec<u8> {
    let bytes = words.iter().take(LABEL_WORDS).flat_map(|word| word.load(SeqCst).to_le_bytes());
    bytes.take_while(|&byte| byte != 0).collect()
}

// A row of failures: its state, the version of its bucket (in the first row), the name, the slots.
const STATE: usize = 0;
const VERSION: usize = 1;
const NAME: usize = 2;
const SLOTS: usize = NAME + LABEL_WORDS;
/// Words of a row of failures. There are more slots than any limit, so that some are left for those who are about to see
/// that it is reached.
pub(super) const ROW: usize = 128;
/// A state counts in its upper bits what was put into the row, round and round; the lower ones are the tag.
const TAG_BITS: u32 = 40;
const TAG: u64 = (1 << TAG_BITS) - 1;
const ONE_MORE: u64 = 1 << TAG_BITS;
/// How often a process counts anew. Each time somebody else was admitted, which no limit allows that often.
const ROUNDS: usize = 10_000;

/// A failure that was written down, and can be taken back.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) slot: &'a AtomicU64,
    pub(super) word: u64,
}

impl Entry<'_> {
    /// Takes this failure back, and no other one.
    pub(super) fn take_back(self) {
        // Where it is dead and another took its place, there is nothing to take back.
        let _ = self.slot.compare_exchange(self.word, 0, SeqCst, SeqCst);
    }
}

/// What became of a try.
#[derive(Debug)]
pub(super) enum Admission<'a> {
    /// It is written down.
    Counted(Entry<'a>),
    /// So many have failed already; nothing is written down.
    Reached(Trigger),
    /// There is no room: all rows of the bucket are live, and somebody else's.
    NoRoom,
}

/// Rows of failures, at one moment.
pub(super) struct Rows<'a, M> {
    /// The table.
    pub(super) memory: &'a M,
    /// The moment.
    pub(super) now: Time,
    /// Seconds after which a failure is dead.
    pub(super) keep: u64,
    /// The latest time that anything can have been written down: what is later is garbage.
    pub(super) latest: Option<&'a AtomicU64>,
}

impl<'a, M: Memory> Rows<'a, M> {
    /// Writes a failure down unless one of the triggers is reached.
    ///
    /// # Errors
    /// [`Unwritable`].
    pub(super) fn admit(
        &self,
        region: Region,
        subject: &Subject,
        triggers: &[Trigger],
    ) -> Result<Admission<'a>, Unwritable> {
        let bucket = region.bucket(self.memory, subject.hash)?;
        let version = bucket.get(VERSION).ok_or(Unwritable)?;
        for _ in 0..ROUNDS {
            let before = version.load(SeqCst);
            let Found { ages, free, oldest } = self.look(bucket, subject);
            if let Some(reached) = reached(triggers, &ages) {
                return Ok(Admission::Reached(reached));
            }
            // A row has more slots than any limit, so that the oldest of a full one never decides.
            let place = free.or(oldest.map(|(_, place)| place)).or_else(|| self.take_over(bucket, subject));
            let Some(Place { row, slot, seen }) = place else {
                // Whoever took the last row meanwhile may have done so for the same subject.
                if bucket.chunks_exact(ROW).any(|row| is_of(row, subject)) {
                    continue;
                }
                return Ok(Admission::NoRoom);
            };
            let Some(state) = row.get(STATE) else { return Err(Unwritable) };
            let word = self.now.word();
            if slot.compare_exchange(seen, word, SeqCst, SeqCst).is_err() {
                continue;
            }
            let entry = Entry { slot, word };
            let is_ours = tag_of(state.fetch_add(ONE_MORE, SeqCst)) == short(subject.tag);
            let moved = || version.compare_exchange(before, before.wrapping_add(1), SeqCst, SeqCst).is_ok();
            if is_ours && moved() {
                return Ok(Admission::Counted(entry));
            }
            entry.take_back();
        }
        // Never seen. No limit lets so many pass, so it is reached.
        Ok(triggers.first().map_or(Admission::NoRoom, |trigger| Admission::Reached(*trigger)))
    }

    /// Which of the triggers is reached, if one is. Writes nothing down.
    ///
    /// # Errors
    /// [`Unwritable`].
    pub(super) fn is_reached(
        &self,
        region: Region,
        subject: &Subject,
        triggers: &[Trigger],
    ) -> Result<Option<Trigger>, Unwritable> {
        let bucket = region.bucket(self.memory, subject.hash)?;
        Ok(reached(triggers, &self.look(bucket, subject).ages))
    }

    /// The ages of the failures in a row of [`ROW`] words, the latest first.
    pub(super) fn ages(&self, row: &[AtomicU64]) -> Vec<u64> {
        let mut ages: Vec<u64> = slots(row).filter_map(|slot| self.age(slot.load(SeqCst))).collect();
        ages.sort_unstable();
        ages
    }

    /// Whose row it is, and how long ago which failures were. `None`: a row of nobody.
    pub(super) fn read(&self, row: &[AtomicU64]) -> Option<(Vec<u8>, Vec<u64>)> {
        let ages = self.ages(row);
        (!ages.is_empty()).then(|| (read_label(row.get(NAME..).unwrap_or_default()), ages))
    }

    /// Forgets the failures of a row.
    pub(super) fn clear(row: &[AtomicU64]) {
        slots(row).for_each(|slot| slot.store(0, SeqCst));
    }

    /// Forgets the failures of a subject. Says whether there were any.
    pub(super) fn forget(&self, region: Region, subject: &Subject) -> Result<bool, Unwritable> {
        let bucket = region.bucket(self.memory, subject.hash)?;
        let own: Vec<_> = bucket.chunks_exact(ROW).filter(|row| is_of(row, subject)).collect();
        let found = own.iter().any(|row| !self.ages(row).is_empty());
        own.iter().for_each(|row| Self::clear(row));
        Ok(found)
    }

    fn look<'b>(&self, bucket: &'b [AtomicU64], subject: &Subject) -> Found<'b> {
        let mut found = Found { ages: Vec::new(), free: None, oldest: None };
        for row in bucket.chunks_exact(ROW).filter(|row| is_of(row, subject)) {
            for slot in slots(row) {
                let place = Place { row, slot, seen: slot.load(SeqCst) };
                match self.age(place.seen) {
                    None => found.free = found.free.or(Some(place)),
                    Some(age) => {
                        found.ages.push(age);
                        if found.oldest.is_none_or(|(oldest, _)| oldest < age) {
                            found.oldest = Some((age, place));
                        }
                    }
                }
            }
        }
        found
    }

    /// Makes a row of nobody, or one whose failures are all dead, this subject's.
    fn take_over<'b>(&self, bucket: &'b [AtomicU64], subject: &Subject) -> Option<Place<'b>> {
        bucket.chunks_exact(ROW).find_map(|row| {
            let state = row.first()?;
            let before = state.load(SeqCst);
            let dead: Vec<u64> = slots(row).map(|slot| slot.load(SeqCst)).collect();
            let after = (before & !TAG) | short(subject.tag);
            let is_dead = dead.iter().all(|&word| self.age(word).is_none());
            if !is_dead || state.compare_exchange(before, after, SeqCst, SeqCst).is_err() {
                return None;
            }
            // Or they could come to life again, as somebody else's, when the wall clock is set back.
            for (slot, word) in slots(row).zip(dead) {
                let _ = slot.compare_exchange(word, 0, SeqCst, SeqCst);
            }
            write_label(row.get(NAME..).unwrap_or_default(), &subject.label);
            slots(row).next().map(|slot| Place { row, slot, seen: 0 })
        })
    }

    /// The age of a failure that counts.
    fn age(&self, word: u64) -> Option<u64> {
        let (uptime, _) = parts(word)?;
        let is_garbage = self.latest.is_none_or(|latest| u64::from(uptime) > latest.load(SeqCst));
        self.now.since(word).filter(|&age| age < self.keep && !is_garbage)
    }
}

struct Found<'a> {
    ages: Vec<u64>,
    free: Option<Place<'a>>,
    /// With its age.
    oldest: Option<(u64, Place<'a>)>,
}

/// A slot, and what was in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    row: &'a [AtomicU64],
    slot: &'a AtomicU64,
    seen: u64,
}

fn reached(triggers: &[Trigger], ages: &[u64]) -> Option<Trigger> {
    let count = |trigger: &Trigger| ages.iter().filter(|&&age| age < trigger.period).count() as u64;
    triggers.iter().copied().find(|trigger| count(trigger) >= trigger.failures)
}

fn slots(row: &[AtomicU64]) -> impl Iterator<Item = &AtomicU64> {
    row.iter().skip(SLOTS)
}

fn is_of(row: &[AtomicU64], subject: &Subject) -> bool {
    row.first().is_some_and(|state| tag_of(state.load(SeqCst)) == short(subject.tag))
}

const fn tag_of(state: u64) -> u64 {
    state & TAG
}

/// The part of a tag that has room in a state; never 0, which is nobody's.
const fn short(tag: u64) -> u64 {
    (tag & TAG) | 1
}
