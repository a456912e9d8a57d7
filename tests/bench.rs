//! `make bench`: what a login costs, from pam_start to pam_end, one process a login, in one run, interleaved.
//!
//! ```text
//! bench [ext4 | tmpfs]   both stores, beside the C module
//! bench agent            the root-only store in the module's own process, beside the same through pam-totp-agent
//! bench fleet [COUNT]    a fleet, with a few people and with COUNT (100,000)
//! bench people [COUNT]   the root-only store with 10 people in it and with COUNT (1,000,000, which is the most)
//! ```
//!
//! The floor is what no module with such a store can do without: libpam itself, and the file calls alone. Beside what the
//! clock says there is for how long the process was running, the kernel at work for it included: on a machine that has other
//! things to do, and a disk that is now fast and now slow, that alone can be compared.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub, unsafe_code)]

#[path = "bench_agent.rs"]
mod agent;
#[path = "bench_fleet.rs"]
mod fleet;
mod support;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;
use support::machine::{ALICE, Home, Machine};
use support::totp::{SECRET, code_now, wrong_code};
use support::{dist, need, output_of};

const ROUNDS: usize = 200;
const LINES: &str = "\" TOTP_AUTH\n\" DISALLOW_REUSE\n";
const PEOPLE: usize = 1_000_000;
const FLEET: usize = 100_000;

fn main() {
    need("oathtool", "oathtool");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        None => {
            both_stores(Home::Ext4, "ext4 on a loop device");
            both_stores(Home::Memory, "tmpfs");
            agent::bench();
        }
        Some("agent") => agent::bench(),
        Some("fleet") => fleet::bench(arguments.get(1).map_or(FLEET, |count| count.parse().unwrap())),
        Some("ext4") => both_stores(Home::Ext4, "ext4 on a loop device"),
        Some("tmpfs") => both_stores(Home::Memory, "tmpfs"),
        Some("people") => many_people(arguments.get(1).map_or(PEOPLE, |count| count.parse().unwrap())),
        Some(other) => panic!("{other}: what is that?"),
    }
}

/// Both stores beside the C module, with homes and `state_dir` on the same file system.
fn both_stores(home: Home, name: &str) {
    let machine = Machine::with(home, &dist("pam_totp.so"));
    machine.service("permit", "auth required pam_permit.so\n");
    machine.service("theirs", "auth required pam_google_authenticator.so noskewadj\n");
    machine.service("theirs-skew", "auth required pam_google_authenticator.so\n");
    machine.write("/etc/security/home.toml", policy("home", "/home/state"));
    machine.service("home", "auth required pam_totp.so conf=/etc/security/home.toml\n");
    let store = Store::new(&machine, "system", "/home/state");
    println!("\nhomes and state_dir on {name}, {ROUNDS} rounds");
    let mut cases = [
        Case::new("libpam with pam_permit", || login(&machine, "permit", "", true)),
        Case::new("root-only store, right", || store.login(true)),
        Case::new("root-only store, wrong", || store.login(false)),
        Case::new("  bare calls: read, pwrite, fdatasync, exchange, fsync", || store.bare_calls()),
        Case::new("file in the home, right", || home_login(&machine, "home", true)),
        Case::new("file in the home, wrong", || home_login(&machine, "home", false)),
        Case::new("  bare calls: read, write, fsync, rename, fsync", || bare_calls(&machine)),
        Case::new("pam_google_authenticator, right", || home_login(&machine, "theirs", true)),
        Case::new("pam_google_authenticator, wrong", || home_login(&machine, "theirs", false)),
        Case::new("pam_google_authenticator, wrong, skew scan", || home_login(&machine, "theirs-skew", false)),
    ];
    let medians = interleaved(&mut cases);
    for (what, of) in KINDS {
        let [permit, right, wrong, bare, home_right, home_wrong, home_bare, theirs, theirs_wrong, ..] = medians.map(of);
        println!("{what}:");
        println!("  root-only store, right, above its floor (libpam + bare calls): {:.0} µs", right - permit - bare);
        println!("  root-only store, right / pam_google_authenticator, right: {:.2}", right / theirs);
        println!("  root-only store, wrong / right: {:.2}", wrong / right);
        println!("  file in the home, right, above its floor: {:.0} µs", home_right - permit - home_bare);
        println!("  file in the home, right / pam_google_authenticator, right: {:.2}", home_right / theirs);
        println!("  file in the home, wrong / right: {:.2}", home_wrong / home_right);
        println!(
            "  pam_google_authenticator, wrong, which writes nothing for good, above libpam: {:.0} µs",
            theirs_wrong - permit
        );
    }
}

