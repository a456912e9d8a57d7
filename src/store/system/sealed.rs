//! A record in its sealed form: a line that says so, the sealed text, and the last byte, which is not sealed as it is written
//! when the rest is on disk (see [`Slot`](crate::system::slot::Slot)).

use super::Stored;
use crate::fact::Fact;
use crate::record::native::{self, Document, ROOM, SEALED, SEALED_LINE, SETTLED, SIZE};
use crate::secret::Secret;
use crate::store::seal::{KeyId, KeyRing, OVERHEAD, Unopened, key_of};

/// What records are sealed for.
const PURPOSE: &str = "record of the root-only store";
/// What the last byte is until the record is settled, and what fills a text up.
const LINE_FEED: u8 = b'\n';

const _: () = assert!(SEALED_LINE + OVERHEAD + ROOM + 1 == SIZE);

/// Reads a record, sealed or not.
pub(super) fn parse(
    ring: &KeyRing,
    context: impl FnOnce() -> Result<Vec<u8>, Fact>,
    text: &[u8],
) -> Result<Stored, Fact> {
    let parsed = |text: &[u8]| Document::parse(text).map_err(|bad| bad.fact());
    if native::sealed_with(text).is_none() || text.len() != SIZE {
        return Ok(Stored { document: parsed(text)?, is_current: ring.active().is_none() });
    }
    let (key, opened) = open(ring, &context()?, text).map_err(Unopened::fact)?;
    Ok(Stored { document: parsed(opened.expose())?, is_current: ring.active() == Some(key) })
}

/// The text of a plain record, and the key that it was sealed with.
fn open(ring: &KeyRing, context: &[u8], text: &[u8]) -> Result<(KeyId, Secret<Vec<u8>>), Unopened> {
    let (line, rest) = text.split_at_checked(SEALED_LINE).ok_or(Unopened::NotSealed)?;
    let (last, sealed) = rest.split_last().ok_or(Unopened::NotSealed)?;
    let key = key_of(sealed)?;
    if line != first_line(key).as_bytes() || ![LINE_FEED, SETTLED].contains(last) {
        return Err(Unopened::NotSealed);
    }
    let opened = ring.open(PURPOSE, context, sealed)?;
    let mut text = Vec::with_capacity(SIZE);
    text.extend_from_slice(opened.expose());
    text.resize(SIZE, LINE_FEED);
    Ok((key, Secret::new(text)))
}

/// The sealed form of a text, not settled.
pub(super) fn text(ring: &KeyRing, context: &[u8], text: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, Fact> {
    let (text, filling) = text.expose().split_at_checked(ROOM).unwrap_or((text.expose(), &[]));
    // Stored before there was a seal.
    if let Some(last) = filling.iter().rposition(|&byte| byte != LINE_FEED) {
        return Err(native::TooLarge(ROOM.saturating_add(last).saturating_add(1)).fact());
    }
    let sealed = ring.seal(PURPOSE, context, text).map_err(|error| error.fact())?;
    let line = key_of(&sealed).map(first_line).map_err(Unopened::fact)?;
    Ok(Secret::new([line.as_bytes(), &sealed, &[LINE_FEED]].concat()))
}

fn first_line(key: KeyId) -> String {
    format!("{SEALED}{key}\n")
}
