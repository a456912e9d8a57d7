//! A thread has a connection for the time of one request: nobody is waited for while a person types. All threads there ever are
//! begin with the agent, so that no request needs anything that there may be none of in a moment, as under a limit of memory. How
//! many connections there are at once is bounded, and of who is not root so that they are in nobody else's way. What a process of
//! root's asks is of whoever has started it, as `su` and `sudo`.

use pam_totp::agent::server::Agent;
use pam_totp::fact::Fact;
use pam_totp::secret;
use pam_totp::system::Errno;
use pam_totp::system::socket::{self, Budget, Listener};
use pam_totp::system::{passwd, syslog};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Connections at once, and a thread for each.
const MOST: usize = 64;
/// Of those, from others than root.
const MOST_OF_OTHERS: usize = 32;
/// Of those, from one uid.
const MOST_OF_ONE: usize = 8;
/// How long a request may take to arrive, and a reply to be taken. A module sends and reads at once.
const PROMPTLY: Duration = Duration::from_secs(2);
/// How long until the next look where there is nothing left to accept connections with.
const NEXT_LOOK: Duration = Duration::from_millis(20);

/// What is going on.
pub(crate) struct Connections {
    agent: Agent,
    /// How many there are, a uid.
    counts: Mutex<HashMap<u32, usize>>,
    /// One ended.
    ended: Condvar,
    /// Those that no thread has yet: a moment long, as there is a thread for each.
    taken: Mutex<VecDeque<(Place, OwnedFd)>>,
    /// One was taken.
    came: Condvar,
}

impl Connections {
    pub(crate) fn new(agent: Agent) -> Arc<Self> {
        Arc::new(Self {
            agent,
            counts: Mutex::default(),
            ended: Condvar::new(),
            taken: Mutex::default(),
            came: Condvar::new(),
        })
    }

    /// Serves who connects.
    pub(crate) fn serve(self: Arc<Self>, listener: &Listener) -> Result<Infallible, Fact> {
        let no_thread = |error: std::io::Error| {
            Fact::new("no-thread").with_error(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
        };
        for _ in 0..MOST {
            let connections = Arc::clone(&self);
            thread::Builder::new().spawn(move || connections.work()).map_err(no_thread)?;
        }
        let mut is_known = false;
        loop {
            match listener.accept() {
                Ok(connection) => {
                    is_known = false;
                    self.take(connection);
                }
                // They went away, or we were interrupted.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::AGAIN) => {}
                // It is no socket that somebody listens at, and never will be.
                Err(error @ (Errno::BADF | Errno::NOTSOCK | Errno::INVAL | Errno::OPNOTSUPP)) => {
                    return Err(Fact::new("no-socket").with("call", "accept").with_error(error));
                }
                // Something is missing now, or forbidden (accept(2)), and may not be in a moment.
                Err(error) => {
                    if !std::mem::replace(&mut is_known, true) {
                        let fact = Fact::new("not-accepted").with_error(error).or("nobody is let in meanwhile");
                        syslog::write(c"pam_totp(agent)", libc::LOG_ERR, &format!("waiting reason={fact}"));
                    }
                    drop(self.ended.wait_timeout(self.counts(), NEXT_LOOK));
                }
            }
        }
    }

    fn take(self: &Arc<Self>, connection: OwnedFd) {
        // Who has no place, or cannot be asked for their uid, finds the connection closed, and a module asks again.
        let Ok(peer) = socket::peer(&connection) else { return };
        let Some(place) = Place::take(self, peer) else { return };
        self.taken().push_back((place, connection));
        self.came.notify_one();
    }

    /// What a thread does.
    fn work(&self) {
        loop {
            let (mut place, connection) = self.next();
            // A panic in here is one connection's.
            let _ = catch_unwind(AssertUnwindSafe(|| place.serve(&connection)));
            // Keys and codes have been on the stack, which is the next one's too.
            secret::wipe_deep_stack();
        }
    }

    /// Waits for one.
    fn next(&self) -> (Place, OwnedFd) {
        let mut taken = self.taken();
        loop {
            match taken.pop_front() {
                Some(next) => return next,
                None => taken = self.came.wait(taken).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, VecDeque<(Place, OwnedFd)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections; given back when dropped.
struct Place {
    connections: Arc<Connections>,
    peer: u32,
    /// Whose it is.
    owner: u32,
}

/// Whether somebody who is not root has as many places as they can have.
fn has_all(counts: &HashMap<u32, usize>, owner: u32) -> bool {
    let of_others: usize = counts.iter().filter(|(uid, _)| **uid != 0).map(|(_, count)| count).sum();
    of_others >= MOST_OF_OTHERS || counts.get(&owner).is_some_and(|&count| count >= MOST_OF_ONE)
}

impl Place {
    /// For root there always is one, if not now then in a moment: requests are short.
    fn take(connections: &Arc<Connections>, peer: u32) -> Option<Self> {
        let mut counts = connections.counts();
        // Whoever is refused keeps nobody waiting.
        if peer != 0 && has_all(&counts, peer) {
            return None;
        }
        while counts.values().sum::<usize>() >= MOST {
            counts = connections.ended.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        let own = counts.entry(peer).or_default();
        *own = own.saturating_add(1);
        Some(Self { connections: Arc::clone(connections), peer, owner: peer })
    }

    /// Makes it the place of whoever root's process asks for. `false`: they have no other.
    fn hand_over(&mut self, owner: u32) -> bool {
        if owner == self.owner {
            return true;
        }
        let mut counts = self.connections.counts();
        if has_all(&counts, owner) {
            return false;
        }
        let own = counts.entry(owner).or_default();
        *own = own.saturating_add(1);
        give_back(&mut counts, std::mem::replace(&mut self.owner, owner));
        true
    }

    /// Nobody waits for who has no name here. They are refused whatever they ask, and of such uids (subuid(5)) everybody may have
    /// enough to keep all places that are not root's.
    fn patience(&self) -> Duration {
        let is_nobody = self.peer != 0 && passwd::by_uid(self.peer) == Ok(None);
        if is_nobody { Duration::ZERO } else { PROMPTLY }
    }

    /// One request, one reply.
    fn serve(&mut self, connection: &OwnedFd) {
        let Ok(request) = socket::look_at_message(connection, &mut Budget::new(self.patience())) else { return };
        // Whoever gave up, as after five seconds in the queue, was told so: nothing comes of it, and others wait.
        if socket::is_gone(connection) {
            return;
        }
        let connections = Arc::clone(&self.connections);
        let agent = &connections.agent;
        let owner = catch_unwind(AssertUnwindSafe(|| agent.who_asks(self.peer, request.expose()))).unwrap_or(self.peer);
        // Who has no place finds it unread, and asks again.
        if !self.hand_over(owner) || socket::take_message(connection).is_err() {
            return;
        }
        let reply = catch_unwind(AssertUnwindSafe(|| agent.reply(self.peer, request.expose())));
        // A panic is a denial, as in the module.
        let Some(reply) = reply.unwrap_or_else(|_| Agent::denial()) else { return };
        // Who went away meanwhile has their verdict in the log.
        let _ = socket::send_message(connection, reply.expose(), &mut Budget::new(PROMPTLY));
        if self.peer == 0 {
            let _ = catch_unwind(AssertUnwindSafe(|| agent.report()));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        give_back(&mut self.connections.counts(), self.owner);
        self.connections.ended.notify_one();
    }
}

fn give_back(counts: &mut HashMap<u32, usize>, owner: u32) {
    if let Some(count) = counts.get_mut(&owner) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&owner);
        }
    }
}
