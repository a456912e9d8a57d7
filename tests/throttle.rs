//! The ledger of failures, through the real libpam, su and sshd.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, CAROL, LoggedIn, Machine, SUCCESS, User};
use crate::support::ssh::{KEY_AND_CODE, Sshd};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{example, example_file, need, output_of, reasons, when_stopped};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
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
    machine.command(machine.program()).arg("throttle").args(arguments).output().unwrap()
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
    for round in 0..2 {
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

/// A wrong code of alice's from far away, with the kernel told what to do at which call.
fn guess_under_strace(machine: &Machine, trace: &Path, expression: &str) -> Child {
    need("strace", "strace");
    let _ = fs::remove_file(trace);
    let mut command = machine.command("strace");
    command.args(["-f", "-qq", "-e", "trace=all", "-e", expression, "-o"]).args([trace, &machine.client()]);
    command
        .args(["test", "alice", "--rhost", FAR, "--answer", &wrong_code(SECRET)])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// How often `call` is made in such a guess until it is made for `target`.
fn number_of(machine: &Machine, call: &str, target: &str) -> usize {
    let trace = machine.shared().join("trace");
    guess_under_strace(machine, &trace, "signal=none").wait().unwrap();
    let calls = fs::read_to_string(&trace).unwrap();
    let mut calls = calls.lines().filter(|line| line.contains(&format!(" {call}(")));
    calls.position(|line| line.contains(target)).unwrap_or_else(|| panic!("no {call} of {target}")) + 1
}

/// Where nothing is charged before it is judged, the thousand above seldom notice, as each is done within a millisecond.
#[test]
fn of_guesses_that_are_all_about_to_be_judged_ten_are() {
    let machine = machine();
    machine.login("test", "alice").answer("no code").run();
    let read = number_of(&machine, "openat", ".google_authenticator");
    unlock(&machine, &["--user", "alice", "--host", FAR]);
    let _ = machine.log();
    let traces: Vec<_> = (0..15).map(|number| machine.shared().join(format!("trace.{number}"))).collect();
    let stop = format!("inject=openat:signal=STOP:when={read}");
    let guesses: Vec<_> = traces.iter().map(|trace| guess_under_strace(&machine, trace, &stop)).collect();
    let stopped: Vec<_> = traces.iter().map(|trace| when_stopped(trace)).collect();
    assert!(machine.log().is_empty(), "a verdict was logged");
    output_of(machine.command("kill").arg("-CONT").args(stopped));
    assert!(guesses.into_iter().all(|mut guess| guess.wait().unwrap().success()));
    let logged = reasons(&machine.log());
    let count = |reason: &str| logged.iter().filter(|logged| *logged == reason).count();
    assert_eq!((count("wrong-code"), count("throttled")), (10, 5), "{logged:?}");
}

#[test]
fn a_guess_costs_the_same_if_its_process_is_killed_before_anybody_learns_the_verdict() {
    let machine = machine();
    machine.login("test", "alice").answer("no code").run();
    // The log comes before the verdict.
    let log = number_of(&machine, "connect", "/dev/log");
    unlock(&machine, &["--user", "alice", "--host", FAR]);
    let _ = machine.log();
    let trace = machine.shared().join("trace");
    let call = format!("connect:signal=KILL:when={log}");
    for _ in 0..10 {
        guess_under_strace(&machine, &trace, &format!("inject={call}")).wait().unwrap();
        assert!(fs::read_to_string(&trace).unwrap().contains("killed by SIGKILL"), "{call}");
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
        assert_eq!(
            reasons(&login.log).iter().filter(|reason| *reason == "not-a-code").count(),
            reasons(&login.log).len()
        );
    }
    let key = sshd.key(ALICE);
    for method in ["password", "password", "keyboard-interactive"] {
        let only =
            [format!("PreferredAuthentications={method}"), format!("PubkeyAuthentication={}", method != "password")];
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

/// Where alice is known.
const HOME: &str = "192.0.2.1";

/// Alice, who logs in with one scratch code after the other from where she is known, within a second each time.
struct Owner<'a> {
    machine: &'a Machine,
    codes: std::vec::IntoIter<String>,
}

impl<'a> Owner<'a> {
    fn new(machine: &'a Machine) -> Self {
        let codes: Vec<String> = (0..3000).map(|number| (10_000_000 + number).to_string()).collect();
        // With a limit of its own, as enrolling writes one, that does not come near either.
        machine.enrol(ALICE, &format!("\" TOTP_AUTH\n\" RATE_LIMIT 100 1\n{}\n", codes.join("\n")));
        let mut owner = Self { machine, codes: codes.into_iter() };
        owner.log_in("nobody else is there");
        owner
    }

    fn log_in(&mut self, what: &str) {
        let code = self.codes.next().expect("a code");
        let mut command = self.machine.command(self.machine.client());
        command.args(["test", "alice", "--rhost", HOME, "--answer", &code]);
        let start = Instant::now();
        let output = command.output().unwrap();
        let took = start.elapsed();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("result 0") && took < Duration::from_secs(1), "{what}: {took:?} {text}");
    }
}

/// No limit that comes near, and still everything is written down.
const MANY: &str = "[throttle]\nuser = \"*:100/1s\"\nhost = \"*:100/1s\"\n";

#[test]
fn a_guess_that_is_stopped_after_any_of_its_calls_holds_up_no_login() {
    let machine = with_rules(MANY);
    let mut owner = Owner::new(&machine);
    let trace = machine.shared().join("trace");
    assert!(guess_under_strace(&machine, &trace, "signal=none").wait().unwrap().success());
    // From the answer on, each call by its name and number.
    let (mut numbers, mut points, mut answered) = (std::collections::HashMap::new(), Vec::new(), false);
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let Some((name, _)) = line.split_once(' ').and_then(|(_, call)| call.trim_start().split_once('(')) else {
            continue;
        };
        let number = numbers.entry(name.to_owned()).or_insert(0);
        *number += 1;
        if answered && line.contains("/dev/log") {
            break;
        }
        if answered {
            points.push((name.to_owned(), *number));
        }
        answered |= line.contains("Verification code");
    }
    assert!(points.iter().any(|(name, _)| name == "read") && points.len() > 30, "{points:?}");
    for (name, number) in points {
        let what = format!("{name} {number}");
        let mut tracer = guess_under_strace(&machine, &trace, &format!("inject={name}:signal=STOP:when={number}"));
        let stopped = when_stopped(&trace);
        owner.log_in(&what);
        output_of(machine.command("kill").args(["-KILL", &stopped]));
        tracer.wait().unwrap();
    }
}

#[test]
fn two_thousand_su_that_are_stopped_anywhere_hold_up_no_login() {
    const QUICK: &str = "[defaults]\nfail_delay = \"0s\"\n";
    let machine = with_rules(QUICK);
    quick_su(&machine);
    let storm = machine.shared().join("storm");
    fs::copy(example("storm"), &storm).unwrap();
    let mut owner = Owner::new(&machine);
    // The second time with a budget that does not end, so that all of them are judged and written down.
    for rules in ["", MANY] {
        machine.write(POLICY, format!("version = 1\n{QUICK}{rules}"));
        let storm = |seed: &str| {
            let mut command = machine.command_as(BOB, &storm);
            let arguments = ["500", "20", seed, "000000", "su", "alice", "-c", "true"];
            command.args(arguments).stdout(Stdio::piped()).spawn().unwrap()
        };
        let mut storms = [storm("1"), storm("2")];
        let mut logins = 0;
        while storms.iter_mut().any(|storm| storm.try_wait().unwrap().is_none()) {
            owner.log_in("in the storm");
            logins += 1;
        }
        for storm in storms {
            let output = storm.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let stopped: usize = text.trim().strip_prefix("stopped ").unwrap().parse().unwrap();
            assert!(output.status.success() && stopped > 100 && logins > 10, "{output:?}, {logins} logins");
        }
    }
    let logged = reasons(&machine.log());
    let count = |reason: &str| logged.iter().filter(|logged| *logged == reason).count();
    assert!(count("throttled") > 10 && count("wrong-code") > 10, "{logged:?}");
    assert_eq!(count("throttled") + count("wrong-code"), logged.len(), "{logged:?}");
}

// ---- The disk ----

/// A file system of its own for the ledger, with room for it.
fn small_disk(machine: &Machine) {
    let script = "set -e; mknod /dev/loop-control c 10 237; for n in $(seq 0 63); do mknod /dev/loop$n b 7 $n; done
                  truncate -s 16M \"$0/state.img\"; mkfs.ext4 -q -F -m 0 \"$0/state.img\"
                  mkdir -p /var/lib/pam_totp; mount -o loop \"$0/state.img\" /var/lib/pam_totp";
    output_of(machine.command("sh").args(["-c", script]).arg(machine.shared()));
}

fn fill(machine: &Machine) {
    let script = "cd /var/lib/pam_totp; exec 2>/dev/null; cat /dev/zero >fill || :
                  while head -c 1024 /dev/zero >>fill; do :; done; sync fill";
    output_of(machine.command("sh").args(["-c", script]));
    assert!(is_full(machine));
}

fn is_full(machine: &Machine) -> bool {
    let script = "head -c 1024 /dev/zero >>/var/lib/pam_totp/fill";
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
        command
            .args(["test", "alice", "--answer", "no code", "--rhosts", first])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
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

// ---- The file ----

/// Neither root nor anybody who logs in.
const SOMEBODY: u32 = 12345;

/// What somebody or something may have made of the file or its directory. Each begins with a ledger that is full.
type Damage = (&'static str, fn(&Machine));

const MADE_ANEW: [Damage; 7] = [
    ("empty", |machine| machine.write_as(LEDGER, "", 0, 0o600)),
    ("truncated", |machine| truncate(machine, 4096)),
    ("cut by a byte", |machine| truncate(machine, size(machine) - 1)),
    ("longer by a byte", |machine| truncate(machine, size(machine) + 1)),
    ("garbage", |machine| {
        let mut garbage = vec![0; usize::try_from(size(machine)).unwrap()];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut garbage).unwrap();
        machine.write_as(LEDGER, garbage, 0, 0o600);
    }),
    ("another version", |machine| change(machine, 8)),
    ("another kind of file", |machine| change(machine, 0)),
];

const REFUSED: [Damage; 11] = [
    ("a directory", |machine| {
        fs::remove_file(machine.path(LEDGER)).unwrap();
        machine.make_directory(LEDGER, 0o700, 0);
    }),
    ("a FIFO", |machine| {
        fs::remove_file(machine.path(LEDGER)).unwrap();
        output_of(machine.command("mkfifo").args(["-m", "600", LEDGER]));
    }),
    ("a link", |machine| {
        fs::rename(machine.path(LEDGER), machine.path("/var/lib/elsewhere")).unwrap();
        symlink("/var/lib/elsewhere", machine.path(LEDGER)).unwrap();
    }),
    ("another's file", |machine| chown(machine.path(LEDGER), Some(SOMEBODY), None).unwrap()),
    ("a file that everybody may write", |machine| set_mode(machine, LEDGER, 0o666)),
    ("a file that its group may write", |machine| set_mode(machine, LEDGER, 0o660)),
    ("a directory that everybody may write", |machine| set_mode(machine, STATE, 0o777)),
    ("another's directory", |machine| chown(machine.path(STATE), Some(SOMEBODY), None).unwrap()),
    ("a file in the place of the directory", |machine| {
        fs::remove_dir_all(machine.path(STATE)).unwrap();
        machine.write_as(STATE, "", 0, 0o600);
    }),
    // Root's own, too: whoever wants it elsewhere says so in `state_dir`.
    ("a link in the place of the directory", |machine| {
        fs::rename(machine.path(STATE), machine.path("/var/lib/elsewhere")).unwrap();
        symlink("/var/lib/elsewhere", machine.path(STATE)).unwrap();
    }),
    ("a link to nowhere", |machine| {
        fs::remove_dir_all(machine.path(STATE)).unwrap();
        symlink("/var/lib/nowhere/at-all", machine.path(STATE)).unwrap();
    }),
];

fn size(machine: &Machine) -> u64 {
    machine.path(LEDGER).metadata().unwrap().len()
}

fn truncate(machine: &Machine, size: u64) {
    fs::File::options().write(true).open(machine.path(LEDGER)).unwrap().set_len(size).unwrap();
}

fn set_mode(machine: &Machine, path: &str, mode: u32) {
    fs::set_permissions(machine.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes a byte in the header.
fn change(machine: &Machine, at: usize) {
    let mut bytes = fs::read(machine.path(LEDGER)).unwrap();
    bytes[at] ^= 2;
    machine.write_as(LEDGER, bytes, 0, 0o600);
}

/// A ledger in which alice has no guess left, and what became of it.
fn damage(machine: &Machine, (what, damage): Damage) {
    output_of(machine.command("rm").args(["-rf", STATE, "/var/lib/elsewhere"]));
    assert_eq!(guess(machine, ALICE, FAR, 12), 10, "{what}");
    damage(machine);
}

/// One login that does not hang.
fn promptly(machine: &Machine, what: &str, code: &str) -> LoggedIn {
    let start = Instant::now();
    let login = machine.login("test", "alice").answer(code).with(&["--rhost", FAR]).run();
    assert!(start.elapsed() < Duration::from_secs(4), "{what}");
    login
}

#[test]
fn a_ledger_is_made_by_root_for_root_with_all_its_blocks() {
    let machine = machine();
    quick_su(&machine);
    // Inside su a new file would get the group of whoever called it.
    assert!(!begin_su(&machine, BOB, "alice", "000000").wait().unwrap().success());
    let stat = machine.path(LEDGER).metadata().unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 0, 0o600));
    assert!(stat.blocks() * 512 >= stat.len() && stat.len() > 1 << 20, "{stat:?}");
    let directory = machine.path(STATE).metadata().unwrap();
    assert_eq!((directory.uid(), directory.gid(), directory.mode() & 0o7777), (0, 0, 0o700));
    let names: Vec<_> = fs::read_dir(machine.path(STATE)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ledger-1"]);
}

#[test]
fn a_ledger_that_is_none_is_made_anew_and_counting_goes_on() {
    let machine = machine();
    for case in MADE_ANEW {
        let what = case.0;
        damage(&machine, case);
        let login = promptly(&machine, what, &wrong_code(SECRET));
        assert_eq!(login.reason(), "wrong-code", "{what}");
        assert!(login.log[1].contains(" ledger=ledger-made-anew"), "{what}: {login:#?}");
        assert_eq!(guess(&machine, ALICE, FAR, 30), 9, "{what}");
        let stat = machine.path(LEDGER).metadata().unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o600), "{what}");
        assert!(stat.blocks() * 512 >= stat.len(), "{what}");
    }
}

#[test]
fn a_ledger_that_somebody_else_could_have_changed_denies_everybody() {
    let machine = machine();
    for case in REFUSED {
        let what = case.0;
        damage(&machine, case);
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let before = machine.read(&ALICE.secret_file());
        for code in [code_now(SECRET), wrong_code(SECRET)] {
            let login = promptly(&machine, what, &code);
            assert_eq!(login.result(), AUTH_ERR, "{what}: {login:#?}");
            // What is wrong with the directory is found by whoever looks into it first.
            let reason = login.reason();
            assert!(
                ["ledger-error", "wrong-mode", "wrong-owner", "link", "file-error"].contains(&reason.as_str()),
                "{what}: {login:#?}"
            );
        }
        assert_eq!(machine.read(&ALICE.secret_file()), before, "{what}: not even judged");
        let output = throttle(&machine, &["list"]);
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
    }
}

// ---- A hundred in a row ----

#[test]
fn the_hundredth_wrong_code_in_a_row_disables_the_device_until_root_says_otherwise() {
    let machine = machine();
    machine.without_limits();
    let guess = |guesses: &str| {
        let login = machine.login("test", "alice").answer(wrong_code(SECRET)).with(&["--parallel", guesses]).run();
        (count(&login, "wrong-code"), count(&login, "device-disabled"))
    };
    assert_eq!(guess("99"), (99, 0));
    // A login begins the count anew.
    assert_eq!(machine.login("test", "alice").answer(code_now(SECRET)).run().result(), SUCCESS);
    assert_eq!(guess("99"), (99, 0));
    assert_eq!(guess("30"), (1, 29));
    assert!(rows(&machine).contains(&"in-a-row alice 100 blocked".to_owned()), "{:?}", rows(&machine));
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    let code = code_now(SECRET);
    assert_eq!(machine.login("test", "alice").answer(&code).run().reason(), "device-disabled");
    let later = machine.login_when(1000 * HOUR, 1000 * HOUR, "test", "alice").answer("000000").run();
    assert_eq!(later.reason(), "device-disabled", "time does not help");
    unlock(&machine, &["--user", "alice"]);
    assert_eq!(machine.login("test", "alice").answer(&code).run().result(), SUCCESS);
}

// ---- pam-totp throttle ----

#[test]
fn root_sees_who_is_blocked_and_lets_them_in_again() {
    let machine = machine();
    machine.enrol(BOB, "\" TOTP_AUTH\n");
    assert_eq!(String::from_utf8_lossy(&throttle(&machine, &["list"]).stdout), "No failures.\n");
    let known = machine.login("test", "alice").answer(code_now(SECRET)).with(&["--rhost", "2001:db8:0:1::7"]).run();
    assert_eq!(known.result(), SUCCESS);
    assert_eq!(guess(&machine, ALICE, "2001:db8:0:1::7", 3), 3);
    assert_eq!(guess(&machine, ALICE, FAR, 12), 10);
    assert_eq!(guess(&machine, BOB, "192.0.2.5", 2), 2);
    let expected = [
        "known alice 3",
        "strangers alice 10 blocked",
        "strangers bob 2",
        "source 2001:db8:0:1::/64 3",
        "source 198.51.100.9 10 blocked",
        "source 192.0.2.5 2",
        "in-a-row alice 13",
        "in-a-row bob 2",
    ];
    let mut listed = rows(&machine);
    listed.sort();
    let mut sorted = expected;
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    let text = String::from_utf8_lossy(&throttle(&machine, &["list"]).stdout).into_owned();
    let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["name", "counted", "failures", "latest", "state"]);
    let line = words.iter().find(|words| words.starts_with(&["alice", "strangers", "10"])).unwrap();
    assert!(line[4] == "ago" && line[5..7] == ["blocked", "for"], "{text}");
    let line = words.iter().find(|words| words.starts_with(&["bob", "strangers", "2"])).unwrap();
    assert!(line.last() == Some(&"ago"), "{text}");

    // One thing at a time.
    unlock(&machine, &["--user", "alice"]);
    assert!(!rows(&machine).iter().any(|row| row.contains("alice")) && rows(&machine).len() == 5);
    assert_eq!(guess(&machine, ALICE, FAR, 3), 0, "the source is still blocked");
    assert_eq!(guess(&machine, ALICE, "192.0.2.6", 12), 10);
    unlock(&machine, &["--host", FAR]);
    assert_eq!(guess(&machine, BOB, FAR, 12), 8);
    unlock(&machine, &["--host", "2001:db8:0:1:ffff::/64"]);
    unlock(&machine, &["--user", "bob", "--host", "192.0.2.5"]);
    for nothing in [&["--user", "bob"][..], &["--host", "192.0.2.5"], &["--user", "nobody-at-all"]] {
        let output = throttle(&machine, &[&["unlock"], nothing].concat());
        assert_eq!(output.status.code(), Some(1), "{nothing:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no failures of "), "{output:?}");
    }
}

