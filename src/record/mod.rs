//! What is known about one person: the secret, how codes are judged, and what has been used up. Pure.

pub mod google;
pub mod native;
mod recovery;

pub use recovery::RecoveryCodes;

use crate::fact::Fact;
use crate::otp::{Algorithm, Digits};
use crate::secret::Secret;
use std::sync::Arc;

/// Everything that [`crate::verify`] looks at, and, with changes, what it wants written.
///
/// An option that cannot be read spoils what depends on it and nothing else, as in the C module: with a broken
/// `WINDOW_SIZE` a scratch code still gets its owner in; with a broken `RATE_LIMIT` nothing does.
#[derive(Clone)]
pub struct Record {
    /// What shows the person's codes. A home file has one of them, a root-only record one or more.
    pub devices: Vec<Device>,
    /// How often a person may try. `None`: the record sets no limit.
    pub rate_limit: Result<Option<RateLimit>, BadLine>,
    /// Scratch codes that have not been spent: 8 digits, no leading zero.
    pub scratch: Arc<Secret<Vec<u32>>>,
    /// Like `scratch`, up to the first line that is none: the C module looks no further.
    pub scratch_before_odd: usize,
    /// Recovery codes that have not been spent.
    pub recovery: RecoveryCodes,
    /// Hosts that people have logged in from, for `grace_period=`.
    pub logins: [Slot; SLOTS],
}

impl Record {
    /// A record of these devices and nothing else.
    pub fn of(devices: Vec<Device>) -> Self {
        Self {
            devices,
            rate_limit: Ok(None),
            scratch: Arc::new(Secret::new(Vec::new())),
            scratch_before_odd: 0,
            recovery: RecoveryCodes::default(),
            logins: std::array::from_fn(|_| Slot::Empty),
        }
    }

    /// What codes are made from. It changes when somebody enrols anew. `None`: no code is right.
    pub fn factors(&self) -> Option<Secret<Vec<u8>>> {
        let factors: Vec<_> = self.devices.iter().filter_map(Device::factors).collect();
        let parts: Vec<&[u8]> = factors.iter().map(|factor| factor.expose().as_slice()).collect();
        (!parts.is_empty()).then(|| Secret::new(parts.concat()))
    }

    /// The device with this name.
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// Adds a device.
    ///
    /// # Errors
    /// There is one of that name, or with that secret, already.
    pub fn add(&mut self, device: Device) -> Result<(), Fact> {
        if self.device(&device.name).is_some() {
            return Err(Fact::new("name-taken").with("device", &device.name).or("pam-totp device list shows them"));
        }
        if device.secret.as_ref().is_ok_and(|secret| self.holds(secret)) {
            return Err(Fact::new("secret-taken").with("device", &device.name).or("another device has that secret"));
        }
        self.devices.push(device);
        Ok(())
    }

    /// Takes a device out.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<(), Fact> {
        let before = self.devices.len();
        self.devices.retain(|device| device.name != name);
        if self.devices.len() < before { Ok(()) } else { Err(no_device(name)) }
    }

    /// Whether one of the devices has this secret already. Its codes would work twice.
    pub fn holds(&self, secret: &Secret<Vec<u8>>) -> bool {
        self.devices.iter().any(|device| device.has_secret(secret))
    }
}

/// There is no device of that name.
pub fn no_device(name: &str) -> Fact {
    Fact::new("no-such-device").with("device", name).or("pam-totp device list shows them")
}

/// Something that shows codes.
#[derive(Clone)]
pub struct Device {
    /// What its owner calls it. A home file has no name for it.
    pub name: String,
    /// The shared secret, one byte or more. Without one nobody gets in, by scratch code either.
    pub secret: Result<Arc<Secret<Vec<u8>>>, BadSecret>,
    /// What moves between two of its codes.
    pub kind: Result<Kind, BadLine>,
    /// When it was enrolled, in seconds since 1970. `None`: the record does not say.
    pub added: Option<u64>,
    /// When one of its codes was last accepted.
    pub last_used: Option<u64>,
}

impl Device {
    /// Whether its codes can be right, where a secret has to have so many bits.
    pub fn is_usable(&self, min_secret_bits: u64) -> bool {
        let bits = |secret: &Arc<Secret<Vec<u8>>>| (secret.expose().len() as u64).saturating_mul(8);
        self.factors().is_some() && self.secret.as_ref().is_ok_and(|secret| bits(secret) >= min_secret_bits)
    }

    fn has_secret(&self, secret: &Secret<Vec<u8>>) -> bool {
        self.secret.as_ref().is_ok_and(|own| own.expose() == secret.expose())
    }

    fn factors(&self) -> Option<Secret<Vec<u8>>> {
        let (kind, algorithm, digits, period) = match self.kind.as_ref().ok()? {
            Kind::Totp(totp) => ('t', totp.algorithm, totp.digits, totp.period),
            Kind::Hotp(hotp) => ('c', hotp.algorithm, hotp.digits, 0),
            Kind::None => return None,
        };
        let secret = self.secret.as_ref().ok()?.expose();
        let rest = format!("{kind}{}/{}/{period}/{}/", algorithm.name(), digits.get(), secret.len());
        Some(Secret::new([rest.as_bytes(), secret].concat()))
    }
}

/// How many hosts a record remembers (`LAST0` to `LAST9`).
pub const SLOTS: usize = 10;

