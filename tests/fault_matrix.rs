//! Each system call of a login fails in each of these ways, or is its last: in each store, for each kind of answer. What became
//! of the login is counted, and what has to be so afterwards is tried out. `docs/faults.md` has what a whole run gave.

use crate::support::agent::{Agent, SOCKET, exchange};
use crate::support::etcd::{Cluster, Setup};
use crate::support::fleet::{self, knock};
use crate::support::machine::{ALICE, AUTH_ERR, AUTHINFO_UNAVAIL, Home, IGNORE, Machine, PERM_DENIED, SUCCESS};
use crate::support::root_only::{POLICY, json, secret, totp};
use crate::support::totp::{SECRET, code_at, now};
use crate::support::{dist, need, output_of, project, rounds, soak};
use pam_totp::agent::wire::{Reply, Request, Verdict};
use pam_totp::secret::Secret;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

// ---- What is tried ----

/// Where the calls are made that fail, and where the record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The module, with the person's own file.
    Home,
    /// The module, with the root-only store.
    System,
    /// The module, in front of an agent with the root-only store.
    Module,
    /// That agent.
    Agent,
    /// An agent with the fleet's store, in a cluster of one.
    Fleet,
}

impl At {
    const fn name(self) -> &'static str {
        match self {
            Self::Home => "module, `home`",
            Self::System => "module, `system`",
            Self::Module => "module, agent with `system`",
            Self::Agent => "agent, `system`",
            Self::Fleet => "agent, `fleet`",
        }
    }

    /// Whether it is the agent's calls that fail.
    const fn is_agent(self) -> bool {
        matches!(self, Self::Agent | Self::Fleet)
    }
}

/// What is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Right,
    Wrong,
    /// A scratch code, or a recovery code.
    Scratch,
    /// A ticket, and the first code of the device that it is for.
    Enrolment,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Scratch => "scratch",
            Self::Enrolment => "enrolment",
        }
    }
}

/// The rows. Nobody is enrolled inside a login into their own file (rule 17); the memory store has no login.
const ROWS: [(At, Kind); 19] = [
    (At::Home, Kind::Right),
    (At::Home, Kind::Wrong),
    (At::Home, Kind::Scratch),
    (At::System, Kind::Right),
    (At::System, Kind::Wrong),
    (At::System, Kind::Scratch),
    (At::System, Kind::Enrolment),
    (At::Module, Kind::Right),
    (At::Module, Kind::Wrong),
    (At::Module, Kind::Scratch),
    (At::Module, Kind::Enrolment),
    (At::Agent, Kind::Right),
    (At::Agent, Kind::Wrong),
    (At::Agent, Kind::Scratch),
    (At::Agent, Kind::Enrolment),
    (At::Fleet, Kind::Right),
    (At::Fleet, Kind::Wrong),
    (At::Fleet, Kind::Scratch),
    (At::Fleet, Kind::Enrolment),
];

/// What one call does instead: the column, and strace's word for it.
const FAULTS: [(&str, &str); 10] = [
    ("ENOSPC", "error=ENOSPC"),
    ("EDQUOT", "error=EDQUOT"),
    ("EROFS", "error=EROFS"),
    ("EIO", "error=EIO"),
    ("EMFILE", "error=EMFILE"),
    ("ENOMEM", "error=ENOMEM"),
    ("EINTR", "error=EINTR"),
    ("EACCES", "error=EACCES"),
    ("ESTALE", "error=ESTALE"),
    ("SIGKILL", SIGKILL),
];
const SIGKILL: &str = "signal=KILL";

/// Calls that have no way to fail: these can only be the last. (futex(2) wakes who waits; a thread that is not woken is one that the
/// kernel has lost.)
const CANNOT_FAIL: [&str; 9] =
    ["getuid", "geteuid", "getgid", "getegid", "getpid", "gettid", "getppid", "exit", "futex"];

/// Limits for the whole login instead of a fault at one call: the column, prlimit's option, and its values.
const LIMITS: [(&str, &str, bool, &[u32]); 3] = [
    ("FSIZE", "fsize", false, &SIZES),
    ("FSIZE, SIGXFSZ ignored", "fsize", true, &SIZES),
    ("NOFILE", "nofile", false, &[3, 4, 5, 6, 7, 8, 9, 10, 12, 14]),
];
const SIZES: [u32; 12] = [0, 1, 10, 40, 60, 80, 100, 200, 4095, 4096, 8191, 16_384];

