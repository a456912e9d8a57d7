use super::*;
use crate::ledger::tests::{Table, ledger};
use crate::ledger::{HostLedger, Kept};
use crate::options::{FirstPass, Options};
use crate::policy::Document;
use crate::store::conformance::record;
use crate::store::memory::MemoryStore;
use crate::system::clock::Moment;
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

    fn tell(&mut self, _text: &Secret<String>) -> Result<(), NoAnswer> {
        Ok(())
    }

    fn first_pass(&self) -> Option<Secret<Vec<u8>>> {
        self.authtok.clone().map(|text| Secret::new(text.into()))
    }

    fn forward(&mut self, password: &Secret<Vec<u8>>) -> bool {
        self.authtok = Some(String::from_utf8(password.expose().clone()).unwrap());
        true
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || self.answers.is_empty(), "not asked often enough");
    }
}

/// A policy file without a policy.
const NOTHING: &str = "";
const GOOGLE: &str = "[compat]\ngoogle = true\n";

/// The ledger of a machine that was started at 1970, where the time is always `now`.
fn counting(now: impl Fn() -> u64 + 'static) -> Counter<'static> {
    Counter::Ledger(host_ledger(now))
}

fn host_ledger(now: impl Fn() -> u64 + 'static) -> Rc<HostLedger<Table, impl Fn() -> Moment>> {
    // What was started does not go back, whatever the wall clock does.
    let boot = Cell::new(0);
    Rc::new(ledger(move || {
        boot.set(boot.get().max(now()));
        Moment { wall: now(), boot: boot.get() }
    }))
}

fn policy(options: &Options, file: &str) -> Policy {
    let document = Document::parse(format!("version = 1\n{file}").into_bytes()).unwrap();
    Policy::new("test", options, &document)
}

/// A login without a ledger.
fn run(
    person: Result<&Person, Unidentified>,
    options: &Options,
    file: &str,
    script: &mut Script,
    store: &MemoryStore,
    now: impl Fn() -> u64,
) -> Outcome {
    visited(person, &policy(options, file), script, store, &Counter::Nothing, now)
}

fn visited(
    person: Result<&Person, Unidentified>,
    policy: &Policy,
    script: &mut Script,
    store: &dyn Store,
    counter: &Counter,
    now: impl Fn() -> u64,
) -> Outcome {
    from("192.0.2.1", person, policy, script, store, counter, now)
}

fn from(
    host: &str,
    person: Result<&Person, Unidentified>,
    policy: &Policy,
    script: &mut Script,
    store: &dyn Store,
    counter: &Counter,
    now: impl Fn() -> u64,
) -> Outcome {
    let source = Source::new(host.as_bytes(), 1000);
    let visit = Visit { person, name: b"somebody", host, source: &source, login_key: b"", is_silent: false };
    authenticate(&visit, policy, script, store, counter, now)
}

fn word(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Accepted(fact) => ("accepted", fact.word()),
        Outcome::NotAsked(fact) => ("not asked", fact.word()),
        Outcome::Unavailable(fact) => ("unavailable", fact.word()),
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
        let outcome = run(Ok(&person), &options, NOTHING, &mut script, &store, || 90);
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
        let outcome = run(person, &options, NOTHING, &mut script, &nobody, || 90);
        assert_eq!(word(&outcome), ("denied", reason));
    }
}

#[test]
fn nullok_lets_pass_who_never_enrolled_and_nobody_else() {
    let (person, store) = enrolled();
    let options = Options { nullok: true, ..Options::default() };
    let empty = MemoryStore::default();
    let outcome = run(Ok(&person), &options, NOTHING, &mut Script::answers(&[]), &empty, || 90);
    assert_eq!(word(&outcome), ("not asked", "not-enrolled"));
    for (person, reason) in [(Err(Unidentified::Unknown), "unknown-user"), (Ok(&person), "wrong-code")] {
        let outcome = run(person, &options, NOTHING, &mut Script::answers(&[Ok("000000")]), &store, || 90);
        assert_eq!(word(&outcome), ("denied", reason));
    }
}

