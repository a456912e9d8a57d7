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
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes ownership of a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The one way to read it. The caller answers for where it goes.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Bytes of the stack that are wiped: several times what a hash needs of it.
const BELOW: usize = 4096;

/// Runs `work`, and wipes the part of the stack that it has used. The hashes wipe their states; what they do not wipe is the copy
/// of a key that they are made from.
pub fn without_traces<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    zeroize_stack::<BELOW>();
    result
}

/// With a frame of its own, below the caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}
