//! What root does with the fleet as a whole.

use super::document::{self, Enrolled, Of};
use super::envelope::{self, Head, Inside, Place};
use super::marks::Mark;
use super::transaction::{Transaction, by_engine, is_expendable, is_remembered, mark_name};
use super::{Commit, FleetStore, Guard, Kv, Put};
use crate::fact::Fact;
use crate::identity::Named;
use crate::record::{Kind, Record};
use crate::store::seal::KeyId;
use crate::store::{Roster, StoreError};
use crate::system::syslog;
use std::path::PathBuf;

/// What a document is brought ahead by where it is taken for good although it is old: no other host has seen so much more of it.
const AHEAD: u64 = 1 << 20;

/// A document that root took for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolled {
    /// Whose it is, or what.
    pub name: String,
    /// Writes that it is behind by, as far as this host knows.
    pub behind: u64,
    /// What may be good a second time: there is a counter, or there are recovery codes.
    pub is_weakened: bool,
    /// It was gone altogether.
    pub was_gone: bool,
}

/// What became of documents that root takes for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Those.
    pub rolled: Vec<Rolled>,
    /// What no key here opens, by key.
    pub failed: Vec<(String, Fact)>,
}

/// Whose records a host took with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Those.
    pub people: Vec<Named>,
    /// What could not be read, by key.
    pub failed: Vec<(String, Fact)>,
}

/// How the fleet's documents are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// With which key how many.
    pub by_key: Vec<(String, usize)>,
    /// Written again by the active key.
    pub resealed: usize,
    /// Those that could not be.
    pub failed: Vec<(String, Fact)>,
}

