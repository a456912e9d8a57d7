//! Who asks, and not who they become (`identity = "caller"`), through real sudo and real su.

use crate::sudo_su::type_to;
use crate::support::machine::{ALICE, BOB, CAROL, Machine, User};
use crate::support::root_only::{POLICY, PROMPT, STACK, json, totp};
use crate::support::totp::{SECRET, code_at, code_now, now, wrong_code};
use crate::support::{need, reasons};
use std::process::Output;

const ROOT: User = User { name: "root", uid: 0 };
const BY_CALLER: &str = "[service.su]\nidentity = \"caller\"\n[service.sudo]\nidentity = \"caller\"\n";
const SERVICES: [&str; 4] = ["su", "su-l", "sudo", "sudo-i"];

/// A machine at which it counts who asks, and alice's secret and bob's.
struct Host {
    machine: Machine,
    alice: String,
    bob: String,
}

/// The record is in a home or in root's store.
fn host(store: &str) -> Host {
    need("sudo", "sudo");
    let machine = Machine::new();
    for service in SERVICES {
        machine.service(service, STACK);
    }
    machine.write_as("/etc/sudoers", "Defaults !lecture\nALL ALL=(ALL) ALL\n", 0, 0o440);
    let policy = format!("version = 1\n[defaults]\nstore = \"{store}\"\nfail_delay = \"0s\"\n{BY_CALLER}");
    machine.write(POLICY, policy);
    if store == "system" {
        totp(&machine, &["setup", "store"]);
    }
    let [alice, bob] = [ALICE, BOB].map(|user| {
        let enrolled = json(&machine, &["enrol", "--user", user.name, "--no-confirm"]);
        enrolled["secret"].as_str().unwrap().to_owned()
    });
    Host { machine, alice, bob }
}

