//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; a clock set before that reads 0. Read through libc, so that a test can bend it.
pub fn now() -> u64 {
    #[allow(clippy::disallowed_methods)] // The one place.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
