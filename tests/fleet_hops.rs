//! A bastion and a machine behind it, reached through the bastion (ssh -J), with one factor for both.

use crate::support::agent::Agent;
use crate::support::etcd::Cluster;
use crate::support::fleet::{found, machine, share_keys};
use crate::support::machine::{ALICE, Machine};
use crate::support::root_only::json;
use crate::support::ssh::{KEY_AND_CODE, Session, Sshd, public};
use crate::support::totp::{code_at, code_now, now, wrong_code};
use std::fs;
use std::path::Path;

/// What the machine behind says of the bastion, whose address is loopback here.
const BEHIND: &str = "[service.sshd]\ngrace = \"10m\"\ngrace_behind = [\"127.0.0.1\"]\n";

/// The bastion, and the machine behind with this in its policy.
fn pair(cluster: &Cluster, behind: &str) -> (Machine, Machine) {
    let (one, two) = (machine(cluster, "bastion1", ""), machine(cluster, "bastion2", behind));
    found(&one);
    share_keys(&one, &two);
    (one, two)
}

fn authorize(machine: &Machine, key: &Path) {
    machine.make_directory(&format!("{}/.ssh", ALICE.home()), 0o700, ALICE.uid);
    let file = format!("{}/.ssh/authorized_keys", ALICE.home());
    let before = fs::read_to_string(machine.path(&file)).unwrap_or_default();
    machine.write_as(&file, before + &fs::read_to_string(public(key)).unwrap(), ALICE.uid, 0o600);
}

/// Through the one to the other, typing these answers at whichever asks.
fn hop(bastion: &Sshd, behind: &Sshd, key: &Path, answers: &[&str]) -> Session {
    let jump = format!(
        "ProxyCommand=ssh -F none -p {} -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o StrictHostKeyChecking=no -o \
         UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o NumberOfPasswordPrompts=1 -W %h:%p {}@127.0.0.1",
        bastion.port(),
        key.display(),
        ALICE.name
    );
    behind.login_with(ALICE.name, key, answers, &["-o", &jump, "-o", "NumberOfPasswordPrompts=1"])
}

#[test]
fn the_second_hop_needs_another_code_or_the_key_that_the_first_was_given_with() {
    let cluster = Cluster::start(3);
    let (one, two) = pair(&cluster, "");
    let _agents = [Agent::start(&one), Agent::start(&two)];
    let (bastion, behind) = (Sshd::start(&one, KEY_AND_CODE), Sshd::start(&two, KEY_AND_CODE));
    let key = bastion.key(ALICE);
    authorize(&two, &key);
    let secret = json(&one, &["enrol", "--user", "alice", "--no-confirm"])["secret"].as_str().unwrap().to_owned();
    // Codes of three steps are good: each is used once.
    let start = now();
    let codes = [code_at(&secret, start - 30), code_at(&secret, start), code_at(&secret, start + 30)];

    let session = hop(&bastion, &behind, &key, &[&codes[0], &codes[0]]);
    assert!(!session.succeeded && session.questions.len() == 2, "the same code at both: {session:?}");
    let log = two.log();
    assert!(log.iter().any(|line| line.contains("reason=used-code")), "{log:#?}");
    let session = hop(&bastion, &behind, &key, &[&codes[1], &codes[2]]);
    assert!(session.succeeded, "one code each: {session:?}");

    let policy = "/etc/security/pam_totp.toml";
    two.write(policy, two.read(policy) + BEHIND);
    // All codes of this minute are used up, and another minute would have to be waited for: enrolled anew.
    let enrol = || {
        let new = json(&one, &["enrol", "--user", "alice", "--no-confirm", "--force"]);
        new["secret"].as_str().unwrap().to_owned()
    };
    let secret = enrol();
    let session = behind.login_with("alice", &key, &[&wrong_code(&secret)], &[]);
    assert!(
        !session.succeeded && session.questions.len() == 1,
        "with another secret the key is worth nothing: {session:?}"
    );
    let session = hop(&bastion, &behind, &key, &[&code_now(&secret)]);
    assert!(session.succeeded && session.questions.len() == 1, "asked once: {session:?} {:#?}", two.log());
    let log = two.log();
    assert!(log.iter().any(|line| line.contains("factor=grace")), "{log:#?}");

    // Another key of hers, by which nobody has given a code.
    let other = bastion.new_key("other", &["-t", "ed25519"]);
    authorize(&two, &other);
    let session = behind.login_with("alice", &other, &[&wrong_code(&secret)], &[]);
    assert!(!session.succeeded && session.questions.len() == 1, "{session:?}");
    // Three failures end it.
    for _ in 0..2 {
        let _ = behind.login_with("alice", &other, &[&wrong_code(&secret)], &[]);
    }
    let session = behind.login_with("alice", &key, &[&wrong_code(&secret)], &[]);
    assert!(!session.succeeded && session.questions.len() == 1, "three have failed since: {session:?}");
}

#[test]
fn the_key_counts_from_the_bastion_alone() {
    let cluster = Cluster::start(1);
    let elsewhere = BEHIND.replace("127.0.0.1", "192.0.2.7");
    let (one, two) = pair(&cluster, &elsewhere);
    let _agents = [Agent::start(&one), Agent::start(&two)];
    let (bastion, behind) = (Sshd::start(&one, KEY_AND_CODE), Sshd::start(&two, KEY_AND_CODE));
    let key = bastion.key(ALICE);
    authorize(&two, &key);
    let secret = json(&one, &["enrol", "--user", "alice", "--no-confirm"])["secret"].as_str().unwrap().to_owned();
    assert!(bastion.login(ALICE, &[&code_now(&secret)]).succeeded);
    let session = behind.login_with("alice", &key, &[&wrong_code(&secret)], &[]);
    assert!(!session.succeeded && session.questions.len() == 1, "{session:?}");
}
