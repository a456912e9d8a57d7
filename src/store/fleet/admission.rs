//! First devices inside a login, where whoever it is asks at any host of the fleet.

use super::document::{self, Invitation, Of};
use super::transaction::Transaction;
use super::{FleetStore, record_of};
use crate::fact::Fact;
use crate::identity::Person;
use crate::otp::RecoveryCode;
use crate::record::Record;
use crate::store::system::{check_room, with_hashed_codes};
use crate::store::{Admission, Grounds, StoreError, Ticket};

/// Tickets that an account can have: a document has room for more.
const TICKETS: usize = 128;

impl FleetStore<'_> {
    /// A person's document, and that of the account where they share one.
    pub(super) fn keys_with_account(&self, person: &Person) -> Vec<String> {
        let mut keys = vec![Self::key(person), Self::key(&person.account())];
        keys.dedup();
        keys
    }

    /// Puts somebody's first record, or another one, and remembers that they, and their account, had one. Somebody who has a
    /// record needs no ticket; those of an account that several people share are theirs.
    pub(super) fn put_record(
        &self,
        transaction: &mut Transaction,
        person: &Person,
        record: &Record,
    ) -> Result<(), StoreError> {
        let (key, account) = (Self::key(person), Self::key(&person.account()));
        let mut of = transaction.person(&key)?;
        let generation = of.record.as_ref().map_or(0, |document| document.generation);
        of.record = Some(record_of(person, generation.saturating_add(1), record));
        (of.uid, of.had_one, of.revoked) = (Some(person.uid()), true, None);
        // This host has seen the secret.
        of.was_let_in(&self.fleet.host, (self.now)());
        transaction.put_person(&key, &of)?;
        Self::remember_enrolled(transaction, &[person, &person.account()], true)?;
        let mut of = transaction.person(&account)?;
        of.had_one = true;
        let holder = person.file_name();
        let has_key = |person: &Person| person.key().is_some();
        // The account itself may have no record before this one.
        let is_shared =
            has_key(person) || self.people_of_account(person).map_or(true, |people| people.iter().any(has_key));
        of.tickets.retain(|ticket| match &ticket.holder {
            Some(other) => *other != holder,
            None => is_shared,
        });
        transaction.put_person(&account, &of)
    }

    /// Makes documents that are not there: a record is never the first thing that is at a key, so that it cannot be put where
    /// there was nothing.
    pub(super) fn ensure_there(&self, keys: &[String]) -> Result<(), StoreError> {
        self.transact(keys, |transaction| {
            for key in keys.iter().filter(|key| key.starts_with(document::PEOPLE)) {
                if !transaction.has(key) {
                    transaction.put_person(key, &Of::default())?;
                }
            }
            Ok(())
        })
    }

    /// Whether one of these is known to have had a device, whatever has become of their documents.
    pub(super) fn was_enrolled(&self, people: &[&Person]) -> Result<bool, StoreError> {
        let names: Vec<_> = people.iter().map(|person| person.file_name()).collect();
        let transaction = self.begin(&names.iter().map(|name| document::of_enrolled(name)).collect::<Vec<_>>())?;
        Self::is_enrolled(&transaction, &names)
    }

    /// The same, where that was read.
    fn is_enrolled(transaction: &Transaction, names: &[String]) -> Result<bool, StoreError> {
        names
            .iter()
            .try_fold(false, |was, name| Ok(was || transaction.enrolled(&document::of_enrolled(name))?.has(name)))
    }

    /// Remembers that people have had a device, or forgets it.
    pub(super) fn remember_enrolled(
        transaction: &mut Transaction,
        people: &[&Person],
        had_one: bool,
    ) -> Result<(), StoreError> {
        for name in people.iter().map(|person| person.file_name()) {
            let key = document::of_enrolled(&name);
            transaction.also(std::slice::from_ref(&key))?;
            let mut enrolled = transaction.enrolled(&key)?;
            if enrolled.set(&name, had_one) {
                transaction.put_enrolled(&key, &enrolled)?;
            }
        }
        Ok(())
    }

    /// Takes the tickets back that somebody could use: of an account all, of the holder of a key those for that alone.
    pub(super) fn withdraw_from(&self, of: &mut Of, person: &Person) -> usize {
        let (before, holder) = (of.tickets.len(), person.file_name());
        let is_account = person.key().is_none();
        of.tickets.retain(|ticket| !is_account && ticket.holder.as_ref() != Some(&holder));
        before.saturating_sub(of.tickets.len())
    }

    /// The tickets that somebody can use.
    fn usable<'t>(of: &'t Of, person: &Person) -> impl Iterator<Item = &'t Invitation> {
        let holder = person.file_name();
        of.tickets.iter().filter(move |ticket| ticket.holder.as_ref().is_none_or(|other| *other == holder))
    }

    fn find(of: &Of, person: &Person, word: &RecoveryCode) -> Option<Ticket> {
        let hash = document::hash(word.expose());
        Self::usable(of, person).find(|ticket| ticket.hash == hash).map(|ticket| ticket.ticket.clone())
    }

    fn of_account<T>(&self, person: &Person, look: impl FnOnce(&Of) -> T) -> Result<T, StoreError> {
        self.seen(&Self::key(&person.account()), look)
    }
}

