//! What `pam-totp throttle` shows and takes back.

use super::people::Tally;
use super::table::Rows;
use super::{
    EARLIEST, HIGHEST, HostLedger, KNOWN, KNOWN_SHARED, Ledger, Memory, PEOPLE, PEOPLE_SHARED, SEVERAL, SHARED,
    SOURCES, STRANGERS, Who, label,
};
use crate::fact::Fact;
use crate::identity::Named;
use crate::policy::throttle::Throttle;
use crate::source::Source;
use crate::system::clock::Moment;
use std::sync::atomic::Ordering::SeqCst;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A person's failures from known sources.
    Known,
    /// A person's other failures.
    Strangers,
    /// Failures of names that share a row.
    Shared,
    /// Failures from a source.
    Source,
    /// A person's failures in a row.
    InARow,
}

impl Kind {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Strangers => "strangers",
            Self::Shared => "shared",
            Self::Source => "source",
            Self::InARow => "in-a-row",
        }
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What is counted.
    pub kind: Kind,
    /// The name of the person, or the source.
    pub name: Vec<u8>,
    /// How many.
    pub failures: u64,
    /// How many seconds ago each was, where that is known; the latest first.
    pub ages: Vec<u64>,
}

impl Listed {
    /// Whether it is about this person alone. Of long names a row has the beginning.
    pub fn is_about(&self, named: &Named) -> bool {
        matches!(self.kind, Kind::Known | Kind::Strangers | Kind::InARow)
            && label(&named.name, named.key.as_deref().unwrap_or_default()) == self.name
    }
}

/// A ledger in the hands of root.
pub trait Kept: Ledger {
    /// All rows with failures in them.
    ///
    /// # Errors
    /// They cannot be read.
    fn list(&self, throttle: Option<&Throttle>) -> Result<Vec<Listed>, Fact>;

    /// Forgets all failures of a person: both rows, and those in a row. Says whether there were any.
    ///
    /// # Errors
    /// They cannot be written.
    fn unlock_person(&self, who: Who, throttle: Option<&Throttle>) -> Result<bool, Fact>;

    /// The same for somebody who is gone from the user database, by name and key (empty: of the account itself).
    ///
    /// # Errors
    /// As [`Kept::unlock_person`].
    fn unlock_name(&self, name: &[u8], key: &str, throttle: Option<&Throttle>) -> Result<bool, Fact>;

    /// Forgets all failures from a source. Says whether there were any.
    ///
    /// # Errors
    /// As [`Kept::unlock_person`].
    fn unlock_source(&self, source: &Source, throttle: Option<&Throttle>) -> Result<bool, Fact>;

    /// Ends a person's failures in a row, as a login does.
    ///
    /// # Errors
    /// As [`Kept::unlock_person`].
    fn end_row(&self, who: Who) -> Result<(), Fact>;

    /// Forgets the latest time that the wall clock showed.
    fn forget_latest_wall(&self);
}

impl<M: Memory, C: Fn() -> Moment> Kept for HostLedger<M, C> {
    fn list(&self, throttle: Option<&Throttle>) -> Result<Vec<Listed>, Fact> {
        let rows = self.rows(self.now(), throttle);
        let regions = [
            (Kind::Known, KNOWN),
            (Kind::Strangers, STRANGERS),
            (Kind::Shared, SHARED),
            (Kind::Shared, KNOWN_SHARED),
            (Kind::Source, SOURCES),
        ];
        let failures = regions.into_iter().flat_map(|(kind, region)| {
            let read = region.all(&self.memory).filter_map(|row| rows.read(row)).collect::<Vec<_>>();
            read.into_iter().map(move |(name, ages)| Listed { kind, name, failures: ages.len() as u64, ages })
        });
        let in_a_row = PEOPLE.all(&self.memory).filter_map(Tally::read);
        let several = PEOPLE_SHARED.all(&self.memory).filter_map(Tally::shared).map(|tally| tally.in_a_row());
        let several = several.filter(|failures| *failures > 0).map(|failures| (SEVERAL.to_vec(), failures));
        let listed = |(name, failures)| Listed { kind: Kind::InARow, name, failures, ages: Vec::new() };
        Ok(failures.chain(in_a_row.chain(several).map(listed)).collect())
    }

    fn unlock_person(&self, who: Who, throttle: Option<&Throttle>) -> Result<bool, Fact> {
        let now = self.now();
        let rows = self.rows(now, throttle);
        let (own, shared) = (self.person(who), self.shared(who.name()));
        let places = [(KNOWN, &own), (STRANGERS, &own), (SHARED, &shared), (KNOWN_SHARED, &shared)];
        let failures = places.map(|(region, subject)| rows.forget(region, subject) == Ok(true));
        let in_a_row = self.tally(who, now).is_ok_and(|tally| tally.clear());
        Ok(failures.contains(&true) || in_a_row)
    }

    fn unlock_name(&self, name: &[u8], key: &str, throttle: Option<&Throttle>) -> Result<bool, Fact> {
        let name = &*label(name, key);
        let rows = self.rows(self.now(), throttle);
        let failures = [KNOWN, STRANGERS].into_iter().flat_map(|region| region.all(&self.memory));
        let failures: Vec<_> =
            failures.filter(|row| rows.read(row).is_some_and(|(listed, _)| listed == name)).collect();
        failures.iter().for_each(|row| Rows::<M>::clear(row));
        let people = PEOPLE.all(&self.memory);
        let people = people.filter(|row| Tally::read(row).is_some_and(|(listed, _)| listed == name));
        let in_a_row = people.filter(|row| Tally::clear_row(row)).count();
        Ok(!failures.is_empty() || in_a_row > 0)
    }

    fn unlock_source(&self, source: &Source, throttle: Option<&Throttle>) -> Result<bool, Fact> {
        let subject = self.source(source);
        Ok(self.rows(self.now(), throttle).forget(SOURCES, &subject) == Ok(true))
    }

    fn end_row(&self, who: Who) -> Result<(), Fact> {
        if let Ok(tally) = self.tally(who, self.now()) {
            tally.logged_in();
        }
        Ok(())
    }

    fn forget_latest_wall(&self) {
        if let Some(word) = self.word(HIGHEST) {
            word.store(EARLIEST, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::LABEL;
    use super::*;

    #[test]
    fn a_row_is_about_one_person_alone() {
        let row = |kind, name: &str| Listed { kind, name: name.as_bytes().to_vec(), failures: 1, ages: Vec::new() };
        let named = |name: &str, key: Option<&str>| Named { name: name.into(), key: key.map(str::to_owned) };
        let (alice, holder) = (named("alice", None), named("alice", Some("key-id:a")));
        for kind in [Kind::Known, Kind::Strangers, Kind::InARow] {
            assert!(row(kind, "alice").is_about(&alice) && row(kind, "alice,key-id:a").is_about(&holder));
            assert!(!row(kind, "alice").is_about(&holder) && !row(kind, "alice,key-id:a").is_about(&alice));
            assert!(!row(kind, "alic").is_about(&alice) && !row(kind, "alice2").is_about(&alice));
        }
        assert!(!row(Kind::Source, "alice").is_about(&alice) && !row(Kind::Shared, "alice").is_about(&alice));
        let long = "x".repeat(LABEL * 2);
        assert!(row(Kind::Known, &long[..LABEL]).is_about(&named(&long, None)));
    }
}
