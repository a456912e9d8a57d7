//! Documents that are read, changed and written as if nobody else were there.

use super::document::{self, Bucket, Of};
use super::envelope::{self, Head, Id, Inside, Place};
use super::marks::Mark;
use super::turns::{Crowded, Turn};
use super::{Commit, FleetStore, Guard, Put};
use crate::fact::Fact;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::seal::KeyId;
use crate::system::{clock, lock, random, syslog};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long to wait before something is tried again that could not be told.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest way that is given to others, in milliseconds.
const MOST_WAY: u64 = 64;

/// Why nothing was stored.
pub(super) enum Undone {
    /// Somebody else was faster, or had to be waited for: it has to be decided again.
    Stale,
    Failed(StoreError),
}

/// What is read and written together.
pub(super) struct Transaction<'s, 'a> {
    pub(super) store: &'s FleetStore<'a>,
    deadline: Instant,
    /// Which fleet it is.
    fleet: Id,
    read: BTreeMap<String, Entry>,
    /// What is to be written.
    bodies: BTreeMap<String, Secret<Vec<u8>>>,
    /// What was read, with what was written since, is what there was at that moment.
    is_current: bool,
    /// Held until the end by whoever means to write. `None`: it is only looked at.
    turns: Option<Vec<Turn<'s>>>,
    /// Whether turns are waited for.
    is_patient: bool,
    /// Whether it ends where too many wait for theirs.
    is_modest: bool,
    /// How often somebody else was faster.
    defeats: u32,
}

/// A document as it was read, or that there is none.
#[derive(Default)]
struct Entry {
    revision: u64,
    version: u64,
    created: u64,
    opened: Option<Opened>,
}

struct Opened {
    head: Head,
    inside: Inside,
    key: KeyId,
}

impl<'s, 'a> Transaction<'s, 'a> {
    /// Reads documents, all at one moment, to look at them.
    pub(super) fn begin(store: &'s FleetStore<'a>, keys: &[String], deadline: Instant) -> Result<Self, StoreError> {
        Self::new(store, deadline, None).with(keys)
    }

    /// Reads documents, all at one moment, to write them.
    pub(super) fn in_turn(store: &'s FleetStore<'a>, keys: &[String], deadline: Instant) -> Result<Self, StoreError> {
        Self::new(store, deadline, Some(Vec::new())).with(keys)
    }

    /// Until something was written it is given up where too many are about to write the same.
    pub(super) fn modest(self) -> Self {
        Self { is_modest: true, ..self }
    }

    fn new(store: &'s FleetStore<'a>, deadline: Instant, turns: Option<Vec<Turn<'s>>>) -> Self {
        Self {
            store,
            deadline,
            fleet: Id::default(),
            read: BTreeMap::new(),
            bodies: BTreeMap::new(),
            is_current: true,
            turns,
            is_patient: true,
            is_modest: false,
            defeats: 0,
        }
    }

    fn with(mut self, keys: &[String]) -> Result<Self, StoreError> {
        let mut with_fleet = vec![document::FLEET.to_owned()];
        with_fleet.extend(keys.iter().filter(|key| *key != document::FLEET).cloned());
        self.read(&with_fleet)?;
        Ok(self)
    }

    /// The same documents, read again.
    pub(super) fn again(self) -> Result<Self, StoreError> {
        if clock::instant() >= self.deadline {
            return Err(StoreError::Unreachable(
                Fact::new("fleet-busy").or("others have changed the same document again and again for five seconds"),
            ));
        }
        let defeats = self.defeats.saturating_add(1);
        give_way(defeats);
        let keys: Vec<_> = self.read.into_keys().collect();
        let (is_patient, is_modest) = (self.is_patient, self.is_modest);
        Self { is_patient, is_modest, defeats, ..Self::new(self.store, self.deadline, self.turns) }.with(&keys)
    }

    /// Whether it can go on after a commit without reading again.
    pub(super) const fn is_current(&self) -> bool {
        self.is_current
    }

