//! A login that is put away while a person types, and goes on in another process.

use super::{Counter, Login};
use crate::ledger::Receipt;

/// What a login has to know about what came before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Away {
    /// An answer could not be a code.
    pub was_no_code: bool,
    /// The store could not tell whether somebody needs no code, or may have a device.
    pub is_in_doubt: bool,
    /// What the answers have cost.
    pub receipts: Vec<Receipt>,
}

impl<N: Fn() -> u64> Login<'_, N> {
    /// Puts it away. It cannot be taken up again where the C module is followed: then there is no agent.
    pub fn put_away(self) -> Away {
        let is_in_doubt = self.doubt.take().is_some();
        Away { was_no_code: self.was_no_code, is_in_doubt, receipts: self.charges.take() }
    }

    /// Takes it up again: before the answer, and in the place of [`Login::begin`].
    pub fn take_up(&mut self, away: &Away) {
        self.was_no_code = away.was_no_code;
        if let Counter::Ledger(_) = self.counter {
            self.charges.replace(away.receipts.clone());
            if self.policy.may_have_grace(self.visit.source) {
                self.record = self.loaded();
            }
        }
        // For what the log says: about one that is over, and why the store could not tell.
        let _ = self.exempt();
        if away.is_in_doubt {
            let _ = self.newcomer();
            let _ = self.passes_without_a_device();
        }
    }
}
