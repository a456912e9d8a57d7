//! The machine of the benchmark: the same people at each of the ways to ask for a code.

use crate::support::agent::Agent;
use crate::support::machine::{Machine, User};
use crate::support::totp::{SECRET, hotps, now};
use crate::support::{output_of, project};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules that others have made, where Debian's packages put them.
pub const GOOGLE: &str = "pam_google_authenticator";
pub const OATH: &str = "pam_oath";

/// What somebody does at the prompt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The next code of a device that counts.
    Right,
    /// A code of no time, of a device with a clock.
    Wrong,
    /// A scratch code, of a root-only record a recovery code.
    Scratch,
    /// A wrong code, after too many of them.
    Throttled,
}

pub const KINDS: [Kind; 4] = [Kind::Right, Kind::Wrong, Kind::Scratch, Kind::Throttled];

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Scratch => "scratch",
            Self::Throttled => "throttled",
        }
    }

    /// Somebody else for each, so that none is in the way of another.
    pub const fn user(self) -> User {
        match self {
            Self::Right => User { name: "alice", uid: 20001 },
            Self::Wrong => User { name: "bob", uid: 20002 },
            Self::Scratch => User { name: "carol", uid: 20003 },
            Self::Throttled => User { name: "dave", uid: 20004 },
        }
    }

    /// Where from.
    pub fn host(self) -> String {
        format!("192.0.2.{}", self as u8 + 1)
    }

    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Right | Self::Scratch)
    }
}

/// A way to ask for a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// pam_permit, which asks for nothing.
    Permit,
    /// floor.c, by exchange.
    FloorExchange,
    /// floor.c, by rename.
    FloorRename,
    /// Ours, root-only.
    System,
    /// Ours, the same through the agent.
    Agent,
    /// Ours, in the home.
    Home,
    Google,
    Oath,
}

pub const WAYS: [Way; 8] =
    [Way::Permit, Way::FloorExchange, Way::System, Way::Agent, Way::FloorRename, Way::Home, Way::Google, Way::Oath];

impl Way {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permit => "pam_permit",
            Self::FloorExchange => "floor of an exchange",
            Self::FloorRename => "floor of a rename",
            Self::System => "pam_totp, root-only",
            Self::Agent => "pam_totp, root-only, agent",
            Self::Home => "pam_totp, home",
            Self::Google => GOOGLE,
            Self::Oath => OATH,
        }
    }

    /// Its service.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::FloorExchange => "exchange",
            Self::FloorRename => "rename",
            Self::System => "system",
            Self::Agent => "agent",
            Self::Home => "home",
            Self::Google => "google",
            Self::Oath => "oath",
        }
    }

    /// What nobody who stores so can do without.
    pub const fn floor(self) -> Option<Self> {
        match self {
            Self::System | Self::Agent => Some(Self::FloorExchange),
            Self::Home => Some(Self::FloorRename),
            _ => None,
        }
    }

    pub const fn is_ours(self) -> bool {
        self.floor().is_some()
    }

    fn does(self, kind: Kind) -> bool {
        match self {
            Self::Permit | Self::FloorExchange | Self::FloorRename => kind == Kind::Right,
            Self::Oath => matches!(kind, Kind::Right | Kind::Wrong),
            _ => true,
        }
    }
}

/// Codes are made so many at a time.
const BATCH: u64 = 200;
/// Scratch codes of a file.
const SCRATCH_CODES: u32 = 5;
/// Wrong codes that are judged, and no more: a tenth one is one too many.
const JUDGED: u32 = 9;
/// pam_oath's file.
pub const OATH_USERS: &str = "/home/oath/users";
/// Seconds.
const DAY: u64 = 24 * 60 * 60;
/// SECRET, as it is in pam_oath's file.
pub const HEX: &str = "3132333435363738393031323334353637383930";

/// The machine, ready.
pub struct Site<'a> {
    pub machine: &'a Machine,
    pub cases: Vec<Case<'a>>,
    _agent: Agent<'a>,
}

