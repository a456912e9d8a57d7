//! Who has no device, and gets one here and now.
//!
//! That a first factor has passed is known of one kind of login alone: of sshd's, where it says which key it has accepted. To
//! whoever comes so a secret can be shown. Everybody else, and whoever had a device before, needs a ticket first, and types
//! it at the ordinary prompt: nobody else learns that there is somebody without a device, nor by how long it takes. They are
//! looked up once they have typed what can be a ticket.

use super::asked::{NotJudged, not_a_code};
use super::cost::Guess;
use super::{Counter, Done, Login, Outcome, Pending, Question, Step};
use crate::enrol::qr::Drawing;
use crate::enrol::{Codes, DEVICE, NewDevice, SPARES, Screen, absence, host_name, recovery_codes};
use crate::fact::Fact;
use crate::identity::{Person, Unidentified, login_key};
use crate::ledger::Who;
use crate::options::FirstPass;
use crate::otp::{Answer, NotACode, RecoveryCode};
use crate::policy::values::End;
use crate::policy::{EnrolmentKind, Qr};
use crate::record::{Record, RecoveryCodes};
use crate::secret::Secret;
use crate::store::{Admission, Attempt, Grounds, StoreError};
use crate::system::random;
use crate::verify::{self, Accepted, Denial, Rules, Try, Verdict};

/// How often the first code can be mistyped; a wrong one stores nothing.
const TRIES: usize = 3;

/// Somebody without a device.
pub(super) struct Newcomer<'a> {
    person: &'a Person,
    admission: &'a dyn Admission,
    /// They need no ticket.
    is_first: bool,
    /// The code of somebody else of the account will do.
    is_new_key: bool,
    /// Until when they can do without.
    optional_until: Option<End>,
}

/// A device that somebody was shown, and whose first code they are asked for.
pub struct Trial {
    /// What the person has shown for it.
    pub grounds: Grounds,
    /// The record to be.
    pub record: Record,
    /// How many answers have not been its code.
    pub failures: usize,
}

impl<'a, N: Fn() -> u64> Login<'a, N> {
    /// A key was accepted: something can be shown.
    pub(super) fn is_known_by_half(&self) -> bool {
        login_key::is_accepted(self.visit.login_key)
    }

