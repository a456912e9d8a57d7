//! Messages over a unix socket: a length, and so many bytes. Every wait has a bound, and neither the descriptor nor a signal
//! is the host's business.

use super::{Errno, clock, last_error};
use crate::secret::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, recv, send,
    socket_with,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Longest message, in bytes: a QR code, with what else is shown beside it and a login that was put away, has a third of it.
pub const MAX_MESSAGE: usize = 1 << 16;
/// Bytes of a length.
const LENGTH: usize = size_of::<u32>();
/// Bytes of a message that is only looked at that are left: no message is shorter.
const LAST: usize = 1;
/// A wait costs at least so much, whatever the clock says: one that stands still must not make a login hang.
const LEAST: Duration = Duration::from_millis(1);
/// How long until the next look at who has no place left.
const NEXT_LOOK: Duration = Duration::from_millis(10);

/// How long an exchange may take in all.
pub struct Budget {
    left: Duration,
}

impl Budget {
    /// So long.
    pub const fn new(left: Duration) -> Self {
        Self { left }
    }

    /// Waits until the descriptor is ready. [`Errno::TIMEDOUT`]: that would take too long.
    fn wait(&mut self, descriptor: BorrowedFd, ready: PollFlags) -> Result<(), Errno> {
        self.poll(&mut [PollFd::from_borrowed_fd(descriptor, ready)], self.left).and_then(|count| {
            // Ready, or somebody sent a signal.
            if count || !self.left.is_zero() { Ok(()) } else { Err(Errno::TIMEDOUT) }
        })
    }

    /// Waits a moment, for who has no place left now.
    ///
    /// # Errors
    /// [`Errno::TIMEDOUT`]: that would take too long.
    pub fn pause(&mut self) -> Result<(), Errno> {
        self.poll(&mut [], NEXT_LOOK).map(drop)
    }

    fn poll(&mut self, descriptors: &mut [PollFd], longest: Duration) -> Result<bool, Errno> {
        if self.left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        let longest = longest.min(self.left);
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: longest.subsec_nanos().into(),
        };
        let before = clock::monotonic();
        let ready = match poll(descriptors, Some(&timeout)) {
            Ok(0) => {
                self.left = self.left.saturating_sub(longest);
                return Ok(false);
            }
            Ok(_) => true,
            Err(Errno::INTR) => false,
            Err(error) => return Err(error),
        };
        self.left = self.left.saturating_sub(clock::monotonic().saturating_sub(before).max(LEAST));
        Ok(ready)
    }
}