#[test]
fn wrong_usage_is_2_and_whoever_is_not_root_is_refused_with_1() {
    let machine = machine();
    guess(&machine, ALICE, FAR, 2);
    let wrong: [&[&str]; 7] = [
        &[],
        &["lists"],
        &["list", "alice"],
        &["unlock"],
        &["unlock", "--user"],
        &["unlock", "alice"],
        &["list", "-x"],
    ];
    for arguments in wrong {
        assert_eq!(throttle(&machine, arguments).status.code(), Some(2), "{arguments:?}");
    }
    let before = fs::read(machine.path(LEDGER)).unwrap();
    for arguments in [&["list"][..], &["list", "--json"], &["unlock", "--user", "alice"], &["unlock", "--clock"]] {
        let mut command = machine.command_as(ALICE, machine.program());
        let output = command.arg("throttle").args(arguments).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("only root can "), "{output:?}");
    }
    assert_eq!(fs::read(machine.path(LEDGER)).unwrap(), before);
}

#[test]
fn what_is_over_by_a_clock_that_was_ahead_opens_again_when_root_says_so() {
    let machine = machine();
    let until = output_of(Command::new("date").args(["-u", "-d", "+30 days", "+%F"]));
    let exemption = format!(
        "[[exempt]]\nusers = [\"alice\"]\nnetworks = [\"192.0.2.0/24\"]\nservices = [\"any\"]\nuntil = {}\n\
         reason = \"moving\"\nresult = \"success\"\n",
        until.trim()
    );
    machine.write(POLICY, format!("version = 1\n{exemption}"));
    let log_in = || {
        let login = machine.login("test", "alice").answer("no code").with(&["--rhost", "192.0.2.7"]).run();
        (login.result(), login.log.iter().any(|line| line.contains(" void-exemption=")))
    };
    assert_eq!(log_in(), (SUCCESS, false));
    let ahead = machine.login_when(400 * 24 * HOUR, 0, "test", "alice").answer("no code").run();
    assert_eq!(ahead.result(), AUTH_ERR);
    assert_eq!(log_in(), (AUTH_ERR, true));
    unlock(&machine, &["--clock"]);
    assert_eq!(log_in(), (SUCCESS, false));
}

