//! The root-only store on real file systems: when the power fails at any of its calls, and when the disk is full.

use crate::support::disk::{Disk, FileSystem, STATE};
use crate::support::machine::{AUTH_ERR, Machine, SUCCESS};
use crate::support::totp::{code_at, code_now, now};
use crate::support::{dist, need, output_of, reasons};
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
    fs::copy(dist("pam-totp"), machine.shared().join("pam-totp")).unwrap();
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
    words(&machine.shared().join("pam-totp"), arguments)
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
const WATCHED: [&str; 15] = [
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
/// What comes after the verdict was logged is the caller's, but for these.
const LAST: [&str; 2] = ["write", "exit_group"];

/// What a program calls, from its first look at the store on.
fn calls(machine: &Machine, words: &Words) -> Vec<Call> {
    let trace = traced(machine, words, &[]);
    let names = trace.lines().filter_map(|line| Some((line.split_once(' ')?.1.trim_start().split_once('(')?.0, line)));
    let mut counts = HashMap::new();
    let (mut is_at_store, mut is_over) = (false, false);
    let mut calls = Vec::new();
    for (name, line) in names {
        let number = *counts.entry(name).and_modify(|count| *count += 1).or_insert(1);
        is_at_store |= line.contains("store.id");
        if is_at_store && WATCHED.contains(&name) && (!is_over || LAST.contains(&name)) {
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
    assert!(trace.contains("+++ killed by SIGKILL"), "{name} {number} of {words:?} was not reached: {trace} {output:?}");
    Ran { output, is_done: name == "exit_group" }
}

/// Lets a program begin anew on the disk as it was saved, for each of its calls; kills it there, and fails the power. In
/// the end it is let run, and the power fails afterwards. `program` is asked for anew each time, and `check` sees the disk
/// that is left.
fn at_every_call<T>(
    disk: &Disk,
    mut program: impl FnMut() -> (Words, T),
    mut check: impl FnMut(&str, &Ran, &T),
) -> usize {
    let machine = disk.machine;
    disk.save();
    // The first one puts a copy of the policy aside.
    output_of(&mut command(machine, &program().0));
    disk.restore();
    let calls = calls(machine, &program().0);
    let mut changed = 0;
    for call in &calls {
        disk.restore();
        let (words, about) = program();
        let ran = killed_at(machine, &words, call);
        disk.crash();
        check(&format!("{:?}: killed at {} {}", disk.kind, call.name, call.number), &ran, &about);
        changed += usize::from(ran.is_done);
    }
    disk.restore();
    let (words, about) = program();
    let output = command(machine, &words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    disk.crash();
    check(&format!("{:?}: not killed", disk.kind), &Ran { output, is_done: true }, &about);
    assert_eq!(changed, 1, "the last call is that to exit: {calls:?}");
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
        eprintln!("{kind:?}: {killed} kills, {old} old records and {new} new ones");
    }
}
