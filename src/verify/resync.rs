//! A device that has drifted away, brought back by two of its codes that follow each other (RFC 4226 section 7.4, RFC 6238
//! section 6); and a mark that a wrong clock has left in the future.

use super::{successor, with_step};
use crate::otp::{Code, Generator};
use crate::record::{Device, Hotp, Kind, Totp, Window};
use crate::secret::Secret;

/// Time steps looked at on either side of now: 12.5 hours of steps of 30 seconds, as the C module's skew adjustment.
const REACH: u64 = 25 * 60;
/// Counters looked at from the next one on.
const LOOK_AHEAD: u64 = 1000;
/// Steps of the widest window there is.
const WIDEST: u64 = 100;

/// Why a device stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotResynced {
    /// No two codes in reach that follow each other are these.
    NotFound,
    /// They are, and one of them has been used, or one of a later time.
    Used,
    /// The device has no secret, or neither time nor counter.
    NoCodes,
}

/// Moves a device's clock difference or counter to where two codes say it is, and uses both of them up. Says by how many
/// steps or counters.
///
/// # Errors
/// [`NotResynced`].
pub fn resync(device: &mut Device, codes: [&Code; 2], now: u64) -> Result<i64, NotResynced> {
    let (Ok(secret), Ok(kind)) = (&device.secret, &mut device.kind) else { return Err(NotResynced::NoCodes) };
    let moved = match kind {
        Kind::Totp(totp) => resync_totp(totp, secret, codes, now),
        Kind::Hotp(hotp) => resync_hotp(hotp, secret, codes),
        Kind::None => Err(NotResynced::NoCodes),
    }?;
    device.last_used = Some(now);
    Ok(moved)
}

fn resync_totp(totp: &mut Totp, secret: &Secret<Vec<u8>>, codes: [&Code; 2], now: u64) -> Result<i64, NotResynced> {
    let clock = now.checked_div(totp.period).ok_or(NotResynced::NoCodes)?;
    let generator = Generator::new(secret, totp.algorithm, totp.digits);
    let first = (0..REACH)
        .flat_map(|distance| [clock.checked_add(distance), clock.checked_sub(distance)])
        .flatten()
        .find(|&step| follow(&generator, codes, step))
        .ok_or(NotResynced::NotFound)?;
    if totp.mark().is_some_and(|mark| first <= mark) {
        return Err(NotResynced::Used);
    }
    let second = first.saturating_add(1);
    let skew =
        i64::try_from(second).ok().zip(i64::try_from(clock).ok()).map_or(0, |(one, two)| one.saturating_sub(two));
    totp.skew = skew;
    totp.drift.clear();
    let used = totp.used.clone().ok().flatten().unwrap_or_default();
    // The C module's rule looks for the step itself: both are in the list, and those that a window can reach stay there.
    totp.used = Ok(Some(with_step(&with_step(&used, first, WIDEST), second, WIDEST)));
    Ok(skew)
}

fn resync_hotp(hotp: &mut Hotp, secret: &Secret<Vec<u8>>, codes: [&Code; 2]) -> Result<i64, NotResynced> {
    let generator = Generator::new(secret, hotp.algorithm, hotp.digits);
    let last = hotp.counter.saturating_add(LOOK_AHEAD);
    let first =
        (hotp.counter..last).find(|&counter| follow(&generator, codes, counter)).ok_or(NotResynced::NotFound)?;
    let next = successor(first).and_then(successor).ok_or(NotResynced::NotFound)?;
    let skipped = first.saturating_sub(hotp.counter);
    hotp.counter = next;
    Ok(i64::try_from(skipped).unwrap_or(i64::MAX))
}

fn follow(generator: &Generator, [first, second]: [&Code; 2], at: u64) -> bool {
    generator.matches(first, at) && generator.matches(second, at.saturating_add(1))
}

