//! A verdict that cannot be read before what it rests on has been written.

use crate::fact::Fact;
use crate::record::{BadLine, BadSecret, Record};

/// What was decided, and the record that has to be stored first.
///
/// [`Decision::commit`] is the only way to the verdict, and it consumes the decision: the verdict of one round cannot be
/// given out on the commit of another.
///
/// ```compile_fail,E0616
/// fn cash(decision: pam_totp::verify::Decision) -> pam_totp::verify::Verdict {
///     decision.verdict
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn twice(decision: pam_totp::verify::Decision) -> pam_totp::verify::Decision {
///     decision.clone()
/// }
/// ```
///
/// ```compile_fail,E0382
/// fn cash_twice(decision: pam_totp::verify::Decision) {
///     let _ = decision.commit(|_| Ok::<(), ()>(()));
///     let _ = decision.commit(|_| Ok::<(), ()>(()));
/// }
/// ```
#[must_use = "a decision that is not committed has judged a guess for free"]
pub struct Decision {
    verdict: Verdict,
    next: Option<Record>,
}

impl Decision {
    /// There is no acceptance without something to store: the code has to be used up.
    pub(super) const fn accept(accepted: Accepted, next: Record) -> Self {
        Self { verdict: Verdict::Accepted(accepted), next: Some(next) }
    }

    pub(super) const fn deny(denial: Denial, next: Option<Record>) -> Self {
        Self { verdict: Verdict::Denied(denial), next }
    }

    /// Gives out a denial for which nothing has to be stored.
    ///
    /// # Errors
    /// It is none: the decision as it was.
    #[allow(clippy::result_large_err)] // It is no failure, and there is one of it.
    pub(crate) fn without_storing(self) -> Result<Verdict, Self> {
        match (self.next, self.verdict) {
            (None, denied @ Verdict::Denied(_)) => Ok(denied),
            (next, verdict) => Err(Self { verdict, next }),
        }
    }

    /// Whether it is a denial, for a store that writes something else then. It says nothing before the write but what it is for.
    #[cfg(feature = "fleet")]
    pub(crate) const fn is_denial(&self) -> bool {
        matches!(self.verdict, Verdict::Denied(_))
    }

    /// Whether nothing was judged, and nothing is to be paid for it.
    #[cfg(feature = "fleet")]
    pub(crate) const fn is_no_guess(&self) -> bool {
        matches!(self.verdict, Verdict::Denied(Denial::NotACode | Denial::Throttled { .. }))
    }

    /// For an operator who asks why. What would have to be stored is dropped, and with it the verdict.
    pub(super) fn explained(self) -> Explained {
        match self.verdict {
            Verdict::Accepted(accepted) => Explained::Right(accepted),
            Verdict::Denied(denial) => Explained::Refused(denial),
        }
    }

    /// Stores the next record, if there is one, and gives out the verdict.
    ///
    /// # Errors
    /// What `write` returned; the verdict is gone then.
    pub fn commit<E>(self, write: impl FnOnce(&Record) -> Result<(), E>) -> Result<Verdict, E> {
        match &self.next {
            Some(next) => write(next)?,
            None => debug_assert!(!matches!(self.verdict, Verdict::Accepted(_))),
        }
        Ok(self.verdict)
    }
}

/// The answer to "may this person in?".
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The code was right, new and within the budget, and is used up now.
    Accepted(Accepted),
    /// It was not.
    Denied(Denial),
}

/// What would be said of a code, to whoever may know: not a [`Verdict`], as nothing was stored for it.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explained {
    /// It is right, new, and not used up by this.
    Right(Accepted),
    /// It is not.
    Refused(Denial),
}

/// A code that was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What kind of code it was.
    pub factor: Factor,
    /// How long it was: in a combined answer the password stands before it.
    pub length: usize,
    /// The name of the device. Empty where it has none, and for a code that is no device's.
    pub device: String,
}

impl Accepted {
    /// For the log.
    pub fn fact(&self) -> Fact {
        let fact = self.factor.fact();
        if self.device.is_empty() { fact } else { fact.with("device", &self.device) }
    }
}

/// What kind of code was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// A time-based code, so many steps ahead of our clock (or behind it).
    Totp {
        /// The device's clock is ahead of ours, or equal.
        ahead: bool,
        /// Time steps.
        steps: u64,
    },
    /// A counter-based code.
    Hotp {
        /// Counters that the device had moved on without us.
        skipped: u64,
    },
    /// A scratch code.
    Scratch {
        /// How many are left.
        left: usize,
    },
    /// A recovery code of a root-only record, or a scratch code that was imported into one.
    Recovery {
        /// How many are left.
        left: usize,
    },
}

impl Factor {
    /// For the log: the kind, and what tells an operator that a clock drifts or scratch codes run out.
    fn fact(self) -> Fact {
        match self {
            Self::Totp { ahead, steps } => {
                let sign = if ahead || steps == 0 { "+" } else { "-" };
                Fact::new("totp").with("steps", format!("{sign}{steps}"))
            }
            Self::Hotp { skipped } => Fact::new("hotp").with_number("skipped", skipped),
            Self::Scratch { left } => Fact::new("scratch-code").with_number("left", left),
            Self::Recovery { left } => Fact::new("recovery-code").with_number("left", left),
        }
    }
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// Not the length of any code of this record.
    NotACode,
    /// No code of the window.
    WrongCode {
        /// The counter that it took with it.
        moved_from: Option<u64>,
    },
    /// A right code of a wrong time, noted in the record.
    WrongTime,
    /// A code of the window, at or below the one-time mark.
    UsedCode,
    /// The budget is spent; the answer was not judged.
    Throttled {
        /// So many tries …
        tries: usize,
        /// … in so many seconds.
        seconds: u64,
    },
    /// The answer was not judged, for a reason that lies outside of the record.
    Refused,
    /// Codes of a later time than now have been accepted: the clock was ahead then or is behind now.
    ClockBehindMark {
        /// How long until a code can be accepted again.
        seconds: u64,
    },
    /// The HOTP counter has no successor.
    CounterExhausted,
    /// The record has no device, or one that is neither time-based nor counter-based.
    NoDevice,
    /// There is no secret to compare with.
    BadSecret,
    /// The secret has fewer bits than `min_secret_bits`.
    WeakSecret,
    /// An option cannot be read.
    BadOption(BadLine),
}

impl Denial {
    /// For the log.
    pub fn fact(&self) -> Fact {
        match self {
            Self::NotACode => Fact::new("not-a-code"),
            Self::WrongCode { .. } => Fact::new("wrong-code"),
            Self::WrongTime => {
                Fact::new("wrong-time").or("a code of another time; three of them in a row set the difference")
            }
            Self::UsedCode => Fact::new("used-code"),
            Self::Throttled { tries, seconds } => {
                Fact::new("throttled").with_number("tries", tries).with_number("seconds", seconds)
            }
            Self::Refused => Fact::new("refused"),
            Self::ClockBehindMark { seconds } => Fact::new("clock-behind-mark")
                .with_number("seconds", seconds)
                .or("codes of a later time were accepted before: set the clock, or if it is right: pam-totp resync --accept-clock"),
            Self::CounterExhausted => Fact::new("counter-exhausted").or("enrol again"),
            Self::NoDevice => Fact::new("no-device")
                .or("a secret file with neither a TOTP_AUTH nor a HOTP_COUNTER line, or a record whose last device was removed"),
            Self::BadSecret => BadSecret.fact(),
            Self::WeakSecret => Fact::new("weak-secret").or("min_secret_bits asks for a longer one; enrol again"),
            Self::BadOption(bad) => bad.fact(),
        }
    }
}
