//! Compares a code with the right one between two stops, for a test that counts the instructions in between.
//!
//! ```text
//! compare ours|careless CODE
//! ```
//!
//! The secret is RFC 4226's, the counter 2 (`359152`). `careless` stops at the first digit that differs.

#![allow(unsafe_code, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]

use pam_totp::otp::{Algorithm, Code, Digits, Generator};
use pam_totp::secret::Secret;
use std::hint::black_box;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (how, typed) = (arguments.next().unwrap(), arguments.next().unwrap());
    let generator = Generator::new(&Secret::new(b"12345678901234567890".to_vec()), Algorithm::Sha1, Digits::SIX);
    let code = Code::parse(typed.as_bytes()).ok().unwrap();
    let ours = || generator.matches(&code, 2);
    let careless = || {
        let right = generator.code(2);
        right.expose().bytes().zip(typed.bytes()).all(|(right, typed)| right == typed)
    };
    let compare: &dyn Fn() -> bool = if how == "ours" { &ours } else { &careless };
    // What happens at the first time alone is not what is counted.
    let _ = black_box(generator.matches(&Code::parse(b"000000").ok().unwrap(), 7));
    let _ = black_box(generator.code(7));
    // SAFETY: takes nothing but numbers; stops this process, whose parent waits for that.
    unsafe {
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        libc::raise(libc::SIGSTOP);
    }
    let is_right = black_box(compare());
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGSTOP) };
    assert_eq!(is_right, typed == "359152");
}
