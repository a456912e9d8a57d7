//! Holds what `pam-totp` knows of the paths through PAM stacks against libpam, which walks all of them.
//!
//! ```text
//! stack-paths MODULE SEED COUNT
//! ```
//!
//! For each seed from SEED on a stack is made up and written to /etc/pam.d; its modules are copies of MODULE (pam_answers.rs)
//! in /run. Every answer of every module that is called is tried. Prints each stack about which the two do not agree, and how
//! many there were of which kind; those with which libpam does what is in its memory by chance count for nothing. Runs on a
//! machine of its own.

#![allow(unsafe_code, clippy::disallowed_methods)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::{env, fs};

#[path = "libpam.rs"]
mod libpam;
#[path = "made_stacks.rs"]
mod made_stacks;
#[path = "numbers.rs"]
mod numbers;
#[path = "../../src/bin/pam-totp/pam_config/mod.rs"]
#[allow(dead_code)]
mod pam_config;
#[path = "../../src/bin/pam-totp/doctor/paths.rs"]
#[allow(dead_code)]
mod paths;
#[path = "../../src/bin/pam-totp/root.rs"]
#[allow(dead_code)]
mod root;

use libpam::*;
use made_stacks::{Made, OTHERS, OURS, UNNAMED, reply};
use pam_config::{Call, Stack, Type};
use paths::{Kind, judge};
use root::Root;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, seed, count] = arguments.try_into().expect("MODULE SEED COUNT");
    for copy in [OURS, OTHERS] {
        fs::copy(&module, copy).unwrap();
    }
    let seed: u64 = seed.parse().unwrap();
    let count: u64 = count.parse().unwrap();
    let root = Root::open(Path::new("/")).unwrap();
    let mut seen = BTreeMap::new();
    let (mut logins, mut differences) = (0, 0);
    for seed in seed..seed + count {
        let made = Made::up(seed);
        made.write();
        let (mut walked, tried) = walk(&made);
        logins += tried;
        let stack = Stack::read(&root, "made", Type::Auth);
        if stack.rules().iter().any(|rule| rule.call == Call::Chance) {
            *seen.entry("by chance".to_owned()).or_insert(0) += 1;
            continue;
        }
        let findings = judge(&stack);
        let mut judged: BTreeSet<String> = findings.iter().map(|finding| format!("{:?}", finding.kind)).collect();
        let witnessed = findings.iter().all(|finding| is_true(&made, finding));
        if walked.is_empty() {
            walked.insert(format!("{:?}", Kind::NobodyGetsIn));
        }
        walked.remove(RIGHT);
        for kinds in [&mut walked, &mut judged] {
            if kinds.is_empty() {
                kinds.insert("only with a code".to_owned());
            }
        }
        if walked != judged || !witnessed {
            differences += 1;
            println!("seed {seed}: libpam {walked:?}, we {judged:?}, paths right: {witnessed}");
            made.files.iter().for_each(|(name, text)| println!("--- {name}\n{text}"));
        }
        for kind in walked {
            *seen.entry(kind).or_insert(0) += 1;
        }
    }
    println!("{count} stacks, {logins} logins, {differences} differences: {seen:?}");
    std::process::exit(i32::from(differences > 0));
}

/// A way in with a right code.
const RIGHT: &str = "Right";

/// The answers of one login, and where to go on for the next one.
struct Person<'a> {
    made: &'a Made,
    /// For each call so far: whose it is, and which of its answers.
    calls: Vec<(String, usize)>,
    asked: usize,
}

impl Person<'_> {
    /// The answer to the next call: as chosen before, or the first.
    fn answer(&mut self, module: &str) -> c_int {
        if self.asked == self.calls.len() {
            self.calls.push((module.to_owned(), 0));
        }
        let (known, answer) = &self.calls[self.asked];
        assert_eq!(known, module, "libpam does not do the same again");
        self.asked += 1;
        self.made.answers[module][*answer]
    }

    /// The next combination; false after the last one.
    fn turn(&mut self) -> bool {
        self.calls.truncate(self.asked);
        self.asked = 0;
        while let Some((module, answer)) = self.calls.pop() {
            if answer + 1 < self.made.answers[&module].len() {
                self.calls.push((module, answer + 1));
                return true;
            }
        }
        false
    }
}

