//! What an operator is told about a code: whether it is right, and what it is if not. Pure, and no verdict: nothing is stored,
//! nothing is used up, and nobody gets in by it.

use super::decision::Explained;
use super::{Charge, Denial, Rules, Try, charge, drift};
use crate::otp::{Answer, Generator};
use crate::record::{Device, Hotp, Kind, Record, Totp};
use crate::secret::Secret;

/// Counters looked at on either side of the next one.
const COUNTERS: u64 = 1000;

/// What a code is, by one record.
///
/// There is no way from here to a verdict.
///
/// ```compile_fail,E0277
/// fn cash(explanation: pam_totp::verify::Explanation) -> pam_totp::verify::Verdict {
///     explanation.into()
/// }
/// ```
///
/// ```compile_fail,E0308
/// fn cash(explanation: pam_totp::verify::Explanation) -> pam_totp::verify::Verdict {
///     explanation.judged
/// }
/// ```
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What would be said of it, were there budget.
    pub judged: Explained,
    /// The budget of the record itself, where it is spent: a login would not judge the code.
    pub spent: Option<Denial>,
    /// Where among the codes of each device it is, as far as one looks, whatever was said of it.
    pub fits: Vec<Fit>,
}

impl Explanation {
    /// Whether a login would accept it, as far as the record goes.
    pub const fn is_right(&self) -> bool {
        matches!(self.judged, Explained::Right(_)) && self.spent.is_none()
    }
}

/// A code of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// The name of the device; a file's has none.
    pub device: String,
    /// Which of its codes.
    pub at: At,
    /// It was accepted, or one that comes after it.
    pub is_used: bool,
    /// It is one of those that a login looks at.
    pub is_in_window: bool,
}

/// A place among the codes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// By time: steps from now, by the clock of this host, and how many seconds a step has.
    Step {
        /// Below 0: the device's clock is behind.
        from_now: i64,
        /// Seconds.
        period: u64,
    },
    /// By counter: from the next one.
    Counter {
        /// Below 0: it has been passed.
        ahead: i64,
    },
}

/// Says what a code is at one moment (`now`: seconds since 1970).
pub fn explain(record: &Record, rules: &Rules, answer: &Answer, now: u64) -> Explanation {
    let spent = match judged(record, rules, answer, now) {
        Explained::Refused(denial @ Denial::Throttled { .. }) => Some(denial),
        _ => None,
    };
    let free = Record { rate_limit: record.rate_limit.clone().map(|_| None), ..record.clone() };
    let fits = record.devices.iter().filter_map(|device| fit(device, rules, answer, now));
    Explanation { judged: judged(&free, rules, answer, now), spent, fits: fits.collect() }
}

fn judged(record: &Record, rules: &Rules, answer: &Answer, now: u64) -> Explained {
    match charge(record, rules, &Try::new(answer), now) {
        Charge::Refused(decision) => decision.explained(),
        Charge::Due(due) => due.unpaid().explained(),
    }
}

/// Where the code is among those of a device; the nearest of several.
fn fit(device: &Device, rules: &Rules, answer: &Answer, now: u64) -> Option<Fit> {
    let secret = device.secret.as_ref().ok()?;
    let (at, is_used, is_in_window) = match device.kind.as_ref().ok()? {
        Kind::Totp(totp) => fit_of_totp(totp, rules, secret, answer, now)?,
        Kind::Hotp(hotp) => fit_of_hotp(hotp, rules, secret, answer)?,
        Kind::None => return None,
    };
    Some(Fit { device: device.name.clone(), at, is_used, is_in_window })
}

fn fit_of_totp(
    totp: &Totp,
    rules: &Rules,
    secret: &Secret<Vec<u8>>,
    answer: &Answer,
    now: u64,
) -> Option<(At, bool, bool)> {
    let code = answer.code(totp.digits.get().into())?;
    let clock = now.checked_div(totp.period)?;
    let from_now = drift::nearest(&Generator::new(secret, totp.algorithm, totp.digits), &code, clock)?;
    let step = clock.checked_add_signed(from_now)?;
    let (window, middle) = (rules.window(totp), clock.saturating_add_signed(totp.skew));
    let is_in_window = (middle.saturating_sub(window.behind)..=middle.saturating_add(window.ahead)).contains(&step);
    let is_used = totp.mark().is_some_and(|mark| step <= mark);
    Some((At::Step { from_now, period: totp.period }, is_used, is_in_window))
}

