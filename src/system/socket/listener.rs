//! For the agent: where connections come in.

use super::connect;
use crate::fact::Fact;
use crate::system::Errno;
use crate::system::files::open_trusted_directory;
use crate::system::socket::Budget;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, Mode, chmodat, renameat, unlinkat};
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const PASSED: i32 = 3;
/// Connections that wait to be accepted: as many as the kernel allows (net.core.somaxconn), up to this.
const BACKLOG: i32 = 4096;
/// What a socket is called until it takes connections.
const TEMPORARY: &str = ".new";

/// A socket to accept connections from.
pub struct Listener(OwnedFd);

impl Listener {
    /// The socket that systemd has passed to this process. `Ok(None)`: it has passed none.
    ///
    /// # Errors
    /// It has passed something else.
    pub fn passed() -> Result<Option<Self>, Fact> {
        #[allow(clippy::disallowed_methods)] // Root's, who has started this process: nobody else calls this.
        let variable = |name| std::env::var(name).ok();
        if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Ok(None);
        }
        let bad = || Fact::new("bad-socket").or("systemd has to pass one stream socket of a path: ListenStream=");
        if variable("LISTEN_FDS").as_deref() != Some("1") {
            return Err(bad());
        }
        // SAFETY: by the two variables this descriptor is ours, and nobody else in this process knows of it.
        let socket = unsafe { OwnedFd::from_raw_fd(PASSED) };
        let is_one = socket_acceptconn(&socket) == Ok(true) && socket_domain(&socket) == Ok(AddressFamily::UNIX);
        if is_one { Ok(Some(Self(socket))) } else { Err(bad()) }
    }

    /// A socket of our own, to which anybody can connect. What an agent that is gone has left is replaced, without a moment in
    /// between.
    ///
    /// # Errors
    /// Why not; also where somebody listens there already, or others than root could.
    pub fn new(path: &Path) -> Result<Self, Fact> {
        if connect(path, &mut Budget::new(Duration::from_millis(100))).is_ok() {
            return Err(Fact::new("agent-is-there").with_path(path).or("another one listens there"));
        }
        let failed =
            |call| move |error: Errno| Fact::new("no-socket").with_path(path).with("call", call).with_error(error);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed("bind")(Errno::INVAL));
        };
        let directory = open_trusted_directory(parent).map_err(|error| error.fact())?;
        let (directory, _) = directory.ok_or(Errno::NOENT).map_err(failed("open"))?;
        let mut temporary = name.to_owned();
        temporary.push(TEMPORARY);
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed("socket"))?;
        let address = SocketAddrUnix::new(path.with_file_name(&temporary)).map_err(failed("bind"))?;
        match unlinkat(&directory, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("unlink")(error)),
        }
        bind(&socket, &address).map_err(failed("bind"))?;
        // Who may ask what is decided by who they are, not by whether they get here.
        chmodat(&directory, &temporary, Mode::from_raw_mode(0o666), AtFlags::empty()).map_err(failed("chmod"))?;
        listen(&socket, BACKLOG).map_err(failed("listen"))?;
        renameat(&directory, &temporary, &directory, name).map_err(failed("rename"))?;
        Ok(Self(socket))
    }

    /// The next connection, waited for, whatever systemd was told about the socket (NonBlocking=).
    ///
    /// # Errors
    /// As accept4(2).
    pub fn accept(&self) -> Result<OwnedFd, Errno> {
        loop {
            match accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?),
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_socket_that_does_not_wait_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixListener::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = Listener(socket.into());
        let connecting = std::thread::spawn(move || {
            Budget::new(Duration::from_secs(1)).pause().unwrap();
            UnixStream::connect(path).unwrap()
        });
        assert!(listener.accept().is_ok());
        connecting.join().unwrap();
    }
}
