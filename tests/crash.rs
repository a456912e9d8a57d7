//! The root-only store on real file systems: when the power fails at any of its calls, and when the disk is full.

use crate::support::disk::{Disk, FileSystem, STATE};
use crate::support::machine::{AUTH_ERR, Machine, SUCCESS};
use crate::support::totp::{code_at, code_now, hotps, now};
use crate::support::{need, output_of, reasons};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::process::{Command, Output};

const POLICY: &str = "version = 1
[defaults]
store = \"system\"
state_dir = \"/run/state\"
[throttle]
user = \"\"
host = \"\"
";
/// Those that a power cut can do something to, and that promise to keep what was waited for.
const LASTING: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

fn machine() -> Machine {
    need("strace", "strace");
    let machine = Machine::new();
    machine.write("/etc/security/pam_totp.toml", POLICY);
    machine.service("test", "auth required pam_totp.so\n");
    machine
}

/// A program inside, with its arguments.
type Words = Vec<String>;

fn words(program: &std::path::Path, arguments: &[&str]) -> Words {
    let program = program.to_str().unwrap();
    [program].iter().chain(arguments).map(|&word| word.to_owned()).collect()
}

/// `pam-totp ARGUMENTS`.
fn tool(machine: &Machine, arguments: &[&str]) -> Words {
    words(&machine.program(), arguments)
}

/// A login of alice's.
fn login(machine: &Machine, code: &str) -> Words {
    words(&machine.client(), &["test", "alice", "--answer", code])
}

fn command(machine: &Machine, words: &Words) -> Command {
    let mut command = machine.command(&words[0]);
    command.args(&words[1..]);
    command
}

fn run(machine: &Machine, arguments: &[&str]) -> String {
    output_of(&mut command(machine, &tool(machine, arguments)))
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// What somebody was given who was enrolled.
struct Enrolled {
    secret: String,
    recovery_codes: Vec<String>,
}

const ENROL: [&str; 5] = ["enrol", "--user", "alice", "--no-confirm", "--json"];

impl Enrolled {
    fn new(machine: &Machine, more: &[&str]) -> Self {
        Self::printed(&run(machine, &[&ENROL, more].concat())).unwrap()
    }

    fn printed(text: &str) -> Option<Self> {
        let object = json(text)?;
        Some(Self { secret: object["secret"].as_str()?.to_owned(), recovery_codes: recovery_codes(&object) })
    }
}

fn recovery_codes(object: &Value) -> Vec<String> {
    let codes = object["recovery_codes"].as_array().unwrap();
    codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect()
}

/// Gives alice another device. Says what its secret is.
fn add(machine: &Machine, device: &str) -> String {
    let text = run(machine, &["device", "add", device, "--user", "alice", "--no-confirm", "--json"]);
    json(&text).unwrap()["secret"].as_str().unwrap().to_owned()
}

/// A disk with a store on it.
fn store(machine: &Machine, kind: FileSystem) -> Disk<'_> {
    let disk = Disk::new(machine, kind);
    let said = run(machine, &["setup", "store"]);
    assert!(said.contains("is a store now"), "{said}");
    disk
}

/// What became of a program.
struct Ran {
    output: Output,
    /// Whether it had done all that it does.
    is_done: bool,
}

impl Ran {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// libpam's code, where a login got so far as to say so.
    fn result(&self) -> Option<i32> {
        result(&self.output)
    }
}

fn result(output: &Output) -> Option<i32> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("result ")).and_then(|code| code.parse().ok())
}

/// Whether a code lets alice in. If not, it is for this reason and no other.
fn gets_in(machine: &Machine, code: &str, or: &[&str]) -> bool {
    let output = command(machine, &login(machine, code)).output().unwrap();
    if result(&output) == Some(SUCCESS) {
        return true;
    }
    let log = machine.log();
    let reason = reasons(&log).pop().unwrap_or_default();
    assert!(result(&output) == Some(AUTH_ERR) && or.contains(&reason.as_str()), "{output:?} {log:#?}");
    false
}

