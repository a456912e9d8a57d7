//! Is this code right, unused, and within the budget? Pure: no clock, no file, no side effect.

mod charge;
mod decision;
mod drift;
mod grace;

pub use charge::{Charge, Charged, Due, charge, refused};
pub use decision::{Decision, Denial, Factor, Verdict};
pub use grace::{has_grace, is_throttled};

use crate::otp::{Answer, Code, Generator};
use crate::record::{Device, Hotp, Record, Totp, Window};
use crate::secret::Secret;
use charge::Counters;
use constant_time_eq::constant_time_eq_n;
use std::sync::Arc;

/// Digits of a scratch code.
pub const SCRATCH_DIGITS: usize = 8;
/// Digits that are looked for where the record does not say how many a code has.
const USUAL_DIGITS: usize = 6;

/// What [`judge`] completes.
const WRONG: Denial = Denial::WrongCode { moved_from: None };

/// How codes are judged on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules<'a> {
    /// As the C module does it: see "Where this differs" in the manual.
    pub google: bool,
    /// Three right codes of a wrong time, one after the other, set the clock difference of the record.
    pub skew_adjustment: bool,
    /// A wrong code takes a counter with it.
    pub increment_hotp: bool,
    /// The host to remember for the grace period.
    pub remember: Option<&'a str>,
    /// The window of a record that does not say.
    pub window: Window,
    /// What lies outside of it is in no record's window.
    pub widest_window: Option<Window>,
    /// The farthest that a record's look-ahead can go.
    pub max_look_ahead: Option<u64>,
    /// Shorter secrets deny.
    pub min_secret_bits: u64,
    /// Off: scratch codes are no codes.
    pub allow_scratch_codes: bool,
    /// Guesses are counted in the ledger: what the record says about them is read and not written, so that a wrong code
    /// changes nothing in it, and whoever guesses can neither hold its lock nor use up what is the owner's.
    pub is_counted: bool,
}

impl Rules<'_> {
    /// The steps that a device's codes may be of.
    fn window(&self, totp: &Totp) -> Window {
        let window = totp.window.unwrap_or(self.window);
        self.widest_window.map_or(window, |widest| window.within(widest))
    }

    fn look_ahead(&self, hotp: &Hotp) -> u64 {
        self.max_look_ahead.map_or(hotp.look_ahead, |max| hotp.look_ahead.min(max))
    }

    fn is_too_short(&self, secret: &Secret<Vec<u8>>) -> bool {
        (secret.expose().len() as u64).saturating_mul(8) < self.min_secret_bits
    }
}

impl Default for Rules<'_> {
    fn default() -> Self {
        Self {
            google: false,
            skew_adjustment: false,
            increment_hotp: true,
            remember: None,
            window: Window { behind: 1, ahead: 1 },
            widest_window: None,
            max_look_ahead: None,
            min_secret_bits: 0,
            allow_scratch_codes: true,
            is_counted: false,
        }
    }
}

/// One answer of a login, which has one or, with `try_first_pass`, two of them.
#[derive(Clone, Copy)]
pub struct Try<'a> {
    /// What was given. `None`: nothing of use, which the C module charges all the same.
    pub answer: Option<&'a Answer>,
    /// What became of an earlier answer of the same login.
    pub earlier: Earlier,
}

/// What an earlier answer has paid for. The C module charges a login once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// There was none, or it was charged for itself alone.
    Nothing,
    /// The try.
    Charged,
    /// The try, and a counter: this login moved the record's counter on from this one, which may still be looked at.
    Moved {
        /// The counter before.
        from: u64,
    },
}

impl<'a> Try<'a> {
    /// An answer that has to be charged.
    pub const fn new(answer: &'a Answer) -> Self {
        Self { answer: Some(answer), earlier: Earlier::Nothing }
    }
}

enum Judgement {
    /// With the number of digits.
    Accepted(Factor, usize),
    /// `noted`: the record changed all the same.
    Denied { denial: Denial, noted: bool },
}

impl From<Denial> for Judgement {
    fn from(denial: Denial) -> Self {
        Self::Denied { denial, noted: false }
    }
}

