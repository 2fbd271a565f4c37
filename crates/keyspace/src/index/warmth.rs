//! Which values are in memory, and where they lie when they are not.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::Index;
use crate::{
    Revision,
    values::{Memory, Place, Values},
};

/// A value has a place now, or another one.
#[derive(Clone, Debug)]
pub struct Moved {
    pub key: Bytes,
    pub revision: Revision,
    pub sub: u32,
    pub place: Place,
}

impl Index {
    /// Counts its values in `memory` from now on.
    pub fn share_memory(&mut self, memory: Arc<Memory>) {
        self.memory.subtract(self.resident);
        memory.add(self.resident);
        self.memory = memory;
    }

    /// Bytes of values that are in memory.
    pub fn resident(&self) -> usize {
        self.resident
    }

    pub fn values(&self) -> Option<&Arc<dyn Values>> {
        self.values.as_ref()
    }

    /// Every place that a version has leads to its value by `values`. Those before are given back: the last who drops them
    /// may have much to remove.
    #[must_use = "to be dropped under no lock"]
    pub fn set_values(&mut self, values: Arc<dyn Values>) -> Option<Arc<dyn Values>> {
        self.values.replace(values)
    }

    pub fn place(&mut self, moved: &[Moved]) {
        for moved in moved {
            // It may have been compacted meanwhile.
            let versions = self.keys.get_mut(&moved.key).into_iter();
            let mut versions = versions.flat_map(|versions| versions.all_mut());
            let version = versions.find(|version| version.mod_revision == moved.revision && version.sub() == moved.sub);
            if let Some(version) = version {
                version.lies_at(moved.place);
            }
        }
    }

    /// Gives up values of the keys after `after` that lie on the disk and were not asked for since the last time, until
    /// `wanted` bytes are freed or `limit` keys were looked at. What was given up, and where to go on: `None` at the end.
    pub fn cool(&mut self, after: Option<&Bytes>, limit: usize, wanted: usize) -> (Vec<Bytes>, Option<Bytes>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut given_up = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        let mut keys = self.keys.range_mut::<Bytes, _>((start, Bound::Unbounded));
        for (key, versions) in keys.by_ref().take(limit) {
            for value in versions.all_mut().filter_map(|version| version.cool()) {
                bytes += value.len();
                given_up.push(value);
            }
            last = Some(key);
            if bytes >= wanted {
                break;
            }
        }
        let last = last.cloned();
        let more = keys.next().is_some();
        self.resident -= bytes;
        self.memory.subtract(bytes);
        (given_up, last.filter(|_| more))
    }

    /// A value of `key` was read from its place. It stays, if there is room for it.
    pub fn warm(&mut self, key: &Bytes, revision: Revision, place: Place, value: &Bytes) {
        if !self.memory.admits(value.len()) {
            return;
        }
        let versions = self.keys.get_mut(key).into_iter();
        let versions = versions.flat_map(|versions| versions.all_mut());
        let mut versions = versions.filter(|version| version.mod_revision == revision);
        if versions.any(|version| version.warm(place, value)) {
            self.resident += value.len();
            self.memory.add(value.len());
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.memory.subtract(self.resident);
    }
}
