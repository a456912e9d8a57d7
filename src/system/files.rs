//! Files in directories that somebody else may write to.
//!
//! Every step goes through a descriptor, nothing is opened that could block, and no link is followed that the owner of
//! a home could have made.

use super::lock::{self, NoLock, Patience};
use super::passwd::process_uids;
use super::signals::without_sigxfsz;
use super::{Errno, random};
use crate::fact::Fact;
use crate::secret::Secret;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, linkat, openat, readlinkat,
    renameat, statat, unlinkat,
};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Largest secret file, as in the C module.
pub const MAX_SIZE: u64 = 65536;
/// Links in one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// All of st_mode that says who may do what, set-user-ID aside.
const PERMISSIONS: u32 = 0o3777;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// To walk through; needs no right to read.
const PASSAGE: OFlags = OFlags::PATH.union(DIRECTORY);

/// What went wrong with which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The file or directory.
    pub path: PathBuf,
    /// What about it.
    pub problem: Problem,
}

/// What can be wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The kernel said so, to this call.
    Failed(&'static str, Errno),
    /// A link where none is followed.
    Link,
    /// `..`, or not absolute.
    Path,
    /// FIFO, directory, device or socket.
    NotAFile,
    /// Owned by the first uid, where the second was expected.
    Owner(u32, u32),
    /// More rights than 0600 for somebody.
    Permissions(u32),
    /// Others than its owner may write to it.
    Writable(u32),
    /// It has so many names, where it may have one.
    Names(u64),
    /// Empty, or larger than [`MAX_SIZE`].
    Size(u64),
    /// It is not what it was when it was read.
    Changed,
    /// The new file is in place, but a power cut could bring the old one back.
    NotSynced(Errno),
}

impl FileError {
    /// Whether this is plain absence.
    pub const fn is_missing(&self) -> bool {
        matches!(self.problem, Problem::Failed(_, Errno::NOENT))
    }

    /// For the log.
    pub fn fact(&self) -> Fact {
        match self.problem {
            Problem::Failed(call, error) => {
                Fact::new("file-error").with_path(&self.path).with("call", call).with_error(error)
            }
            Problem::Link => Fact::new("link")
                .with_path(&self.path)
                .or("a link where none is followed: only root's own, above a home, are"),
            Problem::Path => {
                Fact::new("bad-path").with_path(&self.path).or("the path must be absolute and without `..`")
            }
            Problem::NotAFile => Fact::new("not-a-file").with_path(&self.path),
            Problem::Owner(owner, expected) => Fact::new("wrong-owner")
                .with_path(&self.path)
                .with_number("owner", owner)
                .with_number("expected", expected)
                .or("chown the file to its user"),
            Problem::Permissions(mode) => Fact::new("wrong-mode")
                .with_path(&self.path)
                .with("mode", format!("{mode:04o}"))
                .or("chmod 0600 it: others can use it"),
            Problem::Writable(mode) => Fact::new("wrong-mode")
                .with_path(&self.path)
                .with("mode", format!("{mode:04o}"))
                .or("chmod go-w it: it decides about logins"),
            Problem::Names(names) => Fact::new("several-names")
                .with_path(&self.path)
                .with_number("names", names)
                .or("remove the others: find -samefile shows them"),
            Problem::Size(size) => {
                Fact::new("wrong-size").with_path(&self.path).with_number("size", size).or("1 to 65536 bytes")
            }
            Problem::NotSynced(error) => Fact::new("not-synced")
                .with_path(&self.path)
                .with_error(error)
                .or("the new file is in place, but a power cut could bring the old one back"),
            Problem::Changed => {
                Fact::new("file-changed").with_path(&self.path).or("another program wrote to it in the meantime")
            }
        }
    }
}

/// Names the call and the file in an error.
fn failed<'a>(call: &'static str, path: &'a Path) -> impl FnOnce(Errno) -> FileError + 'a {
    move |error| error_at(path, Problem::Failed(call, error))
}

fn error_at(path: &Path, problem: Problem) -> FileError {
    FileError { path: path.to_owned(), problem }
}

