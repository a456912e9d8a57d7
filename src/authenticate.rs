//! The story of a login.

use crate::fact::Fact;
use crate::identity::{Person, Unidentified};
use crate::ledger::{Charge, Grace, Ledger, Memory, Refusal, Who};
use crate::options::FirstPass;
use crate::otp::{Answer, Form, NotACode};
use crate::policy::exempt::{self, Visitor};
use crate::policy::{Enrolment, Policy};
use crate::record::Record;
use crate::secret::Secret;
use crate::source::Source;
use crate::store::{Attempt, Store, StoreError};
use crate::system::clock::Moment;
use crate::verify::{self, Denial, Earlier, Rules, Try, Verdict};

/// The application that somebody logs in to.
pub trait Application {
    /// Shows a prompt and waits for the answer. Nothing of ours is held meanwhile.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn ask(&mut self, prompt: &[u8], echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer>;

    /// What an earlier module asked for (PAM_AUTHTOK).
    fn first_pass(&self) -> Option<Secret<Vec<u8>>>;

    /// Leaves a password for the modules behind us (PAM_AUTHTOK). `false`: it cannot be left.
    fn forward(&mut self, password: &Secret<Vec<u8>>) -> bool;
}

/// The application could not or would not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no conversation function, or it returned this code.
    Failed(i32),
    /// It said success and gave no answer.
    Missing,
    /// Longer than any answer may be.
    TooLong,
}

/// Somebody at the door.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// Whose code is asked for.
    pub person: Result<&'a Person, Unidentified>,
    /// PAM_USER, as the application has it.
    pub name: &'a [u8],
    /// PAM_RHOST, as the application has it.
    pub host: &'a str,
    /// Where from.
    pub source: &'a Source,
    /// What sshd says about the key that it accepted, empty elsewhere.
    pub login_key: &'a [u8],
}

/// What counts the guesses.
pub enum Counter<M, C> {
    /// The ledger.
    Ledger(Ledger<M, C>),
    /// Nothing: the policy says so, or this process cannot get at the ledger.
    Nothing,
    /// The ledger is there for us and does not work: nobody gets in.
    Broken(Fact),
}

/// How a login ended, with what the operator's log says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The code was right, and is used up; or there is a grace period, or an exemption that says so.
    Accepted(Fact),
    /// The person has no record, and policy lets such people pass; or there is an exemption. Never the outcome of an error.
    NotAsked(Fact),
    /// Everything else.
    Denied(Fact),
}

impl Outcome {
    /// The same outcome, with more to say about it.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Fact) -> Fact) -> Self {
        match self {
            Self::Accepted(fact) => Self::Accepted(change(fact)),
            Self::NotAsked(fact) => Self::NotAsked(change(fact)),
            Self::Denied(fact) => Self::Denied(change(fact)),
        }
    }
}

/// Asks for a code and judges it.
///
/// Whoever is unknown, not enrolled or throttled is asked as everybody else is, so that the prompt tells nothing.
pub fn authenticate<M: Memory, C: Fn() -> Moment>(
    visit: &Visit,
    policy: &Policy,
    application: &mut impl Application,
    store: &impl Store,
    counter: &Counter<M, C>,
    now: impl Fn() -> u64,
) -> Outcome {
    if let Err(unidentified) = visit.person
        && unidentified.is_misconfigured()
    {
        return Outcome::Denied(unidentified.fact());
    }
    let mut login = Login {
        visit,
        policy,
        rules: rules(policy, visit.host),
        store,
        counter,
        now,
        earlier: Earlier::Nothing,
        charges: Vec::new(),
        record: None,
        was_no_code: false,
        void_exemption: None,
    };
    let outcome = login.outcome(application);
    login.settle(outcome)
}

fn rules<'a>(policy: &Policy, host: &'a str) -> Rules<'a> {
    Rules {
        google: policy.google.value,
        skew_adjustment: policy.skew_adjustment.value,
        increment_hotp: policy.options.increment_hotp,
        remember: (lines_period(policy) > 0).then_some(host),
        window: policy.window.value,
        widest_window: policy.widest_window(),
        max_look_ahead: policy.max_window.value,
        min_secret_bits: policy.min_secret_bits.value,
        allow_scratch_codes: policy.allow_scratch_codes.value,
    }
}

