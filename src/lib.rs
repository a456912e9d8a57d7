//! A PAM module that asks for a one-time code.
//!
//! The way of a login, in the order of the modules below:
//!
//! 1. [`pam`]: libpam calls `pam_sm_authenticate`; no panic and no C pointer gets past this edge.
//! 2. [`options`]: the module's arguments; an unknown one denies.
//! 3. [`policy`]: what root decides.
//! 4. [`identity`], [`source`]: whose code is asked for, and where the login comes from.
//! 5. [`authenticate`]: the story of a login on one page.
//! 6. [`ledger`]: how many codes failed, a person and a source. A guess is charged before it is judged.
//! 7. [`verify`]: is this code right, unused and within its budget? Pure.
//! 8. [`record`], [`otp`]: what is known about a person, and the arithmetic of codes. Pure.
//! 9. [`enrol`]: a device to be, and how it is shown.
//! 10. [`store`]: where records live. A verdict comes out of a commit and from nowhere else.
//! 11. [`fact`], [`secret`]: what the operator's log may say, and what it may not.
//! 12. [`system`]: files, locks, ids, clock. With [`pam`] the only place of unsafe code.
//!
//! What is read from outside has properties, which the tests and the fuzzers hold it to: `properties`.
//!
//! With the feature `fleet`, `fleet` is where records are that several hosts have in common.
//! [`agent`] is the same login, decided in another process. [`gate`] is it without PAM, for the program; [`journal`] has the
//! lines of the log for all of them.

#[allow(unsafe_code)]
pub mod pam;

pub mod agent;

pub mod gate;

pub mod journal;

pub mod options;

pub mod policy;

pub mod identity;

pub mod source;

pub mod authenticate;

pub mod ledger;

pub mod verify;

pub mod record;

pub mod otp;

pub mod enrol;

pub mod store;

#[cfg(feature = "fleet")]
pub mod fleet;

pub mod fact;

pub mod secret;

mod words;

#[allow(unsafe_code)]
pub mod system;

#[cfg(any(test, fuzzing))]
pub mod properties;
