//! The stacks that people run by the tutorials, word for word but for the module's name, through real programs.

use crate::support::machine::{ALICE, BOB, CAROL, Machine, User};
use crate::support::output_of;
use crate::support::postgres::Postgres;
use crate::support::ssh::{Session, Sshd};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Output, Stdio};

/// What follows the auth lines, as short as it can be.
const REST: &str = "account required pam_unix.so\nsession required pam_unix.so\n";
/// sshd asks the stack, and nobody else.
const KEYBOARD: &str =
    "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\nPubkeyAuthentication no\n";
const KEY_AND_KEYBOARD: &str = "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n\
                                AuthenticationMethods publickey,keyboard-interactive\n";

fn machine(auth: &str) -> Machine {
    let machine = Machine::new();
    machine.service("sshd", &format!("{auth}{REST}"));
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

fn questions(session: &Session) -> Vec<&str> {
    session.questions.iter().map(|question| question.split_once(") ").map_or(question.as_str(), |(_, q)| q)).collect()
}

#[test]
fn a_key_and_a_code_with_pam_permit() {
    let machine = machine("auth required pam_totp.so\nauth required pam_permit.so\n");
    let sshd = Sshd::start(&machine, KEY_AND_KEYBOARD);
    let code = code_now(SECRET);
    assert!(sshd.login(ALICE, &[&code]).succeeded, "{:#?}", machine.log());
    assert!(!sshd.login(ALICE, &[&code]).succeeded);
    assert!(!sshd.login(BOB, &[&code]).succeeded, "who is not enrolled does not get in");
}

#[test]
fn with_pam_sepermit_before_it() {
    let machine = machine("auth required pam_sepermit.so\nauth required pam_totp.so\nauth required pam_permit.so\n");
    let sshd = Sshd::start(&machine, KEY_AND_KEYBOARD);
    let code = code_now(SECRET);
    assert!(sshd.login(ALICE, &[&code]).succeeded, "{:#?}", machine.log());
    assert!(!sshd.login(ALICE, &[&code]).succeeded);
}

#[test]
fn with_nullok_a_service_account_gets_in_by_its_key_alone() {
    let machine = machine("auth required pam_totp.so nullok\nauth required pam_permit.so\n");
    let sshd = Sshd::start(&machine, KEY_AND_KEYBOARD);
    let robot = sshd.login(CAROL, &[]);
    assert!(robot.succeeded && robot.questions.is_empty(), "{robot:#?} {:#?}", machine.log());
    assert!(!sshd.login(ALICE, &[&wrong_code(SECRET)]).succeeded, "who is enrolled is asked");
    assert!(sshd.login(ALICE, &[&code_now(SECRET)]).succeeded);
}

#[test]
fn a_password_and_a_code() {
    let machine = machine("auth required pam_unix.so\nauth required pam_totp.so\n");
    let sshd = Sshd::start(&machine, KEYBOARD);
    let key = PathBuf::from("/nonexistent");
    let log_in = |password: &str, code: &str| {
        sshd.login_with("alice", &key, &[password, code], &["-o", "NumberOfPasswordPrompts=1"])
    };
    let code = code_now(SECRET);
    let wrong = log_in("passw0rd", &code);
    assert_eq!((wrong.succeeded, questions(&wrong)), (false, vec!["Password: ", "Verification code: "]));
    assert!(!log_in("password", &wrong_code(SECRET)).succeeded);
    let next = code_at(SECRET, now() + 30);
    let right = log_in("password", &next);
    assert!(right.succeeded, "{right:#?} {:#?}", machine.log());
    assert!(!log_in("password", &next).succeeded);
}

#[test]
fn a_password_and_a_code_in_one_answer() {
    let machine = machine("auth required pam_totp.so forward_pass\nauth required pam_unix.so use_first_pass\n");
    let sshd = Sshd::start(&machine, KEYBOARD);
    let key = PathBuf::from("/nonexistent");
    let log_in = |answer: &str| sshd.login_with("alice", &key, &[answer], &[]);
    let code = code_now(SECRET);
    assert!(!log_in(&format!("passw0rd{}", wrong_code(SECRET))).succeeded);
    assert!(!log_in("password").succeeded);
    let right = log_in(&format!("password{code}"));
    assert_eq!(
        (right.succeeded, questions(&right)),
        (true, vec!["Password & verification code: "]),
        "{right:#?} {:#?}",
        machine.log()
    );
    assert!(!log_in(&format!("password{code}")).succeeded);
    // A right code with a wrong password is used up, and does not get in.
    let next = code_at(SECRET, now() + 30);
    assert!(!log_in(&format!("passw0rd{next}")).succeeded);
    assert!(!log_in(&format!("password{next}")).succeeded);
}

/// `system-auth` as Amazon Linux has it.
const SYSTEM_AUTH: &str = "\
auth        required      pam_env.so
auth        requisite     pam_unix.so nullok try_first_pass
auth        sufficient    pam_totp.so
auth        requisite     pam_succeed_if.so uid >= 500 quiet
auth        required      pam_deny.so
";

#[test]
fn the_chain_of_amazon_linux_through_sshd_and_su() {
    let machine = machine(SYSTEM_AUTH);
    let sshd = Sshd::start(&machine, KEYBOARD);
    let key = PathBuf::from("/nonexistent");
    let log_in = |password: &str, code: &str| {
        sshd.login_with("alice", &key, &[password, code], &["-o", "NumberOfPasswordPrompts=1"])
    };
    let code = code_now(SECRET);
    assert!(!log_in("passw0rd", &code).succeeded);
    assert!(!log_in("password", &wrong_code(SECRET)).succeeded);
    let right = log_in("password", &code);
    assert!(right.succeeded, "{right:#?} {:#?}", machine.log());
    assert!(!log_in("password", &code).succeeded);
    machine.service("su", &format!("{SYSTEM_AUTH}{REST}"));
    machine.service("su-l", &format!("{SYSTEM_AUTH}{REST}"));
    let next = code_at(SECRET, now() + 30);
    let output = su(&machine, BOB, &["password", &next]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alice\n", "{output:?} {:#?}", machine.log());
    assert!(!su(&machine, BOB, &["password", &next]).status.success());
}

fn su(machine: &Machine, caller: User, lines: &[&str]) -> Output {
    let mut command = machine.command_as(caller, "su");
    command.args(["-", "alice", "-c", "id -un"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn postgresql_takes_password_and_code_in_one_answer() {
    let machine = Machine::new();
    // The server is not root: the files are its own, and its user may read the passwords, as people set it up.
    let stack = "auth required pam_totp.so forward_pass user=postgres secret=/run/codes/${USER}\n\
                 auth required pam_unix.so use_first_pass\naccount required pam_permit.so\n";
    machine.service("postgresql", stack);
    let script = "usermod -a -G shadow postgres && install -d -o postgres -m 0700 /run/codes";
    output_of(machine.command("sh").args(["-c", script]));
    machine.write_as("/run/codes/alice", format!("{SECRET}\n\" TOTP_AUTH\n"), 0, 0o600);
    output_of(machine.command("chown").args(["postgres:postgres", "/run/codes/alice"]));
    let postgres = Postgres::start(&machine, "host all all 127.0.0.1/32 pam pamservice=postgresql");
    let code = code_now(SECRET);
    assert!(!postgres.lets_in("password"));
    assert!(!postgres.lets_in(&format!("passw0rd{}", wrong_code(SECRET))));
    assert!(postgres.lets_in(&format!("password{code}")), "{} {:#?}", postgres.log(), machine.log());
    assert!(!postgres.lets_in(&format!("password{code}")));
}
