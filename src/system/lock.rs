//! Waiting for a lock, but not for ever.

use super::files::Problem;
use super::private::{Directory, RUN};
use super::{Errno, last_error};
use rustix::fs::{FlockOperation, flock};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long a wait lasts before the next look: from this …
const FIRST_WAIT: Duration = Duration::from_millis(1);
/// … doubling, to this.
const LONGEST_WAIT: Duration = Duration::from_millis(16);
/// Looks in all, which makes five seconds. Counted, not timed: a frozen clock must not make a login hang.
const LOOKS: u32 = 315;

/// How many looks are left to the locks of one attempt.
pub struct Patience {
    looks: u32,
    wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { looks: LOOKS, wait: FIRST_WAIT }
    }
}

/// Why there is no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLock {
    /// Somebody else held it for as long as we were ready to wait.
    Busy,
    /// This file system does not lock this descriptor, now or ever (NFS and a descriptor that is open for reading, for
    /// one): another kind of lock has to do.
    Refused(Errno),
    /// Something else went wrong. Another lock would be no answer to that: somebody else may hold this one.
    Failed(Errno),
}

/// Takes an exclusive flock(2), which ends when the last copy of the descriptor is closed.
///
/// # Errors
/// [`NoLock`].
pub fn exclusive(file: impl AsFd, patience: &mut Patience) -> Result<(), NoLock> {
    if cfg!(pam_totp_without_lock) {
        return Ok(());
    }
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => patience.wait()?,
            Err(Errno::INTR) => {}
            Err(error @ (Errno::BADF | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)) => {
                return Err(NoLock::Refused(error));
            }
            Err(error) => return Err(NoLock::Failed(error)),
        }
    }
}

/// Gives a lock back. Closing the descriptor is not enough where another thread of the host has forked meanwhile.
pub fn release(file: impl AsFd) {
    // Closing comes next, which leaves nothing to do about an error.
    let _ = flock(&file, FlockOperation::Unlock);
}

/// A lock on one byte of a file that is never renamed; given back when dropped. The file need not have that byte.
pub struct RangeLock {
    file: OwnedFd,
    at: i64,
}

impl RangeLock {
    /// Takes it. It belongs to the open file, not to the process (F_OFD_SETLK, fcntl(2)), so that threads of a host lock each
    /// other out too. `at`: 0 to 2^63 - 2.
    ///
    /// # Errors
    /// [`NoLock`].
    pub fn take(file: OwnedFd, at: i64, patience: &mut Patience) -> Result<Self, NoLock> {
        let lock = Self { file, at };
        loop {
            match lock.set(libc::F_WRLCK) {
                Ok(()) => return Ok(lock),
                Err(Errno::ACCESS | Errno::WOULDBLOCK) => patience.wait()?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(NoLock::Failed(error)),
            }
        }
    }

    fn set(&self, kind: libc::c_int) -> Result<(), Errno> {
        if cfg!(pam_totp_without_lock) {
            return Ok(());
        }
        // SAFETY: a plain struct of numbers, of which 0 is one that each can have.
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        range.l_type = libc::c_short::try_from(kind).unwrap_or(libc::c_short::MAX);
        range.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
        (range.l_start, range.l_len) = (self.at, 1);
        // SAFETY: an open file, and a place that is read.
        let result = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
        if result == -1 { Err(last_error()) } else { Ok(()) }
    }
}

impl Drop for RangeLock {
    fn drop(&mut self) {
        // Closing is not enough where another thread of the host has forked meanwhile; about an error there is nothing to do.
        let _ = self.set(libc::F_UNLCK);
    }
}

/// A lock of this host; given back when dropped.
pub struct HostLock(OwnedFd);

impl Drop for HostLock {
    fn drop(&mut self) {
        release(&self.0);
    }
}

impl Patience {
    /// Counts a look that was in vain without a wait, so that nobody can keep us looking for ever.
    ///
    /// # Errors
    /// [`NoLock::Busy`] where no look is left.
    pub fn look_again(&mut self) -> Result<(), NoLock> {
        self.looks = self.looks.checked_sub(1).ok_or(NoLock::Busy)?;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), NoLock> {
        self.look_again()?;
        #[allow(clippy::disallowed_methods)] // The one place where a login waits.
        std::thread::sleep(self.wait);
        self.wait = self.wait.saturating_mul(2).min(LONGEST_WAIT);
        Ok(())
    }
}

/// Takes the exclusive lock `name` of this host, for files whose file system has none. Needs root.
///
/// # Errors
/// [`NoLock::Busy`], or [`NoLock::Failed`] where the lock file cannot be had or is not root's alone.
pub fn exclusive_on_host(name: &str, patience: &mut Patience) -> Result<HostLock, NoLock> {
    let directory = Directory::make(Path::new(RUN)).map_err(|error| match error.problem {
        Problem::Failed(_, errno) => NoLock::Failed(errno),
        _ => NoLock::Failed(Errno::PERM),
    })?;
    let file = directory.lock_file(name).map_err(NoLock::Failed)?;
    exclusive(&file, patience)?;
    Ok(HostLock(file))
}

/// Waits for a moment, before something is tried again that others are at. Whoever calls this has a deadline.
#[cfg(feature = "fleet")]
#[allow(clippy::disallowed_methods)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_and_then_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let open = || std::fs::File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let held = open();
        exclusive(&held, &mut Patience::default()).unwrap();
        let mut patience = Patience { looks: 5, wait: FIRST_WAIT };
        assert_eq!(exclusive(open(), &mut patience), Err(NoLock::Busy));
        assert_eq!(patience.looks, 0);
        drop(held);
        assert_eq!(exclusive(open(), &mut Patience::default()), Ok(()));
    }

    #[test]
    fn patience_lasts_about_five_seconds() {
        let mut wait = FIRST_WAIT;
        let mut total = Duration::ZERO;
        for _ in 0..LOOKS {
            total += wait;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        assert_eq!(total.as_secs(), 4, "{total:?}");
    }
}
