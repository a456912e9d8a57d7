//! A store for tests that live in one process.

use super::{Attempt, Bill, Change, Paid, Store, StoreError};
use crate::fact::Fact;
use crate::identity::Person;
use crate::record::Record;
use crate::verify::Charge;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;

/// Records by name, and who has ever had one.
#[derive(Default)]
pub struct MemoryStore {
    records: Mutex<HashMap<Vec<u8>, Record>>,
    enrolled: Mutex<HashSet<Vec<u8>>>,
}

impl MemoryStore {
    /// Enrols somebody.
    pub fn put(&self, person: &Person, record: Record) {
        self.records.lock().unwrap().insert(person.name().to_vec(), record);
        self.enrolled.lock().unwrap().insert(person.name().to_vec());
    }
}

fn not_enrolled() -> StoreError {
    StoreError::NotEnrolled(Fact::new("not-enrolled"))
}

impl Store for MemoryStore {
    fn attempt<'a>(
        &self,
        person: &Person,
        charge: &dyn Fn(&Record) -> Charge<'a>,
        _: Option<&Bill>,
    ) -> Result<Attempt, StoreError> {
        let mut records = self.records.lock().unwrap();
        let record = records.get_mut(person.name()).ok_or_else(not_enrolled)?;
        let charge = charge(record);
        let mut store = |next: &Record| {
            *record = next.clone();
            Ok::<(), StoreError>(())
        };
        let decision = match charge {
            Charge::Refused(decision) => decision,
            Charge::Due(due) => due.commit(&mut store)?.decide(),
        };
        let verdict = decision.commit(store)?;
        Ok(Attempt { verdict, place: "memory".into(), remarks: Vec::new(), paid: Paid::Not })
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        self.records.lock().unwrap().get(person.name()).cloned().ok_or_else(not_enrolled)
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(self.records.lock().unwrap().contains_key(person.name()))
    }

    fn never_enrolled(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(!self.enrolled.lock().unwrap().contains(person.name()))
    }

    fn path(&self, _person: &Person) -> Result<PathBuf, Fact> {
        Ok("memory".into())
    }

    fn enrol(&self, person: &Person, record: &Record, replace: bool) -> Result<(), StoreError> {
        if !replace && self.has_record(person)? {
            return Err(StoreError::Failed(Fact::new("already-enrolled")));
        }
        self.put(person, record.clone());
        Ok(())
    }

    fn change(&self, person: &Person, change: Change) -> Result<(), StoreError> {
        let mut records = self.records.lock().unwrap();
        let record = records.get_mut(person.name()).ok_or_else(not_enrolled)?;
        let mut next = record.clone();
        change(&mut next).map_err(StoreError::Failed)?;
        *record = next;
        Ok(())
    }

    fn remove(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(self.records.lock().unwrap().remove(person.name()).is_some())
    }

    fn release(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(self.enrolled.lock().unwrap().remove(person.name()))
    }
}

#[test]
fn the_memory_store_conforms() {
    super::conformance::check(&MemoryStore::default());
    super::conformance::check_budget(&MemoryStore::default());
}
