//! A login between two requests, sealed: the module keeps it, and can neither read nor change it.
//!
//! It is good for whoever began it, for [`LIFE`], and no longer than this process lives. Given back twice it is another guess,
//! which costs what a guess costs.

use super::super::wire::Knock;
use crate::authenticate::{Away, Pending, Trial};
use crate::fact::Fact;
use crate::identity::Person;
use crate::ledger::Receipt;
use crate::otp::RecoveryCode;
use crate::record::Record;
use crate::record::native::Document;
use crate::secret::Secret;
use crate::store::seal::KeyRing;
use crate::store::{Grounds, Ticket};
use crate::words::{Reader, Writer};

/// How long somebody may type, in seconds: sshd waits two minutes (LoginGraceTime), and others longer.
pub(super) const LIFE: u64 = 600;
/// For nothing else.
const PURPOSE: &str = "login";

/// A login that waits for an answer.
pub(super) struct Resting {
    pub(super) away: Away,
    pub(super) pending: Pending,
}

impl Resting {
    /// Puts it into words that nobody else can read.
    pub(super) fn seal(&self, key: &KeyRing, peer: u32, knock: &Knock, now: u64) -> Result<Vec<u8>, Fact> {
        let writer = self.write(Writer::new().long(now).knock(knock));
        put_away(key, (PURPOSE, peer), writer, || Fact::new("login-too-long"))
    }

    /// Reads it again.
    pub(super) fn open(key: &KeyRing, peer: u32, sealed: &[u8], now: u64) -> Result<(Knock, Self), Fact> {
        let unknown = || {
            Fact::new("unknown-login")
                .or("the agent was started anew while somebody typed, or these are words of another's")
        };
        let read = |reader: &mut Reader| Some((reader.long()?, reader.knock()?, Self::read(reader)?));
        let (began, knock, resting) = taken_up(key, (PURPOSE, peer), sealed, read).ok_or_else(unknown)?;
        ensure_in_time(began, now)?;
        Ok((knock, resting))
    }

    fn write(&self, writer: Writer) -> Writer {
        let writer = writer.byte(self.away.was_no_code.into()).byte(self.away.is_in_doubt.into());
        let writer = writer.count(self.away.receipts.len());
        let writer = self.away.receipts.iter().fold(writer, write_receipt);
        match &self.pending {
            Pending::Code => writer.byte(b'c'),
            Pending::Grace => writer.byte(b'p'),
            Pending::Grounds => writer.byte(b'g'),
            Pending::FirstCode(trial) => write_trial(writer.byte(b'f'), trial),
        }
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        let (was_no_code, is_in_doubt, receipts) = (reader.bool()?, reader.bool()?, reader.number()?);
        let receipts = (0..receipts).map(|_| read_receipt(reader)).collect::<Option<_>>()?;
        let pending = match reader.byte()? {
            b'c' => Pending::Code,
            b'p' => Pending::Grace,
            b'g' => Pending::Grounds,
            b'f' => Pending::FirstCode(Box::new(read_trial(reader)?)),
            _ => return None,
        };
        Some(Self { away: Away { was_no_code, is_in_doubt, receipts }, pending })
    }
}

/// Seals words that come back to this process alone, for one purpose, from this uid.
pub(super) fn put_away(
    key: &KeyRing,
    (purpose, peer): (&str, u32),
    words: Writer,
    too_long: impl FnOnce() -> Fact,
) -> Result<Vec<u8>, Fact> {
    let text = words.end().map_err(|_| too_long())?;
    key.seal(purpose, &peer.to_be_bytes(), text.expose()).map_err(|error| error.fact())
}

/// Reads such words to their end. `None`: they are none of ours, for another purpose, or from another uid.
pub(super) fn taken_up<T>(
    key: &KeyRing,
    (purpose, peer): (&str, u32),
    sealed: &[u8],
    read: impl FnOnce(&mut Reader) -> Option<T>,
) -> Option<T> {
    let text = key.open(purpose, &peer.to_be_bytes(), sealed).ok()?;
    let mut reader = Reader { rest: text.expose() };
    read(&mut reader).filter(|_| reader.rest.is_empty())
}

/// Fails where they were put away too long ago.
pub(super) fn ensure_in_time(began: u64, now: u64) -> Result<(), Fact> {
    let is_in_time = now.checked_sub(began).is_some_and(|age| age < LIFE);
    if is_in_time { Ok(()) } else { Err(Fact::new("typed-too-late").with_number("seconds", LIFE)) }
}

fn write_receipt(writer: Writer, receipt: &Receipt) -> Writer {
    let writer = writer.count(receipt.entries.len());
    let writer = receipt.entries.iter().fold(writer, |writer, (place, word)| writer.number(*place).long(*word));
    writer.maybe_number(receipt.counter)
}

fn read_receipt(reader: &mut Reader) -> Option<Receipt> {
    let entries = reader.number()?;
    let entries = (0..entries).map(|_| Some((reader.number()?, reader.long()?))).collect::<Option<_>>()?;
    Some(Receipt { entries, counter: reader.maybe(Reader::number)? })
}

// The record to be is written as the store would, of nobody.
const NOBODY: (&str, u32) = ("-", 0);

pub(super) fn write_record(writer: Writer, record: &Record) -> Writer {
    let document = Document { user: NOBODY.0.to_owned(), uid: NOBODY.1, generation: 0, record: record.clone() };
    // One device fits in any record; what does not is nothing that can be read.
    let text = document.text().unwrap_or_else(|_| Secret::new(Vec::new()));
    writer.text(text.expose())
}

pub(super) fn read_record(reader: &mut Reader) -> Option<Record> {
    Some(Document::parse(reader.text()?).ok()?.record)
}

fn write_trial(writer: Writer, Trial { grounds, record, failures }: &Trial) -> Writer {
    let writer = write_record(writer, record).count(*failures);
    match grounds {
        Grounds::First => writer.byte(b'f'),
        Grounds::Ticket(word, ticket) => {
            writer.byte(b't').text(word.expose()).long(ticket.made).long(ticket.expires).text(ticket.device.as_bytes())
        }
        Grounds::Account(voucher, device) => {
            let (account, key) = (voucher.account(), voucher.key().unwrap_or_default());
            writer.byte(b'a').text(account.name()).text(key.as_bytes()).text(device.as_bytes())
        }
    }
}

fn read_trial(reader: &mut Reader) -> Option<Trial> {
    let record = read_record(reader)?;
    let failures = usize::try_from(reader.number()?).ok()?;
    let grounds = match reader.byte()? {
        b'f' => Grounds::First,
        b't' => {
            let word = RecoveryCode::new(reader.text()?.try_into().ok()?);
            let (made, expires) = (reader.long()?, reader.long()?);
            Grounds::Ticket(word, Ticket { made, expires, device: reader.string()? })
        }
        b'a' => {
            let account = Person::in_database(reader.text()?).ok()?;
            let key = reader.string()?;
            let voucher = if key.is_empty() { account } else { account.holder(&key)? };
            Grounds::Account(voucher, reader.string()?)
        }
        _ => return None,
    };
    Some(Trial { grounds, record, failures })
}
