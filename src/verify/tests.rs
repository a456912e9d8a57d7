use super::*;
use crate::otp::Form;
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
        self.tries_by(&Rules::default(), &answer(code), now)
    }

    fn tries_by(&mut self, rules: &Rules, answer: &Answer, now: u64) -> Verdict {
        self.attempt(rules, &Try::new(answer), now)
    }

    fn attempt(&mut self, rules: &Rules, attempt: &Try, now: u64) -> Verdict {
        let decision = match charge(&self.0, rules, attempt, now) {
            Charge::Refused(decision) => decision,
            Charge::Due(due) => due.commit(|next| self.store(next)).unwrap().decide(),
        };
        match decision.commit(|next| self.store(next)).unwrap() {
            // For comparing with WRONG.
            Verdict::Denied(Denial::WrongCode { .. }) => WRONG,
            verdict => verdict,
        }
    }

    fn store(&mut self, next: &Record) -> Result<(), ()> {
        self.0 = next.clone();
        Ok(())
    }

    fn counter(&self) -> u64 {
        match &self.0.devices[0].kind {
            Ok(Kind::Hotp(hotp)) => hotp.counter,
            other => panic!("{other:?}"),
        }
    }
}

fn answer(code: &str) -> Answer {
    Answer::new(Secret::new(code.into()), Form::Code, false)
}

fn accept(factor: Factor, length: usize) -> Verdict {
    Verdict::Accepted(Accepted { factor, length, device: String::new() })
}

fn accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accepted(_))
}

const USED: Verdict = Verdict::Denied(Denial::UsedCode);
const WRONG: Verdict = Verdict::Denied(super::WRONG);