/// For how long the `LASTn` lines of a person's file count: where the policy has a grace of its own, not at all.
fn lines_period(policy: &Policy) -> u64 {
    if policy.grace.value == 0 { policy.options.grace_period } else { 0 }
}

/// One login under way.
struct Login<'a, S, M, C, N> {
    visit: &'a Visit<'a>,
    policy: &'a Policy,
    rules: Rules<'a>,
    store: &'a S,
    counter: &'a Counter<M, C>,
    now: N,
    /// The C module charges a login once.
    earlier: Earlier,
    /// What the answers of this login have cost.
    charges: Vec<Charge<'a>>,
    /// The record before the person was asked, where there is a grace of the policy's.
    record: Option<Record>,
    /// An answer could not be a code.
    was_no_code: bool,
    /// There is an exemption, and it is over.
    void_exemption: Option<String>,
}

/// What an answer came to.
struct Judged {
    verdict: Verdict,
    fact: Fact,
}

impl<'a, S: Store, M: Memory, C: Fn() -> Moment, N: Fn() -> u64> Login<'a, S, M, C, N> {
    fn outcome(&mut self, application: &mut impl Application) -> Outcome {
        if let Some(exempt) = self.exempt() {
            return exempt;
        }
        if let Some(reason) = self.passes_without_a_device() {
            return Outcome::NotAsked(reason);
        }
        if self.has_grace() {
            return self.with_grace(application);
        }
        if self.rules.google && self.is_throttled() {
            return Outcome::Denied(self.judged(None).map_or_else(|fact| fact, |judged| judged.fact));
        }
        self.with_code(application)
    }

    /// What the outcome means for what was charged, and the whole fact for the log. A right code has taken its charges back
    /// by now.
    fn settle(mut self, outcome: Outcome) -> Outcome {
        if let Counter::Ledger(ledger) = self.counter {
            let login = self.counted();
            std::mem::take(&mut self.charges).into_iter().for_each(|charge| ledger.keep(&login, charge));
            if self.was_no_code && matches!(outcome, Outcome::Denied(_)) {
                ledger.charge_source(&login);
            }
        }
        match &self.void_exemption {
            Some(until) => outcome.map(|fact| fact.with("void-exemption", until)),
            None => outcome,
        }
    }

    // ---- Who is not asked ----

    /// An exemption that is not over. One that is over is void, and the log says so.
    fn exempt(&mut self) -> Option<Outcome> {
        let person = self.visit.person.ok()?;
        let visitor = Visitor {
            name: person.name(),
            gid: person.gid(),
            service: &self.policy.service,
            source: self.visit.source,
        };
        for exemption in &self.policy.exemptions {
            if !exemption.is_about(&visitor, &self.policy.shared_sources) {
                continue;
            }
            if self.latest_time() >= exemption.until.over {
                self.void_exemption = Some(exemption.until.to_string());
                continue;
            }
            let fact = Fact::new("exempt").with("until", exemption.until.to_string()).with("for", &exemption.reason);
            return Some(match exemption.result {
                exempt::Answer::Ignore => Outcome::NotAsked(fact),
                exempt::Answer::Success => Outcome::Accepted(fact),
            });
        }
        None
    }

    /// Why somebody without a device is let pass. Whoever has one is asked, and so is everybody where the store does not
    /// know.
    fn passes_without_a_device(&self) -> Option<Fact> {
        let person = self.visit.person.ok()?;
        let needs_a_code = self.policy.require.as_ref().is_none_or(|r| r.needs_a_code(person.name(), person.gid()));
        let reason = match (needs_a_code, self.policy.enrolment.value) {
            (false, _) => Fact::new("not-required").or("in none of the groups that [require] names"),
            (true, Enrolment::Optional) if self.policy.options.nullok => Fact::new("not-enrolled").or("nullok"),
            (true, Enrolment::Optional) => Fact::new("not-enrolled").or("enrolment is optional"),
            (true, Enrolment::OptionalUntil(end)) if self.latest_time() < end.over => {
                Fact::new("not-enrolled").with("until", end.to_string()).or("enrolment is optional until then")
            }
            (true, _) => return None,
        };
        (self.store.has_record(person) == Ok(false)).then_some(reason)
    }

