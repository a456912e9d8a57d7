//! First devices, for people who get one inside a login.

use super::StoreError;
use crate::identity::Person;
use crate::otp::RecoveryCode;
use crate::record::Record;

/// What a store can do for somebody who has no device. Not every one can: whoever can delete a record must not be enrolled
/// anew for it.
pub trait Admission {
    /// The ticket that this word is, if the person was given it. Whether it is over is for the caller to see.
    ///
    /// # Errors
    /// [`StoreError`].
    fn ticket(&self, person: &Person, word: &RecoveryCode) -> Result<Option<Ticket>, StoreError>;

    /// Whether the person was given a ticket that is not over at this time (seconds since 1970).
    ///
    /// # Errors
    /// [`StoreError`].
    fn is_invited(&self, person: &Person, now: u64) -> Result<bool, StoreError>;

    /// Of the person's account, whoever has a record: the account itself, and holders of its keys.
    ///
    /// # Errors
    /// [`StoreError`].
    fn people_of_account(&self, person: &Person) -> Result<Vec<Person>, StoreError>;

    /// Whether somebody of a shared account never had a device with their key, so that the code of another one of the account
    /// will do for theirs.
    ///
    /// # Errors
    /// [`StoreError`].
    fn is_new_key(&self, person: &Person) -> Result<bool, StoreError>;

    /// Stores somebody's first record, if what it rests on still holds at this time (seconds since 1970). A ticket is spent
    /// with that and not without: it is good for nothing beside the record.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is stored.
    fn admit(&self, person: &Person, record: &Record, grounds: &Grounds, now: u64) -> Result<(), StoreError>;

    /// Gives somebody a ticket, or with the key of an account the holder of that alone. Those that were over before it was
    /// made are removed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn invite(&self, person: &Person, word: &RecoveryCode, ticket: &Ticket) -> Result<(), StoreError>;

    /// Takes all tickets of a person's account back. Says how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    fn withdraw(&self, person: &Person) -> Result<usize, StoreError>;
}

/// What root said of somebody who was invited. The word itself is not kept, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// The first second at which it is over.
    pub expires: u64,
    /// What the device will be called.
    pub device: String,
}

impl Ticket {
    /// Whether it is good no more at this time (seconds since 1970).
    pub const fn is_over(&self, now: u64) -> bool {
        self.expires <= now
    }
}

/// What somebody's first device rests on.
pub enum Grounds {
    /// Neither they nor anybody else of the account ever had one.
    First,
    /// They have a ticket, which is this word.
    Ticket(RecoveryCode, Ticket),
    /// They hold a key of an account, never had a device with it, and have just given the code of this one of its people, of
    /// the device with this name.
    Account(Person, String),
}

impl Grounds {
    /// The word for the log of [`Grounds::Account`].
    pub const ACCOUNT: &'static str = "device-of-account";

    /// A word for the log.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Ticket(..) => "ticket",
            Self::Account(..) => Self::ACCOUNT,
        }
    }
}
