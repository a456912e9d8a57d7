//! A device whose clock is far off: three right codes of the same wrong time, one after the other, and the difference is
//! taken into the record (`TIME_SKEW`). The C module does this by default; here it has to be asked for.

use super::{Denial, Factor, Judgement, Rules, WRONG, of_device, with_step};
use crate::otp::{Code, Generator};
use crate::record::{Drift, Totp};

/// Steps looked at on either side of now: 12.5 hours of steps of 30 seconds.
const REACH: u64 = 25 * 60;
/// How many codes it takes.
const CODES: usize = 3;

/// Looks for the code far off. `clock` is the present step without any skew.
pub(super) fn adjust(totp: &mut Totp, rules: &Rules, generator: &Generator, code: &Code, clock: u64) -> Judgement {
    let (Some(skew), Ok(clock)) = (nearest(generator, code, clock), i64::try_from(clock)) else {
        return WRONG.into();
    };
    let step = clock.saturating_add(skew);
    let (absolute, used) = (step.cast_unsigned(), totp.used.clone().ok().flatten().unwrap_or_default());
    // The rule that a code works once holds for codes of a wrong time too.
    let mark = totp.mark();
    if !rules.google && Some(absolute) <= mark {
        return Denial::UsedCode.into();
    }
    // The same code once more proves nothing.
    if totp.drift.last().is_some_and(|last| last.step.saturating_add(last.skew) == step) {
        return Denial::WrongTime.into();
    }
    if totp.drift.len() >= CODES {
        totp.drift.remove(0);
    }
    totp.drift.push(Drift { step: clock, skew });
    let Some(average) = agreement(&totp.drift) else {
        return Judgement::Denied { denial: Denial::WrongTime, noted: true };
    };
    // The C module does not ask. Where the file says that there is such a rule, it notes used codes and gets nobody in.
    let works_once = !rules.google || matches!(totp.used, Ok(Some(_)));
    let is_used = |code: &Drift| Some(code.step.saturating_add(code.skew).cast_unsigned()) <= mark;
    if works_once && totp.drift.iter().any(is_used) {
        return Judgement::Denied { denial: Denial::UsedCode, noted: true };
    }
    totp.drift.clear();
    totp.skew = average;
    if works_once {
        totp.used = Ok(Some(with_step(&used, absolute, rules.window(totp).size())));
    }
    of_device(Factor::Totp { ahead: skew >= 0, steps: skew.unsigned_abs() }, code)
}

/// How far off the code is, by the nearest step that it fits. All are compared.
pub(super) fn nearest(generator: &Generator, code: &Code, clock: u64) -> Option<i64> {
    let mut found = None;
    for distance in 0..REACH {
        for (step, sign) in [(clock.checked_sub(distance), -1), (clock.checked_add(distance), 1)] {
            let matches = step.is_some_and(|step| generator.matches(code, step));
            if matches && found.is_none() {
                found = i64::try_from(distance).ok().and_then(|distance| distance.checked_mul(sign));
            }
        }
    }
    found
}

/// The average difference, where three codes came within two steps of each other and the earlier ones agree with the last to
/// within one.
fn agreement(drift: &[Drift]) -> Option<i64> {
    let [first, second, third] = drift else { return None };
    let agree = |earlier: &Drift, later: &Drift| {
        let gap = later.step.saturating_sub(earlier.step);
        (1..=2).contains(&gap) && earlier.skew.abs_diff(third.skew) <= 1
    };
    if !agree(first, second) || !agree(second, third) {
        return None;
    }
    Some(first.skew.saturating_add(second.skew).saturating_add(third.skew) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_codes_agree_with_the_last_of_them() {
        let drift = |skews: [i64; 3]| [0, 1, 2].map(|at| Drift { step: 100 + at as i64, skew: skews[at] });
        for (skews, expected) in [
            ([-3, -3, -3], Some(-3)),
            ([-4, -4, -3], Some(-3)),
            ([4, 5, 5], Some(4)),
            // Neither is further than one from the first, or from the one before.
            ([-3, -4, -2], None),
            ([-2, -3, -4], None),
            ([-2, -4, -3], Some(-3)),
        ] {
            assert_eq!(agreement(&drift(skews)), expected, "{skews:?}");
        }
    }
}
