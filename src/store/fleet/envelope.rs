//! How a document lies in the cluster: what everybody may know in front, the rest sealed.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | [`VERSION`] |
//! | 16 | the document's id, drawn when its key is first written |
//! | 8 | its sequence: one more at each write |
//! | 8 | the key's version in the cluster when it was written |
//! | 8 | the cluster's revision at which the key was made; 0: it was made by this write |
//! | the rest | sealed, with all of the above, the key and the fleet bound to it |
//!
//! A document that is moved to another key, to another fleet or under another id does not open. One that is put back lies at
//! another version of its key than it was written for, or where the key was deleted before, at a key that was made later: any host
//! sees that. Only the first one that ever was at a key can be put there again, and what a restored cluster has is all of one
//! time: that is older than what the host remembers (see marks.rs).

use crate::fact::Fact;
use crate::secret::Secret;
use crate::store::seal::{KeyId, KeyRing, Unopened, key_of};
use crate::system::random;
use crate::words::{Reader, Writer};

/// What documents are sealed for.
const PURPOSE: &str = "document of the fleet";
/// Of the layout here, and of what is sealed.
const VERSION: u8 = 1;
/// Bytes of an id.
pub(super) const ID: usize = 16;
/// Attempts that a document remembers. Whoever does not know whether its write is there looks for it within seconds.
const ATTEMPTS: usize = 8;

/// Tells one document from all others that were ever at its key.
pub(super) type Id = [u8; ID];

/// What is in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: Id,
    pub(super) sequence: u64,
    pub(super) version: u64,
    pub(super) created: u64,
}

/// What is sealed.
pub(super) struct Inside {
    /// The writes that led here, the latest last.
    pub(super) attempts: Vec<Id>,
    /// The documents in whose place root has put this one.
    pub(super) replaces: Vec<Id>,
    /// When it was written, in seconds since 1970.
    pub(super) at: u64,
    /// By which host.
    pub(super) by: String,
    /// What it is about.
    pub(super) body: Secret<Vec<u8>>,
}

/// What it is bound to besides.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Which fleet.
    pub(super) fleet: &'a Id,
    /// Where in the cluster.
    pub(super) key: &'a [u8],
}

impl Head {
    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.sequence, self.version, self.created].map(u64::to_be_bytes);
        [&[VERSION], &self.id[..], numbers.as_flattened()].concat()
    }

    /// Whether it lies where and when it was written for: at this version of a key that was made at this revision.
    pub(super) const fn fits(&self, version: u64, created: u64) -> bool {
        self.version == version && (self.created == created || self.created == 0 && version == 1)
    }

    /// The front, and what is behind it.
    fn split(value: &[u8]) -> Result<(Self, &[u8]), Fact> {
        match value.split_first() {
            Some((&VERSION, _)) => {}
            Some((&version, _)) if version > VERSION => {
                return Err(bad().with_number("version", version).or("written by a newer pam_totp: update this one"));
            }
            _ => return Err(foreign()),
        }
        let mut reader = Reader { rest: value };
        let head = (|| {
            reader.byte()?;
            let (id, rest) = reader.rest.split_first_chunk()?;
            reader.rest = rest;
            Some(Self { id: *id, sequence: reader.long()?, version: reader.long()?, created: reader.long()? })
        })();
        Ok((head.ok_or_else(foreign)?, reader.rest))
    }

    fn context(&self, place: Place) -> Vec<u8> {
        [&self.bytes()[..], place.fleet, place.key].concat()
    }
}

impl Inside {
    /// The value that goes to the cluster.
    pub(super) fn seal(&self, ring: &KeyRing, place: Place, head: &Head) -> Result<Vec<u8>, Fact> {
        let writer = Writer::new().byte(VERSION).long(self.at).text(self.by.as_bytes());
        let writer = [&self.attempts, &self.replaces].into_iter().fold(writer, |writer, ids| {
            ids.iter().fold(writer.byte(u8::try_from(ids.len()).unwrap_or(u8::MAX)), |writer, id| writer.text(id))
        });
        let text = writer.text(self.body.expose()).end().map_err(|_| bad().or("it has become too large"))?;
        let sealed = ring.seal(PURPOSE, &head.context(place), text.expose()).map_err(|error| error.fact())?;
        Ok([head.bytes(), sealed].concat())
    }

    /// What is in a value, and which key it is sealed with.
    pub(super) fn open(ring: &KeyRing, place: Place, value: &[u8]) -> Result<(Head, Self, KeyId), Fact> {
        let (head, sealed) = Head::split(value)?;
        let key = key_of(sealed).map_err(Unopened::fact)?;
        let text = ring.open(PURPOSE, &head.context(place), sealed).map_err(|unopened| match unopened {
            Unopened::Broken(_) => unopened
                .fact()
                .or("it was moved here from another place, or is another fleet's: pam-totp fleet accept-rollback, if that was you"),
            unopened => unopened.fact(),
        })?;
        let mut reader = Reader { rest: text.expose() };
        let inside = Self::read(&mut reader).filter(|_| reader.rest.is_empty()).ok_or_else(bad)?;
        Ok((head, inside, key))
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        if reader.byte()? != VERSION {
            return None;
        }
        let (at, by) = (reader.long()?, reader.string()?);
        let mut ids = || {
            let count = reader.byte()?;
            (0..count).map(|_| reader.text()?.try_into().ok()).collect::<Option<Vec<Id>>>()
        };
        let (attempts, replaces) = (ids()?, ids()?);
        Some(Self { attempts, replaces, at, by, body: reader.secret()? })
    }

    /// Adds a write.
    pub(super) fn note(&mut self, attempt: Id) {
        self.attempts.push(attempt);
        let excess = self.attempts.len().saturating_sub(ATTEMPTS);
        self.attempts.drain(..excess);
    }
}

/// The front of a value, whoever can open it.
pub(super) fn head(value: &[u8]) -> Result<Head, Fact> {
    Head::split(value).map(|(head, _)| head)
}

/// Which key a value is sealed with.
pub(super) fn sealed_with(value: &[u8]) -> Result<KeyId, Fact> {
    let (_, sealed) = Head::split(value)?;
    key_of(sealed).map_err(Unopened::fact)
}

pub(super) fn new_id() -> Result<Id, Fact> {
    random::bytes().map_err(|error| Fact::new("no-random-numbers").with_error(error))
}

fn bad() -> Fact {
    Fact::new("bad-document")
}

fn foreign() -> Fact {
    bad().or("this is nothing that pam_totp has written: is the prefix another program's?")
}
