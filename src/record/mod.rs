//! What is known about one person: the secret, how codes are judged, and what has been used up. Pure.

pub mod google;

use crate::fact::Fact;
use crate::otp::{Algorithm, Digits};
use crate::secret::Secret;
use std::sync::Arc;

/// Everything that [`crate::verify::decide`] looks at, and, with changes, what it wants written.
///
/// An option that cannot be read spoils what depends on it and nothing else, as in the C module: with a broken
/// `WINDOW_SIZE` a scratch code still gets its owner in; with a broken `RATE_LIMIT` nothing does.
#[derive(Clone)]
pub struct Record {
    /// The shared secret, one byte or more.
    pub secret: Arc<Secret<Vec<u8>>>,
    /// What kind of code the device shows.
    pub device: Result<Device, BadLine>,
    /// How often a person may try. `None`: the record sets no limit.
    pub rate_limit: Result<Option<RateLimit>, BadLine>,
    /// Scratch codes that have not been spent: 8 digits, no leading zero.
    pub scratch: Arc<Secret<Vec<u32>>>,
}

/// What moves between two codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The record says neither time nor counter: only scratch codes work.
    None,
    /// Time (RFC 6238).
    Totp(Totp),
    /// A counter (RFC 4226).
    Hotp(Hotp),
}

/// A time-based device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totp {
    /// The hash.
    pub algorithm: Algorithm,
    /// Digits of a code.
    pub digits: Digits,
    /// Seconds a time step lasts, 1 to 60.
    pub period: u64,
    /// Which steps around the present one are accepted.
    pub window: Window,
    /// Steps whose codes have been accepted. The highest of them is the one-time mark: no step at or below it is ever
    /// accepted again (RFC 6238 section 5.2). The others are kept for the C module, which looks for the step itself.
    pub used: Vec<u64>,
}

impl Totp {
    /// The highest accepted step.
    pub fn mark(&self) -> Option<u64> {
        self.used.iter().copied().max()
    }
}

/// A counter-based device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hotp {
    /// The hash.
    pub algorithm: Algorithm,
    /// Digits of a code.
    pub digits: Digits,
    /// How many counters are tried, from the next one on (the look-ahead of RFC 4226 section 7.4), 1 to 100.
    pub look_ahead: u64,
    /// The next counter, 1 or more. Every counter below it is spent.
    pub counter: u64,
}

/// The accepted steps, counted from the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Steps in the past.
    pub behind: u64,
    /// Steps in the future.
    pub ahead: u64,
}

impl Window {
    /// The C module's reading of `WINDOW_SIZE n`: n steps in all, the odd one out lies in the future.
    pub const fn of_size(size: u64) -> Self {
        Self { behind: size.saturating_sub(1) / 2, ahead: size / 2 }
    }

    /// How many steps there are in all.
    pub const fn size(self) -> u64 {
        self.behind.saturating_add(self.ahead).saturating_add(1)
    }
}

/// `RATE_LIMIT tries seconds`: at most so many tries in so many seconds, right ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// 1 to 100.
    pub tries: usize,
    /// 1 to 3600.
    pub seconds: u64,
    /// When tries were made, in seconds since 1970.
    pub charged: Vec<u64>,
}

/// An option line that cannot be read. Carries no text of the file: the next line may be a scratch code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The option.
    pub key: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

impl BadLine {
    /// For the log.
    pub fn fact(&self) -> Fact {
        Fact::new("bad-option").with_number("line", self.line).with("key", self.key).or(self.expected)
    }
}
