//! What a login costs in a fleet: through the agent and a cluster of three with mTLS and users, with many people enrolled.

use crate::support::agent::{Agent, exchange};
use crate::support::etcd::{BASTIONS, Cluster, Setup, private};
use crate::support::fleet::{RING, found, machine};
use crate::support::machine::{Machine, User};
use crate::support::root_only::json;
use crate::support::totp::hotps;
use pam_totp::agent::wire::{Knock, Reply, Request, Verdict};
use pam_totp::fleet::conf::Conf;
use pam_totp::fleet::etcd;
use pam_totp::identity::Person;
use pam_totp::otp::base32;
use pam_totp::record::Record;
use pam_totp::record::google::Document;
use pam_totp::secret::Secret;
use pam_totp::store::fleet::{Fleet, FleetStore};
use pam_totp::store::{KeyRing, Roster, Store};
use pam_totp::system::passwd::Account;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Clients at once.
const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Logins of each client, one after the other.
const LOGINS: u64 = 30;
/// Times that all of that is done.
const ROUNDS: usize = 3;
/// Hosts at once.
pub const HOSTS: [usize; 3] = [10, 100, 1000];
/// When somebody tries again who was denied.
const AGAIN: Duration = Duration::from_secs(1);
/// Those who write the people.
const LOADERS: usize = 8;

pub fn bench(people: usize) {
    for is_on_disk in [true, false] {
        on(is_on_disk, people);
    }
}

/// Hosts that all come at once, and nothing else.
pub fn bench_hosts(counts: &[usize]) {
    let cluster = Cluster::start(3);
    let machine = machine(&cluster, BASTIONS[0], "");
    found(&machine);
    let files = cluster.etc("loader");
    cluster.equip(BASTIONS[0], &files);
    let conf = files.join("fleet.toml");
    private(&conf, cluster.conf(BASTIONS[0], &files));
    load(&machine, &conf, counts.iter().copied().max().unwrap_or_default());
    hosts(&machine, &conf, counts);
}

/// All of it with each write waiting for the disk, or for none. People are loaded where that takes less time.
fn on(is_on_disk: bool, people: usize) {
    let cluster = Cluster::with(Setup { is_on_disk, ..Setup::default() });
    let machine = machine(&cluster, BASTIONS[0], "[throttle]\nuser = \"*:10/1h,30/1d\"\nhost = \"\"\n");
    found(&machine);
    let agent = Agent::start(&machine);
    let files = cluster.etc("loader");
    cluster.equip(BASTIONS[0], &files);
    let conf = files.join("fleet.toml");
    private(&conf, cluster.conf(BASTIONS[0], &files));
    let place = if is_on_disk { "on this disk" } else { "in memory" };
    println!("\na fleet: agent, three nodes of etcd {} on loopback, {place}, mTLS, users", version(&conf));
    let mut clients: Vec<_> = (0..CLIENTS[CLIENTS.len() - 1]).map(|number| Client::new(&machine, number)).collect();
    println!("right logins through the agent, with {} people enrolled:", clients.len());
    throughput(&agent, &mut clients);
    if is_on_disk {
        return;
    }
    load(&machine, &conf, people);
    println!("the same with {} people enrolled:", people + clients.len());
    throughput(&agent, &mut clients);
    hosts(&machine, &conf, &HOSTS);
    size(&cluster, &conf, &agent, &mut clients);
}

fn cluster_of(conf: &Path) -> etcd::Cluster {
    etcd::Cluster::new(&Conf::read(conf).unwrap_or_else(|fact| panic!("{fact}")))
        .unwrap_or_else(|fact| panic!("{fact}"))
}

fn members(conf: &Path) -> Vec<etcd::Member> {
    let deadline = Instant::now() + Duration::from_secs(5);
    cluster_of(conf)
        .members(deadline)
        .into_iter()
        .map(|(_, member)| member.unwrap_or_else(|fact| panic!("{fact}")))
        .collect()
}

fn version(conf: &Path) -> String {
    members(conf)[0].version.clone()
}

/// Somebody with a device that counts.
struct Client {
    name: &'static str,
    secret: String,
    counter: u64,
}

impl Client {
    fn new(machine: &Machine, number: usize) -> Self {
        let name: &'static str = format!("client{number:02}").leak();
        machine.add(User { name, uid: 21_000 + u32::try_from(number).unwrap() });
        let printed = json(machine, &["enrol", "--user", name, "--counter-based", "--no-confirm"]);
        Self { name, secret: printed["secret"].as_str().unwrap().to_owned(), counter: 1 }
    }

