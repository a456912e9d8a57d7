//! A PAM application whose person is a script: what sshd or su would be, for the tests.
//!
//! ```text
//! pam-client [--confdir DIR] SERVICE USER
//!            [--answer TEXT | --answer-turned HEX | --answer-file FILE | --answer-shown | --null-text | --null-response | --fail]...
//!            [--time] [--rhost HOST | --rhosts FIRST:N] [--ruser USER] [--tty TTY] [--env NAME=VALUE] [--setcred | --setcred-alone]
//!            [--account | --account-alone] [--open-session [--silent]] [--then-user USER] [--search HEX]...
//!            [--repeat N | --each [--settled N]] [--parallel N]
//! ```
//!
//! Each answer is given to one prompt; that of `--answer-shown` is the code of the secret that was shown last. Prints a line `prompt STYLE TEXT` for each prompt, `told STYLE TEXT` for what is only
//! said, and `result CODE` for each login; with `--time` `nanoseconds N` from pam_start to pam_end instead of what was asked,
//! `cpu N` for how many of them this process was running, and `kilobytes N` for how much larger it has become meanwhile.
//! `--env` puts something into the PAM environment. A session is opened if the login succeeded. With `--parallel` that many
//! processes log in at once: all of them reach their last prompt before the first is answered there, and the answers are dealt out
//! among them; where one of them is `--answer-shown`, each gives all. With `--repeat` the logins happen one after the other on
//! handles of their own, and the program fails if one of them leaves anything behind in this process. With `--each` there is a
//! login for each answer, one after the other, and nothing is printed but the results; with `--settled` the program fails if
//! anything is left behind by those after the first N. With `--rhosts` they happen one after the other on one handle, from N IPv4
//! addresses, and there is a line `results CODE COUNT` for each result. With `--then-user` the name is changed on the same
//! handle after the first login, and there is a second one. With `--search` the program looks into its own memory
//! when the login is over, and prints `found HEX N` for how often these bytes are there. They are given in hexadecimal and with
//! all bits turned over, as the answer of `--answer-turned` is, so that none of what is found is the program's own.

#![allow(unsafe_code, clippy::disallowed_methods)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::ffi::{CString, OsString, c_char, c_int, c_uint, c_void};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::ptr::{null, null_mut};
use std::{env, fs, process};

#[path = "libpam.rs"]
mod libpam;

use libpam::*;
use pam_totp::otp::{Algorithm, Digits, Generator, base32};

/// What the person does at one prompt.
#[derive(Clone)]
enum Answer {
    Text(CString),
    /// With all bits turned over.
    Turned(Vec<u8>),
    /// The code of the secret that was shown last.
    Shown,
    NullText,
    NullResponse,
    Fail,
}

struct Script {
    confdir: Option<CString>,
    service: CString,
    user: CString,
    answers: Vec<Answer>,
    items: Vec<(c_int, CString)>,
    environment: Vec<CString>,
    setcred: bool,
    open_session: bool,
    silent: bool,
    authenticate: bool,
    account: bool,
    then_user: Option<CString>,
    /// With all bits turned over.
    search: Vec<Vec<u8>>,
    repeat: usize,
    each: bool,
    settled: Option<usize>,
    parallel: usize,
    timed: bool,
    /// The first address, and how many there are.
    rhosts: Option<(Ipv4Addr, u32)>,
}

/// One login's person.
struct Person {
    answers: Vec<Answer>,
    /// Where to say that the last prompt is reached, and where to wait for the start.
    gate: Option<(c_int, c_int)>,
    quiet: bool,
    /// The secret that was shown last.
    shown: Option<String>,
}

impl Person {
    fn new(answers: Vec<Answer>, quiet: bool) -> Self {
        Self { answers, gate: None, quiet, shown: None }
    }
}

