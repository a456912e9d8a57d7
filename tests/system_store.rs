//! The root-only store through real logins: many of them at once, with each call of the operating system failing, and with
//! everything that may lie where a record should.

use crate::support::machine::{
    ALICE, AUTH_ERR, BOB, CAROL, Home, IGNORE, LoggedIn, Machine, PERM_DENIED, SUCCESS, User,
};
use crate::support::root_only::{POLICY, STATE, ready, run, totp};
use crate::support::totp::{SECRET, code_now, hotp, wrong_code};
use crate::support::{self, dist, need, output_of, project, when_stopped};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

/// What is tested here is not the ledger, and needs more guesses than it allows.
const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";
/// So many logins of one person at once: the hundredth failure in a row disables the device, whatever the policy says.
const AT_ONCE: usize = 90;
const RECORDS: &str = "/var/lib/pam_totp/records";
const RECORD: &str = "/var/lib/pam_totp/records/alice";
const SIBLING: &str = "/var/lib/pam_totp/records/alice~";

const AUTHINFO_UNAVAIL: i32 = 9;
/// Nothing that is wrong may take longer to be found out; the lock is waited for for five seconds.
const PROMPTLY: Duration = Duration::from_millis(4_500);

fn machine() -> Machine {
    set_up(Machine::new(), WITHOUT_LIMITS)
}

/// With records on a real ext4: where an fsync takes time, there is room to lose a race.
fn on_ext4(module: &Path, rules: &str) -> Machine {
    let machine = Machine::with(Home::Ext4, module);
    machine.keep_state_at_home();
    set_up(machine, rules)
}

/// A store, and two services: one that needs a code, and one that lets people pass who never had a device.
fn set_up(machine: Machine, rules: &str) -> Machine {
    machine.service("optional", "auth required pam_totp.so nullok\nauth required pam_permit.so\n");
    ready(machine, rules)
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Somebody's first device and recovery codes.
struct Enrolled {
    secret: String,
    recovery: Vec<String>,
}

/// Enrols somebody anew.
fn enrol(machine: &Machine, user: User, options: &[&str]) -> Enrolled {
    let arguments = [&["enrol", "--user", user.name, "--no-confirm", "--force", "--json"], options].concat();
    let printed = json(&totp(machine, &arguments));
    let codes = printed["recovery_codes"].as_array().unwrap();
    Enrolled {
        secret: printed["secret"].as_str().unwrap().to_owned(),
        recovery: codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect(),
    }
}

/// A login by hand of the client, without a look at the log, which takes its time.
fn log_in(machine: &Machine, service: &str, user: &str, code: &str) -> Option<i32> {
    result(&machine.command(machine.client()).args([service, user, "--answer", code]).output().unwrap())
}

fn result(output: &Output) -> Option<i32> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("result ")).and_then(|code| code.parse().ok())
}

/// How often each reason was logged.
fn reasons(log: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for reason in support::reasons(log) {
        *counts.entry(reason).or_insert(0) += 1;
    }
    counts
}

// ---- A record, written by hand ----

const SIZE: usize = 4096;

/// What `pam-totp` would write, with a right checksum.
fn record(body: &str) -> Vec<u8> {
    let header = "# pam_totp record, sha256 of what follows: ";
    let mut rest = body.as_bytes().to_vec();
    rest.resize(SIZE - header.len() - 64 - 1, b'\n');
    let digest = Sha256::digest(body.trim_end_matches('\n'));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = [format!("{header}{digest}\n").as_bytes(), rest.as_slice()].concat();
    assert_eq!(text.len(), SIZE);
    text
}

const FIRST_LINES: &str = "version = 1\nuser = \"alice\"\nuid = 20001\ngeneration = 7\n";

fn counter_device(name: &str, secret: &str, counter: u64) -> String {
    format!(
        "\n[[device]]\nname = \"{name}\"\nkind = \"hotp\"\nsecret = \"{secret}\"\nalgorithm = \"SHA1\"\ndigits = 6\n\
         counter = {counter}\nlook_ahead = 3\n"
    )
}

/// Alice's, with one device.
fn body(counter: u64) -> String {
    format!("{FIRST_LINES}{}", counter_device("stick", SECRET, counter))
}

