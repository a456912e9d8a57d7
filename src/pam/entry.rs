//! What libpam calls.

use super::handle::Handle;
use super::sys;
use crate::agent::client::{self, Ended};
use crate::agent::wire::{Knock, Verdict};
use crate::authenticate::{Application, Counter, Outcome, Visit, authenticate, first_pass};
use crate::fact::Fact;
use crate::identity::{self, Unidentified, identify};
use crate::journal::{Line, Visitor};
use crate::ledger::{Notice, Who};
use crate::options::Options;
use crate::policy::{Document, FAIL_DELAY, Identity, Policy, Via};
use crate::secret::Secret;
use crate::source::Source;
use crate::store;
use crate::system::clock;
use crate::system::passwd;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// The service whose PAM environment says which key was accepted.
const SSHD: &str = "sshd";
/// Where it says so (sshd_config(5), ExposeAuthInfo).
const AUTH_INFO: &CStr = c"SSH_AUTH_INFO_0";
/// Services at which nobody is told: sudo's open a session for somebody else than for whom they asked, and su without `-`
/// throws away what modules say (su-common.c of util-linux). The notice waits for a login where it is shown.
const SILENT: [&str; 3] = ["sudo", "sudo-i", "su"];
/// A service that asks nobody if the caller is root.
const NOT_ASKING_ROOT: &str = "su-l";

/// pam_sm_authenticate(3): asks for a code.
///
/// # Safety
/// To be called by libpam, with its handle and the arguments of the module's line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    pamh: *mut sys::PamHandle,
    flags: c_int,
    argc: c_int,
    argv: *mut *const c_char,
) -> c_int {
    // SAFETY: as promised by the caller; the handle is dropped before we return.
    let Some(mut handle) = (unsafe { Handle::new(pamh) }) else { return sys::PAM_AUTH_ERR };
    // SAFETY: as promised by the caller.
    let arguments = unsafe { arguments(argc, argv) };
    guarded(&mut handle, |handle| login(handle, flags, &arguments)).unwrap_or_else(|| denied_by_panic(&mut handle))
}

/// pam_sm_setcred(3): there are no credentials to set, and whatever the verdict was, this does not change it.
///
/// # Safety
/// To be called by libpam. Nothing is looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(
    _pamh: *mut sys::PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *mut *const c_char,
) -> c_int {
    sys::PAM_SUCCESS
}

/// pam_sm_open_session(3): tells somebody who has just got in how many codes failed since the last time. Not earlier: during
/// authentication it would tell that the code was right to somebody who then fails at the password. Never stops a session.
///
/// # Safety
/// As [`pam_sm_authenticate`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_open_session(
    pamh: *mut sys::PamHandle,
    flags: c_int,
    argc: c_int,
    argv: *mut *const c_char,
) -> c_int {
    // SAFETY: as promised by the caller; the handle is dropped before we return.
    let Some(mut handle) = (unsafe { Handle::new(pamh) }) else { return sys::PAM_SUCCESS };
    // SAFETY: as promised by the caller.
    let arguments = unsafe { arguments(argc, argv) };
    let told = guarded(&mut handle, |handle| {
        if flags & sys::PAM_SILENT == 0
            && let Some(notice) = notice(handle, &arguments)
        {
            // An application that cannot show it has nobody to show it to.
            let _ = handle.tell(&Secret::new(notice_text(&notice)));
        }
        sys::PAM_SUCCESS
    });
    if told.is_none() {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            handle.log(libc::LOG_NOTICE, &line("no notice", &handle, b"", "reason", &internal_error()));
        }));
    }
    sys::PAM_SUCCESS
}

/// pam_sm_close_session(3): nothing is left to close.
///
/// # Safety
/// To be called by libpam. Nothing is looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_close_session(
    _pamh: *mut sys::PamHandle,
    _flags: c_int,
    _argc: c_int,
    _argv: *mut *const c_char,
) -> c_int {
    sys::PAM_SUCCESS
}

