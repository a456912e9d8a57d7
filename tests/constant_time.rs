//! How long a comparison takes says nothing of how much of a code was right. Counted in instructions, as a clock would have to be
//! asked millions of times.

use crate::support::example;
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Runs `compare` without random addresses, and counts what it does between its two stops.
#[allow(unsafe_code)]
fn instructions(how: &str, code: &str) -> u64 {
    let mut command = Command::new(example("compare"));
    command.args([how, code]).env_clear();
    // SAFETY: one call, which takes and returns a number.
    unsafe {
        command.pre_exec(|| {
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    assert_eq!(stopped(&child), Some(libc::SIGSTOP));
    let mut count = 0;
    loop {
        // SAFETY: our own child, which is stopped and was asked to be traced by us.
        let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child.id(), 0, 0) };
        assert_eq!(stepped, 0, "{}", std::io::Error::last_os_error());
        match stopped(&child) {
            Some(libc::SIGTRAP) => count += 1,
            Some(libc::SIGSTOP) => break,
            other => panic!("{other:?}"),
        }
    }
    // SAFETY: as above.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, child.id(), 0, 0) };
    assert!(child.wait().unwrap().success());
    count
}

#[allow(unsafe_code)]
fn stopped(child: &Child) -> Option<i32> {
    let mut status = 0;
    // SAFETY: our own child, and a place for its status.
    let pid = unsafe { libc::waitpid(child.id().cast_signed(), &raw mut status, 0) };
    assert_eq!(pid, child.id().cast_signed());
    libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
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
