//! Guesses are counted before they are judged.
//!
//! What a guess costs is stored in a commit of its own, whose bytes do not depend on the code. Were it stored along with
//! what a right code changes, then whoever can make that one commit fail (by a limit on file sizes, a disk with room for
//! one block, a signal at the right moment) could guess for nothing, and see from the failure whether the guess was right.

use super::{Decision, Denial, Earlier, Judgement, Rules, Try, Verdict, codes, grace, judge, recovery_code, successor};
use crate::otp::Answer;
use crate::record::{Device, Hotp, Kind, RateLimit, Record};

/// What has to happen before an answer is judged.
pub enum Charge<'a> {
    /// It will not be judged.
    Refused(Decision),
    /// It is judged once its price is stored.
    Due(Due<'a>),
}

/// An answer that has to be paid for.
pub struct Due<'a> {
    charged: Charged<'a>,
    /// Judging costs nothing where the record sets no limit.
    is_free: bool,
}

/// An answer that has been paid for and can be judged.
pub struct Charged<'a> {
    record: Record,
    rules: &'a Rules<'a>,
    attempt: &'a Try<'a>,
    counters: Counters,
    now: u64,
}

/// Where the codes of a file's counter-based device are looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// The first counter. `None`: the record's own.
    pub(super) from: Option<u64>,
    /// The record's own has been moved past it, for the case that the code is wrong.
    pub(super) moved: bool,
}

/// An answer that will not be judged, for a reason that lies outside of the record.
pub fn refused<'a>() -> Charge<'a> {
    Charge::Refused(Decision::deny(Denial::Refused, None))
}

impl Charge<'_> {
    /// The verdict, where nothing has to be stored for it: a denial that leaves no trace in the record. `None`: it needs the
    /// store, and the record has to be locked first.
    pub fn without_storing(self) -> Option<Verdict> {
        let decision = match self {
            Self::Refused(decision) => decision,
            Self::Due(Due { charged, is_free: true }) => charged.decide(),
            Self::Due(_) => return None,
        };
        decision.without_storing().ok()
    }
}

/// Puts a price on an answer at one moment (`now`: seconds since 1970): a try of the record's budget, and for a counter
/// the counter that a wrong code takes with it.
///
/// An answer that cannot be a code of this record costs nothing: it is no guess, and anybody can cause it.
pub fn charge<'a>(record: &Record, rules: &'a Rules, attempt: &'a Try, now: u64) -> Charge<'a> {
    if !rules.google && record.devices.is_empty() {
        return Charge::Refused(Decision::deny(Denial::NoDevice, None));
    }
    let codes = codes(record, rules, attempt.answer);
    if !rules.google && codes.is_empty() && recovery_code(record, rules, attempt.answer).is_none() {
        return Charge::Refused(Decision::deny(Denial::NotACode, None));
    }
    if !rules.google && record.devices.iter().all(|device| device.secret.is_err()) {
        return Charge::Refused(Decision::deny(Denial::BadSecret, None));
    }
    let mut next = record.clone();
    let mut is_free = true;
    match &record.rate_limit {
        Err(bad) => return Charge::Refused(Decision::deny(Denial::BadOption(bad.clone()), None)),
        Ok(Some(limit)) if attempt.earlier == Earlier::Nothing => {
            let (charged, is_spent) = add_try(limit, now, rules.google);
            if !rules.is_counted {
                next.rate_limit = Ok(Some(charged));
                is_free = false;
            }
            if is_spent {
                let denial = Denial::Throttled { tries: limit.tries, seconds: limit.seconds };
                // The C module counts tries that it does not judge too; we do not let them prolong the block.
                return Charge::Refused(Decision::deny(denial, rules.google.then_some(next)));
            }
        }
        Ok(_) => {}
    }
    let mut counters = Counters::default();
    // A file, that is. Where there are several devices the ledger counts, and no guess moves anything.
    if let [Device { secret: Ok(_), kind: Ok(Kind::Hotp(hotp)), .. }] = next.devices.as_mut_slice() {
        let is_of_device = codes.iter().any(|code| code.len() == usize::from(hotp.digits.get()));
        match move_counter(hotp, rules, attempt, is_of_device) {
            Some(moved) => counters = moved,
            None => return Charge::Refused(Decision::deny(Denial::CounterExhausted, (!is_free).then_some(next))),
        }
        is_free &= !counters.moved;
    }
    Charge::Due(Due { charged: Charged { record: next, rules, attempt, counters, now }, is_free })
}