/// Takes whatever has a name away.
fn clear(machine: &Machine, path: &str) {
    let path = machine.path(path);
    match path.symlink_metadata() {
        Ok(stat) if stat.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Gives alice a record in the place of whatever is there, and a sibling that says nothing.
fn put(machine: &Machine, text: &[u8]) {
    for path in [RECORD, SIBLING] {
        clear(machine, path);
    }
    machine.write_as(RECORD, text, 0, 0o600);
    machine.write_as(SIBLING, [b'\n'; SIZE], 0, 0o600);
    machine.write_as(&format!("{STATE}/enrolled/alice.20001"), "", 0, 0o600);
}

/// The counter of a record's only device.
fn counter(machine: &Machine) -> u64 {
    let text = machine.read(RECORD);
    let (_, rest) = text.split_once("\ncounter = ").unwrap_or_else(|| panic!("{text}"));
    rest.split('\n').next().unwrap().parse().unwrap()
}

#[test]
fn a_record_made_by_hand_is_one_that_pam_totp_would_make() {
    let machine = machine();
    put(&machine, &record(&body(5)));
    let login = machine.login("test", "alice").answer(hotp(SECRET, 5)).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
    assert_eq!(counter(&machine), 6);
    let listed = json(&totp(&machine, &["device", "list", "--user", "alice", "--json"]));
    assert_eq!((&listed["devices"][0]["name"], &listed["devices"][0]["counter"]), (&"stick".into(), &6.into()));
}

// ---- Many at once ----

/// Without the lock the first one shows it, nearly always; see `without_the_lock_a_code_gets_more_than_one_in`.
fn rounds() -> usize {
    support::rounds(5, 30)
}

const RUNNERS: usize = 50;

/// Enrols alice and returns a code that works once.
type Prepare = fn(&Machine) -> String;

fn time_based(machine: &Machine) -> String {
    code_now(&enrol(machine, ALICE, &[]).secret)
}

fn counter_based(machine: &Machine) -> String {
    hotp(&enrol(machine, ALICE, &["--counter-based"]).secret, 1)
}

fn recovery_code(machine: &Machine) -> String {
    enrol(machine, ALICE, &[]).recovery.pop().unwrap()
}

/// One of eight digits, from a home.
fn scratch_code(machine: &Machine) -> String {
    machine.enrol(ALICE, "\" TOTP_AUTH\n12345678\n87654321\n");
    if machine.path(&in_store("records/alice")).exists() {
        totp(machine, &["remove", "--user", "alice"]);
    }
    totp(machine, &["import", "--to", "system", "--user", "alice", "--keep"]);
    "12345678".to_owned()
}

/// All runners are at their prompts when the first is answered. Returns how many got in.
fn race(machine: &Machine, prepare: Prepare) -> (usize, HashMap<String, usize>) {
    let code = prepare(machine);
    let login = machine.login("test", "alice").answer(code).with(&["--parallel", &RUNNERS.to_string()]).run();
    assert_eq!(login.results.len(), RUNNERS);
    assert_eq!(login.count(SUCCESS) + login.count(AUTH_ERR), RUNNERS, "{:?}", login.results);
    (login.count(SUCCESS), reasons(&login.log))
}

fn one_wins_every_round(lost: &str, prepare: Prepare) {
    let machine = on_ext4(&dist("pam_totp.so"), WITHOUT_LIMITS);
    for round in 0..rounds() {
        let (won, reasons) = race(&machine, prepare);
        // All others were judged in their turn, and lost by the rule and not by an error.
        assert_eq!((won, reasons.get(lost)), (1, Some(&(RUNNERS - 1))), "round {round}: {reasons:?}");
    }
}

#[test]
fn one_of_fifty_gets_in_with_a_time_based_code() {
    one_wins_every_round("used-code", time_based);
}

#[test]
fn one_of_fifty_gets_in_with_a_counter_based_code() {
    one_wins_every_round("wrong-code", counter_based);
}

#[test]
fn one_of_fifty_gets_in_with_a_recovery_code() {
    one_wins_every_round("wrong-code", recovery_code);
}

#[test]
fn one_of_fifty_gets_in_with_a_scratch_code_of_another_program() {
    one_wins_every_round("wrong-code", scratch_code);
}

/// The same race against a build of ours without the lock: if this one found nothing, the others would prove nothing.
#[test]
fn without_the_lock_a_code_gets_more_than_one_in() {
    let control = project().join("target/test/pam_totp-without-lock.so");
    assert!(control.exists(), "{} is missing: `make test` builds it", control.display());
    let machine = on_ext4(&control, WITHOUT_LIMITS);
    let kinds: [(&str, Prepare); 4] = [
        ("time", time_based),
        ("counter", counter_based),
        ("recovery code", recovery_code),
        ("scratch code", scratch_code),
    ];
    for (kind, prepare) in kinds {
        let doubles = (0..rounds()).find(|_| race(&machine, prepare).0 > 1);
        assert!(doubles.is_some(), "{kind}: {} rounds without a lock, and never two winners", rounds());
    }
}

#[test]
fn of_all_guesses_at_once_ten_are_judged() {
    let machine = on_ext4(&dist("pam_totp.so"), "");
    let guesses = support::rounds(200, 1000);
    for (user, right, rhost) in [(ALICE, 0, "192.0.2.1"), (BOB, 42, "192.0.2.2"), (CAROL, guesses - 1, "192.0.2.3")] {
        let secret = enrol(&machine, user, &[]).secret;
        let (wrong, code) = (wrong_code(&secret), code_now(&secret));
        let begin = || machine.login("test", user.name).with(&["--rhost", rhost, "--parallel", &guesses.to_string()]);
        let login =
            (0..guesses).fold(begin(), |login, guess| login.answer(if guess == right { &code } else { &wrong })).run();
        let more = begin().answer(&wrong).run();
        let count = |login: &LoggedIn, reason: &str| reasons(&login.log).get(reason).copied().unwrap_or(0);
        let judged = count(&login, "wrong-code");
        assert_eq!(judged + count(&login, "throttled") + login.count(SUCCESS), guesses, "{:?}", reasons(&login.log));
        // A right one that is judged costs nothing, and makes the source a known one: that has a budget of its own.
        let budget = if login.count(SUCCESS) == 1 { 10..=20 } else { 10..=10 };
        let total = judged + count(&more, "wrong-code");
        assert!(budget.contains(&total), "{judged} and then {total}");
    }
}

/// So many logins of alice's, under way.
fn begin(machine: &Machine, count: usize, answers: &[String]) -> Child {
    let mut command = machine.command(machine.client());
    command.args(["test", "alice", "--parallel", &count.to_string()]);
    command.args(answers.iter().flat_map(|answer| ["--answer", answer]));
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// How they ended: so many got in, and everybody else was denied.
fn winners(logins: Child, count: usize) -> usize {
    let output = String::from_utf8(logins.wait_with_output().unwrap().stdout).unwrap();
    let ended = |code: i32| output.lines().filter(|line| *line == format!("result {code}")).count();
    assert_eq!(ended(SUCCESS) + ended(AUTH_ERR), count, "{output}");
    ended(SUCCESS)
}

fn import_counter(machine: &Machine, secret: &str) {
    let uri = format!("otpauth://hotp/alice?secret={secret}&counter=1\n");
    machine.write("/etc/uris", uri);
    totp(machine, &["import", "/etc/uris"]);
}

/// Secrets that differ in their first letter.
fn secrets(count: usize) -> Vec<String> {
    "ABCDEFGHIJKL".chars().take(count).map(|first| format!("{first}{}", &SECRET[1..])).collect()
}

#[test]
fn of_many_logins_with_codes_of_several_devices_no_change_is_lost() {
    let machine = on_ext4(&dist("pam_totp.so"), WITHOUT_LIMITS);
    let secrets = secrets(7);
    for round in 0..10 {
        let first = enrol(&machine, ALICE, &["--counter-based"]);
        secrets.iter().for_each(|secret| import_counter(&machine, secret));
        let mut codes: Vec<String> = secrets.iter().chain([&first.secret]).map(|secret| hotp(secret, 1)).collect();
        codes.extend(first.recovery.iter().take(1).cloned());
        let won = winners(begin(&machine, AT_ONCE, &codes), AT_ONCE);
        assert_eq!(won, codes.len(), "round {round}: each code gets one of ten in");
        let listed = json(&totp(&machine, &["status", "--user", "alice", "--json"]));
        let counters: Vec<_> = listed["devices"].as_array().unwrap().iter().map(|device| &device["counter"]).collect();
        assert_eq!((counters, &listed["recovery_codes"]), (vec![&2.into(); 8], &4.into()), "round {round}");
        totp(&machine, &["throttle", "unlock", "--user", "alice"]);
        for code in &codes {
            assert_eq!(log_in(&machine, "test", "alice", code), Some(AUTH_ERR), "round {round}: {code} again");
        }
    }
}

#[test]
fn whoever_logs_in_while_devices_come_and_go_has_a_device_that_is_there() {
    let machine = on_ext4(&dist("pam_totp.so"), WITHOUT_LIMITS);
    let stick = secrets(1).pop().unwrap();
    let alice = ["--user", "alice", "--json"];
    for round in 0..6 {
        let phone = enrol(&machine, ALICE, &["--counter-based"]);
        import_counter(&machine, &stick);
        let _ = machine.log();
        let logins = begin(&machine, AT_ONCE, &[hotp(&stick, 1), hotp(&phone.secret, 1)]);
        let change = |arguments: &[&str]| totp(&machine, &[arguments, &alice].concat());
        change(&["device", "add", "tablet", "--no-confirm"]);
        change(&["device", "remove", "phone"]);
        // Gone is gone, whoever is still under way.
        let late = begin(&machine, 9, &[hotp(&phone.secret, 2)]);
        change(&["recovery", "new", "--count", "4"]);
        change(&["device", "rename", "imported", "stick"]);
        assert_eq!(winners(late, 9), 0, "round {round}: in with a device that had been removed");
        let won = winners(logins, AT_ONCE);
        let log = machine.log();
        let of = |device: &str| log.iter().filter(|line| line.contains(&format!(" device={device}"))).count();
        let (by_stick, by_phone) = (of("stick") + of("imported"), of("phone"));
        assert!((by_stick, by_stick + by_phone) == (1, won) && by_phone <= 1, "round {round}: {won} {log:#?}");
        let reasons = reasons(&log);
        assert_eq!(reasons.get("wrong-code"), Some(&(AT_ONCE + 9 - won)), "round {round}: {reasons:?}");
        totp(&machine, &["throttle", "unlock", "--user", "alice"]);
        let status = json(&change(&["status"]));
        let names: Vec<_> = status["devices"].as_array().unwrap().iter().map(|device| &device["name"]).collect();
        assert_eq!((names, &status["recovery_codes"]), (vec![&"stick".into(), &"tablet".into()], &4.into()));
        for code in [&hotp(&stick, 1), &hotp(&phone.secret, 1), &hotp(&phone.secret, 2), &phone.recovery[0]] {
            assert_eq!(log_in(&machine, "test", "alice", code), Some(AUTH_ERR), "round {round}");
        }
        assert_eq!(log_in(&machine, "test", "alice", &hotp(&stick, 2)), Some(SUCCESS), "round {round}");
        let left: String = [RECORD, SIBLING].map(|path| machine.read(path)).concat();
        assert!(!left.contains(&phone.secret), "round {round}: the secret of a removed device is still there");
    }
}

// ---- Nobody holds anybody up ----

/// A login of alice's under strace, with the kernel told what to do at which call.
fn under_strace(machine: &Machine, trace: &Path, what: &[&str], arguments: &[&str]) -> Child {
    need("strace", "strace");
    let _ = fs::remove_file(trace);
    let mut command = machine.command("strace");
    command.args(["-f", "-qq", "-y", "-o"]).arg(trace).args(what).arg(machine.client()).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The same, with a fault. Says whether the call was reached.
fn with_fault(machine: &Machine, service: &str, code: &str, calls: &str, fault: &str, when: usize) -> (Output, bool) {
    let trace = machine.shared().join("trace");
    let what = [format!("--trace={calls}"), format!("--inject={calls}:{fault}:when={when}")];
    let login =
        under_strace(machine, &trace, &what.each_ref().map(String::as_str), &[service, "alice", "--answer", code]);
    let output = login.wait_with_output().unwrap();
    let trace = fs::read_to_string(&trace).unwrap();
    (output, trace.contains("(INJECTED)") || trace.contains("+++ killed by"))
}

/// The calls of a login: each one's line, and its number among those of its name. From the module's own start on.
fn calls(machine: &Machine, service: &str, code: &str) -> Vec<(String, usize, String)> {
    let trace = machine.shared().join("trace");
    let login = under_strace(machine, &trace, &["-s", "200"], &[service, "alice", "--answer", code]);
    login.wait_with_output().unwrap();
    let mut numbers = HashMap::new();
    let mut calls = Vec::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let Some((name, _)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('(')) else {
            continue;
        };
        let number = numbers.entry(name.to_owned()).or_insert(0);
        *number += 1;
        calls.push((name.to_owned(), *number, line.to_owned()));
    }
    let start = calls.iter().position(|(_, _, line)| line.contains(POLICY)).expect("the policy is read");
    calls.split_off(start)
}

#[test]
fn a_wrong_guess_that_is_stopped_after_any_of_its_calls_holds_up_no_login() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    let wrong = "000000";
    let mut codes = 1..;
    let mut owner = |what: &str| {
        let start = Instant::now();
        let code = hotp(SECRET, codes.next().unwrap());
        assert_eq!(log_in(&machine, "test", "alice", &code), Some(SUCCESS), "{what}");
        assert!(start.elapsed() < PROMPTLY, "{what}: {:?}", start.elapsed());
    };
    owner("nobody else is there");
    let calls = calls(&machine, "test", wrong);
    assert!(!calls.iter().any(|(name, _, line)| name == "fcntl" && line.contains("SETLK")), "a lock: {calls:#?}");
    let asked = calls.iter().position(|(_, _, line)| line.contains("Verification code")).unwrap();
    let stops: Vec<_> = calls[asked..].iter().take_while(|(_, _, line)| !line.contains("/dev/log")).collect();
    assert!(stops.len() > 15, "{stops:#?}");
    let trace = machine.shared().join("trace");
    for (name, number, line) in stops {
        let inject = format!("--inject={name}:signal=STOP:when={number}");
        let guess = under_strace(&machine, &trace, &[&inject], &["test", "alice", "--answer", wrong]);
        let stopped = when_stopped(&trace);
        owner(line);
        output_of(machine.command("kill").args(["-KILL", &stopped]));
        guess.wait_with_output().unwrap();
    }
}

#[test]
fn whoever_is_stopped_with_a_right_code_holds_the_lock_of_that_person_and_of_nobody_else() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    let bob = enrol(&machine, BOB, &["--counter-based"]);
    let calls = calls(&machine, "test", &hotp(SECRET, 1));
    let trace = machine.shared().join("trace");
    let mut of_bob = 1..;
    for stop in ["fdatasync", "renameat2", "fsync"] {
        let (_, number, _) = calls.iter().find(|(name, _, line)| name == stop && line.contains("records")).unwrap();
        put(&machine, &record(&body(1)));
        let inject = format!("--inject={stop}:signal=STOP:when={number}");
        let login = under_strace(&machine, &trace, &[&inject], &["test", "alice", "--answer", &hotp(SECRET, 1)]);
        let stopped = when_stopped(&trace);

        let start = Instant::now();
        let code = hotp(&bob.secret, of_bob.next().unwrap());
        assert_eq!(log_in(&machine, "test", "bob", &code), Some(SUCCESS), "{stop}");
        let wrong = machine.login("test", "alice").answer("000000").run();
        assert_eq!((wrong.result(), wrong.reason().as_str()), (AUTH_ERR, "wrong-code"), "{stop}: needs no lock");
        assert!(start.elapsed() < PROMPTLY, "{stop}: {:?}", start.elapsed());

        let (start, next) = (Instant::now(), hotp(SECRET, 2));
        let locked = machine.login("test", "alice").answer(&next).run();
        assert_eq!((locked.result(), locked.reason().as_str()), (AUTH_ERR, "locked"), "{stop}: {locked:#?}");
        let waited = start.elapsed();
        assert!((Duration::from_secs(4)..Duration::from_secs(20)).contains(&waited), "{stop}: {waited:?}");

        output_of(machine.command("kill").args(["-CONT", &stopped]));
        assert_eq!(result(&login.wait_with_output().unwrap()), Some(SUCCESS), "{stop}");
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(AUTH_ERR), "{stop}: twice");
        assert_eq!(log_in(&machine, "test", "alice", &next), Some(SUCCESS), "{stop}: what was not judged still works");
    }
}

