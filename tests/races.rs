//! Many logins at once, on a real ext4: where an fsync takes time, there is room to lose a race.

use crate::support::agent::Agent;
use crate::support::etcd::Cluster;
use crate::support::fleet;
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, BOB, CAROL, Home, LoggedIn, Machine, SUCCESS};
use crate::support::root_only::{self, json, run, ticket, totp};
use crate::support::totp::{SECRET, code_now, hotp, wrong_code};
use crate::support::{self, dist, project};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

/// Without the lock the first one shows it, nearly always; see the last test.
fn rounds() -> usize {
    support::rounds(5, 30)
}

const RUNNERS: usize = 50;

fn machine(module: &Path) -> Machine {
    let machine = Machine::with(Home::Ext4, module);
    machine.without_limits();
    machine.service("test", "auth required pam_totp.so\n");
    machine
}

/// All runners are at their prompts when the first is answered. Returns how many got in.
fn race(machine: &Machine, lines: &str, code: &str) -> (usize, HashMap<String, usize>) {
    machine.enrol(ALICE, lines);
    let login = machine.login("test", "alice").answer(code).with(&["--parallel", &RUNNERS.to_string()]).run();
    assert_eq!(login.results.len(), RUNNERS);
    assert_eq!(login.count(SUCCESS) + login.count(AUTH_ERR), RUNNERS, "{:?}", login.results);
    (login.count(SUCCESS), reasons(&login.log))
}

/// How often each reason was logged.
fn reasons(log: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for reason in support::reasons(log) {
        *counts.entry(reason).or_insert(0) += 1;
    }
    counts
}

fn one_wins_every_round(lines: &str, lost: &str, code: impl Fn() -> String) {
    one_wins_every_round_on(&machine(&dist("pam_totp.so")), lines, lost, code);
}

fn one_wins_every_round_on(machine: &Machine, lines: &str, lost: &str, code: impl Fn() -> String) {
    for round in 0..rounds() {
        let (won, reasons) = race(machine, lines, &code());
        // All others were judged in their turn, and lost by the rule and not by an error.
        assert_eq!((won, reasons.get(lost)), (1, Some(&(RUNNERS - 1))), "round {round}: {reasons:?}");
    }
}

#[test]
fn one_of_fifty_gets_in_with_a_time_based_code() {
    one_wins_every_round("\" TOTP_AUTH\n", "used-code", || code_now(SECRET));
}

#[test]
fn one_of_fifty_gets_in_with_a_scratch_code() {
    one_wins_every_round("\" TOTP_AUTH\n12345678\n87654321\n", "wrong-code", || "12345678".to_owned());
}

#[test]
fn one_of_fifty_gets_in_with_a_counter_based_code() {
    one_wins_every_round("\" HOTP_COUNTER 1\n", "wrong-code", || hotp(SECRET, 1));
}

#[test]
fn one_of_fifty_gets_in_where_a_try_is_charged_first() {
    // Two commits in one login: the lock has to hold from the one to the other.
    let machine = machine(&dist("pam_totp.so"));
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[compat]\ngoogle = true\n");
    one_wins_every_round_on(&machine, "\" TOTP_AUTH\n\" DISALLOW_REUSE\n\" RATE_LIMIT 100 30\n", "used-code", || {
        code_now(SECRET)
    });
}

#[test]
fn of_all_guesses_at_once_three_are_judged() {
    let machine = machine(&dist("pam_totp.so"));
    let guesses = support::rounds(200, 1000);
    for (user, right) in [(ALICE, 0), (BOB, 42), (CAROL, guesses - 1)] {
        machine.enrol(user, "\" TOTP_AUTH\n\" RATE_LIMIT 3 3600\n");
        let (wrong, code) = (wrong_code(SECRET), code_now(SECRET));
        let login = (0..guesses).fold(machine.login("test", user.name), |login, guess| {
            login.answer(if guess == right { &code } else { &wrong })
        });
        let login = login.with(&["--parallel", &guesses.to_string()]).run();
        let count = |login: &LoggedIn, reason: &str| reasons(&login.log).get(reason).copied().unwrap_or(0);
        let judged = count(&login, "wrong-code");
        assert_eq!(judged + count(&login, "throttled") + login.count(SUCCESS), guesses, "{:?}", reasons(&login.log));
        // A right one costs nothing once it is judged; until then it has one of the three places, and another is refused.
        let more = machine.login("test", user.name).answer(&wrong).with(&["--parallel", "20"]).run();
        let total = judged + count(&more, "wrong-code");
        // From where somebody got in it is another row that counts, beside up to two guesses of before.
        let most = if login.count(SUCCESS) == 0 { 3 } else { 5 };
        assert!((3..=most).contains(&total), "{total}: {:?}", reasons(&more.log));
        assert_eq!(count(&more, "throttled"), 20 - (total - judged), "{:?}", reasons(&more.log));
    }
}

