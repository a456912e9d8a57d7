//! Many logins at once, on a real ext4: where an fsync takes time, there is room to lose a race.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, Home, LoggedIn, Machine, SUCCESS};
use crate::support::totp::{SECRET, code_now, hotp, wrong_code};
use crate::support::{self, dist, project};
use std::collections::HashMap;
use std::path::Path;

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
fn of_two_hundred_guesses_at_once_three_are_judged() {
    let machine = machine(&dist("pam_totp.so"));
    for (user, right) in [(ALICE, 0), (BOB, 42), (CAROL, 199)] {
        machine.enrol(user, "\" TOTP_AUTH\n\" RATE_LIMIT 3 3600\n");
        let (wrong, code) = (wrong_code(SECRET), code_now(SECRET));
        let login = (0..200).fold(machine.login("test", user.name), |login, guess| {
            login.answer(if guess == right { &code } else { &wrong })
        });
        let login = login.with(&["--parallel", "200"]).run();
        let count = |login: &LoggedIn, reason: &str| reasons(&login.log).get(reason).copied().unwrap_or(0);
        let judged = count(&login, "wrong-code");
        assert_eq!(judged + count(&login, "throttled") + login.count(SUCCESS), 200, "{:?}", reasons(&login.log));
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
