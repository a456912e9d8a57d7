//! The date in the header of an answer (RFC 9110 section 5.6.7).

/// Seconds of a day.
const DAY: u64 = 86_400;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`; of no other form (the other two are obsolete), and of
/// no year before 1970.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (_, date) = text.split_once(", ")?;
    let mut words = date.split(' ');
    let (day, month, year, time, zone) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let mut parts = time.split(':');
    let (hour, minute, second) =
        (number(parts.next()?, 2, 23)?, number(parts.next()?, 2, 59)?, number(parts.next()?, 2, 60)?);
    if zone != "GMT" || words.next().is_some() || parts.next().is_some() {
        return None;
    }
    let days = days(number(year, 4, 9999)?, u64::try_from(month).ok()?, number(day, 2, 31)?)?;
    let minutes = hour.checked_mul(60)?.checked_add(minute)?;
    days.checked_mul(DAY)?.checked_add(minutes.checked_mul(60)?)?.checked_add(second)
}

/// So many digits, and no more than that.
fn number(text: &str, digits: usize, most: u64) -> Option<u64> {
    let is_one = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then(|| text.parse().ok()).flatten().filter(|number| *number <= most)
}

/// Days since 1970 of a day of the Gregorian calendar, month 0 being January.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years that begin in March put the leap day at their end; 719 468 days before 1970 began the year 0 of these.
    let (year, month) =
        if month < 2 { (year.checked_sub(1)?, month.checked_add(10)?) } else { (year, month.checked_sub(2)?) };
    let of_year = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?.checked_add(day.checked_sub(1)?)?;
    let leap_days = (year / 4).checked_sub(year / 100)?.checked_add(year / 400)?;
    year.checked_mul(365)?.checked_add(leap_days)?.checked_add(of_year)?.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_what_date_says() {
        for seconds in [0, 784_111_777, 951_782_400, 951_868_799, 1_795_651_200, 4_107_542_400, 253_402_300_799_u64] {
            let at = format!("@{seconds}");
            let mut date = std::process::Command::new("date");
            let date = date.env("LC_ALL", "C").args(["-u", "-d", &at, "+%a, %d %b %Y %H:%M:%S GMT"]).output().unwrap();
            let text = String::from_utf8(date.stdout).unwrap();
            assert_eq!(parse(text.trim()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            ", ",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, 06 Jan 0000 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 -8:49:37 GMT",
            "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
