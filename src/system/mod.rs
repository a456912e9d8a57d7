//! What we ask of the operating system, in safe signatures. Nothing here changes the state of the host process:
//! no process-wide ids, no working directory, no umask, no signal handlers, no environment. [`process`] is for programs of our
//! own.

pub mod addresses;
pub mod clock;
pub mod files;
pub mod groups;
pub mod ids;
pub mod lock;
pub mod passwd;
pub mod private;
pub mod process;
pub mod random;
pub(crate) mod signals;
pub mod slot;
pub mod socket;
pub mod syslog;
pub mod table;

pub use rustix::io::Errno;

/// An error number from C, which a name service may have made up.
fn errno(number: i32) -> Errno {
    Errno::from_io_error(&std::io::Error::from_raw_os_error(number)).unwrap_or(Errno::IO)
}

/// What the kernel said to the call that has just failed.
fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
