//! How long a comparison takes says nothing of how much of a code was right, and how long a judgement takes nothing of what it
//! is. Counted in instructions, as a clock would have to be asked millions of times.

use crate::support::{example, need};
use std::collections::BTreeSet;
use std::process::Command;

/// What `compare` does in `counted`.
fn instructions(how: &str, code: &str) -> u64 {
    need("valgrind", "valgrind");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--toggle-collect=counted", "--callgrind-out-file=/dev/null"]);
    let output = command.arg(example("compare")).args([how, code]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim().parse());
    count.unwrap_or_else(|| panic!("callgrind says: {said}")).unwrap()
}

#[test]
fn a_guess_takes_as_many_instructions_however_much_of_it_is_right() {
    // The right code is 359152. Wrong from the first digit on, from the fourth, and in the last alone.
    let wrong = ["000000", "359000", "359150"];
    let counts = |how| wrong.iter().map(|code| instructions(how, code)).collect::<BTreeSet<_>>();
    assert!(counts("careless").len() == 3, "this test does not see what it is about");
    let ours = counts("ours");
    assert!(ours.len() == 1 && ours.iter().all(|count| *count > 1000), "{ours:?}");
}

#[test]
fn right_wrong_and_used_codes_are_judged_in_as_many_instructions() {
    let [right, wrong, used] = ["050471", "000000", "081804"].map(|code| instructions("decide", code));
    let (least, most) = (right.min(wrong).min(used), right.max(wrong).max(used));
    assert!(least > 1000 && most - least <= least / 50, "right {right}, wrong {wrong}, used {used}");
}