// ---- The operating system says no ----

/// Every call that a login makes, and what can be wrong with it.
const FAULTS: [(&str, &str); 22] = [
    ("openat", "error=EIO"),
    ("openat", "error=ENOENT"),
    ("newfstatat,statx", "error=EIO"),
    ("newfstatat,statx", "error=ENOENT"),
    ("fstat", "error=EIO"),
    ("fcntl", "error=ENOLCK"),
    ("fcntl", "error=EINVAL"),
    ("read", "error=EIO"),
    ("read", "retval=0"),
    ("pread64", "error=EIO"),
    ("getrandom", "error=ENOSYS"),
    ("write", "error=ENOSPC"),
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "retval=0"),
    ("fdatasync", "error=EIO"),
    ("fsync", "error=EIO"),
    ("renameat,renameat2,rename", "error=EROFS"),
    ("unlinkat", "error=EIO"),
    ("fchown,fchownat", "error=EPERM"),
    ("fchmod", "error=EPERM"),
    ("mmap", "error=ENOMEM"),
    ("madvise", "error=EINVAL"),
];

/// From where on calls of these names are the module's. Before, it is the system's libraries that they are made by.
struct Starts(HashMap<String, usize>);

impl Starts {
    fn new(machine: &Machine, service: &str) -> Self {
        let mut starts = HashMap::new();
        for (name, number, _) in calls(machine, service, "000000") {
            starts.entry(name).or_insert(number);
        }
        Self(starts)
    }

