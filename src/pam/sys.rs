//! The part of libpam that a module uses, declared by hand: the interface has been stable since 1996, and so neither
//! headers nor libclang are needed to build. `cargo test --features abi-check` compares it with the headers.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// libpam's handle of one login; we only ever have a pointer to it.
#[repr(C)]
pub struct PamHandle {
    _opaque: [u8; 0],
}

/// One line to show or one question to ask.
#[repr(C)]
pub struct PamMessage {
    /// What to do with the text.
    pub msg_style: c_int,
    /// The text.
    pub msg: *const c_char,
}

/// One answer, allocated with malloc by the application and freed by us.
#[repr(C)]
pub struct PamResponse {
    /// NULL, or a string.
    pub resp: *mut c_char,
    /// Unused.
    pub resp_retcode: c_int,
}

/// The application's conversation function. `C-unwind`, as a host that is cancelled (pthread_cancel) while it asks unwinds
/// into us: that ends in an abort of the host at our edge, not in undefined behaviour, and not in a login.
pub type Conversation =
    unsafe extern "C-unwind" fn(c_int, *mut *const PamMessage, *mut *mut PamResponse, *mut c_void) -> c_int;

/// The item PAM_CONV.
#[repr(C)]
pub struct PamConv {
    /// The function, NULL in a broken application.
    pub conv: Option<Conversation>,
    /// Its last argument.
    pub appdata_ptr: *mut c_void,
}

/// Let in.
pub const PAM_SUCCESS: c_int = 0;
/// Denied; what fail2ban counts.
pub const PAM_AUTH_ERR: c_int = 7;
/// There is nobody who could judge; fail2ban does not count it.
pub const PAM_AUTHINFO_UNAVAIL: c_int = 9;
/// As if this module were not in the stack.
pub const PAM_IGNORE: c_int = 25;

/// Name of the application's stack, as in /etc/pam.d.
pub const PAM_SERVICE: c_int = 1;
/// Terminal that the login comes from.
pub const PAM_TTY: c_int = 3;
/// Host that the login comes from.
pub const PAM_RHOST: c_int = 4;
/// The conversation.
pub const PAM_CONV: c_int = 5;
/// The password that an earlier module asked for, or that a later one shall use.
pub const PAM_AUTHTOK: c_int = 6;
/// User who asks, as the application believes.
pub const PAM_RUSER: c_int = 8;

/// Ask, without showing what is typed.
pub const PAM_PROMPT_ECHO_OFF: c_int = 1;
/// Ask, showing what is typed.
pub const PAM_PROMPT_ECHO_ON: c_int = 2;
/// Show a text.
pub const PAM_TEXT_INFO: c_int = 4;

/// A flag of every call: show nothing.
pub const PAM_SILENT: c_int = 0x8000;

// By file name, as libpam0g-dev and its libpam.so may not be there.
#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// pam_get_item(3).
    pub fn pam_get_item(pamh: *const PamHandle, item_type: c_int, item: *mut *const c_void) -> c_int;
    /// pam_set_item(3).
    pub fn pam_set_item(pamh: *mut PamHandle, item_type: c_int, item: *const c_void) -> c_int;
    /// pam_get_user(3).
    pub fn pam_get_user(pamh: *mut PamHandle, user: *mut *const c_char, prompt: *const c_char) -> c_int;
    /// pam_getenv(3): a variable of the PAM environment, not of the process.
    pub fn pam_getenv(pamh: *mut PamHandle, name: *const c_char) -> *const c_char;
    /// pam_fail_delay(3); microseconds.
    pub fn pam_fail_delay(pamh: *mut PamHandle, usec: c_uint) -> c_int;
    /// pam_syslog(3). Variadic: the format is always `%s`.
    pub fn pam_syslog(pamh: *const PamHandle, priority: c_int, format: *const c_char, ...);
}

#[cfg(all(test, feature = "abi-check"))]
mod abi_check {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    #[test]
    fn constants_are_those_of_the_headers() {
        for (ours, theirs) in [
            (PAM_SUCCESS, pam_sys::PAM_SUCCESS as c_int),
            (PAM_AUTH_ERR, pam_sys::PAM_AUTH_ERR as c_int),
            (PAM_AUTHINFO_UNAVAIL, pam_sys::PAM_AUTHINFO_UNAVAIL as c_int),
            (PAM_IGNORE, pam_sys::PAM_IGNORE as c_int),
            (PAM_SERVICE, pam_sys::PAM_SERVICE as c_int),
            (PAM_TEXT_INFO, pam_sys::PAM_TEXT_INFO as c_int),
            (PAM_SILENT, pam_sys::PAM_SILENT as c_int),
            (PAM_TTY, pam_sys::PAM_TTY as c_int),
            (PAM_RHOST, pam_sys::PAM_RHOST as c_int),
            (PAM_CONV, pam_sys::PAM_CONV as c_int),
            (PAM_AUTHTOK, pam_sys::PAM_AUTHTOK as c_int),
            (PAM_RUSER, pam_sys::PAM_RUSER as c_int),
            (PAM_PROMPT_ECHO_OFF, pam_sys::PAM_PROMPT_ECHO_OFF as c_int),
            (PAM_PROMPT_ECHO_ON, pam_sys::PAM_PROMPT_ECHO_ON as c_int),
        ] {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn structures_are_laid_out_like_those_of_the_headers() {
        assert_eq!(size_of::<PamMessage>(), size_of::<pam_sys::pam_message>());
        assert_eq!(align_of::<PamMessage>(), align_of::<pam_sys::pam_message>());
        assert_eq!(offset_of!(PamMessage, msg_style), offset_of!(pam_sys::pam_message, msg_style));
        assert_eq!(offset_of!(PamMessage, msg), offset_of!(pam_sys::pam_message, msg));
        assert_eq!(size_of::<PamResponse>(), size_of::<pam_sys::pam_response>());
        assert_eq!(offset_of!(PamResponse, resp), offset_of!(pam_sys::pam_response, resp));
        assert_eq!(offset_of!(PamResponse, resp_retcode), offset_of!(pam_sys::pam_response, resp_retcode));
        assert_eq!(size_of::<PamConv>(), size_of::<pam_sys::pam_conv>());
        assert_eq!(offset_of!(PamConv, conv), offset_of!(pam_sys::pam_conv, conv));
        assert_eq!(offset_of!(PamConv, appdata_ptr), offset_of!(pam_sys::pam_conv, appdata_ptr));
    }

    /// The same type, with the handle's type left open, must fit our declaration and the headers'.
    macro_rules! same_signature {
        ($function:ident: fn($handle:ident $(, $argument:ty)*) -> $result:ty) => {{
            type Signature<$handle> = unsafe extern "C" fn($handle $(, $argument)*) -> $result;
            let _: Signature<_> = super::$function;
            let _: Signature<_> = pam_sys::$function;
        }};
    }

    #[test]
    fn signatures_are_those_of_the_headers() {
        same_signature!(pam_get_item: fn(Handle, c_int, *mut *const c_void) -> c_int);
        same_signature!(pam_set_item: fn(Handle, c_int, *const c_void) -> c_int);
        same_signature!(pam_get_user: fn(Handle, *mut *const c_char, *const c_char) -> c_int);
        same_signature!(pam_getenv: fn(Handle, *const c_char) -> *const c_char);
        same_signature!(pam_fail_delay: fn(Handle, c_uint) -> c_int);
    }
}
