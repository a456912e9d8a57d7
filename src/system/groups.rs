//! The group database, by way of getgrnam_r(3) and getgrouplist(3).
//!
//! getgrouplist(3) alone would not do: where a name service does not answer it leaves that service's groups out and says nothing.
//! Nor does getgrnam_r(3) always: directories can be told not to list whom a group has (`ignore_group_members` in sssd.conf(5),
//! `winbind expand groups` in smb.conf(5)).

use super::{Errno, errno};
use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;

/// First size of the buffer that an entry is put into, and the size at which we give up: a group of half a million.
const BUFFER: usize = 4096;
const LARGEST_BUFFER: usize = 1 << 23;
/// Of how many a user is as a rule, and NGROUPS_MAX (limits.h), with the primary one.
const FEW_GROUPS: usize = 64;
const MOST_GROUPS: usize = 65_537;

/// A group as the database lists it. Whose primary group it is, is not in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Group id.
    pub gid: u32,
    /// Names of users.
    pub members: Vec<Vec<u8>>,
}

/// Looks a group up. `Ok(None)`: there is no such group.
///
/// # Errors
/// As [`is_member`].
pub fn by_name(group: &str) -> Result<Option<Group>, Errno> {
    lookup(group, |entry| {
        let mut members = Vec::new();
        each_member(entry, |name| {
            members.push(name.to_vec());
            false
        });
        Group { gid: entry.gr_gid, members }
    })
}

/// Whether a user, whose primary group is `gid`, is in a group. `Ok(None)`: there is no such group.
///
/// # Errors
/// The database could not be asked, or its answer is over 8 MiB.
pub fn is_member(user: &[u8], gid: u32, group: &str) -> Result<Option<bool>, Errno> {
    lookup(group, |entry| is_listed(entry, user, gid))
}

/// As [`is_member`], and also yes where the group is among those with which the user would log in. For where it is yes that is
/// the safe side.
///
/// # Errors
/// As [`is_member`]; or those groups are more than a process can have.
pub fn may_be_member(user: &[u8], gid: u32, group: &str) -> Result<Option<bool>, Errno> {
    match lookup(group, |entry| (entry.gr_gid, is_listed(entry, user, gid)))? {
        Some((id, false)) => Ok(Some(of(user, gid)?.contains(&id))),
        listed => Ok(listed.map(|_| true)),
    }
}

/// What the groups are called with which a user would log in, whose primary group is `gid`. As sshd(8) has it for AllowGroups
/// and `Match Group`: a group that has no name is none.
///
/// # Errors
/// As [`may_be_member`].
pub fn names_of(user: &[u8], gid: u32) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for id in of(user, gid)? {
        // SAFETY: all pointers are valid for the call; `length` is the length of `buffer`.
        let ask = |entry, buffer, length, found| unsafe { libc::getgrgid_r(id, entry, buffer, length, found) };
        // SAFETY: the name of an entry is a string, in a buffer that outlives this call.
        names.extend(entry(ask, |group| unsafe { CStr::from_ptr(group.gr_name) }.to_string_lossy().into_owned())?);
    }
    Ok(names)
}

/// The groups with which a user would log in, by getgrouplist(3).
fn of(user: &[u8], gid: u32) -> Result<Vec<u32>, Errno> {
    let user = CString::new(user).map_err(|_| Errno::INVAL)?;
    let mut size = FEW_GROUPS;
    loop {
        let mut groups = vec![0; size];
        let mut count = c_int::try_from(size).map_err(|_| Errno::NOMEM)?;
        // SAFETY: `user` is a string, and there is room for `count` groups.
        let result = unsafe { libc::getgrouplist(user.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        if result >= 0 {
            groups.truncate(usize::try_from(result).unwrap_or_default());
            return Ok(groups);
        }
        if size >= MOST_GROUPS {
            return Err(Errno::NOMEM);
        }
        size = MOST_GROUPS;
    }
}

fn lookup<T>(group: &str, read: impl Fn(&libc::group) -> T) -> Result<Option<T>, Errno> {
    let Ok(group) = CString::new(group) else { return Ok(None) };
    // SAFETY: all pointers are valid for the call; `length` is the length of `buffer`.
    let ask = |entry, buffer, length, found| unsafe { libc::getgrnam_r(group.as_ptr(), entry, buffer, length, found) };
    entry(ask, read)
}

fn entry<T>(
    ask: impl Fn(*mut libc::group, *mut c_char, usize, *mut *mut libc::group) -> c_int,
    read: impl Fn(&libc::group) -> T,
) -> Result<Option<T>, Errno> {
    let mut size = BUFFER;
    loop {
        let mut buffer = vec![0_u8; size];
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        match ask(entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the call succeeded and `found` points to `entry`, which is filled in.
            0 => return Ok(Some(read(unsafe { entry.assume_init_ref() }))),
            libc::ERANGE if size < LARGEST_BUFFER => size = size.saturating_mul(4),
            // getgrnam_r(3): these mean that the name was not found.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            error => return Err(errno(error)),
        }
    }
}

fn is_listed(group: &libc::group, user: &[u8], gid: u32) -> bool {
    group.gr_gid == gid || each_member(group, |name| name == user)
}

/// Shows the members one after the other until `is_it` says yes to one. Whether it did.
fn each_member(group: &libc::group, mut is_it: impl FnMut(&[u8]) -> bool) -> bool {
    let mut member = group.gr_mem;
    if member.is_null() {
        return false;
    }
    loop {
        // SAFETY: gr_mem is an array of strings that ends in NULL, in a buffer that outlives this call.
        let name = unsafe { *member };
        if name.is_null() {
            return false;
        }
        // SAFETY: a string of that array.
        if is_it(unsafe { CStr::from_ptr(name) }.to_bytes()) {
            return true;
        }
        // SAFETY: not past the NULL.
        member = unsafe { member.add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_group_counts_and_an_unknown_one_is_unknown() {
        assert_eq!(is_member(b"root", 0, "root"), Ok(Some(true)));
        assert_eq!(by_name("root").unwrap().unwrap().gid, 0);
        assert_eq!(may_be_member(b"root", 4_000_000_000, "root"), Ok(Some(false)));
        assert_eq!(may_be_member(b"root", 0, "root"), Ok(Some(true)));
        assert_eq!(may_be_member(b"nobody-here", 0, "root"), Ok(Some(true)));
        assert_eq!(may_be_member(b"nul\0byte", 4_000_000_000, "root"), Err(Errno::INVAL));
        assert!(names_of(b"root", 0).unwrap().contains(&"root".to_owned()));
        assert_eq!(names_of(b"nobody-here", 4_000_000_000), Ok(Vec::new()), "it has no name");
        assert_eq!(names_of(b"nul\0byte", 0), Err(Errno::INVAL));
        assert_eq!(is_member(b"nobody-here", 4_000_000_000, "root"), Ok(Some(false)));
        for unknown in ["no-such-group-here", "", "nul\0byte"] {
            assert_eq!(is_member(b"root", 0, unknown), Ok(None), "{unknown:?}");
            assert_eq!(may_be_member(b"root", 0, unknown), Ok(None), "{unknown:?}");
            assert_eq!(by_name(unknown), Ok(None), "{unknown:?}");
        }
    }
}