    fn of(&self, calls: &str) -> usize {
        calls.split(',').filter_map(|name| self.0.get(name)).min().copied().unwrap_or(1)
    }
}

/// With a sibling, as always, and without one, as after a restored backup.
fn put_first(machine: &Machine, text: &[u8], has_sibling: bool) {
    put(machine, text);
    if !has_sibling {
        clear(machine, SIBLING);
    }
}

/// Whether these calls make or change files, so that it matters whether the sibling is there.
fn sibling_or_not(calls: &str) -> &'static [bool] {
    let all = "openat pwrite64 fdatasync fsync renameat2 unlinkat fchown fchmod";
    if all.split(' ').any(|name| calls.contains(name)) { &[true, false] } else { &[true] }
}

/// Nothing but a record and its sibling.
fn names(machine: &Machine) -> Vec<String> {
    let entries = fs::read_dir(machine.path(RECORDS)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn whatever_call_fails_nobody_gets_in_on_a_code_that_is_not_used_up() {
    let machine = machine();
    let text = record(&body(1));
    put(&machine, &text);
    let starts = Starts::new(&machine, "test");
    let codes = [1, 2].map(|counter| hotp(SECRET, counter));
    let (mut denied, mut accepted) = (0, 0);
    for (calls, fault) in FAULTS {
        for &has_sibling in sibling_or_not(calls) {
            for when in starts.of(calls).. {
                put_first(&machine, &text, has_sibling);
                let what = format!("{calls} {fault} {when}, {has_sibling}");
                let (output, reached) = with_fault(&machine, "test", &codes[0], calls, fault, when);
                if !reached {
                    break;
                }
                match result(&output) {
                    Some(SUCCESS) => {
                        accepted += 1;
                        let again = log_in(&machine, "test", "alice", &codes[0]);
                        assert_eq!(again, Some(AUTH_ERR), "{what}: let in on a code that still works");
                    }
                    Some(IGNORE) => panic!("{what}: {output:?}"),
                    // Where it is libpam's own call the application is told otherwise, or ends.
                    Some(_) | None => denied += 1,
                }
                let next = log_in(&machine, "test", "alice", &codes[1]);
                assert_eq!(next, Some(SUCCESS), "{what}: the next login is broken");
                assert_eq!(names(&machine), ["alice", "alice~"], "{what}: something was left");
            }
        }
    }
    assert!(denied > 80 && accepted > 10, "only {denied} faults were felt, and {accepted} were not");
}

#[test]
fn with_nullok_no_fault_makes_an_enrolled_person_look_like_one_who_is_not() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    let starts = Starts::new(&machine, "optional");
    assert_eq!(log_in(&machine, "optional", "bob", "000000"), Some(SUCCESS), "who never enrolled is let pass");
    // The second time with the mark alone, without a record.
    for has_record in [true, false] {
        if !has_record {
            totp(&machine, &["remove", "--user", "alice"]);
        }
        for (calls, fault) in FAULTS {
            // A kernel that lies about the last trace of somebody cannot be told from the truth.
            if !has_record && fault == "error=ENOENT" {
                continue;
            }
            for when in starts.of(calls).. {
                let (output, reached) = with_fault(&machine, "optional", "000000", calls, fault, when);
                if !reached {
                    break;
                }
                assert_ne!(result(&output), Some(SUCCESS), "{calls} {fault} {when} {has_record}: {output:?}");
            }
        }
    }
}

#[test]
fn killed_at_any_call_a_login_uses_a_code_once_or_not_at_all() {
    let machine = machine();
    let text = record(&body(1));
    put(&machine, &text);
    let starts = Starts::new(&machine, "test");
    let codes = [1, 2].map(|counter| hotp(SECRET, counter));
    let (mut before, mut after) = (0, 0);
    let all = "openat fcntl read getrandom pwrite64 fdatasync fsync renameat2 unlinkat fchown fchmod close sendto";
    for call in all.split(' ') {
        for &has_sibling in sibling_or_not(call) {
            for when in starts.of(call).. {
                put_first(&machine, &text, has_sibling);
                let (output, reached) = with_fault(&machine, "test", &codes[0], call, "signal=KILL", when);
                if !reached {
                    break;
                }
                let what = format!("{call} {when}, {has_sibling}");
                assert!([1, 2].contains(&counter(&machine)), "{what}");
                let is_used = counter(&machine) == 2;
                *(if is_used { &mut after } else { &mut before }) += 1;
                if result(&output) == Some(SUCCESS) {
                    assert!(is_used, "{what}: let in on a code that still works");
                }
                let again = log_in(&machine, "test", "alice", &codes[0]);
                assert_eq!(again, Some(if is_used { AUTH_ERR } else { SUCCESS }), "{what}: the same code again");
                assert_eq!(log_in(&machine, "test", "alice", &codes[1]), Some(SUCCESS), "{what}: the next code");
                assert_eq!(names(&machine), ["alice", "alice~"], "{what}: something was left");
            }
        }
    }
    assert!(before > 20 && after > 3, "killed {before} times before the commit and {after} times after it");
}

#[test]
fn killed_at_any_call_an_enrolment_leaves_nothing_that_stays() {
    let machine = machine();
    let (trace, program) = (machine.shared().join("trace"), machine.program());
    let mut left = 0;
    for call in ["linkat", "unlinkat", "pwrite64", "fdatasync", "fsync", "fchmod"] {
        for when in 1.. {
            totp(&machine, &["reset", "--user", "alice"]);
            assert!(names(&machine).is_empty(), "{call} {when}: {:?}", names(&machine));
            let mut command = machine.command("strace");
            command.args(["-f", "-qq", &format!("--inject={call}:signal=KILL:when={when}"), "-o"]).arg(&trace);
            command.arg(&program).args(["enrol", "--user", "alice", "--no-confirm", "--counter-based", "--json"]);
            let output = command.output().unwrap();
            if output.status.success() {
                break;
            }
            let end = fs::read_to_string(&trace).unwrap();
            assert!(end.contains("+++ killed by"), "{call} {when}: {output:?}");
            if output.stdout.is_empty() {
                assert!(names(&machine).is_empty(), "{call} {when}: stored, and never shown");
                continue;
            }
            left += usize::from(names(&machine).contains(&"alice~new".to_owned()));
            // Whoever got in, or did not, with what was stored: removing the device removes each trace of its secret.
            let secret = json(&String::from_utf8(output.stdout).unwrap())["secret"].as_str().unwrap().to_owned();
            let is_stored = machine.path(RECORD).exists();
            for counter in [1, 2, 3] {
                let result = log_in(&machine, "test", "alice", &hotp(&secret, counter));
                assert_eq!(result, Some(if is_stored { SUCCESS } else { AUTH_ERR }), "{call} {when}");
            }
            let anew = enrol(&machine, ALICE, &["--counter-based"]);
            assert_eq!(log_in(&machine, "test", "alice", &hotp(&secret, 4)), Some(AUTH_ERR), "{call} {when}");
            assert_eq!(log_in(&machine, "test", "alice", &hotp(&anew.secret, 1)), Some(SUCCESS), "{call} {when}");
            assert_eq!(names(&machine), ["alice", "alice~"], "{call} {when}");
        }
    }
    assert!(left > 2, "no enrolment was killed at the right moment");
}

/// Runs a login of alice's under a limit of prlimit(1).
fn with_limit(machine: &Machine, limit: &str, code: &str) -> Option<i32> {
    need("prlimit", "util-linux");
    let mut command = machine.command("prlimit");
    command.arg(limit).arg("--").arg(machine.client()).args(["test", "alice", "--answer", code]);
    result(&command.output().unwrap())
}

#[test]
fn limits_on_files_memory_and_descriptors_let_nobody_in_on_a_code_that_is_not_used_up() {
    let machine = machine();
    let text = record(&body(1));
    let sizes = ["0", "1", "511", "4094", "4095", "4096", "8192"].map(|size| format!("--fsize={size}:unlimited"));
    let memory = (4..=80).step_by(2).map(|quarter_megabytes: u32| format!("--as={}", quarter_megabytes << 18));
    let descriptors = (3..=14).map(|count| format!("--nofile={count}"));
    let (mut accepted, mut denied) = (HashMap::new(), HashMap::new());
    for limit in sizes.into_iter().chain(memory).chain(descriptors) {
        let kind = limit.split('=').next().unwrap().to_owned();
        for has_sibling in [true, false] {
            put_first(&machine, &text, has_sibling);
            match with_limit(&machine, &limit, &hotp(SECRET, 1)) {
                Some(SUCCESS) => {
                    assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(AUTH_ERR), "{limit}");
                    *accepted.entry(kind.clone()).or_insert(0) += 1;
                }
                Some(IGNORE | PERM_DENIED) => panic!("{limit}"),
                Some(_) | None => *denied.entry(kind.clone()).or_insert(0) += 1,
            }
            assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 2)), Some(SUCCESS), "{limit}: the next login");
            assert_eq!(names(&machine), ["alice", "alice~"], "{limit}: something was left");
        }
    }
    assert!((accepted.len(), denied.len()) == (3, 3), "the limits miss the mark: {accepted:?} {denied:?}");
}

