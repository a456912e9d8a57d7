//! The client of etcd against a real cluster: what is there, what is not, and what nobody can know.

use crate::support::etcd::{BASTIONS, CLIENT, Cert, Cluster, PREFIX, SERVER, Setup, eventually, password, private};
use pam_totp::fact::Fact;
use pam_totp::fleet::conf::Conf;
use pam_totp::fleet::etcd::{self, Commit, Guard, Kv, Put};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// As long as a login waits.
const TOTAL: Duration = Duration::from_secs(5);

fn soon() -> Instant {
    Instant::now() + TOTAL
}

/// A client, as a bastion has it.
fn client(cluster: &Cluster, bastion: &str) -> etcd::Cluster {
    changed_client(cluster, bastion, |conf| conf).unwrap()
}

/// The same, with something changed in its configuration.
fn changed_client(
    cluster: &Cluster,
    bastion: &str,
    change: impl FnOnce(String) -> String,
) -> Result<etcd::Cluster, Fact> {
    let directory = cluster.etc(bastion);
    cluster.equip(bastion, &directory);
    let file = directory.join("fleet.toml");
    private(&file, change(cluster.conf(bastion, &directory)));
    etcd::Cluster::new(&Conf::read(&file)?)
}

fn key(name: &str) -> Vec<u8> {
    format!("{PREFIX}{name}").into_bytes()
}

fn put(name: &str, value: &[u8]) -> Put {
    Put { key: key(name), value: value.to_vec() }
}

fn guard(name: &str, revision: u64) -> Guard {
    Guard { key: key(name), revision }
}

fn get(client: &etcd::Cluster, name: &str) -> Option<Kv> {
    client.read(&[&key(name)], soon()).unwrap().pop().unwrap()
}

fn done(commit: Commit) -> u64 {
    match commit {
        Commit::Done { revision } => revision,
        other => panic!("{other:?}"),
    }
}

/// What a client without hope is told.
fn refusal(client: &etcd::Cluster) -> String {
    client.read(&[&key("x")], Instant::now() + Duration::from_secs(2)).unwrap_err().to_string()
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    assert!(words.iter().all(|word| text.contains(word)), "{text}: not {words:?}");
}

#[test]
fn what_is_written_is_there_once_and_only_where_nobody_was_faster() {
    let start = Instant::now();
    let cluster = Cluster::start(3);
    println!("3 nodes with users: {:?}", start.elapsed());
    let (one, other) = (client(&cluster, BASTIONS[0]), client(&cluster, BASTIONS[1]));
    // Made, and not made twice.
    assert_eq!(get(&one, "a"), None);
    let made = done(one.commit(&[guard("a", 0)], &[put("a", b"1")], soon()));
    assert_eq!(other.commit(&[guard("a", 0)], &[put("a", b"2")], soon()), Commit::Stale);
    let kv = get(&other, "a").unwrap();
    assert_eq!((kv.value.as_slice(), kv.revision, kv.version, kv.created), (b"1".as_slice(), made, 1, made));
    // Changed, and not by who has read an older one.
    let changed = done(other.commit(&[guard("a", made)], &[put("a", b"")], soon()));
    assert!(changed > made);
    assert_eq!(one.commit(&[guard("a", made)], &[put("a", b"3")], soon()), Commit::Stale);
    // An empty value is not in the answer, and yet it is one.
    let kv = get(&one, "a").unwrap();
    assert_eq!((kv.value.as_slice(), kv.revision, kv.version, kv.created), (b"".as_slice(), changed, 2, made));
    // Several keys: all or none.
    let both = [guard("a", changed), guard("b", 0)];
    let at = done(one.commit(&both, &[put("a", b"4"), put("b", &[0, 255, 10])], soon()));
    assert_eq!(one.commit(&both, &[put("a", b"5"), put("b", b"5")], soon()), Commit::Stale);
    let keys = [key("b"), key("none"), key("a")];
    let read = other.read(&keys.each_ref().map(Vec::as_slice), soon()).unwrap();
    let values: Vec<_> = read.iter().map(|kv| kv.as_ref().map(|kv| (kv.value.as_slice(), kv.revision))).collect();
    assert_eq!(values, [Some(([0, 255, 10].as_slice(), at)), None, Some((b"4".as_slice(), at))]);
    // What is gone can be made again, and is not what it was.
    cluster.etcdctl(&["del", &format!("{PREFIX}a")]);
    assert_eq!(get(&one, "a"), None);
    assert_eq!(one.commit(&[guard("a", at)], &[put("a", b"6")], soon()), Commit::Stale);
    let again = done(one.commit(&[guard("a", 0)], &[put("a", b"6")], soon()));
    assert_eq!(get(&one, "a").map(|kv| (kv.version, kv.created)), Some((1, again)));
    cost(&one);
    lists_are_whole(&one, &other);
    others_keys_are_not_ours(&cluster, &one);
    members_say_how_they_are(&cluster, &one);
    what_was_compacted_is_not_remembered(&cluster, &one);
    tokens_are_renewed(&cluster, &one);
}

