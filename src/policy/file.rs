//! The policy file, as it is written: `/etc/security/pam_totp.toml`.

use super::callers::TrustedCaller;
use super::exempt::{Exemption, Require};
use super::throttle::Throttle;
use super::values::{DAY, End, Network, Span, WindowTable};
use crate::fact::Fact;
use base64ct::{Base64Unpadded, Encoding};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use toml::Spanned;

/// The only version of the file's language so far.
const VERSION: i64 = 1;
/// How many letters an unknown key may differ from a known one to be taken for it.
const MISSPELLED: usize = 3;
/// Longest delay after a denial: sshd's LoginGraceTime is two minutes, and each of six tries waits.
const MAX_FAIL_DELAY: u64 = 15;
/// Longest time that somebody may not be asked again: what makes a source a known one.
const MAX_GRACE: u64 = 30 * DAY;
/// Most bits that can be asked for: the block of SHA-512's HMAC. Longer secrets are hashed first.
const MAX_SECRET_BITS: u64 = 1024;
/// Longest prompt: what PAM_MAX_MSG_SIZE leaves to applications that care.
const MAX_PROMPT: usize = 255;

/// The services that somebody calls to become somebody else.
const CALLED: [&str; 4] = ["sudo", "sudo-i", "su", "su-l"];

/// What the file says. What it does not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The first key, and always there: a file that was cut short at its beginning is no policy.
    #[serde(rename = "version")]
    _version: i64,
    /// For all services.
    #[serde(default)]
    pub(super) defaults: Table,
    /// For one service.
    #[serde(default)]
    pub(super) service: BTreeMap<String, Table>,
    /// For all services.
    #[serde(default)]
    pub(super) compat: Compat,
    pub(super) throttle: Option<Spanned<Throttle>>,
    #[serde(default)]
    pub(super) exempt: Vec<Spanned<Exemption>>,
    pub(super) require: Option<Spanned<Require>>,
    #[serde(default)]
    pub(super) trusted_caller: Vec<TrustedCaller>,
}

/// `[defaults]`, `[service.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Table {
    pub(super) store: Option<Spanned<StoreKind>>,
    pub(super) secret: Option<Spanned<Text>>,
    pub(super) state_dir: Option<Spanned<AbsolutePath>>,
    pub(super) via: Option<Spanned<Via>>,
    pub(super) agent_socket: Option<Spanned<AbsolutePath>>,
    pub(super) window: Option<Spanned<WindowTable>>,
    pub(super) max_window: Option<Spanned<Bounded<1, 100>>>,
    pub(super) prompt: Option<Spanned<Text>>,
    pub(super) echo: Option<Spanned<bool>>,
    pub(super) identity: Option<Spanned<Identity>>,
    pub(super) cert_identity: Option<Spanned<CertIdentity>>,
    pub(super) enrolment: Option<Spanned<EnrolmentKind>>,
    pub(super) enrol_by: Option<Spanned<End>>,
    pub(super) qr: Option<Spanned<Qr>>,
    pub(super) grace: Option<Spanned<AtMost<MAX_GRACE>>>,
    pub(super) fail_delay: Option<Spanned<AtMost<MAX_FAIL_DELAY>>>,
    pub(super) min_secret_bits: Option<Spanned<Bounded<0, MAX_SECRET_BITS>>>,
    pub(super) allow_scratch_codes: Option<Spanned<bool>>,
    pub(super) shared_sources: Option<Spanned<Vec<Network>>>,
    pub(super) grace_behind: Option<Spanned<Vec<Network>>>,
    pub(super) compat: Compat,
}

/// `[compat]`, `[service.NAME.compat]`: where we behave like google-authenticator-libpam in spite of knowing better.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Compat {
    /// In everything that is not a hole; the manual has the list.
    pub(super) google: Option<Spanned<bool>>,
    /// Three right codes of a wrong time set the clock difference of a record.
    pub(super) skew_adjustment: Option<Spanned<bool>>,
}

/// Where records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// In a file of the person's.
    Home,
    /// In `state_dir`, root's alone.
    System,
    /// In a cluster of several hosts, by way of the agent.
    Fleet,
}

