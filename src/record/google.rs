//! The text of `~/.google_authenticator`, as google-authenticator-libpam defined it.
//!
//! Line 1 is the secret in base32. Lines that start with `"` and a blank are options, other lines are scratch codes.
//! A file is rewritten faithfully: what a login does not change (unknown options, odd lines, order, line ends) stays
//! byte for byte.

use super::{BadLine, BadSecret, Device, Drift, Hotp, Kind, RateLimit, Record, RecoveryCodes, Slot, Totp, Window};
use crate::fact::Fact;
use crate::otp::{Algorithm, Digits, base32};
use crate::secret::Secret;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How many counters are tried when the file has no `WINDOW_SIZE`.
const DEFAULT_LOOK_AHEAD: u64 = 3;
/// Seconds per step when the file has no `STEP_SIZE` (RFC 6238 section 5.2).
const DEFAULT_PERIOD: u64 = 30;

// The bounds of the C module.
const WINDOW_SIZES: RangeInclusive<u64> = 1..=100;
/// Seconds that a time step can last.
pub const STEP_SIZES: RangeInclusive<u64> = 1..=60;
const LIMIT_TRIES: RangeInclusive<u64> = 1..=100;
const LIMIT_SECONDS: RangeInclusive<u64> = 1..=3600;
/// Eight digits, the first of them not 0.
const SCRATCH_CODES: RangeInclusive<u64> = 10_000_000..=99_999_999;

/// Longest host name in a `LASTn` line.
const MAX_HOST: usize = 255;
/// How many right codes of a wrong time are remembered.
const MAX_DRIFT: usize = 3;

const ALGORITHM: &str = "ALGORITHM";
const DIGITS: &str = "DIGITS";
const RESETTING_TIME_SKEW: &str = "RESETTING_TIME_SKEW";
const TIME_SKEW: &str = "TIME_SKEW";
const DISALLOW_REUSE: &str = "DISALLOW_REUSE";
const HOTP_COUNTER: &str = "HOTP_COUNTER";
const RATE_LIMIT: &str = "RATE_LIMIT";
const STEP_SIZE: &str = "STEP_SIZE";
const WINDOW_SIZE: &str = "WINDOW_SIZE";

/// A file and what it means.
pub struct Document {
    text: Secret<Vec<u8>>,
    record: Record,
    odd_lines: usize,
}

/// A file with a NUL byte: no text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binary;

