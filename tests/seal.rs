//! Sealed records through the real programs: a key from its making to its end, records and rings that are not what was written,
//! and a resealing that is killed.

use crate::support::machine::{ALICE, AUTH_ERR, Machine, SUCCESS};
use crate::support::root_only::{POLICY, json, machine as with_store, run, totp};
use crate::support::totp::{code_now, wrong_code};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

const RING: &str = "/etc/security/pam_totp.keys";
const RECORDS: &str = "/var/lib/pam_totp/records";
/// What is tested here is not the ledger.
const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";

fn machine() -> Machine {
    with_store(WITHOUT_LIMITS)
}

/// The program with these words.
fn done(machine: &Machine, line: &str) -> String {
    totp(machine, &words(line))
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The same, which has to fail with 1 and say this.
fn refused(machine: &Machine, line: &str, said: &str) {
    let output = run(machine, &words(line));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
    assert!(errors.contains(said), "{line}: {errors}");
}

fn enrol(machine: &Machine, user: &str) -> String {
    text(&json(machine, &["enrol", "--user", user, "--no-confirm", "--force"])["secret"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

fn new_key(machine: &Machine) -> String {
    text(&json(machine, &["key", "new"])["key"])
}

/// A key that seals.
fn sealing(machine: &Machine) -> String {
    let key = new_key(machine);
    done(machine, &format!("key activate {key} --yes"));
    key
}

fn sealed_with(machine: &Machine, user: &str) -> Option<String> {
    json(machine, &["status", "--user", user])["sealed_with"].as_str().map(str::to_owned)
}

/// What a login by the module itself, which has no keys, comes to.
fn reason(machine: &Machine, user: &str, code: &str) -> String {
    let login = machine.login("test", user).answer(code).run();
    if login.result() == SUCCESS {
        return "accepted".to_owned();
    }
    assert_eq!(login.result(), AUTH_ERR, "{login:#?}");
    login.reason()
}

/// How many records each key has sealed.
fn counts(machine: &Machine) -> Vec<(String, String, u64)> {
    let listed = json(machine, &["key", "list"]);
    let keys = listed["keys"].as_array().unwrap().iter();
    keys.map(|key| (text(&key["key"]), text(&key["state"]), key["records"].as_u64().unwrap())).collect()
}

fn file(machine: &Machine, name: &str) -> Vec<u8> {
    fs::read(machine.path(&format!("{RECORDS}/{name}"))).unwrap()
}

fn shows_a_secret(bytes: &[u8]) -> bool {
    bytes.windows(9).any(|bytes| bytes == b"secret = ")
}

#[test]
fn a_key_seals_from_its_activation_to_its_end() {
    let machine = machine();
    let (alice, bob) = (enrol(&machine, "alice"), enrol(&machine, "bob"));
    let old = new_key(&machine);
    let mode = fs::metadata(machine.path(RING)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // It is there, and seals nothing.
    assert_eq!(counts(&machine), [(old.clone(), "decrypt-only".to_owned(), 0)]);
    assert_eq!(reason(&machine, "alice", &code_now(&alice)), "accepted");
    refused(&machine, "key reseal", "no key is active");
    refused(&machine, &format!("key activate {old}"), "--yes");
    refused(&machine, "key activate 00000000 --yes", "no-such-key");
    assert_eq!(run(&machine, &["key", "activate", "x"]).status.code(), Some(2));
    done(&machine, &format!("key activate {old} --yes"));
    // What is there stays plain until it is written.
    assert_eq!((sealed_with(&machine, "alice"), sealed_with(&machine, "bob")), (None, None));
    done(&machine, "device rename phone tablet --user alice");
    assert_eq!((sealed_with(&machine, "alice"), sealed_with(&machine, "bob")), (Some(old.clone()), None));
    assert!(file(&machine, "alice").starts_with(format!("# pam_totp record, sealed with key {old}\n").as_bytes()));
    assert!(!shows_a_secret(&file(&machine, "alice")) && !shows_a_secret(&file(&machine, "alice~")));
    // The module has no keys: the one is denied, by a right code and a wrong one alike, and the other is not.
    for code in [code_now(&alice), wrong_code(&alice)] {
        assert_eq!(reason(&machine, "alice", &code), "sealed-record");
    }
    let bobs = code_now(&bob);
    assert_eq!(reason(&machine, "bob", &bobs), "accepted");
    // Whoever has no record is somebody else.
    assert_eq!(reason(&machine, "carol", "123456"), "not-enrolled");
    // For root everything goes on.
    let list = done(&machine, "device list --user alice");
    assert!(list.starts_with("tablet: "), "{list}");
    assert!(done(&machine, "status --user alice").contains(&format!("sealed with key {old}")));
    done(&machine, "recovery new --user alice");
    json(&machine, &["device", "add", "phone", "--user", "alice", "--no-confirm"]);
    let all = json(&machine, &["status", "--all"]);
    let of_alice = all.as_array().unwrap().iter().find(|seen| seen["user"] == "alice").unwrap();
    assert_eq!((&of_alice["sealed_with"], &of_alice["devices"][1]["name"]), (&old.as_str().into(), &"phone".into()));

    let new = sealing(&machine);
    assert_eq!(json(&machine, &["key", "list"])["plain"], 1);
    refused(&machine, &format!("key drop {new}"), "active-key");
    refused(&machine, &format!("key drop {new} --force"), "active-key");
    refused(&machine, &format!("key drop {old}"), "1 record sealed with");
    let resealed = json(&machine, &["key", "reseal"]);
    assert_eq!((&resealed["done"], &resealed["already"]), (&2.into(), &0.into()));
    assert_eq!(json(&machine, &["key", "reseal"])["already"], 2);
    for name in ["alice", "alice~", "bob", "bob~"] {
        assert!(!shows_a_secret(&file(&machine, name)), "{name}");
    }
    assert_eq!(counts(&machine), [(old.clone(), "decrypt-only".into(), 0), (new.clone(), "active".into(), 2)]);
    done(&machine, &format!("key drop {old}"));
    assert_eq!(counts(&machine), [(new.clone(), "active".to_owned(), 2)]);

    // And back.
    assert_eq!(json(&machine, &["key", "unseal"])["done"], 2);
    assert_eq!(counts(&machine), [(new.clone(), "decrypt-only".to_owned(), 0)]);
    assert_eq!(reason(&machine, "bob", &bobs), "used-code", "it is known what was used before all this");
    assert_eq!(reason(&machine, "alice", &wrong_code(&alice)), "wrong-code");
    done(&machine, &format!("key drop {new}"));
    assert_eq!(counts(&machine), []);
}

#[test]
fn a_key_that_is_dropped_by_force_or_lost_with_its_ring_denies() {
    let machine = machine();
    enrol(&machine, "alice");
    let old = sealing(&machine);
    done(&machine, "key reseal");
    let copy = fs::read(machine.path(RING)).unwrap();
    sealing(&machine);
    assert_eq!(json(&machine, &["key", "drop", &old, "--force"])["lost"], 1);
    refused(&machine, "status --user alice", &format!("unknown-seal-key key={old}"));
    refused(&machine, "key reseal", "unknown-seal-key");
    let listed = json_of_failing(&machine, "key reseal --json");
    assert_eq!(listed["failed"][0]["user"], "alice");
    assert_eq!(json(&machine, &["key", "list"])["not_in_the_ring"][0]["key"], old.as_str());
    // The copy of the ring brings them back.
    machine.write_as(RING, &copy, 0, 0o600);
    assert_eq!(sealed_with(&machine, "alice"), Some(old));
    fs::remove_file(machine.path(RING)).unwrap();
    refused(&machine, "status --user alice", "sealed-record");
    refused(&machine, "key list", "no-key-ring");
    refused(&machine, "status --user alice --ring /root/other", "no-key-ring");
    // Or one enrols anew, plain as there is no key.
    let secret = enrol(&machine, "alice");
    assert_eq!(reason(&machine, "alice", &code_now(&secret)), "accepted");
}

fn json_of_failing(machine: &Machine, line: &str) -> Value {
    let output = run(machine, &words(line));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_record_of_somebody_else_or_one_that_was_altered_denies_and_the_others_are_resealed() {
    let machine = machine();
    for user in ["alice", "bob", "carol"] {
        enrol(&machine, user);
    }
    sealing(&machine);
    done(&machine, "key reseal");
    let path = |name: &str| format!("{RECORDS}/{name}");
    machine.write_as(&path("bob"), file(&machine, "alice"), 0, 0o600);
    let mut altered = file(&machine, "alice");
    altered[2000] ^= 1;
    machine.write_as(&path("alice"), &altered, 0, 0o600);
    for user in ["alice", "bob"] {
        refused(&machine, &format!("status --user {user}"), "broken-seal");
        assert_eq!(reason(&machine, user, "123456"), "sealed-record");
    }
    let new = sealing(&machine);
    let resealed = json_of_failing(&machine, "key reseal --json");
    let failed: Vec<_> = resealed["failed"].as_array().unwrap().iter().map(|one| text(&one["user"])).collect();
    assert_eq!((&resealed["done"], failed), (&1.into(), vec!["alice".to_owned(), "bob".to_owned()]));
    assert_eq!(sealed_with(&machine, "carol"), Some(new));
    let said = run(&machine, &["doctor"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("broken-seal") && said.contains("3 records sealed"), "{said}");
    // A new record may take its place.
    enrol(&machine, "alice");
    assert!(sealed_with(&machine, "alice").is_some());
}

#[test]
fn a_ring_that_is_not_roots_alone_or_not_whole_is_named_with_the_way_out() {
    let machine = machine();
    enrol(&machine, "alice");
    sealing(&machine);
    done(&machine, "key reseal");
    let ring = fs::read(machine.path(RING)).unwrap();
    let is_refused = |what: &str, words: &[&str]| {
        for line in ["status --user alice", "key list", "key new", "device list --user alice"] {
            let output = run(&machine, &self::words(line));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {line}: {output:?}");
            for word in [&["bad-key-ring", RING], words].concat() {
                assert!(errors.contains(word), "{what}: {line}: {errors}");
            }
        }
        let doctor = run(&machine, &["doctor"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains("key-ring"), "{what}: {doctor:?}");
    };
    machine.write_as(RING, &ring, 0, 0o640);
    is_refused("readable", &["wrong-mode", "mode=0640", "chmod 0600"]);
    machine.write_as(RING, &ring, ALICE.uid, 0o600);
    is_refused("of somebody else", &["wrong-owner"]);
    machine.write_as(RING, &ring[..ring.len() - 1], 0, 0o600);
    is_refused("cut off", &["line=", "your copy"]);
    machine.write_as(RING, "", 0, 0o600);
    is_refused("empty", &["line=1"]);
    machine.write_as("/etc/security/other", &ring, 0, 0o600);
    fs::remove_file(machine.path(RING)).unwrap();
    symlink("other", machine.path(RING)).unwrap();
    is_refused("a link", &["link"]);
    fs::remove_file(machine.path(RING)).unwrap();
    fs::hard_link(machine.path("/etc/security/other"), machine.path(RING)).unwrap();
    is_refused("two names", &["several-names"]);
    fs::remove_file(machine.path(RING)).unwrap();
    // Elsewhere it is as good.
    assert!(done(&machine, "status --user alice --ring /etc/security/other").contains("sealed with key"));
    // Not where others could put another in its place.
    machine.make_directory("/etc/keys", 0o777, 0);
    machine.write_as("/etc/keys/ring", &ring, 0, 0o600);
    refused(&machine, "key list --ring /etc/keys/ring", "cause=wrong-mode path=/etc/keys");
}

#[test]
fn a_resealing_that_is_killed_leaves_every_record_readable_and_is_ended_by_the_next() {
    const PEOPLE: u64 = 60;
    let machine = machine();
    enrol(&machine, "alice");
    // Of people whom no user database knows, which is all the same to the keys.
    let text = String::from_utf8(file(&machine, "alice")).unwrap();
    for number in 0..PEOPLE {
        let name = format!("user{number}");
        machine.write_as(&format!("{RECORDS}/{name}"), renamed(&text, &name), 0, 0o600);
        machine.write_as(&format!("{RECORDS}/{name}~"), [b'\n'; 4096], 0, 0o600);
    }
    let mut cut_short = 0;
    for round in 0..60_u64 {
        if round >= 12 && cut_short > 2 {
            break;
        }
        let key = sealing(&machine);
        let mut command = machine.command(machine.program());
        command.args(["key", "reseal"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        thread::sleep(Duration::from_millis(10 + round * 17 % 90));
        child.kill().unwrap();
        child.wait().unwrap();
        let all = json(&machine, &["status", "--all"]);
        let seen = all.as_array().unwrap();
        let readable = seen.iter().filter(|seen| seen["enrolled"] == true).count();
        assert_eq!(readable as u64, PEOPLE + 1, "round {round}: {all}");
        let done = seen.iter().filter(|seen| seen["sealed_with"] == key.as_str()).count();
        cut_short += u64::from((1..=PEOPLE).contains(&(done as u64)));
    }
    assert!(cut_short > 2, "only {cut_short} were killed halfway");
    let last = sealing(&machine);
    assert_eq!(json(&machine, &["key", "reseal"])["done"], PEOPLE + 1);
    for (key, _, records) in counts(&machine) {
        assert_eq!(records, if key == last { PEOPLE + 1 } else { 0 });
        if key != last {
            done(&machine, &format!("key drop {key}"));
        }
    }
    for entry in fs::read_dir(machine.path(RECORDS)).unwrap() {
        let path = entry.unwrap().path();
        assert!(!shows_a_secret(&fs::read(&path).unwrap()), "{}", path.display());
    }
}

/// The record of somebody as that of somebody else, with a right checksum.
fn renamed(text: &str, name: &str) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    const FIRST_LINE: usize = 108;
    let mut body = text[FIRST_LINE..].trim_end_matches(['\n', '#']).replace("\"alice\"", &format!("\"{name}\""));
    let digest: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    body.push_str(&"\n".repeat(4096 - FIRST_LINE - 1 - body.len()));
    format!("# pam_totp record, sha256 of what follows: {digest}\n{body}#").into_bytes()
}

#[test]
fn keys_are_roots_and_of_the_root_only_store() {
    let machine = machine();
    let output = machine.command_as(ALICE, machine.program()).args(["key", "new"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("only root can"), "{output:?}");
    let key = new_key(&machine);
    // No beginning of the other, which would be taken for a file that was cut short.
    machine.write(POLICY, "version = 1\n[defaults]\nstore = \"home\"\n");
    for line in [&format!("key activate {key} --yes")[..], "key reseal", "key unseal"] {
        refused(&machine, line, "store = \"system\"");
    }
    done(&machine, "key list");
}