/// Two root-only stores on one ext4: 10 people in one, `count` in the other.
fn many_people(count: usize) {
    let machine = Machine::with(Home::LargeExt4, &dist("pam_totp.so"));
    let store = |name: &'static str, people: usize| {
        let store = Store::new(&machine, name, &format!("/home/{name}"));
        let start = Instant::now();
        store.crowd(people - 1);
        println!("{people} people in {name}, made in {:.0} s", start.elapsed().as_secs_f64());
        store
    };
    let (few, many) = (store("few", 10), store("many", count));
    println!("\nroot-only store on ext4 on a loop device, {ROUNDS} rounds");
    let mut cases = [
        Case::new("10 people, right", || few.login(true)),
        Case::new("10 people, wrong", || few.login(false)),
        Case::new("  its bare calls", || few.bare_calls()),
        Case::new("all those people, right", || many.login(true)),
        Case::new("all those people, wrong", || many.login(false)),
        Case::new("  its bare calls", || many.bare_calls()),
    ];
    let medians = interleaved(&mut cases);
    for (what, of) in KINDS {
        let [few_right, few_wrong, few_bare, many_right, many_wrong, many_bare] = medians.map(of);
        let (right, wrong) = (many_right / few_right, many_wrong / few_wrong);
        println!("{what}: {count} people / 10 people: right {right:.2}, wrong {wrong:.2}");
        println!("  the bare calls alone: {:.2}", many_bare / few_bare);
        println!("  right, above the bare calls: {:.0} µs more", many_right - many_bare - few_right + few_bare);
    }
}

fn policy(store: &str, state_dir: &str) -> String {
    // The rules would end the wrong ones; what they cost is the same.
    let throttle = "[throttle]\nuser = \"\"\nhost = \"\"\n";
    format!("version = 1\n[defaults]\nstore = \"{store}\"\nstate_dir = \"{state_dir}\"\n{throttle}")
}

/// A root-only store with alice in it. Its service has the store's name.
#[derive(Clone)]
struct Store<'a> {
    machine: &'a Machine,
    service: &'a str,
    records: PathBuf,
    enrolled: PathBuf,
    secret: String,
    /// Alice's record without a mark, so that the code is new each time.
    record: Vec<u8>,
}

impl<'a> Store<'a> {
    fn new(machine: &'a Machine, service: &'a str, state_dir: &str) -> Self {
        let conf = format!("/etc/security/{service}.toml");
        machine.write(&conf, policy("system", state_dir));
        machine.service(service, &format!("auth required pam_totp.so conf={conf}\n"));
        let run = |arguments: &[&str]| {
            output_of(machine.command(dist("pam-totp")).args(arguments).args(["--conf", &conf, "--json"]))
        };
        run(&["setup", "store"]);
        let enrolled = run(&["enrol", "--user", "alice", "--no-confirm"]);
        let enrolled: serde_json::Value = serde_json::from_str(&enrolled).unwrap();
        let secret = enrolled["secret"].as_str().unwrap().to_owned();
        let place = |name: &str| machine.path(&format!("{state_dir}/{name}"));
        let (records, enrolled) = (place("records"), place("enrolled"));
        let record = std::fs::read(records.join("alice")).unwrap();
        Self { machine, service, records, enrolled, secret, record }
    }

    /// Other people, by name: nobody reads their files, and nothing of them is synced.
    fn crowd(&self, people: usize) {
        for number in 0..people {
            let name = format!("person{number:07}");
            for file in [name.clone(), format!("{name}~")] {
                File::create_new(self.records.join(file)).unwrap();
            }
            File::create_new(self.enrolled.join(format!("{name}.{}", 100_000 + number))).unwrap();
        }
        // What they leave to be written is not to be measured.
        rustix::fs::sync();
    }

    fn renew(&self) {
        let file = OpenOptions::new().write(true).open(self.records.join("alice")).unwrap();
        file.write_all_at(&self.record, 0).unwrap();
        file.sync_all().unwrap();
    }