impl Admission for FleetStore<'_> {
    fn ticket(&self, person: &Person, word: &RecoveryCode) -> Result<Option<Ticket>, StoreError> {
        self.of_account(person, |of| Self::find(of, person, word))
    }

    fn is_invited(&self, person: &Person, now: u64) -> Result<bool, StoreError> {
        self.of_account(person, |of| Self::usable(of, person).any(|ticket| !ticket.ticket.is_over(now)))
    }

    /// The holders of its keys begin as it does, behind a comma.
    fn people_of_account(&self, person: &Person) -> Result<Vec<Person>, StoreError> {
        let account = person.account();
        let mut people = Vec::new();
        if self.has_record_now(&account)? {
            people.push(account.clone());
        }
        self.each(&format!("{},", Self::key(&account)), |_, transaction, key| {
            let name = key.strip_prefix(document::PEOPLE).unwrap_or_default();
            let holder = super::ledger::named(name).and_then(|named| account.holder(&named.key?));
            if let Some(holder) = holder
                && transaction.person(key)?.record.is_some()
            {
                people.push(holder);
            }
            Ok(())
        })?;
        Ok(people)
    }

    fn is_new_key(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(person.key().is_some()
            && !self.seen(&Self::key(person), |of| of.had_one || of.record.is_some())?
            && !self.was_enrolled(&[person])?)
    }

    fn admit(&self, person: &Person, record: &Record, grounds: &Grounds, now: u64) -> Result<(), StoreError> {
        let record = with_hashed_codes(record).map_err(StoreError::from)?;
        check_room(person, &record).map_err(StoreError::from)?;
        // Files of this host's, which no other one sees.
        if let (Grounds::First, Some(homes)) = (grounds, self.homes)
            && homes.may_have_enrolled(&person.account())?
        {
            return Err(not_invited(grounds));
        }
        let (key, account) = (Self::key(person), Self::key(&person.account()));
        let mut keys = self.keys_with_account(person);
        if let Grounds::Account(voucher, _) = grounds {
            keys.push(Self::key(voucher));
            keys.dedup();
        }
        self.ensure_there(&self.keys_with_account(person))?;
        let known = [person.file_name(), person.account().file_name()];
        keys.extend(known.iter().map(|name| document::of_enrolled(name)));
        self.transact(&keys, |transaction| {
            let of = transaction.person(&key)?;
            if of.record.is_some() {
                let fact = Fact::new("already-enrolled").or("somebody was faster");
                return Err(StoreError::Failed(fact));
            }
            let mut of_account = transaction.person(&account)?;
            let holds = match grounds {
                Grounds::First => {
                    !Self::is_enrolled(transaction, &known)?
                        && !of.had_one
                        && !of_account.had_one
                        && of_account.record.is_none()
                }
                // Nobody whose device was taken away meanwhile vouches for anybody.
                Grounds::Account(voucher, device) => {
                    let of_voucher = transaction.person(&Self::key(voucher))?;
                    !of.had_one
                        && !Self::is_enrolled(transaction, known.get(..1).unwrap_or_default())?
                        && of_voucher.record.is_some_and(|document| {
                            // One of that name that was enrolled since has not been used.
                            document.record.device(device).is_some_and(|device| device.last_used.is_some())
                        })
                }
                Grounds::Ticket(word, ticket) => {
                    !ticket.is_over(now) && Self::find(&of_account, person, word).is_some()
                }
            };
            if !holds {
                return Err(not_invited(grounds));
            }
            if let Grounds::Ticket(word, _) = grounds {
                let hash = document::hash(word.expose());
                of_account.tickets.retain(|ticket| ticket.hash != hash);
                transaction.put_person(&account, &of_account)?;
            }
            self.put_record(transaction, person, &record)
        })
    }

    fn invite(&self, person: &Person, word: &RecoveryCode, ticket: &Ticket) -> Result<(), StoreError> {
        let account = Self::key(&person.account());
        let holder = person.key().is_some().then(|| person.file_name());
        self.ensure_there(std::slice::from_ref(&account))?;
        self.transact(std::slice::from_ref(&account), |transaction| {
            let mut of = transaction.person(&account)?;
            of.tickets.retain(|old| !old.ticket.is_over(ticket.made));
            if of.tickets.len() >= TICKETS {
                return Err(StoreError::Failed(
                    Fact::new("too-many-tickets")
                        .with_number("tickets", TICKETS)
                        .or("pam-totp invite --revoke takes them back"),
                ));
            }
            let hash = document::hash(word.expose());
            of.tickets.push(Invitation { hash, holder: holder.clone(), ticket: ticket.clone() });
            transaction.put_person(&account, &of)
        })
    }

    fn withdraw(&self, person: &Person) -> Result<usize, StoreError> {
        let account = Self::key(&person.account());
        self.transact(std::slice::from_ref(&account), |transaction| {
            let mut of = transaction.person(&account)?;
            let count = self.withdraw_from(&mut of, person);
            if count > 0 {
                transaction.put_person(&account, &of)?;
            }
            Ok(count)
        })
    }
}

fn not_invited(grounds: &Grounds) -> StoreError {
    StoreError::Failed(Fact::new("not-invited").with("grounds", grounds.name()))
}
