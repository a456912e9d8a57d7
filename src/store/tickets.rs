//! Tickets: one-time words by which people whom root has invited get a device inside a login.
//!
//! | in `state_dir` | what it is |
//! |---|---|
//! | `tickets/NAME.UID/HASH` | a ticket of an account, for anybody of it |
//! | `tickets/NAME.UID/HASH.HOLDER` | the same, for one of its people alone |
//!
//! HASH is the SHA-256 of the word, which has 120 bits and needs no salt. A ticket counts only while its holder has no
//! record, so that the commit that makes the record spends it. Where several people share an account, it first becomes that
//! of the one who uses it, by a rename: a second one finds it gone, and whoever was cut off in between finds it.

use super::{Ticket, name_and_uid};
use crate::identity::Person;
use crate::otp::RecoveryCode;
use crate::record::native::{hexadecimal, is_device_name};
use crate::system::Errno;
use crate::system::files::{FileError, Problem};
use crate::system::private::Directory;
use sha2::{Digest, Sha256};

const TICKETS: &str = "tickets";
/// What a ticket is called while it is written.
const TEMPORARY: &str = "new";
/// Letters of a hash.
const HASH: usize = 64;

/// The tickets of one account, as one of its people sees them.
pub(super) struct Tickets {
    /// `None`: nobody was ever invited.
    directory: Option<Directory>,
    /// What the names of those that are this person's alone end in.
    own: String,
    /// Whether the person is the account itself.
    is_account: bool,
}

impl Tickets {
    pub(super) fn new(state_dir: &Directory, person: &Person) -> Result<Self, FileError> {
        let directory = match state_dir.subdirectory(TICKETS)? {
            Some(tickets) => tickets.subdirectory(&name_and_uid(&person.account()))?,
            None => None,
        };
        Ok(Self::of(directory, person))
    }

    /// The same, made if need be.
    pub(super) fn make(state_dir: &Directory, person: &Person) -> Result<Self, FileError> {
        let tickets = state_dir.make_subdirectory(TICKETS)?;
        let directory = tickets.make_subdirectory(&name_and_uid(&person.account()))?;
        let sync = |directory: &Directory| {
            directory.sync().map_err(|error| directory.file_error("", Problem::NotSynced(error)))
        };
        sync(state_dir)?;
        sync(&tickets)?;
        Ok(Self::of(Some(directory), person))
    }

    fn of(directory: Option<Directory>, person: &Person) -> Self {
        let holder = Sha256::digest(person.file_name());
        let own = format!(".{}", hexadecimal(holder.get(..16).unwrap_or_default()));
        Self { directory, own, is_account: person.key().is_none() }
    }

    /// The ticket that a word is, if it is this person's or anybody's of the account.
    pub(super) fn find(&self, word: &RecoveryCode) -> Result<Option<Ticket>, FileError> {
        let Some(directory) = &self.directory else { return Ok(None) };
        for name in self.names_of(word) {
            match directory.read(&name) {
                Ok(Some(text)) => return Ok(parse(text.expose())),
                Ok(None) => {}
                Err(error) => return Err(directory.file_error(&name, Problem::Failed("read", error))),
            }
        }
        Ok(None)
    }

    /// Whether there is one for this person that is not over.
    pub(super) fn has_one(&self, now: u64) -> Result<bool, FileError> {
        let Some(directory) = &self.directory else { return Ok(false) };
        let is_good = |name: &String| read(directory, name).is_some_and(|ticket| !ticket.is_over(now));
        Ok(self.names(directory)?.iter().filter(|name| self.is_usable(name)).any(is_good))
    }

    /// Makes a ticket this person's alone, on disk. `false`: it is somebody else's by now, or was spent.
    pub(super) fn claim(&self, word: &RecoveryCode) -> Result<bool, FileError> {
        let Some(directory) = &self.directory else { return Ok(false) };
        let [anybodys, own] = self.names_of(word);
        let failed = |call, error| directory.file_error(&anybodys, Problem::Failed(call, error));
        match directory.rename(&anybodys, &own) {
            Ok(()) => {}
            // Cut off the last time.
            Err(Errno::NOENT) => match directory.stat(&own) {
                Ok(_) => {}
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => return Err(failed("stat", error)),
            },
            Err(error) => return Err(failed("rename", error)),
        }
        directory.sync().map_err(|error| directory.file_error("", Problem::NotSynced(error)))?;
        Ok(true)
    }

