//! Randomness from the kernel.

use super::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// `N` bytes of getrandom(2), which blocks until the pool has been seeded once after boot.
///
/// # Errors
/// As getrandom(2).
pub fn bytes<const N: usize>() -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(filled..) {
        match getrandom(rest, GetRandomFlags::empty()) {
            Ok(count) => filled = filled.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// The end of a file name that nobody else uses: a dot and 16 hexadecimal digits.
///
/// # Errors
/// As getrandom(2).
pub fn suffix() -> Result<String, Errno> {
    Ok(format!(".{:016x}", u64::from_ne_bytes(bytes()?)))
}