/// Opens a directory by its absolute path. A link on the way is followed if root made it in a directory that nobody
/// else can write to: /home may be one, what users link may not.
///
/// # Errors
/// [`FileError`].
pub fn open_directory(path: &Path) -> Result<OwnedFd, FileError> {
    let mut rest = names(path)?;
    let mut directory = openat(CWD, "/", PASSAGE, Mode::empty()).map_err(failed("open", path))?;
    let mut links = 0_usize;
    while let Some(name) = rest.pop_front() {
        match openat(&directory, &name, PASSAGE, Mode::empty()) {
            Ok(next) => directory = next,
            Err(error) => {
                let Some(target) = root_made_link(&directory, &name, path)? else {
                    return Err(error_at(path, Problem::Failed("open", error)));
                };
                links = links.saturating_add(1);
                if links > MAX_LINKS {
                    return Err(error_at(path, Problem::Failed("open", Errno::LOOP)));
                }
                if target.is_absolute() {
                    directory = openat(CWD, "/", PASSAGE, Mode::empty()).map_err(failed("open", path))?;
                }
                for component in target.components().rev() {
                    if !matches!(component, Component::RootDir | Component::CurDir) {
                        rest.push_front(component.as_os_str().to_owned());
                    }
                }
            }
        }
    }
    Ok(directory)
}

/// Whether a directory belongs to this user. An empty mount point does not.
///
/// # Errors
/// [`FileError`].
pub fn belongs_to(directory: &OwnedFd, path: &Path, uid: u32) -> Result<bool, FileError> {
    Ok(fstat(directory).map_err(failed("stat", path))?.st_uid == uid)
}

/// Reads a file that only root can have written: it and every directory above it belong to root (or to the user of this
/// process, where that is not root) and nobody else may write to them. `Ok(None)`: there is no such file.
///
/// # Errors
/// [`FileError`].
pub fn read_trusted(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(error_at(path, if path.is_absolute() { Problem::NotAFile } else { Problem::Path }));
    };
    let Some((directory, _)) = walk_trusted(path, parent, false)? else { return Ok(None) };
    let place = Place { directory, name: name.to_owned(), path: path.to_owned() };
    let seen = match place.open() {
        Ok(seen) => seen,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error),
    };
    check_trusted(&seen.stat, path, false)?;
    let size = seen.stat.st_size.cast_unsigned();
    let mut text = Vec::with_capacity(usize::try_from(size.min(MAX_SIZE)).unwrap_or(0).saturating_add(64));
    (&seen.file).take(MAX_SIZE).read_to_end(&mut text).map_err(|error| place.io("read", &error))?;
    // A file of which only a part was read is not the file.
    match usize::try_from(size) {
        Ok(size) if size == text.len() => Ok(Some(text)),
        _ => Err(error_at(path, Problem::Size(size))),
    }
}

/// Puts a file of root's, 0644, in the place of whatever has the name: everybody may read it, as programs that are not
/// root's have to. The directories above it are checked as [`read_trusted`] does.
///
/// # Errors
/// [`FileError`]; with [`Problem::NotSynced`] the new file is in place.
pub fn install(path: &Path, text: &[u8]) -> Result<(), FileError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(error_at(path, Problem::Path));
    };
    let (directory, _) =
        walk_trusted(path, parent, false)?.ok_or_else(|| error_at(parent, Problem::Failed("open", Errno::NOENT)))?;
    // Once more, to have something that can be synced.
    let directory = openat(&directory, ".", OFlags::RDONLY | DIRECTORY, Mode::empty()).map_err(failed("open", path))?;
    let place = Place { directory, name: name.to_owned(), path: path.to_owned() };
    let text = Secret::new(text.to_vec());
    let temporary = place.write_temporary(&place.random_suffix()?, &text, 0o644, None)?;
    renameat(&place.directory, &temporary.name, &place.directory, &place.name).map_err(failed("rename", path))?;
    temporary.forget();
    place.sync()
}

/// Opens a directory above which every directory belongs to root (or to the user of this process) and can be written to by
/// nobody else, unless it is sticky as /tmp is: there too what is root's stays root's. No link is followed. `Ok(None)`:
/// there is no such directory.
///
/// # Errors
/// [`FileError`].
pub fn open_trusted_directory(path: &Path) -> Result<Option<(OwnedFd, Stat)>, FileError> {
    walk_trusted(path, path, true)
}