/// The same race against a build of ours without the lock: if this one found nothing, the others would prove nothing.
#[test]
fn without_the_lock_a_code_gets_more_than_one_in() {
    let control = project().join("target/test/pam_totp-without-lock.so");
    assert!(control.exists(), "{} is missing: `make test` builds it", control.display());
    let machine = machine(&control);
    for lines in ["\" TOTP_AUTH\n", "\" HOTP_COUNTER 1\n", "\" TOTP_AUTH\n12345678\n"] {
        let code = || match lines {
            "\" TOTP_AUTH\n" => code_now(SECRET),
            "\" HOTP_COUNTER 1\n" => hotp(SECRET, 1),
            _ => "12345678".to_owned(),
        };
        let doubles = (0..rounds()).find(|_| race(&machine, lines, &code()).0 > 1);
        assert!(doubles.is_some(), "{lines:?}: {} rounds without a lock, and never two winners", rounds());
    }
}

// ---- Wherever the record is, and however many they are ----

/// At once, each time.
fn crowd() -> usize {
    support::rounds(20, 200)
}

fn crowds() -> usize {
    support::rounds(1, 100)
}

/// How alice's record gives codes, and how to enrol her so.
const KINDS: [(&str, &[&str]); 3] = [("time", &[]), ("counter", &["--counter-based"]), ("recovery", &[])];

/// What the codes for a lost device are called, by store.
const SPARES: [&str; 2] = ["scratch_codes", "recovery_codes"];

/// One got in, and all others were denied; of a large crowd in a fleet some do not get to the agent or to the cluster in time.
fn assert_one_of(crowd: usize, login: &LoggedIn, what: &str) {
    let late = ["no-agent", "etcd-unreachable", "fleet-busy"];
    let reasons = reasons(&login.log);
    let unavailable = login.count(AUTHINFO_UNAVAIL);
    assert_eq!(
        late.iter().filter_map(|reason| reasons.get(*reason)).sum::<usize>(),
        unavailable,
        "{what}: {reasons:?}"
    );
    assert!(crowd > 100 || unavailable == 0, "{what}: {reasons:?}");
    let ended = [SUCCESS, AUTH_ERR].map(|result| login.count(result));
    assert_eq!(ended, [1, crowd - 1 - unavailable], "{what}: {reasons:?}");
}

/// Each round has a record of its own, which nobody has used yet.
fn one_of_a_crowd_gets_in(machine: &Machine) {
    for (kind, arguments) in KINDS {
        for round in 0..crowds() {
            let enrol = ["enrol", "--user", "alice", "--force", "--no-confirm"];
            let printed = json(machine, &[&enrol, arguments].concat());
            let secret = printed["secret"].as_str().unwrap();
            let code = match kind {
                "time" => code_now(secret),
                "counter" => hotp(secret, 1),
                _ => printed[SPARES.iter().find(|name| printed[**name].is_array()).unwrap()][0]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            };
            // A hundred failures in a row disable a device.
            run(machine, &["throttle", "unlock", "--user", "alice"]);
            let crowd = crowd();
            let login = machine.login("test", "alice").answer(code).with(&["--parallel", &crowd.to_string()]).run();
            assert_one_of(crowd, &login, &format!("{kind}, round {round}"));
        }
    }
}

