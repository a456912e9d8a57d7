//! Is this code right, unused, and within the budget? Pure: no clock, no file, no side effect.

mod charge;
mod decision;
mod drift;
mod explain;
mod grace;
mod resync;

pub use charge::{Charge, Charged, Due, charge, first_code, refused};
pub use decision::{Accepted, Decision, Denial, Explained, Factor, Verdict};
pub use explain::{At, Explanation, Fit, explain};
pub use grace::{has_grace, is_throttled};
pub use resync::{NotResynced, accept_clock, resync};

use crate::otp::{Answer, Code, Generator, RecoveryCode};
use crate::record::{Device, Hotp, Kind, Record, Totp, Window};
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
    Accepted(Accepted),
    /// `noted`: the record changed all the same.
    Denied {
        denial: Denial,
        noted: bool,
    },
}

impl Judgement {
    /// Of what several devices say of a code, this counts: a right one, and then what tells an operator the most.
    fn rank(&self) -> u8 {
        match self {
            Self::Accepted(_) => 4,
            Self::Denied { denial: Denial::UsedCode, .. } => 3,
            Self::Denied { denial: Denial::ClockBehindMark { .. }, .. } => 2,
            Self::Denied { denial: Denial::WrongCode { .. }, .. } => 0,
            Self::Denied { .. } => 1,
        }
    }
}

impl From<Denial> for Judgement {
    fn from(denial: Denial) -> Self {
        Self::Denied { denial, noted: false }
    }
}

/// A code of a device.
fn of_device(factor: Factor, code: &Code) -> Judgement {
    Judgement::Accepted(Accepted { factor, length: code.len(), device: String::new() })
}

/// How many digits the codes of a device have.
fn digits(device: &Device) -> usize {
    match &device.kind {
        Ok(Kind::Totp(totp)) => totp.digits.get().into(),
        Ok(Kind::Hotp(hotp)) => hotp.digits.get().into(),
        Ok(Kind::None) | Err(_) => USUAL_DIGITS,
    }
}

/// What in an answer could be a code of this record: a code of a device, a scratch code, or several of them.
fn codes(record: &Record, rules: &Rules, answer: Option<&Answer>) -> Vec<Code> {
    let mut lengths: Vec<usize> = Vec::with_capacity(record.devices.len().saturating_add(1));
    let scratch = rules.allow_scratch_codes.then_some(SCRATCH_DIGITS);
    for length in record.devices.iter().map(digits).chain(scratch) {
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }
    lengths.into_iter().filter_map(|digits| answer?.code(digits)).collect()
}

/// The recovery code in an answer, where there are any to compare it with.
fn recovery_code(record: &Record, rules: &Rules, answer: Option<&Answer>) -> Option<(RecoveryCode, usize)> {
    if record.recovery.is_empty() || !rules.allow_scratch_codes {
        return None;
    }
    answer?.recovery_code()
}

/// Judges an answer that has been charged. All candidates are computed and compared, whatever is found on the way, so that
/// right, wrong and used codes take the same time. Of several codes in one answer the first that is neither right nor
/// simply wrong ends the search.
fn judge(next: &mut Record, rules: &Rules, answer: Option<&Answer>, counters: Counters, now: u64) -> Judgement {
    let mut verdict = Denial::NotACode;
    for code in codes(next, rules, answer) {
        match judge_code(next, rules, &code, counters.from, now) {
            Judgement::Denied { denial: Denial::WrongCode { .. }, .. } => {
                verdict = Denial::WrongCode { moved_from: counters.from.filter(|_| counters.moved) };
            }
            Judgement::Denied { denial: Denial::NoDevice, .. } => verdict = Denial::NoDevice,
            ended => return ended,
        }
    }
    if let Some((code, length)) = recovery_code(next, rules, answer) {
        if let Some(denial) = no_usable_device(next, rules) {
            return denial.into();
        }
        if let Some(factor) = spend_recovery_code(next, code.expose()) {
            return Judgement::Accepted(Accepted { factor, length, device: String::new() });
        }
        verdict = WRONG;
    }
    verdict.into()
}

