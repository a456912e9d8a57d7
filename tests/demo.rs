//! `make demo`: a person enrols and logs in through a real sshd, and four ways in that are none are shown shut.
//!
//! All of it happens on a private machine (mount and process namespaces, /etc of its own), and sshd listens on a port
//! of 127.0.0.1 alone.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, unreachable_pub, missing_docs)] // The tests use what the demo does not.

mod support;

use std::process::ExitCode;
use support::example_file;
use support::machine::{ALICE, BOB, CAROL, Machine, User};
use support::ssh::{KEY_AND_CODE, Session, Sshd};
use support::totp::{code_now, wrong_code};

struct Demo<'a> {
    machine: &'a Machine,
    sshd: &'a Sshd<'a>,
    failed: bool,
}

fn main() -> ExitCode {
    let machine = Machine::new();
    machine.service("sshd", &example_file("sshd-debian"));
    println!("A private machine: its own /etc, /home and log. Its /etc/pam.d/sshd is pam.d-examples/sshd-debian.");
    let sshd = Sshd::start(&machine, KEY_AND_CODE);
    let mut demo = Demo { machine: &machine, sshd: &sshd, failed: false };
    demo.run();
    if demo.failed {
        println!("\nSomething did not go as it should: see `NOT AS EXPECTED` above.");
        return ExitCode::FAILURE;
    }
    println!("\nAll as it should be. The machine is gone now, and nothing of it is left.");
    println!("Next: `make test`, and README.md for a real machine.");
    ExitCode::SUCCESS
}

impl Demo<'_> {
    fn run(&mut self) {
        println!("\nalice enrols:  pam-totp enrol --no-confirm --json");
        let alice = self.enrol(ALICE);
        println!("{}", serde_json::to_string_pretty(&alice).unwrap());
        println!("(Without --json this is a QR code. From here on oathtool is everybody's authenticator app.)");
        let secret = alice["secret"].as_str().unwrap();

        let code = code_now(secret);
        println!("\n1. alice logs in: her key, then the code {code}");
        let session = self.sshd.login(ALICE, &[&code]);
        self.show(&session, true);

        println!("\n2. The same code again: {code}");
        let session = self.sshd.login(ALICE, &[&code]);
        self.show(&session, false);

        let wrong = wrong_code(secret);
        println!("\n3. A wrong code: {wrong}");
        let session = self.sshd.login(ALICE, &[&wrong]);
        self.show(&session, false);

        let bob = self.enrol(BOB);
        let code = code_now(bob["secret"].as_str().unwrap());
        println!("\n4. Sixteen sessions of bob's at once with one code, {code}, which is right and new:");
        let (won, _) = self.race(BOB, &[code.as_str(); 16]);
        self.expect(&format!("{won} of 16 got in"), won == 1);

        let carol = self.enrol(CAROL);
        let secret = carol["secret"].as_str().unwrap();
        let wrong = wrong_code(secret);
        println!("\n5. Sixteen guesses at carol's code at once, all of them {wrong}, which is wrong:");
        // Not the right one among them: whoever gets in makes the address a known one, with guesses of its own.
        let (_, judged) = self.race(CAROL, &[wrong.as_str(); 16]);
        self.expect(
            &format!("{judged} of 16 were judged, the others denied unjudged: no more than 3 tries in 30 seconds"),
            (1..=3).contains(&judged),
        );
    }

    fn enrol(&self, user: User) -> serde_json::Value {
        let program = self.machine.program();
        let output = self.machine.command_as(user, program).args(["enrol", "--no-confirm", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// A session a code, all at once. How many got in, and how many were told that their code is wrong (in the log).
    fn race(&mut self, user: User, codes: &[&str]) -> (usize, usize) {
        let key = self.sshd.key(user);
        let clients: Vec<_> = codes.iter().map(|code| self.sshd.begin(user.name, &key, &[code], &[])).collect();
        let won = clients.into_iter().map(|client| usize::from(self.sshd.finish(client).succeeded)).sum();
        let log = self.machine.log();
        self.print_log(&log);
        (won, log.iter().filter(|line| line.contains("reason=wrong-code")).count())
    }

    fn show(&mut self, session: &Session, expected: bool) {
        for question in &session.questions {
            println!("   asked:    {question}");
        }
        let shown = if session.succeeded { session.output.trim() } else { session.errors.trim() };
        println!("   ssh says: {shown}");
        let log = self.machine.log();
        self.print_log(&log);
        self.expect(if session.succeeded { "let in" } else { "refused" }, session.succeeded == expected);
    }

    /// The module's lines, equal ones once.
    fn print_log(&self, log: &[String]) {
        let mut shown: Vec<(&str, usize)> = Vec::new();
        for line in log.iter().filter(|line| line.contains("pam_totp(")) {
            match shown.iter_mut().find(|(seen, _)| seen == line) {
                Some((_, count)) => *count += 1,
                None => shown.push((line, 1)),
            }
        }
        for (line, count) in shown {
            println!("   the log: {}{line}", if count > 1 { format!("{count} x ") } else { String::new() });
        }
    }

    fn expect(&mut self, what: &str, as_expected: bool) {
        println!("   => {what}{}", if as_expected { "" } else { "   NOT AS EXPECTED" });
        self.failed |= !as_expected;
    }
}