#[test]
fn a_code_is_accepted_once() {
    let mut person = Person::with("\" TOTP_AUTH\n");
    assert_eq!(person.tries(CODES[2], 2), accept(Factor::Totp { ahead: true, steps: 0 }, 6));
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
fn used_steps_are_remembered_for_as_long_as_the_window_could_reach_them() {
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 3\n\" DISALLOW_REUSE 1 2\n");
    assert!(accepted(&person.tries(CODES[4], 4)));
    let Ok(Kind::Totp(totp)) = &person.0.devices[0].kind else { panic!() };
    assert_eq!(totp.used, Ok(Some(vec![2, 4])));
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
fn how_far_off_a_device_is_has_its_sign_in_the_log() {
    for (ahead, steps, expected) in [(true, 0, "+0"), (true, 2, "+2"), (false, 2, "-2")] {
        let accepted = Accepted { factor: Factor::Totp { ahead, steps }, length: 6, device: String::new() };
        assert_eq!(accepted.fact().to_string(), format!("totp steps={expected}"));
    }
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
    assert_eq!(person.tries("12345678", 3), accept(Factor::Scratch { left: 1 }, 8));
    assert_eq!(person.tries("12345678", 3), WRONG);
    assert_eq!(person.tries("23456789", 3), accept(Factor::Scratch { left: 0 }, 8));
    assert_eq!(person.tries("23456789", 3), WRONG);
}

#[test]
fn where_scratch_codes_are_none_eight_digits_are_a_devices_alone() {
    let rules = Rules { allow_scratch_codes: false, ..Rules::default() };
    let person = || Person::with("\" TOTP_AUTH\n\" DIGITS 8\n12345678\n");
    assert!(accepted(&person().tries("12345678", 3)));
    assert_eq!(person().tries_by(&rules, &answer("12345678"), 90), WRONG);
}

#[test]
fn a_secret_of_just_so_many_bits_is_long_enough() {
    let rules = |bits| Rules { min_secret_bits: bits, ..Rules::default() };
    let mut person = Person::with("\" TOTP_AUTH\n");
    assert_eq!(person.tries_by(&rules(161), &answer(CODES[3]), 90), Verdict::Denied(Denial::WeakSecret));
    assert!(accepted(&person.tries_by(&rules(160), &answer(CODES[3]), 90)));
}

#[test]
fn hotp_moves_forward_only() {
    let mut person = Person::with("\" HOTP_COUNTER 1\n");
    assert_eq!(person.tries(CODES[2], 0), accept(Factor::Hotp { skipped: 1 }, 6));
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
fn a_try_at_a_counter_without_successor_is_paid_for_all_the_same() {
    let mut person = Person::with("\" HOTP_COUNTER 9223372036854775807\n\" RATE_LIMIT 3 30\n");
    assert_eq!(person.tries("000000", 3), Verdict::Denied(Denial::CounterExhausted));
    let Ok(Some(limit)) = &person.0.rate_limit else { panic!() };
    assert_eq!(limit.charged, [90]);
}

#[test]
fn a_first_code_is_the_devices_own_and_of_now() {
    let rules = Rules { skew_adjustment: true, ..Rules::default() };
    let person = Person::with("\" TOTP_AUTH\n12345678\n");
    let first = |code: &str| first_code(&person.0, &rules, &answer(code), 90).commit(|_| Ok::<_, ()>(())).unwrap();
    assert!(accepted(&first(CODES[3])));
    assert_eq!(first("12345678"), Verdict::Denied(Denial::NotACode), "a scratch code is none");
    assert_eq!(first(CODES[9]), WRONG, "of another time");
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
    // In the C module a list of used steps matters only where a code is right.
    let google = Rules { google: true, ..Rules::default() };
    let mut person = Person::with("\" TOTP_AUTH\n\" DISALLOW_REUSE x\n");
    for (rules, code, is_told) in
        [(&Rules::default(), "000000", true), (&google, CODES[3], true), (&google, "000000", false)]
    {
        let verdict = person.tries_by(rules, &answer(code), 90);
        assert_eq!(matches!(verdict, Verdict::Denied(Denial::BadOption(_))), is_told, "{verdict:?}");
    }
    let mut person = Person::with("12345678\n");
    assert_eq!(person.tries(CODES[3], 3), Verdict::Denied(Denial::NoDevice));
    assert!(accepted(&person.tries("12345678", 3)));
}

#[test]
fn a_failed_commit_gives_no_verdict() {
    let (rules, answer) = (Rules::default(), answer(CODES[3]));
    let attempt = Try::new(&answer);
    for (options, unlimited) in [("\" TOTP_AUTH\n", true), ("\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n", false)] {
        let person = Person::with(options);
        let Charge::Due(due) = charge(&person.0, &rules, &attempt, 90) else { panic!("refused") };
        match due.commit(|_| Err("disk full")) {
            Ok(charged) => {
                assert!(unlimited, "what costs something is not judged before it is paid for");
                assert_eq!(charged.decide().commit(|_| Err("disk full")), Err("disk full"));
            }
            Err(error) => assert_eq!((error, unlimited), ("disk full", false)),
        }
    }
}

#[test]
fn a_denial_that_leaves_no_trace_needs_no_store() {
    let unstored = |options: &str, code: &str| {
        let (person, answer, rules) = (Person::with(options), answer(code), Rules::default());
        charge(&person.0, &rules, &Try::new(&answer), 90).without_storing()
    };
    assert_eq!(unstored("\" TOTP_AUTH\n", "000000"), Some(WRONG));
    assert_eq!(unstored("\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n", "password"), Some(Verdict::Denied(Denial::NotACode)));
    assert_eq!(unstored("\" TOTP_AUTH\n", CODES[3]), None, "a right code has to be used up");
    assert_eq!(unstored("\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n", "000000"), None, "a try has to be paid for");
    assert_eq!(unstored("\" HOTP_COUNTER 1\n", "000000"), None, "and a counter");
}

#[test]
fn where_there_is_no_device_no_answer_is_looked_at() {
    for code in ["password", "", CODES[3], "12345678"] {
        let mut person = Person(Record::of(Vec::new()));
        assert_eq!(person.tries(code, 3), Verdict::Denied(Denial::NoDevice), "{code}");
    }
}

#[test]
fn where_no_secret_can_be_read_nothing_is_charged_but_as_the_c_module_does() {
    for (google, tries) in [(false, 0), (true, 1)] {
        let text = b"!\n\" RATE_LIMIT 3 30\n\" TOTP_AUTH\n".to_vec();
        let mut person = Person(Document::parse(Secret::new(text)).ok().unwrap().record().clone());
        let rules = Rules { google, ..Rules::default() };
        assert_eq!(person.tries_by(&rules, &answer(CODES[3]), 90), Verdict::Denied(Denial::BadSecret));
        let Ok(Some(limit)) = &person.0.rate_limit else { panic!() };
        assert_eq!(limit.charged.len(), tries);
    }
}

#[test]
fn what_is_stored_before_a_code_is_judged_does_not_depend_on_the_code() {
    let rules = Rules::default();
    for options in ["\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n12345678\n", "\" HOTP_COUNTER 3\n\" RATE_LIMIT 3 30\n"] {
        let charged = |code: &str| {
            let text = format!("{SECRET}\n{options}");
            let document = Document::parse(Secret::new(text.into_bytes())).ok().unwrap();
            let answer = answer(code);
            let attempt = Try::new(&answer);
            let Charge::Due(due) = charge(document.record(), &rules, &attempt, 90) else { panic!("refused") };
            let mut stored = None;
            let _ = due.commit(|next| {
                stored = Some(document.with(next).expose().clone());
                Ok::<(), ()>(())
            });
            stored.expect("a try has its price")
        };
        assert_eq!(charged(CODES[3]), charged("000000"));
    }
}

#[test]
fn two_answers_of_one_login_cost_one_try_where_the_c_module_says_so() {
    let rules = Rules { google: true, ..Rules::default() };
    let mut person = Person::with("\" HOTP_COUNTER 3\n\" RATE_LIMIT 2 30\n");
    let (wrong, right) = (answer("000000"), answer(CODES[3]));
    assert_eq!(person.attempt(&rules, &Try::new(&wrong), 90), WRONG);
    assert_eq!(person.counter(), 4);
    let second = Try { answer: Some(&right), earlier: Earlier::Moved { from: 3 } };
    assert!(accepted(&person.attempt(&rules, &second, 90)), "counter 3 is still looked at");
    assert_eq!(person.0.rate_limit.clone().unwrap().unwrap().charged, [90]);
    let nothing = Try { answer: None, earlier: Earlier::Nothing };
    assert_eq!(person.attempt(&rules, &nothing, 91), Verdict::Denied(Denial::NotACode), "and nothing costs a try");
    assert_eq!(person.0.rate_limit.clone().unwrap().unwrap().charged, [90, 91]);
}

#[test]
fn a_password_may_stand_before_the_code() {
    let combined = |text: &str| Answer::new(Secret::new(text.into()), Form::Combined, false);
    let mut person = Person::with("\" TOTP_AUTH\n12345678\n");
    let rules = Rules::default();
    assert!(accepted(&person.tries_by(&rules, &combined(&format!("hunter2{}", CODES[3])), 90)));
    assert_eq!(person.tries_by(&rules, &combined(&format!("hunter2{}", CODES[3])), 90), USED);
    assert!(accepted(&person.tries_by(&rules, &combined("hunter12345678"), 90)), "a scratch code");
    assert_eq!(person.tries_by(&rules, &combined("hunter"), 90), Verdict::Denied(Denial::NotACode));
}

#[test]
fn codes_of_eight_digits_and_other_hashes() {
    let mut person = Person::with("\" TOTP_AUTH\n\" DIGITS 8\n\" WINDOW_SIZE 1\n");
    assert_eq!(person.tries_at("287082", 59), Verdict::Denied(Denial::NotACode));
    assert!(accepted(&person.tries_at("94287082", 59)));
    assert_eq!(person.tries_at("94287082", 59), USED);
    let mut person = Person::with("\" HOTP_COUNTER 1\n\" DIGITS 7\n");
    assert!(accepted(&person.tries_at("4287082", 0)));
}

#[test]
fn a_skew_of_the_record_moves_the_window_and_the_mark() {
    let mut person = Person::with("\" TOTP_AUTH\n\" TIME_SKEW 5\n\" WINDOW_SIZE 1\n");
    assert_eq!(person.tries(CODES[3], 3), WRONG);
    assert!(accepted(&person.tries(CODES[8], 3)));
    assert_eq!(person.tries(CODES[8], 3), USED);
}

#[test]
fn three_codes_of_another_time_set_the_skew_where_that_is_asked_for() {
    let rules = Rules { skew_adjustment: true, ..Rules::default() };
    let wrong_time = Verdict::Denied(Denial::WrongTime);
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 1\n");
    assert_eq!(person.tries(CODES[5], 100), WRONG, "not without being asked for");
    assert_eq!(person.tries_by(&rules, &answer(CODES[5]), 3000), wrong_time);
    assert_eq!(person.tries_by(&rules, &answer(CODES[5]), 3030), wrong_time, "the same code is not a second one");
    assert_eq!(person.tries_by(&rules, &answer(CODES[6]), 3030), wrong_time);
    let behind = accept(Factor::Totp { ahead: false, steps: 95 }, 6);
    assert_eq!(person.tries_by(&rules, &answer(CODES[7]), 3060), behind);
    assert_eq!(person.tries(CODES[7], 102), USED, "the code that set it is used");
    assert!(accepted(&person.tries(CODES[8], 103)), "and codes of that time work from now on");
    // What was used once does not come back as proof of a clock that is off.
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 1\n\" DISALLOW_REUSE 7\n");
    for (code, now) in [(CODES[5], 3000), (CODES[6], 3030), (CODES[7], 3060)] {
        assert_eq!(person.tries_by(&rules, &answer(code), now), USED);
    }
}

#[test]
fn a_host_is_remembered_and_not_asked_for_a_while() {
    let rules = Rules { remember: Some("192.0.2.1"), ..Rules::default() };
    let mut person = Person::with("\" TOTP_AUTH\n\" LAST0 192.0.2.9 50\n");
    assert!(accepted(&person.tries_by(&rules, &answer(CODES[3]), 90)));
    assert!(has_grace(&person.0, "192.0.2.1", 60, 149));
    assert!(!has_grace(&person.0, "192.0.2.1", 60, 150), "over");
    assert!(!has_grace(&person.0, "192.0.2.1", 60, 89), "a time that is yet to come");
    assert!(!has_grace(&person.0, "192.0.2.1", 0, 90), "no period, no grace");
    assert!(!has_grace(&person.0, "192.0.2.2", 60, 90), "another host");
    for (number, code) in (4..).zip(&CODES[4..]) {
        let host = format!("198.51.100.{number}");
        let rules = Rules { remember: Some(&host), ..Rules::default() };
        assert!(accepted(&person.tries_by(&rules, &answer(code), number * 30)));
    }
    let hosts: Vec<_> =
        person.0.logins.iter().filter(|slot| matches!(slot, crate::record::Slot::Login { .. })).collect();
    assert_eq!(hosts.len(), 8);
}

#[test]
fn of_ten_hosts_the_one_of_the_longest_ago_makes_room() {
    let lines: String =
        (0..10).map(|place| format!("\" LAST{place} 192.0.2.{place} {}\n", 50 - (place + 5) % 10)).collect();
    let mut person = Person::with(&format!("\" TOTP_AUTH\n{lines}"));
    let rules = Rules { remember: Some("198.51.100.1"), ..Rules::default() };
    assert!(accepted(&person.tries_by(&rules, &answer(CODES[3]), 90)));
    let is_known = |host: &str| has_grace(&person.0, host, 100, 90);
    assert!(is_known("198.51.100.1"));
    let gone: Vec<_> = (0..10).filter(|place| !is_known(&format!("192.0.2.{place}"))).collect();
    assert_eq!(gone, [4], "which was at 41");
}

#[test]
fn a_budget_that_is_spent_or_cannot_be_read_is_seen_before_anybody_is_asked() {
    for (options, is_throttled_at_100) in [
        ("", false),
        ("\" RATE_LIMIT 1 30\n", false),
        ("\" RATE_LIMIT 2 30 99\n", false),
        ("\" RATE_LIMIT 1 30 99\n", true),
        ("\" RATE_LIMIT 1 30 69\n", false),
        ("\" RATE_LIMIT x\n", true),
    ] {
        let person = Person::with(&format!("\" TOTP_AUTH\n{options}"));
        assert_eq!(is_throttled(&person.0, 100), is_throttled_at_100, "{options:?}");
    }
}

#[test]
fn like_the_c_module_where_that_is_asked_for() {
    let rules = Rules { google: true, skew_adjustment: false, ..Rules::default() };
    // A set of used steps, and only where the file asks for it.
    let mut person = Person::with("\" TOTP_AUTH\n\" DISALLOW_REUSE\n");
    assert!(accepted(&person.tries_by(&rules, &answer(CODES[4]), 90)));
    assert!(accepted(&person.tries_by(&rules, &answer(CODES[3]), 90)), "an older one that was not used");
    assert_eq!(person.tries_by(&rules, &answer(CODES[3]), 90), USED);
    let mut person = Person::with("\" TOTP_AUTH\n");
    assert!(accepted(&person.tries_by(&rules, &answer(CODES[3]), 90)));
    assert!(accepted(&person.tries_by(&rules, &answer(CODES[3]), 90)));
    // Where it asks for it, used codes are no proof of a clock that is off either, and what sets it is used.
    let adjusting = Rules { google: true, skew_adjustment: true, ..Rules::default() };
    let three = [(CODES[5], 3000), (CODES[6], 3030), (CODES[7], 3060)];
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 1\n\" DISALLOW_REUSE 7\n");
    let said = three.map(|(code, now)| person.tries_by(&adjusting, &answer(code), now));
    assert_eq!(said[2], USED, "{said:?}");
    assert_eq!(person.tries_by(&rules, &answer(CODES[8]), 3090), WRONG, "and the clock is not set by them");
    let mut person = Person::with("\" TOTP_AUTH\n\" WINDOW_SIZE 1\n\" DISALLOW_REUSE 4\n");
    assert!(accepted(&three.map(|(code, now)| person.tries_by(&adjusting, &answer(code), now))[2]));
    assert_eq!(person.tries_by(&rules, &answer(CODES[7]), 3060), USED);
    // Blocked tries prolong the block.
    let mut person = Person::with("\" TOTP_AUTH\n\" RATE_LIMIT 1 30\n");
    assert_eq!(person.tries_by(&rules, &answer("000000"), 100), WRONG);
    for now in [120, 140, 160] {
        assert!(matches!(person.tries_by(&rules, &answer("000000"), now), Verdict::Denied(Denial::Throttled { .. })));
    }
    assert_eq!(person.tries_by(&rules, &answer("000000"), 191), WRONG);
    // The first odd line ends the scratch codes.
    let mut person = Person::with("\" TOTP_AUTH\n12345678\nodd\n23456789\n");
    assert_eq!(person.tries_by(&rules, &answer("23456789"), 90), WRONG);
    assert!(accepted(&person.tries_by(&rules, &answer("12345678"), 90)));
}

