//! Holds the copies that `pam-totp test-login` makes of PAM stacks against the originals, both run by libpam.
//!
//! ```text
//! stack-walk MODULE SEED COUNT
//! ```
//!
//! Stacks are made up as in stack_paths.rs, and every answer of every module that is called is tried, in the original and in
//! the copy. The same modules have to be asked in the same order, the results have to be the same code, and the reports have
//! to name the rules that were called and what they answered. Prints each stack where that is not so. Runs on a machine of
//! its own.

#![allow(unsafe_code, clippy::disallowed_methods)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::{env, fs};

#[path = "../../src/bin/pam-totp/test_login/copy.rs"]
#[allow(dead_code)]
mod copy;
#[path = "libpam.rs"]
mod libpam;
#[path = "made_stacks.rs"]
mod made_stacks;
#[path = "numbers.rs"]
mod numbers;
#[path = "../../src/bin/pam-totp/pam_config/mod.rs"]
#[allow(dead_code)]
mod pam_config;
#[path = "../../src/bin/pam-totp/test_login/reports.rs"]
#[allow(dead_code)]
mod reports;
#[path = "../../src/bin/pam-totp/root.rs"]
#[allow(dead_code)]
mod root;

use copy::{Copy, NotCopied, copy};
use libpam::*;
use made_stacks::{Made, OTHERS, OURS, UNNAMED, reply};
use numbers::Numbers;
use pam_config::control::Answer;
use pam_config::{Call, Stack, Type};
use reports::{Reports, Said};
use root::Root;

const DIRECTORY: &str = "/run/copy";
const COPY: &CStr = c"/run/copy";
const NONCE: &str = "0123456789abcdef";
/// Combinations of answers that are tried of one stack, at most.
const LOGINS: u64 = 200;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, seed, count] = arguments.try_into().expect("MODULE SEED COUNT");
    for copy in [OURS, OTHERS] {
        fs::copy(&module, copy).unwrap();
    }
    let (seed, count): (u64, u64) = (seed.parse().unwrap(), count.parse().unwrap());
    let root = Root::open(Path::new("/")).unwrap();
    let (mut copied, mut logins, mut reported, mut differences, mut substacks, mut successes) = (0, 0, 0, 0, 0, 0);
    let mut seed = seed;
    while copied < count {
        let made = lengthened(Made::up(seed), seed);
        made.write();
        let stack = Stack::read(&root, "made", Type::Auth);
        match copy(&[(Type::Auth, &stack)], Path::new(DIRECTORY), NONCE) {
            Err(NotCopied::Refused | NotCopied::Chance(_)) => {}
            Err(error) => panic!("{error}"),
            Ok(copy) => {
                write(&copy);
                let walked = Walk::new(&made, &copy).all();
                (copied, logins, reported) = (copied + 1, logins + walked.logins, reported + walked.reported);
                substacks += u64::from(copy.files.keys().any(|name| name.ends_with(".substack")));
                successes += walked.successes;
                if let Some(difference) = walked.difference {
                    differences += 1;
                    println!("seed {seed}: {difference}");
                    made.files.iter().for_each(|(name, text)| println!("--- {name}\n{text}"));
                }
            }
        }
        seed += 1;
    }
    println!(
        "{{\"stacks\": {copied}, \"logins\": {logins}, \"reports\": {reported}, \"with substacks\": {substacks}, \
         \"successes\": {successes}, \"differences\": {differences}}}"
    );
    std::process::exit(i32::from(differences > 0));
}

/// Now and then with arguments that leave no room for all answers.
fn lengthened(mut made: Made, seed: u64) -> Made {
    if Numbers(seed).one_in(8) {
        for text in made.files.values_mut() {
            *text = text.replace(" pam_permit.so\n", &format!(" pam_permit.so {}\n", "x".repeat(700)));
        }
    }
    made
}

fn write(copy: &Copy) {
    let _ = fs::remove_dir_all(DIRECTORY);
    fs::create_dir(DIRECTORY).unwrap();
    for (name, text) in &copy.files {
        fs::write(Path::new(DIRECTORY).join(name), text).unwrap();
    }
}

/// Somebody who gives each combination of answers to the original and to the copy.
struct Walk<'a> {
    made: &'a Made,
    copy: &'a Copy,
    /// For each call so far: whose it is, and which of its answers.
    choices: Vec<(String, usize)>,
    logins: u64,
    reported: usize,
    successes: u64,
    difference: Option<String>,
}

/// Who was asked, and answered what.
type Calls = Vec<(String, c_int)>;

/// One login.
struct Person<'a> {
    made: &'a Made,
    choices: &'a mut Vec<(String, usize)>,
    calls: Calls,
    reports: Reports,
    /// What was shown that is no report.
    shown: Vec<String>,
}

impl<'a> Walk<'a> {
    const fn new(made: &'a Made, copy: &'a Copy) -> Self {
        Self { made, copy, choices: Vec::new(), logins: 0, reported: 0, successes: 0, difference: None }
    }

    fn all(mut self) -> Self {
        let applications = [None, Some(COPY)].map(Application::start);
        loop {
            self.logins += 1;
            self.difference = self.compare(&applications);
            if self.difference.is_some() || self.logins >= LOGINS || !self.turn() {
                return self;
            }
        }
    }

