//! The seal: what it is on can be read and made by nobody without a key, and is good in one place alone.
//!
//! ```text
//! sealed  = version(1) ‖ key id(4) ‖ nonce(24) ‖ XChaCha20-Poly1305(subkey, nonce, aad = context, plaintext)
//! subkey  = HMAC-SHA-256(key, "pam_totp seal" ‖ 0 ‖ purpose ‖ 1)      (HKDF-Expand, RFC 5869 section 2.3, first block)
//! context = what the plaintext is about: where it lies, and whose it is
//! ```
//!
//! What was sealed for one purpose or context opens for no other. It does not say how old it is: who can put an older one back
//! in its place brings that one back.
//!
//! A key ring is a file of root's alone:
//!
//! ```text
//! version = 1
//! keys = 1
//!
//! [[key]]
//! id = "3f9a01bc"
//! state = "active"
//! key = "…"
//! ```
//!
//! What is sealed anew is sealed with the active key, of which there is one at most; the others open what they have sealed.
//! `keys` tells a whole file from the first half of one.

use crate::fact::Fact;
use crate::secret::{Secret, without_traces};
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::private::Directory;
use crate::system::random;
use base64ct::{Base64, Encoding};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// Where the ring is, if nobody says otherwise.
pub const PATH: &str = "/etc/security/pam_totp.keys";

/// The first byte of what is sealed, and the version of a ring.
const VERSION: u8 = 1;
/// Bytes of a key (RFC 8439 section 2.3).
const KEY: usize = 32;
/// Letters of one in base64.
const KEY_TEXT: usize = 44;
const ID: usize = 4;
/// Bytes of a nonce: 192 bits may be drawn at random for as long as anybody seals (draft-irtf-cfrg-xchacha section 2.1).
const NONCE: usize = 24;
/// Bytes of a tag (RFC 8439 section 2.5).
const TAG: usize = 16;
/// Bytes that the seal adds.
pub const OVERHEAD: usize = 1 + ID + NONCE + TAG;
/// What tells subkeys from anything else that is made of the keys.
const DOMAIN: &[u8] = b"pam_totp seal\0";
/// Keys of a ring, at most: who has more has forgotten to drop some.
const MOST_KEYS: usize = 64;

/// What a key is called. In the clear in all that is sealed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId([u8; ID]);

impl KeyId {
    /// Eight hexadecimal digits, in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_one = text.len() == 2 * ID && text.bytes().all(is_digit);
        is_one.then(|| u32::from_str_radix(text, 16).ok()).flatten().map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// A key of a ring.
struct Key {
    id: KeyId,
    is_active: bool,
    key: Secret<[u8; KEY]>,
}

/// Keys, of which one at most seals.
pub struct KeyRing(Vec<Key>);

/// Why nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealable {
    /// No key of the ring is active.
    NoActiveKey,
    /// The kernel gives no random numbers.
    Random(Errno),
    /// More than the cipher takes (256 GiB).
    TooLarge,
}

impl Unsealable {
    /// For the log.
    pub fn fact(self) -> Fact {
        match self {
            Self::NoActiveKey => Fact::new("no-active-key").or("pam-totp key activate ID"),
            Self::Random(error) => Fact::new("no-random-numbers").with_error(error),
            Self::TooLarge => Fact::new("too-large-to-seal"),
        }
    }
}

/// Why nothing was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// It is not sealed, or cut off before the end of what is in the clear.
    NotSealed,
    /// Of a version that this program does not know.
    Version(u8),
    /// With a key that is not in the ring.
    UnknownKey(KeyId),
    /// It was altered, or is about something else.
    Broken(KeyId),
}

impl Unopened {
    /// For the log.
    pub fn fact(self) -> Fact {
        let broken = || {
            Fact::new("broken-seal")
                .or("it was altered, or is of another person or store: put back a backup, or enrol again with --force")
        };
        match self {
            Self::NotSealed => broken(),
            Self::Version(version) => {
                broken().with_number("version", version).or("sealed by a newer pam_totp: update this one")
            }
            Self::UnknownKey(id) => Fact::new("unknown-seal-key")
                .with("key", id.to_string())
                .or("the key is not in the ring: put it back from your copy of the ring, or enrol again with --force"),
            Self::Broken(id) => broken().with("key", id.to_string()),
        }
    }
}

impl KeyRing {
    /// A ring of one active key that nobody else has, gone with this value: for what has to come back to this process alone.
    ///
    /// # Errors
    /// As getrandom(2).
    pub fn ephemeral() -> Result<Self, Errno> {
        let mut ring = Self(Vec::new());
        ring.0.push(Key { is_active: true, ..ring.new_key()? });
        Ok(ring)
    }

