//! Real sudo and real su.

use crate::support::machine::{ALICE, BOB, Machine, User};
use crate::support::terminal::Terminal;
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{example_file, need, reasons};
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

pub(crate) const PASSWORD: &str = "password";

fn host() -> Machine {
    need("sudo", "sudo");
    let machine = Machine::new();
    machine.service("sudo", &example_file("sudo"));
    machine.service("su", &example_file("su"));
    machine.write_as("/etc/sudoers", "Defaults !lecture\nalice ALL=(ALL) ALL\nbob ALL=(ALL) ALL\n", 0, 0o440);
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

/// Runs a setuid program as a user who types these lines.
pub(crate) fn type_to(machine: &Machine, caller: User, program: &[&str], lines: &[&str]) -> Output {
    let mut command = machine.command_as(caller, program[0]);
    command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn sudo(machine: &Machine, caller: User, lines: &[&str]) -> Output {
    type_to(machine, caller, &["sudo", "-k", "-S", "id", "-un"], lines)
}

fn su(machine: &Machine, caller: User, target: &str, lines: &[&str]) -> Output {
    type_to(machine, caller, &["su", target, "-c", "id -un"], lines)
}

#[test]
fn sudo_asks_for_the_callers_code() {
    let machine = host();
    let code = code_now(SECRET);
    let output = sudo(&machine, ALICE, &[&code, PASSWORD]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "root\n", "{output:?} {:#?}", machine.log());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Verification code: "));
    let log = machine.log();
    assert!(log.iter().any(|line| line.contains("pam_totp(sudo:auth): accepted user=alice ")), "{log:#?}");
    // sudo asks three times; the code is used, then wrong, then missing.
    let output = sudo(&machine, ALICE, &[&code, PASSWORD, &wrong_code(SECRET), PASSWORD, "", PASSWORD]);
    assert!(!output.status.success());
    assert_eq!(reasons(&machine.log()), ["used-code", "wrong-code", "empty-answer"]);
    let output = sudo(&machine, BOB, &[&code_at(SECRET, now() + 30), PASSWORD]);
    assert!(!output.status.success(), "alice's code is not bob's");
    assert_eq!(reasons(&machine.log())[0], "not-enrolled");
}

#[test]
fn su_asks_for_the_targets_code() {
    let machine = host();
    let code = code_now(SECRET);
    let output = su(&machine, BOB, "alice", &[&code, PASSWORD]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alice\n", "{output:?} {:#?}", machine.log());
    let log = machine.log();
    assert!(log.iter().any(|line| line.contains("pam_totp(su:auth): accepted user=alice ")), "{log:#?}");
    let output = su(&machine, BOB, "alice", &[&code, PASSWORD]);
    assert!(!output.status.success());
    assert_eq!(reasons(&machine.log()), ["used-code"]);
    let stat = machine.path(&ALICE.secret_file()).metadata().unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (ALICE.uid, ALICE.uid, 0o600), "still alice's own");
    assert!(!su(&machine, BOB, "bob", &[&code, PASSWORD]).status.success(), "bob has no code");
}

#[test]
fn the_callers_environment_and_limits_change_nothing() {
    let machine = host();
    // The first login of a machine makes the ledger.
    assert!(!su(&machine, BOB, "alice", &["no code", PASSWORD]).status.success());
    let code = code_now(SECRET);
    let hostile = "ulimit -f 0; export RUST_BACKTRACE=1 TMPDIR=/nowhere TZ=/etc/shadow LD_PRELOAD=/nowhere.so \
                   FAKETIME=+1h LC_ALL=xx_XX; umask 0777; exec su alice -c 'id -un'";
    let output = type_to(&machine, BOB, &["sh", "-c", hostile], &[&code, PASSWORD]);
    assert!(!output.status.success(), "a file that cannot be written is a denial");
    assert!(output.status.code().is_some(), "and not a killed su: {output:?}");
    let log = machine.log();
    assert!(log.iter().any(|line| line.contains("reason=file-error") && line.contains("call=write")), "{log:#?}");
    let hostile = hostile.replace("ulimit -f 0; ", "");
    let output = type_to(&machine, BOB, &["sh", "-c", &hostile], &[&code, PASSWORD]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alice\n", "{output:?} {:#?}", machine.log());
    assert!(machine.read(&ALICE.secret_file()).contains("DISALLOW_REUSE"));
}

#[test]
fn time_comes_from_the_clock_and_steps_are_judged_by_it() {
    let machine = host();
    let library = faketime_library();
    // For setuid programs too: a preload that is the machine's own, not the caller's.
    machine.write("/etc/ld.so.preload", library);
    let _ = code_now(SECRET);
    for (offset, seconds) in [("+1h", 3600), ("+365d", 365 * 86400), ("-90d", -90 * 86400)] {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        machine.write("/etc/faketimerc", format!("{offset}\n"));
        let code = code_at(SECRET, now().checked_add_signed(seconds).unwrap());
        let output = su(&machine, BOB, "alice", &[&code, PASSWORD]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "alice\n", "{offset}: {output:?} {:#?}", machine.log());
    }
    // The clock comes back: the code of now lies before one that was used, and the log says so.
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine.write("/etc/faketimerc", "+1h\n");
    assert!(su(&machine, BOB, "alice", &[&code_at(SECRET, now() + 3600), PASSWORD]).status.success());
    machine.write("/etc/faketimerc", "+0\n");
    let _ = machine.log();
    assert!(!su(&machine, BOB, "alice", &[&code_now(SECRET), PASSWORD]).status.success());
    assert_eq!(reasons(&machine.log()), ["clock-behind-mark"]);
}

fn faketime_library() -> String {
    need("faketime", "faketime");
    let candidates = glob("/usr/lib", "faketime/libfaketime.so.1");
    format!("{}\n", candidates.first().expect("libfaketime.so.1 is missing: install the package libfaketime"))
}

/// `base/*/rest`.
fn glob(base: &str, rest: &str) -> Vec<String> {
    let entries = Path::new(base).read_dir().unwrap().map(|entry| entry.unwrap().path().join(rest));
    entries.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}

#[test]
fn an_interrupt_at_the_prompt_opens_nothing() {
    let machine = host();
    machine.append("/etc/sudoers", "Defaults passwd_tries=1\n");
    let hasty = "version = 1\n[defaults]\nfail_delay = \"0s\"\n[throttle]\nuser = \"\"\nhost = \"\"\n";
    machine.write("/etc/security/pam_totp.toml", hasty);
    // A stack that lets everybody pass whom we do not answer for: what is not a success must be an error.
    let permissive = "auth [success=1 default=ignore] pam_totp.so\nauth requisite pam_deny.so\nauth required pam_permit.so\n\
                      account required pam_permit.so\nsession required pam_permit.so\n";
    let sufficient = "auth sufficient pam_totp.so\nauth required pam_deny.so\naccount required pam_permit.so\n\
                      session required pam_permit.so\n";
    let erring = "auth [success=done ignore=ignore default=die] pam_totp.so\nauth required pam_permit.so\n\
                  account required pam_permit.so\nsession required pam_permit.so\n";
    let programs: [&[&str]; 2] = [&["su", "alice", "-c", "echo opened"], &["sudo", "-k", "sh", "-c", "echo opened"]];
    for stack in [permissive, sufficient, erring] {
        machine.service("su", stack);
        machine.service("sudo", stack);
        for (program, caller) in programs.iter().zip([BOB, ALICE]) {
            for keys in ["\x03", "\x03\x03\x03", "123\x03", "\x1c", "\x04\x04\x04", "123\x04\x04"] {
                let mut command = machine.command_as(caller, program[0]);
                command.args(&program[1..]);
                let mut terminal = Terminal::run(&command, "C.UTF-8");
                terminal.until("Verification code: ");
                terminal.press(keys);
                let (shown, status) = terminal.status();
                assert!(!shown.contains("opened") && status != Some(0), "{program:?} {keys:?}: {status:?} {shown}");
            }
        }
        let code = code_now(SECRET);
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let output = type_to(&machine, BOB, programs[0], &[&code]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "opened\n", "{output:?} {:#?}", machine.log());
    }
}
