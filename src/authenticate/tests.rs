use super::*;
use crate::store::conformance::record;
use crate::store::memory::MemoryStore;
use std::cell::Cell;

const TEXT: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n\" TOTP_AUTH\n";

/// An application whose person gives these answers, and which must have asked for all of them at the end.
struct Script {
    answers: Vec<Result<&'static str, NoAnswer>>,
    prompts: Vec<String>,
}

impl Script {
    fn answers(answers: &[Result<&'static str, NoAnswer>]) -> Self {
        Self { answers: answers.iter().rev().copied().collect(), prompts: Vec::new() }
    }
}

impl Conversation for Script {
    fn ask(&mut self, prompt: &[u8], _echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer> {
        self.prompts.push(String::from_utf8(prompt.to_vec()).unwrap());
        self.answers.pop().expect("asked once too often").map(|answer| Secret::new(answer.into()))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || self.answers.is_empty(), "not asked often enough");
    }
}

fn word(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Accepted(fact) => ("accepted", fact.word()),
        Outcome::NotAsked(fact) => ("not asked", fact.word()),
        Outcome::Denied(fact) => ("denied", fact.word()),
    }
}

fn enrolled() -> (Person, MemoryStore) {
    let person = Person::running_this_process();
    let store = MemoryStore::default();
    store.put(&person, record(TEXT));
    (person, store)
}

#[test]
fn one_question_one_verdict() {
    let (person, store) = enrolled();
    let options = Options::default();
    for (answer, expected) in [
        (Ok("000000"), ("denied", "wrong-code")),
        (Ok(" 969429 "), ("accepted", "totp")),
        (Ok("969429"), ("denied", "used-code")),
        (Ok(""), ("denied", "empty-answer")),
        (Ok("96942"), ("denied", "not-a-code")),
        (Ok("\x08\n\r\x7FINCORRECT"), ("denied", "refused-by-sshd")),
        (Err(NoAnswer::Missing), ("denied", "no-answer")),
        (Err(NoAnswer::Failed(19)), ("denied", "no-answer")),
    ] {
        let mut script = Script::answers(&[answer]);
        let outcome = authenticate(Ok(&person), &options, &mut script, &store, || 90);
        assert_eq!(word(&outcome), expected);
        assert_eq!(script.prompts, ["Verification code: "]);
    }
}

#[test]
fn whoever_cannot_get_in_is_asked_all_the_same() {
    let person = Person::running_this_process();
    let nobody = MemoryStore::default();
    let options = Options::default();
    for (person, reason) in [(Err(Unidentified::Unknown), "unknown-user"), (Ok(&person), "not-enrolled")] {
        let mut script = Script::answers(&[Ok("969429")]);
        let outcome = authenticate(person, &options, &mut script, &nobody, || 90);
        assert_eq!(word(&outcome), ("denied", reason));
    }
}

#[test]
fn nullok_lets_pass_who_never_enrolled_and_nobody_else() {
    let (person, store) = enrolled();
    let options = Options { nullok: true, ..Options::default() };
    let empty = MemoryStore::default();
    let outcome = authenticate(Ok(&person), &options, &mut Script::answers(&[]), &empty, || 90);
    assert_eq!(word(&outcome), ("not asked", "not-enrolled"));
    for (person, reason) in [(Err(Unidentified::Unknown), "unknown-user"), (Ok(&person), "wrong-code")] {
        let outcome = authenticate(person, &options, &mut Script::answers(&[Ok("000000")]), &store, || 90);
        assert_eq!(word(&outcome), ("denied", reason));
    }
}

#[test]
fn a_wrong_user_argument_denies_without_a_question() {
    let (_, store) = enrolled();
    let outcome =
        authenticate(Err(Unidentified::NoFixedUser), &Options::default(), &mut Script::answers(&[]), &store, || 90);
    assert_eq!(word(&outcome), ("denied", "bad-argument"));
}

#[test]
fn the_clock_is_read_after_the_answer() {
    let (person, store) = enrolled();
    let asked = Cell::new(false);
    struct Slow<'a>(&'a Cell<bool>);
    impl Conversation for Slow<'_> {
        fn ask(&mut self, _: &[u8], _: bool) -> Result<Secret<Vec<u8>>, NoAnswer> {
            self.0.set(true);
            Ok(Secret::new(b"969429".to_vec()))
        }
    }
    let now = || if asked.get() { 90 } else { 100_000 };
    let outcome = authenticate(Ok(&person), &Options::default(), &mut Slow(&asked), &store, now);
    assert_eq!(word(&outcome), ("accepted", "totp"));
}
