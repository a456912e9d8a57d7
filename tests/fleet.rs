//! A fleet: several machines, each with its agent, on a real cluster of three.

use crate::self_service::{FIRST_CODE, PROMPT_OR_RECOVERY, secret_on};
use crate::support::agent::{Agent, SOCKET};
use crate::support::etcd::{CLIENT, Cert, Cluster, PREFIX, eventually, private};
use crate::support::fleet::{CONF, FILES, RING, agents, found, knock, machine, machines, share_keys, verdict};
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, BOB, Machine, SUCCESS, User};
use crate::support::root_only::{STACK, json, next_code, run, secret, ticket, totp};
use crate::support::ssh::{KEY_AND_CODE, Session, Sshd, fingerprint};
use crate::support::terminal::Terminal;
use crate::support::totp::{code_now, hotp, wrong_code};
use crate::support::{need, output_of, screen};
use pam_totp::agent::wire::Verdict;
use std::fs;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

/// What is tested is not the ledger.
const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";

fn enrol(machine: &Machine, user: &str) -> String {
    let printed = json(machine, &["enrol", "--user", user, "--no-confirm", "--force"]);
    printed["secret"].as_str().unwrap().to_owned()
}

/// A device that counts.
fn enrol_counter(machine: &Machine, user: &str) -> String {
    let printed = json(machine, &["enrol", "--user", user, "--no-confirm", "--force", "--counter-based"]);
    printed["secret"].as_str().unwrap().to_owned()
}

fn login(machine: &Machine, user: &str, code: &str) -> (i32, String) {
    let login = machine.login("test", user).answer(code).run();
    (login.result(), if login.result() == SUCCESS { String::new() } else { login.reason() })
}

#[track_caller]
fn assert_in(machine: &Machine, user: &str, code: &str) {
    assert_eq!(login(machine, user, code), (SUCCESS, String::new()));
}

#[track_caller]
fn assert_denied(machine: &Machine, user: &str, code: &str, reason: &str) {
    assert_eq!(login(machine, user, code), (AUTH_ERR, reason.to_owned()), "{user}");
}

#[test]
fn one_enrolment_is_good_everywhere_and_a_code_once() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, WITHOUT_LIMITS);
    let _agents = agents(&machines);
    let secret = enrol(&machines[0], "alice");
    let code = code_now(&secret);
    assert_eq!(login(&machines[1], "alice", &code).0, SUCCESS, "{:#?}", machines[1].log());
    for machine in &machines {
        assert_denied(machine, "alice", &code, "used-code");
        assert_denied(machine, "alice", &wrong_code(&secret), "wrong-code");
        assert_denied(machine, "bob", &code, "not-enrolled");
        assert_denied(machine, "nobody-at-all", &code, "unknown-user");
    }
    assert_in(&machines[2], "alice", &next_code(&secret));
    let status = json(&machines[1], &["status", "--user", "alice"]);
    assert_eq!((status["store"].as_str(), status["enrolled"].as_bool()), (Some("fleet"), Some(true)), "{status}");
    let hosts = json(&machines[0], &["fleet", "list"]);
    assert_eq!(hosts.as_array().unwrap().len(), 3, "{hosts}");
}

// ---- Somebody has got at the cluster ----

/// Everywhere the code is refused for this reason, and somebody is told to look.
#[track_caller]
fn assert_alarm(machines: &[Machine], user: &str, code: &str, reason: &str) {
    for machine in machines {
        let _ = machine.log();
        let mut client = machine.command(machine.client());
        let output = client.args(["test", user, "--answer", code]).output().unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = machine.log_with_priorities();
        assert!(output.lines().any(|line| line == format!("result {AUTH_ERR}")), "{output} {log:#?}");
        let says = |line: &str, place: &str| line.contains(place) && line.contains(&format!(" reason={reason} "));
        let is_alert = |(priority, line): &(u8, String)| *priority == 1 && says(line, "pam_totp(fleet): refused");
        assert!(log.iter().any(is_alert), "{log:#?}");
        assert!(log.iter().any(|(_, line)| says(line, &format!("denied user={user} "))), "{log:#?}");
    }
}

