//! Where records live, and the one way to a verdict.

mod admission;
#[cfg(test)]
pub mod conformance;
pub mod home;
#[cfg(test)]
pub mod memory;
mod ratchet;
#[cfg(feature = "seal")]
pub mod seal;
pub mod system;
mod tickets;

pub use admission::{Admission, Grounds, Ticket};
pub use ratchet::remembered;
#[cfg(feature = "seal")]
pub use seal::KeyRing;

use crate::fact::Fact;
use crate::identity::Person;
use crate::policy::{Policy, StoreKind};
use crate::record::Record;
use crate::verify::{Charge, Verdict};
use home::HomeStore;
use std::path::PathBuf;
use system::SystemStore;

/// The module has no keys.
#[cfg(not(feature = "seal"))]
pub enum KeyRing {}

/// A place that keeps records and lets them change one at a time.
pub trait Store {
    /// Judges one answer: loads the record, stores what the answer costs, judges it, stores what came of it, and only
    /// then gives out the verdict. Of any number of attempts at once each sees what the one before it stored.
    ///
    /// `charge` may run more than once (a store without locks tries again), but the verdict is always the one whose
    /// record was stored.
    ///
    /// # Errors
    /// [`StoreError`]: there is no verdict, and whoever asked is not let in.
    fn attempt<'a>(&self, person: &Person, charge: &dyn Fn(&Record) -> Charge<'a>) -> Result<Attempt, StoreError>;

    /// The record as it is now. Whatever needs a code to be right, new or counted needs an [`Store::attempt`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self, person: &Person) -> Result<Record, StoreError>;

    /// Whether the person has a record, good or broken. `false` is said only by a store in working order.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be told.
    fn has_record(&self, person: &Person) -> Result<bool, StoreError>;

    /// Whether the person has no record and never had one here. `true` is said only by a store in working order.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be told.
    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError>;

    /// Where a person's record is, or would be.
    ///
    /// # Errors
    /// What is wrong with the path.
    fn path(&self, person: &Person) -> Result<PathBuf, Fact>;

    /// Stores the first record of a person, or with `replace` one in the place of whatever is there. At a failure what was
    /// there stays as it was.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; where there is a record and `replace` was not asked for, its reason is `already-enrolled`.
    /// With the reason `not-synced` the new record is in place, but a power cut could bring the old one back.
    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError>;

    /// Changes a record on behalf of root or its owner, not of somebody who logs in. What the change took out cannot be read
    /// from the disk afterwards, as far as that is in our hands.
    ///
    /// # Errors
    /// [`StoreError`]; what `change` returns is [`StoreError::Failed`], and the record is as it was.
    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError>;

    /// Removes a record. Says whether there was one. The person has been enrolled, and is not let pass without a device.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, person: &Person) -> Result<bool, StoreError>;

    /// Forgets that the person was ever enrolled. Says whether that was so. A record has to be removed first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn release(&self, person: &Person) -> Result<bool, StoreError>;

    /// First devices inside a login, where this store has them.
    fn admission(&self) -> Option<&dyn Admission> {
        None
    }
}

/// What becomes of a record.
pub type Change<'a> = &'a mut dyn FnMut(&mut Record) -> Result<(), Fact>;

/// The store that a policy names. Sealed records are not read.
pub fn of(policy: &Policy) -> Box<dyn Store + '_> {
    with_ring(policy, None)
}

/// The same, for who has the keys that its records are sealed with, or are to be.
pub fn with_ring<'a>(policy: &'a Policy, ring: Option<&'a KeyRing>) -> Box<dyn Store + 'a> {
    let homes = HomeStore {
        secret: &policy.secret,
        strict_owner: policy.options.strict_owner,
        allowed_perm: policy.options.allowed_perm,
        allow_readonly: policy.options.allow_readonly,
        state_dir: Some(&policy.state_dir),
    };
    match policy.store.value {
        StoreKind::Home => Box::new(homes),
        StoreKind::System => Box::new(SystemStore { state_dir: &policy.state_dir, homes: Some(homes), ring }),
    }
}

/// A judged login.
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The answer.
    pub verdict: Verdict,
    /// Where the record is, for the log.
    pub place: PathBuf,
    /// What an operator should look at some day, for the log; fixed words.
    pub remarks: Vec<&'static str>,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The store works and holds no record of this person.
    NotEnrolled(Fact),
    /// There is no store where it should be: nothing was looked at, and nothing judged.
    Unreachable(Fact),
    /// Anything else: an error is never taken for absence.
    Failed(Fact),
}

impl StoreError {
    /// For the log.
    pub fn into_fact(self) -> Fact {
        match self {
            Self::NotEnrolled(fact) | Self::Unreachable(fact) | Self::Failed(fact) => fact,
        }
    }
}

/// What is about a person and no other is called so: a name that is given to another uid is another person.
fn name_and_uid(person: &Person) -> String {
    format!("{}.{}", person.file_name(), person.uid())
}

/// No record, of somebody who had one.
fn gone() -> Fact {
    Fact::new("record-gone").or(
        "there was one before: put it back, enrol anew with pam-totp enrol --user NAME, or start over with pam-totp reset --user NAME",
    )
}
