//! What an answer costs: charged before it is judged, taken back if it was right.

use super::asked::NotJudged;
use super::{Counter, Login};
use crate::fact::Fact;
use crate::identity::{Person, login_key};
use crate::ledger::{self, Grace, Refusal, Who};
use crate::policy::throttle::Trigger;
use crate::record::Record;
use crate::store::Bill;
use crate::verify::{Denial, Verdict};
use std::cell::OnceCell;

impl<'a, N: Fn() -> u64> Login<'a, N> {
    /// Charges a guess, once. Whoever has no budget left is refused, as is everybody where the ledger does not work.
    pub(super) fn charge(&self, guess: &Guess, record: Option<&Record>) -> Result<(), NotJudged> {
        if !guess.is_one {
            return Ok(());
        }
        guess.result.get_or_init(|| self.charge_now(record)).clone()
    }

    fn charge_now(&self, record: Option<&Record>) -> Result<(), NotJudged> {
        match self.counter {
            Counter::Ledger(_) if self.policy.throttle.is_none() => Ok(()),
            Counter::Ledger(ledger) => {
                let own_limit = record.filter(|_| self.rules.is_counted).and_then(own_limit);
                match ledger.charge(&ledger::Login { own_limit, ..self.counted() }) {
                    Ok(receipt) => {
                        self.charges.borrow_mut().push(receipt);
                        Ok(())
                    }
                    Err(refusal) => Err(refused(refusal)),
                }
            }
            Counter::Nothing => Ok(()),
            Counter::Broken(fact) => Err(NotJudged::Denied(fact.clone())),
        }
    }

    /// Why the codes of somebody else of the account do not count: what has disabled their device.
    pub(super) fn disabled(&self, other: &Person) -> Option<Fact> {
        let Counter::Ledger(ledger) = self.counter else { return None };
        let is_disabled = self.policy.throttle.is_some() && ledger.is_disabled(Who::of(other));
        is_disabled.then(|| refused(Refusal::Disabled).into_fact())
    }

    /// What an answer costs in a store that keeps the ledger too, and what a right one gives back.
    pub(super) fn with_bill<T>(&self, guess: &Guess, pay: impl FnOnce(&Bill) -> T) -> T {
        let receipts = self.charges.borrow().clone();
        let grace = self.grace().filter(|_| self.policy.may_have_grace(self.visit.source));
        let grace = grace.as_ref().map(|(period, factors)| Grace {
            period: *period,
            circumstances: self.circumstances(),
            factors: factors.expose(),
            is_elsewhere: false,
        });
        let login_key = if login_key::is_accepted(self.visit.login_key) { self.visit.login_key } else { b"" };
        pay(&Bill { login: self.counted(), is_guess: guess.is_one, receipts: &receipts, grace, login_key })
    }

    /// A right code takes the charges of this login back; what cannot have been a code was no guess, and takes back what it
    /// was charged itself: all but the first `paid_before`.
    pub(super) fn count(&mut self, verdict: &Verdict, paid_before: usize) {
        match verdict {
            Verdict::Accepted(_) if self.is_charged_by_store => {}
            Verdict::Accepted(_) => self.give_back(),
            Verdict::Denied(Denial::NotACode) => {
                self.was_no_code = true;
                self.take_back_from(paid_before);
            }
            // The record's own limit is spent: the code was not judged.
            Verdict::Denied(Denial::Throttled { .. }) => self.take_back_from(paid_before),
            Verdict::Denied(_) => {}
        }
    }

    /// Gives back what this login was charged: it was right.
    pub(super) fn give_back(&self) {
        let Counter::Ledger(ledger) = self.counter else { return };
        let receipts = self.charges.take();
        self.with_bill(&Guess::new(true), |bill| {
            // Where that fails the person is asked again next time.
            let _ = ledger.give_back(&bill.login, receipts, bill.grace.as_ref());
        });
    }

    pub(super) fn take_back_from(&self, paid_before: usize) {
        let first = paid_before.min(self.charges.borrow().len());
        let receipts = self.charges.borrow_mut().split_off(first);
        if let Counter::Ledger(ledger) = self.counter {
            receipts.into_iter().for_each(|receipt| ledger.take_back(&self.counted(), receipt));
        }
    }

    /// This login, as the ledger counts it.
    pub(super) fn counted(&self) -> ledger::Login<'a> {
        ledger::Login {
            who: self.who,
            source: self.visit.source,
            service: &self.policy.service,
            throttle: self.policy.throttle.as_ref(),
            own_limit: None,
        }
    }
}

/// One answer, as far as it has to be paid for.
pub(super) struct Guess {
    /// What cannot be a code is no guess.
    is_one: bool,
    /// Whether it may be judged, once that was asked.
    result: OnceCell<Result<(), NotJudged>>,
}

impl Guess {
    pub(super) const fn new(is_one: bool) -> Self {
        Self { is_one, result: OnceCell::new() }
    }
}

/// `RATE_LIMIT n m` of a person's file as a rule about the person's failures, where the ledger counts them.
pub fn own_limit(record: &Record) -> Option<Trigger> {
    let limit = record.rate_limit.as_ref().ok()?.as_ref()?;
    Some(Trigger { failures: limit.tries as u64, period: limit.seconds })
}

/// Why a guess is not judged.
pub(super) fn refused(refusal: Refusal) -> NotJudged {
    NotJudged::Denied(match refusal {
        Refusal::Person(trigger) => Fact::new("throttled").with("by", "user").with("limit", trigger.to_string()),
        Refusal::Source(trigger) => Fact::new("throttled").with("by", "host").with("limit", trigger.to_string()),
        Refusal::Disabled => Fact::new("device-disabled")
            .or("100 codes in a row were wrong; if they were not the owner's: pam-totp throttle unlock --user NAME [--key KEY]"),
        Refusal::Unwritable => Fact::new("ledger-error").or("the ledger in state_dir cannot be written"),
        Refusal::Unreachable(fact) => return NotJudged::Unavailable(fact),
    })
}