impl Binary {
    /// For the log.
    pub const fn fact(self) -> Fact {
        Fact::new("binary-file").or("the secret file is not a text file; enrol again")
    }
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Binary`]. What cannot be read in a text file is in the record, as such.
    pub fn parse(text: Secret<Vec<u8>>) -> Result<Self, Binary> {
        let bytes = text.expose();
        if bytes.contains(&0) {
            return Err(Binary);
        }
        let secret = base32::decode(lines(bytes).next().unwrap_or_default().content()).map(Arc::new).ok_or(BadSecret);
        let (scratch, odd_lines) = scratch_codes(bytes);
        let device = Device { name: String::new(), secret, kind: kind(bytes), added: None, last_used: None };
        let record = Record {
            devices: vec![device],
            rate_limit: rate_limit(bytes),
            scratch,
            scratch_before_odd: scratch_lines(bytes).take_while(|line| line.scratch_code().is_some()).count(),
            recovery: RecoveryCodes::default(),
            logins: std::array::from_fn(|slot| login(bytes, slot)),
        };
        Ok(Self { text, record, odd_lines })
    }

    /// The same of a file that may be as it was when it was `known`.
    ///
    /// # Errors
    /// [`Binary`].
    pub fn parse_again(text: Secret<Vec<u8>>, known: Option<Self>) -> Result<Self, Binary> {
        let known = known.filter(|known| known.text.expose() == text.expose());
        known.map_or_else(|| Self::parse(text), Ok)
    }

    /// What the file means.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// How many lines are neither secret, option nor scratch code.
    pub const fn odd_lines(&self) -> usize {
        self.odd_lines
    }

    /// The file with what `next` changes: one-time marks, counter, charged tries, spent scratch codes.
    pub fn with(&self, next: &Record) -> Secret<Vec<u8>> {
        let mut edited = Edited::new(self.text.expose());
        let kind = |record: &Record| record.devices.first().and_then(|device| device.kind.clone().ok());
        match (kind(&self.record), kind(next)) {
            (Some(Kind::Totp(old)), Some(Kind::Totp(new))) => {
                if let Ok(Some(used)) = &new.used
                    && old.used != new.used
                {
                    edited.set(DISALLOW_REUSE, &numbers(used));
                }
                if old.skew != new.skew {
                    edited.set(TIME_SKEW, &new.skew.to_string());
                }
                if old.drift != new.drift {
                    edited.set(RESETTING_TIME_SKEW, &drift_text(&new.drift));
                }
            }
            (Some(Kind::Hotp(old)), Some(Kind::Hotp(new))) if old.counter != new.counter => {
                edited.set(HOTP_COUNTER, &new.counter.to_string());
            }
            _ => {}
        }
        for (slot, (old, new)) in self.record.logins.iter().zip(&next.logins).enumerate() {
            if let Slot::Login { host, time } = new
                && old != new
            {
                edited.set(&format!("LAST{slot}"), &format!("{host} {time}"));
            }
        }
        if let Ok(Some(limit)) = &next.rate_limit
            && self.record.rate_limit != next.rate_limit
        {
            edited.set(RATE_LIMIT, &format!("{} {} {}", limit.tries, limit.seconds, numbers(&limit.charged)));
        }
        edited.keep_scratch_codes(next.scratch.expose());
        edited.text()
    }
}

/// The text of a new file: the secret, the options that differ from what is understood anyway, the scratch codes.
pub fn new_text(record: &Record) -> Secret<Vec<u8>> {
    let mut text = Vec::with_capacity(4096);
    let device = record.devices.first();
    if let Some(Device { secret: Ok(secret), .. }) = device {
        text.extend_from_slice(base32::encode(secret.expose()).expose().as_bytes());
    }
    text.push(b'\n');
    let mut option = |line: String| text.extend_from_slice(format!("\" {}\n", line.trim_end()).as_bytes());
    if let Ok(Some(limit)) = &record.rate_limit {
        option(format!("{RATE_LIMIT} {} {} {}", limit.tries, limit.seconds, numbers(&limit.charged)));
    }
    let kind = device.and_then(|device| device.kind.as_ref().ok());
    if let Some(Kind::Totp(Totp { algorithm, digits, .. }) | Kind::Hotp(Hotp { algorithm, digits, .. })) = kind {
        if *algorithm != Algorithm::Sha1 {
            option(format!("{ALGORITHM} {}", algorithm.name()));
        }
        if *digits != Digits::SIX {
            option(format!("{DIGITS} {}", digits.get()));
        }
    }
    match kind {
        Some(Kind::Totp(totp)) => {
            if let Some(window) = totp.window {
                option(format!("{WINDOW_SIZE} {}", window.size()));
            }
            if totp.period != DEFAULT_PERIOD {
                option(format!("{STEP_SIZE} {}", totp.period));
            }
            if let Ok(Some(used)) = &totp.used {
                option(format!("{DISALLOW_REUSE} {}", numbers(used)));
            }
            option("TOTP_AUTH".to_owned());
        }
        Some(Kind::Hotp(hotp)) => {
            if hotp.look_ahead != DEFAULT_LOOK_AHEAD {
                option(format!("{WINDOW_SIZE} {}", hotp.look_ahead));
            }
            option(format!("{HOTP_COUNTER} {}", hotp.counter));
        }
        Some(Kind::None) | None => {}
    }
    for code in record.scratch.expose() {
        text.extend_from_slice(format!("{code}\n").as_bytes());
    }
    Secret::new(text)
}

fn numbers(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// `STEP+SKEW` or `STEP-SKEW`, a blank between two.
fn drift_text(drift: &[Drift]) -> String {
    drift.iter().map(|Drift { step, skew }| format!("{step}{skew:+}")).collect::<Vec<_>>().join(" ")
}

// ---- Reading ----

/// A line with its end.
#[derive(Clone, Copy, Default)]
struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    /// Without the line feed. A carriage return before it stays.
    fn content(self) -> &'a [u8] {
        self.0.strip_suffix(b"\n").unwrap_or(self.0)
    }

    /// Without LF or CR LF.
    fn trimmed(self) -> &'a [u8] {
        let content = self.content();
        content.strip_suffix(b"\r").unwrap_or(content)
    }

    /// The value, if this is the option line of `key`: `" KEY`, then the end or a blank.
    fn option(self, key: &str) -> Option<&'a [u8]> {
        let rest = self.trimmed().strip_prefix(b"\" ")?.strip_prefix(key.as_bytes())?;
        match rest {
            [] => Some(rest),
            [b' ' | b'\t' | b'\r', ..] => Some(skip_blanks(rest)),
            _ => None,
        }
    }

    fn is_scratch_area(self) -> bool {
        !self.trimmed().is_empty() && !self.0.starts_with(b"\"")
    }

    /// The scratch code on this line: a number of eight digits, blanks or `+` before it allowed, nothing behind it.
    fn scratch_code(self) -> Option<u32> {
        let number = parse_number(self.trimmed().trim_ascii_start())?;
        SCRATCH_CODES.contains(&number).then(|| u32::try_from(number).ok()).flatten()
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    text.split_inclusive(|&byte| byte == b'\n').map(Line)
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
    bytes.get(blanks..).unwrap_or_default()
}

