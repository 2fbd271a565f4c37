//! The versions of one key, oldest first.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;

use super::Kept;
use crate::{
    KeyValue, LeaseId, Revision,
    values::{Place, Warm},
};

/// What a key, its versions and its place in the tree cost besides the bytes of key and value.
pub(crate) const VERSION_OVERHEAD_BYTES: usize = 128;

/// Of [`Version::marks`]: the value was asked for, or written, since the last look for cold ones.
const ASKED_FOR: u32 = 1 << 31;

#[derive(Debug)]
pub(crate) struct Version {
    /// Empty if it is only on the disk.
    memory: Bytes,
    /// Where it is on the disk, if it is there.
    place: Place,
    /// Which change of its revision it is, and [`ASKED_FOR`]: there is one of these for each version of each key.
    marks: AtomicU32,
    pub mod_revision: Revision,
    pub create_revision: Revision,
    /// 0 for a deletion.
    pub version: u64,
    /// 0 for none: half the size of an `Option`.
    lease: i64,
}

impl Version {
    pub fn deletion(revision: Revision, sub: u32) -> Version {
        Version {
            memory: Bytes::new(),
            place: Place::default(),
            marks: AtomicU32::new(sub),
            mod_revision: revision,
            create_revision: Revision(0),
            version: 0,
            lease: 0,
        }
    }

    pub fn of(kv: &KeyValue, sub: u32) -> Version {
        Version {
            memory: kv.value.clone(),
            place: Place::default(),
            marks: AtomicU32::new(sub | ASKED_FOR),
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease.map_or(0, |lease| lease.0),
        }
    }

    pub fn from_kept(kept: Kept) -> Version {
        Version {
            memory: kept.value,
            place: kept.place,
            marks: AtomicU32::new(kept.sub),
            mod_revision: kept.revision,
            create_revision: kept.created,
            version: kept.version,
            lease: kept.lease.map_or(0, |lease| lease.0),
        }
    }

    pub fn kept(&self) -> Kept {
        Kept {
            revision: self.mod_revision,
            sub: self.sub(),
            created: self.create_revision,
            version: self.version,
            lease: self.lease(),
            value: self.memory.clone(),
            place: self.place,
        }
    }

    pub fn sub(&self) -> u32 {
        self.marks.load(Ordering::Relaxed) & !ASKED_FOR
    }

    pub fn lease(&self) -> Option<LeaseId> {
        (self.lease != 0).then_some(LeaseId(self.lease))
    }

    pub fn is_live(&self) -> bool {
        self.version > 0
    }

    /// Where the value has to be read from.
    pub fn cold(&self) -> Option<Place> {
        (self.memory.is_empty() && self.place.is_some()).then_some(self.place)
    }

    /// `None` if it is neither in memory nor was read before.
    pub fn value<'a>(&'a self, warm: &'a Warm) -> Option<&'a Bytes> {
        match self.cold() {
            None => Some(&self.memory),
            Some(place) => warm.get(place),
        }
    }

    pub fn value_bytes(&self) -> usize {
        match self.cold() {
            None => self.memory.len(),
            Some(place) => place.length as usize,
        }
    }

    /// What of the value is in memory.
    pub fn resident(&self) -> usize {
        self.memory.len()
    }

    pub fn bytes(&self) -> usize {
        self.value_bytes() + VERSION_OVERHEAD_BYTES
    }

    /// Without the value, if it is cold.
    pub fn with_key(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.memory.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease(),
        }
    }

    pub fn ask_for(&self) {
        // Most are marked already, and a write would take the line from other cores.
        if self.marks.load(Ordering::Relaxed) & ASKED_FOR == 0 {
            self.marks.fetch_or(ASKED_FOR, Ordering::Relaxed);
        }
    }

    /// Gives up what is in memory if it is on the disk and nobody has asked for it since this was last called.
    pub fn cool(&mut self) -> Option<Bytes> {
        if self.memory.is_empty() || !self.place.is_some() {
            return None;
        }
        let marks = self.marks.get_mut();
        if *marks & ASKED_FOR != 0 {
            *marks &= !ASKED_FOR;
            return None;
        }
        Some(std::mem::take(&mut self.memory))
    }

    /// It was read from `place`; false if it is there no more, or is in memory already.
    pub fn warm(&mut self, place: Place, value: &Bytes) -> bool {
        if self.cold() != Some(place) {
            return false;
        }
        // A copy: what was read may be a piece of much more.
        self.memory = Bytes::copy_from_slice(value);
        *self.marks.get_mut() |= ASKED_FOR;
        true
    }

    pub fn lies_at(&mut self, place: Place) {
        self.place = place;
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

/// What a pruning freed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Freed {
    pub bytes: usize,
    pub resident: usize,
}

impl Freed {
    pub fn add(&mut self, version: &Version) {
        self.bytes += version.bytes();
        self.resident += version.resident();
    }
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

    /// Gives up what no read at `revision` or later can see. Afterwards the key has to go if [`Versions::is_gone`].
    pub fn prune(&mut self, revision: Revision) -> Freed {
        let mut freed = Freed::default();
        let Some(older) = self.older.as_mut() else {
            return freed;
        };
        while let Some(oldest) = older.front() {
            let next = older.get(1).unwrap_or(&self.last);
            let superseded = next.mod_revision <= revision;
            let deletion = !oldest.is_live() && oldest.mod_revision <= revision;
            if !superseded && !deletion {
                break;
            }
            freed.add(oldest);
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

    /// Oldest first.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Version> {
        let older = self.older.iter_mut().flat_map(|older| older.iter_mut());
        older.chain([&mut self.last])
    }

    /// The version that one change made, and what was there before its revision.
    pub fn change(&self, revision: Revision, sub: u32) -> Option<(&Version, Option<&Version>)> {
        let changed = self
            .all()
            .find(|version| version.mod_revision == revision && version.sub() == sub)?;
        Some((changed, self.at(Revision(revision.0 - 1))))
    }

    /// Nothing but a deletion at or before `revision` is left.
    pub fn is_gone(&self, revision: Revision) -> bool {
        self.older.is_none() && !self.last.is_live() && self.last.mod_revision <= revision
    }
}