    /// Where somebody would get a device, if they have none. Where the ledger does not work, nobody does.
    fn admission(&self, person: &Person) -> Option<&'a dyn Admission> {
        let (enrolment, options) = (self.policy.enrolment.value, &self.policy.options);
        // Where a password is asked for along with the code, or nobody is asked, there is no place for this.
        let has_place = !options.forward_pass && options.first_pass != FirstPass::Use && !self.visit.is_silent;
        let may_enrol = enrolment.is_inside_a_login() && has_place && !matches!(self.counter, Counter::Broken(_));
        self.store.admission().filter(|_| may_enrol && !person.is_virtual() && self.needs_a_code(person))
    }

    /// Whether somebody is asked whatever they have, since a ticket would get them a device. While they can do without, that is
    /// who has a device or a ticket: both are looked for in any case, so that the prompt comes as late for everybody.
    pub(super) fn is_asked_anyway(&self) -> bool {
        let person = self.looked_at();
        let Some(admission) = self.admission(&person) else { return false };
        let Some(end) = self.policy.enrolment.value.optional_until else { return true };
        let has_record = self.told(self.store.has_record(&person)) != Some(false);
        let latest = self.latest_time();
        if end.over <= latest {
            return true;
        }
        let is_invited = self.told(admission.is_invited(&person, latest)) == Some(true);
        has_record || is_invited || self.visit.person.is_err()
    }

    /// Whether whoever logs in has no device and may have one. Where the store does not work, nobody may.
    pub(super) fn newcomer(&self) -> Option<Newcomer<'a>> {
        let looked_at = self.looked_at();
        let (admission, enrolment) = (self.admission(&looked_at)?, self.policy.enrolment.value);
        let has_record = self.told(self.store.has_record(&looked_at));
        let person = self.visit.person.ok()?;
        if has_record != Some(false) {
            return None;
        }
        let latest = self.latest_time();
        let may_be_first = enrolment.kind == EnrolmentKind::Inline && self.is_known_by_half();
        let optional_until = enrolment.optional_until.filter(|end| latest < end.over);
        let never_enrolled =
            (may_be_first || optional_until.is_some()) && self.told(self.store.never_enrolled(person)) == Some(true);
        let (is_first, optional_until) = (may_be_first && never_enrolled, optional_until.filter(|_| never_enrolled));
        // Until then nobody is asked for a ticket who has none.
        let is_asked =
            is_first || optional_until.is_none() || self.told(admission.is_invited(person, latest)) == Some(true);
        let is_new_key = self.told(admission.is_new_key(person)) == Some(true);
        is_asked.then_some(Newcomer { person, admission, is_first, is_new_key, optional_until })
    }

    /// What somebody without a device is asked first, where something can be shown.
    pub(super) fn with_enrolment(&self, newcomer: &Newcomer<'a>) -> Step {
        if newcomer.is_first {
            return self.new_device(newcomer, Grounds::First);
        }
        Step::Ask(Question { text: Some(newcomer.question()), pending: Pending::Grounds })
    }

    /// An answer at the ordinary prompt. Of whom nothing was known before, it may be a ticket, or nothing.
    pub(super) fn with_code_or_ticket(&mut self, answer: &Answer) -> Step {
        let may_be_newcomers = answer.recovery_code().is_some() || self.can_be_without(answer);
        if may_be_newcomers && !self.is_known_by_half() { self.with_grounds(answer) } else { self.with_answer(answer) }
    }

    /// What the newcomer has to show for a device.
    pub(super) fn with_grounds(&mut self, answer: &Answer) -> Step {
        // Root may have enrolled them meanwhile.
        let Some(newcomer) = self.newcomer() else { return self.with_no_grounds(answer) };
        if let Some(outcome) = self.does_without(answer) {
            return outcome.into();
        }
        let grounds = match answer.recovery_code() {
            Some((word, _)) => self.ticket(&newcomer, word),
            None if newcomer.is_new_key && answer.check().is_ok() => self.voucher(&newcomer, answer),
            // As everybody else.
            None => return self.with_answer(answer),
        };
        match grounds {
            Ok(grounds) => {
                // What was right costs nothing.
                self.take_back_from(0);
                self.new_device(&newcomer, grounds)
            }
            Err(not_judged) => not_judged.into_outcome().into(),
        }
    }

    /// The answer of somebody who is no newcomer. A word is looked up for them too, so that it takes as long.
    fn with_no_grounds(&mut self, answer: &Answer) -> Step {
        let (person, step) = (self.looked_at(), self.with_answer(answer));
        if let Step::Done(Done { outcome: Outcome::Denied(_), .. }) = step
            && let (Some(admission), Some((word, _))) = (self.admission(&person), answer.recovery_code())
        {
            let _ = admission.ticket(&person, &word);
        }
        step
    }

    /// An answer of nothing, of somebody who can do without a device for now: now, not when they were asked.
    fn does_without(&self, answer: &Answer) -> Option<Outcome> {
        self.can_be_without(answer).then(|| self.passes_without_a_device())?.map(Outcome::NotAsked)
    }

    /// An answer of nothing, where there may be somebody who needs no more.
    fn can_be_without(&self, answer: &Answer) -> bool {
        answer.check() == Err(NotACode::Empty) && self.policy.enrolment.value.optional_until.is_some()
    }

    /// Looks a word up, once it is charged.
    fn ticket(&self, newcomer: &Newcomer, word: RecoveryCode) -> Result<Grounds, NotJudged> {
        self.charge(&Guess::new(true), None)?;
        let ticket = newcomer.admission.ticket(newcomer.person, &word)?;
        let ticket = ticket.ok_or_else(|| Fact::new("wrong-ticket"))?;
        if ticket.is_over(self.latest_time()) {
            return Err(Fact::new("ticket-over").or("pam-totp invite makes a new one").into());
        }
        Ok(Grounds::Ticket(word, ticket))
    }

    /// Judges a code by all devices of the account, and says whose it is. It is charged to all newcomers together: whoever can
    /// make keys for the account has as many as they like.
    fn voucher(&self, newcomer: &Newcomer, answer: &Answer) -> Result<Grounds, NotJudged> {
        self.charge(&Guess::new(true), None)?;
        let rules = Rules { allow_scratch_codes: false, increment_hotp: false, ..self.rules };
        let attempt = Try::new(answer);
        let charge = |record: &Record| verify::charge(record, &rules, &attempt, (self.now)());
        // Of several reasons the log has the one that is about the code.
        let nobody = Fact::new("not-enrolled").or("nobody of this account has a device: pam-totp invite");
        let mut reason = (0, nobody);
        let mut because = |weight, fact| {
            if weight >= reason.0 {
                reason = (weight, fact);
            }
        };
        for other in newcomer.admission.people_of_account(newcomer.person)? {
            if let Some(fact) = self.disabled(&other) {
                because(1, fact);
                continue;
            }
            match self.store.attempt(&other, &charge, None) {
                Ok(Attempt { verdict: Verdict::Accepted(accepted), .. }) => {
                    return Ok(Grounds::Account(other, accepted.device));
                }
                Ok(Attempt { verdict: Verdict::Denied(denial), .. }) => match denial {
                    Denial::UsedCode => because(3, denial.fact()),
                    Denial::WrongCode { .. } => because(2, denial.fact()),
                    _ => because(1, denial.fact()),
                },
                Err(StoreError::Unreachable(fact)) => return Err(NotJudged::Unavailable(fact)),
                // That one's record is broken; another's may be good.
                Err(error) => because(1, error.into_fact()),
            }
        }
        let (_, reason) = reason;
        Err(reason.with("enrolment", Grounds::ACCOUNT).into())
    }

    /// Shows a new secret.
    fn new_device(&self, newcomer: &Newcomer<'a>, grounds: Grounds) -> Step {
        let new = NewDevice::new(Codes::default(), self.policy.min_secret_bits.value);
        let codes = recovery_codes(if self.policy.allow_scratch_codes.value { SPARES } else { 0 });
        let (Ok(new), Ok(codes), Ok(salt)) = (new, codes, random::bytes()) else {
            return denied(Fact::new("no-random-numbers"), &grounds);
        };
        let device = match &grounds {
            Grounds::Ticket(_, ticket) => &ticket.device,
            Grounds::First | Grounds::Account(..) => DEVICE,
        };
        let mut record = Record::of(vec![new.device(device, (self.now)())]);
        record.recovery = RecoveryCodes::new(salt, codes.iter().map(RecoveryCode::expose));
        let text = self.screen(newcomer, &new, &codes);
        let trial = Box::new(Trial { grounds, record, failures: 0 });
        Step::Ask(Question { text: Some(text), pending: Pending::FirstCode(trial) })
    }

    /// Stores a device if its first code is right.
    pub(super) fn with_first_code(&mut self, trial: Trial, answer: &Answer) -> Step {
        if let Some(outcome) = self.does_without(answer) {
            return outcome.into();
        }
        let reason = match answer.check() {
            Err(shape) => {
                self.was_no_code = true;
                not_a_code(shape)
            }
            Ok(()) => match self.judged_first(&trial, answer) {
                Ok(Verdict::Accepted(accepted)) => {
                    return Outcome::Accepted(self.admitted(&trial.grounds, accepted)).into();
                }
                Ok(Verdict::Denied(denial)) => denial.fact(),
                Err(NotJudged::Denied(fact)) => return trial.denied(fact),
                Err(NotJudged::Unavailable(fact)) => return Outcome::Unavailable(fact).into(),
            },
        };
        let failures = trial.failures.saturating_add(1);
        if failures >= TRIES {
            return trial.denied(reason.with_number("tries", TRIES));
        }
        Pending::FirstCode(Box::new(Trial { failures, ..trial })).into()
    }

    /// What this login was charged is taken back, and nothing else: what other newcomers have cost stays until root says
    /// otherwise, or one who may vouch could guess for ever. From here on it is the person who is counted.
    fn admitted(&mut self, grounds: &Grounds, accepted: Accepted) -> Fact {
        let fact = accepted.fact().with("enrolled", grounds.name());
        if let Ok(person) = self.visit.person {
            self.who = Who::of(person);
        }
        self.give_back();
        match grounds {
            Grounds::Account(voucher, _) => fact.with("vouched-by", voucher.key().unwrap_or("account")),
            Grounds::First | Grounds::Ticket(..) => fact,
        }
    }

    /// Judges a first code, once it is charged. A right one stores the record; there is no other way to that verdict.
    fn judged_first(&self, trial: &Trial, answer: &Answer) -> Result<Verdict, NotJudged> {
        let person = self.visit.person.map_err(Unidentified::fact)?;
        let admission = self.store.admission().ok_or_else(|| Fact::new("no-enrolment"))?;
        self.charge(&Guess::new(true), None)?;
        let decision = verify::first_code(&trial.record, &self.rules, answer, (self.now)());
        let now = self.latest_time();
        Ok(decision.commit(|record: &Record| admission.admit(person, record, &trial.grounds, now))?)
    }

    fn screen(&self, newcomer: &Newcomer, new: &NewDevice, recovery: &[RecoveryCode]) -> Secret<String> {
        let until = newcomer.optional_until.map(|end| end.to_string());
        Screen {
            account: &newcomer.account(),
            is_of_key: newcomer.person.key().is_some(),
            host: &host_name(),
            new,
            recovery,
            drawing: match self.policy.qr.value {
                Qr::Utf8 => Some(Drawing::HalfBlocks),
                Qr::Ascii => Some(Drawing::Ascii),
                Qr::Off => None,
            },
            optional_until: until.as_deref(),
        }
        .text()
    }
}

impl Trial {
    pub(super) fn denied(&self, reason: Fact) -> Step {
        denied(reason, &self.grounds)
    }
}

fn denied(reason: Fact, grounds: &Grounds) -> Step {
    Outcome::Denied(reason.with("enrolment", grounds.name())).into()
}

impl Newcomer<'_> {
    fn account(&self) -> String {
        String::from_utf8_lossy(self.person.name()).into_owned()
    }

    /// What is asked of somebody who needs a ticket.
    fn question(&self) -> Secret<String> {
        let (account, is_of_key) = (self.account(), self.person.key().is_some());
        let mut text = format!("\n{}.\nType your ticket", absence(&account, &host_name(), is_of_key));
        if self.is_new_key {
            text += &format!(", or the code of a device that {account} has already");
        }
        if let Some(end) = self.optional_until {
            text += &format!(",\nor press Enter to do without until {end}");
        }
        Secret::new(text + ".\n")
    }
}
