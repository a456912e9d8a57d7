//! The text of a root-only record: TOML of a fixed length, so that the next one fits into the blocks of the one before.
//!
//! ```text
//! # pam_totp record, sha256 of what follows: 4c0b…
//! version = 1
//! user = "alice"
//! uid = 1000
//! generation = 7
//!
//! [recovery]
//! salt = "…"
//! hashes = ["…", "…"]
//!
//! [[device]]
//! name = "phone"
//! kind = "totp"
//! secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
//! algorithm = "SHA1"
//! digits = 6
//! period = 30
//! mark = 59853000
//! ```
//!
//! Line feeds fill it up, which the checksum leaves out. One that is sealed has another first line and, behind that, nothing that can be read (see
//! [`SEALED`]). The checksum tells a whole record from half of one; it is no signature, as only root gets here.

use super::google::STEP_SIZES;
use super::recovery::{HASH, RecoveryCodes, SALT};
use super::{Device, Hotp, Kind, Record, Totp, Window};
use crate::fact::Fact;
use crate::otp::{Algorithm, Digits, base32};
use crate::secret::Secret;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};
use std::sync::Arc;

/// Bytes of every record: one block of the common file systems. There is room for a dozen devices and ten recovery codes.
pub const SIZE: usize = 4096;
/// What the last byte of a record is once its name is known to be on disk. Until then it is a line feed.
pub const SETTLED: u8 = b'#';

/// What a sealed record begins with, in front of the name of the key and a line feed. Behind them are bytes of the seal, which
/// has in it what is in a plain record up to [`ROOM`]; the last byte is that of any record.
pub const SEALED: &str = "# pam_totp record, sealed with key ";
/// Bytes of its first line.
pub const SEALED_LINE: usize = SEALED.len() + KEY_NAME + 1;
/// Letters of the name of a key.
const KEY_NAME: usize = 8;
/// Bytes that a record may fill, sealed or not: it may be sealed one day. 45 are the seal's own, and one is the last.
pub const ROOM: usize = SIZE - SEALED_LINE - 45 - 1;

const VERSION: u64 = 1;
const HEADER: &str = "# pam_totp record, sha256 of what follows: ";
/// Bytes of the first line.
pub(crate) const HEADER_LINE: usize = HEADER.len() + 2 * HASH + 1;
const PADDING: u8 = b'\n';
/// Longest name of a device, in bytes.
pub const MAX_NAME: usize = 64;
/// Counters that a look-ahead can reach, as in the home file.
const LOOK_AHEAD: std::ops::RangeInclusive<u64> = 1..=100;
/// Seconds, and time steps, that have as many digits as there will be for some 250 years.
const FAR_FUTURE: u64 = 9_999_999_999;

/// A record, and whose it is.
#[derive(Clone)]
pub struct Document {
    /// The name of its file: the person's, percent-encoded.
    pub user: String,
    /// The person's uid: a name that is given to somebody else is not the same person.
    pub uid: u32,
    /// How often it was written.
    pub generation: u64,
    /// What it is about.
    pub record: Record,
}

/// What is wrong with a record. Carries no text of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadRecord {
    /// Not [`SIZE`] bytes.
    Size(u64),
    /// Not what was written: cut off, mixed up or edited by hand.
    Checksum,
    /// It is sealed with this key: not a plain record.
    Sealed(String),
    /// Of a version that this program does not know.
    Version(u64),
    /// It cannot be read from this line on.
    Line(usize),
    /// This device cannot be: its values contradict each other.
    Device(String),
    /// This name, or this device's secret, is there twice.
    Twice(String),
}

impl BadRecord {
    /// For the log.
    pub fn fact(&self) -> Fact {
        let fact = Fact::new("bad-record");
        match self {
            Self::Size(size) => fact.with_number("size", size).or("a record has 4096 bytes; enrol again"),
            Self::Checksum => fact.or("its checksum is wrong: it was cut off or edited; enrol again"),
            Self::Sealed(key) => Fact::new("sealed-record")
                .with("key", key)
                .or("it is read by pam-totp-agent, which has the keys: via = \"agent\", or pam-totp key unseal"),
            Self::Version(version) => {
                fact.with_number("version", version).or("written by a newer pam_totp: update this one")
            }
            Self::Line(line) => fact.with_number("line", line).or("it cannot be read; enrol again"),
            Self::Device(name) => fact.with("device", name).or("its values contradict each other; enrol again"),
            Self::Twice(name) => fact.with("twice", name).or("two devices have the same name or secret; enrol again"),
        }
    }
}

