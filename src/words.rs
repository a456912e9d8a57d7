//! Bytes that are put together and read again: messages between module and agent, and documents of the fleet. Numbers are
//! big-endian; a text is its length in two bytes and its bytes.

use crate::secret::Secret;
use crate::system::socket::MAX_MESSAGE;
use zeroize::Zeroize;

/// Something is too long to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Bytes of most of them.
const USUAL: usize = 1024;

/// One that is put together. Of what was there before it grew nothing is left behind.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(USUAL), is_too_long: false }
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        let length = self.bytes.len().saturating_add(bytes.len());
        if length > MAX_MESSAGE {
            self.is_too_long = true;
            return self;
        }
        if length > self.bytes.capacity() {
            let mut larger = Vec::with_capacity(length.saturating_mul(2));
            larger.extend_from_slice(&self.bytes);
            std::mem::replace(&mut self.bytes, larger).zeroize();
        }
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn byte(self, byte: u8) -> Self {
        self.put(&[byte])
    }

    pub(crate) fn number(self, number: u32) -> Self {
        self.put(&number.to_be_bytes())
    }

    pub(crate) fn long(self, number: u64) -> Self {
        self.put(&number.to_be_bytes())
    }

    pub(crate) fn text(mut self, text: &[u8]) -> Self {
        match u16::try_from(text.len()) {
            Ok(length) => self.put(&length.to_be_bytes()).put(text),
            Err(_) => {
                self.is_too_long = true;
                self
            }
        }
    }

    /// How many there are of what follows.
    #[cfg(feature = "fleet")]
    pub(crate) fn count(self, length: usize) -> Self {
        self.number(u32::try_from(length).unwrap_or(u32::MAX))
    }

    pub(crate) fn maybe(self, text: Option<&Secret<Vec<u8>>>) -> Self {
        self.maybe_text(text.map(|text| text.expose().as_slice()))
    }

    /// A text that may not be there.
    pub(crate) fn maybe_text(self, text: Option<&[u8]>) -> Self {
        match text {
            None => self.byte(0),
            Some(text) => self.byte(1).text(text),
        }
    }

    /// A number that may not be there.
    pub(crate) fn maybe_number(self, number: Option<u32>) -> Self {
        match number {
            None => self.byte(0),
            Some(number) => self.byte(1).number(number),
        }
    }

    /// The same, of a long one.
    pub(crate) fn maybe_long(self, number: Option<u64>) -> Self {
        match number {
            None => self.byte(0),
            Some(number) => self.byte(1).long(number),
        }
    }

    /// Has it be too long.
    pub(crate) const fn spoiled(self) -> Self {
        let mut spoiled = self;
        spoiled.is_too_long = true;
        spoiled
    }

    pub(crate) fn end(self) -> Result<Secret<Vec<u8>>, TooLong> {
        let bytes = Secret::new(self.bytes);
        if self.is_too_long { Err(TooLong) } else { Ok(bytes) }
    }
}

/// One that is read from its beginning. `None`: it ends before that, or there is something else.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn bool(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn long(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u16::from_be_bytes)?;
        self.take(length.into())
    }

    pub(crate) fn secret(&mut self) -> Option<Secret<Vec<u8>>> {
        self.text().map(|text| Secret::new(text.to_vec()))
    }

    /// A text that is none but in UTF-8.
    pub(crate) fn string(&mut self) -> Option<String> {
        String::from_utf8(self.text()?.to_vec()).ok()
    }

    pub(crate) fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.bool()? { read(self).map(Some) } else { Some(None) }
    }
}