/// In `make test` one of so many calls fails in the one way, and its neighbour in the next.
const SHARE: usize = 64;
/// So many of a login fail at least in each way, early ones and late ones, however few calls it makes.
const FEWEST: usize = 4;

/// A call of a login: its name, and which of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    name: String,
    number: usize,
}

/// What is done to a login.
#[derive(Debug, Clone)]
enum Harm {
    Nothing,
    /// At this call, strace's word for what.
    Fault(Call, &'static str),
    /// prlimit's option, and whether SIGXFSZ is ignored.
    Limit(String, bool),
    /// Nothing, and its calls are written down.
    Watch,
}

/// What became of one.
#[derive(Debug)]
struct Tried {
    /// What was typed; of an enrolment the ticket.
    typed: String,
    /// The secret that was shown.
    shown: Option<String>,
    /// libpam's code, or what it would be. `None`: whoever had to say it has ended.
    result: Option<i32>,
    /// Whether it came to the harm.
    is_reached: bool,
}

/// How logins ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Cell {
    denied: usize,
    /// And the code was used up.
    accepted: usize,
    /// Without an answer.
    ended: usize,
}

impl Cell {
    fn count(&mut self, result: Option<i32>) {
        *match result {
            Some(SUCCESS) => &mut self.accepted,
            Some(_) => &mut self.denied,
            None => &mut self.ended,
        } += 1;
    }

    const fn total(&self) -> usize {
        self.denied + self.accepted + self.ended
    }
}

// ---- Where it is tried ----

const SERVICE: &str = "test";
const STATE: &str = "/run/state";
/// What is put back before each login.
const KEPT: &str = "/run/kept";
const STACK: &str = "auth required pam_totp.so\n";
/// With this an answer to pass it over would be a success.
const NULLOK_STACK: &str = "auth required pam_totp.so nullok\nauth required pam_permit.so\n";
const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"\"\nhost = \"\"\n";
const SCRATCH_CODE: &str = "12345678";

/// Alice's codes, from a time step on.
struct Codes {
    first: u64,
    codes: Vec<String>,
}

impl Codes {
    /// For ten hours.
    fn of(secret: &str) -> Self {
        need("oathtool", "oathtool");
        let first = now() / 30 - 10;
        let mut command = Command::new("oathtool");
        command.args(["--totp", "--base32", &format!("--now=@{}", first * 30), "--window=1200", secret]);
        Self { first, codes: output_of(&mut command).lines().map(str::to_owned).collect() }
    }

    /// The one of now, and the next one.
    fn now(&self) -> [String; 2] {
        let place = usize::try_from(now() / 30 - self.first).unwrap();
        [self.codes[place].clone(), self.codes[place + 1].clone()]
    }

    /// A code that is none.
    fn wrong(&self) -> String {
        (0..).map(|number| format!("{number:06}")).find(|code| !self.codes.contains(code)).unwrap()
    }
}

/// Where alice logs in.
struct Place<'a> {
    machine: &'a Machine,
    at: At,
    kind: Kind,
    codes: Codes,
    wrong: String,
    /// A scratch code, a recovery code or a ticket.
    word: String,
    agent: Option<Agent<'a>>,
}

fn machine(at: At, kind: Kind, cluster: Option<&Cluster>) -> Machine {
    need("strace", "strace");
    need("prlimit", "util-linux");
    let machine = Machine::with(Home::Memory, &dist("pam_totp.so"));
    machine.service(SERVICE, if kind == Kind::Enrolment { STACK } else { NULLOK_STACK });
    let (store, via) = match at {
        At::Home => ("home", "process"),
        At::System => ("system", "process"),
        At::Module | At::Agent => ("system", "agent"),
        At::Fleet => ("fleet", "agent"),
    };
    let enrolment = if kind == Kind::Enrolment { "ticket" } else { "required" };
    let policy = format!(
        "version = 1\n[defaults]\nstore = \"{store}\"\nvia = \"{via}\"\nstate_dir = \"{STATE}\"\nfail_delay = \"0s\"\n\
         qr = \"off\"\nenrolment = \"{enrolment}\"\n{WITHOUT_LIMITS}"
    );
    machine.write(POLICY, policy);
    match cluster {
        Some(cluster) => {
            fleet::equip(cluster, &machine, "bastion1");
            fleet::found(&machine);
        }
        None if at == At::Home => machine.make_directory(STATE, 0o700, 0),
        None => drop(totp(&machine, &["setup", "store"])),
    }
    machine
}

