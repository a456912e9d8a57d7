//! A name service for the tests, as directories are: it finds alice by other spellings of her name and says what she is called, and
//! it knows a group of hers of which it lists no members.

#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::ffi::{CStr, c_char, c_int, c_long};

const NSS_STATUS_NOTFOUND: c_int = 0;
const NSS_STATUS_SUCCESS: c_int = 1;
const SPELLINGS: [&[u8]; 3] = [b"Alice", b"ALICE", b"alice@example.org"];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_spelled_getpwnam_r(
    name: *const c_char,
    entry: *mut libc::passwd,
    _buffer: *mut c_char,
    _length: usize,
    _errno: *mut c_int,
) -> c_int {
    unsafe {
        if !SPELLINGS.contains(&CStr::from_ptr(name).to_bytes()) {
            return NSS_STATUS_NOTFOUND;
        }
        let text = |text: &'static CStr| text.as_ptr().cast_mut();
        *entry = libc::passwd {
            pw_name: text(c"alice"),
            pw_passwd: text(c"x"),
            pw_uid: 20001,
            pw_gid: 20001,
            pw_gecos: text(c""),
            pw_dir: text(c"/home/alice"),
            pw_shell: text(c"/bin/sh"),
        };
        NSS_STATUS_SUCCESS
    }
}

/// The group.
const GID: libc::gid_t = 30_100;
const NAME: &CStr = c"directory-admins";

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_spelled_getgrnam_r(
    name: *const c_char,
    entry: *mut libc::group,
    buffer: *mut c_char,
    _length: usize,
    _errno: *mut c_int,
) -> c_int {
    unsafe {
        if CStr::from_ptr(name) != NAME {
            return NSS_STATUS_NOTFOUND;
        }
        say_group(entry, buffer)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_spelled_getgrgid_r(
    gid: libc::gid_t,
    entry: *mut libc::group,
    buffer: *mut c_char,
    _length: usize,
    _errno: *mut c_int,
) -> c_int {
    if gid == GID { unsafe { say_group(entry, buffer) } } else { NSS_STATUS_NOTFOUND }
}

/// No members: a list that ends at once, where the caller has room for it.
unsafe fn say_group(entry: *mut libc::group, buffer: *mut c_char) -> c_int {
    unsafe {
        let members = buffer.wrapping_add(buffer.align_offset(align_of::<*mut c_char>())).cast::<*mut c_char>();
        *members = std::ptr::null_mut();
        let (gr_name, gr_passwd) = (NAME.as_ptr().cast_mut(), c"x".as_ptr().cast_mut());
        *entry = libc::group { gr_name, gr_passwd, gr_gid: GID, gr_mem: members };
        NSS_STATUS_SUCCESS
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_spelled_initgroups_dyn(
    user: *const c_char,
    _group: libc::gid_t,
    start: *mut c_long,
    size: *mut c_long,
    groups: *mut *mut libc::gid_t,
    _limit: c_long,
    _errno: *mut c_int,
) -> c_int {
    unsafe {
        if CStr::from_ptr(user) != c"alice" {
            return NSS_STATUS_NOTFOUND;
        }
        // The caller's list has room for one more, or is made larger by us as glibc's own services do.
        if *start == *size {
            *size += 1;
            let length = usize::try_from(*size).unwrap() * size_of::<libc::gid_t>();
            *groups = libc::realloc((*groups).cast(), length).cast();
        }
        *(*groups).add(usize::try_from(*start).unwrap()) = GID;
        *start += 1;
        NSS_STATUS_SUCCESS
    }
}
