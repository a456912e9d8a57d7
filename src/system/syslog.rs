//! The authentication log, for a process of our own. Inside a host libpam writes to it.

use std::ffi::{CStr, CString, c_int};

/// Writes a line, with this text in front. Where nobody listens it is lost, as it is for everybody.
pub fn write(front: &CStr, priority: c_int, line: &str) {
    // Facts are escaped, so there is no NUL to stumble over.
    let Ok(line) = CString::new(line) else { return };
    // SAFETY: no name is given, so that glibc keeps no pointer of ours; its descriptor is closed at an exec. Two strings for
    // the two `%s`.
    unsafe {
        libc::openlog(std::ptr::null(), libc::LOG_PID, libc::LOG_AUTHPRIV);
        libc::syslog(libc::LOG_AUTHPRIV | priority, c"%s: %s".as_ptr(), front.as_ptr(), line.as_ptr());
    }
}