fn login(handle: &mut Handle, flags: c_int, arguments: &[&[u8]]) -> c_int {
    let Attended { user, ended, fail_delay } = attend(handle, flags, arguments);
    let (verdict, fail_delay) = match ended {
        Ended::Here(outcome) => {
            log(handle, &user, |visitor| visitor.lines(&outcome));
            (Verdict::of(&outcome), fail_delay)
        }
        // The reason is in the log; what log readers know from pam_unix is this process's to say.
        Ended::Judged(verdict, fail_delay) => {
            let is_denied = verdict == Verdict::Deny;
            log(handle, &user, |visitor| is_denied.then(|| visitor.failure()).into_iter().collect());
            (verdict, fail_delay.into())
        }
    };
    // The one place where a verdict becomes a code.
    match verdict {
        Verdict::Allow => sys::PAM_SUCCESS,
        Verdict::Ignore => sys::PAM_IGNORE,
        Verdict::Unavailable => {
            delay(handle, fail_delay);
            sys::PAM_AUTHINFO_UNAVAIL
        }
        Verdict::Deny => {
            delay(handle, fail_delay);
            sys::PAM_AUTH_ERR
        }
    }
}

/// A login that is over.
struct Attended {
    /// For the log.
    user: Vec<u8>,
    ended: Ended,
    /// Seconds that the application is asked to wait after a denial.
    fail_delay: u64,
}

impl From<Fact> for Attended {
    fn from(fact: Fact) -> Self {
        Self { user: Vec::new(), ended: Ended::Here(Outcome::Denied(fact)), fail_delay: FAIL_DELAY }
    }
}

/// Puts the parts together: arguments, policy, person, store, ledger, clock.
fn attend(handle: &mut Handle, flags: c_int, arguments: &[&[u8]]) -> Attended {
    let policy = match policy(handle, arguments) {
        Ok(policy) => policy,
        Err(fact) => return fact.into(),
    };
    let user = match handle.user() {
        Ok(user) => user,
        Err(code) => return Fact::new("no-user").with_number("pam_get_user", code).into(),
    };
    let login_key = login_key(handle, &policy);
    if policy.via.value == Via::Agent {
        let ended = by_agent(handle, flags, arguments, &policy, &user, login_key);
        return Attended { user, ended, fail_delay: policy.fail_delay.value };
    }
    let person = identify(&user, &policy, &login_key, identity::caller);
    let store = store::of(&policy);
    if policy.options.debug {
        let path = person.as_ref().map_err(|error| error.fact()).and_then(|person| store.path(person));
        let fact = path.map_or_else(|fact| fact, |path| Fact::new("record").with_path(&path));
        handle.log(libc::LOG_INFO, &line("debug", handle, &user, "start", &fact));
    }
    let rhost = handle.text_item(sys::PAM_RHOST);
    let source = Source::new(&rhost, passwd::process_uids().0);
    let visit = Visit {
        person: person.as_ref().map_err(|&error| error),
        name: &user,
        host: std::str::from_utf8(&rhost).unwrap_or_default(),
        source: &source,
        login_key: &login_key,
        is_silent: flags & sys::PAM_SILENT != 0,
    };
    let (counter, remark) = Counter::of(&policy);
    let outcome = authenticate(&visit, &policy, handle, &*store, &counter, clock::now).with_remark(remark);
    Attended { user, ended: Ended::Here(outcome), fail_delay: policy.fail_delay.value }
}

/// Has the agent decide.
fn by_agent(
    handle: &mut Handle,
    flags: c_int,
    arguments: &[&[u8]],
    policy: &Policy,
    user: &[u8],
    login_key: Vec<u8>,
) -> Ended {
    let knock = match knock(handle, flags, arguments, policy, user, login_key) {
        Ok(knock) => knock,
        Err(fact) => return Ended::Here(Outcome::Denied(fact)),
    };
    let first_pass = first_pass(policy, handle);
    client::authenticate(&policy.agent_socket, knock, first_pass, handle)
}