    /// Reads what was not read yet.
    pub(super) fn also(&mut self, keys: &[String]) -> Result<(), StoreError> {
        let new: Vec<_> = keys.iter().filter(|key| !self.read.contains_key(*key)).cloned().collect();
        if new.is_empty() { Ok(()) } else { self.read(&new) }
    }

    fn has_turn(&self, key: &str) -> bool {
        self.turns.iter().flatten().any(|turn| turn.is_at(key))
    }

    /// Takes turns at documents that many may want to write, before they are read, where nobody has them. In an order that is the
    /// same for all, and so none behind one that somebody else has.
    fn take_turns(&mut self, keys: &[String]) {
        let is_behind = self.read.keys().any(|key| is_wanted(key) && !self.has_turn(key));
        let Some(turns) = self.turns.as_mut().filter(|_| !is_behind) else { return };
        let mut wanted: Vec<_> = keys.iter().filter(|key| is_wanted(key)).collect();
        wanted.sort();
        wanted.retain(|key| !turns.iter().any(|turn| turn.is_at(key)));
        turns.extend(wanted.into_iter().map_while(|key| self.store.fleet.turns.take(key)));
    }

    /// Waits for those turns that somebody else had when it was read, after which it has to be read again. Whoever has nothing to
    /// write, as they are over a limit, does not wait.
    fn wait_for_turns(&mut self) -> Result<(), Undone> {
        let wanted = self.read.keys().filter(|key| self.is_patient && is_wanted(key) && !self.has_turn(key));
        let wanted: Vec<_> = wanted.cloned().collect();
        for key in &wanted {
            let turn = match self.store.fleet.turns.wait(key, self.deadline) {
                Err(Crowded) if self.is_modest => {
                    let fact = Fact::new("fleet-busy").or("many others are about to change the same document");
                    return Err(Undone::Failed(StoreError::Unreachable(fact)));
                }
                waited => waited.ok().flatten(),
            };
            let Some(turn) = turn else {
                self.is_patient = false;
                break;
            };
            self.turns.get_or_insert_default().push(turn);
        }
        if wanted.is_empty() { Ok(()) } else { Err(Undone::Stale) }
    }

    fn read(&mut self, keys: &[String]) -> Result<(), StoreError> {
        self.take_turns(keys);
        // Before: whatever is in the cluster then is no older.
        let marks = keys.iter().map(|key| self.mark(key)).collect::<Result<Vec<_>, _>>()?;
        let full: Vec<Vec<u8>> = keys.iter().map(|key| self.full(key)).collect();
        let full: Vec<&[u8]> = full.iter().map(Vec::as_slice).collect();
        let found = self.store.fleet.engine.read(&full, self.deadline).map_err(by_engine)?;
        for ((key, mark), found) in keys.iter().zip(marks).zip(found) {
            let entry = match found {
                None if mark.is_some() => return Err(self.shout("document-deleted", key, &[])),
                None if key == document::FLEET => {
                    return Err(StoreError::Unreachable(
                        Fact::new("no-fleet")
                            .with_path(&self.store.path_of_key(key))
                            .or("nothing was ever made there: pam-totp fleet init, or put the prefix right"),
                    ));
                }
                None if key.starts_with(document::ENROLLED) && !self.store.is_being_made() => {
                    return Err(StoreError::Unreachable(
                        Fact::new("no-fleet")
                            .with_path(&self.store.path_of_key(key))
                            .or("it was not made to its end: pam-totp fleet init"),
                    ));
                }
                None => Entry::default(),
                Some(kv) => {
                    let opened = self.open(key, &kv.value).and_then(|opened| {
                        self.check(key, (kv.version, kv.created), &opened, mark)?;
                        Ok(opened)
                    });
                    let opened = match opened {
                        Ok(opened) => Some(opened),
                        // It has been shouted about. What was in it is forgotten: that is no permission.
                        Err(_) if is_expendable(key) => None,
                        Err(error) => return Err(error),
                    };
                    Entry { revision: kv.revision, version: kv.version, created: kv.created, opened }
                }
            };
            if key == document::FLEET
                && let Some(opened) = &entry.opened
            {
                self.fleet = opened.head.id;
            }
            self.read.insert(key.clone(), entry);
        }
        Ok(())
    }

