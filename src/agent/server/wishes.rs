//! What somebody has done about their own devices: whoever is at the other end of the socket, by their uid, with a code of a
//! device that they have.
//!
//! | wish | its code | then |
//! |---|---|---|
//! | status | a device's | what there is |
//! | device remove | a device's | it is removed, but the last one that works |
//! | device add | a device's, or a recovery code: the phone is lost | the secret; its first code stores it |
//! | recovery new | a device's | the codes; that they were shown stores them |
//!
//! The code is judged as that of a login at the service `local` is: charged, used up, in the log. What rests between two
//! requests is sealed as a login is. It is good once: what root takes away meanwhile, or afterwards, does not come back by it.

use super::super::wire::{Knock, Reply, Verdict};
use super::super::wish::{Granted, Wish};
use super::away::{LIFE, ensure_in_time, put_away, read_record, taken_up, write_record};
use super::peers::{LOCAL, oneself};
use super::{Agent, Keys, log, verdict};
use crate::authenticate::{Counter, Done, Login, Outcome, Pending, Step, Visit, rules};
use crate::enrol::{NewDevice, recovery_codes};
use crate::fact::Fact;
use crate::identity::Person;
use crate::journal::Visitor;
use crate::ledger::Ledger;
use crate::otp::{Answer, Form, RecoveryCode};
use crate::policy::Policy;
use crate::record::native::Document;
use crate::record::{Record, RecoveryCodes};
use crate::secret::Secret;
use crate::source::Source;
use crate::store::seal::KeyRing;
use crate::store::{self, Opened, Store, StoreError};
use crate::system::{Errno, clock, random};
use crate::verify::{self, Accepted, Denial, Verdict as Judged};
use crate::words::{Reader, Writer};
use constant_time_eq::constant_time_eq_32;
use sha2::{Digest, Sha256};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

/// What is sealed here opens as nothing else.
const PURPOSE: &str = "wish";
/// How often the first code of a new device can be mistyped.
const TRIES: usize = 5;
/// Bytes of what tells one proposal from all others.
const ID: usize = 16;

const PROMPT: &str = "Code of a device that you have: ";
const PROMPT_OR_RECOVERY: &str = "Code of a device that you have, or a recovery code: ";
const FIRST_CODE: &str = "Code from the app: ";

/// Somebody who wishes something, and what holds for them.
struct Asker {
    peer: u32,
    person: Person,
    policy: Policy,
    keys: Keys,
}

/// A wish that waits for an answer.
struct Resting {
    /// When it was first asked for. It gets no younger by answers that are wrong.
    began: u64,
    wish: Wish,
    /// What was shown, once there was a right code. `None`: there was none yet.
    proposal: Option<Proposal>,
}

/// What is stored when it has been seen.
struct Proposal {
    /// Once.
    id: [u8; ID],
    grounds: Grounds,
    /// The new device alone, or the new recovery codes alone.
    record: Record,
    /// How many answers have not been the device's code.
    failures: usize,
}

/// By whose code something is done. It is done while they are still there.
struct Grounds {
    /// The device. Empty: a recovery code, which stands for all of them.
    device: String,
    factors: [u8; 32],
}

/// The proposals that were stored. Each has cost a code, so that there are few in the time for which they are remembered.
#[derive(Default)]
pub(super) struct Spent(Mutex<Vec<([u8; ID], u64)>>);

impl Spent {
    /// Whether it was not spent before. It is now.
    fn take(&self, id: [u8; ID], now: u64) -> bool {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spent.retain(|(_, when)| now.saturating_sub(*when) <= LIFE);
        let is_new = spent.iter().all(|(known, _)| *known != id);
        spent.push((id, now));
        is_new
    }
}

impl Agent {
    /// What has to be typed for a wish.
    pub(super) fn wish(&self, peer: u32, wish: Wish) -> Reply {
        let asked = self.asker(peer, &wish).and_then(|asker| {
            let prompt = if may_be_recovery(&wish) { PROMPT_OR_RECOVERY } else { PROMPT };
            self.question(&asker, &Resting { began: clock::moment().boot, wish, proposal: None }, None, prompt)
        });
        asked.unwrap_or_else(|fact| refused(peer, None, &fact))
    }

