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
fn right_codes_among_the_guesses_do_not_raise_the_budget() {
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
        let won = login.count(SUCCESS);
        assert!(failed <= 10 && won <= 1, "round {round}: {failed} failed, {won} got in");
        assert_eq!(failed + won + count(&login, "throttled"), 500);
        // Whoever got in gave a charge back, and nothing else.
        assert_eq!(failed + guess(&machine, ALICE, FAR, 20), 10, "round {round}");
        accepted += won;
        unlock(&machine, &["--user", "alice"]);
    }
    assert!(accepted > 0, "no right code was among the first ten, four times in a row");
}

/// So many seconds later by both clocks, or by one.
fn guess_when(machine: &Machine, wall: i64, boot: i64) -> usize {
    let login = machine.login_when(wall, boot, "test", "alice").answer(wrong_code(SECRET));
    judged(&login.with(&["--rhost", FAR, "--parallel", "40"]).run())
}

#[test]
fn thirty_guesses_are_judged_a_day() {
    let machine = machine();
    const MINUTE: i64 = 60;
    let judged = [0, HOUR - MINUTE, HOUR + MINUTE, 2 * (HOUR + MINUTE), 4 * HOUR, 23 * HOUR, 24 * HOUR + MINUTE]
        .map(|seconds| guess_when(&machine, seconds, seconds));
    assert_eq!(judged, [10, 0, 10, 10, 0, 0, 10]);
}

#[test]
fn one_clock_alone_brings_no_budget_back() {
    let machine = machine();
    assert_eq!(guess_when(&machine, 0, 0), 10);
    for (what, wall, boot) in [
        ("ten years on", 87_660 * HOUR, 0),
        ("an hour back", -HOUR, 0),
        ("1970", -i64::try_from(now()).unwrap(), 0),
        ("an hour of uptime of which the wall clock knows nothing", 0, HOUR + 60),
    ] {
        assert_eq!(guess_when(&machine, wall, boot), 0, "{what}");
    }
}

#[test]
fn another_boot_brings_no_budget_back_until_it_has_lasted_as_long() {
    let machine = machine();
    assert_eq!(guess_when(&machine, 0, 0), 10);
    // Of the machine only /var/lib is left, and a clock that begins anew.
    let ledger = fs::read(machine.path(LEDGER)).unwrap();
    let machine = self::machine();
    machine.make_directory(STATE, 0o700, 0);
    machine.write_as(LEDGER, ledger, 0, 0o600);
    let start = 10 - seconds_since_start();
    for (what, wall, boot, expected) in [
        ("at its beginning", 60, start, 0),
        ("by a wall clock ten years on", 87_660 * HOUR, start + 60, 0),
        ("an hour later", 2 * HOUR, start + HOUR + 60, 10),
    ] {
        assert_eq!(guess_when(&machine, wall, boot), expected, "{what}");
    }
}

#[test]
fn a_guess_costs_the_same_if_its_process_is_killed_before_it_is_judged() {
    need("strace", "strace");
    let machine = machine();
    machine.login("test", "alice").answer("no code").run();
    let (trace, client, wrong) = (machine.shared().join("trace"), machine.client(), wrong_code(SECRET));
    let strace = |expression: &str| {
        let mut command = machine.command("strace");
        command.args(["-f", "-qq", "-e", expression, "-o"]).args([&trace, &client]);
        command.args(["test", "alice", "--rhost", FAR, "--answer", &wrong]).output().unwrap();
        fs::read_to_string(&trace).unwrap()
    };
    // What is right is known once the person's file was read; the log is the last thing before the verdict.
    let opened = strace("trace=openat").lines().position(|line| line.contains(".google_authenticator")).unwrap();
    unlock(&machine, &["--user", "alice", "--host", FAR]);
    let _ = machine.log();
    for call in [format!("openat:signal=KILL:when={}", opened + 1), "sendto:signal=KILL:when=1".to_owned()] {
        for _ in 0..5 {
            assert!(strace(&format!("inject={call}")).contains("killed by SIGKILL"), "{call}");
        }
    }
    assert!(machine.log().is_empty(), "a verdict was logged");
    let rows = rows(&machine);
    for row in ["strangers alice 10 blocked", "in-a-row alice 10", "source 198.51.100.9 10 blocked"] {
        assert!(rows.iter().any(|listed| listed == row), "{row}: {rows:#?}");
    }
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().reason(), "throttled");
}

// ---- Nobody keeps the owner out ----

