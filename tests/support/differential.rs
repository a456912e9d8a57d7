//! Drives two modules through the real libpam with the same logins, and reports where they differ.
//!
//! ```text
//! differential SEED SEQUENCES
//! ```
//!
//! Runs on a private machine (tests/drop_in.rs) with the services `ours-N` and `theirs-N` written by itself, as root. A
//! sequence is a secret file, module arguments, and a few logins at times of their own; after each login the results, the
//! prompts, PAM_AUTHTOK and the files are compared. Time is frozen by libfaketime, which reads its environment at each call.

#![allow(unsafe_code, clippy::disallowed_methods)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "libpam.rs"]
mod libpam;
#[path = "numbers.rs"]
mod numbers;

use libpam::*;
use numbers::Numbers;
use pam_totp::otp::{Algorithm, Digits, Generator, base32};
use pam_totp::secret::Secret;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::os::unix::fs::{PermissionsExt, chown};
use std::ptr::null_mut;
use std::{env, fs, process};

const SECRET: &[u8] = b"12345678901234567890";
const OURS: (&str, u32) = ("alice", 20001);
const THEIRS: (&str, u32) = ("bob", 20002);
const START: u64 = 1_700_000_000;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let seed: u64 = arguments[1].parse().unwrap();
    let sequences: u64 = arguments[2].parse().unwrap();
    let mut reached = BTreeMap::new();
    let mut failures = 0;
    for number in 0..sequences {
        // Each sequence can be run alone, by its own seed.
        let own_seed = seed.wrapping_add(number);
        let mut numbers = Numbers(own_seed);
        if let Err(difference) = Sequence::new(&mut numbers).run(&mut numbers, &mut reached) {
            println!("DIFFERENCE seed={own_seed}\n{difference}");
            failures += 1;
            if failures == 5 {
                break;
            }
        }
    }
    for (what, count) in &reached {
        println!("reached {count} {what}");
    }
    println!("differences {failures}");
    process::exit(i32::from(failures > 0));
}

/// A file, a stack, and a clock.
struct Sequence {
    file: Option<String>,
    mode: u32,
    arguments: Vec<&'static str>,
    asks_first: bool,
    step: u64,
    skew: i64,
    hotp: bool,
    now: u64,
}

impl Sequence {
    fn new(numbers: &mut Numbers) -> Self {
        let hotp = numbers.one_in(4);
        let (file, step, skew) = file(numbers, hotp);
        let arguments = arguments(numbers);
        let asks_first = numbers.one_in(if arguments.iter().any(|a| a.ends_with("first_pass")) { 1 } else { 8 })
            && !numbers.one_in(8);
        let mode = if numbers.one_in(40) { 0o644 } else { 0o600 };
        let now = START + numbers.next(100_000_000);
        Self { file: (!numbers.one_in(25)).then_some(file), mode, arguments, asks_first, step, skew, hotp, now }
    }