fn accept(machine: &Machine, whose: &[&str]) -> Vec<serde_json::Value> {
    json(machine, &[&["fleet", "accept-rollback"], whose].concat())["accepted"].as_array().unwrap().clone()
}

/// It can be gone on with, everywhere.
#[track_caller]
fn assert_healed(machines: &[Machine], user: &str) {
    let secret = enrol_counter(&machines[0], user);
    for (machine, counter) in machines.iter().zip(1..) {
        assert_in(machine, user, &hotp(&secret, counter));
    }
}

#[test]
fn a_record_put_back_is_refused() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, WITHOUT_LIMITS);
    let _agents = agents(&machines);
    let at = |user: &str| cluster.get(&format!("people/{user}")).unwrap();
    let put = |user: &str, value: &[u8]| cluster.put(&format!("people/{user}"), value);
    // As it was before a code was used.
    let secret = enrol(&machines[0], "alice");
    let before = at("alice");
    let code = code_now(&secret);
    assert_in(&machines[1], "alice", &code);
    put("alice", &before);
    assert_alarm(&machines, "alice", &code, "document-put-back");
    assert_alarm(&machines, "alice", &next_code(&secret), "document-put-back");
    let accepted = accept(&machines[2], &["--user", "alice"]);
    assert_eq!((accepted.len(), &accepted[0]["name"], &accepted[0]["was_gone"]), (1, &"alice".into(), &false.into()));
    for machine in &machines {
        assert_denied(machine, "alice", &code, "used-code");
        assert_denied(machine, "alice", &next_code(&secret), "used-code");
    }
    assert_healed(&machines, "alice");
    exchanged(&cluster, &machines);
    deleted(&cluster, &machines);
    put_back_one_by_one(&cluster, &machines);
    // Nothing that can be read.
    let secret = enrol_counter(&machines[0], "alice");
    let right = at("alice");
    for (value, reason) in [(&[&[2], &right[1..]].concat()[..], "bad-document"), (b"something", "bad-document")] {
        put("alice", value);
        assert_alarm(&machines, "alice", &hotp(&secret, 1), reason);
    }
    // Of a key that no other host has.
    put("alice", &right);
    accept(&machines[0], &["--all"]);
    let key = json(&machines[2], &["key", "new"])["key"].as_str().unwrap().to_owned();
    totp(&machines[2], &["key", "activate", &key]);
    assert_in(&machines[2], "alice", &hotp(&secret, 1));
    assert_alarm(&machines[..2], "alice", &hotp(&secret, 2), "unknown-seal-key");
    machines[..2].iter().for_each(|machine| share_keys(&machines[2], machine));
    assert_in(&machines[0], "alice", &hotp(&secret, 2));
    assert_denied(&machines[1], "alice", &hotp(&secret, 2), "wrong-code");
}

/// One person's in the place of another's.
fn exchanged(cluster: &Cluster, machines: &[Machine]) {
    let secret = enrol(&machines[0], "bob");
    let [alices, bobs] = ["people/alice", "people/bob"].map(|key| cluster.get(key).unwrap());
    cluster.put("people/alice", &bobs);
    cluster.put("people/bob", &alices);
    for user in ["alice", "bob"] {
        assert_alarm(machines, user, &code_now(&secret), "broken-seal");
        let refused = run(&machines[0], &["fleet", "accept-rollback", "--user", user]);
        assert!(!refused.status.success(), "{refused:?}");
    }
    cluster.put("people/alice", &alices);
    cluster.put("people/bob", &bobs);
    assert_alarm(machines, "bob", &code_now(&secret), "document-put-back");
    assert_eq!(accept(&machines[1], &["--all"]).len(), 2);
    assert_denied(&machines[2], "bob", &code_now(&secret), "used-code");
    assert_healed(machines, "bob");
}