impl<'a> Place<'a> {
    /// On a machine that is as `machine` makes it.
    fn new(machine: &'a Machine, at: At, kind: Kind) -> Self {
        let mut place = Self {
            machine,
            at,
            kind,
            codes: Codes::of(SECRET),
            wrong: String::new(),
            word: SCRATCH_CODE.to_owned(),
            agent: None,
        };
        if at != At::Home {
            place.make();
        }
        place.wrong = place.codes.wrong();
        if at != At::Fleet {
            output_of(machine.command("cp").args(["-a", STATE, KEPT]));
        }
        if matches!(at, At::Module | At::Agent | At::Fleet) {
            place.agent = Some(Agent::start(machine));
        }
        place.restore();
        // What the first login makes, and it alone: the ledger.
        place.logins(&[&place.wrong]);
        place
    }

    /// Alice's record, or a ticket for one.
    fn make(&mut self) {
        if self.kind == Kind::Enrolment {
            self.word = json(self.machine, &["invite", "alice"])["ticket"].as_str().unwrap().to_owned();
            return;
        }
        let enrolled = json(self.machine, &["enrol", "--user", "alice", "--no-confirm", "--force"]);
        self.codes = Codes::of(enrolled["secret"].as_str().unwrap());
        self.word = enrolled["recovery_codes"][0].as_str().unwrap().to_owned();
    }

    /// Puts the store back as it was.
    fn restore(&mut self) {
        match self.at {
            At::Home => self.machine.enrol(ALICE, &format!("\" TOTP_AUTH\n{SCRATCH_CODE}\n")),
            At::System | At::Module | At::Agent => {
                for name in ["records", "enrolled", "tickets"] {
                    let [kept, place] = [KEPT, STATE].map(|path| self.machine.path(&format!("{path}/{name}")));
                    let _ = fs::remove_dir_all(&place);
                    if kept.exists() {
                        copy(&kept, &place);
                    }
                }
            }
            // What has been written to a cluster was written. So it is another record.
            At::Fleet => {
                if self.kind == Kind::Enrolment {
                    totp(self.machine, &["reset", "--user", "alice"]);
                }
                self.make();
                self.wrong = self.codes.wrong();
            }
        }
    }

    /// The words that are typed; the codes that are good before and after.
    fn typed(&self) -> (String, [String; 2]) {
        let codes = self.codes.now();
        let typed = match self.kind {
            Kind::Right => codes[0].clone(),
            Kind::Wrong => self.wrong.clone(),
            Kind::Scratch | Kind::Enrolment => self.word.clone(),
        };
        (typed, codes)
    }

    /// Logs alice in by one after the other, through libpam. What libpam said of each.
    fn logins(&self, answers: &[&String]) -> Vec<i32> {
        let mut command = self.machine.command(self.machine.client());
        command.args([SERVICE, "alice", "--each"]).args(answers.iter().flat_map(|answer| ["--answer", answer]));
        let output = output_of(&mut command);
        output.lines().filter_map(|line| line.strip_prefix("result ")?.parse().ok()).collect()
    }

    /// Enrols her with a ticket. The secret that she gets, if she does.
    fn enrols(&self, ticket: &str) -> Option<String> {
        let mut command = self.machine.command(self.machine.client());
        let output = output_of(command.args([SERVICE, "alice", "--answer", ticket, "--answer-shown"]));
        (result(&output) == Some(SUCCESS)).then(|| secret(&output))
    }

    // ---- Under harm ----

    /// A login under harm.
    fn login(&mut self, typed: &str, harm: &Harm) -> Tried {
        if self.at.is_agent() { self.at_agent(typed, harm) } else { self.in_module(typed, harm) }
    }

    fn trace(&self) -> std::path::PathBuf {
        self.machine.shared().join("trace")
    }

