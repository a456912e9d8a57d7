//! The story of a login.

mod asked;
mod away;
mod cost;
mod counter;
mod enrolment;
mod unasked;

use crate::fact::Fact;
use crate::identity::{Person, Unidentified};
use crate::ledger::{Ledger, Receipt, Who};
use crate::options::FirstPass;
use crate::policy::{Identity, Policy, StoreKind};
use crate::record::Record;
use crate::secret::Secret;
use crate::source::Source;
use crate::store::Store;
use crate::verify::{Accepted, Earlier, Rules};
use asked::NotJudged;
use std::cell::RefCell;
use std::rc::Rc;

pub use away::Away;
pub use cost::own_limit;
pub use enrolment::Trial;

/// The application that somebody logs in to.
pub trait Application {
    /// Shows a prompt and waits for the answer. Nothing of ours is held meanwhile.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn ask(&mut self, prompt: &[u8], echo: bool) -> Result<Secret<Vec<u8>>, NoAnswer>;

    /// Shows a text, before the next prompt.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn tell(&mut self, text: &Secret<String>) -> Result<(), NoAnswer>;

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
    /// The application wants nothing shown (PAM_SILENT).
    pub is_silent: bool,
}

/// What counts the guesses.
pub enum Counter<'a> {
    /// The ledger.
    Ledger(Rc<dyn Ledger + 'a>),
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
    /// There is no store to ask. Nobody was judged, and nobody has to be banned for it.
    Unavailable(Fact),
    /// Everything else.
    Denied(Fact),
}

impl Outcome {
    /// The same outcome, with what an operator should know about the ledger.
    #[must_use]
    pub fn with_remark(self, remark: Option<&'static str>) -> Self {
        match remark {
            Some(remark) => self.map(|fact| fact.with("ledger", remark)),
            None => self,
        }
    }

    /// The same outcome, with more to say about it.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Fact) -> Fact) -> Self {
        match self {
            Self::Accepted(fact) => Self::Accepted(change(fact)),
            Self::NotAsked(fact) => Self::NotAsked(change(fact)),
            Self::Unavailable(fact) => Self::Unavailable(change(fact)),
            Self::Denied(fact) => Self::Denied(change(fact)),
        }
    }
}

/// What comes next in a login.
pub enum Step {
    /// Somebody has to be asked.
    Ask(Question),
    /// It is over.
    Done(Done),
}

/// What to show somebody, and to ask then.
pub struct Question {
    /// A text that comes first.
    pub text: Option<Secret<String>>,
    /// What the answer will be for.
    pub pending: Pending,
}

/// What an answer is waited for.
pub enum Pending {
    /// A code.
    Code,
    /// A password, with or without a code behind it: there is a grace period.
    Grace,
    /// What somebody without a device has to show for one.
    Grounds,
    /// The first code of a new device.
    FirstCode(Box<Trial>),
}

/// The end of a login.
pub struct Done {
    /// How it ended.
    pub outcome: Outcome,
    /// The password that was typed before the code, for the modules behind us.
    pub password: Option<Secret<Vec<u8>>>,
    /// The code that was used up for it. `None`: there was none, however it ended.
    pub by: Option<Accepted>,
}

impl From<Outcome> for Step {
    fn from(outcome: Outcome) -> Self {
        Self::Done(Done { outcome, password: None, by: None })
    }
}

impl From<Pending> for Step {
    fn from(pending: Pending) -> Self {
        Self::Ask(Question { text: None, pending })
    }
}

/// Asks for a code and judges it.
///
/// Whoever is unknown, not enrolled or throttled is asked as everybody else is, so that the prompt tells nothing.
pub fn authenticate(
    visit: &Visit,
    policy: &Policy,
    application: &mut impl Application,
    store: &dyn Store,
    counter: &Counter,
    now: impl Fn() -> u64,
) -> Outcome {
    let mut login = Login::new(visit, policy, store, counter, now);
    let mut step = login.begin(first_pass(policy, application));
    loop {
        step = match step {
            Step::Ask(Question { text, pending }) => {
                let shown = text.map_or(Ok(()), |text| application.tell(&text));
                let answer = shown.and_then(|()| application.ask(&policy.prompt, policy.echo.value));
                login.answer(pending, answer)
            }
            Step::Done(Done { outcome, password, .. }) => {
                let is_forwarded = password.is_none_or(|password| application.forward(&password));
                return if is_forwarded { outcome } else { Outcome::Denied(not_forwarded()) };
            }
        };
    }
}

