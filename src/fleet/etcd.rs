//! The cluster: etcd v3 (3.4 and later), by its JSON gateway.
//!
//! A request goes to one endpoint, and to the next where that one fails. What is read is never old: no read is
//! `serializable`. What is written is there if, and only if, the answer says all of it; where there is no such answer nobody
//! can know, and [`Commit::Unknown`] says so: of those about a third are there afterwards.
//!
//! | | |
//! |---|---|
//! | `http` | one request to one endpoint |
//! | `token` | who this host is to etcd |
//! | `message` | what is said, and what is believed of it |
//! | `refusal` | what a refusal means, and the way out |
//! | `pace` | what to do where the cluster has no time |
//! | `date` | what the cluster's clocks say |

mod date;
mod http;
mod message;
mod pace;
mod refusal;
#[cfg(test)]
mod tests;
mod token;

use super::conf::Conf;
use crate::fact::Fact;
use crate::system::clock::{self, instant};
use crate::system::random;
use http::{Answer, Client, REQUEST, Request};
use message::{Said, Wrong};
use pace::pause;
use refusal::{Failure, Kind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use token::Login;

/// Bytes of an answer, at most, where it is of a few keys, and where it is a page of a list.
const ANSWER: u64 = 1 << 20;
const LARGE_ANSWER: u64 = 8 << 20;
/// Seconds that this host's clock may be off the cluster's: a time step, and the one that a `Date` is cut down to.
const CLOCK: u64 = 31;
/// The fact that no answer came.
const UNREACHABLE: &str = "etcd-unreachable";
/// The fact that what was overwritten is gone.
const COMPACTED: &str = "etcd-compacted";
/// How long to wait where no endpoint has answered: an election takes ten times that.
const PAUSE: Duration = Duration::from_millis(50);

/// A key with what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Vec<u8>,
    /// What is there.
    pub value: Vec<u8>,
    /// The cluster's revision at which it was last written (`mod_revision`).
    pub revision: u64,
    /// How often it was written since it was made: 1 and up.
    pub version: u64,
    /// The cluster's revision at which it was made.
    pub created: u64,
}

/// A condition of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key.
    pub key: Vec<u8>,
    /// Its [`Kv::revision`] when it was read; 0: it was not there.
    pub revision: u64,
}

/// What a commit writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Vec<u8>,
    /// What is there then.
    pub value: Vec<u8>,
}

/// What has become of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// All of it is there, since this revision, for good.
    Done {
        /// The cluster's.
        revision: u64,
    },
    /// None of it: a guard does not hold.
    Stale,
    /// It may be there now, or later, or never be. Also where nothing can have happened: to read again is right in any case.
    Unknown(Fact),
}

/// What one server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id in the cluster.
    pub id: u64,
    /// The cluster's, which is the same for all members.
    pub cluster: u64,
    /// Of etcd, such as `3.4.23`.
    pub version: String,
    /// Bytes of its file.
    pub db_size: u64,
    /// Bytes of those that are in use.
    pub db_size_in_use: u64,
    /// Bytes that it may have at most, where the server says so (3.6).
    pub quota: Option<u64>,
    /// Who leads, by the id of a member; 0: nobody.
    pub leader: u64,
    /// How many elections there were.
    pub raft_term: u64,
    /// What is wrong, in etcd's words, such as `NOSPACE`.
    pub alarms: Vec<String>,
    /// Seconds that its clock is ahead of this host's, as far as can be seen.
    pub ahead: Option<i64>,
}

/// The cluster, as this host gets to it. Connections are kept, and all threads may use it at once.
pub struct Cluster {
    endpoints: Vec<String>,
    client: Client,
    login: Option<Login>,
    /// Which endpoint answered last.
    favourite: AtomicUsize,
    /// The id of the cluster, since its first answer; 0: before that.
    id: AtomicU64,
    /// The wall clock: seconds since 1970.
    now: fn() -> u64,
}

impl Cluster {
    /// Reads the files that the configuration names. Connects to nobody yet.
    ///
    /// # Errors
    /// `bad-certificate`, `bad-password-file`.
    pub fn new(conf: &Conf) -> Result<Self, Fact> {
        Self::with_clock(conf, clock::now)
    }

    /// The same, with another wall clock (seconds since 1970).
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub fn with_clock(conf: &Conf, now: fn() -> u64) -> Result<Self, Fact> {
        let endpoints: Vec<_> = conf.endpoints.iter().map(|endpoint| endpoint.url().to_owned()).collect();
        let login = conf.user.as_ref().map(|(user, password_file)| Login::read(user, password_file)).transpose()?;
        Ok(Self {
            client: Client::new(conf)?,
            login,
            favourite: AtomicUsize::new(any(endpoints.len())),
            endpoints,
            id: AtomicU64::new(0),
            now,
        })
    }