    fn in_module(&self, typed: &str, harm: &Harm) -> Tried {
        let (trace, client) = (self.trace(), self.machine.client());
        let mut command = match harm {
            Harm::Nothing => self.machine.command(&client),
            Harm::Limit(option, is_ignored) => {
                let trap = if *is_ignored { "trap '' XFSZ;" } else { "" };
                let mut command = self.machine.command("sh");
                command.args(["-c", &format!("{trap} exec prlimit {option} -- \"$@\""), "sh"]).arg(&client);
                command
            }
            Harm::Fault(..) | Harm::Watch => {
                let mut command = self.machine.command("strace");
                // Faster; but then it kills nobody.
                let is_killed = matches!(harm, Harm::Fault(_, SIGKILL));
                command.args((!is_killed).then_some("--seccomp-bpf")).args(options(harm));
                command.arg("-o").args([&trace, &client]);
                command
            }
        };
        command.args([SERVICE, "alice", "--answer", typed]);
        if self.kind == Kind::Enrolment {
            command.arg("--answer-shown");
        }
        let Output { stdout, .. } = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        let is_reached = match harm {
            // Whoever has said how it ended was killed after the login.
            Harm::Fault(_, SIGKILL) => result(&stdout).is_none(),
            Harm::Fault(..) => is_reached(&trace),
            _ => true,
        };
        let shown = stdout.contains("secret=").then(|| secret(&stdout));
        Tried { typed: typed.to_owned(), shown, result: result(&stdout), is_reached }
    }

    /// What is asked before is asked in peace: the last answer alone meets with it.
    fn at_agent(&mut self, typed: &str, harm: &Harm) -> Tried {
        if let Harm::Limit(_, true) = harm {
            let mut command = self.machine.command("sh");
            command
                .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
                .arg(self.machine.agent())
                .args(["--socket", SOCKET]);
            // The one that is there first.
            drop(self.agent.take());
            self.agent = Some(Agent::start_by(self.machine, &mut command));
        }
        let mut tried = Tried { typed: typed.to_owned(), shown: None, result: None, is_reached: true };
        self.agent.as_mut().unwrap().again_if_gone();
        let Some(Reply::Question { login, .. }) = self.reply(&Request::Begin(knock("alice", "192.0.2.7"), None)) else {
            panic!("no question: {:#?}", self.machine.log())
        };
        let answer = |login, text: &str| Request::Answer(login, Ok(Secret::new(text.into())));
        let mut last = answer(login, typed);
        if self.kind == Kind::Enrolment {
            let Some(Reply::Question { login, text: Some(text), .. }) = self.reply(&last) else { panic!("no device") };
            let shown = secret(&String::from_utf8_lossy(text.expose()));
            last = answer(login, &code_at(&shown, now()));
            tried.shown = Some(shown);
        }
        let reply = match harm {
            Harm::Nothing => self.reply(&last),
            Harm::Limit(option, _) => {
                let limit = |option: &str| {
                    output_of(Command::new("prlimit").arg(format!("--pid={}", self.agent().pid())).arg(option));
                };
                limit(option);
                let reply = self.reply(&last);
                limit("--fsize=unlimited:");
                limit("--nofile=256:");
                reply
            }
            Harm::Fault(..) | Harm::Watch => {
                let strace = Attached::to(self.agent().pid(), harm, &self.trace());
                let reply = self.reply(&last);
                strace.detach(reply.is_some());
                tried.is_reached = matches!(harm, Harm::Watch) || is_reached(&self.trace());
                reply
            }
        };
        tried.result = reply.map(|reply| match reply {
            Reply::Verdict { verdict: Verdict::Allow, .. } => SUCCESS,
            Reply::Verdict { verdict: Verdict::Deny, .. } => AUTH_ERR,
            Reply::Verdict { verdict: Verdict::Unavailable, .. } => AUTHINFO_UNAVAIL,
            // Asked for the first code once more is not let in.
            Reply::Question { .. } if self.kind == Kind::Enrolment => AUTH_ERR,
            _ => IGNORE,
        });
        let agent = self.agent.as_mut().unwrap();
        // One that is about to end may still be there, and would be gone at the next login.
        let is_ending = tried.result.is_none() || matches!(harm, Harm::Fault(_, SIGKILL));
        if is_ending {
            agent.again()
        } else {
            agent.again_if_gone()
        }
        tried
    }

