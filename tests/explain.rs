//! `pam-totp verify`: why a code is refused, without using it up, and at the operator's own expense.

use crate::support::machine::{ALICE, AUTH_ERR, BOB, Machine, SUCCESS, User};
use crate::support::output_of;
use crate::support::root_only::{self, POLICY, STATE, json, recovery_codes, run, totp};
use crate::support::totp::{SECRET, code_at, code_now, hotp, now, wrong_code};
use crate::test_login::{text, typed};
use serde_json::Value;
use std::process::Output;

/// By bob, as sudo says.
fn verify(machine: &Machine, arguments: &[&str], code: &str) -> Output {
    let mut command = machine.command(machine.program());
    typed(command.env("SUDO_UID", BOB.uid.to_string()).args(["verify", "--user", "alice"]).args(arguments), &[code])
}

/// What is said, and whether the code is right.
fn said(output: &Output) -> (String, bool) {
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    (text(&output.stdout).trim_end().to_owned(), output.status.success())
}

fn explained(machine: &Machine, code: &str) -> (String, bool) {
    said(&verify(machine, &["--explain"], code))
}

fn explained_to_a_program(machine: &Machine, code: &str) -> Value {
    serde_json::from_slice(&verify(machine, &["--explain", "--json"], code).stdout).unwrap()
}

fn machine(more: &str) -> (Machine, String) {
    let machine = root_only::machine(&format!("fail_delay = \"0s\"\n{more}"));
    let made = json(&machine, &["enrol", "--user", "alice", "--device", "phone", "--no-confirm"]);
    let secret = made["secret"].as_str().unwrap().to_owned();
    (machine, secret)
}

/// Everything of the store but the ledger, where the operator pays.
fn store(machine: &Machine) -> String {
    let command = format!(
        "cd {STATE} && find . -type f ! -name 'ledger*' -exec sha256sum {{}} + | sort; ls -lR --full-time . | grep -v ledger"
    );
    output_of(machine.command("sh").args(["-c", &command]))
}

/// Who is in the ledger.
fn counted(machine: &Machine) -> Vec<String> {
    let rows = json(machine, &["throttle", "list"]);
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!("{} {} {}", row["name"].as_str().unwrap(), row["counted"].as_str().unwrap(), row["failures"])
        })
        .collect()
}

#[test]
fn a_right_code_is_right_as_often_as_one_asks_and_then_logs_in() {
    let (machine, secret) = machine("");
    let code = code_now(&secret);
    let before = store(&machine);
    assert_eq!(explained(&machine, &code), ("right: device phone, +0 steps".to_owned(), true));
    let ahead = code_at(&secret, now() + 30);
    assert_eq!(explained(&machine, &ahead), ("right: device phone, +1 step".to_owned(), true));
    for _ in 0..12 {
        assert_eq!(said(&verify(&machine, &[], &code)), ("right".to_owned(), true));
    }
    assert_eq!(store(&machine), before, "nothing of the person's has changed");
    assert_eq!(counted(&machine), [""; 0], "and what was charged was taken back");
    assert_eq!(machine.login("test", "alice").answer(&code).run().result(), SUCCESS);

    let (told, is_right) = explained(&machine, &code);
    let used = "refused: used already (accepted for this step or a later one): device phone, ";
    assert!(told.starts_with(used) && !is_right, "{told}");
    assert_eq!(
        said(&verify(&machine, &[], &code)),
        ("refused".to_owned(), false),
        "without --explain as a login says it"
    );
    let object = explained_to_a_program(&machine, &code);
    assert_eq!((object["result"].as_str(), object["reason"].as_str()), (Some("refused"), Some("used-code")));
    assert_eq!((&object["fits"][0]["device"], &object["fits"][0]["used"]), (&"phone".into(), &true.into()), "{object}");
}

#[test]
fn a_clock_that_is_off_is_told_with_its_difference_and_the_way_back() {
    let (machine, secret) = machine("");
    let _ = code_now(&secret);
    let late = code_at(&secret, now() - 150);
    let (told, is_right) = explained(&machine, &late);
    let expected = "refused: right at a skew of -5 steps: the clock of device phone is 150 s behind; set it, or: pam-totp resync --user alice";
    assert_eq!((told.as_str(), is_right), (expected, false));
    let early = code_at(&secret, now() + 11 * 3600);
    assert_eq!(explained_to_a_program(&machine, &early)["fits"][0]["steps"], 1320);
    assert_eq!(machine.login("test", "alice").answer(&late).run().reason(), "wrong-code", "a login does not accept it");
}

