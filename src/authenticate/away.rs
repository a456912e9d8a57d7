//! A login that is put away while a person types, and goes on in another process.

use super::{Counter, Login};
use crate::ledger::{Memory, Receipt};
use crate::system::clock::Moment;

/// What a login has to know about what came before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Away {
    /// An answer could not be a code.
    pub was_no_code: bool,
    /// What the answers have cost.
    pub receipts: Vec<Receipt>,
}

impl<M: Memory, C: Fn() -> Moment, N: Fn() -> u64> Login<'_, M, C, N> {
    /// Puts it away. It cannot be taken up again where the C module is followed: then there is no agent.
    pub fn put_away(self) -> Away {
        let receipts = match self.counter {
            Counter::Ledger(ledger) => self.charges.take().iter().map(|charge| ledger.receipt(charge)).collect(),
            Counter::Nothing | Counter::Broken(_) => Vec::new(),
        };
        Away { was_no_code: self.was_no_code, receipts }
    }

    /// Takes it up again: before the answer, and in the place of [`Login::begin`].
    pub fn take_up(&mut self, away: &Away) {
        self.was_no_code = away.was_no_code;
        if let Counter::Ledger(ledger) = self.counter {
            self.charges.replace(away.receipts.iter().map(|receipt| ledger.charge_of(receipt)).collect());
            if self.policy.may_have_grace(self.visit.source) {
                self.record = self.loaded();
            }
        }
        // For what the log says about one that is over.
        let _ = self.exempt();
    }
}