    fn agent(&self) -> &Agent<'a> {
        self.agent.as_ref().unwrap()
    }

    fn reply(&self, request: &Request) -> Option<Reply> {
        exchange(self.agent().socket(), request.message().unwrap().expose()).map(|reply| Reply::parse(&reply).unwrap())
    }

    /// The calls of a login that nothing is done to.
    fn calls(&mut self) -> Vec<Call> {
        self.restore();
        let (typed, _) = self.typed();
        let tried = self.login(&typed, &Harm::Watch);
        let expected = if self.kind == Kind::Wrong { AUTH_ERR } else { SUCCESS };
        assert_eq!(tried.result, Some(expected), "{:?} {:?}: {:#?}", self.at, self.kind, self.machine.log());
        let trace = fs::read_to_string(self.trace()).unwrap();
        if self.at.is_agent() { calls_of_threads(&trace) } else { calls_between_marks(&trace) }
    }

    // ---- What has to be so afterwards ----

    /// A login under harm, and what has to be so however it ended.
    fn try_with(&mut self, harm: &Harm) -> Result<Tried, String> {
        loop {
            let step = now() / 30;
            let tried = self.try_once(harm);
            // What an enrolment types, and what is tried out after it, is of one time step.
            if tried.is_ok() || self.kind != Kind::Enrolment || now() / 30 == step {
                return tried;
            }
        }
    }

    fn try_once(&mut self, harm: &Harm) -> Result<Tried, String> {
        self.restore();
        let (typed, codes) = self.typed();
        let tried = self.login(&typed, harm);
        if matches!(tried.result, Some(IGNORE | PERM_DENIED)) {
            return Err("passed over".into());
        }
        match self.kind {
            Kind::Wrong => self.after_wrong(&tried, &codes),
            Kind::Right | Kind::Scratch => self.after_code(&tried, &codes),
            Kind::Enrolment => self.after_enrolment(&tried),
        }?;
        self.check_names()?;
        Ok(tried)
    }

    fn after_wrong(&self, tried: &Tried, [code, _]: &[String; 2]) -> Result<(), String> {
        if tried.result == Some(SUCCESS) {
            return Err("let in by a wrong code".into());
        }
        let results = self.logins(&[code, code]);
        if results == [SUCCESS, AUTH_ERR] { Ok(()) } else { Err(format!("the right code after it: {results:?}")) }
    }

    fn after_code(&self, tried: &Tried, codes: &[String; 2]) -> Result<(), String> {
        let next = &codes[usize::from(self.kind == Kind::Right)];
        let results = self.logins(&[&tried.typed, &tried.typed, next, next]);
        let [again, third, next, once] = results[..] else { return Err(format!("{results:?}")) };
        if tried.result == Some(SUCCESS) && again != AUTH_ERR {
            return Err(format!("let in on a code that still works: {results:?}"));
        }
        if ![SUCCESS, AUTH_ERR].contains(&again) || third != AUTH_ERR || once != AUTH_ERR {
            return Err(format!("a code twice: {results:?}"));
        }
        if next == SUCCESS { Ok(()) } else { Err(format!("nothing works any more: {results:?}")) }
    }

    /// Either all of it, or nothing of it and the ticket or another one is good.
    fn after_enrolment(&self, tried: &Tried) -> Result<(), String> {
        let works = |secret: &str| {
            let [used, next] = codes_now(secret);
            self.logins(&[&used, &next])
        };
        let results = tried.shown.as_deref().map(works);
        match results.as_deref() {
            Some([AUTH_ERR, SUCCESS]) => return Ok(()),
            _ if tried.result == Some(SUCCESS) => return Err(format!("what was stored is no device: {results:?}")),
            None | Some([AUTH_ERR, AUTH_ERR]) => {}
            Some(other) => return Err(format!("the first code is not used up: {other:?}")),
        }
        let new = self.enrols(&tried.typed).or_else(|| {
            let ticket = json(self.machine, &["invite", "alice"])["ticket"].as_str().unwrap().to_owned();
            self.enrols(&ticket)
        });
        let results = new.as_deref().map(works);
        if results.as_deref() == Some(&[AUTH_ERR, SUCCESS]) { Ok(()) } else { Err(format!("no way in: {results:?}")) }
    }

    /// Nothing has been left behind that the next login does not take away.
    fn check_names(&self) -> Result<(), String> {
        let (directory, expected) = match self.at {
            At::Home => (ALICE.home(), &[".google_authenticator"][..]),
            // The first name of a new record may stay until the record is removed: tests/crash.rs.
            _ if self.kind == Kind::Enrolment => return Ok(()),
            At::Fleet => return Ok(()),
            At::System | At::Module | At::Agent => (format!("{STATE}/records"), &["alice", "alice~"][..]),
        };
        let names = fs::read_dir(self.machine.path(&directory)).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        if names == expected { Ok(()) } else { Err(format!("{names:?} in {directory}")) }
    }

    /// The same for a cell. What was not so is written down.
    fn try_for(&mut self, row: &mut Row, cell: &mut Cell, harm: &Harm) {
        match self.try_with(harm) {
            Ok(Tried { is_reached: true, result, .. }) => cell.count(result),
            Ok(_) => row.missed += 1,
            Err(why) => row.broken.push(format!("{}, {harm:?}: {why}", row_name(self.at, self.kind))),
        }
    }
}

