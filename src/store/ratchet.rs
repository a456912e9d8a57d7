//! Enrolment only ever goes forward: never, then enrolled. Whoever has once had a device is not let pass for want of one,
//! whatever became of the record, until root says so (`pam-totp reset`).
//!
//! A mark is an empty file `enrolled/NAME.UID` in `state_dir`: a name that is given to somebody else begins anew.

use crate::identity::Person;
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::private::Directory;

const ENROLLED: &str = "enrolled";

/// The marks.
pub(super) struct Ratchet(Directory);

impl Ratchet {
    /// Those of a `state_dir`. `None`: there never was any.
    pub(super) fn new(state_dir: &Directory) -> Result<Option<Self>, FileError> {
        Ok(state_dir.subdirectory(ENROLLED)?.map(Self))
    }

    /// The same, made if need be.
    pub(super) fn make(state_dir: &Directory) -> Result<Self, FileError> {
        state_dir.make_subdirectory(ENROLLED).map(Self)
    }

    /// Whether somebody has ever had a device.
    pub(super) fn has_enrolled(&self, person: &Person) -> Result<bool, FileError> {
        let name = name(person);
        match self.0.stat(&name) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.0.file_error(&name, Problem::Failed("stat", error))),
        }
    }

    /// Remembers somebody, for good.
    pub(super) fn set(&self, person: &Person) -> Result<(), FileError> {
        let name = name(person);
        match self.0.create(&name) {
            Ok(_) => self.0.sync().map_err(|error| self.0.file_error(&name, Problem::NotSynced(error))),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(self.0.file_error(&name, Problem::Failed("create", error))),
        }
    }

    /// Remembers somebody who has just got in, where that is possible: a full disk must not keep them out.
    pub(super) fn note(&self, person: &Person) {
        if self.has_enrolled(person) == Ok(false) {
            let _ = self.0.create(&name(person));
        }
    }

    /// Forgets somebody. Says whether there was anything to forget.
    pub(super) fn release(&self, person: &Person) -> Result<bool, FileError> {
        let name = name(person);
        let was_there = self.has_enrolled(person)?;
        let failed = |call| move |error| (call, error);
        let result =
            self.0.remove(&name).map_err(failed("unlink")).and_then(|()| self.0.sync().map_err(failed("fsync")));
        result.map_err(|(call, error)| self.0.file_error(&name, Problem::Failed(call, error)))?;
        Ok(was_there)
    }
}

fn name(person: &Person) -> String {
    format!("{}.{}", person.file_name(), person.uid())
}
