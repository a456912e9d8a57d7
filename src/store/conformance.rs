//! What every store has to do, ending in a race. A store's own tests call [`check`].

use super::{Store, StoreError};
use crate::fact::Fact;
use crate::identity::Person;
use crate::otp::{Answer, Form};
use crate::record::google::Document;
use crate::record::{Kind, Record};
use crate::secret::Secret;
use crate::verify::{self, Denial, Rules, Try, Verdict};
use std::sync::Barrier;

/// RFC 4226 appendix D.
const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const CODE_OF_STEP_3: &str = "969429";
const CODE_OF_STEP_4: &str = "338314";
const NOW: u64 = 90;

/// What a text of a `~/.google_authenticator` means.
pub fn record(text: &str) -> Record {
    Document::parse(Secret::new(text.as_bytes().to_vec())).ok().unwrap().record().clone()
}

/// The same with this secret and options, as any store can keep it: the device has a name.
pub fn named(options: &str) -> Record {
    let mut record = record(&format!("{SECRET}\n{options}"));
    record.devices[0].name = "phone".to_owned();
    record
}

/// Runs all checks, on the user who runs them.
pub fn check<S: Store + Sync>(store: &S) {
    let person = Person::running_this_process();
    nobody_is_enrolled_by_default(store, &person);
    a_record_is_found_and_changes(store, &person);
    a_change_is_all_or_nothing(store, &person);
    who_was_enrolled_once_is_not_new(store, &person);
    one_of_many_wins(store, &person, "\" TOTP_AUTH\n", CODE_OF_STEP_3);
    one_of_many_wins(store, &person, "\" HOTP_COUNTER 3\n", CODE_OF_STEP_3);
    one_of_many_wins(store, &person, "\" TOTP_AUTH\n12345678\n23456789\n", "12345678");
}

/// For stores whose records have a budget of their own.
pub fn check_budget<S: Store + Sync>(store: &S) {
    let person = Person::running_this_process();
    a_try_is_charged(store, &person);
    nothing_is_stored_for_nothing(store, &person);
    the_budget_holds_in_a_race(store, &person);
}

fn enrol(store: &impl Store, person: &Person, options: &str) {
    store.enrol(person, &named(options), true).unwrap();
}

fn attempt(store: &impl Store, person: &Person, code: &str) -> Verdict {
    try_code(store, person, code).unwrap()
}

fn try_code(store: &impl Store, person: &Person, code: &str) -> Result<Verdict, StoreError> {
    let answer = Answer::new(Secret::new(code.into()), Form::Code, false);
    let (rules, attempt) = (Rules::default(), Try::new(&answer));
    let charge = |record: &Record| verify::charge(record, &rules, &attempt, NOW);
    Ok(store.attempt(person, &charge, None)?.verdict)
}

fn stored(store: &impl Store, person: &Person) -> Record {
    store.load(person).unwrap()
}

fn mark(record: &Record) -> Option<u64> {
    match &record.devices[0].kind {
        Ok(Kind::Totp(totp)) => totp.mark(),
        _ => None,
    }
}

fn nobody_is_enrolled_by_default(store: &impl Store, person: &Person) {
    assert_eq!((store.has_record(person), store.never_enrolled(person)), (Ok(false), Ok(true)));
    let result = try_code(store, person, CODE_OF_STEP_3);
    assert!(matches!(result, Err(StoreError::NotEnrolled(_))), "{result:?}");
    assert!(matches!(store.load(person), Err(StoreError::NotEnrolled(_))));
    assert!(matches!(store.change(person, &mut |_| Ok(())), Err(StoreError::NotEnrolled(_))));
}

