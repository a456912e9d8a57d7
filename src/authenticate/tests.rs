use super::*;
use crate::store::conformance::record;
use crate::store::memory::MemoryStore;
use std::cell::Cell;

const TEXT: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n\" TOTP_AUTH\n";

/// An application whose person gives these answers, and which must have asked for all of them at the end.
struct Script {
    answers: Vec<Result<&'static str, NoAnswer>>,
    prompts: Vec<String>,
    authtok: Option<String>,
}

impl Script {
    fn answers(answers: &[Result<&'static str, NoAnswer>]) -> Self {
        Self { answers: answers.iter().rev().copied().collect(), prompts: Vec::new(), authtok: None }
    }
}

impl Application for Script {
    fn ask(&mut self, prompt: &[u8], _echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer> {
        self.prompts.push(String::from_utf8(prompt.to_vec()).unwrap());
        self.answers.pop().expect("asked once too often").map(|answer| Secret::new(answer.into()))
    }

    fn first_pass(&self) -> Option<Secret<Vec<u8>>> {
        self.authtok.clone().map(|text| Secret::new(text.into()))
    }

    fn forward(&mut self, password: &Secret<Vec<u8>>) -> bool {
        self.authtok = Some(String::from_utf8(password.expose().clone()).unwrap());
        true
    }

    fn remote_host(&self) -> Vec<u8> {
        b"192.0.2.1".to_vec()
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
        let outcome = authenticate(Ok(&person), &options, Compat::default(), &mut script, &store, || 90);
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
        let outcome = authenticate(person, &options, Compat::default(), &mut script, &nobody, || 90);
        assert_eq!(word(&outcome), ("denied", reason));
    }
}

#[test]
fn nullok_lets_pass_who_never_enrolled_and_nobody_else() {
    let (person, store) = enrolled();
    let options = Options { nullok: true, ..Options::default() };
    let empty = MemoryStore::default();
    let outcome = authenticate(Ok(&person), &options, Compat::default(), &mut Script::answers(&[]), &empty, || 90);
    assert_eq!(word(&outcome), ("not asked", "not-enrolled"));
    for (person, reason) in [(Err(Unidentified::Unknown), "unknown-user"), (Ok(&person), "wrong-code")] {
        let outcome =
            authenticate(person, &options, Compat::default(), &mut Script::answers(&[Ok("000000")]), &store, || 90);
        assert_eq!(word(&outcome), ("denied", reason));
    }
}

#[test]
fn a_wrong_user_argument_denies_without_a_question() {
    let (_, store) = enrolled();
    let outcome = authenticate(
        Err(Unidentified::NoFixedUser),
        &Options::default(),
        Compat::default(),
        &mut Script::answers(&[]),
        &store,
        || 90,
    );
    assert_eq!(word(&outcome), ("denied", "bad-argument"));
}

#[test]
fn the_clock_is_read_after_the_answer() {
    let (person, store) = enrolled();
    let calls = Cell::new(0);
    let now = || {
        calls.set(calls.get() + 1);
        90
    };
    let mut nobody = Script::answers(&[Err(NoAnswer::Missing)]);
    authenticate(Ok(&person), &Options::default(), Compat::default(), &mut nobody, &store, now);
    assert_eq!(calls.get(), 0, "without an answer there is no time to look at");
    let mut script = Script::answers(&[Ok("969429")]);
    let outcome = authenticate(Ok(&person), &Options::default(), Compat::default(), &mut script, &store, now);
    assert_eq!((word(&outcome), calls.get()), (("accepted", "totp"), 1));
}

fn log_in(options: &Options, compat: Compat, script: &mut Script, now: u64) -> (&'static str, &'static str) {
    let (person, store) = enrolled();
    word(&authenticate(Ok(&person), options, compat, script, &store, || now))
}

#[test]
fn a_password_and_a_code_in_one_answer() {
    let forward = Options { forward_pass: true, ..Options::default() };
    let mut script = Script::answers(&[Ok("hunter2969429")]);
    assert_eq!(log_in(&forward, Compat::default(), &mut script, 90), ("accepted", "totp"));
    assert_eq!(
        (script.prompts.as_slice(), script.authtok.as_deref()),
        (&["Password & verification code: ".to_owned()][..], Some("hunter2"))
    );
    let mut script = Script::answers(&[Ok("hunter2000000")]);
    assert_eq!(log_in(&forward, Compat::default(), &mut script, 90), ("denied", "wrong-code"));
    assert_eq!(script.authtok, None, "nothing is forwarded");
    // Without forward_pass there is no room for a password.
    assert_eq!(
        log_in(&Options::default(), Compat::default(), &mut Script::answers(&[Ok("hunter2969429")]), 90).1,
        "not-a-code"
    );
}

#[test]
fn what_an_earlier_module_got_is_looked_at_first() {
    let with = |authtok: Option<&str>, answers: &[Result<&'static str, NoAnswer>]| {
        let mut script = Script::answers(answers);
        script.authtok = authtok.map(Into::into);
        script
    };
    let (use_it, try_it) = (
        Options { first_pass: FirstPass::Use, ..Options::default() },
        Options { first_pass: FirstPass::Try, ..Options::default() },
    );
    let google = Compat { google: true, ..Compat::default() };
    for compat in [Compat::default(), google] {
        let log_in = |options, script: &mut Script| log_in(options, compat, script, 90);
        assert_eq!(log_in(&use_it, &mut with(Some("hunter2969429"), &[])), ("accepted", "totp"));
        assert_eq!(log_in(&use_it, &mut with(Some("hunter2000000"), &[])).0, "denied");
        assert_eq!(log_in(&use_it, &mut with(None, &[])), ("denied", "no-first-pass"));
        assert_eq!(log_in(&try_it, &mut with(Some("hunter2969429"), &[])), ("accepted", "totp"));
        assert_eq!(log_in(&try_it, &mut with(Some("hunter2"), &[Ok("969429")])), ("accepted", "totp"));
        assert_eq!(log_in(&try_it, &mut with(Some("hunter000000"), &[Ok("969429")])), ("accepted", "totp"));
        assert_eq!(log_in(&try_it, &mut with(None, &[Ok("969429")])), ("accepted", "totp"));
    }
}

#[test]
fn a_host_that_was_here_lately_is_not_asked() {
    let (person, store) = enrolled();
    let options = Options { grace_period: 60, ..Options::default() };
    let run = |options: &Options, answers: &[Result<&'static str, NoAnswer>], now: u64| {
        let mut script = Script::answers(answers);
        let outcome = authenticate(Ok(&person), options, Compat::default(), &mut script, &store, || now);
        (word(&outcome), script.authtok.take())
    };
    assert_eq!(run(&options, &[Ok("969429")], 90).0, ("accepted", "totp"));
    assert_eq!(run(&options, &[], 149).0, ("accepted", "grace"));
    assert_eq!(run(&options, &[Ok("000000")], 150).0, ("denied", "wrong-code"));
    assert_eq!(
        run(&Options::default(), &[Ok("000000")], 100).0,
        ("denied", "wrong-code"),
        "only where it is asked for"
    );
    // The password is asked for all the same, and taken with or without a code behind it.
    let forward = Options { forward_pass: true, ..options };
    assert_eq!(run(&forward, &[Ok("hunter2")], 100), (("accepted", "grace"), Some("hunter2".into())));
    assert_eq!(run(&forward, &[Ok("hunter2000000")], 100), (("accepted", "grace"), Some("hunter2000000".into())));
    assert_eq!(run(&forward, &[Ok("hunter2338314")], 100), (("accepted", "grace"), Some("hunter2".into())));
}
