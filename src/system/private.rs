//! Directories that are root's alone, so that nobody else can read, hold or change anything in them: /var/lib/pam_totp for
//! what has to outlive a boot, /run/pam_totp for what has to outlive a process.

use super::Errno;
use super::files::{FileError, Problem, open_trusted_directory};
use super::signals::without_sigxfsz;
use crate::secret::Secret;
use rustix::fs::{
    AtFlags, CWD, Dir, Gid, Mode, OFlags, RenameFlags, Stat, StatFs, StatVfs, Uid, chownat, fchmod, fchown, fstat,
    fstatfs, fstatvfs, fsync, linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Gone at the next boot.
pub const RUN: &str = "/run/pam_totp";
/// Largest file that is read.
const MAX_SIZE: u64 = 1 << 20;

const NEVER_BLOCKS: OFlags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

/// Such a directory, open.
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory. `Ok(None)`: it is not there.
    ///
    /// # Errors
    /// [`FileError`]; also where it, or a directory above it, is not root's alone.
    pub fn open(path: &Path) -> Result<Option<Self>, FileError> {
        let Some((descriptor, stat)) = open_trusted_directory(path)? else { return Ok(None) };
        let directory = Self { descriptor, path: path.to_owned() };
        match check(&stat) {
            Ok(()) => Ok(Some(directory)),
            Err(problem) => Err(directory.error(problem)),
        }
    }

    /// The same, made if need be; the directory above it has to be there.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn make(path: &Path) -> Result<Self, FileError> {
        if let Some(directory) = Self::open(path)? {
            return Ok(directory);
        }
        let error = |problem| FileError { path: path.to_owned(), problem };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(error(Problem::Path)) };
        let (parent, _) = open_trusted_directory(parent)?.ok_or(error(Problem::Failed("open", Errno::NOENT)))?;
        match mkdirat(&parent, name, Mode::RWXU) {
            // Somebody else who logs in was faster.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error(Problem::Failed("mkdir", errno))),
        }
        let made = Self::open(path)?.ok_or(error(Problem::Failed("open", Errno::NOENT)))?;
        // Made inside su it has the caller's group.
        chownat(&made.descriptor, "", Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::EMPTY_PATH)
            .map_err(made.failed("chown"))?;
        Ok(made)
    }

    /// A directory in this one. `Ok(None)`: it is not there.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn subdirectory(&self, name: &str) -> Result<Option<Self>, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.file_error(name, Problem::Failed("open", error))),
        };
        let directory = Self { descriptor, path: self.path(name) };
        let stat = fstat(&directory.descriptor).map_err(directory.failed("stat"))?;
        match check(&stat) {
            Ok(()) => Ok(Some(directory)),
            Err(problem) => Err(directory.error(problem)),
        }
    }

    /// The same, made if need be.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn make_subdirectory(&self, name: &str) -> Result<Self, FileError> {
        match mkdirat(&self.descriptor, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(self.file_error(name, Problem::Failed("mkdir", error))),
        }
        let made = self.subdirectory(name)?.ok_or_else(|| self.file_error(name, Problem::Changed))?;
        fchown(&made.descriptor, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(made.failed("chown"))?;
        Ok(made)
    }

    /// The path of a file in it, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file for reading and writing. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// [`FileError`]; also where it is not a regular file of root's alone.
    pub fn open_file(&self, name: &str) -> Result<Option<(OwnedFd, Stat)>, FileError> {
        let file = match openat(&self.descriptor, name, OFlags::RDWR | NEVER_BLOCKS, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.file_error(name, Problem::Failed("open", error))),
        };
        let stat = fstat(&file).map_err(|error| self.file_error(name, Problem::Failed("stat", error)))?;
        let problem = check(&stat).err().or((!is_file(&stat)).then_some(Problem::NotAFile));
        problem.map_or(Ok(Some((file, stat))), |problem| Err(self.file_error(name, problem)))
    }

    /// The file of a lock, made if need be.
    ///
    /// # Errors
    /// As open(2).
    pub fn lock_file(&self, name: &str) -> Result<OwnedFd, Errno> {
        let file = openat(&self.descriptor, name, OFlags::RDWR | OFlags::CREATE | NEVER_BLOCKS, OWNER)?;
        take_possession(&file)?;
        Ok(file)
    }

    /// Reads a file. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub fn read(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, Errno> {
        let file = match openat(&self.descriptor, name, OFlags::RDONLY | NEVER_BLOCKS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = fstat(&file)?;
        read_all(file, &stat).map(Some)
    }

    /// Reads a file that nobody but root can use, by this name alone. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// [`FileError`]; also where it is not a regular file of root's, others have a right to it, or it has another name.
    pub fn read_private(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, FileError> {
        let failed = |call| move |error| self.file_error(name, Problem::Failed(call, error));
        let file = match openat(&self.descriptor, name, OFlags::RDONLY | NEVER_BLOCKS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.file_error(name, Problem::Link)),
            Err(error) => return Err(failed("open")(error)),
        };
        let stat = fstat(&file).map_err(failed("stat"))?;
        let mode = stat.st_mode & 0o7777;
        let others = (mode & 0o077 != 0).then_some(Problem::Permissions(mode));
        // None: it was replaced just now, and had this name alone when it was opened.
        #[allow(clippy::useless_conversion)] // The width differs between architectures.
        let names = (stat.st_nlink > 1).then_some(Problem::Names(u64::from(stat.st_nlink)));
        let problem = (!is_file(&stat)).then_some(Problem::NotAFile).or(check(&stat).err()).or(others).or(names);
        if let Some(problem) = problem {
            return Err(self.file_error(name, problem));
        }
        read_all(file, &stat).map(Some).map_err(failed("read"))
    }

    /// Writes a file in the place of the one that is there, by way of the name `temporary`, which is the caller's alone. A
    /// power cut may leave either of them, or half of one.
    ///
    /// # Errors
    /// As open(2) and write(2); the file is as it was then.
    pub fn write(&self, name: &str, temporary: &str, text: &[u8]) -> Result<(), Errno> {
        self.write_file(name, temporary, text, |_| Ok(()))
    }

    /// The same, on disk when it returns.
    ///
    /// # Errors
    /// As [`Directory::write`] and fsync(2).
    pub fn write_for_good(&self, name: &str, temporary: &str, text: &[u8]) -> Result<(), Errno> {
        self.write_file(name, temporary, text, |file| fsync(file))?;
        self.sync()
    }

    /// Waits until the names in it are on disk.
    ///
    /// # Errors
    /// As fsync(2).
    pub fn sync(&self) -> Result<(), Errno> {
        match fsync(&self.descriptor) {
            // Opened to walk through.
            Err(Errno::BADF) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                fsync(openat(&self.descriptor, ".", flags, Mode::empty())?)
            }
            result => result,
        }
    }

    fn write_file(
        &self,
        name: &str,
        temporary: &str,
        text: &[u8],
        sync: impl FnOnce(&File) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.remove(temporary)?;
        let mut file = File::from(self.create(temporary)?);
        let written = without_sigxfsz(|| file.write_all(text))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| sync(&file))
            .and_then(|()| renameat(&self.descriptor, temporary, &self.descriptor, name));
        if written.is_err() {
            let _ = self.remove(temporary);
        }
        written
    }

    /// Removes a file, which need not be there.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn remove(&self, name: &str) -> Result<(), Errno> {
        match unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// As open(2).
    pub fn create(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | NEVER_BLOCKS;
        let file = openat(&self.descriptor, name, flags, OWNER)?;
        take_possession(&file)?;
        Ok(file)
    }

    /// Gives a file a second name, unless something has that name already (EEXIST).
    ///
    /// # Errors
    /// As link(2).
    pub(super) fn link(&self, name: &str, second: &str) -> Result<(), Errno> {
        linkat(&self.descriptor, name, &self.descriptor, second, AtFlags::empty())
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&self, name: &str, other: &str) -> Result<(), Errno> {
        renameat(&self.descriptor, name, &self.descriptor, other)
    }

    /// Gives two files each other's name, at once.
    ///
    /// # Errors
    /// As renameat2(2); EINVAL on a file system that cannot do this (NFS).
    pub fn exchange(&self, one: &str, other: &str) -> Result<(), Errno> {
        renameat_with(&self.descriptor, one, &self.descriptor, other, RenameFlags::EXCHANGE)
    }

    /// What kind of file system it is on, and how full that is.
    ///
    /// # Errors
    /// As statfs(2).
    pub fn file_system(&self) -> Result<StatFs, Errno> {
        fstatfs(&self.descriptor)
    }

    /// How full that is, and how it is mounted.
    ///
    /// # Errors
    /// As statvfs(3).
    pub fn usage(&self) -> Result<StatVfs, Errno> {
        fstatvfs(&self.descriptor)
    }

    /// Looks at what has this name.
    ///
    /// # Errors
    /// As stat(2).
    pub fn stat(&self, name: &str) -> Result<Stat, Errno> {
        statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The names in it that are text, in no order.
    ///
    /// # Errors
    /// As readdir(3).
    pub fn for_each_name(&self, mut act: impl FnMut(&str)) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.descriptor)? {
            if let Ok(name) = entry?.file_name().to_str()
                && ![".", ".."].contains(&name)
            {
                act(name);
            }
        }
        Ok(())
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(Errno) -> FileError + '_ {
        move |error| self.error(Problem::Failed(call, error))
    }

    fn error(&self, problem: Problem) -> FileError {
        FileError { path: self.path.clone(), problem }
    }

    /// What is wrong with a file in it.
    pub fn file_error(&self, name: &str, problem: Problem) -> FileError {
        FileError { path: self.path(name), problem }
    }
}

