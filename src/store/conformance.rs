//! What every store has to do, ending in a race. A store's own tests call [`check`].

use super::{Store, StoreError};
use crate::identity::Person;
use crate::otp::{Answer, Form};
use crate::record::google::Document;
use crate::record::{Device, Record};
use crate::secret::Secret;
use crate::verify::{self, Denial, Rules, Try, Verdict};
use std::sync::Barrier;

/// RFC 4226 appendix D.
const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const CODE_OF_STEP_3: &str = "969429";
const NOW: u64 = 90;

/// Enrols a person with the text of a `~/.google_authenticator`, in place of what was there.
pub type Enrol<'a> = &'a (dyn Fn(&Person, &str) + Sync);

/// What a text means.
pub fn record(text: &str) -> Record {
    Document::parse(Secret::new(text.as_bytes().to_vec())).ok().unwrap().record().clone()
}

/// Runs all checks, on the user who runs them.
pub fn check(store: &(impl Store + Sync), enrol: Enrol) {
    let person = Person::running_this_process();
    nobody_is_enrolled_by_default(store, &person);
    a_record_is_found_and_changes(store, enrol, &person);
    nothing_is_stored_for_nothing(store, enrol, &person);
    one_of_many_wins(store, enrol, &person, "\" TOTP_AUTH\n", CODE_OF_STEP_3);
    one_of_many_wins(store, enrol, &person, "\" HOTP_COUNTER 3\n", CODE_OF_STEP_3);
    one_of_many_wins(store, enrol, &person, "\" TOTP_AUTH\n12345678\n23456789\n", "12345678");
    the_budget_holds_in_a_race(store, enrol, &person);
}

fn attempt(store: &impl Store, person: &Person, code: &str) -> Verdict {
    try_code(store, person, code).unwrap()
}

fn try_code(store: &impl Store, person: &Person, code: &str) -> Result<Verdict, StoreError> {
    let answer = Answer::new(Secret::new(code.into()), Form::Code, false);
    let (rules, attempt) = (Rules::default(), Try::new(&answer));
    let charge = |record: &Record| verify::charge(record, &rules, &attempt, NOW);
    Ok(store.attempt(person, &charge)?.verdict)
}

fn stored(store: &impl Store, person: &Person) -> Record {
    store.load(person).unwrap()
}

fn nobody_is_enrolled_by_default(store: &impl Store, person: &Person) {
    assert_eq!(store.has_record(person), Ok(false));
    let result = try_code(store, person, CODE_OF_STEP_3);
    assert!(matches!(result, Err(StoreError::NotEnrolled(_))), "{result:?}");
    assert!(matches!(store.load(person), Err(StoreError::NotEnrolled(_))));
}

fn a_record_is_found_and_changes(store: &impl Store, enrol: Enrol, person: &Person) {
    enrol(person, &format!("{SECRET}\n\" TOTP_AUTH\n\" RATE_LIMIT 5 30\n12345678\n"));
    assert_eq!(store.has_record(person), Ok(true));
    assert!(matches!(attempt(store, person, "000000"), Verdict::Denied(Denial::WrongCode { .. })));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_3), Verdict::Accepted { .. }));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_3), Verdict::Denied(Denial::UsedCode)));
    assert!(matches!(attempt(store, person, "12345678"), Verdict::Accepted { .. }));
    let record = stored(store, person);
    assert!(matches!(&record.device, Ok(Device::Totp(totp)) if totp.mark() == Some(3)));
    assert_eq!(record.rate_limit.unwrap().unwrap().charged, [NOW; 4]);
    assert!(record.scratch.expose().is_empty());
}

fn nothing_is_stored_for_nothing(store: &impl Store, enrol: Enrol, person: &Person) {
    enrol(person, &format!("{SECRET}\n\" TOTP_AUTH\n\" RATE_LIMIT 1 30 {NOW}\n"));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_3), Verdict::Denied(Denial::Throttled { .. })));
    assert_eq!(stored(store, person).rate_limit.unwrap().unwrap().charged, [NOW]);
}

/// How many of the answers given at once were accepted, refused as used or wrong, and not judged.
fn race(store: &(impl Store + Sync), person: &Person, codes: &[&str]) -> (usize, usize, usize) {
    let start = Barrier::new(codes.len());
    let verdicts = std::thread::scope(|scope| {
        let runners: Vec<_> = codes
            .iter()
            .map(|code| {
                scope.spawn(|| {
                    start.wait();
                    attempt(store, person, code)
                })
            })
            .collect();
        runners.into_iter().map(|runner| runner.join().unwrap()).collect::<Vec<_>>()
    });
    let count = |kind: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| kind(verdict)).count();
    (
        count(|verdict| matches!(verdict, Verdict::Accepted { .. })),
        count(|verdict| matches!(verdict, Verdict::Denied(Denial::UsedCode | Denial::WrongCode { .. }))),
        count(|verdict| matches!(verdict, Verdict::Denied(Denial::Throttled { .. }))),
    )
}

fn one_of_many_wins(store: &(impl Store + Sync), enrol: Enrol, person: &Person, options: &str, code: &str) {
    for round in 0..10 {
        enrol(person, &format!("{SECRET}\n{options}"));
        assert_eq!(race(store, person, &[code; 8]), (1, 7, 0), "{options:?}, round {round}");
    }
}

fn the_budget_holds_in_a_race(store: &(impl Store + Sync), enrol: Enrol, person: &Person) {
    enrol(person, &format!("{SECRET}\n\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n"));
    let mut codes = ["000000"; 16];
    codes[11] = CODE_OF_STEP_3;
    let (accepted, refused, throttled) = race(store, person, &codes);
    assert_eq!((accepted.saturating_add(refused), throttled), (3, 13));
}
