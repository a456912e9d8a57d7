//! The person's own file, `~/.google_authenticator`, or wherever `secret=` says.
//!
//! The file is read and written with its owner's rights and replaced as a whole. Its lock is on the file itself, as it
//! has no other place, and passes on to the file that replaces it; a file that was replaced while we waited for its lock
//! is opened anew.

use super::ratchet::Ratchet;
use super::{Attempt, Bill, Change, Paid, Store, StoreError};
use crate::fact::Fact;
use crate::identity::Person;
use crate::options;
use crate::policy;
use crate::record::google::{self, Document};
use crate::record::native::hexadecimal;
use crate::record::{BadLine, Record};
use crate::secret::Secret;
use crate::system::Errno;
use crate::system::files::{Expected, FileError, Place, Problem, Seen, belongs_to, open_directory};
use crate::system::ids::as_user;
use crate::system::lock::{NoLock, Patience, exclusive_on_host};
use crate::system::passwd::process_uids;
use crate::system::private::Directory;
use crate::verify::{Charge, Verdict};
use looks::Look;
use readonly::Changes;
use sha1::{Digest, Sha1};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Mode of a file that we make: its owner reads it, and a login replaces it.
const NEW_FILE_MODE: u32 = 0o400;

/// Bytes of a secret that is not remarked upon: 128 bits, the least that RFC 4226 section 4 (R6) allows.
const STRONG_SECRET: usize = 16;

/// Records in files that belong to the people they are about.
#[derive(Debug, Clone, Copy)]
pub struct HomeStore<'a> {
    /// The value of `secret=`.
    pub secret: &'a [u8],
    /// Off with `no_strict_owner`.
    pub strict_owner: bool,
    /// `allowed_perm=`.
    pub allowed_perm: u32,
    /// `allow_readonly`.
    pub allow_readonly: bool,
    /// Where root remembers who has ever had a record. `None`: nowhere.
    pub state_dir: Option<&'a Path>,
}

impl Default for HomeStore<'_> {
    fn default() -> Self {
        Self {
            secret: policy::SECRET.as_bytes(),
            strict_owner: true,
            allowed_perm: options::ALLOWED_PERM,
            allow_readonly: false,
            state_dir: None,
        }
    }
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
            Self::Lock(NoLock::Refused(error) | NoLock::Failed(error), path) => StoreError::Failed(
                Fact::new("no-lock")
                    .with_path(&path)
                    .with_error(error)
                    .or("neither the file nor /run/pam_totp can be locked"),
            ),
            Self::Other(fact) => StoreError::Failed(fact),
            Self::NotEnrolled(path) => {
                StoreError::NotEnrolled(Fact::new("not-enrolled").with_path(&path).or("enrol with: pam-totp enrol"))
            }
        }
    }
}