    fn run(&mut self, numbers: &mut Numbers, reached: &mut BTreeMap<String, u64>) -> Result<(), String> {
        let mut count = |what: String| *reached.entry(what).or_insert(0) += 1;
        for (user, uid) in [OURS, THEIRS] {
            write_file(
                user,
                uid,
                self.file.as_ref().map(|file| file.replace("@NOW@", &self.now.to_string())),
                self.mode,
            );
        }
        for (module, name) in [("pam_totp.so", "ours"), ("pam_google_authenticator.so", "theirs")] {
            let ask = if self.asks_first { "auth required /run/pam_probe.so ask\n" } else { "" };
            let stack = format!(
                "{ask}auth required {module} {}\nauth required /run/pam_probe.so show\n",
                self.arguments.join(" ")
            );
            fs::write(format!("/etc/pam.d/{name}"), stack).unwrap();
        }
        never_enrolled();
        let mut last_code = None;
        let mut story = String::new();
        for _ in 0..2 + numbers.next(4) {
            let host = ["", "192.0.2.1", "198.51.100.7", "fe80::1"][numbers.next(4) as usize];
            let answers: Vec<Answer> = (0..3).map(|_| self.answer(numbers, &mut last_code)).collect();
            // SAFETY: this process has one thread.
            unsafe { env::set_var("FAKETIME", self.now.to_string()) };
            let before = read_file(THEIRS.0);
            let ours = login("ours", OURS.0, host, &answers);
            let theirs = login("theirs", THEIRS.0, host, &answers);
            let (our_file, their_file) = (read_file(OURS.0), read_file(THEIRS.0));
            story += &format!(
                "  at {} from {host:?} answers {answers:?}\n    ours   {ours:?}\n    theirs {theirs:?}\n",
                self.now
            );
            count(format!("result {}", theirs.result));
            count(format!("prompts {}", theirs.prompts.len()));
            count(format!("file {}", if before == their_file { "kept" } else { "written" }));
            if theirs.authtok.is_some() {
                count("authtok".to_owned());
            }
            // Debian's module saves a grace line only along with something else; ours does what later versions do.
            let grace = self.arguments.iter().any(|argument| argument.starts_with("grace_period"));
            if grace && without_grace(&our_file) == without_grace(&their_file) && our_file != their_file {
                count("left out: grace line not saved".to_owned());
                return Ok(());
            }
            // In grace with forward_pass we ask for the password all the same.
            if grace
                && self.arguments.contains(&"forward_pass")
                && theirs.result == 0
                && theirs.prompts.len() < ours.prompts.len()
            {
                count("left out: grace with forward_pass".to_owned());
                return Ok(());
            }
            if ours != theirs || our_file != their_file {
                return Err(format!(
                    "  file {:?} mode {:o}\n  arguments {:?} asks first: {}\n{story}    our file   {our_file:?}\n    their file {their_file:?}",
                    self.file, self.mode, self.arguments, self.asks_first
                ));
            }
            self.now += [0, 0, 1, 5, 29, 30, 31, 60, 600][numbers.next(9) as usize];
        }
        Ok(())
    }

    /// What a person might type.
    fn answer(&self, numbers: &mut Numbers, last: &mut Option<String>) -> Answer {
        let secret = Secret::new(SECRET.to_vec());
        let generator = Generator::new(&secret, Algorithm::Sha1, Digits::SIX);
        let code = |counter: i64| generator.code(counter.max(0).cast_unsigned()).expose().clone();
        let step = (self.now / self.step).cast_signed() + self.skew;
        let near =
            |numbers: &mut Numbers, around: u64| numbers.next(2 * around + 1).cast_signed() - around.cast_signed();
        let text = match numbers.next(20) {
            0..=5 if self.hotp => code(5 + near(numbers, 4)),
            0..=5 => code(step + near(numbers, 3)),
            6 | 7 => last.clone().unwrap_or_else(|| code(step)),
            8 => code(step + near(numbers, 40)),
            9 => format!("{:06}", numbers.next(1_000_000)),
            10 | 11 => SCRATCH[numbers.next(SCRATCH.len() as u64) as usize].to_owned(),
            12 => format!("{:08}", numbers.next(100_000_000)),
            13 => format!(" {}", code(step)),
            14 => format!("{} ", code(step)),
            15 => ["", " ", "abc", "12345", "1234567", "123456789", "+12345", "-12345", "0x1234", "12 345", "0123456"]
                [numbers.next(11) as usize]
                .to_owned(),
            16 => return Answer::Fail,
            17 => return Answer::Null,
            18 => "\x08\n\r\x7fINCORRECT".to_owned(),
            _ => code(step + near(numbers, 1)),
        };
        let wants_password = self.arguments.iter().any(|argument| argument.ends_with("_pass"));
        let password = ["", "hunter", "hunter2", "pass word ", "x1"][numbers.next(5) as usize];
        let text = if wants_password && !numbers.one_in(4) { format!("{password}{text}") } else { text };
        *last = Some(text.clone());
        Answer::Text(text)
    }
}

const SCRATCH: [&str; 4] = ["12345678", "23456789", "34567890", "99999999"];