    fn open(&self, key: &str, value: &[u8]) -> Result<Opened, StoreError> {
        let full = self.full(key);
        let opened = Inside::open(self.store.ring, self.place(key, &full), value);
        let (head, inside, seal) = opened.map_err(|fact| self.store.shouted(fact, key))?;
        Ok(Opened { head, inside, key: seal })
    }

    /// The fleet's own document is bound to no other.
    fn place<'k>(&'k self, key: &str, full: &'k [u8]) -> Place<'k> {
        const NONE: &Id = &[0; envelope::ID];
        Place { fleet: if key == document::FLEET { NONE } else { &self.fleet }, key: full }
    }

    /// Whether what was read is what was last written, as far as can be known here.
    fn check(
        &self,
        key: &str,
        (version, created): (u64, u64),
        opened: &Opened,
        mark: Option<Mark>,
    ) -> Result<(), StoreError> {
        let Head { id, sequence, version: written, .. } = opened.head;
        // Those that say who has ever had a device were written twice before anybody had one.
        let is_first = key.starts_with(document::ENROLLED) && opened.head.created == 0 && !self.store.is_being_made();
        if is_first || !opened.head.fits(version, created) {
            return Err(self.shout("document-put-back", key, &[("version", version), ("written", written)]));
        }
        if !is_remembered(key) {
            return Ok(());
        }
        match mark {
            Some(mark) if mark.id == id && sequence < mark.sequence => {
                return Err(self.shout("document-put-back", key, &[("sequence", sequence), ("seen", mark.sequence)]));
            }
            Some(mark) if mark.id != id && !opened.inside.replaces.contains(&mark.id) => {
                return Err(self.shout("document-exchanged", key, &[]));
            }
            Some(mark) if mark.id == id && mark.sequence == sequence => return Ok(()),
            _ => {}
        }
        self.remember(key, Mark { id, sequence });
        Ok(())
    }

    fn mark(&self, key: &str) -> Result<Option<Mark>, StoreError> {
        if !is_remembered(key) {
            return Ok(None);
        }
        self.store.marks.get(&mark_name(key)).map_err(|error| {
            StoreError::Failed(
                error.fact().or("what this host remembers of the fleet is broken: pam-totp fleet accept-rollback"),
            )
        })
    }

    /// What cannot be written down is found out later, or by another host.
    fn remember(&self, key: &str, mark: Mark) {
        if is_remembered(key)
            && let Err(error) = self.store.marks.raise(&mark_name(key), mark)
        {
            let line = format!("reason={}", Fact::new("fleet-mark").because(&error.fact()));
            syslog::write(c"pam_totp(fleet)", libc::LOG_WARNING, &line);
        }
    }