/// A place for a host that somebody logged in from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Slot {
    /// Nothing yet.
    #[default]
    Empty,
    /// A line that cannot be read: neither used nor overwritten.
    Unreadable,
    /// This host, at this time (seconds since 1970).
    Login {
        /// `[0-9a-zA-Z:%.-]`, up to 255 of them.
        host: String,
        /// Seconds since 1970.
        time: u64,
    },
}

/// What moves between two codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The record says neither time nor counter: only scratch codes work.
    None,
    /// Time (RFC 6238).
    Totp(Totp),
    /// A counter (RFC 4226).
    Hotp(Hotp),
}

/// A time-based device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totp {
    /// The hash.
    pub algorithm: Algorithm,
    /// Digits of a code.
    pub digits: Digits,
    /// Seconds a time step lasts, 1 to 60.
    pub period: u64,
    /// Which steps around the present one are accepted. `None`: the record does not say.
    pub window: Option<Window>,
    /// Steps that the device's clock is ahead of ours (behind, if negative): `TIME_SKEW`.
    pub skew: i64,
    /// Codes far off that were given lately: `RESETTING_TIME_SKEW`. At most three.
    pub drift: Vec<Drift>,
    /// Steps whose codes have been accepted; `None`: the record does not remember them yet. The highest of them is the
    /// one-time mark: no step at or below it is ever accepted again (RFC 6238 section 5.2). The others are kept for the
    /// C module, which looks for the step itself.
    pub used: Result<Option<Vec<u64>>, BadLine>,
}

/// A right code of a wrong time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    /// Our time step when it was given.
    pub step: i64,
    /// How many steps ahead of that the code was.
    pub skew: i64,
}

impl Totp {
    /// The highest accepted step.
    pub fn mark(&self) -> Option<u64> {
        self.used.as_ref().ok()?.as_ref()?.iter().copied().max()
    }
}

/// A counter-based device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hotp {
    /// The hash.
    pub algorithm: Algorithm,
    /// Digits of a code.
    pub digits: Digits,
    /// How many counters are tried, from the next one on (the look-ahead of RFC 4226 section 7.4), 1 to 100.
    pub look_ahead: u64,
    /// The next counter, 1 or more. Every counter below it is spent.
    pub counter: u64,
}

/// The accepted steps, counted from the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Steps in the past.
    pub behind: u64,
    /// Steps in the future.
    pub ahead: u64,
}

impl Window {
    /// The C module's reading of `WINDOW_SIZE n`: n steps in all, the odd one out lies in the future.
    pub const fn of_size(size: u64) -> Self {
        Self { behind: size.saturating_sub(1) / 2, ahead: size / 2 }
    }

    /// The part of it that lies in another one.
    pub fn within(self, widest: Self) -> Self {
        Self { behind: self.behind.min(widest.behind), ahead: self.ahead.min(widest.ahead) }
    }

    /// How many steps there are in all.
    pub const fn size(self) -> u64 {
        self.behind.saturating_add(self.ahead).saturating_add(1)
    }
}

/// `RATE_LIMIT tries seconds`: at most so many tries in so many seconds, right ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// 1 to 100.
    pub tries: usize,
    /// 1 to 3600.
    pub seconds: u64,
    /// When tries were made, in seconds since 1970.
    pub charged: Vec<u64>,
}

/// Line 1 is not a secret in base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSecret;

impl BadSecret {
    /// For the log.
    pub fn fact(self) -> Fact {
        Fact::new("bad-secret")
            .with_number("line", 1)
            .or("line 1 of the secret file must be the secret in base32; enrol again")
    }
}

/// An option line that cannot be read. Carries no text of the file: the next line may be a scratch code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The option.
    pub key: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

impl BadLine {
    /// For the log.
    pub fn fact(&self) -> Fact {
        Fact::new("bad-option").with_number("line", self.line).with("key", self.key).or(self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, secret: &[u8], kind: Kind) -> Device {
        let secret = Ok(Arc::new(Secret::new(secret.to_vec())));
        Device { name: name.to_owned(), secret, kind: Ok(kind), added: None, last_used: None }
    }

    fn by_counter() -> Kind {
        Kind::Hotp(Hotp { algorithm: Algorithm::Sha1, digits: Digits::SIX, look_ahead: 3, counter: 1 })
    }

    #[test]
    fn a_name_and_a_secret_are_one_devices_alone() {
        let mut record = Record::of(Vec::new());
        assert_eq!(record.add(device("phone", b"one", by_counter())), Ok(()));
        let word = |result: Result<(), Fact>| result.unwrap_err().word();
        assert_eq!(word(record.add(device("phone", b"two", by_counter()))), "name-taken");
        assert_eq!(word(record.add(device("tablet", b"one", by_counter()))), "secret-taken");
        assert_eq!(record.add(device("tablet", b"two", by_counter())), Ok(()));
        assert_eq!(record.remove("phone"), Ok(()));
        assert_eq!(word(record.remove("phone")), "no-such-device");
        assert!(record.device("phone").is_none() && record.device("tablet").is_some());
    }

    #[test]
    fn a_device_is_of_use_with_a_kind_and_a_secret_that_is_long_enough() {
        for (bits, is_usable) in [(0, true), (128, true), (129, false)] {
            assert_eq!(device("", &[1; 16], by_counter()).is_usable(bits), is_usable, "{bits}");
        }
        assert!(!device("", &[1; 16], Kind::None).is_usable(0));
        assert!(!Device { secret: Err(BadSecret), ..device("", &[1; 16], by_counter()) }.is_usable(0));
    }
}
