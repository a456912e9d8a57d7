//! Where records live, and the one way to a verdict.

mod admission;
#[cfg(test)]
pub mod conformance;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod home;
#[cfg(test)]
pub mod memory;
mod ratchet;
#[cfg(feature = "seal")]
pub mod seal;
pub mod system;
mod tickets;

pub use admission::{Admission, Grounds, Ticket};
pub use ratchet::remembered;
#[cfg(feature = "seal")]
pub use seal::KeyRing;

use crate::fact::Fact;
use crate::identity::{Named, Person};
use crate::ledger::{self, Grace, Ledger, Receipt, Refusal};
use crate::policy::{Policy, StoreKind};
use crate::record::Record;
use crate::verify::{Charge, Verdict};
use home::HomeStore;
use std::path::PathBuf;
use std::rc::Rc;
use system::SystemStore;

/// The module has no keys.
#[cfg(not(feature = "seal"))]
pub enum KeyRing {}

/// A place that keeps records and lets them change one at a time.
pub trait Store {
    /// Judges one answer: loads the record, stores what the answer costs, judges it, stores what came of it, and only
    /// then gives out the verdict. Of any number of attempts at once each sees what the one before it stored.
    ///
    /// `charge` may run more than once (a store without locks tries again), but the verdict is always the one whose
    /// record was stored. `bill` is for a store that keeps the ledger too, and pays it in the same commit; without one the
    /// guess was paid before.
    ///
    /// # Errors
    /// [`StoreError`]: there is no verdict, and whoever asked is not let in.
    fn attempt<'a>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'a>,
        bill: Option<&Bill>,
    ) -> Result<Attempt, StoreError>;

    /// The record as it is now. Whatever needs a code to be right, new or counted needs an [`Store::attempt`].
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self, person: &Person) -> Result<Record, StoreError>;

    /// Whether the person has a record, good or broken. `false` is said only by a store in working order.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be told.
    fn has_record(&self, person: &Person) -> Result<bool, StoreError>;

    /// Whether the person has no record and never had one here. `true` is said only by a store in working order.
    ///
    /// # Errors
    /// [`StoreError`]: it cannot be told.
    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError>;

    /// Where a person's record is, or would be.
    ///
    /// # Errors
    /// What is wrong with the path.
    fn path(&self, person: &Person) -> Result<PathBuf, Fact>;

    /// Stores the first record of a person, or with `replace` one in the place of whatever is there. At a failure what was
    /// there stays as it was.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; where there is a record and `replace` was not asked for, its reason is `already-enrolled`.
    /// With the reason `not-synced` the new record is in place, but a power cut could bring the old one back.
    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError>;

    /// Changes a record on behalf of root or its owner, not of somebody who logs in. What the change took out cannot be read
    /// from the disk afterwards, as far as that is in our hands.
    ///
    /// # Errors
    /// [`StoreError`]; what `change` returns is [`StoreError::Failed`], and the record is as it was.
    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError>;

    /// Removes a record. Says whether there was one. The person has been enrolled, and is not let pass without a device.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, person: &Person) -> Result<bool, StoreError>;

    /// Forgets that the person was ever enrolled. Says whether that was so. A record has to be removed first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn release(&self, person: &Person) -> Result<bool, StoreError>;

    /// First devices inside a login, where this store has them.
    fn admission(&self) -> Option<&dyn Admission> {
        None
    }
}

/// What becomes of a record.
pub type Change<'a> = &'a mut dyn FnMut(&mut Record) -> Result<(), Fact>;

/// What a store is opened with, besides the policy.
#[derive(Clone, Copy, Default)]
pub struct Means<'a> {
    /// The keys that records are sealed with, or are to be. Without them, sealed records are not read.
    pub ring: Option<&'a KeyRing>,
    /// The fleet, where this process gets to it.
    #[cfg(feature = "fleet")]
    pub fleet: Option<&'a fleet::Fleet>,
    /// Somebody is waiting: there is one time limit for all that is done.
    pub is_waited_for: bool,
}

/// A store that was opened.
pub struct Opened<'a> {
    /// It.
    pub store: Rc<dyn Store + 'a>,
    /// The ledger, where the store keeps it. `None`: it is the host's.
    pub ledger: Option<Rc<dyn Ledger + 'a>>,
}

/// The store that a policy names, for this process alone: no sealed records, and no fleet.
pub fn of(policy: &Policy) -> Rc<dyn Store + '_> {
    open(policy, Means::default()).store
}