const INLINE: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n[service.sshd]\nenrolment = \"inline\"\n";

/// What sshd says of the first factor: nobody is shown a secret without one.
const BY_KEY: &str = "publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g\n";

/// Of those who have all been shown a secret of their own, for a first device or by the same ticket, one has it in the end.
fn one_of_a_crowd_is_enrolled(machine: &Machine) {
    for round in 0..crowds() {
        for has_ticket in [false, true] {
            let mut login = machine.login("sshd", "bob").with(&["--env", &format!("SSH_AUTH_INFO_0={BY_KEY}")]);
            if has_ticket {
                login = login.answer(ticket(machine, "bob", &[]));
            }
            // Whoever is too late has failed, and so many in a row are too many.
            run(machine, &["throttle", "unlock", "--user", "bob"]);
            let crowd = crowd();
            let login = login.with(&["--answer-shown", "--parallel", &crowd.to_string()]).run();
            assert_one_of(crowd, &login, &format!("{has_ticket}, round {round}"));
            if crowd < 100 {
                assert_eq!(
                    reasons(&login.log).get("already-enrolled"),
                    Some(&(crowd - 1)),
                    "{:?}",
                    reasons(&login.log)
                );
            }
            let status = json(machine, &["status", "--user", "bob"]);
            assert_eq!(status["devices"].as_array().map(Vec::len), Some(1), "{status}");
            // After a removal it takes a ticket.
            totp(machine, &[if has_ticket { "reset" } else { "remove" }, "--user", "bob"]);
        }
    }
}

/// Of many who take the same device away one does, and nobody takes the other one.
fn one_of_a_crowd_removes_a_device(machine: &Machine) {
    for round in 0..crowds() {
        totp(machine, &["enrol", "--user", "carol", "--force", "--no-confirm"]);
        totp(machine, &["device", "add", "tablet", "--user", "carol", "--no-confirm"]);
        let remove = || run(machine, &["device", "remove", "tablet", "--user", "carol"]);
        let barrier = Barrier::new(16);
        let said: Vec<_> = thread::scope(|scope| {
            let remover = || {
                barrier.wait();
                let output = remove();
                (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
            };
            let removers: Vec<_> = (0..16).map(|_| scope.spawn(remover)).collect();
            removers.into_iter().map(|remover| remover.join().unwrap()).collect()
        });
        let removed = said.iter().filter(|(is_removed, _)| *is_removed).count();
        assert_eq!(removed, 1, "round {round}: {said:?}");
        let status = json(machine, &["status", "--user", "carol"]);
        assert_eq!(status["devices"].as_array().map(Vec::len), Some(1), "{status}");
    }
}

#[test]
fn one_of_a_crowd_gets_in_by_a_home_file() {
    let machine = machine(&dist("pam_totp.so"));
    one_of_a_crowd_gets_in(&machine);
}

#[test]
fn one_of_a_crowd_gets_in_by_a_root_only_record_and_one_is_enrolled_and_one_removes_a_device() {
    let machine = root_only::machine(INLINE);
    one_of_a_crowd_gets_in(&machine);
    one_of_a_crowd_is_enrolled(&machine);
    one_of_a_crowd_removes_a_device(&machine);
}

#[test]
fn one_of_a_crowd_gets_in_by_the_agent_and_one_is_enrolled_and_one_removes_a_device() {
    let machine = root_only::machine(&format!("via = \"agent\"\n{INLINE}"));
    let _agent = Agent::start(&machine);
    one_of_a_crowd_gets_in(&machine);
    one_of_a_crowd_is_enrolled(&machine);
    one_of_a_crowd_removes_a_device(&machine);
}

#[test]
fn one_of_a_crowd_gets_in_by_a_fleet_and_one_is_enrolled_and_one_removes_a_device() {
    let cluster = Cluster::start(3);
    let machine = fleet::machine(&cluster, "bastion1", INLINE);
    fleet::found(&machine);
    let _agent = Agent::start(&machine);
    one_of_a_crowd_gets_in(&machine);
    one_of_a_crowd_is_enrolled(&machine);
    one_of_a_crowd_removes_a_device(&machine);
}