/// A call of a program: its name, and which of that name it is.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    number: usize,
}

/// Those that a commit is made of, and that tell somebody how it ended. Between two of them nothing changes.
const EVERY: &[&str] = &[
    "openat",
    "read",
    "write",
    "pwrite64",
    "fdatasync",
    "fsync",
    "renameat2",
    "linkat",
    "unlinkat",
    "fchown",
    "fchmod",
    "fcntl",
    "close",
    "sendto",
    "exit_group",
];
/// Those among them that change something, or wait for it.
const CHANGING: &[&str] =
    &["write", "pwrite64", "fdatasync", "fsync", "renameat2", "linkat", "unlinkat", "fchown", "exit_group"];
/// What comes after the verdict was logged is the caller's, but for these.
const LAST: [&str; 2] = ["write", "exit_group"];

/// What a program calls of what is watched, from its first look at the store on.
fn calls(machine: &Machine, words: &Words, watched: &[&str]) -> Vec<Call> {
    let trace = traced(machine, words, &[]);
    let names = trace.lines().filter_map(|line| Some((line.split_once(' ')?.1.trim_start().split_once('(')?.0, line)));
    let mut counts = HashMap::new();
    let (mut is_at_store, mut is_over) = (false, false);
    let mut calls = Vec::new();
    for (name, line) in names {
        let number = *counts.entry(name).and_modify(|count| *count += 1).or_insert(1);
        is_at_store |= line.contains("store.id");
        if is_at_store && watched.contains(&name) && (!is_over || LAST.contains(&name)) {
            calls.push(Call { name: name.to_owned(), number });
        }
        is_over |= is_at_store && name == "sendto";
    }
    calls
}

/// The calls of a program that runs to its end, as strace writes them down.
fn traced(machine: &Machine, words: &Words, options: &[&str]) -> String {
    let trace = machine.shared().join("trace");
    output_of(machine.command("strace").args(["-f", "-qq", "-o"]).arg(&trace).args(options).args(words));
    fs::read_to_string(&trace).unwrap()
}

/// Runs a program until it is killed when it is about to make this call.
fn killed_at(machine: &Machine, words: &Words, Call { name, number }: &Call) -> Ran {
    let trace = machine.shared().join("trace");
    let options = [format!("trace={name}"), format!("inject={name}:signal=KILL:when={number}")];
    let mut command = machine.command("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace);
    command.args(["-e", &options[0], "-e", &options[1]]).args(words);
    let output = command.output().unwrap();
    let trace = fs::read_to_string(&trace).unwrap();
    assert!(
        trace.contains("+++ killed by SIGKILL"),
        "{name} {number} of {words:?} was not reached: {trace} {output:?}"
    );
    Ran { output, is_done: name == "exit_group" }
}

/// Lets a program begin anew on the disk as it was saved, for each of its calls; kills it there, and fails the power. In
/// the end it is let run, and the power fails afterwards. `program` is asked for anew each time, and `check` sees the disk
/// that is left.
fn at_every_call<T>(
    disk: &Disk,
    watched: &[&str],
    mut program: impl FnMut() -> (Words, T),
    mut check: impl FnMut(&str, &Ran, &T),
) -> usize {
    let machine = disk.machine;
    disk.save();
    // The first one puts a copy of the policy aside.
    output_of(&mut command(machine, &program().0));
    disk.restore();
    let calls = calls(machine, &program().0, watched);
    let mut ends = 0;
    for call in &calls {
        disk.restore();
        let (words, about) = program();
        let ran = killed_at(machine, &words, call);
        disk.crash();
        check(&format!("{:?}: killed at {} {}", disk.kind, call.name, call.number), &ran, &about);
        ends += usize::from(ran.is_done);
    }
    disk.restore();
    let (words, about) = program();
    let output = command(machine, &words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    disk.crash();
    check(&format!("{:?}: not killed", disk.kind), &Ran { output, is_done: true }, &about);
    assert_eq!(ends, 1, "the last call is that to exit: {calls:?}");
    calls.len()
}

#[test]
fn a_login_killed_at_any_call_leaves_the_old_record_or_the_new_one_and_a_spent_code_stays_spent() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let alice = Enrolled::new(&machine, &[]);
        let (mut old, mut new) = (0, 0);
        let killed = at_every_call(
            &disk,
            EVERY,
            || {
                let code = code_now(&alice.secret);
                (login(&machine, &code), code)
            },
            |when, ran, code| {
                let got_in = gets_in(&machine, code, &["used-code"]);
                assert!(!(got_in && ran.result() == Some(SUCCESS)), "{when}: a spent code came back");
                assert!(ran.result().is_none_or(|result| result == SUCCESS), "{when}: {}", ran.text());
                *(if got_in { &mut old } else { &mut new }) += 1;
                let next = code_at(&alice.secret, now() + 30);
                assert!(gets_in(&machine, &next, &[]), "{when}");
            },
        );
        assert!(killed > 20 && old > 5 && new > 2, "{kind:?}: {killed} kills, {old} old records and {new} new ones");
    }
}