    /// The present, or the latest time that this host's clock ever showed: a clock that was set back opens nothing again.
    /// Where the ledger does not work, everything is over.
    fn latest_time(&self) -> u64 {
        match self.counter {
            Counter::Ledger(ledger) => ledger.latest_wall(),
            Counter::Nothing => (self.now)(),
            Counter::Broken(_) => u64::MAX,
        }
    }

    /// Whether there was a login from here lately. A record that cannot be read gives nobody grace.
    fn has_grace(&mut self) -> bool {
        let lines = lines_period(self.policy);
        if lines > 0 {
            let has_grace = |record: &Record| verify::has_grace(record, self.visit.host, lines, (self.now)());
            return !self.visit.host.is_empty() && self.loaded().is_some_and(|record| has_grace(&record));
        }
        let Counter::Ledger(ledger) = self.counter else { return false };
        if !self.policy.may_have_grace(self.visit.source) {
            return false;
        }
        self.record = self.loaded();
        self.grace().is_some_and(|(period, factors)| {
            let grace = Grace { period, login_key: self.visit.login_key, factors: factors.expose() };
            ledger.has_grace(&self.counted(), &grace)
        })
    }

    /// How long the policy's grace lasts, and with which secret.
    fn grace(&self) -> Option<(u64, Secret<Vec<u8>>)> {
        Some((self.policy.grace.value, self.record.as_ref()?.factors()?))
    }

    /// With `forward_pass` the password is asked for all the same, and a code may be typed behind it.
    fn with_grace(&mut self, application: &mut impl Application) -> Outcome {
        let grace = Fact::new("grace");
        if !self.policy.options.forward_pass {
            return Outcome::Accepted(grace);
        }
        let answer = match self.asked(application) {
            Ok(answer) => answer,
            Err(fact) => return Outcome::Denied(fact),
        };
        let is_forwarded = match self.judged(Some(&answer)) {
            Ok(Judged { verdict: Verdict::Accepted { digits, .. }, .. }) => application.forward(&answer.before(digits)),
            _ => application.forward(answer.whole()),
        };
        if is_forwarded { Outcome::Accepted(grace) } else { Outcome::Denied(Fact::new("no-forward")) }
    }

    fn is_throttled(&self) -> bool {
        self.loaded().is_some_and(|record| verify::is_throttled(&record, (self.now)()))
    }

    fn loaded(&self) -> Option<Record> {
        self.store.load(self.visit.person.ok()?).ok()
    }

    // ---- Who is asked ----

    /// First what an earlier module got, if it shall be looked at, then what the person is asked for.
    fn with_code(&mut self, application: &mut impl Application) -> Outcome {
        let first_pass = self.policy.options.first_pass;
        if first_pass != FirstPass::Prompt {
            let text = application.first_pass();
            let answer = text.map(|text| Answer::new(text, Form::Combined, self.rules.google));
            let result = match &answer {
                Some(answer) => self.judged(Some(answer)),
                None => self.without_first_pass(),
            };
            let ends = first_pass == FirstPass::Use || self.ends_there(answer.as_ref(), &result);
            match (result, answer) {
                (Ok(Judged { verdict: Verdict::Accepted { digits, .. }, fact }), Some(answer)) => {
                    return self.accepted(application, &answer, digits, fact);
                }
                (Ok(Judged { fact, .. }) | Err(fact), _) if ends => return Outcome::Denied(fact),
                // What was no code was a password, and costs nothing.
                _ => self.was_no_code = false,
            }
        }
        match self.asked(application) {
            Ok(answer) => match self.judged(Some(&answer)) {
                Ok(Judged { verdict: Verdict::Accepted { digits, .. }, fact }) => {
                    self.accepted(application, &answer, digits, fact)
                }
                Ok(Judged { fact, .. }) | Err(fact) => Outcome::Denied(fact),
            },
            Err(fact) => {
                // Nothing was given, which costs nothing, but for the C module.
                let _ = self.rules.google.then(|| self.judged(None));
                Outcome::Denied(fact)
            }
        }
    }

