//! What happens when the operating system says no, at each of its calls in turn.

use crate::support::machine::{ALICE, AUTH_ERR, IGNORE, Machine, PERM_DENIED, SUCCESS};
use crate::support::need;
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Output;

const STACK: &str = "auth required pam_totp.so\n";

fn machine(stack: &str) -> Machine {
    need("strace", "strace");
    let machine = Machine::new();
    machine.without_limits();
    machine.service("test", stack);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

/// A login during which the kernel answers a call otherwise. Says whether the call was reached.
fn login_with_fault(machine: &Machine, user: &str, code: &str, fault: &str) -> (Output, bool) {
    let trace = machine.shared().join("trace");
    let client = machine.client();
    let output = machine
        .command("strace")
        .args(["-f", "-qq", "-e", &format!("inject={fault}"), "-e", "trace=all", "-o"])
        .args([&trace, &client])
        .args(["test", user, "--answer", code])
        .output()
        .unwrap();
    let trace = fs::read_to_string(&trace).unwrap();
    (output, trace.contains("(INJECTED)") || trace.contains("+++ killed by"))
}

fn result(output: &Output) -> Option<i32> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("result ")).and_then(|code| code.parse().ok())
}

/// Every call that the module makes, and what can be wrong with it.
const FAULTS: [(&str, &str); 17] = [
    ("openat", "error=EIO"),
    ("openat", "error=ENFILE"),
    ("openat", "error=ENOENT"),
    ("newfstatat,statx", "error=EIO"),
    ("newfstatat,statx", "error=ENOENT"),
    ("fstat", "error=EIO"),
    ("flock", "error=EIO"),
    ("read", "error=EIO"),
    ("read", "retval=0"),
    ("getrandom", "error=ENOSYS"),
    ("write", "error=ENOSPC"),
    ("write", "error=EDQUOT"),
    ("fchmod", "error=EPERM"),
    ("fsync", "error=EIO"),
    ("renameat,renameat2,rename", "error=EROFS"),
    ("setfsuid,setfsgid", "retval=12345"),
    ("readlinkat", "error=EIO"),
];

#[test]
fn whatever_call_fails_nobody_gets_in_on_a_code_that_is_not_used_up() {
    let machine = machine(STACK);
    let mut denied = 0;
    for (calls, fault) in FAULTS {
        for when in 1.. {
            machine.enrol(ALICE, "\" TOTP_AUTH\n");
            let code = code_now(SECRET);
            let (output, reached) = login_with_fault(&machine, "alice", &code, &format!("{calls}:{fault}:when={when}"));
            if !reached {
                break;
            }
            let used = fs::read_to_string(machine.path(&ALICE.secret_file())).unwrap().contains("DISALLOW_REUSE");
            match result(&output) {
                Some(SUCCESS) => assert!(used, "{calls} {fault} {when}: let in on a code that still works"),
                // Before or in libpam itself, the application is told otherwise, or ends.
                Some(_) | None => denied += 1,
            }
            assert_ne!(result(&output), Some(IGNORE), "{calls} {fault} {when}");
            let names = fs::read_dir(machine.path(&ALICE.home())).unwrap().count();
            assert_eq!(names, 1, "{calls} {fault} {when}: something is left in the home");
        }
    }
    assert!(denied > 60, "only {denied} faults were felt");
}

#[test]
fn with_nullok_no_fault_makes_an_enrolled_person_look_like_one_who_is_not() {
    let machine = machine("auth required pam_totp.so nullok\nauth required pam_permit.so\n");
    for (calls, fault) in FAULTS {
        // ENOENT for the file itself is what absence is; a kernel that lies about it cannot be told from the truth.
        if fault == "error=ENOENT" {
            continue;
        }
        for when in 1.. {
            machine.enrol(ALICE, "\" TOTP_AUTH\n");
            let (output, reached) =
                login_with_fault(&machine, "alice", "000000", &format!("{calls}:{fault}:when={when}"));
            if !reached {
                break;
            }
            assert_ne!(result(&output), Some(SUCCESS), "{calls} {fault} {when}: {output:?}");
        }
    }
}

