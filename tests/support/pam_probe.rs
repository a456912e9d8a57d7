//! A PAM module for the tests. `ask`: asks for a password and leaves it for the modules behind, as pam_unix would. `show`:
//! puts what the modules before it left into the PAM environment, where the application can see it. Never has a say.

#![allow(unsafe_code, missing_docs, clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null;

#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn pam_get_authtok(pamh: *mut c_void, item: c_int, authtok: *mut *const c_char, prompt: *const c_char) -> c_int;
    fn pam_get_item(pamh: *const c_void, item: c_int, value: *mut *const c_void) -> c_int;
    fn pam_putenv(pamh: *mut c_void, name_value: *const c_char) -> c_int;
}

const PAM_AUTHTOK: c_int = 6;
const PAM_IGNORE: c_int = 25;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_authenticate(
    pamh: *mut c_void,
    _: c_int,
    argc: c_int,
    argv: *mut *const c_char,
) -> c_int {
    assert_eq!(argc, 1);
    unsafe {
        match CStr::from_ptr(*argv).to_bytes() {
            b"ask" => {
                let mut authtok = null();
                pam_get_authtok(pamh, PAM_AUTHTOK, &raw mut authtok, null());
            }
            _ => {
                let mut authtok = null();
                pam_get_item(pamh, PAM_AUTHTOK, &raw mut authtok);
                let mut text = b"AUTHTOK=".to_vec();
                if !authtok.is_null() {
                    text.push(b'=');
                    text.extend_from_slice(CStr::from_ptr(authtok.cast()).to_bytes());
                }
                let text = CString::new(text).unwrap_or_default();
                pam_putenv(pamh, text.as_ptr());
            }
        }
    }
    PAM_IGNORE
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pam_sm_setcred(_: *mut c_void, _: c_int, _: c_int, _: *mut *const c_char) -> c_int {
    PAM_IGNORE
}