    /// Reads keys (at most 128), all at one revision, and as they are now. Goes to the next endpoint after a failure, until the
    /// deadline, or until all of them refuse.
    ///
    /// # Errors
    /// `etcd-unreachable`, `bad-etcd-answer`, `etcd-refused`, `bad-certificate`, `another-cluster`, `clock-off`.
    pub fn read(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<Option<Kv>>, Fact> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let body = message::read(keys);
        let asked = Asked { path: "/v3/kv/txn", body: &body, deadline, at_most: REQUEST, limit: ANSWER };
        self.until(deadline, |endpoint| self.ask(endpoint, &asked, |body| message::values(body, keys)))
    }

    /// All keys that begin so, in their order, in pages of 500, all pages at one revision. `deadline_of_a_page`: for each page.
    ///
    /// # Errors
    /// As [`Cluster::read`]; `etcd-compacted`, where it took longer than etcd keeps what was overwritten; what `each` says.
    pub fn list(
        &self,
        prefix: &[u8],
        deadline_of_a_page: Duration,
        each: &mut dyn FnMut(Kv) -> Result<(), Fact>,
    ) -> Result<(), Fact> {
        // `\0` is etcd's word for the end of all keys.
        let end = message::end_of(prefix).unwrap_or_else(|| vec![0]);
        let (mut from, mut revision) = (prefix.to_vec(), 0);
        loop {
            let start = instant();
            let deadline = start.checked_add(deadline_of_a_page).unwrap_or(start);
            let body = message::page(&from, &end, revision);
            // A page is large: one endpoint has half the time.
            let at_most = deadline_of_a_page.checked_div(2).unwrap_or(REQUEST).max(REQUEST);
            let asked = Asked { path: "/v3/kv/range", body: &body, deadline, at_most, limit: LARGE_ANSWER };
            let page = self.until(deadline, |endpoint| {
                self.ask(endpoint, &asked, |body| message::listed(body, prefix, &from, revision))
            })?;
            revision = page.revision;
            if let Some(last) = page.kvs.last() {
                from = [last.key.as_slice(), &[0]].concat();
            }
            page.kvs.into_iter().try_for_each(&mut *each)?;
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Writes all of it (at least one key, at most 128), if all guards hold, or nothing. Sent once: to the next endpoint only
    /// where it is certain that the one before has not got it, or has refused it.
    pub fn commit(&self, guards: &[Guard], puts: &[Put], deadline: Instant) -> Commit {
        let body = message::commit(guards, puts);
        let asked = Asked { path: "/v3/kv/txn", body: &body, deadline, at_most: REQUEST, limit: ANSWER };
        let Some(began) = self.client.pace.wait(deadline) else { return Commit::Unknown(resting()) };
        let (mut reason, mut is_late) = (None, false);
        for endpoint in self.order() {
            match self.ask(endpoint, &asked, |body| message::committed(body, guards, puts.len())) {
                Ok(done) => return done.map_or(Commit::Stale, |revision| Commit::Done { revision }),
                Err(failure) => {
                    is_late |= failure.is_late;
                    let is_over = matches!(failure.kind, Kind::Ambiguous | Kind::Final);
                    if failure.kind == Kind::Ambiguous {
                        self.favourite.store(self.after(endpoint), Ordering::Relaxed);
                    }
                    reason = Some(if is_over { failure } else { worse(reason, failure) });
                    if is_over {
                        break;
                    }
                }
            }
        }
        if is_late {
            self.client.pace.late(began, instant(), false);
        }
        Commit::Unknown(fact_of(reason))
    }

    /// Whether a key can still be read as it was at an earlier revision of the cluster. etcd keeps all of it until it is told to
    /// compact it, or does so itself (`--auto-compaction-retention`).
    ///
    /// # Errors
    /// As [`Cluster::read`].
    pub fn remembers(&self, key: &[u8], revision: u64, deadline: Instant) -> Result<bool, Fact> {
        let end = [key, &[0]].concat();
        let body = message::page(key, &end, revision);
        let asked = Asked { path: "/v3/kv/range", body: &body, deadline, at_most: REQUEST, limit: ANSWER };
        match self
            .until(deadline, |endpoint| self.ask(endpoint, &asked, |body| message::listed(body, key, key, revision)))
        {
            Ok(_) => Ok(true),
            Err(fact) if fact.word() == COMPACTED => Ok(false),
            Err(fact) => Err(fact),
        }
    }

    /// Which endpoint is asked first.
    pub fn favourite(&self) -> &str {
        self.endpoints.get(self.favourite.load(Ordering::Relaxed)).map_or("", String::as_str)
    }

    /// What each endpoint says of itself.
    pub fn members(&self, deadline: Instant) -> Vec<(String, Result<Member, Fact>)> {
        let member = |endpoint: &String| {
            // Whoever hangs leaves time for the others, also where more of it is given to a cluster that has none.
            let start = instant();
            let within = |time: Duration| start.checked_add(time).map_or(deadline, |end| end.min(deadline));
            let deadline = within(REQUEST.saturating_mul(2));
            // Whoever has no quorum gives no token, and may say how it is without one.
            let login = self.login.as_ref();
            let token = login.and_then(|login| login.token(&self.client, endpoint, None, within(REQUEST)).ok());
            let request = Request {
                path: "/v3/maintenance/status",
                body: b"{}",
                token: token.as_deref(),
                is_secret: false,
                deadline,
                at_most: REQUEST,
                limit: ANSWER,
            };
            let answer = self.client.send(endpoint, &request)?;
            let member = message::member(&answer.body).map_err(|wrong| bad_answer(endpoint, wrong))?;
            let date = answer.date.as_deref().and_then(date::parse);
            Ok(Member {
                ahead: date.map(|date| date.cast_signed().saturating_sub((self.now)().cast_signed())),
                ..member
            })
        };
        let result = |endpoint: &String| member(endpoint).map_err(|failure: Failure| failure.fact);
        self.endpoints.iter().map(|endpoint| (endpoint.clone(), result(endpoint))).collect()
    }

    /// Asks one endpoint after the other, until one has an answer.
    fn until<T>(&self, deadline: Instant, mut attempt: impl FnMut(usize) -> Result<T, Failure>) -> Result<T, Fact> {
        let mut reason = None;
        loop {
            let Some(began) = self.client.pace.wait(deadline) else {
                return Err(reason.map_or_else(resting, |of: Failure| of.fact));
            };
            let (mut all_refuse, mut asked, mut late) = (true, 0_usize, 0_usize);
            for endpoint in self.order() {
                asked = asked.saturating_add(1);
                let failure = match attempt(endpoint) {
                    Ok(answer) => return Ok(answer),
                    Err(failure) if failure.kind == Kind::Final => return Err(failure.fact),
                    Err(failure) => failure,
                };
                all_refuse &= matches!(failure.kind, Kind::Refused | Kind::Token);
                if failure.is_late {
                    late = late.saturating_add(1);
                    self.favourite.store(self.after(endpoint), Ordering::Relaxed);
                }
                reason = Some(worse(reason, failure));
                if instant() >= deadline {
                    break;
                }
            }
            if late > 0 {
                // Whoever has no time left has not asked all of many.
                let is_over = late > 1 && instant() >= deadline;
                self.client.pace.late(began, instant(), is_over || asked == self.endpoints.len());
            }
            if all_refuse || instant() >= deadline {
                return Err(fact_of(reason));
            }
            pause(PAUSE.min(deadline.saturating_duration_since(instant())));
        }
    }

    /// The favourite, and then the others, from any one on.
    fn order(&self) -> impl Iterator<Item = usize> {
        let (count, first) = (self.endpoints.len(), self.favourite.load(Ordering::Relaxed));
        let start = any(count);
        let others = (start..count).chain(0..start).filter(move |&other| other != first);
        std::iter::once(first).chain(others)
    }

    fn after(&self, endpoint: usize) -> usize {
        let next = endpoint.saturating_add(1);
        if next < self.endpoints.len() { next } else { 0 }
    }

    /// Sends one request to one endpoint: again only where etcd wants a fresh token, and so has done nothing. Whoever gives a
    /// good answer in the usual time is asked first from then on.
    fn ask<T>(
        &self,
        index: usize,
        asked: &Asked<'_>,
        parse: impl Fn(&[u8]) -> Result<Said<T>, Wrong>,
    ) -> Result<T, Failure> {
        let Some(endpoint) = self.endpoints.get(index) else { return Err(Failure::refused(fact_of(None))) };
        let answer = match &self.login {
            None => self.send(endpoint, asked, None)?,
            Some(login) => {
                let token = login.token(&self.client, endpoint, None, asked.deadline)?;
                match self.send(endpoint, asked, Some(&token)) {
                    Err(Failure { kind: Kind::Token, .. }) => {
                        let fresh = login.token(&self.client, endpoint, Some(&token), asked.deadline)?;
                        self.send(endpoint, asked, Some(&fresh))?
                    }
                    Err(failure @ Failure { kind: Kind::Ambiguous, .. }) => {
                        login.doubt(&token);
                        return Err(failure);
                    }
                    // Of which nobody who knows tokens has heard.
                    Err(failure @ Failure { kind: Kind::NotSent, .. }) => return Err(failure),
                    answer => {
                        login.trust();
                        answer?
                    }
                }
            }
        };
        // Who is in time only because there is more of it now is not asked first again.
        let next = if answer.took > asked.at_most { self.after(index) } else { index };
        let favourite = self.check_clock(endpoint, &answer, asked.deadline)?.unwrap_or(next);
        let said = parse(&answer.body).map_err(|wrong| bad_answer(endpoint, wrong))?;
        self.check_id(endpoint, said.cluster)?;
        self.favourite.store(favourite, Ordering::Relaxed);
        self.client.pace.answered();
        Ok(said.what)
    }

    fn send(&self, endpoint: &str, asked: &Asked<'_>, token: Option<&str>) -> Result<Answer, Failure> {
        let Asked { path, body, deadline, at_most, limit } = *asked;
        self.client
            .send(endpoint, &Request { path, body: body.as_bytes(), token, is_secret: false, deadline, at_most, limit })
    }

    /// Two clusters would each take a code once.
    fn check_id(&self, endpoint: &str, id: u64) -> Result<(), Failure> {
        match self.id.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed) {
            Err(known) if known != id => {
                let fact = Fact::new("another-cluster").with("endpoint", endpoint);
                let fact = fact.with("cluster", format!("{id:x}")).with("expected", format!("{known:x}"));
                let way_out = "all endpoints have to be of one cluster; restart the agent if it was made anew";
                Err(Failure::new(Kind::Ambiguous, fact.or(way_out)))
            }
            _ => Ok(()),
        }
    }

    /// Seconds between a server's clock and this host's, where they differ by more than they may.
    fn off_by(&self, date: &str, took: Duration) -> Option<u64> {
        let off = date::parse(date)?.abs_diff((self.now)());
        (off > CLOCK.saturating_add(took.as_secs()).saturating_add(1)).then_some(off)
    }

    /// Whether more than half of the endpoints that answer agree with this host's clock, where this one does not. Who takes
    /// codes of another time than the rest of the fleet lets codes in that were seen. `Ok(Some(_))`: this one does agree.
    fn check_clock(&self, endpoint: &str, answer: &Answer, deadline: Instant) -> Result<Option<usize>, Failure> {
        let Some(seconds) = answer.date.as_deref().and_then(|date| self.off_by(date, answer.took)) else {
            return Ok(None);
        };
        let dates = self.endpoints.iter().map(|endpoint| self.client.date(endpoint, deadline));
        let agree: Vec<Option<bool>> = dates
            .map(|answer| {
                answer.and_then(|(date, took)| date::parse(&date).map(|_| self.off_by(&date, took).is_none()))
            })
            .collect();
        let answered = agree.iter().flatten().count();
        let agreeing = agree.iter().flatten().filter(|agrees| **agrees).count();
        match agree.iter().position(|agrees| *agrees == Some(true)) {
            one @ Some(_) if agreeing > answered / 2 => Ok(one),
            _ => {
                let fact = Fact::new("clock-off").with_number("seconds", seconds).with("endpoint", endpoint);
                let way_out =
                    "this host's clock and the cluster's differ: NTP on all of them (chronyc tracking, timedatectl)";
                Err(Failure::new(Kind::Final, fact.or(way_out)))
            }
        }
    }
}

/// A request, but for who asks whom.
struct Asked<'a> {
    path: &'static str,
    body: &'a str,
    deadline: Instant,
    at_most: Duration,
    limit: u64,
}

fn bad_answer(endpoint: &str, wrong: Wrong) -> Failure {
    Failure::new(Kind::Ambiguous, Fact::new("bad-etcd-answer").with("endpoint", endpoint).with("error", wrong))
}

/// No endpoint was asked.
fn resting() -> Fact {
    Fact::new(UNREACHABLE).with("error", "no-time-a-moment-ago")
}

/// Which of two failures to speak of: the first of those that say most.
fn worse(one: Option<Failure>, other: Failure) -> Failure {
    let says = |failure: &Failure| match failure.kind {
        Kind::Refused => 2,
        // A server that does not take a certificate hangs up, which is seen sooner than what it says.
        _ if failure.fact.word() != UNREACHABLE => 1,
        _ => 0,
    };
    match one {
        Some(one) if says(&one) >= says(&other) => one,
        _ => other,
    }
}

fn fact_of(failure: Option<Failure>) -> Fact {
    failure.map_or_else(|| Fact::new(UNREACHABLE), |failure| failure.fact)
}

/// Any number below this one. Without random numbers: 0.
fn any(count: usize) -> usize {
    let [byte] = random::bytes().unwrap_or([0]);
    usize::from(byte).checked_rem(count).unwrap_or(0)
}
