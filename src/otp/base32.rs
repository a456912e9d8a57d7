//! Base32 as people write it down (RFC 4648 section 6, with the liberties that `~/.google_authenticator` allows).

use crate::secret::Secret;
use zeroize::Zeroizing;

const ALPHABET: base32::Alphabet = base32::Alphabet::Rfc4648 { padding: false };

/// Upper case, without padding.
pub fn encode(bytes: &[u8]) -> Secret<String> {
    Secret::new(base32::encode(ALPHABET, bytes))
}

/// Reads base32 in either case. Blanks, tabs, carriage returns and `-` are skipped; `0`, `1` and `8`, which base32 does
/// not have, are read as the letters they are mistaken for: `O`, `L`, `B`.
///
/// `None` where anything else occurs (padding included) or nothing is left.
pub fn decode(text: &[u8]) -> Option<Secret<Vec<u8>>> {
    // Reserved in full, so that no half-grown copy is left behind unwiped.
    let mut letters = Zeroizing::new(String::with_capacity(text.len().saturating_mul(2)));
    letters.extend(text.iter().filter(|byte| !b" \t\r-".contains(byte)).map(|&byte| match byte {
        b'0' => 'O',
        b'1' => 'L',
        b'8' => 'B',
        other => char::from(other.to_ascii_uppercase()),
    }));
    if !letters.bytes().all(|letter| matches!(letter, b'A'..=b'Z' | b'2'..=b'7')) {
        return None;
    }
    base32::decode(ALPHABET, &letters).filter(|bytes| !bytes.is_empty()).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text.as_bytes()).map(|secret| secret.expose().clone())
    }

    #[test]
    fn rfc_4648_section_10() {
        for (plain, text) in [
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(encode(plain.as_bytes()).expose(), text);
            assert_eq!(decoded(text).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn what_people_write_is_read() {
        assert_eq!(decoded("mzxw-6ytb oi\r").unwrap(), b"foobar");
        assert_eq!(decoded("M0").unwrap(), decoded("MO").unwrap());
        assert_eq!(decoded("M1").unwrap(), decoded("ML").unwrap());
        assert_eq!(decoded("M8").unwrap(), decoded("MB").unwrap());
        assert_eq!(decoded("AA").unwrap(), [0]);
    }

    #[test]
    fn what_is_not_base32_is_refused() {
        for text in ["", " - ", "A", "MY======", "M9", "MZ XW!", "MÄ", "M\0Y", "MY\n"] {
            assert_eq!(decoded(text), None, "{text:?}");
        }
    }
}