impl Store for HomeStore<'_> {
    /// A denial that leaves no trace in the file needs no lock, so whoever guesses can keep nobody from it.
    fn attempt<'c>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'c>,
        _: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        let looked = self.opened(person, |place, file| match charge(file.document.record()).without_storing() {
            Some(verdict) => {
                let remarks = remarks(&file.document, &file.seen);
                ControlFlow::Break(Attempt { verdict, place: place.path().to_owned(), remarks, paid: Paid::Not })
            }
            None => ControlFlow::Continue((place, file)),
        });
        let looked = looked.map_err(Error::for_log).map_err(|error| match error {
            StoreError::NotEnrolled(_) if self.had_record(person) == Ok(true) => {
                StoreError::NotEnrolled(super::gone().with_path(&self.path(person).unwrap_or_default()))
            }
            error => error,
        });
        let (place, Opened { seen, document, .. }) = match looked? {
            ControlFlow::Break(denied) => return Ok(denied),
            ControlFlow::Continue(found) => found,
        };
        self.locked(person, Some((place, seen)), |place, seen| {
            let mut file = self.read(person, place, seen, Some(document))?;
            let remarks = remarks(&file.document, &file.seen);
            let decision = match charge(file.document.record()) {
                Charge::Refused(decision) => decision,
                // A charge has to outlive a kill, not a power cut.
                Charge::Due(due) => due.commit(|next| self.store(place, &mut file, next, false))?.decide(),
            };
            let verdict = decision.commit(|next| self.store(place, &mut file, next, true))?;
            Ok(Attempt { verdict, place: place.path().to_owned(), remarks, paid: Paid::Not })
        })
        .map_err(Error::for_log)
        .inspect(|attempt| {
            if matches!(attempt.verdict, Verdict::Accepted(_)) {
                self.note(person);
            }
        })
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        self.opened(person, |_, file| file.document.record().clone()).map_err(Error::for_log)
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        self.with_rights_of(person, |location| match location.place()? {
            Some(place) if place.is_taken()? => Ok(true),
            _ => location.is_the_persons(person).map(|()| false),
        })
        .map_err(Error::for_log)
    }

    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(!self.has_record(person)? && !self.had_record(person).map_err(|error| StoreError::Failed(error.fact()))?)
    }

    fn path(&self, person: &Person) -> Result<PathBuf, Fact> {
        expand(self.secret, person).map_err(|error| error.for_log().into_fact())
    }

    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        let text = google::new_text(record);
        let created = self.with_rights_of(person, |location| {
            let place = location.place()?.ok_or_else(|| location.missing_directory())?;
            match place.create(&text, NEW_FILE_MODE) {
                Err(FileError { problem: Problem::Failed(_, Errno::EXIST), .. }) => Ok(false),
                other => Ok(other.map(|()| true)?),
            }
        });
        let result = match created {
            Ok(true) => Ok(()),
            Ok(false) if replace => self.locked(person, None, |place, seen| {
                Ok(place.replace(&seen, &text, Some(NEW_FILE_MODE), true).map(|_| ())?)
            }),
            Ok(false) => Err(Error::Other(Fact::new("already-enrolled").or("--force replaces the file"))),
            Err(error) => Err(error),
        };
        result.map(|()| self.note(person)).map_err(Error::for_log)
    }

    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        self.locked(person, None, |place, seen| {
            let mut file = self.read(person, place, seen, None)?;
            let mut next = file.document.record().clone();
            change(&mut next).map_err(Error::Other)?;
            self.store(place, &mut file, &next, true)
        })
        .map_err(Error::for_log)
    }

    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        if !self.has_record(person)? {
            return Ok(false);
        }
        // First: there must be no moment without a file and without a mark.
        self.set_mark(person).map_err(|error| StoreError::Failed(error.fact()))?;
        // No login shall put back what it has read before.
        match self.locked(person, None, |place, _| Ok(place.remove()?)) {
            Err(Error::NotEnrolled(_)) => Ok(false),
            result => result.map_err(Error::for_log),
        }
    }

    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        self.forget(person)
    }
}