    /// Writes a ticket down: the person's alone where that is the holder of a key. Those of the account that are over are
    /// removed.
    pub(super) fn put(&self, word: &RecoveryCode, ticket: &Ticket) -> Result<(), FileError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        for name in self.names(directory)? {
            if read(directory, &name).is_none_or(|old| old.is_over(ticket.made)) {
                let _ = directory.remove(&name);
            }
        }
        let [anybodys, own] = self.names_of(word);
        let name = if self.is_account { anybodys } else { own };
        directory
            .write_for_good(&name, TEMPORARY, text(ticket).as_bytes())
            .map_err(|error| directory.file_error(&name, Problem::Failed("write", error)))
    }

    /// Takes back what this person could use: of the account all tickets, of the holder of a key those for that alone.
    pub(super) fn withdraw(&self) -> Result<usize, FileError> {
        if self.is_account { self.remove(|_| true) } else { self.withdraw_own() }
    }

    /// Takes back what this person could use, and nothing that is somebody else's alone.
    pub(super) fn withdraw_usable(&self) -> Result<usize, FileError> {
        self.remove(|name| self.is_usable(name))
    }

    /// Takes back those that are this person's alone.
    pub(super) fn withdraw_own(&self) -> Result<usize, FileError> {
        self.remove(|name| name.ends_with(&self.own))
    }

    fn remove(&self, is_meant: impl Fn(&String) -> bool) -> Result<usize, FileError> {
        let Some(directory) = &self.directory else { return Ok(0) };
        let names: Vec<String> = self.names(directory)?.into_iter().filter(is_meant).collect();
        let removed = names.iter().try_for_each(|name| directory.remove(name)).and_then(|()| directory.sync());
        removed.map_err(|error| directory.file_error("", Problem::Failed("unlink", error)))?;
        Ok(names.len())
    }

    /// Names that a word's ticket can have for this person.
    fn names_of(&self, word: &RecoveryCode) -> [String; 2] {
        let hash = hexadecimal(&Sha256::digest(word.expose()));
        [hash.clone(), hash + &self.own]
    }

    fn is_usable(&self, name: &str) -> bool {
        name.strip_suffix(&self.own).unwrap_or(name).len() == HASH
    }

    fn names(&self, directory: &Directory) -> Result<Vec<String>, FileError> {
        let mut names = Vec::new();
        let read = directory.for_each_name(|name| names.push(name.to_owned()));
        read.map_err(|error| directory.file_error("", Problem::Failed("readdir", error)))?;
        Ok(names)
    }
}

/// The ticket in a file. `None`: there is none, or it cannot be read.
fn read(directory: &Directory, name: &str) -> Option<Ticket> {
    parse(directory.read(name).ok()??.expose())
}

fn text(Ticket { made, expires, device }: &Ticket) -> String {
    format!("made = {made}\nexpires = {expires}\ndevice = \"{device}\"\n")
}

/// What [`text`] writes. `None`: anything else, which is no ticket.
fn parse(text: &[u8]) -> Option<Ticket> {
    let mut lines = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split('\n');
    let made = lines.next()?.strip_prefix("made = ")?.parse().ok()?;
    let expires = lines.next()?.strip_prefix("expires = ")?.parse().ok()?;
    let device = lines.next()?.strip_prefix("device = \"")?.strip_suffix('"')?.to_owned();
    (lines.next().is_none() && is_device_name(&device)).then_some(Ticket { made, expires, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_as_it_was_written_and_nothing_else_is_one() {
        let ticket = Ticket { made: 1, expires: 2, device: "alice's phone".to_owned() };
        let whole = text(&ticket);
        assert_eq!(parse(whole.as_bytes()), Some(ticket));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..length]), None, "{length}");
        }
        for other in
            ["made = 1\nexpires = -2\ndevice = \"x\"\n", "made = 1\nexpires = 2\ndevice = \"\"\n", &(whole + "x\n")]
        {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