fn main() {
    let script = Script::from_arguments();
    if script.parallel > 0 {
        race(&script);
    } else if let Some((first, count)) = script.rhosts {
        from_everywhere(&script, first, count);
    } else if script.each {
        let mut before = None;
        for (number, answer) in script.answers.iter().enumerate() {
            if script.settled == Some(number) {
                before = Some((footprint(), anonymous_memory()));
            }
            println!("result {}", login(&script, Person::new(vec![answer.clone()], true)));
        }
        if let Some((before, memory)) = before {
            leaves_nothing(&before, memory);
        }
    } else if script.repeat > 1 {
        let quiet = || Person::new(script.answers.clone(), true);
        // What the first login loads may stay: libraries, name services.
        let first = login(&script, quiet());
        let (before, mut memory) = (footprint(), anonymous_memory());
        for number in 1..script.repeat {
            assert_eq!(login(&script, quiet()), first, "the logins did not end alike");
            // By then malloc has what it needs at hand.
            if number == script.repeat / 10 {
                memory = anonymous_memory();
            }
        }
        leaves_nothing(&before, memory);
        println!("result {first}");
    } else if script.timed {
        let person = Person::new(script.answers.clone(), true);
        let (size, start, cpu) = (kilobytes("VmRSS:"), std::time::Instant::now(), cpu_time());
        let result = login(&script, person);
        let (taken, cpu, largest) = (start.elapsed(), cpu_time() - cpu, kilobytes("VmHWM:"));
        println!("nanoseconds {}\ncpu {cpu}\nkilobytes {}\nresult {result}", taken.as_nanos(), largest - size);
    } else {
        let before = footprint().without_memory();
        let result = login(&script, Person::new(script.answers.clone(), false));
        println!("result {result}");
        assert_eq!(footprint().without_memory(), before, "the login left something behind");
    }
}

/// What /proc says about the memory of this process.
fn kilobytes(key: &str) -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// Nanoseconds that this process has been running.
fn cpu_time() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

impl Script {
    fn from_arguments() -> Self {
        let mut arguments = env::args_os().skip(1);
        let mut positional = Vec::new();
        let mut script = Self {
            confdir: None,
            service: CString::default(),
            user: CString::default(),
            answers: Vec::new(),
            items: Vec::new(),
            environment: Vec::new(),
            setcred: false,
            open_session: false,
            silent: false,
            authenticate: true,
            account: false,
            then_user: None,
            search: Vec::new(),
            repeat: 1,
            each: false,
            settled: None,
            parallel: 0,
            timed: false,
            rhosts: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || c_string(arguments.next().expect("a value"));
            match argument.to_str() {
                Some("--confdir") => script.confdir = Some(value()),
                Some("--answer") => script.answers.push(Answer::Text(value())),
                Some("--answer-turned") => script.answers.push(Answer::Turned(bytes(value().to_str().unwrap()))),
                Some("--answer-file") => {
                    let file = OsString::from_vec(value().into_bytes());
                    script.answers.push(Answer::Text(CString::new(fs::read(file).unwrap()).unwrap()));
                }
                Some("--answer-shown") => script.answers.push(Answer::Shown),
                Some("--null-text") => script.answers.push(Answer::NullText),
                Some("--null-response") => script.answers.push(Answer::NullResponse),
                Some("--fail") => script.answers.push(Answer::Fail),
                Some("--rhost") => script.items.push((PAM_RHOST, value())),
                Some("--rhosts") => {
                    let value = value().into_string().unwrap();
                    let (first, count) = value.split_once(':').expect("FIRST:N");
                    script.rhosts = Some((first.parse().unwrap(), count.parse().unwrap()));
                }
                Some("--ruser") => script.items.push((PAM_RUSER, value())),
                Some("--tty") => script.items.push((PAM_TTY, value())),
                Some("--time") => script.timed = true,
                Some("--env") => script.environment.push(value()),
                Some("--open-session") => script.open_session = true,
                Some("--silent") => script.silent = true,
                Some("--setcred") => script.setcred = true,
                Some("--setcred-alone") => (script.setcred, script.authenticate) = (true, false),
                Some("--account") => script.account = true,
                Some("--account-alone") => (script.account, script.authenticate) = (true, false),
                Some("--then-user") => script.then_user = Some(value()),
                Some("--search") => script.search.push(bytes(value().to_str().unwrap())),
                Some("--repeat") => script.repeat = value().to_str().unwrap().parse().unwrap(),
                Some("--each") => script.each = true,
                Some("--settled") => script.settled = Some(value().to_str().unwrap().parse().unwrap()),
                Some("--parallel") => script.parallel = value().to_str().unwrap().parse().unwrap(),
                _ => positional.push(c_string(argument)),
            }
        }
        let [service, user] = positional.try_into().expect("SERVICE USER");
        Self { service, user, ..script }
    }
}