#[test]
fn guesses_are_the_operators_own_and_end_where_they_do_at_a_login() {
    let (machine, secret) = machine("");
    let wrong = wrong_code(&secret);
    let (told, is_right) = explained(&machine, &wrong);
    assert!(!is_right && told.starts_with("refused: wrong-code: no code of theirs within 12 hours"), "{told}");
    for _ in 0..9 {
        assert_eq!(said(&verify(&machine, &[], &wrong)), ("refused".to_owned(), false));
    }
    let mut rows = counted(&machine);
    rows.sort();
    assert_eq!(rows, ["bob in-a-row 10", "bob strangers 10", &format!("uid:{} source 10", BOB.uid)]);
    let code = code_now(&secret);
    for explain in [&[][..], &["--explain"]] {
        let (told, is_right) = said(&verify(&machine, explain, &code));
        assert!(told.starts_with("refused: throttled by=") && !told.contains("phone") && !is_right, "{told}");
    }
    assert_eq!(machine.login("test", "alice").answer(&code).run().result(), SUCCESS, "alice has nothing to do with it");
    // What cannot be a code is no guess at anybody's.
    let no_code = verify(&machine, &["--explain"], "hello");
    assert!(said(&no_code).0.starts_with("refused: not-a-code"), "{no_code:?}");
}

#[test]
fn a_right_code_of_somebody_who_is_blocked_is_told_with_what_blocks() {
    let (machine, secret) = machine("");
    let login = machine.login("test", "alice").answer(wrong_code(&secret));
    assert_eq!(login.with(&["--rhost", "198.51.100.9", "--parallel", "10"]).run().count(AUTH_ERR), 10);
    let (told, is_right) = explained(&machine, &code_now(&secret));
    let told: Vec<_> = told.lines().collect();
    assert_eq!((told[0], is_right), ("refused, though the code is right: device phone, +0 steps", false));
    assert!(
        told[1].starts_with("throttled: by=user limit=10/1h, from where they have not got in lately, until "),
        "{told:?}"
    );
    assert!(told[1].ends_with("or: pam-totp throttle unlock --user alice"), "{told:?}");
    totp(&machine, &["throttle", "unlock", "--user", "alice"]);
    assert!(explained(&machine, &code_now(&secret)).1);

    // Nobody is blocked by what was counted before they were listed.
    let login = machine.login("test", "alice").answer(wrong_code(&secret));
    assert_eq!(login.with(&["--rhost", "198.51.100.9", "--parallel", "10"]).run().count(AUTH_ERR), 10);
    let policy = machine.read(POLICY);
    machine.write(POLICY, format!("{policy}[throttle]\nuser_whitelist = [\"alice\"]\n"));
    assert!(explained(&machine, &code_now(&secret)).1);
    let spared = machine.login("test", "alice").answer(code_now(&secret)).with(&["--rhost", "198.51.100.8"]);
    assert_eq!(spared.run().result(), SUCCESS);
    machine.write(POLICY, policy);

    machine.write(POLICY, format!("{}[throttle]\nuser = \"\"\nhost = \"\"\n", machine.read(POLICY)));
    let login = machine.login("test", "alice").answer(wrong_code(&secret));
    assert_eq!(login.with(&["--parallel", "100"]).run().count(AUTH_ERR), 100);
    let (told, is_right) = explained(&machine, &code_now(&secret));
    assert!(!is_right && told.contains("\ndisabled: 100 codes in a row were wrong"), "{told}");
    assert_eq!(explained_to_a_program(&machine, &code_now(&secret))["blocks"][0]["by"], "in-a-row");
}

#[test]
fn a_counter_is_told_how_far_it_is_off() {
    let machine = root_only::machine("fail_delay = \"0s\"\n");
    let made = json(&machine, &["enrol", "--user", "alice", "--counter-based", "--no-confirm"]);
    let secret = made["secret"].as_str().unwrap();
    let next = json(&machine, &["status", "--user", "alice"])["devices"][0]["counter"].as_u64().unwrap();
    let far = explained(&machine, &hotp(secret, next + 500)).0;
    assert!(far.contains("is ahead by 500 counters, more than are looked at: pam-totp resync"), "{far}");
    let near = explained(&machine, &hotp(secret, next + 1));
    assert!(near.0.contains("ahead by 1 counter") && near.1, "{near:?}");
    assert_eq!(machine.login("test", "alice").answer(hotp(secret, next)).run().result(), SUCCESS);
    let passed = explained(&machine, &hotp(secret, next));
    assert!(
        passed.0.contains("used already, or passed over") && passed.0.contains("1 counter back") && !passed.1,
        "{passed:?}"
    );
}

#[test]
fn recovery_codes_are_told_and_not_spent() {
    let machine = root_only::machine("fail_delay = \"0s\"\n");
    let made = json(&machine, &["enrol", "--user", "alice", "--no-confirm"]);
    let code = made["recovery_codes"][0].as_str().unwrap();
    assert!(recovery_codes(code).len() == 1 && verify(&machine, &[], code).status.success());
    let (told, is_right) = explained(&machine, code);
    assert!(is_right && told.starts_with("right: a recovery code, with "), "{told}");
    assert_eq!(machine.login("test", "alice").answer(code).run().result(), SUCCESS);
    let (told, is_right) = explained(&machine, code);
    assert!(!is_right && told.contains("of one that was used nothing is kept"), "{told}");
}