/// The store that a policy names.
pub fn open<'a>(policy: &'a Policy, means: Means<'a>) -> Opened<'a> {
    let homes = homes(policy);
    let store: Rc<dyn Store> = match policy.store.value {
        StoreKind::Home => Rc::new(homes),
        StoreKind::System => {
            Rc::new(SystemStore { state_dir: &policy.state_dir, homes: Some(homes), ring: means.ring })
        }
        StoreKind::Fleet => match fleet_store(policy, means, Some(homes)) {
            #[cfg(feature = "fleet")]
            Ok(store) => {
                let store = Rc::new(store);
                return Opened { store: store.clone(), ledger: Some(store) };
            }
            #[cfg(not(feature = "fleet"))]
            Ok(never) => match never {},
            Err(error) => Rc::new(Closed(error)),
        },
    };
    Opened { store, ledger: None }
}

/// The people of the root-only store that a policy names.
///
/// # Errors
/// [`StoreError`]; also where the records are people's own.
#[cfg(feature = "fleet")]
pub fn roster<'a>(policy: &'a Policy, means: Means<'a>) -> Result<Box<dyn Roster + 'a>, StoreError> {
    match policy.store.value {
        StoreKind::Home => Err(StoreError::Failed(Fact::new("no-roster").or("records are in people's homes"))),
        StoreKind::System => Ok(Box::new(SystemStore { state_dir: &policy.state_dir, homes: None, ring: means.ring })),
        StoreKind::Fleet => Ok(Box::new(fleet_store(policy, means, None)?)),
    }
}

/// The store of a fleet, for whoever gets to it and has the keys.
///
/// # Errors
/// [`StoreError`].
#[cfg(feature = "fleet")]
pub fn fleet_store<'a>(
    policy: &'a Policy,
    means: Means<'a>,
    homes: Option<HomeStore<'a>>,
) -> Result<fleet::FleetStore<'a>, StoreError> {
    let fleet = means.fleet.ok_or_else(by_agent_alone)?;
    let ring = means.ring.filter(|ring| ring.active().is_some()).ok_or_else(|| {
        StoreError::Failed(Fact::new("no-active-key").or(
            "the fleet's records are sealed: copy /etc/security/pam_totp.keys from another host of it, or for the first one: \
             pam-totp key new, pam-totp key activate",
        ))
    })?;
    let store = fleet::FleetStore::new(fleet, ring, &policy.state_dir, homes)?;
    Ok(if means.is_waited_for { store.in_time() } else { store })
}

#[cfg(not(feature = "fleet"))]
fn fleet_store(_: &Policy, _: Means, _: Option<HomeStore>) -> Result<std::convert::Infallible, StoreError> {
    Err(by_agent_alone())
}

fn by_agent_alone() -> StoreError {
    StoreError::Unreachable(
        Fact::new("no-fleet")
            .or("root and pam-totp-agent get to the fleet, by what /etc/security/pam_totp.fleet.toml says"),
    )
}

fn homes(policy: &Policy) -> HomeStore<'_> {
    HomeStore {
        secret: &policy.secret,
        strict_owner: policy.options.strict_owner,
        allowed_perm: policy.options.allowed_perm,
        allow_readonly: policy.options.allow_readonly,
        state_dir: Some(&policy.state_dir),
    }
}

/// A store of root's, as root looks after it.
pub trait Roster {
    /// Whose records there are, sorted. Not whether they can be read.
    ///
    /// # Errors
    /// [`StoreError`].
    fn people(&self) -> Result<Vec<Named>, StoreError>;

    /// Whether there is a store in working order, whoever has a record.
    ///
    /// # Errors
    /// [`StoreError`]: what every login is told.
    fn check(&self) -> Result<(), StoreError>;

    /// The record of somebody who is gone from the user database, whoever had their uid.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load_of_gone(&self, named: &Named) -> Result<Record, StoreError>;

    /// Where the record of somebody is who is gone from the user database.
    fn path_of(&self, named: &Named) -> PathBuf;

    /// The name of the key that somebody's record is sealed with. `None`: it is plain, or gone.
    ///
    /// # Errors
    /// [`StoreError`]; not where the record is broken.
    fn sealed_with(&self, named: &Named) -> Result<Option<String>, StoreError>;

