//! The index as etcd's backend has it: one record a change, by revision. What hashes and backups are made of.

use std::ops::Bound;

use bytes::Bytes;

use super::{Index, compaction::Pinned};
use crate::{KeyValue, Revision, view::View};

/// One change that was not compacted.
#[derive(Clone, Debug)]
pub struct Record {
    pub revision: Revision,
    /// Which change of its revision.
    pub sub: u32,
    pub key: Bytes,
    /// `None` for a deletion.
    pub kv: Option<KeyValue>,
    /// A later record, not after the revision that was asked for, changes the same key.
    pub superseded: bool,
}

/// All that there is to tell of a keyspace at one revision.
#[derive(Debug)]
pub struct Records {
    pub pinned: Pinned,
    /// By revision and number in it.
    pub records: Vec<Record>,
}

/// Keys that are looked at under one hold of the lock.
const SLICE_KEYS: usize = 1000;

impl Index {
    /// Records of the keys after `after` that a compaction at `base` leaves, up to `until`.
    fn records(&self, base: Revision, until: Revision, after: Option<&Bytes>, into: &mut Vec<Record>) -> Option<Bytes> {
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
                    sub: version.sub,
                    key: key.clone(),
                    kv: version.is_live().then(|| version.with_key(key)),
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
        let mut records = Vec::new();
        let mut after = None;
        loop {
            after = self.read().records(pinned.base, until, after.as_ref(), &mut records);
            if after.is_none() {
                break;
            }
        }
        self.write().unpin(pinned.base);
        records.sort_unstable_by_key(|record| (record.revision, record.sub));
        Records { pinned, records }
    }
}
