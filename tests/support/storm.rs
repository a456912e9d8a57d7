//! A program that starts another one again and again, types a line at it, and stops it at a random point.
//!
//! ```text
//! storm COUNT POOL SEED LINE PROGRAM [ARGUMENT]...
//! ```
//!
//! Each is left stopped until it is among the POOL oldest no longer, and is killed then. Nothing is asked of the kernel that
//! the user who runs this may not do. Prints `stopped N`: so many did not come to their end.

#![allow(unsafe_code, clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

#[path = "numbers.rs"]
mod numbers;

/// About as long as a denial takes, in microseconds.
const LONGEST: u64 = 12_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [count, pool, seed, line, program, rest @ ..] = arguments.as_slice() else { panic!("too few arguments") };
    let (count, pool): (usize, usize) = (count.parse().unwrap(), pool.parse().unwrap());
    let mut numbers = numbers::Numbers(seed.parse().unwrap());
    let mut stopped = VecDeque::new();
    let mut total = 0;
    for _ in 0..count {
        let mut child = start(program, rest, line);
        thread::sleep(Duration::from_micros(numbers.next(LONGEST)));
        // SAFETY: no pointers; our own child, which has not been waited for.
        unsafe { libc::kill(child.id().cast_signed(), libc::SIGSTOP) };
        if child.try_wait().unwrap().is_none() {
            stopped.push_back(child);
            total += 1;
        }
        if stopped.len() > pool {
            end(stopped.pop_front().unwrap());
        }
    }
    stopped.into_iter().for_each(end);
    println!("stopped {total}");
}

fn start(program: &str, arguments: &[String], line: &str) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let _ = writeln!(child.stdin.take().unwrap(), "{line}");
    child
}

fn end(mut child: Child) {
    // The program's own way to kill would do, but su has another effective user than we have: by its real one we may.
    // SAFETY: no pointers; our own child, which has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGKILL) };
    child.wait().unwrap();
}
