//! `pam-totp setup` on a machine with a real sshd: the way there, the way back, and what is left of one that was killed.

use crate::support::machine::{ALICE, BOB, Machine};
use crate::support::root_only::{POLICY, STATE, next_code, run, secret, totp};
use crate::support::ssh::Sshd;
use crate::support::totp::code_now;
use crate::support::{need, output_of, screen, soak};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

const STACK: &str = "/etc/pam.d/sshd";
const SNIPPET: &str = "/etc/ssh/sshd_config.d/00-pam_totp.conf";
const JOURNAL: &str = "/var/lib/pam_totp/setup.json";
const UNIT: &str = "/etc/systemd/system/pam-totp-rollback.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/pam-totp-rollback.service";
/// What Debian's sshd_config says, and Debian's stack.
const CONFIG: &str = "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\nUsePAM yes\n";
const DEBIAN: &str = "@include common-auth\naccount    required     pam_nologin.so\n@include common-account\n\
                      @include common-session\n@include common-password\n";

/// A Debian as it comes, but for the stack's lines that a container has no use for.
pub(crate) fn debian() -> Machine {
    let machine = Machine::new();
    machine.write(STACK, DEBIAN);
    for directory in ["/etc/ssh/sshd_config.d", "/etc/systemd/system"] {
        machine.make_directory(directory, 0o755, 0);
    }
    machine
}

pub(crate) fn start(machine: &Machine) -> Sshd<'_> {
    Sshd::start_with(machine, |common| format!("{CONFIG}{common}"))
}

fn read(machine: &Machine, path: &str) -> Option<String> {
    fs::read_to_string(machine.path(path)).ok()
}

/// By which methods sshd lets one begin, now.
fn offered(sshd: &Sshd) -> String {
    let session = sshd.login_with("alice", &sshd.key(ALICE), &[], &["-o", "PreferredAuthentications=none"]);
    let (_, methods) = session.errors.rsplit_once("Permission denied (").unwrap_or_else(|| panic!("{session:?}"));
    methods.split(')').next().unwrap().to_owned()
}

const ANY: &str = "publickey,password";

