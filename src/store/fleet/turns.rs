//! Who of this process is at which document, so that those who would write the same one do it one after the other: a commit that
//! comes too late costs the cluster as much as one that does not.
//!
//! What keeps them apart is the commit's guard. This is for speed alone, and whoever has waited for long goes on without.

use crate::system::clock;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The documents that somebody is at.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<BTreeSet<String>>,
    changed: Condvar,
}

/// Somebody is at a document, until this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    key: String,
}

impl Turns {
    /// Waits until nobody is at a document any more. `None`: somebody still is, after half of the time that there is.
    pub(super) fn take(&self, key: &str, deadline: Instant) -> Option<Turn<'_>> {
        let start = clock::instant();
        let patience = deadline.saturating_duration_since(start).checked_div(2).unwrap_or_default();
        let mut taken = self.lock();
        while taken.contains(key) {
            let left = patience.checked_sub(clock::instant().saturating_duration_since(start))?;
            taken = self.changed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.insert(key.to_owned());
        Some(Turn { turns: self, key: key.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether it is that document.
    pub(super) fn is_at(&self, key: &str) -> bool {
        self.key == key
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.key);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    fn after(time: Duration) -> Instant {
        clock::instant().checked_add(time).unwrap()
    }

    #[test]
    fn one_at_a_time_is_at_a_document() {
        let turns = Turns::default();
        let turn = turns.take("people/alice", after(Duration::from_secs(60))).unwrap();
        assert!(turn.is_at("people/alice") && !turn.is_at("people/bob"));
        assert!(turns.take("people/bob", after(Duration::ZERO)).is_some(), "another one's is another matter");
        thread::scope(|scope| {
            let waits = scope.spawn(|| turns.take("people/alice", after(Duration::from_secs(60))).is_some());
            drop(turn);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn who_has_waited_for_half_of_the_time_goes_on_without() {
        let turns = Turns::default();
        let _turn = turns.take("people/alice", after(Duration::from_secs(60)));
        let start = clock::instant();
        assert!(turns.take("people/alice", after(Duration::from_millis(200))).is_none());
        let waited = clock::instant().duration_since(start);
        assert!(waited >= Duration::from_millis(90), "{waited:?}");
    }
}