/// A su that asks for the code alone and does not sleep.
fn quick_su(machine: &Machine) {
    machine.service("su", &format!("{STACK}account required pam_permit.so\nsession required pam_permit.so\n"));
    machine.write("/etc/login.defs", "FAIL_DELAY 0\n");
}

fn begin_su(machine: &Machine, caller: User, target: &str, code: &str) -> Child {
    let mut command = machine.command_as(caller, "su");
    command.args([target, "-c", "id -un"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = writeln!(child.stdin.take().unwrap(), "{code}");
    child
}

#[test]
fn the_owner_gets_in_whatever_strangers_and_neighbours_have_typed() {
    let machine = with_rules("[defaults]\nfail_delay = \"0s\"\n");
    machine.service("sshd", &example_file("sshd-debian"));
    quick_su(&machine);
    machine.enrol(CAROL, "\" TOTP_AUTH\n");
    // As a host with passwords would have it: sshd hands us what is typed as one.
    let settings = KEY_AND_CODE
        .replace("PasswordAuthentication no", "PasswordAuthentication yes")
        .replace("keyboard-interactive\n", "keyboard-interactive password\n");
    let sshd = Sshd::start(&machine, &settings);
    let session = sshd.login(ALICE, &[&code_now(SECRET)]);
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());

    // Fifty codes of a colleague behind the same address.
    assert_eq!(guess(&machine, CAROL, "127.0.0.1", 50), 10);
    // A hundred su.
    let tries: Vec<_> = (0..100).map(|_| begin_su(&machine, BOB, "alice", "000000")).collect();
    assert!(tries.into_iter().all(|su| !su.wait_with_output().unwrap().status.success()));
    let logged = reasons(&machine.log());
    let count = |reason: &str| logged.iter().filter(|logged| *logged == reason).count();
    assert_eq!((count("wrong-code"), count("throttled")), (10, 90));
    // A thousand answers that are no codes, from the owner's address and from others, some through sshd itself.
    for origin in [&["--rhost", "127.0.0.1", "--parallel", "300"][..], &["--rhosts", "203.0.113.0:700"]] {
        let login = machine.login("sshd", "alice").answer("correct horse").with(origin).run();
        assert_eq!(reasons(&login.log).iter().filter(|reason| *reason == "not-a-code").count(), reasons(&login.log).len());
    }
    let key = sshd.key(ALICE);
    for method in ["password", "password", "keyboard-interactive"] {
        let only = [format!("PreferredAuthentications={method}"), format!("PubkeyAuthentication={}", method != "password")];
        let options = ["-o", &only[0], "-o", &only[1]];
        assert!(!sshd.login_with("alice", &key, &["correct", "horse", "battery"], &options).succeeded);
    }
    let logged = reasons(&machine.log());
    assert!(logged.len() >= 6 && logged.iter().all(|reason| reason == "not-a-code"), "{logged:?}");

    let start = Instant::now();
    let session = sshd.login(ALICE, &[&code_at(SECRET, now() + 30)]);
    assert!(session.succeeded && start.elapsed() < Duration::from_secs(4), "{session:#?} {:#?}", machine.log());
    // Where she has never been she is one of the strangers.
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let login = machine.login("sshd", "alice").answer(code_now(SECRET)).with(&["--rhost", "192.0.2.77"]).run();
    assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, "throttled"));
    // From her own address there is a budget too, and the neighbour has none.
    assert_eq!(guess(&machine, ALICE, "127.0.0.1", 30), 10);
    assert_eq!(guess(&machine, CAROL, "127.0.0.1", 5), 0);
}

