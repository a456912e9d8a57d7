//! The otpauth URI that authenticator apps scan (the "Key URI Format" that all of them follow).

use super::{Algorithm, Digits, base32};
use crate::secret::Secret;
use std::fmt::Write;

/// Seconds a step lasts when a URI does not say (RFC 6238 section 5.2).
const DEFAULT_PERIOD: u64 = 30;

/// More letters than there are in a URI beside its names and its secret.
const OTHER_PARTS: usize = 160;

/// What makes the next code differ from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moving {
    /// TOTP: the time, in steps of this many seconds.
    Time {
        /// Seconds.
        period: u64,
    },
    /// HOTP: a counter; this is the next one to be used.
    Counter {
        /// The moving factor of RFC 4226.
        next: u64,
    },
}

/// The parts of an otpauth URI.
pub struct OtpauthUri<'a> {
    /// Who offers the account, usually a host name; apps show it above the account.
    pub issuer: &'a str,
    /// The account, such as `alice@bastion`.
    pub account: &'a str,
    /// The shared secret.
    pub secret: &'a Secret<Vec<u8>>,
    /// TOTP or HOTP.
    pub moving: Moving,
    /// The hash.
    pub algorithm: Algorithm,
    /// Digits of a code.
    pub digits: Digits,
}

impl OtpauthUri<'_> {
    /// The URI. Parameters that have their default value are left out (a shorter text is a smaller QR code), but for
    /// `counter`, which HOTP has to state.
    pub fn text(&self) -> Secret<String> {
        let kind = match self.moving {
            Moving::Time { .. } => "totp",
            Moving::Counter { .. } => "hotp",
        };
        let (issuer, account) = (percent_encoded(self.issuer), percent_encoded(self.account));
        let secret = base32::encode(self.secret.expose());
        // All of it from the start: a text that grows leaves pieces of itself behind, which nobody wipes.
        let room = [issuer.len(), issuer.len(), account.len(), secret.expose().len(), OTHER_PARTS];
        let mut uri = String::with_capacity(room.into_iter().sum());
        // Writing to a String cannot fail.
        let _ = write!(uri, "otpauth://{kind}/{issuer}:{account}?secret={}&issuer={issuer}", secret.expose());
        let _ = match self.moving {
            Moving::Time { period: DEFAULT_PERIOD } => Ok(()),
            Moving::Time { period } => write!(uri, "&period={period}"),
            Moving::Counter { next } => write!(uri, "&counter={next}"),
        };
        if self.algorithm != Algorithm::Sha1 {
            let _ = write!(uri, "&algorithm={}", self.algorithm.name());
        }
        if self.digits != Digits::SIX {
            let _ = write!(uri, "&digits={}", self.digits.get());
        }
        Secret::new(uri)
    }
}

/// RFC 3986 section 2.1; `@` may stand in a path and in a query as it is.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(account: &str, moving: Moving, algorithm: Algorithm, digits: u8) -> String {
        let secret = Secret::new(b"12345678901234567890".to_vec());
        let digits = Digits::new(digits).unwrap();
        OtpauthUri { issuer: "bastion", account, secret: &secret, moving, algorithm, digits }.text().expose().clone()
    }

    #[test]
    fn defaults_are_left_out() {
        assert_eq!(
            uri("alice@bastion", Moving::Time { period: 30 }, Algorithm::Sha1, 6),
            "otpauth://totp/bastion:alice@bastion?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=bastion"
        );
    }

    #[test]
    fn everything_else_is_stated() {
        assert_eq!(
            uri("a b/c:d&é", Moving::Time { period: 60 }, Algorithm::Sha256, 8),
            "otpauth://totp/bastion:a%20b%2Fc%3Ad%26%C3%A9?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=bastion\
             &period=60&algorithm=SHA256&digits=8"
        );
        assert!(uri("a", Moving::Counter { next: 1 }, Algorithm::Sha1, 6).ends_with("&counter=1"));
    }
}
