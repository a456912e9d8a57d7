//! A PAM module for the tests that answers what it is told: it asks the application for the number of a return code, with its
//! own argument as the question.

#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn pam_prompt(pamh: *mut c_void, style: c_int, response: *mut *mut c_char, format: *const c_char, ...) -> c_int;
}

const PAM_PROMPT_ECHO_ON: c_int = 2;
const PAM_ABORT: c_int = 26;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    pamh: *mut c_void,
    _: c_int,
    argc: c_int,
    argv: *mut *const c_char,
) -> c_int {
    assert_eq!(argc, 1);
    unsafe {
        let mut response = null_mut();
        pam_prompt(pamh, PAM_PROMPT_ECHO_ON, &raw mut response, c"%s".as_ptr(), *argv);
        if response.is_null() {
            return PAM_ABORT;
        }
        let code = CStr::from_ptr(response).to_str().ok().and_then(|text| text.parse().ok());
        libc::free(response.cast());
        code.unwrap_or(PAM_ABORT)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(_: *mut c_void, _: c_int, _: c_int, _: *mut *const c_char) -> c_int {
    PAM_ABORT
}
