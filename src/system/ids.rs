//! Reading and writing files with a user's rights.

use super::Errno;
use super::passwd::process_uids;

/// setfsuid(2) and setfsgid(2) with this argument change nothing and return the present id.
const NO_ID: u32 = u32::MAX;

/// Runs `work` with the file-system ids of a user, as the kernel applies them to this thread alone.
///
/// This is not seteuid(2): the rest of the host process keeps its rights, and where the process is root, a thread with
/// file-system ids other than root's has no capability that overrides file permissions (capabilities(7)). Supplementary
/// groups stay those of the process. What the kernel does besides, as at any change of ids: the process is no longer
/// dumpable, and forgets a PR_SET_PDEATHSIG.
///
/// # Errors
/// EPERM where the ids cannot be taken on, or, at the end, cannot be given back; the result of `work` is lost then.
pub fn as_user<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> Result<T, Errno> {
    let ids = FsIds::take_on(uid, gid)?;
    let result = work();
    ids.give_back().map(|()| result)
}

/// The ids to go back to. Dropping it goes back too, so that a panic in between does not leave them behind.
struct FsIds {
    uid: u32,
    gid: u32,
}

impl FsIds {
    fn take_on(uid: u32, gid: u32) -> Result<Self, Errno> {
        let before = Self { uid: set_fsuid(NO_ID), gid: set_fsgid(NO_ID) };
        // The group first: with the user's id alone we may no longer change it.
        set_fsgid(gid);
        set_fsuid(uid);
        // A process that is not root, at work on its own user's behalf, keeps its group and has it already.
        let own = process_uids().1 != 0 && before.uid == uid;
        if set_fsuid(NO_ID) == uid && (own || set_fsgid(NO_ID) == gid) {
            Ok(before)
        } else {
            before.give_back()?;
            Err(Errno::PERM)
        }
    }

    fn restore(&self) -> bool {
        set_fsuid(self.uid);
        set_fsgid(self.gid);
        set_fsuid(NO_ID) == self.uid && set_fsgid(NO_ID) == self.gid
    }

    fn give_back(self) -> Result<(), Errno> {
        if !self.restore() {
            return Err(Errno::PERM);
        }
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for FsIds {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Returns the id before the call; whether the call did anything, only a second one tells.
fn set_fsuid(uid: u32) -> u32 {
    // SAFETY: takes a number. glibc does not spread this call to other threads.
    unsafe { libc::setfsuid(uid) }.cast_unsigned()
}

fn set_fsgid(gid: u32) -> u32 {
    // SAFETY: as above.
    unsafe { libc::setfsgid(gid) }.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> (u32, u32) {
        (set_fsuid(NO_ID), set_fsgid(NO_ID))
    }

    #[test]
    fn ids_are_given_back_also_after_a_panic() {
        if process_uids().1 != 0 {
            assert_eq!(as_user(0, 0, || ()), Err(Errno::PERM));
            return;
        }
        let before = now();
        assert_eq!(as_user(65534, 65533, now), Ok((65534, 65533)));
        assert_eq!(now(), before);
        assert!(std::panic::catch_unwind(|| as_user(65534, 65533, || panic!("on purpose"))).is_err());
        assert_eq!(now(), before);
    }

    #[test]
    fn root_without_its_id_is_not_root() {
        if process_uids().1 != 0 {
            return;
        }
        let refused = as_user(65534, 65534, || std::fs::read("/etc/shadow").map_err(|error| error.kind()));
        assert_eq!(refused, Ok(Err(std::io::ErrorKind::PermissionDenied)));
    }
}