#[test]
fn of_a_shared_account_it_is_told_whose_code_it_is() {
    let machine = root_only::machine("fail_delay = \"0s\"\n[service.sshd]\nidentity = \"login-key\"\n");
    let keys = ["key-id:ann", "key-id:ben"];
    let secrets = keys.map(|key| {
        json(&machine, &["enrol", "--user", "alice", "--key", key, "--device", "phone", "--no-confirm"])["secret"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    let code = code_now(&secrets[1]);
    let (told, is_right) = said(&verify(&machine, &["--key", keys[0], "--explain"], &code));
    assert!(
        told.contains("\nit is a code of somebody else of the account, alice key-id:ben: device phone, +0 steps"),
        "{told}"
    );
    assert!(!is_right);
    let (told, is_right) = said(&verify(&machine, &["--key", keys[1], "--explain"], &code));
    assert_eq!((told.as_str(), is_right), ("right: device phone, +0 steps", true));
    let (told, is_right) = explained(&machine, &code);
    assert!(told.contains("alice key-id:ben") && !is_right, "the account itself has no device: {told}");
}

#[test]
fn the_service_counts_with_its_table_and_its_arguments() {
    let (machine, secret) =
        machine("window = { behind = 1, ahead = 1 }\n[service.wide]\nwindow = { behind = 9, ahead = 1 }\n");
    let _ = code_now(&secret);
    let late = code_at(&secret, now() - 150);
    assert_eq!(said(&verify(&machine, &["--service", "test"], &late)).0, "refused");
    assert_eq!(said(&verify(&machine, &["--service", "wide"], &late)).0, "right");
    // As libpam reads the name.
    assert_eq!(said(&verify(&machine, &["--service", "WIDE"], &late)).0, "right");
    for no_service in ["../wide", "/etc/pam.d/wide", ""] {
        let refused = verify(&machine, &["--service", no_service], &late);
        assert!(text(&refused.stderr).contains("is no service") && refused.stdout.is_empty(), "{refused:?}");
    }
    machine.service("odd", "auth required pam_totp.so no_such_argument\n");
    let odd = verify(&machine, &["--service", "odd"], &late);
    assert!(text(&odd.stderr).contains("/etc/pam.d/odd:1: bad-argument"), "{odd:?}");
}

#[test]
fn only_root_is_told_and_only_about_whom_there_is() {
    let (machine, secret) = machine("");
    let code = code_now(&secret);
    let by = |user: User| {
        typed(machine.command_as(user, machine.program()).args(["verify", "--user", "alice", "--explain"]), &[&code])
    };
    for output in [by(ALICE), by(BOB)] {
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(text(&output.stderr).contains("only root"), "{output:?}");
    }
    let (told, is_right) =
        said(&typed(machine.command(machine.program()).args(["verify", "--user", "carol", "--explain"]), &[&code]));
    assert!(!is_right && told.starts_with("refused: no-device (not enrolled"), "{told}");
    assert_eq!(run(&machine, &["verify", "--user", "nobody-at-all"]).status.code(), Some(1));
}

#[test]
fn the_limit_in_a_persons_own_file_blocks_as_it_does_at_a_login() {
    let machine = Machine::new();
    machine.write(POLICY, "version = 1\n[defaults]\nfail_delay = \"0s\"\n");
    machine.service("test", root_only::STACK);
    machine.enrol(ALICE, "\" TOTP_AUTH\n\" RATE_LIMIT 3 600\n");
    let login = machine.login("test", "alice").answer(wrong_code(SECRET));
    assert_eq!(login.with(&["--rhost", "198.51.100.9", "--parallel", "3"]).run().count(AUTH_ERR), 3);
    let (told, is_right) = explained(&machine, &code_now(SECRET));
    assert!(told.contains("\nthrottled: by=user limit=3/10m, ") && !is_right, "{told}");
    let again = machine.login("test", "alice").answer(code_now(SECRET)).with(&["--rhost", "198.51.100.9"]).run();
    assert_eq!(again.reason(), "throttled");

    // The gate runs as alice, and knows of no ledger.
    let at_the_gate = verify(&machine, &["--explain", "--service", "gate"], &code_now(SECRET));
    assert_eq!(said(&at_the_gate), ("right: the file's device, +0 steps".to_owned(), true));
    let spent = format!("\" TOTP_AUTH\n\" RATE_LIMIT 1 600 {}\n", now() - 1);
    machine.enrol(ALICE, &spent);
    let at_the_gate = verify(&machine, &["--explain", "--service", "gate"], &code_now(SECRET));
    let (told, is_right) = said(&at_the_gate);
    assert!(
        told.starts_with("refused: throttled tries=1 seconds=600, RATE_LIMIT of the record") && !is_right,
        "{told}"
    );
}