    fn shout(&self, word: &'static str, key: &str, numbers: &[(&'static str, u64)]) -> StoreError {
        let fact = numbers.iter().fold(Fact::new(word), |fact, (name, number)| fact.with_number(name, number));
        self.store.shouted(
            fact.or(
                "somebody has put old data into the cluster, or deleted some, or it was restored: find out, and then \
                     pam-totp fleet accept-rollback",
            ),
            key,
        )
    }

    // ---- What is in them ----

    /// What there is of somebody: what is about to be written, or else what was read.
    pub(super) fn person(&self, key: &str) -> Result<Of, StoreError> {
        let Some(body) = self.body(key) else { return Ok(Of::default()) };
        let of = Of::parse(body).ok_or_else(|| self.unreadable(key))?;
        // There was another write before that of a record or a ticket, so that it can be nowhere but where it was.
        let is_first =
            self.read.get(key).and_then(|entry| entry.opened.as_ref()).is_some_and(|opened| opened.head.created == 0);
        let holds_something = of.record.is_some() || !of.tickets.is_empty();
        if is_first && holds_something && !self.bodies.contains_key(key) {
            return Err(self.shout("document-put-back", key, &[]));
        }
        Ok(of)
    }

    /// Whether a document is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.body(key).is_some()
    }

    /// Of which names it is remembered that they had a device.
    pub(super) fn enrolled(&self, key: &str) -> Result<document::Enrolled, StoreError> {
        self.body(key).map_or_else(
            || Ok(document::Enrolled::default()),
            |body| document::Enrolled::parse(body).ok_or_else(|| self.unreadable(key)),
        )
    }

    pub(super) fn put_enrolled(&mut self, key: &str, enrolled: &document::Enrolled) -> Result<(), StoreError> {
        self.put(key, enrolled.text().map_err(StoreError::Failed)?);
        Ok(())
    }

    pub(super) fn bucket(&self, key: &str) -> Result<Bucket, StoreError> {
        self.body(key)
            .map_or_else(|| Ok(Bucket::default()), |body| Bucket::parse(body).ok_or_else(|| self.unreadable(key)))
    }

    pub(super) fn host(&self, key: &str, name: &str) -> Result<document::Host, StoreError> {
        let new = || document::Host { name: name.to_owned(), ..document::Host::default() };
        self.body(key)
            .map_or_else(|| Ok(new()), |body| document::Host::parse(name, body).ok_or_else(|| self.unreadable(key)))
    }

    fn body(&self, key: &str) -> Option<&[u8]> {
        let read = || self.read.get(key)?.opened.as_ref().map(|opened| opened.inside.body.expose());
        self.bodies.get(key).map(Secret::expose).or_else(read).map(Vec::as_slice)
    }

    /// Which key a document is sealed with, and when it was written by which host.
    pub(super) fn written(&self, key: &str) -> Option<(KeyId, u64, &str)> {
        let opened = self.read.get(key)?.opened.as_ref()?;
        Some((opened.key, opened.inside.at, &opened.inside.by))
    }

    /// When a document was written, and at which revision of the cluster.
    pub(super) fn moment(&self, key: &str) -> Option<(u64, u64)> {
        let entry = self.read.get(key)?;
        Some((entry.opened.as_ref()?.inside.at, entry.revision))
    }

    fn unreadable(&self, key: &str) -> StoreError {
        StoreError::Failed(
            Fact::new("bad-document")
                .with_path(&self.store.path_of_key(key))
                .or("written by another version of pam_totp: update this one"),
        )
    }

    // ---- Writing ----

    pub(super) fn put_person(&mut self, key: &str, of: &Of) -> Result<(), StoreError> {
        self.put(key, of.text().map_err(StoreError::Failed)?);
        Ok(())
    }

    pub(super) fn put_bucket(&mut self, key: &str, bucket: &Bucket) -> Result<(), StoreError> {
        self.put(key, bucket.text().map_err(StoreError::Failed)?);
        Ok(())
    }

    pub(super) fn put(&mut self, key: &str, body: Secret<Vec<u8>>) {
        self.bodies.insert(key.to_owned(), body);
    }

    /// Whether there is anything to write.
    pub(super) fn is_to_write(&self) -> bool {
        !self.bodies.is_empty()
    }

    /// Writes nothing of what was put so far.
    pub(super) fn forget(&mut self) {
        self.bodies.clear();
    }

    /// Whether a document is there, and was written more than once.
    pub(super) fn is_written_again(&self, key: &str) -> bool {
        self.read.get(key).and_then(|entry| entry.opened.as_ref()).is_some_and(|opened| opened.head.created != 0)
    }

    /// Writes a document once more that was written once.
    pub(super) fn keep_if_first(&mut self, key: &str) -> Result<(), StoreError> {
        if self.is_written_again(key) { Ok(()) } else { self.keep(key) }
    }

    /// Writes a document as it is, with the key that seals now. One that was spoiled is written empty.
    pub(super) fn keep(&mut self, key: &str) -> Result<(), StoreError> {
        let is_there = self.read.get(key).is_some_and(|entry| entry.revision != 0);
        let body = match self.body(key) {
            Some(body) => Secret::new(body.to_vec()),
            None if !is_there => return Ok(()),
            None if key.starts_with(document::HOSTS_AT) => {
                document::Host::default().text().map_err(StoreError::Failed)?
            }
            None => Bucket::default().text().map_err(StoreError::Failed)?,
        };
        self.put(key, body);
        Ok(())
    }

    /// Stores what was put, if nothing of what was read has changed.
    ///
    /// Where it cannot be told whether it is there, the same is tried again: it can be there once, and no more.
    pub(super) fn commit(&mut self) -> Result<(), Undone> {
        if self.bodies.is_empty() {
            return Ok(());
        }
        self.wait_for_turns()?;
        let attempt = envelope::new_id().map_err(failed)?;
        let (puts, written): (Vec<_>, Vec<_>) = self.sealed(attempt).map_err(Undone::Failed)?.into_iter().unzip();
        let guards: Vec<_> =
            self.read.iter().map(|(key, entry)| Guard { key: self.full(key), revision: entry.revision }).collect();
        let mut is_unsure = false;
        let done = loop {
            match self.store.fleet.engine.commit(&guards, &puts, self.deadline) {
                Commit::Done { revision } => break Some(revision),
                Commit::Stale if is_unsure && self.is_there(attempt).map_err(Undone::Failed)? => break None,
                Commit::Stale => return Err(Undone::Stale),
                // The build with this shows that the tests would find it.
                Commit::Unknown(_) if cfg!(pam_totp_unknown_is_done) => break None,
                Commit::Unknown(fact) => {
                    if clock::instant() >= self.deadline {
                        return Err(Undone::Failed(by_engine(fact)));
                    }
                    is_unsure = true;
                    lock::pause(PAUSE);
                }
            }
        };
        self.store.seen.borrow_mut().clear();
        self.is_current &= done.is_some();
        self.is_modest = false;
        for (key, opened) in std::mem::take(&mut self.bodies).into_keys().zip(written) {
            self.remember(&key, Mark { id: opened.head.id, sequence: opened.head.sequence });
            let entry = self.read.entry(key).or_default();
            entry.revision = done.unwrap_or(entry.revision);
            entry.version = entry.version.saturating_add(1);
            entry.created = if entry.created == 0 { entry.revision } else { entry.created };
            entry.opened = Some(opened);
        }
        Ok(())
    }

    /// What goes to the cluster, and how it will be read.
    fn sealed(&self, attempt: Id) -> Result<Vec<(Put, Opened)>, StoreError> {
        let seal = self.store.ring.active().ok_or_else(|| StoreError::Failed(Fact::new("no-active-key")))?;
        let mut sealed = Vec::with_capacity(self.bodies.len());
        for (key, body) in &self.bodies {
            let entry = self.read.get(key).ok_or_else(|| StoreError::Failed(Fact::new("internal-error")))?;
            let (id, sequence) = match &entry.opened {
                Some(Opened { head, .. }) => (head.id, head.sequence.saturating_add(1)),
                None => (envelope::new_id().map_err(StoreError::Failed)?, 1),
            };
            let before = entry.opened.as_ref().map(|opened| &opened.inside);
            let mut inside = Inside {
                attempts: before.map_or_else(Vec::new, |before| before.attempts.clone()),
                replaces: before.map_or_else(Vec::new, |before| before.replaces.clone()),
                at: (self.store.now)(),
                by: self.store.fleet.host.clone(),
                body: Secret::new(body.expose().clone()),
            };
            inside.note(attempt);
            let head = Head { id, sequence, version: entry.version.saturating_add(1), created: entry.created };
            let full = self.full(key);
            let value = inside.seal(self.store.ring, self.place(key, &full), &head).map_err(StoreError::Failed)?;
            sealed.push((Put { key: full, value }, Opened { head, inside, key: seal }));
        }
        Ok(sealed)
    }

    /// Whether a write of ours is there by now.
    fn is_there(&self, attempt: Id) -> Result<bool, StoreError> {
        let Some(key) = self.bodies.keys().next() else { return Ok(false) };
        let full = self.full(key);
        let found = self.store.fleet.engine.read(&[&full], self.deadline).map_err(by_engine)?;
        let Some(kv) = found.into_iter().next().flatten() else { return Ok(false) };
        Ok(self.open(key, &kv.value)?.inside.attempts.contains(&attempt))
    }

    fn full(&self, key: &str) -> Vec<u8> {
        self.store.full(key)
    }
}

