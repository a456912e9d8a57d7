//! What libpam calls.

use super::handle::Handle;
use super::sys;
use crate::authenticate::{Outcome, authenticate};
use crate::fact::{Escaped, Fact};
use crate::identity::identify;
use crate::options::Options;
use crate::policy::Policy;
use crate::store::home::HomeStore;
use crate::system::{clock, passwd};
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// How long the application should wait after a denial before it goes on, in microseconds. libpam takes the longest of
/// the stack and varies it by up to a half, so that the time of a denial says nothing about its reason.
const FAIL_DELAY: u32 = 2_000_000;

/// pam_sm_authenticate(3): asks for a code.
///
/// # Safety
/// To be called by libpam, with its handle and the arguments of the module's line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    pamh: *mut sys::PamHandle,
    _flags: c_int,
    argc: c_int,
    argv: *mut *const c_char,
) -> c_int {
    // SAFETY: as promised by the caller; the handle is dropped before we return.
    let Some(mut handle) = (unsafe { Handle::new(pamh) }) else { return sys::PAM_AUTH_ERR };
    // SAFETY: as promised by the caller.
    let arguments = unsafe { arguments(argc, argv) };
    guarded(&mut handle, |handle| login(handle, &arguments))
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

fn login(handle: &mut Handle, arguments: &[&[u8]]) -> c_int {
    let Attended { user, outcome, delays } = attend(handle, arguments);
    // The one place where an outcome becomes a code. Every denial is the same code, whatever its reason.
    match outcome {
        Outcome::Accepted(fact) => {
            handle.log(libc::LOG_INFO, &line("accepted", handle, &user, "factor", &fact));
            sys::PAM_SUCCESS
        }
        Outcome::NotAsked(fact) => {
            handle.log(libc::LOG_INFO, &line("not asked", handle, &user, "reason", &fact));
            sys::PAM_IGNORE
        }
        Outcome::Denied(fact) => {
            log_denial(handle, &user, &fact);
            if delays {
                handle.fail_delay(FAIL_DELAY);
            }
            sys::PAM_AUTH_ERR
        }
    }
}

/// A login that is over.
struct Attended {
    /// For the log.
    user: Vec<u8>,
    outcome: Outcome,
    /// Whether the application is asked for a delay after a denial; the C module asks for none.
    delays: bool,
}

impl From<Fact> for Attended {
    fn from(fact: Fact) -> Self {
        Self { user: Vec::new(), outcome: Outcome::Denied(fact), delays: true }
    }
}

/// Puts the parts together: arguments, policy, person, store, clock.
fn attend(handle: &mut Handle, arguments: &[&[u8]]) -> Attended {
    let options = match Options::parse(arguments.iter().copied()) {
        Ok(options) => options,
        Err(bad) => return bad.fact().into(),
    };
    let policy = match Policy::load(options.conf.as_deref()) {
        Ok(policy) => policy,
        Err(fact) => return fact.into(),
    };
    let user = match handle.user() {
        Ok(user) => user,
        Err(code) => return Fact::new("no-user").with_number("pam_get_user", code).into(),
    };
    let person = identify(&user, &options);
    let store = HomeStore {
        secret: &options.secret,
        strict_owner: options.strict_owner,
        allowed_perm: options.allowed_perm,
        allow_readonly: options.allow_readonly,
    };
    if options.debug {
        let path = person.as_ref().map_err(|error| error.fact()).and_then(|person| store.path(person));
        let fact = path.map_or_else(|fact| fact, |path| Fact::new("secret-file").with_path(&path));
        handle.log(libc::LOG_INFO, &line("debug", handle, &user, "start", &fact));
    }
    let person = person.as_ref().map_err(|&error| error);
    let outcome = authenticate(person, &options, policy.compat, handle, &store, clock::now);
    Attended { user, outcome, delays: !policy.compat.google }
}

/// The classic line, which fail2ban and log readers know from pam_unix, and one that says why.
fn log_denial(handle: &Handle, user: &[u8], fact: &Fact) {
    let (uid, euid) = passwd::process_uids();
    let item = |item| handle.text_item(item);
    handle.log(
        libc::LOG_NOTICE,
        &format!(
            "authentication failure; logname= uid={uid} euid={euid} tty={} ruser={} rhost={}  user={}",
            Escaped(&item(sys::PAM_TTY)),
            Escaped(&item(sys::PAM_RUSER)),
            Escaped(&item(sys::PAM_RHOST)),
            Escaped(user),
        ),
    );
    handle.log(libc::LOG_NOTICE, &line("denied", handle, user, "reason", fact));
}

fn line(what: &str, handle: &Handle, user: &[u8], key: &str, fact: &Fact) -> String {
    let rhost = handle.text_item(sys::PAM_RHOST);
    format!("{what} user={} rhost={} {key}={fact}", Escaped(user), Escaped(&rhost))
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

/// Turns a panic into a denial. Without this it would abort the host, and the default hook would print to its stderr and
/// read RUST_BACKTRACE from its environment. The hook is that of the standard library inside this module, nobody else's.
fn guarded(handle: &mut Handle, work: impl FnOnce(&mut Handle) -> c_int) -> c_int {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            *PANIC_PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }));
    });
    catch_unwind(AssertUnwindSafe(|| work(handle))).unwrap_or_else(|_| {
        let place = PANIC_PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fact = Fact::new("internal-error").with("at", place).or("please report this");
        // Should that panic too, what remains is the denial.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            log_denial(handle, b"", &fact);
            handle.fail_delay(FAIL_DELAY);
        }));
        sys::PAM_AUTH_ERR
    })
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
            for _ in 0..3 {
                assert_eq!(guarded(&mut handle, |_| panic!("the secret")), sys::PAM_AUTH_ERR);
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
