use super::*;
use crate::record::google::Document;

/// RFC 6238's secret; its codes for steps 1 to 4 are in RFC 4226 appendix D.
const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const CODES: [&str; 10] =
    ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];

/// A record, and the login attempts made on it so far.
struct Person(Record);

impl Person {
    fn with(options: &str) -> Self {
        let text = format!("{SECRET}\n{options}");
        Self(Document::parse(Secret::new(text.into_bytes())).ok().unwrap().record().clone())
    }

    /// Tries a code at a time given in steps of 30 seconds.
    fn tries(&mut self, code: &str, step: u64) -> Verdict {
        self.tries_at(code, step * 30)
    }

    fn tries_at(&mut self, code: &str, now: u64) -> Verdict {
        let decision = decide(&self.0, &Code::parse(code.as_bytes()).unwrap(), now);
        decision
            .commit(|next| {
                self.0 = next.clone();
                Ok::<(), ()>(())
            })
            .unwrap()
    }

    fn counter(&self) -> u64 {
        match &self.0.device {
            Ok(Device::Hotp(hotp)) => hotp.counter,
            other => panic!("{other:?}"),
        }
    }
}

fn accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accepted(_))
}

const USED: Verdict = Verdict::Denied(Denial::UsedCode);
const WRONG: Verdict = Verdict::Denied(Denial::WrongCode);

#[test]
fn a_code_is_accepted_once() {
    let mut person = Person::with("\" TOTP_AUTH\n");
    assert_eq!(person.tries(CODES[2], 2), Verdict::Accepted(Factor::Totp { ahead: true, steps: 0 }));
    assert_eq!(person.tries(CODES[2], 2), USED);
    assert_eq!(person.tries(CODES[2], 3), USED);
}

#[test]
fn no_step_at_or_below_the_highest_accepted_one_is_accepted() {
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 5\n");
    assert!(accepted(&person.tries(CODES[4], 3)));
    for (step, code) in CODES.iter().enumerate().take(5).skip(1) {
        assert_eq!(person.tries(code, 3), USED, "step {step}");
    }
    assert!(accepted(&person.tries(CODES[5], 3)));
}