/// Whether many may write a document at once.
fn is_wanted(key: &str) -> bool {
    [document::PEOPLE, document::SOURCES_AT, document::NOBODY_AT].iter().any(|prefix| key.starts_with(prefix))
}

/// Leaves the cluster to others who are at the same documents on other hosts: for no time the first time, and then for longer and
/// longer, by chance, so that they do not meet again.
fn give_way(defeats: u32) {
    let longest = 1_u64.checked_shl(defeats).map_or(MOST_WAY, |way| way.min(MOST_WAY));
    if defeats > 1 {
        let chance = random::bytes().map_or(0, u64::from_ne_bytes);
        lock::pause(Duration::from_millis(chance.checked_rem(longest).unwrap_or_default()));
    }
}

/// Whether this host remembers how far such a document has come.
pub(super) fn is_remembered(key: &str) -> bool {
    key == document::FLEET || key.starts_with(document::PEOPLE) || key.starts_with(document::ENROLLED)
}

/// Whether what is there can be lost: failures that are of no person, and what a host said of itself.
pub(super) fn is_expendable(key: &str) -> bool {
    [document::SOURCES_AT, document::NOBODY_AT, document::HOSTS_AT].iter().any(|prefix| key.starts_with(prefix))
}

/// What the mark of a document is called. No person is called as those of the fleet as a whole are.
pub(super) fn mark_name(key: &str) -> String {
    key.strip_prefix(document::PEOPLE).map_or_else(|| format!("~{}", key.replace('/', "~")), str::to_owned)
}

