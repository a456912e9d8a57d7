//! What the fleet's documents say, before they are sealed.
//!
//! | key behind the prefix | what it says |
//! |---|---|
//! | `fleet` | that there is a fleet, and which |
//! | `enrolled/HASH` | of some names, who has ever had a device |
//! | `people/NAME` | somebody's record, whether they ever had one, their tickets, their part of the ledger |
//! | `people/NAME,new-keys` | the part of the ledger of those who come with a key of an account and have no device |
//! | `sources/HASH` | the failures from some sources |
//! | `nobody/HASH` | the failures of names that do not exist |
//! | `hosts/HOST` | a host, and which keys of the ring it has |
//!
//! NAME is that of a file in the root-only store. A person's key is never deleted: somebody whose record was removed has a document
//! that says so.

use super::counts::{Counts, Row};
use crate::fact::Fact;
use crate::record::native::{Document, SIZE};
use crate::secret::Secret;
use crate::store::Ticket;
use crate::words::{Reader, Writer};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Hosts that a document remembers that somebody logged in at; of more, the latest.
const HOSTS: usize = 32;
/// Buckets of sources. With [`ROWS`] in each, that bounds what people from everywhere can fill.
const SOURCES: u16 = 4096;
/// Sources in a bucket.
const ROWS: usize = 8;
/// Buckets of names of who has ever had a device: of a million people there are 4000 in each, at eight bytes.
const ENROLLED_BUCKETS: u16 = 256;
/// Buckets of names that do not exist; a row in each.
const NOBODIES: u16 = 256;

/// That there is a fleet.
pub(super) const FLEET: &str = "fleet";
pub(super) const PEOPLE: &str = "people/";
pub(super) const ENROLLED: &str = "enrolled/";
pub(super) const HOSTS_AT: &str = "hosts/";
pub(super) const SOURCES_AT: &str = "sources/";
pub(super) const NOBODY_AT: &str = "nobody/";

/// The key of somebody's document, by the name of their file.
pub(super) fn of_person(file_name: &str) -> String {
    format!("{PEOPLE}{file_name}")
}

/// That of all together who come with a key of an account and have no device. No key is called so.
pub(super) fn of_newcomers(account: &str) -> String {
    format!("{PEOPLE}{account},new-keys")
}

/// Where it is remembered that somebody has had a device.
pub(super) fn of_enrolled(file_name: &str) -> String {
    format!("{ENROLLED}{:02x}", bucket(file_name.as_bytes(), ENROLLED_BUCKETS))
}

/// All such places. They are made with the fleet.
pub(super) fn all_enrolled() -> impl Iterator<Item = String> {
    (0..ENROLLED_BUCKETS).map(|bucket| format!("{ENROLLED}{bucket:02x}"))
}

pub(super) fn of_source(source: &[u8]) -> String {
    format!("{SOURCES_AT}{:03x}", bucket(source, SOURCES))
}

pub(super) fn of_nobody(name: &[u8]) -> String {
    format!("{NOBODY_AT}{:02x}", bucket(name, NOBODIES))
}

/// Whoever fills a bucket on purpose has gained that one source more goes uncounted; people's rows bind.
fn bucket(what: &[u8], buckets: u16) -> u16 {
    let digest = Sha256::digest(what);
    let number = digest.iter().take(2).fold(0_u16, |number, &byte| number << 8 | u16::from(byte));
    number.checked_rem(buckets).unwrap_or(0)
}

/// What there is of somebody.
#[derive(Default)]
pub(super) struct Of {
    /// Their uid, once it matters whose this is.
    pub(super) uid: Option<u32>,
    /// They had a device once, and are not let pass without.
    pub(super) had_one: bool,
    pub(super) record: Option<Document>,
    /// This host was revoked: what it could read was taken from them.
    pub(super) revoked: Option<String>,
    pub(super) tickets: Vec<Invitation>,
    pub(super) counts: Counts,
    /// Where they were let in, and when last, in seconds since 1970.
    pub(super) let_in_at: BTreeMap<String, u64>,
}