    /// Writes somebody's record again in the form in which it is to be: sealed with the active key, or plain where there is none.
    /// Says whether it was in another. Of what it was before nothing is left beside it, also where whoever began this was killed.
    ///
    /// # Errors
    /// [`StoreError`]; the record is as it was, or in its new form.
    fn reseal(&self, named: &Named) -> Result<bool, StoreError>;
}

/// What a guess costs, and what a right one gives back.
pub struct Bill<'a> {
    /// Who guesses, and from where.
    pub login: ledger::Login<'a>,
    /// It can be a code. What cannot costs nothing.
    pub is_guess: bool,
    /// What this login was charged before.
    pub receipts: &'a [Receipt],
    /// What the person has by a right code.
    pub grace: Option<Grace<'a>>,
    /// What sshd says about the key by which they came; empty elsewhere.
    pub login_key: &'a [u8],
}

/// Whether a guess was paid with the attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Paid {
    /// No: the store keeps no ledger.
    Not,
    /// There is nothing left to pay: it was right, and what the login was charged before is given back; or it cost nothing.
    Settled,
    /// It was charged.
    Charged(Receipt),
    /// There was no budget, and it was not judged.
    Refused(Refusal),
}

/// A store that is not there.
struct Closed(StoreError);

impl Store for Closed {
    fn attempt<'a>(
        &self,
        _: &Person,
        _: &dyn Fn(&Record) -> Charge<'a>,
        _: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        Err(self.0.clone())
    }

    fn load(&self, _: &Person) -> Result<Record, StoreError> {
        Err(self.0.clone())
    }

    fn has_record(&self, _: &Person) -> Result<bool, StoreError> {
        Err(self.0.clone())
    }

    fn never_enrolled(&self, _: &Person) -> Result<bool, StoreError> {
        Err(self.0.clone())
    }

    fn path(&self, _: &Person) -> Result<PathBuf, Fact> {
        Err(self.0.clone().into_fact())
    }

    fn enrol(&self, _: &Person, _: &Record, _: bool) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    fn change(&self, _: &Person, _: Change) -> Result<(), StoreError> {
        Err(self.0.clone())
    }

    fn remove(&self, _: &Person) -> Result<bool, StoreError> {
        Err(self.0.clone())
    }

    fn release(&self, _: &Person) -> Result<bool, StoreError> {
        Err(self.0.clone())
    }
}

/// A judged login.
#[derive(Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The answer.
    pub verdict: Verdict,
    /// Where the record is, for the log.
    pub place: PathBuf,
    /// What an operator should look at some day, for the log; fixed words.
    pub remarks: Vec<&'static str>,
    /// What has become of the bill.
    pub paid: Paid,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The store works and holds no record of this person.
    NotEnrolled(Fact),
    /// There is no store where it should be: nothing was looked at, and nothing judged.
    Unreachable(Fact),
    /// Anything else: an error is never taken for absence.
    Failed(Fact),
}

impl StoreError {
    /// For the log.
    pub fn into_fact(self) -> Fact {
        match self {
            Self::NotEnrolled(fact) | Self::Unreachable(fact) | Self::Failed(fact) => fact,
        }
    }
}

/// What is about a person and no other is called so: a name that is given to another uid is another person.
fn name_and_uid(person: &Person) -> String {
    format!("{}.{}", person.file_name(), person.uid())
}

/// No record, of somebody who had one.
fn gone() -> Fact {
    Fact::new("record-gone").or(
        "there was one before: put it back, enrol anew with pam-totp enrol --user NAME, or start over with pam-totp reset --user NAME",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_there_says_why_to_whatever_it_is_asked() {
        let (person, error) = (Person::running_this_process(), by_agent_alone());
        let store = Closed(error.clone());
        let record = Record::of(Vec::new());
        let charge = |_: &Record| panic!("nothing is judged");
        assert_eq!(store.attempt(&person, &charge, None), Err(error.clone()));
        assert!(matches!(store.load(&person), Err(StoreError::Unreachable(_))));
        let said =
            [store.has_record(&person), store.never_enrolled(&person), store.remove(&person), store.release(&person)];
        assert!(said.iter().all(|said| *said == Err(error.clone())), "{said:?}");
        let changed = store.change(&person, &mut |_| panic!("there is nothing to change"));
        assert_eq!([store.enrol(&person, &record, true), changed], [Err(error.clone()), Err(error.clone())]);
        assert_eq!(store.path(&person), Err(error.into_fact()));
        assert!(store.admission().is_none());
    }
}
