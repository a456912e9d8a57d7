//! The other side of libpam: what an application does. The program plays one to show what a stack answers; the module has
//! none of this.
//!
//! libpam is opened when it is needed. The program does other things too, and does them where libpam is missing, or is older
//! than 1.4 and has no `pam_start_confdir`.

use super::sys::{PamConv, PamHandle, PamMessage, PamResponse};
use crate::secret::Secret;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use zeroize::Zeroize;

/// The library, by the name that its modules have it by: so there is one of it.
const LIBRARY: &CStr = c"libpam.so.0";
/// PAM_MAX_NUM_MSG: more messages at once are an error of the module's.
const MAX_MESSAGES: usize = 32;

const PAM_SUCCESS: c_int = 0;
const PAM_BUF_ERR: c_int = 5;
const PAM_CONV_ERR: c_int = 19;
const PAM_PROMPT_ECHO_OFF: c_int = 1;
const PAM_PROMPT_ECHO_ON: c_int = 2;
const PAM_ERROR_MSG: c_int = 3;
const PAM_TEXT_INFO: c_int = 4;
const PAM_DISALLOW_NULL_AUTHTOK: c_int = 1;

/// Who sits in front of the application.
pub trait Conversation {
    /// A text for them; an error or not.
    fn told(&mut self, text: &[u8], is_error: bool);

    /// A question, whose answer may be shown or not. `None`: there is no answer, and the module's prompt fails.
    fn asked(&mut self, prompt: &[u8], echo: bool) -> Option<Secret<Vec<u8>>>;
}

/// What an application says about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// PAM_TTY.
    Tty,
    /// PAM_RHOST.
    Rhost,
    /// PAM_RUSER.
    Ruser,
}

impl Item {
    const fn number(self) -> c_int {
        match self {
            Self::Tty => 3,
            Self::Rhost => 4,
            Self::Ruser => 8,
        }
    }
}

/// Why there is no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStarted {
    /// The library cannot be opened, or lacks this function.
    Library(String),
    /// A text has a NUL byte in it.
    Nul,
    /// libpam's own code for it, by which function.
    Failed(&'static str, i32),
}

impl fmt::Display for NotStarted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(why) => write!(out, "libpam.so.0 of Linux-PAM 1.4 or later is needed: {why}"),
            Self::Nul => write!(out, "a name has a NUL byte in it"),
            Self::Failed(function, code) => write!(out, "{function} failed with {code}"),
        }
    }
}

type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const PamConv, *const c_char, *mut *mut PamHandle) -> c_int;
type Step = unsafe extern "C" fn(*mut PamHandle, c_int) -> c_int;
type SetItem = unsafe extern "C" fn(*mut PamHandle, c_int, *const c_void) -> c_int;
type PutEnv = unsafe extern "C" fn(*mut PamHandle, *const c_char) -> c_int;
type Describe = unsafe extern "C" fn(*mut PamHandle, c_int) -> *const c_char;

/// libpam's functions for applications. It stays open: modules may have left threads or exit handlers behind.
struct Library {
    start: Start,
    end: Step,
    set_item: SetItem,
    put_env: PutEnv,
    authenticate: Step,
    account: Step,
    describe: Describe,
}

impl Library {
    fn open() -> Result<Self, NotStarted> {
        // SAFETY: a valid name; libpam's initialisers are those that every application runs.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(|| NotStarted::Library(last_error()))?;
        // SAFETY: each symbol is a function of libpam with this signature since Linux-PAM 1.4 (security/pam_appl.h).
        unsafe {
            Ok(Self {
                start: std::mem::transmute::<NonNull<c_void>, Start>(symbol(handle, c"pam_start_confdir")?),
                end: std::mem::transmute::<NonNull<c_void>, Step>(symbol(handle, c"pam_end")?),
                set_item: std::mem::transmute::<NonNull<c_void>, SetItem>(symbol(handle, c"pam_set_item")?),
                put_env: std::mem::transmute::<NonNull<c_void>, PutEnv>(symbol(handle, c"pam_putenv")?),
                authenticate: std::mem::transmute::<NonNull<c_void>, Step>(symbol(handle, c"pam_authenticate")?),
                account: std::mem::transmute::<NonNull<c_void>, Step>(symbol(handle, c"pam_acct_mgmt")?),
                describe: std::mem::transmute::<NonNull<c_void>, Describe>(symbol(handle, c"pam_strerror")?),
            })
        }
    }
}