/// More devices than fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge(
    /// How many bytes it would have.
    pub usize,
);

impl TooLarge {
    /// For the operator.
    pub fn fact(self) -> Fact {
        Fact::new("record-too-large")
            .with_number("bytes", self.0)
            .with_number("room", ROOM)
            .or("there is room for about a dozen devices: remove one")
    }
}

/// Whether a device can have this name: it stands between quotes in a record, and in lists on a terminal.
pub fn is_device_name(name: &str) -> bool {
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '"' | '\\');
    (1..=MAX_NAME).contains(&name.len()) && name.trim() == name && !name.contains(is_odd)
}

// ---- Writing ----

impl Document {
    /// The text, not settled.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn text(&self) -> Result<Secret<Vec<u8>>, TooLarge> {
        let Body { text, length } = self.body();
        let text = Secret::new(whole(text));
        // The last byte is not the body's.
        if length < SIZE { Ok(text) } else { Err(TooLarge(length.saturating_add(1))) }
    }

    fn body(&self) -> Body {
        let mut body = Body { text: Vec::with_capacity(SIZE), length: HEADER_LINE };
        body.text.resize(HEADER_LINE, PADDING);
        // Writing there cannot fail.
        let _ = self.write(&mut body);
        body
    }

    /// Fails where there would be no room for what logins will write: used codes, counters, times.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn check_room(&self) -> Result<(), TooLarge> {
        let mut grown = self.clone();
        grown.generation = u64::MAX;
        for device in &mut grown.record.devices {
            device.last_used = Some(FAR_FUTURE);
            match &mut device.kind {
                Ok(Kind::Totp(totp)) => totp.used = Ok(Some(vec![totp.mark().unwrap_or(0).max(FAR_FUTURE)])),
                Ok(Kind::Hotp(hotp)) => hotp.counter = i64::MAX.unsigned_abs(),
                Ok(Kind::None) | Err(_) => {}
            }
        }
        let Body { text, length } = grown.body();
        drop(Secret::new(text));
        if length <= ROOM { Ok(()) } else { Err(TooLarge(length)) }
    }

    fn write(&self, out: &mut dyn Write) -> fmt::Result {
        let Self { user, uid, generation, record } = self;
        write!(out, "version = {VERSION}\nuser = \"{user}\"\nuid = {uid}\ngeneration = {generation}\n")?;
        if !record.recovery.is_empty() {
            let (salt, hashes) = record.recovery.parts();
            write!(out, "\n[recovery]\nsalt = \"{}\"\nhashes = [", hexadecimal(salt))?;
            for (place, hash) in hashes.iter().enumerate() {
                write!(out, "{}\"{}\"", if place == 0 { "" } else { ", " }, hexadecimal(hash))?;
            }
            out.write_str("]\n")?;
        }
        record.devices.iter().try_for_each(|device| write_device(out, device))
    }
}

fn write_device(out: &mut dyn Write, device: &Device) -> fmt::Result {
    // What cannot be read is in no record that was read.
    let (Ok(secret), Ok(kind)) = (&device.secret, &device.kind) else { return Ok(()) };
    let (name, algorithm, digits) = match kind {
        Kind::Totp(totp) => ("totp", totp.algorithm, totp.digits),
        Kind::Hotp(hotp) => ("hotp", hotp.algorithm, hotp.digits),
        Kind::None => return Ok(()),
    };
    write!(out, "\n[[device]]\nname = \"{}\"\nkind = \"{name}\"\n", device.name)?;
    writeln!(out, "secret = \"{}\"", base32::encode(secret.expose()).expose())?;
    write!(out, "algorithm = \"{}\"\ndigits = {}\n", algorithm.name(), digits.get())?;
    match kind {
        Kind::Totp(totp) => {
            writeln!(out, "period = {}", totp.period)?;
            if let Some(window) = totp.window {
                write!(out, "behind = {}\nahead = {}\n", window.behind, window.ahead)?;
            }
            if totp.skew != 0 {
                writeln!(out, "skew = {}", totp.skew)?;
            }
            if let Some(mark) = totp.mark() {
                writeln!(out, "mark = {mark}")?;
            }
        }
        Kind::Hotp(hotp) => write!(out, "counter = {}\nlook_ahead = {}\n", hotp.counter, hotp.look_ahead)?,
        Kind::None => {}
    }
    if let Some(added) = device.added {
        writeln!(out, "added = {added}")?;
    }
    device.last_used.map_or(Ok(()), |used| writeln!(out, "last_used = {used}"))
}

