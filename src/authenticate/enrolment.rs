//! Who has no device, and gets one here and now.
//!
//! That a first factor has passed is known of one kind of login alone: of sshd's, where it says which key it has accepted. To
//! whoever comes so a secret can be shown. Everybody else, and whoever had a device before, needs a ticket first, and types
//! it at the ordinary prompt: nobody else learns that there is somebody without a device.

use super::asked::{NotJudged, no_answer, not_a_code};
use super::cost::Guess;
use super::{Application, Login, Outcome};
use crate::enrol::qr::Drawing;
use crate::enrol::{DEVICE, NewDevice, SPARES, Screen, absence, host_name, recovery_codes};
use crate::fact::Fact;
use crate::identity::{Person, login_key};
use crate::ledger::{Memory, Who};
use crate::options::FirstPass;
use crate::otp::{Answer, RecoveryCode};
use crate::policy::values::End;
use crate::policy::{EnrolmentKind, Qr};
use crate::record::{Record, RecoveryCodes};
use crate::secret::Secret;
use crate::store::{Admission, Attempt, Grounds, StoreError};
use crate::system::clock::Moment;
use crate::system::random;
use crate::verify::{self, Rules, Try, Verdict};

/// How often the first code can be mistyped; a wrong one stores nothing.
const TRIES: usize = 3;

/// Somebody without a device.
pub(super) struct Newcomer<'a> {
    person: &'a Person,
    admission: &'a dyn Admission,
    /// A key was accepted: something can be shown.
    is_known_by_half: bool,
    /// They need no ticket.
    is_first: bool,
    /// Until when they can do without.
    optional_until: Option<End>,
}

/// Why somebody may have a device.
enum Invitation {
    First,
    Ticket(RecoveryCode, String),
    /// Whose code it was: a key, or the account's name.
    Account(String),
}

