//! What this host remembers of the fleet's documents, so that none of them can be put back: which it was, and how far it had
//! come.
//!
//! A file `fleet-marks/NAME` in `state_dir` for each that was ever read here. They are written without waiting for the disk: after
//! a power cut a mark may be a little older than what it is about, or not be there.

use super::envelope::{ID, Id};
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::lock::{self, Patience};
use crate::system::private::Directory;
use crate::system::signals::without_sigxfsz;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MARKS: &str = "fleet-marks";
/// Bytes of a mark: the id, the sequence, and enough of a digest to tell a whole one.
const SIZE: usize = ID + 8 + 8;

/// How far a document had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: Id,
    pub(super) sequence: u64,
}

impl Mark {
    fn text(self) -> Vec<u8> {
        let body = [&self.id[..], &self.sequence.to_be_bytes()].concat();
        let digest = Sha256::digest(&body);
        [&body[..], digest.get(..8).unwrap_or_default()].concat()
    }
}

/// The marks of this host.
pub(super) struct Marks(Directory);

impl Marks {
    pub(super) fn open(state_dir: &Path) -> Result<Self, FileError> {
        Ok(Self(Directory::make(state_dir)?.make_subdirectory(MARKS)?))
    }

    /// The mark of a document. `Ok(None)`: it was never read here.
    pub(super) fn get(&self, name: &str) -> Result<Option<Mark>, FileError> {
        match self.file(name)? {
            Some(file) => self.read(name, &File::from(file)),
            None => Ok(None),
        }
    }

    /// Remembers that a document has come so far. One that has come further stays.
    pub(super) fn raise(&self, name: &str, mark: Mark) -> Result<(), FileError> {
        self.change(name, |before| {
            Ok(match before? {
                Some(before) if before.id == mark.id && before.sequence >= mark.sequence => None,
                _ => Some(mark),
            })
        })
    }

    /// Remembers this, whatever was there, also what cannot be read.
    pub(super) fn set(&self, name: &str, mark: Mark) -> Result<(), FileError> {
        self.change(name, |_| Ok(Some(mark)))
    }

    /// The names of all documents that were ever read here.
    pub(super) fn names(&self) -> Result<Vec<String>, FileError> {
        let mut names = Vec::new();
        let read = self.0.for_each_name(|name| names.push(name.to_owned()));
        read.map_err(|error| self.0.file_error("", Problem::Failed("readdir", error)))?;
        Ok(names)
    }

    /// Whoever writes to the cluster chooses what keys there are: none leads out of the directory.
    fn check(&self, name: &str) -> Result<(), FileError> {
        let is_good = !matches!(name, "" | "." | "..") && !name.contains('/');
        if is_good { Ok(()) } else { Err(self.0.file_error(name, Problem::Failed("open", Errno::INVAL))) }
    }

    /// `next`: what to write in the place of what was read, if anything.
    fn change(
        &self,
        name: &str,
        next: impl FnOnce(Result<Option<Mark>, FileError>) -> Result<Option<Mark>, FileError>,
    ) -> Result<(), FileError> {
        self.check(name)?;
        let failed = |error| self.0.file_error(name, Problem::Failed("open", error));
        let file = File::from(self.0.lock_file(name).map_err(failed)?);
        // Held for a read and a write, by root alone. Whoever gets no lock goes on: what is lost is the order of two writes.
        let _ = lock::exclusive(&file, &mut Patience::default());
        let before = self.read(name, &file);
        let next = next(before.clone());
        let changed = next.and_then(|mark| mark.map_or(Ok(()), |mark| self.write(name, &file, mark, before)));
        lock::release(&file);
        changed
    }

    fn write(
        &self,
        name: &str,
        file: &File,
        mark: Mark,
        before: Result<Option<Mark>, FileError>,
    ) -> Result<(), FileError> {
        let write = |mark: Mark| without_sigxfsz(|| file.write_all_at(&mark.text(), 0));
        write(mark).map_err(|error| {
            // One that was cut short would be none, and nobody would get in. One that was bad stays bad.
            let _ = before.map(|before| before.map_or_else(|| file.set_len(0), write));
            self.0.file_error(name, Problem::Failed("write", errno(&error)))
        })
    }

    fn file(&self, name: &str) -> Result<Option<OwnedFd>, FileError> {
        self.check(name)?;
        Ok(self.0.open_file(name)?.map(|(file, _)| file))
    }

    fn read(&self, name: &str, file: &File) -> Result<Option<Mark>, FileError> {
        let failed = |error| self.0.file_error(name, Problem::Failed("read", error));
        let mut text = [0; SIZE];
        match file.read_at(&mut text, 0).map_err(|error| failed(errno(&error)))? {
            // Made, and not written.
            0 => return Ok(None),
            SIZE => {}
            _ => return Err(failed(Errno::BADMSG)),
        }
        let (body, digest) = text.split_at(ID + 8);
        if Sha256::digest(body).get(..8) != Some(digest) {
            return Err(failed(Errno::BADMSG));
        }
        let (id, sequence) = body.split_first_chunk().ok_or_else(|| failed(Errno::BADMSG))?;
        let sequence = sequence.try_into().map(u64::from_be_bytes).map_err(|_| failed(Errno::BADMSG))?;
        Ok(Some(Mark { id: *id, sequence }))
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