fn fit_of_hotp(hotp: &Hotp, rules: &Rules, secret: &Secret<Vec<u8>>, answer: &Answer) -> Option<(At, bool, bool)> {
    let code = answer.code(hotp.digits.get().into())?;
    let generator = Generator::new(secret, hotp.algorithm, hotp.digits);
    let is_it = |counter: &u64| generator.matches(&code, *counter);
    let ahead = (hotp.counter..hotp.counter.saturating_add(COUNTERS)).find(is_it);
    let behind = || (hotp.counter.saturating_sub(COUNTERS)..hotp.counter).rev().find(is_it);
    let counter = ahead.or_else(behind)?;
    let far = i64::try_from(counter.abs_diff(hotp.counter)).ok()?;
    let is_used = counter < hotp.counter;
    let is_in_window = !is_used && counter.abs_diff(hotp.counter) < rules.look_ahead(hotp);
    Some((At::Counter { ahead: if is_used { far.saturating_neg() } else { far } }, is_used, is_in_window))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::otp::{Algorithm, Digits, Form};
    use crate::record::google::Document;

    fn record(options: &str) -> Record {
        let text = format!("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n{options}");
        Document::parse(Secret::new(text.into_bytes())).ok().unwrap().record().clone()
    }

    fn answer(counter: u64) -> Answer {
        let secret = Secret::new(b"12345678901234567890".to_vec());
        let code = Generator::new(&secret, Algorithm::Sha1, Digits::SIX).code(counter);
        Answer::new(Secret::new(code.expose().as_bytes().to_vec()), Form::Code, false)
    }

    const NOW: u64 = 5000 * 30;

    fn at(options: &str, counter: u64) -> Explanation {
        explain(&record(options), &Rules::default(), &answer(counter), NOW)
    }

    fn step(from_now: i64, is_used: bool, is_in_window: bool) -> Vec<Fit> {
        vec![Fit { device: String::new(), at: At::Step { from_now, period: 30 }, is_used, is_in_window }]
    }

    fn counter(ahead: i64, is_used: bool, is_in_window: bool) -> Vec<Fit> {
        vec![Fit { device: String::new(), at: At::Counter { ahead }, is_used, is_in_window }]
    }

    #[test]
    fn a_right_code_is_right_and_stays_so() {
        let record = record("\" TOTP_AUTH\n");
        for _ in 0..2 {
            let explanation = explain(&record, &Rules::default(), &answer(5001), NOW);
            assert!(explanation.is_right(), "{explanation:?}");
            assert_eq!(explanation.fits, step(1, false, true));
        }
    }

    #[test]
    fn a_used_code_is_told_from_a_wrong_one() {
        let used = at("\" TOTP_AUTH\n\" DISALLOW_REUSE 5000\n", 5000);
        assert_eq!((used.judged, used.fits), (Explained::Refused(Denial::UsedCode), step(0, true, true)));
        let wrong = at("\" TOTP_AUTH\n", 9000);
        let denial = Denial::WrongCode { moved_from: None };
        assert_eq!((wrong.judged, wrong.fits), (Explained::Refused(denial), vec![]));
    }

    #[test]
    fn a_clock_that_is_off_shows_by_how_much() {
        for (code, from_now) in [(4995, -5), (5100, 100), (5000 - 1499, -1499)] {
            let off = at("\" TOTP_AUTH\n", code);
            assert!(!off.is_right());
            assert_eq!(off.fits, step(from_now, false, false));
        }
        assert_eq!(at("\" TOTP_AUTH\n\" DISALLOW_REUSE 4997\n", 4995).fits, step(-5, true, false));
        // By the clock of this host, whatever the record knows of the device's.
        let known = at("\" TOTP_AUTH\n\" TIME_SKEW -5\n", 4995);
        assert!(known.is_right());
        assert_eq!(known.fits, step(-5, false, true));
    }

    #[test]
    fn a_counter_is_ahead_or_has_been_passed() {
        let options = "\" HOTP_COUNTER 50\n";
        assert_eq!(at(options, 50).fits, counter(0, false, true));
        assert_eq!(at(options, 52).fits, counter(2, false, true));
        assert_eq!(at(options, 53).fits, counter(3, false, false));
        assert!(at(options, 52).is_right());
        assert_eq!(at(options, 950).fits, counter(900, false, false));
        assert_eq!(at(options, 47).fits, counter(-3, true, false));
        assert!(!at(options, 47).is_right() && !at(options, 950).is_right());
    }

    #[test]
    fn a_spent_budget_hides_nothing() {
        let limit = format!("\" RATE_LIMIT 1 30 {}\n\" TOTP_AUTH\n", NOW - 1);
        let right = at(&limit, 5000);
        assert!(!right.is_right() && matches!(right.judged, Explained::Right(_)), "{right:?}");
        assert_eq!(right.spent, Some(Denial::Throttled { tries: 1, seconds: 30 }));
        assert!(matches!(at(&limit, 9000).judged, Explained::Refused(Denial::WrongCode { .. })));
    }

    #[test]
    fn without_a_device_or_a_code_that_is_said() {
        let empty = explain(&Record::of(Vec::new()), &Rules::default(), &answer(5000), NOW);
        assert_eq!(empty.judged, Explained::Refused(Denial::NoDevice));
        let long = Answer::new(Secret::new(b"1234567".to_vec()), Form::Code, false);
        let odd = explain(&record("\" TOTP_AUTH\n"), &Rules::default(), &long, NOW);
        assert_eq!((odd.judged, odd.fits), (Explained::Refused(Denial::NotACode), vec![]));
    }
}