/// Scratch and recovery codes stand in for a device. Where none could be used they do not either.
fn no_usable_device(record: &Record, rules: &Rules) -> Option<Denial> {
    let denial = |device: &Device| match &device.secret {
        Err(_) => Some(Denial::BadSecret),
        Ok(secret) => rules.is_too_short(secret).then_some(Denial::WeakSecret),
    };
    let mut denials = record.devices.iter().map(denial);
    // The first one's, unless any of them is good.
    let first = denials.next().unwrap_or(Some(Denial::NoDevice))?;
    denials.all(|denial| denial.is_some()).then_some(first)
}

fn judge_code(next: &mut Record, rules: &Rules, code: &Code, counters_from: Option<u64>, now: u64) -> Judgement {
    if let Some(denial) = no_usable_device(next, rules) {
        return denial.into();
    }
    if let Some(factor) = spend_scratch_code(next, rules, code) {
        return Judgement::Accepted(Accepted { factor, length: code.len(), device: String::new() });
    }
    // Whatever one of them says, all are asked: a code that is right for two of them is used up for both.
    let judged = next.devices.iter_mut().map(|device| judge_by(device, rules, code, counters_from, now));
    // Of equals the first.
    let best = judged.reduce(|best, other| if other.rank() > best.rank() { other } else { best });
    best.unwrap_or_else(|| Denial::NoDevice.into())
}

/// Whether a code is right for one device.
fn judge_by(device: &mut Device, rules: &Rules, code: &Code, counters_from: Option<u64>, now: u64) -> Judgement {
    let Ok(secret) = device.secret.clone() else { return Denial::BadSecret.into() };
    if rules.is_too_short(&secret) {
        return Denial::WeakSecret.into();
    }
    let judgement = match &mut device.kind {
        Ok(Kind::Totp(totp)) => judge_totp(totp, rules, &secret, code, now),
        Ok(Kind::Hotp(hotp)) => judge_hotp(hotp, rules, &secret, code, counters_from),
        Ok(Kind::None) => Denial::NoDevice.into(),
        Err(bad) => Denial::BadOption(bad.clone()).into(),
    };
    match judgement {
        Judgement::Accepted(accepted) => {
            device.last_used = Some(now);
            Judgement::Accepted(Accepted { device: device.name.clone(), ..accepted })
        }
        denied @ Judgement::Denied { .. } => denied,
    }
}

/// Takes the code out of the record if it is one of its scratch codes, or of those that were imported. All of them are
/// compared.
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
        return spend_recovery_code(next, code.expose().as_bytes());
    }
    let mut left = Vec::with_capacity(unspent.len());
    left.extend(unspent.iter().copied().filter(|&scratch| !is_typed(scratch)));
    let factor = Factor::Scratch { left: left.len() };
    next.scratch_before_odd = next.scratch_before_odd.saturating_sub(matches);
    next.scratch = Arc::new(Secret::new(left));
    Some(factor)
}

fn spend_recovery_code(next: &mut Record, code: &[u8]) -> Option<Factor> {
    let is_spent = !next.recovery.is_empty() && next.recovery.spend(code);
    is_spent.then(|| Factor::Recovery { left: next.recovery.len() })
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
            of_device(Factor::Totp { ahead: matched >= step, steps: matched.abs_diff(step) }, code)
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

/// RFC 4226 section 7.2 and 7.4: the look-ahead, and a counter that only ever moves forward. The record's own counter may
/// have been moved already, for the case that the code is wrong.
fn judge_hotp(
    hotp: &mut Hotp,
    rules: &Rules,
    secret: &Secret<Vec<u8>>,
    code: &Code,
    counters_from: Option<u64>,
) -> Judgement {
    let counters_from = counters_from.unwrap_or(hotp.counter);
    if code.len() != usize::from(hotp.digits.get()) {
        return WRONG.into();
    }
    let last = counters_from.saturating_add(rules.look_ahead(hotp).saturating_sub(1));
    let generator = Generator::new(secret, hotp.algorithm, hotp.digits);
    let Some((_, matched)) = matches(&generator, code, counters_from..=last) else { return WRONG.into() };
    let Some(next) = successor(matched) else { return Denial::CounterExhausted.into() };
    hotp.counter = next;
    of_device(Factor::Hotp { skipped: matched.saturating_sub(counters_from) }, code)
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