impl StoreKind {
    /// Whether nobody but root gets at the records.
    pub const fn is_roots(self) -> bool {
        matches!(self, Self::System | Self::Fleet)
    }
}

/// Who judges a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// The module, in the process that somebody logs in to.
    Process,
    /// pam-totp-agent, which alone reads the records.
    Agent,
}

/// Whose code is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// That of PAM_USER.
    PamUser,
    /// That of whoever runs sudo or su.
    Caller,
    /// That of whoever holds the key that sshd has accepted: one account, a device for each of its people.
    LoginKey,
}

/// Which certificates (PROTOCOL.certkeys of OpenSSH) say who somebody is, for [`Identity::LoginKey`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertIdentity {
    /// What in them does.
    pub by: CertName,
    /// Whose word counts: the fingerprints of the keys that sign them.
    pub ca: Vec<Fingerprint>,
}

/// What in a certificate says who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertName {
    /// The key id (`ssh-keygen -I`): the same in the next certificate of the same person.
    KeyId,
}

/// Bytes of a SHA-256.
const SHA256: usize = 32;

/// `SHA256:` and 43 letters of base64, as `ssh-keygen -l` shows a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint(String);

impl Fingerprint {
    /// As it is shown.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_one = |hash: &str| Base64Unpadded::decode_vec(hash).is_ok_and(|bytes| bytes.len() == SHA256);
        if text.strip_prefix("SHA256:").is_some_and(is_one) {
            return Ok(Self(text));
        }
        Err(format!("`{text}` is no fingerprint of a key: SHA256: and 43 letters, as `ssh-keygen -l -f FILE` shows it"))
    }
}

/// How somebody without a device gets in, or gets one; the stricter, the less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrolmentKind {
    /// Not at all.
    Required,
    /// They get one inside the login, with a ticket.
    Ticket,
    /// The same; over ssh with a key they need no ticket.
    Inline,
    /// In without one (`nullok`).
    Optional,
}

/// How the QR code of an enrolment inside a login is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Qr {
    /// With half blocks.
    Utf8,
    /// With two letters a module, where it fits into 80 columns.
    Ascii,
    /// Not at all: the secret is typed.
    Off,
}

/// A number from LOWEST to HIGHEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct Bounded<const LOWEST: u64, const HIGHEST: u64>(pub(super) u64);

impl<const LOWEST: u64, const HIGHEST: u64> TryFrom<u64> for Bounded<LOWEST, HIGHEST> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        let is_inside = (LOWEST..=HIGHEST).contains(&number);
        if is_inside { Ok(Self(number)) } else { Err(format!("must be a number from {LOWEST} to {HIGHEST}")) }
    }
}

/// A time of at most so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Span")]
pub(super) struct AtMost<const SECONDS: u64>(pub(super) Span);

impl<const SECONDS: u64> TryFrom<Span> for AtMost<SECONDS> {
    type Error = String;

    fn try_from(span: Span) -> Result<Self, String> {
        if span.0 <= SECONDS { Ok(Self(span)) } else { Err(format!("must be at most {}", Span(SECONDS))) }
    }
}

/// A line of text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text(pub(super) String);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PROMPT || text.contains(char::is_control) {
            return Err(format!("must be 1 to {MAX_PROMPT} bytes without control characters"));
        }
        Ok(Self(text))
    }
}

/// An absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub(crate) struct AbsolutePath(pub(crate) PathBuf);

impl TryFrom<PathBuf> for AbsolutePath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() { Ok(Self(path)) } else { Err("must be an absolute path".to_owned()) }
    }
}

/// What is wrong with a policy file. Nobody gets in until it is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPolicy {
    /// Line and column, counted from 1.
    pub at: (usize, usize),
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It does not begin with `version = 1`.
    Version,
    /// It is not UTF-8.
    Encoding,
    /// A key that means nothing here, and one that was perhaps meant.
    UnknownKey(String, Option<String>),
    /// Anything else, in words.
    Other(String),
}