fn c_string(text: OsString) -> CString {
    CString::new(text.into_vec()).unwrap()
}

fn login(script: &Script, person: Person) -> c_int {
    let mut person = person;
    person.answers.reverse();
    let conv = Conv { function: converse, data: (&raw mut person).cast() };
    let mut pamh = null_mut();
    // SAFETY: strings, conversation and handle live until pam_end.
    unsafe {
        let (service, user) = (script.service.as_ptr(), script.user.as_ptr());
        let started = match &script.confdir {
            Some(confdir) => pam_start_confdir(service, user, &raw const conv, confdir.as_ptr(), &raw mut pamh),
            None => pam_start(service, user, &raw const conv, &raw mut pamh),
        };
        assert_eq!(started, PAM_SUCCESS, "pam_start");
        for (item, value) in &script.items {
            assert_eq!(pam_set_item(pamh, *item, value.as_ptr().cast()), PAM_SUCCESS);
        }
        for variable in &script.environment {
            assert_eq!(pam_putenv(pamh, variable.as_ptr()), PAM_SUCCESS);
        }
        // A test has no time for the delay after a denial, but says what was asked for.
        assert_eq!(pam_set_item(pamh, PAM_FAIL_DELAY, fail_delay as *const c_void), PAM_SUCCESS);
        mark();
        let mut result = if script.authenticate { pam_authenticate(pamh, 0) } else { PAM_SUCCESS };
        mark();
        if let Some(user) = &script.then_user {
            println!("result {result}");
            assert_eq!(pam_set_item(pamh, PAM_USER, user.as_ptr().cast()), PAM_SUCCESS);
            result = pam_authenticate(pamh, 0);
        }
        script.search.iter().for_each(|needle| look_for(needle));
        if script.account {
            println!("account {}", pam_acct_mgmt(pamh, 0));
        }
        if script.setcred {
            println!("setcred {}", pam_setcred(pamh, PAM_ESTABLISH_CRED));
        }
        if script.open_session && result == PAM_SUCCESS {
            println!("opening the session");
            println!("session {}", pam_open_session(pamh, if script.silent { PAM_SILENT } else { 0 }));
        }
        assert_eq!(pam_end(pamh, result), PAM_SUCCESS);
        result
    }
}

/// A call that nothing else makes: what strace sees between two of them is the login's.
fn mark() {
    // SAFETY: only asks.
    unsafe { libc::getsid(0) };
}

extern "C" fn fail_delay(result: c_int, microseconds: c_uint, data: *mut c_void) {
    // SAFETY: libpam gives the conversation's data back.
    let quiet = unsafe { data.cast::<Person>().as_ref() }.is_none_or(|person| person.quiet);
    if !quiet {
        println!("delay {result} {microseconds}");
    }
}

extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    // SAFETY: libpam hands us what login() set up, and a module's message.
    let (person, message) = unsafe { (&mut *data.cast::<Person>(), &**messages) };
    assert_eq!(count, 1);
    // SAFETY: a string of the module's.
    let text = unsafe { std::ffi::CStr::from_ptr(message.text) };
    let text = text.to_string_lossy();
    if let Some((_, rest)) = text.split_once("secret=") {
        person.shown = rest.split('&').next().map(str::to_owned);
    }
    let is_question = [PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON].contains(&message.style);
    if !person.quiet {
        println!("{} {} {:?}", if is_question { "prompt" } else { "told" }, message.style, text);
    }
    if !is_question {
        // SAFETY: the module's place for an answer, which there is none of.
        unsafe { *responses = null_mut() };
        return PAM_SUCCESS;
    }
    let code = matches!(person.answers.last(), Some(Answer::Shown))
        .then(|| code_now(person.shown.as_deref().expect("a secret")));
    if let Some((arrived, start)) = person.gate.filter(|_| person.answers.len() == 1) {
        // SAFETY: open pipes, one byte each.
        unsafe {
            assert_eq!(libc::write(arrived, c".".as_ptr().cast(), 1), 1);
            libc::read(start, [0_u8].as_mut_ptr().cast(), 1);
        }
    }
    let Some(answer) = person.answers.pop() else { panic!("asked once more than there are answers") };
    let text = match answer {
        Answer::Fail => return PAM_CONV_ERR,
        Answer::NullResponse => {
            // SAFETY: the module's place for the answer.
            unsafe { *responses = null_mut() };
            return PAM_SUCCESS;
        }
        Answer::NullText => null_mut(),
        // SAFETY: duplicated with malloc, as the module will free it.
        Answer::Text(text) => unsafe { libc::strdup(text.as_ptr()) },
        Answer::Turned(text) => turned_back(&text),
        // SAFETY: as above.
        Answer::Shown => unsafe { libc::strdup(code.unwrap().as_ptr()) },
    };
    // SAFETY: a new response for the module to free.
    unsafe {
        let response = libc::calloc(1, size_of::<Response>()).cast::<Response>();
        (*response).text = text;
        *responses = response;
    }
    PAM_SUCCESS
}

/// The code of a secret in base32.
fn code_now(secret: &str) -> CString {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let generator = Generator::new(&base32::decode(secret.as_bytes()).unwrap(), Algorithm::Sha1, Digits::SIX);
    c_string(generator.code(time / 30).expose().clone().into())
}

/// The bytes of a number in hexadecimal.
fn bytes(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// For the module to free. There is no other copy.
fn turned_back(text: &[u8]) -> *mut c_char {
    // SAFETY: as many bytes as are written, and a NUL.
    unsafe {
        let copy = libc::calloc(text.len() + 1, 1).cast::<u8>();
        (0..text.len()).for_each(|at| copy.add(at).write(!text[at]));
        copy.cast()
    }
}

/// Prints how often these bytes are in what this process can write to.
fn look_for(turned: &[u8]) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap());
        // SAFETY: in place, as a copy would be found too; nobody else runs here, and what is mapped stays so.
        let is_at = |at: usize| unsafe {
            (0..turned.len()).all(|index| !((at + index) as *const u8).read_volatile() == turned[index])
        };
        found += (start..end.saturating_sub(turned.len())).filter(|&at| is_at(at)).count();
    }
    let hex: String = turned.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("found {hex} {found}");
}

/// Brings `parallel` processes to their prompts, then lets all of them answer at once.
fn race(script: &Script) {
    let (arrived, start) = (pipe(), pipe());
    let children: Vec<_> = (0..script.parallel)
        .map(|runner| {
            // SAFETY: this process has one thread.
            match unsafe { libc::fork() } {
                0 => {
                    // SAFETY: our copy of the end that the parent closes.
                    unsafe { libc::close(start.1) };
                    let answers = if script.answers.iter().any(|answer| matches!(answer, Answer::Shown)) {
                        script.answers.clone()
                    } else {
                        vec![script.answers[runner % script.answers.len()].clone()]
                    };
                    let gate = Some((arrived.1, start.0));
                    let result = login(script, Person { gate, ..Person::new(answers, true) });
                    // Whoever was denied before the prompt is waited for no longer; of all others nobody reads this.
                    // SAFETY: an open pipe, one byte.
                    unsafe { libc::write(arrived.1, c".".as_ptr().cast(), 1) };
                    process::exit(result)
                }
                child => child,
            }
        })
        .collect();
    for _ in &children {
        // SAFETY: an open pipe, one byte.
        assert_eq!(unsafe { libc::read(arrived.0, [0_u8].as_mut_ptr().cast(), 1) }, 1);
    }
    // SAFETY: at the end of file every reader wakes up.
    unsafe { libc::close(start.1) };
    for child in children {
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "a login was killed: status {status:#x}");
        println!("result {}", libc::WEXITSTATUS(status));
    }
}

