//! What `pam-totp doctor` says of a fleet, on a real cluster: nothing where all is right (but for etcd's version), and of each
//! thing that can be wrong what it is.

use crate::support::agent::Agent;
use crate::support::etcd::{BASTIONS, CLIENT, Cert, Cluster, SERVER, Setup, eventually, private};
use crate::support::fleet::{CONF, FILES, RING, agents, equip, found, machine, share_keys};
use crate::support::machine::{Machine, SUCCESS};
use crate::support::root_only::{STATE, json, run, totp};
use crate::support::totp::code_now;
use crate::support::{need, output_of};
use pam_totp::store::fleet::{Fleet, FleetStore};
use pam_totp::store::seal::KeyRing;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Nobody need have a device: what is tested is not who is locked out.
const OPTIONAL: &str = "enrolment = \"optional\"\n";

/// `Finding`s by weight and name, that are about the fleet; the clock is that of the machine around.
fn findings(machine: &Machine) -> Vec<Value> {
    judged(run(machine, &["doctor", "--json"])).0
}

fn judged(output: std::process::Output) -> (Vec<Value>, Vec<String>) {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let is_ours = |finding: &&Value| {
        let name = finding["name"].as_str().unwrap();
        let prefixes = ["fleet-", "etcd-", "agent-", "record", "store-", "state-", "key-ring", "ledger"];
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let findings: Vec<_> = report["findings"].as_array().unwrap().iter().filter(is_ours).cloned().collect();
    for finding in &findings {
        let is_said = |key: &str| !finding[key].as_str().unwrap().is_empty();
        assert!(["what", "why", "way_out"].into_iter().all(is_said), "{finding:#}");
        // Whoever ends in a colon has something to type.
        let has_lines = !finding["lines"].as_array().is_none_or(Vec::is_empty);
        assert_eq!(finding["way_out"].as_str().unwrap().ends_with(':'), has_lines, "{finding:#}");
    }
    (findings, report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect())
}

fn names(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect()
}

/// The names of all that is found, but for etcd's version, which Debian's has.
fn found_at(machine: &Machine) -> Vec<String> {
    let findings = findings(machine);
    names(&findings).into_iter().filter(|name| *name != "etcd-version").map(str::to_owned).collect()
}

#[track_caller]
fn the(findings: &[Value], name: &str) -> Value {
    let named: Vec<_> = findings.iter().filter(|finding| finding["name"] == name).collect();
    let [finding] = named.as_slice() else { panic!("{name}: {findings:#?}") };
    (*finding).clone()
}

#[track_caller]
fn assert_says(finding: &Value, weight: &str, words: &[&str]) {
    let text = finding.to_string();
    assert!(finding["weight"] == weight && words.iter().all(|word| text.contains(word)), "not {words:?}: {finding:#}");
}

fn set_mode(machine: &Machine, path: &str, mode: u32) {
    fs::set_permissions(machine.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes a file of root's for as long as something is looked at.
fn with<T>(machine: &Machine, path: &str, change: impl FnOnce(String) -> String, look: impl FnOnce() -> T) -> T {
    let before = machine.read(path);
    private(&machine.path(path), change(before.clone()));
    let looked = look();
    private(&machine.path(path), before);
    looked
}

#[test]
fn a_healthy_fleet_has_no_finding_but_the_version_and_each_thing_that_is_wrong_has_its_own() {
    let cluster = Cluster::start(3);
    let machines: Vec<_> = BASTIONS[..2].iter().map(|name| machine(&cluster, name, OPTIONAL)).collect();
    let [one, two] = machines.as_slice() else { unreachable!() };
    keys_and_the_fleet_are_asked_for(one);
    found(one);
    share_keys(one, two);
    totp(two, &["fleet", "init"]);
    let agents = agents(&machines);
    let secret = json(one, &["enrol", "--user", "alice", "--no-confirm"])["secret"].as_str().unwrap().to_owned();
    assert_eq!(two.login("test", "alice").answer(code_now(&secret)).run().result(), SUCCESS);

    // Nothing of a store in files is asked for, and what state_dir is is said.
    for machine in &machines {
        let (found, notes) = judged(run(machine, &["doctor", "--json"]));
        let is_old = cluster_is_old(&cluster);
        assert_eq!(names(&found), vec!["etcd-version"; usize::from(is_old)], "{found:#?}");
        if is_old {
            assert_says(&found[0], "weak", &["GHSA-rfx7-8w68-q57q", "GHSA-q8m4-xhhv-38mg", "CVE-2026-44283", "3.5.33"]);
        }
        assert!(notes.iter().any(|note| note.contains("has no records")), "{notes:#?}");
        assert!(notes.iter().any(|note| note.contains("cannot be told from here")), "{notes:#?}");
        assert!(!notes.iter().any(|note| note.contains("sealed-record")), "{notes:#?}");
    }
    drop(agents);
    let missing = findings(one);
    assert_says(&the(&missing, "agent-unanswered"), "closed", &["systemctl status"]);

    files_of_this_host(one);
    keys_of_the_hosts(&cluster, one, two);
    a_uid_that_differs(one, two);
    rights(&cluster, one);
    clocks(one);
    fs::remove_file(machines[0].path(CONF)).unwrap();
    equip(&cluster, one, BASTIONS[0]);
    documents(&cluster, one);
}

fn cluster_is_old(cluster: &Cluster) -> bool {
    let version = cluster.etcdctl(&["endpoint", "status", "-w", "json"]);
    ["3.4.2", "3.4.3", "3.5.1", "3.5.2"].iter().any(|old| version.contains(&format!("\"version\":\"{old}")))
}

fn keys_and_the_fleet_are_asked_for(machine: &Machine) {
    let agent = Agent::start(machine);
    assert_eq!(found_at(machine), ["fleet-key-ring"]);
    let key = json(machine, &["key", "new"])["key"].as_str().unwrap().to_owned();
    let inactive = the(&findings(machine), "fleet-key-inactive");
    assert_says(&inactive, "closed", &[&format!("pam-totp key activate {key}")]);
    totp(machine, &["key", "activate", &key]);
    assert_says(&the(&findings(machine), "fleet-missing"), "closed", &["/pam_totp/", "pam-totp fleet init"]);
    drop(agent);
    fs::remove_file(machine.path(RING)).unwrap();
}

fn files_of_this_host(machine: &Machine) {
    let _agent = Agent::start(machine);
    let password = format!("{FILES}/bastion.password");
    let at = |path: &str, change: &dyn Fn(String) -> String| with(machine, path, change, || findings(machine));
    let unknown = at(CONF, &|conf| conf.replace("ca =", "caa ="));
    assert_says(&the(&unknown, "fleet-conf"), "closed", &["unknown-key", "Correct"]);
    set_mode(machine, CONF, 0o644);
    assert_says(
        &the(&findings(machine), "fleet-conf"),
        "closed",
        &["wrong-mode", "chmod 0600 /etc/security/pam_totp.fleet"],
    );
    set_mode(machine, CONF, 0o600);
    let conf = machine.read(CONF);
    fs::remove_file(machine.path(CONF)).unwrap();
    assert_says(&the(&findings(machine), "fleet-conf"), "closed", &["no file says where", "install -m 0600"]);
    private(&machine.path(CONF), conf);
    set_mode(machine, &password, 0o640);
    assert_says(&the(&findings(machine), "fleet-conf"), "closed", &["bad-password-file", "bastion.password"]);
    set_mode(machine, &password, 0o600);
    let wrong = at(&password, &|_| "another\n".to_owned());
    assert_says(&the(&wrong, "etcd-user"), "closed", &["etcdctl user passwd bastion1"]);
    set_mode(machine, RING, 0o640);
    assert_says(&the(&findings(machine), "fleet-key-ring"), "closed", &["wrong-mode", "chmod 0600"]);
    set_mode(machine, RING, 0o600);
    // What this host has seen is not to be forgotten.
    let mounted = |options: &str| output_of(machine.command("mount").args(["-o", options, STATE]));
    output_of(machine.command("mount").args(["--bind", STATE, STATE]));
    mounted("remount,bind,ro");
    let found = findings(machine);
    assert_says(&the(&found, "fleet-state"), "closed", &["remount,rw"]);
    assert!(!names(&found).contains(&"state-read-only"), "{found:#?}");
    output_of(machine.command("umount").arg(STATE));
    assert_eq!(found_at(machine), [""; 0]);
}

fn keys_of_the_hosts(cluster: &Cluster, one: &Machine, two: &Machine) {
    let _agents = [Agent::start(one), Agent::start(two)];
    // A key that the other one does not have, and what is sealed with it.
    let key = json(one, &["key", "new"])["key"].as_str().unwrap().to_owned();
    totp(one, &["key", "activate", &key]);
    assert_says(&the(&findings(one), "fleet-host-keys"), "closed", &["bastion2 does not have", &key, "scp -p"]);
    totp(one, &["enrol", "--user", "bob", "--no-confirm"]);
    let there = findings(two);
    assert_says(&the(&there, "fleet-key-missing"), "closed", &[&key, "pam-totp fleet list"]);
    share_keys(one, two);
    // They say what they have.
    [one, two].into_iter().for_each(|machine| drop(totp(machine, &["fleet", "init"])));
    for machine in [one, two] {
        let (found, notes) = judged(run(machine, &["doctor", "--json"]));
        assert!(!names(&found).iter().any(|name| name.starts_with("fleet-")), "{found:#?}");
        assert!(notes.iter().any(|note| note.contains("pam-totp key reseal")), "{notes:#?}");
    }
    // Without any of the keys nothing can be read.
    private(&two.path(RING), "");
    assert_eq!(found_at(two), ["fleet-key-ring"]);
    fs::remove_file(two.path(RING)).unwrap();
    found_new_key(two);
    assert_says(&the(&findings(two), "fleet-unreadable"), "closed", &["unknown-seal-key", "pam-totp key list"]);
    share_keys(one, two);
    assert_eq!(found_at(two), [""; 0]);

    // One with another version, which is revoked then.
    let directory = cluster.etc("old");
    cluster.equip(BASTIONS[2], &directory);
    let file = directory.join("fleet.toml");
    private(&file, cluster.conf(BASTIONS[2], &directory));
    private(&directory.join("keys"), fs::read(one.path(RING)).unwrap());
    let keys = KeyRing::read(&directory.join("keys")).unwrap();
    let fleet = Fleet::open(&file).unwrap();
    FleetStore::new(&fleet, &keys, &directory.join("state"), None).unwrap().report("0.0.1").unwrap();
    assert_says(&the(&findings(one), "fleet-host-version"), "weak", &["bastion3 has pam_totp 0.0.1"]);
    FleetStore::new(&fleet, &keys, &directory.join("state"), None).unwrap().strike_off(BASTIONS[2]).unwrap();
    assert_eq!(found_at(one), [""; 0]);
    let as_revoked =
        with(one, CONF, |conf| conf.replace("host = \"bastion1\"", "host = \"bastion3\""), || findings(one));
    assert_says(&the(&as_revoked, "fleet-host-revoked"), "closed", &["bastion3", "taken out"]);
}

fn found_new_key(machine: &Machine) {
    let key = json(machine, &["key", "new"])["key"].as_str().unwrap().to_owned();
    totp(machine, &["key", "activate", &key]);
}

fn a_uid_that_differs(one: &Machine, two: &Machine) {
    let _agents = [Agent::start(one), Agent::start(two)];
    let passwd = two.read("/etc/passwd");
    let uid = |line: &str| line.split(':').nth(2).unwrap().to_owned();
    let line = passwd.lines().find(|line| line.starts_with("alice:")).unwrap();
    two.write("/etc/passwd", passwd.replace(line, &line.replace(&format!(":{}:", uid(line)), ":20777:")));
    let found = the(&findings(two), "record-of-another");
    assert_says(&found, "closed", &["alice", "expected=20777", "same uid on all hosts", "pam-totp reset --user alice"]);
    two.write("/etc/passwd", passwd);
    // An account that is not on all hosts is nothing wrong.
    let passwd = two.read("/etc/passwd");
    let without: String =
        passwd.lines().filter(|line| !line.starts_with("bob:")).map(|line| format!("{line}\n")).collect();
    two.write("/etc/passwd", without);
    assert_eq!(found_at(two), [""; 0]);
    two.write("/etc/passwd", passwd);
}

fn rights(cluster: &Cluster, machine: &Machine) {
    let _agent = Agent::start(machine);
    cluster.etcdctl(&["role", "add", "all"]);
    cluster.etcdctl(&["role", "grant-permission", "all", "read", "--prefix=true", "/"]);
    cluster.etcdctl(&["user", "grant-role", "bastion1", "all"]);
    let wide = the(&findings(machine), "etcd-role-too-wide");
    assert_says(&wide, "weak", &["bastion1", "/pam_totp/", "etcdctl user revoke-role bastion1 ROLE"]);
    cluster.etcdctl(&["user", "revoke-role", "bastion1", "all"]);
    assert_eq!(found_at(machine), [""; 0]);
    cluster.etcdctl(&["user", "revoke-role", "bastion1", "fleet"]);
    let none = the(&findings(machine), "etcd-role");
    assert_says(&none, "closed", &["etcdctl role grant-permission fleet readwrite --prefix=true /pam_totp/"]);
    cluster.etcdctl(&["user", "grant-role", "bastion1", "fleet"]);
    // Nobody.
    let is_login = |line: &&str| !line.contains("user") && !line.contains("password");
    let without = |conf: String| conf.lines().filter(is_login).map(|line| format!("{line}\n")).collect();
    let nobody = with(machine, CONF, without, || findings(machine));
    assert_says(&the(&nobody, "etcd-user"), "closed", &["`user` and `password_file`"]);
}

fn clocks(machine: &Machine) {
    need("faketime", "faketime");
    let _agent = Agent::start(machine);
    let at = |off: &str| {
        let mut command = machine.command("faketime");
        command.args(["-f", off]).arg(machine.program()).args(["doctor", "--json"]);
        judged(command.output().unwrap()).0
    };
    assert_eq!(names(&at("+2")).iter().filter(|name| **name == "fleet-clock").count(), 0);
    assert_says(&the(&at("+12"), "fleet-clock"), "weak", &["this host's clock", "s behind", "chronyc tracking"]);
    let far = at("+300");
    assert_says(&the(&far, "fleet-clock"), "closed", &["s behind", "clock-off"]);
    assert!(!names(&far).contains(&"etcd-no-answer"), "{far:#?}");
}

fn documents(cluster: &Cluster, machine: &Machine) {
    let _agent = Agent::start(machine);
    assert_eq!(found_at(machine), [""; 0]);
    // What another program has put there.
    cluster.etcdctl(&["put", "/pam_totp/other", "x"]);
    assert_says(&the(&findings(machine), "fleet-foreign"), "weak", &["other", "prefix"]);
    cluster.etcdctl(&["del", "/pam_totp/other"]);
    // Somebody's document is gone, and then the fleet's own.
    cluster.etcdctl(&["del", "/pam_totp/people/alice"]);
    let gone = the(&findings(machine), "record-broken");
    assert_says(&gone, "closed", &["document-deleted", "pam-totp fleet accept-rollback --user alice"]);
    cluster.etcdctl(&["del", "/pam_totp/fleet"]);
    let gone = the(&findings(machine), "fleet-rolled-back");
    assert_says(&gone, "closed", &["document-deleted", "pam-totp fleet accept-rollback --all"]);
}

// ---- The cluster ----

#[test]
fn a_member_that_is_gone_and_a_cluster_without_quorum_are_told_apart() {
    let mut cluster = Cluster::start(3);
    let machine = machine(&cluster, BASTIONS[0], OPTIONAL);
    found(&machine);
    let _agent = Agent::start(&machine);
    cluster.kill(2);
    let found = eventually(Duration::from_secs(10), || {
        Some(findings(&machine))
            .filter(|found| names(found).iter().filter(|name| **name == "etcd-unreachable").count() == 1)
    });
    let found = found.unwrap_or_else(|| panic!("{:#?}", findings(&machine)));
    assert_says(&the(&found, "etcd-unreachable"), "weak", &[&cluster.endpoint(2), "goes on without it", "nc -z"]);
    cluster.kill(1);
    let found = findings(&machine);
    let unreachable: Vec<_> = found.iter().filter(|finding| finding["name"] == "etcd-unreachable").collect();
    assert!(unreachable.len() == 2 && unreachable.iter().all(|finding| finding["weight"] == "closed"), "{found:#?}");
    assert!(names(&found).contains(&"etcd-no-answer"), "{found:#?}");
    cluster.kill(0);
    let found = found_at(&machine);
    assert_eq!(found, ["etcd-unreachable"; 3]);
    // Nothing is waited for again and again.
    let start = std::time::Instant::now();
    let _ = findings(&machine);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_cluster_without_users_and_one_that_is_full_are_told() {
    const SMALL: &[&str] = &["--quota-backend-bytes", "8388608"];
    let cluster = Cluster::with(Setup { nodes: 1, auth: false, arguments: SMALL, ..Setup::default() });
    let machine = machine(&cluster, BASTIONS[0], OPTIONAL);
    found(&machine);
    let _agent = Agent::start(&machine);
    assert_eq!(found_at(&machine), ["etcd-open"]);
    let open = the(&findings(&machine), "etcd-open");
    assert_says(&open, "weak", &["etcdctl auth enable", "etcdctl user add bastion1"]);
    let with_user = |conf: String| format!("{conf}user = \"bastion1\"\npassword_file = \"{FILES}/bastion.password\"\n");
    let refused = with(&machine, CONF, with_user, || findings(&machine));
    assert_says(&the(&refused, "etcd-open"), "closed", &["etcdctl auth enable"]);

    let value = "x".repeat(100_000);
    let fill = "i=0; while [ $i -lt 100 ]; do \"$@\" put /others/$i \"$VALUE\" || exit 0; i=$((i+1)); done; exit 1";
    let mut shell = std::process::Command::new("sh");
    let endpoint = cluster.endpoint(0);
    shell
        .current_dir(cluster.directory())
        .env("VALUE", value)
        .env("ETCDCTL_API", "3")
        .args(["-c", fill, "sh", "etcdctl"]);
    shell.args(["--endpoints", &endpoint, "--cacert", "ca.pem", "--cert", "client.pem", "--key", "client.key"]);
    output_of(&mut shell);
    let full = the(&findings(&machine), "etcd-nospace");
    assert_says(&full, "closed", &[&endpoint, "etcdctl alarm disarm", "etcdctl defrag"]);
}

/// Where a host's certificate is exchanged for another.
fn come_with(cluster: &Cluster, machine: &Machine, cert: Cert) {
    cluster.certificate("other", cert);
    for end in ["pem", "key"] {
        let text = fs::read(cluster.path(&format!("other.{end}"))).unwrap();
        private(&machine.path(&format!("{FILES}/bastion.{end}")), text);
    }
}

fn certificate(machine: &Machine) -> Vec<Value> {
    let found = findings(machine);
    found.into_iter().filter(|finding| finding["name"] == "etcd-certificate").collect()
}

#[test]
fn each_certificate_that_is_not_taken_is_told_with_what_to_issue() {
    let cluster = Cluster::start(1);
    let machine = machine(&cluster, BASTIONS[0], OPTIONAL);
    found(&machine);
    let endpoint = cluster.endpoint(0);
    assert_eq!(certificate(&machine), [] as [Value; 0]);
    come_with(&cluster, &machine, Cert { subject: "/CN=bastion1", ..CLIENT });
    let with_cn = certificate(&machine);
    assert_says(&with_cn[0], "closed", &["CommonName", "empty subject", "-subj / ", "extendedKeyUsage=clientAuth"]);
    assert_eq!(with_cn.len(), 1, "{with_cn:#?}");
    come_with(&cluster, &machine, Cert { is_expired: true, ..CLIENT });
    assert_says(&certificate(&machine)[0], "closed", &["does not take this host's certificate", "openssl x509"]);

    // An authority that has not signed the server's.
    equip(&cluster, &machine, BASTIONS[0]);
    let stranger = Cluster::with(Setup { nodes: 1, auth: false, ..Setup::default() });
    private(&machine.path(&format!("{FILES}/ca.pem")), fs::read(stranger.path("ca.pem")).unwrap());
    assert_says(&certificate(&machine)[0], "closed", &[&endpoint, "not of the authority", "find out who answers"]);
    equip(&cluster, &machine, BASTIONS[0]);
    assert_eq!(certificate(&machine), [] as [Value; 0]);
}

#[test]
fn each_servers_certificate_that_is_not_good_is_told() {
    let servers = [
        (Cert { usage: "serverAuth", ..SERVER }, &["serverAuth,clientAuth", "own port", "systemctl restart etcd"][..]),
        (Cert { is_expired: true, ..SERVER }, &["has expired", "openssl x509"]),
        (Cert { san: "DNS:elsewhere,IP:127.0.0.2", ..SERVER }, &["SAN", "openssl x509"]),
    ];
    std::thread::scope(|scope| {
        for (server, words) in servers {
            scope.spawn(move || {
                let cluster = Cluster::with(Setup { nodes: 1, server, auth: false, ..Setup::default() });
                let machine = machine(&cluster, BASTIONS[0], OPTIONAL);
                found_new_key(&machine);
                // It takes a second until it answers at all.
                let said = eventually(Duration::from_secs(20), || {
                    certificate(&machine).into_iter().find(|finding| {
                        words.iter().all(|word| finding.to_string().contains(word)) && finding["weight"] == "closed"
                    })
                });
                assert!(said.is_some(), "{words:?}: {:#?}", findings(&machine));
            });
        }
    });
}

#[test]
fn of_an_image_nothing_is_said_of_the_cluster_and_no_store_is_missed() {
    let tree = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("etc/pam.d/sshd", "auth required pam_totp.so\nauth required pam_permit.so\n");
    write("etc/security/pam_totp.toml", "version = 1\n[defaults]\nstore = \"fleet\"\n");
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let mut command = std::process::Command::new(crate::support::dist("pam-totp"));
    let output = command.args(["doctor", "--json", "--root"]).arg(Path::new(tree.path())).output().unwrap();
    let (found, notes) = judged(output);
    assert_eq!(names(&found), [""; 0], "{found:#?}");
    assert!(notes.iter().any(|note| note.contains("whether this host gets to it, no file says")), "{notes:#?}");
}
