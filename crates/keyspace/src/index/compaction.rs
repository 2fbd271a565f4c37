//! Giving up history, and reading the index as a whole while it changes.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Commit, Freed, Index, Kept, Keys, Look};
use crate::{Error, Granted, Result, Revision, values::Values};

/// Keys that are pruned under one hold of the lock, so that nobody ever waits for a whole compaction. The last commit's may
/// be more.
pub const PRUNE_KEYS_MAX: usize = 1000;

/// What a snapshot is made of, besides the keys (see [`Index::slice`]).
#[derive(Debug)]
pub struct Pinned {
    /// The keys are read at this revision: the oldest that can be.
    pub base: Revision,
    pub compacted: Revision,
    /// The one at `base` itself, which watches may still ask for.
    pub base_commit: Option<Arc<Commit>>,
    pub revision: Revision,
    pub leases: Vec<Granted>,
}

impl Index {
    /// History before `revision` can't be read any more; [`Index::prune`] frees it.
    pub fn compact(&mut self, revision: Revision) -> Result<()> {
        self.stage_compact(revision)?;
        self.compact_staged();
        Ok(())
    }

    /// The same, from the next publication on.
    pub fn stage_compact(&mut self, revision: Revision) -> Result<()> {
        let compacted = self.compacted.max(self.to_compact);
        if revision <= compacted {
            return Err(Error::Compacted {
                wanted: revision,
                oldest: compacted,
            });
        }
        if revision > self.published {
            return Err(Error::Future {
                wanted: revision,
                current: self.published,
            });
        }
        self.to_compact = revision;
        Ok(())
    }

    pub(super) fn compact_staged(&mut self) {
        self.compacted = self.compacted.max(self.to_compact);
    }

    /// Frees some of what was compacted; false when there is nothing left to do.
    pub fn prune(&mut self, keys_max: usize) -> bool {
        let until = self
            .pinned
            .iter()
            .min()
            .map_or(self.compacted, |pinned| (*pinned).min(self.compacted));
        if self.pruned >= until {
            return false;
        }
        // The commit at the compacted revision stays: a watch may begin there.
        let keys = Keys {
            keys: &self.keys,
            values: &self.values,
        };
        self.history.keep_whole(&keys, until);
        let (due, reached) = self.history.keys(self.pruned, until, keys_max);
        for key in &due {
            self.prune_key(key, until);
        }
        self.pruned = reached.unwrap_or(until);
        self.history.forget_before(self.pruned);
        self.pruned < until
    }

    fn prune_key(&mut self, key: &Bytes, until: Revision) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let mut freed = versions.prune(until);
        if versions.is_gone(until) {
            freed.add(versions.last());
            freed.bytes += key.len();
            self.keys.remove(key);
        }
        self.free(freed);
    }

    pub(super) fn free(&mut self, freed: Freed) {
        self.bytes -= freed.bytes;
        self.resident -= freed.resident;
        self.memory.subtract(freed.resident);
    }

    /// Without anyone compacting, history stops growing at its limits.
    pub(super) fn keep_history_bounded(&mut self) {
        let limits = self.limits;
        if self.history.len() > limits.history_revisions_max || self.history.bytes() > limits.history_bytes_max {
            // A tenth at a time, so that this is not done at each commit.
            let (commits, bytes) = (limits.history_revisions_max / 10 * 9, limits.history_bytes_max / 10 * 9);
            let until = self.history.excess(commits, bytes).unwrap_or_default();
            self.compacted = until.min(self.published).max(self.compacted);
        }
        self.prune(PRUNE_KEYS_MAX);
    }

    /// Until [`Index::unpin`], the keys at the given base can be read slice by slice while the index goes on.
    pub fn pin(&mut self) -> Pinned {
        let base = self.compacted.max(self.pruned).max(Revision(1));
        self.pinned.push(base);
        Pinned {
            base,
            compacted: self.compacted,
            base_commit: self.commit_at(base),
            revision: self.published,
            leases: self.leases.all(),
        }
    }

    fn commit_at(&self, revision: Revision) -> Option<Arc<Commit>> {
        let one = Look {
            commits_max: 1,
            bytes_max: usize::MAX,
            keys: None,
        };
        let found = self.look(revision, &one).commits.into_iter().next();
        found.filter(|commit| commit.revision == revision)
    }

    /// `base` is that of the pin.
    pub fn unpin(&mut self, base: Revision) {
        if let Some(at) = self.pinned.iter().position(|pinned| *pinned == base) {
            self.pinned.swap_remove(at);
        }
    }

    /// All versions of the keys after `after`, of at most `limit` of them; the last key looked at is where to go on, `None`
    /// at the end. What versions before `base` say can be read by nobody.
    pub fn slice(&self, after: Option<&Bytes>, limit: usize) -> Slice {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut slice = Slice {
            keys: Vec::new(),
            last: None,
            values: self.values.clone(),
        };
        for (seen, (key, versions)) in self.keys.range::<Bytes, _>((start, Bound::Unbounded)).enumerate() {
            if seen == limit {
                slice.last = slice.keys.last().map(|(key, _)| key.clone());
                return slice;
            }
            let kept = versions.all().map(|version| version.kept()).collect();
            // A copy: the first clone of a key costs its index as much again as a pointer.
            slice.keys.push((Bytes::copy_from_slice(key), kept));
        }
        slice
    }
}

/// Some keys with all their versions.
#[derive(Debug)]
pub struct Slice {
    pub keys: Vec<(Bytes, Vec<Kept>)>,
    /// Where to go on; `None` at the end.
    pub last: Option<Bytes>,
    pub values: Option<Arc<dyn Values>>,
}

/// Of versions by age, those that a read at `base` or later can see.
pub fn readable(versions: &[Kept], base: Revision) -> &[Kept] {
    let newer = versions.partition_point(|version| version.revision <= base);
    let first = match newer.checked_sub(1) {
        Some(at) if versions[at].version > 0 => at,
        _ => newer,
    };
    &versions[first..]
}