/// What an earlier module asked for, where it is looked at.
pub fn first_pass(policy: &Policy, application: &impl Application) -> Option<Secret<Vec<u8>>> {
    match policy.options.first_pass {
        FirstPass::Prompt => None,
        FirstPass::Try | FirstPass::Use => application.first_pass(),
    }
}

/// The application does not take the password for the modules behind us.
pub fn not_forwarded() -> Fact {
    Fact::new("no-forward").or("the application does not take the password")
}

/// How a policy has codes judged, where nobody has said yet who counts the guesses.
pub fn rules<'a>(policy: &Policy, host: &'a str) -> Rules<'a> {
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
        is_counted: false,
    }
}

/// Whether the ledger counts, and not the person's file. The C module counts in the file whatever else there is.
fn is_counted(policy: &Policy, counter: &Counter) -> bool {
    matches!(counter, Counter::Ledger(_)) && policy.throttle.is_some() && !policy.google.value
}

/// For how long the `LASTn` lines of a person's file count: where the policy has a grace of its own, not at all.
fn lines_period(policy: &Policy) -> u64 {
    let has_lines = policy.store.value == StoreKind::Home;
    if has_lines && policy.grace.value == 0 { policy.options.grace_period } else { 0 }
}

/// Who is counted. A name that is in no user database and has no record is nobody's: there are as many as can be typed. So
/// can keys be made for an account that one shares: those without a record are counted together.
fn who<'a>(visit: &Visit<'a>, store: &dyn Store) -> Who<'a> {
    match visit.person {
        Ok(person) if person.is_virtual() && store.has_record(person) == Ok(false) => Who::Nobody(person.name()),
        Ok(person) if person.key().is_some() && store.has_record(person) != Ok(true) => Who::newcomers(person),
        Ok(person) => Who::of(person),
        Err(_) => Who::Nobody(visit.name),
    }
}

/// One login under way. Between two of its steps it can be put away and made anew, in another process of the same machine.
pub struct Login<'a, N> {
    who: Who<'a>,
    visit: &'a Visit<'a>,
    policy: &'a Policy,
    rules: Rules<'a>,
    store: &'a dyn Store,
    counter: &'a Counter<'a>,
    now: N,
    /// The C module charges a login once.
    earlier: Earlier,
    /// The C module, which looks for 6 digits first and for 8 then, asks for the 8 once more if it got nothing.
    is_asked_again: bool,
    /// The store keeps the ledger, and charges an answer in the commit that comes of it.
    is_charged_by_store: bool,
    /// What the answers of this login have cost.
    charges: RefCell<Vec<Receipt>>,
    /// The record before the person was asked, where there is a grace of the policy's.
    record: Option<Record>,
    /// An answer could not be a code.
    was_no_code: bool,
    /// There is an exemption, and it is over.
    void_exemption: Option<String>,
    /// Why the store could not tell whether somebody needs no code, or may have a device.
    doubt: RefCell<Option<Fact>>,
}

impl<'a, N: Fn() -> u64> Login<'a, N> {
    /// Somebody knocks.
    pub fn new(
        visit: &'a Visit<'a>,
        policy: &'a Policy,
        store: &'a dyn Store,
        counter: &'a Counter<'a>,
        now: N,
    ) -> Self {
        Self {
            who: who(visit, store),
            visit,
            policy,
            rules: Rules { is_counted: is_counted(policy, counter), ..rules(policy, visit.host) },
            store,
            counter,
            now,
            earlier: Earlier::Nothing,
            is_asked_again: false,
            is_charged_by_store: policy.store.value == StoreKind::Fleet && matches!(counter, Counter::Ledger(_)),
            charges: RefCell::default(),
            record: None,
            was_no_code: false,
            void_exemption: None,
            doubt: RefCell::default(),
        }
    }

