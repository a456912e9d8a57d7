//! What a person typed, brought into the one form that anything compares or counts.

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

fn strip_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
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