/// Connects to who listens at this path.
///
/// # Errors
/// As socket(2) and connect(2); [`Errno::TIMEDOUT`] where nobody takes the connection in time.
pub fn connect(path: &Path, budget: &mut Budget) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match connect_to(&socket, &address) {
            Ok(()) => return Ok(socket),
            // unix(7): there is no place left in the queue of who listens.
            Err(Errno::AGAIN) => budget.pause()?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Who is at the other end, as they were when they connected or began to listen: their effective uid.
///
/// # Errors
/// As getsockopt(2).
pub fn peer(socket: impl AsFd) -> Result<u32, Errno> {
    let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: an open descriptor, a place of that type, and its length. (Not by rustix, for which a process of another namespace
    // of processes, whose id is 0 here, is an error.)
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            credentials.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(last_error());
    }
    // SAFETY: filled, or zeroed: numbers.
    let credentials = unsafe { credentials.assume_init() };
    // Of another kind of socket there would be nothing in it.
    let is_whole = usize::try_from(length) == Ok(size_of::<libc::ucred>());
    if is_whole { Ok(credentials.uid) } else { Err(Errno::INVAL) }
}

/// Sends a message.
///
/// # Errors
/// [`Errno::MSGSIZE`]: it is too long. [`Errno::PIPE`]: the other end went away before it had all of it. As send(2);
/// [`Errno::TIMEDOUT`] where the other end does not read in time.
pub fn send_message(socket: impl AsFd, message: &[u8], budget: &mut Budget) -> Result<(), Errno> {
    if message.len() > MAX_MESSAGE {
        return Err(Errno::MSGSIZE);
    }
    let length = u32::try_from(message.len()).map_err(|_| Errno::MSGSIZE)?.to_be_bytes();
    for mut rest in [&length[..], message] {
        while !rest.is_empty() {
            match send(&socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::AGAIN) => budget.wait(socket.as_fd(), PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Looks at a message that [`take_message`] takes: until then the other end is told, if this one is closed, that it was not read.
///
/// # Errors
/// As [`receive_message`].
pub fn look_at_message(socket: impl AsFd, budget: &mut Budget) -> Result<Secret<Vec<u8>>, Errno> {
    receive_but(LAST, socket, budget)
}

/// Takes the message that was looked at.
///
/// # Errors
/// As recv(2).
pub fn take_message(socket: impl AsFd) -> Result<(), Errno> {
    fill(socket, &mut [0; LAST], RecvFlags::DONTWAIT, &mut Budget::new(LEAST))
}

/// Receives a message.
///
/// # Errors
/// [`Errno::MSGSIZE`]: it is none, or longer than any. [`Errno::CONNABORTED`]: the other end went away before its end.
/// [`Errno::CONNRESET`]: it did, and had not read all that it was sent. As recv(2); [`Errno::TIMEDOUT`] where it does not come in
/// time.
pub fn receive_message(socket: impl AsFd, budget: &mut Budget) -> Result<Secret<Vec<u8>>, Errno> {
    receive_but(0, socket, budget)
}

/// Leaves so many bytes where they are.
fn receive_but(left: usize, socket: impl AsFd, budget: &mut Budget) -> Result<Secret<Vec<u8>>, Errno> {
    let mut length = [0; LENGTH];
    fill(&socket, &mut length, RecvFlags::DONTWAIT, budget)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Errno::MSGSIZE)?;
    if !(1..=MAX_MESSAGE).contains(&length) {
        return Err(Errno::MSGSIZE);
    }
    let mut bytes = vec![0_u8; length];
    let (taken, last) = bytes.split_at_mut(length.saturating_sub(left));
    let result = fill(&socket, taken, RecvFlags::DONTWAIT, budget)
        .and_then(|()| fill(&socket, last, RecvFlags::DONTWAIT | RecvFlags::PEEK, budget));
    let bytes = Secret::new(bytes);
    result.map(|()| bytes)
}

/// Whether the other end was closed by now. Not where it has only said all that it will.
pub fn is_gone(socket: impl AsFd) -> bool {
    let mut end = PollFd::new(&socket, PollFlags::empty());
    // poll(2): that is always told.
    poll(std::slice::from_mut(&mut end), Some(&Timespec::default())) == Ok(1) && end.revents().contains(PollFlags::HUP)
}

fn fill(socket: impl AsFd, mut rest: &mut [u8], flags: RecvFlags, budget: &mut Budget) -> Result<(), Errno> {
    while !rest.is_empty() {
        match recv(&socket, &mut *rest, flags) {
            Ok((_, 0)) => return Err(Errno::CONNABORTED),
            Ok((_, received)) => rest = rest.get_mut(received..).unwrap_or_default(),
            Err(Errno::AGAIN) => budget.wait(socket.as_fd(), PollFlags::IN)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// ---- The other end ----

#[cfg(feature = "agent")]
mod listener;
#[cfg(feature = "agent")]
pub use listener::Listener;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn soon() -> Budget {
        Budget::new(Duration::from_millis(50))
    }

    #[test]
    fn a_message_arrives_whole_however_it_is_cut() {
        let message: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = [&1000_u32.to_be_bytes()[..], &message].concat();
        for at in [0, 1, 3, 4, 5, 999, 1003, 1004] {
            let (mut one, other) = UnixStream::pair().unwrap();
            let parts = whole.split_at(at);
            let sender = std::thread::spawn({
                let (first, second) = (parts.0.to_vec(), parts.1.to_vec());
                move || {
                    one.write_all(&first).unwrap();
                    one.write_all(&second).unwrap();
                    one
                }
            });
            assert_eq!(receive_message(&other, &mut soon()).unwrap().expose(), &message, "{at}");
            drop(sender.join().unwrap());
        }
    }

    #[test]
    fn what_is_no_message_is_an_error_and_never_a_wait_without_end() {
        for (sent, expected) in [
            (&b""[..], Errno::TIMEDOUT),
            (b"\0\0", Errno::TIMEDOUT),
            (b"\0\0\0\x02x", Errno::TIMEDOUT),
            (b"\0\0\0\0", Errno::MSGSIZE),
            (b"\0\x01\0\x01", Errno::MSGSIZE),
            (b"\xff\xff\xff\xff", Errno::MSGSIZE),
        ] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(sent).unwrap();
            assert_eq!(receive_message(&other, &mut soon()).err(), Some(expected), "{sent:?}");
            if expected == Errno::TIMEDOUT {
                let (mut one, other) = UnixStream::pair().unwrap();
                one.write_all(sent).unwrap();
                drop(one);
                assert_eq!(receive_message(&other, &mut soon()).err(), Some(Errno::CONNABORTED), "{sent:?}");
            }
        }
    }

    #[test]
    fn a_drip_does_not_prolong_the_time() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&1000_u32.to_be_bytes()).unwrap();
        let dripping = std::thread::spawn(move || {
            let mut pace = Budget::new(Duration::from_secs(60));
            let mut drops = 0;
            while one.write_all(b"x").is_ok() {
                pace.poll(&mut [], Duration::from_millis(2)).unwrap();
                drops += 1;
            }
            drops
        });
        assert_eq!(receive_message(&other, &mut soon()).err(), Some(Errno::TIMEDOUT));
        drop(other);
        let drops = dripping.join().unwrap();
        assert!((2..500).contains(&drops), "{drops}");
    }

    /// Who was not read can ask again: nothing has come of it.
    #[test]
    fn who_went_away_without_reading_is_told_from_who_read() {
        for has_read in [true, false] {
            let (mut one, other) = UnixStream::pair().unwrap();
            send_message(&other, b"x", &mut soon()).unwrap();
            if has_read {
                std::io::Read::read_exact(&mut one, &mut [0; LENGTH + 1]).unwrap();
            }
            drop(one);
            let expected = if has_read { Errno::CONNABORTED } else { Errno::CONNRESET };
            assert_eq!(receive_message(&other, &mut soon()).err(), Some(expected), "{has_read}");
        }
    }

    #[test]
    fn a_message_that_was_only_looked_at_was_not_read() {
        for is_taken in [true, false] {
            let (one, other) = UnixStream::pair().unwrap();
            send_message(&one, b"some words", &mut soon()).unwrap();
            assert_eq!(look_at_message(&other, &mut soon()).unwrap().expose(), b"some words");
            if is_taken {
                take_message(&other).unwrap();
            }
            drop(other);
            let expected = if is_taken { Errno::CONNABORTED } else { Errno::CONNRESET };
            assert_eq!(receive_message(&one, &mut soon()).err(), Some(expected), "{is_taken}");
        }
    }

    #[test]
    fn who_went_away_is_told_from_who_has_said_all() {
        let (mut one, other) = UnixStream::pair().unwrap();
        assert!(!is_gone(&other));
        one.write_all(b"x").unwrap();
        assert!(!is_gone(&other));
        one.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!is_gone(&other));
        drop(one);
        assert!(is_gone(&other));
        assert!(!is_gone(std::fs::File::open("/dev/null").unwrap()));
    }

    #[test]
    fn the_other_end_is_who_made_it() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer(&one), Ok(crate::system::passwd::process_uids().1));
        assert_eq!(peer(std::fs::File::open("/dev/null").unwrap()), Err(Errno::NOTSOCK));
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (one, other) = UnixStream::pair().unwrap();
        let message = vec![7; MAX_MESSAGE];
        let results: Vec<_> = (0..10).map(|_| send_message(&one, &message, &mut soon())).collect();
        assert_eq!(results.last(), Some(&Err(Errno::TIMEDOUT)));
        assert_eq!(send_message(&one, &[0; MAX_MESSAGE + 1], &mut soon()), Err(Errno::MSGSIZE));
        drop(other);
        assert_eq!(send_message(&one, b"x", &mut soon()), Err(Errno::PIPE), "and no signal");
    }
}
