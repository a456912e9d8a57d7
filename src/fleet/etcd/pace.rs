//! What to do where the cluster has no time for this host: to give it more, and to ask it less often.
//!
//! After a restart all hosts of a fleet want a connection and a token of its members at once. Whoever gives up waiting for either
//! throws away what a member has computed for it; if all of them then ask again at once, the next time takes no less, and nobody
//! ever gets in. So a host that nobody was in time for waits for longer from then on, and stays away for a while by chance, each
//! time for longer.

use crate::system::clock::instant;
use crate::system::random;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest rest after the first time, which doubles with each time that follows.
const SHORTEST: Duration = Duration::from_secs(1);
/// How often it does. Of 1,000 hosts that rest for half of the longest a few hundred ask in a second.
const DOUBLINGS: u32 = 3;
/// By how much longer than usual an answer is waited for where no endpoint was in time: for most of what a login has.
const PATIENCE: u32 = 4;
/// For how long that is so. A member that hangs is left for the next one after as much.
const MEMORY: Duration = Duration::from_secs(30);

/// Of one host: all who log in have it in common.
pub(super) struct Pace {
    state: Mutex<State>,
    /// Any number.
    chance: fn() -> u64,
}

#[derive(Default)]
struct State {
    /// How often nobody was in time, less how often somebody was: so often the next rest's longest time is doubled.
    times: u32,
    /// When the latest rest began.
    since: Option<Instant>,
    /// When it is over.
    over: Option<Instant>,
    /// When no endpoint was in time, of all.
    all_late: Option<Instant>,
}

impl State {
    /// Whether no endpoint was in time lately.
    fn is_pressed(&self, now: Instant) -> bool {
        self.all_late.is_some_and(|then| now.saturating_duration_since(then) < MEMORY)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::by(|| random::bytes().map_or(0, u64::from_ne_bytes))
    }
}

impl Pace {
    pub(super) fn by(chance: fn() -> u64) -> Self {
        Self { state: Mutex::default(), chance }
    }

    /// Waits until the cluster may be asked, and says when that was. `None`: it is not before the deadline.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Instant> {
        loop {
            let now = instant();
            let left = self.left(now);
            if left.is_zero() {
                return Some(now);
            }
            if left > deadline.saturating_duration_since(now) {
                return None;
            }
            pause(left);
        }
    }

    /// How long the rest lasts yet.
    fn left(&self, now: Instant) -> Duration {
        self.lock().over.map_or(Duration::ZERO, |over| over.saturating_duration_since(now))
    }

    /// How many times as long as usual an answer is waited for.
    pub(super) fn patience(&self, now: Instant) -> u32 {
        if self.lock().is_pressed(now) { PATIENCE } else { 1 }
    }

    /// Somebody was not in time for who began to ask then; `all`: and of all who could be asked nobody answered. Where one alone was
    /// not, the next one may be, unless none was lately. Of several who asked at the same time one begins a rest.
    pub(super) fn late(&self, asked: Instant, now: Instant, all: bool) {
        let mut state = self.lock();
        if all {
            state.all_late = Some(now);
        }
        if !state.is_pressed(now) {
            return;
        }
        if state.since.is_some_and(|since| since >= asked) {
            return;
        }
        let longest = SHORTEST.saturating_mul(1_u32.checked_shl(state.times).unwrap_or(1));
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let rest = (self.chance)().checked_rem(longest.saturating_add(1)).unwrap_or_default();
        state.times = state.times.saturating_add(1).min(DOUBLINGS);
        (state.since, state.over) = (Some(now), now.checked_add(Duration::from_millis(rest)));
    }

    /// An endpoint has answered. Where it was too much for the cluster a moment ago it may be again.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        (state.times, state.over) = (state.times.saturating_sub(1), None);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent may wait: the one who logs in does, and the deadline is theirs.
#[allow(clippy::disallowed_methods)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)] // Small numbers.
mod tests {
    use super::*;

    /// The longest that there is, whatever it is.
    fn by_the_longest() -> Pace {
        // One less than a number that is a multiple of 1001, 2001, 4001 and 8001.
        Pace::by(|| 1001 * 2001 * 4001 * 8001 - 1)
    }

    #[test]
    fn a_rest_is_longer_each_time_and_no_longer_than_the_longest() {
        let (pace, mut now) = (by_the_longest(), instant());
        assert!(pace.left(now).is_zero());
        for seconds in [1, 2, 4, 8, 8, 8] {
            pace.late(now, now, true);
            assert_eq!(pace.left(now), Duration::from_secs(seconds));
            now += Duration::from_secs(seconds);
            assert!(pace.left(now).is_zero());
        }
        for _ in 0..100 {
            now += Duration::from_secs(1);
            pace.late(now, now, true);
        }
        assert_eq!(pace.left(now), Duration::from_secs(8));
        // However long that was, a few answers make up for it.
        (0..3).for_each(|_| pace.answered());
        now += Duration::from_secs(1);
        pace.late(now, now, true);
        assert_eq!(pace.left(now), Duration::from_secs(1));
        // By chance it can be none at all.
        let pace = Pace::by(|| 0);
        pace.late(now, now, true);
        assert!(pace.left(now).is_zero());
    }

    #[test]
    fn of_those_who_asked_at_the_same_time_one_rests() {
        let (pace, start) = (by_the_longest(), instant());
        let later = start + Duration::from_secs(1);
        (0..64).for_each(|number| pace.late(start, later + Duration::from_millis(number), true));
        assert_eq!(pace.left(later), Duration::from_secs(1));
        pace.late(later + Duration::from_millis(1), later + Duration::from_secs(2), true);
        assert_eq!(pace.left(later + Duration::from_secs(2)), Duration::from_secs(2));
    }

    #[test]
    fn an_answer_ends_it_and_the_next_one_is_as_long_again() {
        let (pace, now) = (by_the_longest(), instant());
        let at = |seconds| now + Duration::from_secs(seconds);
        (0..3).for_each(|second| pace.late(at(second), at(second), true));
        assert_eq!(pace.left(at(2)), Duration::from_secs(4));
        assert!(pace.wait(at(2)).is_none(), "not before the deadline");
        pace.answered();
        assert!(pace.left(at(2)).is_zero() && pace.wait(at(2)).is_some());
        pace.late(at(3), at(3), true);
        assert_eq!(pace.left(at(3)), Duration::from_secs(4));
        (0..9).for_each(|_| pace.answered());
        pace.late(at(4), at(4), true);
        assert_eq!(pace.left(at(4)), Duration::from_secs(1));
    }

    #[test]
    fn where_nobody_was_in_time_an_answer_is_waited_for_for_longer_for_a_while() {
        let (pace, now) = (by_the_longest(), instant());
        pace.late(now, now, false);
        assert_eq!((pace.patience(now), pace.left(now)), (1, Duration::ZERO), "another one may be in time");
        pace.late(now, now, true);
        pace.answered();
        assert_eq!([29, 30].map(|seconds| pace.patience(now + Duration::from_secs(seconds))), [4, 1]);
    }
}