/// How many digits the codes of the record's device have.
fn digits(record: &Record) -> usize {
    match &record.device {
        Ok(Device::Totp(totp)) => totp.digits.get().into(),
        Ok(Device::Hotp(hotp)) => hotp.digits.get().into(),
        Ok(Device::None) | Err(_) => USUAL_DIGITS,
    }
}

/// What in an answer could be a code of this record: a code of the device, a scratch code, or both.
fn candidates(record: &Record, rules: &Rules, answer: Option<&Answer>) -> Vec<Code> {
    let of_device = digits(record);
    let scratch = (rules.allow_scratch_codes && of_device != SCRATCH_DIGITS).then_some(SCRATCH_DIGITS);
    let lengths = [Some(of_device), scratch].into_iter().flatten();
    lengths.filter_map(|digits| answer?.code(digits)).collect()
}

/// Judges an answer that has been charged. All candidates are computed and compared, whatever is found on the way, so that
/// right, wrong and used codes take the same time. Of several codes in one answer the first that is neither right nor
/// simply wrong ends the search.
fn judge(next: &mut Record, rules: &Rules, answer: Option<&Answer>, counters: Counters, now: u64) -> Judgement {
    let mut verdict = Denial::NotACode;
    for code in candidates(next, rules, answer) {
        match judge_candidate(next, rules, &code, counters.from, now) {
            Judgement::Denied { denial: Denial::WrongCode { .. }, .. } => {
                verdict = Denial::WrongCode { moved_from: counters.moved.then_some(counters.from) };
            }
            Judgement::Denied { denial: Denial::NoDevice, .. } => verdict = Denial::NoDevice,
            ended => return ended,
        }
    }
    verdict.into()
}

fn judge_candidate(next: &mut Record, rules: &Rules, code: &Code, counters_from: u64, now: u64) -> Judgement {
    let Ok(secret) = next.secret.clone() else { return Denial::BadSecret.into() };
    if rules.is_too_short(&secret) {
        return Denial::WeakSecret.into();
    }
    if let Some(factor) = spend_scratch_code(next, rules, code) {
        return Judgement::Accepted(factor, code.len());
    }
    match &mut next.device {
        Ok(Device::Totp(totp)) => judge_totp(totp, rules, &secret, code, now),
        Ok(Device::Hotp(hotp)) => judge_hotp(hotp, rules, &secret, code, counters_from),
        Ok(Device::None) => Denial::NoDevice.into(),
        Err(bad) => Denial::BadOption(bad.clone()).into(),
    }
}

/// Takes the code out of the record if it is one of its scratch codes. All of them are compared.
fn spend_scratch_code(next: &mut Record, rules: &Rules, code: &Code) -> Option<Factor> {
    if code.len() != SCRATCH_DIGITS || !rules.allow_scratch_codes {
        return None;
    }
    let typed: u32 = code.expose().parse().ok()?;
    let is_typed = |scratch: u32| constant_time_eq_n(&scratch.to_ne_bytes(), &typed.to_ne_bytes());
    let unspent = next.scratch.expose();
    let looked_at = if rules.google { next.scratch_before_odd } else { unspent.len() };
    let matches = unspent
        .iter()
        .take(looked_at)
        .fold(0_usize, |count, &scratch| count.saturating_add(usize::from(is_typed(scratch))));
    if matches == 0 {
        return None;
    }
    let mut left = Vec::with_capacity(unspent.len());
    left.extend(unspent.iter().copied().filter(|&scratch| !is_typed(scratch)));
    let factor = Factor::Scratch { left: left.len() };
    next.scratch_before_odd = next.scratch_before_odd.saturating_sub(matches);
    next.scratch = Arc::new(Secret::new(left));
    Some(factor)
}

