//! The ledger as the fleet has it: a person's part lies in their document, a source's in that of its bucket.
//!
//! The rules are those of [`crate::ledger`]. There is one clock less: of hosts that are started at different times the wall clocks
//! alone can be compared, and each is held against the cluster's.

use crate::ledger::{GRACE_FAILURES, Grace, KNOWN_FOR, Login, MAX_CONSECUTIVE, Notice, Refusal};
use crate::policy::throttle::{MAX_PERIOD, Trigger};
use crate::words::{Reader, Writer};
use sha2::{Digest, Sha256};

/// Failures that a row remembers: more than any rule looks for.
const MOST: usize = 118;
/// Marks that a person has; a new one takes the place of the oldest.
const MARKS: usize = 16;
/// Bytes by which marks are told apart.
const TAG: usize = 16;

type Tag = [u8; TAG];

/// When failures were, in seconds since 1970, the earliest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Row(Vec<u64>);

impl Row {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let count = reader.number()?;
        (0..count).map(|_| reader.long()).collect::<Option<_>>().map(Self)
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        self.0.iter().fold(writer.count(self.0.len()), |writer, &time| writer.long(time))
    }

    /// The rule that is reached, if one is. What is in the future counts as if it were now.
    fn reached(&self, triggers: &[Trigger], now: u64) -> Option<Trigger> {
        let failures = |period: u64| self.ages(now).iter().filter(|&&age| age < period).count() as u64;
        triggers.iter().copied().find(|trigger| failures(trigger.period) >= trigger.failures)
    }

    /// How many seconds ago each was, the latest first.
    pub(super) fn ages(&self, now: u64) -> Vec<u64> {
        self.0.iter().rev().map(|&time| now.saturating_sub(time)).filter(|&age| age < MAX_PERIOD).collect()
    }

    fn add(&mut self, now: u64) {
        self.0.retain(|&time| now.saturating_sub(time) < MAX_PERIOD);
        self.0.push(now);
        self.0.sort_unstable();
        let excess = self.0.len().saturating_sub(MOST);
        self.0.drain(..excess);
    }

    /// Takes one of this time away.
    fn take_back(&mut self, time: u64) {
        if let Some(place) = self.0.iter().rposition(|&failure| failure == time) {
            self.0.remove(place);
        }
    }

    fn latest(&self) -> Option<u64> {
        self.0.last().copied()
    }

    /// Whether none of it counts.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.ages(now).is_empty()
    }

    /// Forgets all. Says whether there was anything.
    pub(super) fn clear(&mut self, now: u64) -> bool {
        let was_over = self.is_over(now);
        self.0.clear();
        !was_over
    }
}

/// A person's part of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Failures from sources where they got in lately.
    pub(super) known: Row,
    /// All others.
    pub(super) strangers: Row,
    /// Failures since the last login.
    pub(super) in_a_row: u64,
    /// All that there ever were.
    total: u64,
    last_failure: u64,
    /// What to tell at the next login: how many failed, and when last.
    notice: (u64, u64),
    marks: Vec<Mark>,
}

/// Somebody got in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    of: Tag,
    when: u64,
    factors: Tag,
    /// All failures until then.
    total: u64,
}

/// What a try is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charged {
    Known,
    Strangers,
    Nobody,
    Source,
}

impl Charged {
    pub(super) const ALL: [Self; 4] = [Self::Known, Self::Strangers, Self::Nobody, Self::Source];
}

