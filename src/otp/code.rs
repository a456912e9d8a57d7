//! What a person typed, brought into the one form that anything compares or counts.

use super::RecoveryCode;
use crate::secret::Secret;

/// Shortest and longest code of any kind: RFC 4226 codes have 6 to 8 digits, scratch codes 8.
const LENGTHS: std::ops::RangeInclusive<usize> = 6..=8;

/// What an answer starts with that sshd made up because it has refused the login itself: a backspace. The whole is
/// `\b\n\r\177INCORRECT`, repeated or cut to the length of what was typed (auth-pam.c, `fake_password`).
const SSHD_PLACEHOLDER: &[u8] = b"\x08";

/// A code in canonical form: 6 to 8 ASCII digits, nothing around them.
///
/// One form only, because a code that counts as used in one spelling and as new in another is used twice.
pub struct Code(Secret<String>);

/// Why an answer cannot be a code. Says nothing about the answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotACode {
    /// Nothing, or blanks only.
    Empty,
    /// Not 6 to 8 ASCII digits.
    Shape,
    /// sshd has refused this login already and lets us run for the sake of timing.
    RefusedBySshd,
}

impl Code {
    /// Takes the blanks (ASCII space) around an answer off and accepts 6 to 8 ASCII digits, nothing else: no sign, no
    /// other alphabet's digits, no line end.
    ///
    /// # Errors
    /// [`NotACode`], for the log.
    pub fn parse(answer: &[u8]) -> Result<Self, NotACode> {
        let digits = strip_blanks(answer);
        if digits.is_empty() {
            Err(NotACode::Empty)
        } else if digits.starts_with(SSHD_PLACEHOLDER) {
            Err(NotACode::RefusedBySshd)
        } else if LENGTHS.contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) {
            Ok(Self(Secret::new(digits.iter().copied().map(char::from).collect())))
        } else {
            Err(NotACode::Shape)
        }
    }

    /// How many digits were typed.
    pub fn len(&self) -> usize {
        self.0.expose().len()
    }

    /// Never: a code has at least six digits.
    pub fn is_empty(&self) -> bool {
        self.0.expose().is_empty()
    }

    /// The digits. The caller answers for where they go.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// What a person gave: a code, or a password with a code behind it.
pub struct Answer {
    text: Secret<Vec<u8>>,
    form: Form,
    /// The only number of digits that is looked for, if there is one.
    only: Option<usize>,
    /// Off: there are no recovery codes for those who count blanks.
    may_be_recovery: bool,
}

/// What an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A code and nothing else.
    Code,
    /// Something, which may be nothing, and then a code.
    Combined,
}

impl Answer {
    /// Takes blanks off, unless `blanks_count`: those behind the answer, and where it is a code alone those before it.
    pub fn new(text: Secret<Vec<u8>>, form: Form, blanks_count: bool) -> Self {
        if blanks_count {
            return Self { text, form, only: None, may_be_recovery: false };
        }
        let kept = match form {
            Form::Code => strip_blanks(text.expose()),
            Form::Combined => strip_trailing_blanks(text.expose()),
        };
        Self { text: Secret::new(kept.to_vec()), form, only: None, may_be_recovery: true }
    }

    /// The same answer, in which codes of this many digits alone are looked for.
    pub const fn only(self, digits: usize) -> Self {
        let mut answer = self;
        answer.only = Some(digits);
        answer
    }

    /// The code of so many digits at the end.
    pub fn code(&self, digits: usize) -> Option<Code> {
        if self.only.is_some_and(|only| only != digits) {
            return None;
        }
        let (before, code) = self.split(digits)?;
        match self.form {
            Form::Code if !before.is_empty() => None,
            _ => Code::parse(code).ok().filter(|parsed| parsed.len() == digits),
        }
    }

    /// The recovery code at the end, and how long it was written.
    pub fn recovery_code(&self) -> Option<(RecoveryCode, usize)> {
        let text = self.text.expose();
        match self.form {
            _ if !self.may_be_recovery => None,
            Form::Code => Some((RecoveryCode::parse(text)?, text.len())),
            Form::Combined => Some((RecoveryCode::parse_end(text)?, RecoveryCode::shown_length())),
        }
    }

