//! What counts the guesses of this process.

use super::Counter;
use crate::fact::Fact;
use crate::ledger::{self, Ledger};
use crate::policy::Policy;
use crate::system::clock;
use crate::system::passwd;
use std::rc::Rc;

impl<'a> Counter<'a> {
    /// What counts under a policy in this process, and what an operator should know about it.
    pub fn of(policy: &Policy) -> (Self, Option<&'static str>) {
        Self::with(policy, None)
    }

    /// The same; `ledger` is the store's, where it keeps one.
    pub fn with(policy: &Policy, ledger: Option<Rc<dyn Ledger + 'a>>) -> (Self, Option<&'static str>) {
        if policy.throttle.is_none() && !policy.has_dates() {
            return (Self::Nothing, None);
        }
        if let Some(ledger) = ledger {
            return (Self::Ledger(ledger), None);
        }
        if passwd::process_uids().1 != 0 {
            // Nobody but root can read or write it, so what holds here is the RATE_LIMIT of the person's file.
            return (Self::Nothing, Some("not-for-this-process"));
        }
        match ledger::open(&policy.state_dir, clock::moment) {
            Ok(opened) => (Self::Ledger(Rc::new(opened.ledger)), opened.remark),
            Err(error) => (Self::Broken(Fact::new("ledger-error").because(&error.fact())), None),
        }
    }
}
