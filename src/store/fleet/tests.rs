#![allow(clippy::arithmetic_side_effects)] // Small numbers.

use super::envelope::{Head, Id, Inside, Place};
use super::*;
use crate::authenticate::{self, Counter, Done, Outcome, Step, Visit};
use crate::identity::{Named, Unidentified};
use crate::ledger::tests::{ALICE, somebody, source};
use crate::ledger::{self, Grace, Kept, Ledger, Login, Refusal, Who};
use crate::options::Options;
use crate::otp::{Answer, Form, RecoveryCode};
use crate::policy::throttle::Throttle;
use crate::policy::{Document, Policy};
use crate::record::{Device, RecoveryCodes};
use crate::secret::Secret;
use crate::store::conformance::{self, named, record};
use crate::store::{Bill, Grounds, Paid, Roster, Ticket};
use crate::system::private::tests::directory;
use crate::verify::{self, Denial, Rules, Try};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

/// RFC 4226 appendix D, of time steps 3 and 4 of 30 seconds.
const CODES: [&str; 2] = ["969429", "338314"];
const WRONG: &str = "000000";

/// A cluster in the memory of this process, and what shall go wrong there.
#[derive(Default)]
struct Memory {
    kvs: Mutex<(u64, BTreeMap<Vec<u8>, Kv>)>,
    faults: Mutex<VecDeque<Fault>>,
    commits: AtomicU64,
    reads: AtomicU64,
}

/// What becomes of a commit that is not answered.
enum Fault {
    /// It is there.
    Landed,
    /// It is not.
    Lost,
    /// It comes after the next one.
    Late,
    /// Somebody else writes just before it.
    Raced(Vec<u8>),
    /// Nothing.
    None,
}

impl Memory {
    fn put(&self, key: &[u8], value: Vec<u8>) {
        let (revision, kvs) = &mut *self.kvs.lock().unwrap();
        *revision += 1;
        let before = kvs.get(key);
        let (version, created) = before.map_or((1, *revision), |kv| (kv.version + 1, kv.created));
        kvs.insert(key.to_vec(), Kv { key: key.to_vec(), value, revision: *revision, version, created });
    }

    fn delete(&self, key: &[u8]) {
        self.kvs.lock().unwrap().1.remove(key);
    }

    fn get(&self, key: &[u8]) -> Option<Kv> {
        self.kvs.lock().unwrap().1.get(key).cloned()
    }

    fn apply(&self, guards: &[Guard], puts: &[Put]) -> Commit {
        let mut kvs = self.kvs.lock().unwrap();
        if guards.iter().any(|guard| kvs.1.get(&guard.key).map_or(0, |kv| kv.revision) != guard.revision) {
            return Commit::Stale;
        }
        kvs.0 += 1;
        let revision = kvs.0;
        for Put { key, value } in puts {
            let (version, created) = kvs.1.get(key).map_or((1, revision), |kv| (kv.version + 1, kv.created));
            kvs.1.insert(key.clone(), Kv { key: key.clone(), value: value.clone(), revision, version, created });
        }
        Commit::Done { revision }
    }
}

/// What it looks like to a host.
struct Shared(Arc<Memory>);

impl Engine for Shared {
    fn read(&self, keys: &[&[u8]], _: Instant) -> Result<Vec<Option<Kv>>, Fact> {
        self.0.reads.fetch_add(1, SeqCst);
        let kvs = self.0.kvs.lock().unwrap();
        Ok(keys.iter().map(|key| kvs.1.get(*key).cloned()).collect())
    }

    fn list(
        &self,
        prefix: &[u8],
        patience: Duration,
        each: &mut dyn FnMut(Kv) -> Result<(), Fact>,
    ) -> Result<(), Fact> {
        if patience.is_zero() {
            return Err(Fact::new("etcd-unreachable"));
        }
        let kvs: Vec<Kv> =
            self.0.kvs.lock().unwrap().1.values().filter(|kv| kv.key.starts_with(prefix)).cloned().collect();
        kvs.into_iter().try_for_each(each)
    }

    fn commit(&self, guards: &[Guard], puts: &[Put], _: Instant) -> Commit {
        self.0.commits.fetch_add(1, SeqCst);
        let unknown = || Commit::Unknown(Fact::new("etcd-unreachable"));
        let fault = self.0.faults.lock().unwrap().pop_front();
        match fault {
            None | Some(Fault::None) => self.0.apply(guards, puts),
            Some(Fault::Landed) => {
                let _ = self.0.apply(guards, puts);
                unknown()
            }
            Some(Fault::Lost) => unknown(),
            Some(Fault::Late) => {
                // The one that is tried again finds that its guards do not hold: this one was faster.
                let _ = self.0.apply(guards, puts);
                Commit::Unknown(Fact::new("etcd-unreachable"))
            }
            Some(Fault::Raced(key)) => {
                let value = self.0.get(&key).unwrap().value;
                self.0.put(&key, value);
                self.0.apply(guards, puts)
            }
        }
    }
}

/// A host of a fleet.
struct Machine {
    memory: Arc<Memory>,
    fleet: Fleet,
    ring: Arc<KeyRing>,
    state_dir: tempfile::TempDir,
}

impl Machine {
    fn first() -> Self {
        let machine = Self::of(Arc::default(), Arc::new(KeyRing::ephemeral().unwrap()), "one");
        assert_eq!(machine.store().init(), Ok(false));
        assert_eq!(machine.store().init(), Ok(true));
        machine
    }

    fn of(memory: Arc<Memory>, ring: Arc<KeyRing>, host: &str) -> Self {
        let fleet = Fleet::new(Box::new(Shared(memory.clone())), "/pam_totp/".to_owned(), host.to_owned());
        Self { memory, fleet, ring, state_dir: directory() }
    }

    fn another(&self, host: &str) -> Self {
        Self::of(self.memory.clone(), self.ring.clone(), host)
    }

    fn store(&self) -> FleetStore<'_> {
        self.at(|| 90)
    }

    fn at(&self, now: fn() -> u64) -> FleetStore<'_> {
        let store = FleetStore::new(&self.fleet, &self.ring, self.state_dir.path(), None).unwrap();
        FleetStore { now, ..store }
    }
}

fn key(person: &Person) -> Vec<u8> {
    format!("/pam_totp/{}", FleetStore::key(person)).into_bytes()
}

fn me() -> Person {
    Person::running_this_process()
}

/// A store that is opened for each thing that is done, as the agent opens it for each request.
struct EachAnew<'a>(&'a Machine);

impl Store for EachAnew<'_> {
    fn attempt<'c>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        bill: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        self.0.store().attempt(person, charge, bill)
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        self.0.store().load(person)
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.store().has_record(person)
    }

    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.store().never_enrolled(person)
    }

    fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        self.0.store().path(person)
    }

    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        self.0.store().enrol(person, record, replace)
    }

    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        self.0.store().change(person, change)
    }

    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.store().remove(person)
    }

    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        self.0.store().release(person)
    }
}

/// What a code comes to, with a bill by these rules.
fn attempt(store: &FleetStore, person: &Person, code: &str, throttle: &Throttle) -> Result<Attempt, StoreError> {
    let answer = Answer::new(Secret::new(code.into()), Form::Code, false);
    let (rules, attempt) = (Rules::default(), Try::new(&answer));
    let charge = |record: &Record| verify::charge(record, &rules, &attempt, (store.now)());
    let here = source("192.0.2.1");
    let login = login(Who::of(person), &here, throttle);
    store.attempt(person, &charge, Some(&Bill { login, is_guess: true, receipts: &[], grace: None, login_key: b"" }))
}

fn login<'a>(who: Who<'a>, source: &'a crate::source::Source, throttle: &'a Throttle) -> Login<'a> {
    Login { who, source, service: "sshd", throttle: Some(throttle), own_limit: None }
}

fn is_accepted(attempt: &Result<Attempt, StoreError>) -> bool {
    matches!(attempt, Ok(Attempt { verdict: Verdict::Accepted(_), .. }))
}

fn word<T>(result: Result<T, StoreError>) -> &'static str {
    result.err().unwrap().into_fact().word()
}

fn enrolled(machine: &Machine) -> Person {
    let person = me();
    machine.store().enrol(&person, &named("\" TOTP_AUTH\n"), false).unwrap();
    person
}

#[test]
fn the_fleets_store_conforms() {
    conformance::check(&EachAnew(&Machine::first()));
}

#[test]
fn a_guess_is_paid_by_the_same_bytes_right_or_wrong_before_it_is_judged() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let count = |machine: &Machine| (machine.memory.reads.load(SeqCst), machine.memory.commits.load(SeqCst));
    // The source is looked at where it can stop somebody: who got in from there lately is not asked what others did.
    for (code, reads, commits) in [(WRONG, 2, 1), (CODES[0], 2, 2), (CODES[0], 1, 1), (WRONG, 1, 1), (CODES[1], 1, 2)] {
        let before = count(&machine);
        assert_eq!(is_accepted(&attempt(&machine.store(), &person, code, &Throttle::default())), commits == 2);
        let after = count(&machine);
        assert_eq!((after.0 - before.0, after.1 - before.1), (reads, commits), "{code}");
    }
    let judged = |code| {
        let machine = Machine::first();
        let person = enrolled(&machine);
        // What comes of a right one does not get there.
        machine.memory.faults.lock().unwrap().extend([Fault::None].into_iter().chain((0..1000).map(|_| Fault::Lost)));
        let store = FleetStore { until: clock::instant().checked_add(Duration::from_millis(100)), ..machine.store() };
        assert!(!is_accepted(&attempt(&store, &person, code, &Throttle::default())));
        machine.memory.faults.lock().unwrap().clear();
        let of = machine.store().begin(&[FleetStore::key(&person)]).unwrap().person(&FleetStore::key(&person)).unwrap();
        assert_eq!(of.counts.in_a_row, 1, "it is paid, whatever has become of it");
        let kvs = machine.memory.kvs.lock().unwrap();
        kvs.1.values().map(|kv| (kv.key.clone(), kv.value.len())).collect::<Vec<_>>()
    };
    assert_eq!(judged(CODES[0]), judged(WRONG));
}

/// Whether somebody got in, reads and commits of the login and of its session, and the failures that they were told.
type Cost = (bool, [u64; 2], [u64; 2], Option<u64>);

type UnderWay<'a> = authenticate::Login<'a, fn() -> u64>;

/// Reads and commits of a login until somebody is asked, and from there on, as the agent has it: a store for the question, and one
/// for the answer. And how it ended. `None`: they are not asked.
fn steps_by_agent(
    machine: &Machine,
    person: Result<&Person, Unidentified>,
    typed: &str,
    more: &str,
) -> Option<([[u64; 2]; 2], Outcome)> {
    let document = Document::parse(format!("version = 1\n[defaults]\nstore = \"fleet\"\n{more}").into_bytes()).unwrap();
    let policy = Policy::new("sshd", &Options::default(), &document);
    let here = source("192.0.2.1");
    let visit = Visit {
        person,
        name: person.map_or(b"nobody-here", Person::name),
        host: "192.0.2.1",
        source: &here,
        login_key: b"",
        is_silent: false,
    };
    let step = |step: &dyn Fn(&mut UnderWay) -> Step| {
        let counts = || [machine.memory.reads.load(SeqCst), machine.memory.commits.load(SeqCst)];
        let before = counts();
        let store = Rc::new(machine.store());
        let (counter, _) = Counter::with(&policy, Some(store.clone()));
        let next = step(&mut authenticate::Login::new(&visit, &policy, &*store, &counter, store.now));
        (next, [0, 1].map(|kind| counts()[kind] - before[kind]))
    };
    let (Step::Ask(question), before) = step(&|login| login.begin(None)) else { return None };
    let pending = Cell::new(Some(question.pending));
    let done = step(&|login| login.answer(pending.take().unwrap(), Ok(Secret::new(typed.into()))));
    let (Step::Done(Done { outcome, .. }), after) = done else { panic!("asked again") };
    Some(([before, after], outcome))
}

fn login_by_agent(machine: &Machine, person: &Person, code: &str, more: &str) -> Cost {
    let ([before, after], outcome) = steps_by_agent(machine, Ok(person), code, more).expect("asked");
    let is_in = matches!(outcome, Outcome::Accepted(_));
    let counts = || [machine.memory.reads.load(SeqCst), machine.memory.commits.load(SeqCst)];
    let earlier = counts();
    let notice = is_in.then(|| machine.store().take_notice(Who::of(person))).flatten();
    let of_session = [0, 1].map(|kind| counts()[kind] - earlier[kind]);
    (is_in, [0, 1].map(|kind| before[kind] + after[kind]), of_session, notice.map(|notice| notice.failures))
}