/// A symbol of an open library.
fn symbol(library: NonNull<c_void>, name: &CStr) -> Result<NonNull<c_void>, NotStarted> {
    // SAFETY: an open library and a valid name.
    let symbol = unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) };
    NonNull::new(symbol).ok_or_else(|| NotStarted::Library(last_error()))
}

fn last_error() -> String {
    // SAFETY: what dlerror(3) returns is NULL or a string of this thread's, copied at once.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// What the conversation function is given back.
struct Front<'a>(&'a mut dyn Conversation);

/// A login of an application, whose stack is read from a directory of its own.
pub struct Login<'a> {
    library: Library,
    raw: NonNull<PamHandle>,
    /// What libpam has a pointer to. It is ours to free after `pam_end`.
    front: *mut Front<'a>,
    last: c_int,
    /// What the application asks `pam_authenticate` for.
    flags: c_int,
    conversation: PhantomData<&'a mut dyn Conversation>,
}

impl<'a> Login<'a> {
    /// pam_start_confdir(3).
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn start(
        service: &[u8],
        user: &[u8],
        directory: &[u8],
        conversation: &'a mut dyn Conversation,
    ) -> Result<Self, NotStarted> {
        let [service, user, directory] = [service, user, directory].map(CString::new);
        let (Ok(service), Ok(user), Ok(directory)) = (service, user, directory) else { return Err(NotStarted::Nul) };
        let library = Library::open()?;
        let front = Box::into_raw(Box::new(Front(conversation)));
        let conv = PamConv { conv: Some(converse), appdata_ptr: front.cast() };
        let mut raw = null_mut();
        // SAFETY: valid strings and places; libpam copies the strings and the conversation.
        let code = unsafe {
            (library.start)(service.as_ptr(), user.as_ptr(), &raw const conv, directory.as_ptr(), &raw mut raw)
        };
        match NonNull::new(raw) {
            Some(raw) if code == PAM_SUCCESS => {
                Ok(Self { library, raw, front, last: PAM_SUCCESS, flags: 0, conversation: PhantomData })
            }
            _ => {
                // SAFETY: from Box::into_raw above, and libpam has no handle that could use it.
                drop(unsafe { Box::from_raw(front) });
                Err(NotStarted::Failed("pam_start_confdir", code))
            }
        }
    }

    /// pam_set_item(3).
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn set(&mut self, item: Item, value: &[u8]) -> Result<(), NotStarted> {
        let value = CString::new(value).map_err(|_| NotStarted::Nul)?;
        // SAFETY: a handle that is alive, and a string that libpam copies.
        match unsafe { (self.library.set_item)(self.raw.as_ptr(), item.number(), value.as_ptr().cast()) } {
            PAM_SUCCESS => Ok(()),
            code => Err(NotStarted::Failed("pam_set_item", code)),
        }
    }

    /// pam_putenv(3): `NAME=value`, in the PAM environment.
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn put(&mut self, variable: &[u8]) -> Result<(), NotStarted> {
        let variable = CString::new(variable).map_err(|_| NotStarted::Nul)?;
        // SAFETY: a handle that is alive, and a string that libpam copies.
        match unsafe { (self.library.put_env)(self.raw.as_ptr(), variable.as_ptr()) } {
            PAM_SUCCESS => Ok(()),
            code => Err(NotStarted::Failed("pam_putenv", code)),
        }
    }

    /// From here on nobody gets in with an empty password.
    pub const fn refuse_empty_passwords(&mut self) {
        self.flags |= PAM_DISALLOW_NULL_AUTHTOK;
    }

    /// pam_authenticate(3): libpam's code.
    pub fn authenticate(&mut self) -> i32 {
        // SAFETY: a handle that is alive; the conversation is ours, and borrowed for as long as this login is.
        self.last = unsafe { (self.library.authenticate)(self.raw.as_ptr(), self.flags) };
        self.last
    }

    /// pam_acct_mgmt(3): libpam's code.
    pub fn account(&mut self) -> i32 {
        // SAFETY: as above.
        self.last = unsafe { (self.library.account)(self.raw.as_ptr(), 0) };
        self.last
    }