/// A login that is killed when the names are exchanged, but perhaps not on disk.
fn killed_between_exchange_and_sync(machine: &Machine, words: &Words, calls: &[Call]) {
    let exchange = calls.iter().position(|call| call.name == "renameat2").unwrap();
    let sync = &calls[exchange + 1];
    assert_eq!(sync.name, "fsync", "{calls:?}");
    killed_at(machine, words, sync);
}

/// The calls of a login on a disk that is saved, and will be as it was.
fn calls_of_a_login(disk: &Disk, secret: &str) -> Vec<Call> {
    let machine = disk.machine;
    disk.save();
    output_of(&mut command(machine, &login(machine, &code_now(secret))));
    disk.restore();
    let calls = calls(machine, &login(machine, &code_now(secret)), CHANGING);
    disk.restore();
    calls
}

#[test]
fn a_login_killed_after_one_that_was_killed_before_its_names_were_on_disk_leaves_a_whole_record_too() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let alice = Enrolled::new(&machine, &[]);
        let calls = calls_of_a_login(&disk, &alice.secret);
        at_every_call(
            &disk,
            CHANGING,
            || {
                let second = code_now(&alice.secret);
                let first = code_at(&alice.secret, now() - 30);
                killed_between_exchange_and_sync(&machine, &login(&machine, &first), &calls);
                (login(&machine, &second), [first, second])
            },
            |when, ran, codes| {
                let got_in = codes.each_ref().map(|code| gets_in(&machine, code, &["used-code"]));
                // Neither used, the first, or both: the second comes later.
                assert!(got_in[1] || !got_in[0], "{when}: {got_in:?}");
                // From its own wait on, what the first stored has the name on disk, and the sibling is free.
                assert!(!got_in[0] || when.ends_with("at fsync 1"), "{when}: half of a write would be the record");
                assert!(ran.result().is_none() || got_in == [false; 2], "{when}: a spent code came back: {got_in:?}");
                assert!(gets_in(&machine, &code_at(&alice.secret, now() + 30), &[]), "{when}");
            },
        );
    }
}

/// The order in which a login waits for the directory (`false`) and writes over the sibling (`true`).
fn syncs_and_writes(machine: &Machine, code: &str) -> Vec<bool> {
    let trace = traced(machine, &login(machine, code), &["-y"]);
    let is_sync = |line: &str| line.contains(" fsync(") && line.contains("/records>");
    let is_write = |line: &str| line.contains(" pwrite64(") && line.contains("/records/alice~>");
    trace.lines().filter(|line| is_sync(line) || is_write(line)).map(is_write).collect()
}

