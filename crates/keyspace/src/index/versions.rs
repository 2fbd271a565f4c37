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
    pub lease: Option<LeaseId>,
}

impl Version {
    pub fn deletion(revision: Revision) -> Version {
        Version {
            value: Bytes::new(),
            mod_revision: revision,
            create_revision: Revision(0),
            version: 0,
            lease: None,
        }
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
            lease: self.lease,
        }
    }
}

impl From<&KeyValue> for Version {
    fn from(kv: &KeyValue) -> Version {
        Version {
            value: kv.value.clone(),
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }
}

/// The newest stands apart: nearly every read wants it, and most keys have no other.
#[derive(Debug)]
pub(crate) struct Versions {
    last: Version,
    older: VecDeque<Version>,
}

impl Versions {
    pub fn new(first: Version) -> Versions {
        Versions {
            last: first,
            older: VecDeque::new(),
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
            let newer = self.older.partition_point(|version| version.mod_revision <= revision);
            self.older.get(newer.checked_sub(1)?)?
        };
        Some(version).filter(|version| version.is_live())
    }

    pub fn push(&mut self, version: Version) {
        self.older.push_back(std::mem::replace(&mut self.last, version));
    }

    /// Takes the newest back; `None` for it if there was no other, and then the key has to go.
    pub fn pop(&mut self) -> Option<Version> {
        let before = self.older.pop_back()?;
        Some(std::mem::replace(&mut self.last, before))
    }

    pub fn last(&self) -> &Version {
        &self.last
    }

    /// Gives up what no read at `revision` or later can see; gives the bytes freed. Afterwards the key has to go if
    /// [`Versions::is_gone`].
    pub fn prune(&mut self, revision: Revision) -> usize {
        let mut freed = 0;
        while let Some(oldest) = self.older.front() {
            let next = self.older.get(1).unwrap_or(&self.last);
            let superseded = next.mod_revision <= revision;
            let deletion = !oldest.is_live() && oldest.mod_revision <= revision;
            if !superseded && !deletion {
                break;
            }
            freed += oldest.bytes();
            self.older.pop_front();
        }
        freed
    }

    /// Nothing but a deletion at or before `revision` is left.
    pub fn is_gone(&self, revision: Revision) -> bool {
        self.older.is_empty() && !self.last.is_live() && self.last.mod_revision <= revision
    }
}