    fn codes(&mut self, count: u64) -> Vec<String> {
        let codes = hotps(&self.secret, self.counter, count);
        self.counter += count;
        codes
    }
}

/// One login: what the module asks the agent, and how long that took.
fn login(socket: &Path, name: &str, code: &str) -> (Verdict, Duration) {
    let knock =
        Knock { service: b"sshd".to_vec(), user: name.into(), rhost: b"192.0.2.1".to_vec(), ..Knock::default() };
    let ask = |request: &Request| {
        let message = request.message().unwrap();
        Reply::parse(&exchange(socket, message.expose()).expect("the agent answers")).unwrap()
    };
    let start = Instant::now();
    let Reply::Question { login, .. } = ask(&Request::Begin(knock, None)) else { panic!("not asked") };
    let Reply::Verdict { verdict, .. } = ask(&Request::Answer(login, Ok(Secret::new(code.into())))) else {
        panic!("asked again")
    };
    (verdict, start.elapsed())
}

fn throughput(agent: &Agent, clients: &mut [Client]) {
    println!("{:>10} {:>12} {:>10} {:>10} {:>10}", "clients", "a second", "p50 ms", "p99 ms", "worst ms");
    for count in CLIENTS {
        let (mut rates, mut times) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let codes: Vec<_> = clients[..count].iter_mut().map(|client| (client.name, client.codes(LOGINS))).collect();
            let barrier = Barrier::new(count + 1);
            let (elapsed, measured) = thread::scope(|scope| {
                let runners: Vec<_> = codes
                    .iter()
                    .map(|(name, codes)| {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            barrier.wait();
                            let one = |code: &String| {
                                let (verdict, time) = login(agent.socket(), name, code);
                                assert_eq!(verdict, Verdict::Allow, "{name}");
                                time
                            };
                            codes.iter().map(one).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                barrier.wait();
                let start = Instant::now();
                let times: Vec<_> = runners.into_iter().flat_map(|runner| runner.join().unwrap()).collect();
                (start.elapsed(), times)
            });
            rates.push(measured.len() as f64 / elapsed.as_secs_f64());
            times.extend(measured);
        }
        rates.sort_by(f64::total_cmp);
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        println!("{count:>10} {:>12.0} {:>10.2} {:>10.2} {:>10.2}", rates[ROUNDS / 2], at(0.5), at(0.99), at(1.0));
    }
}

/// So many hosts, each with a connection and a token of its own: first all at once, as after a restart of the cluster, then each every
/// ten seconds. What each does is what a login does, and two reads more.
fn hosts(machine: &Machine, conf: &Path, counts: &[usize]) {
    let ring = ring(machine, conf);
    let state_dir = tempfile::tempdir_in("/run").unwrap();
    println!(
        "{:>8} {:>24} {:>12} {:>10} {:>10} {:>10}",
        "hosts", "all in at once after s", "tries", "then p50", "p99", "worst ms"
    );
    for &count in counts {
        let barrier = Barrier::new(count);
        let all: Vec<(Duration, u32, Vec<Duration>)> = thread::scope(|scope| {
            let host = |number: usize| {
                let fleet = Fleet::open(conf).unwrap_or_else(|fact| panic!("{fact}"));
                let person = person(number);
                let turn = || {
                    let store = FleetStore::new(&fleet, &ring, state_dir.path(), None).ok().unwrap().in_time();
                    store.load(&person)?;
                    store.change(&person, &mut |_| Ok(()))?;
                    store.change(&person, &mut |_| Ok(()))
                };
                barrier.wait();
                let began = Instant::now();
                let mut tries = 1;
                while turn().is_err() {
                    tries += 1;
                    thread::sleep(AGAIN);
                }
                let first = began.elapsed();
                barrier.wait();
                let began = Instant::now();
                // One after the other over the ten seconds.
                let mut times = Vec::new();
                for round in 0..2 {
                    let at = Duration::from_secs(10 * round)
                        + Duration::from_secs(10) * u32::try_from(number).unwrap() / u32::try_from(count).unwrap();
                    let begins = Instant::now();
                    thread::sleep((began + at).saturating_duration_since(begins));
                    let start = Instant::now();
                    turn().unwrap_or_else(|error| panic!("{}", error.into_fact()));
                    times.push(start.elapsed());
                }
                (first, tries, times)
            };
            let running: Vec<_> = (0..count).map(|number| scope.spawn(move || host(number))).collect();
            running.into_iter().map(|host| host.join().unwrap()).collect()
        });
        let first = all.iter().map(|(first, ..)| *first).max().unwrap_or_default();
        let tries: u32 = all.iter().map(|(_, tries, _)| tries).sum();
        let mut times: Vec<_> = all.into_iter().flat_map(|(.., times)| times).collect();
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        println!(
            "{count:>8} {:>24.1} {tries:>12} {:>10.2} {:>10.2} {:>10.2}",
            first.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// The machine's keys, on a way without a link.
fn ring(machine: &Machine, conf: &Path) -> KeyRing {
    let keys = conf.with_file_name("keys");
    private(&keys, std::fs::read(machine.path(RING)).unwrap());
    KeyRing::read(&keys).unwrap_or_else(|error| panic!("{}", error.fact()))
}

fn person(number: usize) -> Person {
    let account = Account {
        name: format!("person{number:06}").into_bytes(),
        uid: 100_000 + u32::try_from(number).unwrap(),
        gid: 100,
        home: PathBuf::from("/nonexistent"),
        shell: PathBuf::from("/bin/sh"),
    };
    Person::from_account(account).unwrap()
}

/// Enrols people whom no host knows, as another host would.
fn load(machine: &Machine, conf: &Path, people: usize) {
    let ring = ring(machine, conf);
    let state_dir = tempfile::tempdir_in("/run").unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        for loader in 0..LOADERS {
            let (ring, state_dir) = (&ring, state_dir.path());
            scope.spawn(move || {
                let fleet = Fleet::open(conf).unwrap_or_else(|fact| panic!("{fact}"));
                for number in (loader..people).step_by(LOADERS) {
                    let store = FleetStore::new(&fleet, ring, state_dir, None).ok().unwrap();
                    store
                        .enrol(&person(number), &record(number), false)
                        .unwrap_or_else(|error| panic!("{}", error.into_fact()));
                }
            });
        }
    });
    println!(
        "{people} people enrolled one by one, {LOADERS} at a time: {:.0} a second",
        people as f64 / start.elapsed().as_secs_f64()
    );
    let fleet = Fleet::open(conf).unwrap_or_else(|fact| panic!("{fact}"));
    let store = FleetStore::new(&fleet, &ring, state_dir.path(), None).ok().unwrap();
    let start = Instant::now();
    let listed = store.people().unwrap_or_else(|error| panic!("{}", error.into_fact())).len();
    println!("all {listed} of them listed and opened: {:.1} s", start.elapsed().as_secs_f64());
}

/// Two devices and ten codes for a lost one.
fn record(number: usize) -> Record {
    let secret = |device: u8| {
        let mut bytes = [device; 20];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        base32::encode(&bytes).expose().clone()
    };
    let text = format!("{}\n\" TOTP_AUTH\n", secret(1));
    let mut record = Document::parse(Secret::new(text.into_bytes())).ok().unwrap().record().clone();
    record.devices[0].name = "phone".to_owned();
    let mut second = record.devices[0].clone();
    second.name = "tablet".to_owned();
    second.secret = Ok(std::sync::Arc::new(Secret::new(vec![7; 20])));
    record.devices.push(second);
    let codes: Vec<[u8; 15]> = (0..10).map(|code| [code; 15]).collect();
    record.recovery = pam_totp::record::RecoveryCodes::new([9; 16], codes.iter().map(<[u8; 15]>::as_slice));
    record
}

/// What logins leave behind, and what compaction takes away.
fn size(cluster: &Cluster, conf: &Path, agent: &Agent, clients: &mut [Client]) {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let in_use = || members(conf)[0].db_size_in_use;
    let before = in_use();
    const MORE: u64 = 500;
    for client in clients.iter_mut().take(4) {
        for code in client.codes(MORE) {
            assert_eq!(login(agent.socket(), client.name, &code).0, Verdict::Allow);
        }
    }
    let after = in_use();
    println!(
        "the database: {:.1} MB in use; a login leaves {:.2} kB until it is compacted",
        megabytes(before),
        (after.saturating_sub(before)) as f64 / 1e3 / (4 * MORE) as f64
    );
    let revision = cluster.etcdctl(&["endpoint", "status", "--write-out=json"]);
    let revision: serde_json::Value = serde_json::from_str(&revision).unwrap();
    let revision = revision[0]["Status"]["header"]["revision"].to_string();
    cluster.etcdctl(&["compact", "--physical", &revision]);
    println!(
        "after compaction: {:.1} MB in use, {:.1} MB on disk",
        megabytes(in_use()),
        megabytes(members(conf)[0].db_size)
    );
    for node in 0..cluster.size() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(node))).unwrap();
        let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        println!("node {node}: {}", resident.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