#[test]
fn whoever_is_asked_costs_as_many_requests_until_then() {
    let asked = |policy: &str, typed: &str| {
        let machine = Machine::first();
        let person = enrolled(&machine);
        let with_words = |record: &mut Record| {
            record.recovery = RecoveryCodes::new([1; 16], [&b"one"[..]]);
            Ok(())
        };
        machine.store().change(&person, &mut { with_words }).unwrap();
        let [other, invited] = ["daemon", "bin"].map(|name| Person::in_database(name.as_bytes()).unwrap());
        let ticket = Ticket { made: 1, expires: u64::MAX, device: "phone".to_owned() };
        machine.store().admission().unwrap().invite(&invited, &RecoveryCode::new([7; 15]), &ticket).unwrap();
        [Err(Unidentified::Unknown), Ok(&person), Ok(&invited), Ok(&other)].map(|person| {
            let (steps, outcome) = steps_by_agent(&machine, person, typed, policy)?;
            assert!(matches!(outcome, Outcome::Denied(_)), "{outcome:?}");
            Some(steps)
        })
    };
    for (policy, number, reads) in [
        ("enrolment = \"required\"\n", 4, 0),
        ("enrolment = \"ticket\"\n", 4, 0),
        ("enrolment = \"inline\"\n", 4, 0),
        ("enrolment = \"inline\"\nenrol_by = 1999-01-01\n", 4, 1),
        ("enrolment = \"inline\"\nenrol_by = 2999-01-01\n", 3, 1),
        ("enrolment = \"ticket\"\ngrace = \"1h\"\n", 4, 1),
        ("grace = \"1h\"\n", 4, 1),
        ("enrolment = \"optional\"\n", 2, 1),
        // The clock is held against the cluster's by a read of its own.
        ("enrol_by = 2999-01-01\n", 2, 2),
    ] {
        let expected: Vec<_> = (0..4).map(|at| (at < number).then_some([[reads, 0], [2, 1]])).collect();
        assert_eq!(asked(policy, WRONG), *expected, "{policy}");
    }
    // What can be a ticket is looked up, whoever types it.
    assert_eq!(asked("enrolment = \"ticket\"\n", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"), [Some([[0, 0], [4, 1]]); 4]);
}

#[test]
fn a_login_makes_no_more_requests_than_it_has_to() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    // Reads and commits: of the login, and of its session.
    for (code, expected) in [
        // From where they never got in: what was guessed from there is read, and charged in the same commit.
        (WRONG, (false, [2, 1], [0, 0], None)),
        (CODES[0], (true, [2, 2], [1, 1], Some(1))),
        // From where they did. What is wrong is charged to the source by another commit.
        (WRONG, (false, [2, 2], [0, 0], None)),
        (CODES[1], (true, [1, 2], [1, 1], Some(1))),
    ] {
        assert_eq!(login_by_agent(&machine, &person, code, ""), expected, "{code}");
    }
    // Most logins: nothing failed before, and there is nothing to tell.
    machine
        .store()
        .change(&person, &mut |record| {
            *record = named("\" TOTP_AUTH\n");
            Ok(())
        })
        .unwrap();
    assert_eq!(login_by_agent(&machine, &person, CODES[0], ""), (true, [1, 2], [0, 0], None));
    // Where people can enrol in a login they are not looked up before they are asked.
    let inline = "enrolment = \"inline\"\n";
    assert_eq!(login_by_agent(&machine, &person, CODES[1], inline), (true, [1, 2], [0, 0], None));
}

#[test]
fn what_there_is_to_tell_is_told_once_wherever_the_session_is() {
    let one = Machine::first();
    let (two, person) = (one.another("two"), enrolled(&one));
    let (who, throttle) = (Who::of(&person), Throttle::default());
    let notice = |machine: &Machine| machine.store().take_notice(who).map(|notice| notice.failures);
    // Somebody else fails at another host, after a login here and before its session: what they did is told at the next login.
    assert!(is_accepted(&attempt(&one.store(), &person, CODES[0], &throttle)));
    assert!(!is_accepted(&attempt(&two.store(), &person, WRONG, &throttle)));
    assert_eq!(notice(&one), None);
    assert!(is_accepted(&attempt(&one.store(), &person, CODES[1], &throttle)));
    assert_eq!((notice(&two), notice(&one)), (Some(1), None));
    // What is not known here is looked up, and so it is where a session is the second one.
    one.store()
        .change(&person, &mut |record| {
            *record = named("\" TOTP_AUTH\n");
            Ok(())
        })
        .unwrap();
    assert!(is_accepted(&attempt(&one.store(), &person, CODES[0], &throttle)));
    assert_eq!(notice(&one), None);
    assert!(!is_accepted(&attempt(&two.store(), &person, WRONG, &throttle)));
    assert!(is_accepted(&attempt(&two.store(), &person, CODES[1], &throttle)));
    assert_eq!(notice(&one), Some(1));
}

#[test]
fn a_source_that_cannot_stop_somebody_is_charged_for_what_was_wrong() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let (here, throttle) = (source("192.0.2.1"), toml::from_str::<Throttle>("host = \"*:2/1h\"").unwrap());
    assert!(is_accepted(&attempt(&machine.store(), &person, CODES[0], &throttle)));
    let login = |who| login(who, &here, &throttle);
    for is_blocked in [false, false, true] {
        assert_eq!(
            machine
                .store()
                .charge(&login(ALICE))
                .map(|receipt| machine.store().take_back(&login(ALICE), receipt))
                .is_err(),
            is_blocked
        );
        let Ok(Attempt { paid: Paid::Charged(receipt), .. }) = attempt(&machine.store(), &person, WRONG, &throttle)
        else {
            panic!("not charged")
        };
        machine.store().keep(&login(Who::of(&person)), receipt);
    }
}

#[test]
fn those_of_one_host_who_come_at_once_do_not_cost_each_other_a_commit() {
    const LOGINS: u64 = 8;
    let machine = Machine::first();
    let (person, throttle) = (enrolled(&machine), Throttle::default());
    for round in 0..20 {
        machine.store().unlock_person(Who::of(&person), None).unwrap();
        machine.store().unlock_source(&source("192.0.2.1"), None).unwrap();
        let before = machine.memory.commits.load(SeqCst);
        let barrier = Barrier::new(LOGINS as usize);
        thread::scope(|scope| {
            for _ in 0..LOGINS {
                scope.spawn(|| {
                    barrier.wait();
                    assert!(attempt(&machine.store(), &person, WRONG, &throttle).is_ok());
                });
            }
        });
        assert_eq!(machine.memory.commits.load(SeqCst) - before, LOGINS, "{round}");
    }
}

/// One with time to spare.
fn patient(machine: &Machine) -> FleetStore<'_> {
    FleetStore { until: clock::instant().checked_add(Duration::from_secs(120)), ..machine.store() }
}

/// Whoever guesses on and on comes to everybody's document in no time, and those who can get in wait for none of it.
#[test]
fn whoever_is_over_a_limit_waits_for_no_turn_and_takes_none() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let throttle: Throttle = toml::from_str("user = \"*:3/1h\"\nhost = \"\"").unwrap();
    for _ in 0..3 {
        attempt(&machine.store(), &person, WRONG, &throttle).unwrap();
    }
    let key = FleetStore::key(&person);
    let turn = machine.fleet.turns.take(&key);
    let start = clock::instant();
    let refused = attempt(&patient(&machine), &person, CODES[0], &throttle).unwrap();
    assert!(matches!(refused.paid, Paid::Refused(Refusal::Person(_))), "{:?}", refused.paid);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    drop(turn);
}

/// All threads of an agent would, and somebody else's login with them.
#[test]
fn no_more_wait_for_one_document_than_leave_most_threads_to_others() {
    const CROWD: usize = 60;
    const WAITING: usize = 24;
    let machine = Machine::first();
    let person = enrolled(&machine);
    let other = person.holder(&format!("SHA256:{}", "A".repeat(43))).unwrap();
    machine.store().enrol(&other, &named("\" TOTP_AUTH\n"), false).unwrap();
    let throttle: Throttle = toml::from_str("user = \"\"\nhost = \"\"").unwrap();
    let key = FleetStore::key(&person);
    let turn = machine.fleet.turns.take(&key);
    let (said, hear) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..CROWD {
            let (said, machine, person, throttle) = (said.clone(), &machine, &person, &throttle);
            scope.spawn(move || said.send(attempt(&patient(machine), person, CODES[0], throttle)).unwrap());
        }
        let heard = || hear.recv_timeout(Duration::from_secs(30));
        let refused: Vec<_> = (0..CROWD - WAITING).map_while(|_| heard().ok()).collect();
        let is_other_in = is_accepted(&attempt(&patient(&machine), &other, CODES[0], &throttle));
        drop(turn);
        let judged: Vec<_> = (refused.len()..CROWD).map_while(|_| heard().ok()).collect();
        assert!(is_other_in);
        assert_eq!(refused.len(), CROWD - WAITING);
        assert!(refused.into_iter().all(|refused| word(refused) == "fleet-busy"));
        assert_eq!(judged.iter().filter(|attempt| is_accepted(attempt)).count(), 1);
        assert!(judged.len() == WAITING && judged.iter().all(Result::is_ok));
    });
}

#[test]
fn nobody_waits_for_somebody_who_waits_for_them() {
    let machine = Machine::first();
    let (here, throttle) = (source("192.0.2.1"), Throttle::default());
    let start = clock::instant();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let login = login(Who::Nobody(b"nobody"), &here, &throttle);
                    let receipt = machine.store().charge(&login).unwrap();
                    machine.store().take_back(&login, receipt);
                }
            });
        }
    });
    // Whoever does goes on after half of their time.
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

#[test]
fn guesses_are_counted_over_all_hosts_and_a_right_one_after_the_limit_is_not_judged() {
    let one = Machine::first();
    let two = one.another("two");
    let person = enrolled(&one);
    let throttle: Throttle = toml::from_str("user = \"*:3/1h\"\nhost = \"\"").unwrap();
    for machine in [&one, &two, &one] {
        let wrong = attempt(&machine.store(), &person, WRONG, &throttle).unwrap();
        assert!(
            matches!(wrong.verdict, Verdict::Denied(Denial::WrongCode { .. }))
                && matches!(wrong.paid, Paid::Charged(_))
        );
    }
    let refused = attempt(&two.store(), &person, CODES[0], &throttle).unwrap();
    assert!(matches!(refused.paid, Paid::Refused(Refusal::Person(_))), "{:?}", refused.paid);
    assert_eq!(two.store().unlock_person(Who::of(&person), Some(&throttle)), Ok(true));
    assert!(is_accepted(&attempt(&one.store(), &person, CODES[0], &throttle)));
}

#[test]
fn a_code_of_a_wrong_time_that_is_noted_is_a_failure_like_any_other() {
    let machine = Machine::first();
    let (person, throttle) = (enrolled(&machine), Throttle::default());
    let rules = Rules { skew_adjustment: true, is_counted: true, ..Rules::default() };
    let (store, here) = (machine.at(|| 3001), source("192.0.2.1"));
    let login = login(Who::of(&person), &here, &throttle);
    let grace = Grace { period: 600, circumstances: b"key", factors: b"secret", is_elsewhere: false };
    let answer = Answer::new(Secret::new(CODES[0].into()), Form::Code, false);
    let attempt = Try::new(&answer);
    let charge = |record: &Record| verify::charge(record, &rules, &attempt, 3000);
    let bill = Bill { login, is_guess: true, receipts: &[], grace: Some(grace), login_key: b"" };
    let wrong = store.attempt(&person, &charge, Some(&bill)).unwrap();
    assert_eq!(wrong.verdict, Verdict::Denied(Denial::WrongTime));
    assert!(matches!(wrong.paid, Paid::Charged(_)), "{:?}", wrong.paid);
    assert!(!store.has_grace(&login, &grace));
    let of = store.begin(&[FleetStore::key(&person)]).unwrap().person(&FleetStore::key(&person)).unwrap();
    // Since the enrolment nothing but that.
    assert!(!of.counts.is_known(&store.source_of(&login), 3001) && of.let_in_at.values().eq([&90]));
    assert_eq!((of.counts.in_a_row, of.counts.strangers.ages(3001).len()), (1, 1));
}

