//! The person's own file, `~/.google_authenticator`, or wherever `secret=` says.
//!
//! The file is read and written with its owner's rights and replaced as a whole. Its lock is on the file itself, as it
//! has no other place; a file that was replaced while we waited for its lock is opened anew.

use super::{Attempt, Store, StoreError};
use crate::fact::Fact;
use crate::identity::Person;
use crate::record::google::Document;
use crate::record::{BadLine, Record};
use crate::secret::Secret;
use crate::system::files::{FileError, Place, Problem, Seen, open_directory};
use crate::system::ids::as_user;
use crate::system::lock::{NoLock, Patience, exclusive, exclusive_on_host};
use crate::verify::Decision;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mode of a file that we make: its owner reads it, and a login replaces it.
const NEW_FILE_MODE: u32 = 0o400;

/// Records in files that belong to the people they are about.
pub struct HomeStore<'a> {
    spec: &'a [u8],
}

/// What goes wrong here.
#[derive(Debug)]
enum Error {
    File(FileError),
    Lock(NoLock, PathBuf),
    Other(Fact),
    NotEnrolled(PathBuf),
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Error {
    fn for_log(self) -> StoreError {
        match self {
            Self::File(error) => StoreError::Failed(error.fact()),
            Self::Lock(NoLock::Busy, path) => StoreError::Failed(
                Fact::new("locked").with_path(&path).or("another process has held the file's lock for five seconds"),
            ),
            Self::Lock(NoLock::Refused(error), path) => StoreError::Failed(
                Fact::new("no-lock")
                    .with_path(&path)
                    .with_error(error)
                    .or("its file system has no locks, and /run/pam_totp cannot be used"),
            ),
            Self::Other(fact) => StoreError::Failed(fact),
            Self::NotEnrolled(path) => {
                StoreError::NotEnrolled(Fact::new("not-enrolled").with_path(&path).or("enrol with: pam-totp enrol"))
            }
        }
    }
}

impl Store for HomeStore<'_> {
    fn attempt(&self, person: &Person, decide: &dyn Fn(&Record) -> Decision) -> Result<Attempt, StoreError> {
        self.locked(person, |place, seen| {
            let text = place.read(&seen, person.uid())?;
            let document = Document::parse(text).map_err(|bad| Error::Other(bad.fact().with_path(place.path())))?;
            let decision = decide(document.record());
            let verdict = decision.commit(|next| place.replace(&seen, &document.with(next), None))?;
            Ok(Attempt { verdict, remarks: remarks(&document, &seen) })
        })
        .map_err(Error::for_log)
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        self.with_rights_of(person, |location| match location.place()? {
            Some(place) => Ok(place.is_taken()?),
            None => Ok(false),
        })
        .map_err(Error::for_log)
    }
}

impl<'a> HomeStore<'a> {
    /// `spec` is the value of `secret=`.
    pub const fn new(spec: &'a [u8]) -> Self {
        Self { spec }
    }

    /// Where a person's file is.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        expand(self.spec, person).map_err(|error| error.for_log().into_fact())
    }

    /// Stores the first record of a person, or with `replace` one in the place of whatever file is there. At a failure
    /// what was there stays as it was.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; where there is a file and `replace` was not asked for, its reason is `already-enrolled`.
    pub fn enrol(&self, person: &Person, text: &Secret<Vec<u8>>, replace: bool) -> Result<(), StoreError> {
        let created = self.with_rights_of(person, |location| {
            let place = location.place()?.ok_or_else(|| location.missing_directory())?;
            match place.create(text, NEW_FILE_MODE) {
                Err(FileError { problem: Problem::Failed(_, crate::system::Errno::EXIST), .. }) => Ok(false),
                other => Ok(other.map(|()| true)?),
            }
        });
        let result = match created {
            Ok(true) => Ok(()),
            Ok(false) if replace => {
                self.locked(person, |place, seen| Ok(place.replace(&seen, text, Some(NEW_FILE_MODE))?))
            }
            Ok(false) => Err(Error::Other(Fact::new("already-enrolled").or("--force replaces the file"))),
            Err(error) => Err(error),
        };
        result.map_err(Error::for_log)
    }

    /// Runs `work` on the person's file with its lock held, as the person.
    fn locked<T>(&self, person: &Person, work: impl FnOnce(&Place, Seen) -> Result<T, Error>) -> Result<T, Error> {
        let mut patience = Patience::default();
        let place = self.with_rights_of(person, |location| {
            location.place()?.ok_or_else(|| Error::NotEnrolled(location.path.clone()))
        })?;
        let opened = self.with_rights_of(person, |_| open_locked(&place, &mut patience));
        let (seen, _host_lock) = match opened {
            Err(Error::Lock(NoLock::Refused(_), path)) => {
                // With our own rights: the person must not be able to hold this lock.
                let host_lock = exclusive_on_host(&format!("home-{}", person.uid()), &mut patience)
                    .map_err(|error| Error::Lock(error, path))?;
                (self.with_rights_of(person, |_| open(&place))?, Some(host_lock))
            }
            other => (other?, None),
        };
        self.with_rights_of(person, |_| work(&place, seen))
    }

    fn with_rights_of<T>(&self, person: &Person, work: impl FnOnce(Location) -> Result<T, Error>) -> Result<T, Error> {
        let location = Location { path: expand(self.spec, person)?, home: person.home() };
        as_user(person.uid(), person.gid(), || work(location)).map_err(|error| {
            Error::Other(
                Fact::new("no-rights")
                    .with_number("uid", person.uid())
                    .with_error(error)
                    .or("the process may not act for this user"),
            )
        })?
    }
}