/// `id -un` as somebody else, by one of the services.
fn become_by(service: &str, target: &'static str) -> Vec<&'static str> {
    match service {
        "su" => vec!["su", target, "-c", "id -un"],
        "su-l" => vec!["su", "-", target, "-c", "id -un"],
        "sudo" => vec!["sudo", "-k", "-S", "-u", target, "id", "-un"],
        _ => vec!["sudo", "-k", "-S", "-i", "-u", target, "id", "-un"],
    }
}

/// The same by somebody who has got the login uid of audit(8) of another one before.
fn with_login_uid(host: &Host, login_uid: User, caller: User, program: &[&str], lines: &[&str]) -> Output {
    let uids = [login_uid.uid, caller.uid].map(|uid| uid.to_string());
    let script = "echo \"$1\" >/proc/self/loginuid || exit 99; uid=$2; shift 2; \
                  exec setpriv --reuid \"$uid\" --regid \"$uid\" --clear-groups -- \"$@\"";
    let words = ["sh", "-c", script, "sh", &uids[0], &uids[1]];
    let output = type_to(&host.machine, ROOT, &[&words[..], program].concat(), lines);
    assert_ne!(output.status.code(), Some(99), "no login uid can be set: {output:?}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What our module says of logins.
fn ours(machine: &Machine) -> Vec<String> {
    machine.log().into_iter().filter(|line| line.contains("pam_totp(")).collect()
}

#[track_caller]
fn assert_became(output: &Output, target: &str, host: &Host, service: &str, caller: &str) {
    let log = ours(&host.machine);
    assert_eq!(text(&output.stdout), format!("{target}\n"), "{service}: {output:?} {log:#?}");
    assert!(text(&output.stderr).contains(PROMPT), "{output:?}");
    let accepted = log.iter().find(|line| line.contains("accepted")).unwrap_or_else(|| panic!("{log:#?}"));
    assert!(accepted.contains(&format!("pam_totp({service}:auth)")), "{accepted}");
    assert!(accepted.ends_with(&format!(" caller={caller}")), "{accepted}");
}

#[track_caller]
fn assert_refused(output: &Output, host: &Host, reason: &str, caller: &str) {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let log = ours(&host.machine);
    let denied = log.iter().find(|line| line.contains(" denied ")).unwrap_or_else(|| panic!("{output:?} {log:#?}"));
    assert!(denied.contains(&format!("reason={reason}")) && denied.contains(&format!("caller={caller}")), "{denied}");
}

#[test]
fn the_code_is_that_of_who_asks() {
    for store in ["home", "system"] {
        for service in SERVICES {
            let host = host(store);
            for target in ["bob", "root"] {
                let program = become_by(service, target);
                let output = type_to(&host.machine, ALICE, &program, &[&code_now(&host.bob)]);
                assert_refused(&output, &host, "wrong-code", "alice");
            }
            let (now, next) = (code_now(&host.alice), code_at(&host.alice, now() + 30));
            for (target, code) in [("bob", now), ("root", next)] {
                let program = become_by(service, target);
                let output = type_to(&host.machine, ALICE, &program, &[&code]);
                assert_became(&output, target, &host, service, "alice");
            }
            // Bob's was not touched, and is good for what he asks for.
            let output = type_to(&host.machine, BOB, &become_by(service, "alice"), &[&code_now(&host.bob)]);
            assert_became(&output, "alice", &host, service, "bob");
        }
    }
}

#[test]
fn root_is_who_has_logged_in() {
    for store in ["home", "system"] {
        let host = host(store);
        let su = become_by("su", "bob");
        let output = with_login_uid(&host, ALICE, ROOT, &su, &[&code_now(&host.bob)]);
        assert_refused(&output, &host, "wrong-code", "alice");
        let output = with_login_uid(&host, ALICE, ROOT, &su, &[&code_now(&host.alice)]);
        assert_became(&output, "bob", &host, "su", "alice");
        // Nobody has logged in to what the system has started.
        let output = type_to(&host.machine, ROOT, &su, &[&code_now(&host.bob)]);
        assert_refused(&output, &host, "not-enrolled", "root");
        if store == "system" {
            let root = json(&host.machine, &["enrol", "--user", "root", "--no-confirm"]);
            let output = type_to(&host.machine, ROOT, &su, &[&code_now(root["secret"].as_str().unwrap())]);
            assert_became(&output, "bob", &host, "su", "root");
        }
        // A login uid that is nobody's.
        let nobody = User { name: "", uid: 29_999 };
        let output = with_login_uid(&host, nobody, ROOT, &su, &[&code_now(&host.bob)]);
        assert!(!output.status.success());
        assert_eq!(reasons(&host.machine.log()), ["unknown-user"]);
    }
}

#[test]
fn a_login_uid_says_nothing_of_anybody_but_root() {
    for service in SERVICES {
        let host = host("system");
        let program = become_by(service, "root");
        let output = with_login_uid(&host, BOB, ALICE, &program, &[&code_now(&host.bob)]);
        assert_refused(&output, &host, "wrong-code", "alice");
        let output = with_login_uid(&host, ROOT, ALICE, &program, &[&code_now(&host.alice)]);
        assert_became(&output, "root", &host, service, "alice");
    }
}

#[test]
fn wrong_codes_are_charged_to_who_asks() {
    let host = host("system");
    let su = become_by("su", "bob");
    for _ in 0..10 {
        let output = type_to(&host.machine, ALICE, &su, &[&wrong_code(&host.alice)]);
        assert_refused(&output, &host, "wrong-code", "alice");
    }
    let output = type_to(&host.machine, ALICE, &su, &[&code_now(&host.alice)]);
    assert_refused(&output, &host, "throttled", "alice");
    let rows = json(&host.machine, &["throttle", "list"]);
    let rows: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert!(rows.contains(&"alice") && rows.contains(&"uid:20001") && !rows.contains(&"bob"), "{rows:?}");
    let output = type_to(&host.machine, BOB, &become_by("su", "alice"), &[&code_now(&host.bob)]);
    assert_became(&output, "alice", &host, "su", "bob");
}

#[test]
fn there_are_no_two_ways_to_say_who_it_is() {
    let host = host("home");
    for service in ["su", "sudo"] {
        host.machine
            .service(service, &STACK.replace("pam_totp.so", "pam_totp.so user=root secret=/var/lib/otp/${USER}"));
        let output = type_to(&host.machine, ALICE, &become_by(service, "bob"), &[&code_now(&host.alice)]);
        assert!(!output.status.success() && !text(&output.stderr).contains(PROMPT), "{output:?}");
        let log = ours(&host.machine);
        assert!(reasons(&log).contains(&"bad-argument".to_owned()), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("argument=user") && line.contains("identity")), "{log:#?}");
    }
}

#[test]
fn who_asks_without_a_device_is_denied_or_let_pass_as_the_policy_says() {
    for (enrolment, is_let_pass) in [("required", false), ("optional", true)] {
        let host = host("system");
        let policy = host
            .machine
            .read(POLICY)
            .replace("[service.su]\n", &format!("enrolment = \"{enrolment}\"\n[service.su]\n"));
        host.machine.write(POLICY, policy);
        let stack = STACK.replace("\naccount", "\nauth required pam_permit.so\naccount");
        SERVICES.iter().for_each(|service| host.machine.service(service, &stack));
        for service in SERVICES {
            let output = type_to(&host.machine, CAROL, &become_by(service, "alice"), &[&code_now(&host.alice)]);
            assert_eq!(output.status.success(), is_let_pass, "{service}: {output:?}");
            let log = ours(&host.machine);
            let reason = |line: &String| line.contains("reason=not-enrolled") && line.contains("caller=carol");
            assert!(log.iter().any(reason), "{log:#?}");
        }
        // That whom one becomes has no device is no way around one's own.
        let output = type_to(&host.machine, ALICE, &become_by("su", "carol"), &[&wrong_code(SECRET)]);
        assert_refused(&output, &host, "wrong-code", "alice");
    }
}
