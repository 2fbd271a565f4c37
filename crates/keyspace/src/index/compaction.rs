//! Giving up history, and reading the index as a whole while it changes.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Commit, Index, Item};
use crate::{Error, Granted, Result, Revision};

/// Commits whose keys are pruned under one hold of the lock, so that readers never wait for a whole compaction.
pub const PRUNE_COMMITS_MAX: usize = 1000;

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
    pub fn prune(&mut self, commits_max: usize) -> bool {
        let until = self
            .pinned
            .iter()
            .min()
            .map_or(self.compacted, |pinned| (*pinned).min(self.compacted));
        if self.pruned >= until {
            return false;
        }
        // The commit at the compacted revision stays: a watch may begin there.
        self.history.keep_whole(&self.keys, until);
        let (due, reached) = self.history.keys(self.pruned, until, commits_max);
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
        self.bytes -= versions.prune(until);
        if versions.is_gone(until) {
            self.bytes -= key.len() + versions.last().bytes();
            self.keys.remove(key);
        }
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
        self.prune(PRUNE_COMMITS_MAX);
    }

    /// Until [`Index::unpin`], the keys at the given base can be read slice by slice while the index goes on.
    pub fn pin(&mut self) -> Pinned {
        let base = self.compacted.max(self.pruned).max(Revision(1));
        self.pinned.push(base);
        Pinned {
            base,
            compacted: self.compacted,
            base_commit: self.commits(base, 1).pop().filter(|commit| commit.revision == base),
            revision: self.published,
            leases: self.leases.all(),
        }
    }

    /// `base` is that of the pin.
    pub fn unpin(&mut self, base: Revision) {
        if let Some(at) = self.pinned.iter().position(|pinned| *pinned == base) {
            self.pinned.swap_remove(at);
        }
    }

    /// Keys after `after` as they were at `base`, at most `limit`; the last key looked at is where to go on, `None` at
    /// the end.
    pub fn slice(&self, base: Revision, after: Option<&Bytes>, limit: usize) -> (Vec<Item>, Option<Bytes>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut items = Vec::new();
        let mut last = None;
        for (seen, (key, versions)) in self.keys.range::<Bytes, _>((start, Bound::Unbounded)).enumerate() {
            if seen == limit {
                return (items, last);
            }
            items.extend(versions.at(base).map(|version| Item {
                kv: version.with_key(key),
                sub: version.sub,
            }));
            last = Some(key.clone());
        }
        (items, None)
    }
}
