//! What `pam-totp` knows of the paths through a stack, against the real libpam with modules that answer everything there is.

use crate::support::machine::Machine;
use crate::support::{example, output_of, rounds};
use std::process::Command;

#[test]
fn there_is_a_path_without_a_code_exactly_where_libpam_lets_somebody_through() {
    // Each is tried with some hundred combinations of answers. `STACK_SEED` begins with another one.
    let (stacks, of_a_kind) = rounds((400, 10), (2000, 50));
    let text = said_by("stack-paths", stacks);
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
        assert!(count >= of_a_kind, "{kind}: {count} of {text}");
    }
}

/// What a program says that tries so many stacks; fails where it found a difference.
fn said_by(program: &str, count: u64) -> String {
    let machine = Machine::new();
    for (name, copy) in [("libpam_answers.so", "pam_answers.so"), (program, program)] {
        // By another process: one that this one had open to write could not be started while a test beside this one forks.
        output_of(Command::new("cp").arg(example(name)).arg(machine.shared().join(copy)));
    }
    let seed = std::env::var("STACK_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut command = machine.command(machine.shared().join(program));
    let output = command.arg(machine.shared().join("pam_answers.so")).args([seed, count.to_string()]).output().unwrap();
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

#[test]
fn a_copied_stack_does_the_same_and_says_who_answered_what() {
    // Each is tried with up to two hundred combinations of answers.
    let parts = rounds(1, 4);
    let text = said_by("stack-walk", parts * 300);
    let counts: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for (what, least) in [("logins", 1250), ("reports", 2500), ("with substacks", 25), ("successes", 125)] {
        assert!(counts[what].as_u64().unwrap() >= parts * least, "{what}: {text}");
    }
}