/// Logs in from one address after the other, on one handle.
fn from_everywhere(script: &Script, first: Ipv4Addr, count: u32) {
    let mut results = BTreeMap::new();
    let mut person = Person::new(Vec::new(), true);
    let conv = Conv { function: converse, data: (&raw mut person).cast() };
    let mut pamh = null_mut();
    // SAFETY: strings, conversation and handle live until pam_end.
    unsafe {
        assert_eq!(
            pam_start(script.service.as_ptr(), script.user.as_ptr(), &raw const conv, &raw mut pamh),
            PAM_SUCCESS
        );
        assert_eq!(pam_set_item(pamh, PAM_FAIL_DELAY, fail_delay as *const c_void), PAM_SUCCESS);
        for number in 0..count {
            let rhost = CString::new(Ipv4Addr::from(u32::from(first) + number).to_string()).unwrap();
            assert_eq!(pam_set_item(pamh, PAM_RHOST, rhost.as_ptr().cast()), PAM_SUCCESS);
            (*conv.data.cast::<Person>()).answers.clone_from(&script.answers);
            *results.entry(pam_authenticate(pamh, 0)).or_insert(0) += 1;
        }
        assert_eq!(pam_end(pamh, PAM_SUCCESS), PAM_SUCCESS);
    }
    for (result, count) in results {
        println!("results {result} {count}");
    }
}

fn pipe() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    (ends[0], ends[1])
}

/// The state of this process that is not a module's to change.
#[derive(Debug, PartialEq)]
struct Footprint {
    descriptors: Vec<(String, String)>,
    mappings: usize,
    environment: Vec<(OsString, OsString)>,
    status: Vec<String>,
    directory: String,
    handlers: Vec<usize>,
}

impl Footprint {
    /// The first login maps the module itself.
    fn without_memory(self) -> Self {
        Self { mappings: 0, ..self }
    }
}

fn footprint() -> Footprint {
    let link = |path: &str| fs::read_link(path).map(|target| target.display().to_string()).unwrap_or_default();
    let mut descriptors: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| (link(&format!("/proc/self/fd/{name}")), name))
        .filter(|(target, _)| !target.ends_with("/fd") && !target.starts_with("socket:"))
        .collect();
    descriptors.sort();
    // Ids, groups, umask, threads, and the masks of blocked, ignored and caught signals.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let keys = ["Uid", "Gid", "Groups", "Umask", "Threads", "SigBlk", "SigIgn", "SigCgt", "CapEff", "SigPnd", "ShdPnd"];
    Footprint {
        descriptors,
        mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        environment: env::vars_os().collect(),
        status: status.lines().filter(|line| keys.contains(&line.split(':').next().unwrap())).map(Into::into).collect(),
        directory: link("/proc/self/cwd"),
        handlers: (1..=31).map(handler).collect(),
    }
}

/// Fails where this process is not as it was, or has grown.
fn leaves_nothing(before: &Footprint, memory: i64) {
    assert_eq!(footprint(), *before, "a login left something behind");
    let grown = anonymous_memory() - memory;
    assert!(grown <= SLACK, "logins left {grown} kB behind");
}

/// What malloc may come to keep at hand, in kB: thousands of logins that leave anything at all leave more.
const SLACK: i64 = 64;

/// How much of its own memory this process has touched, in kB.
fn anonymous_memory() -> i64 {
    kilobytes("RssAnon:")
}

fn handler(signal: c_int) -> usize {
    // SAFETY: only asks.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, null(), &raw mut action);
        action.sa_sigaction
    }
}