impl Counts {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let (known, strangers) = (Row::read(reader)?, Row::read(reader)?);
        let (in_a_row, total, last_failure) = (reader.long()?, reader.long()?, reader.long()?);
        let notice = (reader.long()?, reader.long()?);
        let count = reader.number()?;
        let mark = |reader: &mut Reader| {
            let (of, when) = (reader.text()?.try_into().ok()?, reader.long()?);
            Some(Mark { of, when, factors: reader.text()?.try_into().ok()?, total: reader.long()? })
        };
        let marks = (0..count).map(|_| mark(reader)).collect::<Option<_>>()?;
        Some(Self { known, strangers, in_a_row, total, last_failure, notice, marks })
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        let Self { known, strangers, in_a_row, total, last_failure, notice: (failures, latest), marks } = self;
        let writer = strangers.write(known.write(writer));
        let writer = writer.long(*in_a_row).long(*total).long(*last_failure).long(*failures).long(*latest);
        marks.iter().fold(writer.count(marks.len()), |writer, mark| {
            writer.text(&mark.of).long(mark.when).text(&mark.factors).long(mark.total)
        })
    }

    /// Whether they got in from there within the last 30 days. `source`: [`Source::key_at`](crate::source::Source::key_at).
    pub(super) fn is_known(&self, source: &[u8], now: u64) -> bool {
        self.find(&known(source)).is_some_and(|mark| now.saturating_sub(mark.when) < KNOWN_FOR)
    }

    /// Charges a guess. Says to which row, if to one.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is charged then.
    pub(super) fn charge(&mut self, login: &Login, is_known: bool, now: u64) -> Result<Option<Charged>, Refusal> {
        let kind = if is_known { Charged::Known } else { Charged::Strangers };
        let charged = charge_row(self.row(kind), login, kind, now)?;
        if self.is_disabled() {
            if charged.is_some() {
                self.row(kind).take_back(now);
            }
            return Err(Refusal::Disabled);
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.last_failure = now;
        Ok(charged)
    }

    /// Takes a charge of this time back, unless a login has taken it out of the count of those in a row.
    pub(super) fn take_back(&mut self, rows: &[(Charged, u64)]) {
        for &(kind, time) in rows {
            if kind != Charged::Source && kind != Charged::Nobody {
                self.row(kind).take_back(time);
            }
        }
        self.in_a_row = self.in_a_row.saturating_sub(1);
        self.total = self.total.saturating_sub(1);
        self.last_failure = self.known.latest().max(self.strangers.latest()).unwrap_or(self.last_failure);
    }

    fn row(&mut self, kind: Charged) -> &mut Row {
        if kind == Charged::Known { &mut self.known } else { &mut self.strangers }
    }

    /// They got in: what failed before is told next, and does not count any more; the source is known, and with `grace` they are
    /// not asked for a while.
    pub(super) fn logged_in(&mut self, login: &Login, source: &[u8], grace: Option<&Grace>, now: u64) {
        self.end_row();
        self.mark(known(source), [0; TAG], now);
        if let Some(grace) = grace {
            self.mark(of_grace(login, source, grace), factors(grace), now);
        }
    }

    /// They came by this key, whose holder is not asked again for a while behind this host.
    pub(super) fn came_by(&mut self, login_key: &[u8], factors: &[u8], now: u64) {
        self.mark(of_key(login_key), tag("factors", &[factors]), now);
    }

    /// Ends the failures in a row. They are told at the next login.
    pub(super) fn end_row(&mut self) {
        let failures = std::mem::take(&mut self.in_a_row);
        if failures > 0 {
            self.notice = (self.notice.0.saturating_add(failures), self.last_failure);
        }
    }

    fn mark(&mut self, of: Tag, factors: Tag, now: u64) {
        self.marks.retain(|mark| mark.of != of && now.saturating_sub(mark.when) < KNOWN_FOR);
        if self.marks.len() >= MARKS
            && let Some((oldest, _)) = self.marks.iter().enumerate().min_by_key(|(_, mark)| mark.when)
        {
            self.marks.remove(oldest);
        }
        self.marks.push(Mark { of, when: now, factors, total: self.total });
    }

    fn find(&self, of: &Tag) -> Option<&Mark> {
        self.marks.iter().find(|mark| mark.of == *of)
    }

    /// Whether they got in here lately enough not to be asked.
    pub(super) fn has_grace(&self, login: &Login, source: &[u8], grace: &Grace, now: u64) -> bool {
        self.find(&of_grace(login, source, grace)).is_some_and(|mark| {
            // A time to come is none.
            now.checked_sub(mark.when).is_some_and(|age| age < grace.period)
                && mark.factors == factors(grace)
                && self.total.saturating_sub(mark.total) < GRACE_FAILURES
                && !self.is_disabled()
                && self.known.reached(&login.user_triggers(), now).is_none()
        })
    }

    pub(super) const fn is_disabled(&self) -> bool {
        self.in_a_row >= MAX_CONSECUTIVE
    }

    /// Whether there is something to tell them.
    pub(super) const fn has_notice(&self) -> bool {
        self.notice.0 > 0
    }

    /// What to tell them.
    pub(super) fn take_notice(&mut self) -> Option<Notice> {
        let (failures, latest) = std::mem::take(&mut self.notice);
        (failures > 0).then_some(Notice { failures, latest })
    }

    /// Forgets all failures. Says whether there were any.
    pub(super) fn unlock(&mut self, now: u64) -> bool {
        let rows = [self.known.clear(now), self.strangers.clear(now)];
        let in_a_row = std::mem::take(&mut self.in_a_row);
        rows.contains(&true) || in_a_row > 0
    }
}

/// Charges a guess to a row by the rules for it. Says whether it was.
///
/// # Errors
/// [`Refusal`].
pub(super) fn charge_row(row: &mut Row, login: &Login, kind: Charged, now: u64) -> Result<Option<Charged>, Refusal> {
    if login.is_user_spared() {
        return Ok(None);
    }
    match row.reached(&login.user_triggers(), now) {
        Some(trigger) => Err(Refusal::Person(trigger)),
        None => {
            row.add(now);
            Ok(Some(kind))
        }
    }
}

/// Charges a source. Where it is one from which the person got in lately, nothing blocks it.
///
/// # Errors
/// [`Refusal`].
pub(super) fn charge_source(row: &mut Row, login: &Login, is_known: bool, now: u64) -> Result<(), Refusal> {
    if !is_known && let Some(trigger) = row.reached(&login.host_triggers(), now) {
        return Err(Refusal::Source(trigger));
    }
    row.add(now);
    Ok(())
}

pub(super) fn take_back(row: &mut Row, time: u64) {
    row.take_back(time);
}

fn known(source: &[u8]) -> Tag {
    tag("known", &[source])
}

fn of_key(login_key: &[u8]) -> Tag {
    tag("key", &[login_key])
}

fn of_grace(login: &Login, source: &[u8], grace: &Grace) -> Tag {
    if grace.is_elsewhere {
        return of_key(grace.circumstances);
    }
    tag("grace", &[source, login.service.as_bytes(), grace.circumstances])
}

fn factors(grace: &Grace) -> Tag {
    tag("factors", &[grace.factors])
}

/// Of some 2^128 that there are. They lie in a sealed document: nobody chooses them.
fn tag(kind: &str, parts: &[&[u8]]) -> Tag {
    let mut hash = Sha256::new().chain_update(kind);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut tag = Tag::default();
    tag.iter_mut().zip(hash.finalize()).for_each(|(byte, of_hash)| *byte = of_hash);
    tag
}
