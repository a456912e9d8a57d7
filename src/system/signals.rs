//! Writing past RLIMIT_FSIZE raises SIGXFSZ, which by default kills the process: a user who lowers the limit and calls
//! su must not be able to kill it in the middle of a login.

use std::mem::MaybeUninit;

/// Runs `work` with SIGXFSZ blocked for this thread, and takes away the signal that `work` raised. The host's own
/// handler, mask and pending signals are as before.
pub(crate) fn without_sigxfsz<T>(work: impl FnOnce() -> T) -> T {
    let blocked = Blocked::new();
    let result = work();
    drop(blocked);
    result
}

struct Blocked {
    /// The mask before, if it could be read and changed.
    before: Option<libc::sigset_t>,
    /// A signal that was already waiting is the host's.
    was_pending: bool,
}

impl Blocked {
    fn new() -> Self {
        let was_pending = is_pending();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are valid for the call, which fills `before` when it returns 0.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const *sigxfsz(), before.as_mut_ptr()) };
        // SAFETY: filled, as just said.
        let before = (result == 0).then(|| unsafe { before.assume_init() });
        Self { before, was_pending }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        if !self.was_pending && is_pending() {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: valid set and time, no information asked for; a zero time does not wait.
            unsafe { libc::sigtimedwait(&raw const *sigxfsz(), std::ptr::null_mut(), &raw const now) };
        }
        // SAFETY: `before` was filled by pthread_sigmask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
    }
}

fn sigxfsz() -> Box<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set that sigaddset then changes; the signal number is valid.
    Box::new(unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGXFSZ);
        set.assume_init()
    })
}

fn is_pending() -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigpending fills the set when it returns 0.
    unsafe { libc::sigpending(set.as_mut_ptr()) == 0 && libc::sigismember(set.as_ptr(), libc::SIGXFSZ) == 1 }
}
