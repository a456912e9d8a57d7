//! What `pam-totp` knows of the paths through a stack, against the real libpam with modules that answer everything there is.

use crate::support::example;
use crate::support::machine::Machine;
use std::fs;

/// In well under a minute, as each is tried with some hundred combinations of answers. `STACK_SEED` begins with another one.
const STACKS: &str = "2000";

#[test]
fn there_is_a_path_without_a_code_exactly_where_libpam_lets_somebody_through() {
    let machine = Machine::new();
    for (name, copy) in [("libpam_answers.so", "pam_answers.so"), ("stack-paths", "stack-paths")] {
        fs::copy(example(name), machine.shared().join(copy)).unwrap();
    }
    let seed = std::env::var("STACK_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut command = machine.command(machine.shared().join("stack-paths"));
    let output = command.arg(machine.shared().join("pam_answers.so")).args([&seed, STACKS]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}{}",
        text.chars().take(20_000).collect::<String>(),
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{text}");
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