    /// pam_strerror(3): a code in words.
    pub fn describe(&self, code: i32) -> String {
        // SAFETY: a handle that is alive; NULL or a string that stays.
        unsafe {
            let text = (self.library.describe)(self.raw.as_ptr(), code);
            if text.is_null() { code.to_string() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }
}

impl Drop for Login<'_> {
    fn drop(&mut self) {
        // SAFETY: the last use of the handle; then nobody has the conversation any more, which is from Box::into_raw.
        unsafe {
            (self.library.end)(self.raw.as_ptr(), self.last);
            drop(Box::from_raw(self.front));
        }
    }
}

/// The conversation function. No panic gets out of it: what it comes to is a prompt that fails.
unsafe extern "C-unwind" fn converse(
    count: c_int,
    messages: *mut *const PamMessage,
    responses: *mut *mut PamResponse,
    data: *mut c_void,
) -> c_int {
    // SAFETY: libpam hands back what `start` gave it, and the messages of a module: `count` pointers in a row.
    catch_unwind(AssertUnwindSafe(|| unsafe { converse_with(count, messages, responses, data) }))
        .unwrap_or(PAM_CONV_ERR)
}

/// # Safety
/// As libpam calls a conversation function.
unsafe fn converse_with(
    count: c_int,
    messages: *mut *const PamMessage,
    responses: *mut *mut PamResponse,
    data: *mut c_void,
) -> c_int {
    let Some(count) = usize::try_from(count).ok().filter(|count| (1..=MAX_MESSAGES).contains(count)) else {
        return PAM_CONV_ERR;
    };
    if messages.is_null() || responses.is_null() {
        return PAM_CONV_ERR;
    }
    // SAFETY: from `start`, alive until `pam_end`, and nobody else's while libpam is at work.
    let Some(front) = (unsafe { data.cast::<Front>().as_mut() }) else { return PAM_CONV_ERR };
    // SAFETY: `count` pointers in a row.
    let messages = unsafe { std::slice::from_raw_parts(messages.cast_const(), count) };
    let mut answers = Vec::with_capacity(count);
    for &message in messages {
        // SAFETY: NULL or a message that lives across the call, whose text is NULL or a string.
        let (style, text) = unsafe {
            let Some(message) = message.as_ref() else { return PAM_CONV_ERR };
            let text: &[u8] = if message.msg.is_null() { b"" } else { CStr::from_ptr(message.msg).to_bytes() };
            (message.msg_style, text)
        };
        let answer = match style {
            PAM_TEXT_INFO | PAM_ERROR_MSG => {
                front.0.told(text, style == PAM_ERROR_MSG);
                None
            }
            PAM_PROMPT_ECHO_OFF | PAM_PROMPT_ECHO_ON => match front.0.asked(text, style == PAM_PROMPT_ECHO_ON) {
                Some(answer) => Some(answer),
                None => return PAM_CONV_ERR,
            },
            _ => return PAM_CONV_ERR,
        };
        answers.push(answer);
    }
    // SAFETY: a place for the answers, which the module frees.
    unsafe { give(&answers, responses) }
}

/// Hands the answers over: memory of malloc's, as whoever asked will free it.
///
/// # Safety
/// `responses` is a place for a pointer.
unsafe fn give(answers: &[Option<Secret<Vec<u8>>>], responses: *mut *mut PamResponse) -> c_int {
    // SAFETY: the place is the caller's; calloc(3) checks the product, and what it gives is written within its length.
    unsafe {
        let array = libc::calloc(answers.len(), size_of::<PamResponse>()).cast::<PamResponse>();
        if array.is_null() {
            return PAM_BUF_ERR;
        }
        for (index, answer) in answers.iter().enumerate() {
            let Some(answer) = answer else { continue };
            let text = answer.expose();
            let length = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
            let copy = libc::calloc(length.saturating_add(1), 1).cast::<u8>();
            if copy.is_null() {
                take_back(array, answers.len());
                return PAM_BUF_ERR;
            }
            std::ptr::copy_nonoverlapping(text.as_ptr(), copy, length);
            (*array.add(index)).resp = copy.cast();
        }
        *responses = array;
    }
    PAM_SUCCESS
}

/// Wipes and frees what was not handed over.
///
/// # Safety
/// `array` is from calloc(3) and has `count` responses, whose texts are NULL or from it too.
unsafe fn take_back(array: *mut PamResponse, count: usize) {
    // SAFETY: as promised by the caller.
    unsafe {
        for index in 0..count {
            let text = (*array.add(index)).resp;
            if !text.is_null() {
                std::slice::from_raw_parts_mut(text.cast::<u8>(), libc::strlen(text)).zeroize();
                libc::free(text.cast());
            }
        }
        libc::free(array.cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Person {
        told: Vec<String>,
        asked: Vec<(String, bool)>,
        panics: bool,
    }

    impl Conversation for Person {
        fn told(&mut self, text: &[u8], is_error: bool) {
            self.told.push(format!("{} {is_error}", String::from_utf8_lossy(text)));
        }

        fn asked(&mut self, prompt: &[u8], echo: bool) -> Option<Secret<Vec<u8>>> {
            assert!(!self.panics, "as was asked");
            self.asked.push((String::from_utf8_lossy(prompt).into_owned(), echo));
            (prompt != b"nothing").then(|| Secret::new(b"an answer\0cut".to_vec()))
        }
    }

    /// The code and the answers, when these messages come at once.
    fn converse_about(person: &mut Person, messages: &[(c_int, &CStr)]) -> (c_int, Vec<Option<String>>) {
        let messages: Vec<_> =
            messages.iter().map(|(style, text)| PamMessage { msg_style: *style, msg: text.as_ptr() }).collect();
        let mut pointers: Vec<*const PamMessage> = messages.iter().map(|message| &raw const *message).collect();
        let mut front = Front(person);
        let mut responses = null_mut();
        // SAFETY: messages, places and conversation live across the call; what it gave is read and freed once.
        unsafe {
            let count = c_int::try_from(pointers.len()).unwrap();
            let code = converse(count, pointers.as_mut_ptr(), &raw mut responses, (&raw mut front).cast());
            if responses.is_null() {
                return (code, Vec::new());
            }
            let texts = (0..pointers.len()).map(|index| {
                let text = (*responses.add(index)).resp;
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            });
            let texts = texts.collect();
            take_back(responses, pointers.len());
            (code, texts)
        }
    }

    #[test]
    fn several_messages_at_once_have_an_answer_each() {
        let mut person = Person::default();
        let messages = [(4, c"hello"), (1, c"Password: "), (3, c"oh"), (2, c"Name: ")];
        let answer = || Some("an answer".to_owned());
        assert_eq!(converse_about(&mut person, &messages), (PAM_SUCCESS, vec![None, answer(), None, answer()]));
        assert_eq!(person.told, ["hello false", "oh true"]);
        assert_eq!(person.asked, [("Password: ".to_owned(), false), ("Name: ".to_owned(), true)]);
    }

    #[test]
    fn whatever_goes_wrong_is_a_prompt_that_fails() {
        let mut person = Person::default();
        assert_eq!(converse_about(&mut person, &[(1, c"Password: "), (1, c"nothing")]), (PAM_CONV_ERR, vec![]));
        assert_eq!(converse_about(&mut person, &[(9, c"?")]), (PAM_CONV_ERR, vec![]));
        assert_eq!(converse_about(&mut person, &[]), (PAM_CONV_ERR, vec![]));
        assert_eq!(converse_about(&mut person, &[(4, c"x"); MAX_MESSAGES + 1]), (PAM_CONV_ERR, vec![]));
        person.panics = true;
        assert_eq!(converse_about(&mut person, &[(1, c"Password: ")]), (PAM_CONV_ERR, vec![]));
    }

    #[test]
    fn a_stack_of_its_own_is_run() {
        let directory = tempfile::tempdir().unwrap();
        let stack = "auth required pam_permit.so\naccount required pam_deny.so\n";
        std::fs::write(directory.path().join("made"), stack).unwrap();
        std::fs::write(directory.path().join("other"), "").unwrap();
        let path = directory.path().as_os_str().as_encoded_bytes();
        let mut person = Person::default();
        let mut login = Login::start(b"made", b"root", path, &mut person).unwrap();
        login.set(Item::Rhost, b"192.0.2.1").unwrap();
        login.put(b"SSH_AUTH_INFO_0=publickey x").unwrap();
        assert_eq!(login.set(Item::Tty, b"a\0b"), Err(NotStarted::Nul));
        assert_eq!(login.authenticate(), PAM_SUCCESS);
        assert_ne!(login.account(), PAM_SUCCESS);
        assert_eq!(login.describe(7), "Authentication failure");
        drop(login);
        assert!(Login::start(b"made", b"root", b"/nowhere", &mut person).is_err());
    }
}