#[test]
fn the_window_is_one_step_on_either_side() {
    for (step, inside) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
        assert_eq!(accepted(&Person::with("\" TOTP_AUTH\n").tries(CODES[step], 3)), inside, "step {step}");
    }
    assert!(accepted(&Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 17\n").tries(CODES[0], 8)));
    assert!(!accepted(&Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 17\n").tries(CODES[0], 9)));
}

#[test]
fn a_step_has_the_length_that_the_record_says() {
    let mut person = Person::with("\" TOTP_AUTH\n\" STEP_SIZE 10\n\" WINDOW_SIZE 1\n");
    assert_eq!(person.tries_at(CODES[3], 29), WRONG);
    assert!(accepted(&person.tries_at(CODES[3], 30)));
}

#[test]
fn a_mark_ahead_of_the_clock_denies_and_says_so() {
    let mut person = Person::with("\" TOTP_AUTH\n\" DISALLOW_REUSE 100\n");
    assert_eq!(person.tries(CODES[3], 3), Verdict::Denied(Denial::ClockBehindMark { seconds: 96 * 30 }));
    assert_eq!(person.tries("000000", 3), Verdict::Denied(Denial::ClockBehindMark { seconds: 96 * 30 }));
}

#[test]
fn a_time_before_the_first_step_does_not_panic() {
    assert!(accepted(&Person::with("\" TOTP_AUTH\n").tries_at(CODES[0], 0)));
    assert_eq!(Person::with("\" TOTP_AUTH\n").tries_at("000000", u64::MAX), WRONG);
}

#[test]
fn scratch_codes_work_once_also_when_written_twice() {
    let mut person = Person::with("\" TOTP_AUTH\n12345678\n23456789\n12345678\n");
    assert_eq!(person.tries("12345678", 3), Verdict::Accepted(Factor::Scratch { left: 1 }));
    assert_eq!(person.tries("12345678", 3), WRONG);
    assert_eq!(person.tries("23456789", 3), Verdict::Accepted(Factor::Scratch { left: 0 }));
    assert_eq!(person.tries("23456789", 3), WRONG);
}

#[test]
fn hotp_moves_forward_only() {
    let mut person = Person::with("\" HOTP_COUNTER 1\n");
    assert_eq!(person.tries(CODES[2], 0), Verdict::Accepted(Factor::Hotp { skipped: 1 }));
    assert_eq!(person.counter(), 3);
    assert_eq!(person.tries(CODES[2], 0), WRONG);
    assert_eq!(person.counter(), 4, "a wrong code takes a counter with it");
    assert_eq!(person.tries(CODES[7], 0), WRONG, "counters 4 to 6 are looked at");
    assert!(accepted(&person.tries(CODES[7], 0)), "and now 5 to 7");
    assert_eq!(person.tries("1234567", 0), Verdict::Denied(Denial::NotACode));
    assert_eq!(person.tries("12345678", 0), WRONG);
    assert_eq!(person.counter(), 8, "only what could be a code of the device moves the counter");
}

#[test]
fn the_last_counter_is_refused_and_not_wrapped() {
    let mut person = Person::with("\" HOTP_COUNTER 9223372036854775807\n");
    assert_eq!(person.tries("000000", 0), Verdict::Denied(Denial::CounterExhausted));
    assert_eq!(person.counter(), 9_223_372_036_854_775_807);
}

#[test]
fn the_budget_is_charged_before_anything_is_judged() {
    let mut person = Person::with("\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n");
    let throttled = Verdict::Denied(Denial::Throttled { tries: 3, seconds: 30 });
    for now in [100, 101, 102] {
        assert_eq!(person.tries_at("000000", now), WRONG);
    }
    assert_eq!(person.tries_at(CODES[3], 103), throttled, "the right code is not judged either");
    assert_eq!(person.tries_at(CODES[4], 130), throttled);
    assert!(accepted(&person.tries_at(CODES[4], 131)), "blocked tries do not prolong the block");
    assert_eq!(person.tries_at("000000", 131), throttled, "a right code is charged like any other");
}

#[test]
fn what_is_no_code_costs_nothing() {
    let mut person = Person::with("\" TOTP_AUTH\n\" RATE_LIMIT 1 30\n");
    for _ in 0..5 {
        assert_eq!(person.tries("1234567", 3), Verdict::Denied(Denial::NotACode));
    }
    assert!(accepted(&person.tries(CODES[3], 3)));
}

#[test]
fn a_clock_set_back_opens_no_budget_and_one_far_off_locks_nobody_out() {
    let mut person = Person::with("\" TOTP_AUTH\n\" RATE_LIMIT 2 30 110 111\n");
    assert!(matches!(person.tries_at("000000", 100), Verdict::Denied(Denial::Throttled { .. })));
    let mut person = Person::with("\" TOTP_AUTH\n\" RATE_LIMIT 2 30 9999 9999\n");
    assert!(accepted(&person.tries_at(CODES[3], 100)));
}

#[test]
fn a_broken_option_spoils_what_needs_it() {
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 0\n12345678\n");
    assert!(matches!(person.tries(CODES[3], 3), Verdict::Denied(Denial::BadOption(_))));
    assert!(accepted(&person.tries("12345678", 3)));
    let mut person = Person::with("\" TOTP_AUTH\n\" RATE_LIMIT 0 30\n12345678\n");
    assert!(matches!(person.tries("12345678", 3), Verdict::Denied(Denial::BadOption(_))));
    let mut person = Person::with("12345678\n");
    assert_eq!(person.tries(CODES[3], 3), Verdict::Denied(Denial::NoDevice));
    assert!(accepted(&person.tries("12345678", 3)));
}

#[test]
fn a_failed_commit_gives_no_verdict() {
    let person = Person::with("\" TOTP_AUTH\n");
    let decision = decide(&person.0, &Code::parse(CODES[3].as_bytes()).unwrap(), 90);
    assert_eq!(decision.commit(|_| Err("disk full")), Err("disk full"));
}
