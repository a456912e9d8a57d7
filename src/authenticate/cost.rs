//! What an answer costs: charged before it is judged, taken back if it was right.

use super::{Counter, Login};
use crate::fact::Fact;
use crate::ledger::{self, Grace, Memory, Refusal, Who};
use crate::store::Store;
use crate::system::clock::Moment;
use crate::verify::{Denial, Verdict};

impl<'a, S: Store, M: Memory, C: Fn() -> Moment, N: Fn() -> u64> Login<'a, S, M, C, N> {
    /// Charges a guess. Whoever has no budget left is refused, as is everybody where the ledger does not work.
    pub(super) fn charge(&mut self) -> Result<(), Fact> {
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
    pub(super) fn count(&mut self, verdict: &Verdict) {
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

    pub(super) fn take_back_last(&mut self) {
        if let Some(charge) = self.charges.pop() {
            charge.take_back();
        }
    }

    /// This login, as the ledger counts it.
    pub(super) fn counted(&self) -> ledger::Login<'a> {
        let who = match self.visit.person {
            Ok(person) if person.home().is_none() && self.store.has_record(person) == Ok(false) => {
                Who::Nobody(person.name())
            }
            Ok(person) => Who::Person { name: person.name(), uid: person.uid(), is_virtual: person.home().is_none() },
            Err(_) => Who::Nobody(self.visit.name),
        };
        ledger::Login {
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