/// Judges the first code of a record that is to be stored if it is right, and not otherwise: there is nothing that a wrong
/// one could cost. A scratch or recovery code does not show that the app works.
pub fn first_code(record: &Record, rules: &Rules, answer: &Answer, now: u64) -> Decision {
    let rules = Rules { increment_hotp: false, allow_scratch_codes: false, skew_adjustment: false, ..*rules };
    match charge(record, &rules, &Try::new(answer), now) {
        Charge::Refused(decision) => decision,
        Charge::Due(due) => due.charged.decide(),
    }
}

/// Moves the record's counter on where a wrong code shall cost one, as in the C module once a login. `None`: there is no
/// next counter.
fn move_counter(hotp: &mut Hotp, rules: &Rules, attempt: &Try, is_of_device: bool) -> Option<Counters> {
    let from = hotp.counter;
    match attempt.earlier {
        // Nobody else can have been let in by that counter: this login alone looks behind the record's own, and only
        // while it is where this login put it.
        Earlier::Moved { from: earlier } if successor(earlier) == Some(from) => {
            return Some(Counters { from: Some(earlier), moved: false });
        }
        Earlier::Nothing | Earlier::Charged | Earlier::Moved { .. } => {}
    }
    let moved = rules.increment_hotp && is_of_device && !rules.is_counted;
    if moved {
        hotp.counter = successor(from)?;
    }
    Some(Counters { from: Some(from), moved })
}

impl<'a> Due<'a> {
    /// Stores the price, if there is one.
    ///
    /// # Errors
    /// What `write` returned; the answer is not judged then.
    pub fn commit<E>(self, write: impl FnOnce(&Record) -> Result<(), E>) -> Result<Charged<'a>, E> {
        if !self.is_free {
            write(&self.charged.record)?;
        }
        Ok(self.charged)
    }

    /// For an operator's question alone, which is paid for elsewhere: what is decided is dropped.
    pub(super) fn unpaid(self) -> Decision {
        self.charged.decide()
    }
}

impl Charged<'_> {
    /// The record as it is stored now.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Is the code right and new?
    pub fn decide(self) -> Decision {
        let Self { mut record, rules, attempt, counters, now } = self;
        match judge(&mut record, rules, attempt.answer, counters, now) {
            Judgement::Accepted(accepted) => {
                grace::remember(&mut record, rules, now);
                Decision::accept(accepted, record)
            }
            Judgement::Denied { denial, noted } => Decision::deny(denial, noted.then_some(record)),
        }
    }
}

/// The limit with this try added, and whether the budget was spent before it.
///
/// Tries that are too old are forgotten. So are tries more than a whole period in the future: a clock that was once far
/// ahead must not lock a person out for ever. Nearer ones count, or a clock set back by a second would open the budget.
/// (The C module forgets all of the future, counts this try in any case, and keeps the newest.)
pub(super) fn add_try(limit: &RateLimit, now: u64, google: bool) -> (RateLimit, bool) {
    let ahead = if google { 0 } else { limit.seconds };
    let live = now.saturating_sub(limit.seconds)..=now.saturating_add(ahead);
    let mut charged: Vec<u64> = limit.charged.iter().copied().filter(|time| live.contains(time)).collect();
    let is_spent = charged.len() >= limit.tries;
    if !is_spent || google {
        charged.push(now);
    }
    charged.sort_unstable();
    if google {
        charged.drain(..charged.len().saturating_sub(limit.tries));
    }
    (RateLimit { charged, ..*limit }, is_spent)
}