/// strace that looks at a process that runs already.
struct Attached {
    strace: Child,
    /// What it says of each new thread.
    said: Lines<BufReader<ChildStderr>>,
}

impl Attached {
    fn to(process: u32, harm: &Harm, trace: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(options(harm)).arg("-o").arg(trace).arg(format!("--attach={process}"));
        let mut strace = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(strace.stderr.take().unwrap()).lines();
        let mut attached = Self { strace, said };
        assert!(attached.said.next().is_some_and(|line| line.unwrap().contains("attached")), "strace is not there");
        attached
    }

    /// Of a process that has ended, or is about to, strace takes leave by itself.
    fn detach(mut self, is_alive: bool) {
        if !is_alive && self.is_over(100) {
            return;
        }
        output_of(Command::new("kill").args(["-INT", &self.strace.id().to_string()]));
        if !self.is_over(500) {
            self.strace.kill().unwrap();
            self.strace.wait().unwrap();
        }
    }

    fn is_over(&mut self, looks: u32) -> bool {
        (0..looks).any(|_| {
            thread::sleep(Duration::from_millis(2));
            self.strace.try_wait().unwrap().is_some()
        })
    }
}

/// The code of a secret now, and the next one.
fn codes_now(secret: &str) -> [String; 2] {
    let arguments = ["--totp", "--base32", "--window=1", &format!("--now=@{}", now()), secret];
    let codes = output_of(Command::new("oathtool").args(arguments));
    codes.lines().map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
}

/// A directory of root's with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() { copy(&from, &to) } else { assert!(fs::copy(from, to).is_ok()) }
    }
}

fn result(output: &str) -> Option<i32> {
    output.lines().find_map(|line| line.strip_prefix("result ")).and_then(|code| code.parse().ok())
}

/// strace's options.
fn options(harm: &Harm) -> Vec<String> {
    let Harm::Fault(Call { name, number }, what) = harm else { return vec!["-f".to_owned()] };
    ["-f", "-e", &format!("trace={name}"), "-e", &format!("inject={name}:{what}:when={number}")]
        .map(str::to_owned)
        .into()
}

fn is_reached(trace: &Path) -> bool {
    let trace = fs::read_to_string(trace).unwrap();
    trace.contains("(INJECTED)") || trace.contains("+++ killed by")
}

/// Of each line of a trace the thread, the name of the call, and the rest.
fn lines(trace: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    trace.lines().filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        let (name, rest) = call.trim_start().split_once('(')?;
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some((thread, name, rest))
    })
}

/// What the client does around pam_authenticate.
const MARK: &str = "getsid";

/// The calls of a login in the module: not what its application does before and after, or writes to tell us.
fn calls_between_marks(trace: &str) -> Vec<Call> {
    let (mut numbers, mut calls, mut marks) = (HashMap::new(), Vec::new(), 0);
    for (_, name, rest) in lines(trace) {
        let number = numbers.entry(name).and_modify(|number| *number += 1).or_insert(1);
        let is_ours = marks == 1 && name != MARK && !(name == "write" && rest.starts_with("1,"));
        marks += usize::from(name == MARK);
        if is_ours {
            calls.push(Call { name: name.to_owned(), number: *number });
        }
    }
    assert_eq!(marks, 2);
    calls
}

/// The calls of an agent while it answers: strace counts in each thread for itself.
fn calls_of_threads(trace: &str) -> Vec<Call> {
    let (mut numbers, mut most) = (HashMap::new(), BTreeMap::new());
    for (thread, name, _) in lines(trace) {
        let number: &mut usize = numbers.entry((thread, name)).or_default();
        *number += 1;
        let most = most.entry(name).or_default();
        *most = (*number).max(*most);
    }
    let all = most.into_iter().flat_map(|(name, most)| (1..=most).map(move |number| (name, number)));
    all.map(|(name, number)| Call { name: name.to_owned(), number }).collect()
}

