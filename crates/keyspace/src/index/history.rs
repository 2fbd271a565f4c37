//! What happened, by revision: whole for the newest commits, which watchers are about to be given, and for the older ones
//! only which keys they touched: a commit is made anew from the versions of its keys when somebody asks for it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{Commit, versions::Versions};
use crate::{Event, Revision};

/// Commits that are kept whole. A watcher that is further behind costs a look at the keys.
const WHOLE_COMMITS_MAX: usize = 8 << 10;

/// The same in bytes of keys and values, which compaction would have freed otherwise.
const WHOLE_BYTES_MAX: usize = 16 << 20;

/// One change of an older commit.
#[derive(Debug)]
struct Touched {
    revision: Revision,
    sub: u32,
    /// Of the whole commit, with its first change.
    bytes: u32,
    key: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct History {
    touched: VecDeque<Touched>,
    touched_commits: usize,
    whole: VecDeque<Arc<Commit>>,
    whole_bytes: usize,
    /// The commit at the oldest readable revision, whose own versions may be gone: a watch may begin there.
    first: Option<Arc<Commit>>,
    bytes: usize,
}

impl History {
    /// Commits that are kept.
    pub fn len(&self) -> usize {
        self.touched_commits + self.whole.len() + usize::from(self.first.is_some())
    }

    /// What they take with the values that only they need.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, commit: Arc<Commit>) {
        self.bytes += commit.bytes;
        self.whole_bytes += commit.bytes;
        self.whole.push_back(commit);
    }

    /// The newest, which must not be published yet.
    pub fn pop_newest(&mut self) -> Option<Arc<Commit>> {
        let commit = self.whole.pop_back()?;
        self.bytes -= commit.bytes;
        self.whole_bytes -= commit.bytes;
        Some(commit)
    }

    /// The commit at the revision that everything begins at.
    pub fn set_first(&mut self, commit: Arc<Commit>) {
        self.bytes += commit.bytes;
        if let Some(before) = self.first.replace(commit) {
            self.bytes -= before.bytes;
        }
    }

    /// Takes the older ones of those up to `published` apart.
    pub fn settle(&mut self, published: Revision) {
        while (self.whole.len() > WHOLE_COMMITS_MAX || self.whole_bytes > WHOLE_BYTES_MAX)
            && let Some(oldest) = self.whole.front()
            && oldest.revision < published
        {
            self.whole_bytes -= oldest.bytes;
            self.touched_commits += 1;
            let mut bytes = u32::try_from(oldest.bytes).unwrap_or(u32::MAX);
            self.bytes -= oldest.bytes - bytes as usize;
            for (sub, event) in (0..).zip(&oldest.events) {
                self.touched.push_back(Touched {
                    revision: oldest.revision,
                    sub,
                    bytes: std::mem::take(&mut bytes),
                    key: event.key().clone(),
                });
            }
            self.whole.pop_front();
        }
    }

    /// Commits from `from` to `until`, at most `limit`.
    pub fn commits(
        &self,
        keys: &BTreeMap<Bytes, Versions>,
        from: Revision,
        until: Revision,
        limit: usize,
    ) -> Vec<Arc<Commit>> {
        let mut found = Vec::new();
        found.extend(
            self.first
                .iter()
                .filter(|commit| commit.revision >= from && commit.revision <= until)
                .cloned(),
        );
        let start = self.touched.partition_point(|touched| touched.revision < from);
        let mut at = start;
        while found.len() < limit
            && let Some(touched) = self.touched.get(at).filter(|touched| touched.revision <= until)
        {
            let revision = touched.revision;
            let mut events = Vec::new();
            while let Some(touched) = self.touched.get(at).filter(|touched| touched.revision == revision) {
                events.extend(event(keys, touched));
                at += 1;
            }
            found.push(Arc::new(Commit::new(revision, events)));
        }
        let start = self.whole.partition_point(|commit| commit.revision < from);
        let whole = self.whole.range(start..).take_while(|commit| commit.revision <= until);
        found.extend(whole.take(limit.saturating_sub(found.len())).cloned());
        found.truncate(limit);
        found
    }