#[test]
fn the_new_record_is_on_disk_before_it_has_its_name_and_the_name_before_the_verdict() {
    let machine = machine();
    let mut settled = record(&body(1));
    settled[SIZE - 1] = b'#';
    for (text, is_settled) in [(&settled, true), (&record(&body(1)), false)] {
        put(&machine, text);
        let calls = calls(&machine, "test", &hotp(SECRET, 1));
        let of = |call: &str, file: &str| {
            let is_it = |(name, _, line): &&(String, usize, String)| name == call && line.contains(file);
            calls.iter().filter(is_it).map(|(_, number, _)| *number).collect::<Vec<_>>()
        };
        let order: Vec<&str> = calls.iter().filter_map(|(name, _, line)| step(name, line)).collect();
        // Of a record that is not settled the name may not be on disk yet, and its sibling may be what has it there.
        let expected: Vec<&str> =
            ["look", "lock", "look", "sync names", "write", "sync", "exchange", "sync names", "settle"]
                .into_iter()
                .enumerate()
                .filter(|(place, _)| !is_settled || *place != 3)
                .map(|(_, step)| step)
                .chain(["unlock", "verdict"])
                .collect();
        assert_eq!(order, expected, "{calls:#?}");
        assert!(of("read", "alice~>").is_empty() && of("pread64", "alice~>").is_empty(), "the sibling is read");
    }
}

/// What a call is about, among those that have an order.
fn step(name: &str, line: &str) -> Option<&'static str> {
    Some(match name {
        "openat" if line.contains("/records>, \"alice\"") => "look",
        "fcntl" if line.contains("F_WRLCK") && line.contains("/locks>") => "lock",
        "fcntl" if line.contains("F_UNLCK") && line.contains("/locks>") => "unlock",
        "pwrite64" if line.contains("records/alice~>") => "write",
        "fdatasync" if line.contains("records/alice~>") => "sync",
        "renameat2" if line.contains("RENAME_EXCHANGE") => "exchange",
        "fsync" if line.contains("/records>") => "sync names",
        "pwrite64" if line.contains("records/alice>") => "settle",
        "sendto" | "write" | "sendmsg" if line.contains("accepted user=alice") => "verdict",
        _ => return None,
    })
}

// ---- What may lie where a record should ----

/// Alice with a right code, and alice where people without a device are let pass: both are denied, and promptly.
fn is_denied(machine: &Machine, what: &str, code: &str, (result, reason): (i32, &str)) {
    for (service, answer) in [("test", code), ("optional", code), ("optional", "000000")] {
        let start = Instant::now();
        let login = machine.login(service, "alice").answer(answer).run();
        assert!(start.elapsed() < PROMPTLY, "{what}: {:?}", start.elapsed());
        assert_eq!((login.result(), login.reason().as_str()), (result, reason), "{what} {service}: {login:#?}");
        assert!(login.prompts.iter().all(|prompt| prompt == "1 \"Verification code: \""), "{what} {service}");
        assert!(!login.output.contains(SECRET) && !login.log.concat().contains(SECRET), "{what}: {login:#?}");
    }
}

