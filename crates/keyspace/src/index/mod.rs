//! The multi-version index that every embedded store reads from: keys, their versions, leases, and a bounded history of
//! commits that watches resume from. Pure: no lock, no clock, no I/O; [`crate::view::View`] shares it.
//!
//! Writes are *staged* first and *published* later, because a store must show nothing before it is durable. Transactions
//! are decided on what is staged, reads see what is published. Staged writes can be rolled back until then.

mod commit;
pub mod compaction;
mod history;
mod leases;
mod loader;
pub mod records;
mod stage;
mod versions;
mod warmth;

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use bytes::Bytes;
use world::Random;

use crate::{
    Content, Error, Granted, KeyRange, KeyValue, LeaseId, LeaseState, Range, Ranged, Result, Revision,
    values::{Memory, Missing, Place, Values, Warm},
};

pub use commit::Commit;
pub use leases::{LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX};
pub use loader::{Head, Loader};
pub use stage::{Staged, Staging};
pub use warmth::Moved;

use history::{History, Keys};
pub(crate) use history::{Look, Looked};
use leases::{Lease, Leases};
use versions::{Freed, Version, Versions};

/// What one keyspace may take of the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Commits that are kept for watches to resume from and for reads of the past. Beyond it the oldest are compacted.
    pub history_revisions_max: usize,
    /// The same in bytes of keys and values.
    pub history_bytes_max: usize,
    /// Bytes of all versions; beyond it puts are refused and deletions go on. etcd's default is 2 GiB as well.
    pub quota_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            history_revisions_max: 200_000,
            history_bytes_max: 64 << 20,
            quota_bytes_max: 2 << 30,
        }
    }
}

/// A change as a log or a remote store tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Put(KeyValue),
    Delete(Bytes),
}

/// A key as a snapshot has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub kv: KeyValue,
    /// Which change of its revision it was.
    pub sub: u32,
}

/// A version of a key, as it is kept beyond the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    pub revision: Revision,
    /// Which change of its revision it was.
    pub sub: u32,
    pub created: Revision,
    /// 0 for a deletion.
    pub version: u64,
    pub lease: Option<LeaseId>,
    /// Empty if it is cold.
    pub value: Bytes,
    pub place: Place,
}

/// How to take back what was staged.
#[derive(Debug)]
enum Undo {
    Commit,
    Grant(LeaseId),
    Revoke(LeaseId, Lease),
}

#[derive(Debug)]
pub struct Index {
    keys: BTreeMap<Bytes, Versions>,
    bytes: usize,
    live: usize,
    history: History,
    base: Revision,
    /// The newest staged.
    head: Revision,
    /// The newest that readers see.
    published: Revision,
    /// 0 if never compacted.
    compacted: Revision,
    /// What is compacted with the next publication, if it is more.
    to_compact: Revision,
    /// Versions are pruned up to here; lags `compacted` while pinned or while there is much to prune.
    pruned: Revision,
    /// Whoever reads the index as a whole reads at one of these.
    pinned: Vec<Revision>,
    leases: Leases,
    undo: Vec<Undo>,
    limits: Limits,
    /// Leads from the places of versions to their values.
    values: Option<Arc<dyn Values>>,
    /// Bytes of values that are in memory.
    resident: usize,
    memory: Arc<Memory>,
}

impl Index {
    pub fn new(limits: Limits) -> Index {
        Index {
            keys: BTreeMap::new(),
            bytes: 0,
            live: 0,
            history: History::default(),
            base: Revision(1),
            head: Revision(1),
            published: Revision(1),
            compacted: Revision(0),
            to_compact: Revision(0),
            pruned: Revision(0),
            pinned: Vec::new(),
            leases: Leases::default(),
            undo: Vec::new(),
            limits,
            values: None,
            resident: 0,
            memory: Arc::new(Memory::unlimited()),
        }
    }

    /// As a snapshot has it: all keys at `revision`, by key, nothing known of before. Leases begin their time anew at `now`.
    pub fn restored(
        limits: Limits,
        revision: Revision,
        leases: impl IntoIterator<Item = Granted>,
        now: Duration,
        items: impl IntoIterator<Item = Item>,
    ) -> Index {
        let head = Head {
            base: revision,
            // At its first revision a keyspace has no key, so nothing is lost.
            compacted: if revision > Revision(1) { revision } else { Revision(0) },
            revision,
        };
        let mut loader = Loader::new(limits, head, leases, now);
        for Item { kv, sub } in items {
            let kept = Version::of(&kv, sub).kept();
            loader.key(kv.key, [kept]);
        }
        loader.finish(None)
    }

    /// The newest that readers see.
    pub fn revision(&self) -> Revision {
        self.published
    }