    /// The first step. `first_pass`: what an earlier module asked for.
    pub fn begin(&mut self, first_pass: Option<Secret<Vec<u8>>>) -> Step {
        match self.visit.person {
            Err(unidentified) if unidentified.is_misconfigured() => Outcome::Denied(unidentified.fact()).into(),
            _ => {
                let step = self.first_step(first_pass);
                self.settled(step)
            }
        }
    }

    /// The step after an answer, or after a failure to get one.
    pub fn answer(&mut self, pending: Pending, answer: Result<Secret<Vec<u8>>, NoAnswer>) -> Step {
        if self.rules.google && answer.is_err() && !self.is_asked_again {
            self.is_asked_again = true;
            return pending.into();
        }
        let step = match (pending, self.read(answer)) {
            (Pending::Code, Ok(answer)) => self.with_code_or_ticket(&answer),
            (Pending::Code, Err(fact)) => self.without_answer(fact),
            (Pending::Grace | Pending::Grounds, Err(fact)) => Outcome::Denied(fact).into(),
            (Pending::FirstCode(trial), Err(fact)) => trial.denied(fact),
            (Pending::Grace, Ok(answer)) => self.with_password(&answer),
            (Pending::Grounds, Ok(answer)) => self.with_grounds(&answer),
            (Pending::FirstCode(trial), Ok(answer)) => self.with_first_code(*trial, &answer),
        };
        self.settled(step)
    }

    /// The story: who need not be asked, in this order, and then the question. For a name that is nobody's as much is looked at
    /// as for somebody who is asked, so that the prompt comes as late.
    fn first_step(&mut self, first_pass: Option<Secret<Vec<u8>>>) -> Step {
        if let Some(exempt) = self.exempt() {
            return exempt.into();
        }
        if self.is_known_by_half()
            && let Some(newcomer) = self.newcomer()
        {
            return self.with_enrolment(&newcomer);
        }
        if !self.is_asked_anyway()
            && let Some(reason) = self.passes_without_a_device()
        {
            return Outcome::NotAsked(reason).into();
        }
        if self.has_grace() {
            return self.with_grace();
        }
        if self.rules.google && self.is_throttled() {
            return Outcome::Denied(self.judged(None).map_or_else(NotJudged::into_fact, |judged| judged.fact)).into();
        }
        self.with_code(first_pass)
    }

    fn settled(&mut self, step: Step) -> Step {
        match step {
            Step::Done(done) => Step::Done(Done { outcome: self.settle(done.outcome), ..done }),
            ask @ Step::Ask(_) => ask,
        }
    }

    /// What the outcome means for what was charged, and the whole fact for the log. A right code has taken its charges back
    /// by now.
    fn settle(&self, outcome: Outcome) -> Outcome {
        if let Counter::Ledger(ledger) = self.counter {
            let login = self.counted();
            self.charges.take().into_iter().for_each(|receipt| ledger.keep(&login, receipt));
            if self.was_no_code && matches!(outcome, Outcome::Denied(_)) {
                ledger.charge_source(&login);
            }
        }
        let outcome = match (self.visit.person, self.policy.identity.value) {
            (Ok(person), Identity::Caller) => outcome.map(|fact| fact.with("caller", person.name())),
            (Ok(person), Identity::LoginKey) => outcome.map(|fact| fact.with("key", person.key().unwrap_or_default())),
            _ => outcome,
        };
        let outcome = match &self.void_exemption {
            Some(until) => outcome.map(|fact| fact.with("void-exemption", until)),
            None => outcome,
        };
        if self.rules.google { outcome.map(|fact| fact.with("compat", "google")) } else { outcome }
    }
}

#[cfg(test)]
mod tests;