#[test]
fn a_source_is_blocked_over_all_hosts_but_where_the_person_got_in_from_there() {
    let one = Machine::first();
    let two = one.another("two");
    let person = enrolled(&one);
    let throttle: Throttle = toml::from_str("user = \"\"\nhost = \"*:2/1h\"").unwrap();
    let here = source("192.0.2.1");
    for machine in [&one, &two] {
        let nobody = login(Who::Nobody(b"mallory"), &here, &throttle);
        assert!(machine.store().charge(&nobody).is_ok());
    }
    let blocked = one.store().charge(&login(Who::Nobody(b"eve"), &here, &throttle));
    assert!(matches!(blocked, Err(Refusal::Source(_))), "{blocked:?}");
    let blocked = attempt(&two.store(), &person, CODES[0], &throttle).unwrap();
    assert!(matches!(blocked.paid, Paid::Refused(Refusal::Source(_))));
    two.store().give_back(&login(Who::of(&person), &here, &throttle), Vec::new(), None).unwrap();
    assert!(is_accepted(&attempt(&one.store(), &person, CODES[0], &throttle)), "known there");
    assert_eq!(one.store().unlock_source(&here, Some(&throttle)), Ok(true));
    assert!(one.store().charge(&login(Who::Nobody(b"eve"), &here, &throttle)).is_ok());
}

/// A uid, and an address of a machine's own, is somebody else on each host.
#[test]
fn whoever_got_in_at_one_host_without_a_network_is_nobody_at_another() {
    let one = Machine::first();
    let two = one.another("two");
    let person = enrolled(&one);
    let throttle: Throttle = toml::from_str("user = \"\"\nhost = \"*:1/1h\"").unwrap();
    let grace = Grace { period: 600, circumstances: b"key", factors: b"secret", is_elsewhere: false };
    // A name may have any letter in it.
    let sources = [
        ("192.0.2.1", true),
        ("client", true),
        ("client@two", true),
        ("", false),
        ("127.0.0.1", false),
        ("::1", false),
        ("fe80::1", false),
    ];
    for (from, is_the_same) in sources {
        let here = source(from);
        let [of_person, of_nobody] =
            [Who::of(&person), Who::Nobody(b"mallory")].map(|who| login(who, &here, &throttle));
        one.store().give_back(&of_person, Vec::new(), Some(&grace)).unwrap();
        let has_grace = [&one, &two].map(|machine| machine.store().has_grace(&of_person, &grace));
        assert_eq!(has_grace, [true, is_the_same], "{from}: grace");
        assert!(one.store().charge(&of_nobody).is_ok());
        // At its limit stops whoever is not known from there.
        let is_stopped = [&one, &two].map(|machine| machine.store().charge(&of_nobody).is_err());
        assert_eq!(is_stopped, [true, is_the_same], "{from}: the source's failures");
        let is_known = [&one, &two].map(|machine| machine.store().charge(&of_person).is_ok());
        assert_eq!(is_known, [true, is_the_same], "{from}: known");
        let listed = Kept::list(&one.store(), Some(&throttle)).unwrap();
        let named = listed.iter().filter(|row| row.kind == ledger::Kind::Source);
        let named: Vec<_> = named.map(|row| String::from_utf8(row.name.clone()).unwrap()).collect();
        let expected = if is_the_same {
            vec![here.to_string()]
        } else {
            ["one", "two"].map(|host| format!("{here}@{host}")).into()
        };
        assert_eq!(named.iter().collect::<BTreeSet<_>>(), expected.iter().collect(), "{from}");
        for name in named {
            assert_eq!(one.store().unlock_source(&crate::source::Source::named(&name), None), Ok(true), "{name}");
        }
        assert_eq!(two.store().unlock_source(&here, None), Ok(false), "{from}");
    }
}

#[test]
fn a_write_that_is_not_answered_counts_once_it_is_there() {
    for faults in [vec![Fault::Landed], vec![Fault::Lost], vec![Fault::Late], vec![Fault::Lost, Fault::Landed]] {
        let machine = Machine::first();
        let person = enrolled(&machine);
        machine.memory.faults.lock().unwrap().extend(faults);
        let first = attempt(&machine.store(), &person, CODES[0], &Throttle::default());
        assert!(is_accepted(&first), "{first:?}");
        let second = attempt(&machine.store(), &person, CODES[0], &Throttle::default()).unwrap();
        assert_eq!(second.verdict, Verdict::Denied(Denial::UsedCode));
    }
}

#[test]
fn a_write_whose_fate_stays_unknown_lets_nobody_in() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    machine.memory.faults.lock().unwrap().extend((0..1000).map(|_| Fault::Lost));
    let store = machine.store();
    let store = FleetStore { until: clock::instant().checked_add(Duration::from_millis(200)), ..store };
    assert!(matches!(attempt(&store, &person, CODES[0], &Throttle::default()), Err(StoreError::Unreachable(_))));
}

#[test]
fn whoever_was_slower_is_judged_by_what_the_faster_one_left() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    machine.memory.faults.lock().unwrap().push_back(Fault::Raced(key(&person)));
    // What races does not put another document there, but the same at another version: that is found out.
    assert_eq!(word(attempt(&machine.store(), &person, CODES[0], &Throttle::default())), "document-put-back");
}

#[test]
fn a_document_that_is_put_back_moved_exchanged_or_deleted_is_refused() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let (memory, key) = (&machine.memory, key(&person));
    let mut history = vec![memory.get(&key).unwrap()];
    for code in CODES {
        assert!(is_accepted(&attempt(&machine.at(|| 120), &person, code, &Throttle::default())));
        history.push(memory.get(&key).unwrap());
    }
    let restore = |kv: &Kv| {
        memory.kvs.lock().unwrap().1.insert(key.clone(), kv.clone());
    };
    let latest = history[2].clone();
    // An old one, written as it was: at another version than it was written for.
    memory.put(&key, history[0].value.clone());
    assert_eq!(word(machine.store().load(&person)), "document-put-back");
    assert_eq!(
        word(machine.another("new").store().load(&person)),
        "document-put-back",
        "and seen by one who was never there"
    );
    // The key is deleted, and old ones are put back from the first on: versions are right.
    memory.delete(&key);
    assert_eq!(word(machine.store().load(&person)), "document-deleted");
    assert_eq!(word(machine.store().never_enrolled(&person)), "document-deleted", "absence is no permission");
    memory.put(&key, history[0].value.clone());
    assert_eq!(word(attempt(&machine.at(|| 120), &person, CODES[0], &Throttle::default())), "document-put-back");
    // Another one with right versions, made by somebody who has the keys, but not of this life.
    memory.delete(&key);
    let elsewhere = machine.another("elsewhere");
    elsewhere.store().enrol(&person, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert_eq!(word(machine.store().load(&person)), "document-exchanged");
    restore(&latest);
    assert!(machine.store().load(&person).is_ok());
    // Somebody else's, at this key.
    let other = Named { name: b"other".to_vec(), key: None };
    memory.put(format!("/pam_totp/people/{}", other.file_name()).as_bytes(), latest.value.clone());
    assert_eq!(word(machine.store().load_of_gone(&other)), "broken-seal");
}

#[test]
fn a_code_is_good_once_although_old_documents_are_put_back_one_by_one_before_a_host_that_saw_no_more() {
    let one = Machine::first();
    let (two, new) = (one.another("two"), one.another("new"));
    let (person, throttle) = (enrolled(&one), Throttle::default());
    let key = key(&person);
    let mut history = vec![one.memory.get(&key).unwrap()];
    for code in [WRONG, CODES[0]] {
        // The last that the other one has seen is what is about to be put back.
        assert!(two.store().load(&person).is_ok());
        assert_eq!(is_accepted(&attempt(&one.store(), &person, code, &throttle)), code == CODES[0]);
        history.push(one.memory.get(&key).unwrap());
    }
    one.memory.delete(&key);
    history.iter().take(2).for_each(|kv| one.memory.put(&key, kv.value.clone()));
    for machine in [&one, &two, &new] {
        assert_eq!(word(attempt(&machine.store(), &person, CODES[0], &throttle)), "document-put-back");
    }
    // So are those of which no host remembers anything.
    let sources: Vec<_> =
        one.memory.kvs.lock().unwrap().1.keys().filter(|key| key.starts_with(b"/pam_totp/s")).cloned().collect();
    assert_eq!(sources.len(), 1);
    let first = one.memory.get(&sources[0]).unwrap();
    assert!(two.store().charge(&login(Who::Nobody(b"x"), &source("192.0.2.1"), &throttle)).is_ok());
    let second = one.memory.get(&sources[0]).unwrap();
    one.memory.delete(&sources[0]);
    [first, second].iter().for_each(|kv| one.memory.put(&sources[0], kv.value.clone()));
    // It is shouted about, and what failed there is forgotten: nobody is kept out by that, and people's rows bind.
    assert!(two.store().charge(&login(Who::Nobody(b"x"), &source("192.0.2.1"), &throttle)).is_ok());
    one.memory.put(&sources[0], b"garbage".to_vec());
    assert!(two.store().charge(&login(Who::Nobody(b"x"), &source("192.0.2.1"), &throttle)).is_ok());
}

#[test]
fn who_had_a_device_is_known_on_a_host_that_never_saw_them_whatever_was_deleted() {
    let machine = Machine::first();
    let person = me();
    // A stranger's guess is the first that is there of them.
    assert!(attempt(&machine.store(), &person, WRONG, &Throttle::default()).is_err());
    let key = key(&person);
    let before = machine.memory.get(&key).unwrap();
    machine.store().enrol(&person, &named("\" TOTP_AUTH\n"), false).unwrap();
    let enrolled = machine.memory.get(&key).unwrap();
    for put_back in [None, Some(before.value.clone())] {
        machine.memory.delete(&key);
        put_back.into_iter().for_each(|value| machine.memory.put(&key, value));
        let new = machine.another("new");
        assert_eq!(new.store().never_enrolled(&person), Ok(false));
        assert!(new.store().admit(&person, &named("\" TOTP_AUTH\n"), &Grounds::First, 5).is_err());
    }
    // Nor can the record be put where there was nothing.
    machine.memory.delete(&key);
    machine.memory.put(&key, enrolled.value.clone());
    assert_eq!(word(machine.another("new").store().load(&person)), "document-put-back");
    // What remembers it cannot be deleted, nor put back, nor made anew.
    machine.memory.delete(&key);
    let index = format!("/pam_totp/{}", document::of_enrolled(&person.file_name())).into_bytes();
    let first = machine.memory.get(&index).unwrap();
    machine.memory.delete(&index);
    assert_eq!(word(machine.another("new").store().never_enrolled(&person)), "no-fleet");
    assert_eq!(word(machine.store().never_enrolled(&person)), "document-deleted");
    assert!(machine.another("new").store().init().is_err() || machine.another("new").store().check().is_ok());
    machine.memory.put(&index, first.value.clone());
    assert_eq!(word(machine.another("new").store().never_enrolled(&person)), "document-put-back");
    // Until root says so.
    machine.store().accept_rollback(None, false).unwrap();
    assert_eq!(machine.another("new").store().never_enrolled(&person), Ok(false));
    assert_eq!(machine.store().remove(&person).and(machine.store().release(&person)), Ok(true));
    assert_eq!(machine.another("new").store().never_enrolled(&person), Ok(true));
}

#[test]
fn a_document_that_nobody_can_open_is_given_up_for_one_person_alone() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    machine.memory.put(&key(&person), b"garbage".to_vec());
    assert_eq!(machine.store().accept_rollback(None, false).unwrap().failed.len(), 1);
    let whose = person.named();
    assert_eq!(machine.store().accept_rollback(Some(&whose), false).unwrap().failed.len(), 1, "not without a word");
    assert_eq!(machine.store().accept_rollback(Some(&whose), true).map(|accepted| accepted.rolled.len()), Ok(1));
    assert_eq!((machine.store().has_record(&person), machine.store().never_enrolled(&person)), (Ok(false), Ok(false)));
    machine.store().enrol(&person, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert!(is_accepted(&attempt(&machine.store(), &person, CODES[0], &Throttle::default())));
    // One of them keeps no host from being revoked.
    machine.memory.put(b"/pam_totp/people/mallory", b"garbage".to_vec());
    machine.memory.put(b"/pam_totp/hosts/evil", b"garbage".to_vec());
    let revoked = machine.store().revoke_records("evil", false).unwrap();
    assert_eq!((revoked.people, revoked.failed.len()), (vec![person.named()], 1));
    assert_eq!(machine.store().hosts().unwrap().len(), 1);
}

