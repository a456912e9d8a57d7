//! What a process of our own is, and what is kept of it.

use super::passwd::process_uids;
use super::{Errno, last_error};
use std::fs;
use std::io::{PipeWriter, Read, pipe};
use std::path::{Path, PathBuf};

/// Whether the process has rights that whoever started it has not: setuid, setgid, file capabilities.
pub fn has_borrowed_rights() -> bool {
    // SAFETY: these calls take numbers or nothing, and cannot fail.
    unsafe {
        libc::getauxval(libc::AT_SECURE) != 0 || libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid()
    }
}

/// From here on there is no core dump of this process, and nobody but root looks into it. A program that it becomes by exec is
/// as any other.
///
/// # Errors
/// As prctl(2).
pub fn hide() -> Result<(), Errno> {
    let no: libc::c_ulong = 0;
    // SAFETY: takes numbers.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, no, no, no, no) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// The real uid of root's process while it is somebody else's, as in a program that is setuid root. It keeps root's rights.
/// With the end of this value it is root's again.
pub struct RealUid(());

impl RealUid {
    /// # Errors
    /// As setresuid(2).
    pub fn of(uid: u32) -> Result<Self, Errno> {
        set_real_uid(uid).map(Self)
    }
}

impl Drop for RealUid {
    fn drop(&mut self) {
        // The effective one never was another.
        let _ = set_real_uid(process_uids().1);
    }
}

fn set_real_uid(uid: u32) -> Result<(), Errno> {
    let same = u32::MAX;
    // SAFETY: takes numbers.
    match unsafe { libc::setresuid(uid, same, same) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// A directory that is gone with this value, and with this process, however that ends: another one waits for it.
#[derive(Debug)]
pub struct Fleeting {
    path: PathBuf,
    /// Nobody writes into it. The other process sees it closed.
    _alive: PipeWriter,
}

impl Fleeting {
    /// Takes over a directory that is there. For a process that has no threads yet.
    ///
    /// # Errors
    /// There is no other process; the directory is gone.
    pub fn new(path: &Path) -> Result<Self, Errno> {
        let fleeting = (|| {
            let (mut end, alive) = pipe().map_err(|_| last_error())?;
            // SAFETY: no other thread has anything that the child could wait for.
            match unsafe { libc::fork() } {
                ..0 => Err(last_error()),
                0 => {
                    drop(alive);
                    await_and_remove(&mut end, path)
                }
                // A child of a child: a module that waits for its own does not find ours.
                child => wait_for(child).map(|()| Self { path: path.to_owned(), _alive: alive }),
            }
        })();
        fleeting.inspect_err(|_| drop(fs::remove_dir_all(path)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Fleeting {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What the child does: it leaves that to one of its own, which no signal of a terminal finds.
fn await_and_remove(end: &mut impl Read, path: &Path) -> ! {
    // SAFETY: takes nothing; of this process there is one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes nothing.
        unsafe { libc::setsid() };
        let _ = end.read(&mut [0]);
        let _ = fs::remove_dir_all(path);
    }
    // SAFETY: takes a number; what the parent has registered for its own end is not run.
    unsafe { libc::_exit(i32::from(child < 0)) }
}

fn wait_for(child: libc::pid_t) -> Result<(), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: a place for the status that lives through the call.
        match unsafe { libc::waitpid(child, &raw mut status, 0) } {
            ..0 if last_error() == Errno::INTR => {}
            ..0 => return Err(last_error()),
            _ if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => return Ok(()),
            _ => return Err(Errno::AGAIN),
        }
    }
}