    /// Revisions and keys of changes after `after` up to `until`, at most `limit` commits; the revision they reach to.
    pub fn keys(&self, after: Revision, until: Revision, limit: usize) -> (Vec<Bytes>, Option<Revision>) {
        let mut keys = Vec::new();
        let mut commits = 0;
        let mut last = None;
        let start = self.touched.partition_point(|touched| touched.revision <= after);
        let older = self
            .touched
            .range(start..)
            .map(|touched| (touched.revision, &touched.key));
        let start = self.whole.partition_point(|commit| commit.revision <= after);
        let newer = self.whole.range(start..);
        let newer = newer.flat_map(|commit| commit.events.iter().map(|event| (commit.revision, event.key())));
        for (revision, key) in older.chain(newer).take_while(|(revision, _)| *revision <= until) {
            if last != Some(revision) {
                if commits == limit {
                    return (keys, last);
                }
                commits += 1;
                last = Some(revision);
            }
            keys.push(key.clone());
        }
        (keys, None)
    }

    /// Gives up what is before `revision`.
    pub fn forget_before(&mut self, revision: Revision) {
        if let Some(first) = self.first.take_if(|first| first.revision < revision) {
            self.bytes -= first.bytes;
        }
        let mut last = Revision(0);
        while let Some(oldest) = self.touched.front()
            && oldest.revision < revision
        {
            self.bytes -= oldest.bytes as usize;
            if oldest.revision != last {
                self.touched_commits -= 1;
                last = oldest.revision;
            }
            self.touched.pop_front();
        }
        while let Some(oldest) = self.whole.front()
            && oldest.revision < revision
        {
            self.bytes -= oldest.bytes;
            self.whole_bytes -= oldest.bytes;
            self.whole.pop_front();
        }
        if self.touched.capacity() > 4096 && self.touched.capacity() > 4 * self.touched.len() {
            self.touched.shrink_to_fit();
        }
    }

    /// Makes the commit at `revision` last without the versions of its keys.
    pub fn keep_whole(&mut self, keys: &BTreeMap<Bytes, Versions>, revision: Revision) {
        if self
            .touched
            .binary_search_by_key(&revision, |touched| touched.revision)
            .is_err()
        {
            return;
        }
        let commit = self.commits(keys, revision, revision, 1).pop();
        let start = self.touched.partition_point(|touched| touched.revision < revision);
        let end = self.touched.partition_point(|touched| touched.revision <= revision);
        for touched in self.touched.drain(start..end) {
            self.bytes -= touched.bytes as usize;
        }
        self.touched_commits -= 1;
        if let Some(commit) = commit {
            self.set_first(commit);
        }
    }

    /// How much is to be given up so that at most so many commits and bytes are left: everything before the answer.
    pub fn excess(&self, commits_max: usize, bytes_max: usize) -> Option<Revision> {
        let (mut commits, mut bytes) = (self.len(), self.bytes);
        let mut until = None;
        let first = self.first.iter().map(|commit| (commit.revision, commit.bytes));
        let touched = self
            .touched
            .iter()
            .map(|touched| (touched.revision, touched.bytes as usize));
        let whole = self.whole.iter().map(|commit| (commit.revision, commit.bytes));
        let mut last = Revision(0);
        for (revision, size) in first.chain(touched).chain(whole) {
            if revision != last {
                if commits <= commits_max && bytes <= bytes_max {
                    break;
                }
                commits -= 1;
                last = revision;
            }
            bytes -= size;
            until = Some(Revision(revision.0 + 1));
        }
        until
    }
}

fn event(keys: &BTreeMap<Bytes, Versions>, touched: &Touched) -> Option<Event> {
    let (stored, versions) = keys.get_key_value(&touched.key)?;
    let (version, before) = versions.change(touched.revision, touched.sub)?;
    let previous = before.map(|version| version.with_key(stored));
    Some(if version.is_live() {
        Event::Put {
            kv: version.with_key(stored),
            previous,
        }
    } else {
        Event::Delete {
            key: stored.clone(),
            revision: touched.revision,
            previous,
        }
    })
}