    /// What stands before a code of this length.
    pub fn before(&self, length: usize) -> Secret<Vec<u8>> {
        Secret::new(self.split(length).map_or_else(Vec::new, |(before, _)| before.to_vec()))
    }

    /// All of it.
    pub const fn whole(&self) -> &Secret<Vec<u8>> {
        &self.text
    }

    /// Why there is no code of any length in it, if there is none.
    ///
    /// # Errors
    /// [`NotACode`].
    pub fn check(&self) -> Result<(), NotACode> {
        if LENGTHS.into_iter().any(|digits| self.code(digits).is_some()) || self.recovery_code().is_some() {
            return Ok(());
        }
        Code::parse(self.text.expose()).map_or_else(Err, |_| Err(NotACode::Shape))
    }

    fn split(&self, length: usize) -> Option<(&[u8], &[u8])> {
        let text = self.text.expose();
        text.split_at_checked(text.len().checked_sub(length)?)
    }
}

fn strip_trailing_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

fn strip_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = bytes {
        bytes = rest;
    }
    strip_trailing_blanks(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &[u8]) -> Result<String, NotACode> {
        Code::parse(answer).map(|code| code.expose().to_owned())
    }

    #[test]
    fn digits_are_taken_as_they_are_and_blanks_off() {
        assert_eq!(parsed(b"012345").unwrap(), "012345");
        assert_eq!(parsed(b"  012345 ").unwrap(), "012345");
        assert_eq!(parsed(b"1234567").unwrap(), "1234567");
        assert_eq!(parsed(b"12345678").unwrap(), "12345678");
    }

    fn cut(text: &str, form: Form, blanks_count: bool, digits: usize) -> Option<(String, String)> {
        let answer = Answer::new(Secret::new(text.into()), form, blanks_count);
        let code = answer.code(digits)?.expose().to_owned();
        Some((String::from_utf8(answer.before(digits).expose().clone()).unwrap(), code))
    }

    #[test]
    fn a_code_is_cut_from_the_end_of_a_password() {
        let parts = |before: &str, code: &str| Some((before.to_owned(), code.to_owned()));
        assert_eq!(cut("secret 123456", Form::Combined, false, 6), parts("secret ", "123456"));
        assert_eq!(cut("secret12345678 ", Form::Combined, false, 8), parts("secret", "12345678"));
        assert_eq!(cut("123456", Form::Combined, false, 6), parts("", "123456"));
        assert_eq!(cut("secret123456", Form::Code, false, 6), None);
        assert_eq!(cut(" 123456 ", Form::Code, false, 6), parts("", "123456"));
        for (text, form) in [(" 123456", Form::Code), ("x123456 ", Form::Combined)] {
            assert_eq!(cut(text, form, true, 6), None, "blanks count");
        }
        assert_eq!(cut("12345", Form::Combined, false, 6), None);
        assert_eq!(cut("password", Form::Combined, false, 6), None);
    }

    #[test]
    fn anything_else_is_not_a_code() {
        for empty in [&b""[..], b" ", b"      "] {
            assert_eq!(parsed(empty), Err(NotACode::Empty), "{empty:?}");
        }
        let others: [&[u8]; 12] = [
            b"12345",
            b"123456789",
            b"+12345",
            b"-12345",
            b"123456\n",
            b"\r123456",
            b"\t123456",
            b"123 456",
            b"0x1234",
            "１２３４５６".as_bytes(),
            "٠١٢".as_bytes(),
            &[b'1'; 65536],
        ];
        for other in others {
            assert_eq!(parsed(other), Err(NotACode::Shape), "{other:?}");
        }
        for placeholder in [&b"\x08"[..], b"\x08\n\r\x7FIN", b"\x08\n\r\x7FINCORRECT\x08\n\r"] {
            assert_eq!(parsed(placeholder), Err(NotACode::RefusedBySshd));
        }
    }
}
