//! The values that a policy is made of.

use crate::record::Window;
use ipnet::IpNet;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use toml::value::{Datetime, Offset};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// Seconds of a day.
pub const DAY: u64 = 24 * HOUR;

/// Steps that a window may reach in one direction: half of the widest `WINDOW_SIZE`.
const MAX_STEPS: u64 = 50;

/// Some time, in seconds: `90s`, `15m`, `12h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub u64);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let expected = || format!("`{text}` is no time: a number and one of s, m, h and d is, such as \"12h\"");
        // Without a unit one person thinks of seconds and another of minutes.
        text.ends_with(['s', 'm', 'h', 'd']).then(|| seconds(&text)).flatten().map(Self).ok_or_else(expected)
    }
}

/// `90`, `90s`, `15m`, `12h` or `7d` in seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let units = [('s', 1), ('m', MINUTE), ('h', HOUR), ('d', DAY)];
    let unit = units.iter().find_map(|(letter, unit)| Some((text.strip_suffix(*letter)?, *unit)));
    let (digits, unit) = unit.unwrap_or((text, 1));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(unit)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [('d', DAY), ('h', HOUR), ('m', MINUTE)];
        match units.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((letter, unit)) => write!(f, "{}{letter}", self.0.checked_div(*unit).unwrap_or(0)),
            None => write!(f, "{}s", self.0),
        }
    }
}

/// The end of something: a moment, or the end of a day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Datetime")]
pub struct End {
    /// The first second, counted from 1970, at which it is over.
    pub over: u64,
    written: Datetime,
}

impl TryFrom<Datetime> for End {
    type Error = String;