    /// Which key seals.
    pub fn active(&self) -> Option<KeyId> {
        self.active_key().map(|key| key.id)
    }

    /// The keys, and which of them seals.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, bool)> {
        self.0.iter().map(|key| (key.id, key.is_active))
    }

    /// Seals with the active key.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn seal(&self, purpose: &str, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let key = self.active_key().ok_or(Unsealable::NoActiveKey)?;
        let nonce = random::bytes::<NONCE>().map_err(Unsealable::Random)?;
        let payload = Payload { msg: plaintext, aad: context };
        let ciphertext =
            key.cipher(purpose).encrypt(&XNonce::from(nonce), payload).map_err(|_| Unsealable::TooLarge)?;
        Ok([&[VERSION], &key.id.0[..], &nonce, &ciphertext].concat())
    }

    /// Opens what was sealed with any of the keys.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(&self, purpose: &str, context: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, Unopened> {
        let id = key_of(sealed)?;
        let (nonce, ciphertext) =
            sealed.get(1 + ID..).and_then(<[u8]>::split_first_chunk).ok_or(Unopened::NotSealed)?;
        let key = self.0.iter().find(|key| key.id == id).ok_or(Unopened::UnknownKey(id))?;
        let payload = Payload { msg: ciphertext, aad: context };
        let opened = key.cipher(purpose).decrypt(&XNonce::from(*nonce), payload);
        opened.map(Secret::new).map_err(|_| Unopened::Broken(id))
    }

    fn active_key(&self) -> Option<&Key> {
        self.0.iter().find(|key| key.is_active)
    }

    /// A key that does not seal yet. Its name is nobody else's.
    fn new_key(&self) -> Result<Key, Errno> {
        loop {
            let id = KeyId(random::bytes()?);
            if self.0.iter().all(|key| key.id != id) {
                return Ok(Key { id, is_active: false, key: Secret::new(random::bytes()?) });
            }
        }
    }
}

/// Which key something is sealed with.
///
/// # Errors
/// [`Unopened::NotSealed`], [`Unopened::Version`].
pub fn key_of(sealed: &[u8]) -> Result<KeyId, Unopened> {
    match sealed.split_first() {
        Some((&VERSION, rest)) => rest.first_chunk().map(|id| KeyId(*id)).ok_or(Unopened::NotSealed),
        Some((&version, _)) => Err(Unopened::Version(version)),
        None => Err(Unopened::NotSealed),
    }
}

impl Key {
    fn cipher(&self, purpose: &str) -> XChaCha20Poly1305 {
        // A key that is shorter than a block is filled up with zeroes (RFC 2104 section 2).
        without_traces(|| {
            let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
            block.iter_mut().zip(self.key.expose()).for_each(|(byte, of_key)| *byte = *of_key);
            let mut hmac = <Hmac<Sha256> as KeyInit>::new(&block);
            block.as_mut_slice().zeroize();
            [DOMAIN, purpose.as_bytes(), &[1]].iter().for_each(|part| hmac.update(part));
            let mut subkey = hmac.finalize().into_bytes();
            let cipher = XChaCha20Poly1305::new(&subkey);
            subkey.as_mut_slice().zeroize();
            cipher
        })
    }
}

// ---- Changing a ring ----

/// What cannot be done to a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such key.
    NoSuchKey(KeyId),
    /// The key that seals is not dropped.
    Active(KeyId),
    /// There are as many as there may be.
    Full,
    /// The kernel gives no random numbers.
    Random(Errno),
}

impl Refused {
    /// For the operator.
    pub fn fact(self) -> Fact {
        match self {
            Self::NoSuchKey(id) => Fact::new("no-such-key").with("key", id.to_string()).or("pam-totp key list"),
            Self::Active(id) => Fact::new("active-key")
                .with("key", id.to_string())
                .or("what is stored is sealed with it: activate another one, or pam-totp key unseal"),
            Self::Full => Fact::new("ring-full").or("drop keys that seal nothing: pam-totp key list"),
            Self::Random(error) => Fact::new("no-random-numbers").with_error(error),
        }
    }
}