#[test]
fn killed_at_any_call_a_wrong_guess_that_was_judged_has_been_counted() {
    let machine = machine(STACK);
    // In the file, where nothing else counts.
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[compat]\ngoogle = true\n");
    let charged = || machine.read(&ALICE.secret_file()).contains("\" RATE_LIMIT 3 30 1");
    let wrong = wrong_code(SECRET);
    for call in ["openat", "write", "fsync", "renameat,renameat2,rename", "unlinkat", "close", "sendto"] {
        for when in 1.. {
            machine.enrol(ALICE, "\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n");
            let (output, reached) =
                login_with_fault(&machine, "alice", &wrong, &format!("{call}:signal=KILL:when={when}"));
            if !reached {
                break;
            }
            if result(&output).is_some() {
                assert!(charged(), "{call} {when}: an answer was given for nothing");
            }
        }
    }
}

#[test]
fn a_limit_on_file_sizes_does_not_tell_a_right_guess_from_a_wrong_one() {
    need("prlimit", "util-linux");
    let machine = machine(STACK);
    let client = machine.client();
    // In the file, where nothing else counts.
    machine.write("/etc/security/pam_totp.toml", "version = 1\n[compat]\ngoogle = true\n");
    let lines = "\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n12345678\n";
    // Of all limits around the size of the file, none lets a right scratch code in (which makes the file smaller) without
    // having let a try be charged first (which makes it larger).
    let mut outcomes = Vec::new();
    for limit in 50..120 {
        let mut results = Vec::new();
        for code in ["87654321", "12345678"] {
            machine.enrol(ALICE, lines);
            let mut command = machine.command("prlimit");
            command
                .arg(format!("--fsize={limit}:unlimited"))
                .arg("--")
                .arg(&client)
                .args(["test", "alice", "--answer", code]);
            let result = result(&command.output().unwrap());
            results.push((result, machine.read(&ALICE.secret_file()).contains("RATE_LIMIT 3 30 1")));
        }
        let [(wrong, wrong_charged), (right, right_charged)] = results.as_slice() else { unreachable!() };
        assert_eq!(wrong_charged, right_charged, "limit {limit}");
        assert_eq!(*wrong, Some(AUTH_ERR), "limit {limit}");
        assert_eq!(*right == Some(SUCCESS), *right_charged, "limit {limit}");
        outcomes.push(*right_charged);
    }
    assert!(outcomes.contains(&true) && outcomes.contains(&false), "the limits miss the file's size");
}

