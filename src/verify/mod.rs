//! Is this code right, unused, and within the budget? Pure: no clock, no file, no side effect.

mod decision;

pub use decision::{Decision, Denial, Factor, Verdict};

use crate::otp::{Code, Generator};
use crate::record::{Device, Hotp, RateLimit, Record, Totp};
use crate::secret::Secret;
use constant_time_eq::constant_time_eq_n;
use std::sync::Arc;

/// Digits of a scratch code.
const SCRATCH_DIGITS: usize = 8;

/// Judges one answer at one moment (`now`: seconds since 1970).
///
/// The order matters. An answer that cannot be a code of this record costs nothing: it is no guess, and anybody can
/// cause it. Every other answer is charged, and where the budget is spent it is not judged at all. Then all candidates
/// are computed and compared, whatever is found on the way, so that right, wrong and used codes take the same time.
pub fn decide(record: &Record, code: &Code, now: u64) -> Decision {
    if !could_be_code(record, code) {
        return Decision::deny(Denial::NotACode, None);
    }
    let charged = match &record.rate_limit {
        Err(bad) => return Decision::deny(Denial::BadOption(bad.clone()), None),
        Ok(None) => None,
        Ok(Some(limit)) => match charge(limit, now) {
            Some(limit) => Some(limit),
            None => {
                return Decision::deny(Denial::Throttled { tries: limit.tries, seconds: limit.seconds }, None);
            }
        },
    };
    let mut next = record.clone();
    let is_charged = charged.is_some();
    if is_charged {
        next.rate_limit = Ok(charged);
    }
    match judge(&mut next, code, now) {
        Judgement::Accepted(factor) => Decision::accept(factor, next),
        Judgement::Denied { denial, spent } => Decision::deny(denial, (is_charged || spent).then_some(next)),
    }
}

enum Judgement {
    Accepted(Factor),
    /// `spent`: the record changed all the same.
    Denied {
        denial: Denial,
        spent: bool,
    },
}

impl From<Denial> for Judgement {
    fn from(denial: Denial) -> Self {
        Self::Denied { denial, spent: false }
    }
}

/// Whether the answer has the length of anything that this record accepts.
fn could_be_code(record: &Record, code: &Code) -> bool {
    let digits = match &record.device {
        Ok(Device::Totp(totp)) => Some(totp.digits),
        Ok(Device::Hotp(hotp)) => Some(hotp.digits),
        // Which code the device would show is not known: let the reason for that be found and logged.
        Ok(Device::None) | Err(_) => return true,
    };
    code.len() == SCRATCH_DIGITS || digits.is_some_and(|digits| usize::from(digits.get()) == code.len())
}

/// The limit with this try added, or `None` where the budget is spent.
///
/// Tries that are too old are forgotten. So are tries more than a whole period in the future: a clock that was once far
/// ahead must not lock a person out for ever. Nearer ones count, or a clock set back by a second would open the budget.
fn charge(limit: &RateLimit, now: u64) -> Option<RateLimit> {
    let live = now.saturating_sub(limit.seconds)..=now.saturating_add(limit.seconds);
    let mut charged: Vec<u64> = limit.charged.iter().copied().filter(|time| live.contains(time)).collect();
    if charged.len() >= limit.tries {
        return None;
    }
    charged.push(now);
    charged.sort_unstable();
    Some(RateLimit { charged, ..*limit })
}

fn judge(next: &mut Record, code: &Code, now: u64) -> Judgement {
    if let Some(factor) = spend_scratch_code(next, code) {
        return Judgement::Accepted(factor);
    }
    let secret = Arc::clone(&next.secret);
    match &mut next.device {
        Ok(Device::Totp(totp)) => judge_totp(totp, &secret, code, now),
        Ok(Device::Hotp(hotp)) => judge_hotp(hotp, &secret, code),
        Ok(Device::None) => Denial::NoDevice.into(),
        Err(bad) => Denial::BadOption(bad.clone()).into(),
    }
}

