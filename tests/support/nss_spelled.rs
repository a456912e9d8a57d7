//! A name service for the tests: it finds alice by other spellings of her name, as directories do, and says what she is called.

#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, c_char, c_int};

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