// ---- The rules ----

#[test]
fn a_program_that_is_not_root_is_bound_by_the_limit_in_the_file() {
    let machine = machine();
    machine.enrol(ALICE, "\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n");
    let guess = |code: &str| {
        let login = machine.login_as(ALICE, "test", "alice").answer(code).run();
        assert!(login.log.last().unwrap().contains(" ledger=not-for-this-process"), "{login:#?}");
        (login.result(), if login.result() == SUCCESS { String::new() } else { login.reason() })
    };
    assert_eq!(guess(&code_now(SECRET)), (SUCCESS, String::new()));
    for reason in ["wrong-code", "wrong-code", "throttled", "throttled"] {
        assert_eq!(guess(&wrong_code(SECRET)), (AUTH_ERR, reason.to_owned()));
    }
    assert!(!machine.path(STATE).exists());
    // Root counts for itself.
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    assert_eq!(self::guess(&machine, ALICE, FAR, 20), 10);
    for _ in 0..3 {
        assert_eq!(guess(&wrong_code(SECRET)).1, "wrong-code");
    }
}

#[test]
fn a_rule_is_for_those_whom_it_names_at_the_services_that_it_names() {
    let machine = with_rules(
        "[defaults]\nfail_delay = \"0s\"\n[throttle]\nuser = \"!root:4/1h alice/su:1/1h\"\nhost = \"\"\n\
         user_whitelist = [\"carol/test\"]\n",
    );
    quick_su(&machine);
    // Whatever root's home is on this host: here it is another.
    let passwd = machine.read("/etc/passwd").replace(":/root:", ":/home/root:");
    machine.write("/etc/passwd", passwd);
    let root = User { name: "root", uid: 0 };
    machine.make_directory(&root.home(), 0o700, 0);
    for user in [root, BOB, CAROL] {
        machine.enrol(user, "\" TOTP_AUTH\n");
    }
    let su = |target: &str| {
        assert!(!begin_su(&machine, BOB, target, "000000").wait().unwrap().success());
        reasons(&machine.log())
    };
    let _ = machine.log();
    assert_eq!((su("alice"), su("alice")), (vec!["wrong-code".to_owned()], vec!["throttled".to_owned()]));
    // What failed at su is one of the four.
    assert_eq!(guess(&machine, ALICE, FAR, 20), 3);
    assert_eq!(guess(&machine, BOB, FAR, 20), 4);
    assert_eq!((guess(&machine, root, FAR, 20), guess(&machine, CAROL, FAR, 20)), (20, 20));
    assert_eq!(su("root"), ["wrong-code"]);
    // Carol is spared at one service alone.
    assert_eq!((0..6).map(|_| su("carol").remove(0)).filter(|reason| reason == "wrong-code").count(), 4);
}