impl<'a> Site<'a> {
    pub fn new(machine: &'a Machine) -> Self {
        for kind in KINDS.into_iter().filter(|kind| kind.user().uid > 20003) {
            machine.add(kind.user());
        }
        // libpam reads this one too, and Debian's loads half a dozen modules.
        machine.service("other", "auth required pam_deny.so\n");
        machine.service(Way::Permit.service(), "auth required pam_permit.so\n");
        floors(machine);
        WAYS.into_iter().filter(|way| way.is_ours()).for_each(|way| ours(machine, way, way.service(), ""));
        machine.service(Way::Google.service(), "auth required pam_google_authenticator.so secret=${HOME}/.google\n");
        machine.service(Way::Oath.service(), &format!("auth required pam_oath.so usersfile={OATH_USERS} window=5\n"));
        oath_users(machine);
        let agent = Agent::start(machine);
        let all = WAYS.into_iter().flat_map(|way| KINDS.into_iter().map(move |kind| (way, kind)));
        let cases =
            all.filter(|(way, kind)| way.does(*kind)).map(|(way, kind)| Case::new(machine, way, kind)).collect();
        Self { machine, cases, _agent: agent }
    }

    pub fn case(&self, way: Way, kind: Kind) -> Option<&Case<'a>> {
        self.cases.iter().find(|case| (case.way, case.kind) == (way, kind))
    }
}

/// Compiles what does no more than it must, and gives it its files.
fn floors(machine: &Machine) {
    let module = machine.shared().join("pam_floor.so");
    let source = project().join("tests/bench/floor.c");
    output_of(Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).args([&module, &source]));
    // As long as our own. To make a file takes the longer the more were removed in its directory lately, so one that is
    // replaced is where those of the modules are.
    let exchanged = format!("/home/{}", Way::FloorExchange.service());
    machine.make_directory(&exchanged, 0o700, 0);
    for (way, length, directory) in
        [(Way::FloorExchange, 4096, exchanged), (Way::FloorRename, 128, Kind::Right.user().home())]
    {
        let text = vec![b'\n'; length];
        lay(&machine.path(&directory).join("record"), &text, 0);
        if way == Way::FloorExchange {
            lay(&machine.path(&directory).join("record~"), &text, 0);
        }
        let policy = conf(if way == Way::FloorExchange { Way::System } else { Way::Home }.service());
        let line = format!("auth required {} {} {directory} {policy}\n", module.display(), way.service());
        machine.service(way.service(), &line);
    }
}

fn conf(service: &str) -> String {
    format!("/etc/security/{service}.toml")
}

/// A service of this name, with a policy and a `state_dir` of its own.
pub fn ours(machine: &Machine, way: Way, service: &str, policy: &str) {
    let store = if way == Way::Home { "home" } else { "system" };
    let via = if way == Way::Agent { "via = \"agent\"\n" } else { "" };
    let defaults = format!("store = \"{store}\"\nstate_dir = \"/home/state-{service}\"\n{via}");
    machine.write(&conf(service), format!("version = 1\n[defaults]\n{defaults}{policy}"));
    let secret = if way == Way::Home { " secret=~/.home" } else { "" };
    machine.service(service, &format!("auth required pam_totp.so conf={}{secret}\n", conf(service)));
    if way != Way::Home {
        program(machine, service, &["setup", "store"]);
    }
}

/// `pam-totp` for a service of ours.
pub fn program(machine: &Machine, service: &str, arguments: &[&str]) -> String {
    output_of(machine.command(machine.program()).args(arguments).args(["--conf", &conf(service)]))
}

/// pam_oath's file, with ours in it.
fn oath_users(machine: &Machine) {
    machine.make_directory("/home/oath", 0o700, 0);
    let line = |kind: &str, who: Kind| format!("{kind} {} - {HEX}\n", who.user().name);
    let text = line("HOTP", Kind::Right) + &line("HOTP/T30", Kind::Wrong);
    lay(&machine.path(OATH_USERS), text.as_bytes(), 0);
}

/// A file that is on the disk, with its name.
pub fn lay(path: &Path, text: &[u8], owner: u32) {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    file.write_all(text).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}

/// One way and one kind.
pub struct Case<'a> {
    pub machine: &'a Machine,
    pub way: Way,
    pub kind: Kind,
    service: String,
    codes: Codes,
    /// Logins since anything had to be put right.
    since: Cell<u32>,
}