#[test]
fn root_takes_old_documents_for_good_and_then_no_host_refuses_them() {
    let one = Machine::first();
    let (two, person) = (one.another("two"), enrolled(&one));
    let (memory, key) = (&one.memory, key(&person));
    let old = memory.get(&key).unwrap();
    for (machine, code) in [(&one, CODES[0]), (&two, CODES[1])] {
        assert!(is_accepted(&attempt(&machine.at(|| 120), &person, code, &Throttle::default())));
    }
    assert_eq!(one.store().accept_rollback(None, false), Ok(Accepted::default()), "there is nothing to accept");
    memory.kvs.lock().unwrap().1.insert(key.clone(), old.clone());
    assert_eq!(word(two.store().load(&person)), "document-put-back");
    let rolled = one.at(|| 120).accept_rollback(Some(&person.named()), false).unwrap().rolled;
    assert_eq!(rolled.iter().map(|rolled| (rolled.behind, rolled.was_gone)).collect::<Vec<_>>(), [(4, false)]);
    for code in CODES {
        let verdict = attempt(&two.at(|| 120), &person, code, &Throttle::default()).unwrap().verdict;
        assert!(matches!(verdict, Verdict::Denied(Denial::UsedCode)), "{verdict:?}: a code of before is good no more");
    }
    // And one that is gone.
    memory.delete(&key);
    assert_eq!(word(two.store().has_record(&person)), "document-deleted");
    assert!(two.store().accept_rollback(None, false).unwrap().rolled[0].was_gone);
    assert_eq!(one.store().has_record(&person), Ok(false), "on all hosts");
    assert_eq!(one.store().never_enrolled(&person), Ok(false), "and it is remembered that there was one");
    // Another one altogether, on a host that knows the old one.
    let known = memory.get(&key).unwrap();
    memory.delete(&key);
    let new = one.another("new");
    new.store().enrol(&person, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert_eq!(word(one.store().load(&person)), "document-exchanged");
    assert_eq!(one.store().accept_rollback(None, false).unwrap().rolled.len(), 1);
    assert!(
        one.store().load(&person).is_ok() && two.store().load(&person).is_ok() && new.store().load(&person).is_ok()
    );
    memory.kvs.lock().unwrap().1.insert(key, known);
    assert!(one.store().load(&person).is_err(), "the one before it is old now");
}

#[test]
fn documents_of_other_keys_versions_and_fleets_are_refused() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let (memory, key) = (&machine.memory, key(&person));
    let good = memory.get(&key).unwrap();
    let load_with = |change: &dyn Fn(&mut Kv)| {
        let mut kv = good.clone();
        change(&mut kv);
        memory.kvs.lock().unwrap().1.insert(key.clone(), kv);
        word(machine.store().load(&person))
    };
    assert_eq!(load_with(&|kv| kv.value[0] = 2), "bad-document");
    assert_eq!(load_with(&|kv| kv.value[0] = 0), "bad-document");
    assert_eq!(load_with(&|kv| kv.value.clear()), "bad-document");
    for byte in 1..good.value.len() {
        let word = load_with(&|kv| kv.value[byte] ^= 1);
        assert!(
            ["broken-seal", "unknown-seal-key", "document-put-back", "document-exchanged"].contains(&word),
            "{byte}: {word}"
        );
    }
    for length in 0..good.value.len() {
        load_with(&|kv| kv.value.truncate(length));
    }
    memory.kvs.lock().unwrap().1.insert(key.clone(), good.clone());
    // Another ring: another fleet with the same prefix.
    let stranger = Machine::of(memory.clone(), Arc::new(KeyRing::ephemeral().unwrap()), "stranger");
    assert_eq!(word(stranger.store().load(&person)), "unknown-seal-key");
    assert_eq!(word(stranger.store().init()), "unknown-seal-key");
    // The same ring, another fleet beside it: its documents are bound to it.
    let mut beside = machine.another("beside");
    beside.fleet.prefix = "/other/".to_owned();
    assert_eq!(word(beside.store().load(&person)), "no-fleet");
    assert_eq!(beside.store().init(), Ok(false));
    assert_eq!(beside.store().has_record(&person), Ok(false));
    memory.put(format!("/other/{}", FleetStore::key(&person)).as_bytes(), good.value.clone());
    assert_eq!(word(machine.another("x").store().load(&person).and(beside.store().load(&person))), "broken-seal");
}

#[test]
fn where_the_fleet_has_lost_its_own_document_nobody_gets_in_and_none_is_made_over_it() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    machine.memory.delete(b"/pam_totp/fleet");
    assert_eq!(word(machine.store().load(&person)), "document-deleted");
    let new = machine.another("new");
    assert_eq!(word(new.store().load(&person)), "no-fleet");
    assert_eq!(word(new.store().init()), "not-empty");
}

#[test]
fn a_removed_record_leaves_a_document_that_says_so() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let word_of_two = RecoveryCode::new([7; 15]);
    let ticket = Ticket { made: 1, expires: 1000, device: "phone".to_owned() };
    machine.store().admission().unwrap().invite(&person, &word_of_two, &ticket).unwrap();
    assert_eq!(machine.store().remove(&person), Ok(true));
    assert!(machine.memory.get(&key(&person)).is_some(), "a tombstone");
    let before = machine.memory.commits.load(SeqCst);
    assert_eq!(machine.store().remove(&person), Ok(false));
    assert_eq!(machine.memory.commits.load(SeqCst), before, "there is nothing to write");
    assert_eq!(machine.another("new").store().never_enrolled(&person), Ok(false));
    assert_eq!(machine.store().admission().unwrap().ticket(&person, &word_of_two), Ok(None));
    assert!(machine.store().people().unwrap().is_empty());
    assert_eq!(machine.store().release(&person), Ok(true));
    assert_eq!(machine.another("newer").store().never_enrolled(&person), Ok(true));
}

#[test]
fn a_ticket_is_good_once_over_all_hosts() {
    let one = Machine::first();
    let two = one.another("two");
    let (person, word_of) = (me(), RecoveryCode::new([7; 15]));
    let ticket = Ticket { made: 1, expires: 1000, device: "phone".to_owned() };
    one.store().admission().unwrap().invite(&person, &word_of, &ticket).unwrap();
    assert_eq!(two.store().is_invited(&person, 999), Ok(true));
    assert_eq!(two.store().is_invited(&person, 1000), Ok(false));
    let grounds = |bytes| Grounds::Ticket(RecoveryCode::new(bytes), ticket.clone());
    let new = named("\" TOTP_AUTH\n");
    assert_eq!(word(two.store().admit(&person, &new, &grounds([8; 15]), 5)), "not-invited");
    assert_eq!(word(two.store().admit(&person, &new, &grounds([7; 15]), 1000)), "not-invited");
    assert_eq!(two.store().admit(&person, &new, &grounds([7; 15]), 5), Ok(()));
    assert_eq!(word(one.store().admit(&person, &new, &grounds([7; 15]), 5)), "already-enrolled");
    assert_eq!(one.store().remove(&person), Ok(true));
    assert_eq!(word(one.store().admit(&person, &new, &grounds([7; 15]), 5)), "not-invited");
    assert_eq!(word(one.store().admit(&person, &new, &Grounds::First, 5)), "not-invited");
}

#[test]
fn of_a_shared_account_each_has_a_document_and_the_first_closes_the_account_to_others() {
    let machine = Machine::first();
    let account = me();
    let holder = |number: u8| account.holder(&format!("key-id:{number}")).unwrap();
    let (alice, bob) = (holder(1), holder(2));
    let new = named("\" TOTP_AUTH\n");
    assert_eq!(machine.store().admit(&alice, &new, &Grounds::First, 5), Ok(()));
    assert_eq!(machine.store().never_enrolled(&bob), Ok(false));
    assert_eq!(word(machine.store().admit(&bob, &new, &Grounds::First, 5)), "not-invited");
    assert_eq!(machine.store().is_new_key(&bob), Ok(true));
    let vouched = || Grounds::Account(alice.clone(), "phone".to_owned());
    assert_eq!(word(machine.store().admit(&bob, &new, &vouched(), 5)), "not-invited", "her device was never used");
    assert!(is_accepted(&attempt(&machine.store(), &alice, CODES[0], &Throttle::default())));
    assert_eq!(machine.store().admit(&bob, &new, &vouched(), 5), Ok(()));
    let people = machine.store().people_of_account(&account).unwrap();
    assert_eq!(people, [alice.clone(), bob.clone()]);
    assert_eq!(machine.store().release(&account), Ok(false), "others share it");
    // Of all that come with new keys together.
    let (throttle, here) = (Throttle::default(), source("192.0.2.9"));
    assert!(machine.store().charge(&login(Who::newcomers(&account), &here, &throttle)).is_ok());
    assert_eq!(machine.store().people_of_account(&account).unwrap().len(), 2, "they are nobody");
    let all_together = format!("/pam_totp/people/{},new-keys", account.file_name());
    assert!(machine.memory.get(all_together.as_bytes()).is_some());
}

#[test]
fn a_host_that_was_revoked_takes_the_records_it_could_read_with_it() {
    let one = Machine::first();
    let two = one.another("two");
    let person = enrolled(&one);
    let holder = person.holder("key-id:1").unwrap();
    one.store().enrol(&holder, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert!(is_accepted(&attempt(&two.store(), &person, CODES[0], &Throttle::default())));
    assert_eq!(one.store().revoke_records("three", true).map(|revoked| revoked.people), Ok(Vec::new()));
    assert_eq!(
        one.store().revoke_records("two", true).map(|revoked| revoked.people),
        Ok(vec![person.named()]),
        "of those who were there"
    );
    assert_eq!(word(one.store().load(&person)), "revoked");
    assert_eq!(one.store().never_enrolled(&person), Ok(false));
    assert_eq!(
        one.store().revoke_records("two", false).map(|revoked| revoked.people),
        Ok(vec![holder.named()]),
        "it could read all"
    );
    one.store().enrol(&person, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert!(one.store().load(&person).is_ok());
    one.store().report("1").unwrap();
    two.store().report("1").unwrap();
    one.store().strike_off("two").unwrap();
    assert_eq!(word(two.store().report("1")), "host-revoked");
    let hosts = one.store().hosts().unwrap();
    assert_eq!(
        hosts.iter().map(|host| (host.name.as_str(), host.revoked.is_some())).collect::<Vec<_>>(),
        [("one", false), ("two", true)]
    );
}

#[test]
fn a_host_that_is_revoked_leaves_no_ticket_behind_whoever_it_is_for() {
    let machine = Machine::first();
    let (account, ticket) = (me(), Ticket { made: 1, expires: 1000, device: "phone".to_owned() });
    let word_of = RecoveryCode::new([7; 15]);
    let invite = || machine.store().invite(&account, &word_of, &ticket);
    // Of somebody who has no device yet, and of somebody who has one.
    for has_device in [false, true] {
        if has_device {
            machine.store().enrol(&account, &named("\" TOTP_AUTH\n"), false).unwrap();
        }
        invite().unwrap();
        assert_eq!(machine.store().is_invited(&account, 5), Ok(true));
        assert_eq!(machine.store().revoke_records("two", true).map(|revoked| revoked.people), Ok(Vec::new()));
        assert_eq!(machine.store().is_invited(&account, 5), Ok(false), "{has_device}");
    }
}

#[test]
fn what_is_old_and_taken_for_good_brings_no_ticket_back_and_lets_nobody_pass() {
    let machine = Machine::first();
    let (person, ticket) = (me(), Ticket { made: 1, expires: 1000, device: "phone".to_owned() });
    let word_of = || RecoveryCode::new([7; 15]);
    machine.store().invite(&person, &word_of(), &ticket).unwrap();
    let old = machine.memory.get(&key(&person)).unwrap();
    let grounds = Grounds::Ticket(word_of(), ticket);
    assert_eq!(machine.store().admit(&person, &named("\" TOTP_AUTH\n"), &grounds, 5), Ok(()));
    machine.memory.kvs.lock().unwrap().1.insert(key(&person), old);
    assert_eq!(machine.store().accept_rollback(Some(&person.named()), false).unwrap().rolled.len(), 1);
    assert_eq!(word(machine.store().admit(&person, &named("\" TOTP_AUTH\n"), &grounds, 5)), "not-invited");
    assert_eq!(machine.another("new").store().never_enrolled(&person), Ok(false));
}

#[test]
fn documents_at_other_versions_are_all_taken_for_good_past_one_that_nobody_can_open() {
    let machine = Machine::first();
    let (person, throttle) = (enrolled(&machine), Throttle::default());
    assert!(attempt(&machine.store(), &person, WRONG, &throttle).is_ok());
    machine.store().report("1").unwrap();
    // As a copy of the cluster by its keys is.
    let kvs: Vec<Kv> = machine.memory.kvs.lock().unwrap().1.values().cloned().collect();
    for kv in &kvs {
        machine.memory.put(&kv.key, kv.value.clone());
    }
    machine.memory.put(b"/pam_totp/people/../../x", b"garbage".to_vec());
    assert_eq!(word(attempt(&machine.store(), &person, WRONG, &throttle)), "document-put-back");
    let failed = machine.store().accept_rollback(None, false).unwrap().failed;
    assert_eq!(failed.iter().map(|(_, fact)| fact.word()).collect::<Vec<_>>(), ["bad-document"]);
    assert!(attempt(&machine.store(), &person, WRONG, &throttle).is_ok());
    assert!(machine.store().report("2").is_ok());
}

#[test]
fn a_list_in_a_login_takes_no_longer_than_the_login_may() {
    let machine = Machine::first();
    let store = FleetStore { until: Some(clock::instant()), ..machine.store() };
    assert!(matches!(store.people(), Err(StoreError::Unreachable(_))));
    assert_eq!(machine.store().people(), Ok(Vec::new()));
}

#[test]
fn no_name_leads_out_of_the_marks() {
    let machine = Machine::first();
    std::fs::write(machine.state_dir.path().join("beside"), b"").unwrap();
    let marks = Marks::open(machine.state_dir.path()).unwrap();
    for name in ["../beside", "/dev/null", "..", ""] {
        assert!(marks.get(name).is_err() && marks.set(name, marks::Mark { id: [1; 16], sequence: 1 }).is_err());
    }
    assert!(std::fs::read(machine.state_dir.path().join("beside")).unwrap().is_empty());
}

/// Half of one is none, and nobody gets in by it; what root says counts.
#[test]
fn a_mark_that_was_cut_short_is_made_anew_by_root_alone() {
    let machine = Machine::first();
    let marks = Marks::open(machine.state_dir.path()).unwrap();
    let [old, new] = [1, 2].map(|sequence| marks::Mark { id: [1; 16], sequence });
    marks.raise("people", old).unwrap();
    let path = machine.state_dir.path().join("fleet-marks/people");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..5]).unwrap();
    assert!(marks.get("people").is_err() && marks.raise("people", new).is_err());
    marks.set("people", new).unwrap();
    assert_eq!(marks.get("people"), Ok(Some(new)));
}