/// All logins: the kinds of those that get in.
fn walk(made: &Made) -> (BTreeSet<String>, u64) {
    let mut kinds = BTreeSet::new();
    let mut person = Person { made, calls: Vec::new(), asked: 0 };
    let conv = Conv { function: converse, data: (&raw mut person).cast() };
    let mut pamh = null_mut();
    let mut tried = 0;
    // SAFETY: strings, conversation and handle live until pam_end.
    unsafe {
        if pam_start(c"made".as_ptr(), c"root".as_ptr(), &raw const conv, &raw mut pamh) != PAM_SUCCESS {
            return (kinds, tried);
        }
        assert_eq!(pam_set_item(pamh, PAM_FAIL_DELAY, fail_delay as *const c_void), PAM_SUCCESS);
    }
    loop {
        tried += 1;
        // SAFETY: as above.
        let result = unsafe { pam_authenticate(pamh, 0) };
        if result == PAM_SUCCESS {
            kinds.insert(kind(&person));
        }
        if !person.turn() {
            break;
        }
    }
    // SAFETY: the last use.
    unsafe { pam_end(pamh, PAM_SUCCESS) };
    (kinds, tried)
}

/// What [`Kind`] a login was.
fn kind(person: &Person) -> String {
    let calls = person.calls.iter().take(person.asked).filter(|(module, _)| module.starts_with("ours"));
    let said: BTreeSet<c_int> = calls.map(|(module, answer)| person.made.answers[module][*answer]).collect();
    if said.contains(&0) {
        return RIGHT.to_owned();
    }
    let weights = [
        (7, Kind::DenialIgnored),
        (9, Kind::OutageIgnored),
        (10, Kind::UnknownUserIgnored),
        (28, Kind::MissingModuleIgnored),
        (25, Kind::NotAsked),
    ];
    let kind = weights.iter().find(|(code, _)| said.contains(code)).map_or(Kind::Skipped, |(_, kind)| *kind);
    format!("{kind:?}")
}

/// Does libpam let in whoever goes the path of a finding?
fn is_true(made: &Made, finding: &paths::Finding) -> bool {
    if finding.kind == Kind::NobodyGetsIn {
        return finding.path.is_empty();
    }
    let mut calls: Vec<(String, String)> = Vec::new();
    for step in &finding.path {
        let argument = step.rule.arguments.first().map(|word| String::from_utf8_lossy(word).into_owned());
        if let Some(argument) = argument.filter(|argument| made.answers.contains_key(argument)) {
            calls.push((argument, step.answer.name().to_owned()));
        }
    }
    let mut replay = Replay { calls, asked: 0, is_other: false };
    let conv = Conv { function: repeat, data: (&raw mut replay).cast() };
    let mut pamh = null_mut();
    // SAFETY: strings, conversation and handle live until pam_end.
    let result = unsafe {
        if pam_start(c"made".as_ptr(), c"root".as_ptr(), &raw const conv, &raw mut pamh) != PAM_SUCCESS {
            return false;
        }
        assert_eq!(pam_set_item(pamh, PAM_FAIL_DELAY, fail_delay as *const c_void), PAM_SUCCESS);
        let result = pam_authenticate(pamh, 0);
        pam_end(pamh, result);
        result
    };
    result == PAM_SUCCESS && !replay.is_other && replay.asked == replay.calls.len()
}

/// A login along a path.
struct Replay {
    /// Who is called, and answers what.
    calls: Vec<(String, String)>,
    asked: usize,
    /// Somebody else was called.
    is_other: bool,
}

extern "C" fn repeat(
    _: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: what is_true() set up, and a module's message.
    let (replay, module) = unsafe { (&mut *data.cast::<Replay>(), CStr::from_ptr((**messages).text)) };
    let call = replay.calls.get(replay.asked).filter(|(name, _)| name.as_bytes() == module.to_bytes());
    replay.is_other |= call.is_none();
    let code = call.and_then(|(_, name)| {
        pam_config::control::Answer::all()
            .position(|answer| answer.name() == name)
            .and_then(|code| c_int::try_from(code).ok())
    });
    replay.asked += 1;
    reply(responses, code.unwrap_or(UNNAMED));
    PAM_SUCCESS
}

extern "C" fn converse(
    _: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: what walk() set up, and a module's message.
    let (person, module) = unsafe { (&mut *data.cast::<Person>(), CStr::from_ptr((**messages).text)) };
    reply(responses, person.answer(module.to_str().unwrap()));
    PAM_SUCCESS
}

/// Nobody waits.
extern "C" fn fail_delay(_: c_int, _: c_uint, _: *mut c_void) {}
