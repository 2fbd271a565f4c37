//! What planes hold of one resource, kept up to date.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use api::{Object, Resource};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    Change, IndexFn, Notice, ObjectKey, PlaneKey, Source, SourceId, Sources, Subscription, cache::Cache, feed::Feed,
    subscription::Subscribers,
};

#[derive(Clone, Default)]
pub struct InformerOptions {
    /// Only this namespace (of each plane); all if `None`.
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Keep `apiVersion`, `kind` and `metadata` only.
    pub metadata_only: bool,
    /// Objects are kept by their uid in place of their name: they are of several kinds, and two may have one name.
    pub by_uid: bool,
    /// Only of sources with an all-planes door; the others have none of these objects.
    pub behind_the_door: bool,
    pub indexes: Vec<(&'static str, IndexFn)>,
}

impl InformerOptions {
    /// Objects can be found by what `values` says of them. Values are compared over all planes: put the plane in
    /// where it matters.
    pub fn index<F>(mut self, name: &'static str, values: F) -> InformerOptions
    where
        F: Fn(&ObjectKey, &Object) -> Vec<String> + Send + Sync + 'static,
    {
        self.indexes.push((name, Arc::new(values)));
        self
    }
}

/// A cache of one resource over all sources. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Informer {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

struct Owner {
    supervisor: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Feeds are children of the supervisor and fall with it.
        self.supervisor.abort();
        self.shared.subscribers.close();
    }
}

/// What one source has told so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct SourceState {
    synced: bool,
    live: bool,
}

pub(crate) struct Shared {
    pub(crate) resource: Resource,
    cache: RwLock<Cache>,
    subscribers: Subscribers,
    states: watch::Sender<BTreeMap<SourceId, SourceState>>,
}

impl Informer {
    pub fn start(sources: &Sources, resource: Resource, mut options: InformerOptions) -> Informer {
        let present = sources
            .entries()
            .into_keys()
            .map(|id| (id, SourceState::default()))
            .collect();
        let shared = Arc::new(Shared {
            resource,
            cache: RwLock::new(Cache::new(std::mem::take(&mut options.indexes))),
            subscribers: Subscribers::default(),
            states: watch::Sender::new(present),
        });
        let supervisor = tokio::spawn(supervise(sources.clone(), shared.clone(), options));
        Informer {
            shared: shared.clone(),
            _owner: Arc::new(Owner { supervisor, shared }),
        }
    }

    pub fn resource(&self) -> &Resource {
        &self.shared.resource
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        self.shared.read().get(key).cloned()
    }

    /// Of one plane, in one namespace or all.
    pub fn list(&self, plane: &PlaneKey, namespace: Option<&str>) -> Vec<Object> {
        let cache = self.shared.read();
        cache
            .list(plane, namespace.unwrap_or(""))
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub fn all(&self) -> Vec<(ObjectKey, Object)> {
        self.shared
            .read()
            .all()
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.shared.read().all().map(|(key, _)| key.clone()).collect()
    }

    pub fn by_index(&self, index: &str, value: &str) -> Vec<(ObjectKey, Object)> {
        let cache = self.shared.read();
        cache
            .by_index(index, value)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// As many as [`Informer::by_index`] would give.
    pub fn count_by_index(&self, index: &str, value: &str) -> usize {
        self.shared.read().count_by_index(index, value)
    }

    pub fn len(&self) -> usize {
        self.shared.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes from now on; the first notice says to look at what is there already.
    pub fn subscribe(&self) -> Subscription {
        self.shared.subscribers.subscribe()
    }

    /// The source has been read whole at least once.
    pub fn synced(&self, source: &SourceId) -> bool {
        self.state(source).is_some_and(|state| state.synced)
    }

    /// What is not in the cache is not in the source (up to the watch's delay): it was read whole and is being
    /// watched.
    pub fn proves_absence(&self, source: &SourceId) -> bool {
        self.state(source).is_some_and(|state| state.synced && state.live)
    }

    fn state(&self, source: &SourceId) -> Option<SourceState> {
        self.shared.states.borrow().get(source).copied()
    }

    /// Waits until all sources that are present have been read whole.
    pub async fn wait_synced(&self) {
        let mut states = self.shared.states.subscribe();
        // The sender lives in `self`, so it cannot have gone.
        let _ = states
            .wait_for(|states| states.values().all(|state| state.synced))
            .await;
    }
}

impl Shared {
    pub(crate) fn put(&self, key: ObjectKey, object: Object) {
        let change = self.write().set(key, Some(object));
        change.into_iter().for_each(|change| self.tell(change));
    }

    /// `last` is the state in which the object was deleted, newer than the cached one.
    pub(crate) fn remove(&self, key: ObjectKey, last: Object) {
        let change = self.write().set(key, None);
        if let Some(mut change) = change {
            change.old = Some(last);
            self.tell(change);
        }
    }

    pub(crate) fn replace(&self, source: &SourceId, objects: Vec<(ObjectKey, Object)>) {
        let changes = self.write().replace(source, objects);
        changes.into_iter().for_each(|change| self.tell(change));
        let mut first = false;
        self.states.send_if_modified(|states| {
            let Some(state) = states.get_mut(source) else {
                return false;
            };
            first = !std::mem::replace(&mut state.synced, true);
            first
        });
        if first {
            self.subscribers.tell(&Notice::Synced(source.clone()));
        }
    }

    pub(crate) fn set_live(&self, source: &SourceId, live: bool) {
        self.states.send_if_modified(|states| {
            let Some(state) = states.get_mut(source) else {
                return false;
            };
            std::mem::replace(&mut state.live, live) != live
        });
    }

    fn tell(&self, change: Change) {
        self.subscribers.tell(&Notice::Change(change));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Cache> {
        self.cache.read().expect("no one panics while holding it")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Cache> {
        self.cache.write().expect("no one panics while holding it")
    }
}

/// A feed's task, which falls with its handle.
struct Running {
    added: u64,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps one feed a source, as sources come and go.
async fn supervise(sources: Sources, shared: Arc<Shared>, options: InformerOptions) {
    let mut feeds = BTreeMap::<SourceId, Running>::new();
    let mut changes = sources.changes();
    loop {
        changes.mark_unchanged();
        let wanted = sources.entries();
        let gone: Vec<SourceId> = feeds
            .iter()
            .filter(|(id, feed)| wanted.get(id).is_none_or(|entry| entry.added != feed.added))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(mut feed) = feeds.remove(&id) {
                feed.task.abort();
                // Waited for, so that no late event of it reaches the cache after what follows.
                let _ = (&mut feed.task).await;
            }
            if wanted.contains_key(&id) {
                // Replaced: the cache stays and is compared with what the new one lists.
                shared.set_live(&id, false);
            } else {
                shared.write().forget(&id);
                shared.states.send_if_modified(|states| states.remove(&id).is_some());
                shared.subscribers.tell(&Notice::Removed(id));
            }
        }
        for (id, entry) in wanted {
            if feeds.contains_key(&id) {
                continue;
            }
            let has_none = options.behind_the_door && matches!(entry.source, Source::Plane { .. });
            shared.states.send_if_modified(|states| {
                let fresh = !states.contains_key(&id);
                states.entry(id.clone()).or_default().synced |= has_none;
                fresh || has_none
            });
            let feed = Feed {
                source: entry.source,
                options: options.clone(),
                shared: shared.clone(),
                world: sources.world().clone(),
            };
            let task = match has_none {
                true => tokio::spawn(std::future::pending()),
                false => tokio::spawn(feed.run()),
            };
            feeds.insert(
                id,
                Running {
                    added: entry.added,
                    task,
                },
            );
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