    /// No module before us has asked. With `use_first_pass` that is the end, which the C module charges like any other.
    fn without_first_pass(&mut self) -> Result<Judged, Fact> {
        if self.rules.google && self.policy.options.first_pass == FirstPass::Use {
            let _ = self.judged(None);
        }
        Err(Fact::new("no-first-pass").or("no module before this one has asked for a password"))
    }

    /// Whether the person is not asked after a first pass that did not get them in. Here everybody is asked; the C module
    /// stops at an answer that looked like a code and was more than plainly wrong.
    fn ends_there(&self, answer: Option<&Answer>, result: &Result<Judged, Fact>) -> bool {
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

    fn asked(&mut self, application: &mut impl Application) -> Result<Answer, Fact> {
        let form = if self.policy.options.forward_pass { Form::Combined } else { Form::Code };
        let mut ask = || application.ask(&self.policy.prompt, self.policy.echo.value);
        match ask() {
            Ok(text) => Ok(Answer::new(text, form, self.rules.google)),
            Err(NoAnswer::TooLong) if !self.rules.google => {
                self.was_no_code = true;
                Err(no_answer(NoAnswer::TooLong))
            }
            // The C module, which looks for 6 digits first and for 8 then, asks for the 8 once more.
            Err(_) if self.rules.google => {
                let text = ask().map_err(no_answer)?;
                Ok(Answer::new(text, form, true).only(verify::SCRATCH_DIGITS))
            }
            Err(reason) => Err(no_answer(reason)),
        }
    }

    /// From an answer to the verdict: charged first, then judged. The clock is read once the record is locked: a try that
    /// waited for its turn is charged for the time at which it is judged.
    fn judged(&mut self, answer: Option<&Answer>) -> Result<Judged, Fact> {
        let shape = answer.map_or(Err(NotACode::Empty), Answer::check);
        self.was_no_code |= shape.is_err();
        if shape.is_ok() {
            self.charge()?;
        }
        let person = self.visit.person.map_err(Unidentified::fact)?;
        if !self.rules.google {
            shape.map_err(not_a_code)?;
        }
        let attempt = Try { answer, earlier: self.earlier };
        let charge = |record: &Record| verify::charge(record, &self.rules, &attempt, (self.now)());
        let Attempt { verdict, place, remarks } = self.store.attempt(person, &charge).map_err(StoreError::into_fact)?;
        if self.rules.google {
            self.earlier = match (&verdict, self.earlier) {
                (Verdict::Denied(Denial::WrongCode { moved_from: Some(from) }), _) => Earlier::Moved { from: *from },
                (_, Earlier::Moved { from }) => Earlier::Moved { from },
                _ => Earlier::Charged,
            };
        }
        self.count(&verdict);
        let fact = match (&verdict, shape) {
            (Verdict::Denied(Denial::NotACode), Err(reason)) => not_a_code(reason),
            (Verdict::Denied(denial @ (Denial::BadOption(_) | Denial::BadSecret | Denial::NoDevice)), _) => {
                denial.fact().with_path(&place)
            }
            (Verdict::Denied(denial), _) => denial.fact(),
            (Verdict::Accepted { factor, .. }, _) => factor.fact(),
        };
        let fact = if remarks.is_empty() { fact } else { fact.with("remarks", remarks.join("+")) };
        let fact = if self.rules.google { fact.with("compat", "google") } else { fact };
        Ok(Judged { verdict, fact })
    }

    fn accepted(&self, application: &mut impl Application, answer: &Answer, digits: usize, fact: Fact) -> Outcome {
        if self.policy.options.forward_pass && !application.forward(&answer.before(digits)) {
            return Outcome::Denied(Fact::new("no-forward").or("the application does not take the password"));
        }
        Outcome::Accepted(fact)
    }

    // ---- What it costs ----

    /// Charges a guess. Whoever has no budget left is refused, as is everybody where the ledger does not work.
    fn charge(&mut self) -> Result<(), Fact> {
        match self.counter {
            Counter::Ledger(_) if self.policy.throttle.is_none() => Ok(()),
            Counter::Ledger(ledger) => match ledger.charge(&self.counted()) {
                Ok(charge) => {
                    self.charges.push(charge);
                    Ok(())
                }
                Err(refusal) => {
                    // Not for the record: what is refused takes the time of what is judged.
                    let _ = self.loaded();
                    Err(refused(refusal))
                }
            },
            Counter::Nothing => Ok(()),
            Counter::Broken(fact) => Err(fact.clone()),
        }
    }

    /// A right code takes the charges of this login back; what cannot have been a code was no guess.
    fn count(&mut self, verdict: &Verdict) {
        let Counter::Ledger(ledger) = self.counter else { return };
        match verdict {
            Verdict::Accepted { .. } => {
                let grace = self.grace().filter(|_| self.policy.may_have_grace(self.visit.source));
                let grace = grace.as_ref().map(|(period, factors)| Grace {
                    period: *period,
                    login_key: self.visit.login_key,
                    factors: factors.expose(),
                });
                // Where that fails the person is asked again next time.
                let _ = ledger.give_back(&self.counted(), std::mem::take(&mut self.charges), grace.as_ref());
            }
            Verdict::Denied(Denial::NotACode) => {
                self.was_no_code = true;
                self.take_back_last();
            }
            // The record's own limit is spent: the code was not judged.
            Verdict::Denied(Denial::Throttled { .. }) => self.take_back_last(),
            Verdict::Denied(_) => {}
        }
    }

    fn take_back_last(&mut self) {
        if let Some(charge) = self.charges.pop() {
            charge.take_back();
        }
    }

    /// This login, as the ledger counts it.
    fn counted(&self) -> crate::ledger::Login<'a> {
        let who = match self.visit.person {
            Ok(person) if person.home().is_none() && self.store.has_record(person) == Ok(false) => {
                Who::Nobody(person.name())
            }
            Ok(person) => Who::Person { name: person.name(), uid: person.uid(), is_virtual: person.home().is_none() },
            Err(_) => Who::Nobody(self.visit.name),
        };
        crate::ledger::Login {
            who,
            source: self.visit.source,
            service: &self.policy.service,
            throttle: self.policy.throttle.as_ref(),
        }
    }
}