    /// What becomes of a wish with that.
    pub(super) fn prove(&self, peer: u32, wish: &[u8], answer: Secret<Vec<u8>>) -> Reply {
        let opened = Resting::open(&self.key, peer, wish, clock::moment().boot)
            .and_then(|resting| Ok((self.asker(peer, &resting.wish)?, resting)));
        let (asker, Resting { began, wish, proposal }) = match opened {
            Ok(opened) => opened,
            Err(fact) => return refused(peer, None, &fact),
        };
        let reply = match proposal {
            None => self.with_code(&asker, wish, answer),
            Some(proposal) => self.with_sight(&asker, (began, wish), proposal, answer),
        };
        reply.unwrap_or_else(|fact| refused(peer, Some(&asker), &fact))
    }

    fn asker(&self, peer: u32, wish: &Wish) -> Result<Asker, Fact> {
        let (person, mut policy) = oneself(peer, self.conf.as_deref())?;
        if matches!(wish, Wish::Recovery { .. }) && !policy.allow_scratch_codes.value {
            return Err(Fact::new("no-recovery-codes").or("the policy has allow_scratch_codes = false"));
        }
        policy.allow_scratch_codes.value &= may_be_recovery(wish);
        let keys = self.keys(&policy)?;
        let asker = Asker { peer, person, policy, keys };
        if asker.is_shared()? {
            return Err(Fact::new("shared-account")
                .with("user", asker.person.name())
                .or("a person is a key there, which sshd alone knows: root does this, with --user NAME --key KEY"));
        }
        Ok(asker)
    }

    fn question(
        &self,
        asker: &Asker,
        resting: &Resting,
        text: Option<Secret<Vec<u8>>>,
        prompt: &str,
    ) -> Result<Reply, Fact> {
        let login = resting.seal(&self.key, asker.peer)?;
        Ok(Reply::Question { text, prompt: prompt.as_bytes().to_vec(), echo: false, login })
    }

    /// What comes of the code of a device that there is.
    fn with_code(&self, asker: &Asker, wish: Wish, answer: Secret<Vec<u8>>) -> Result<Reply, Fact> {
        let Opened { store, ledger } = asker.opened();
        // Before it is judged: what is there when it was right can be somebody else's already.
        let before = store.load(&asker.person);
        let (reply, by) = asker.judged(&*store, ledger, answer);
        let (Some(by), Ok(before)) = (by, before) else { return Ok(reply) };
        let grounds = Grounds::new(&before, by)?;
        match &wish {
            Wish::Status => asker.status(&*store),
            Wish::Remove { name } => asker.removed(&*store, &grounds, name),
            Wish::Add { name, codes } => {
                let new = NewDevice::new(*codes, asker.policy.min_secret_bits.value).map_err(no_random_numbers)?;
                let device = new.device(name, clock::now());
                let secret = device.secret.as_ref().map(|secret| Secret::new(secret.expose().clone()));
                let secret = secret.map_err(|bad| bad.fact())?;
                asker.ensure_room(&*store, |record| record.add(device.clone()))?;
                self.proposed(asker, wish, grounds, Record::of(vec![device]), secret)
            }
            Wish::Recovery { count } => {
                let codes = recovery_codes((*count).into()).map_err(no_random_numbers)?;
                let salt = random::bytes().map_err(no_random_numbers)?;
                let mut record = Record::of(Vec::new());
                record.recovery = RecoveryCodes::new(salt, codes.iter().map(RecoveryCode::expose));
                let bytes = Secret::new(codes.iter().map(RecoveryCode::expose).collect::<Vec<_>>().concat());
                self.proposed(asker, wish, grounds, record, bytes)
            }
        }
    }

    /// Shows what is to be stored.
    fn proposed(
        &self,
        asker: &Asker,
        wish: Wish,
        grounds: Grounds,
        record: Record,
        text: Secret<Vec<u8>>,
    ) -> Result<Reply, Fact> {
        let id = random::bytes().map_err(no_random_numbers)?;
        let proposal = Some(Proposal { id, grounds, record, failures: 0 });
        self.question(asker, &Resting { began: clock::moment().boot, wish, proposal }, Some(text), FIRST_CODE)
    }