/// A ticket of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invitation {
    /// The SHA-256 of its word.
    pub(super) hash: [u8; 32],
    /// The one of its people whose alone it is, by the name of their file. `None`: anybody's.
    pub(super) holder: Option<String>,
    pub(super) ticket: Ticket,
}

impl Of {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: text };
        Self::read(&mut reader).filter(|_| reader.rest.is_empty())
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        let (uid, had_one) = (reader.maybe(Reader::number)?, reader.bool()?);
        let record = match reader.maybe(Reader::text)? {
            Some(text) => {
                // Line feeds fill it up, which are not kept.
                let mut whole = Vec::with_capacity(SIZE);
                whole.extend_from_slice(text);
                whole.resize(SIZE, b'\n');
                Some(Document::parse(Secret::new(whole).expose()).ok()?)
            }
            None => None,
        };
        let revoked = reader.maybe(Reader::string)?;
        let count = reader.number()?;
        let tickets = (0..count).map(|_| Invitation::read(reader)).collect::<Option<_>>()?;
        let counts = Counts::read(reader)?;
        let count = reader.number()?;
        let let_in_at = (0..count).map(|_| Some((reader.string()?, reader.long()?))).collect::<Option<_>>()?;
        Some(Self { uid, had_one, record, revoked, tickets, counts, let_in_at })
    }

    pub(super) fn text(&self) -> Result<Secret<Vec<u8>>, Fact> {
        let Self { uid, had_one, record, revoked, tickets, counts, let_in_at } = self;
        let writer = Writer::new().maybe_number(*uid).byte((*had_one).into());
        let text = record.as_ref().map(Document::text).transpose().map_err(|too_large| too_large.fact())?;
        let writer = writer.maybe_text(text.as_ref().map(|text| text.expose().trim_ascii_end()));
        let writer = writer.maybe_text(revoked.as_ref().map(String::as_bytes));
        let writer = tickets.iter().fold(writer.count(tickets.len()), |writer, ticket| ticket.write(writer));
        let writer = counts.write(writer).count(let_in_at.len());
        let writer = let_in_at.iter().fold(writer, |writer, (host, when)| writer.text(host.as_bytes()).long(*when));
        writer.end().map_err(|_| too_large())
    }

    /// Remembers that they were let in.
    pub(super) fn was_let_in(&mut self, host: &str, now: u64) {
        self.let_in_at.insert(host.to_owned(), now);
        while self.let_in_at.len() > HOSTS {
            let oldest = self.let_in_at.iter().min_by_key(|(_, when)| **when).map(|(host, _)| host.clone());
            let Some(oldest) = oldest else { return };
            self.let_in_at.remove(&oldest);
        }
    }
}

impl Invitation {
    fn read(reader: &mut Reader) -> Option<Self> {
        let (hash, holder) = (reader.text()?.try_into().ok()?, reader.maybe(Reader::string)?);
        let (made, expires) = (reader.long()?, reader.long()?);
        Some(Self { hash, holder, ticket: Ticket { made, expires, device: reader.string()? } })
    }

    fn write(&self, writer: Writer) -> Writer {
        let Self { hash, holder, ticket: Ticket { made, expires, device } } = self;
        let writer = writer.text(hash).maybe_text(holder.as_ref().map(String::as_bytes));
        writer.long(*made).long(*expires).text(device.as_bytes())
    }
}

/// Failures of several who share a document.
#[derive(Default)]
pub(super) struct Bucket {
    /// By what [`crate::source::Source::key`] says; of names that do not exist there is one row, without a name.
    rows: BTreeMap<Vec<u8>, Row>,
}