// ---- The matrix ----

/// What became of all logins of a row.
#[derive(Debug, Default, Clone)]
struct Row {
    /// One a column.
    cells: Vec<Cell>,
    /// Logins that did not come to the call that was to fail.
    missed: usize,
    /// What was not as it has to be.
    broken: Vec<String>,
}

impl Row {
    fn sum(&self, count: fn(&Cell) -> usize) -> usize {
        self.cells.iter().map(count).sum()
    }

    fn of(place: &mut Place) -> Self {
        let (calls, mut row) = (place.calls(), Self::default());
        assert!(calls.len() > 20, "{calls:?}");
        let share = rounds(SHARE.min(calls.len() / FEWEST), 1);
        for (column, (_, what)) in FAULTS.into_iter().enumerate() {
            let mut cell = Cell::default();
            for (index, call) in calls.iter().enumerate() {
                let can_be = what == SIGKILL || !CANNOT_FAIL.contains(&call.name.as_str());
                if can_be && (index + column) % share == 0 {
                    place.try_for(&mut row, &mut cell, &Harm::Fault(call.clone(), what));
                }
            }
            row.cells.push(cell);
        }
        for (_, option, is_ignored, values) in LIMITS {
            let mut cell = Cell::default();
            for value in values.iter().step_by(rounds(4, 1)) {
                // One that can be taken back.
                place.try_for(&mut row, &mut cell, &Harm::Limit(format!("--{option}={value}:"), is_ignored));
            }
            row.cells.push(cell);
        }
        row
    }

    fn new(at: At, kind: Kind) -> Self {
        let cluster = (at == At::Fleet).then(|| Cluster::with(Setup { nodes: 1, auth: false, ..Setup::default() }));
        let machine = machine(at, kind, cluster.as_ref());
        Self::of(&mut Place::new(&machine, at, kind))
    }
}

/// All rows, some at once.
fn matrix() -> Vec<Row> {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![Row::default(); ROWS.len()]));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, SeqCst);
                    let Some(&(at, kind)) = ROWS.get(place) else { return };
                    let began = Instant::now();
                    let row = Row::new(at, kind);
                    println!("{}in {:?}", line(at, kind, &row.cells), began.elapsed());
                    rows.lock().unwrap()[place] = row;
                }
            });
        }
    });
    rows.into_inner().unwrap()
}

#[test]
fn whatever_call_fails_or_is_the_last_a_code_works_once_and_nothing_is_lost() {
    let matrix = matrix();
    let cells: Vec<_> = matrix.iter().map(|row| row.cells.clone()).collect();
    let table = table(&cells);
    println!("{table}");
    let broken: Vec<_> = matrix.iter().flat_map(|row| &row.broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    for ((at, kind), row) in ROWS.iter().zip(&matrix) {
        // Which of its calls a login comes to depends a little on the time: of addresses, of threads, of a clock.
        assert!(row.missed * 10 <= row.sum(Cell::total), "{at:?} {kind:?}: {} calls were not reached", row.missed);
        let (denied, accepted) = (row.sum(|cell| cell.denied), row.sum(|cell| cell.accepted));
        assert!(denied > 1 && (accepted > 1) != (*kind == Kind::Wrong), "{at:?} {kind:?}: {row:?}");
    }
    if soak() && std::env::var_os("PAM_TOTP_WRITE").is_some_and(|value| value == "1") {
        fs::write(project().join(PAGE), page(&table)).unwrap();
    }
}

/// If this found nothing, what is found above would prove nothing.
#[test]
fn where_an_error_is_passed_over_it_is_found() {
    let machine = machine(At::Home, Kind::Right, None);
    machine
        .service(SERVICE, "auth [success=ok auth_err=bad default=ignore] pam_totp.so\nauth required pam_permit.so\n");
    let mut place = Place::new(&machine, At::Home, Kind::Right);
    let calls = place.calls();
    let rename = calls.iter().find(|call| call.name.starts_with("rename")).unwrap();
    let fault = Harm::Fault(rename.clone(), "error=EROFS");
    // A denial is one, also here.
    assert_eq!(place.try_with(&fault).map(|tried| tried.result), Ok(Some(AUTH_ERR)));
    machine.service(SERVICE, "auth [default=ignore] pam_totp.so\nauth required pam_permit.so\n");
    let found = place.try_with(&fault).unwrap_err();
    assert!(found.contains("let in on a code that still works"), "{found}");
    place.kind = Kind::Wrong;
    assert!(place.try_with(&Harm::Nothing).unwrap_err().contains("let in by a wrong code"));
}

// ---- The page ----

const PAGE: &str = "docs/faults.md";
const REWRITE: &str = "PAM_TOTP_SOAK=1 PAM_TOTP_WRITE=1 cargo test --features cli --locked --test real fault_matrix::";

fn columns() -> Vec<&'static str> {
    FAULTS.iter().map(|(name, _)| *name).chain(LIMITS.iter().map(|(name, ..)| *name)).collect()
}

