//! What a process of our own is, and what is kept of it.

use super::{Errno, last_error};

/// Whether the process has rights that whoever started it has not: setuid, setgid, file capabilities.
pub fn has_borrowed_rights() -> bool {
    // SAFETY: these calls take numbers or nothing, and cannot fail.
    unsafe {
        libc::getauxval(libc::AT_SECURE) != 0 || libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid()
    }
}

/// From here on there is no core dump of this process, and nobody but root looks into it. A program that it becomes by exec is
/// as any other.
///
/// # Errors
/// As prctl(2).
pub fn hide() -> Result<(), Errno> {
    let no: libc::c_ulong = 0;
    // SAFETY: takes numbers.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, no, no, no, no) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}
