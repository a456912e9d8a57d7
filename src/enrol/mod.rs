//! A device that somebody is about to have: its secret, how it is shown, and what stands in for it when it is not at hand.

pub mod qr;
mod screen;

pub use screen::{Screen, absence};

use crate::otp::{Algorithm, Digits, Moving, OtpauthUri, RECOVERY_BYTES, RecoveryCode, base32};
use crate::record::{Device, Hotp, Kind, Totp};
use crate::secret::Secret;
use crate::system::{Errno, random};
use std::sync::Arc;

/// How many recovery codes, or scratch codes, a new record has.
pub const SPARES: u64 = 5;
/// What a device is called unless somebody says otherwise.
pub const DEVICE: &str = "phone";
/// Seconds per time step (RFC 6238 section 5.2).
pub const PERIOD: u64 = 30;
/// Counters that are looked at from the next one on.
const LOOK_AHEAD: u64 = 3;

/// What codes a device shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// What makes the next one differ from the last.
    pub moving: Moving,
    /// The hash.
    pub algorithm: Algorithm,
    /// Digits of a code.
    pub digits: Digits,
}

/// What every app can show (docs/apps.md).
impl Default for Codes {
    fn default() -> Self {
        Self { moving: Moving::Time { period: PERIOD }, algorithm: Algorithm::Sha1, digits: Digits::SIX }
    }
}

/// A device to be.
pub struct NewDevice {
    codes: Codes,
    secret: Arc<Secret<Vec<u8>>>,
}

impl NewDevice {
    /// With a new secret, as long as its hash (RFC 6238 section 5.1), or of as many bits as the policy asks for.
    ///
    /// # Errors
    /// As getrandom(2).
    pub fn new(codes: Codes, min_bits: u64) -> Result<Self, Errno> {
        let length = match codes.algorithm {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        };
        Ok(Self { codes, secret: Arc::new(new_secret(length, min_bits)?) })
    }

    /// With a secret that somebody else has made.
    pub fn with_secret(codes: Codes, secret: Secret<Vec<u8>>) -> Self {
        Self { codes, secret: Arc::new(secret) }
    }

    /// What it shows.
    pub const fn codes(&self) -> Codes {
        self.codes
    }

    /// The secret in base32, for typing.
    pub fn secret(&self) -> Secret<String> {
        base32::encode(self.secret.expose())
    }

    /// What an app scans.
    pub fn uri(&self, issuer: &str, account: &str) -> Secret<String> {
        let Codes { moving, algorithm, digits } = self.codes;
        OtpauthUri { issuer, account, secret: &self.secret, moving, algorithm, digits }.text()
    }

    /// The device as a record holds it. `now`: seconds since 1970.
    pub fn device(&self, name: &str, now: u64) -> Device {
        let Codes { moving, algorithm, digits } = self.codes;
        let kind = match moving {
            Moving::Counter { next } => Kind::Hotp(Hotp { algorithm, digits, look_ahead: LOOK_AHEAD, counter: next }),
            Moving::Time { period } => {
                Kind::Totp(Totp { algorithm, digits, period, window: None, skew: 0, drift: Vec::new(), used: Ok(None) })
            }
        };
        let secret = Ok(Arc::clone(&self.secret));
        Device { name: name.to_owned(), secret, kind: Ok(kind), added: Some(now), last_used: None }
    }
}

/// A new recovery code, or the word of a ticket, which has the same form.
///
/// # Errors
/// As getrandom(2).
pub fn recovery_code() -> Result<RecoveryCode, Errno> {
    random::bytes::<RECOVERY_BYTES>().map(RecoveryCode::new)
}

/// So many of them.
///
/// # Errors
/// As getrandom(2).
pub fn recovery_codes(count: u64) -> Result<Vec<RecoveryCode>, Errno> {
    (0..count).map(|_| recovery_code()).collect()
}

/// The short name of this host: the QR code gets larger with every letter.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    match name.split('.').next() {
        Some(short) if !short.is_empty() => short.to_owned(),
        _ => "localhost".to_owned(),
    }
}

/// So many bytes, or as many bits as the policy asks for.
fn new_secret(length: usize, min_bits: u64) -> Result<Secret<Vec<u8>>, Errno> {
    const PORTION: usize = 32;
    let length = usize::try_from(min_bits.div_ceil(8)).unwrap_or(0).max(length);
    let mut secret = Vec::with_capacity(length.saturating_add(PORTION));
    while secret.len() < length {
        secret.extend_from_slice(&random::bytes::<PORTION>()?);
    }
    secret.truncate(length);
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_codes_are_different_and_have_120_bits() {
        let codes = recovery_codes(10).unwrap();
        let mut bytes: Vec<_> = codes.iter().map(|code| code.expose().to_vec()).collect();
        assert!(bytes.iter().all(|bytes| bytes.len() * 8 == 120));
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 10);
    }

    #[test]
    fn secrets_are_new_and_have_160_bits_or_more() {
        let [one, two] = [new_secret(20, 0).unwrap(), new_secret(20, 160).unwrap()];
        assert_eq!((one.expose().len(), two.expose().len()), (20, 20));
        assert_ne!(one.expose(), two.expose());
        assert_eq!(new_secret(20, 161).unwrap().expose().len(), 21);
        assert_eq!(new_secret(20, 512).unwrap().expose().len(), 64);
        assert_eq!(new_secret(64, 0).unwrap().expose().len(), 64);
    }
}
