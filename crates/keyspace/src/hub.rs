//! Who watches what. A commit finds its watchers by the prefixes of its keys, not by asking each watcher.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Weak},
};

use bytes::Bytes;

use crate::{Error, KeyRange, Revision, index::Commit, watcher::Watcher};

/// Watchers of one keyspace. A watcher costs some 500 bytes while it is idle; the API server holds one per client watch.
pub const WATCHERS_MAX: usize = 1_000_000;

type Watchers = BTreeMap<u64, Arc<Watcher>>;

#[derive(Default)]
pub(crate) struct Hub {
    last_id: u64,
    count: usize,
    /// Everything up to here was given to the watchers.
    dispatched: Revision,
    by_key: HashMap<Bytes, Watchers>,
    by_prefix: HashMap<Bytes, Watchers>,
    /// How many prefixes of each length are watched: these are the ones to look up for a key.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Ranges that are neither one key nor a prefix.
    others: Watchers,
    /// Watchers that begin at a revision that isn't there yet, and wait for their first progress.
    early: BTreeMap<u64, Weak<Watcher>>,
    closed: Option<Error>,
}

enum Place {
    Key,
    Prefix,
    Other,
}

fn place(keys: &KeyRange) -> Place {
    match &keys.end {
        Bound::Included(end) if *end == keys.start => Place::Key,
        _ if *keys == KeyRange::prefix(keys.start.clone()) => Place::Prefix,
        _ => Place::Other,
    }
}

impl Hub {
    pub fn dispatched(&self) -> Revision {
        self.dispatched
    }

    /// Fails once the hub is closed.
    pub fn add(&mut self, watcher: &Arc<Watcher>) -> Result<u64, Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.count >= WATCHERS_MAX {
            return Err(Error::Unavailable(format!("{WATCHERS_MAX} watches are open")));
        }
        self.last_id += 1;
        self.count += 1;
        let id = self.last_id;
        let keys = watcher.keys();
        match place(keys) {
            Place::Key => self
                .by_key
                .entry(keys.start.clone())
                .or_default()
                .insert(id, watcher.clone()),
            Place::Prefix => {
                let watchers = self.by_prefix.entry(keys.start.clone()).or_default();
                if watchers.is_empty() {
                    *self.prefix_lengths.entry(keys.start.len()).or_default() += 1;
                }
                watchers.insert(id, watcher.clone())
            }
            Place::Other => self.others.insert(id, watcher.clone()),
        };
        if watcher.waits_to_begin() {
            self.early.insert(id, Arc::downgrade(watcher));
        }
        Ok(id)
    }

    pub fn remove(&mut self, id: u64, keys: &KeyRange) {
        let start = &keys.start;
        let removed = match place(keys) {
            Place::Key => {
                let watchers = self.by_key.get_mut(start);
                let removed = watchers.and_then(|watchers| watchers.remove(&id));
                if self.by_key.get(start).is_some_and(BTreeMap::is_empty) {
                    self.by_key.remove(start);
                }
                removed
            }
            Place::Prefix => {
                let watchers = self.by_prefix.get_mut(start);
                let removed = watchers.and_then(|watchers| watchers.remove(&id));
                if self.by_prefix.get(start).is_some_and(BTreeMap::is_empty) {
                    self.by_prefix.remove(start);
                    self.forget_length(start.len());
                }
                removed
            }
            Place::Other => self.others.remove(&id),
        };
        self.count -= usize::from(removed.is_some());
        self.early.remove(&id);
    }

    fn forget_length(&mut self, length: usize) {
        if let Some(count) = self.prefix_lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.prefix_lengths.remove(&length);
            }
        }
    }

    /// Commits come in order of revision, each once. Everything up to `published` has then been dispatched.
    pub fn dispatch(&mut self, commits: &[Arc<Commit>], published: Revision) {
        for commit in commits {
            if self.count > 0 {
                self.deliver(commit);
            }
            self.dispatched = commit.revision;
        }
        self.dispatched = self.dispatched.max(published);
        if !self.early.is_empty() {
            let dispatched = self.dispatched;
            self.early.retain(|_, watcher| {
                watcher.upgrade().is_some_and(|watcher| {
                    watcher.reached(dispatched);
                    watcher.waits_to_begin()
                })
            });
        }
    }

    fn deliver(&self, commit: &Arc<Commit>) {
        // A watcher drops a commit that it was given before, for another key.
        for event in &commit.events {
            let key = event.key();
            if let Some(watchers) = self.by_key.get(key) {
                watchers.values().for_each(|watcher| watcher.offer(commit));
            }
            for length in self.prefix_lengths.keys().take_while(|length| **length <= key.len()) {
                if let Some(watchers) = self.by_prefix.get(&key[..*length]) {
                    watchers.values().for_each(|watcher| watcher.offer(commit));
                }
            }
            for watcher in self.others.values().filter(|watcher| watcher.keys().contains(key)) {
                watcher.offer(commit);
            }
        }
    }

    pub fn progress(&self) {
        self.all().for_each(|watcher| watcher.offer_progress(self.dispatched));
    }

    /// Every watch ends with `error`; later ones begin at `revision`.
    pub fn begin_anew(&mut self, revision: Revision, error: Error) {
        self.all().for_each(|watcher| watcher.end(error.clone()));
        self.dispatched = revision;
    }

    /// Every watch ends with `error`, and so does every later one.
    pub fn close(&mut self, error: Error) {
        self.all().for_each(|watcher| watcher.end(error.clone()));
        self.closed = Some(error);
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Watcher>> {
        let kept = self.by_key.values().chain(self.by_prefix.values());
        kept.chain([&self.others]).flat_map(BTreeMap::values)
    }
}
