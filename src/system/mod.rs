//! What we ask of the operating system, in safe signatures. Nothing here changes the state of the host process:
//! no process-wide ids, no working directory, no umask, no signal handlers, no environment.

pub mod addresses;
pub mod clock;
pub mod files;
pub mod groups;
pub mod ids;
pub mod lock;
pub mod passwd;
pub mod private;
pub mod random;
mod signals;
pub mod table;

pub use rustix::io::Errno;