/// Not a test: what a login costs here.
fn cost(client: &etcd::Cluster) {
    let mut times = [Vec::new(), Vec::new()];
    let mut revision = done(client.commit(&[guard("cost", 0)], &[put("cost", &[0; 400])], soon()));
    for _ in 0..60 {
        let start = Instant::now();
        get(client, "cost");
        let read = Instant::now();
        revision = done(client.commit(&[guard("cost", revision)], &[put("cost", &[0; 400])], soon()));
        times[0].push(read - start);
        times[1].push(read.elapsed());
    }
    times.iter_mut().for_each(|times| times.sort());
    println!(
        "read {:?}, commit {:?} (median); {:?}, {:?} (worst)",
        times[0][30], times[1][30], times[0][59], times[1][59]
    );
}

/// Of several pages, at one revision.
fn lists_are_whole(client: &etcd::Cluster, other: &etcd::Cluster) {
    let names: Vec<_> = (0..1234).map(|number| format!("list/{number:04}")).collect();
    for names in names.chunks(100) {
        let puts: Vec<_> = names.iter().map(|name| put(name, name.as_bytes())).collect();
        done(client.commit(&[], &puts, soon()));
    }
    let mut listed = Vec::new();
    let mut each = |kv: Kv| {
        if listed.is_empty() {
            // Not there at the list's revision.
            done(other.commit(&[], &[put("list/0777/later", b""), put("list/1233", b"later")], soon()));
        }
        assert_eq!(kv.key, key(&String::from_utf8(kv.value).unwrap()));
        listed.push(kv.key);
        Ok(())
    };
    client.list(&key("list/"), TOTAL, &mut each).unwrap();
    assert_eq!(listed, names.iter().map(|name| key(name)).collect::<Vec<_>>());
    let enough = client.list(&key("list/"), TOTAL, &mut |_| Err(Fact::new("enough")));
    assert_eq!(enough, Err(Fact::new("enough")));
    let mut none = |kv: Kv| panic!("{kv:?}");
    client.list(&key("nobody/"), TOTAL, &mut none).unwrap();
}

