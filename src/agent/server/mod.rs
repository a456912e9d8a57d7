//! The agent's side of a login.

mod away;
mod peers;
mod wishes;

use super::wire::{Bad, Knock, Reply, Request, Verdict};
use crate::authenticate::{Counter, Done, Login, NoAnswer, Outcome, Question, Step, Visit};
use crate::fact::{Escaped, Fact};
use crate::identity::{Person, Unidentified, identify};
use crate::journal::{Line, Visitor};
use crate::ledger::{Notice, Who};
use crate::options::Options;
use crate::policy::{Document, FAIL_DELAY, Policy, StoreKind};
use crate::secret::Secret;
use crate::source::Source;
use crate::store::fleet::{Fleet, REPORT_EVERY};
use crate::store::seal::{KeyId, KeyRing};
use crate::store::{self, Means, Opened, StoreError};
use crate::system::clock;
use crate::system::{Errno, syslog};
use away::Resting;
use peers::Admitted;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use wishes::Spent;

/// Of pam_totp.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What answers requests. Every request stands for itself: any number of them can be answered at once.
pub struct Agent {
    /// The policy file, if not the usual one.
    conf: Option<Vec<u8>>,
    /// The file with the keys that records are sealed with.
    ring: PathBuf,
    /// The file that says where the fleet is.
    fleet_conf: PathBuf,
    /// The fleet, once somebody has asked for it.
    fleet: Mutex<Option<Arc<Fleet>>>,
    /// When this host last said there that it is one of it, by the time since the machine was started.
    reported: AtomicU64,
    /// The keys that it had at the last login, of which it says so at once where they change.
    had: Mutex<Vec<(KeyId, bool)>>,
    /// Seals logins and wishes between two requests, for as long as this process lives.
    key: KeyRing,
    /// The wishes that are done.
    spent: Spent,
}

/// What a store is opened with.
struct Keys {
    ring: Option<KeyRing>,
    fleet: Option<Arc<Fleet>>,
}

impl Keys {
    fn means(&self) -> Means<'_> {
        Means { ring: self.ring.as_ref(), fleet: self.fleet.as_deref(), is_waited_for: true }
    }
}

/// What goes on in a request.
enum Stage {
    Begin(Option<Secret<Vec<u8>>>),
    Answer(Resting, Result<Secret<Vec<u8>>, NoAnswer>),
}

impl Agent {
    /// One that goes by this policy file, unless a module of root's names another, opens what is sealed with a key of that
    /// ring, if it is there, and belongs to the fleet of which that file says where it is.
    ///
    /// # Errors
    /// As getrandom(2).
    pub fn new(conf: Option<Vec<u8>>, ring: PathBuf, fleet_conf: PathBuf) -> Result<Self, Errno> {
        Ok(Self {
            conf,
            ring,
            fleet_conf,
            fleet: Mutex::default(),
            reported: AtomicU64::new(0),
            had: Mutex::default(),
            key: KeyRing::ephemeral()?,
            spent: Spent::default(),
        })
    }

    /// The reply to a request of somebody with this uid. `None`: it is no request.
    pub fn reply(&self, peer: u32, message: &[u8]) -> Option<Secret<Vec<u8>>> {
        let reply = match Request::parse(message) {
            Ok(Request::Begin(knock, first_pass)) => self.step(peer, &knock, Stage::Begin(first_pass)),
            Ok(Request::Answer(login, answer)) => match Resting::open(&self.key, peer, &login, clock::moment().boot) {
                Ok((knock, resting)) => self.step(peer, &knock, Stage::Answer(resting, answer)),
                Err(fact) => denied(peer, &Knock::default(), fact),
            },
            Ok(Request::Notice(knock)) => Reply::Notice(self.notice(peer, &knock)),
            Ok(Request::Wish(wish)) => self.wish(peer, wish),
            Ok(Request::Proof(wish, answer)) => self.prove(peer, &wish, answer),
            Err(Bad::Version(_)) => Reply::Version,
            Err(Bad::Message) => return None,
        };
        // Nothing that is this long can have been asked for.
        reply.message().ok()
    }

    /// Who asks: of a process of root's, who has started it.
    pub fn who_asks(&self, peer: u32, message: &[u8]) -> u32 {
        if peer != 0 {
            return peer;
        }
        match Request::parse(message) {
            Ok(Request::Begin(knock, _)) => knock.uid,
            Ok(Request::Answer(login, _)) => {
                Resting::open(&self.key, peer, &login, clock::moment().boot).map_or(peer, |(knock, _)| knock.uid)
            }
            _ => peer,
        }
    }

    /// The reply to a request that came to nothing by a fault of ours.
    pub fn denial() -> Option<Secret<Vec<u8>>> {
        let fail_delay = u32::try_from(FAIL_DELAY).unwrap_or(u32::MAX);
        Reply::Verdict { verdict: Verdict::Deny, fail_delay, password: None }.message().ok()
    }

