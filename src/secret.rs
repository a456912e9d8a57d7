//! What must not be printed, copied or left in memory.

use zeroize::{Zeroize, zeroize_stack};

/// A value that is wiped when dropped and can be read in one way only.
///
/// It has no `Debug`, `Display` or `Clone`, so that it cannot get into a log or a second place by accident.
///
/// ```compile_fail
/// let typed = pam_totp::secret::Secret::new(b"123456".to_vec());
/// println!("{typed:?}");
/// ```
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Secret<T> {
    /// Takes ownership of a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The one way to read it. The caller answers for where it goes.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// What can be a secret.
pub trait Wipe {
    /// Writes over all of its memory, also what it has in reserve.
    fn wipe(&mut self);
}

impl Wipe for Vec<u8> {
    fn wipe(&mut self) {
        // What is in reserve is filled at once, what is in use one by one.
        self.clear();
        self.zeroize();
    }
}

impl Wipe for Vec<u32> {
    fn wipe(&mut self) {
        self.clear();
        self.zeroize();
    }
}

/// Lines to print.
impl Wipe for Vec<String> {
    fn wipe(&mut self) {
        self.zeroize();
    }
}

#[cfg(feature = "seal")]
impl<const N: usize> Wipe for [u8; N] {
    fn wipe(&mut self) {
        self.as_mut_slice().zeroize();
    }
}

impl Wipe for String {
    fn wipe(&mut self) {
        self.clear();
        self.zeroize();
    }
}

/// Bytes of the stack that are wiped: several times what a hash needs of it.
const BELOW: usize = 4096;

/// Wipes the part of the stack that functions had which the caller called, and which were not made a part of it (`inline(never)`).
/// The hashes wipe their states; what they do not wipe is the copy of a key that they are made from.
pub fn wipe_stack() {
    zeroize_stack::<BELOW>();
}

/// The same of all that a request has had of it.
#[cfg(feature = "agent")]
pub fn wipe_deep_stack() {
    zeroize_stack::<{ 64 << 10 }>();
}

/// Runs `work`, and wipes the part of the stack that it has used.
pub fn without_traces<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    wipe_stack();
    result
}

/// With a frame of its own, below the caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}