impl HomeStore<'_> {
    /// What root remembers of who has ever had a record, if there is anything.
    fn ratchet(&self) -> Result<Option<Ratchet>, FileError> {
        match self.state_dir.filter(|_| process_uids().1 == 0) {
            Some(path) => {
                Directory::open(path)?.map_or(Ok(None), |directory| Ratchet::new(&directory, &self.mark_suffix()))
            }
            None => Ok(None),
        }
    }

    /// Whether the person had a file here, or may have one where it would be: a home that is not there, or is another's, has
    /// none of theirs, one of theirs that cannot be looked into may.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be told.
    pub(super) fn may_have_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        if self.had_record(person).map_err(|error| StoreError::Failed(error.fact()))? {
            return Ok(true);
        }
        let Some(_look) = Look::begin(person.uid()) else {
            let fact = Fact::new("home-busy").with_number("uid", person.uid());
            return Err(StoreError::Failed(
                fact.or("it does not answer: is what it is on mounted, and its server there?"),
            ));
        };
        let taken = self.with_rights_of(person, |location| match location.place()? {
            Some(place) => Ok(place.is_taken()?),
            None => Ok(false),
        });
        let is_anothers = || {
            let owner = person.home().and_then(|home| std::fs::metadata(home).ok()).map(|home| home.uid());
            owner.is_some_and(|owner| owner != person.uid())
        };
        match taken {
            Err(Error::File(error)) if error.is_missing() => Ok(false),
            Err(_) if is_anothers() => Ok(false),
            result => result.map_err(Error::for_log),
        }
    }

    /// Forgets that the person ever had a file here. Says whether that was so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn forget(&self, person: &Person) -> Result<bool, StoreError> {
        let forgotten = self.ratchet().and_then(|ratchet| ratchet.map_or(Ok(false), |ratchet| ratchet.release(person)));
        forgotten.map_err(|error| StoreError::Failed(error.fact()))
    }

    /// People may have a file a service: a code at one says nothing about another.
    fn mark_suffix(&self) -> String {
        if self.secret == policy::SECRET.as_bytes() {
            return String::new();
        }
        // Eight bytes tell the few paths of a host apart.
        format!(".{:.16}", hexadecimal(&Sha1::digest(self.secret)))
    }

    fn had_record(&self, person: &Person) -> Result<bool, FileError> {
        self.ratchet()?.map_or(Ok(false), |ratchet| ratchet.has_enrolled(person))
    }

    /// Remembers somebody for good, as far as this process may.
    fn set_mark(&self, person: &Person) -> Result<(), FileError> {
        let Some(path) = self.state_dir.filter(|_| process_uids().1 == 0) else { return Ok(()) };
        Ratchet::make(&Directory::make(path)?, &self.mark_suffix())?.set(person)
    }

    /// Remembers somebody who has a record, where that is possible: a full disk must not keep them out.
    fn note(&self, person: &Person) {
        let Some(path) = self.state_dir.filter(|_| process_uids().1 == 0) else { return };
        let ratchet = self.ratchet().ok().flatten();
        let make = || Directory::make(path).and_then(|directory| Ratchet::make(&directory, &self.mark_suffix())).ok();
        if let Some(ratchet) = ratchet.or_else(make) {
            ratchet.note(person);
        }
    }

    /// `known`: what it was before.
    fn read(&self, person: &Person, place: &Place, seen: Seen, known: Option<Document>) -> Result<Opened, Error> {
        let owner = self.strict_owner.then_some(person.uid());
        let on_disk = place.read(&seen, Expected { owner, mode: self.allowed_perm })?;
        let changes = Changes::of(person, place.path());
        let kept = changes.read(&on_disk).map_err(|error| not_kept(place, error))?;
        let text = kept.unwrap_or_else(|| Secret::new(on_disk.expose().clone()));
        let document =
            Document::parse_again(text, known).map_err(|bad| Error::Other(bad.fact().with_path(place.path())))?;
        Ok(Opened { seen, on_disk, document, changes })
    }

    /// Stores a record. The file that is open afterwards is the new one, locked like the old one; nobody looks into it again
    /// where that `is_final`.
    fn store(&self, place: &Place, file: &mut Opened, next: &Record, is_final: bool) -> Result<(), Error> {
        let text = file.document.with(next);
        match place.replace(&file.seen, &text, None, is_final) {
            Ok(seen) => {
                file.changes.forget().map_err(|error| not_kept(place, error))?;
                file.seen = seen;
                file.on_disk = Secret::new(text.expose().clone());
            }
            Err(FileError { problem: Problem::Failed(_, Errno::ROFS), .. }) if self.allow_readonly => {
                file.changes.keep(&file.on_disk, &text).map_err(|error| not_kept(place, error))?;
            }
            Err(error) => return Err(error.into()),
        }
        if !is_final {
            file.document = Document::parse(text).map_err(|bad| Error::Other(bad.fact().with_path(place.path())))?;
        }
        Ok(())
    }

    /// Runs `work` on the person's file as it is now, as the person.
    fn opened<T>(&self, person: &Person, work: impl FnOnce(Place, Opened) -> T) -> Result<T, Error> {
        self.with_rights_of(person, |location| {
            let place = location.place()?.ok_or_else(|| Error::NotEnrolled(location.path.clone()))?;
            let file = self.read(person, &place, open(&place)?, None)?;
            Ok(work(place, file))
        })
    }

    /// Runs `work` on the person's file with its lock held, as the person. `found`: where it was a moment ago, and what.
    fn locked<T>(
        &self,
        person: &Person,
        found: Option<(Place, Seen)>,
        work: impl FnOnce(&Place, Seen) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut patience = Patience::default();
        let (place, opened) = self.with_rights_of(person, |location| {
            let (place, seen) = match found {
                Some((place, seen)) => (place, Some(seen)),
                None => (location.place()?.ok_or_else(|| Error::NotEnrolled(location.path.clone()))?, None),
            };
            let opened = open_locked(&place, seen, &mut patience);
            Ok((place, opened))
        })?;
        let (seen, _host_lock) = match opened {
            Err(Error::Lock(NoLock::Refused(_), path)) => {
                // With our own rights: the person must not be able to hold this lock.
                let host_lock = exclusive_on_host(&format!("home-{}", file_key(person, place.path())), &mut patience)
                    .map_err(|error| Error::Lock(error, path))?;
                (self.with_rights_of(person, |_| open(&place))?, Some(host_lock))
            }
            other => (other?, None),
        };
        self.with_rights_of(person, |_| work(&place, seen))
    }

    fn with_rights_of<T>(&self, person: &Person, work: impl FnOnce(Location) -> Result<T, Error>) -> Result<T, Error> {
        let location = Location { path: expand(self.secret, person)?, home: person.home() };
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

/// Opens the file, unless it was `found` open, and takes its lock. As the file is replaced by rename, the lock is good only
/// while the name still leads to the file that is locked.
fn open_locked(place: &Place, mut found: Option<Seen>, patience: &mut Patience) -> Result<Seen, Error> {
    loop {
        let mut seen = found.take().map_or_else(|| open(place), Ok)?;
        let no_lock = |error| Error::Lock(error, place.path().to_owned());
        seen.lock(patience).map_err(no_lock)?;
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

/// A file that was read.
struct Opened {
    seen: Seen,
    /// What is in it.
    on_disk: Secret<Vec<u8>>,
    /// What counts, which is something else while the file cannot be written.
    document: Document,
    changes: Changes,
}

/// A name for what belongs to one person's file at one path.
fn file_key(person: &Person, path: &Path) -> String {
    format!("{}-{}", person.uid(), hexadecimal(&Sha1::digest(path.as_os_str().as_bytes())))
}

fn not_kept(place: &Place, error: Errno) -> Error {
    Error::Other(
        Fact::new("not-kept")
            .with_path(place.path())
            .with_error(error)
            .or("allow_readonly keeps what cannot be written under /run/pam_totp, which has to be root's alone"),
    )
}

fn remarks(document: &Document, seen: &Seen) -> Vec<&'static str> {
    let record = document.record();
    let odd = (document.odd_lines() > 0).then_some("odd-lines-in-file");
    let linked = (seen.links() > 1).then_some("file-has-other-names");
    let device = record.devices.first();
    let broken = device.is_some_and(|device| matches!(device.kind, Err(BadLine { .. }))).then_some("broken-option");
    let is_weak = |secret: &Secret<Vec<u8>>| secret.expose().len() < STRONG_SECRET;
    let weak = device
        .is_some_and(|device| device.secret.as_ref().is_ok_and(|secret| is_weak(secret)))
        .then_some("weak-secret");
    [odd, linked, broken, weak].into_iter().flatten().collect()
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

    /// Fails where the home is somebody else's: an empty mount point looks like a home without a secret file.
    fn is_the_persons(&self, person: &Person) -> Result<(), Error> {
        let Some(home) = self.home.filter(|home| self.path.starts_with(home)) else { return Ok(()) };
        if belongs_to(&open_directory(home)?, home, person.uid())? {
            return Ok(());
        }
        Err(Error::Other(
            Fact::new("home-of-another").with_path(home).or("nullok holds only where the home belongs to the person"),
        ))
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

mod looks;
mod readonly;

#[cfg(test)]
mod tests;