    fn compare(&mut self, [original, copied]: &[Application; 2]) -> Option<String> {
        let (original, calls, _, _) = self.login(original);
        self.choices.truncate(calls.len());
        let (copied, calls_of_copy, reports, shown) = self.login(copied);
        self.successes += u64::from(original == PAM_SUCCESS);
        self.reported += reports.len();
        if (original, &calls) != (copied, &calls_of_copy) {
            return Some(format!("{original} {calls:?}, the copy {copied} {calls_of_copy:?}"));
        }
        if !shown.is_empty() {
            return Some(format!("left over: {shown:?}"));
        }
        let told = self.told(&reports);
        (told != calls).then(|| format!("{calls:?}, the reports {told:?}"))
    }

    /// What the reports say of the modules that answer what they are told; the others have to answer what they always do.
    fn told(&self, reports: &[reports::Report]) -> Calls {
        let mut told = Vec::new();
        for report in reports {
            let copied = &self.copy.rules[report.number];
            let code = match report.said {
                Said::Answer(answer) => Answer::all().position(|known| known == answer).unwrap() as c_int,
                Said::NoAnswer => NO_CODE,
                Said::Nothing => {
                    assert!(!copied.is_watched, "a rule that is watched has said nothing");
                    continue;
                }
            };
            let argument = copied.rule.arguments.first().map(|word| String::from_utf8_lossy(word).into_owned());
            let module = copied.rule.module_name();
            match argument.filter(|argument| self.made.answers.contains_key(argument)) {
                Some(argument) => {
                    assert!(report.has_asked, "{argument} has asked");
                    told.push((argument, code));
                }
                None => {
                    let expected = match (copied.rule.call, module) {
                        (Call::Nobody, _) => 6,
                        (_, b"pam_permit.so") => 0,
                        (_, b"pam_deny.so") => 7,
                        other => panic!("{other:?}"),
                    };
                    assert!(code == expected && !report.has_asked, "{:?}: {code}", copied.rule);
                }
            }
        }
        told
    }

    /// The next combination; false after the last one.
    fn turn(&mut self) -> bool {
        while let Some((module, answer)) = self.choices.pop() {
            if answer + 1 < self.made.answers[&module].len() {
                self.choices.push((module, answer + 1));
                return true;
            }
        }
        false
    }

    /// libpam's code, who was asked, the reports, and what else was shown.
    fn login(&mut self, application: &Application) -> (c_int, Calls, Vec<reports::Report>, Vec<String>) {
        let mut person = Person {
            made: self.made,
            choices: &mut self.choices,
            calls: Vec::new(),
            reports: Reports::new(NONCE),
            shown: Vec::new(),
        };
        // SAFETY: the place that the conversation looks at, and a person who is there for as long as libpam may look.
        let result = unsafe {
            *application.front = (&raw mut person).cast();
            pam_authenticate(application.pamh, 0)
        };
        person.reports.finish();
        (result, person.calls, person.reports.done, person.shown)
    }
}

/// A handle of libpam's for one login after the other: reading the copy takes longer than running it.
struct Application {
    pamh: *mut c_void,
    /// Where the conversation finds the [`Person`].
    front: *mut *mut c_void,
}

impl Application {
    fn start(directory: Option<&CStr>) -> Self {
        let front: *mut *mut c_void = Box::into_raw(Box::new(null_mut()));
        let conv = Conv { function: converse, data: front.cast() };
        let mut pamh = null_mut();
        // SAFETY: strings and places that live across the calls; the conversation's data until pam_end.
        unsafe {
            let (service, user) = (c"made".as_ptr(), c"root".as_ptr());
            let started = match directory {
                Some(directory) => pam_start_confdir(service, user, &raw const conv, directory.as_ptr(), &raw mut pamh),
                None => pam_start(service, user, &raw const conv, &raw mut pamh),
            };
            assert_eq!(started, PAM_SUCCESS);
            assert_eq!(pam_set_item(pamh, PAM_FAIL_DELAY, fail_delay as *const c_void), PAM_SUCCESS);
        }
        Self { pamh, front }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // SAFETY: the last use; the place is from Box::into_raw.
        unsafe {
            pam_end(self.pamh, PAM_SUCCESS);
            drop(Box::from_raw(self.front));
        }
    }
}

/// What pam_answers.rs returns now and then that is no code, for whoever has no answer left.
const NO_CODE: c_int = 99;

extern "C" fn converse(
    _: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: what login() set up, and a module's message.
    let (person, message, text) =
        unsafe { (&mut **data.cast::<*mut Person>(), &**messages, CStr::from_ptr((**messages).text)) };
    if message.style != PAM_PROMPT_ECHO_ON {
        if !person.reports.hear(text.to_bytes()) {
            person.shown.push(text.to_string_lossy().into_owned());
        }
        return PAM_SUCCESS;
    }
    person.reports.asked();
    let module = text.to_str().unwrap().to_owned();
    let index = person.calls.len();
    if index == person.choices.len() {
        person.choices.push((module.clone(), 0));
    }
    let answers = &person.made.answers[&module];
    // A copy that goes another way is told by its calls.
    let answer = person.choices.get(index).filter(|(known, _)| *known == module).map(|(_, answer)| answers[*answer]);
    let answer = answer.unwrap_or(UNNAMED);
    // An answer that is none, in the place of one that nobody names, at every third rule.
    let answer = if answer == UNNAMED && module.ends_with(['0', '3', '6']) { NO_CODE } else { answer };
    person.calls.push((module, answer));
    reply(responses, answer);
    PAM_SUCCESS
}

/// Nobody waits.
extern "C" fn fail_delay(_: c_int, _: c_uint, _: *mut c_void) {}