fn arguments(numbers: &mut Numbers) -> Vec<&'static str> {
    let mut arguments = Vec::new();
    for (chance, choice) in [
        (3, &["try_first_pass", "use_first_pass"][..]),
        (4, &["forward_pass"]),
        (3, &["noskewadj"]),
        (4, &["no_increment_hotp"]),
        (5, &["nullok"]),
        (5, &["grace_period=60", "grace_period=3600", "grace_period=0", "grace_period="]),
        (8, &["echo_verification_code", "echo-verification-code"]),
        (8, &["[authtok_prompt=Code? ]"]),
        (8, &["allowed_perm=0644", "allowed_perm=0400", "allowed_perm=-1"]),
        (10, &["no_strict_owner"]),
        (
            10,
            &[
                "secret=~/.google_authenticator",
                "secret=${HOME}/.google_authenticator",
                "secret=/home/${USER}/.google_authenticator",
            ],
        ),
        (
            60,
            &[
                "nonsense",
                "allowed_perm=rw",
                "allowed_perm=0",
                "grace_period=1d",
                "grace_period=-1",
                "user=mallory",
                "secret=/nowhere",
            ],
        ),
    ] {
        if numbers.one_in(chance) {
            arguments.push(choice[numbers.next(choice.len() as u64) as usize]);
        }
    }
    arguments
}

/// The text of a secret file, its step size, and its skew.
fn file(numbers: &mut Numbers, hotp: bool) -> (String, u64, i64) {
    let mut pick = |chance: u64, choice: &[&str]| -> Option<String> {
        numbers.one_in(chance).then(|| choice[numbers.next(choice.len() as u64) as usize].to_owned())
    };
    let mut lines = Vec::new();
    let mut option = |line: Option<String>| lines.extend(line.map(|line| format!("\" {line}")));
    let step_size =
        pick(4, &["STEP_SIZE 20", "STEP_SIZE 60", "STEP_SIZE 10 x", "STEP_SIZE 5x", "STEP_SIZE 0", "STEP_SIZE 61"]);
    let step = step_size
        .as_deref()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .filter(|step| *step > 0)
        .unwrap_or(30);
    let time_skew = pick(6, &["TIME_SKEW 3", "TIME_SKEW -4", "TIME_SKEW x"]);
    let skew = time_skew.as_deref().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    option(
        pick(2, &["DISALLOW_REUSE", "DISALLOW_REUSE 1 2 3", "DISALLOW_REUSE x"])
            .filter(|line| !line.ends_with('x') || step == 20),
    );
    option(pick(
        2,
        &[
            "RATE_LIMIT 3 30",
            "RATE_LIMIT 2 60 @NOW@",
            "RATE_LIMIT 1 10",
            "RATE_LIMIT 5 600 1 2 @NOW@ 9999999999",
            "RATE_LIMIT 3 3600",
        ],
    ));
    option(pick(
        30,
        &["RATE_LIMIT 0 30", "RATE_LIMIT 3", "RATE_LIMIT 3 30 x", "RATE_LIMIT 101 30", "RATE_LIMIT 3 30 "],
    ));
    option(pick(
        2,
        &["WINDOW_SIZE 1", "WINDOW_SIZE 2", "WINDOW_SIZE 3", "WINDOW_SIZE 4", "WINDOW_SIZE 6", "WINDOW_SIZE 17"],
    ));
    option(pick(25, &["WINDOW_SIZE 0", "WINDOW_SIZE 101", "WINDOW_SIZE x", "WINDOW_SIZE"]));
    option(step_size);
    option(time_skew);
    option(pick(10, &["UNKNOWN  thing ", "DISALLOW_REUSE 5"]));
    option(pick(15, &["LAST0 192.0.2.1 1600000000", "LAST3 198.51.100.7 @NOW@"]));
    option(if hotp { Some("HOTP_COUNTER 5".to_owned()) } else { pick(30, &["HOTP_COUNTER x", "HOTP_COUNTER 0"]) });
    let is_totp = !hotp && !numbers.one_in(20);
    if is_totp {
        lines.push("\" TOTP_AUTH".to_owned());
    }
    // In any order.
    for index in (1..lines.len()).rev() {
        lines.swap(index, numbers.next(index as u64 + 1) as usize);
    }
    for code in &SCRATCH[..3] {
        if !numbers.one_in(3) {
            lines.push((*code).to_owned());
        }
        if numbers.one_in(12) {
            lines.push(["odd", "", "1234567", " 45678901", "45678901 "][numbers.next(5) as usize].to_owned());
        }
    }
    let secret = base32::encode(SECRET).expose().clone();
    let secret = match numbers.next(30) {
        0 => "not base32!".to_owned(),
        1 => secret.to_lowercase(),
        2 => format!("{}-{} {}", &secret[..4], &secret[4..8], &secret[8..]),
        _ => secret,
    };
    let end = if numbers.one_in(10) { "\r\n" } else { "\n" };
    let text: String = std::iter::once(secret).chain(lines).map(|line| line + end).collect();
    (text, step, skew)
}