/// Nobody is let pass who had a device, whatever the stack says of those who have none.
fn deleted(cluster: &Cluster, machines: &[Machine]) {
    machines.iter().for_each(|machine| {
        machine.service("lax", "auth required pam_totp.so nullok\nauth required pam_permit.so\n");
    });
    let lax = |machine: &Machine| machine.login("lax", "bob").answer("000000").run();
    assert_eq!(login_lax(&machines[0], "carol"), SUCCESS, "she never had one");
    cluster.delete("people/bob");
    assert_alarm(machines, "bob", "000000", "document-deleted");
    for machine in machines {
        assert_eq!((lax(machine).result(), lax(machine).reason().as_str()), (AUTH_ERR, "document-deleted"));
    }
    let accepted = accept(&machines[0], &["--user", "bob"]);
    assert_eq!(accepted[0]["was_gone"], true, "{accepted:?}");
    for machine in machines {
        assert_denied(machine, "bob", "000000", "record-gone");
        assert_eq!((lax(machine).result(), lax(machine).reason().as_str()), (AUTH_ERR, "record-gone"));
    }
    assert_healed(machines, "bob");
}

fn login_lax(machine: &Machine, user: &str) -> i32 {
    machine.login("lax", user).answer("000000").run().result()
}

/// So that sequence and version are right again, but for those who have seen more.
fn put_back_one_by_one(cluster: &Cluster, machines: &[Machine]) {
    let secret = enrol_counter(&machines[0], "carol");
    let mut values = vec![cluster.get("people/carol").unwrap()];
    for (machine, counter) in machines.iter().zip(1..) {
        assert_in(machine, "carol", &hotp(&secret, counter));
        values.push(cluster.get("people/carol").unwrap());
    }
    machines.iter().for_each(|machine| drop(totp(machine, &["status", "--user", "carol"])));
    cluster.delete("people/carol");
    values[..3].iter().for_each(|value| cluster.put("people/carol", value));
    assert_alarm(machines, "carol", &hotp(&secret, 3), "document-put-back");
    let accepted = accept(&machines[0], &["--user", "carol"]);
    assert_eq!((&accepted[0]["behind"], &accepted[0]["weakened"]), (&2.into(), &true.into()), "{accepted:?}");
    assert_healed(machines, "carol");
}

// ---- Hosts and keys ----

/// Until whoever has just replied has said in the fleet which keys it has.
fn totp_once(machine: &Machine, arguments: &[&str]) {
    let done = eventually(Duration::from_secs(10), || run(machine, arguments).status.success().then_some(()));
    assert!(done.is_some(), "{:?}", run(machine, arguments));
}

