//! A store for tests that live in one process.

use super::{Attempt, Store, StoreError};
use crate::fact::Fact;
use crate::identity::Person;
use crate::record::Record;
use crate::verify::Charge;
use std::collections::HashMap;
use std::sync::Mutex;

/// Records by name.
#[derive(Default)]
pub struct MemoryStore(Mutex<HashMap<Vec<u8>, Record>>);

impl MemoryStore {
    /// Enrols somebody.
    pub fn put(&self, person: &Person, record: Record) {
        self.0.lock().unwrap().insert(person.name().to_vec(), record);
    }
}

impl Store for MemoryStore {
    fn attempt<'a>(&self, person: &Person, charge: &dyn Fn(&Record) -> Charge<'a>) -> Result<Attempt, StoreError> {
        let mut records = self.0.lock().unwrap();
        let record =
            records.get_mut(person.name()).ok_or_else(|| StoreError::NotEnrolled(Fact::new("not-enrolled")))?;
        let charge = charge(record);
        let mut store = |next: &Record| {
            *record = next.clone();
            Ok(())
        };
        let decision = match charge {
            Charge::Refused(decision) => decision,
            Charge::Due(due) => due.commit(&mut store)?.decide(),
        };
        let verdict = decision.commit(store)?;
        Ok(Attempt { verdict, place: "memory".into(), remarks: Vec::new() })
    }

    fn load(&self, person: &Person) -> Result<Record, StoreError> {
        let records = self.0.lock().unwrap();
        records.get(person.name()).cloned().ok_or_else(|| StoreError::NotEnrolled(Fact::new("not-enrolled")))
    }

    fn has_record(&self, person: &Person) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap().contains_key(person.name()))
    }
}

#[test]
fn the_memory_store_conforms() {
    let store = MemoryStore::default();
    super::conformance::check(&store, &|person, text| store.put(person, super::conformance::record(text)));
}
