//! What `pam-totp throttle` shows and takes back.

use super::people::Tally;
use super::table::Rows;
use super::{HIGHEST, KNOWN, Ledger, Memory, PEOPLE, SHARED, SOURCES, STRANGERS};
use crate::policy::throttle::Throttle;
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

impl<M: Memory, C: Fn() -> Moment> Ledger<M, C> {
    /// All rows with failures in them.
    pub fn list(&self, throttle: Option<&Throttle>) -> Vec<Listed> {
        let rows = self.rows(self.now(), throttle);
        let regions =
            [(Kind::Known, KNOWN), (Kind::Strangers, STRANGERS), (Kind::Shared, SHARED), (Kind::Source, SOURCES)];
        let failures = regions.into_iter().flat_map(|(kind, region)| {
            let read = region.all(&self.memory).filter_map(|row| rows.read(row)).collect::<Vec<_>>();
            read.into_iter().map(move |(name, ages)| Listed { kind, name, failures: ages.len() as u64, ages })
        });
        let in_a_row = PEOPLE.all(&self.memory).filter_map(Tally::read);
        let in_a_row = in_a_row.map(|(name, failures)| Listed { kind: Kind::InARow, name, failures, ages: Vec::new() });
        failures.chain(in_a_row).collect()
    }

    /// Forgets all failures of a person: both rows, and those in a row. Says whether there were any.
    pub fn unlock_person(&self, name: &[u8], throttle: Option<&Throttle>) -> bool {
        let mut found = self.clear(&[KNOWN, STRANGERS], name, throttle);
        for row in PEOPLE.all(&self.memory) {
            if Tally::read(row).is_some_and(|(listed, _)| listed == name) {
                Tally::clear(row);
                found = true;
            }
        }
        found
    }

    /// Forgets all failures from a source, named as it is listed. Says whether there were any.
    pub fn unlock_source(&self, name: &[u8], throttle: Option<&Throttle>) -> bool {
        self.clear(&[SOURCES], name, throttle)
    }

    /// Forgets the latest time that the wall clock showed.
    pub fn forget_latest_wall(&self) {
        if let Some(word) = self.word(HIGHEST) {
            word.store(0, SeqCst);
        }
    }

    fn clear(&self, regions: &[super::Region], name: &[u8], throttle: Option<&Throttle>) -> bool {
        let rows = self.rows(self.now(), throttle);
        let of_name = |row: &&[_]| rows.read(row).is_some_and(|(listed, _)| listed == name);
        let found: Vec<_> = regions.iter().flat_map(|region| region.all(&self.memory)).filter(of_name).collect();
        found.iter().for_each(|row| Rows::<M>::clear(row));
        !found.is_empty()
    }
}
