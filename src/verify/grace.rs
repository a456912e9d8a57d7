//! What can be said of a record before anybody is asked: nothing here changes it or lets a code be used.

use super::Rules;
use super::charge::add_try;
use crate::record::google::is_host;
use crate::record::{Record, Slot};

/// Whether a login from this host was accepted within the last `period` seconds. Never for a time that is yet to come.
pub fn has_grace(record: &Record, host: &str, period: u64, now: u64) -> bool {
    let first = record.logins.iter().find_map(|slot| match slot {
        Slot::Login { host: known, time } if known == host => Some(*time),
        _ => None,
    });
    first.is_some_and(|time| time <= now && now.saturating_sub(time) < period)
}

/// Whether the C module would not even ask: its budget is spent, or cannot be read.
pub fn is_throttled(record: &Record, now: u64) -> bool {
    match &record.rate_limit {
        Ok(None) => false,
        Ok(Some(limit)) => add_try(limit, now, true).1,
        Err(_) => true,
    }
}

/// Notes the host of an accepted login: in its own place, the first empty one, or that of the oldest login.
pub(super) fn remember(next: &mut Record, rules: &Rules, now: u64) {
    let Some(host) = rules.remember.filter(|host| is_host(host)) else { return };
    let own = next.logins.iter().position(|slot| matches!(slot, Slot::Login { host: known, .. } if known == host));
    let empty = || next.logins.iter().position(|slot| *slot == Slot::Empty);
    let time = |slot: &Slot| match slot {
        Slot::Login { time, .. } => Some(*time),
        _ => None,
    };
    let oldest = || {
        let times = next.logins.iter().enumerate().filter_map(|(place, slot)| Some((time(slot)?, place)));
        times.min().map(|(_, place)| place)
    };
    if let Some(slot) = own.or_else(empty).or_else(oldest).and_then(|place| next.logins.get_mut(place)) {
        *slot = Slot::Login { host: host.to_owned(), time: now };
    }
}