impl PolicyFile {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`BadPolicy`], for the first thing that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, BadPolicy> {
        let policy: Self = read_toml(text, |policy: &Self| policy._version)?;
        match policy.contradiction() {
            Some((offset, words)) => Err(bad(text, offset, Problem::Other(words.to_owned()))),
            None => Ok(policy),
        }
    }

    /// What no key can be blamed for alone: where, and in words.
    fn contradiction(&self) -> Option<(usize, &'static str)> {
        let services = || self.service.iter().map(|(name, table)| (name.as_str(), table));
        let store = self.defaults.store.as_ref().map_or(StoreKind::Home, |store| *store.get_ref());
        services()
            .find_map(|(_, table)| {
                let state_dir = table.state_dir.as_ref().map(|value| value.span());
                // A code that two stores know works twice.
                let store = table.store.as_ref().map(|value| value.span());
                state_dir
                    .map(|span| (span.start, "`state_dir` is one for all services: [defaults]"))
                    .or(store.map(|span| (span.start, "`store` is one for all services: [defaults]")))
            })
            .or_else(|| {
                std::iter::once(("", &self.defaults))
                    .chain(services())
                    .find_map(|(service, table)| table.contradiction(service, store))
            })
    }
}

impl Table {
    /// The same in one table; `service` is empty for `[defaults]`.
    fn contradiction(&self, service: &str, store: StoreKind) -> Option<(usize, &'static str)> {
        let is_system = store.is_roots();
        let via = |via: Via| self.via.as_ref().filter(|value| *value.get_ref() == via).map(|value| value.span().start);
        let enrolment = |kinds: &[EnrolmentKind]| {
            self.enrolment.as_ref().filter(|kind| kinds.contains(kind.get_ref())).map(|kind| kind.span().start)
        };
        let identity = |identity: Identity| {
            self.identity.as_ref().filter(|value| *value.get_ref() == identity).map(|value| value.span().start)
        };
        let grace_behind = self.grace_behind.as_ref().map(|networks| networks.span().start);
        let contradictions = [
            (
                via(Via::Agent).filter(|_| !is_system),
                "`via = \"agent\"` needs `store = \"system\"` or `\"fleet\"` in [defaults]: the agent reads nobody's home",
            ),
            (
                via(Via::Process).filter(|_| store == StoreKind::Fleet),
                "`store = \"fleet\"` goes without `via`: the agent alone gets to the fleet",
            ),
            (
                enrolment(&[EnrolmentKind::Required]).filter(|_| self.enrol_by.is_some()),
                "`enrol_by` makes enrolment optional until then: not `required` too",
            ),
            // Whoever deletes the file would be enrolled again.
            (
                enrolment(&[EnrolmentKind::Inline, EnrolmentKind::Ticket]).filter(|_| !is_system),
                "enrolment inside a login needs `store = \"system\"` or `\"fleet\"` in [defaults]",
            ),
            (
                identity(Identity::Caller).filter(|_| !CALLED.contains(&service)),
                "`identity = \"caller\"` is for [service.sudo], [service.su], sudo-i and su-l",
            ),
            (
                identity(Identity::LoginKey).filter(|_| service != "sshd"),
                "`identity = \"login-key\"` is for [service.sshd]: nobody else knows of a key",
            ),
            (
                identity(Identity::LoginKey).filter(|_| !is_system),
                "`identity = \"login-key\"` needs `store = \"system\"` or `\"fleet\"` in [defaults]",
            ),
            (
                grace_behind.filter(|_| store != StoreKind::Fleet || service != "sshd"),
                "`grace_behind` is for [service.sshd] of a host with `store = \"fleet\"`: by which key somebody came to another host",
            ),
            (
                self.cert_identity
                    .as_ref()
                    .map(|value| value.span().start)
                    .filter(|_| identity(Identity::LoginKey).is_none()),
                "`cert_identity` is for a table with `identity = \"login-key\"`",
            ),
        ];
        contradictions.into_iter().find_map(|(at, words)| Some((at?, words)))
    }
}

