//! Who is asked: the question, the answer, and the verdict on it.

use super::cost::{Guess, refused};
use super::{Done, Login, NoAnswer, Outcome, Pending, Step};
use crate::fact::Fact;
use crate::identity::Person;
use crate::options::FirstPass;
use crate::otp::{Answer, Form, NotACode};
use crate::record::Record;
use crate::secret::Secret;
use crate::store::{Attempt, Paid, StoreError};
use crate::verify::{self, Accepted, Denial, Earlier, Try, Verdict};

/// What an answer came to.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) fact: Fact,
}

/// Why an answer came to nothing.
#[derive(Clone)]
pub(super) enum NotJudged {
    Denied(Fact),
    /// There was nobody to judge it.
    Unavailable(Fact),
}

impl NotJudged {
    pub(super) fn into_fact(self) -> Fact {
        match self {
            Self::Denied(fact) | Self::Unavailable(fact) => fact,
        }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Self::Denied(fact) => Outcome::Denied(fact),
            Self::Unavailable(fact) => Outcome::Unavailable(fact),
        }
    }
}

impl From<StoreError> for NotJudged {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable(fact) => Self::Unavailable(fact),
            error => Self::Denied(error.into_fact()),
        }
    }
}

impl From<Fact> for NotJudged {
    fn from(fact: Fact) -> Self {
        Self::Denied(fact)
    }
}