#[test]
fn all_documents_are_sealed_with_another_key_once_it_is_active() {
    let mut machine = Machine::first();
    let person = enrolled(&machine);
    assert!(attempt(&machine.store(), &person, WRONG, &Throttle::default()).is_ok());
    // The file's form is the way to a copy of a ring.
    let directory = directory();
    let path = directory.path().join("ring");
    machine.ring.write(&path).unwrap();
    let mut ring = KeyRing::read(&path).unwrap();
    let old = ring.active().unwrap();
    let new = ring.add().unwrap();
    ring.activate(Some(new)).unwrap();
    machine.ring = Arc::new(ring);
    let sealed = machine.store().reseal_all(true).unwrap();
    assert_eq!((sealed.by_key, sealed.resealed), (vec![(old.to_string(), 259)], 0));
    let sealed = machine.store().reseal_all(false).unwrap();
    assert_eq!((sealed.by_key, sealed.resealed), (vec![(new.to_string(), 259)], 259));
    assert!(is_accepted(&attempt(&machine.store(), &person, CODES[0], &Throttle::default())));
    assert_eq!(machine.store().sealed_with(&person.named()), Ok(Some(new.to_string())));
}

#[test]
fn the_fleets_ledger_counts_as_the_hosts_does() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let machine = Machine::first();
    let store = machine.at(|| NOW.load(SeqCst));
    let host = ledger::tests::ledger(|| {
        let now = NOW.load(SeqCst);
        crate::system::clock::Moment { wall: now, boot: now - 1_800_000_000 }
    });
    let throttle: Throttle = toml::from_str("user = \"*:3/1h,9/1d bob:2/1h\"\nhost = \"*:3/6h\"").unwrap();
    let (sources, names) = ([source("192.0.2.1"), source("2001:db8::1"), source("uid:7")], ["carol", "bob"]);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    NOW.store(1_800_000_000, SeqCst);
    let (mut refused, mut by_source) = (0, 0);
    for round in 0..3000 {
        NOW.fetch_add(draw(2000), SeqCst);
        let who = match draw(4) {
            0 => Who::Nobody(b"nobody"),
            1 => ALICE,
            number => somebody(names[usize::try_from(number - 2).unwrap()]),
        };
        let login = login(who, &sources[usize::try_from(draw(3)).unwrap()], &throttle);
        let grace = Grace { period: 600, circumstances: b"key", factors: b"secret", is_elsewhere: false };
        match draw(6) {
            0 => {
                let (one, other) = (
                    store.give_back(&login, Vec::new(), Some(&grace)),
                    host.give_back(&login, Vec::new(), Some(&grace)),
                );
                assert_eq!(one, other, "{round}");
            }
            1 if !matches!(who, Who::Nobody(_)) => {
                store.seen.borrow_mut().clear();
                assert_eq!(store.has_grace(&login, &grace), host.has_grace(&login, &grace), "{round}");
                assert_eq!(store.is_disabled(who), host.is_disabled(who), "{round}");
            }
            2 if !matches!(who, Who::Nobody(_)) => {
                assert_eq!(store.take_notice(who), host.take_notice(who), "{round}");
            }
            _ => {
                let (one, other) = (store.charge(&login), host.charge(&login));
                assert_eq!(one.is_ok(), other.is_ok(), "{round}: {who:?} {one:?} {other:?}");
                match (one, other) {
                    (Ok(one), Ok(other)) if draw(3) == 0 => {
                        store.take_back(&login, one);
                        host.take_back(&login, other);
                    }
                    (Ok(one), Ok(other)) => {
                        store.keep(&login, one);
                        host.keep(&login, other);
                    }
                    (one, other) => {
                        refused += 1;
                        let refusal = one.unwrap_err();
                        by_source += u32::from(matches!(refusal, Refusal::Source(_)));
                        assert_eq!(refusal, other.unwrap_err(), "{round}");
                    }
                }
            }
        }
    }
    assert!(by_source > 100 && refused - by_source > 100 && refused < 1000, "{refused} {by_source}");
}

#[test]
fn sources_without_end_fill_no_more_than_there_is_room_for() {
    let machine = Machine::first();
    let (store, throttle) = (machine.store(), Throttle::default());
    for number in 0..300_u32 {
        let from = source(&std::net::Ipv4Addr::from(number).to_string());
        assert!(store.charge(&login(Who::Nobody(number.to_string().as_bytes()), &from, &throttle)).is_ok());
    }
    let mut bucket = document::Bucket::default();
    let rooms = (0..100_u8)
        .filter(|number| {
            bucket
                .row(&[*number], 90)
                .map(|row| {
                    let _ = counts::charge_source(row, &login(ALICE, &source("uid:1"), &throttle), false, 90);
                })
                .is_some()
        })
        .count();
    assert_eq!(rooms, 8);
    assert!(bucket.row(&[200], 90 + 31 * 86400).is_some(), "what is over makes room");
}

#[test]
fn what_is_written_is_read_again_and_nothing_else() {
    let head = Head { id: [1; 16], sequence: 2, version: 3, created: 4 };
    let ring = KeyRing::ephemeral().unwrap();
    let place = Place { fleet: &[4; 16], key: b"/pam_totp/people/alice" };
    let inside = Inside {
        attempts: vec![[5; 16], [6; 16]],
        replaces: vec![[7; 16]],
        at: 8,
        by: "one".to_owned(),
        body: Secret::new(b"body".to_vec()),
    };
    let value = inside.seal(&ring, place, &head).unwrap();
    let (again, read, _) = Inside::open(&ring, place, &value).unwrap();
    assert_eq!(
        (again, read.attempts, read.replaces, read.at, read.by.as_str()),
        (head, inside.attempts, inside.replaces, 8, "one")
    );
    assert_eq!(read.body.expose(), b"body");
    let other: Id = [9; 16];
    for elsewhere in [Place { fleet: &other, ..place }, Place { key: b"/pam_totp/people/bob", ..place }] {
        assert!(Inside::open(&ring, elsewhere, &value).is_err());
    }
    let mut of = Of { uid: Some(7), had_one: true, revoked: Some("two".to_owned()), ..Of::default() };
    let mut record = record("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n\" TOTP_AUTH\n");
    record.devices = vec![Device { name: "phone".to_owned(), ..record.devices[0].clone() }];
    record.recovery = RecoveryCodes::new([1; 16], [&b"one"[..]]);
    of.record = Some(record_of(&me(), 5, &record));
    (0..40).for_each(|number| of.was_let_in(&format!("host{number}"), number));
    assert_eq!(of.let_in_at.len(), 32);
    let here = source("192.0.2.1");
    let throttle = Throttle::default();
    of.counts.charge(&login(ALICE, &here, &throttle), false, 60).unwrap();
    of.counts.logged_in(&login(ALICE, &here, &throttle), b"a192.0.2.1", None, 90);
    let text = of.text().unwrap();
    let again = Of::parse(text.expose()).unwrap();
    assert_eq!(again.text().unwrap().expose(), text.expose());
    assert_eq!((again.uid, again.had_one, again.revoked.as_deref()), (Some(7), true, Some("two")));
    for length in 0..text.expose().len() {
        assert!(Of::parse(&text.expose()[..length]).is_none(), "{length}");
    }
    let host = Host {
        name: "one".to_owned(),
        keys: vec![("01234567".to_owned(), true)],
        version: "1".to_owned(),
        at: 1,
        revoked: Some(2),
    };
    let text = host.text().unwrap();
    assert_eq!(Host::parse("one", text.expose()), Some(host));
    assert!((0..text.expose().len()).all(|length| Host::parse("one", &text.expose()[..length]).is_none()));
}

/// The place where it is remembered that somebody had a device.
fn index(person: &Person) -> Vec<u8> {
    format!("/pam_totp/{}", document::of_enrolled(&person.file_name())).into_bytes()
}

/// A host's store that is not waited for.
fn brief(machine: &Machine) -> FleetStore<'_> {
    FleetStore { until: clock::instant().checked_add(Duration::from_millis(200)), ..machine.store() }
}

/// From so many commits on all are lost.
fn cut_after(machine: &Machine, commits: usize) {
    let fine = (0..commits).map(|_| Fault::None);
    machine.memory.faults.lock().unwrap().extend(fine.chain((0..10_000).map(|_| Fault::Lost)));
}

#[test]
fn a_fleet_that_was_made_half_is_made_to_its_end() {
    for commits in 1..9 {
        let one = Machine::of(Arc::default(), Arc::new(KeyRing::ephemeral().unwrap()), "one");
        cut_after(&one, commits);
        assert!(brief(&one).init().is_err(), "{commits}");
        one.memory.faults.lock().unwrap().clear();
        let two = one.another("two");
        assert_eq!((two.store().init(), one.store().init()), (Ok(true), Ok(true)), "{commits}");
        let person = enrolled(&one);
        assert!(is_accepted(&attempt(&two.store(), &person, CODES[0], &Throttle::default())));
    }
}

#[test]
fn what_remembers_who_had_a_device_is_not_made_anew_once_there_are_people() {
    let one = Machine::of(Arc::default(), Arc::new(KeyRing::ephemeral().unwrap()), "one");
    cut_after(&one, 2);
    assert!(brief(&one).init().is_err());
    one.memory.faults.lock().unwrap().clear();
    // What is first at each place is what somebody can have kept.
    let first = one.memory.kvs.lock().unwrap().1.clone();
    one.store().init().unwrap();
    let person = enrolled(&one);
    one.memory.delete(&index(&person));
    one.memory.put(&index(&person), first[&index(&person)].value.clone());
    one.memory.delete(b"/pam_totp/enrolled/ff");
    assert_eq!(word(one.another("new").store().init()), "not-empty");
    one.memory.delete(&key(&person));
    let third = one.another("third");
    assert!(third.store().never_enrolled(&person).is_err());
    assert!(third.store().admit(&person, &named("\" TOTP_AUTH\n"), &Grounds::First, 5).is_err());
}

#[test]
fn what_remembers_who_had_a_device_comes_back_from_peoples_documents() {
    for garbage in [false, true] {
        let one = Machine::first();
        let person = enrolled(&one);
        if garbage {
            one.memory.put(&index(&person), b"garbage".to_vec());
        } else {
            one.memory.delete(&index(&person));
        }
        // Whatever else cannot be opened.
        one.memory.put(b"/pam_totp/x", b"garbage".to_vec());
        let accepted = one.store().accept_rollback(None, false).unwrap();
        assert_eq!((accepted.rolled.len(), accepted.failed.len()), (1, 1), "{accepted:?}");
        one.memory.delete(&key(&person));
        let new = one.another("new");
        assert_eq!(new.store().never_enrolled(&person), Ok(false));
        assert!(new.store().admit(&person, &named("\" TOTP_AUTH\n"), &Grounds::First, 5).is_err());
    }
}

