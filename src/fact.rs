//! Facts for the operator: a reason, its particulars, and the way out.
//!
//! Every value is escaped here, in one place: user names, remote hosts and paths are chosen by whoever knocks at the
//! door, and a log reader such as fail2ban acts on what it finds in a line.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest value that a line carries, in bytes before escaping. Longer ones are cut and end in `...`.
const MAX_VALUE: usize = 256;

/// One thing that happened, for the log or for the operator's terminal. Never for the person at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    word: &'static str,
    fields: Vec<(&'static str, Vec<u8>)>,
    way_out: &'static str,
}

impl Fact {
    /// `word` is fixed, such as `wrong-code`: tools may match it.
    pub const fn new(word: &'static str) -> Self {
        Self { word, fields: Vec::new(), way_out: "" }
    }

    /// Adds a particular. The value is escaped when the fact is printed.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((key, value.as_ref().to_vec()));
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn with_number(self, key: &'static str, value: impl fmt::Display) -> Self {
        self.with(key, value.to_string())
    }

    /// Adds what the operating system said, in its words, without blanks.
    #[must_use]
    pub fn with_error(self, error: impl Into<std::io::Error>) -> Self {
        let text = error.into().to_string();
        let words = text.split(" (os error").next().unwrap_or_default();
        self.with("error", words.replace(' ', "-"))
    }

    /// Adds a path.
    #[must_use]
    pub fn with_path(self, path: &Path) -> Self {
        self.with("path", path.as_os_str().as_bytes())
    }

    /// Adds another fact, which is the reason for this one.
    #[must_use]
    pub fn because(mut self, cause: &Self) -> Self {
        self = self.with("cause", cause.word);
        self.fields.extend(cause.fields.iter().cloned());
        self.way_out = cause.way_out;
        self
    }

    /// Says what the operator can do about it, in words of ours alone.
    #[must_use]
    pub const fn or(mut self, text: &'static str) -> Self {
        self.way_out = text;
        self
    }

    /// The fixed word that names this fact.
    pub const fn word(&self) -> &'static str {
        self.word
    }
}

/// `WORD key=value … (way out)`.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)?;
        for (key, value) in &self.fields {
            write!(f, " {key}={}", Escaped(value))?;
        }
        match self.way_out {
            "" => Ok(()),
            text => write!(f, " ({text})"),
        }
    }
}

/// Bytes as a log may carry them: every byte outside `[A-Za-z0-9._@:%+/-]` becomes `\xNN`, blank and `=` included.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.iter().take(MAX_VALUE) {
            if byte.is_ascii_alphanumeric() || b"._@:%+/-".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        if self.0.len() > MAX_VALUE { f.write_str("...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_forge_a_field_or_a_line() {
        let fact = Fact::new("wrong-code").with("user", "x rhost=10.0.0.1\nroot\\").with_number("step", -1);
        assert_eq!(fact.to_string(), "wrong-code user=x\\x20rhost\\x3D10.0.0.1\\x0Aroot\\x5C step=-1");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(Escaped(&[b'a'; 300]).to_string(), format!("{}...", "a".repeat(256)));
    }
}