/// Reads a file of this language, which begins with `version = 1`. `version` says what was read there.
///
/// # Errors
/// [`BadPolicy`], for the first thing that is wrong.
pub(crate) fn read_toml<T: DeserializeOwned>(text: &[u8], version: impl FnOnce(&T) -> i64) -> Result<T, BadPolicy> {
    let text = std::str::from_utf8(text).map_err(|error| bad(text, error.valid_up_to(), Problem::Encoding))?;
    let starts_with_version = first_key(text).is_some_and(|line| line.trim_start().starts_with("version"));
    if !starts_with_version {
        return Err(bad(text.as_bytes(), 0, Problem::Version));
    }
    let read: T = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        bad(text.as_bytes(), offset, problem(error.message()))
    })?;
    if version(&read) == VERSION { Ok(read) } else { Err(bad(text.as_bytes(), 0, Problem::Version)) }
}

/// The first line that is neither blank nor a comment.
fn first_key(text: &str) -> Option<&str> {
    text.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

/// This is wrong, at this byte.
pub(crate) fn bad(text: &[u8], offset: usize, problem: Problem) -> BadPolicy {
    BadPolicy { at: line_and_column(text, offset), problem }
}

/// The reader says: unknown field `widow`, expected one of `window`, `prompt`.
fn problem(message: &str) -> Problem {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(unknown) if message.starts_with("unknown field") => {
            let distances = quoted.map(|known| (distance(unknown, known), known));
            let nearest =
                distances.min().filter(|(distance, _)| *distance <= MISSPELLED).map(|(_, known)| known.to_owned());
            Problem::UnknownKey(unknown.to_owned(), nearest)
        }
        _ => Problem::Other(message.to_owned()),
    }
}

/// How many letters have to be put in, taken out or changed to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, letter) in (1..).zip(one.chars()) {
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), line);
        let mut left = line;
        for (cell, opposite) in row.iter_mut().skip(1).zip(other.chars()) {
            let change = diagonal.saturating_add(usize::from(letter != opposite));
            diagonal = *cell;
            *cell = change.min(left.saturating_add(1)).min(cell.saturating_add(1));
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Line and column of a place in a text, counted from 1.
pub(super) fn line_and_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.iter().filter(|&&byte| byte == b'\n').count().saturating_add(1);
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count().saturating_add(1);
    (line, column)
}

impl BadPolicy {
    /// For the log. `path` is the file's.
    pub fn fact(&self, path: &[u8]) -> Fact {
        self.fact_of("bad-policy", path)
    }

    /// The same of another file in this language, by this word.
    pub fn fact_of(&self, word: &'static str, path: &[u8]) -> Fact {
        let (line, column) = self.at;
        let mut at = path.to_vec();
        at.extend_from_slice(format!(":{line}:{column}").as_bytes());
        let fact = Fact::new(word).with("at", at);
        match &self.problem {
            Problem::Version => fact.or("the file must begin with: version = 1"),
            Problem::Encoding => fact.or("the file is not UTF-8 text"),
            Problem::UnknownKey(key, None) => fact.with("unknown-key", key),
            Problem::UnknownKey(key, Some(meant)) => fact.with("unknown-key", key).with("did-you-mean", meant),
            Problem::Other(message) => fact.with("error", message.replace([' ', '\n'], "-")),
        }
    }
}

/// `12:5: unknown key `widow`; did you mean `window`?`
impl fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.at;
        write!(f, "{line}:{column}: ")?;
        match &self.problem {
            Problem::Version => f.write_str("the file must begin with: version = 1"),
            Problem::Encoding => f.write_str("the file is not UTF-8 text"),
            Problem::UnknownKey(key, None) => write!(f, "unknown key `{}`", key.escape_debug()),
            Problem::UnknownKey(key, Some(meant)) => {
                write!(f, "unknown key `{}`; did you mean `{meant}`?", key.escape_debug())
            }
            // What is quoted in it may be anything.
            Problem::Other(message) => message.replace('\n', " ").chars().try_for_each(|letter| match letter {
                letter if letter.is_control() => write!(f, "{}", letter.escape_debug()),
                letter => write!(f, "{letter}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(
            [distance("widow", "window"), distance("", "abc"), distance("abc", "abc"), distance("a", "b")],
            [1, 3, 0, 1]
        );
    }
}