#[test]
fn a_source_is_an_address_or_a_network_of_a_customer() {
    let machine = with_rules("[throttle]\nuser = \"\"\nhost = \"*:3/1h\"\nhost_whitelist = [\"192.0.2.128/25\"]\n");
    for user in [BOB, CAROL] {
        machine.enrol(user, "\" TOTP_AUTH\n");
    }
    for (rhosts, judged) in [
        (["2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:DB8:0:1::3"], 3),
        (["2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:0:4::1"], 9),
        (["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"], 3),
        (["host.example.org", "HOST.example.org", "Host.Example.Org"], 3),
        (["192.0.2.128", "::ffff:192.0.2.129", "192.0.2.255"], 15),
    ] {
        // Whoever is tried.
        let tries = rhosts.into_iter().zip([ALICE, BOB, CAROL]);
        assert_eq!(tries.map(|(rhost, user)| guess(&machine, user, rhost, 5)).sum::<usize>(), judged, "{rhosts:?}");
    }
}

#[test]
fn as_the_c_module_does_it_nothing_is_counted_unless_somebody_asks_for_it() {
    let machine = with_rules("[compat]\ngoogle = true\n");
    assert_eq!(guess(&machine, ALICE, FAR, 120), 120);
    assert!(!machine.path(LEDGER).exists());
    machine.write(POLICY, "version = 1\n[throttle]\n[compat]\ngoogle = true\n");
    assert_eq!(guess(&machine, ALICE, FAR, 50), 10);
}