impl<N: Fn() -> u64> Login<'_, N> {
    /// First what an earlier module got, if it shall be looked at, then what the person is asked for.
    pub(super) fn with_code(&mut self, first_pass: Option<Secret<Vec<u8>>>) -> Step {
        let wanted = self.policy.options.first_pass;
        if wanted == FirstPass::Prompt {
            return Pending::Code.into();
        }
        let answer = first_pass.map(|text| Answer::new(text, Form::Combined, self.rules.google));
        let result = match &answer {
            Some(answer) => self.judged(Some(answer)),
            None => self.without_first_pass(),
        };
        let ends = wanted == FirstPass::Use || self.ends_there(answer.as_ref(), &result);
        match (result, answer) {
            (Ok(Judged { verdict: Verdict::Accepted(accepted), fact }), Some(answer)) => {
                self.accepted(&answer, accepted, fact)
            }
            (Ok(Judged { fact, .. }) | Err(NotJudged::Denied(fact)), _) if ends => Outcome::Denied(fact).into(),
            (Err(NotJudged::Unavailable(fact)), _) if ends => Outcome::Unavailable(fact).into(),
            _ => {
                // What was no code was a password, and costs nothing.
                self.was_no_code = false;
                Pending::Code.into()
            }
        }
    }

    /// What an answer comes to.
    pub(super) fn with_answer(&mut self, answer: &Answer) -> Step {
        match self.judged(Some(answer)) {
            Ok(Judged { verdict: Verdict::Accepted(accepted), fact }) => self.accepted(answer, accepted, fact),
            Ok(Judged { fact, .. }) => Outcome::Denied(fact).into(),
            Err(not_judged) => not_judged.into_outcome().into(),
        }
    }

    /// Nothing was given, which costs nothing, but for the C module.
    pub(super) fn without_answer(&mut self, reason: Fact) -> Step {
        let _ = self.rules.google.then(|| self.judged(None));
        Outcome::Denied(reason).into()
    }

    /// No module before us has asked. With `use_first_pass` that is the end, which the C module charges like any other.
    pub(super) fn without_first_pass(&mut self) -> Result<Judged, NotJudged> {
        if self.rules.google && self.policy.options.first_pass == FirstPass::Use {
            let _ = self.judged(None);
        }
        Err(Fact::new("no-first-pass").or("no module before this one has asked for a password").into())
    }

    /// Whether the person is not asked after a first pass that did not get them in. Here everybody is asked; the C module
    /// stops at an answer that looked like a code and was more than plainly wrong.
    pub(super) fn ends_there(&self, answer: Option<&Answer>, result: &Result<Judged, NotJudged>) -> bool {
        let is_plain = |verdict: &Verdict| {
            let plain = [Denial::NotACode, Denial::NoDevice];
            matches!(verdict, Verdict::Denied(denial) if plain.contains(denial) || matches!(denial, Denial::WrongCode { .. }))
        };
        self.rules.google
            && match result {
                Ok(judged) => !is_plain(&judged.verdict),
                Err(_) => answer.is_some_and(|answer| answer.check().is_ok()),
            }
    }

    /// Brings what was typed into the form that is compared.
    pub(super) fn read(&mut self, text: Result<Secret<Vec<u8>>, NoAnswer>) -> Result<Answer, Fact> {
        let form = if self.policy.options.forward_pass { Form::Combined } else { Form::Code };
        let text = text.map_err(|reason| {
            self.was_no_code |= reason == NoAnswer::TooLong && !self.rules.google;
            no_answer(reason)
        })?;
        let answer = Answer::new(text, form, self.rules.google);
        Ok(if self.is_asked_again { answer.only(verify::SCRATCH_DIGITS) } else { answer })
    }

    /// From an answer to the verdict: charged first, then judged. The clock is read once the record is locked: a try that
    /// waited for its turn is charged for the time at which it is judged.
    pub(super) fn judged(&mut self, answer: Option<&Answer>) -> Result<Judged, NotJudged> {
        let shape = answer.map_or(Err(NotACode::Empty), Answer::check);
        self.was_no_code |= shape.is_err();
        let guess = Guess::new(shape.is_ok());
        let paid_before = self.charges.borrow().len();
        let person = match self.visit.person {
            Ok(person) => person,
            Err(unidentified) => {
                // As much is looked at as for somebody without a device. (A cluster is asked for what a guess costs anyway.)
                if !self.is_charged_by_store {
                    let _ = self.store.has_record(&Person::nobody());
                }
                self.charge(&guess, None)?;
                return Err(unidentified.fact().into());
            }
        };
        if !self.rules.google {
            shape.map_err(not_a_code)?;
        }
        let attempt = Try { answer, earlier: self.earlier };
        let judge = |record: &Record| verify::charge(record, &self.rules, &attempt, (self.now)());
        let attempted = if self.is_charged_by_store {
            self.with_bill(&guess, |bill| self.store.attempt(person, &judge, Some(bill)))
        } else {
            let charge = |record: &Record| match self.charge(&guess, Some(record)) {
                Ok(()) => judge(record),
                Err(_) => verify::refused(),
            };
            self.store.attempt(person, &charge, None)
        };
        if let Err(StoreError::Unreachable(fact)) = attempted {
            return Err(NotJudged::Unavailable(fact));
        }
        if !self.is_charged_by_store {
            // Also where there was no record to judge it by.
            self.charge(&guess, None)?;
        }
        let Attempt { verdict, place, remarks, paid } = attempted.map_err(|error| self.unjudged(error))?;
        match paid {
            Paid::Refused(refusal) => return Err(refused(refusal)),
            Paid::Charged(receipt) => self.charges.borrow_mut().push(receipt),
            Paid::Settled if matches!(verdict, Verdict::Accepted(_)) => self.charges.borrow_mut().clear(),
            Paid::Settled | Paid::Not => {}
        }
        if self.rules.google {
            self.earlier = match (&verdict, self.earlier) {
                (Verdict::Denied(Denial::WrongCode { moved_from: Some(from) }), _) => Earlier::Moved { from: *from },
                (_, Earlier::Moved { from }) => Earlier::Moved { from },
                _ => Earlier::Charged,
            };
        }
        self.count(&verdict, paid_before);
        let fact = match (&verdict, shape) {
            (Verdict::Denied(Denial::NotACode), Err(reason)) => not_a_code(reason),
            (Verdict::Denied(denial @ (Denial::BadOption(_) | Denial::BadSecret | Denial::NoDevice)), _) => {
                denial.fact().with_path(&place)
            }
            (Verdict::Denied(denial), _) => denial.fact(),
            (Verdict::Accepted(accepted), _) => accepted.fact(),
        };
        let fact = if remarks.is_empty() { fact } else { fact.with("remarks", remarks.join("+")) };
        Ok(Judged { verdict, fact })
    }

    /// Why there is no verdict. Somebody without a device may have been asked for one only because the store could not tell.
    fn unjudged(&self, error: StoreError) -> Fact {
        match (error, &*self.doubt.borrow()) {
            (StoreError::NotEnrolled(fact), Some(doubt)) if fact.word() == "not-enrolled" => doubt.clone(),
            (error, _) => error.into_fact(),
        }
    }

    pub(super) fn accepted(&self, answer: &Answer, accepted: Accepted, fact: Fact) -> Step {
        let password = self.policy.options.forward_pass.then(|| answer.before(accepted.length));
        Step::Done(Done { outcome: Outcome::Accepted(fact), password, by: Some(accepted) })
    }
}

pub(super) fn no_answer(reason: NoAnswer) -> Fact {
    match reason {
        NoAnswer::Failed(code) => Fact::new("no-answer").with_number("conversation", code),
        NoAnswer::Missing => Fact::new("no-answer"),
        NoAnswer::TooLong => Fact::new("not-a-code"),
    }
}

pub(super) fn not_a_code(reason: NotACode) -> Fact {
    match reason {
        NotACode::Empty => Fact::new("empty-answer"),
        NotACode::Shape => Fact::new("not-a-code"),
        NotACode::RefusedBySshd => Fact::new("refused-by-sshd")
            .or("sshd had refused this login already: an unknown user, PermitRootLogin, AllowUsers or the like"),
    }
}