#[test]
fn revoking_a_host_marks_its_people() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, &format!("enrolment = \"ticket\"\n{WITHOUT_LIMITS}"));
    let _agents = agents(&machines);
    let secrets = ["alice", "bob"].map(|user| enrol_counter(&machines[0], user));
    for (machine, counter) in machines.iter().zip(1..) {
        assert_in(machine, "alice", &hotp(&secrets[0], counter));
    }
    let says = |words: &str| {
        let output = run(&machines[0], &["fleet", "revoke", "bastion3"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(words), "{words}: {output:?}");
    };
    let heard_of = || json(&machines[0], &["fleet", "list"]).as_array().unwrap().len() == 3;
    assert!(eventually(Duration::from_secs(10), || heard_of().then_some(())).is_some());
    says("bastion3 has the key");
    let key = json(&machines[0], &["key", "new"])["key"].as_str().unwrap().to_owned();
    totp(&machines[0], &["key", "activate", &key]);
    says("bastion2 has not said yet");
    assert_in(&machines[1], "bob", &hotp(&secrets[1], 1));
    share_keys(&machines[0], &machines[1]);
    // It says so at a login.
    assert_in(&machines[1], "bob", &hotp(&secrets[1], 2));
    totp_once(&machines[0], &["fleet", "revoke", "bastion3"]);
    for machine in &machines[..2] {
        assert_denied(machine, "alice", &hotp(&secrets[0], 4), "revoked");
        assert_denied(machine, "bob", &hotp(&secrets[1], 3), "revoked");
    }
    assert_alarm(&machines[2..], "alice", &hotp(&secrets[0], 4), "unknown-seal-key");
    let hosts = json(&machines[1], &["fleet", "list"]);
    let revoked: Vec<_> = hosts.as_array().unwrap().iter().map(|host| host["revoked"].is_u64()).collect();
    assert_eq!(revoked, [false, false, true], "{hosts}");
    // Back in, by a ticket, or by root's word.
    let word = ticket(&machines[0], "alice", &[]);
    let sshd = Sshd::start(&machines[1], KEY_AND_CODE);
    let (secret, session) = with_ticket(&sshd, ALICE, &word);
    assert!(session.succeeded, "{session:#?} {:#?}", machines[1].log());
    assert_in(&machines[0], "alice", &next_code(&secret));
    assert_healed(&machines[..2], "bob");
    // Its old key is good for nothing, and everybody can do without.
    let keys = json(&machines[0], &["key", "list"]);
    let old = keys["keys"].as_array().unwrap().iter().find(|listed| listed["state"] != "active").unwrap().clone();
    assert_eq!(old["records"], 0, "{keys}");
    totp(&machines[0], &["key", "drop", old["key"].as_str().unwrap()]);
}

/// Enrols through a client that is asked for a ticket first: the secret.
fn with_ticket(sshd: &Sshd, user: User, ticket: &str) -> (String, Session) {
    let mut client = sshd.talk(user.name, &sshd.key(user), &["-o", "NumberOfPasswordPrompts=1"]);
    client.question().unwrap();
    client.answer(ticket);
    let mut scanned = String::new();
    client.reply(|shown| {
        scanned = secret(&screen::scan(shown));
        code_now(&scanned)
    });
    (scanned, client.finish())
}

#[test]
fn keys_are_changed_while_people_log_in() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, WITHOUT_LIMITS);
    let agents = agents(&machines);
    let secret = enrol_counter(&machines[0], "alice");
    for user in ["bob", "carol", "root"] {
        enrol(&machines[0], user);
    }
    let codes = crate::support::totp::hotps(&secret, 1, 5000);
    let is_done = AtomicBool::new(false);
    let logins = thread::scope(|scope| {
        let logins = scope.spawn(|| {
            let mut count = 0;
            while !is_done.load(SeqCst) {
                let said = verdict(&agents[count % 3], knock("alice", "192.0.2.7"), &codes[count]);
                assert_eq!(said, Verdict::Allow, "{count}: {:#?}", machines[count % 3].log());
                count += 1;
            }
            count
        });
        let old = json(&machines[0], &["key", "list"])["keys"][0]["key"].as_str().unwrap().to_owned();
        let new = json(&machines[0], &["key", "new"])["key"].as_str().unwrap().to_owned();
        machines[1..].iter().for_each(|machine| exchange_keys(&machines[0], machine));
        for machine in &machines {
            totp(machine, &["key", "activate", &new]);
        }
        let resealed = json(&machines[1], &["key", "reseal"]);
        assert!(resealed["done"].as_u64().unwrap() >= 3, "{resealed}");
        for machine in &machines {
            assert_eq!(json(machine, &["key", "drop", &old])["lost"], 0);
        }
        let keys = json(&machines[2], &["key", "list"]);
        assert_eq!(
            (keys["keys"].as_array().unwrap().len(), &keys["keys"][0]["key"]),
            (1, &new.clone().into()),
            "{keys}"
        );
        is_done.store(true, SeqCst);
        logins.join().unwrap()
    });
    println!("{logins} logins meanwhile");
    assert!(logins > 10);
}