impl<'a, M: Memory, C: Fn() -> Moment, N: Fn() -> u64> Login<'a, M, C, N> {
    /// Whether whoever logs in has no device and may have one. Where the store does not know, nobody does.
    pub(super) fn newcomer(&self) -> Option<Newcomer<'a>> {
        let (person, admission) = (self.visit.person.ok()?, self.store.admission()?);
        let (enrolment, options) = (self.policy.enrolment.value, &self.policy.options);
        // Where a password is asked for along with the code, or nobody is asked, there is no place for this.
        let has_place = !options.forward_pass && options.first_pass != FirstPass::Use && !self.visit.is_silent;
        if !enrolment.is_inside_a_login() || !has_place || person.is_virtual() || !self.needs_a_code(person) {
            return None;
        }
        if self.store.has_record(person) != Ok(false) {
            return None;
        }
        let never_enrolled = self.store.never_enrolled(person) == Ok(true);
        let is_known_by_half = login_key::is_accepted(self.visit.login_key);
        let is_first = enrolment.kind == EnrolmentKind::Inline && is_known_by_half && never_enrolled;
        let latest = self.latest_time();
        let optional_until = enrolment.optional_until.filter(|end| never_enrolled && latest < end.over);
        // Until then nobody is asked for a ticket who has none.
        let is_asked = is_first || optional_until.is_none() || admission.is_invited(person, latest) == Ok(true);
        is_asked.then_some(Newcomer { person, admission, is_known_by_half, is_first, optional_until })
    }

    pub(super) fn with_enrolment(&mut self, newcomer: &Newcomer<'a>, application: &mut impl Application) -> Outcome {
        self.invitation(newcomer, application)
            .and_then(|invitation| self.first_device(newcomer, &invitation, application))
            .unwrap_or_else(|outcome| outcome)
    }

    /// What the newcomer has to show for it.
    fn invitation(&mut self, newcomer: &Newcomer, application: &mut impl Application) -> Result<Invitation, Outcome> {
        if newcomer.is_first {
            return Ok(Invitation::First);
        }
        if newcomer.is_known_by_half {
            application.tell(&newcomer.question()).map_err(|reason| Outcome::Denied(no_answer(reason)))?;
        }
        let answer = self.asked(application).map_err(Outcome::Denied)?;
        newcomer.does_without(&answer)?;
        if let Some((word, _)) = answer.recovery_code() {
            return self.ticket(newcomer, word).map_err(NotJudged::into_outcome);
        }
        if newcomer.person.key().is_some() && answer.check().is_ok() {
            return self.vouched_for(newcomer, &answer).map(Invitation::Account).map_err(NotJudged::into_outcome);
        }
        Err(match self.judged(Some(&answer)) {
            // Nobody has a right code who has no device; if they have one by now, the next login is theirs.
            Ok(judged) => Outcome::Denied(judged.fact),
            Err(not_judged) => not_judged.into_outcome(),
        })
    }

    /// Looks a word up, once it is charged.
    fn ticket(&self, newcomer: &Newcomer, word: RecoveryCode) -> Result<Invitation, NotJudged> {
        self.charge(&Guess::new(true), None)?;
        let ticket = newcomer.admission.ticket(newcomer.person, &word)?;
        let ticket = ticket.ok_or_else(|| Fact::new("wrong-ticket"))?;
        if self.latest_time() >= ticket.expires {
            return Err(Fact::new("ticket-over").or("pam-totp invite makes a new one").into());
        }
        Ok(Invitation::Ticket(word, ticket.device))
    }

    /// Judges a code by all devices of the account, and says whose it is. It is charged to the account: whoever can make keys
    /// for it has as many as they like.
    fn vouched_for(&self, newcomer: &Newcomer, answer: &Answer) -> Result<String, NotJudged> {
        self.charge(&Guess::new(true), None)?;
        let rules = Rules { allow_scratch_codes: false, increment_hotp: false, ..self.rules };
        let attempt = Try::new(answer);
        let charge = |record: &Record| verify::charge(record, &rules, &attempt, (self.now)());
        let mut reason = Fact::new("not-enrolled").or("nobody of this account has a device: pam-totp invite");
        for other in newcomer.admission.people_of_account(newcomer.person)? {
            match self.store.attempt(&other, &charge) {
                Ok(Attempt { verdict: Verdict::Accepted(_), .. }) => {
                    return Ok(other.key().map_or_else(|| newcomer.account(), str::to_owned));
                }
                Ok(Attempt { verdict: Verdict::Denied(denial), .. }) => reason = denial.fact(),
                Err(StoreError::Unreachable(fact)) => return Err(NotJudged::Unavailable(fact)),
                // That one's record is broken; another's may be good.
                Err(error) => reason = error.into_fact(),
            }
        }
        Err(reason.with("enrolment", Grounds::Account.name()).into())
    }

    /// Shows a new secret, and stores it if the first code is right.
    fn first_device(
        &mut self,
        newcomer: &Newcomer<'a>,
        invitation: &Invitation,
        application: &mut impl Application,
    ) -> Result<Outcome, Outcome> {
        let denied = |fact: Fact| Outcome::Denied(fact.with("enrolment", invitation.grounds().name()));
        let person = newcomer.person;
        let new = NewDevice::new(Default::default(), self.policy.min_secret_bits.value);
        let codes = recovery_codes(if self.policy.allow_scratch_codes.value { SPARES } else { 0 });
        let salt = random::bytes();
        let (Ok(new), Ok(codes), Ok(salt)) = (new, codes, salt) else {
            return Err(denied(Fact::new("no-random-numbers")));
        };
        let mut trial = Record::of(vec![new.device(invitation.device(), (self.now)())]);
        trial.recovery = RecoveryCodes::new(salt, codes.iter().map(RecoveryCode::expose));
        let text = self.screen(newcomer, &new, &codes);
        application.tell(&text).map_err(|reason| denied(no_answer(reason)))?;
        let mut reason = Fact::new("wrong-code");
        for _ in 0..TRIES {
            let answer = self.asked(application).map_err(denied)?;
            newcomer.does_without(&answer)?;
            if let Err(shape) = answer.check() {
                self.was_no_code = true;
                reason = not_a_code(shape);
                continue;
            }
            match self.judged_first(newcomer, invitation, &trial, &answer) {
                Ok(Verdict::Accepted(accepted)) => {
                    // From here on it is they who are counted, and what this login was charged is taken back.
                    self.who = Who::of(person);
                    let fact = accepted.fact().with("enrolled", invitation.grounds().name());
                    let fact = match invitation {
                        Invitation::Account(voucher) => fact.with("vouched-by", voucher),
                        Invitation::First | Invitation::Ticket(..) => fact,
                    };
                    self.count(&Verdict::Accepted(accepted), 0);
                    return Ok(Outcome::Accepted(fact));
                }
                Ok(Verdict::Denied(denial)) => reason = denial.fact(),
                Err(NotJudged::Denied(fact)) => return Err(denied(fact)),
                Err(NotJudged::Unavailable(fact)) => return Err(Outcome::Unavailable(fact)),
            }
        }
        Err(denied(reason.with_number("tries", TRIES)))
    }

    /// Judges a first code, once it is charged. A right one stores the record; there is no other way to that verdict.
    fn judged_first(
        &self,
        newcomer: &Newcomer,
        invitation: &Invitation,
        trial: &Record,
        answer: &Answer,
    ) -> Result<Verdict, NotJudged> {
        self.charge(&Guess::new(true), None)?;
        let decision = verify::first_code(trial, &self.rules, answer, (self.now)());
        let admit = |record: &Record| newcomer.admission.admit(newcomer.person, record, &invitation.grounds());
        Ok(decision.commit(admit)?)
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

impl Newcomer<'_> {
    fn account(&self) -> String {
        String::from_utf8_lossy(self.person.name()).into_owned()
    }

    /// What is asked of somebody who needs a ticket.
    fn question(&self) -> Secret<String> {
        let (account, is_of_key) = (self.account(), self.person.key().is_some());
        let mut text = format!("\n{}. Type your ticket", absence(&account, &host_name(), is_of_key));
        if is_of_key {
            text += &format!(", or the code of a device that {account} has already");
        }
        if let Some(end) = self.optional_until {
            text += &format!(", or press Enter to do without until {end}");
        }
        Secret::new(text + ".\n")
    }

    /// An answer of nothing, of somebody who can do without a device for now.
    fn does_without(&self, answer: &Answer) -> Result<(), Outcome> {
        match self.optional_until {
            Some(end) if answer.check() == Err(crate::otp::NotACode::Empty) => Err(Outcome::NotAsked(
                Fact::new("not-enrolled").with("until", end.to_string()).or("enrolment is optional until then"),
            )),
            _ => Ok(()),
        }
    }
}

impl Invitation {
    const fn grounds(&self) -> Grounds<'_> {
        match self {
            Self::First => Grounds::First,
            Self::Ticket(word, _) => Grounds::Ticket(word),
            Self::Account(_) => Grounds::Account,
        }
    }

    /// What the device is called.
    fn device(&self) -> &str {
        match self {
            Self::Ticket(_, device) => device,
            Self::First | Self::Account(_) => DEVICE,
        }
    }
}