/// RFC 6238 section 5.2: the window, and the rule that a code works once.
fn judge_totp(totp: &mut Totp, rules: &Rules, secret: &Secret<Vec<u8>>, code: &Code, now: u64) -> Judgement {
    let Some(clock) = now.checked_div(totp.period) else { return WRONG.into() };
    // In the C module a list of used steps that cannot be read matters only where a code is right.
    let bad_marks = totp.used.as_ref().err().cloned();
    if let Some(bad) = bad_marks.as_ref().filter(|_| !rules.google) {
        return Denial::BadOption(bad.clone()).into();
    }
    let used = totp.used.clone().ok().flatten().unwrap_or_default();
    let generator = Generator::new(secret, totp.algorithm, totp.digits);
    let step = clock.saturating_add_signed(totp.skew);
    let window = rules.window(totp);
    let last = step.saturating_add(window.ahead);
    let matched = window_match(window, rules, &generator, code, step);
    if !rules.google
        && let Some(mark) = totp.mark().filter(|&mark| mark > last)
    {
        // No code can be accepted before the clock gets there, so say that and not "wrong" or "used".
        let seconds = mark.saturating_sub(last).saturating_mul(totp.period);
        return Denial::ClockBehindMark { seconds }.into();
    }
    let is_used = |step: u64| if rules.google { used.contains(&step) } else { Some(step) <= totp.mark() };
    match (matched, bad_marks) {
        (None, _) if rules.skew_adjustment => drift::adjust(totp, rules, &generator, code, clock),
        (None, _) => WRONG.into(),
        (Some(_), Some(bad)) => Denial::BadOption(bad).into(),
        (Some(matched), None) if is_used(matched) => Denial::UsedCode.into(),
        (Some(matched), None) => {
            // The C module remembers only where the file asks it to.
            if !rules.google || totp.used != Ok(None) {
                totp.used = Ok(Some(with_step(&used, matched, window.size())));
            }
            Judgement::Accepted(Factor::Totp { ahead: matched >= step, steps: matched.abs_diff(step) }, code.len())
        }
    }
}

/// The used steps with one more. Those that the window cannot reach again are left out.
fn with_step(used: &[u64], step: u64, window: u64) -> Vec<u64> {
    let mut used: Vec<u64> = used.iter().copied().filter(|&used| used.abs_diff(step) < window).collect();
    used.push(step);
    used
}

/// The step of the window whose code this is. All are compared.
///
/// Of several the highest counts: a lower one would leave the same digits valid a second time. (The C module takes the
/// lowest.)
fn window_match(window: Window, rules: &Rules, generator: &Generator, code: &Code, step: u64) -> Option<u64> {
    let steps = step.saturating_sub(window.behind)..=step.saturating_add(window.ahead);
    let (lowest, highest) = matches(generator, code, steps)?;
    Some(if rules.google { lowest } else { highest })
}

/// RFC 4226 section 7.2 and 7.4: the look-ahead, and a counter that only ever moves forward. The record's own counter has
/// been moved already, for the case that the code is wrong.
fn judge_hotp(hotp: &mut Hotp, rules: &Rules, secret: &Secret<Vec<u8>>, code: &Code, counters_from: u64) -> Judgement {
    if code.len() != usize::from(hotp.digits.get()) {
        return WRONG.into();
    }
    let last = counters_from.saturating_add(rules.look_ahead(hotp).saturating_sub(1));
    let generator = Generator::new(secret, hotp.algorithm, hotp.digits);
    let Some((_, matched)) = matches(&generator, code, counters_from..=last) else { return WRONG.into() };
    let Some(next) = successor(matched) else { return Denial::CounterExhausted.into() };
    hotp.counter = next;
    Judgement::Accepted(Factor::Hotp { skipped: matched.saturating_sub(counters_from) }, code.len())
}

/// The counter after this one; the file holds them up to 2^63 - 1.
fn successor(counter: u64) -> Option<u64> {
    counter.checked_add(1).filter(|&next| i64::try_from(next).is_ok())
}

/// The lowest and the highest of these counters whose code this is. All are compared.
fn matches(generator: &Generator, code: &Code, counters: std::ops::RangeInclusive<u64>) -> Option<(u64, u64)> {
    counters.fold(None, |found: Option<(u64, u64)>, counter| match generator.matches(code, counter) {
        true => Some((found.map_or(counter, |(lowest, _)| lowest), counter)),
        false => found,
    })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests;