fn others_keys_are_not_ours(cluster: &Cluster, client: &etcd::Cluster) {
    cluster.etcdctl(&["put", "/others/key", "value"]);
    let outside = b"/others/key";
    let text = client.read(&[outside], soon()).unwrap_err().to_string();
    assert_says(&text, &["etcd-refused", "permission", "grant-permission"]);
    let put = Put { key: outside.to_vec(), value: b"ours".to_vec() };
    match client.commit(&[], &[put], soon()) {
        Commit::Unknown(fact) => assert_says(&fact.to_string(), &["etcd-refused", "permission"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(cluster.etcdctl(&["get", "--print-value-only", "/others/key"]).trim(), "value");
    let all = client.list(b"/", TOTAL, &mut |_| Ok(())).unwrap_err();
    assert_says(&all.to_string(), &["etcd-refused", "permission"]);
}

fn members_say_how_they_are(cluster: &Cluster, client: &etcd::Cluster) {
    let members = client.members(soon());
    assert_eq!(members.iter().map(|(endpoint, _)| endpoint.clone()).collect::<Vec<_>>(), cluster.endpoints());
    let members: Vec<_> = members.into_iter().map(|(_, member)| member.unwrap()).collect();
    let leader = &members[cluster.leader()];
    for member in &members {
        assert_eq!((member.cluster, member.leader), (leader.cluster, leader.id), "{members:?}");
        assert!(member.db_size > 10_000 && member.db_size_in_use > 0 && member.raft_term > 0, "{member:?}");
        assert!(member.version.starts_with("3.") && member.alarms.is_empty(), "{member:?}");
        assert!(member.ahead.unwrap().abs() < 3, "{member:?}");
    }
}

fn what_was_compacted_is_not_remembered(cluster: &Cluster, client: &etcd::Cluster) {
    let first = done(client.commit(&[], &[put("compacted", b"1")], soon()));
    let second = done(client.commit(&[], &[put("compacted", b"2")], soon()));
    let remembers = |revision| client.remembers(&key("compacted"), revision, soon()).unwrap();
    assert!(remembers(1) && remembers(first) && remembers(second));
    cluster.etcdctl(&["compact", &second.to_string()]);
    assert!(!remembers(1) && !remembers(first) && remembers(second));
    let outside = client.remembers(b"/others/key", second, soon()).unwrap_err();
    assert_says(&outside.to_string(), &["etcd-refused", "permission"]);
}

/// One that etcd does not know any more, with its 401; and with the other message, of an older state of its users.
fn tokens_are_renewed(cluster: &Cluster, client: &etcd::Cluster) {
    // Any change of users or roles makes tokens old.
    cluster.etcdctl(&["role", "add", "another"]);
    done(client.commit(&[], &[put("token", b"1")], soon()));
    assert_eq!(get(client, "token").unwrap().value, b"1");
}

#[test]
fn a_token_that_has_expired_is_renewed() {
    let mut cluster = Cluster::start(1);
    let client = client(&cluster, BASTIONS[0]);
    done(client.commit(&[guard("a", 0)], &[put("a", b"1")], soon()));
    // Tokens are in the memory of a node alone.
    cluster.kill(0);
    cluster.restart(0);
    let revision = get(&client, "a").unwrap().revision;
    cluster.kill(0);
    cluster.restart(0);
    cluster.leader();
    // The first request since then: a write.
    done(client.commit(&[guard("a", revision)], &[put("a", b"2")], soon()));
    // A password that is not the right one any more, and one that never was.
    let wrong = changed_client(&cluster, BASTIONS[1], |conf| {
        private(&cluster.etc("bastion2").join("bastion.password"), password("somebody else"));
        conf
    });
    assert_says(&refusal(&wrong.unwrap()), &["etcd-refused", "user or password is wrong"]);
    // Nobody.
    let without = |conf: String| {
        conf.lines()
            .filter(|line| !line.contains("user") && !line.contains("password"))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let nobody = changed_client(&cluster, BASTIONS[1], without).unwrap();
    assert_says(&refusal(&nobody), &["etcd-refused", "user-name-is-empty", "`user` and `password_file`"]);
}

// ---- Certificates ----

/// One node without users, whose certificate is this.
fn with_server(server: Cert) -> Cluster {
    Cluster::with(Setup { nodes: 1, server, auth: false, ..Setup::default() })
}

#[test]
fn what_is_wrong_with_a_servers_certificate_is_said() {
    let servers = [
        // The gateway comes to its own port with it.
        (Cert { usage: "serverAuth", ..SERVER }, "etcd-refused", "serverAuth,clientAuth"),
        (Cert { is_expired: true, ..SERVER }, "bad-certificate", "has expired"),
        (Cert { san: "DNS:elsewhere,IP:127.0.0.2", ..SERVER }, "bad-certificate", "SAN"),
        (Cert { usage: "clientAuth", ..SERVER }, "bad-certificate", "not good for a server"),
    ];
    thread::scope(|scope| {
        for (server, word, words) in servers {
            scope.spawn(move || {
                let cluster = with_server(server);
                let client = client(&cluster, BASTIONS[0]);
                // It takes a second until it answers at all.
                let said =
                    eventually(Duration::from_secs(10), || Some(refusal(&client)).filter(|text| text.contains(words)));
                assert_says(
                    &said.unwrap_or_else(|| panic!("{words}: {}", refusal(&client))),
                    &[word, &cluster.endpoint(0)],
                );
                let Commit::Unknown(fact) = client.commit(&[], &[put("a", b"")], soon()) else { panic!("{words}") };
                assert_says(&fact.to_string(), &[word, words]);
            });
        }
    });
}

#[test]
fn what_is_wrong_with_a_clients_certificate_is_said() {
    let cluster = Cluster::start(1);
    let with = |cert: Cert| {
        changed_client(&cluster, BASTIONS[0], |conf| {
            cluster.certificate("other", cert);
            let directory = cluster.etc("bastion1");
            for end in ["pem", "key"] {
                let text = std::fs::read(cluster.path(&format!("other.{end}"))).unwrap();
                private(&directory.join(format!("bastion.{end}")), text);
            }
            conf
        })
        .unwrap()
    };
    // With one that is right: so that the rest is about the certificates.
    assert_eq!(get(&with(CLIENT), "a"), None);
    assert_says(&refusal(&with(Cert { subject: "/CN=bastion1", ..CLIENT })), &["bad-certificate", "empty subject"]);
    let not_taken = ["bad-certificate", "does not take this host's certificate"];
    assert_says(&refusal(&with(Cert { is_expired: true, ..CLIENT })), &not_taken);
    let none = |conf: String| {
        conf.lines()
            .filter(|line| !line.starts_with("cert") && !line.starts_with("key"))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    assert_says(&refusal(&changed_client(&cluster, BASTIONS[0], none).unwrap()), &not_taken);
    // An authority of the same name that is another one.
    let stranger = with_server(SERVER);
    let strangers = |conf: String| {
        let ca = cluster.etc("bastion1").join("ca.pem");
        private(&ca, std::fs::read(stranger.path("ca.pem")).unwrap());
        conf
    };
    let client = changed_client(&cluster, BASTIONS[0], strangers).unwrap();
    assert_says(&refusal(&client), &["bad-certificate", "not of the authority"]);
    // Files that do not belong together, or are none, are found before anybody is asked.
    let said = |change: &dyn Fn()| {
        let client = changed_client(&cluster, BASTIONS[0], |conf| {
            change();
            conf
        });
        client.err().unwrap().to_string()
    };
    let file = |name: &str| cluster.etc("bastion1").join(name);
    let ca_key = std::fs::read(cluster.path("ca.key")).unwrap();
    assert_says(&said(&|| private(&file("bastion.key"), &ca_key)), &["bad-certificate", "do not belong together"]);
    assert_says(&said(&|| private(&file("bastion.key"), "no key")), &["bad-certificate", "bastion.key", "no key"]);
    assert_says(&said(&|| private(&file("bastion.pem"), &ca_key)), &["bad-certificate", "no certificate in it"]);
    assert_says(&said(&|| private(&file("ca.pem"), "")), &["bad-certificate", "ca.pem"]);
    assert_says(&said(&|| std::fs::remove_file(file("ca.pem")).unwrap()), &["bad-certificate", "no such file"]);
    assert_says(&said(&|| private(&file("bastion.password"), "\n")), &["bad-password-file", "one line"]);
    let open = |name: &'static str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(file(name), std::fs::Permissions::from_mode(0o640)).unwrap();
    };
    assert_says(&said(&|| open("bastion.key")), &["bad-certificate", "wrong-mode", "bastion.key"]);
    assert_says(&said(&|| open("bastion.password")), &["bad-password-file", "wrong-mode"]);
}

/// Who answers the first message of a handshake a byte at a time, each in time.
#[test]
fn a_handshake_that_takes_its_time_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                // A record of 16 kB of the handshake (RFC 8446 section 5.1).
                let bytes = [0x16, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(2));
                for byte in bytes {
                    if stream.as_ref().unwrap().write_all(&[byte]).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    let cluster = with_server(SERVER);
    let endpoint = cluster.endpoint(0);
    let client = changed_client(&cluster, BASTIONS[0], |conf| conf.replace(&endpoint, &format!("https://{address}")));
    let client = client.unwrap();
    let start = Instant::now();
    let Commit::Unknown(fact) = client.commit(&[], &[put("a", b"")], soon()) else { panic!("done") };
    assert_says(&fact.to_string(), &["etcd-unreachable", "timed-out"]);
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

// ---- Nodes that fail ----

/// A client that asks this node first.
fn that_prefers(cluster: &Cluster, node: usize) -> etcd::Cluster {
    // The first one is drawn, and stays while it answers.
    let first = cluster.endpoint(node);
    let one = changed_client(cluster, BASTIONS[0], |conf| conf).unwrap();
    let found = (0..200).find_map(|_| {
        let client = changed_client(cluster, BASTIONS[0], |conf| conf).unwrap();
        (client.favourite() == first).then_some(client)
    });
    drop(one);
    found.expect("a client that prefers it")
}

#[test]
fn the_next_endpoint_is_asked_where_one_is_gone_or_hangs() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    // One that is gone, and not needed.
    let gone = (leader + 1) % 3;
    let client = that_prefers(&cluster, gone);
    let mut revision = done(client.commit(&[guard("a", 0)], &[put("a", b"1")], soon()));
    cluster.kill(gone);
    let start = Instant::now();
    assert_eq!(get(&client, "a").unwrap().revision, revision);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_ne!(client.favourite(), cluster.endpoint(gone));
    // A write to one that is gone goes to the next one at once: nobody has got it.
    let fresh = that_prefers(&cluster, gone);
    revision = done(fresh.commit(&[guard("a", revision)], &[put("a", b"2")], soon()));
    cluster.restart(gone);
    cluster.leader();
    // One that hangs: the kernel still takes connections for it.
    let client = that_prefers(&cluster, gone);
    let hung = gone;
    assert_eq!(get(&client, "a").unwrap().revision, revision);
    cluster.stop(hung);
    let start = Instant::now();
    match client.commit(&[guard("a", revision)], &[put("a", b"3")], soon()) {
        Commit::Unknown(fact) => assert_says(&fact.to_string(), &["etcd-unreachable", "timed-out"]),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_millis(1300), "{:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(get(&client, "a").unwrap().revision, revision, "nobody has passed it on");
    assert!(start.elapsed() < Duration::from_millis(500), "the other one was asked first: {:?}", start.elapsed());
    // A new connection to it.
    let fresh = that_prefers(&cluster, hung);
    let start = Instant::now();
    revision = done(fresh.commit(&[guard("a", revision)], &[put("a", b"4")], soon()));
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    cluster.cont(hung);
    // Without a majority there is no answer, not even an old one.
    let left = cluster.leader();
    for node in (0..3).filter(|&node| node != left) {
        cluster.kill(node);
    }
    let start = Instant::now();
    let time = Duration::from_secs(3);
    let fact = client.read(&[&key("a")], start + time).unwrap_err().to_string();
    assert_says(&fact, &["etcd-"]);
    assert!(start.elapsed() < time + Duration::from_millis(200), "{:?}", start.elapsed());
    let commit = client.commit(&[guard("a", revision)], &[put("a", b"5")], Instant::now() + time);
    assert!(matches!(commit, Commit::Unknown(_)), "{commit:?}");
    assert!(start.elapsed() < 2 * time + Duration::from_millis(300), "{:?}", start.elapsed());
    // And with one there is.
    (0..3).filter(|&node| node != left).for_each(|node| cluster.restart(node));
    let kv = eventually(Duration::from_secs(10), || client.read(&[&key("a")], soon()).ok());
    assert!(kv.unwrap()[0].as_ref().unwrap().revision >= revision);
}

/// Writers of their own keys, one after the other; what was said to be done has to be there, at that revision, for good.
#[test]
fn what_was_done_is_there_after_the_leader_was_killed() {
    const WRITERS: usize = 6;
    let mut cluster = Cluster::start(3);
    let (is_over, unknown) = (AtomicBool::new(false), AtomicU64::new(0));
    let acknowledged = Mutex::new(Vec::new());
    let clients: Vec<_> = (0..WRITERS).map(|writer| client(&cluster, BASTIONS[writer % 3])).collect();
    thread::scope(|scope| {
        for (writer, client) in clients.iter().enumerate() {
            let (is_over, unknown, acknowledged) = (&is_over, &unknown, &acknowledged);
            scope.spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("audit/{writer}/{number}");
                    match client.commit(&[guard(&name, 0)], &[put(&name, name.as_bytes())], soon()) {
                        Commit::Done { revision } => acknowledged.lock().unwrap().push((name, revision)),
                        Commit::Unknown(_) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                        Commit::Stale => panic!("{name} was written by nobody else"),
                    }
                }
            });
        }
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(500));
            let leader = cluster.leader();
            cluster.kill(leader);
            thread::sleep(Duration::from_millis(1500));
            cluster.restart(leader);
        }
        thread::sleep(Duration::from_millis(500));
        is_over.store(true, Ordering::Relaxed);
    });
    let mut there = std::collections::BTreeMap::new();
    clients[0]
        .list(&key("audit/"), TOTAL, &mut |kv| {
            there.insert(kv.key, (kv.value, kv.revision));
            Ok(())
        })
        .unwrap();
    let acknowledged = acknowledged.into_inner().unwrap();
    for (name, revision) in &acknowledged {
        assert_eq!(there.get(&key(name)), Some(&(name.clone().into_bytes(), *revision)), "{name}");
    }
    let unknown = unknown.into_inner();
    let landed = there.len() - acknowledged.len();
    println!("{} acknowledged, {unknown} unknown, {landed} of those there", acknowledged.len());
    assert!(acknowledged.len() > 100 && landed <= usize::try_from(unknown).unwrap());
}
