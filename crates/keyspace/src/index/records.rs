//! The index as etcd's backend has it: one record a change, by revision. What hashes and backups are made of.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Index, compaction::Pinned};
use crate::{
    KeyValue, Result, Revision,
    values::{Place, Values},
    view::View,
};

/// One change that was not compacted.
#[derive(Clone, Debug)]
pub struct Record {
    pub revision: Revision,
    /// Which change of its revision.
    pub sub: u32,
    pub key: Bytes,
    /// `None` for a deletion. Without its value if that is cold; see [`Records::kv`].
    kv: Option<KeyValue>,
    /// Where the value is, and the number of those that lead to it.
    cold: Option<(Place, usize)>,
    /// A later record, not after the revision that was asked for, changes the same key.
    pub superseded: bool,
}

/// All that there is to tell of a keyspace at one revision.
#[derive(Debug)]
pub struct Records {
    pub pinned: Pinned,
    /// By revision and number in it.
    pub records: Vec<Record>,
    values: Vec<Arc<dyn Values>>,
}

impl Record {
    pub fn is_deletion(&self) -> bool {
        self.kv.is_none()
    }

    /// Without the value, if that is cold.
    pub fn known(&self) -> Option<&KeyValue> {
        self.kv.as_ref()
    }

    pub fn value_bytes(&self) -> usize {
        match (&self.cold, &self.kv) {
            (Some((place, _)), _) => place.length as usize,
            (None, Some(kv)) => kv.value.len(),
            (None, None) => 0,
        }
    }
}

impl Records {
    /// What the record says, `None` for a deletion. Blocks while the disk is read, if it has to be.
    pub fn kv(&self, record: &Record) -> Result<Option<KeyValue>> {
        let mut kv = record.kv.clone();
        if let (Some(kv), Some((place, from))) = (&mut kv, record.cold) {
            kv.value = self.values[from].read(&[place])?.pop().unwrap_or_default();
        }
        Ok(kv)
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    records: Vec<Record>,
    values: Vec<Arc<dyn Values>>,
}

/// Keys that are looked at under one hold of the lock.
const SLICE_KEYS: usize = 1000;

impl Index {
    /// Records of the keys after `after` that a compaction at `base` leaves, up to `until`.
    fn records(&self, base: Revision, until: Revision, after: Option<&Bytes>, found: &mut Found) -> Option<Bytes> {
        if let Some(values) = &self.values
            && !found.values.last().is_some_and(|last| Arc::ptr_eq(last, values))
        {
            found.values.push(values.clone());
        }
        let from = found.values.len().saturating_sub(1);
        let into = &mut found.records;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (seen, (key, versions)) in self.keys.range::<Bytes, _>((start, Bound::Unbounded)).enumerate() {
            if seen == SLICE_KEYS {
                return last;
            }
            let first = into.len();
            for version in versions.all().filter(|version| version.mod_revision <= until) {
                if version.mod_revision <= base {
                    into.truncate(first);
                    if !version.is_live() {
                        continue;
                    }
                }
                if let Some(before) = into[first..].last_mut() {
                    before.superseded = true;
                }
                into.push(Record {
                    revision: version.mod_revision,
                    sub: version.sub(),
                    key: key.clone(),
                    kv: version.is_live().then(|| version.with_key(key)),
                    cold: version.cold().map(|place| (place, from)),
                    superseded: false,
                });
            }
            last = Some(key.clone());
        }
        None
    }
}

impl View {
    /// Everything up to `until`, or up to now. Readers and writers get in between.
    pub fn records(&self, until: Option<Revision>) -> Records {
        let pinned = self.write().pin();
        let until = until.unwrap_or(pinned.revision);
        let mut found = Found::default();
        let mut after = None;
        loop {
            after = self.read().records(pinned.base, until, after.as_ref(), &mut found);
            if after.is_none() {
                break;
            }
        }
        self.write().unpin(pinned.base);
        let Found { mut records, values } = found;
        records.sort_unstable_by_key(|record| (record.revision, record.sub));
        Records {
            pinned,
            records,
            values,
        }
    }
}
