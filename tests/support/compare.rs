//! Compares a code with the right one, or judges it, in a function `counted`, for a test that counts its instructions.
//!
//! ```text
//! compare ours|careless|decide CODE
//! ```
//!
//! The secret is RFC 4226's. `ours` and `careless` compare with the code of the counter 2 (`359152`); `careless` stops at the
//! first digit that differs. `decide` is a whole judgement, at the time of RFC 6238's third line (`050471`); the code of the
//! time step before (`081804`) is used up.

#![allow(unsafe_code, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pam_totp::otp::{Algorithm, Answer, Code, Digits, Form, Generator};
use pam_totp::record::google::Document;
use pam_totp::secret::Secret;
use pam_totp::verify::{Charge, Rules, Try, Verdict, charge};
use std::cell::Cell;
use std::hint::black_box;

const FILE: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n\" DISALLOW_REUSE 37037036\n\" TOTP_AUTH\n";
const NOW: u64 = 1_111_111_111;

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
    let document = Document::parse(Secret::new(FILE.into())).ok().unwrap();
    let answer = |code: &str| Answer::new(Secret::new(code.into()), Form::Code, false);
    let (typed_answer, rules) = (answer(&typed), Rules { is_counted: true, ..Rules::default() });
    let decide = |answer: &Answer| {
        let attempt = Try::new(answer);
        let Charge::Due(due) = charge(document.record(), &rules, &attempt, NOW) else { panic!("not judged") };
        due.commit(|_| Ok::<(), ()>(())).unwrap().decide()
    };
    let decision = Cell::new(None);
    // What happens at the first time alone is not what is counted.
    let _ = black_box(generator.matches(&Code::parse(b"000000").ok().unwrap(), 7));
    let _ = black_box(generator.code(7));
    let _ = black_box(decide(&answer("000000")));
    let (right, is_right) = match how.as_str() {
        "decide" => {
            counted(&|| decision.set(Some(decide(&typed_answer))));
            // The verdict comes out of a commit, which is the store's.
            let verdict = decision.take().unwrap().commit(|_| Ok::<(), ()>(()));
            ("050471", matches!(verdict, Ok(Verdict::Accepted(_))))
        }
        _ => {
            let is_right = Cell::new(false);
            let compare: &dyn Fn() -> bool = if how == "ours" { &ours } else { &careless };
            counted(&|| is_right.set(compare()));
            ("359152", is_right.get())
        }
    };
    assert_eq!(is_right, typed == right);
}

/// What is counted.
#[unsafe(no_mangle)]
#[inline(never)]
fn counted(work: &dyn Fn()) {
    work();
}