/// A change to the files, and its name.
type Damage = (&'static str, fn(&Machine));

fn truncate(machine: &Machine, size: u64) {
    fs::File::options().write(true).open(machine.path(RECORD)).unwrap().set_len(size).unwrap();
}

fn set_mode(machine: &Machine, path: &str, mode: u32) {
    fs::set_permissions(machine.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

fn set_owner(machine: &Machine, path: &str, uid: u32) {
    chown(machine.path(path), Some(uid), Some(uid)).unwrap();
}

fn make_fifo(machine: &Machine, path: &str) {
    output_of(machine.command("mkfifo").args(["-m", "600", path]));
}

/// Moves something away, so that what has its name now can be told from it.
fn move_away(machine: &Machine, path: &str) {
    fs::rename(machine.path(path), machine.path(&format!("{path}.away"))).unwrap();
}

/// A record of alice's that was changed in one place, with a right checksum.
fn edited(machine: &Machine, from: &str, to: &str) {
    let body = body(1);
    assert!(body.contains(from), "{from}");
    put(machine, &record(&body.replacen(from, to, 1)));
}

const BAD_RECORDS: [(Damage, &str); 27] = [
    (("empty", |machine| truncate(machine, 0)), "bad-record"),
    (("one byte", |machine| truncate(machine, 1)), "bad-record"),
    (("the first line alone", |machine| truncate(machine, 108)), "bad-record"),
    (("half of it", |machine| truncate(machine, 2048)), "bad-record"),
    (("all but a byte", |machine| truncate(machine, 4095)), "bad-record"),
    (("a byte more", |machine| truncate(machine, 4097)), "bad-record"),
    (("a terabyte", |machine| truncate(machine, 1 << 40)), "bad-record"),
    (("only NUL", |machine| machine.write(RECORD, [0; SIZE])), "bad-record"),
    (("only line feeds", |machine| machine.write(RECORD, [b'\n'; SIZE])), "bad-record"),
    (("only 0xff", |machine| machine.write(RECORD, [0xff; SIZE])), "bad-record"),
    (
        ("a NUL in it", |machine| {
            let mut text = record(&body(1));
            text[200] = 0;
            machine.write(RECORD, text);
        }),
        "bad-record",
    ),
    (
        ("a NUL in it, with a right checksum", |machine| edited(machine, "name = \"stick\"", "name = \"sti\0ck\"")),
        "bad-record",
    ),
    (("a record of nobody's", |machine| put(machine, &record(""))), "bad-record"),
    (("a newer version", |machine| edited(machine, "version = 1", "version = 2\nnews = true")), "bad-record"),
    (("no version", |machine| edited(machine, "version = 1\n", "")), "bad-record"),
    (("a key that is not known", |machine| edited(machine, "uid = ", "open = true\nuid = ")), "bad-record"),
    (("a counter below zero", |machine| edited(machine, "counter = 1", "counter = -1")), "bad-record"),
    (("a look-ahead without end", |machine| edited(machine, "look_ahead = 3", "look_ahead = 1000000")), "bad-record"),
    (
        ("a device twice", |machine| {
            put(machine, &record(&(body(1) + &counter_device("stick", &secrets(1)[0], 1))));
        }),
        "bad-record",
    ),
    (
        ("a secret twice", |machine| put(machine, &record(&(body(1) + &counter_device("phone", SECRET, 9))))),
        "bad-record",
    ),
    (("of another uid", |machine| edited(machine, "uid = 20001", "uid = 20002")), "record-of-another"),
    (("of another name", |machine| edited(machine, "\"alice\"", "\"bob\"")), "record-of-another"),
    (
        ("a FIFO", |machine| {
            clear(machine, RECORD);
            make_fifo(machine, RECORD);
        }),
        "not-a-file",
    ),
    (
        ("a link to a good one", |machine| {
            move_away(machine, RECORD);
            symlink(format!("{RECORD}.away"), machine.path(RECORD)).unwrap();
        }),
        "file-error",
    ),
    (("somebody else's", |machine| set_owner(machine, RECORD, ALICE.uid)), "wrong-owner"),
    (("others may write", |machine| set_mode(machine, RECORD, 0o602)), "wrong-mode"),
    (("gone", |machine| clear(machine, RECORD)), "record-gone"),
];

#[test]
fn what_is_no_record_denies_promptly_and_enrolling_anew_is_the_way_out() {
    let machine = machine();
    let good = record(&body(1));
    for ((what, damage), reason) in BAD_RECORDS {
        put(&machine, &good);
        damage(&machine);
        is_denied(&machine, what, &hotp(SECRET, 1), (AUTH_ERR, reason));
        let anew = enrol(&machine, ALICE, &["--counter-based"]);
        clear(&machine, &format!("{RECORD}.away"));
        for counter in [1, 2] {
            let code = hotp(&anew.secret, counter);
            assert_eq!(log_in(&machine, "test", "alice", &code), Some(SUCCESS), "{what}: enrolled anew");
            assert_eq!(log_in(&machine, "test", "alice", &code), Some(AUTH_ERR), "{what}: enrolled anew, twice");
        }
        assert_eq!(log_in(&machine, "optional", "alice", &hotp(SECRET, 1)), Some(AUTH_ERR), "{what}: the old device");
        assert_eq!(names(&machine), ["alice", "alice~"], "{what}");
    }
}

#[test]
fn a_record_that_was_cut_off_anywhere_denies() {
    let machine = machine();
    let good = record(&body(1));
    for size in (0..SIZE).step_by(157) {
        put(&machine, &good[..size]);
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(AUTH_ERR), "{size}");
        assert_eq!(log_in(&machine, "optional", "alice", "000000"), Some(AUTH_ERR), "{size}");
    }
    assert_eq!(reasons(&machine.log()).into_keys().collect::<Vec<_>>(), ["bad-record"]);
}

#[test]
fn a_directory_where_the_record_should_be_denies_until_it_is_removed() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    clear(&machine, RECORD);
    machine.make_directory(RECORD, 0o700, 0);
    is_denied(&machine, "a directory", &hotp(SECRET, 1), (AUTH_ERR, "file-error"));
    clear(&machine, RECORD);
    is_denied(&machine, "gone", &hotp(SECRET, 1), (AUTH_ERR, "record-gone"));
    machine.write_as(RECORD, record(&body(1)), 0, 0o600);
    assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(SUCCESS));
}

#[test]
fn a_record_that_has_another_name_too_is_one_and_the_copy_is_left_alone() {
    let machine = machine();
    let good = record(&body(1));
    put(&machine, &good);
    let copy = format!("{STATE}/copy");
    fs::hard_link(machine.path(RECORD), machine.path(&copy)).unwrap();
    for counter in 1..5 {
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, counter)), Some(SUCCESS), "{counter}");
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, counter)), Some(AUTH_ERR), "{counter}");
    }
    assert!(machine.read(&copy).as_bytes() == good, "a copy of somebody's is written over");
}

#[test]
fn a_name_that_belongs_to_somebody_else_now_begins_anew_once_root_says_so() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    let users = machine.read("/etc/passwd");
    // userdel and useradd, which need more of a machine.
    machine.write("/etc/passwd", users.replace("alice:x:20001:20001", "alice:x:20011:20011"));
    is_denied(&machine, "another uid", &hotp(SECRET, 1), (AUTH_ERR, "record-of-another"));
    for command in [&["device", "list"][..], &["recovery", "new"], &["device", "remove", "stick", "--force"]] {
        let output = run(&machine, &[command, &["--user", "alice"]].concat());
        assert!(!output.status.success(), "{command:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("record-of-another"), "{output:?}");
    }
    totp(&machine, &["reset", "--user", "alice"]);
    assert_eq!(log_in(&machine, "optional", "alice", "000000"), Some(SUCCESS), "as if never enrolled");
    let anew = enrol(&machine, ALICE, &["--counter-based"]);
    assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(AUTH_ERR), "the first alice's device");
    assert_eq!(log_in(&machine, "test", "alice", &hotp(&anew.secret, 1)), Some(SUCCESS));
    // The first alice comes back, and has had a device.
    machine.write("/etc/passwd", &users);
    is_denied(&machine, "the first uid", &hotp(&anew.secret, 2), (AUTH_ERR, "record-of-another"));
    totp(&machine, &["remove", "--user", "alice"]);
    is_denied(&machine, "the first uid, without a record", &hotp(&anew.secret, 2), (AUTH_ERR, "record-gone"));
}

#[test]
fn a_copy_of_somebody_elses_record_lets_its_owner_in_nowhere_else() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    let bob = enrol(&machine, BOB, &["--counter-based"]);
    fs::copy(machine.path(&format!("{RECORDS}/bob")), machine.path(RECORD)).unwrap();
    is_denied(&machine, "bob's", &hotp(&bob.secret, 1), (AUTH_ERR, "record-of-another"));
    assert_eq!(log_in(&machine, "test", "bob", &hotp(&bob.secret, 1)), Some(SUCCESS));
}