/// As a careful administrator does: by a file beside it, as somebody may be reading.
fn exchange_keys(from: &Machine, to: &Machine) {
    let beside = to.path(&format!("{RING}.new"));
    private(&beside, fs::read(from.path(RING)).unwrap());
    fs::rename(beside, to.path(RING)).unwrap();
}

// ---- A host that is not as the others are ----

#[test]
fn a_host_with_another_clock_other_keys_or_no_right_lets_nobody_in() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, WITHOUT_LIMITS);
    let _agents = agents(&machines[..2]);
    need("faketime", "faketime");
    // As faketime would, but that the agent is no child of it.
    let preload = output_of(Command::new("faketime").args(["-f", "+1h", "printenv", "LD_PRELOAD"]));
    let mut late = machines[2].command("env");
    late.args([&format!("LD_PRELOAD={}", preload.trim()), "FAKETIME=+1h", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
    let late = Agent::start_by(&machines[2], late.arg(machines[2].agent()).args(["--socket", SOCKET]));
    let secret = enrol_counter(&machines[0], "alice");
    assert_denied(&machines[2], "alice", &hotp(&secret, 1), "clock-off");
    assert_in(&machines[0], "alice", &hotp(&secret, 1));
    drop(late);
    let _agent = Agent::start(&machines[2]);
    assert_in(&machines[2], "alice", &hotp(&secret, 2));
    // The same prefix, and keys of its own.
    let stranger = machine(&cluster, "stranger", WITHOUT_LIMITS);
    let key = json(&stranger, &["key", "new"])["key"].as_str().unwrap().to_owned();
    totp(&stranger, &["key", "activate", &key]);
    let strangers = Agent::start(&stranger);
    assert!(!run(&stranger, &["fleet", "init"]).status.success());
    assert_alarm(std::slice::from_ref(&stranger), "alice", &hotp(&secret, 3), "unknown-seal-key");
    // A fleet of its own beside the first one.
    let conf = stranger.read(CONF);
    let beside = |prefix: &str| conf.replace(&format!("prefix = \"{PREFIX}\""), &format!("prefix = \"{prefix}\""));
    let other = machine(&cluster, "other", WITHOUT_LIMITS);
    private(&other.path(CONF), other.read(CONF).replace(PREFIX, "/pam_totp/2/"));
    found(&other);
    let _others = Agent::start(&other);
    assert_denied(&other, "alice", &hotp(&secret, 3), "not-enrolled");
    let theirs = enrol_counter(&other, "alice");
    assert_in(&other, "alice", &hotp(&theirs, 1));
    assert_denied(&machines[0], "alice", &hotp(&theirs, 2), "wrong-code");
    assert_eq!(json(&other, &["fleet", "list"]).as_array().unwrap().len(), 1);
    // What is under its keys is not the first one's either.
    cluster.put("2/people/alice", &cluster.get("people/alice").unwrap());
    assert_alarm(std::slice::from_ref(&other), "alice", &hotp(&theirs, 2), "unknown-seal-key");
    // Where it may not be.
    drop(strangers);
    private(&stranger.path(CONF), beside("/elsewhere/"));
    let _strangers = Agent::start(&stranger);
    assert_eq!(login(&stranger, "alice", &hotp(&secret, 3)), (AUTHINFO_UNAVAIL, "etcd-refused".to_owned()));
    assert_in(&machines[1], "alice", &hotp(&secret, 3));
}

#[test]
fn a_host_with_a_bad_certificate_is_told_so_and_lets_nobody_in() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 2, WITHOUT_LIMITS);
    let _agent = Agent::start(&machines[0]);
    let secret = enrol_counter(&machines[0], "alice");
    let copy = |from: &str, to: &str| {
        private(&machines[1].path(&format!("{FILES}/{to}")), fs::read(cluster.path(from)).unwrap());
    };
    let unavailable = |words: &str| {
        let _agent = Agent::start(&machines[1]);
        let login = machines[1].login("test", "alice").answer(hotp(&secret, 1)).run();
        assert_eq!(login.result(), AUTHINFO_UNAVAIL, "{login:#?}");
        assert!(login.log.iter().any(|line| line.contains(words)), "{words}: {login:#?}");
    };
    cluster.certificate("expired", Cert { is_expired: true, ..CLIENT });
    copy("expired.pem", "bastion.pem");
    copy("expired.key", "bastion.key");
    unavailable("bad-certificate");
    cluster.certificate("named", Cert { subject: "/CN=bastion2", ..CLIENT });
    copy("named.pem", "bastion.pem");
    copy("named.key", "bastion.key");
    unavailable("takes no client certificate with a CN");
    cluster.equip("bastion2", &machines[1].path(FILES));
    // Signed by itself: of no CA of ours.
    copy("client.pem", "ca.pem");
    unavailable("bad-certificate");
    cluster.equip("bastion2", &machines[1].path(FILES));
    let _agent = Agent::start(&machines[1]);
    assert_in(&machines[1], "alice", &hotp(&secret, 1));
}

