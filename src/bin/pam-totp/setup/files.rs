//! The files that setup changes: read with care, and written so that there is the old one or the new one at any moment.

use crate::root::{Root, Unreadable};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::fs::{
    Access, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, accessat, fchmod, fchown, fgetxattr, flistxattr,
    fsetxattr, fstat, fsync, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Behind the name, with a dot before it: neither libpam nor the patterns of sshd's Include take such a file.
const TEMPORARY: &str = ".pam-totp-setup";
/// Attributes are small: an access list, a label.
const LARGEST_ATTRIBUTE: usize = 65_536;

/// A path as a terminal may show it.
pub(super) fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

/// What a file says, if it is one that setup may write to: root's own, text, and not a link. `None`: it is not there.
pub(super) fn text(root: &Root, path: &Path) -> Result<Option<String>> {
    if !ensure_plain(root, path)? {
        return Ok(None);
    }
    match root.read(path) {
        Ok(content) => {
            let text = String::from_utf8(content).map_err(|_| anyhow!("{}: is not UTF-8: not touched", shown(path)))?;
            Ok(Some(text))
        }
        Err(Unreadable::Missing) => Ok(None),
        Err(error) => bail!("{} {error}: not touched", shown(path)),
    }
}

/// Whether there is one.
fn ensure_plain(root: &Root, path: &Path) -> Result<bool> {
    let (directory, name) = match place(root, path) {
        Ok(place) => place,
        Err(Unreadable::Missing) => return Ok(false),
        Err(error) => bail!("{} {error}", shown(path)),
    };
    let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error).with_context(|| shown(path)),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => bail!("{}: is a link, and not touched: setup writes to plain files alone", shown(path)),
        _ => bail!("{}: is not a regular file: not touched", shown(path)),
    }
    ensure!(stat.st_uid == 0, "{}: belongs to uid {}, not to root: not touched", shown(path), stat.st_uid);
    ensure!(stat.st_mode & 0o022 == 0, "{}: others than root may write to it: not touched", shown(path));
    Ok(true)
}

/// Fails where nothing can be written, before anything was.
pub(super) fn ensure_writable(root: &Root, path: &Path) -> Result<()> {
    let (directory, _) = place(root, path).map_err(|error| anyhow!("{} {error}", shown(path)))?;
    accessat(&directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())
        .with_context(|| format!("{} cannot be written, and nothing was changed", shown(path)))
}

/// Makes a file say this, or be gone. On disk when it returns.
pub(super) fn put(root: &Root, path: &Path, content: Option<&str>) -> Result<()> {
    let (directory, name) = place(root, path).map_err(|error| anyhow!("{} {error}", shown(path)))?;
    match content {
        Some(text) => write(&directory, &name, text),
        None => unlink(&directory, &name),
    }
    .and_then(|()| fsync(&directory))
    .map_err(std::io::Error::from)
    .with_context(|| format!("{} cannot be written", shown(path)))
}

/// Removes what a write that was cut off has left.
pub(super) fn tidy(root: &Root, path: &Path) {
    if let Ok((directory, name)) = place(root, path) {
        let _ = unlink(&directory, &temporary(&name));
    }
}

/// The directory of a file, open, and its name there.
fn place(root: &Root, path: &Path) -> Result<(OwnedFd, OsString), Unreadable> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Unreadable::NotAFile) };
    Ok((root.directory(parent)?, name.to_owned()))
}

fn temporary(name: &OsString) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(TEMPORARY);
    temporary
}

fn unlink(directory: &OwnedFd, name: &OsString) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn write(directory: &OwnedFd, name: &OsString, text: &str) -> Result<(), Errno> {
    let temporary = temporary(name);
    unlink(directory, &temporary)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file
        .write_all(text.as_bytes())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .and_then(|()| look_like(&file, directory, name))
        .and_then(|()| fsync(&file))
        .and_then(|()| renameat(directory, &temporary, directory, name));
    if written.is_err() {
        let _ = unlink(directory, &temporary);
    }
    written
}

/// Gives a new file owner, mode and attributes (the SELinux label among them) of the one that it replaces.
fn look_like(new: &File, directory: &OwnedFd, name: &OsString) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let old = match openat(directory, name, flags, Mode::empty()) {
        Ok(old) => old,
        Err(Errno::NOENT) => {
            fchown(new, Some(Uid::ROOT), Some(Gid::ROOT))?;
            return fchmod(new, Mode::from_raw_mode(0o644));
        }
        Err(error) => return Err(error),
    };
    let stat = fstat(&old)?;
    fchown(new, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(new, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0; LARGEST_ATTRIBUTE];
    let length = match flistxattr(&old, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    for attribute in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; LARGEST_ATTRIBUTE];
        let length = fgetxattr(&old, attribute, &mut value)?;
        fsetxattr(new, attribute, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
    }
    Ok(())
}