    fn try_from(written: Datetime) -> Result<Self, String> {
        let expected = || format!("`{written}` is neither a day such as 2027-01-31 nor a time with its offset");
        let date = written.date.ok_or_else(expected)?;
        let day = days_since_1970(date.year.into(), date.month.into(), date.day.into()).ok_or_else(expected)?;
        let midnight = day.saturating_mul(DAY);
        let over = match (written.time, written.offset) {
            (None, _) => midnight.saturating_add(DAY),
            (Some(time), Some(offset)) => {
                let minutes = match offset {
                    Offset::Z => 0,
                    Offset::Custom { minutes } => i64::from(minutes),
                };
                let second = time.second.unwrap_or(0);
                let of_day = [(time.hour.into(), HOUR), (time.minute.into(), MINUTE), (u64::from(second), 1)];
                of_day
                    .iter()
                    .fold(midnight, |sum, (count, unit): &(u64, u64)| sum.saturating_add(count.saturating_mul(*unit)))
                    .saturating_add_signed(minutes.saturating_mul(-60))
            }
            // An hour of which nobody knows where on earth.
            (Some(_), None) => return Err(expected()),
        };
        Ok(Self { over, written })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. `None`: before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years that begin in March put the leap day at their end.
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let month = if month <= 2 { month.saturating_add(9) } else { month.saturating_sub(3) };
    let of_year = month.saturating_mul(153).saturating_add(2) / 5;
    let leap_days = (year / 4).saturating_sub(year / 100).saturating_add(year / 400);
    let days = [year.saturating_mul(365), leap_days, of_year, day].into_iter().fold(0, u64::saturating_add);
    // 1970-01-01, counted so.
    days.checked_sub(719_469)
}

/// A network: `192.0.2.0/24`, `2001:db8::/32`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether the address, which is not IPv4-mapped, lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| format!("`{text}` is no network such as 192.0.2.0/24 or 2001:db8::/32"))?;
        match network {
            IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some() => {
                Err(format!("`{text}` is IPv4 in IPv6's clothes: write it as IPv4"))
            }
            _ if network.addr() != network.network() => {
                Err(format!("`{text}` has bits behind its prefix: `{}` is the network", network.trunc()))
            }
            _ => Ok(Self(network)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names, or everybody (everything): `["any"]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>", bound = "T: TryFrom<String, Error = String>")]
pub enum Set<T> {
    /// `["any"]`.
    Any,
    /// These. Never empty.
    Of(Vec<T>),
}

impl<T: TryFrom<String, Error = String>> TryFrom<Vec<String>> for Set<T> {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        if words.is_empty() {
            return Err("an empty list: [\"any\"] means all".to_owned());
        }
        if words == ["any"] {
            return Ok(Self::Any);
        }
        if words.iter().any(|word| word == "any") {
            return Err("`any` stands alone".to_owned());
        }
        words.into_iter().map(T::try_from).collect::<Result<_, _>>().map(Self::Of)
    }
}

impl<T: fmt::Display> fmt::Display for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Of(items) => f.write_str(&items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// The name of a user, group or service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(pub String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '/';
        if text.is_empty() || text.contains(is_odd) {
            return Err(format!("`{}` is no name", text.escape_debug()));
        }
        Ok(Self(text))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `{ behind = 1, ahead = 1 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowTable {
    behind: Steps,
    ahead: Steps,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
struct Steps(u64);

impl TryFrom<u64> for Steps {
    type Error = String;

    fn try_from(steps: u64) -> Result<Self, String> {
        if steps <= MAX_STEPS { Ok(Self(steps)) } else { Err(format!("a window reaches 0 to {MAX_STEPS} steps")) }
    }
}

impl From<WindowTable> for Window {
    fn from(WindowTable { behind: Steps(behind), ahead: Steps(ahead) }: WindowTable) -> Self {
        Self { behind, ahead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Result<u64, String> {
        Span::try_from(text.to_owned()).map(|span| span.0)
    }

    #[test]
    fn spans() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(span(text), Ok(seconds));
            assert_eq!(Span(seconds).to_string(), text);
        }
        for text in [
            "",
            "s",
            "5",
            "1w",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "h1",
            "١s",
            "99999999999999999999s",
            "999999999999999999d",
        ] {
            assert!(span(text).unwrap_err().starts_with(&format!("`{text}` is no time")), "{text}");
        }
    }

    fn end(text: &str) -> Result<u64, String> {
        #[derive(Deserialize)]
        struct Table {
            end: End,
        }
        toml::from_str::<Table>(&format!("end = {text}")).map(|table| table.end.over).map_err(|error| error.to_string())
    }

    #[test]
    fn a_day_ends_at_its_end_and_a_moment_at_once() {
        for (text, over) in [
            ("1970-01-01", 86_400),
            ("2026-11-25", 1_795_651_200),
            ("2000-02-29", 951_868_800),
            ("2100-03-01", 4_107_628_800),
            ("1970-01-01T00:01:02Z", 62),
            ("2026-11-25T12:00:00Z", 1_795_608_000),
            ("2026-11-25T12:00:00+01:00", 1_795_604_400),
            ("2026-11-25 12:00:00-00:30", 1_795_609_800),
        ] {
            assert_eq!(end(text), Ok(over), "{text}");
        }
        for text in
            ["2026-11-25T12:00:00", "12:00:00", "2026-02-30", "2026-13-01", "1969-12-31", "\"2026-11-25\"", "1", "2026"]
        {
            assert!(end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks() {
        let network = |text: &str| Network::try_from(text.to_owned());
        let contains = |text: &str, address: &str| network(text).unwrap().contains(address.parse().unwrap());
        assert!(contains("192.0.2.0/24", "192.0.2.255") && !contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1") && !contains("::/0", "192.0.2.1"));
        for text in [
            "",
            "any",
            "localhost",
            "192.0.2.0/33",
            "192.0.2/24",
            "192.0.2.1/24",
            "::ffff:192.0.2.0/120",
            "10.0.0.0/8 ",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sets() {
        let set = |words: &[&str]| Set::<Name>::try_from(words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(set(&["any"]), Ok(Set::Any));
        assert_eq!(set(&["a", "b"]), Ok(Set::Of(vec![Name("a".into()), Name("b".into())])));
        for words in [&[][..], &["any", "a"], &["a", ""], &["a b"], &["a\n"], &["a/b"]] {
            assert!(set(words).is_err(), "{words:?}");
        }
    }
}
