//! Files in directories that somebody else may write to.
//!
//! Every step goes through a descriptor, nothing is opened that could block, and no link is followed that the owner of
//! a home could have made.

use super::signals::without_sigxfsz;
use super::{Errno, random};
use crate::fact::Fact;
use crate::secret::Secret;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, fchmod, fchown, fstat, fsync, linkat, openat, readlinkat,
    renameat, statat, unlinkat,
};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
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
    /// Empty, or larger than [`MAX_SIZE`].
    Size(u64),
    /// It is not what it was when it was read.
    Changed,
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
            Problem::Link => {
                Fact::new("link").with_path(&self.path).or("only links that root made, outside of homes, are followed")
            }
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
            Problem::Size(size) => {
                Fact::new("wrong-size").with_path(&self.path).with_number("size", size).or("1 to 65536 bytes")
            }
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
}

impl Seen {
    /// How many names the file has.
    pub fn links(&self) -> u64 {
        #[allow(clippy::useless_conversion)] // The width differs between architectures.
        u64::from(self.stat.st_nlink)
    }

    /// Regular file?
    fn check_type(&self) -> Result<(), Problem> {
        if FileType::from_raw_mode(self.stat.st_mode).is_file() { Ok(()) } else { Err(Problem::NotAFile) }
    }

    /// The checks of the C module, in its order: nobody but the owner may read or write, the owner is `uid`, the size.
    fn check(&self, uid: u32) -> Result<(), Problem> {
        let mode = self.stat.st_mode & PERMISSIONS;
        if mode & !0o600 != 0 {
            return Err(Problem::Permissions(mode));
        }
        if self.stat.st_uid != uid {
            return Err(Problem::Owner(self.stat.st_uid, uid));
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

impl AsFd for Seen {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
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
        let seen = Seen { file: File::from(file), stat };
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

    /// Reads a file after the C module's checks of mode, owner (`uid`) and size.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(&self, seen: &Seen, uid: u32) -> Result<Secret<Vec<u8>>, FileError> {
        seen.check(uid).map_err(|problem| self.problem(problem))?;
        let size = usize::try_from(seen.stat.st_size).map_err(|_| self.problem(Problem::Changed))?;
        let mut text = Vec::with_capacity(size.saturating_add(1));
        let result = (&seen.file).take(MAX_SIZE).read_to_end(&mut text);
        let text = Secret::new(text);
        match result {
            Ok(read) if read == size => Ok(text),
            Ok(_) => Err(self.problem(Problem::Changed)),
            Err(error) => Err(failed("read", &self.path)(errno(&error))),
        }
    }

    /// Puts `text` in the place of the file that was read: new file, fsync, rename, fsync of the directory. Mode, owner
    /// and group stay; where the kernel does not let us keep them, or the file is not the one that was read any more,
    /// nothing changes.
    ///
    /// # Errors
    /// [`FileError`]; only the last fsync can fail with the new file in place.
    pub fn replace(&self, seen: &Seen, text: &Secret<Vec<u8>>, mode: Option<u32>) -> Result<(), FileError> {
        let temporary = self.write_temporary(text, mode.unwrap_or(seen.stat.st_mode & 0o7777), Some(&seen.stat))?;
        if !cfg!(pam_totp_without_lock) && !self.still_holds(seen)? {
            return Err(self.problem(Problem::Changed));
        }
        renameat(&self.directory, &temporary.name, &self.directory, &self.name)
            .map_err(failed("rename", &self.path))?;
        temporary.forget();
        fsync(&self.directory).map_err(failed("fsync", &self.path))
    }

    /// Makes the file, unless something has the name already (EEXIST).
    ///
    /// # Errors
    /// [`FileError`]; only the last fsync can fail with the new file in place.
    pub fn create(&self, text: &Secret<Vec<u8>>, mode: u32) -> Result<(), FileError> {
        let temporary = self.write_temporary(text, mode, None)?;
        // Unlike a rename, a link never replaces anything.
        linkat(&self.directory, &temporary.name, &self.directory, &self.name, AtFlags::empty())
            .map_err(failed("link", &self.path))?;
        drop(temporary);
        fsync(&self.directory).map_err(failed("fsync", &self.path))
    }

    /// A complete and synced file beside this one, with the owner and group of `like`.
    fn write_temporary(
        &self,
        text: &Secret<Vec<u8>>,
        mode: u32,
        like: Option<&Stat>,
    ) -> Result<Temporary<'_>, FileError> {
        let suffix = random::bytes::<8>().map_err(failed("getrandom", &self.path))?;
        let mut name = self.name.clone();
        name.push(format!("~pam_totp.{:016x}", u64::from_ne_bytes(suffix)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let owner_only = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.directory, &name, flags, owner_only).map_err(failed("create", &self.path))?;
        let temporary = Temporary { place: self, name, gone: false };
        let mut file = File::from(file);
        if let Some(like) = like {
            self.keep_owner(&file, like)?;
        }
        without_sigxfsz(|| file.write_all(text.expose()))
            .map_err(|error| failed("write", &self.path)(errno(&error)))?;
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("chmod", &self.path))?;
        fsync(&file).map_err(failed("fsync", &self.path))?;
        Ok(temporary)
    }

    fn keep_owner(&self, file: &File, like: &Stat) -> Result<(), FileError> {
        let made = fstat(file).map_err(failed("stat", &self.path))?;
        if made.st_uid != like.st_uid {
            return Err(self.problem(Problem::Owner(made.st_uid, like.st_uid)));
        }
        if made.st_gid != like.st_gid {
            fchown(file, None, Some(Gid::from_raw(like.st_gid))).map_err(failed("chown", &self.path))?;
        }
        Ok(())
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
    gone: bool,
}

impl Temporary<'_> {
    /// It has its final name now.
    fn forget(mut self) {
        self.gone = true;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.gone {
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