fn refused(refusal: Refusal) -> Fact {
    match refusal {
        Refusal::Person(trigger) => Fact::new("throttled").with("by", "user").with("limit", trigger.to_string()),
        Refusal::Source(trigger) => Fact::new("throttled").with("by", "host").with("limit", trigger.to_string()),
        Refusal::Disabled => Fact::new("device-disabled")
            .or("100 codes in a row were wrong; if they were not the owner's: pam-totp throttle unlock --user NAME"),
        Refusal::Unwritable => Fact::new("ledger-error").or("the ledger in state_dir cannot be written"),
    }
}

fn no_answer(reason: NoAnswer) -> Fact {
    match reason {
        NoAnswer::Failed(code) => Fact::new("no-answer").with_number("conversation", code),
        NoAnswer::Missing => Fact::new("no-answer"),
        NoAnswer::TooLong => Fact::new("not-a-code"),
    }
}

fn not_a_code(reason: NotACode) -> Fact {
    match reason {
        NotACode::Empty => Fact::new("empty-answer"),
        NotACode::Shape => Fact::new("not-a-code"),
        NotACode::RefusedBySshd => Fact::new("refused-by-sshd")
            .or("sshd had refused this login already: an unknown user, PermitRootLogin, AllowUsers or the like"),
    }
}

#[cfg(test)]
mod tests;