impl KeyRing {
    /// One without keys.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Adds a key, which opens what it has sealed elsewhere and seals nothing here.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn add(&mut self) -> Result<KeyId, Refused> {
        if self.0.len() >= MOST_KEYS {
            return Err(Refused::Full);
        }
        let key = self.new_key().map_err(Refused::Random)?;
        let id = key.id;
        self.0.push(key);
        Ok(id)
    }

    /// Has this key seal, and no other; `None`: none at all.
    ///
    /// # Errors
    /// [`Refused::NoSuchKey`]; the ring is as it was.
    pub fn activate(&mut self, id: Option<KeyId>) -> Result<(), Refused> {
        if let Some(id) = id {
            self.find(id)?;
        }
        self.0.iter_mut().for_each(|key| key.is_active = Some(key.id) == id);
        Ok(())
    }

    /// Takes a key away: what is sealed with it is lost.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn drop_key(&mut self, id: KeyId) -> Result<(), Refused> {
        if self.find(id)?.is_active {
            return Err(Refused::Active(id));
        }
        self.0.retain(|key| key.id != id);
        Ok(())
    }

    fn find(&self, id: KeyId) -> Result<&Key, Refused> {
        self.0.iter().find(|key| key.id == id).ok_or(Refused::NoSuchKey(id))
    }
}

// ---- Its file ----

/// What is wrong with the text of a ring. Carries none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRing {
    /// This line, counted from 1, is none that can be there.
    Line(usize),
    /// Of a version that this program does not know.
    Version(u64),
    /// So many keys are there, of so many.
    Count(usize, usize),
    /// Two keys have this name.
    Twice(KeyId),
    /// Two keys are active.
    TwoActive(KeyId, KeyId),
}

/// Why there is no ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRing {
    /// There is no such file.
    Missing(PathBuf),
    /// It cannot be read, or is not root's alone.
    File(FileError),
    /// It says nothing that can be relied on.
    Text(PathBuf, BadRing),
}

impl From<FileError> for NoRing {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl NoRing {
    /// For the log.
    pub fn fact(&self) -> Fact {
        match self {
            Self::Missing(path) => Fact::new("no-key-ring")
                .with_path(path)
                .or("pam-totp key new makes one; if there was one, put your copy of it back"),
            Self::File(error) => Fact::new("bad-key-ring").because(&error.fact()),
            Self::Text(path, bad) => bad.fact().with_path(path),
        }
    }
}

impl BadRing {
    fn fact(self) -> Fact {
        let fact = Fact::new("bad-key-ring");
        let key = |fact: Fact, id: KeyId| fact.with("key", id.to_string());
        match self {
            Self::Line(line) => {
                fact.with_number("line", line).or("it cannot be read from this line on: put your copy of it back")
            }
            Self::Version(version) => {
                fact.with_number("version", version).or("written by a newer pam_totp: update this one")
            }
            Self::Count(found, expected) => fact
                .with_number("keys", found)
                .with_number("expected", expected)
                .or("it was cut off, or keys = N is wrong: put your copy of it back"),
            Self::Twice(id) => key(fact, id).or("two keys have the same id: remove one, and put keys = N right"),
            Self::TwoActive(one, other) => key(fact, one)
                .with("other", other.to_string())
                .or("two keys are active: write state = \"decrypt-only\" into one"),
        }
    }
}

/// Directory and name of a file.
fn parts(path: &Path) -> Result<(&Path, &str), FileError> {
    let parts = path.parent().zip(path.file_name().and_then(|name| name.to_str()));
    parts.ok_or_else(|| FileError { path: path.to_owned(), problem: Problem::Path })
}

impl KeyRing {
    /// Reads a ring: a file of root's alone (mode 0600 or less, one name), in directories that nobody else can write to. One
    /// below a `$CREDENTIALS_DIRECTORY` of systemd's is such a file.
    ///
    /// # Errors
    /// [`NoRing`].
    pub fn read(path: &Path) -> Result<Self, NoRing> {
        let (parent, name) = parts(path)?;
        let missing = || NoRing::Missing(path.to_owned());
        let directory = Directory::open(parent)?.ok_or_else(missing)?;
        let text = directory.read_private(name)?.ok_or_else(missing)?;
        Self::parse(text.expose()).map_err(|bad| NoRing::Text(path.to_owned(), bad))
    }

