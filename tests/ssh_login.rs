//! Logins through a real sshd with a real ssh client.

use crate::support::machine::{ALICE, BOB, CAROL, Machine};
use crate::support::ssh::{KEY_AND_CODE, Session, Sshd};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{example_file, output_of, reasons};

const PROMPT: &str = "Verification code: ";

fn bastion() -> Machine {
    let machine = Machine::new();
    machine.service("sshd", &example_file("sshd-debian"));
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine
}

fn questions(session: &Session) -> Vec<&str> {
    // ssh puts "(user@host) " in front.
    session.questions.iter().map(|question| question.split_once(") ").map_or(question.as_str(), |(_, q)| q)).collect()
}

#[test]
fn a_key_and_a_code_get_in_and_the_code_never_again() {
    let machine = bastion();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let code = code_now(SECRET);
    let session = sshd.login(ALICE, &[&code]);
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());
    assert_eq!((session.output.as_str(), questions(&session)), ("in as alice\n", vec![PROMPT]));
    let log = machine.log();
    let ours: Vec<_> = log.iter().filter(|line| line.contains("pam_totp(sshd:auth)")).collect();
    assert_eq!(ours, ["pam_totp(sshd:auth): accepted user=alice rhost=127.0.0.1 factor=totp steps=+0"], "{log:#?}");

    let again = sshd.login(ALICE, &[&code]);
    assert!(!again.succeeded);
    assert_eq!(questions(&again), [PROMPT]);
    let log = machine.log();
    assert_eq!(reasons(&log), ["used-code"]);
    let classic =
        "pam_totp(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=127.0.0.1  user=alice";
    assert!(log.iter().any(|line| line == classic), "{log:#?}");
    // What fail2ban counts is sshd's own line, and it counts PAM_AUTH_ERR.
    assert!(log.iter().any(|line| line.starts_with("error: PAM: Authentication failure for alice from 127.0.0.1")));
}

#[test]
fn a_code_without_a_key_and_a_key_without_a_code_do_not_get_in() {
    let machine = bastion();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let code = code_now(SECRET);
    sshd.key(ALICE);
    let other_key = sshd.key(BOB);
    let session = sshd.login_with("alice", &other_key, &[&code], &[]);
    assert!(!session.succeeded);
    assert!(session.questions.is_empty(), "the code is not even asked for: {session:#?}");
    let session = sshd.login(ALICE, &[""]);
    assert!(!session.succeeded);
    assert!(sshd.login(ALICE, &[&code]).succeeded, "neither of them used the code up");
}

#[test]
fn three_tries_on_one_connection() {
    let machine = bastion();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let wrong = wrong_code(SECRET);
    let code = code_now(SECRET);
    let session = sshd.login(ALICE, &[&wrong, "12345", &code]);
    assert!(session.succeeded, "{session:#?}");
    assert_eq!(questions(&session), [PROMPT; 3]);
    assert_eq!(reasons(&machine.log()), ["wrong-code", "not-a-code"]);
    let session = sshd.login(ALICE, &[&wrong, &code, &wrong]);
    assert!(!session.succeeded);
    assert_eq!(reasons(&machine.log()), ["wrong-code", "used-code", "wrong-code"]);
}

#[test]
fn the_prompt_is_the_same_for_who_is_not_enrolled_and_for_who_does_not_exist() {
    let machine = bastion();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let wrong = wrong_code(SECRET);
    let session = sshd.login(CAROL, &[&wrong]);
    assert!(!session.succeeded);
    assert_eq!(questions(&session), [PROMPT]);
    assert_eq!(reasons(&machine.log()), ["not-enrolled"]);
    // With a key first, sshd itself does not go on for somebody unknown; without one we see its placeholder.
    drop(sshd);
    let sshd = Sshd::start(&machine, &KEY_AND_CODE.replace("publickey,", ""));
    let key = sshd.key(CAROL);
    let unknown = sshd.login_with("mallory", &key, &[&wrong], &[]);
    assert!(!unknown.succeeded);
    assert_eq!(questions(&unknown), [PROMPT]);
    let log = machine.log();
    assert_eq!(reasons(&log).len(), 1, "{log:#?}");
    assert!(["unknown-user", "refused-by-sshd"].contains(&reasons(&log)[0].as_str()), "{log:#?}");
    // An account that sshd refuses for its own reasons, with a right code.
    let code = code_now(SECRET);
    drop(sshd);
    let sshd = Sshd::start(&machine, &format!("{}DenyUsers alice\n", KEY_AND_CODE.replace("publickey,", "")));
    let refused = sshd.login_with("alice", &key, &[&code], &[]);
    assert!(!refused.succeeded);
    assert_eq!(questions(&refused), [PROMPT]);
    assert_eq!(reasons(&machine.log()), ["refused-by-sshd"]);
    assert!(!machine.read(&ALICE.secret_file()).contains("DISALLOW_REUSE"), "the code was not used up");
}

#[test]
fn sixteen_sessions_with_one_code_and_one_gets_in() {
    let machine = bastion();
    machine.without_limits();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let key = sshd.key(ALICE);
    let code = code_now(SECRET);
    let clients: Vec<_> = (0..16).map(|_| sshd.begin("alice", &key, &[&code], &[])).collect();
    let won = clients.into_iter().filter_map(|client| sshd.finish(client).succeeded.then_some(())).count();
    let log = machine.log();
    assert_eq!((won, reasons(&log)), (1, vec!["used-code".to_owned(); 15]), "{log:#?}");
}

#[test]
fn a_clock_that_differs_by_a_step_is_in_and_by_two_is_out() {
    let machine = bastion();
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    for (seconds, inside) in [(-60, false), (-30, true), (30, true), (60, false)] {
        machine.enrol(ALICE, "\" TOTP_AUTH\n");
        let _ = code_now(SECRET); // Not at the very end of a step.
        let code = code_at(SECRET, now().checked_add_signed(seconds).unwrap());
        assert_eq!(sshd.login(ALICE, &[&code]).succeeded, inside, "{seconds}");
    }
}

#[test]
fn the_red_hat_example_works_with_the_stacks_that_it_includes() {
    let machine = Machine::new();
    machine.enrol(ALICE, "\" TOTP_AUTH\n");
    machine.service("sshd", &example_file("sshd-rhel"));
    // What authselect makes, as far as Debian has the modules.
    machine.service(
        "password-auth",
        "auth required pam_deny.so\naccount required pam_unix.so\npassword required pam_unix.so\nsession required pam_unix.so\n",
    );
    machine.service("postlogin", "session optional pam_lastlog.so silent\n");
    // RHEL's pam_sepermit is not built on Debian; SELinux is off here, and it says yes then.
    if !output_of(machine.command("sh").args(["-c", "ls /usr/lib/*/security/ /lib/*/security/ 2>&1 || :"]))
        .contains("pam_sepermit")
    {
        let stack = example_file("sshd-rhel").replace("account    required     pam_sepermit.so\n", "");
        machine.service("sshd", &stack);
    }
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let code = code_now(SECRET);
    let session = sshd.login(ALICE, &[&code]);
    assert!(session.succeeded, "{session:#?} {:#?}", machine.log());
    assert!(!sshd.login(ALICE, &[&code]).succeeded);
}