    fn step(&self, peer: u32, knock: &Knock, stage: Stage) -> Reply {
        let admitted = match Admitted::new(peer, knock, self.conf.as_deref()) {
            Ok(admitted) => admitted,
            Err(fact) => return denied(peer, &peers::of_refused(peer, knock), fact),
        };
        let Admitted { knock, policy, .. } = &admitted;
        let person = person(&admitted);
        let source = Source::new(&knock.rhost, knock.uid);
        let visit = Visit {
            person: person.as_ref().map_err(|&error| error),
            name: &knock.user,
            host: std::str::from_utf8(&knock.rhost).unwrap_or_default(),
            source: &source,
            login_key: &knock.login_key,
            is_silent: knock.is_silent,
        };
        let keys = match self.keys(policy) {
            Ok(keys) => keys,
            Err(fact) => return denied(peer, knock, fact),
        };
        let Opened { store, ledger } = store::open(policy, keys.means());
        let (counter, remark) = Counter::with(policy, ledger);
        let mut login = Login::new(&visit, policy, &*store, &counter, clock::now);
        let step = match stage {
            Stage::Begin(first_pass) => login.begin(first_pass),
            Stage::Answer(resting, answer) => {
                login.take_up(&resting.away);
                login.answer(resting.pending, answer)
            }
        };
        match step {
            Step::Ask(Question { text, pending }) => {
                let resting = Resting { away: login.put_away(), pending };
                match resting.seal(&self.key, peer, knock, clock::moment().boot) {
                    Ok(login) => Reply::Question {
                        text: text.map(|text| Secret::new(text.expose().clone().into_bytes())),
                        prompt: policy.prompt.value.clone(),
                        echo: policy.echo.value,
                        login,
                    },
                    Err(fact) => denied(peer, knock, fact),
                }
            }
            Step::Done(Done { outcome, password, .. }) => {
                let password = password.map(|password| password.expose().len());
                verdict(peer, knock, outcome.with_remark(remark), policy.fail_delay.value, password)
            }
        }
    }

    /// What the store is opened with. The ring is read anew each time: what `pam-totp key` changes holds at once, and keys are in
    /// memory while they are used. The way to the fleet is kept, with its connections.
    fn keys(&self, policy: &Policy) -> Result<Keys, Fact> {
        let ring = KeyRing::read_if_there(&self.ring).map_err(|no_ring| no_ring.fact())?;
        let has = ring.as_ref().map_or_else(Vec::new, |ring| ring.keys().collect());
        let had = std::mem::replace(&mut *self.had.lock().unwrap_or_else(PoisonError::into_inner), has.clone());
        if had != has {
            self.reported.store(0, Relaxed);
        }
        let fleet = if policy.store.value == StoreKind::Fleet { Some(self.fleet()?) } else { None };
        Ok(Keys { ring, fleet })
    }

    fn fleet(&self) -> Result<Arc<Fleet>, Fact> {
        let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fleet) = &*fleet {
            return Ok(Arc::clone(fleet));
        }
        let made = Arc::new(Fleet::open(&self.fleet_conf)?);
        *fleet = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Says in the fleet, now and then, that this host is one of it. After a reply, so that nobody waits for it.
    pub fn report(&self) {
        let now = clock::moment().boot;
        let last = self.reported.load(Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= REPORT_EVERY;
        // Once nobody has asked for the fleet, there is none.
        let has_fleet = self.fleet.lock().is_ok_and(|fleet| fleet.is_some());
        if !is_due || !has_fleet || self.reported.compare_exchange(last, now.max(1), Relaxed, Relaxed).is_err() {
            return;
        }
        let policy =
            Document::load(self.conf.as_deref()).map(|document| Policy::new("", &Options::default(), &document));
        let Ok(policy) = policy else { return };
        let Ok(keys) = self.keys(&policy) else { return };
        let reported = store::fleet_store(&policy, keys.means(), None).and_then(|store| store.report(VERSION));
        if let Err(StoreError::Failed(fact)) = reported {
            syslog::write(c"pam_totp(fleet)", libc::LOG_ERR, &format!("reason={fact}"));
        }
    }

    fn notice(&self, peer: u32, knock: &Knock) -> Option<Notice> {
        // A session is opened by root.
        let admitted = Admitted::new(peer, knock, self.conf.as_deref()).ok().filter(|_| peer == 0)?;
        let person = person(&admitted).ok()?;
        let keys = self.keys(&admitted.policy).ok()?;
        let opened = store::open(&admitted.policy, keys.means());
        let (Counter::Ledger(ledger), _) = Counter::with(&admitted.policy, opened.ledger) else { return None };
        ledger.take_notice(Who::of(&person))
    }
}

fn person(Admitted { knock, policy, is_theirs }: &Admitted) -> Result<Person, Unidentified> {
    if !is_theirs {
        return Err(Unidentified::NotTheirs);
    }
    identify(&knock.user, policy, &knock.login_key, || knock.caller.ok_or(Errno::INVAL))
}

fn denied(peer: u32, knock: &Knock, fact: Fact) -> Reply {
    verdict(peer, knock, Outcome::Denied(fact), FAIL_DELAY, None)
}

/// A verdict, which is in the log before anybody learns of it.
fn verdict(peer: u32, knock: &Knock, outcome: Outcome, fail_delay: u64, password: Option<usize>) -> Reply {
    let outcome = if peer == 0 { outcome } else { outcome.map(|fact| fact.with_number("peer", peer)) };
    let visitor = Visitor { user: &knock.user, tty: b"", ruser: b"", rhost: &knock.rhost };
    log(&knock.service, &visitor.reason(&outcome));
    let fail_delay = u32::try_from(fail_delay).unwrap_or(u32::MAX);
    Reply::Verdict { verdict: Verdict::of(&outcome), fail_delay, password }
}

/// As the module would: what reads the log finds the same in it.
fn log(service: &[u8], (priority, line): &Line) {
    let front = format!("pam_totp({}:auth)", Escaped(service));
    // There is no NUL in what is escaped.
    if let Ok(front) = CString::new(front) {
        syslog::write(&front, *priority, line);
    }
}