#[test]
fn two_thousand_su_that_are_stopped_anywhere_hold_up_no_login() {
    const QUICK: &str = "[defaults]\nfail_delay = \"0s\"\n";
    let machine = with_rules(QUICK);
    quick_su(&machine);
    let storm = machine.shared().join("storm");
    fs::copy(example("storm"), &storm).unwrap();
    let codes: Vec<String> = (0..3000).map(|number| (10_000_000 + number).to_string()).collect();
    machine.enrol(ALICE, &format!("\" TOTP_AUTH\n{}\n", codes.join("\n")));
    let mut codes = codes.iter();
    let client = machine.client();
    let mut log_in = || {
        let start = Instant::now();
        let mut command = machine.command(&client);
        let output = command.args(["test", "alice", "--rhost", FAR, "--answer", codes.next().unwrap()]).output().unwrap();
        let took = start.elapsed();
        assert!(String::from_utf8_lossy(&output.stdout).contains("result 0"), "{output:?} {:#?}", machine.log());
        assert!(took < Duration::from_secs(1), "{took:?}");
    };
    log_in();
    // The second time with a budget that does not end, so that more of them are judged and written down.
    for rules in ["", "[throttle]\nuser = \"*:50/10s\"\nhost = \"\"\n"] {
        machine.write(POLICY, format!("version = 1\n{QUICK}{rules}"));
        let storm = |seed: &str| {
            let mut command = machine.command_as(BOB, &storm);
            command.args(["500", "20", seed, "000000", "su", "alice", "-c", "true"]).stdout(Stdio::piped()).spawn().unwrap()
        };
        let mut storms = [storm("1"), storm("2")];
        let mut logins = 0;
        while storms.iter_mut().any(|storm| storm.try_wait().unwrap().is_none()) {
            log_in();
            logins += 1;
        }
        for storm in storms {
            let output = storm.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let stopped: usize = text.trim().strip_prefix("stopped ").unwrap().parse().unwrap();
            assert!(output.status.success() && stopped > 250 && logins > 10, "{output:?}, {logins} logins");
        }
    }
    let logged = reasons(&machine.log());
    assert!(logged.iter().all(|reason| ["wrong-code", "throttled"].contains(&reason.as_str())));
    assert!(logged.iter().filter(|reason| *reason == "wrong-code").count() > 10, "{logged:?}");
}

// ---- The disk ----

/// A file system of its own for the ledger, with room for it.
fn small_disk(machine: &Machine) {
    let script = "set -e; truncate -s 16M \"$0/state.img\"; mkfs.ext4 -q -F -m 0 \"$0/state.img\"
                  mkdir -p /var/lib/pam_totp; mount -o loop \"$0/state.img\" /var/lib/pam_totp";
    output_of(machine.command("sh").args(["-c", script]).arg(machine.shared()));
}

fn fill(machine: &Machine) {
    let script = "cd /var/lib/pam_totp; cat /dev/zero >fill 2>/dev/null || :; cat /dev/zero >>fill 2>/dev/null || :; sync fill";
    output_of(machine.command("sh").args(["-c", script]));
    assert!(is_full(machine));
}

fn is_full(machine: &Machine) -> bool {
    let script = "head -c 4096 /dev/zero >>/var/lib/pam_totp/fill";
    !machine.command("sh").args(["-c", script]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_hundred_thousand_sources_and_a_full_disk_leave_the_limit_of_a_person_as_it_is() {
    let machine = machine();
    small_disk(&machine);
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().result(), SUCCESS);
    fill(&machine);
    let client = machine.client();
    let everywhere = |first: &str| -> Child {
        let mut command = machine.command(&client);
        command.args(["test", "alice", "--answer", "no code", "--rhosts", first]).stdout(Stdio::piped()).spawn().unwrap()
    };
    for client in [everywhere("10.0.0.0:50000"), everywhere("10.1.0.0:50000")] {
        let output = client.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "results 7 50000\n", "{output:?}");
    }
    let logged = reasons(&machine.log());
    assert_eq!((logged.len(), logged.iter().find(|reason| *reason != "not-a-code")), (100_000, None));
    let login = machine.login("test", "alice").answer(wrong_code(SECRET)).with(&["--rhosts", "11.0.0.0:1000"]).run();
    assert_eq!((count(&login, "wrong-code"), count(&login, "throttled")), (10, 990));
    assert!(is_full(&machine));
}

#[test]
fn without_room_or_right_to_write_there_is_a_ledger_until_the_next_boot() {
    for read_only in [false, true] {
        let machine = machine();
        small_disk(&machine);
        if read_only {
            output_of(machine.command("mount").args(["-o", "remount,ro", STATE]));
        } else {
            fill(&machine);
        }
        let login = machine.login("test", "alice").answer(code_now(SECRET)).run();
        assert_eq!(login.result(), SUCCESS, "{login:#?}");
        assert!(login.log[0].contains(" ledger=ledger-until-next-boot"), "{login:#?}");
        assert_eq!(guess(&machine, ALICE, FAR, 50), 10);
        assert!(!machine.path(LEDGER).exists() && machine.path("/run/pam_totp/ledger-1").exists());
        assert!(rows(&machine).contains(&"strangers alice 10 blocked".to_owned()));
        unlock(&machine, &["--user", "alice", "--host", FAR]);
        assert_eq!(guess(&machine, ALICE, FAR, 50), 10);
    }
}
