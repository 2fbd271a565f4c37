//! Giving up history, and reading the index as a whole while it changes.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Commit, Index};
use crate::{Error, Granted, KeyValue, Result, Revision};

/// Commits whose keys are pruned under one hold of the lock, so that readers never wait for a whole compaction.
pub const PRUNE_COMMITS_MAX: usize = 1000;

/// What a snapshot is made of, besides the keys (see [`Index::slice`]).
#[derive(Debug)]
pub struct Pinned {
    /// The keys are read at this revision: the oldest that can be.
    pub base: Revision,
    pub compacted: Revision,
    /// Everything published after `base`.
    pub commits: Vec<Arc<Commit>>,
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
        let until = self.pinned.map_or(self.compacted, |pinned| pinned.min(self.compacted));
        if self.pruned >= until {
            return false;
        }
        let first = self.history.partition_point(|commit| commit.revision <= self.pruned);
        let due: Vec<Arc<Commit>> = (self.history.iter().skip(first).take(commits_max))
            .take_while(|commit| commit.revision <= until)
            .cloned()
            .collect();
        for commit in &due {
            for event in &commit.events {
                self.prune_key(event.key(), until);
            }
        }
        self.pruned = match due.last() {
            Some(last) if due.len() == commits_max => last.revision,
            _ => until,
        };
        // The commit at the compacted revision stays: a watch may begin there.
        while let Some(oldest) = self.history.front()
            && oldest.revision < self.pruned
        {
            self.history_bytes -= oldest.bytes;
            self.history.pop_front();
        }
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
        if self.history.len() <= limits.history_revisions_max && self.history_bytes <= limits.history_bytes_max {
            self.prune(PRUNE_COMMITS_MAX);
            return;
        }
        // A tenth at a time, so that this is not done at each commit.
        let (mut count, mut bytes) = (self.history.len(), self.history_bytes);
        let mut until = self.compacted;
        for commit in &self.history {
            let enough = count <= limits.history_revisions_max / 10 * 9 && bytes <= limits.history_bytes_max / 10 * 9;
            if enough || commit.revision >= self.published {
                break;
            }
            count -= 1;
            bytes -= commit.bytes;
            until = until.max(Revision(commit.revision.0 + 1));
        }
        self.compacted = until.min(self.published);
        self.prune(PRUNE_COMMITS_MAX);
    }

    /// Until [`Index::unpin`], the keys at the given base can be read slice by slice while the index goes on.
    pub fn pin(&mut self) -> Pinned {
        let base = self.compacted.max(self.pruned).max(Revision(1));
        self.pinned = Some(base);
        let first = self.history.partition_point(|commit| commit.revision <= base);
        Pinned {
            base,
            compacted: self.compacted,
            commits: self.commits(Revision(base.0 + 1), usize::MAX),
            base_commit: (first.checked_sub(1).and_then(|at| self.history.get(at)))
                .filter(|commit| commit.revision == base)
                .cloned(),
            revision: self.published,
            leases: self.leases.all(),
        }
    }

    pub fn unpin(&mut self) {
        self.pinned = None;
    }

    /// Keys after `after` as they were at `base`, at most `limit`; the last key looked at is where to go on, `None` at
    /// the end.
    pub fn slice(&self, base: Revision, after: Option<&Bytes>, limit: usize) -> (Vec<KeyValue>, Option<Bytes>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut items = Vec::new();
        let mut last = None;
        for (seen, (key, versions)) in self.keys.range::<Bytes, _>((start, Bound::Unbounded)).enumerate() {
            if seen == limit {
                return (items, last);
            }
            items.extend(versions.at(base).map(|version| version.with_key(key)));
            last = Some(key.clone());
        }
        (items, None)
    }
}