fn knock(
    handle: &Handle,
    flags: c_int,
    arguments: &[&[u8]],
    policy: &Policy,
    user: &[u8],
    login_key: Vec<u8>,
) -> Result<Knock, Fact> {
    let caller = match policy.identity.value {
        Identity::Caller => Some(identity::caller().map_err(|error| Unidentified::Database(error).fact())?),
        Identity::PamUser | Identity::LoginKey => None,
    };
    Ok(Knock {
        service: policy.service.clone().into_bytes(),
        user: user.to_vec(),
        rhost: handle.text_item(sys::PAM_RHOST),
        login_key,
        uid: passwd::process_uids().0,
        caller,
        is_silent: flags & sys::PAM_SILENT != 0,
        arguments: arguments.iter().map(|argument| argument.to_vec()).collect(),
    })
}

fn policy(handle: &Handle, arguments: &[&[u8]]) -> Result<Policy, Fact> {
    let options = Options::parse(arguments.iter().copied()).map_err(|bad| bad.fact())?;
    let document = Document::load(options.conf.as_deref())?;
    let service = handle.text_item(sys::PAM_SERVICE);
    Ok(Policy::new(&String::from_utf8_lossy(&service), &options, &document))
}

/// What sshd says about the key that it has accepted. At other services anybody may have set that variable.
fn login_key(handle: &Handle, policy: &Policy) -> Vec<u8> {
    if policy.service == SSHD { handle.environment(AUTH_INFO) } else { Vec::new() }
}

/// What to tell the person whose session begins.
fn notice(handle: &mut Handle, arguments: &[&[u8]]) -> Option<Notice> {
    let policy = policy(handle, arguments).ok()?;
    let service = policy.service.as_str();
    let is_root = passwd::process_uids().0 == 0;
    if SILENT.contains(&service) || is_root && service == NOT_ASKING_ROOT {
        return None;
    }
    let (user, login_key) = (handle.user().ok()?, login_key(handle, &policy));
    if policy.via.value == Via::Agent {
        return client::notice(&policy.agent_socket, knock(handle, 0, arguments, &policy, &user, login_key).ok()?);
    }
    let person = identify(&user, &policy, &login_key, identity::caller).ok()?;
    let (Counter::Ledger(ledger), _) = Counter::of(&policy) else { return None };
    ledger.take_notice(Who::of(&person))
}

fn notice_text(notice: &Notice) -> String {
    let (codes, latest) = if notice.failures == 1 { ("code", "") } else { ("codes", "the latest ") };
    // A try that was killed may have left no time.
    let when = if notice.latest == 0 { String::new() } else { format!(", {latest}on {}", clock::utc(notice.latest)) };
    format!("{} {codes} failed since your last login{when}.", notice.failures)
}

fn delay(handle: &mut Handle, seconds: u64) {
    if seconds > 0 {
        handle.fail_delay(u32::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(u32::MAX));
    }
}

fn log(handle: &Handle, user: &[u8], lines: impl FnOnce(&Visitor) -> Vec<Line>) {
    let item = |item| handle.text_item(item);
    let (tty, ruser, rhost) = (item(sys::PAM_TTY), item(sys::PAM_RUSER), item(sys::PAM_RHOST));
    let visitor = Visitor { user, tty: &tty, ruser: &ruser, rhost: &rhost };
    lines(&visitor).iter().for_each(|(priority, line)| handle.log(*priority, line));
}

fn line(what: &str, handle: &Handle, user: &[u8], key: &str, fact: &Fact) -> String {
    let rhost = handle.text_item(sys::PAM_RHOST);
    Visitor { user, tty: b"", ruser: b"", rhost: &rhost }.line(what, key, fact)
}

/// # Safety
/// `argv` points to `argc` strings that outlive the call.
unsafe fn arguments<'call>(argc: c_int, argv: *mut *const c_char) -> Vec<&'call [u8]> {
    let count = usize::try_from(argc).unwrap_or(0);
    if argv.is_null() {
        return Vec::new();
    }
    // SAFETY: as promised by the caller; a NULL among them is skipped.
    unsafe {
        std::slice::from_raw_parts(argv.cast_const(), count)
            .iter()
            .filter(|argument| !argument.is_null())
            .map(|&argument| CStr::from_ptr(argument).to_bytes())
            .collect()
    }
}