#[test]
fn what_is_written_over_is_on_disk_under_the_siblings_name() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let alice = Enrolled::new(&machine, &[]);
        let calls = calls_of_a_login(&disk, &alice.secret);
        let now_and_next = || (code_now(&alice.secret), code_at(&alice.secret, now() + 30));
        // One that was not killed has waited, and the next need not do so again.
        let (first, second) = now_and_next();
        output_of(&mut command(&machine, &login(&machine, &first)));
        assert_eq!(syncs_and_writes(&machine, &second), [true, false]);
        disk.restore();
        let (first, second) = now_and_next();
        killed_between_exchange_and_sync(&machine, &login(&machine, &first), &calls);
        assert_eq!(syncs_and_writes(&machine, &second), [false, true, false]);
    }
}

#[test]
fn a_spent_recovery_code_stays_spent() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let alice = Enrolled::new(&machine, &[]);
        let [code, other, ..] = alice.recovery_codes.as_slice() else { panic!("no recovery codes") };
        at_every_call(
            &disk,
            CHANGING,
            || (login(&machine, code), ()),
            |when, ran, ()| {
                let got_in = gets_in(&machine, code, &["wrong-code"]);
                assert!(!(got_in && ran.result() == Some(SUCCESS)), "{when}: a spent code came back");
                assert!(!gets_in(&machine, code, &["wrong-code"]), "{when}: twice");
                assert!(gets_in(&machine, other, &[]), "{when}");
                assert!(gets_in(&machine, &code_now(&alice.secret), &[]), "{when}");
            },
        );
    }
}

/// Where a text is in the files of the store.
fn places(disk: &Disk, text: &str) -> String {
    disk.shell(&format!("grep -rlF {text} {STATE} || :"))
}

/// Whether a text is anywhere on the device, in a file or not.
fn is_on_device(disk: &Disk, text: &str) -> bool {
    disk.shell(&format!("grep -cF {text} live || :")).trim() != "0"
}

#[test]
fn a_removed_device_stays_removed_and_its_secret_is_nowhere() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let phone = Enrolled::new(&machine, &[]).secret;
        let tablet = add(&machine, "tablet");
        assert!(is_on_device(&disk, &tablet), "it would be found");
        at_every_call(
            &disk,
            CHANGING,
            || (tool(&machine, &["device", "remove", "tablet", "--user", "alice"]), ()),
            |when, ran, ()| {
                let is_removed = ran.is_done || ran.text().contains("removed");
                if is_removed {
                    assert_eq!(places(&disk, &tablet), "", "{when}");
                    assert!(!is_on_device(&disk, &tablet), "{when}");
                    assert_ne!(places(&disk, &phone), "", "{when}");
                }
                let got_in = gets_in(&machine, &code_now(&tablet), &["wrong-code"]);
                assert!(!(got_in && is_removed), "{when}: a removed device came back");
                assert!(gets_in(&machine, &code_now(&phone), &[]), "{when}");
            },
        );
    }
}

#[test]
fn new_recovery_codes_take_the_place_of_all_old_ones_or_of_none() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let alice = Enrolled::new(&machine, &[]);
        let hash = hashes(&disk).remove(0);
        at_every_call(
            &disk,
            CHANGING,
            || (tool(&machine, &["recovery", "new", "--user", "alice", "--json"]), ()),
            |when, ran, ()| {
                if ran.is_done {
                    assert_eq!(places(&disk, &hash), "", "{when}");
                }
                // What was not shown yet is not stored yet.
                let new = json(&ran.text()).map_or(Vec::new(), |object| recovery_codes(&object));
                let old = gets_in(&machine, &alice.recovery_codes[0], &["wrong-code"]);
                assert!(!(old && ran.is_done), "{when}: old ones came back");
                assert!(old || !new.is_empty(), "{when}: none that anybody has seen");
                if let Some(code) = new.first() {
                    assert_eq!(gets_in(&machine, code, &["wrong-code"]), !old, "{when}");
                }
                assert!(gets_in(&machine, &code_now(&alice.secret), &[]), "{when}");
            },
        );
    }
}

