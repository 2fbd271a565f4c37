//! What a loop wrote last: an older state in the cache says less than is known, and nothing may be concluded from it.

use std::{collections::HashMap, sync::Mutex};

use api::Object;
use client::ObjectKey;

/// By object. Bounded by the objects there are; those that are gone are forgotten.
#[derive(Default)]
pub struct Written(Mutex<HashMap<ObjectKey, u64>>);

impl Written {
    pub fn note(&self, key: &ObjectKey, written: &Object) {
        // Revisions are numbers that grow (upstream promises it since 1.35); others are not compared.
        if let Ok(revision) = written.resource_version().parse() {
            self.lock().insert(key.clone(), revision);
        }
    }

    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// `cached` is older than what was written; the event that brings the newer one is under way.
    pub fn outdates(&self, key: &ObjectKey, cached: &Object) -> bool {
        let written = self.lock().get(key).copied();
        written.is_some_and(|written| {
            cached
                .resource_version()
                .parse::<u64>()
                .is_ok_and(|seen| seen < written)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, u64>> {
        self.0.lock().expect("no one panics while holding it")
    }
}