    /// The same. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// [`NoRing::File`], [`NoRing::Text`].
    pub fn read_if_there(path: &Path) -> Result<Option<Self>, NoRing> {
        match Self::read(path) {
            Err(NoRing::Missing(_)) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Puts the ring in the place of the one that is there: on disk when it returns, and never half of it.
    ///
    /// # Errors
    /// [`FileError`]; the file is as it was, or with fsync(2) failing the new one.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let (parent, name) = parts(path)?;
        let missing = FileError { path: parent.to_owned(), problem: Problem::Failed("open", Errno::NOENT) };
        let directory = Directory::open(parent)?.ok_or(missing)?;
        let temporary = format!("{name}~pam_totp");
        directory
            .write_for_good(name, &temporary, self.text().expose())
            .map_err(|error| directory.file_error(name, Problem::Failed("write", error)))
    }

    fn text(&self) -> Secret<Vec<u8>> {
        // Enough: a text that grows would leave a copy behind.
        let mut text = String::with_capacity(128_usize.saturating_add(self.0.len().saturating_mul(128)));
        // Writing there cannot fail.
        let _ = writeln!(text, "# pam_totp key ring. Keep a copy: without it all sealed records are lost.");
        let _ = write!(text, "version = {VERSION}\nkeys = {}\n", self.0.len());
        for Key { id, is_active, key } in &self.0 {
            let _ = write!(text, "\n[[key]]\nid = \"{id}\"\nstate = \"{}\"\nkey = \"", state(*is_active));
            let mut buffer = [0; KEY_TEXT];
            text.push_str(Base64::encode(key.expose(), &mut buffer).unwrap_or_default());
            buffer.zeroize();
            text.push_str("\"\n");
        }
        Secret::new(text.into_bytes())
    }

    /// What [`KeyRing::text`] writes, with comments and empty lines in it, and no other TOML. It is read where it stands: a copy
    /// would not be wiped.
    fn parse(text: &[u8]) -> Result<Self, BadRing> {
        let last = || text.split(|&byte| byte == b'\n').count();
        let text = std::str::from_utf8(text).map_err(|_| BadRing::Line(last()))?;
        // A last line that does not end may have been longer.
        let text = text.strip_suffix('\n').ok_or_else(|| BadRing::Line(last()))?;
        let mut file = File::default();
        for (number, line) in (1..).zip(text.split('\n')) {
            if !(line.is_empty() || line.starts_with('#')) {
                file.line(line).ok_or(BadRing::Line(number))?;
            }
            if let Some(version) = file.version.filter(|&version| version != u64::from(VERSION)) {
                return Err(BadRing::Version(version));
            }
        }
        file.ring(last())
    }
}

const fn state(is_active: bool) -> &'static str {
    if is_active { "active" } else { "decrypt-only" }
}

/// A ring as it is written.
#[derive(Default)]
struct File {
    version: Option<u64>,
    keys: Option<usize>,
    key: Vec<KeyTable>,
}

#[derive(Default)]
struct KeyTable {
    id: Option<KeyId>,
    is_active: Option<bool>,
    key: Option<Secret<[u8; KEY]>>,
}

impl File {
    /// `None`: not such a line.
    fn line(&mut self, line: &str) -> Option<()> {
        if line == "[[key]]" {
            self.keys?;
            self.key.push(KeyTable::default());
            return Some(());
        }
        let (name, value) = line.split_once(" = ")?;
        match (self.key.last_mut(), name) {
            (None, "version") => put(&mut self.version, value.parse().ok()),
            // What follows is another version's.
            (None, "keys") if self.version.is_some() => put(&mut self.keys, value.parse().ok()),
            (Some(key), "id") => put(&mut key.id, KeyId::parse(quoted(value)?)),
            (Some(key), "state") => put(&mut key.is_active, is_active(quoted(value)?)),
            (Some(key), "key") => put(&mut key.key, decoded(quoted(value)?)),
            _ => None,
        }
    }

    fn ring(self, last_line: usize) -> Result<KeyRing, BadRing> {
        let expected = self.keys.ok_or(BadRing::Line(last_line))?;
        let whole = |table: KeyTable| Some(Key { id: table.id?, is_active: table.is_active?, key: table.key? });
        let keys: Option<Vec<_>> = self.key.into_iter().map(whole).collect();
        let keys = keys.ok_or(BadRing::Line(last_line))?;
        if keys.len() != expected {
            return Err(BadRing::Count(keys.len(), expected));
        }
        let mut active = None;
        for (place, key) in keys.iter().enumerate() {
            if keys.iter().take(place).any(|other| other.id == key.id) {
                return Err(BadRing::Twice(key.id));
            }
            if key.is_active
                && let Some(other) = active.replace(key.id)
            {
                return Err(BadRing::TwoActive(other, key.id));
            }
        }
        Ok(KeyRing(keys))
    }
}

/// Puts a value in its place. `None`: there is no value, or there was one already.
fn put<T>(place: &mut Option<T>, value: Option<T>) -> Option<()> {
    let value = value.filter(|_| place.is_none())?;
    *place = Some(value);
    Some(())
}

fn quoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

fn is_active(text: &str) -> Option<bool> {
    [true, false].into_iter().find(|&is_active| state(is_active) == text)
}

/// A key of exactly so many bytes.
fn decoded(text: &str) -> Option<Secret<[u8; KEY]>> {
    let mut buffer = [0; KEY];
    let length = Base64::decode(text, &mut buffer).map(<[u8]>::len);
    let key = Secret::new(buffer);
    buffer.zeroize();
    (length == Ok(KEY)).then_some(key)
}

#[cfg(test)]
mod tests;
