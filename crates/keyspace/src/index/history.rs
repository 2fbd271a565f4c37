//! What happened, by revision: whole for the newest commits, which watchers are about to be given, and for the older ones
//! only which keys they touched: a commit is made anew from the versions of its keys when somebody asks for it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Commit,
    commit::{EVENT_OVERHEAD_BYTES, Part, PartOf},
    versions::Versions,
};
use crate::{Event, KeyRange, Revision, values::Values};

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

    /// Looks through commits from `from` to `until`.
    pub fn look(&self, keys: &Keys<'_>, from: Revision, until: Revision, look: &Look<'_>) -> Looked {
        let mut looking = Looking {
            look,
            commits: Vec::new(),
            seen: 0,
            bytes: 0,
        };
        let first = (self.first.iter()).filter(|commit| commit.revision >= from && commit.revision <= until);
        for commit in first {
            looking.take(commit.clone());
        }
        let mut at = self.touched.partition_point(|touched| touched.revision < from);
        while let Some(revision) = self.touched.get(at).map(|touched| touched.revision)
            && revision <= until
        {
            if looking.is_full() {
                return looking.stopped_before(revision);
            }
            let changes = self.touched.range(at..);
            let changes = changes.take_while(|touched| touched.revision == revision);
            let wanted = (changes.clone()).any(|touched| look.keys.is_none_or(|keys| keys.contains(&touched.key)));
            at += changes.clone().count();
            looking.seen += 1;
            if wanted {
                looking.take(Arc::new(keys.commit(revision, changes)));
            }
        }
        let start = self.whole.partition_point(|commit| commit.revision < from);
        for commit in self.whole.range(start..).take_while(|commit| commit.revision <= until) {
            if looking.is_full() {
                return looking.stopped_before(commit.revision);
            }
            looking.seen += 1;
            looking.take(commit.clone());
        }
        Looked {
            commits: looking.commits,
            through: until,
        }
    }

    /// Keys of changes after `after` up to `until`, of whole commits until there are `limit`; the revision they reach to.
    pub fn keys(&self, after: Revision, until: Revision, limit: usize) -> (Vec<Bytes>, Option<Revision>) {
        let mut keys = Vec::new();
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
                if keys.len() >= limit {
                    return (keys, last);
                }
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
    pub fn keep_whole(&mut self, keys: &Keys<'_>, revision: Revision) {
        if self
            .touched
            .binary_search_by_key(&revision, |touched| touched.revision)
            .is_err()
        {
            return;
        }
        let start = self.touched.partition_point(|touched| touched.revision < revision);
        let end = self.touched.partition_point(|touched| touched.revision <= revision);
        let commit = keys.commit(revision, self.touched.range(start..end));
        for touched in self.touched.drain(start..end) {
            self.bytes -= touched.bytes as usize;
        }
        self.touched_commits -= 1;
        self.set_first(Arc::new(commit));
    }

    /// The changes after the revision that everything begins at, as the versions of keys have them; in any order.
    pub fn load(&mut self, changes: Vec<Loaded>) {
        self.touched = (changes.into_iter())
            .map(|change| Touched {
                revision: change.revision,
                sub: change.sub,
                bytes: u32::try_from(EVENT_OVERHEAD_BYTES + change.bytes).unwrap_or(u32::MAX),
                key: change.key,
            })
            .collect();
        let touched = self.touched.make_contiguous();
        touched.sort_unstable_by_key(|touched| (touched.revision, touched.sub));
        for commit in touched.chunk_by_mut(|one, other| one.revision == other.revision) {
            let bytes = commit.iter().map(|touched| touched.bytes as usize).sum::<usize>();
            commit.iter_mut().for_each(|touched| touched.bytes = 0);
            commit[0].bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.bytes += commit[0].bytes as usize;
            self.touched_commits += 1;
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

/// How much of the history is looked through at once, and for whom.
pub(crate) struct Look<'a> {
    pub commits_max: usize,
    /// The last commit may go beyond it.
    pub bytes_max: usize,
    /// Commits that changed none of these may be left out.
    pub keys: Option<&'a KeyRange>,
}

pub(crate) struct Looked {
    pub commits: Vec<Arc<Commit>>,
    /// Everything up to here was looked at.
    pub through: Revision,
}

struct Looking<'a> {
    look: &'a Look<'a>,
    commits: Vec<Arc<Commit>>,
    seen: usize,
    bytes: usize,
}

impl Looking<'_> {
    fn take(&mut self, commit: Arc<Commit>) {
        self.bytes += commit.bytes;
        self.commits.push(commit);
    }

    fn is_full(&self) -> bool {
        self.seen >= self.look.commits_max || self.bytes >= self.look.bytes_max
    }

    fn stopped_before(self, revision: Revision) -> Looked {
        Looked {
            commits: self.commits,
            through: Revision(revision.0 - 1),
        }
    }
}

/// A change that was loaded with the versions of its key.
pub(crate) struct Loaded {
    pub revision: Revision,
    pub sub: u32,
    /// Of key, value and the value before.
    pub bytes: usize,
    pub key: Bytes,
}

/// What commits are made anew from.
pub(crate) struct Keys<'a> {
    pub keys: &'a BTreeMap<Bytes, Versions>,
    pub values: &'a Option<Arc<dyn Values>>,
}

impl Keys<'_> {
    fn commit<'a>(&self, revision: Revision, changes: impl Iterator<Item = &'a Touched>) -> Commit {
        let mut events = Vec::new();
        let mut parts = Vec::new();
        for touched in changes {
            events.extend(self.event(touched, events.len(), &mut parts));
        }
        Commit::with_parts(revision, events, parts, self.values)
    }

    fn event(&self, touched: &Touched, at: usize, parts: &mut Vec<Part>) -> Option<Event> {
        let (stored, versions) = self.keys.get_key_value(&touched.key)?;
        let (version, before) = versions.change(touched.revision, touched.sub)?;
        let previous = before.map(|version| version.with_key(stored));
        let mut part = |of: PartOf, place| parts.push(Part { event: at, of, place });
        if let Some(place) = version.cold() {
            part(PartOf::Value, place);
        }
        if let Some(place) = before.and_then(|before| before.cold()) {
            part(PartOf::Previous, place);
        }
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
}
