//! `allow_readonly`: logins go on while the file system of a secret file is mounted read-only.
//!
//! Codes work once all the same: what would be written to the file is kept under /run, root's alone, until the file can be
//! written again or the machine boots. It counts for as long as the file has the text that it was made from, and for every
//! service: a file that is read-only for one may be writable for another, in a mount namespace of its own.

use super::file_key;
use crate::identity::Person;
use crate::secret::Secret;
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::ids::as_user;
use crate::system::passwd::process_uids;
use crate::system::private::{self, Directory, RUN};
use std::path::Path;

/// Where the changes to a file are kept.
pub(super) struct Changes {
    name: String,
}

impl Changes {
    /// Those of this person's file.
    pub(super) fn of(person: &Person, path: &Path) -> Self {
        Self { name: format!("changes-{}", file_key(person, path)) }
    }

    /// The text that was kept for a file with this text. A process that is not root's keeps nothing and finds nothing.
    pub(super) fn read(&self, base: &Secret<Vec<u8>>) -> Result<Option<Secret<Vec<u8>>>, Errno> {
        if process_uids().1 != 0 || private::is_missing(Path::new(RUN)) {
            return Ok(None);
        }
        let kept = as_root(|| match Directory::open(Path::new(RUN)).map_err(errno)? {
            Some(directory) => directory.read(&self.name),
            None => Ok(None),
        })?;
        let Some(kept) = kept else { return Ok(None) };
        let header = header(base);
        let text =
            kept.expose().strip_prefix(header.as_slice()).and_then(|rest| rest.strip_prefix(base.expose().as_slice()));
        Ok(text.map(|text| Secret::new(text.to_vec())))
    }

    /// Keeps a text for the file that has the text `base`.
    pub(super) fn keep(&self, base: &Secret<Vec<u8>>, text: &Secret<Vec<u8>>) -> Result<(), Errno> {
        let parts = [header(base).as_slice(), base.expose(), text.expose()].concat();
        let parts = Secret::new(parts);
        // The caller holds the file's lock.
        let temporary = format!("{}.new", self.name);
        as_root(|| Directory::make(Path::new(RUN)).map_err(errno)?.write(&self.name, &temporary, parts.expose()))
    }

    /// The file itself has been written.
    pub(super) fn forget(&self) -> Result<(), Errno> {
        if process_uids().1 != 0 || private::is_missing(Path::new(RUN)) {
            return Ok(());
        }
        as_root(|| {
            Directory::open(Path::new(RUN)).map_err(errno)?.map_or(Ok(()), |directory| directory.remove(&self.name))
        })
    }
}

/// The length of the text that the changes were made from, so that one text cannot be taken for the beginning of another.
fn header(base: &Secret<Vec<u8>>) -> Vec<u8> {
    format!("{}\n", base.expose().len()).into_bytes()
}

/// Nobody but a process of root's can keep anything under /run.
fn as_root<T>(work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    as_user(0, 0, work)?
}

/// What the kernel said; EPERM where the directory is not root's alone.
fn errno(error: FileError) -> Errno {
    match error.problem {
        Problem::Failed(_, errno) => errno,
        _ => Errno::PERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_text_is_not_kept_of_its_beginning() {
        let header = |text: &str| header(&Secret::new(text.into()));
        assert_ne!(header("JBSWY3DP\n"), header("JBSWY3DP\nJ"));
        assert!(header("").ends_with(b"\n"), "where a number ends is seen");
    }

    #[test]
    fn a_directory_that_is_not_roots_alone_may_not_be_used() {
        let error = |problem| FileError { path: RUN.into(), problem };
        assert_eq!(errno(error(Problem::Failed("open", Errno::IO))), Errno::IO);
        assert_eq!(errno(error(Problem::Permissions(0o777))), Errno::PERM);
    }
}
