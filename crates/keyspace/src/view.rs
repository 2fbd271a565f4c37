//! An [`Index`] shared by readers, watchers and one writer at a time.
//!
//! Locks are held for moments and never across an await. Their order: hub, then index; hub, then a watcher's state.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
    atomic::{AtomicUsize, Ordering},
};

use futures::StreamExt;

use crate::{
    Error, KeyRange, Range, Ranged, Result, Revision, Watch, WatchStream, check,
    hub::Hub,
    index::{Index, Look, Looked, compaction::PRUNE_KEYS_MAX},
    values::Missing,
    watcher::{Watcher, Watching},
};

/// What is given to watchers under one hold of the index.
const DISPATCHED: Look<'static> = Look {
    commits_max: 1000,
    bytes_max: usize::MAX,
    keys: None,
};

pub struct View {
    index: RwLock<Index>,
    /// How many wait for it.
    waiting: AtomicUsize,
    hub: Mutex<Hub>,
}

impl View {
    pub fn new(index: Index) -> Arc<View> {
        let view = View {
            index: RwLock::new(index),
            waiting: AtomicUsize::new(0),
            hub: Mutex::default(),
        };
        view.dispatch();
        Arc::new(view)
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        match self.index.try_read() {
            Ok(index) => index,
            Err(TryLockError::Poisoned(index)) => index.into_inner(),
            Err(TryLockError::WouldBlock) => self.waiting(|| self.index.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Nothing that is staged under it is seen before [`View::publish`].
    pub fn write(&self) -> RwLockWriteGuard<'_, Index> {
        match self.index.try_write() {
            Ok(index) => index,
            Err(TryLockError::Poisoned(index)) => index.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.waiting(|| self.index.write().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = wait();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        waited
    }

    /// As [`View::write`], for one of many small steps in the background: whoever waits already comes first. The lock itself
    /// would give it to the one who has just let it go, again and again.
    pub fn write_behind(&self) -> RwLockWriteGuard<'_, Index> {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn range(&self, range: &Range) -> Result<Ranged> {
        check::range(range)?;
        let (ranged, missing) = self.read().range(range)?;
        self.whole(range, ranged, missing)
    }

    /// The answer with the values that were not in memory, read from where they are. Blocks then.
    fn whole(&self, range: &Range, mut ranged: Ranged, missing: Missing) -> Result<Ranged> {
        if missing.is_empty() {
            return Ok(ranged);
        }
        let place = missing.first();
        missing.fill(&mut ranged.items)?;
        // One key was asked for by name. Nobody waits for its staying in memory.
        if let ([kv], Some(place)) = (&ranged.items[..], place)
            && range.keys == KeyRange::one(kv.key.clone())
            && let Ok(mut index) = self.index.try_write()
        {
            index.warm(&kv.key, kv.mod_revision, place, &kv.value);
        }
        Ok(ranged)
    }

    /// The same without looking beyond the limit: [`Ranged::count`] is that of the items.
    pub fn page(&self, range: &Range) -> Result<Ranged> {
        check::range(range)?;
        let (ranged, missing) = self.read().page(range)?;
        self.whole(range, ranged, missing)
    }

    /// What is staged becomes visible to readers, then to watchers.
    pub fn publish(&self) {
        self.write().publish();
        self.dispatch();
    }

    /// Gives to watchers what was published in the index.
    pub fn dispatch(&self) {
        let mut hub = self.hub();
        loop {
            let next = Revision(hub.dispatched().0 + 1);
            let index = self.read();
            let Looked { commits, through } = index.look(next, &DISPATCHED);
            let published = index.revision();
            drop(index);
            hub.dispatch(&commits, through);
            if through >= published {
                return;
            }
        }
    }

    pub fn watch(self: &Arc<View>, watch: Watch) -> Result<WatchStream> {
        let (watching, _) = self.watch_commits(watch.clone())?;
        Ok(watching.map(move |item| item.map(|item| item.told(&watch))).boxed())
    }

    /// The same with commits as they are, and the revision at which the watch was made.
    pub fn watch_commits(self: &Arc<View>, watch: Watch) -> Result<(Watching, Revision)> {
        check::watch(&watch)?;
        let mut hub = self.hub();
        let index = self.read();
        if let Some(wanted) = watch.from
            && wanted < index.compacted()
        {
            return Err(Error::Compacted {
                wanted,
                oldest: index.compacted(),
            });
        }
        let current = index.revision();
        drop(index);
        let watcher = Arc::new(Watcher::new(watch, current));
        let id = hub.add(&watcher)?;
        drop(hub);
        Ok((Watching::new(self.clone(), watcher, id), current))
    }

    pub fn request_progress(&self) {
        self.hub().progress();
    }

    /// Commits from `from` on, and the revision up to which that is all.
    pub(crate) fn history(&self, from: Revision, look: &Look<'_>) -> Result<Looked> {
        let index = self.read();
        if from < index.compacted() {
            return Err(Error::TooSlow);
        }
        Ok(index.look(from, look))
    }

    pub fn compact(&self, revision: Revision) -> Result<()> {
        self.write().compact(revision)?;
        self.prune();
        Ok(())
    }

    /// Frees what was compacted, in slices, so that readers and writers get in between.
    pub fn prune(&self) {
        while self.write_behind().prune(PRUNE_KEYS_MAX) {}
    }

    /// Another index instead, at a later revision, with a gap between them: every watch ends with `error`.
    pub fn replace(&self, index: Index, error: Error) {
        let mut hub = self.hub();
        let revision = index.revision();
        *self.write() = index;
        hub.begin_anew(revision, error);
    }

    /// Every watch ends with `error`, and so does every later one; reads go on.
    pub fn close(&self, error: Error) {
        self.hub().close(error);
    }
}
