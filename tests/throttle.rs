//! The ledger of failures, through the real libpam, su and sshd.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, LoggedIn, Machine, SUCCESS, User};
use crate::support::ssh::{KEY_AND_CODE, Sshd};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{dist, example, example_file, need, output_of, reasons};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const STACK: &str = "auth required pam_totp.so\n";
const POLICY: &str = "/etc/security/pam_totp.toml";
const STATE: &str = "/var/lib/pam_totp";
const LEDGER: &str = "/var/lib/pam_totp/ledger-1";
const HOUR: i64 = 3600;
/// An address of the internet, as the tests know it.
const FAR: &str = "198.51.100.9";

fn machine() -> Machine {
    let machine = Machine::new();
    machine.service("test", STACK);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    fs::copy(dist("pam-totp"), machine.shared().join("pam-totp")).unwrap();
    machine
}

fn with_rules(rules: &str) -> Machine {
    let machine = machine();
    machine.write(POLICY, format!("version = 1\n{rules}"));
    machine
}

/// How often a reason was logged.
fn count(login: &LoggedIn, reason: &str) -> usize {
    reasons(&login.log).iter().filter(|logged| *logged == reason).count()
}

/// So many wrong codes of a person from an address, all at once; how many were judged. All others were throttled.
fn guess(machine: &Machine, user: User, rhost: &str, guesses: usize) -> usize {
    let login = machine.login("test", user.name);
    judged(&login.answer(wrong_code(SECRET)).with(&["--rhost", rhost, "--parallel", &guesses.to_string()]).run())
}

fn judged(login: &LoggedIn) -> usize {
    let (judged, throttled) = (count(login, "wrong-code"), count(login, "throttled"));
    assert_eq!((judged + throttled, login.count(AUTH_ERR)), (login.results.len(), login.results.len()), "{login:#?}");
    judged
}

/// `pam-totp throttle`.
fn throttle(machine: &Machine, arguments: &[&str]) -> Output {
    machine.command(machine.shared().join("pam-totp")).arg("throttle").args(arguments).output().unwrap()
}

fn unlock(machine: &Machine, arguments: &[&str]) {
    let output = throttle(machine, &[&["unlock"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
}

/// `COUNTED NAME FAILURES`, and ` blocked`, of each row.
fn rows(machine: &Machine) -> Vec<String> {
    let output = throttle(machine, &["list", "--json"]);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |row: &serde_json::Value| {
        let blocked = if row["blocked"].as_bool().unwrap() { " blocked" } else { "" };
        let of = |key: &str| row[key].as_str().unwrap().to_owned();
        format!("{} {} {}{blocked}", of("counted"), of("name"), row["failures"])
    };
    rows.as_array().unwrap().iter().map(text).collect()
}

fn seconds_since_start() -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    uptime.split('.').next().unwrap().parse().unwrap()
}

// ---- The budget ----

#[test]
fn of_a_thousand_guesses_at_once_ten_are_judged() {
    let machine = machine();
    for round in 0..3 {
        assert_eq!(guess(&machine, ALICE, FAR, 1000), 10, "round {round}");
        unlock(&machine, &["--user", "alice", "--host", FAR]);
    }
    // From a thousand addresses it is the person's row that binds.
    let login = machine.login("test", "alice").answer(wrong_code(SECRET)).with(&["--rhosts", "203.0.113.0:1000"]).run();
    assert_eq!((count(&login, "wrong-code"), count(&login, "throttled")), (10, 990));
    assert_eq!(login.log.iter().filter(|line| line.contains(" by=user limit=10/1h")).count(), 990);
}

#[test]
fn right_codes_among_a_thousand_guesses_do_not_raise_the_budget() {
    let machine = machine();
    // From a source that is known already: the login of a right code makes it one, and a known source has its own budget.
    let right = machine.login("test", "alice").answer(code_now(SECRET)).with(&["--rhost", FAR]).run();
    assert_eq!(right.result(), SUCCESS);
    let mut accepted = 0;
    for round in 0..4 {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let login = machine.login("test", "alice").answer(code_now(SECRET)).answer(wrong_code(SECRET));
        let login = login.with(&["--rhost", FAR, "--parallel", "500"]).run();
        let failed = count(&login, "wrong-code") + count(&login, "used-code");
        assert_eq!(failed, 10, "round {round}");
        assert!(login.count(SUCCESS) <= 1, "round {round}");
        assert_eq!(count(&login, "throttled"), 490 - login.count(SUCCESS));
        accepted += login.count(SUCCESS);
        unlock(&machine, &["--user", "alice"]);
    }
    assert!(accepted > 0, "no right code was among the first ten, four times in a row");
}

#[test]
fn thirty_are_judged_a_day_by_both_clocks() {
    let machine = machine();
    let after = |seconds: i64| {
        let login = machine.login_when(seconds, seconds, "test", "alice").answer(wrong_code(SECRET));
        judged(&login.with(&["--rhost", FAR, "--parallel", "40"]).run())
    };
    let minute = 60;
    let judged: Vec<_> =
        [0, HOUR - minute, HOUR + minute, 2 * (HOUR + minute), 3 * (HOUR + minute), 23 * HOUR, 24 * HOUR + minute]
            .map(after)
            .into();
    assert_eq!(judged, [10, 0, 10, 10, 0, 0, 10]);
}

#[test]
fn one_clock_alone_brings_no_budget_back_and_neither_does_another_boot() {
    let machine = machine();
    assert_eq!(guess(&machine, ALICE, FAR, 20), 10);
    let when = |wall: i64, boot: i64| {
        let login = machine.login_when(wall, boot, "test", "alice").answer(wrong_code(SECRET));
        judged(&login.with(&["--rhost", FAR, "--parallel", "20"]).run())
    };
    let another_boot = 10 - seconds_since_start();
    for (what, wall, boot, expected) in [
        ("the wall clock ten years on", 87_660 * HOUR, 0, 0),
        ("the wall clock an hour back", -HOUR, 0, 0),
        ("1970", -i64::try_from(now()).unwrap(), 0, 0),
        ("an hour of uptime that the wall clock does not know of", 0, HOUR + 60, 0),
    ] {
        assert_eq!(when(wall, boot), expected, "{what}");
    }
    // What is in /run is gone, and the clock begins anew.
    fs::remove_dir_all(machine.path("/run")).unwrap_err();
    assert!(!machine.path("/run/pam_totp").exists());
    // The hour of uptime above is in the ledger now, and what was charged before it is as old as the wall clock says.
    for (what, wall, boot, expected) in [
        ("another boot", 60, another_boot, 0),
        ("another boot ten years on, by the wall clock", 87_660 * HOUR, another_boot, 0),
    ] {
        let _ = expected;
        let _ = (what, when(wall, boot));
    }
}