fn a_record_is_found_and_changes(store: &impl Store, person: &Person) {
    enrol(store, person, "\" TOTP_AUTH\n12345678\n");
    assert_eq!((store.has_record(person), store.never_enrolled(person)), (Ok(true), Ok(false)));
    assert!(matches!(attempt(store, person, "000000"), Verdict::Denied(Denial::WrongCode { .. })));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_3), Verdict::Accepted(_)));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_3), Verdict::Denied(Denial::UsedCode)));
    assert!(matches!(attempt(store, person, "12345678"), Verdict::Accepted(_)));
    assert!(matches!(attempt(store, person, "12345678"), Verdict::Denied(_)));
    let record = stored(store, person);
    assert_eq!((mark(&record), record.scratch.expose().len(), record.recovery.len()), (Some(3), 0, 0));
    let refused = store.enrol(person, &named("\" TOTP_AUTH\n"), false).unwrap_err();
    assert_eq!(refused.into_fact().word(), "already-enrolled");
    assert_eq!(mark(&stored(store, person)), Some(3), "and what was there stays");
}

fn a_change_is_all_or_nothing(store: &impl Store, person: &Person) {
    enrol(store, person, "\" TOTP_AUTH\n");
    let use_step = |step: u64, result: Result<(), Fact>| {
        store.change(person, &mut |record| {
            if let Ok(Kind::Totp(totp)) = &mut record.devices[0].kind {
                totp.used = Ok(Some(vec![step]));
            }
            result.clone()
        })
    };
    assert_eq!(use_step(3, Ok(())), Ok(()));
    let refused = Fact::new("refused");
    assert_eq!(use_step(7, Err(refused.clone())), Err(StoreError::Failed(refused)));
    assert_eq!(mark(&stored(store, person)), Some(3));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_3), Verdict::Denied(Denial::UsedCode)));
    assert!(matches!(attempt(store, person, CODE_OF_STEP_4), Verdict::Accepted(_)));
}

fn who_was_enrolled_once_is_not_new(store: &impl Store, person: &Person) {
    let _ = (store.remove(person), store.release(person));
    assert_eq!((store.never_enrolled(person), store.remove(person)), (Ok(true), Ok(false)));
    assert_eq!(store.never_enrolled(person), Ok(true), "by removing nothing");
    enrol(store, person, "\" TOTP_AUTH\n");
    assert_eq!(store.remove(person), Ok(true));
    assert_eq!((store.has_record(person), store.never_enrolled(person)), (Ok(false), Ok(false)));
    assert!(matches!(try_code(store, person, CODE_OF_STEP_3), Err(StoreError::NotEnrolled(_))));
    assert_eq!((store.remove(person), store.release(person), store.release(person)), (Ok(false), Ok(true), Ok(false)));
    assert_eq!(store.never_enrolled(person), Ok(true));
}

fn a_try_is_charged(store: &impl Store, person: &Person) {
    enrol(store, person, "\" TOTP_AUTH\n\" RATE_LIMIT 5 30\n12345678\n");
    for code in ["000000", CODE_OF_STEP_3, CODE_OF_STEP_3, "12345678"] {
        let _ = attempt(store, person, code);
    }
    assert_eq!(stored(store, person).rate_limit.unwrap().unwrap().charged, [NOW; 4]);
}

fn nothing_is_stored_for_nothing(store: &impl Store, person: &Person) {
    enrol(store, person, &format!("\" TOTP_AUTH\n\" RATE_LIMIT 1 30 {NOW}\n"));
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
        count(|verdict| matches!(verdict, Verdict::Accepted(_))),
        count(|verdict| matches!(verdict, Verdict::Denied(Denial::UsedCode | Denial::WrongCode { .. }))),
        count(|verdict| matches!(verdict, Verdict::Denied(Denial::Throttled { .. }))),
    )
}

fn one_of_many_wins(store: &(impl Store + Sync), person: &Person, options: &str, code: &str) {
    for round in 0..10 {
        enrol(store, person, options);
        assert_eq!(race(store, person, &[code; 8]), (1, 7, 0), "{options:?}, round {round}");
    }
}

fn the_budget_holds_in_a_race(store: &(impl Store + Sync), person: &Person) {
    enrol(store, person, "\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n");
    let mut codes = ["000000"; 16];
    codes[11] = CODE_OF_STEP_3;
    let (accepted, refused, throttled) = race(store, person, &codes);
    assert_eq!((accepted.saturating_add(refused), throttled), (3, 13));
}