#[test]
fn a_login_looks_behind_the_counter_only_where_it_moved_it_itself() {
    let rules = Rules { google: true, ..Rules::default() };
    let first = answer(CODES[0]);
    let mut person = Person::with("\" HOTP_COUNTER 1\n");
    // An earlier answer that was no code at all has moved nothing.
    assert_eq!(person.attempt(&rules, &Try { answer: Some(&first), earlier: Earlier::Charged }, 0), WRONG);
    assert_eq!(person.counter(), 2, "and this one takes a counter with it");
    // Somebody else has moved it meanwhile.
    let mut person = Person::with("\" HOTP_COUNTER 7\n");
    let (attempt, five) =
        (|answer| Try { answer: Some(answer), earlier: Earlier::Moved { from: 5 } }, answer(CODES[5]));
    assert_eq!(person.attempt(&rules, &attempt(&five), 0), WRONG);
    // With no_increment_hotp nothing is moved, and so there is nothing to look behind.
    let rules = Rules { increment_hotp: false, ..rules };
    let mut person = Person::with("\" HOTP_COUNTER 5\n");
    let wrong = answer("000000");
    let attempt = Try::new(&wrong);
    let Charge::Due(due) = charge(&person.0, &rules, &attempt, 0) else { panic!("refused") };
    let verdict = due.commit(|_| Err(())).unwrap().decide().commit(|_| Err(())).unwrap();
    assert_eq!(verdict, Verdict::Denied(Denial::WrongCode { moved_from: None }));
    assert!(accepted(&person.attempt(&rules, &Try::new(&five), 0)));
    assert_eq!(person.attempt(&rules, &Try { answer: Some(&five), earlier: Earlier::Charged }, 0), WRONG);
}