/// The hashes of alice's recovery codes.
fn hashes(disk: &Disk) -> Vec<String> {
    let record = disk.machine.read(&format!("{STATE}/records/alice"));
    let (_, hashes) = record.split_once("hashes = [").unwrap();
    let (hashes, _) = hashes.split_once(']').unwrap();
    hashes.split(',').map(|hash| hash.trim().trim_matches('"').to_owned()).collect()
}

#[test]
fn a_first_enrolment_leaves_a_whole_record_or_none() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let (mut none, mut whole) = (0, 0);
        at_every_call(
            &disk,
            CHANGING,
            || (tool(&machine, &ENROL), ()),
            |when, ran, ()| {
                let secret = Enrolled::printed(&ran.text()).map(|alice| alice.secret);
                let code = secret.as_deref().map_or("000000".to_owned(), code_now);
                if gets_in(&machine, &code, &["not-enrolled", "record-gone"]) {
                    whole += 1;
                } else {
                    assert!(!ran.is_done, "{when}: what was stored is gone");
                    none += 1;
                    // What is left does not stand in the way.
                    let again = Enrolled::new(&machine, &[]);
                    assert!(gets_in(&machine, &code_now(&again.secret), &[]), "{when}");
                }
            },
        );
        assert!(none > 2 && whole > 1, "{kind:?}: {none} without a record, {whole} with one");
    }
}

#[test]
fn an_enrolment_that_was_killed_leaves_no_other_name_of_a_secret_that_is_removed_later() {
    let machine = machine();
    let disk = store(&machine, FileSystem::Ext4);
    disk.save();
    let enrol = tool(&machine, &ENROL);
    let calls = calls(&machine, &enrol, CHANGING);
    let link = calls.iter().position(|call| call.name == "linkat").unwrap();
    for call in &calls[link + 1..] {
        for remove in [&["remove"][..], &["device", "remove", "phone", "--force"]] {
            disk.restore();
            let secret = Enrolled::printed(&killed_at(&machine, &enrol, call).text()).unwrap().secret;
            // Two, so that the record's first file has been its sibling and was replaced.
            assert!(gets_in(&machine, &code_now(&secret), &[]), "{call:?}");
            assert!(gets_in(&machine, &code_at(&secret, now() + 30), &[]), "{call:?}");
            run(&machine, &[remove, &["--user", "alice"]].concat());
            assert_eq!(places(&disk, &secret), "", "{call:?} {remove:?}");
            assert!(!is_on_device(&disk, &secret), "{call:?} {remove:?}");
        }
    }
}

#[test]
fn an_enrolment_in_the_place_of_another_leaves_the_one_or_the_other() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let old = Enrolled::new(&machine, &[]);
        at_every_call(
            &disk,
            CHANGING,
            || (tool(&machine, &[&ENROL[..], &["--force"]].concat()), ()),
            |when, ran, ()| {
                if ran.is_done {
                    assert_eq!(places(&disk, &old.secret), "", "{when}");
                    assert!(!is_on_device(&disk, &old.secret), "{when}");
                }
                let is_old = gets_in(&machine, &code_now(&old.secret), &["wrong-code"]);
                assert!(!(is_old && ran.is_done), "{when}: the old record came back");
                if let Some(new) = Enrolled::printed(&ran.text()) {
                    assert_eq!(gets_in(&machine, &code_now(&new.secret), &["wrong-code"]), !is_old, "{when}");
                } else {
                    assert!(is_old, "{when}: a secret that nobody has seen");
                }
            },
        );
    }
}