impl FleetStore<'_> {
    /// Makes the fleet's own document. Says whether it was there.
    ///
    /// # Errors
    /// [`StoreError`]; also where there is something that is no fleet of these keys.
    pub fn init(&self) -> Result<bool, StoreError> {
        // Also where it is there: whoever made it may have been cut off.
        self.is_new.set(true);
        let was_there = self.make_fleet().and_then(|was_there| self.make_enrolled().map(|()| was_there));
        self.is_new.set(false);
        was_there
    }

    fn ensure_empty(&self) -> Result<(), StoreError> {
        let mut is_empty = true;
        self.list(document::PEOPLE, &mut |_| {
            is_empty = false;
            Ok(())
        })?;
        if is_empty {
            return Ok(());
        }
        Err(StoreError::Failed(
            Fact::new("not-empty")
                .with_path(&self.path_of_key(document::PEOPLE))
                .or("there are people of a fleet that has lost documents: restore them, or take another prefix"),
        ))
    }

    /// Those that say who has ever had a device, each written twice: the second time says when its key was made, so that whoever
    /// deletes it cannot put it back.
    fn make_enrolled(&self) -> Result<(), StoreError> {
        let all: Vec<_> = document::all_enrolled().collect();
        // The cluster takes 128 in one commit.
        let chunks = || all.chunks(64);
        let is_whole = |keys| {
            let transaction = self.begin(keys)?;
            Ok::<_, StoreError>(keys.iter().all(|key| transaction.is_written_again(key)))
        };
        if chunks().map(is_whole).collect::<Result<Vec<_>, _>>()?.iter().all(|is_whole| *is_whole) {
            return Ok(());
        }
        // Before any of them is touched: once there are people, one that is missing, or was put back, is none to be made.
        self.ensure_empty()?;
        for keys in chunks() {
            self.transact(keys, |transaction| {
                let missing: Vec<_> = keys.iter().filter(|key| !transaction.has(key)).collect();
                missing.into_iter().try_for_each(|key| transaction.put_enrolled(key, &Enrolled::default()))
            })?;
            self.transact(keys, |transaction| keys.iter().try_for_each(|key| transaction.keep_if_first(key)))?;
        }
        Ok(())
    }

    /// The fleet's own document. Says whether it was there.
    fn make_fleet(&self) -> Result<bool, StoreError> {
        match self.begin(&[]) {
            Ok(_) => return Ok(true),
            Err(StoreError::Unreachable(fact)) if fact.word() == "no-fleet" => {}
            Err(error) => return Err(error),
        }
        self.ensure_empty()?;
        let full = self.full(document::FLEET);
        let head = Head { id: envelope::new_id().map_err(StoreError::Failed)?, sequence: 1, version: 1, created: 0 };
        let inside = Inside {
            attempts: Vec::new(),
            replaces: Vec::new(),
            at: (self.now)(),
            by: self.fleet.host.clone(),
            body: crate::secret::Secret::new(Vec::new()),
        };
        let value = inside
            .seal(self.ring, Place { fleet: &[0; envelope::ID], key: &full }, &head)
            .map_err(StoreError::Failed)?;
        let commit = self.fleet.engine.commit(
            &[Guard { key: full.clone(), revision: 0 }],
            &[Put { key: full, value }],
            self.deadline(),
        );
        match commit {
            Commit::Done { .. } => self.begin(&[]).map(|_| false),
            Commit::Stale => self.begin(&[]).map(|_| true),
            Commit::Unknown(fact) => Err(by_engine(fact)),
        }
    }

    /// Looks at all documents whose keys begin so, one at a time: the rest of its key, and a transaction that has read it. One that
    /// cannot be read is an error.
    pub(super) fn each(
        &self,
        prefix: &str,
        mut look: impl FnMut(&str, &Transaction, &str) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let fleet = self.begin(&[])?;
        let mut result = Ok(());
        let listed = self.list(prefix, &mut |kv| {
            // As a login has it: shouted about, and nothing is in it.
            let is_spoiled = |key: Option<String>| key.is_some_and(|key| is_expendable(&key));
            let key = self.name_of("", &kv);
            let listed = match fleet.listed(kv) {
                Err(_) if is_spoiled(key) => return Ok(()),
                listed => listed,
            };
            let looked = listed
                .and_then(|(key, transaction)| look(key.strip_prefix(prefix).unwrap_or_default(), &transaction, &key));
            looked.map_err(|error| {
                result = Err(error);
                Fact::new("stopped")
            })
        });
        result.and(listed)
    }

    pub(super) fn list(&self, prefix: &str, each: &mut dyn FnMut(Kv) -> Result<(), Fact>) -> Result<(), StoreError> {
        // Whoever waits for a login waits for a list in it no longer than for the rest.
        let patience = self.deadline().saturating_duration_since(crate::system::clock::instant());
        self.fleet.engine.list(&self.full(prefix), patience, each).map_err(by_engine)
    }

    /// Whether somebody has a record, by a look of its own.
    pub(super) fn has_record_now(&self, person: &crate::identity::Person) -> Result<bool, StoreError> {
        let key = Self::key(person);
        Ok(self.begin(std::slice::from_ref(&key))?.person(&key)?.record.is_some())
    }

    /// What a listed key is called behind these letters and the fleet's own. `None`: it is none of pam_totp's.
    pub(super) fn name_of(&self, prefix: &str, kv: &Kv) -> Option<String> {
        let name = kv.key.get(self.full(prefix).len()..)?;
        std::str::from_utf8(name).ok().map(str::to_owned)
    }

    pub(super) fn full(&self, key: &str) -> Vec<u8> {
        [self.fleet.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// For messages.
    pub(super) fn path_of_key(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("etcd:{}{key}", self.fleet.prefix))
    }

    /// Says it so that somebody looks: it is no ordinary denial.
    pub(super) fn shouted(&self, fact: Fact, key: &str) -> StoreError {
        let fact = fact.with_path(&self.path_of_key(key));
        syslog::write(c"pam_totp(fleet)", libc::LOG_ALERT, &format!("refused reason={fact}"));
        StoreError::Failed(fact)
    }

    /// Takes documents for good that lie in the cluster although they are older than what this host has seen, are others, lie at
    /// another version, or are gone: `named`, or all. They are brought ahead of what any host has seen, and no code of a time until
    /// now is good. `give_up`: the one that is named, where no key here opens it.
    ///
    /// # Errors
    /// [`StoreError`], where the cluster cannot be used.
    pub fn accept_rollback(&self, named: Option<&Named>, give_up: bool) -> Result<Accepted, StoreError> {
        let mut keys = Vec::new();
        match named {
            Some(named) => keys.push(document::of_person(&named.file_name())),
            None => {
                keys.push(document::FLEET.to_owned());
                let failed = |error: crate::system::files::FileError| StoreError::Failed(error.fact());
                let seen = self.marks.names().map_err(failed)?;
                keys.extend(seen.iter().filter(|name| !name.starts_with('~')).map(|name| document::of_person(name)));
                self.list("", &mut |kv| {
                    keys.extend(self.name_of("", &kv));
                    Ok(())
                })?;
            }
        }
        keys.extend(named.is_none().then(document::all_enrolled).into_iter().flatten());
        // The fleet's own comes first, as others are bound to it, and what is made from people's documents last.
        keys.sort();
        keys.dedup();
        keys.sort_by_key(|key| (key != document::FLEET, key.starts_with(document::ENROLLED)));
        let mut accepted = Accepted::default();
        for key in keys {
            match self.accept(&key, give_up && named.is_some()) {
                Ok(one) => accepted.rolled.extend(one),
                // One that nobody can open keeps none of the others from being put right.
                Err(StoreError::Failed(fact)) if key != document::FLEET => accepted.failed.push((key, fact)),
                Err(error) => return Err(error),
            }
        }
        Ok(accepted)
    }

    /// Whom of a place where that is remembered people's own documents say to have had a device. Of one that cannot be opened it
    /// has to be believed.
    fn known_enrolled(&self, key: &str) -> Result<Enrolled, StoreError> {
        let (fleet, mut enrolled) = (self.begin(&[])?, Enrolled::default());
        self.list(document::PEOPLE, &mut |kv| {
            let name = self.name_of(document::PEOPLE, &kv).filter(|name| document::of_enrolled(name) == key);
            let Some(name) = name else { return Ok(()) };
            let of = fleet.listed(kv).and_then(|(key, one)| one.person(&key));
            if of.is_ok_and(|of| !of.had_one && of.record.is_none()) {
                return Ok(());
            }
            enrolled.set(&name, true);
            Ok(())
        })?;
        Ok(enrolled)
    }

    /// `is_lost`: one that cannot be opened is given up, and says from then on that there was one.
    fn accept(&self, key: &str, is_lost: bool) -> Result<Option<Rolled>, StoreError> {
        let full = self.full(key);
        // One that is broken is written anew.
        let mark = if is_remembered(key) { self.marks.get(&mark_name(key)).unwrap_or_default() } else { None };
        let fleet_key = self.full(document::FLEET);
        let found = self.fleet.engine.read(&[&full, &fleet_key], self.deadline()).map_err(by_engine)?;
        let mut found = found.into_iter();
        let (own, fleet) = (found.next().flatten(), found.next().flatten());
        let fleet = match &fleet {
            _ if key == document::FLEET => [0; envelope::ID],
            Some(kv) => envelope::head(&kv.value).map_err(StoreError::Failed)?.id,
            None => return Err(StoreError::Unreachable(Fact::new("no-fleet").or("pam-totp fleet init"))),
        };
        let place = Place { fleet: &fleet, key: &full };
        let (head, inside, revision, (version, created)) = match (&own, mark) {
            (None, None) if !key.starts_with(document::ENROLLED) => return Ok(None),
            (None, _) => {
                if key == document::FLEET {
                    return Err(StoreError::Unreachable(
                        Fact::new("no-fleet").or("the fleet's own document is gone: restore a snapshot that has it"),
                    ));
                }
                let (head, inside) = tombstone(key)?;
                (head, inside, 0, (0, 0))
            }
            (Some(kv), _) => match Inside::open(self.ring, place, &kv.value) {
                Ok((head, inside, _)) => (head, inside, kv.revision, (kv.version, kv.created)),
                // What is in it is made anew below.
                Err(_) if is_lost || key.starts_with(document::ENROLLED) => {
                    let (head, inside) = tombstone(key)?;
                    (head, inside, kv.revision, (kv.version, kv.created))
                }
                Err(fact) => return Err(StoreError::Failed(fact)),
            },
        };
        let is_same = mark.is_none_or(|mark| mark.id == head.id);
        let behind = mark.map_or(0, |mark| mark.sequence.saturating_sub(head.sequence));
        let is_unfinished = key.starts_with(document::ENROLLED) && head.created == 0;
        if own.is_some() && is_same && behind == 0 && head.fits(version, created) && !is_unfinished {
            // There is nothing to accept. A broken mark is put right.
            self.set_mark(key, Mark { id: head.id, sequence: head.sequence })?;
            return Ok(None);
        }
        let is_old = behind > 0 || !is_same;
        let (inside, is_weakened) = match key {
            _ if key.starts_with(document::PEOPLE) => self.brought_up(inside, is_old)?,
            _ if key.starts_with(document::ENROLLED) => (self.remembered_again(key, inside)?, false),
            _ => (inside, false),
        };
        let mut inside = Inside { at: (self.now)(), by: self.fleet.host.clone(), ..inside };
        if let Some(mark) = mark.filter(|mark| mark.id != head.id) {
            inside.replaces.push(mark.id);
        }
        let sequence = head.sequence.max(mark.map_or(0, |mark| mark.sequence)).saturating_add(AHEAD);
        let next = Head { id: head.id, sequence, version: version.saturating_add(1), created };
        let value = inside.seal(self.ring, place, &next).map_err(StoreError::Failed)?;
        let guard = Guard { key: full.clone(), revision };
        let put = |guard, value| match self.fleet.engine.commit(
            &[guard],
            &[Put { key: full.clone(), value }],
            self.deadline(),
        ) {
            Commit::Done { revision } => Ok(revision),
            Commit::Stale => {
                Err(StoreError::Unreachable(Fact::new("fleet-busy").or("somebody has just changed it: again")))
            }
            Commit::Unknown(fact) => Err(by_engine(fact)),
        };
        let revision = put(guard, value)?;
        let mut sequence = sequence;
        if created == 0 {
            // As when the fleet was made: the second write says when the key was.
            sequence = sequence.saturating_add(1);
            let second = Head { sequence, version: next.version.saturating_add(1), created: revision, ..next };
            let value = inside.seal(self.ring, place, &second).map_err(StoreError::Failed)?;
            put(Guard { key: full.clone(), revision }, value)?;
        }
        self.set_mark(key, Mark { id: next.id, sequence })?;
        self.seen.borrow_mut().clear();
        let name = key.strip_prefix(document::PEOPLE).unwrap_or(key).to_owned();
        Ok(Some(Rolled { name, behind, is_weakened, was_gone: own.is_none() }))
    }

    fn set_mark(&self, key: &str, mark: Mark) -> Result<(), StoreError> {
        if !is_remembered(key) {
            return Ok(());
        }
        self.marks.set(&mark_name(key), mark).map_err(|error| StoreError::Failed(error.fact()))
    }

    /// With everybody of whom it is known otherwise: what remembers it may be old too, or was lost.
    fn remembered_again(&self, key: &str, inside: Inside) -> Result<Inside, StoreError> {
        let before = Enrolled::parse(inside.body.expose()).unwrap_or_default();
        let body = self.known_enrolled(key)?.with(before).text().map_err(StoreError::Failed)?;
        Ok(Inside { body, ..inside })
    }

    /// What was used since cannot be known. Codes by time are good no more that could have been until now, nor are tickets; and of
    /// whoever has no device in what is old it is not known that they never had one.
    fn brought_up(&self, inside: Inside, is_old: bool) -> Result<(Inside, bool), StoreError> {
        let unreadable = || StoreError::Failed(Fact::new("bad-document"));
        let mut of = Of::parse(inside.body.expose()).ok_or_else(unreadable)?;
        of.tickets.clear();
        of.had_one |= is_old;
        let mut is_weakened = false;
        if let Some(document) = &mut of.record {
            is_weakened = !document.record.recovery.is_empty();
            for device in &mut document.record.devices {
                match &mut device.kind {
                    Ok(Kind::Totp(totp)) => {
                        let step = (self.now)().checked_div(totp.period).unwrap_or(0);
                        let ahead = totp.window.unwrap_or(crate::policy::WINDOW).ahead;
                        let skew = totp.skew.max(0).unsigned_abs();
                        let latest = step.saturating_add(ahead).saturating_add(skew).max(totp.mark().unwrap_or(0));
                        totp.used = Ok(Some(vec![latest]));
                    }
                    Ok(Kind::Hotp(_)) => is_weakened = true,
                    Ok(Kind::None) | Err(_) => {}
                }
            }
        }
        let body = of.text().map_err(StoreError::Failed)?;
        Ok((Inside { body, ..inside }, is_weakened))
    }

    /// Takes away what a host could read of people: their records. They are marked for another enrolment. `seen_there`: of those alone
    /// who were let in there. Says whose. All tickets go: it could have made some for itself.
    ///
    /// # Errors
    /// [`StoreError`], where the cluster cannot be used; those before it are done.
    pub fn revoke_records(&self, host: &str, seen_there: bool) -> Result<Revoked, StoreError> {
        let (mut revoked, mut everybody) = (Revoked::default(), Vec::new());
        self.list(document::PEOPLE, &mut |kv| {
            everybody.extend(self.name_of(document::PEOPLE, &kv).and_then(|name| super::ledger::named(&name)));
            Ok(())
        })?;
        everybody.sort();
        for named in everybody {
            let key = document::of_person(&named.file_name());
            let was_revoked = self.transact(std::slice::from_ref(&key), |transaction| {
                let mut of = transaction.person(&key)?;
                let is_meant = of.record.is_some() && (!seen_there || of.let_in_at.contains_key(host));
                if is_meant {
                    (of.record, of.revoked, of.had_one) = (None, Some(host.to_owned()), true);
                }
                if is_meant || !of.tickets.is_empty() {
                    of.tickets.clear();
                    transaction.put_person(&key, &of)?;
                }
                Ok(is_meant)
            });
            match was_revoked {
                Ok(was_revoked) => revoked.people.extend(was_revoked.then_some(named)),
                // Of whom there is nothing that can be read nobody gets in.
                Err(StoreError::Failed(fact)) => revoked.failed.push((key, fact)),
                Err(error) => return Err(error),
            }
        }
        Ok(revoked)
    }

    /// Writes every document again that is not sealed with the active key, and counts them by keys. `is_dry`: counts alone.
    ///
    /// # Errors
    /// [`StoreError`], where they cannot be listed.
    pub fn reseal_all(&self, is_dry: bool) -> Result<Sealed, StoreError> {
        let mut documents = Vec::new();
        let mut sealed = Sealed::default();
        self.list("", &mut |kv| {
            let Some(key) = self.name_of("", &kv) else { return Ok(()) };
            match envelope::sealed_with(&kv.value) {
                Ok(id) => documents.push((key, id)),
                Err(fact) => sealed.failed.push((key, fact)),
            }
            Ok(())
        })?;
        for (key, id) in documents {
            let mut of = id;
            if Some(id) != self.ring.active() && !is_dry {
                match self.reseal_key(&key) {
                    Ok(()) => {
                        sealed.resealed = sealed.resealed.saturating_add(1);
                        of = self.ring.active().unwrap_or(id);
                    }
                    Err(error) => sealed.failed.push((key, error.into_fact())),
                }
            }
            let name = of.to_string();
            match sealed.by_key.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => sealed.by_key.push((name, 1)),
            }
        }
        sealed.by_key.sort();
        Ok(sealed)
    }

    fn reseal_key(&self, key: &str) -> Result<(), StoreError> {
        self.transact(&[key.to_owned()], |transaction| transaction.keep(key))
    }

    fn sealed_by(&self, named: &Named) -> Result<Option<KeyId>, StoreError> {
        let key = document::of_person(&named.file_name());
        Ok(self.begin(std::slice::from_ref(&key))?.written(&key).map(|(id, ..)| id))
    }
}

