//! How long a denial takes says nothing of why.

use crate::support::machine::{BOB, CAROL, Machine, User};
use crate::support::root_only::{self, ticket};
use crate::support::totp::{SECRET, code_at, now, wrong_code};
use crate::support::{need, output_of, reasons, rounds, soak};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;

const DAVE: User = User { name: "dave", uid: 20004 };
const POLICY: &str = "/etc/security/pam_totp.toml";
/// Nobody is throttled here.
const WITHOUT_LIMITS: &str = "[throttle]\nuser = \"*:90/1d\"\nhost = \"\"\n";
/// Who is denied, and why.
const DENIED: [(&str, &str); 5] = [
    ("nobody-here", "unknown-user"),
    ("alice", "not-enrolled"),
    ("bob", "wrong-code"),
    ("carol", "used-code"),
    ("dave", "throttled"),
];
/// PAM_AUTH_ERR.
const DENIAL: f64 = 7.0;
/// A device is disabled after a hundred failures in a row.
const FORGET_AFTER: usize = 80;
/// Seconds.
const STEP: u64 = 30;

#[test]
fn a_denial_asks_the_kernel_for_as_much_whatever_its_reason() {
    need("strace", "strace");
    let site = Site::new("system");
    site.machine.service("nothing", "auth required pam_deny.so\n");
    let calls = |service: &str, user: &str| {
        let trace = site.machine.shared().join("trace");
        let mut command = site.machine.command("strace");
        command.arg("-o").arg(&trace).arg(site.machine.client());
        output_of(command.args([service, user, "--answer", &site.code(user)]));
        fs::read_to_string(&trace).unwrap().lines().count()
    };
    let nothing = calls("nothing", "bob");
    let counts = DENIED.map(|(user, reason)| (reason, calls("test", user) - nothing));
    assert_eq!(reasons(&site.machine.log()), DENIED.map(|(_, reason)| reason));
    // Whoever has no record has none that could be read.
    let (least, most) = extremes(counts.iter().map(|(_, calls)| *calls as f64));
    println!("{counts:?}");
    assert!(least > 50.0 && most <= least * 1.15, "{counts:?}");
}

/// Where people get a device inside a login, are let pass without one, or are not asked again: whoever is asked.
#[test]
fn the_prompt_comes_after_the_same_calls_whoever_it_is_for() {
    need("strace", "strace");
    let machine = root_only::machine("");
    // As above.
    machine.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n");
    machine.service("nullok", "auth required pam_totp.so nullok\n");
    program(&machine, &["enrol", "--user", "bob", "--no-confirm"]);
    ticket(&machine, "carol", &[]);
    // Alice has nothing.
    let everybody = &["nobody-here", "bob", "carol", "alice"][..];
    let (two, others) = everybody.split_at(2);
    for (service, policy, asked, not_asked) in [
        ("test", "enrolment = \"ticket\"", everybody, &[][..]),
        ("test", "enrolment = \"inline\"", everybody, &[]),
        ("test", "enrolment = \"inline\"\nenrol_by = 1999-01-01", everybody, &[]),
        // Carol is asked too, as she has a ticket, which is read before that.
        ("test", "enrolment = \"inline\"\nenrol_by = 2999-01-01", two, &["alice"]),
        ("test", "enrolment = \"ticket\"\ngrace = \"1h\"", everybody, &[]),
        ("test", "grace = \"1h\"", everybody, &[]),
        ("test", "enrol_by = 2999-01-01", two, others),
        ("test", "enrolment = \"optional\"", two, others),
        ("nullok", "", two, others),
    ] {
        machine.write(POLICY, format!("version = 1\n[defaults]\nstore = \"system\"\n{policy}\n{WITHOUT_LIMITS}"));
        // What the first login under a policy writes down.
        machine.login(service, "bob").answer("000000").run();
        // A code, and what can be a ticket.
        for (typed, bound) in [("000000", 1.2), ("AAAA-AAAA-AAAA-AAAA-AAAA-AAAA", 1.35)] {
            let calls: Vec<_> = asked.iter().map(|user| calls(&machine, service, user, typed)).collect();
            for (user, [before, _]) in asked.iter().zip(&calls) {
                let [first, _] = &calls[0];
                // Where a name is not in it the user database is read to its end, and there is no record that could be read.
                let is_alike = |kind: &String| number(before, kind).abs_diff(number(first, kind)) <= 1;
                assert!(before.keys().chain(first.keys()).all(is_alike), "{policy}: {user} {before:#?} {first:#?}");
            }
            let (least, most) = extremes(calls.iter().map(|[_, after]| total(after) as f64));
            let totals: Vec<_> = calls.iter().map(|calls| calls.each_ref().map(total)).collect();
            println!("{service} {policy:?} {typed}: {totals:?}");
            assert!(most <= least * bound, "{policy} {typed}: {calls:#?}");
        }
        for user in not_asked {
            assert!(machine.login(service, user).run().prompts.is_empty(), "{policy}: {user} is asked");
        }
    }
}

/// Calls, by name.
type Calls = BTreeMap<String, usize>;

fn number(calls: &Calls, kind: &str) -> usize {
    calls.get(kind).copied().unwrap_or(0)
}

fn total(calls: &Calls) -> usize {
    calls.values().sum()
}

