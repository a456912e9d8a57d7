//! What holds for everything that is read from outside, whatever its bytes are: the tests below try it on what is kept in
//! fuzz/corpus and on what comes of that by changes, `make fuzz` on what the fuzzer finds.
//!
//! Nothing panics, what is wrong is said in one line, and what is read is written as it was where there is something that
//! writes it.

#![allow(
    clippy::missing_panics_doc,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "to panic is what they are for"
)]

use crate::agent::wire::{Reply, Request};
use crate::identity::login_key;
use crate::options::Options;
use crate::otp::{Answer, Code, Form};
use crate::policy::throttle::{MAX_FAILURES, MAX_PERIOD, Rule, WhoAt};
use crate::policy::{CertIdentity, CertName, Document, Fingerprint, Policy, explain, odds};
use crate::record::{Drift, Kind, Record, Slot, google, native};
use crate::secret::Secret;
use std::fmt::Display;
use std::sync::Arc;

/// `~/.google_authenticator`: a login that changes nothing changes no byte, what it changes is read again, and nothing else has
/// changed.
pub fn home_file(text: &[u8]) {
    let Ok(document) = home(text) else {
        assert!(text.contains(&0));
        return;
    };
    let record = document.record();
    assert!(document.with(record).expose() == text, "every byte stays");
    // As with the C module this counts behind another option too, and goes when that is written anew.
    let is_behind = |line: &[u8]| line.windows(11).skip(1).any(|window| window == b"\" TOTP_AUTH");
    if text.split(|&byte| byte == b'\n').any(is_behind) {
        return;
    }
    let next = one_login_later(record);
    let Ok(again) = home(document.with(&next).expose()) else { panic!("what is written is text") };
    same_home(&next, again.record());
    let Some(made_from) = as_enrolled(record) else { return };
    let Ok(new) = home(google::new_text(&made_from).expose()) else { panic!("a new file is text") };
    same_home(&made_from, new.record());
}

/// The record without what logins leave in it. `None`: a part of it cannot be read.
fn as_enrolled(record: &Record) -> Option<Record> {
    let mut record = record.clone();
    for device in &mut record.devices {
        device.secret.as_ref().ok()?;
        if let Kind::Totp(totp) = device.kind.as_mut().ok()? {
            totp.used.as_ref().ok()?;
            (totp.skew, totp.drift) = (0, Vec::new());
        }
    }
    record.rate_limit.as_ref().ok()?;
    record.logins = std::array::from_fn(|_| Slot::Empty);
    Some(record)
}

fn home(text: &[u8]) -> Result<google::Document, google::Binary> {
    google::Document::parse(Secret::new(text.to_vec()))
}

/// Everything that a login can change, changed.
fn one_login_later(record: &Record) -> Record {
    let mut next = record.clone();
    for kind in next.devices.iter_mut().filter_map(|device| device.kind.as_mut().ok()) {
        match kind {
            Kind::Totp(totp) => {
                if totp.used.is_ok() {
                    totp.used = Ok(Some(vec![totp.mark().map_or(1, |mark| mark.saturating_add(1))]));
                }
                totp.skew = totp.skew.wrapping_add(1);
                totp.drift = vec![Drift { step: 1, skew: -2 }, Drift { step: 2, skew: 3 }];
            }
            Kind::Hotp(hotp) => hotp.counter = hotp.counter.saturating_add(1).min(i64::MAX.unsigned_abs()),
            Kind::None => {}
        }
    }
    if let Ok(Some(limit)) = &mut next.rate_limit {
        limit.charged = vec![1, 2];
    }
    for slot in next.logins.iter_mut().filter(|slot| **slot != Slot::Unreadable) {
        *slot = Slot::Login { host: "192.0.2.1".to_owned(), time: 1 };
    }
    let codes = record.scratch.expose();
    let left = codes.iter().copied().filter(|code| Some(code) != codes.first()).collect();
    next.scratch = Arc::new(Secret::new(left));
    next
}

/// What is wrong in both may be said of other lines.
fn same_home(expected: &Record, read: &Record) {
    for (expected, read) in expected.devices.iter().zip(&read.devices) {
        match (&expected.secret, &read.secret) {
            (Ok(expected), Ok(read)) => assert!(expected.expose() == read.expose(), "the secret stays"),
            (expected, read) => assert!(expected.is_err() && read.is_err(), "a secret comes from nowhere"),
        }
        match (&expected.kind, &read.kind) {
            (Ok(Kind::Totp(expected)), Ok(Kind::Totp(read))) if expected.used.is_err() => assert!(read.used.is_err()),
            (Ok(expected), Ok(read)) => assert_eq!(expected, read),
            (expected, read) => assert!(expected.is_err() && read.is_err(), "{expected:?} {read:?}"),
        }
    }
    match (&expected.rate_limit, &read.rate_limit) {
        (Ok(expected), Ok(read)) => assert_eq!(expected, read),
        (expected, read) => assert!(expected.is_err() && read.is_err(), "{expected:?} {read:?}"),
    }
    assert!(expected.scratch.expose() == read.scratch.expose(), "spent codes go, the others stay");
    assert_eq!(expected.logins, read.logins);
}