/// In the place of a document that is lost. Whoever it was had a device, and is not let pass without.
fn tombstone(key: &str) -> Result<(Head, Inside), StoreError> {
    let body = match key {
        _ if key.starts_with(document::PEOPLE) => Of { had_one: true, ..Of::default() }.text(),
        _ => Enrolled::default().text(),
    };
    let body = body.map_err(StoreError::Failed)?;
    let id = envelope::new_id().map_err(StoreError::Failed)?;
    let inside = Inside { attempts: Vec::new(), replaces: Vec::new(), at: 0, by: String::new(), body };
    Ok((Head { id, sequence: 0, version: 0, created: 0 }, inside))
}

impl Roster for FleetStore<'_> {
    fn people(&self) -> Result<Vec<Named>, StoreError> {
        let mut people = Vec::new();
        let fleet = self.begin(&[])?;
        self.list(document::PEOPLE, &mut |kv| {
            let named = self.name_of(document::PEOPLE, &kv).and_then(|name| super::ledger::named(&name));
            let Some(named) = named else { return Ok(()) };
            // What cannot be read may be a record.
            let has_record = fleet.listed(kv).and_then(|(key, one)| Ok(one.person(&key)?.record.is_some()));
            people.extend((has_record != Ok(false)).then_some(named));
            Ok(())
        })?;
        people.sort();
        Ok(people)
    }

    /// Also whether it was made to its end.
    fn check(&self) -> Result<(), StoreError> {
        let last: Vec<_> = document::all_enrolled().last().into_iter().collect();
        self.begin(&last).map(drop)
    }

    fn load_of_gone(&self, named: &Named) -> Result<Record, StoreError> {
        let of = |of: &Of| of.record.as_ref().map(|document| document.record.clone());
        let record = self.seen(&document::of_person(&named.file_name()), of)?;
        record.ok_or_else(|| StoreError::NotEnrolled(Fact::new("not-enrolled").with_path(&self.path_of(named))))
    }

    fn path_of(&self, named: &Named) -> PathBuf {
        self.path_of_key(&document::of_person(&named.file_name()))
    }

    fn sealed_with(&self, named: &Named) -> Result<Option<String>, StoreError> {
        Ok(self.sealed_by(named)?.map(|id| id.to_string()))
    }

    fn reseal(&self, named: &Named) -> Result<bool, StoreError> {
        let is_current = self.sealed_by(named)? == self.ring.active();
        if !is_current {
            self.reseal_key(&document::of_person(&named.file_name()))?;
        }
        Ok(!is_current)
    }
}
