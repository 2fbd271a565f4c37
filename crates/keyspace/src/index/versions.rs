//! The versions of one key, oldest first.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{KeyValue, LeaseId, Revision};

/// What a key, its versions and its place in the tree cost besides the bytes of key and value.
pub(crate) const VERSION_OVERHEAD_BYTES: usize = 128;

#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub value: Bytes,
    pub mod_revision: Revision,
    pub create_revision: Revision,
    /// 0 for a deletion.
    pub version: u64,
    /// 0 for none: half the size of an `Option`, and there is one of these for each version of each key.
    lease: i64,
    /// Which change of its revision it is.
    pub sub: u32,
}

impl Version {
    pub fn deletion(revision: Revision, sub: u32) -> Version {
        Version {
            value: Bytes::new(),
            mod_revision: revision,
            create_revision: Revision(0),
            version: 0,
            lease: 0,
            sub,
        }
    }

    pub fn of(kv: &KeyValue, sub: u32) -> Version {
        Version {
            value: kv.value.clone(),
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease.map_or(0, |lease| lease.0),
            sub,
        }
    }

    pub fn lease(&self) -> Option<LeaseId> {
        (self.lease != 0).then_some(LeaseId(self.lease))
    }

    pub fn is_live(&self) -> bool {
        self.version > 0
    }

    pub fn bytes(&self) -> usize {
        self.value.len() + VERSION_OVERHEAD_BYTES
    }

    pub fn with_key(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease(),
        }
    }
}

/// The newest stands apart: nearly every read wants it, and most keys have no other.
#[derive(Debug)]
pub(crate) struct Versions {
    last: Version,
    /// Apart from the key's place in the tree, since few keys have any.
    #[allow(clippy::box_collection, reason = "8 bytes in each of a million keys instead of 32")]
    older: Option<Box<VecDeque<Version>>>,
}

impl Versions {
    pub fn new(first: Version) -> Versions {
        Versions {
            last: first,
            older: None,
        }
    }

    /// The newest, if it is no deletion.
    pub fn live(&self) -> Option<&Version> {
        Some(&self.last).filter(|version| version.is_live())
    }

    /// What the key was at `revision`, if it was there.
    pub fn at(&self, revision: Revision) -> Option<&Version> {
        let version = if self.last.mod_revision <= revision {
            &self.last
        } else {
            let older = self.older.as_ref()?;
            let newer = older.partition_point(|version| version.mod_revision <= revision);
            older.get(newer.checked_sub(1)?)?
        };
        Some(version).filter(|version| version.is_live())
    }

    pub fn push(&mut self, version: Version) {
        let before = std::mem::replace(&mut self.last, version);
        self.older.get_or_insert_default().push_back(before);
    }

    /// Takes the newest back; `None` for it if there was no other, and then the key has to go.
    pub fn pop(&mut self) -> Option<Version> {
        let older = self.older.as_mut()?;
        let before = older.pop_back()?;
        if older.is_empty() {
            self.older = None;
        }
        Some(std::mem::replace(&mut self.last, before))
    }

    pub fn last(&self) -> &Version {
        &self.last
    }

    /// Gives up what no read at `revision` or later can see; gives the bytes freed. Afterwards the key has to go if
    /// [`Versions::is_gone`].
    pub fn prune(&mut self, revision: Revision) -> usize {
        let mut freed = 0;
        let Some(older) = self.older.as_mut() else {
            return 0;
        };
        while let Some(oldest) = older.front() {
            let next = older.get(1).unwrap_or(&self.last);
            let superseded = next.mod_revision <= revision;
            let deletion = !oldest.is_live() && oldest.mod_revision <= revision;
            if !superseded && !deletion {
                break;
            }
            freed += oldest.bytes();
            older.pop_front();
        }
        if older.is_empty() {
            self.older = None;
        } else if older.capacity() > 4 * older.len() {
            older.shrink_to_fit();
        }
        freed
    }

    /// Oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Version> {
        self.older.iter().flat_map(|older| older.iter()).chain([&self.last])
    }

    /// The version that one change made, and what was there before its revision.
    pub fn change(&self, revision: Revision, sub: u32) -> Option<(&Version, Option<&Version>)> {
        let changed = self
            .all()
            .find(|version| version.mod_revision == revision && version.sub == sub)?;
        Some((changed, self.at(Revision(revision.0 - 1))))
    }

    /// Nothing but a deletion at or before `revision` is left.
    pub fn is_gone(&self, revision: Revision) -> bool {
        self.older.is_none() && !self.last.is_live() && self.last.mod_revision <= revision
    }
}
