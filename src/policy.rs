//! What root decides for all logins: `/etc/security/pam_totp.toml`.

use crate::fact::Fact;
use crate::system::files::read_trusted;
use serde::Deserialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The policy file, unless `conf=` names another.
pub const PATH: &str = "/etc/security/pam_totp.toml";

/// The only version of the file's language so far.
const VERSION: i64 = 1;
/// How many letters an unknown key may differ from a known one to be taken for it.
const MISSPELLED: usize = 3;

/// What the file says. Without a file everything has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The first key, and always there: a file that was cut short at its beginning is no policy.
    #[serde(rename = "version")]
    _version: i64,
    /// The table `[compat]`.
    #[serde(default)]
    pub compat: Compat,
}

/// Where we behave like google-authenticator-libpam in spite of knowing better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compat {
    /// In everything that is not a hole; the manual has the list.
    pub google: bool,
    /// Three right codes of a wrong time set the clock difference of a record.
    pub skew_adjustment: bool,
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
    /// Anything else, in the words of the TOML reader.
    Toml(String),
}

impl Policy {
    /// The policy of this host, or with `conf` of that file, which has to be there then.
    ///
    /// # Errors
    /// What is wrong with the file, its owner, its mode, or a directory above it.
    pub fn load(conf: Option<&[u8]>) -> Result<Self, Fact> {
        let path = conf.unwrap_or(PATH.as_bytes());
        match read_trusted(Path::new(OsStr::from_bytes(path))) {
            Ok(Some(text)) => Self::parse(&text).map_err(|bad| bad.fact(path)),
            Ok(None) if conf.is_none() => Ok(Self::default()),
            Ok(None) => Err(Fact::new("no-policy").with("path", path).or("conf= names a file that is not there")),
            Err(error) => Err(error.fact()),
        }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// [`BadPolicy`], for the first thing that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, BadPolicy> {
        let text = std::str::from_utf8(text).map_err(|error| bad(text, error.valid_up_to(), Problem::Encoding))?;
        let starts_with_version = first_key(text).is_some_and(|line| line.trim_start().starts_with("version"));
        if !starts_with_version {
            return Err(bad(text.as_bytes(), 0, Problem::Version));
        }
        let policy: Self = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            bad(text.as_bytes(), offset, problem(error.message()))
        })?;
        if policy._version == VERSION { Ok(policy) } else { Err(bad(text.as_bytes(), 0, Problem::Version)) }
    }
}

/// The first line that is neither blank nor a comment.
fn first_key(text: &str) -> Option<&str> {
    text.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

fn bad(text: &[u8], offset: usize, problem: Problem) -> BadPolicy {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.iter().filter(|&&byte| byte == b'\n').count().saturating_add(1);
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count().saturating_add(1);
    BadPolicy { at: (line, column), problem }
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
        _ => Problem::Toml(message.to_owned()),
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

impl BadPolicy {
    /// For the log. `path` is the file's.
    pub fn fact(&self, path: &[u8]) -> Fact {
        let (line, column) = self.at;
        let mut at = path.to_vec();
        at.extend_from_slice(format!(":{line}:{column}").as_bytes());
        let fact = Fact::new("bad-policy").with("at", at);
        match &self.problem {
            Problem::Version => fact.or("the file must begin with: version = 1"),
            Problem::Encoding => fact.or("the file is not UTF-8 text"),
            Problem::UnknownKey(key, None) => fact.with("unknown-key", key),
            Problem::UnknownKey(key, Some(meant)) => fact.with("unknown-key", key).with("did-you-mean", meant),
            Problem::Toml(message) => fact.with("error", message.replace([' ', '\n'], "-")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> String {
        Policy::parse(text.as_bytes()).unwrap_err().fact(b"/p.toml").to_string()
    }

    #[test]
    fn keys_are_read_and_have_defaults() {
        assert_eq!(Policy::parse(b"version = 1\n").unwrap().compat, Compat::default());
        let policy = Policy::parse(b"# ours\n\nversion = 1\n[compat]\ngoogle = true\n").unwrap();
        assert_eq!(policy.compat, Compat { google: true, skew_adjustment: false });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let expected = "bad-policy at=/p.toml:3:1 unknown-key=gogle did-you-mean=google";
        assert_eq!(log("version = 1\n[compat]\ngogle = true\n"), expected);
        assert_eq!(log("version = 1\nxyzzy = 2\n"), "bad-policy at=/p.toml:2:1 unknown-key=xyzzy");
        assert!(
            log("version = 1\n[compat]\ngoogle = 1\n").starts_with("bad-policy at=/p.toml:3:10 error=invalid-type")
        );
        assert!(log("version = 1\n[compat\n").starts_with("bad-policy at=/p.toml:2:"));
        assert!(log("version = 1\nversion = 1\n").starts_with("bad-policy at=/p.toml:2:1 "));
    }

    #[test]
    fn no_beginning_of_a_file_is_a_policy_but_for_whole_tables() {
        let whole = "version = 1\n[compat]\ngoogle = true\n";
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let result = Policy::parse(cut.as_bytes());
            // What ends behind `version = 1` says less than the whole, and never something else.
            assert!(result.is_err() || !result.unwrap().compat.skew_adjustment, "{cut:?}");
        }
        for text in
            ["", "\n# nothing\n", "[compat]\ngoogle = true\n", "compat.google = true\nversion = 1\n", "version = 2\n"]
        {
            assert_eq!(Policy::parse(text.as_bytes()).unwrap_err().problem, Problem::Version, "{text:?}");
        }
        assert_eq!(Policy::parse(b"version = 1\n# \xff\n").unwrap_err().problem, Problem::Encoding);
    }

    #[test]
    fn distances() {
        assert_eq!(
            [distance("widow", "window"), distance("", "abc"), distance("abc", "abc"), distance("a", "b")],
            [1, 3, 0, 1]
        );
    }
}