/// Opens the file and takes its lock. As the file is replaced by rename, the lock is good only while the name still
/// leads to the file that is locked.
fn open_locked(place: &Place, patience: &mut Patience) -> Result<Seen, Error> {
    loop {
        let seen = open(place)?;
        let no_lock = |error| Error::Lock(error, place.path().to_owned());
        exclusive(&seen, patience).map_err(no_lock)?;
        if cfg!(pam_totp_without_lock) || place.still_holds(&seen)? {
            return Ok(seen);
        }
        patience.look_again().map_err(no_lock)?;
    }
}

fn open(place: &Place) -> Result<Seen, Error> {
    place.open().map_err(|error| match error.is_missing() {
        true => Error::NotEnrolled(error.path),
        false => Error::File(error),
    })
}

fn remarks(document: &Document, seen: &Seen) -> Vec<&'static str> {
    let record = document.record();
    let odd = (document.odd_lines() > 0).then_some("odd-lines-in-file");
    let linked = (seen.links() > 1).then_some("file-has-other-names");
    let broken = matches!(&record.device, Err(BadLine { .. })).then_some("broken-option");
    [odd, linked, broken].into_iter().flatten().collect()
}

/// An expanded path, and the directory from which no link is followed.
struct Location<'a> {
    path: PathBuf,
    home: Option<&'a Path>,
}

impl Location<'_> {
    /// `None`: the home is there, the directory of the file is not, so there can be no file.
    fn place(&self) -> Result<Option<Place>, Error> {
        let below_home = self.home.and_then(|home| Some((home, self.path.strip_prefix(home).ok()?)));
        let (base, relative) = match below_home {
            Some(split) => split,
            None => match (self.path.parent(), self.path.file_name()) {
                (Some(parent), Some(name)) => (parent, Path::new(name)),
                _ => return Err(FileError { path: self.path.clone(), problem: Problem::Path }.into()),
            },
        };
        match Place::below(open_directory(base)?, base, relative) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn missing_directory(&self) -> Error {
        Error::Other(Fact::new("no-directory").with_path(&self.path).or("make the directory of the file first"))
    }
}

/// The C module's reading of `secret=`: `~` at the beginning or after a `/` is the home, `${HOME}` and `${USER}` are
/// what they say anywhere, and what was put in is not looked at again.
fn expand(spec: &[u8], person: &Person) -> Result<PathBuf, Error> {
    let home = || {
        person.home().map(|home| home.as_os_str().as_bytes()).ok_or_else(|| {
            Error::Other(
                Fact::new("bad-argument")
                    .with("argument", "secret")
                    .or("with user= there is no home: use an absolute path, with ${USER} in it"),
            )
        })
    };
    let mut path = Vec::new();
    let mut rest = spec;
    let mut tilde_is_home = true;
    while let [first, tail @ ..] = rest {
        if *first == b'~' && tilde_is_home {
            path.extend_from_slice(home()?);
            (rest, tilde_is_home) = (tail, false);
        } else if let Some(tail) = rest.strip_prefix(b"${HOME}") {
            path.extend_from_slice(home()?);
            (rest, tilde_is_home) = (tail, false);
        } else if let Some(tail) = rest.strip_prefix(b"${USER}") {
            path.extend_from_slice(person.name());
            (rest, tilde_is_home) = (tail, false);
        } else {
            path.push(*first);
            (rest, tilde_is_home) = (tail, *first == b'/');
        }
    }
    Ok(OsStr::from_bytes(&path).into())
}

#[cfg(test)]
mod tests;
