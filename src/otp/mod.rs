//! The arithmetic of one-time codes: RFC 4226 (HOTP), RFC 6238 (TOTP), base32 and the otpauth URI. Pure.

pub mod base32;
mod code;
mod recovery;
mod uri;

pub use code::{Answer, Code, Form, NotACode};
pub use recovery::{BYTES as RECOVERY_BYTES, RecoveryCode};
pub use uri::{Moving, OtpauthUri};

use crate::secret::{Secret, wipe_stack};

/// The hash under the HMAC (RFC 6238 section 1.2). Authenticator apps that know only SHA-1 are common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// HMAC-SHA-1, the default of RFC 4226 and of every app.
    #[default]
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name that the otpauth URI uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    const fn totp_rs(self) -> totp_rs::Algorithm {
        match self {
            Self::Sha1 => totp_rs::Algorithm::SHA1,
            Self::Sha256 => totp_rs::Algorithm::SHA256,
            Self::Sha512 => totp_rs::Algorithm::SHA512,
        }
    }
}

/// How many digits a code has: 6, 7 or 8 (RFC 4226 section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digits(u8);

impl Digits {
    /// What every app shows unless told otherwise.
    pub const SIX: Self = Self(6);

    /// `None` outside 6 to 8.
    pub const fn new(digits: u8) -> Option<Self> {
        match digits {
            6..=8 => Some(Self(digits)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Makes and compares the codes of one shared secret.
///
/// TOTP is HOTP whose counter is the time step (RFC 6238 section 4), so there is one way to a code: its counter.
pub struct Generator(totp_rs::Totp);

impl Generator {
    /// Takes a secret of any length; that a length is acceptable is for the record's reader to say.
    pub fn new(secret: &Secret<Vec<u8>>, algorithm: Algorithm, digits: Digits) -> Self {
        Self(
            totp_rs::Builder::new()
                .with_secret(secret.expose().clone().into_boxed_slice())
                .with_algorithm(algorithm.totp_rs())
                .with_digits(digits.get())
                .with_step_duration(1)
                .with_skew(0)
                .build_noncompliant(),
        )
    }

    /// Whether `code` is the code of `counter`. The comparison takes the same time whatever the digits are.
    #[inline(never)]
    pub fn matches(&self, code: &Code, counter: u64) -> bool {
        self.0.check(code.expose(), counter).is_some()
    }

    /// The code of `counter`.
    #[inline(never)]
    pub fn code(&self, counter: u64) -> Secret<String> {
        Secret::new(self.0.generate(counter).to_string())
    }
}

/// What was left on the stack by all codes together.
impl Drop for Generator {
    fn drop(&mut self) {
        wipe_stack();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(secret: &[u8], algorithm: Algorithm, digits: u8, counter: u64) -> String {
        let secret = Secret::new(secret.to_vec());
        Generator::new(&secret, algorithm, Digits::new(digits).unwrap()).code(counter).expose().clone()
    }

    #[test]
    fn rfc_4226_appendix_d() {
        let expected =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, expected) in (0..).zip(expected) {
            assert_eq!(code(b"12345678901234567890", Algorithm::Sha1, 6, counter), expected);
        }
    }

    #[test]
    fn rfc_6238_appendix_b() {
        let seed = b"1234567890".repeat(7);
        let expected = [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ];
        for (time, sha1, sha256, sha512) in expected {
            let step = time / 30;
            assert_eq!(code(&seed[..20], Algorithm::Sha1, 8, step), sha1, "at {time}");
            assert_eq!(code(&seed[..32], Algorithm::Sha256, 8, step), sha256, "at {time}");
            assert_eq!(code(&seed[..64], Algorithm::Sha512, 8, step), sha512, "at {time}");
        }
    }

    #[test]
    fn a_code_matches_its_own_counter_only() {
        let secret = Secret::new(b"12345678901234567890".to_vec());
        let generator = Generator::new(&secret, Algorithm::Sha1, Digits::SIX);
        let typed = Code::parse(b"359152").unwrap();
        assert!(generator.matches(&typed, 2));
        assert!(!generator.matches(&typed, 1));
        assert!(!generator.matches(&Code::parse(b"00359152").unwrap(), 2), "leading zeros are not optional");
    }

    #[test]
    fn the_last_counter_of_all_does_not_panic() {
        let _ = code(b"12345678901234567890", Algorithm::Sha1, 6, u64::MAX);
        let secret = Secret::new(Vec::new());
        let generator = Generator::new(&secret, Algorithm::Sha512, Digits::SIX);
        assert!(!generator.matches(&Code::parse(b"12345678").unwrap(), u64::MAX));
    }
}