    /// What was shown has been seen: for a device, by its first code.
    fn with_sight(
        &self,
        asker: &Asker,
        (began, wish): (u64, Wish),
        proposal: Proposal,
        answer: Secret<Vec<u8>>,
    ) -> Result<Reply, Fact> {
        let stored = |record: &Record| {
            if !self.spent.take(proposal.id, clock::moment().boot) {
                return Err(
                    Fact::new("used-wish").or("what was shown has been stored already, or could not be: start again")
                );
            }
            asker.stored(&proposal.grounds, record)
        };
        if let Wish::Recovery { count } = &wish {
            stored(&proposal.record)?;
            return Ok(asker.done(&Fact::new("recovery-new").with_number("count", count)));
        }
        let answer = Answer::new(answer, Form::Code, false);
        let decision = verify::first_code(&proposal.record, &rules(&asker.policy, ""), &answer, clock::now());
        let denial = match decision.commit(stored)? {
            Judged::Accepted(accepted) => {
                return Ok(asker.done(&Fact::new("device-add").with("device", accepted.device)));
            }
            Judged::Denied(denial) => denial,
        };
        let is_guess = denial != Denial::NotACode;
        let failures = proposal.failures.saturating_add(is_guess.into());
        if failures >= TRIES {
            return Err(Fact::new("wrong-first-code")
                .with_number("tries", TRIES)
                .or("nothing was stored; is the clock of the device right?"));
        }
        let proposal = Some(Proposal { failures, ..proposal });
        self.question(asker, &Resting { began, wish, proposal }, None, FIRST_CODE)
    }
}

/// Whether a recovery code will do. It shows that somebody has lost a device, and brings them the next; with that one's code
/// they do the rest.
const fn may_be_recovery(wish: &Wish) -> bool {
    matches!(wish, Wish::Add { .. })
}

impl Asker {
    fn store(&self) -> Rc<dyn Store + '_> {
        self.opened().store
    }

    fn opened(&self) -> Opened<'_> {
        store::open(&self.policy, self.keys.means())
    }

    fn knock(&self) -> Knock {
        Knock { service: LOCAL.into(), user: self.person.name().to_vec(), uid: self.peer, ..Knock::default() }
    }

    /// Whether the account is that of several people. Which of them asks cannot be seen from here.
    fn is_shared(&self) -> Result<bool, Fact> {
        let store = self.store();
        let Some(admission) = store.admission() else { return Ok(false) };
        let people = admission.people_of_account(&self.person).map_err(StoreError::into_fact)?;
        Ok(people.iter().any(|person| person.key().is_some()))
    }

    /// The verdict on a code, and by what it was right. There is nothing here but the code: no grace, no exemption, nobody who
    /// is not asked.
    fn judged(
        &self,
        store: &dyn Store,
        ledger: Option<Rc<dyn Ledger + '_>>,
        answer: Secret<Vec<u8>>,
    ) -> (Reply, Option<Accepted>) {
        let source = Source::new(b"", self.peer);
        let visit = Visit {
            person: Ok(&self.person),
            name: self.person.name(),
            host: "",
            source: &source,
            login_key: b"",
            is_silent: true,
        };
        let (counter, remark) = Counter::with(&self.policy, ledger);
        let mut login = Login::new(&visit, &self.policy, store, &counter, clock::now);
        let (outcome, by) = match login.answer(Pending::Code, Ok(answer)) {
            Step::Done(Done { outcome, by, .. }) => (outcome, by),
            Step::Ask(_) => (Outcome::Denied(Fact::new("asked-again")), None),
        };
        let is_accepted = Verdict::of(&outcome) == Verdict::Allow;
        let reply = verdict(self.peer, &self.knock(), outcome.with_remark(remark), self.policy.fail_delay.value, None);
        (reply, by.filter(|_| is_accepted))
    }

    fn status(&self, store: &dyn Store) -> Result<Reply, Fact> {
        let record = store.load(&self.person).map_err(StoreError::into_fact)?;
        let path = store.path(&self.person)?.as_os_str().as_bytes().to_vec();
        let spares = record.recovery.len().saturating_add(record.scratch.expose().len());
        let spares = u32::try_from(spares).unwrap_or(u32::MAX);
        let roster = store::roster(&self.policy, self.keys.means()).map_err(StoreError::into_fact)?;
        let sealed_with = roster.sealed_with(&self.person.named()).map_err(StoreError::into_fact)?.unwrap_or_default();
        Ok(Reply::Granted(Granted::Status { path, sealed_with, devices: record.devices, spares }))
    }

    fn removed(&self, store: &dyn Store, grounds: &Grounds, name: &str) -> Result<Reply, Fact> {
        let change = &mut |record: &mut Record| {
            grounds.check(record)?;
            record.remove(name)?;
            let is_left = record.devices.iter().any(|device| device.is_usable(self.policy.min_secret_bits.value));
            let last =
                || Fact::new("last-device").with("device", name).or("add another one first; this one root removes");
            if is_left { Ok(()) } else { Err(last()) }
        };
        store.change(&self.person, change).map_err(StoreError::into_fact)?;
        Ok(self.done(&Fact::new("device-remove").with("device", name)))
    }

    /// Whether what is about to be shown could be stored now.
    fn ensure_room(&self, store: &dyn Store, change: impl FnOnce(&mut Record) -> Result<(), Fact>) -> Result<(), Fact> {
        let mut record = store.load(&self.person).map_err(StoreError::into_fact)?;
        change(&mut record)?;
        let document = Document { user: self.person.file_name(), uid: self.person.uid(), generation: 0, record };
        document.check_room().map_err(|too_large| too_large.fact())
    }

    /// Stores what was shown.
    fn stored(&self, grounds: &Grounds, new: &Record) -> Result<(), Fact> {
        let change = &mut |record: &mut Record| {
            grounds.check(record)?;
            if !new.recovery.is_empty() {
                record.recovery = new.recovery.clone();
            }
            new.devices.iter().cloned().try_for_each(|device| record.add(device))
        };
        self.store().change(&self.person, change).map_err(StoreError::into_fact)
    }

    /// It is in the log before anybody learns of it.
    fn done(&self, fact: &Fact) -> Reply {
        let fact = fact.clone().with_number("peer", self.peer);
        log(LOCAL.as_bytes(), &(libc::LOG_INFO, self.visitor().line("changed", "change", &fact)));
        Reply::Granted(Granted::Done)
    }

    fn visitor(&self) -> Visitor<'_> {
        Visitor { user: self.person.name(), tty: b"", ruser: b"", rhost: b"" }
    }
}

