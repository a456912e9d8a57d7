//! Enrolment only ever goes forward: never, then enrolled. Whoever has once had a device is not let pass for want of one,
//! whatever became of the record, until root says so (`pam-totp reset`).
//!
//! A mark is an empty file `enrolled/NAME.UID` in `state_dir`: a name that is given to somebody else begins anew. Where a
//! host keeps several files of one person in homes, one a service, each but the usual one has marks of its own.

use super::name_and_uid;
use crate::identity::{Named, Person};
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::private::Directory;

const ENROLLED: &str = "enrolled";

/// Letters behind the last dot of a mark that is not of the usual file.
const SUFFIX: usize = 16;

/// Of whom a `state_dir` remembers that they have had a device: names and uids, sorted.
///
/// # Errors
/// [`FileError`].
pub fn remembered(state_dir: &Directory) -> Result<Vec<(Named, u32)>, FileError> {
    let Some(directory) = state_dir.subdirectory(ENROLLED)? else { return Ok(Vec::new()) };
    let mut people = Vec::new();
    let read = directory.for_each_name(|name| people.extend(of_name(name)));
    read.map_err(|error| directory.file_error("", Problem::Failed("readdir", error)))?;
    people.sort();
    people.dedup();
    Ok(people)
}

/// Whose mark this is. `None`: it is none.
fn of_name(mark: &str) -> Option<(Named, u32)> {
    let (name, last) = mark.rsplit_once('.')?;
    // No uid has as many digits.
    let (name, uid) = if last.len() == SUFFIX { name.rsplit_once('.')? } else { (name, last) };
    Some((Person::of_file_name(name)?, uid.parse().ok()?))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_whose_it_is() {
        let named = |name: &str, key: Option<&str>| Named { name: name.into(), key: key.map(str::to_owned) };
        for (mark, expected) in [
            ("alice.1000", Some((named("alice", None), 1000))),
            ("a.b.7", Some((named("a.b", None), 7))),
            ("alice.1000.0123456789abcdef", Some((named("alice", None), 1000))),
            ("b%20c.5", Some((named("b c", None), 5))),
            ("deploy,key-id%3Aalice.9", Some((named("deploy", Some("key-id:alice")), 9))),
            ("alice", None),
            ("alice.x", None),
            ("alice.-1", None),
            (".5", None),
        ] {
            assert_eq!(of_name(mark), expected, "{mark}");
        }
    }

    #[test]
    fn whom_a_directory_remembers_is_listed_once_whichever_file_it_was() {
        let path = crate::system::private::tests::directory();
        let state_dir = Directory::open(path.path()).unwrap().unwrap();
        assert_eq!(remembered(&state_dir), Ok(Vec::new()));
        let account = Person::running_this_process();
        let holder = account.holder("key-id:one").unwrap();
        for (person, suffix) in [(&account, ""), (&account, ".0123456789abcdef"), (&holder, "")] {
            let ratchet = Ratchet::make(&state_dir, suffix).unwrap();
            ratchet.note(person);
            assert_eq!(ratchet.has_enrolled(person), Ok(true));
        }
        let uid = account.uid();
        assert_eq!(remembered(&state_dir), Ok(vec![(account.named(), uid), (holder.named(), uid)]));
    }
}