/// A root-only record, and what is in one behind its checksum: what is read is written as it was, to the byte.
pub fn native_record(text: &[u8]) {
    native_record_as_it_is(text);
    let behind = text.get(..text.len().min(native::SIZE - native::HEADER_LINE - 1)).unwrap_or_default();
    native_record_as_it_is(&native::whole([&[b'\n'; native::HEADER_LINE], behind].concat()));
}

fn native_record_as_it_is(text: &[u8]) {
    match native::Document::parse(text) {
        Ok(document) => {
            let Ok(again) = document.text() else { panic!("what has been read has room") };
            let body = native::SIZE - 1;
            assert!(again.expose().get(..body) == text.get(..body), "every byte stays but the last");
        }
        Err(bad) => one_line(&bad.fact()),
    }
}

/// The policy file: what is wrong is told with its place; a comment changes nothing, and no table is passed over.
pub fn policy(text: &[u8]) {
    let document = match Document::parse(text.to_vec()) {
        Ok(document) => document,
        Err(bad) => {
            let lines = text.split(|&byte| byte == b'\n').count();
            assert!((1..=lines).contains(&bad.at.0) && bad.at.1 >= 1, "{:?}", bad.at);
            one_line(&bad.fact(b"/p.toml"));
            no_controls(&bad);
            return;
        }
    };
    for service in ["sshd", "su-l", "other"].into_iter().chain(document.services()) {
        let policy = Policy::new(service, &Options::default(), &document);
        explain(&policy);
        odds::odds(&policy);
    }
    let with = |more: &[u8]| Document::parse([text, more].concat()).map(|document| document.file);
    assert_eq!(with(b"\n# the end\n").as_ref(), Ok(&document.file));
    assert!(with(b"\n[no-such-table]\n").is_err());
}

/// The module's arguments, one a line: each is right or wrong by itself, and the first wrong one is told.
pub fn arguments(text: &[u8]) {
    let parse = |arguments: &[&[u8]]| Options::parse(arguments.iter().copied());
    let arguments: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let first_wrong = arguments.iter().find_map(|argument| parse(&[argument]).err());
    match parse(&arguments) {
        Ok(options) => {
            assert_eq!(first_wrong, None);
            assert_eq!(
                parse(&[arguments.as_slice(), &arguments].concat()),
                Ok(options),
                "the last one of its kind counts"
            );
        }
        Err(bad) => {
            one_line(&bad.fact());
            assert_eq!(first_wrong, Some(bad));
        }
    }
}

/// A rule of pam_abl's: what it means for somebody, written as a rule, means the same.
pub fn rules(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(who) = WhoAt::try_from(text.to_owned()) {
        assert_eq!(WhoAt::try_from(who.to_string()), Ok(who));
    }
    let Ok(rule) = Rule::try_from(text.to_owned()) else { return };
    let written = rule.to_string();
    let written = written.strip_prefix('"').and_then(|written| written.strip_suffix('"')).unwrap_or_default();
    assert_eq!(Rule::try_from(written.to_owned()).as_ref(), Ok(&rule));
    let is_letter = |c: char| !c.is_whitespace() && !"|/!:,*".contains(c);
    let mut names: Vec<&str> = text.split(|c| !is_letter(c)).filter(|word| !word.is_empty()).take(8).collect();
    names.push("nobody");
    for (user, service) in names.iter().flat_map(|user| names.iter().map(move |service| (user, service))) {
        let triggers = rule.triggers(user.as_bytes(), service.as_bytes());
        for trigger in &triggers {
            assert!((1..=MAX_FAILURES).contains(&trigger.failures) && (1..=MAX_PERIOD).contains(&trigger.period));
            assert!(trigger.period <= rule.longest_period());
        }
        let written: Vec<String> = triggers.iter().map(ToString::to_string).collect();
        let again = if written.is_empty() { String::new() } else { format!("{user}/{service}:{}", written.join(",")) };
        let again = Rule::try_from(again).map(|rule| rule.triggers(user.as_bytes(), service.as_bytes()));
        assert_eq!(again, Ok(triggers), "{user}/{service}");
    }
}

/// A key that nobody has.
const ANOTHER: &[u8] =
    b"\npublickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n";
