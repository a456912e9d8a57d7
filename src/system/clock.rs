//! The clocks. Read through libc, so that a test can bend them.

use super::{Errno, last_error};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// One moment on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970; a clock set before that reads 0. Somebody may set it at any time.
    pub wall: u64,
    /// Seconds since the machine was started, sleep included (CLOCK_BOOTTIME). Nobody can set it.
    pub boot: u64,
}

/// The present moment.
pub fn moment() -> Moment {
    Moment { wall: now(), boot: read(libc::CLOCK_BOOTTIME) }
}

/// The wall clock: seconds since 1970.
pub fn now() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// A clock to measure how long something takes, which nobody can set.
pub fn monotonic() -> Duration {
    let time = time(libc::CLOCK_MONOTONIC);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The present, for deadlines.
#[allow(clippy::disallowed_methods)] // This is the one place.
pub fn instant() -> Instant {
    Instant::now()
}

/// Whole seconds; 0 for what lies before 0, and for a clock that there is not.
fn read(clock: libc::clockid_t) -> u64 {
    u64::try_from(time(clock).tv_sec).unwrap_or(0)
}

fn time(clock: libc::clockid_t) -> libc::timespec {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: a place for the time. Where the call fails it stays at zero.
    unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    }
}

/// Whether something keeps the wall clock right: the kernel knows by whether it is told so, by a time daemon.
///
/// # Errors
/// The kernel does not say, as in some containers.
pub fn is_synchronised() -> Result<bool, Errno> {
    // SAFETY: numbers, for which zero is good; no `modes`, so that nothing is set.
    let mut clock = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
    // SAFETY: a place of that type.
    match unsafe { libc::adjtimex(&raw mut clock) } {
        -1 => Err(last_error()),
        state => Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0),
    }
}

/// A time in words, such as `2026-11-25 at 20:31 UTC`.
pub fn utc(seconds: u64) -> String {
    let (days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    // Years that begin in March put the leap day at their end; 719 468 days before 1970 a cycle of 400 years began.
    let day = days.saturating_add(719_468);
    let (cycle, of_cycle) = (day / 146_097, day % 146_097);
    let without_leap_days =
        of_cycle.saturating_add(of_cycle / 36_524).saturating_sub(of_cycle / 1_460).saturating_sub(of_cycle / 146_096);
    let year = without_leap_days / 365;
    let before = year.saturating_mul(365).saturating_add(year / 4).saturating_sub(year / 100);
    let of_year = of_cycle.saturating_sub(before);
    let month = of_year.saturating_mul(5).saturating_add(2) / 153;
    let day = of_year.saturating_sub(month.saturating_mul(153).saturating_add(2) / 5).saturating_add(1);
    let (month, next) = if month < 10 { (month.saturating_add(3), 0) } else { (month.saturating_sub(9), 1) };
    let year = cycle.saturating_mul(400).saturating_add(year).saturating_add(next);
    format!("{year:04}-{month:02}-{day:02} at {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_words_is_what_date_says() {
        for seconds in
            [0, 86_399, 951_782_400, 951_868_799, 1_795_651_200, 4_107_542_400, 4_107_628_800, 253_402_300_799]
        {
            let date =
                std::process::Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%F at %R UTC"]).output();
            let date = String::from_utf8(date.unwrap().stdout).unwrap();
            assert_eq!(utc(seconds), date.trim(), "{seconds}");
        }
    }
}
