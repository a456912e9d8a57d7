//! What somebody can have done about their own devices, and what that brings. Whose they are is not said: they are those of
//! whoever is at the other end of the socket.

use crate::enrol::Codes;
use crate::otp::{Algorithm, Digits, Moving};
use crate::record::google::STEP_SIZES;
use crate::record::native::is_device_name;
use crate::record::{BadSecret, Device, Hotp, Kind, Totp};
use crate::words::{Reader, Writer};

/// Most recovery codes that somebody can have: a record has room for so many.
const MOST_CODES: u8 = 10;
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512];

/// What somebody wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// To see what they have.
    Status,
    /// One device more.
    Add {
        /// What it is called.
        name: String,
        /// What it shows.
        codes: Codes,
    },
    /// One device less.
    Remove {
        /// What it is called.
        name: String,
    },
    /// New recovery codes in the place of those that they have.
    Recovery {
        /// How many.
        count: u8,
    },
}

/// What they get.
#[derive(Clone)]
pub enum Granted {
    /// It is done.
    Done,
    /// What there is.
    Status {
        /// Where the record is.
        path: Vec<u8>,
        /// The key that it is sealed with. Empty: none.
        sealed_with: String,
        /// The devices, without their secrets.
        devices: Vec<Device>,
        /// Recovery codes that are left.
        spares: u32,
    },
}

impl Writer {
    pub(super) fn wish(self, wish: &Wish) -> Self {
        match wish {
            Wish::Status => self.byte(b's'),
            Wish::Add { name, codes: Codes { moving, algorithm, digits } } => {
                let writer = self.byte(b'a').text(name.as_bytes()).algorithm(*algorithm).byte(digits.get());
                match moving {
                    Moving::Time { period } => writer.byte(b't').long(*period),
                    Moving::Counter { next } => writer.byte(b'c').long(*next),
                }
            }
            Wish::Remove { name } => self.byte(b'r').text(name.as_bytes()),
            Wish::Recovery { count } => self.byte(b'n').byte(*count),
        }
    }

    pub(super) fn granted(self, granted: &Granted) -> Self {
        match granted {
            Granted::Done => self.byte(b'd'),
            Granted::Status { path, sealed_with, devices, spares } => {
                let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
                let writer = self.byte(b's').text(path).text(sealed_with.as_bytes()).number(*spares).number(count);
                devices.iter().fold(writer, Self::device)
            }
        }
    }

    /// Never its secret.
    fn device(self, device: &Device) -> Self {
        let writer = self.text(device.name.as_bytes()).maybe_long(device.added).maybe_long(device.last_used);
        match &device.kind {
            Ok(Kind::Totp(totp)) => {
                let writer = writer.byte(b't').algorithm(totp.algorithm).byte(totp.digits.get());
                writer.long(totp.period).maybe_long(totp.mark())
            }
            Ok(Kind::Hotp(hotp)) => {
                let writer = writer.byte(b'c').algorithm(hotp.algorithm).byte(hotp.digits.get());
                writer.long(hotp.look_ahead).long(hotp.counter)
            }
            Ok(Kind::None) | Err(_) => writer.byte(b'n'),
        }
    }

    fn algorithm(self, algorithm: Algorithm) -> Self {
        let place = ALGORITHMS.iter().position(|known| *known == algorithm);
        self.byte(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX))
    }
}

/// What nobody may have is not read: no device has such a name, and no app such codes.
impl Reader<'_> {
    pub(super) fn wish(&mut self) -> Option<Wish> {
        Some(match self.byte()? {
            b's' => Wish::Status,
            b'a' => {
                let (name, algorithm, digits) = (self.device_name()?, self.algorithm()?, self.digits()?);
                let moving = match (self.byte()?, self.long()?) {
                    (b't', period) if STEP_SIZES.contains(&period) => Moving::Time { period },
                    (b'c', next @ 1) => Moving::Counter { next },
                    _ => return None,
                };
                Wish::Add { name, codes: Codes { moving, algorithm, digits } }
            }
            b'r' => Wish::Remove { name: self.device_name()? },
            b'n' => Wish::Recovery { count: self.byte().filter(|count| (1..=MOST_CODES).contains(count))? },
            _ => return None,
        })
    }

    pub(super) fn granted(&mut self) -> Option<Granted> {
        Some(match self.byte()? {
            b'd' => Granted::Done,
            b's' => {
                let (path, sealed_with) = (self.text()?.to_vec(), self.string()?);
                let (spares, count) = (self.number()?, self.number()?);
                let devices = (0..count).map(|_| self.device()).collect::<Option<_>>()?;
                Granted::Status { path, sealed_with, devices, spares }
            }
            _ => return None,
        })
    }

    fn device(&mut self) -> Option<Device> {
        let (name, added, last_used) = (self.string()?, self.maybe(Self::long)?, self.maybe(Self::long)?);
        let kind = match self.byte()? {
            b't' => {
                let (algorithm, digits, period) = (self.algorithm()?, self.digits()?, self.long()?);
                let used = Ok(self.maybe(Self::long)?.map(|mark| vec![mark]));
                Kind::Totp(Totp { algorithm, digits, period, window: None, skew: 0, drift: Vec::new(), used })
            }
            b'c' => {
                let (algorithm, digits) = (self.algorithm()?, self.digits()?);
                let (look_ahead, counter) = (self.long()?, self.long()?);
                Kind::Hotp(Hotp { algorithm, digits, look_ahead, counter })
            }
            b'n' => Kind::None,
            _ => return None,
        };
        Some(Device { name, secret: Err(BadSecret), kind: Ok(kind), added, last_used })
    }

    fn device_name(&mut self) -> Option<String> {
        self.string().filter(|name| is_device_name(name))
    }

    fn algorithm(&mut self) -> Option<Algorithm> {
        ALGORITHMS.get(usize::from(self.byte()?)).copied()
    }

    fn digits(&mut self) -> Option<Digits> {
        Digits::new(self.byte()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Bad, Request};
    use super::*;

    fn read(wish: Wish) -> Result<(), Bad> {
        Request::parse(Request::Wish(wish).message().unwrap().expose()).map(drop)
    }

    #[test]
    fn what_nobody_may_have_is_no_wish() {
        let codes = |moving| Codes { moving, ..Codes::default() };
        for moving in [Moving::Time { period: 0 }, Moving::Time { period: 61 }, Moving::Counter { next: 0 }] {
            assert_eq!(read(Wish::Add { name: "x".to_owned(), codes: codes(moving) }), Err(Bad::Message));
        }
        for name in ["", " x", "a\"b", "a\nb", &"x".repeat(65)] {
            assert_eq!(read(Wish::Remove { name: name.to_owned() }), Err(Bad::Message), "{name:?}");
            let codes = Codes::default();
            assert_eq!(read(Wish::Add { name: name.to_owned(), codes }), Err(Bad::Message), "{name:?}");
        }
        assert_eq!([0, 1, 10, 11].map(|count| read(Wish::Recovery { count }).is_ok()), [false, true, true, false]);
    }
}