// ---- Several devices ----

/// A record of these devices, with the RFC's secret or a part of it.
fn record_of(devices: &[(&str, usize, u64)]) -> Record {
    let device = |&(name, length, period): &(&str, usize, u64)| Device {
        name: name.to_owned(),
        secret: Ok(Arc::new(Secret::new(b"12345678901234567890"[..length].to_vec()))),
        kind: Ok(Kind::Totp(Totp {
            algorithm: crate::otp::Algorithm::Sha1,
            digits: crate::otp::Digits::SIX,
            period,
            window: None,
            skew: 0,
            drift: Vec::new(),
            used: Ok(None),
        })),
        added: None,
        last_used: None,
    };
    Record::of(devices.iter().map(device).collect())
}

fn marks(record: &Record) -> Vec<Option<u64>> {
    record
        .devices
        .iter()
        .map(|device| match &device.kind {
            Ok(Kind::Totp(totp)) => totp.mark(),
            _ => None,
        })
        .collect()
}

fn code_of(record: &Record, device: usize, step: u64) -> String {
    let device = &record.devices[device];
    let generator =
        Generator::new(device.secret.as_ref().unwrap(), crate::otp::Algorithm::Sha1, crate::otp::Digits::SIX);
    generator.code(step).expose().clone()
}

#[test]
fn each_device_has_its_own_codes_and_its_own_mark() {
    let mut person = Person(record_of(&[("phone", 20, 30), ("tablet", 16, 30)]));
    let codes = [code_of(&person.0, 0, 3), code_of(&person.0, 1, 3)];
    let Verdict::Accepted(by_tablet) = person.tries(&codes[1], 3) else { panic!("the second device's code") };
    assert_eq!((by_tablet.device.as_str(), marks(&person.0)), ("tablet", vec![None, Some(3)]));
    assert_eq!(person.0.devices.iter().map(|device| device.last_used).collect::<Vec<_>>(), [None, Some(90)]);
    assert_eq!(person.tries(&codes[1], 3), USED);
    assert!(accepted(&person.tries(&codes[0], 3)));
    assert_eq!((person.tries(&codes[0], 3), person.tries("000000", 3)), (USED, WRONG));
}