/// A text that does not grow, so that no half-grown copy of a secret is left behind: what has no room is counted.
struct Body {
    text: Vec<u8>,
    length: usize,
}

impl fmt::Write for Body {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.length = self.length.saturating_add(part.len());
        if self.length < SIZE {
            self.text.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }
}

/// A text that was read, and is compared with what would be written: there is no second one to wipe.
struct Compared<'a> {
    /// Without the line feed at its end.
    text: &'a str,
    /// How far it is the same.
    at: usize,
}

impl Compared<'_> {
    /// The line that differs.
    fn line(&self) -> usize {
        self.text.bytes().take(self.at).filter(|&byte| byte == b'\n').count().saturating_add(1)
    }
}

impl Write for Compared<'_> {
    /// Fails at the first difference.
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let rest = self.text.get(self.at..).unwrap_or_default();
        // Behind the last line.
        let part = if part.len() > rest.len() { part.strip_suffix('\n').unwrap_or(part) } else { part };
        let is_same = |(read, written): &(u8, u8)| read == written;
        let (same, result) = match rest.starts_with(part) {
            true => (part.len(), Ok(())),
            false => (rest.bytes().zip(part.bytes()).take_while(is_same).count(), Err(fmt::Error)),
        };
        self.at = self.at.saturating_add(same);
        result
    }
}

/// A record of a text that has room for the first line, and that line. It does not grow beyond what it has room for.
pub(crate) fn whole(mut text: Vec<u8>) -> Vec<u8> {
    text.resize(SIZE, PADDING);
    let line = format!("{HEADER}{}\n", hexadecimal(&checksum(&text)));
    text.iter_mut().zip(line.bytes()).for_each(|(byte, letter)| *byte = letter);
    text
}

/// Of all between the first line and what fills the text up.
fn checksum(text: &[u8]) -> [u8; HASH] {
    Sha256::digest(unfilled(text.get(HEADER_LINE..SIZE.saturating_sub(1)).unwrap_or_default())).into()
}

/// What stands in front of the line feeds that fill it up.
fn unfilled(mut text: &[u8]) -> &[u8] {
    // Most of a record is that.
    while let Some(shorter) = text.strip_suffix(&[PADDING; 64]) {
        text = shorter;
    }
    while let Some(shorter) = text.strip_suffix(&[PADDING]) {
        text = shorter;
    }
    text
}

/// The name of the key that a record is sealed with, as its first line has it. `None`: it is no sealed record.
pub fn sealed_with(text: &[u8]) -> Option<&str> {
    let (key, rest) = text.strip_prefix(SEALED.as_bytes())?.split_at_checked(KEY_NAME)?;
    let is_name = rest.starts_with(b"\n") && key.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    std::str::from_utf8(key).ok().filter(|_| is_name)
}

/// In lower case; names of files are written so too.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len().saturating_mul(2));
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or_default();
    bytes.iter().for_each(|byte| text.extend([digit(byte >> 4), digit(byte & 15)]));
    String::from_utf8(text).unwrap_or_default()
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

// ---- Reading ----

/// A record as it is written. What was not there is `None`.
#[derive(Default)]
struct File {
    version: Option<u64>,
    user: Option<String>,
    uid: Option<u32>,
    generation: Option<u64>,
    recovery: Option<RecoveryTable>,
    device: Vec<DeviceTable>,
}

#[derive(Default)]
struct RecoveryTable {
    salt: Option<[u8; SALT]>,
    hashes: Option<Vec<[u8; HASH]>>,
}

