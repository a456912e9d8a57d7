//! The arithmetic of guessing (RFC 4226 section 6): what a policy leaves to somebody who tries codes.

use super::Policy;
use super::throttle::Trigger;
use super::values::DAY;
use crate::record::Window;

const YEAR: u64 = 365 * DAY;
/// The widest `WINDOW_SIZE` that a person's file can have.
const WIDEST: u64 = 100;
/// Codes of six digits.
const CODES: f64 = 1e6;

/// What somebody can get who never stops guessing at one person's codes, from sources where that person has not been.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Odds {
    /// Codes that are right at any moment: the steps of the window.
    pub live: u64,
    /// Guesses that are judged in a day. `None`: there is no limit.
    pub guesses_a_day: Option<u64>,
    /// The chance that one of a day's is right.
    pub a_day: f64,
    /// The chance that one of a year's is right.
    pub a_year: f64,
}

/// The odds with the window of the policy, and with the widest that a person's own file can ask for.
pub fn odds(policy: &Policy) -> [Odds; 2] {
    let widest = policy.widest_window().unwrap_or(Window::of_size(WIDEST));
    [policy.window.value.size(), widest.size()].map(|live| odds_of(policy, live))
}

fn odds_of(policy: &Policy, live: u64) -> Odds {
    // Nobody in particular: what is said of single people is not said of everybody.
    let triggers = policy.throttle.as_ref().map(|rules| rules.user.triggers(b"", policy.service.as_bytes()));
    let guesses = |length: u64| {
        let triggers: Option<&Vec<Trigger>> = triggers.as_ref();
        triggers.into_iter().flatten().map(|trigger| trigger.most_in(length)).min()
    };
    // That many, or as many as there are codes: then one of them is right.
    let chance = |guesses: Option<u64>| match guesses {
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        Some(guesses) => 1.0 - (1.0 - (live as f64 / CODES)).powf(guesses as f64),
        None => 1.0,
    };
    Odds { live, guesses_a_day: guesses(DAY), a_day: chance(guesses(DAY)), a_year: chance(guesses(YEAR)) }
}
