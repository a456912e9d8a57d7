//! The story of a login.

use crate::fact::Fact;
use crate::identity::{Person, Unidentified};
use crate::options::{FirstPass, Options};
use crate::otp::{Answer, Form, NotACode};
use crate::policy::Compat;
use crate::record::Record;
use crate::secret::Secret;
use crate::store::{Attempt, Store, StoreError};
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

    /// The host that the login comes from (PAM_RHOST), empty if it is not known.
    fn remote_host(&self) -> Vec<u8>;
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

/// How a login ended, with what the operator's log says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The code was right, and is used up; or there is a grace period.
    Accepted(Fact),
    /// The person has no record, and `nullok` lets such people pass. Never the outcome of an error.
    NotAsked(Fact),
    /// Everything else.
    Denied(Fact),
}

/// Asks for a code and judges it.
///
/// Whoever is unknown, not enrolled or throttled is asked as everybody else is, so that the prompt tells nothing.
pub fn authenticate(
    person: Result<&Person, Unidentified>,
    options: &Options,
    compat: Compat,
    application: &mut impl Application,
    store: &impl Store,
    now: impl Fn() -> u64,
) -> Outcome {
    if let Err(unidentified) = person
        && unidentified.is_misconfigured()
    {
        return Outcome::Denied(unidentified.fact());
    }
    if options.nullok
        && let Ok(person) = person
        && store.has_record(person) == Ok(false)
    {
        return Outcome::NotAsked(Fact::new("not-enrolled").or("nullok"));
    }
    let host = String::from_utf8(application.remote_host()).unwrap_or_default();
    let rules = Rules {
        google: compat.google,
        skew_adjustment: (compat.google || compat.skew_adjustment) && options.skew_adjustment,
        increment_hotp: options.increment_hotp,
        remember: (options.grace_period > 0).then_some(host.as_str()),
    };
    let mut login = Login { person, options, rules, store, now, earlier: Earlier::Nothing };
    if login.has_grace(&host) {
        return login.with_grace(application);
    }
    if compat.google && login.is_throttled() {
        return Outcome::Denied(login.judged(None).map_or_else(|fact| fact, |judged| judged.fact));
    }
    login.with_code(application)
}

/// One login under way.
struct Login<'a, S, N> {
    person: Result<&'a Person, Unidentified>,
    options: &'a Options,
    rules: Rules<'a>,
    store: &'a S,
    now: N,
    /// The C module charges a login once.
    earlier: Earlier,
}

/// What an answer came to.
struct Judged {
    verdict: Verdict,
    fact: Fact,
}

impl<S: Store, N: Fn() -> u64> Login<'_, S, N> {
    /// First what an earlier module got, if it shall be looked at, then what the person is asked for.
    fn with_code(&mut self, application: &mut impl Application) -> Outcome {
        if self.options.first_pass != FirstPass::Prompt {
            let first_pass = application.first_pass();
            let answer = first_pass.map(|text| Answer::new(text, Form::Combined, self.rules.google));
            let result = match &answer {
                Some(answer) => self.judged(Some(answer)),
                None => self.without_first_pass(),
            };
            let ends = self.options.first_pass == FirstPass::Use || self.ends_there(answer.as_ref(), &result);
            match (result, answer) {
                (Ok(Judged { verdict: Verdict::Accepted { digits, .. }, fact }), Some(answer)) => {
                    return self.accepted(application, &answer, digits, fact);
                }
                (Ok(Judged { fact, .. }) | Err(fact), _) if ends => return Outcome::Denied(fact),
                _ => {}
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
        if self.rules.google && self.options.first_pass == FirstPass::Use {
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

    fn asked(&self, application: &mut impl Application) -> Result<Answer, Fact> {
        let form = if self.options.forward_pass { Form::Combined } else { Form::Code };
        let mut ask = || application.ask(self.options.prompt(), self.options.echo);
        match ask() {
            Ok(text) => Ok(Answer::new(text, form, self.rules.google)),
            // The C module, which looks for 6 digits first and for 8 then, asks for the 8 once more.
            Err(_) if self.rules.google => {
                let text = ask().map_err(no_answer)?;
                Ok(Answer::new(text, form, true).only(verify::SCRATCH_DIGITS))
            }
            Err(reason) => Err(no_answer(reason)),
        }
    }

    /// From an answer to the verdict. The clock is read once the record is locked: a try that waited for its turn is
    /// charged for the time at which it is judged.
    fn judged(&mut self, answer: Option<&Answer>) -> Result<Judged, Fact> {
        let person = self.person.map_err(Unidentified::fact)?;
        let shape = answer.map_or(Err(NotACode::Empty), Answer::check);
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
        if self.options.forward_pass && !application.forward(&answer.before(digits)) {
            return Outcome::Denied(Fact::new("no-forward").or("the application does not take the password"));
        }
        Outcome::Accepted(fact)
    }

    /// Whether there was a login from this host lately. A record that cannot be read gives nobody grace.
    fn has_grace(&self, host: &str) -> bool {
        let period = self.options.grace_period;
        let has_grace = |record: &Record| verify::has_grace(record, host, period, (self.now)());
        period > 0 && !host.is_empty() && self.loaded().is_some_and(|record| has_grace(&record))
    }

    /// With `forward_pass` the password is asked for all the same, and a code may be typed behind it.
    fn with_grace(&mut self, application: &mut impl Application) -> Outcome {
        let grace = Fact::new("grace");
        if !self.options.forward_pass {
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
        self.store.load(self.person.ok()?).ok()
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