/// Nobody is let in by a clock that is not the cluster's. Everything else is an outage, for which nobody has to be banned.
pub(super) fn by_engine(fact: Fact) -> StoreError {
    if fact.word() == "clock-off" { StoreError::Failed(fact) } else { StoreError::Unreachable(fact) }
}

fn failed(fact: Fact) -> Undone {
    Undone::Failed(StoreError::Failed(fact))
}

// ---- Of a list ----

impl<'s, 'a> Transaction<'s, 'a> {
    /// A document that came in a list, and a transaction that has read nothing else.
    pub(super) fn listed(&self, kv: crate::fleet::etcd::Kv) -> Result<(String, Self), StoreError> {
        let unreadable =
            || StoreError::Failed(Fact::new("bad-document").or("a key under the prefix is none of pam_totp's"));
        let key = kv.key.strip_prefix(self.store.fleet.prefix.as_bytes()).ok_or_else(unreadable)?;
        let key = std::str::from_utf8(key).map_err(|_| unreadable())?.to_owned();
        let opened = self.open(&key, &kv.value)?;
        // Of another moment than what this host remembers of it by now, if it was changed since.
        if !opened.head.fits(kv.version, kv.created) {
            return Err(self.shout(
                "document-put-back",
                &key,
                &[("version", kv.version), ("written", opened.head.version)],
            ));
        }
        let entry = Entry { revision: kv.revision, version: kv.version, created: kv.created, opened: Some(opened) };
        let mut listed = Self { fleet: self.fleet, ..Self::new(self.store, self.deadline, None) };
        listed.read.insert(key.clone(), entry);
        Ok((key, listed))
    }
}