    fn login(&self, right: bool) -> Time {
        self.renew();
        let code = if right { code_now(&self.secret) } else { wrong_code(&self.secret) };
        login(self.machine, self.service, &code, right)
    }

    /// What a login cannot do without: it reads the record, and puts another in its place for good.
    fn bare_calls(&self) -> Time {
        self.renew();
        let (path, sibling) = (self.records.join("alice"), self.records.join("alice~"));
        let directory = File::open(&self.records).unwrap();
        let start = Start::now();
        let mut text = Vec::with_capacity(self.record.len() + 64);
        File::open(&path).unwrap().read_to_end(&mut text).unwrap();
        let file = OpenOptions::new().write(true).open(&sibling).unwrap();
        file.write_all_at(&text, 0).unwrap();
        file.sync_data().unwrap();
        renameat_with(CWD, &path, CWD, &sibling, RenameFlags::EXCHANGE).unwrap();
        directory.sync_all().unwrap();
        start.elapsed()
    }
}

/// The same with a file in the home, ours or the C module's.
fn home_login(machine: &Machine, service: &str, right: bool) -> Time {
    machine.enrol(ALICE, LINES);
    let code = if right { code_now(SECRET) } else { wrong_code(SECRET) };
    login(machine, service, &code, right)
}

/// One login.
fn login(machine: &Machine, service: &str, code: &str, right: bool) -> Time {
    // Without waiting for the log, as Machine::login does.
    let mut command = machine.command(machine.client());
    let output = output_of(command.args([service, "alice", "--time", "--answer", code]));
    let word = |key: &str| output.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    assert_eq!(word("result ") == "0", right, "{output}");
    let microseconds = |key| word(key).parse::<f64>().unwrap() / 1000.0;
    Time { wall: microseconds("nanoseconds "), cpu: microseconds("cpu ") }
}

/// What a login with a file in the home cannot do without.
fn bare_calls(machine: &Machine) -> Time {
    machine.enrol(ALICE, LINES);
    let (path, next) = (machine.path(&ALICE.secret_file()), machine.path("/home/alice/next"));
    let directory = File::open(machine.path(&ALICE.home())).unwrap();
    let start = Start::now();
    let mut text = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut text).unwrap();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&next).unwrap();
    file.write_all(&text).unwrap();
    file.sync_all().unwrap();
    std::fs::rename(&next, &path).unwrap();
    directory.sync_all().unwrap();
    start.elapsed()
}

/// Microseconds.
#[derive(Clone, Copy, Default)]
struct Time {
    /// By the clock.
    wall: f64,
    /// For which the process was running.
    cpu: f64,
}

type Of = fn(Time) -> f64;

const KINDS: [(&str, Of); 2] = [("by the clock", |time| time.wall), ("running", |time| time.cpu)];

struct Start {
    wall: Instant,
    cpu: f64,
}

impl Start {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    fn elapsed(&self) -> Time {
        Time { wall: self.wall.elapsed().as_secs_f64() * 1e6, cpu: cpu_time() - self.cpu }
    }
}

/// Of this thread alone: another one reads the log.
fn cpu_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Something to be measured.
struct Case<'a> {
    name: &'a str,
    run: Box<dyn Fn() -> Time + 'a>,
}

impl<'a> Case<'a> {
    fn new(name: &'a str, run: impl Fn() -> Time + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// The medians of all cases, each run once a round.
fn interleaved<const N: usize>(cases: &mut [Case; N]) -> [Time; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            times.push((case.run)());
        }
    }
    println!("{:55} {:^26} {:^17}", "", "microseconds by the clock", "running");
    println!("{:55} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "lowest", "median", "90 %", "lowest", "median");
    let mut medians = [Time::default(); N];
    for ((case, times), median) in cases.iter().zip(&times).zip(&mut medians) {
        let [wall, cpu] = KINDS.map(|(_, of)| {
            let mut times: Vec<f64> = times.iter().copied().map(of).collect();
            times.sort_by(f64::total_cmp);
            move |percent: usize| times[times.len() * percent / 100]
        });
        let row = [wall(0), wall(50), wall(90), cpu(0), cpu(50)];
        println!("{:55} {}", case.name, row.map(|time| format!("{time:8.0}")).join(" "));
        *median = Time { wall: wall(50), cpu: cpu(50) };
    }
    medians
}
