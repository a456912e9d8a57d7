//! /run/pam_totp: what has to outlive a process and not a boot. Root's alone, so that nobody else can read, hold or change
//! anything there.

use super::Errno;
use super::signals::without_sigxfsz;
use crate::secret::Secret;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, renameat, unlinkat};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

const DIRECTORY: &str = "/run/pam_totp";
/// Largest file that is read.
const MAX_SIZE: u64 = 1 << 20;

/// The file of a lock, made if need be.
///
/// # Errors
/// As open(2); EPERM where the directory is not root's alone.
pub(super) fn lock_file(name: &str) -> Result<OwnedFd, Errno> {
    let file = openat(directory()?, name, OFlags::RDWR | OFlags::CREATE | NEVER_BLOCKS, OWNER)?;
    take_possession(&file)?;
    Ok(file)
}

/// Reads a file. `Ok(None)`: there is none.
///
/// # Errors
/// As open(2); EPERM where the directory is not root's alone.
pub fn read(name: &str) -> Result<Option<Secret<Vec<u8>>>, Errno> {
    let directory = match open_directory() {
        Err(Errno::NOENT) => return Ok(None),
        result => result?,
    };
    let file = match openat(directory, name, OFlags::RDONLY | NEVER_BLOCKS, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
    let mut text = Vec::with_capacity(size.saturating_add(64));
    let result = file.take(MAX_SIZE).read_to_end(&mut text);
    let text = Secret::new(text);
    result.map(|_| Some(text)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Writes a file in the place of the one that is there. The caller holds a lock.
///
/// # Errors
/// As open(2); EPERM where the directory is not root's alone; the file is as it was then.
pub fn write(name: &str, text: &Secret<Vec<u8>>) -> Result<(), Errno> {
    let directory = directory()?;
    let temporary = format!("{name}.new");
    match unlinkat(&directory, temporary.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | NEVER_BLOCKS;
    let mut file = File::from(openat(&directory, temporary.as_str(), flags, OWNER)?);
    take_possession(&file)?;
    without_sigxfsz(|| file.write_all(text.expose()))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    renameat(&directory, temporary.as_str(), &directory, name)
}

/// Removes a file, which need not be there.
///
/// # Errors
/// As open(2); EPERM where the directory is not root's alone.
pub fn remove(name: &str) -> Result<(), Errno> {
    let directory = match open_directory() {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    };
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

const NEVER_BLOCKS: OFlags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

fn directory() -> Result<OwnedFd, Errno> {
    match mkdirat(CWD, DIRECTORY, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    open_directory()
}

fn open_directory() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, DIRECTORY, flags, Mode::empty())?;
    let stat = fstat(&directory)?;
    if stat.st_uid != 0 || Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(Errno::PERM);
    }
    Ok(directory)
}

/// A file made inside su would have the caller's group.
fn take_possession(file: impl std::os::fd::AsFd) -> Result<(), Errno> {
    fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
    fchmod(&file, OWNER)
}
