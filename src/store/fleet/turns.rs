//! Who of this process writes which document, so that those who would write the same one do it one after the other: a commit that
//! comes too late costs the cluster as much as one that does not.
//!
//! What keeps them apart is the commit's guard. This is for speed alone, and whoever has waited for long goes on without. But each
//! who waits is a thread of the agent, and how many do is bounded, so that whoever comes to other documents finds one.

use crate::system::clock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Those who may wait for one document. A crowd of two dozen with one account is served in a second or so; of the agent's 64
/// threads most are left.
const MOST_AT_ONE: usize = 24;
/// Those who may wait in all: half of the agent's threads are never among them.
const MOST: usize = 32;

/// The documents that somebody is at, each with those who wait for it.
#[derive(Default)]
pub(super) struct Turns {
    lines: Mutex<BTreeMap<String, Line>>,
    moved: Condvar,
}

/// Whoever is at a document, and who comes after them, in the order in which they came. They have numbers; whoever did not have to
/// wait has 0.
#[derive(Default)]
struct Line {
    at: u64,
    waiting: VecDeque<u64>,
    last: u64,
}

/// Somebody is at a document, until this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    key: String,
}

/// Too many wait already.
#[derive(Debug)]
pub(super) struct Crowded;

impl Turns {
    /// Nobody is at a document, and then somebody is.
    pub(super) fn take(&self, key: &str) -> Option<Turn<'_>> {
        let mut lines = self.lock();
        let is_free = !lines.contains_key(key);
        is_free.then(|| {
            lines.insert(key.to_owned(), Line::default());
            self.turn(key)
        })
    }

    /// Waits until nobody is at a document any more, and it is nobody else's turn. `None`: it still is, after half of the time that
    /// there is.
    pub(super) fn wait(&self, key: &str, deadline: Instant) -> Result<Option<Turn<'_>>, Crowded> {
        let start = clock::instant();
        let patience = deadline.saturating_duration_since(start).checked_div(2).unwrap_or_default();
        let mut lines = self.lock();
        let in_all: usize = lines.values().map(|line| line.waiting.len()).sum();
        let Some(line) = lines.get_mut(key) else {
            lines.insert(key.to_owned(), Line::default());
            return Ok(Some(self.turn(key)));
        };
        if line.waiting.len() >= MOST_AT_ONE || in_all >= MOST {
            return Err(Crowded);
        }
        line.last = line.last.saturating_add(1);
        let number = line.last;
        line.waiting.push_back(number);
        // It is there for as long as somebody waits.
        while let Some(line) = lines.get_mut(key) {
            if line.at == number {
                return Ok(Some(self.turn(key)));
            }
            let Some(left) = patience.checked_sub(clock::instant().saturating_duration_since(start)) else {
                line.waiting.retain(|&other| other != number);
                break;
            };
            lines = self.moved.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(None)
    }

    fn turn(&self, key: &str) -> Turn<'_> {
        Turn { turns: self, key: key.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut lines = self.turns.lock();
        let Some(line) = lines.get_mut(&self.key) else { return };
        match line.waiting.pop_front() {
            Some(next) => line.at = next,
            None => drop(lines.remove(&self.key)),
        }
        drop(lines);
        self.turns.moved.notify_all();
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

    fn wait<'a>(turns: &'a Turns, key: &str) -> Result<Option<Turn<'a>>, Crowded> {
        turns.wait(key, after(Duration::from_secs(60)))
    }

    /// Until so many do.
    fn until_waiting(turns: &Turns, number: usize) {
        while turns.lock().values().map(|line| line.waiting.len()).sum::<usize>() < number {
            thread::yield_now();
        }
    }

    #[test]
    fn one_at_a_time_is_at_a_document_in_the_order_in_which_they_came() {
        let turns = Turns::default();
        let turn = turns.take("people/alice").unwrap();
        assert!(turn.is_at("people/alice") && !turn.is_at("people/bob"));
        assert!(turns.take("people/alice").is_none());
        assert!(turns.take("people/bob").is_some(), "another one's is another matter");
        assert!(matches!(turns.wait("people/bob", after(Duration::ZERO)), Ok(Some(_))), "nobody is at it");
        let came = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for number in 0..5 {
                let (turns, came) = (&turns, &came);
                scope.spawn(move || {
                    let _turn = wait(turns, "people/alice").unwrap().unwrap();
                    came.lock().unwrap().push(number);
                });
                until_waiting(turns, number + 1);
            }
            drop(turn);
        });
        assert_eq!(came.into_inner().unwrap(), [0, 1, 2, 3, 4]);
        assert!(turns.lock().is_empty());
    }

    #[test]
    fn who_has_waited_for_half_of_the_time_goes_on_without() {
        let turns = Turns::default();
        let turn = turns.take("people/alice");
        let start = clock::instant();
        assert!(matches!(turns.wait("people/alice", after(Duration::from_millis(200))), Ok(None)));
        let waited = clock::instant().duration_since(start);
        assert!(waited >= Duration::from_millis(90), "{waited:?}");
        drop(turn);
        assert!(turns.lock().is_empty(), "they wait no more");
    }

    #[test]
    fn how_many_wait_is_bounded_for_each_document_and_in_all() {
        let turns = Turns::default();
        let held = ["people/alice", "people/bob"].map(|key| turns.take(key));
        thread::scope(|scope| {
            let some_wait = |key: &'static str, number| {
                (0..number).for_each(|_| {
                    drop(scope.spawn({
                        let turns = &turns;
                        move || drop(wait(turns, key))
                    }))
                });
            };
            some_wait("people/alice", MOST_AT_ONE);
            until_waiting(&turns, MOST_AT_ONE);
            assert!(wait(&turns, "people/alice").is_err());
            some_wait("people/bob", MOST - MOST_AT_ONE);
            until_waiting(&turns, MOST);
            assert!(wait(&turns, "people/bob").is_err());
            assert!(matches!(wait(&turns, "people/carol"), Ok(Some(_))));
            drop(held);
        });
    }
}