#[test]
fn a_removed_record_stays_removed_and_its_secret_is_nowhere() {
    let machine = machine();
    for kind in LASTING {
        let disk = store(&machine, kind);
        let alice = Enrolled::new(&machine, &[]);
        assert!(gets_in(&machine, &code_now(&alice.secret), &[]));
        at_every_call(
            &disk,
            CHANGING,
            || (tool(&machine, &["remove", "--user", "alice"]), ()),
            |when, ran, ()| {
                let code = code_at(&alice.secret, now() + 30);
                let got_in = gets_in(&machine, &code, &["record-gone"]);
                assert!(!(got_in && ran.is_done), "{when}: it came back");
                if ran.is_done {
                    assert_eq!(places(&disk, &alice.secret), "", "{when}");
                    assert!(!is_on_device(&disk, &alice.secret), "{when}");
                }
            },
        );
    }
}

// ---- Full disks ----

const LOGINS: u64 = 1000;
/// How far ahead a counter-based code may be.
const AHEAD: usize = 3;

/// Logins one after the other, without a process of ours for each. Returns libpam's codes.
fn logins(machine: &Machine, codes: &[String]) -> Vec<i32> {
    fs::write(machine.shared().join("codes"), codes.join("\n") + "\n").unwrap();
    let script = r#"while read -r code; do "$1" test alice --answer "$code" </dev/null; done <"$2""#;
    let mut command = machine.command("sh");
    command.args(["-c", script, "sh"]).args([machine.client(), machine.shared().join("codes")]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.strip_prefix("result ")?.parse().ok()).collect()
}

/// Codes to be typed, and what becomes of them: each lets alice in, and every twentieth and the last not once more.
fn codes_and_replays(secret: &str) -> (Vec<String>, Vec<i32>) {
    let codes = hotps(secret, 1, LOGINS + AHEAD as u64);
    let (mut typed, mut expected) = (Vec::new(), Vec::new());
    for number in 0..LOGINS as usize {
        typed.push(codes[number].clone());
        expected.push(SUCCESS);
        let is_sampled = number % 20 == 19 && !codes[number + 1..=number + AHEAD].contains(&codes[number]);
        if is_sampled {
            typed.push(codes[number].clone());
            expected.push(AUTH_ERR);
        }
    }
    (typed, expected)
}

fn a_thousand_get_in_on_a_full(kind: FileSystem) {
    let machine = machine();
    let disk = store(&machine, kind);
    let alice = Enrolled::new(&machine, &["--counter-based"]);
    disk.fill();
    let left: u64 = disk.shell(&format!("stat -f -c %a {STATE}")).trim().parse().unwrap();
    assert!(left < 8, "{kind:?}: {left} blocks are left");
    let (typed, expected) = codes_and_replays(&alice.secret);
    let results = logins(&machine, &typed);
    let first = results.iter().zip(&expected).position(|(one, other)| one != other);
    assert!(results == expected, "{kind:?}: {} logins, the first that differs is {first:?}", results.len());
    assert!(expected.len() > LOGINS as usize + 40);
    // It is still full, and the ledger was not moved away.
    disk.shell(&format!("! cp /bin/sh {STATE}/more 2>/dev/null"));
    assert!(machine.log().iter().all(|line| !line.contains("ledger-")), "{kind:?}");
}

#[test]
fn a_thousand_logins_on_a_full_ext4_each_succeed_and_use_their_code_up() {
    a_thousand_get_in_on_a_full(FileSystem::Ext4);
}

#[test]
fn a_thousand_logins_on_a_full_xfs_each_succeed_and_use_their_code_up() {
    a_thousand_get_in_on_a_full(FileSystem::Xfs);
}

#[test]
fn a_thousand_logins_on_a_full_tmpfs_each_succeed_and_use_their_code_up() {
    a_thousand_get_in_on_a_full(FileSystem::Memory);
}