/// Where the last panic happened. The message is not kept: it could quote what must not be logged.
static PANIC_PLACE: Mutex<String> = Mutex::new(String::new());

/// Runs `work`; `None` if it panicked. Without this a panic would abort the host, and the default hook would print to its
/// stderr and read RUST_BACKTRACE from its environment. The hook is that of the standard library inside this module, nobody
/// else's.
fn guarded(handle: &mut Handle, work: impl FnOnce(&mut Handle) -> c_int) -> Option<c_int> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            *PANIC_PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }));
    });
    catch_unwind(AssertUnwindSafe(|| work(handle))).ok()
}

/// A panic is a denial.
fn denied_by_panic(handle: &mut Handle) -> c_int {
    // Should that panic too, what remains is the denial.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        log(handle, b"", |visitor| visitor.lines(&Outcome::Denied(internal_error())));
        delay(handle, FAIL_DELAY);
    }));
    sys::PAM_AUTH_ERR
}

fn internal_error() -> Fact {
    let place = PANIC_PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Fact::new("internal-error").with("at", place).or("please report this")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_void;
    use std::process::Command;
    use std::ptr::{null, null_mut};

    unsafe extern "C" {
        fn pam_start(
            service: *const c_char,
            user: *const c_char,
            conversation: *const sys::PamConv,
            pamh: *mut *mut sys::PamHandle,
        ) -> c_int;
        fn pam_end(pamh: *mut sys::PamHandle, status: c_int) -> c_int;
    }

    /// In a process of its own: the hook stays, and would swallow the messages of tests that fail.
    const CHILD: &str = "PAM_TOTP_TEST_PANIC";

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_panic_is_a_denial_and_prints_nothing() {
        if std::env::var_os(CHILD).is_some() {
            let conversation = sys::PamConv { conv: None, appdata_ptr: null_mut::<c_void>() };
            let mut pamh = null_mut();
            // SAFETY: valid strings, conversation and place; the handle is ended below.
            let started =
                unsafe { pam_start(c"other".as_ptr(), c"root".as_ptr(), &raw const conversation, &raw mut pamh) };
            assert_eq!(started, 0);
            // SAFETY: just made, and alive until pam_end.
            let mut handle = unsafe { Handle::new(pamh) }.unwrap();
            let count = |name| std::fs::read_dir(format!("/proc/self/{name}")).unwrap().count();
            let maps = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
            let data = || {
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
                line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
            };
            let mut before = None;
            for number in 0..10_000 {
                assert_eq!(guarded(&mut handle, |_| panic!("the secret")), None);
                assert_eq!(denied_by_panic(&mut handle), sys::PAM_AUTH_ERR);
                // What the first ones load may stay.
                if number % 1000 == 999 {
                    let now = (count("fd"), count("task"), maps());
                    let (then, least) = *before.get_or_insert((now, data()));
                    assert_eq!(then, now, "panics have left something behind");
                    // The smallest piece of memory has 32 bytes.
                    assert!(data() < least + 9000 * 32 / 1024 / 2, "panics have left memory behind");
                }
            }
            assert!(PANIC_PLACE.lock().unwrap().contains("entry.rs:"));
            // SAFETY: as above.
            unsafe { assert_eq!(pam_end(pamh, 0), 0) };
            return;
        }
        let name = "pam::entry::tests::a_panic_is_a_denial_and_prints_nothing";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{output:?}");
        assert!(output.stderr.is_empty() && !printed.contains("the secret"), "{output:?}");
    }

    #[test]
    fn a_missing_handle_is_a_denial() {
        // SAFETY: NULL is what is tested.
        let result = unsafe { pam_sm_authenticate(null_mut(), 0, 0, null::<*const c_char>().cast_mut()) };
        assert_eq!(result, sys::PAM_AUTH_ERR);
    }
}