/// Where the next code comes from.
pub enum Codes {
    /// The codes of a counter, of which some are made already.
    Counter {
        secret: String,
        next: Cell<u64>,
        made: RefCell<Vec<String>>,
    },
    Wrong(String),
    /// Some, and the file as it is when none of them is used up.
    Spent {
        codes: Vec<String>,
        file: PathBuf,
        text: Vec<u8>,
    },
}

/// Microseconds of one login, and what else is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// By the clock.
    pub wall: f64,
    /// For which the process was running, the kernel at work for it included.
    pub cpu: f64,
    pub kilobytes: f64,
}

impl<'a> Case<'a> {
    fn new(machine: &'a Machine, way: Way, kind: Kind) -> Self {
        let codes = match way {
            Way::System | Way::Agent => enrol(machine, way.service(), kind),
            Way::Home | Way::Google => file(machine, way, kind, SCRATCH_CODES, ""),
            Way::Permit | Way::FloorExchange | Way::FloorRename | Way::Oath => codes(kind, SECRET, 0, None),
        };
        let case = Self::of(machine, way, kind, way.service(), codes);
        if kind == Kind::Throttled {
            (0..=JUDGED).for_each(|_| drop(case.attempt(&[])));
        }
        case.check();
        case
    }

    /// A case of somebody who is enrolled already.
    pub fn of(machine: &'a Machine, way: Way, kind: Kind, service: &str, codes: Codes) -> Self {
        Self { machine, way, kind, service: service.to_owned(), codes, since: Cell::new(0) }
    }

    /// The login, not yet started; `wrapper` is a program that starts another. The code is used up by it.
    pub fn command(&self, wrapper: &[&str]) -> Command {
        self.put_right();
        let client = self.machine.client();
        let mut command = match wrapper {
            [] => self.machine.command(&client),
            [program, arguments @ ..] => {
                let mut command = self.machine.command(program);
                command.args(arguments).arg(&client);
                command
            }
        };
        command.args([&self.service, self.kind.user().name, "--rhost", &self.kind.host()]);
        command.args(["--answer", &self.codes.next(self.since.replace(self.since.get() + 1))]);
        command
    }

    /// One login.
    pub fn login(&self) -> Taken {
        let (is_accepted, printed) = self.attempt(&["--time"]);
        assert_eq!(is_accepted, self.kind.is_accepted(), "{:?} {:?}: {printed}", self.way, self.kind);
        let number = |key| word(&printed, key).parse::<f64>().unwrap();
        Taken { wall: number("nanoseconds ") / 1e3, cpu: number("cpu ") / 1e3, kilobytes: number("kilobytes ") }
    }

    fn attempt(&self, arguments: &[&str]) -> (bool, String) {
        let printed = output_of(self.command(&[]).args(arguments));
        (word(&printed, "result ") == "0", printed)
    }

    /// Puts right what the logins so far have used up.
    fn put_right(&self) {
        match (&self.codes, self.kind) {
            (Codes::Spent { codes, file, text }, _) if self.since.get() as usize == codes.len() => match self.way {
                Way::Home | Way::Google => lay(file, text, self.kind.user().uid),
                _ => {
                    let file = OpenOptions::new().write(true).open(file).unwrap();
                    file.write_all_at(text, 0).unwrap();
                    file.sync_all().unwrap();
                }
            },
            (_, Kind::Wrong) if self.way.is_ours() && self.since.get() == JUDGED => {
                for who in [["--user", self.kind.user().name], ["--host", &self.kind.host()]] {
                    program(self.machine, &self.service, &[&["throttle", "unlock"][..], &who].concat());
                }
            }
            _ => return,
        }
        self.since.set(0);
    }

    /// That what is measured is what it is called.
    fn check(&self) {
        self.machine.log();
        self.login();
        let log = self.machine.log().join("\n");
        let word = match self.kind {
            Kind::Right => "factor=hotp",
            Kind::Wrong => "reason=wrong-code",
            Kind::Scratch if self.way == Way::Home => "factor=scratch-code",
            Kind::Scratch => "factor=recovery-code",
            Kind::Throttled => "reason=throttled",
        };
        assert!(!self.way.is_ours() || log.contains(word), "{:?} {:?}: {log}", self.way, self.kind);
    }
}