#[test]
fn a_file_system_without_locks_is_locked_under_run() {
    let machine = machine(STACK);
    let code = code_now(SECRET);
    for (expected, error) in [(SUCCESS, "EBADF"), (AUTH_ERR, "ENOLCK")] {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        // The first flock is that of the file.
        let (output, reached) = login_with_fault(&machine, "alice", &code, &format!("flock:error={error}:when=1"));
        assert!(reached && result(&output) == Some(expected), "{output:?} {:#?}", machine.log());
    }
    let directory = machine.path("/run/pam_totp").metadata().unwrap();
    assert_eq!((directory.mode() & 0o7777, directory.uid()), (0o700, 0));
    let mut locks = fs::read_dir(machine.path("/run/pam_totp")).unwrap().map(|entry| entry.unwrap());
    let (lock, None) = (locks.next().unwrap(), locks.next()) else { panic!("more than one") };
    assert!(lock.file_name().to_str().unwrap().starts_with(&format!("home-{}-", ALICE.uid)));
    let lock = lock.metadata().unwrap();
    assert_eq!((lock.mode() & 0o7777, lock.uid(), lock.gid(), lock.size()), (0o600, 0, 0, 0));
    // Where that lock cannot be had either, nobody gets in.
    fs::set_permissions(machine.path("/run/pam_totp"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let _ = machine.log();
    let next = code_at(SECRET, now() + 30);
    let (output, _) = login_with_fault(&machine, "alice", &next, "flock:error=EBADF:when=1");
    assert_eq!(result(&output), Some(AUTH_ERR));
    assert!(machine.log()[1].contains("reason=not-kept"));
}

/// The calls of a right login, from the first look at the home on.
fn calls(machine: &Machine) -> Vec<String> {
    let trace = machine.shared().join("trace");
    let client = machine.client();
    let output = machine
        .command("strace")
        .args(["-f", "-qq", "-y", "-s", "200", "-o"])
        .args([&trace, &client])
        .args(["test", "alice", "--answer", &code_now(SECRET)])
        .output()
        .unwrap();
    assert_eq!(result(&output), Some(SUCCESS));
    let trace = fs::read_to_string(&trace).unwrap();
    let calls: Vec<_> = trace.lines().skip_while(|line| !line.contains("\"home\"")).map(str::to_owned).collect();
    assert!(calls.iter().any(|line| line.contains("google_authenticator")), "{trace}");
    calls
}

#[test]
fn files_are_opened_by_name_in_an_open_directory_without_blocking_and_without_following() {
    let calls = calls(&machine(STACK));
    let opened: Vec<_> =
        calls.iter().filter(|line| line.contains("google_authenticator") && line.contains("open")).collect();
    assert_eq!(opened.len(), 2, "the file, which is locked and read again as it is, and its successor: {opened:#?}");
    for line in opened {
        assert!(line.contains("O_NOFOLLOW") && line.contains("O_CLOEXEC"), "{line}");
        assert!(line.contains("O_NONBLOCK") || line.contains("O_EXCL"), "{line}");
        assert!(line.contains("\".google_authenticator"), "by its name alone: {line}");
    }
}

#[test]
fn the_new_file_is_on_disk_before_it_has_its_name_and_the_name_before_the_verdict() {
    let calls = calls(&machine(STACK));
    let position = |what: &str, is_it: &dyn Fn(&str) -> bool| {
        calls.iter().position(|line| is_it(line)).unwrap_or_else(|| panic!("no {what}: {calls:#?}"))
    };
    let order = [
        position("look without the lock", &|line| line.contains("read(") && line.contains("google_authenticator>")),
        position("lock", &|line| line.contains("flock(")),
        calls.iter().rposition(|line| line.contains("read(") && line.contains("google_authenticator>")).unwrap(),
        position("write", &|line| line.contains("write(") && line.contains("~pam_totp")),
        position("fsync of the file", &|line| line.contains("fsync(") && line.contains("~pam_totp")),
        position("rename", &|line| line.contains("rename")),
        position("fsync of the directory", &|line| line.contains("fsync(") && line.contains("/home/alice>")),
        position("verdict", &|line| line.contains("accepted user=alice")),
    ];
    assert!(order.is_sorted(), "{order:?} {calls:#?}");
}

#[test]
fn memory_or_descriptors_that_run_out_let_nobody_in_on_a_code_that_is_not_used_up() {
    need("prlimit", "util-linux");
    let machine = machine(STACK);
    let client = machine.client();
    // The ledger alone takes ten megabytes of addresses.
    let memory = (8..=120).step_by(2).map(|quarter_megabytes: u32| format!("--as={}", quarter_megabytes << 18));
    let descriptors = (3..=8).map(|count| format!("--nofile={count}"));
    let (mut accepted, mut denied) = (0, 0);
    for limit in memory.chain(descriptors) {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let mut command = machine.command("prlimit");
        command.arg(&limit).arg("--").arg(&client).args(["test", "alice", "--answer", &code_now(SECRET)]);
        let output = command.output().unwrap();
        let used = machine.read(&ALICE.secret_file()).contains("DISALLOW_REUSE");
        match result(&output) {
            Some(SUCCESS) => {
                assert!(used, "{limit}");
                accepted += 1;
            }
            Some(IGNORE | PERM_DENIED) => panic!("{limit}: {output:?}"),
            Some(_) | None => denied += 1,
        }
    }
    assert!(accepted > 3 && denied > 3, "{accepted} accepted, {denied} denied: the limits miss the mark");
}
