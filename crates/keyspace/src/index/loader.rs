//! An index made of what was kept of one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Commit, Index, Kept, Limits,
    history::Loaded,
    versions::{Version, Versions},
};
use crate::{Granted, Revision, values::Values};

/// Of which revisions an index tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The oldest that can be read.
    pub base: Revision,
    pub compacted: Revision,
    pub revision: Revision,
}

/// Takes keys one after another, so that nothing but the index itself is in memory.
pub struct Loader {
    index: Index,
    keys: Vec<(Bytes, Versions)>,
    changes: Vec<Loaded>,
}

impl Loader {
    /// Leases begin their time anew at `now`.
    pub fn new(limits: Limits, head: Head, leases: impl IntoIterator<Item = Granted>, now: Duration) -> Loader {
        let mut index = Index::new(limits);
        for granted in leases {
            index.replay_grant(granted, now);
        }
        index.base = head.base;
        index.head = head.revision;
        index.published = head.revision;
        index.compacted = head.compacted;
        index.pruned = head.compacted;
        Loader {
            index,
            keys: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The commit at the base: watches may begin there, its keys are there already.
    pub fn base_commit(&mut self, commit: Commit) {
        self.index.history.set_first(Arc::new(commit));
    }

    /// With the versions of a key by age: the one at the base, if it was there, and all later ones. Keys come in order.
    pub fn key(&mut self, key: Bytes, kept: impl IntoIterator<Item = Kept>) {
        let index = &mut self.index;
        let mut versions: Option<Versions> = None;
        for version in kept.into_iter().map(Version::from_kept) {
            index.bytes += version.bytes();
            index.resident += version.resident();
            let before = versions.as_ref().map_or(0, |before| before.last().value_bytes());
            if version.mod_revision > index.base {
                self.changes.push(Loaded {
                    revision: version.mod_revision,
                    sub: version.sub(),
                    bytes: key.len() + version.value_bytes() + before,
                    key: key.clone(),
                });
            }
            match &mut versions {
                None => versions = Some(Versions::new(version)),
                Some(versions) => versions.push(version),
            }
        }
        let Some(versions) = versions else { return };
        index.bytes += key.len();
        if let Some(live) = versions.live() {
            index.live += 1;
            if let Some(lease) = live.lease() {
                index.leases.attach(lease, &key);
            }
        }
        self.keys.push((key, versions));
    }

    /// `values` lead to those that are not in memory.
    pub fn finish(self, values: Option<Arc<dyn Values>>) -> Index {
        let Loader {
            mut index,
            keys,
            changes,
        } = self;
        index.memory.add(index.resident);
        // Made at once of keys in order, the tree has no half empty nodes.
        index.keys = BTreeMap::from_iter(keys);
        index.history.load(changes);
        index.values = values;
        index
    }
}
