//! `make demo-fleet`: three bastions, a cluster of three, one enrolment; and what happens when a code is tried everywhere at once,
//! and when the cluster loses its leader.
//!
//! All of it happens on private machines (mount and process namespaces, /etc of their own), and everything listens on ports of
//! 127.0.0.1 alone.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, unreachable_pub, missing_docs)] // The tests use what the demo does not.

mod support;

use std::process::ExitCode;
use std::time::Instant;
use support::etcd::Cluster;
use support::fleet::{agents, machines};
use support::machine::{ALICE, BOB, CAROL, Machine, User};
use support::root_only::json;
use support::ssh::{KEY_AND_CODE, Sshd, public};
use support::totp::{code_at, code_now, now};

/// What has happened.
struct Row {
    who: &'static str,
    bastion: usize,
    code: String,
    succeeded: bool,
    milliseconds: u128,
    /// By the log.
    reason: String,
}

struct Demo<'a> {
    machines: &'a [Machine],
    sshds: Vec<Sshd<'a>>,
    rows: Vec<Row>,
    failed: bool,
}

fn main() -> ExitCode {
    println!(
        "Three nodes of etcd on 127.0.0.1, with certificates, users and roles, and three bastions, each with its sshd and agent."
    );
    let mut cluster = Cluster::start(3);
    let machines = machines(&cluster, 3, "");
    let agents = agents(&machines);
    let sshds = machines.iter().map(|machine| Sshd::start(machine, KEY_AND_CODE)).collect();
    let mut demo = Demo { machines: &machines, sshds, rows: Vec::new(), failed: false };
    demo.run(&mut cluster);
    demo.table();
    let failed = demo.failed;
    drop(demo);
    drop(agents);
    if failed {
        println!("\nSomething did not go as it should: see `NOT AS EXPECTED` above.");
        return ExitCode::FAILURE;
    }
    println!("\nAll as it should be. Cluster and machines are gone now, and nothing of them is left.");
    println!("Next: docs/fleet.md.");
    ExitCode::SUCCESS
}

impl Demo<'_> {
    fn run(&mut self, cluster: &mut Cluster) {
        println!("\n1. alice enrols once, at bastion 1: pam-totp enrol --user alice --no-confirm");
        let alice = self.enrol(ALICE);
        println!("   and logs in at each, by her key and another code each time.");
        let start = now();
        for (bastion, time) in [start - 30, start, start + 30].into_iter().enumerate() {
            let code = code_at(&alice, time);
            self.login(ALICE, bastion, &code, true);
        }

        let bob = self.enrol(BOB);
        let code = code_now(&bob);
        println!("\n2. bob's code {code}, which is right and new, on all three at the same moment:");
        let won = self.everywhere(BOB, &code);
        self.expect(&format!("{won} of 3 got in"), won == 1);

        let carol = self.enrol(CAROL);
        let leader = cluster.leader();
        println!("\n3. Node {} of the cluster, which leads, is killed. carol logs in at once:", leader + 1);
        cluster.kill(leader);
        let code = code_now(&carol);
        self.login(CAROL, 1, &code, true);
        println!("   and her code again, on another bastion:");
        self.login(CAROL, 2, &code, false);

        println!("\n4. Another node is killed: one of three is no majority.");
        cluster.kill((leader + 1) % 3);
        let code = code_at(&carol, now() + 30);
        self.login(CAROL, 0, &code, false);
        println!("   Both are started again, and the same code, which nobody could use up, is good:");
        cluster.restart(leader);
        cluster.restart((leader + 1) % 3);
        cluster.leader();
        self.login(CAROL, 0, &code, true);
    }

    fn enrol(&self, user: User) -> String {
        let printed = json(&self.machines[0], &["enrol", "--user", user.name, "--no-confirm"]);
        let key = self.sshds[0].key(user);
        for machine in &self.machines[1..] {
            machine.make_directory(&format!("{}/.ssh", user.home()), 0o700, user.uid);
            let public = std::fs::read(public(&key)).unwrap();
            machine.write_as(&format!("{}/.ssh/authorized_keys", user.home()), public, user.uid, 0o600);
        }
        printed["secret"].as_str().unwrap().to_owned()
    }

    fn login(&mut self, user: User, bastion: usize, code: &str, expected: bool) {
        let start = Instant::now();
        let session = self.sshds[bastion].login_with(user.name, &self.sshds[0].key(user), &[code], &[]);
        self.note(user, bastion, code, session.succeeded, start);
        let row = self.rows.last().unwrap();
        let shown = if session.succeeded { session.output.trim() } else { session.errors.trim() };
        println!("   bastion {}, {code}: ssh says: {shown}", bastion + 1);
        let what = format!(
            "{} ({}, {} ms)",
            if session.succeeded { "let in" } else { "refused" },
            row.reason,
            row.milliseconds
        );
        self.expect(&what, session.succeeded == expected);
    }

    fn everywhere(&mut self, user: User, code: &str) -> usize {
        let (key, start) = (self.sshds[0].key(user), Instant::now());
        let clients: Vec<_> = self.sshds.iter().map(|sshd| sshd.begin(user.name, &key, &[code], &[])).collect();
        let sessions: Vec<_> =
            clients.into_iter().zip(&self.sshds).map(|(client, sshd)| sshd.finish(client).succeeded).collect();
        for (bastion, succeeded) in sessions.iter().enumerate() {
            self.note(user, bastion, code, *succeeded, start);
        }
        sessions.into_iter().filter(|succeeded| *succeeded).count()
    }

    fn note(&mut self, user: User, bastion: usize, code: &str, succeeded: bool, start: Instant) {
        let log = self.machines[bastion].log();
        let after = |line: &'_ String, key| line.split_once(key).map(|(_, rest): (_, &str)| rest.to_owned());
        let reason = log.iter().rev().find_map(|line| after(line, " factor=").or_else(|| after(line, " reason=")));
        let reason = reason.as_deref().and_then(|rest| rest.split(' ').next()).unwrap_or("nothing logged").to_owned();
        let milliseconds = start.elapsed().as_millis();
        self.rows.push(Row { who: user.name, bastion, code: code.to_owned(), succeeded, milliseconds, reason });
    }

    fn table(&self) {
        println!("\n  who    bastion  code    outcome  reason               ms");
        for Row { who, bastion, code, succeeded, milliseconds, reason } in &self.rows {
            let outcome = if *succeeded { "let in" } else { "refused" };
            println!("  {who:6} {:7}  {code}  {outcome:7}  {reason:18} {milliseconds:>5}", bastion + 1);
        }
    }

    fn expect(&mut self, what: &str, as_expected: bool) {
        println!("   => {what}{}", if as_expected { "" } else { "   NOT AS EXPECTED" });
        self.failed |= !as_expected;
    }
}
