//! libpam's handle in safe signatures.

use super::sys;
use crate::authenticate::{Application, NoAnswer};
use crate::secret::Secret;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use zeroize::Zeroize;

/// Longest answer that is looked at: PAM_MAX_RESP_SIZE.
const MAX_ANSWER: usize = 512;

/// The handle of one call from libpam; it ends with that call.
pub(super) struct Handle<'call> {
    raw: NonNull<sys::PamHandle>,
    call: PhantomData<&'call mut sys::PamHandle>,
}

impl Handle<'_> {
    /// `None` for NULL.
    ///
    /// # Safety
    /// `raw` is NULL or what libpam gave to the entry point that is running now, and the handle does not outlive it.
    pub(super) unsafe fn new(raw: *mut sys::PamHandle) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, call: PhantomData })
    }

    /// The user who is to be authenticated; the application is asked if it has not said.
    pub(super) fn user(&mut self) -> Result<Vec<u8>, c_int> {
        let mut user: *const c_char = null();
        // SAFETY: valid handle and place for the result; no prompt of ours.
        let code = unsafe { sys::pam_get_user(self.raw.as_ptr(), &raw mut user, null()) };
        match code {
            // SAFETY: a string that libpam keeps until the item changes; copied at once.
            sys::PAM_SUCCESS if !user.is_null() => Ok(unsafe { CStr::from_ptr(user) }.to_bytes().to_vec()),
            code => Err(code),
        }
    }

    /// A string item, empty if it is not set.
    pub(super) fn text_item(&self, item: c_int) -> Vec<u8> {
        let text = self.item(item).cast::<c_char>();
        if text.is_null() {
            return Vec::new();
        }
        // SAFETY: the items asked for here are strings, which libpam keeps until they change; copied at once.
        unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
    }

    /// A variable of the PAM environment, empty if it is not set. Not of the process's environment, which is the caller's.
    pub(super) fn environment(&self, name: &CStr) -> Vec<u8> {
        // SAFETY: valid handle and string.
        let value = unsafe { sys::pam_getenv(self.raw.as_ptr(), name.as_ptr()) };
        if value.is_null() {
            return Vec::new();
        }
        // SAFETY: a string that libpam keeps until the variable changes; copied at once.
        unsafe { CStr::from_ptr(value) }.to_bytes().to_vec()
    }

    fn item(&self, item: c_int) -> *const c_void {
        let mut value: *const c_void = null();
        // SAFETY: valid handle and place for the result.
        match unsafe { sys::pam_get_item(self.raw.as_ptr(), item, &raw mut value) } {
            sys::PAM_SUCCESS => value,
            _ => null(),
        }
    }

    /// Asks the application for a delay, should the login fail.
    pub(super) fn fail_delay(&mut self, microseconds: u32) {
        // SAFETY: valid handle. A failure changes nothing about the verdict.
        unsafe { sys::pam_fail_delay(self.raw.as_ptr(), microseconds) };
    }

    /// Writes a line to the authentication log; libpam puts `pam_totp(service:auth): ` in front.
    pub(super) fn log(&self, priority: c_int, line: &str) {
        // Facts are escaped, so there is no NUL to stumble over.
        let Ok(line) = CString::new(line) else { return };
        // SAFETY: valid handle, and one string for the one `%s`.
        unsafe { sys::pam_syslog(self.raw.as_ptr(), priority, c"%s".as_ptr(), line.as_ptr()) };
    }
}

impl Handle<'_> {
    /// One message, and the answer to it if there is one. `Ok(Some(None))`: it is longer than any answer may be.
    fn converse(&mut self, style: c_int, text: &CStr) -> Result<Option<Option<Secret<Vec<u8>>>>, NoAnswer> {
        // SAFETY: the item is NULL or a pam_conv that libpam keeps.
        let conversation = unsafe { self.item(sys::PAM_CONV).cast::<sys::PamConv>().as_ref() };
        let Some(&sys::PamConv { conv: Some(conv), appdata_ptr }) = conversation else { return Err(NoAnswer::Missing) };
        let message = sys::PamMessage { msg_style: style, msg: text.as_ptr() };
        let mut messages: *const sys::PamMessage = &raw const message;
        let mut response: *mut sys::PamResponse = null_mut();
        // SAFETY: one message, which lives across the call, and a place for the answer.
        let code = unsafe { conv(1, &raw mut messages, &raw mut response, appdata_ptr) };
        // SAFETY: by PAM's contract NULL, or one response that is ours now. Some applications leave one at a failure.
        let answer = unsafe { take_answer(response) };
        if code == sys::PAM_SUCCESS { Ok(answer) } else { Err(NoAnswer::Failed(code)) }
    }
}

impl Application for Handle<'_> {
    fn ask(&mut self, prompt: &[u8], echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer> {
        let Ok(prompt) = CString::new(prompt) else { return Err(NoAnswer::Missing) };
        let style = if echo { sys::PAM_PROMPT_ECHO_ON } else { sys::PAM_PROMPT_ECHO_OFF };
        match self.converse(style, &prompt)? {
            Some(Some(answer)) => Ok(answer),
            Some(None) => Err(NoAnswer::TooLong),
            None => Err(NoAnswer::Missing),
        }
    }

    fn tell(&mut self, text: &Secret<String>) -> Result<(), NoAnswer> {
        let mut bytes = Vec::with_capacity(text.expose().len().saturating_add(1));
        bytes.extend_from_slice(text.expose().as_bytes());
        bytes.push(0);
        let bytes = Secret::new(bytes);
        let text = CStr::from_bytes_with_nul(bytes.expose()).map_err(|_| NoAnswer::Missing)?;
        self.converse(sys::PAM_TEXT_INFO, text).map(drop)
    }

    fn first_pass(&self) -> Option<Secret<Vec<u8>>> {
        let text = self.item(sys::PAM_AUTHTOK).cast::<c_char>();
        // SAFETY: NULL, or a string that libpam keeps until it changes; copied at once.
        (!text.is_null()).then(|| Secret::new(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()))
    }

    fn forward(&mut self, password: &Secret<Vec<u8>>) -> bool {
        let mut text = Vec::with_capacity(password.expose().len().saturating_add(1));
        text.extend_from_slice(password.expose());
        text.push(0);
        let text = Secret::new(text);
        // A NUL inside would cut the password, which a C string cannot have brought in.
        let Ok(text) = CStr::from_bytes_with_nul(text.expose()) else { return false };
        // SAFETY: valid handle and string; libpam copies it.
        unsafe { sys::pam_set_item(self.raw.as_ptr(), sys::PAM_AUTHTOK, text.as_ptr().cast()) == sys::PAM_SUCCESS }
    }
}

/// Copies an answer, wipes and frees it. `Some(None)`: it is longer than any answer may be.
///
/// # Safety
/// `response` is NULL or points to one response from malloc, whose string is NULL or from malloc too.
unsafe fn take_answer(response: *mut sys::PamResponse) -> Option<Option<Secret<Vec<u8>>>> {
    // SAFETY: as promised by the caller.
    let text = unsafe { response.as_ref() }?.resp;
    let answer = (!text.is_null()).then(|| {
        // SAFETY: a string that nobody else has, read and written within its length.
        unsafe {
            let length = libc::strlen(text);
            let bytes = std::slice::from_raw_parts_mut(text.cast::<u8>(), length);
            let answer = (length <= MAX_ANSWER).then(|| Secret::new(bytes.to_vec()));
            bytes.zeroize();
            libc::free(text.cast());
            answer
        }
    });
    // SAFETY: from malloc, and not used any more.
    unsafe { libc::free(response.cast()) };
    answer
}