#[test]
fn an_acceptance_that_was_cut_off_goes_on_anywhere() {
    let one = Machine::first();
    let person = enrolled(&one);
    one.memory.delete(&index(&person));
    cut_after(&one, 1);
    assert!(brief(&one).accept_rollback(None, false).is_err());
    one.memory.faults.lock().unwrap().clear();
    let new = one.another("new");
    new.store().accept_rollback(None, false).unwrap();
    assert_eq!(new.store().never_enrolled(&person), Ok(false));
    one.store().accept_rollback(None, false).unwrap();
    assert_eq!(one.store().never_enrolled(&person), Ok(false));
}

#[test]
fn what_a_host_writes_of_itself_keeps_it_from_nothing() {
    let machine = Machine::first();
    machine.memory.put(b"/pam_totp/hosts/evil", b"garbage".to_vec());
    machine.memory.put(b"/pam_totp/hosts/one", b"garbage".to_vec());
    machine.memory.put(b"/pam_totp/hosts/three", b"garbage".to_vec());
    // No host is called so: it is nothing to be shown, or typed into a shell.
    for name in ["x;reboot", "x\ny", "\u{1b}[2J", "-x", "", "X", &"x".repeat(65)] {
        machine.memory.put(format!("/pam_totp/hosts/{name}").as_bytes(), b"garbage".to_vec());
    }
    assert_eq!((machine.store().strike_off("evil"), machine.store().report("1")), (Ok(()), Ok(())));
    let hosts = machine.store().hosts().unwrap();
    let seen = |host: &document::Host| (host.name.clone(), host.revoked.is_some(), host.is_unread());
    let expected = [("evil", true, false), ("one", false, false), ("three", false, true)];
    assert_eq!(
        hosts.iter().map(seen).collect::<Vec<_>>(),
        expected.map(|(name, revoked, unread)| (name.to_owned(), revoked, unread))
    );
    let failed = machine.store().reseal_all(false).unwrap().failed;
    assert_eq!(failed.len(), 8, "{failed:?}");
}

#[test]
fn a_ticket_that_was_the_first_of_somebody_is_good_once() {
    let machine = Machine::first();
    let (person, ticket) = (me(), Ticket { made: 1, expires: 1000, device: "phone".to_owned() });
    machine.store().invite(&person, &RecoveryCode::new([7; 15]), &ticket).unwrap();
    let old = machine.memory.get(&key(&person)).unwrap();
    let grounds = Grounds::Ticket(RecoveryCode::new([7; 15]), ticket);
    machine.store().admit(&person, &named("\" TOTP_AUTH\n"), &grounds, 5).unwrap();
    machine.memory.delete(&key(&person));
    machine.memory.put(&key(&person), old.value);
    let again = machine.another("new").store().admit(&person, &named("\" TOTP_AUTH\n"), &grounds, 5);
    assert_eq!(word(again), "document-put-back");
}

#[test]
fn whose_device_was_removed_is_vouched_for_on_no_host() {
    let machine = Machine::first();
    let account = enrolled(&machine);
    assert!(is_accepted(&attempt(&machine.store(), &account, CODES[0], &Throttle::default())));
    let holder = account.holder("key-id:1").unwrap();
    machine.store().ensure_there(&machine.store().keys_with_account(&holder)).unwrap();
    let first = machine.memory.get(&key(&holder)).unwrap();
    machine.store().enrol(&holder, &named("\" TOTP_AUTH\n"), false).unwrap();
    machine.store().remove(&holder).unwrap();
    machine.memory.delete(&key(&holder));
    machine.memory.put(&key(&holder), first.value);
    let new = machine.another("new");
    assert_eq!(new.store().is_new_key(&holder), Ok(false));
    let grounds = Grounds::Account(account, "phone".to_owned());
    assert_eq!(word(new.store().admit(&holder, &named("\" TOTP_AUTH\n"), &grounds, 5)), "not-invited");
}

#[test]
fn a_host_at_which_somebody_was_enrolled_has_seen_their_secret() {
    let machine = Machine::first();
    let (two, person) = (machine.another("two"), me());
    two.store().admit(&person, &named("\" TOTP_AUTH\n"), &Grounds::First, 5).unwrap();
    assert_eq!(machine.store().revoke_records("two", true).unwrap().people, [person.named()]);
}

#[test]
fn a_spoiled_bucket_is_sealed_anew_and_keeps_nothing_from_being_listed() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    assert!(attempt(&machine.store(), &person, WRONG, &Throttle::default()).is_ok());
    let is_source = |key: &&Vec<u8>| key.starts_with(b"/pam_totp/sources/");
    let source = machine.memory.kvs.lock().unwrap().1.keys().find(is_source).unwrap().clone();
    let stranger = KeyRing::ephemeral().unwrap();
    let head = Head { id: [1; 16], sequence: 1, version: 2, created: 1 };
    let inside = Inside { attempts: vec![], replaces: vec![], at: 0, by: String::new(), body: Secret::new(vec![]) };
    let value = inside.seal(&stranger, Place { fleet: &[0; 16], key: &source }, &head).unwrap();
    machine.memory.put(&source, value);
    assert!(Kept::list(&machine.store(), None).is_ok_and(|rows| rows.iter().any(|row| row.name != b"192.0.2.1")));
    let sealed = machine.store().reseal_all(false).unwrap();
    assert_eq!((sealed.resealed, sealed.failed), (1, Vec::new()));
    assert_eq!(machine.store().reseal_all(true).unwrap().by_key.len(), 1);
    assert!(attempt(&machine.store(), &person, WRONG, &Throttle::default()).is_ok());
}

#[test]
fn what_is_no_guess_costs_nothing_and_whatever_else_is_refused_does() {
    let machine = Machine::first();
    let (person, throttle) = (enrolled(&machine), Throttle::default());
    let before = machine.memory.commits.load(SeqCst);
    let no_code = attempt(&machine.store(), &person, "1234567", &throttle).unwrap();
    assert_eq!((no_code.verdict, no_code.paid), (Verdict::Denied(Denial::NotACode), Paid::Settled));
    assert_eq!(machine.memory.commits.load(SeqCst), before);
    let here = source("192.0.2.1");
    let login = login(Who::of(&person), &here, &throttle);
    let bill = Bill { login, is_guess: true, receipts: &[], grace: None, login_key: b"" };
    let refused = machine.store().attempt(&person, &|_| verify::refused(), Some(&bill)).unwrap();
    assert!(matches!(refused.paid, Paid::Charged(_)), "{:?}", refused.paid);
}

#[test]
fn whoever_came_by_a_key_is_not_asked_again_behind_another_host_while_it_is_the_same() {
    let machine = Machine::first();
    let (person, here, throttle) = (enrolled(&machine), source("192.0.2.1"), Throttle::default());
    let factors = machine.store().load(&person).unwrap().factors().unwrap();
    let grace = |key, factors| Grace { period: 600, circumstances: key, factors, is_elsewhere: true };
    let elsewhere = source("198.51.100.1");
    let has_grace =
        |key, factors| machine.store().has_grace(&login(Who::of(&person), &elsewhere, &throttle), &grace(key, factors));
    let come_by = |key, code: &str| {
        let answer = Answer::new(Secret::new(code.into()), Form::Code, false);
        let (rules, attempt) = (Rules::default(), Try::new(&answer));
        let charge = |record: &Record| verify::charge(record, &rules, &attempt, 90);
        let login = login(Who::of(&person), &here, &throttle);
        let bill = Bill { login, is_guess: true, receipts: &[], grace: None, login_key: key };
        assert!(is_accepted(&machine.store().attempt(&person, &charge, Some(&bill))));
    };
    come_by(b"", CODES[0]);
    assert!(!has_grace(b"key", factors.expose()) && !has_grace(b"", factors.expose()));
    come_by(b"key", CODES[1]);
    assert!(has_grace(b"key", factors.expose()));
    assert!(!has_grace(b"another", factors.expose()) && !has_grace(b"key", b"another secret"));
}