    /// The newest staged.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// What the index was restored at: of this revision it has the keys, and not the events.
    pub fn base(&self) -> Revision {
        self.base
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Bytes of all versions that are kept, with their overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys that are there, in what is staged.
    pub fn live_keys(&self) -> usize {
        self.live
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn range(&self, range: &Range) -> Result<(Ranged, Missing)> {
        let revision = self.readable(range.revision, self.published)?;
        Ok(self.read(range, revision, self.published, &Warm::default()))
    }

    /// The same without looking beyond the limit.
    pub fn page(&self, range: &Range) -> Result<(Ranged, Missing)> {
        let at = self.readable(range.revision, self.published)?;
        let limit = range.limit.unwrap_or(usize::MAX);
        let mut ranged = Ranged {
            revision: self.published,
            items: Vec::new(),
            count: 0,
            more: false,
        };
        let Some(bounds) = bounds(&range.keys) else {
            return Ok((ranged, Missing::default()));
        };
        let mut missing = Vec::new();
        let found = self.keys.range::<[u8], _>(bounds);
        for (key, version) in found.filter_map(|(key, versions)| Some((key, versions.at(at)?))) {
            if ranged.items.len() == limit {
                ranged.more = true;
                break;
            }
            take(
                &mut ranged.items,
                &mut missing,
                key,
                version,
                range.content,
                &Warm::default(),
            );
        }
        ranged.count = ranged.items.len();
        Ok((ranged, Missing::of(missing, &self.values)))
    }

    /// The revision to read at, if `wanted` can be read.
    fn readable(&self, wanted: Option<Revision>, current: Revision) -> Result<Revision> {
        match wanted {
            None => Ok(current),
            Some(wanted) if wanted > current => Err(Error::Future { wanted, current }),
            Some(wanted) if wanted < self.compacted => Err(Error::Compacted {
                wanted,
                oldest: self.compacted,
            }),
            Some(wanted) => Ok(wanted),
        }
    }

    fn read(&self, range: &Range, at: Revision, answer: Revision, warm: &Warm) -> (Ranged, Missing) {
        let mut ranged = Ranged {
            revision: answer,
            items: Vec::new(),
            count: 0,
            more: false,
        };
        let limit = match range.content {
            Content::CountOnly => 0,
            _ => range.limit.unwrap_or(usize::MAX),
        };
        let mut missing = Vec::new();
        self.each(&range.keys, at, |key, version| {
            ranged.count += 1;
            if ranged.items.len() < limit {
                take(&mut ranged.items, &mut missing, key, version, range.content, warm);
            }
        });
        ranged.more = range.content != Content::CountOnly && ranged.count > ranged.items.len();
        (ranged, Missing::of(missing, &self.values))
    }

    fn each(&self, keys: &KeyRange, at: Revision, mut visit: impl FnMut(&Bytes, &Version)) {
        if let Bound::Included(end) = &keys.end
            && *end == keys.start
        {
            if let Some((key, versions)) = self.keys.get_key_value(&keys.start)
                && let Some(version) = versions.at(at)
            {
                // Who asks for a key by name warms it; who lists them all says nothing of any.
                version.ask_for();
                visit(key, version);
            }
            return;
        }
        let Some(bounds) = bounds(keys) else { return };
        for (key, versions) in self.keys.range::<[u8], _>(bounds) {
            if let Some(version) = versions.at(at) {
                visit(key, version);
            }
        }
    }

    /// Makes everything staged visible.
    pub fn publish(&mut self) {
        self.published = self.head;
        self.undo.clear();
        self.compact_staged();
        self.history.settle(self.published);
        self.keep_history_bounded();
    }

    /// Commits from `from` on that are published.
    pub(crate) fn look(&self, from: Revision, look: &Look<'_>) -> Looked {
        self.history.look(&self.as_keys(), from, self.published, look)
    }

    fn as_keys(&self) -> Keys<'_> {
        Keys {
            keys: &self.keys,
            values: &self.values,
        }
    }

    pub fn lease_state(&self, id: LeaseId, now: Duration) -> Result<LeaseState> {
        self.leases.state(id, now)
    }

    pub fn keep_lease(&mut self, id: LeaseId, now: Duration) -> Result<Duration> {
        self.leases.keep(id, now)
    }

    pub fn has_lease(&self, id: LeaseId) -> bool {
        self.leases.contains(id)
    }

    /// An id that no lease has.
    pub fn free_lease_id(&self, random: &dyn Random) -> LeaseId {
        loop {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            let id = LeaseId(i64::from_le_bytes(bytes) & i64::MAX);
            if id.0 > 0 && !self.has_lease(id) {
                return id;
            }
        }
    }

    /// All leases, those that end first before the others.
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        self.leases.by_expiry()
    }

    pub fn next_lease_expiry(&self) -> Option<Duration> {
        self.leases.next_expiry()
    }

    pub fn expired_leases(&self, now: Duration, limit: usize) -> Vec<LeaseId> {
        self.leases.expired(now, limit)
    }
}

/// One more of an answer.
fn take(
    items: &mut Vec<KeyValue>,
    missing: &mut Vec<(usize, Place)>,
    key: &Bytes,
    version: &Version,
    content: Content,
    warm: &Warm,
) {
    let mut kv = version.with_key(key);
    if content != Content::Full {
        kv.value = Bytes::new();
    } else if let Some(place) = version.cold() {
        match warm.get(place) {
            Some(value) => kv.value = value.clone(),
            None => missing.push((items.len(), place)),
        }
    }
    items.push(kv);
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// `None` for a range that can't hold a key; `BTreeMap::range` panics on those.
fn bounds(keys: &KeyRange) -> Option<Bounds<'_>> {
    let start = Bound::Included(keys.start.as_ref());
    match &keys.end {
        Bound::Included(end) => (*end >= keys.start).then_some((start, Bound::Included(end.as_ref()))),
        Bound::Excluded(end) => (*end > keys.start).then_some((start, Bound::Excluded(end.as_ref()))),
        Bound::Unbounded => Some((start, Bound::Unbounded)),
    }
}
