//! The story of a login.

use crate::fact::Fact;
use crate::identity::{Person, Unidentified};
use crate::options::Options;
use crate::otp::{Code, NotACode};
use crate::secret::Secret;
use crate::store::{Attempt, Store, StoreError};
use crate::verify::{self, Verdict};

/// The way to the person who logs in.
pub trait Conversation {
    /// Shows a prompt and waits for the answer. Nothing of ours is held meanwhile.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn ask(&mut self, prompt: &[u8], echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer>;
}

/// The application could not or would not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no conversation function, or it returned this code.
    Failed(i32),
    /// It said success and gave no answer.
    Missing,
}

/// How a login ended, with what the operator's log says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The code was right, and is used up.
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
    conversation: &mut impl Conversation,
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
    let answer = conversation.ask(&options.prompt, options.echo);
    match judge(person, answer, store, now) {
        Ok(Attempt { verdict: Verdict::Accepted(factor), remarks }) => {
            Outcome::Accepted(with_remarks(factor.fact(), &remarks))
        }
        Ok(Attempt { verdict: Verdict::Denied(denial), remarks }) => {
            Outcome::Denied(with_remarks(denial.fact(), &remarks))
        }
        Err(fact) => Outcome::Denied(fact),
    }
}

/// From the answer to the verdict. The clock is read once the record is locked: a try that waited for its turn is
/// charged for the time at which it is judged.
fn judge(
    person: Result<&Person, Unidentified>,
    answer: Result<Secret<Vec<u8>>, NoAnswer>,
    store: &impl Store,
    now: impl Fn() -> u64,
) -> Result<Attempt, Fact> {
    let answer = answer.map_err(no_answer)?;
    let person = person.map_err(Unidentified::fact)?;
    let code = Code::parse(answer.expose()).map_err(not_a_code)?;
    store.attempt(person, &|record| verify::decide(record, &code, now())).map_err(StoreError::into_fact)
}

fn no_answer(reason: NoAnswer) -> Fact {
    match reason {
        NoAnswer::Failed(code) => Fact::new("no-answer").with_number("conversation", code),
        NoAnswer::Missing => Fact::new("no-answer"),
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

fn with_remarks(fact: Fact, remarks: &[&str]) -> Fact {
    if remarks.is_empty() { fact } else { fact.with("remarks", remarks.join("+")) }
}

#[cfg(test)]
mod tests;