#[test]
fn a_code_that_is_right_for_two_devices_is_used_up_for_both() {
    // The same secret under two names: no program of ours makes that, and here it stands for an accident.
    let mut person = Person(record_of(&[("phone", 20, 30), ("twin", 20, 30)]));
    let Verdict::Accepted(first) = person.tries(CODES[3], 3) else { panic!("a right code") };
    assert_eq!(first.device, "phone", "of equals the first");
    assert_eq!(marks(&person.0), [Some(3), Some(3)]);
    assert_eq!(person.tries(CODES[3], 3), USED);
}

#[test]
fn a_mark_ahead_of_the_clock_stops_its_own_device_alone() {
    let mut person = Person(record_of(&[("phone", 20, 30), ("tablet", 16, 30)]));
    let Ok(Kind::Totp(totp)) = &mut person.0.devices[0].kind else { panic!() };
    totp.used = Ok(Some(vec![100]));
    assert!(matches!(person.tries(CODES[3], 3), Verdict::Denied(Denial::ClockBehindMark { .. })));
    let code = code_of(&person.0, 1, 3);
    assert!(accepted(&person.tries(&code, 3)));
}

#[test]
fn recovery_codes_work_once_beside_any_device_and_beside_none_at_all_never() {
    let code = crate::otp::RecoveryCode::new(*b"fifteen letters");
    let shown = code.text().expose().clone();
    let mut record = record_of(&[("phone", 20, 30)]);
    record.recovery = crate::record::RecoveryCodes::new([1; 16], [code.expose(), b"12345678"]);
    let mut person = Person(record.clone());
    assert_eq!(person.tries(&shown.to_lowercase(), 3), accept(Factor::Recovery { left: 1 }, 29));
    assert_eq!(person.tries(&shown, 3), WRONG, "there is another one left");
    assert_eq!(person.tries("12345678", 3), accept(Factor::Recovery { left: 0 }, 8));
    assert_eq!(person.tries("12345678", 3), WRONG);
    assert_eq!(person.tries(&shown, 3), Verdict::Denied(Denial::NotACode), "there is none left to compare with");
    let rules = Rules { allow_scratch_codes: false, ..Rules::default() };
    let none = Record { devices: Vec::new(), ..record.clone() };
    assert_eq!(Person(none).tries(CODES[3], 3), Verdict::Denied(Denial::NoDevice), "nor any other code");
    for typed in [shown.as_str(), "12345678"] {
        let denied = Person(record.clone()).tries_by(&rules, &answer(typed), 90);
        assert_eq!(denied, Verdict::Denied(Denial::NotACode));
        let none = Record { devices: Vec::new(), ..record.clone() };
        assert_eq!(Person(none).tries(typed, 3), Verdict::Denied(Denial::NoDevice));
        let weak = Rules { min_secret_bits: 161, ..Rules::default() };
        assert_eq!(Person(record.clone()).tries_by(&weak, &answer(typed), 90), Verdict::Denied(Denial::WeakSecret));
    }
    // At the end of a password.
    let combined = Answer::new(Secret::new(format!("hunter2{shown}").into_bytes()), Form::Combined, false);
    let Verdict::Accepted(taken) = Person(record).tries_by(&Rules::default(), &combined, 90) else { panic!() };
    assert_eq!(combined.before(taken.length).expose(), b"hunter2");
}
