//! Where records live, and the one way to a verdict.

#[cfg(test)]
pub mod conformance;
pub mod home;
#[cfg(test)]
pub mod memory;

use crate::fact::Fact;
use crate::identity::Person;
use crate::record::Record;
use crate::verify::{Charge, Verdict};
use std::path::PathBuf;

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
    /// [`StoreError::Failed`]: it cannot be told.
    fn has_record(&self, person: &Person) -> Result<bool, StoreError>;
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
    /// Anything else: an error is never taken for absence.
    Failed(Fact),
}

impl StoreError {
    /// For the log.
    pub fn into_fact(self) -> Fact {
        match self {
            Self::NotEnrolled(fact) | Self::Failed(fact) => fact,
        }
    }
}