/// What the sibling may be. It holds the device of an older record, or the counter of a newer one.
const SIBLINGS: [Damage; 14] = [
    ("missing", |machine| clear(machine, SIBLING)),
    ("empty", |machine| machine.write(SIBLING, "")),
    ("short", |machine| machine.write(SIBLING, &record(&body(1))[..1000])),
    ("long", |machine| machine.write(SIBLING, [record(&body(1)), vec![b'x'; 5000]].concat())),
    ("an older record", |machine| machine.write(SIBLING, record(&body(1)))),
    ("a newer record", |machine| machine.write(SIBLING, record(&body(1).replace("= 7", "= 700")))),
    ("a settled record", |machine| {
        let mut text = record(&body(1));
        text[SIZE - 1] = b'#';
        machine.write(SIBLING, text);
    }),
    ("a link", |machine| {
        clear(machine, SIBLING);
        machine.write_as(VICTIM, [b'v'; SIZE], 0, 0o600);
        symlink(VICTIM, machine.path(SIBLING)).unwrap();
    }),
    ("a link to the record", |machine| {
        clear(machine, SIBLING);
        symlink("alice", machine.path(SIBLING)).unwrap();
    }),
    ("a FIFO", |machine| {
        clear(machine, SIBLING);
        make_fifo(machine, SIBLING);
    }),
    ("the record itself", |machine| {
        clear(machine, SIBLING);
        fs::hard_link(machine.path(RECORD), machine.path(SIBLING)).unwrap();
    }),
    ("a file with another name", |machine| {
        clear(machine, SIBLING);
        machine.write_as(VICTIM, [b'v'; SIZE], 0, 0o600);
        fs::hard_link(machine.path(VICTIM), machine.path(SIBLING)).unwrap();
    }),
    ("somebody else's", |machine| set_owner(machine, SIBLING, ALICE.uid)),
    ("others may write", |machine| set_mode(machine, SIBLING, 0o666)),
];

/// What nobody is to write to.
const VICTIM: &str = "/var/lib/pam_totp/victim";

#[test]
fn whatever_the_sibling_is_logins_go_on_and_nothing_in_it_counts() {
    let machine = machine();
    let phone = &secrets(1)[0];
    for (what, damage) in SIBLINGS {
        // The record: the codes of SECRET before the fifth are spent, and the phone is removed.
        put(&machine, &record(&body(5)));
        machine.write(VICTIM, [b'v'; SIZE]);
        damage(&machine);
        let refused = [hotp(SECRET, 1), hotp(SECRET, 4), hotp(phone, 1)];
        for counter in 5..8 {
            for code in refused.iter().chain([&hotp(SECRET, counter - 1)]) {
                assert_eq!(log_in(&machine, "test", "alice", code), Some(AUTH_ERR), "{what}: spent or removed");
            }
            assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, counter)), Some(SUCCESS), "{what}: {counter}");
        }
        assert_eq!(machine.read(VICTIM), "v".repeat(SIZE), "{what}: another file was written to");
        for path in [RECORD, SIBLING] {
            let stat = machine.path(path).symlink_metadata().unwrap();
            let shape = (stat.is_file(), stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.nlink(), stat.size());
            assert_eq!(shape, (true, 0o600, 0, 0, 1, 4096), "{what}: {path}");
        }
    }
}

/// `device remove` leaves nothing of the device behind, whatever the sibling was.
#[test]
fn whatever_the_sibling_is_a_removed_device_is_gone_from_both() {
    let machine = machine();
    let phone = &secrets(1)[0];
    let both = record(&(body(5) + &counter_device("phone", phone, 1)));
    for (what, damage) in SIBLINGS {
        put(&machine, &both);
        damage(&machine);
        totp(&machine, &["device", "remove", "phone", "--user", "alice"]);
        for path in [RECORD, SIBLING] {
            assert!(!machine.read(path).contains(phone.as_str()), "{what}: {path}");
        }
        assert_eq!(log_in(&machine, "test", "alice", &hotp(phone, 1)), Some(AUTH_ERR), "{what}");
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 5)), Some(SUCCESS), "{what}");
    }
}

/// Records that are gone as a whole, by hook or by crook.
#[test]
fn a_sibling_is_never_taken_for_a_record_that_is_not_there() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    clear(&machine, RECORD);
    machine.write(SIBLING, record(&body(1)));
    is_denied(&machine, "the sibling alone", &hotp(SECRET, 1), (AUTH_ERR, "record-gone"));
    for user in ["alice~", "alice%7E", "alice~new"] {
        assert_ne!(log_in(&machine, "test", user, &hotp(SECRET, 1)), Some(SUCCESS), "{user}");
    }
}

#[test]
fn a_directory_as_the_sibling_denies_until_it_is_removed() {
    let machine = machine();
    put(&machine, &record(&body(1)));
    clear(&machine, SIBLING);
    machine.make_directory(SIBLING, 0o700, 0);
    for _ in 0..2 {
        let login = machine.login("test", "alice").answer(hotp(SECRET, 1)).run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "file-error"), "{login:#?}");
    }
    clear(&machine, SIBLING);
    assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(SUCCESS));
}

// ---- What may have become of the store ----

fn in_store(name: &str) -> String {
    format!("{STATE}/{name}")
}

const UNAVAILABLE: (i32, &str) = (AUTHINFO_UNAVAIL, "no-store");

const BAD_STORES: [(Damage, (i32, &str)); 19] = [
    (("no store.id", |machine| clear(machine, &in_store("store.id"))), UNAVAILABLE),
    (("an empty store.id", |machine| machine.write(&in_store("store.id"), "")), UNAVAILABLE),
    (("somebody else's store.id", |machine| set_owner(machine, &in_store("store.id"), ALICE.uid)), UNAVAILABLE),
    (
        ("a link as store.id", |machine| {
            move_away(machine, &in_store("store.id"));
            symlink(in_store("store.id.away"), machine.path(&in_store("store.id"))).unwrap();
        }),
        UNAVAILABLE,
    ),
    (
        ("a directory as store.id", |machine| {
            clear(machine, &in_store("store.id"));
            machine.make_directory(&in_store("store.id"), 0o700, 0);
        }),
        UNAVAILABLE,
    ),
    (("no records/", |machine| clear(machine, RECORDS)), UNAVAILABLE),
    (("no enrolled/", |machine| clear(machine, &in_store("enrolled"))), UNAVAILABLE),
    (
        ("empty records/", |machine| {
            clear(machine, RECORDS);
            machine.make_directory(RECORDS, 0o700, 0);
        }),
        (AUTH_ERR, "record-gone"),
    ),
    (
        ("a link as records/", |machine| {
            move_away(machine, RECORDS);
            symlink(in_store("records.away"), machine.path(RECORDS)).unwrap();
        }),
        (AUTH_ERR, "file-error"),
    ),
    (
        ("a file as enrolled/", |machine| {
            clear(machine, &in_store("enrolled"));
            machine.write(&in_store("enrolled"), "");
        }),
        (AUTH_ERR, "file-error"),
    ),
    (("somebody else's records/", |machine| set_owner(machine, RECORDS, ALICE.uid)), (AUTH_ERR, "wrong-owner")),
    (("records/ open to all", |machine| set_mode(machine, RECORDS, 0o777)), (AUTH_ERR, "wrong-mode")),
    (("enrolled/ open to all", |machine| set_mode(machine, &in_store("enrolled"), 0o777)), (AUTH_ERR, "wrong-mode")),
    (("somebody else's state_dir", |machine| set_owner(machine, STATE, ALICE.uid)), (AUTH_ERR, "wrong-owner")),
    (("state_dir open to all", |machine| set_mode(machine, STATE, 0o1777)), (AUTH_ERR, "wrong-mode")),
    (("no state_dir", |machine| clear(machine, STATE)), UNAVAILABLE),
    (
        ("an empty state_dir", |machine| {
            clear(machine, STATE);
            machine.make_directory(STATE, 0o700, 0);
        }),
        UNAVAILABLE,
    ),
    (
        ("a mount that did not come", |machine| {
            output_of(machine.command("mount").args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs", STATE]));
        }),
        UNAVAILABLE,
    ),
    (
        ("a state_dir that leads nowhere", |machine| {
            clear(machine, STATE);
            symlink("/var/lib/nowhere", machine.path(STATE)).unwrap();
        }),
        (AUTH_ERR, "link"),
    ),
];

#[test]
fn what_is_no_store_lets_nobody_in_and_nobody_pass() {
    let machine = machine();
    let shell = |script: &str| output_of(machine.command("sh").args(["-c", script]));
    put(&machine, &record(&body(1)));
    shell("cp -a /var/lib/pam_totp /var/lib/pam_totp.kept");
    for ((what, damage), expected) in BAD_STORES {
        put(&machine, &record(&body(1)));
        damage(&machine);
        is_denied(&machine, what, &hotp(SECRET, 1), expected);
        // Nor does anybody become a store by a login, or pass who never had a device: who knows.
        if expected == UNAVAILABLE {
            let bob = log_in(&machine, "optional", "bob", "000000");
            assert_eq!(bob, Some(AUTHINFO_UNAVAIL), "{what}");
        }
        shell(
            "umount -q /var/lib/pam_totp || rm -rf /var/lib/pam_totp; mkdir -p /var/lib/pam_totp; \
               rm -rf /var/lib/pam_totp/*; cp -a /var/lib/pam_totp.kept/. /var/lib/pam_totp",
        );
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(SUCCESS), "{what}: put back");
    }
}