// ---- What one host does holds on all ----

#[test]
fn tickets_grace_notices_and_limits_are_the_fleets() {
    let cluster = Cluster::start(3);
    let own = "grace = \"1h\"\n[service.sshd]\nenrolment = \"ticket\"\n[throttle]\nuser = \"*:3/1h\"\nhost = \"\"\n";
    let machines = machines(&cluster, 3, own);
    let _agents = agents(&machines);
    machines.iter().for_each(|machine| machine.service("sshd", &format!("{STACK}session optional pam_totp.so\n")));
    // Invited here, enrolled there, and nowhere else.
    let word = ticket(&machines[0], "alice", &[]);
    let sshds: Vec<_> = machines[1..].iter().map(|machine| Sshd::start(machine, KEY_AND_CODE)).collect();
    let (secret, session) = with_ticket(&sshds[0], ALICE, &word);
    assert!(session.succeeded, "{session:#?} {:#?}", machines[1].log());
    totp(&machines[2], &["remove", "--user", "alice"]);
    assert!(!sshds[1].login(ALICE, &[&word]).succeeded);
    assert!(machines[2].log().iter().any(|line| line.contains("reason=wrong-ticket")));
    totp(&machines[0], &["throttle", "unlock", "--user", "alice"]);
    assert_denied(&machines[0], "alice", &next_code(&secret), "record-gone");
    totp(&machines[0], &["throttle", "unlock", "--user", "alice"]);
    // Grace earned here is honoured there, from the same place, until three have failed anywhere.
    let secret = enrol_counter(&machines[0], "alice");
    let from = |machine: &Machine, rhost: &str, code: &str| {
        let login = machine.login("test", "alice").with(&["--rhost", rhost]).answer(code).run();
        (login.result(), login.prompts.len())
    };
    assert_eq!(from(&machines[0], "198.51.100.7", &hotp(&secret, 1)), (SUCCESS, 1));
    for machine in &machines {
        assert_eq!(from(machine, "198.51.100.7", "000000"), (SUCCESS, 0));
        assert_eq!(from(machine, "198.51.100.8", "000000"), (AUTH_ERR, 1));
    }
    for machine in &machines {
        assert_eq!(from(machine, "198.51.100.7", "000000"), (AUTH_ERR, 1), "void");
    }
    // What was counted on all is seen and forgotten from any.
    let rows = json(&machines[1], &["throttle", "list"]);
    assert!(rows.as_array().unwrap().iter().any(|row| row["name"] == "alice" && row["failures"] == 3), "{rows}");
    assert_denied(&machines[2], "alice", &hotp(&secret, 2), "throttled");
    totp(&machines[1], &["throttle", "unlock", "--user", "alice"]);
    // They are told where they get in next.
    assert_denied(&machines[0], "alice", "000000", "wrong-code");
    let session = sshds[1].look_in(ALICE, &[&hotp(&secret, 2)]);
    assert!(session.succeeded && session.output.contains("failed since your last login"), "{session:#?}");
    let session = sshds[0].look_in(ALICE, &[&hotp(&secret, 3)]);
    assert!(session.succeeded && !session.output.contains("failed since"), "told once: {session:#?}");
    // Somebody who is removed, and one who is forgotten.
    let unlock = || drop(totp(&machines[1], &["throttle", "unlock", "--user", "alice"]));
    totp(&machines[2], &["remove", "--user", "alice"]);
    unlock();
    machines.iter().for_each(|machine| assert_denied(machine, "alice", &hotp(&secret, 4), "record-gone"));
    totp(&machines[0], &["reset", "--user", "alice"]);
    unlock();
    machines.iter().for_each(|machine| assert_denied(machine, "alice", &hotp(&secret, 4), "not-enrolled"));
}