fn read_all(file: File, stat: &Stat) -> Result<Secret<Vec<u8>>, Errno> {
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    let mut text = Vec::with_capacity(size.saturating_add(64));
    let result = file.take(MAX_SIZE).read_to_end(&mut text);
    let text = Secret::new(text);
    result.map(|_| text).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Whether there is plainly nothing at a path, by a look that needs nobody's rights. Where that cannot be told, there may be.
pub fn is_missing(path: &Path) -> bool {
    matches!(statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
}

/// A file, and not a link, a directory or a FIFO.
pub const fn is_file(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Root's, and nobody else may write.
fn check(stat: &Stat) -> Result<(), Problem> {
    if stat.st_uid != 0 {
        return Err(Problem::Owner(stat.st_uid, 0));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o022 != 0 { Err(Problem::Writable(mode)) } else { Ok(()) }
}

/// A file made inside su would have the caller's group. Nothing is written where nobody can be kept from reading it (vfat).
fn take_possession(file: impl AsFd) -> Result<(), Errno> {
    fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
    fchmod(&file, OWNER)?;
    if fstat(&file)?.st_mode & 0o077 == 0 { Ok(()) } else { Err(Errno::NOTSUP) }
}

#[cfg(test)]
pub(crate) mod tests {
    /// A directory that only root could have made, where the tests are root's: the build directory is somebody's own.
    pub(crate) fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }
}