impl Bucket {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let count = reader.number()?;
        let row = |reader: &mut Reader| Some((reader.text()?.to_vec(), Row::read(reader)?));
        let rows = (0..count).map(|_| row(&mut reader)).collect::<Option<_>>()?;
        reader.rest.is_empty().then_some(Self { rows })
    }

    pub(super) fn text(&self) -> Result<Secret<Vec<u8>>, Fact> {
        let writer = Writer::new().count(self.rows.len());
        let writer = self.rows.iter().fold(writer, |writer, (name, row)| row.write(writer.text(name)));
        writer.end().map_err(|_| too_large())
    }

    /// A row, one that is made, or one of somebody whose failures are all over. `None`: there is no room.
    pub(super) fn row(&mut self, name: &[u8], now: u64) -> Option<&mut Row> {
        if !self.rows.contains_key(name) {
            self.rows.retain(|_, row| !row.is_over(now));
            if self.rows.len() >= ROWS {
                return None;
            }
        }
        Some(self.rows.entry(name.to_vec()).or_default())
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], &Row)> {
        self.rows.iter().map(|(name, row)| (name.as_slice(), row))
    }
}

/// Of whom it is remembered that they have had a device, whatever becomes of their own documents.
#[derive(Default)]
pub(super) struct Enrolled(BTreeSet<u64>);

impl Enrolled {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let count = reader.number()?;
        let names = (0..count).map(|_| reader.long()).collect::<Option<_>>()?;
        reader.rest.is_empty().then_some(Self(names))
    }

    pub(super) fn text(&self) -> Result<Secret<Vec<u8>>, Fact> {
        let writer = self.0.iter().fold(Writer::new().count(self.0.len()), |writer, &name| writer.long(name));
        writer.end().map_err(|_| too_large())
    }

    /// Those of both.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(super) fn has(&self, file_name: &str) -> bool {
        self.0.contains(&Self::number(file_name))
    }

    /// Says whether that changes anything.
    pub(super) fn set(&mut self, file_name: &str, had_one: bool) -> bool {
        let number = Self::number(file_name);
        if had_one { self.0.insert(number) } else { self.0.remove(&number) }
    }

    /// Of two names that have the same one the other needs a ticket for a first device.
    fn number(file_name: &str) -> u64 {
        Sha256::digest(file_name).iter().skip(8).take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

/// A host of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// What it is called.
    pub name: String,
    /// The keys that its ring had, as [`KeyId`](crate::store::seal::KeyId) is written, and whether each seals.
    pub keys: Vec<(String, bool)>,
    /// Of pam_totp.
    pub version: String,
    /// When it said so, in seconds since 1970.
    pub at: u64,
    /// When it was revoked.
    pub revoked: Option<u64>,
}

impl Host {
    /// Whether nothing of what it says of itself could be read: what seals it is none of this host's keys, or it is something else.
    pub const fn is_unread(&self) -> bool {
        self.version.is_empty() && self.revoked.is_none()
    }

    pub(super) fn parse(name: &str, text: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let count = reader.number()?;
        let keys = (0..count).map(|_| Some((reader.string()?, reader.bool()?))).collect::<Option<_>>()?;
        let host = Self {
            name: name.to_owned(),
            keys,
            version: reader.string()?,
            at: reader.long()?,
            revoked: reader.maybe(Reader::long)?,
        };
        reader.rest.is_empty().then_some(host)
    }

    pub(super) fn text(&self) -> Result<Secret<Vec<u8>>, Fact> {
        let writer = Writer::new().count(self.keys.len());
        let key =
            |writer: Writer, (id, is_active): &(String, bool)| writer.text(id.as_bytes()).byte((*is_active).into());
        let writer = self.keys.iter().fold(writer, key);
        writer.text(self.version.as_bytes()).long(self.at).maybe_long(self.revoked).end().map_err(|_| too_large())
    }
}

/// The hash of a ticket's word, which has 120 bits and needs no salt.
pub(super) fn hash(word: &[u8]) -> [u8; 32] {
    Sha256::digest(word).into()
}

fn too_large() -> Fact {
    Fact::new("bad-document").or("it has become too large")
}