/// Walks down to `directory`, and says what was seen there; `path` is what the caller wants there, for messages.
fn walk_trusted(path: &Path, directory: &Path, sticky: bool) -> Result<Option<(OwnedFd, Stat)>, FileError> {
    // A path that goes back, or is not absolute, is refused for what it is.
    names(path)?;
    let mut rest = names(directory)?;
    let mut open = openat(CWD, "/", PASSAGE, Mode::empty()).map_err(failed("open", path))?;
    let mut so_far = PathBuf::from("/");
    loop {
        let stat = fstat(&open).map_err(failed("stat", &so_far))?;
        check_trusted(&stat, &so_far, sticky)?;
        let Some(name) = rest.pop_front() else { return Ok(Some((open, stat))) };
        so_far.push(&name);
        open = match openat(&open, &name, PASSAGE, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            Err(_) if is_link(&open, &name) => return Err(error_at(&so_far, Problem::Link)),
            Err(error) => return Err(error_at(&so_far, Problem::Failed("open", error))),
        };
    }
}

fn check_trusted(stat: &Stat, path: &Path, sticky: bool) -> Result<(), FileError> {
    let mode = stat.st_mode & 0o7777;
    if stat.st_uid != 0 && stat.st_uid != process_uids().1 {
        return Err(error_at(path, Problem::Owner(stat.st_uid, 0)));
    }
    if mode & 0o022 != 0 && !(sticky && mode & 0o1000 != 0) {
        return Err(error_at(path, Problem::Writable(mode)));
    }
    Ok(())
}

/// Where the link `name` leads; `None` if it is no link.
fn root_made_link(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<Option<PathBuf>, FileError> {
    let Ok(link) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(None) };
    if !FileType::from_raw_mode(link.st_mode).is_symlink() {
        return Ok(None);
    }
    let parent = fstat(directory).map_err(failed("stat", path))?;
    let others_may_write = Mode::from_raw_mode(parent.st_mode).intersects(Mode::WGRP | Mode::WOTH);
    if link.st_uid != 0 || parent.st_uid != 0 || others_may_write {
        return Err(error_at(path, Problem::Link));
    }
    let target = readlinkat(directory, name, Vec::new()).map_err(failed("readlink", path))?;
    Ok(Some(OsStr::from_bytes(target.as_bytes()).into()))
}

/// The components of an absolute path that does not go back.
fn names(path: &Path) -> Result<VecDeque<OsString>, FileError> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::ParentDir | Component::Prefix(_) => return Err(error_at(path, Problem::Path)),
        }
    }
    if path.is_absolute() { Ok(names) } else { Err(error_at(path, Problem::Path)) }
}

/// The place of a file: its directory, open, and its name there.
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

/// A file that was looked at, and what was seen.
pub struct Seen {
    file: File,
    stat: Stat,
    is_locked: bool,
}

/// Who may have a file, and what others may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// `None`: anybody.
    pub owner: Option<u32>,
    /// The mode bits that it may have.
    pub mode: u32,
}

impl Seen {
    /// How many names the file has.
    pub fn links(&self) -> u64 {
        #[allow(clippy::useless_conversion)] // The width differs between architectures.
        u64::from(self.stat.st_nlink)
    }

    /// Takes the file's lock, which is given back with this value. It is good only while the file has its name.
    ///
    /// # Errors
    /// [`NoLock`].
    pub fn lock(&mut self, patience: &mut Patience) -> Result<(), NoLock> {
        lock::exclusive(&self.file, patience)?;
        self.is_locked = !cfg!(pam_totp_without_lock);
        Ok(())
    }

    /// Regular file?
    fn check_type(&self) -> Result<(), Problem> {
        if FileType::from_raw_mode(self.stat.st_mode).is_file() { Ok(()) } else { Err(Problem::NotAFile) }
    }

    /// The checks of the C module, in its order: permissions, owner, size.
    fn check(&self, expected: Expected) -> Result<(), Problem> {
        let mode = self.stat.st_mode & PERMISSIONS;
        if mode & !expected.mode != 0 {
            return Err(Problem::Permissions(mode));
        }
        if let Some(owner) = expected.owner
            && self.stat.st_uid != owner
        {
            return Err(Problem::Owner(self.stat.st_uid, owner));
        }
        match u64::try_from(self.stat.st_size) {
            Ok(1..=MAX_SIZE) => Ok(()),
            size => Err(Problem::Size(size.unwrap_or(0))),
        }
    }

    /// Whether a later look saw the same file in the same state.
    fn is(&self, other: &Stat) -> bool {
        let state = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        state(&self.stat) == state(other)
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if self.is_locked {
            lock::release(&self.file);
        }
    }
}