/// Decimal digits, a `+` before them allowed.
fn parse_number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The first option line of `key`: its number, counted from 1, and its value.
fn find<'a>(text: &'a [u8], key: &str) -> Option<(usize, &'a [u8])> {
    (1..).zip(lines(text)).find_map(|(number, line)| Some((number, line.option(key)?)))
}

/// The number that a value starts with; what follows a blank is ignored.
fn bounded(
    text: &[u8],
    key: &'static str,
    bounds: &RangeInclusive<u64>,
    default: u64,
    expected: &'static str,
) -> Result<u64, BadLine> {
    let Some((line, value)) = find(text, key) else { return Ok(default) };
    let word = value.split(|byte| b" \t\r".contains(byte)).next().unwrap_or_default();
    parse_number(word).filter(|number| bounds.contains(number)).ok_or(BadLine { line, key, expected })
}

fn kind(text: &[u8]) -> Result<Kind, BadLine> {
    let counter = hotp_counter(text)?;
    let is_totp = text.windows(b"\" TOTP_AUTH".len()).any(|window| window == b"\" TOTP_AUTH");
    if counter == 0 && !is_totp {
        return Ok(Kind::None);
    }
    let algorithm = algorithm(text)?;
    let digits = bounded(text, DIGITS, &(6..=8), 6, "must be 6, 7 or 8")?;
    let digits = u8::try_from(digits).ok().and_then(Digits::new).unwrap_or(Digits::SIX);
    let window = || bounded(text, WINDOW_SIZE, &WINDOW_SIZES, DEFAULT_LOOK_AHEAD, "must be a number from 1 to 100");
    if counter > 0 {
        return Ok(Kind::Hotp(Hotp { algorithm, digits, look_ahead: window()?, counter }));
    }
    let period = bounded(text, STEP_SIZE, &STEP_SIZES, DEFAULT_PERIOD, "must be a number of seconds from 1 to 60")?;
    let size = window()?;
    let window = find(text, WINDOW_SIZE).map(|_| Window::of_size(size));
    let skew = find(text, TIME_SKEW).map_or(0, |(_, value)| leading_number(value));
    Ok(Kind::Totp(Totp { algorithm, digits, period, window, skew, drift: drift(text), used: used_steps(text) }))
}

fn algorithm(text: &[u8]) -> Result<Algorithm, BadLine> {
    let Some((line, value)) = find(text, ALGORITHM) else { return Ok(Algorithm::Sha1) };
    [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|algorithm| value.trim_ascii().eq_ignore_ascii_case(algorithm.name().as_bytes()))
        .ok_or(BadLine { line, key: ALGORITHM, expected: "must be SHA1, SHA256 or SHA512" })
}