#[test]
fn a_full_btrfs_lets_in_or_denies_with_a_reason_and_then_the_code_still_works() {
    // The ledger needs room too. With one that has it, it is the record that finds none.
    for reason in ["ledger-error", "file-error"] {
        let machine = machine();
        let disk = Disk::new(&machine, FileSystem::Btrfs);
        let said = run(&machine, &["setup", "store"]);
        assert!(said.contains("btrfs: it copies on write"), "{said}");
        let alice = Enrolled::new(&machine, &["--counter-based"]);
        if reason == "file-error" {
            disk.shell(&format!("cp {STATE}/ledger-1 /run/ledger && mount --bind /run/ledger {STATE}/ledger-1"));
        }
        disk.fill();
        let codes = hotps(&alice.secret, 1, 40);
        let (mut next, mut denied) = (0, Vec::new());
        for _ in 0..10 {
            let _ = machine.log();
            match logins(&machine, &codes[next..=next])[..] {
                [SUCCESS] => {
                    next += 1;
                    assert_eq!(logins(&machine, &codes[next - 1..next]), [AUTH_ERR]);
                }
                [AUTH_ERR] => denied.extend(reasons(&machine.log()).pop()),
                ref other => panic!("{other:?}: {:#?}", machine.log()),
            }
        }
        assert!(denied.len() > 5 && denied.iter().all(|denial| denial == reason), "{next} got in, {denied:?}");
        assert_eq!(next + denied.len(), 10, "each denial says why");
        disk.empty();
        assert_eq!(logins(&machine, &codes[next..=next]), [SUCCESS]);
        assert_eq!(logins(&machine, &codes[next..=next]), [AUTH_ERR]);
    }
}

// ---- What a file system may not be able to do ----

/// A program during which names cannot be exchanged.
fn without_exchange(machine: &Machine, words: &Words) -> Output {
    let mut command = machine.command("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat2", "-e", "inject=renameat2:error=EINVAL"]);
    command.args(words).output().unwrap()
}

#[test]
fn where_names_cannot_be_exchanged_there_is_no_store_and_no_login() {
    let machine = machine();
    let output = without_exchange(&machine, &tool(&machine, &["setup", "store"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-exchange"), "{output:?}");
    assert!(!machine.path(&format!("{STATE}/store.id")).exists());
    let output = command(&machine, &tool(&machine, &ENROL)).output().unwrap();
    assert!(!output.status.success());
    run(&machine, &["setup", "store"]);
    let alice = Enrolled::new(&machine, &[]);
    let code = code_now(&alice.secret);
    let _ = machine.log();
    let output = without_exchange(&machine, &login(&machine, &code));
    let log = machine.log();
    assert_eq!(result(&output), Some(AUTH_ERR), "{output:?}");
    assert_eq!(reasons(&log), ["file-error"], "{log:#?}");
    assert!(gets_in(&machine, &code, &[]));
    assert!(!gets_in(&machine, &code, &["used-code"]));
}

#[test]
fn setup_says_that_it_does_not_know_an_overlay_and_codes_work_once_there_in_either_layer() {
    let machine = machine();
    let shell = |script: &str| output_of(machine.command("sh").args(["-ec", script]));
    let mount = format!(
        "mkdir -p /run/lower /run/upper /run/work {STATE}
         mount -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work overlay {STATE}"
    );
    shell(&mount);
    let said = run(&machine, &["setup", "store"]);
    assert!(said.contains("not known here"), "{said}");
    let alice = Enrolled::new(&machine, &[]);
    let works_once = |code: &str| {
        assert!(gets_in(&machine, code, &[]));
        assert!(!gets_in(&machine, code, &["used-code"]));
    };
    works_once(&code_now(&alice.secret));
    // The same once more, now of a lower layer: everything is copied up when it is written to.
    shell(&format!("umount {STATE}; rm -rf /run/lower /run/work; mv /run/upper /run/lower; {mount}"));
    works_once(&code_at(&alice.secret, now() + 30));
}