/// Who signs the certificates in the corpus.
const AUTHORITY: &str = "SHA256:xcTb/ZL8NmQsvo9k2j/c7dIyp7nvDnswfPZHlzcZwz0";

/// SSH_AUTH_INFO_0: whoever is named is named by one key, said however often, and a second one names nobody.
pub fn login_key(info: &[u8]) {
    let Ok(authority) = Fingerprint::try_from(AUTHORITY.to_owned()) else { panic!("{AUTHORITY}") };
    let certificates = CertIdentity { by: CertName::KeyId, ca: vec![authority] };
    for certificates in [None, Some(&certificates)] {
        match login_key::holder(info, certificates) {
            Ok(name) => {
                assert!(login_key::is_holder(&name), "{name}");
                assert!(login_key::is_accepted(info));
                let holder = |parts: &[&[u8]]| login_key::holder(&parts.concat(), certificates);
                assert_eq!(holder(&[b"password\n", info, b"\n", info]).as_ref(), Ok(&name), "said twice");
                let other = login_key::holder(ANOTHER, None);
                assert!(other.is_ok() && (holder(&[info, ANOTHER]).is_err() || other == Ok(name)), "a second key");
            }
            Err(bad) => one_line(&bad.fact()),
        }
    }
}

/// A message between module and agent, either way: what is read writes the same bytes again, and neither half of it nor more
/// means anything.
pub fn frames(message: &[u8]) {
    let read = |message: &[u8]| [Request::parse(message).is_ok(), Reply::parse(message).is_ok()];
    let again = [
        Request::parse(message).map(|request| request.message()).ok(),
        Reply::parse(message).map(|reply| reply.message()).ok(),
    ];
    for again in again.into_iter().flatten() {
        assert!(again.is_ok_and(|again| again.expose() == message), "the same bytes");
        assert_eq!(read(&[message, b"x"].concat()), [false; 2], "more");
        for end in (0..message.len()).take(256) {
            assert_eq!(read(message.get(..end).unwrap_or_default()), [false; 2], "half of it");
        }
    }
}

/// What somebody typed: a code is its digits and nothing else, blanks around it change nothing, and no byte of a password gets
/// lost before it.
pub fn answer(text: &[u8]) {
    let digits = |text: &[u8]| Code::parse(text).map(|code| code.expose().to_owned());
    if let Ok(code) = digits(text) {
        assert!((6..=8).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(digits(code.as_bytes()), Ok(code));
    }
    assert_eq!(digits(&[b" ", text, b"  "].concat()), digits(text), "blanks");
    for (form, blanks_count) in [Form::Code, Form::Combined].into_iter().flat_map(|form| [(form, false), (form, true)])
    {
        let answer = Answer::new(Secret::new(text.to_vec()), form, blanks_count);
        let whole = answer.whole().expose();
        let mut is_any = false;
        for length in 5..=9 {
            let Some(code) = answer.code(length) else { continue };
            is_any = true;
            assert!(code.len() == length && digits(code.expose().as_bytes()).as_deref() == Ok(code.expose()));
            let before = answer.before(length);
            assert_eq!(&[before.expose(), code.expose().as_bytes()].concat(), whole);
            assert!(form == Form::Combined || before.expose().is_empty());
        }
        if let Some((code, length)) = answer.recovery_code() {
            is_any = true;
            let again = crate::otp::RecoveryCode::parse(code.text().expose().as_bytes());
            assert!(again.is_some_and(|again| again.expose() == code.expose()), "as it is shown");
            assert!(whole.starts_with(answer.before(length).expose()));
        }
        assert_eq!(answer.check().is_ok(), is_any);
    }
}

/// What is for the log is one line of printable ASCII, in which nothing can be forged.
fn one_line(fact: &impl Display) {
    let text = fact.to_string();
    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
}

/// What is for a terminal does nothing there.
fn no_controls(text: &impl Display) {
    let text = text.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[cfg(test)]
#[path = "../tests/support/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use super::inputs::try_on;

    #[test]
    fn home_file() {
        try_on("home_file", 2_000, super::home_file);
    }

    #[test]
    fn native_record() {
        try_on("native_record", 2_000, super::native_record);
    }

    #[test]
    fn policy() {
        try_on("policy", 1_000, super::policy);
    }

    #[test]
    fn arguments() {
        try_on("arguments", 5_000, super::arguments);
    }

    #[test]
    fn rules() {
        try_on("rules", 2_000, super::rules);
    }

    #[test]
    fn login_key() {
        try_on("login_key", 3_000, super::login_key);
    }

    #[test]
    fn frames() {
        try_on("frames", 5_000, super::frames);
    }

    #[test]
    fn answer() {
        try_on("answer", 5_000, super::answer);
    }
}