/// How often a login asks the kernel for what, until the prompt and from there on.
fn calls(machine: &Machine, service: &str, user: &str, typed: &str) -> [Calls; 2] {
    let trace = machine.shared().join("trace");
    let mut command = machine.command("strace");
    command.arg("-o").arg(&trace).arg(machine.client());
    output_of(command.args([service, user, "--rhost", "192.0.2.1", "--answer", typed]));
    let (mut calls, mut marks, mut prompts) = (<[Calls; 2]>::default(), 0, 0);
    for line in fs::read_to_string(trace).unwrap().lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        // What the client does around pam_authenticate, and before it answers.
        marks += usize::from(name == "getsid");
        let is_prompt = name == "write" && rest.starts_with("1, \"prompt ");
        prompts += usize::from(is_prompt);
        if marks == 1 && name != "getsid" && !is_prompt {
            *calls[prompts].entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!((marks, prompts), (2, 1), "{user} is not asked");
    calls
}

/// Of a few, which run beside other tests, the fastest say that none waits for anything; ten thousand each, by their medians,
/// that all take as long.
#[test]
fn a_denial_takes_as_long_whatever_its_reason() {
    for store in ["system", "home"] {
        let taken = Site::new(store).denials(rounds(20, 10_000));
        let wrong = &taken["wrong-code"];
        for (reason, times) in &taken {
            let (median, distance) = (median(times), kolmogorov_smirnov(times, wrong));
            println!("{store}: {reason}: median {median:.0} µs, {distance:.3} from those of a wrong code");
        }
        let typical = |times: &Vec<f64>| if soak() { median(times) } else { times[0] };
        let (least, most) = extremes(taken.values().map(typical));
        let bound = if soak() { f64::max(100.0, least * 0.05) } else { least };
        assert!(most - least <= bound, "{store}: from {least:.0} to {most:.0} µs");
    }
}

/// Somebody for each reason.
struct Site {
    machine: Machine,
    carol: String,
    /// Carol's code that is used up, and its time step.
    used: RefCell<String>,
    step: Cell<u64>,
}

impl Site {
    fn new(store: &str) -> Self {
        let machine = Machine::new();
        machine.add(DAVE);
        // How long a name service looks for a name that it does not have is not ours to say.
        machine.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n");
        // Dave alone may not fail more than once.
        let throttle = "[throttle]\nuser = \"dave:1/30d\"\nhost = \"\"\n";
        machine.write(POLICY, format!("version = 1\n[defaults]\nstore = \"{store}\"\n{throttle}"));
        machine.service("test", "auth required pam_totp.so\n");
        if store == "system" {
            program(&machine, &["setup", "store"]);
        }
        let secret = |user: User| {
            if store == "home" {
                machine.enrol(user, "\" DISALLOW_REUSE\n\" TOTP_AUTH\n");
                return SECRET.to_owned();
            }
            let printed = program(&machine, &["enrol", "--user", user.name, "--no-confirm", "--json"]);
            let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
            printed["secret"].as_str().unwrap().to_owned()
        };
        // Alice has none.
        let [_, carol, dave] = [BOB, CAROL, DAVE].map(secret);
        let site = Self { machine, carol, used: RefCell::default(), step: Cell::new(0) };
        assert_eq!(site.login("dave", &wrong_code(&dave)).0, DENIAL);
        site.machine.log();
        site
    }

    /// What somebody types.
    fn code(&self, user: &str) -> String {
        if user != "carol" {
            return "000000".to_owned();
        }
        if now() / STEP != self.step.get() {
            // That of this moment, which stays in the window for the next step too.
            self.step.set(now() / STEP);
            self.used.replace(code_at(&self.carol, self.step.get() * STEP));
            assert_eq!(self.login("carol", &self.used.borrow()).0, 0.0);
        }
        self.used.borrow().clone()
    }

    /// The result, and the microseconds.
    fn login(&self, user: &str, code: &str) -> (f64, f64) {
        let mut command = self.machine.command(self.machine.client());
        let printed = output_of(command.args(["test", user, "--time", "--answer", code]));
        let number = |key: &str| printed.lines().find_map(|line| line.strip_prefix(key)).unwrap().parse::<f64>();
        (number("result ").unwrap(), number("nanoseconds ").unwrap() / 1e3)
    }

    /// Microseconds, by reason, each sorted.
    fn denials(&self, rounds: usize) -> BTreeMap<&'static str, Vec<f64>> {
        let mut taken: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for round in 0..rounds {
            for at in 0..DENIED.len() {
                // Each comes after each other one.
                let (user, reason) = DENIED[(at * (1 + round % 4) + round) % DENIED.len()];
                let (result, time) = self.login(user, &self.code(user));
                assert_eq!(result, DENIAL, "{user}");
                taken.entry(reason).or_default().push(time);
            }
            if round % FORGET_AFTER == FORGET_AFTER - 1 || round + 1 == rounds {
                let log = self.machine.log();
                reasons(&log).into_iter().for_each(|reason| *seen.entry(reason).or_default() += 1);
                for user in ["alice", "bob", "carol"] {
                    program(&self.machine, &["throttle", "unlock", "--user", user]);
                }
            }
        }
        for (reason, times) in &mut taken {
            times.sort_by(f64::total_cmp);
            // A code of zeros is right, or was, now and then.
            let seen = seen.get(*reason).copied().unwrap_or(0);
            assert!(seen + rounds / 1000 >= times.len(), "{reason} is not what was measured: {seen}");
        }
        taken
    }
}

fn program(machine: &Machine, arguments: &[&str]) -> String {
    output_of(machine.command(machine.program()).args(arguments))
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, 0.0), |(least, most), value| (least.min(value), most.max(value)))
}

/// How far the shares of those that took at most so long are apart, at most.
fn kolmogorov_smirnov(one: &[f64], other: &[f64]) -> f64 {
    let share = |times: &[f64], time: f64| times.partition_point(|&other| other <= time) as f64 / times.len() as f64;
    one.iter().chain(other).map(|&time| (share(one, time) - share(other, time)).abs()).fold(0.0, f64::max)
}