#[test]
fn ten_thousand_devices_and_tries_on_a_connection_are_no_more_guesses() {
    let machine = with_rules("[defaults]\nfail_delay = \"0s\"\n[throttle]\nuser = \"*:4/1h\"\nhost = \"\"\n");
    machine.service("sshd", &example_file("sshd-debian"));
    let sshd = Sshd::start(&machine, &format!("{KEY_AND_CODE}MaxAuthTries 30\n"));
    let key = sshd.key(ALICE);
    // What a client may ask for: a round of questions for each of these.
    let devices = format!("KbdInteractiveDevices={}", vec!["pam"; 10_000].join(","));
    let wrong = wrong_code(SECRET);
    let clients: Vec<_> = (0..3).map(|_| sshd.begin("alice", &key, &[wrong.as_str(); 20], &["-o", &devices])).collect();
    let mut questions = 0;
    for client in clients {
        let session = sshd.finish(client);
        assert!(!session.succeeded && session.questions.len() <= 30, "{session:#?}");
        questions += session.questions.len();
    }
    let log = machine.log();
    let judged = reasons(&log).iter().filter(|reason| *reason == "wrong-code").count();
    assert_eq!((judged, reasons(&log).len()), (4, questions), "one question a call, and four guesses: {log:#?}");
    assert!(questions > 12, "the client does not try as often as it may: {questions}");
    assert!(!sshd.login(ALICE, &[&code_now(SECRET)]).succeeded, "a right one among them is not judged either");
    assert_eq!(reasons(&machine.log()), ["throttled"]);
}