/// A password by itself: what lets in before, and never after.
fn gets_in_by_password(sshd: &Sshd) -> bool {
    let options = ["-o", "PreferredAuthentications=password", "-o", "PubkeyAuthentication=no"];
    sshd.login_with("alice", &sshd.key(ALICE), &["password"], &options).succeeded
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Fails where the program does not refuse.
fn refused(machine: &Machine, arguments: &[&str]) -> String {
    let output = run(machine, arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

/// As it was before: the files, sshd, and nothing left over.
fn assert_as_before(machine: &Machine, sshd: &Sshd, when: &str) {
    assert_eq!(read(machine, STACK).as_deref(), Some(DEBIAN), "{when}");
    assert_eq!(read(machine, SNIPPET), None, "{when}");
    assert_eq!(offered(sshd), ANY, "{when}");
    assert_nothing_is_left(machine, when);
}

fn assert_nothing_is_left(machine: &Machine, when: &str) {
    for path in [JOURNAL, UNIT, WANTED] {
        assert!(fs::symlink_metadata(machine.path(path)).is_err(), "{when}: {path}");
    }
    for directory in ["/etc/pam.d", "/etc/ssh/sshd_config.d", STATE] {
        let names = fs::read_dir(machine.path(directory)).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names
            .filter(|name| {
                name.to_string_lossy().contains("setup.json.new") || name.to_string_lossy().contains("pam-totp-setup")
            })
            .collect();
        assert!(left.is_empty(), "{when}: {left:?}");
    }
}

/// Waits until nothing waits to be confirmed.
fn when_over(machine: &Machine) {
    let begin = Instant::now();
    while machine.path(JOURNAL).exists() || machine.path(UNIT).exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not rolled back: {:#?}", machine.log());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn from_a_fresh_debian_to_key_and_code_and_back() {
    let machine = debian();
    let sshd = start(&machine);
    assert!(gets_in_by_password(&sshd));
    let shown = totp(&machine, &["setup", "sshd", "--dry-run"]);
    assert!(
        shown.contains("-@include common-auth\n") && shown.contains("+AuthenticationMethods publickey,keyboard-"),
        "{shown}"
    );
    assert_as_before(&machine, &sshd, "a dry run");
    assert!(!machine.path(POLICY).exists());

    let shown = totp(&machine, &["setup", "sshd"]);
    assert!(shown.contains("Log in from a second terminal now") && shown.contains("within 5m keeps it"), "{shown}");
    assert!(shown.contains("password logins end"), "{shown}");
    assert!(machine.read(UNIT).contains("/pam-totp setup watch\n"));
    assert!(fs::symlink_metadata(machine.path(WANTED)).unwrap().is_symlink());
    assert_eq!(offered(&sshd), "publickey");
    assert!(!gets_in_by_password(&sshd));
    let mut client = sshd.talk("alice", &sshd.key(ALICE), &[]);
    let mut typed = String::new();
    client.reply(|shown| {
        typed = secret(&screen::scan(shown));
        code_now(&typed)
    });
    let session = client.finish();
    assert!(session.succeeded && session.output == "in as alice\n", "{session:?} {:#?}", machine.log());
    assert!(refused(&machine, &["setup", "sudo"]).contains("`pam-totp setup sshd` waits for an answer"));
    let shown = totp(&machine, &["setup", "confirm"]);
    assert!(shown.contains("is confirmed"), "{shown}");
    assert_nothing_is_left(&machine, "confirmed");
    assert!(refused(&machine, &["setup", "confirm"]).contains("nothing to confirm"));
    assert!(!sshd.login(BOB, &[]).succeeded, "a key alone is not enough");
    assert!(sshd.login(ALICE, &[&next_code(&typed)]).succeeded);

    let before = read(&machine, STACK);
    let shown = totp(&machine, &["setup", "sshd"]);
    assert!(shown.contains("nothing to do"), "{shown}");
    assert_eq!(read(&machine, STACK), before);
    assert!(!machine.path(JOURNAL).exists());

    totp(&machine, &["setup", "sshd", "--remove"]);
    totp(&machine, &["setup", "confirm"]);
    assert_as_before(&machine, &sshd, "removed");
    assert!(gets_in_by_password(&sshd));
}

#[test]
fn what_nobody_confirms_is_rolled_back_and_the_log_says_so() {
    let machine = debian();
    let sshd = start(&machine);
    let _ = machine.log();
    totp(&machine, &["setup", "sshd", "--confirm-within", "2s"]);
    assert_eq!(offered(&sshd), "publickey");
    when_over(&machine);
    assert_as_before(&machine, &sshd, "not confirmed");
    assert!(gets_in_by_password(&sshd));
    let log = machine.log();
    assert!(log.iter().any(|line| line.contains("was not confirmed, and is rolled back: ")), "{log:#?}");
    // At once, for somebody who does not want to wait.
    totp(&machine, &["setup", "sshd"]);
    let shown = totp(&machine, &["setup", "rollback"]);
    assert!(shown.contains("is rolled back: /etc/ssh/sshd_config.d/00-pam_totp.conf, /etc/pam.d/sshd"), "{shown}");
    assert_as_before(&machine, &sshd, "rolled back by hand");
    // A time that is over is over, also where no watcher is left to say so.
    totp(&machine, &["setup", "sshd", "--confirm-within", "1s"]);
    output_of(machine.command("sh").args(["-c", "kill -KILL $(pgrep -f 'setup watc[h]')"]));
    thread::sleep(Duration::from_millis(2100));
    assert!(machine.path(JOURNAL).exists());
    assert!(refused(&machine, &["setup", "confirm"]).contains("too late"));
    assert_as_before(&machine, &sshd, "too late");
}

#[test]
fn after_a_reboot_the_unit_rolls_back_at_once() {
    let machine = debian();
    let sshd = start(&machine);
    totp(&machine, &["setup", "sshd", "--confirm-within", "1h"]);
    output_of(machine.command("sh").args(["-c", "kill -KILL $(pgrep -f 'setup watc[h]')"]));
    let journal = machine.read(JOURNAL);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    machine.write_as(JOURNAL, journal.replace(boot.trim(), "00000000-0000-0000-0000-000000000000"), 0, 0o600);
    let unit = machine.read(UNIT);
    let program = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    output_of(machine.command("timeout").args(["20", "sh", "-c", program]));
    assert_as_before(&machine, &sshd, "rebooted");
}

#[test]
fn a_file_that_somebody_else_changed_is_not_restored() {
    let machine = debian();
    let sshd = start(&machine);
    totp(&machine, &["setup", "sshd"]);
    let by_hand = machine.read(STACK) + "# mine\n";
    machine.write(STACK, &by_hand);
    let _ = machine.log();
    let shown = refused(&machine, &["setup", "rollback"]);
    assert!(shown.contains("STOPPED HALFWAY: /etc/pam.d/sshd was changed by somebody else"), "{shown}");
    assert!(machine.log().iter().any(|line| line.contains("STOPPED HALFWAY")));
    assert_eq!(machine.read(STACK), by_hand);
    // Keys get in, and nothing else.
    assert_eq!(offered(&sshd), "publickey");
    assert!(sshd.login(BOB, &[]).succeeded);
    assert!(!gets_in_by_password(&sshd));
    assert!(machine.path("/var/lib/pam_totp/setup.stopped.json").exists());
}

#[test]
fn sudo_and_su_ask_for_the_code_before_the_password() {
    let machine = debian();
    for service in ["sudo", "su"] {
        let before = machine.read(&format!("/etc/pam.d/{service}"));
        totp(&machine, &["setup", service]);
        totp(&machine, &["setup", "confirm"]);
        let login = machine.login(service, "alice").answer("000000").answer("password").run();
        let questions: Vec<_> = login.prompts.iter().map(|prompt| prompt.contains("Verification code")).collect();
        // Whoever calls is root, whom su never asks.
        assert_eq!(questions, if service == "su" { vec![] } else { vec![true, false] }, "{login:?}");
        totp(&machine, &["setup", service, "--remove"]);
        totp(&machine, &["setup", "confirm"]);
        assert_eq!(machine.read(&format!("/etc/pam.d/{service}")), before);
    }
}

#[test]
fn where_etc_cannot_be_written_it_refuses_before_anything_is_changed() {
    let machine = debian();
    let sshd = start(&machine);
    output_of(
        machine.command("sh").args(["-c", "mount --bind /etc/pam.d /etc/pam.d && mount -o remount,ro,bind /etc/pam.d"]),
    );
    let shown = refused(&machine, &["setup", "sshd"]);
    assert!(
        shown.contains("/etc/pam.d/sshd cannot be written, and nothing was changed: Read-only file system"),
        "{shown}"
    );
    assert_as_before(&machine, &sshd, "read-only");
    assert!(!machine.path(POLICY).exists() && !machine.path(&format!("{STATE}/store.id")).exists());
}

#[test]
fn nobody_but_root_sets_up_and_an_sshd_with_settings_of_its_own_is_left_alone() {
    let machine = debian();
    let mut command = machine.command_as(ALICE, machine.program());
    let output = command.args(["setup", "sshd"]).output().unwrap();
    assert!(said(&output).contains("only root can"), "{output:?}");
    let sshd = start(&machine);
    machine.write("/run/other", machine.read("/etc/ssh/sshd_config").replace("Port ", "#Port "));
    let other = "/usr/sbin/sshd -f /run/other -p 2 -o ListenAddress=127.0.0.77";
    output_of(machine.command("sh").args(["-c", other]));
    let shown = refused(&machine, &["setup", "sshd"]);
    assert!(shown.contains("goes by /run/other, which setup does not know"), "{shown}");
    assert_as_before(&machine, &sshd, "another sshd");
}

#[test]
fn where_nobody_can_read_what_is_about_to_be_written_nothing_is() {
    let machine = debian();
    let sshd = start(&machine);
    let output = machine.command(machine.program()).args(["setup", "sshd"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("cannot be shown, and nothing was changed"), "{output:?}");
    assert_as_before(&machine, &sshd, "nowhere to show it");
    assert!(!machine.path(POLICY).exists());
}

fn full() -> fs::File {
    fs::File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn what_systemd_runs_is_roots_alone_whatever_the_umask() {
    let machine = debian();
    let _sshd = start(&machine);
    let program = machine.program();
    output_of(machine.command("sh").args(["-c", "umask 0; exec \"$0\" setup sshd"]).arg(program));
    for path in [UNIT, "/etc/systemd/system/multi-user.target.wants", STACK, SNIPPET, POLICY, STATE, JOURNAL] {
        let mode = fs::metadata(machine.path(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{path}: {mode:o}");
    }
    totp(&machine, &["setup", "rollback"]);
}

#[test]
fn a_user_with_a_program_that_is_called_sshd_is_in_nobodys_way() {
    let machine = debian();
    let sshd = start(&machine);
    output_of(machine.command_as(ALICE, "cp").args(["/bin/sh", "/home/alice/sshd"]));
    let mut users = Vec::new();
    for name in ["sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "sshd: [net]", "sshd"] {
        let script = "exec -a \"$0\" /home/alice/sshd -c 'sleep 60; :' -f /tmp/else";
        users.push(machine.command_as(ALICE, "bash").args(["-c", script, name]).spawn().unwrap());
    }
    thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    totp(&machine, &["setup", "sshd"]);
    assert_eq!(offered(&sshd), "publickey");
    totp(&machine, &["setup", "rollback"]);
    assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    assert_as_before(&machine, &sshd, "with sshds of a user's");
    for mut user in users {
        user.kill().unwrap();
        user.wait().unwrap();
    }
}

#[test]
fn a_rollback_that_finds_the_disk_full_is_done_when_there_is_room() {
    let machine = debian();
    let sshd = start(&machine);
    let small = "cp -a /etc/pam.d /run/old && mount -t tmpfs -o size=1m,mode=755 none /etc/pam.d && cp -a /run/old/. /etc/pam.d";
    output_of(machine.command("sh").args(["-c", small]));
    totp(&machine, &["setup", "sshd", "--confirm-within", "2s"]);
    let new = machine.read(STACK);
    output_of(machine.command("sh").args(["-c", "head -c 2M /dev/zero >/etc/pam.d/.full 2>/dev/null; :"]));
    let begin = Instant::now();
    while !machine.log().iter().any(|line| line.contains("NOT YET")) {
        assert!(begin.elapsed() < Duration::from_secs(20) && machine.path(JOURNAL).exists());
    }
    assert_eq!(machine.read(STACK), new);
    assert_eq!(offered(&sshd), "publickey");
    assert!(refused(&machine, &["setup", "rollback"]).contains("No space left on device"));
    output_of(machine.command("rm").arg("/etc/pam.d/.full"));
    when_over(&machine);
    assert_as_before(&machine, &sshd, "room again");
}

#[test]
fn the_code_is_not_put_back_into_a_stack_that_sshd_hands_passwords() {
    let machine = debian();
    let sshd = start(&machine);
    totp(&machine, &["setup", "sshd"]);
    totp(&machine, &["setup", "confirm"]);
    let (stack, settings) = (machine.read(STACK), machine.read(SNIPPET));
    totp(&machine, &["setup", "sshd", "--remove"]);
    assert_eq!(offered(&sshd), ANY);
    // From now on sshd does not read its settings anew.
    machine.write("/etc/ssh/sshd_config.d/50-bad.conf", "Nonsense yes\n");
    assert!(refused(&machine, &["setup", "rollback"]).contains("Nonsense"));
    assert_eq!(offered(&sshd), ANY);
    assert_eq!(machine.read(STACK), DEBIAN, "a code alone would let in");
    output_of(machine.command("rm").arg("/etc/ssh/sshd_config.d/50-bad.conf"));
    let _ = run(&machine, &["setup", "rollback"]);
    when_over(&machine);
    assert_eq!((machine.read(STACK), machine.read(SNIPPET)), (stack, settings));
    assert_eq!(offered(&sshd), "publickey");
}

/// Calls that change something, wait for it, tell somebody or start a program.
const WATCHED: &str = "write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,fchmod,fchown,kill,flock,symlink,symlinkat,\
                       mkdir,mkdirat,vfork,clone,clone3,sendto,exit_group";

/// Those of one run, as often as each is made.
fn calls(machine: &Machine, arguments: &[&str]) -> Vec<(String, usize)> {
    let trace = machine.shared().join("trace");
    let mut command = machine.command("strace");
    command
        .arg("-o")
        .arg(&trace)
        .args(["-qq", "-e", &format!("trace={WATCHED}")])
        .arg(machine.program())
        .args(arguments);
    output_of(&mut command);
    let mut counts = HashMap::new();
    let mut calls = Vec::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let number = *counts.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        // What it says changes nothing, so two of those do.
        if name != "write" || !rest.starts_with("1, ") || number % 20 == 1 {
            calls.push((name.to_owned(), number));
        }
    }
    calls
}

fn killed_at(machine: &Machine, arguments: &[&str], (name, number): &(String, usize)) -> bool {
    let inject = format!("inject={name}:signal=KILL:when={number}");
    let mut command = machine.command("strace");
    command.args(["-o", "/dev/null", "-qq", "-e", &format!("trace={name}"), "-e", &inject]);
    let output = command.arg(machine.program()).args(arguments).output().unwrap();
    !output.status.success()
}

/// The stack and the settings as they are on disk, each told from what there may be.
fn state(machine: &Machine, new: &(String, String)) -> (bool, &'static str) {
    let stack = machine.read(STACK);
    assert!(stack == DEBIAN || stack == new.0, "{stack}");
    let settings = match read(machine, SNIPPET) {
        None => "old",
        Some(text) if text == new.1 => "new",
        Some(text) => {
            assert!(
                text.contains("For a moment only") && text.contains("\nAuthenticationMethods publickey\n"),
                "{text}"
            );
            assert!(text.ends_with("# pam-totp setup: end\n"), "{text}");
            "between"
        }
    };
    (stack == new.0, settings)
}

#[test]
fn killed_at_any_call_it_leaves_nothing_open_or_dead_and_the_next_run_leaves_old_or_new() {
    need("strace", "strace");
    let machine = debian();
    let sshd = start(&machine);
    let arguments = ["setup", "sshd", "--confirm-within", "1h"];
    totp(&machine, &arguments);
    let new = (machine.read(STACK), machine.read(SNIPPET));
    totp(&machine, &["setup", "rollback"]);
    assert_as_before(&machine, &sshd, "before");
    let calls = calls(&machine, &arguments);
    totp(&machine, &["setup", "rollback"]);
    // What is there changes with a name; between two of those one kill is much like the next.
    let is_tried = |place: usize, name: &str| {
        soak() || place.is_multiple_of(5) || ["rename", "unlink"].iter().any(|it| name.starts_with(it))
    };
    let tried = calls.iter().enumerate().filter(|(place, (name, _))| is_tried(*place, name)).map(|(_, call)| call);
    let tried: Vec<_> = tried.collect();
    let allowed = [(false, "old"), (false, "between"), (true, "between"), (true, "new")];
    let mut seen = HashMap::new();
    for call in &tried {
        let was_killed = killed_at(&machine, &arguments, call);
        let when = format!("{} {}", call.0, call.1);
        let state = state(&machine, &new);
        assert!(allowed.contains(&state), "{when}: {state:?}");
        *seen.entry(state).or_insert(0) += 1;
        if state == (true, "new") {
            // All is there: it may be kept or not. Neither is a mix.
            let _ = run(&machine, &["setup", "rollback"]);
        } else {
            assert!(was_killed, "{when}");
            // Whoever comes next; the watcher may have been faster.
            let shown = refused(&machine, &["setup", "confirm"]);
            assert!(shown.contains("too late") || shown.contains("nothing to confirm"), "{when}: {shown}");
        }
        assert_as_before(&machine, &sshd, &when);
    }
    let counts = (tried.len(), calls.len());
    assert!(counts.0 > 10 && counts.1 > 30 && allowed.iter().all(|it| seen.contains_key(it)), "{counts:?}: {seen:?}");
    println!("{} calls of {}: {seen:?}", counts.0, counts.1);
}