#[test]
fn of_an_accounts_tickets_each_holder_uses_and_takes_along_their_own() {
    let machine = Machine::first();
    let account = me();
    let [one, two] = ["key-id:1", "key-id:2"].map(|key| account.holder(key).unwrap());
    let ticket = |made| Ticket { made, expires: made + 100, device: "phone".to_owned() };
    let invite = |person: &Person, number, made| {
        machine.store().invite(person, &RecoveryCode::new([number; 15]), &ticket(made)).unwrap();
    };
    let is_invited = |person: &Person| machine.store().is_invited(person, 150).unwrap();
    // What was over when another one was made is gone, and nothing else.
    invite(&account, 1, 1);
    invite(&one, 2, 100);
    invite(&two, 3, 101);
    assert!(is_invited(&one) && is_invited(&two) && !is_invited(&account));
    assert_eq!(machine.store().ticket(&account, &RecoveryCode::new([1; 15])), Ok(None));
    assert_eq!(machine.store().ticket(&two, &RecoveryCode::new([2; 15])), Ok(None), "another's");
    assert_eq!(machine.store().ticket(&one, &RecoveryCode::new([2; 15])), Ok(Some(ticket(100))));
    // Whoever has a record needs none.
    machine.store().enrol(&one, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert!(!is_invited(&one) && is_invited(&two));
    machine.store().remove(&one).unwrap();
    assert!(is_invited(&two));
    invite(&one, 4, 101);
    assert_eq!(machine.store().withdraw(&one), Ok(1));
    assert!(is_invited(&two));
    invite(&account, 5, 101);
    assert_eq!(machine.store().withdraw(&account), Ok(2), "of the account all");
    assert!(!is_invited(&two) && !is_invited(&account));
    let before = machine.memory.commits.load(SeqCst);
    assert_eq!((machine.store().withdraw(&account), machine.store().release(&two)), (Ok(0), Ok(false)));
    assert_eq!(machine.memory.commits.load(SeqCst), before, "there is nothing to write");
    // Whoever is forgotten has none either.
    invite(&two, 6, 101);
    machine.store().release(&two).unwrap();
    assert!(!is_invited(&two));
}

#[test]
fn a_host_says_that_it_is_there_every_five_minutes_or_when_something_is_new() {
    let machine = Machine::first();
    let report = |now: fn() -> u64, version| {
        let before = machine.memory.commits.load(SeqCst);
        machine.at(now).report(version).unwrap();
        machine.memory.commits.load(SeqCst) - before
    };
    assert_eq!((report(|| 100, "1"), report(|| 399, "1"), report(|| 400, "1")), (1, 0, 1));
    assert_eq!((report(|| 401, "2"), report(|| 402, "2")), (1, 0));
}

#[test]
fn the_latest_write_before_a_time_is_found() {
    let machine = Machine::first();
    let key = b"/pam_totp/hosts/one";
    let latest = |time| machine.store().latest_before(time).unwrap();
    machine.at(|| 100).report("1").unwrap();
    let first = machine.memory.get(key).unwrap().revision;
    // Of the fleet's own, which are made at 90.
    let own = latest(100).unwrap();
    assert!(own < first && latest(91) == Some(own));
    assert_eq!((latest(90), latest(101)), (None, Some(first)));
    machine.at(|| 500).report("1").unwrap();
    assert_eq!(latest(500), Some(own), "it was written anew since");
}

#[test]
fn a_clock_that_cannot_be_held_against_the_clusters_opens_nothing() {
    const LATE: u64 = ledger::EARLIEST + 1;
    let machine = Machine::first();
    assert_eq!((machine.store().latest_wall(), machine.at(|| LATE).latest_wall()), (ledger::EARLIEST, LATE));
    let nowhere = Machine::of(Arc::default(), Arc::new(KeyRing::ephemeral().unwrap()), "nowhere");
    assert_eq!(nowhere.at(|| LATE).latest_wall(), u64::MAX);
    // What has been read was held against it.
    let (store, person) = (machine.at(|| LATE), me());
    assert_eq!(store.has_record(&person), Ok(false));
    machine.memory.delete(b"/pam_totp/fleet");
    assert_eq!((store.latest_wall(), machine.at(|| LATE).latest_wall()), (LATE, u64::MAX));
}

#[test]
fn root_sees_and_forgets_what_failed_by_name_by_source_and_in_a_row() {
    let machine = Machine::first();
    let (person, here, throttle) = (enrolled(&machine), source("192.0.2.1"), Throttle::default());
    let label = person.name().to_vec();
    let listed = || {
        let rows = Kept::list(&machine.store(), None).unwrap();
        rows.into_iter().map(|row| (row.kind.name(), row.name, row.failures)).collect::<Vec<_>>()
    };
    machine.store().charge_source(&login(Who::of(&person), &here, &throttle));
    assert_eq!(listed(), [("source", b"192.0.2.1".to_vec(), 1)]);
    assert_eq!(machine.store().unlock_source(&here, None), Ok(true));
    assert!(machine.store().charge(&login(Who::of(&person), &here, &throttle)).is_ok());
    assert!(machine.store().charge(&login(Who::Nobody(b"x"), &here, &throttle)).is_ok());
    let rows = [
        ("strangers", label.clone(), 1),
        ("source", b"192.0.2.1".to_vec(), 2),
        ("shared", b"(several)".to_vec(), 1),
        ("in-a-row", label.clone(), 1),
    ];
    assert_eq!(listed(), rows);
    let commits = || machine.memory.commits.load(SeqCst);
    for expected in [1, 0] {
        let before = commits();
        machine.store().end_row(Who::of(&person)).unwrap();
        assert_eq!(commits() - before, expected);
    }
    assert_eq!(listed(), rows[..3]);
    assert_eq!(machine.store().take_notice(Who::of(&person)).map(|notice| notice.failures), Some(1));
    for was_there in [true, false] {
        assert_eq!(machine.store().unlock_name(&label, "", None), Ok(was_there));
    }
    assert_eq!(listed(), [rows[1].clone(), rows[2].clone()]);
}

#[test]
fn one_persons_document_is_sealed_with_the_active_key_once() {
    let mut machine = Machine::first();
    let person = enrolled(&machine);
    assert_eq!(machine.store().path(&person), Ok(format!("etcd:/pam_totp/people/{}", person.file_name()).into()));
    assert_eq!(machine.store().reseal(&person.named()), Ok(false));
    let path = machine.state_dir.path().join("ring");
    machine.ring.write(&path).unwrap();
    let mut ring = KeyRing::read(&path).unwrap();
    let new = ring.add().unwrap();
    ring.activate(Some(new)).unwrap();
    machine.ring = Arc::new(ring);
    for is_resealed in [true, false] {
        assert_eq!(machine.store().reseal(&person.named()), Ok(is_resealed));
        assert_eq!(machine.store().sealed_with(&person.named()), Ok(Some(new.to_string())));
    }
}

#[test]
fn a_host_that_never_saw_what_is_missing_makes_anew_what_remembers_people_and_nothing_else() {
    let one = Machine::first();
    let person = enrolled(&one);
    one.memory.delete(&index(&person));
    let new = one.another("new");
    let nobody = Named { name: b"nobody".to_vec(), key: None };
    assert_eq!(new.store().accept_rollback(Some(&nobody), false), Ok(Accepted::default()));
    assert_eq!(new.store().accept_rollback(None, false).unwrap().rolled.len(), 1);
    one.memory.delete(&key(&person));
    assert_eq!(one.another("newer").store().never_enrolled(&person), Ok(false));
}

#[test]
fn any_trace_of_a_person_or_their_account_says_that_they_had_a_device() {
    let account = me();
    let holder = account.holder("key-id:1").unwrap();
    let record = || Some(record_of(&account, 1, &named("\" TOTP_AUTH\n")));
    let traces: [(&Person, Of); 4] = [
        (&account, Of { had_one: true, ..Of::default() }),
        (&account, Of { record: record(), ..Of::default() }),
        (&holder, Of { had_one: true, ..Of::default() }),
        (&holder, Of { record: record(), ..Of::default() }),
    ];
    for (number, (person, of)) in traces.iter().enumerate() {
        let machine = Machine::first();
        let keys = [FleetStore::key(person)];
        machine.store().ensure_there(&keys).unwrap();
        assert_eq!(machine.store().never_enrolled(&holder), Ok(true));
        machine.store().transact(&keys, |transaction| transaction.put_person(&keys[0], of)).unwrap();
        assert_eq!(machine.store().never_enrolled(&holder), Ok(false), "{number}");
        // A key of an account is new for as long as nobody had a device with it.
        let is_new = [&holder, &account].map(|person| machine.store().is_new_key(person).unwrap());
        assert_eq!(is_new, [person.key().is_none(), false], "{number}");
    }
    // What this host knows of homes is no other's.
    let machine = Machine::first();
    let file = machine.state_dir.path().join("secret");
    let homes = HomeStore { secret: file.as_os_str().as_encoded_bytes(), ..HomeStore::default() };
    std::fs::write(&file, "").unwrap();
    let store = FleetStore { homes: Some(homes), ..machine.store() };
    assert_eq!((store.never_enrolled(&account), machine.store().never_enrolled(&account)), (Ok(false), Ok(true)));
    let refused = store.admit(&account, &named("\" TOTP_AUTH\n"), &Grounds::First, 5);
    assert_eq!(word(refused), "not-invited");
}

#[test]
fn what_a_code_comes_to_is_stored_once_or_it_was_nothing() {
    // A guess is paid by the first commit; what comes of it is the second.
    for (faults, is_there) in [
        (vec![Fault::Landed], true),
        (vec![Fault::Lost, Fault::Landed], true),
        (vec![Fault::Lost], true),
        // Somebody else writes, and it is not there. What they wrote is at another version than it says.
        (vec![Fault::Raced(key(&me()))], false),
        (vec![Fault::Lost, Fault::Raced(key(&me()))], false),
    ] {
        let machine = Machine::first();
        let person = enrolled(&machine);
        machine.memory.faults.lock().unwrap().extend([Fault::None].into_iter().chain(faults));
        let result = attempt(&machine.store(), &person, CODES[0], &Throttle::default());
        if is_there {
            assert!(is_accepted(&result), "{result:?}");
            let again = attempt(&machine.store(), &person, CODES[0], &Throttle::default()).unwrap();
            assert_eq!(again.verdict, Verdict::Denied(Denial::UsedCode));
        } else {
            assert_eq!(word(result), "document-put-back");
        }
    }
}

#[test]
fn a_host_that_reads_alone_remembers_what_it_read_and_takes_nothing_older() {
    let one = Machine::first();
    let (two, person) = (one.another("two"), enrolled(&one));
    let key = key(&person);
    let old = one.memory.get(&key).unwrap();
    assert!(two.store().load(&person).is_ok());
    assert!(is_accepted(&attempt(&one.store(), &person, CODES[0], &Throttle::default())));
    assert!(two.store().load(&person).is_ok());
    // As a cluster that was restored has it: all of one time, versions too.
    one.memory.kvs.lock().unwrap().1.insert(key, old);
    assert_eq!(word(two.store().load(&person)), "document-put-back");
    // Of what anybody can fill it remembers nothing.
    let names = one.store().marks.names().unwrap();
    assert!(names.iter().all(|name| name == "~fleet" || name.starts_with("~enrolled~") || *name == person.file_name()));
}

#[test]
fn a_mark_is_raised_and_never_lowered_and_another_document_has_its_own() {
    let directory = directory();
    let marks = Marks::open(directory.path()).unwrap();
    let mark = |id, sequence| marks::Mark { id: [id; 16], sequence };
    for (next, left) in [(mark(1, 2), mark(1, 2)), (mark(1, 1), mark(1, 2)), (mark(1, 3), mark(1, 3))] {
        marks.raise("alice", next).unwrap();
        assert_eq!(marks.get("alice"), Ok(Some(left)));
    }
    marks.raise("alice", mark(2, 1)).unwrap();
    assert_eq!(marks.get("alice"), Ok(Some(mark(2, 1))));
}

#[test]
fn where_documents_are_and_how_names_are_known_there_is_for_good() {
    // By the SHA-256 of the name, which begins so.
    const DIGEST: [u8; 16] = 0x2bd8_06c9_7f0e_00af_1a1f_c332_8fa7_63a9_u128.to_be_bytes();
    assert_eq!(document::of_enrolled("alice"), "enrolled/d8");
    assert_eq!(document::of_nobody(b"alice"), "nobody/d8");
    assert_eq!(document::of_source(b"alice"), "sources/bd8");
    assert_eq!(document::of_newcomers("alice"), "people/alice,new-keys");
    let mut enrolled = document::Enrolled::default();
    assert!(enrolled.set("alice", true));
    assert!(enrolled.text().unwrap().expose().ends_with(&DIGEST[8..]));
}

#[test]
fn a_document_of_a_newer_program_is_told_from_one_that_is_none() {
    let remedy = |value: &[u8]| envelope::head(value).unwrap_err().to_string();
    assert!(remedy(&[2]).contains("newer pam_totp") && remedy(&[2]).contains("version=2"), "{}", remedy(&[2]));
    for value in [&[0][..], &[1], &[]] {
        assert!(!remedy(value).contains("newer"), "{}", remedy(value));
    }
}

#[test]
fn a_failure_and_a_login_count_until_the_second_at_which_they_are_over() {
    use crate::ledger::KNOWN_FOR;
    use crate::policy::throttle::MAX_PERIOD;
    let here = source("192.0.2.1");
    let throttle: Throttle = toml::from_str("user = \"*:1/1h\"").unwrap();
    let login = login(ALICE, &here, &throttle);
    let grace = Grace { period: 600, circumstances: b"key", factors: b"secret", is_elsewhere: false };
    let counts = || {
        let mut counts = counts::Counts::default();
        assert!(counts.charge(&login, false, 1000).is_ok());
        counts
    };
    for (later, is_over) in [(3599, false), (3600, true)] {
        assert_eq!(counts().charge(&login, false, 1000 + later).is_ok(), is_over);
    }
    for (later, left) in [(MAX_PERIOD - 1, 1), (MAX_PERIOD, 0)] {
        assert_eq!(counts().strangers.ages(1000 + later).len(), left);
    }
    let (mut old, mut new) = (counts(), counts::Counts::default());
    [&mut old, &mut new]
        .into_iter()
        .for_each(|counts| assert!(counts.charge(&login, false, 1000 + MAX_PERIOD).is_ok()));
    assert_eq!(old.strangers, new.strangers, "what is over is not kept");
    let (mut old, mut new) = (counts::Counts::default(), counts::Counts::default());
    old.logged_in(&login, b"here", Some(&grace), 1000);
    for (later, is_known, has_grace) in
        [(599, true, true), (600, true, false), (KNOWN_FOR - 1, true, false), (KNOWN_FOR, false, false)]
    {
        assert_eq!(old.is_known(b"here", 1000 + later), is_known, "{later}");
        assert_eq!(old.has_grace(&login, b"here", &grace, 1000 + later), has_grace, "{later}");
    }
    [&mut old, &mut new].into_iter().for_each(|counts| counts.logged_in(&login, b"there", None, 1000 + KNOWN_FOR));
    assert_eq!(old, new, "what is over is not kept");
}

#[test]
fn a_few_failures_of_others_end_that_somebody_is_not_asked() {
    let (here, throttle) = (source("192.0.2.1"), Throttle::default());
    let login = login(ALICE, &here, &throttle);
    let grace = Grace { period: 600, circumstances: b"key", factors: b"secret", is_elsewhere: false };
    let mut counts = counts::Counts::default();
    counts.logged_in(&login, b"here", Some(&grace), 1000);
    for _ in 0..ledger::GRACE_FAILURES {
        assert!(counts.has_grace(&login, b"here", &grace, 1000));
        counts.charge(&login, false, 1000).unwrap();
    }
    assert!(!counts.has_grace(&login, b"here", &grace, 1000));
}

#[test]
fn what_is_taken_back_is_that_guess_alone_and_what_is_told_is_what_failed() {
    use crate::policy::throttle::MAX_PERIOD;
    let (here, throttle) = (source("192.0.2.1"), Throttle::default());
    let login = login(ALICE, &here, &throttle);
    let mut counts = counts::Counts::default();
    (0..2).for_each(|_| assert!(counts.charge(&login, false, 1000).is_ok()));
    counts.take_back(&[(counts::Charged::Source, 1000), (counts::Charged::Strangers, 1000)]);
    assert_eq!((counts.strangers.ages(1000).len(), counts.in_a_row), (1, 1));
    counts.end_row();
    counts.charge(&login, false, 2000).unwrap();
    // A row of failures is forgotten although each of them is over.
    for was_there in [true, false] {
        assert_eq!(counts.unlock(2000 + MAX_PERIOD), was_there);
    }
    counts.end_row();
    assert_eq!(counts.take_notice().map(|notice| (notice.failures, notice.latest)), Some((1, 1000)));
    assert_eq!(counts.take_notice(), None);
}

#[test]
fn after_a_hundred_failures_in_a_row_no_code_is_judged_on_any_host_until_root_unlocks() {
    let one = Machine::first();
    let (two, person, here) = (one.another("two"), enrolled(&one), source("192.0.2.1"));
    let throttle: Throttle = toml::from_str("user = \"\"\nhost = \"\"").unwrap();
    let (keys, who) = ([FleetStore::key(&person)], Who::of(&person));
    one.store()
        .transact(&keys, |transaction| {
            let mut of = transaction.person(&keys[0])?;
            for _ in 1..ledger::MAX_CONSECUTIVE {
                assert!(of.counts.charge(&login(who, &here, &throttle), false, 90).is_ok());
            }
            transaction.put_person(&keys[0], &of)
        })
        .unwrap();
    assert!(!two.store().is_disabled(who));
    assert!(matches!(attempt(&two.store(), &person, WRONG, &throttle).unwrap().paid, Paid::Charged(_)));
    for machine in [&one, &two] {
        assert!(machine.store().is_disabled(who));
        let refused = attempt(&machine.store(), &person, CODES[0], &throttle).unwrap();
        assert!(matches!(refused.paid, Paid::Refused(Refusal::Disabled)), "{:?}", refused.paid);
    }
    assert_eq!(one.store().unlock_person(who, Some(&throttle)), Ok(true));
    assert!(!two.store().is_disabled(who));
    assert!(is_accepted(&attempt(&two.store(), &person, CODES[0], &throttle)));
}

#[test]
fn of_several_who_have_just_got_in_each_has_nothing_to_be_told_once() {
    let fleet = Machine::first().fleet;
    ["alice", "bob"].into_iter().for_each(|key| fleet.has_nothing_to_tell(key.to_owned()));
    assert_eq!(
        ["alice", "bob", "alice", "carol"].map(|key| fleet.had_nothing_to_tell(key)),
        [true, true, false, false]
    );
}

#[test]
fn a_ticket_for_anybody_of_a_shared_account_is_one_persons_and_the_others_keep_theirs() {
    let machine = Machine::first();
    let account = me();
    let [one, two] = ["key-id:1", "key-id:2"].map(|key| account.holder(key).unwrap());
    let ticket = Ticket { made: 1, expires: 1000, device: "phone".to_owned() };
    let word_of = |number| RecoveryCode::new([number; 15]);
    (1..3).for_each(|number| machine.store().invite(&account, &word_of(number), &ticket).unwrap());
    let admit = |person, number| {
        let grounds = Grounds::Ticket(word_of(number), ticket.clone());
        machine.store().admit(person, &named("\" TOTP_AUTH\n"), &grounds, 5)
    };
    assert_eq!(admit(&one, 1), Ok(()));
    assert_eq!(word(admit(&two, 1)), "not-invited");
    // The account is one of its people.
    machine.store().enrol(&account, &named("\" TOTP_AUTH\n"), false).unwrap();
    assert_eq!(machine.store().people_of_account(&two), Ok(vec![account.clone(), one.clone()]));
    assert_eq!(admit(&two, 2), Ok(()));
}

#[test]
fn tickets_go_with_the_first_record_unless_others_share_the_account() {
    let account = me();
    let [one, two] = ["key-id:1", "key-id:2"].map(|key| account.holder(key).unwrap());
    let ticket = Ticket { made: 1, expires: 1000, device: "phone".to_owned() };
    for is_shared in [false, true] {
        let machine = Machine::first();
        if is_shared {
            machine.store().enrol(&one, &named("\" TOTP_AUTH\n"), false).unwrap();
        }
        // For the first record, and for one in its place.
        for replace in [false, true] {
            machine.store().invite(&account, &RecoveryCode::new([1; 15]), &ticket).unwrap();
            machine.store().enrol(&account, &named("\" TOTP_AUTH\n"), replace).unwrap();
            assert_eq!(machine.store().is_invited(&two, 5), Ok(is_shared), "{replace}");
        }
    }
}

#[test]
fn a_fleet_with_people_is_there_and_of_one_that_is_not_or_not_whole_the_check_says_so() {
    let machine = Machine::first();
    enrolled(&machine);
    assert_eq!((machine.store().init(), machine.store().check()), (Ok(true), Ok(())));
    let nowhere = Machine::of(Arc::default(), Arc::new(KeyRing::ephemeral().unwrap()), "nowhere");
    assert_eq!(word(nowhere.store().check()), "no-fleet");
    machine.memory.delete(b"/pam_totp/enrolled/ff");
    assert_eq!(word(machine.another("new").store().check()), "no-fleet");
}

#[test]
fn a_record_or_a_ticket_in_the_first_document_at_a_key_was_put_there_by_nobody_here() {
    let person = me();
    let ticket = Ticket { made: 1, expires: 1000, device: "phone".to_owned() };
    let record = Some(record_of(&person, 1, &named("\" TOTP_AUTH\n")));
    let tickets = vec![document::Invitation { hash: [1; 32], holder: None, ticket }];
    for of in [Of { record, ..Of::default() }, Of { tickets, ..Of::default() }] {
        let machine = Machine::first();
        let keys = [FleetStore::key(&person)];
        machine.store().transact(&keys, |transaction| transaction.put_person(&keys[0], &of)).unwrap();
        assert_eq!(word(machine.store().is_invited(&person, 5)), "document-put-back");
    }
}

#[test]
fn a_person_whose_document_cannot_be_read_is_not_passed_over() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    let holder = person.holder("key-id:1").unwrap();
    machine.memory.put(&key(&holder), b"garbage".to_vec());
    assert_eq!(word(machine.store().people_of_account(&person)), "bad-document");
    assert_eq!(word(machine.store().latest_before(u64::MAX)), "bad-document");
    assert!(Kept::list(&machine.store(), None).is_err());
}