/// Takes the code out of the record if it is one of its scratch codes. All of them are compared.
fn spend_scratch_code(next: &mut Record, code: &Code) -> Option<Factor> {
    if code.len() != SCRATCH_DIGITS {
        return None;
    }
    let typed: u32 = code.expose().parse().ok()?;
    let is_typed = |scratch: u32| constant_time_eq_n(&scratch.to_ne_bytes(), &typed.to_ne_bytes());
    let unspent = next.scratch.expose();
    let matches = unspent.iter().fold(0_usize, |count, &scratch| count.saturating_add(usize::from(is_typed(scratch))));
    if matches == 0 {
        return None;
    }
    let mut left = Vec::with_capacity(unspent.len());
    left.extend(unspent.iter().copied().filter(|&scratch| !is_typed(scratch)));
    let factor = Factor::Scratch { left: left.len() };
    next.scratch = Arc::new(Secret::new(left));
    Some(factor)
}

/// RFC 6238 section 5.2: the window, and the rule that a code works once.
fn judge_totp(totp: &mut Totp, secret: &Secret<Vec<u8>>, code: &Code, now: u64) -> Judgement {
    let Some(step) = now.checked_div(totp.period) else { return Denial::WrongCode.into() };
    let last = step.saturating_add(totp.window.ahead);
    let mark = totp.mark();
    let generator = Generator::new(secret, totp.algorithm, totp.digits);
    let matched = highest_match(&generator, code, step.saturating_sub(totp.window.behind)..=last);
    if let Some(mark) = mark.filter(|&mark| mark > last) {
        // No code can be accepted before the clock gets there, so say that and not "wrong" or "used".
        let seconds = mark.saturating_sub(last).saturating_mul(totp.period);
        return Denial::ClockBehindMark { seconds }.into();
    }
    match matched {
        None => Denial::WrongCode.into(),
        Some(matched) if Some(matched) <= mark => Denial::UsedCode.into(),
        Some(matched) => {
            let size = totp.window.size();
            // What the C module keeps: steps that its window might still reach.
            totp.used.retain(|&used| used.abs_diff(matched) < size);
            totp.used.push(matched);
            Judgement::Accepted(Factor::Totp { ahead: matched >= step, steps: matched.abs_diff(step) })
        }
    }
}

/// RFC 4226 section 7.2 and 7.4: the look-ahead, and a counter that only ever moves forward.
fn judge_hotp(hotp: &mut Hotp, secret: &Secret<Vec<u8>>, code: &Code) -> Judgement {
    if code.len() != usize::from(hotp.digits.get()) {
        return Denial::WrongCode.into();
    }
    let last = hotp.counter.saturating_add(hotp.look_ahead.saturating_sub(1));
    let generator = Generator::new(secret, hotp.algorithm, hotp.digits);
    let matched = highest_match(&generator, code, hotp.counter..=last);
    // A counter at the end of its range can only be refused: there is no next one to store.
    let Some(next) = matched.unwrap_or(hotp.counter).checked_add(1).filter(|&next| i64::try_from(next).is_ok()) else {
        return Denial::CounterExhausted.into();
    };
    let skipped = next.saturating_sub(hotp.counter).saturating_sub(1);
    hotp.counter = next;
    match matched {
        Some(_) => Judgement::Accepted(Factor::Hotp { skipped }),
        // As in the C module a wrong code takes a counter with it.
        None => Judgement::Denied { denial: Denial::WrongCode, spent: true },
    }
}

/// Compares with every counter of the range. The highest match wins: taking a lower one would leave the same digits
/// valid a second time.
fn highest_match(generator: &Generator, code: &Code, counters: std::ops::RangeInclusive<u64>) -> Option<u64> {
    counters.fold(None, |highest, counter| if generator.matches(code, counter) { Some(counter) } else { highest })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests;
