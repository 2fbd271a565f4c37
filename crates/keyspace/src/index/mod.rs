//! The multi-version index that every embedded store reads from: keys, their versions, leases, and a bounded history of
//! commits that watches resume from. Pure: no lock, no clock, no I/O; [`crate::view::View`] shares it.
//!
//! Writes are *staged* first and *published* later, because a store must show nothing before it is durable. Transactions
//! are decided on what is staged, reads see what is published. Staged writes can be rolled back until then.

pub mod compaction;
mod history;
mod leases;
pub mod records;
mod stage;
mod versions;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use world::Random;

use crate::{
    Content, Error, Event, Granted, KeyRange, KeyValue, LeaseId, LeaseState, Previous, Range, Ranged, Result, Revision,
};

pub use leases::{LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_MAX};
pub use stage::Staged;

use history::History;
use leases::{Lease, Leases};
use versions::{Version, Versions};

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

/// What one revision changed. Shared by the history and by all watchers.
#[derive(Debug)]
pub struct Commit {
    pub revision: Revision,
    /// Each with what was there before.
    pub events: Vec<Event>,
    pub bytes: usize,
    /// What a layer above makes of the events for all watchers alike, made once; see [`Commit::made`].
    made: [OnceLock<Bytes>; 2],
}

impl Commit {
    pub fn new(revision: Revision, events: Vec<Event>) -> Commit {
        let bytes = events.iter().map(event_bytes).sum();
        Commit {
            revision,
            events,
            bytes,
            made: Default::default(),
        }
    }

    /// All events as bytes, with or without what was there before; `make` is called by the first who asks.
    pub fn made(&self, previous: Previous, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.made[usize::from(previous == Previous::Return)].get_or_init(make)
    }
}

fn event_bytes(event: &Event) -> usize {
    const EVENT_OVERHEAD_BYTES: usize = size_of::<Event>();
    let (value, previous) = match event {
        Event::Put { kv, previous } => (kv.value.len(), previous),
        Event::Delete { previous, .. } => (0, previous),
    };
    EVENT_OVERHEAD_BYTES + event.key().len() + value + previous.as_ref().map_or(0, |kv| kv.value.len())
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
        }
    }

    /// As a snapshot has it: all keys at `revision`, nothing known of before. Leases begin their time anew at `now`.
    pub fn restored(
        limits: Limits,
        revision: Revision,
        leases: impl IntoIterator<Item = Granted>,
        now: Duration,
        items: impl IntoIterator<Item = Item>,
    ) -> Index {
        let mut index = Index::new(limits);
        for granted in leases {
            index.replay_grant(granted, now);
        }
        index.base = revision;
        index.head = revision;
        index.published = revision;
        // At its first revision a keyspace has no key, so nothing is lost.
        index.compacted = if revision > Revision(1) { revision } else { Revision(0) };
        index.pruned = index.compacted;
        for Item { kv, sub } in items {
            let version = Version::of(&kv, sub);
            index.live += 1;
            index.bytes += kv.key.len() + version.bytes();
            if let Some(lease) = kv.lease {
                index.leases.attach(lease, &kv.key);
            }
            index.keys.insert(kv.key, Versions::new(version));
        }
        index
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

    pub fn range(&self, range: &Range) -> Result<Ranged> {
        let revision = self.readable(range.revision, self.published)?;
        Ok(self.read(range, revision, self.published))
    }

    /// The same without looking beyond the limit.
    pub fn page(&self, range: &Range) -> Result<Ranged> {
        let at = self.readable(range.revision, self.published)?;
        let limit = range.limit.unwrap_or(usize::MAX);
        let mut ranged = Ranged {
            revision: self.published,
            items: Vec::new(),
            count: 0,
            more: false,
        };
        let Some(bounds) = bounds(&range.keys) else {
            return Ok(ranged);
        };
        let found = self.keys.range::<[u8], _>(bounds);
        for (key, version) in found.filter_map(|(key, versions)| Some((key, versions.at(at)?))) {
            if ranged.items.len() == limit {
                ranged.more = true;
                break;
            }
            let mut kv = version.with_key(key);
            if range.content != Content::Full {
                kv.value = Bytes::new();
            }
            ranged.items.push(kv);
        }
        ranged.count = ranged.items.len();
        Ok(ranged)
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

    fn read(&self, range: &Range, at: Revision, answer: Revision) -> Ranged {
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
        self.each(&range.keys, at, |key, version| {
            ranged.count += 1;
            if ranged.items.len() < limit {
                let mut kv = version.with_key(key);
                if range.content == Content::KeysOnly {
                    kv.value = Bytes::new();
                }
                ranged.items.push(kv);
            }
        });
        ranged.more = range.content != Content::CountOnly && ranged.count > ranged.items.len();
        ranged
    }

    fn each(&self, keys: &KeyRange, at: Revision, mut visit: impl FnMut(&Bytes, &Version)) {
        if let Bound::Included(end) = &keys.end
            && *end == keys.start
        {
            if let Some((key, versions)) = self.keys.get_key_value(&keys.start)
                && let Some(version) = versions.at(at)
            {
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

    /// The commit at the revision the index was restored at: watches may begin there, its keys are there already.
    pub fn remember(&mut self, commit: Arc<Commit>) {
        debug_assert!(self.history.len() == 0 && commit.revision <= self.head);
        self.history.set_first(commit);
    }

    /// Makes everything staged visible.
    pub fn publish(&mut self) {
        self.published = self.head;
        self.undo.clear();
        self.compact_staged();
        self.history.settle(self.published);
        self.keep_history_bounded();
    }

    /// Commits from `from` on that are published, at most `limit`.
    pub fn commits(&self, from: Revision, limit: usize) -> Vec<Arc<Commit>> {
        self.history.commits(&self.keys, from, self.published, limit)
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