fn row_name(at: At, kind: Kind) -> String {
    format!("{} | {}", at.name(), kind.name())
}

fn table(matrix: &[Vec<Cell>]) -> String {
    let columns = columns();
    let mut table = format!("| calls of | typed | {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len() + 2));
    for (&(at, kind), row) in ROWS.iter().zip(matrix) {
        table += &line(at, kind, row);
    }
    table
}

fn line(at: At, kind: Kind, row: &[Cell]) -> String {
    let cells: Vec<_> = row.iter().map(shown).collect();
    format!("| {} | {} |\n", row_name(at, kind), cells.join(" | "))
}

fn shown(Cell { denied, accepted, ended }: &Cell) -> String {
    format!("{denied} / {accepted} / {ended}")
}

fn page(table: &str) -> String {
    format!(
        "# Faults\n\n\
         Each system call that a login makes was made to fail in each of these ways, one in a login, or was its last (`SIGKILL`). So was\n\
         each login under limits of its own: no file longer than so many bytes, no descriptor above such a number. Whatever happened,\n\
         these held, and `tests/fault_matrix.rs` fails where one does not:\n\n\
         - A code that let somebody in is used up: it is refused when it is typed again, and so is one that was accepted later.\n\
         - Nobody is passed over: no fault is an answer to leave it to the other modules. A wrong code lets nobody in.\n\
         - No secret is lost, and the record can be read: the next code is good at the next login, once.\n\
         - An enrolment is whole, and the secret that was shown is good from its next code on, or is none, and its ticket or a new one is\n  \
         good.\n\
         - Of a code nothing is left behind that the next login does not take away.\n\n\
         The cells have how many such logins were denied, how many got in, and how many ended without an answer. In the rows of the\n\
         module the calls are those of its process inside pam_authenticate(3), libpam's and the system logger's among them; in the rows\n\
         of the agent those of the agent while it judges the last answer, where the same call fails in each thread that comes to it;\n\
         with `fleet` the records are in an etcd of one server. \
         A call that cannot fail can be the last. Limits of guesses are off, so that nobody is refused for another reason. Nobody is\n\
         enrolled inside a login into a file of their own, so there is no such row.\n\n\
         {table}\n\
         `make soak` tries all of it again, `make test` a part, and holds the rows and columns of this page against the test's.\n\
         `{REWRITE}`\n\
         writes it.\n"
    )
}

/// Its numbers are those of one run; what it is about is not.
#[test]
fn the_page_of_faults_has_each_row_and_column() {
    let page = fs::read_to_string(project().join(PAGE)).unwrap_or_default();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).collect();
    let empty = table(&vec![vec![Cell::default(); columns().len()]; ROWS.len()]);
    assert_eq!(rows.first(), empty.lines().next().as_ref(), "{PAGE}: `{REWRITE}` writes it");
    assert_eq!(rows.len(), ROWS.len() + 1);
    for (line, (at, kind)) in rows[1..].iter().zip(ROWS) {
        let cells = line.strip_prefix(&format!("| {} | ", row_name(at, kind))).unwrap_or_else(|| panic!("{line}"));
        let cells: Vec<_> = cells.trim_end_matches(" |").split(" | ").collect();
        assert_eq!(cells.len(), columns().len(), "{line}");
        for cell in cells {
            let numbers: Vec<u32> = cell.split(" / ").map(|number| number.parse().unwrap()).collect();
            assert!(numbers.len() == 3 && numbers.iter().sum::<u32>() > 0, "{line}");
            assert!(kind != Kind::Wrong || numbers[1] == 0, "{line}");
        }
    }
    let table = page.split("\n\n").find(|part| part.starts_with("| ")).unwrap();
    assert!(page == self::page(&format!("{table}\n")), "{PAGE}: the test says something else: `{REWRITE}`");
}
