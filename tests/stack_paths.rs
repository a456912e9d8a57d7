//! What `pam-totp` knows of the paths through a stack, against the real libpam with modules that answer everything there is.

use crate::support::machine::Machine;
use crate::support::{example, output_of};
use std::process::Command;

/// In well under a minute, as each is tried with some hundred combinations of answers. `STACK_SEED` begins with another one.
const STACKS: &str = "2000";

#[test]
fn there_is_a_path_without_a_code_exactly_where_libpam_lets_somebody_through() {
    let text = said_by("stack-paths", STACKS);
    // A run that never met one of the kinds would show nothing about it.
    for kind in [
        "Skipped",
        "DenialIgnored",
        "OutageIgnored",
        "UnknownUserIgnored",
        "MissingModuleIgnored",
        "NotAsked",
        "NobodyGetsIn",
        "only with a code",
    ] {
        let count = text.rsplit(&format!("\"{kind}\": ")).next().and_then(|rest| rest.split([',', '}']).next());
        let count: u32 = count.and_then(|count| count.trim().parse().ok()).unwrap_or_default();
        assert!(count >= 50, "{kind}: {count} of {text}");
    }
}

/// What a program says that tries so many stacks; fails where it found a difference.
fn said_by(program: &str, count: &str) -> String {
    let machine = Machine::new();
    for (name, copy) in [("libpam_answers.so", "pam_answers.so"), (program, program)] {
        // By another process: one that this one had open to write could not be started while a test beside this one forks.
        output_of(Command::new("cp").arg(example(name)).arg(machine.shared().join(copy)));
    }
    let seed = std::env::var("STACK_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut command = machine.command(machine.shared().join(program));
    let output = command.arg(machine.shared().join("pam_answers.so")).args([&seed, count]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text.chars().take(20_000).collect::<String>(),
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{text}");
    text
}

/// In half a minute. Each is tried with up to two hundred combinations of answers.
const COPIES: &str = "1200";

#[test]
fn a_copied_stack_does_the_same_and_says_who_answered_what() {
    let text = said_by("stack-walk", COPIES);
    let counts: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for (what, least) in [("logins", 5000), ("reports", 10_000), ("with substacks", 100), ("successes", 500)] {
        assert!(counts[what].as_u64().unwrap() >= least, "{what}: {text}");
    }
}