#[test]
fn a_fleet_whose_own_document_nobody_can_open_is_not_taken_for_good() {
    let machine = Machine::first();
    enrolled(&machine);
    machine.memory.put(b"/pam_totp/fleet", b"garbage".to_vec());
    assert_eq!(word(machine.store().accept_rollback(None, false)), "bad-document");
}

/// What there is of somebody, and when that was written by which host.
fn of(machine: &Machine, person: &Person) -> (Of, u64, String) {
    let keys = [FleetStore::key(person)];
    let store = machine.store();
    let transaction = store.begin(&keys).unwrap();
    let (_, at, by) = transaction.written(&keys[0]).unwrap();
    (transaction.person(&keys[0]).unwrap(), at, by.to_owned())
}

#[test]
fn whoever_had_no_device_is_taken_to_have_had_one_only_where_something_may_be_lost() {
    let one = Machine::first();
    let (two, person, throttle) = (one.another("two"), me(), Throttle::default());
    let key = key(&person);
    // A stranger's guesses are all that there is of them.
    assert!(attempt(&one.store(), &person, WRONG, &throttle).is_err());
    let old = one.memory.get(&key).unwrap();
    // As a copy of the cluster by its keys has it: nothing of it is old.
    one.memory.put(&key, old.value.clone());
    assert_eq!(two.at(|| 120).accept_rollback(Some(&person.named()), false).unwrap().rolled.len(), 1);
    let (of_them, at, by) = of(&two, &person);
    assert_eq!((of_them.had_one, at, by.as_str()), (false, 120, "two"));
    one.memory.kvs.lock().unwrap().1.insert(key, old);
    assert_eq!(two.store().accept_rollback(Some(&person.named()), false).unwrap().rolled.len(), 1);
    assert!(of(&two, &person).0.had_one);
}

#[test]
fn whose_document_is_given_up_had_a_device_also_on_a_host_that_never_saw_it() {
    let machine = Machine::first();
    let (new, person) = (machine.another("new"), me());
    machine.memory.put(&key(&person), b"garbage".to_vec());
    assert_eq!(new.store().accept_rollback(Some(&person.named()), true).unwrap().rolled.len(), 1);
    assert!(of(&new, &person).0.had_one);
}

#[test]
fn what_was_taken_for_good_says_whether_something_may_be_good_twice() {
    let recovery = RecoveryCodes::new([1; 16], [&b"one"[..]]);
    let counter = named("\" HOTP_COUNTER 1\n");
    for (record, is_weakened) in
        [(named("\" TOTP_AUTH\n"), false), (Record { recovery, ..named("\" TOTP_AUTH\n") }, true), (counter, true)]
    {
        let machine = Machine::first();
        let person = me();
        machine.store().enrol(&person, &record, false).unwrap();
        let kv = machine.memory.get(&key(&person)).unwrap();
        machine.memory.put(&key(&person), kv.value);
        let rolled = machine.store().accept_rollback(Some(&person.named()), false).unwrap().rolled;
        assert_eq!(rolled.iter().map(|rolled| rolled.is_weakened).collect::<Vec<_>>(), [is_weakened]);
    }
}

#[test]
fn who_had_a_device_comes_back_from_documents_that_say_so_and_from_no_others() {
    let machine = Machine::first();
    let person = enrolled(&machine);
    machine.store().remove(&person).unwrap();
    // Who never had one, in the same place.
    let other = (0..).map(|number| Named { name: format!("other{number}").into_bytes(), key: None });
    let mut other = other.filter(|named| document::of_enrolled(&named.file_name()).as_bytes() == &index(&person)[10..]);
    let other = document::of_person(&other.next().unwrap().file_name());
    let keys = [other.clone()];
    machine.store().transact(&keys, |transaction| transaction.put_person(&other, &Of::default())).unwrap();
    machine.memory.delete(&index(&person));
    machine.another("new").store().accept_rollback(None, false).unwrap();
    let place = document::of_enrolled(&person.file_name());
    let store = machine.another("newer");
    let store = store.store();
    let enrolled = store.begin(std::slice::from_ref(&place)).unwrap().enrolled(&place).unwrap();
    assert!(enrolled.has(&person.file_name()) && !enrolled.has(other.strip_prefix(document::PEOPLE).unwrap()));
}

#[test]
fn what_is_sealed_anew_is_what_is_there_and_a_host_that_was_spoiled_can_say_what_it_is() {
    let machine = Machine::first();
    let host = b"/pam_totp/hosts/one";
    machine.store().report("1").unwrap();
    let stranger = KeyRing::ephemeral().unwrap();
    let head = Head { id: [1; 16], sequence: 1, version: 2, created: 1 };
    let inside = Inside { attempts: vec![], replaces: vec![], at: 0, by: String::new(), body: Secret::new(vec![]) };
    machine.memory.put(host, inside.seal(&stranger, Place { fleet: &[0; 16], key: host }, &head).unwrap());
    // Of whom nothing can be read it is known that there is one.
    assert_eq!(machine.store().hosts(), Ok(vec![Host { name: "one".to_owned(), ..Host::default() }]));
    assert_eq!(machine.store().reseal_all(false).unwrap().resealed, 1);
    machine.store().report("1").unwrap();
    assert_eq!(machine.store().hosts().unwrap()[0].version, "1");
    let nobody = Named { name: b"nobody".to_vec(), key: None };
    let before = machine.memory.commits.load(SeqCst);
    assert!(machine.store().reseal(&nobody).is_ok());
    assert_eq!(machine.memory.commits.load(SeqCst), before, "where there is nothing, nothing is made");
}

#[test]
fn whoever_is_waited_for_has_one_time_limit() {
    let machine = Machine::first();
    let (store, in_time) = (machine.store(), machine.store().in_time());
    crate::system::lock::pause(Duration::from_millis(2));
    assert!(store.deadline() > in_time.deadline() && in_time.deadline() == in_time.deadline());
}

/// A server of its own, on loopback, for as long as a test takes.
#[test]
fn the_fleets_store_conforms_on_a_real_etcd() {
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    let is_there = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(is_there, "etcd is missing: install the package etcd-server (`make prerequisites` does)");
    let directory = directory();
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
    let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    // It ends with this thread, however that ends.
    let mut etcd = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "etcd"])
        .args(["--data-dir", directory.path().join("etcd").to_str().unwrap()])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv is missing: install the package util-linux");
    let conf = format!("version = 1\nendpoints = [\"{client}\"]\ninsecure = true\n");
    let conf = Conf::parse(conf.as_bytes(), "one").unwrap_or_else(|bad| panic!("{bad}"));
    let fleet = Fleet::new(Box::new(Cluster::new(&conf).unwrap()), conf.prefix, conf.host);
    let (ring, state_dir) = (Arc::new(KeyRing::ephemeral().unwrap()), crate::system::private::tests::directory());
    let machine = Machine { memory: Arc::default(), fleet, ring, state_dir };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let is_up = (0..100).any(|_| {
            let is_up = machine.store().init().is_ok();
            crate::system::lock::pause(Duration::from_millis(50));
            is_up
        });
        assert!(is_up, "{:?}", machine.store().init());
        conformance::check(&EachAnew(&machine));
        assert_eq!(machine.store().people(), Ok(vec![me().named()]));
    }));
    etcd.kill().unwrap();
    etcd.wait().unwrap();
    result.unwrap();
}
