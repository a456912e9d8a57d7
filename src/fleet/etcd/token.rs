//! Who this host is to etcd: a user with a password, and a token for it, which lives for five minutes where nobody uses it.

use super::http::{Client, Request};
use super::message;
use super::refusal::{Failure, Kind};
use crate::fact::Fact;
use crate::fleet::conf::read_private;
use crate::secret::Secret;
use crate::system::clock::instant;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of an answer with a token, at most.
const ANSWER: u64 = 64 << 10;
/// Longest time for a token, which may be a while where many hosts want one at once, as after a restart: whoever gives up and asks
/// again lets a member compute twice.
const AUTHENTICATION: Duration = Duration::from_secs(2);
/// Longest password, in bytes.
const LONGEST: usize = 1024;

/// User and password, and what came of them.
pub(super) struct Login {
    /// What is sent for a token.
    body: Secret<Vec<u8>>,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the latest request with a token came to nothing.
    is_doubted: AtomicBool,
}

/// Somebody asks for a token. Whoever panics at it must not have the others wait.
struct Asking<'a>(&'a Login);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_asked = false;
            self.0.changed.notify_all();
        }
    }
}

#[derive(Default)]
struct State {
    token: Option<Arc<str>>,
    /// Whether somebody is about to get one: etcd takes 50 ms of computing for each (bcrypt), and all can have the same.
    is_asked: bool,
    /// How often one was asked for.
    attempts: u64,
    /// What came of the last time, where no token did.
    failure: Option<Failure>,
}

impl Login {
    /// Reads the password, the file's one line.
    ///
    /// # Errors
    /// `bad-password-file`.
    pub(super) fn read(user: &str, password_file: &Path) -> Result<Self, Fact> {
        let bad = |words| Fact::new("bad-password-file").with_path(password_file).or(words);
        let text = read_private(password_file);
        let text = text.map_err(|error| Fact::new("bad-password-file").because(&error.fact()))?;
        let text = text.ok_or_else(|| bad("there is no such file"))?;
        let password = std::str::from_utf8(text.expose()).map_err(|_| bad("it is not UTF-8 text"))?.trim_end();
        if password.is_empty() || password.len() > LONGEST || password.contains(char::is_control) {
            return Err(bad("it has to be one line of at most 1024 bytes, without control characters"));
        }
        let unwritable = |_| bad("it cannot be written as JSON");
        let user = serde_json::to_string(user).map_err(unwritable)?;
        let password = Secret::new(serde_json::to_string(password).map_err(unwritable)?);
        let parts = [br#"{"name":"#, user.as_bytes(), br#","password":"#, password.expose().as_bytes(), b"}"];
        let body = Secret::new(parts.concat());
        Ok(Self { body, state: Mutex::default(), changed: Condvar::new(), is_doubted: AtomicBool::new(false) })
    }

    /// A request with this token came to nothing. etcd may wait for what the token says it has to have seen, after a restore for
    /// ever; or it has no time, and would have less if it were asked for another one. Who needs a token after the second
    /// such request in a row asks for another.
    pub(super) fn doubt(&self, token: &str) {
        let mut state = self.lock();
        if state.token.as_deref() == Some(token) && self.is_doubted.swap(true, Ordering::Relaxed) {
            state.token = None;
        }
    }

    /// A request with a token was answered.
    pub(super) fn trust(&self) {
        self.is_doubted.store(false, Ordering::Relaxed);
    }

    /// A token that is not this one, of which etcd wants to know nothing any more. One thread asks for it, and the
    /// others wait, and have what it has: also its failure, so that they do not try one after the other what takes its time.
    ///
    /// # Errors
    /// [`Failure`], of which nothing has come but that there is no token.
    pub(super) fn token(
        &self,
        client: &Client,
        endpoint: &str,
        stale: Option<&str>,
        deadline: Instant,
    ) -> Result<Arc<str>, Failure> {
        let mut state = self.lock();
        let attempts = state.attempts;
        loop {
            if let Some(token) = state.token.as_ref().filter(|token| Some(&***token) != stale) {
                return Ok(token.clone());
            }
            if let Some(failure) = state.failure.as_ref().filter(|_| state.attempts != attempts) {
                return Err(failure.clone());
            }
            if !state.is_asked {
                state.is_asked = true;
                break;
            }
            let left = deadline.saturating_duration_since(instant());
            if left.is_zero() {
                let fact = super::http::unreachable(endpoint).with("error", "deadline");
                return Err(Failure::new(Kind::NotSent, fact));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let token = {
            let _asking = Asking(self);
            self.authenticate(client, endpoint, deadline)
        };
        let mut state = self.lock();
        state.is_asked = false;
        state.attempts = state.attempts.wrapping_add(1);
        state.token = token.as_ref().ok().cloned();
        self.trust();
        state.failure = token.as_ref().err().cloned();
        self.changed.notify_all();
        token
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authenticate(&self, client: &Client, endpoint: &str, deadline: Instant) -> Result<Arc<str>, Failure> {
        let request = Request {
            path: "/v3/auth/authenticate",
            body: self.body.expose(),
            token: None,
            is_secret: true,
            deadline,
            at_most: AUTHENTICATION,
            limit: ANSWER,
        };
        let answer = client.send(endpoint, &request).map_err(|failure| match failure.kind {
            // What was to be done with the token was not sent.
            Kind::Ambiguous => Failure { kind: Kind::NotSent, ..failure },
            Kind::Token => Failure { kind: Kind::Refused, ..failure },
            _ => failure,
        })?;
        message::token(&answer.body).map(Arc::from).map_err(|wrong| {
            let fact = Fact::new("bad-etcd-answer").with("endpoint", endpoint).with("error", wrong);
            Failure::new(Kind::NotSent, fact)
        })
    }
}