/// The number that a value starts with, 0 if it starts with none (strtol(3)).
fn leading_number(value: &[u8]) -> i64 {
    let sign = usize::from(value.starts_with(b"-") || value.starts_with(b"+"));
    let digits = value.iter().skip(sign).take_while(|byte| byte.is_ascii_digit()).count();
    let number = value.get(..sign.saturating_add(digits)).and_then(|number| std::str::from_utf8(number).ok());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The codes of a wrong time, up to the first that cannot be read.
fn drift(text: &[u8]) -> Vec<Drift> {
    let Some((_, value)) = find(text, RESETTING_TIME_SKEW) else { return Vec::new() };
    let words = value.split(|byte| b" \t\r".contains(byte)).filter(|word| !word.is_empty());
    words.map_while(one_drift).take(MAX_DRIFT).collect()
}

fn one_drift(word: &[u8]) -> Option<Drift> {
    let word = std::str::from_utf8(word).ok()?;
    let (step, skew) = word.split_at_checked(word.find(['+', '-'])?)?;
    Some(Drift { step: step.parse().ok()?, skew: skew.parse().ok()? })
}

/// `LASTn HOST TIME`.
fn login(text: &[u8], slot: usize) -> Slot {
    let Some((_, value)) = find(text, &format!("LAST{slot}")) else { return Slot::Empty };
    let words = std::str::from_utf8(value).ok().map(|value| value.split_ascii_whitespace().collect::<Vec<_>>());
    match words.as_deref() {
        Some([host, time]) if is_host(host) => match time.parse() {
            Ok(time) => Slot::Login { host: (*host).to_owned(), time },
            Err(_) => Slot::Unreadable,
        },
        _ => Slot::Unreadable,
    }
}

/// Whether a host can be written to a `LASTn` line.
pub fn is_host(host: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b":%.-".contains(&byte);
    (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(is_part)
}

/// `0` where there is no counter: absent, not a number, zero or less. The number may be followed by anything.
fn hotp_counter(text: &[u8]) -> Result<u64, BadLine> {
    let Some((line, value)) = find(text, HOTP_COUNTER) else { return Ok(0) };
    let value = value.strip_prefix(b"+").unwrap_or(value);
    let digits = value.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    if digits.is_empty() {
        return Ok(0);
    }
    let expected = "must be a number below 2^63";
    parse_number(digits).filter(|&counter| i64::try_from(counter).is_ok()).ok_or(BadLine {
        line,
        key: HOTP_COUNTER,
        expected,
    })
}

fn used_steps(text: &[u8]) -> Result<Option<Vec<u64>>, BadLine> {
    let Some((line, value)) = find(text, DISALLOW_REUSE) else { return Ok(None) };
    let words = value.split(|byte| b" \t\r".contains(byte)).filter(|word| !word.is_empty());
    let bad = BadLine { line, key: DISALLOW_REUSE, expected: "must be a list of time steps; empty it to start anew" };
    words.map(parse_number).collect::<Option<_>>().map(Some).ok_or(bad)
}

fn rate_limit(text: &[u8]) -> Result<Option<RateLimit>, BadLine> {
    let Some((line, value)) = find(text, RATE_LIMIT) else { return Ok(None) };
    let expected = "must be tries (1 to 100), seconds (1 to 3600) and times of past tries, one blank between them";
    parse_rate_limit(value).map(Some).ok_or(BadLine { line, key: RATE_LIMIT, expected })
}

fn parse_rate_limit(value: &[u8]) -> Option<RateLimit> {
    let mut words = Vec::new();
    let mut rest = value;
    // Like the C module: a blank promises another number, so one at the end is an error.
    loop {
        let end = rest.iter().position(|&byte| byte == b' ' || byte == b'\t');
        let (word, tail) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
        words.push(parse_number(word)?);
        if tail.is_empty() {
            break;
        }
        rest = skip_blanks(tail);
    }
    let [tries, seconds, charged @ ..] = words.as_slice() else { return None };
    let in_bounds = LIMIT_TRIES.contains(tries) && LIMIT_SECONDS.contains(seconds);
    let tries = usize::try_from(*tries).ok()?;
    in_bounds.then(|| RateLimit { tries, seconds: *seconds, charged: charged.to_vec() })
}

/// The lines where scratch codes stand.
fn scratch_lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    lines(text).skip(1).filter(|line| line.is_scratch_area())
}

/// The scratch codes, and how many lines in their place are none.
fn scratch_codes(text: &[u8]) -> (Arc<Secret<Vec<u32>>>, usize) {
    // Counted first, so that the codes are collected without leaving half-grown copies behind.
    let odd = scratch_lines(text).filter(|line| line.scratch_code().is_none()).count();
    let mut codes = Vec::with_capacity(scratch_lines(text).count().saturating_sub(odd));
    codes.extend(scratch_lines(text).filter_map(Line::scratch_code));
    (Arc::new(Secret::new(codes)), odd)
}

// ---- Writing ----

/// The lines of a file, some of them replaced.
struct Edited<'a> {
    lines: Vec<Piece<'a>>,
}