fn path(user: &str) -> String {
    format!("/home/{user}/.google_authenticator")
}

fn write_file(user: &str, uid: u32, text: Option<String>, mode: u32) {
    let path = path(user);
    let _ = fs::remove_file(&path);
    if let Some(text) = text {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
    }
}

/// Each sequence begins with people who never got in: with nullok somebody who once did is not let pass without a file any
/// more, which the C module does not know. Whether a file is there does not change within a sequence.
fn never_enrolled() {
    for mark in fs::read_dir("/var/lib/pam_totp/enrolled").into_iter().flatten() {
        fs::remove_file(mark.unwrap().path()).unwrap();
    }
}

/// Blank lines and the number of blanks between two numbers mean nothing and are left out: the C module drops blank lines
/// behind a line that it changes, and leaves two blanks where it takes a number from the middle of a list.
fn read_file(user: &str) -> Option<String> {
    let text = fs::read_to_string(path(user)).ok()?;
    let lines = text.split_inclusive('\n').map(|line| match line.strip_prefix("\" ") {
        Some(option) => format!("\" {}\n", option.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => line.to_owned(),
    });
    Some(lines.filter(|line| !line.trim_end_matches(['\r', '\n']).is_empty()).collect())
}

fn without_grace(file: &Option<String>) -> Option<Vec<&str>> {
    file.as_ref().map(|file| file.lines().filter(|line| !line.starts_with("\" LAST")).collect())
}

#[derive(Clone, Debug)]
enum Answer {
    Text(String),
    Null,
    Fail,
}

#[derive(Debug, PartialEq)]
struct Login {
    result: c_int,
    prompts: Vec<(c_int, String)>,
    authtok: Option<String>,
}

struct Person<'a> {
    answers: std::slice::Iter<'a, Answer>,
    prompts: Vec<(c_int, String)>,
}

fn login(service: &str, user: &str, host: &str, answers: &[Answer]) -> Login {
    let mut person = Person { answers: answers.iter(), prompts: Vec::new() };
    let conv = Conv { function: converse, data: (&raw mut person).cast() };
    let (service, user, host) = (c(service), c(user), c(host));
    let mut pamh = null_mut();
    // SAFETY: strings, conversation and handle live until pam_end.
    unsafe {
        assert_eq!(pam_start(service.as_ptr(), user.as_ptr(), &raw const conv, &raw mut pamh), PAM_SUCCESS);
        if !host.is_empty() {
            pam_set_item(pamh, PAM_RHOST, host.as_ptr().cast());
        }
        pam_set_item(pamh, PAM_FAIL_DELAY, no_delay as *const c_void);
        let result = pam_authenticate(pamh, 0);
        let authtok = pam_getenv(pamh, c"AUTHTOK".as_ptr());
        let authtok = (!authtok.is_null()).then(|| CStr::from_ptr(authtok).to_string_lossy().into_owned());
        pam_end(pamh, result);
        Login {
            result,
            prompts: person.prompts,
            authtok: authtok.and_then(|text| text.strip_prefix('=').map(Into::into)),
        }
    }
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

extern "C" fn no_delay(_: c_int, _: c_uint, _: *mut c_void) {}

extern "C" fn converse(
    _: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: libpam hands us what login() set up, and a module's message; the response is the module's to free.
    unsafe {
        let (person, message) = (&mut *data.cast::<Person>(), &**messages);
        person.prompts.push((message.style, CStr::from_ptr(message.text).to_string_lossy().into_owned()));
        let text = match person.answers.next() {
            Some(Answer::Fail) | None => return PAM_CONV_ERR,
            Some(Answer::Null) => null_mut(),
            Some(Answer::Text(text)) => libc::strdup(c(text).as_ptr()),
        };
        let response = libc::calloc(1, size_of::<Response>()).cast::<Response>();
        (*response).text = text;
        *responses = response;
    }
    PAM_SUCCESS
}