#[test]
fn an_account_of_several_people_and_what_they_do_themselves_are_the_fleets() {
    let cluster = Cluster::start(3);
    let machines = machines(&cluster, 2, &format!("[service.sshd]\nidentity = \"login-key\"\n{WITHOUT_LIMITS}"));
    let _agents = agents(&machines);
    let sshds: Vec<_> = machines.iter().map(|machine| Sshd::start(machine, KEY_AND_CODE)).collect();
    // alice is an account of two people; each has one key for all hosts.
    let keys = ["first", "second"].map(|name| sshds[0].another_key(BOB, name, &["-t", "ed25519"]));
    let authorized = machines[0].read("/home/bob/.ssh/authorized_keys");
    sshds[1].key(BOB);
    machines[1].append("/home/bob/.ssh/authorized_keys", &authorized);
    let secrets = keys.each_ref().map(|key| {
        let key = fingerprint(key);
        let made = json(&machines[0], &["enrol", "--user", "bob", "--key", &key, "--no-confirm", "--counter-based"]);
        made["secret"].as_str().unwrap().to_owned()
    });
    for (number, sshd) in sshds.iter().enumerate() {
        let counter = u64::try_from(number).unwrap() + 1;
        for (own, other) in [(0, 1), (1, 0)] {
            let login = |code: &str| sshd.login_with("bob", &keys[own], &[code], &[]).succeeded;
            assert!(!login(&hotp(&secrets[other], counter)), "another one's code");
            assert!(login(&hotp(&secrets[own], counter)), "{:#?}", machines[number].log());
            let elsewhere = &sshds[1 - number];
            assert!(!elsewhere.login_with("bob", &keys[own], &[&hotp(&secrets[own], counter)], &[]).succeeded, "used");
        }
    }
    // One's own account: another device, added here and used there.
    let secret = enrol_counter(&machines[0], "alice");
    let mut add = machines[0].command_as(ALICE, machines[0].program());
    add.args(["device", "add", "tablet", "--counter-based", "--qr-mode", "none"]);
    let mut terminal = Terminal::run(&add, "C.UTF-8");
    terminal.until(PROMPT_OR_RECOVERY);
    terminal.enter(&hotp(&secret, 1));
    let tablet = secret_on(&terminal.until(FIRST_CODE));
    terminal.enter(&hotp(&tablet, 1));
    assert!(terminal.finish().1, "{:#?}", machines[0].log());
    assert_in(&machines[1], "alice", &hotp(&tablet, 2));
    assert_denied(&machines[0], "alice", &hotp(&tablet, 2), "wrong-code");
    assert_denied(&machines[1], "alice", &hotp(&secret, 1), "wrong-code");
}