/// Takes the clock of this host for right: a mark that lies beyond what it can accept now goes back to just there, so that
/// the code after that is accepted again. `window`: of a device that does not say, and the widest of any. Says whether there
/// was such a mark.
pub fn accept_clock(device: &mut Device, window: (Window, Option<Window>), now: u64) -> bool {
    let Ok(Kind::Totp(totp)) = &mut device.kind else { return false };
    let Some(clock) = now.checked_div(totp.period) else { return false };
    let (usual, widest) = window;
    let window = totp.window.unwrap_or(usual);
    let ahead = widest.map_or(window, |widest| window.within(widest)).ahead;
    let last = clock.saturating_add_signed(totp.skew).saturating_add(ahead);
    let is_beyond = totp.mark().is_some_and(|mark| mark > last);
    if is_beyond {
        totp.used = Ok(Some(vec![last]));
    }
    is_beyond
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::record::google::Document;

    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    const WINDOW: (Window, Option<Window>) = (Window { behind: 1, ahead: 1 }, None);

    fn device(options: &str) -> Device {
        let text = Secret::new(format!("{SECRET}\n{options}").into_bytes());
        Document::parse(text).ok().unwrap().record().devices[0].clone()
    }

    fn code(counter: u64) -> Code {
        let secret = Secret::new(b"12345678901234567890".to_vec());
        let generator = Generator::new(&secret, crate::otp::Algorithm::Sha1, crate::otp::Digits::SIX);
        Code::parse(generator.code(counter).expose().as_bytes()).unwrap()
    }

    fn totp(device: &Device) -> (i64, Option<u64>) {
        match &device.kind {
            Ok(Kind::Totp(totp)) => (totp.skew, totp.mark()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_codes_that_follow_each_other_set_the_difference_and_are_used_up() {
        for (first, skew) in [(5000, 1), (5100, 101), (4000, -999)] {
            let mut device = device("\" TOTP_AUTH\n");
            assert_eq!(resync(&mut device, [&code(first), &code(first + 1)], 5000 * 30), Ok(skew));
            assert_eq!(totp(&device), (skew, Some(first + 1)));
        }
    }

    #[test]
    fn nothing_below_the_mark_and_nothing_out_of_reach_counts() {
        let mut device = device("\" TOTP_AUTH\n\" DISALLOW_REUSE 5100\n");
        let mut resync = |first, second| resync(&mut device, [&code(first), &code(second)], 5000 * 30);
        assert_eq!(resync(5100, 5101), Err(NotResynced::Used));
        assert_eq!(resync(5101, 5103), Err(NotResynced::NotFound), "they have to follow each other");
        assert_eq!(resync(5101, 5101), Err(NotResynced::NotFound));
        assert_eq!(resync(5000 + 1500, 5000 + 1501), Err(NotResynced::NotFound));
        assert_eq!(totp(&device), (0, Some(5100)), "and nothing has changed");
    }

    #[test]
    fn a_counter_moves_on_to_behind_the_second_code() {
        let mut device = device("\" HOTP_COUNTER 5\n");
        assert_eq!(resync(&mut device, [&code(900), &code(901)], 0), Ok(895));
        assert!(matches!(&device.kind, Ok(Kind::Hotp(hotp)) if hotp.counter == 902));
        assert_eq!(resync(&mut device, [&code(901), &code(902)], 0), Err(NotResynced::NotFound), "never back");
        assert_eq!(resync(&mut device, [&code(1902), &code(1903)], 0), Err(NotResynced::NotFound));
    }

    #[test]
    fn a_mark_in_the_future_goes_back_to_what_the_clock_can_accept_and_no_further() {
        let mut future = device("\" TOTP_AUTH\n\" DISALLOW_REUSE 9000\n");
        assert!(accept_clock(&mut future, WINDOW, 5000 * 30));
        assert_eq!(totp(&future), (0, Some(5001)));
        assert!(!accept_clock(&mut future, WINDOW, 5000 * 30));
        let mut past = device("\" TOTP_AUTH\n\" DISALLOW_REUSE 4000\n");
        assert!(!accept_clock(&mut past, WINDOW, 5000 * 30));
        assert_eq!(totp(&past), (0, Some(4000)));
        assert!(!accept_clock(&mut device("\" HOTP_COUNTER 5\n"), WINDOW, 0));
        let narrow = (WINDOW.0, Some(WINDOW.0));
        let mut wide = device("\" TOTP_AUTH\n\" WINDOW_SIZE 17\n\" DISALLOW_REUSE 5005\n");
        assert!(accept_clock(&mut wide, narrow, 5000 * 30), "what the policy does not let the record accept is beyond");
        assert_eq!(totp(&wide), (0, Some(5001)));
    }

    #[test]
    fn what_was_used_stays_used_by_the_rule_of_the_c_module_too() {
        use crate::otp::{Answer, Form};
        use crate::record::Record;
        use crate::verify::{Charge, Rules, Try, Verdict, charge};

        let mut device = device("\" TOTP_AUTH\n\" WINDOW_SIZE 7\n\" DISALLOW_REUSE 5000 5001\n");
        resync(&mut device, [&code(5002), &code(5003)], 5001 * 30).unwrap();
        let record = Record::of(vec![device]);
        for google in [false, true] {
            for step in 5000..=5003 {
                let answer = Answer::new(Secret::new(code(step).expose().as_bytes().to_vec()), Form::Code, google);
                let (rules, attempt) = (Rules { google, ..Rules::default() }, Try::new(&answer));
                let Charge::Due(due) = charge(&record, &rules, &attempt, 5001 * 30) else { panic!() };
                let decision = due.commit(|_| Ok::<(), ()>(())).unwrap().decide();
                let verdict = decision.commit(|_| Ok::<(), ()>(())).unwrap();
                assert!(matches!(verdict, Verdict::Denied(_)), "{google} {step}: {verdict:?}");
            }
        }
    }
}