#[test]
fn a_wrong_user_argument_denies_without_a_question() {
    let (_, store) = enrolled();
    let mut silent = Script::answers(&[]);
    let outcome = run(Err(Unidentified::NoFixedUser), &Options::default(), NOTHING, &mut silent, &store, || 90);
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
    run(Ok(&person), &Options::default(), NOTHING, &mut nobody, &store, now);
    assert_eq!(calls.get(), 0, "without an answer there is no time to look at");
    let mut script = Script::answers(&[Ok("969429")]);
    let outcome = run(Ok(&person), &Options::default(), NOTHING, &mut script, &store, now);
    assert_eq!((word(&outcome), calls.get()), (("accepted", "totp"), 1));
}

fn log_in(options: &Options, file: &str, script: &mut Script, now: u64) -> (&'static str, &'static str) {
    let (person, store) = enrolled();
    word(&run(Ok(&person), options, file, script, &store, || now))
}

#[test]
fn a_password_and_a_code_in_one_answer() {
    let forward = Options { forward_pass: true, ..Options::default() };
    let mut script = Script::answers(&[Ok("hunter2969429")]);
    assert_eq!(log_in(&forward, NOTHING, &mut script, 90), ("accepted", "totp"));
    assert_eq!(
        (script.prompts.as_slice(), script.authtok.as_deref()),
        (&["Password & verification code: ".to_owned()][..], Some("hunter2"))
    );
    let mut script = Script::answers(&[Ok("hunter2000000")]);
    assert_eq!(log_in(&forward, NOTHING, &mut script, 90), ("denied", "wrong-code"));
    assert_eq!(script.authtok, None, "nothing is forwarded");
    // Without forward_pass there is no room for a password.
    assert_eq!(log_in(&Options::default(), NOTHING, &mut Script::answers(&[Ok("hunter2969429")]), 90).1, "not-a-code");
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
    for file in [NOTHING, GOOGLE] {
        let log_in = |options, script: &mut Script| log_in(options, file, script, 90);
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
        let outcome = run(Ok(&person), options, NOTHING, &mut script, &store, || now);
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

// ---- With a ledger ----

const WRONG: &str = "000000";

#[test]
fn guesses_have_a_budget_and_a_success_takes_back_its_own_charge_alone() {
    let (person, store) = enrolled();
    let policy = policy(&Options::default(), "[throttle]\nuser = \"*:3/1h\"\nhost = \"\"\n");
    let counter = counting(|| 90);
    let log_in = |answer| {
        let outcome = visited(Ok(&person), &policy, &mut Script::answers(&[Ok(answer)]), &store, &counter, || 90);
        word(&outcome).1
    };
    assert_eq!([WRONG, WRONG, "969429"].map(log_in), ["wrong-code", "wrong-code", "totp"]);
    // The source is known from here on, which has a budget of its own.
    assert_eq!([WRONG, WRONG, "338314"].map(log_in), ["wrong-code", "wrong-code", "totp"]);
    assert_eq!([WRONG, WRONG, "254676"].map(log_in), ["wrong-code", "throttled", "throttled"]);
}

#[test]
fn what_cannot_be_a_code_costs_the_source_and_not_the_person() {
    let (person, store) = enrolled();
    let policy = policy(&Options::default(), "[throttle]\nuser = \"*:3/1h\"\nhost = \"*:5/1h\"\n");
    let counter = counting(|| 90);
    let log_in = |host, answer| {
        let mut script = Script::answers(&[Ok(answer)]);
        word(&from(host, Ok(&person), &policy, &mut script, &store, &counter, || 90)).1
    };
    for answer in ["password", "", "1234567", "\x08\n\r\x7FINCORRECT", "12 456", "x", "y"] {
        assert_ne!(log_in("198.51.100.1", answer), "throttled");
    }
    assert_eq!(log_in("198.51.100.1", "969429"), "throttled", "that source has spent its budget");
    assert_eq!(log_in("198.51.100.2", "969429"), "totp", "and the person has all of theirs");
}

#[test]
fn who_does_not_exist_is_counted_too() {
    let (_, store) = enrolled();
    let policy = policy(&Options::default(), "[throttle]\nuser = \"\"\nhost = \"*:3/1h\"\n");
    let counter = counting(|| 90);
    let log_in = |person| {
        let mut script = Script::answers(&[Ok(WRONG)]);
        word(&visited(person, &policy, &mut script, &store, &counter, || 90)).1
    };
    let unknown = [(); 4].map(|()| log_in(Err(Unidentified::Unknown)));
    assert_eq!(unknown, ["unknown-user", "unknown-user", "unknown-user", "throttled"]);
}

#[test]
fn where_there_is_no_store_everybody_is_asked_and_nobody_charged() {
    let person = Person::running_this_process();
    let policy = policy(&Options::default(), "[throttle]\nuser = \"*:1/1h\"\nhost = \"*:1/1h\"\n");
    let nowhere = crate::store::system::SystemStore {
        state_dir: std::path::Path::new("/no/such/directory"),
        homes: None,
        ring: None,
    };
    let ledger = host_ledger(|| 90);
    let counter = Counter::Ledger(ledger.clone());
    for answer in [WRONG, "969429", "no code", ""] {
        let outcome = visited(Ok(&person), &policy, &mut Script::answers(&[Ok(answer)]), &nowhere, &counter, || 90);
        let expected = if answer.len() == 6 { ("unavailable", "no-store") } else { ("denied", word(&outcome).1) };
        assert_eq!(word(&outcome), expected, "{answer}");
    }
    assert!(ledger.list(policy.throttle.as_ref()).unwrap().iter().all(|row| row.kind.name() == "source"));
    let nullok = Options { nullok: true, ..Options::default() };
    let policy = self::policy(&nullok, "");
    let outcome = visited(Ok(&person), &policy, &mut Script::answers(&[Ok(WRONG)]), &nowhere, &counter, || 90);
    assert_eq!(word(&outcome).0, "unavailable", "an outage opens nothing");
}

#[test]
fn a_first_pass_that_was_a_password_costs_nothing_if_the_code_is_right() {
    let (person, store) = enrolled();
    let options = Options { first_pass: FirstPass::Try, ..Options::default() };
    let policy = policy(&options, "[throttle]\nuser = \"*:2/1h\"\nhost = \"*:2/1h\"\n");
    let counter = counting(|| 90);
    for (password, code) in [("hunter2", "969429"), ("hunter123456", "338314"), ("hunter2", "12345678")] {
        store.put(&person, record(&format!("{TEXT}12345678\n")));
        let mut script = Script::answers(&[Ok(code)]);
        script.authtok = Some(password.into());
        assert_eq!(
            word(&visited(Ok(&person), &policy, &mut script, &store, &counter, || 90)).0,
            "accepted",
            "{password}"
        );
    }
}

#[test]
fn a_guess_in_the_first_pass_is_not_given_back_for_an_answer_that_was_none() {
    let (person, store) = enrolled();
    let options = Options { first_pass: FirstPass::Try, ..Options::default() };
    for compat in [NOTHING, GOOGLE] {
        let policy = policy(&options, &format!("[throttle]\nuser = \"*:2/1h\"\nhost = \"\"\n{compat}"));
        let ledger = host_ledger(|| 90);
        let counter = Counter::Ledger(ledger.clone());
        let counts = [(); 2].map(|()| {
            let mut script = Script::answers(&[Ok("no code")]);
            script.authtok = Some("hunter000000".into());
            visited(Ok(&person), &policy, &mut script, &store, &counter, || 90);
            ledger
                .list(policy.throttle.as_ref())
                .unwrap()
                .iter()
                .find(|row| row.kind.name() == "strangers")
                .unwrap()
                .failures
        });
        assert_eq!(counts, [1, 2], "{compat}");
    }
}

#[test]
fn a_ledger_that_does_not_work_lets_nobody_in_and_opens_nothing() {
    let (person, store) = enrolled();
    let counter = Counter::Broken(Fact::new("ledger-error"));
    let exempt = "[[exempt]]\nusers = [\"any\"]\nnetworks = [\"any\"]\nservices = [\"any\"]\nuntil = 2999-01-01\nreason = \"x\"\n";
    for file in [NOTHING, "[defaults]\ngrace = \"1d\"\n", exempt] {
        let mut script = Script::answers(&[Ok("969429")]);
        let outcome = visited(Ok(&person), &policy(&Options::default(), file), &mut script, &store, &counter, || 90);
        assert_eq!(word(&outcome), ("denied", "ledger-error"), "{file}");
    }
    let mut script = Script::answers(&[Ok("969429")]);
    let by_date = policy(&Options::default(), "[defaults]\nenrol_by = 2999-01-01\n");
    let outcome = visited(Ok(&person), &by_date, &mut script, &MemoryStore::default(), &counter, || 90);
    assert_eq!(word(&outcome), ("denied", "ledger-error"));
}

const EXEMPT: &str = "[[exempt]]\nusers = [\"any\"]\nnetworks = [\"192.0.2.0/24\"]\nservices = [\"test\"]\n\
                      until = 1970-01-10\nreason = \"moving day\"\n";

#[test]
fn an_exemption_holds_until_its_end_and_not_again_when_the_clock_is_set_back() {
    let (person, store) = enrolled();
    thread_local!(static NOW: Cell<u64> = const { Cell::new(90) });
    let counter = counting(|| NOW.get());
    let log_in = |file: &str, answers: &[Result<&'static str, NoAnswer>], now| {
        NOW.set(now);
        let policy = policy(&Options::default(), file);
        visited(Ok(&person), &policy, &mut Script::answers(answers), &store, &counter, move || now)
    };
    let outcome = log_in(EXEMPT, &[], 90);
    let expected = Fact::new("exempt").with("until", "1970-01-10").with("for", "moving day");
    assert_eq!(outcome, Outcome::NotAsked(expected.clone()));
    let success = format!("{EXEMPT}result = \"success\"\n");
    assert_eq!(log_in(&success, &[], 10 * 86_400 - 1), Outcome::Accepted(expected));
    for now in [10 * 86_400, 90] {
        let outcome = log_in(EXEMPT, &[Ok(WRONG)], now);
        assert_eq!(outcome, Outcome::Denied(Fact::new("wrong-code").with("void-exemption", "1970-01-10")), "{now}");
    }
}

#[test]
fn enrolment_can_be_optional_until_a_day() {
    let person = Person::running_this_process();
    let (nobody, (_, somebody)) = (MemoryStore::default(), enrolled());
    let log_in = |file: &str, store, answers: &[Result<&'static str, NoAnswer>], now| {
        let policy = policy(&Options::default(), file);
        word(&visited(Ok(&person), &policy, &mut Script::answers(answers), store, &counting(move || now), || now))
    };
    let by_date = "[defaults]\nenrol_by = 1970-01-10\n";
    assert_eq!(log_in(by_date, &nobody, &[], 90), ("not asked", "not-enrolled"));
    assert_eq!(log_in(by_date, &nobody, &[Ok(WRONG)], 10 * 86_400), ("denied", "not-enrolled"));
    assert_eq!(log_in(by_date, &somebody, &[Ok(WRONG)], 90), ("denied", "wrong-code"));
    assert_eq!(log_in("[defaults]\nenrolment = \"optional\"\n", &nobody, &[], 90), ("not asked", "not-enrolled"));
    assert_eq!(log_in(NOTHING, &nobody, &[Ok(WRONG)], 90), ("denied", "not-enrolled"));
}

/// As much is looked at for it as for somebody's, and whatever is there nothing comes of it.
#[test]
fn nothing_lets_a_name_pass_that_is_nobodys() {
    let (nobody, store) = (Person::nobody(), MemoryStore::default());
    let options = Options { grace_period: 60, ..Options::default() };
    let log_in = |person, file: &str, typed| {
        let policy = policy(&options, file);
        word(&visited(person, &policy, &mut Script::answers(&[Ok(typed)]), &store, &counting(|| 119), || 119))
    };
    let files = [
        NOTHING,
        EXEMPT,
        &format!("{EXEMPT}result = \"success\"\n"),
        "[defaults]\nenrolment = \"optional\"\n",
        "[defaults]\nenrol_by = 1970-01-10\n",
        "[defaults]\nstore = \"system\"\nenrolment = \"inline\"\nenrol_by = 1970-01-10\n",
        "[defaults]\ngrace = \"1h\"\n",
        "[require]\ngroups = [\"root\"]\n",
    ];
    for file in files {
        assert_eq!(log_in(Err(Unidentified::Unknown), file, WRONG), ("denied", "unknown-user"), "{file}");
    }
    store.put(&nobody, record(TEXT));
    assert_eq!(log_in(Ok(&nobody), NOTHING, "969429"), ("accepted", "totp"), "they would have grace from here on");
    for file in files {
        assert_eq!(log_in(Err(Unidentified::Unknown), file, "338314"), ("denied", "unknown-user"), "{file}");
    }
}

#[test]
fn who_is_in_no_required_group_is_asked_if_they_have_a_device() {
    let person = Person::running_this_process();
    let (nobody, (_, somebody)) = (MemoryStore::default(), enrolled());
    let log_in = |file: &str, store, answers: &[Result<&'static str, NoAnswer>]| {
        let policy = policy(&Options::default(), file);
        word(&visited(Ok(&person), &policy, &mut Script::answers(answers), store, &Counter::Nothing, || 90))
    };
    // A group that exists everywhere, and that nobody who runs tests is in.
    let others = "[require]\ngroups = [\"nogroup\"]\n";
    assert_eq!(log_in(others, &nobody, &[]), ("not asked", "not-required"));
    assert_eq!(log_in(others, &somebody, &[Ok(WRONG)]), ("denied", "wrong-code"));
    assert_eq!(log_in("[require]\ngroups = [\"no-such-group\"]\n", &nobody, &[Ok(WRONG)]), ("denied", "not-enrolled"));
}

#[test]
fn grace_is_for_the_same_person_service_source_and_secret_and_ends_with_three_failures() {
    let (person, store) = enrolled();
    thread_local!(static NOW: Cell<u64> = const { Cell::new(90) });
    let counter = counting(|| NOW.get());
    let file = "[defaults]\ngrace = \"1h\"\nshared_sources = [\"198.51.100.0/24\"]\n";
    let options = Options::default();
    let log_in = |host: &'static str, answer: Option<&'static str>, now: u64| {
        NOW.set(now);
        let answers: Vec<_> = answer.into_iter().map(Ok).collect();
        let mut script = Script::answers(&answers);
        word(&from(host, Ok(&person), &policy(&options, file), &mut script, &store, &counter, || now)).1
    };
    let (here, elsewhere, shared) = ("192.0.2.1", "192.0.2.2", "198.51.100.1");
    assert_eq!(log_in(here, Some("969429"), 90), "totp");
    assert_eq!(log_in(here, None, 91), "grace");
    assert_eq!(log_in(elsewhere, Some(WRONG), 91), "wrong-code");
    assert_eq!(log_in(here, None, 89), "grace", "a clock that was set back a little");
    assert_eq!(log_in(here, None, 90 + 3599), "grace");
    assert_eq!(log_in(here, Some(WRONG), 90 + 3600), "wrong-code");
    assert_eq!(log_in(here, Some(WRONG), 91), "wrong-code", "over is over, whatever the clock says then");
    // Anew, and three failures from anywhere.
    store.put(&person, record(TEXT));
    NOW.set(100_000);
    let code = |now: u64| {
        let record = store.load(&person).unwrap();
        let secret = record.devices[0].secret.as_ref().unwrap();
        let generator = crate::otp::Generator::new(secret, crate::otp::Algorithm::Sha1, crate::otp::Digits::SIX);
        &*Box::leak(generator.code(now / 30).expose().clone().into_boxed_str())
    };
    assert_eq!(log_in(here, Some(code(100_000)), 100_000), "totp");
    for failures in 0..3 {
        assert_eq!(log_in(here, None, 100_001), "grace", "after {failures}");
        assert_eq!(log_in(elsewhere, Some(WRONG), 100_001), "wrong-code");
    }
    assert_eq!(log_in(here, Some(WRONG), 100_001), "wrong-code");
    // Another secret.
    assert_eq!(log_in(here, Some(code(100_030)), 100_030), "totp");
    assert_eq!(log_in(here, None, 100_031), "grace");
    store.put(&person, record(&TEXT.replace("GEZDG", "AAAAA")));
    assert_eq!(log_in(here, Some(WRONG), 100_032), "wrong-code");
    // Nobody can tell who is behind a shared address.
    for host in [shared, "127.0.0.1", "::1"] {
        store.put(&person, record(TEXT));
        assert_eq!(log_in(host, Some(code(100_060)), 100_060), "totp");
        assert_eq!(log_in(host, Some(WRONG), 100_061), "wrong-code");
    }
}

#[test]
fn a_window_is_what_the_file_says_within_what_the_policy_says() {
    let person = Person::running_this_process();
    // Codes of steps 0 to 4; it is step 3.
    let codes = ["755224", "287082", "359152", "969429", "338314"];
    for (file, lines, accepted) in [
        ("", "", [false, false, true, true, true]),
        ("", "\" WINDOW_SIZE 6\n", [false, true, true, true, true]),
        ("window = { behind = 0, ahead = 0 }", "", [false, false, false, true, false]),
        ("window = { behind = 0, ahead = 0 }", "\" WINDOW_SIZE 6\n", [false, false, false, true, false]),
        ("window = { behind = 3, ahead = 0 }", "", [true, true, true, true, false]),
        ("window = { behind = 3, ahead = 3 }", "\" WINDOW_SIZE 1\n", [false, false, false, true, false]),
        ("max_window = 3", "\" WINDOW_SIZE 17\n", [false, false, true, true, true]),
        ("window = { behind = 0, ahead = 0 }\nmax_window = 6", "\" WINDOW_SIZE 6\n", [false, true, true, true, true]),
    ] {
        for (code, accepted) in codes.into_iter().zip(accepted) {
            let store = MemoryStore::default();
            store.put(&person, record(&format!("{TEXT}{lines}")));
            let file = format!("[defaults]\n{file}\n");
            let outcome =
                run(Ok(&person), &Options::default(), &file, &mut Script::answers(&[Ok(code)]), &store, || 90);
            assert_eq!(word(&outcome).0 == "accepted", accepted, "{file} {lines} {code}");
        }
    }
}

#[test]
fn short_secrets_and_scratch_codes_can_be_refused() {
    let person = Person::running_this_process();
    let log_in = |file: &str, code| {
        let store = MemoryStore::default();
        store.put(&person, record(&format!("{TEXT}12345678\n")));
        let file = format!("[defaults]\n{file}\n");
        word(&run(Ok(&person), &Options::default(), &file, &mut Script::answers(&[Ok(code)]), &store, || 90))
    };
    assert_eq!(log_in("min_secret_bits = 160", "969429").0, "accepted");
    assert_eq!(log_in("min_secret_bits = 161", "969429"), ("denied", "weak-secret"));
    assert_eq!(log_in("min_secret_bits = 161", "12345678"), ("denied", "weak-secret"));
    assert_eq!(log_in("allow_scratch_codes = false", "12345678"), ("denied", "not-a-code"));
    assert_eq!(log_in("allow_scratch_codes = false", "969429").0, "accepted");
    assert_eq!(log_in("allow_scratch_codes = true", "12345678").0, "accepted");
}
