//! The application's side of libpam.

#![allow(dead_code)]

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub(crate) struct Message {
    pub(crate) style: c_int,
    pub(crate) text: *const c_char,
}

#[repr(C)]
pub(crate) struct Response {
    pub(crate) text: *mut c_char,
    pub(crate) code: c_int,
}

#[repr(C)]
pub(crate) struct Conv {
    pub(crate) function: extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
    pub(crate) data: *mut c_void,
}

#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    pub(crate) fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conv: *const Conv,
        pamh: *mut *mut c_void,
    ) -> c_int;
    pub(crate) fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conv: *const Conv,
        confdir: *const c_char,
        pamh: *mut *mut c_void,
    ) -> c_int;
    pub(crate) fn pam_set_item(pamh: *mut c_void, item: c_int, value: *const c_void) -> c_int;
    pub(crate) fn pam_getenv(pamh: *mut c_void, name: *const c_char) -> *const c_char;
    pub(crate) fn pam_putenv(pamh: *mut c_void, name_value: *const c_char) -> c_int;
    pub(crate) fn pam_open_session(pamh: *mut c_void, flags: c_int) -> c_int;
    pub(crate) fn pam_authenticate(pamh: *mut c_void, flags: c_int) -> c_int;
    pub(crate) fn pam_acct_mgmt(pamh: *mut c_void, flags: c_int) -> c_int;
    pub(crate) fn pam_setcred(pamh: *mut c_void, flags: c_int) -> c_int;
    pub(crate) fn pam_end(pamh: *mut c_void, status: c_int) -> c_int;
}

pub(crate) const PAM_SUCCESS: c_int = 0;
pub(crate) const PAM_CONV_ERR: c_int = 19;
pub(crate) const PAM_ESTABLISH_CRED: c_int = 2;
pub(crate) const PAM_USER: c_int = 2;
pub(crate) const PAM_TTY: c_int = 3;
pub(crate) const PAM_RHOST: c_int = 4;
pub(crate) const PAM_RUSER: c_int = 8;
pub(crate) const PAM_FAIL_DELAY: c_int = 10;
pub(crate) const PAM_PROMPT_ECHO_OFF: c_int = 1;
pub(crate) const PAM_PROMPT_ECHO_ON: c_int = 2;
pub(crate) const PAM_SILENT: c_int = 0x8000;