impl Place {
    /// The file at `relative` below the directory `base`. No link is followed on the way from there, and `..` leads
    /// nowhere. `base_path` is for messages.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn below(base: OwnedFd, base_path: &Path, relative: &Path) -> Result<Self, FileError> {
        let path = base_path.join(relative);
        // The names of a relative path, by the rules for absolute ones.
        let mut names = names(&Path::new("/").join(relative))?;
        let name = names.pop_back().ok_or_else(|| error_at(&path, Problem::NotAFile))?;
        let mut directory = base;
        for name in names {
            directory = openat(&directory, &name, PASSAGE, Mode::empty()).map_err(|error| {
                match (error, is_link(&directory, &name)) {
                    (_, true) => error_at(&path, Problem::Link),
                    (error, false) => error_at(&path, Problem::Failed("open", error)),
                }
            })?;
        }
        // Once more, to have something that can be synced.
        let directory =
            openat(&directory, ".", OFlags::RDONLY | DIRECTORY, Mode::empty()).map_err(failed("open", &path))?;
        Ok(Self { directory, name, path })
    }

    /// The absolute path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything has this name.
    ///
    /// # Errors
    /// Anything but plain absence.
    pub fn is_taken(&self) -> Result<bool, FileError> {
        match self.stat() {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens the file for reading if it is a regular one. Never blocks, and follows no link.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(&self) -> Result<Seen, FileError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &self.name, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP => self.problem(Problem::Link),
            error => failed("open", &self.path)(error),
        })?;
        let stat = fstat(&file).map_err(failed("stat", &self.path))?;
        let seen = Seen { file: File::from(file), stat, is_locked: false };
        seen.check_type().map_err(|problem| self.problem(problem))?;
        Ok(seen)
    }

    /// Whether the name still leads to the file that was opened, unchanged.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn still_holds(&self, seen: &Seen) -> Result<bool, FileError> {
        match self.stat() {
            Ok(stat) => Ok(seen.is(&stat)),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a file after the C module's checks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(&self, seen: &Seen, expected: Expected) -> Result<Secret<Vec<u8>>, FileError> {
        seen.check(expected).map_err(|problem| self.problem(problem))?;
        let size = usize::try_from(seen.stat.st_size).map_err(|_| self.problem(Problem::Changed))?;
        // With room to spare, or read_to_end would first read into a buffer of its own, which is not wiped.
        let mut text = Vec::with_capacity(size.saturating_add(64));
        // From its beginning: it may be for the second time.
        let result = (&seen.file).rewind().and_then(|()| (&seen.file).take(MAX_SIZE).read_to_end(&mut text));
        let text = Secret::new(text);
        match result {
            Ok(read) if read == size => Ok(text),
            Ok(_) => Err(self.problem(Problem::Changed)),
            Err(error) => Err(failed("read", &self.path)(errno(&error))),
        }
    }

    /// Puts `text` in the place of the file that was read: new file, fsync, rename, and where `is_final`, fsync of the
    /// directory. Mode, owner and group stay; where the kernel does not let us keep them, or the file is not the one that
    /// was read any more, nothing changes. A lock goes over to the new file before anybody else can take it.
    ///
    /// # Errors
    /// [`FileError`]; with [`Problem::NotSynced`] the new file is in place.
    pub fn replace(
        &self,
        seen: &Seen,
        text: &Secret<Vec<u8>>,
        mode: Option<u32>,
        is_final: bool,
    ) -> Result<Seen, FileError> {
        let mode = mode.unwrap_or(seen.stat.st_mode & 0o7777);
        // Under the lock one name is enough, and what a killed login left there goes with the next one.
        let suffix = if seen.is_locked { String::new() } else { self.random_suffix()? };
        let temporary = self.write_temporary(&suffix, text, mode, Some(&seen.stat))?;
        let mut successor = Seen {
            file: temporary.file.try_clone().map_err(|error| self.io("dup", &error))?,
            stat: seen.stat,
            is_locked: false,
        };
        if seen.is_locked {
            successor.lock(&mut Patience::default()).map_err(|error| match error {
                NoLock::Busy => self.problem(Problem::Failed("flock", Errno::WOULDBLOCK)),
                NoLock::Refused(error) | NoLock::Failed(error) => self.problem(Problem::Failed("flock", error)),
            })?;
        }
        successor.stat = fstat(&successor.file).map_err(failed("stat", &self.path))?;
        if !(cfg!(pam_totp_without_lock) || self.still_holds(seen)? && temporary.still_holds()) {
            return Err(self.problem(Problem::Changed));
        }
        renameat(&self.directory, &temporary.name, &self.directory, &self.name)
            .map_err(failed("rename", &self.path))?;
        temporary.forget();
        if is_final {
            self.sync()?;
        }
        Ok(successor)
    }

    /// Makes the file, unless something has the name already (EEXIST).
    ///
    /// # Errors
    /// [`FileError`]; with [`Problem::NotSynced`] the new file is in place.
    pub fn create(&self, text: &Secret<Vec<u8>>, mode: u32) -> Result<(), FileError> {
        let temporary = self.write_temporary(&self.random_suffix()?, text, mode, None)?;
        // Unlike a rename, a link never replaces anything.
        linkat(&self.directory, &temporary.name, &self.directory, &self.name, AtFlags::empty())
            .map_err(failed("link", &self.path))?;
        drop(temporary);
        self.sync()
    }

    /// Removes the file. Says whether there was one.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn remove(&self) -> Result<bool, FileError> {
        match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Ok(()) => self.sync().map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed("unlink", &self.path)(error)),
        }
    }

    fn sync(&self) -> Result<(), FileError> {
        fsync(&self.directory).map_err(|error| self.problem(Problem::NotSynced(error)))
    }

    /// A name that nobody else writes to, where there is no lock.
    fn random_suffix(&self) -> Result<String, FileError> {
        random::suffix().map_err(failed("getrandom", &self.path))
    }

    /// A complete and synced file beside this one, with the owner and group of `like`.
    fn write_temporary(
        &self,
        suffix: &str,
        text: &Secret<Vec<u8>>,
        mode: u32,
        like: Option<&Stat>,
    ) -> Result<Temporary<'_>, FileError> {
        let mut name = self.name.clone();
        name.push("~pam_totp");
        name.push(suffix);
        let file = match self.create_exclusively(&name) {
            Err(Errno::EXIST) => {
                unlinkat(&self.directory, &name, AtFlags::empty()).map_err(failed("unlink", &self.path))?;
                self.create_exclusively(&name)
            }
            result => result,
        };
        let file = File::from(file.map_err(failed("create", &self.path))?);
        let mut temporary = Temporary { place: self, name, file, gone: false };
        if let Some(like) = like {
            self.keep_owner(&temporary.file, like)?;
        }
        without_sigxfsz(|| temporary.file.write_all(text.expose())).map_err(|error| self.io("write", &error))?;
        fchmod(&temporary.file, Mode::from_raw_mode(mode)).map_err(failed("chmod", &self.path))?;
        fsync(&temporary.file).map_err(failed("fsync", &self.path))?;
        Ok(temporary)
    }

    fn create_exclusively(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)
    }

    fn keep_owner(&self, file: &File, like: &Stat) -> Result<(), FileError> {
        let made = fstat(file).map_err(failed("stat", &self.path))?;
        let owner = (made.st_uid != like.st_uid).then(|| Uid::from_raw(like.st_uid));
        let group = (made.st_gid != like.st_gid).then(|| Gid::from_raw(like.st_gid));
        if owner.is_some() || group.is_some() {
            fchown(file, owner, group).map_err(failed("chown", &self.path))?;
        }
        Ok(())
    }

    fn io(&self, call: &'static str, error: &std::io::Error) -> FileError {
        failed(call, &self.path)(errno(error))
    }

    fn stat(&self) -> Result<Stat, FileError> {
        statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat", &self.path))
    }

    fn problem(&self, problem: Problem) -> FileError {
        error_at(&self.path, problem)
    }
}

/// A file under a name of its own, unlinked when dropped.
struct Temporary<'a> {
    place: &'a Place,
    name: OsString,
    file: File,
    gone: bool,
}

impl Temporary<'_> {
    /// Whether the name still leads to the file: a program that does without the lock may have made another of it.
    fn still_holds(&self) -> bool {
        let by_name = statat(&self.place.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        match (fstat(&self.file), by_name) {
            (Ok(own), Ok(other)) => (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino),
            _ => false,
        }
    }

    /// It has its final name now.
    fn forget(mut self) {
        self.gone = true;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.gone && self.still_holds() {
            // Nothing can be done about a failure: the name says what the file is, and it is never read.
            let _ = unlinkat(&self.place.directory, &self.name, AtFlags::empty());
        }
    }
}

fn is_link(directory: &OwnedFd, name: &OsStr) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