#[derive(Default)]
struct DeviceTable {
    name: Option<String>,
    kind: Option<KindName>,
    secret: Option<Arc<Secret<Vec<u8>>>>,
    algorithm: Option<Algorithm>,
    digits: Option<u8>,
    period: Option<u64>,
    behind: Option<u64>,
    ahead: Option<u64>,
    skew: Option<i64>,
    mark: Option<u64>,
    counter: Option<u64>,
    look_ahead: Option<u64>,
    added: Option<u64>,
    last_used: Option<u64>,
}

enum KindName {
    Totp,
    Hotp,
}

/// Nobody else writes records, so what is read is what [`Document::text`] writes, line by line, and no other TOML. Each
/// text is read where it stands: a copy of it would not be wiped. `None`: not such a line.
impl File {
    fn line(&mut self, line: &str) -> Option<()> {
        match line {
            "" => Some(()),
            "[recovery]" => put(&mut self.recovery, self.device.is_empty().then(RecoveryTable::default)),
            "[[device]]" => {
                self.device.push(DeviceTable::default());
                Some(())
            }
            _ => {
                // By a letter, which is sooner found than a text. Whether all is where it has to be is seen in the end.
                let (key, value) = line.split_once(' ')?;
                let value = value.strip_prefix("= ")?;
                match (self.device.last_mut(), &mut self.recovery) {
                    (Some(device), _) => device.value(key, value),
                    (None, Some(recovery)) => recovery.value(key, value),
                    (None, None) => self.value(key, value),
                }
            }
        }
    }

    fn value(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "version" => put(&mut self.version, value.parse().ok()),
            "user" => put(&mut self.user, quoted(value).map(str::to_owned)),
            "uid" => put(&mut self.uid, value.parse().ok()),
            "generation" => put(&mut self.generation, value.parse().ok()),
            _ => None,
        }
    }
}

impl RecoveryTable {
    fn value(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "salt" => put(&mut self.salt, bytes(value)),
            "hashes" => {
                let hashes = value.strip_prefix('[')?.strip_suffix(']')?.split(',');
                let hashes = hashes.map(|hash| bytes(hash.strip_prefix(' ').unwrap_or(hash))).collect();
                put(&mut self.hashes, hashes)
            }
            _ => None,
        }
    }
}

impl DeviceTable {
    fn value(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "name" => put(&mut self.name, quoted(value).map(str::to_owned)),
            "kind" => put(&mut self.kind, quoted(value).and_then(kind_name)),
            "secret" => put(&mut self.secret, base32::decode(quoted(value)?.as_bytes()).map(Arc::new)),
            "algorithm" => put(&mut self.algorithm, quoted(value).and_then(algorithm)),
            "digits" => put(&mut self.digits, value.parse().ok()),
            "skew" => put(&mut self.skew, value.parse().ok()),
            _ => put(self.number(key)?, value.parse().ok()),
        }
    }

    fn number(&mut self, key: &str) -> Option<&mut Option<u64>> {
        Some(match key {
            "period" => &mut self.period,
            "behind" => &mut self.behind,
            "ahead" => &mut self.ahead,
            "mark" => &mut self.mark,
            "counter" => &mut self.counter,
            "look_ahead" => &mut self.look_ahead,
            "added" => &mut self.added,
            "last_used" => &mut self.last_used,
            _ => return None,
        })
    }
}

/// Puts a value in its place. `None`: there is no value, or there was one already.
fn put<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    let value = value.filter(|_| place.is_none())?;
    *place = Some(value);
    Some(())
}

/// A text between quotes. There is nothing in it that would have to be escaped.
fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"').filter(|text| !text.bytes().any(|byte| matches!(byte, b'"' | b'\\')))
}

/// Hexadecimal.
fn bytes<const N: usize>(value: &str) -> Option<[u8; N]> {
    let half = |digit: u8| char::from(digit).to_digit(16).and_then(|half| u8::try_from(half).ok());
    let (pairs, rest) = quoted(value)?.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = half(*high)? << 4 | half(*low)?;
    }
    Some(bytes)
}

