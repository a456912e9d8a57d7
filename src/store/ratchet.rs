//! Enrolment only ever goes forward: never, then enrolled. Whoever has once had a device is not let pass for want of one,
//! whatever became of the record, until root says so (`pam-totp reset`).
//!
//! A mark is an empty file `enrolled/NAME.UID` in `state_dir`: a name that is given to somebody else begins anew. Where a
//! host keeps several files of one person in homes, one a service, each but the usual one has marks of its own.

use super::name_and_uid;
use crate::identity::Person;
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::private::Directory;

const ENROLLED: &str = "enrolled";

/// The marks.
pub(super) struct Ratchet {
    directory: Directory,
    /// What the marks of a file that is not the usual one end in.
    suffix: String,
}

impl Ratchet {
    /// Those of a `state_dir`. `None`: there never was any.
    pub(super) fn new(state_dir: &Directory, suffix: &str) -> Result<Option<Self>, FileError> {
        let directory = state_dir.subdirectory(ENROLLED)?;
        Ok(directory.map(|directory| Self { directory, suffix: suffix.to_owned() }))
    }

    /// The same, made if need be.
    pub(super) fn make(state_dir: &Directory, suffix: &str) -> Result<Self, FileError> {
        Ok(Self { directory: state_dir.make_subdirectory(ENROLLED)?, suffix: suffix.to_owned() })
    }

    /// Whether somebody has ever had a device.
    pub(super) fn has_enrolled(&self, person: &Person) -> Result<bool, FileError> {
        let name = self.name(person);
        match self.directory.stat(&name) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.directory.file_error(&name, Problem::Failed("stat", error))),
        }
    }

    /// Remembers somebody, for good.
    pub(super) fn set(&self, person: &Person) -> Result<(), FileError> {
        let name = self.name(person);
        match self.directory.create(&name) {
            // Also where it is there: a login made it, and did not wait for the disk.
            Ok(_) | Err(Errno::EXIST) => {
                self.directory.sync().map_err(|error| self.directory.file_error(&name, Problem::NotSynced(error)))
            }
            Err(error) => Err(self.directory.file_error(&name, Problem::Failed("create", error))),
        }
    }

    /// Remembers somebody who has just got in, where that is possible: a full disk must not keep them out.
    pub(super) fn note(&self, person: &Person) {
        if self.has_enrolled(person) == Ok(false) {
            let _ = self.directory.create(&self.name(person));
        }
    }

    /// Forgets somebody. Says whether there was anything to forget.
    pub(super) fn release(&self, person: &Person) -> Result<bool, FileError> {
        let name = self.name(person);
        let was_there = self.has_enrolled(person)?;
        let failed = |call| move |error| (call, error);
        let result = self
            .directory
            .remove(&name)
            .map_err(failed("unlink"))
            .and_then(|()| self.directory.sync().map_err(failed("fsync")));
        result.map_err(|(call, error)| self.directory.file_error(&name, Problem::Failed(call, error)))?;
        Ok(was_there)
    }

    fn name(&self, person: &Person) -> String {
        name_and_uid(person) + &self.suffix
    }
}