enum Piece<'a> {
    Kept(Line<'a>),
    Written(String),
}

impl<'a> Edited<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { lines: lines(text).map(Piece::Kept).collect() }
    }

    /// Writes an option in the place of its first line and drops further lines of it; a new one goes behind line 1.
    fn set(&mut self, key: &str, value: &str) {
        let line = format!("\" {key} {value}\n");
        let is_option = |piece: &Piece| matches!(piece, Piece::Kept(line) if line.option(key).is_some());
        match self.lines.iter().position(is_option) {
            Some(first) => {
                if let Some(piece) = self.lines.get_mut(first) {
                    *piece = Piece::Written(line);
                }
                self.lines.retain(|piece| !is_option(piece));
            }
            None => {
                if matches!(self.lines.first(), Some(Piece::Kept(first)) if !first.0.ends_with(b"\n")) {
                    self.lines.insert(1, Piece::Written("\n".to_owned()));
                    self.lines.insert(2, Piece::Written(line));
                } else {
                    self.lines.insert(self.lines.len().min(1), Piece::Written(line));
                }
            }
        }
    }

    /// Drops every line of a scratch code that is not in `unspent`.
    fn keep_scratch_codes(&mut self, unspent: &[u32]) {
        let mut first = true;
        self.lines.retain(|piece| {
            let is_secret = std::mem::take(&mut first);
            let spent = |line: &Line| {
                line.is_scratch_area() && line.scratch_code().is_some_and(|code| !unspent.contains(&code))
            };
            is_secret || !matches!(piece, Piece::Kept(line) if spent(line))
        });
    }

    fn text(&self) -> Secret<Vec<u8>> {
        let pieces = || {
            self.lines.iter().map(|piece| match piece {
                Piece::Kept(line) => line.0,
                Piece::Written(line) => line.as_bytes(),
            })
        };
        let mut text = Vec::with_capacity(pieces().map(<[u8]>::len).sum());
        pieces().for_each(|piece| text.extend_from_slice(piece));
        Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn document(text: &str) -> Document {
        Document::parse(Secret::new(text.as_bytes().to_vec())).ok().unwrap()
    }

    fn totp(text: &str) -> Totp {
        match &document(text).record.devices[0].kind {
            Ok(Kind::Totp(totp)) => totp.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn rewritten(text: &str, change: impl FnOnce(&mut Record)) -> String {
        let document = document(text);
        let mut next = document.record().clone();
        change(&mut next);
        String::from_utf8(document.with(&next).expose().clone()).unwrap()
    }

    fn use_steps(record: &mut Record, steps: &[u64]) {
        if let Ok(Kind::Totp(totp)) = &mut record.devices[0].kind {
            totp.used = Ok(Some(steps.to_vec()));
        }
    }

    fn charge(record: &mut Record, at: u64) {
        if let Ok(Some(limit)) = &mut record.rate_limit {
            limit.charged.push(at);
        }
    }

    fn bad_line(text: &str) -> (usize, &'static str) {
        let document = document(text);
        let record = document.record();
        let used = match &record.devices[0].kind {
            Ok(Kind::Totp(totp)) => totp.used.clone().err(),
            _ => None,
        };
        let bad =
            used.or_else(|| record.devices[0].kind.clone().err()).or_else(|| record.rate_limit.clone().err()).unwrap();
        (bad.line, bad.key)
    }

    #[test]
    fn every_option_is_read() {
        let totp = totp(
            "gezdgnbv gy3tqojq-GEZDGNBVGY3TQOJQ\r\n\" STEP_SIZE 60\r\n\" WINDOW_SIZE\t4 \n\" DISALLOW_REUSE 3 5 4\n\" TOTP_AUTH\n",
        );
        assert_eq!(totp.period, 60);
        assert_eq!(totp.window, Some(Window { behind: 1, ahead: 2 }));
        assert_eq!(totp.mark(), Some(5));
        let document = document(&format!("{SECRET}\n\" RATE_LIMIT 3 30 100 101\n\" HOTP_COUNTER 7\n\" TOTP_AUTH\n"));
        let record = document.record();
        assert_eq!(record.devices[0].secret.as_ref().unwrap().expose(), b"12345678901234567890");
        assert_eq!(record.rate_limit, Ok(Some(RateLimit { tries: 3, seconds: 30, charged: vec![100, 101] })));
        let Ok(Kind::Hotp(hotp)) = &record.devices[0].kind else { panic!("not HOTP") };
        assert_eq!((hotp.counter, hotp.look_ahead), (7, 3));
    }

    #[test]
    fn drift_skew_hosts_and_a_hardened_forks_options_are_read() {
        let text = format!(
            "{SECRET}\n\" TOTP_AUTH\n\" TIME_SKEW -12 x\n\" RESETTING_TIME_SKEW 100+3 101-4 x 102+1\n\" DIGITS 8\n\
             \" ALGORITHM sha256\n\" LAST0 192.0.2.1 100\n\" LAST3 fe80::1%eth0 7\n\" LAST4 h 1 2\n\" LAST5 a_b 1\n"
        );
        let totp = totp(&text);
        assert_eq!((totp.skew, totp.digits.get(), totp.algorithm), (-12, 8, Algorithm::Sha256));
        assert_eq!(totp.drift, [Drift { step: 100, skew: 3 }, Drift { step: 101, skew: -4 }]);
        let logins = document(&text).record.logins.clone();
        assert_eq!(logins[0], Slot::Login { host: "192.0.2.1".into(), time: 100 });
        assert_eq!(logins[1], Slot::Empty);
        assert_eq!(logins[3], Slot::Login { host: "fe80::1%eth0".into(), time: 7 });
        assert_eq!([&logins[4], &logins[5]], [&Slot::Unreadable; 2]);
        assert_eq!(drift_text(&totp.drift), "100+3 101-4");
    }

    #[test]
    fn windows_are_cut_like_the_c_module_cuts_them() {
        let cut = |size| (Window::of_size(size).behind, Window::of_size(size).ahead);
        assert_eq!([cut(1), cut(2), cut(3), cut(4), cut(6), cut(17)], [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3), (8, 8)]);
        assert!((1..=100).all(|size| Window::of_size(size).size() == size));
    }

    #[test]
    fn the_first_of_two_lines_counts() {
        assert_eq!(totp(&format!("{SECRET}\n\" TOTP_AUTH\n\" STEP_SIZE 20\n\" STEP_SIZE 40\n")).period, 20);
        assert_eq!(totp(&format!("{SECRET}\n\" TOTP_AUTH\n\" STEP_SIZEX 20\n\"STEP_SIZE 20\n")).period, 30);
    }

    #[test]
    fn broken_options_are_named() {
        for (option, key) in [
            ("STEP_SIZE 0", "STEP_SIZE"),
            ("STEP_SIZE 61", "STEP_SIZE"),
            ("STEP_SIZE 5x", "STEP_SIZE"),
            ("STEP_SIZE", "STEP_SIZE"),
            ("WINDOW_SIZE 101", "WINDOW_SIZE"),
            ("WINDOW_SIZE -3", "WINDOW_SIZE"),
            ("DISALLOW_REUSE 1 x", "DISALLOW_REUSE"),
            ("DISALLOW_REUSE 99999999999999999999999", "DISALLOW_REUSE"),
            ("HOTP_COUNTER 9223372036854775808", "HOTP_COUNTER"),
            ("DIGITS 5", "DIGITS"),
            ("DIGITS 9", "DIGITS"),
            ("ALGORITHM MD5", "ALGORITHM"),
            ("ALGORITHM", "ALGORITHM"),
            ("RATE_LIMIT", "RATE_LIMIT"),
            ("RATE_LIMIT 3", "RATE_LIMIT"),
            ("RATE_LIMIT 0 30", "RATE_LIMIT"),
            ("RATE_LIMIT 101 30", "RATE_LIMIT"),
            ("RATE_LIMIT 3 3601", "RATE_LIMIT"),
            ("RATE_LIMIT 3 30 x", "RATE_LIMIT"),
            ("RATE_LIMIT 3 30 ", "RATE_LIMIT"),
        ] {
            assert_eq!(bad_line(&format!("{SECRET}\n\" TOTP_AUTH\n\" {option}\n")), (3, key), "{option}");
        }
    }

    #[test]
    fn a_counter_that_is_no_number_is_no_counter() {
        for value in ["", "x", "-3", "0"] {
            assert!(matches!(
                document(&format!("{SECRET}\n\" HOTP_COUNTER {value}\n")).record().devices[0].kind,
                Ok(Kind::None)
            ));
        }
    }

    #[test]
    fn no_secret_no_record() {
        for text in ["", "\n", "!\n", "MY======\n", "\" TOTP_AUTH\n"] {
            assert_eq!(document(text).record.devices[0].secret.as_ref().err(), Some(&BadSecret), "{text:?}");
        }
        assert_eq!(Document::parse(Secret::new(b"AA\n\0".to_vec())).err(), Some(Binary));
    }

    #[test]
    fn odd_lines_are_skipped_and_counted() {
        let document =
            document(&format!("{SECRET}\n\n 12345678\nnonsense\n123456789\n+23456789\r\n34567890 \n45678901"));
        assert_eq!(document.record().scratch.expose(), &[12_345_678, 23_456_789, 45_678_901]);
        assert_eq!(document.odd_lines(), 3);
    }

    #[test]
    fn a_text_without_changes_stays_as_it_is() {
        let text = "gezd gnbv\r\n\" UNKNOWN  thing \r\n\n\" TOTP_AUTH\n\" RATE_LIMIT 3 30\r\nodd\n12345678\r\n12345678";
        assert_eq!(rewritten(text, |_| ()), text);
    }

    #[test]
    fn only_the_changed_lines_change() {
        let text = "AAAA\r\n\" X y\r\n\" DISALLOW_REUSE 1\r\n\" TOTP_AUTH\r\n\" DISALLOW_REUSE 9\r\n\" RATE_LIMIT 3 30\r\nodd\r\n";
        let expected = "AAAA\r\n\" X y\r\n\" DISALLOW_REUSE 1 2\n\" TOTP_AUTH\r\n\" RATE_LIMIT 3 30 77\nodd\r\n";
        assert_eq!(
            rewritten(text, |record| {
                use_steps(record, &[1, 2]);
                charge(record, 77);
            }),
            expected
        );
    }

    #[test]
    fn a_new_option_goes_behind_the_secret() {
        assert_eq!(
            rewritten("AAAA\n\" TOTP_AUTH\n", |record| use_steps(record, &[5])),
            "AAAA\n\" DISALLOW_REUSE 5\n\" TOTP_AUTH\n"
        );
        let mut edited = Edited::new(b"AAAA");
        edited.set("KEY", "1");
        assert_eq!(edited.text().expose(), b"AAAA\n\" KEY 1\n");
    }

    #[test]
    fn a_spent_scratch_code_goes_and_its_twins_with_it() {
        let text = "12345678\n\" X\n12345678\n 12345678\r\n23456789\n";
        // Line 1 is the secret, however much it looks like something else.
        let text = text.replacen("12345678", "ABCDEFGH", 1);
        assert_eq!(
            rewritten(&text, |record| record.scratch = Arc::new(Secret::new(vec![23_456_789]))),
            "ABCDEFGH\n\" X\n23456789\n"
        );
    }

    #[test]
    fn a_new_file_reads_as_what_was_meant() {
        let mut record = document(&format!("{SECRET}\n\" TOTP_AUTH\n\" RATE_LIMIT 3 30\n12345678\n")).record().clone();
        assert_eq!(
            String::from_utf8(new_text(&record).expose().clone()).unwrap(),
            format!("{SECRET}\n\" RATE_LIMIT 3 30\n\" TOTP_AUTH\n12345678\n")
        );
        use_steps(&mut record, &[9]);
        let again = Document::parse(new_text(&record)).ok().unwrap();
        assert_eq!(again.record().devices[0].kind, record.devices[0].kind);
        assert_eq!(again.record().rate_limit, record.rate_limit);
        assert_eq!(again.record().scratch.expose(), record.scratch.expose());
    }
}