#[test]
fn what_cannot_be_a_code_costs_where_it_came_from_and_not_whom_it_is_about() {
    let machine = with_rules("[throttle]\nuser = \"*:5/1h\"\nhost = \"*:8/1h\"\n");
    let near = "203.0.113.9";
    // Passwords, typing mistakes, and what sshd types in the place of somebody whom it refuses.
    let no_codes = ["my password", "12345", "1234567", "\x08\n\r\x7FINCORRECT\x08\n\r\x7FINCORRECT"];
    for answer in no_codes.iter().cycle().take(8) {
        let login = machine.login("test", "alice").answer(answer).with(&["--rhost", FAR]).run();
        let reason = if answer.contains("INCORRECT") { "refused-by-sshd" } else { "not-a-code" };
        assert_eq!((login.result(), login.reason().as_str()), (AUTH_ERR, reason));
    }
    let counted = rows(&machine);
    assert!(counted.iter().any(|row| row.contains(FAR) && row.ends_with(" 8 blocked")), "{counted:?}");
    assert!(!counted.iter().any(|row| row.contains("alice")), "nothing of it is hers: {counted:?}");
    // From there nobody is judged now, whoever it is; alice is, from anywhere else.
    let login = machine.login("test", "bob").answer(wrong_code(SECRET)).with(&["--rhost", FAR]).run();
    assert_eq!(login.reason(), "throttled");
    let login = machine.login("test", "alice").answer(code_now(SECRET)).with(&["--rhost", near]).run();
    assert_eq!(login.result(), SUCCESS, "{login:#?}");
}
