//! The user database, by way of getpwnam_r(3) and getpwent(3): files, LDAP, sssd, whatever nsswitch.conf names.

use super::{Errno, errno};
use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

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
    /// What a login runs. Empty: /bin/sh (passwd(5)).
    pub shell: PathBuf,
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

/// Everybody whom the database lists, in its order, a name as often as it is listed. Services such as sssd and LDAP often
/// list nobody, and find everybody by name.
///
/// For a program of one thread: another one that calls getpwent(3) too, other than through here, would write over the entry
/// that is being read.
///
/// # Errors
/// The database could not be read to its end.
pub fn all() -> Result<Vec<Account>, Errno> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut accounts = Vec::new();
    // SAFETY: takes nothing; begins at the first entry.
    unsafe { libc::setpwent() };
    let end = loop {
        // SAFETY: errno is this thread's own. What getpwent returns is NULL or an entry that is good until the next call, and
        // nobody calls before it is copied.
        let entry = unsafe {
            *libc::__errno_location() = 0;
            libc::getpwent().as_ref()
        };
        match entry {
            Some(entry) => accounts.push(account(entry)),
            None => match std::io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                // At the end errno stays as it was, or says that there is no further entry.
                0 | libc::ENOENT | libc::ESRCH => break Ok(accounts),
                libc::EINTR => {}
                error => break Err(errno(error)),
            },
        }
    };
    // SAFETY: takes nothing.
    unsafe { libc::endpwent() };
    end
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
    let path = |text| OsStr::from_bytes(&bytes(text)).into();
    Account {
        name: bytes(entry.pw_name),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        home: path(entry.pw_dir),
        shell: path(entry.pw_shell),
    }
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
    fn everybody_is_listed_as_they_are_found_by_name() {
        let accounts = all().unwrap();
        assert!(accounts.contains(&by_name(b"root").unwrap().unwrap()) && accounts.len() > 1);
        assert_eq!(all().unwrap(), accounts, "from the first one again");
    }

    #[test]
    fn nobody_else_is_invented() {
        for name in [&b"no-such-user-here"[..], b"", b"..", b"a/b", b"nul\0byte", b"\xff\xfe", &[b'x'; 300]] {
            assert_eq!(by_name(name), Ok(None), "{name:?}");
        }
        assert_eq!(by_uid(4_000_000_123), Ok(None));
    }
}
