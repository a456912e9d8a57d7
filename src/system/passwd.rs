//! The user database, by way of getpwnam_r(3): files, LDAP, sssd, whatever nsswitch.conf names.

use super::{Errno, errno};
use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// First size of the buffer that an entry is put into, and the size at which we give up.
const BUFFER: usize = 1024;
const LARGEST_BUFFER: usize = 1 << 20;

/// What we need of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name as the database has it, which may be spelled otherwise than the name that was asked for.
    pub name: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Looks a name up. `Ok(None)`: there is no such user.
///
/// # Errors
/// The database could not be asked, or its answer is over a MiB.
pub fn by_name(name: &[u8]) -> Result<Option<Account>, Errno> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: all pointers are valid for the call; `length` is the length of `buffer`.
    lookup(|entry, buffer, length, found| unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found) })
}

/// Looks a user id up. `Ok(None)`: there is no such user.
///
/// # Errors
/// As [`by_name`].
pub fn by_uid(uid: u32) -> Result<Option<Account>, Errno> {
    // SAFETY: as above.
    lookup(|entry, buffer, length, found| unsafe { libc::getpwuid_r(uid, entry, buffer, length, found) })
}

/// The real and the effective user id of this process.
pub fn process_uids() -> (u32, u32) {
    // SAFETY: these calls take nothing and cannot fail.
    unsafe { (libc::getuid(), libc::geteuid()) }
}

/// Whom the session of this process belongs to, by the audit login uid, which stays the same through su and sudo.
/// `Ok(None)`: nobody, or the kernel does not keep it.
///
/// # Errors
/// It cannot be read, or is no number.
pub fn login_uid() -> Result<Option<u32>, Errno> {
    const UNSET: u32 = u32::MAX;
    match std::fs::read_to_string("/proc/self/loginuid") {
        Ok(text) => text.trim().parse().map(|uid| Some(uid).filter(|uid| *uid != UNSET)).map_err(|_| Errno::INVAL),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn lookup(
    call: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
) -> Result<Option<Account>, Errno> {
    let mut size = BUFFER;
    loop {
        let mut buffer = vec![0_u8; size];
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = std::ptr::null_mut();
        match call(entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the call succeeded and `found` points to `entry`, which is filled in.
            0 => return Ok(Some(account(unsafe { entry.assume_init_ref() }))),
            libc::ERANGE if size < LARGEST_BUFFER => size = size.saturating_mul(4),
            // getpwnam_r(3): these mean that the name was not found.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            error => return Err(errno(error)),
        }
    }
}

fn account(entry: &libc::passwd) -> Account {
    let bytes = |text: *const libc::c_char| {
        if text.is_null() {
            return Vec::new();
        }
        // SAFETY: a string of a passwd entry ends in NUL and lives in the buffer, which outlives this call.
        unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
    };
    let home = bytes(entry.pw_dir);
    Account { name: bytes(entry.pw_name), uid: entry.pw_uid, gid: entry.pw_gid, home: OsStr::from_bytes(&home).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_uid() {
        let root = by_name(b"root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(by_uid(0).unwrap().unwrap(), root);
    }

    #[test]
    fn nobody_else_is_invented() {
        for name in [&b"no-such-user-here"[..], b"", b"..", b"a/b", b"nul\0byte", b"\xff\xfe", &[b'x'; 300]] {
            assert_eq!(by_name(name), Ok(None), "{name:?}");
        }
        assert_eq!(by_uid(4_000_000_123), Ok(None));
    }
}