fn kind_name(name: &str) -> Option<KindName> {
    match name {
        "totp" => Some(KindName::Totp),
        "hotp" => Some(KindName::Hotp),
        _ => None,
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
}

impl Document {
    /// Reads a record.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub fn parse(text: &[u8]) -> Result<Self, BadRecord> {
        if text.len() != SIZE {
            return Err(BadRecord::Size(text.len() as u64));
        }
        if let Some(key) = sealed_with(text) {
            return Err(BadRecord::Sealed(key.to_owned()));
        }
        let header = format!("{HEADER}{}\n", hexadecimal(&checksum(text)));
        if !text.starts_with(header.as_bytes()) {
            return Err(BadRecord::Checksum);
        }
        // What fills it up is nothing else, and its last byte one of two.
        let Some((&(PADDING | SETTLED), text)) = text.split_last() else { return Err(BadRecord::Checksum) };
        let text = std::str::from_utf8(unfilled(text)).map_err(|_| BadRecord::Checksum)?;
        let mut file = File::default();
        for (number, line) in (1..).zip(text.lines()).skip(1) {
            file.line(line).ok_or(BadRecord::Line(number))?;
            // It comes first, as what follows is another version's.
            if let Some(version) = file.version.filter(|&version| version != VERSION) {
                return Err(BadRecord::Version(version));
            }
        }
        let document = Self::from_file(file).ok_or_else(|| BadRecord::Line(text.lines().count()))??;
        document.first_other_line(text).map_or(Ok(document), |line| Err(BadRecord::Line(line)))
    }

    /// The first line that would be written otherwise: what is read has one form. A number with a sign is another, say, or lines
    /// in another order.
    fn first_other_line(&self, text: &str) -> Option<usize> {
        // The first line is the checksum's.
        let mut compared = Compared { text, at: HEADER_LINE };
        let is_other = self.write(&mut compared).is_err() || compared.at < text.len();
        is_other.then(|| compared.line())
    }

    /// `None`: something is missing.
    fn from_file(file: File) -> Option<Result<Self, BadRecord>> {
        file.version?;
        let recovery = match file.recovery {
            Some(table) => RecoveryCodes::from_parts(table.salt?, table.hashes?),
            None => RecoveryCodes::default(),
        };
        let devices: Result<Vec<_>, _> = file.device.into_iter().map(device).collect::<Option<_>>()?;
        let (user, uid, generation) = (file.user?, file.uid?, file.generation?);
        Some(devices.and_then(distinct).map(|devices| {
            let record = Record { recovery, ..Record::of(devices) };
            Self { user, uid, generation, record }
        }))
    }
}

fn distinct(devices: Vec<Device>) -> Result<Vec<Device>, BadRecord> {
    for (place, device) in devices.iter().enumerate() {
        let before = devices.get(..place).unwrap_or_default();
        let has_same_secret = |other: &Device| device.secret.as_ref().is_ok_and(|secret| other.has_secret(secret));
        let is_same = |other: &Device| other.name == device.name || has_same_secret(other);
        if before.iter().any(is_same) {
            return Err(BadRecord::Twice(device.name.clone()));
        }
    }
    Ok(devices)
}

/// `None`: something is missing that every device has.
fn device(table: DeviceTable) -> Option<Result<Device, BadRecord>> {
    let (name, secret, algorithm, digits) = (table.name?, table.secret?, table.algorithm?, Digits::new(table.digits?));
    let window = table.behind.zip(table.ahead).map(|(behind, ahead)| Window { behind, ahead });
    let totp = |digits| {
        Some(Kind::Totp(Totp {
            algorithm,
            digits,
            period: table.period.filter(|period| STEP_SIZES.contains(period))?,
            window,
            skew: table.skew.unwrap_or(0),
            drift: Vec::new(),
            used: Ok(table.mark.map(|mark| vec![mark])),
        }))
    };
    let hotp = |digits| {
        Some(Kind::Hotp(Hotp {
            algorithm,
            digits,
            look_ahead: table.look_ahead.filter(|counters| LOOK_AHEAD.contains(counters))?,
            counter: table.counter.filter(|&counter| i64::try_from(counter).is_ok())?,
        }))
    };
    let kind = match table.kind? {
        KindName::Totp => digits.and_then(totp),
        KindName::Hotp => digits.and_then(hotp),
    };
    Some(match kind.filter(|_| is_device_name(&name)) {
        Some(kind) => {
            Ok(Device { name, secret: Ok(secret), kind: Ok(kind), added: table.added, last_used: table.last_used })
        }
        None => Err(BadRecord::Device(name)),
    })
}

#[cfg(test)]
mod tests;