#[test]
fn without_the_file_of_the_locks_nobody_gets_in() {
    let machine = machine();
    let locks = in_store("locks");
    let damages: [(Damage, &str); 4] = [
        (("missing", |machine| clear(machine, &in_store("locks"))), "no-lock"),
        (("a FIFO", |machine| make_fifo(machine, &in_store("locks"))), "not-a-file"),
        (("a link", |machine| symlink("store.id", machine.path(&in_store("locks"))).unwrap()), "file-error"),
        (
            ("open to all", |machine| {
                machine.write_as(&in_store("locks"), "", 0, 0o600);
                set_mode(machine, &in_store("locks"), 0o666);
            }),
            "wrong-mode",
        ),
    ];
    for ((what, damage), reason) in damages {
        put(&machine, &record(&body(1)));
        clear(&machine, &locks);
        damage(&machine);
        let login = machine.login("test", "alice").answer(hotp(SECRET, 1)).run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, reason), "{what}: {login:#?}");
        assert_eq!(log_in(&machine, "optional", "alice", "000000"), Some(AUTH_ERR), "{what}");
        clear(&machine, &locks);
        totp(&machine, &["setup", "store"]);
        assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(SUCCESS), "{what}: set up again");
    }
}

#[test]
fn a_store_that_cannot_be_written_to_lets_nobody_in() {
    let machine = on_ext4(&dist("pam_totp.so"), WITHOUT_LIMITS);
    put(&machine, &record(&body(1)));
    let remount = |how: &str| output_of(machine.command("mount").args(["-o", how, STATE]));
    remount("remount,bind,ro");
    is_denied(&machine, "read-only", &hotp(SECRET, 1), (AUTH_ERR, "file-error"));
    remount("remount,bind,rw");
    assert_eq!(log_in(&machine, "test", "alice", &hotp(SECRET, 1)), Some(SUCCESS), "what was not judged still works");
}

#[test]
fn odd_names_have_records_of_their_own() {
    let machine = machine();
    let long = "n".repeat(100);
    let people = [
        ("a b", "a%20b"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("A", "A"),
        ("alice~", "alice%7E"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("$(id)", "%24%28id%29"),
        ("...", "..."),
        (&long, &long),
    ];
    let with_uids = || (30001..).zip(people);
    for (uid, (name, _)) in with_uids() {
        machine.append("/etc/passwd", &format!("{name}:x:{uid}:{uid}::/home/nobody:/bin/sh\n"));
    }
    let enrolled = with_uids().map(|(uid, (name, file))| {
        let text = totp(&machine, &["enrol", "--user", name, "--no-confirm", "--counter-based", "--json"]);
        assert!(machine.path(&format!("{RECORDS}/{file}")).is_file(), "{name}");
        assert!(machine.path(&format!("{STATE}/enrolled/{file}.{uid}")).is_file(), "{name}");
        (name, json(&text)["secret"].as_str().unwrap().to_owned())
    });
    let enrolled: Vec<_> = enrolled.collect();
    for (name, secret) in &enrolled {
        for (_, other) in enrolled.iter().filter(|(other, _)| other != name) {
            assert_eq!(log_in(&machine, "test", name, &hotp(other, 1)), Some(AUTH_ERR), "{name}: another's code");
        }
        assert_eq!(log_in(&machine, "test", name, &hotp(secret, 1)), Some(SUCCESS), "{name}");
        assert_eq!(log_in(&machine, "test", name, &hotp(secret, 1)), Some(AUTH_ERR), "{name}: twice");
    }
}

#[test]
fn a_name_that_is_too_long_for_a_file_has_no_record_and_is_not_let_pass() {
    let machine = machine();
    let name = "é".repeat(100);
    machine.append("/etc/passwd", &format!("{name}:x:30001:30001::/home/nobody:/bin/sh\n"));
    let output = run(&machine, &["enrol", "--user", &name, "--no-confirm", "--json"]);
    assert!(!output.status.success(), "{output:?}");
    for service in ["test", "optional"] {
        let login = machine.login(service, &name).answer("000000").run();
        assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "file-error"), "{login:#?}");
    }
}

#[test]
fn what_is_roots_is_roots_from_its_first_byte_on() {
    need("strace", "strace");
    let machine = machine();
    // Inside su a new file would get the group of whoever called it, and the caller's umask.
    let trace = machine.shared().join("trace");
    let script =
        "umask 0; exec strace -f -qq -y -e trace=fchown,fchmod,write,writev,pwrite64,ftruncate -o \"$0\" \"$@\"";
    let mut command = machine.command("setpriv");
    command.args(["--regid", "20001", "--clear-groups", "--", "sh", "-c", script]).arg(&trace).arg(machine.program());
    output_of(command.args(["enrol", "--user", "alice", "--no-confirm"]));
    let trace = fs::read_to_string(&trace).unwrap();
    let mut owned: HashMap<&str, [bool; 2]> = HashMap::new();
    let mut written = 0;
    for line in trace.lines() {
        // `123 fchown(5</var/lib/pam_totp/records/alice~>, 0, 0) = 0`
        let Some((call, path)) = line.split_once('(').and_then(|(call, rest)| {
            let (_, path) = rest.split_once('<')?;
            Some((call.rsplit(' ').next()?, path.split('>').next()?))
        }) else {
            continue;
        };
        if !path.starts_with(STATE) {
            continue;
        }
        let [owner, mode] = owned.entry(path).or_default();
        match call {
            "fchown" => *owner |= line.contains(", 0, 0) = 0"),
            "fchmod" => *mode |= line.contains(", 0600) = 0"),
            _ => {
                assert!(*owner && *mode, "{line} in {trace}");
                written += 1;
            }
        }
    }
    assert!(written >= 3, "the record, its sibling and the mark: {trace}");
    let left = output_of(machine.command("find").args([STATE, "(", "!", "-gid", "0", "-o", "-perm", "/077", ")"]));
    assert_eq!(left, "");
}