fn refused(peer: u32, asker: Option<&Asker>, fact: &Fact) -> Reply {
    let visitor = asker.map_or(Visitor { user: b"", tty: b"", ruser: b"", rhost: b"" }, Asker::visitor);
    let line = visitor.line("not changed", "reason", &fact.clone().with_number("peer", peer));
    log(LOCAL.as_bytes(), &(libc::LOG_NOTICE, line));
    Reply::Refused(fact.to_string().into_bytes())
}

fn no_random_numbers(error: Errno) -> Fact {
    Fact::new("no-random-numbers").with_error(error)
}

impl Grounds {
    fn new(record: &Record, Accepted { device, .. }: Accepted) -> Result<Self, Fact> {
        let factors = Self::factors(record, &device).ok_or_else(changed)?;
        Ok(Self { device, factors })
    }

    /// Fails where they are not there any more: root has removed a device, or the person, or enrolled them anew.
    fn check(&self, record: &Record) -> Result<(), Fact> {
        let is_there =
            Self::factors(record, &self.device).is_some_and(|factors| constant_time_eq_32(&factors, &self.factors));
        if is_there { Ok(()) } else { Err(changed()) }
    }

    fn factors(record: &Record, device: &str) -> Option<[u8; 32]> {
        let devices = record.devices.iter().filter(|known| device.is_empty() || known.name == device);
        let factors = Record::of(devices.cloned().collect()).factors()?;
        Some(Sha256::digest(factors.expose()).into())
    }
}

fn changed() -> Fact {
    Fact::new("record-changed").or("the devices are not what they were when the code was right: start again")
}

impl Resting {
    fn seal(&self, key: &KeyRing, peer: u32) -> Result<Vec<u8>, Fact> {
        let writer = Writer::new().long(self.began).wish(&self.wish);
        let writer = match &self.proposal {
            None => writer.byte(0),
            Some(proposal) => proposal.write(writer.byte(1)),
        };
        put_away(key, (PURPOSE, peer), writer, || Fact::new("wish-too-long"))
    }

    fn open(key: &KeyRing, peer: u32, sealed: &[u8], now: u64) -> Result<Self, Fact> {
        let unknown = || Fact::new("unknown-wish").or("the agent was started anew while you typed: start again");
        let read = |reader: &mut Reader| {
            Some(Self { began: reader.long()?, wish: reader.wish()?, proposal: reader.maybe(Proposal::read)? })
        };
        let resting = taken_up(key, (PURPOSE, peer), sealed, read).ok_or_else(unknown)?;
        ensure_in_time(resting.began, now).map_err(|fact| fact.or("start again"))?;
        Ok(resting)
    }
}

impl Proposal {
    fn write(&self, writer: Writer) -> Writer {
        let Self { id, grounds: Grounds { device, factors }, record, failures } = self;
        let writer = writer.text(id).text(device.as_bytes()).text(factors);
        write_record(writer, record).count(*failures)
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        let id = reader.text()?.try_into().ok()?;
        let grounds = Grounds { device: reader.string()?, factors: reader.text()?.try_into().ok()? };
        let (record, failures) = (read_record(reader)?, usize::try_from(reader.number()?).ok()?);
        Some(Self { id, grounds, record, failures })
    }
}