/// Somebody in a root-only store.
pub struct Enrolled {
    pub secret: String,
    recovery_codes: Vec<String>,
    pub file: PathBuf,
}

/// Enrols somebody in the root-only store of a service.
pub fn enrolled(machine: &Machine, service: &str, user: &str, how: &[&str]) -> Enrolled {
    let enrol = [&["enrol", "--user", user, "--no-confirm", "--json"], how].concat();
    let printed: serde_json::Value = serde_json::from_str(&program(machine, service, &enrol)).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Enrolled {
        secret: text(&printed["secret"]),
        recovery_codes: printed["recovery_codes"].as_array().unwrap().iter().map(text).collect(),
        file: machine.path(printed["path"].as_str().unwrap()),
    }
}

/// Enrols whoever does this there, with a device that is for it.
pub fn enrol(machine: &Machine, service: &str, kind: Kind) -> Codes {
    let counter: &[&str] = if kind == Kind::Right { &["--counter-based"] } else { &[] };
    let Enrolled { secret, recovery_codes, file } = enrolled(machine, service, kind.user().name, counter);
    codes(kind, &secret, 1, Some((recovery_codes, file)))
}

/// Gives somebody a file in the home, the same for both modules.
pub fn file(machine: &Machine, way: Way, kind: Kind, scratch_codes: u32, options: &str) -> Codes {
    let user = kind.user();
    let file = machine.path(&format!("{}/.{}", user.home(), way.service()));
    let option = if kind == Kind::Right { "\" HOTP_COUNTER 1\n" } else { "\" TOTP_AUTH\n\" DISALLOW_REUSE\n" };
    let limit = if (way, kind) == (Way::Google, Kind::Throttled) { "\" RATE_LIMIT 3 30\n" } else { "" };
    let scratch: Vec<String> = (0..scratch_codes).map(|number| (10_000_000 + number).to_string()).collect();
    let text = format!("{SECRET}\n{limit}{options}{option}{}\n", scratch.join("\n"));
    lay(&file, text.as_bytes(), user.uid);
    codes(kind, SECRET, 1, Some((scratch, file)))
}

/// Codes of this kind. `spare`: the scratch codes, and where they are.
fn codes(kind: Kind, secret: &str, counter: u64, spare: Option<(Vec<String>, PathBuf)>) -> Codes {
    match (kind, spare) {
        (Kind::Right, _) => {
            Codes::Counter { secret: secret.to_owned(), next: Cell::new(counter), made: RefCell::default() }
        }
        (Kind::Scratch, Some((codes, file))) => Codes::Spent { codes, text: fs::read(&file).unwrap(), file },
        _ => Codes::Wrong(never(secret)),
    }
}

impl Codes {
    /// The next one; `since`: so many of them have been used since the file was last put right.
    fn next(&self, since: u32) -> String {
        match self {
            Self::Wrong(code) => code.clone(),
            Self::Spent { codes, .. } => codes[since as usize].clone(),
            Self::Counter { secret, next, made } => {
                let mut made = made.borrow_mut();
                if made.is_empty() {
                    *made = hotps(secret, next.get(), BATCH);
                    made.reverse();
                    next.set(next.get() + BATCH);
                }
                made.pop().unwrap()
            }
        }
    }
}

/// The wrong code of whoever has the secret that all have who were not enrolled by ours.
pub fn wrong(kind: Kind) -> Codes {
    codes(kind, SECRET, 0, None)
}

/// A code of no time of today.
fn never(secret: &str) -> String {
    let start = format!("--now=@{}", now() - DAY / 2);
    let window = format!("--window={}", DAY / 30);
    let live = output_of(Command::new("oathtool").args(["--totp", "--base32", &start, &window, secret]));
    let live: BTreeSet<&str> = live.lines().collect();
    (0..1_000_000).map(|number| format!("{number:06}")).find(|code| !live.contains(code.as_str())).unwrap()
}

fn word<'t>(printed: &'t str, key: &str) -> &'t str {
    printed.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}: {printed}"))
}
