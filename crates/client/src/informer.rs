//! A cache of one resource over a set of sources, kept by watching (D2).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, RwLock},
};

use api::{Object, Resource};
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Change, IndexFn, Notice, ObjectKey, PlaneKey, SourceId, Sources, Subscription, cache::Cache, feed,
    subscription::CHANGES_MAX,
};

#[derive(Clone, Default)]
pub struct InformerOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Keep `apiVersion`, `kind` and `metadata` only.
    pub metadata_only: bool,
    /// Filled by [`InformerOptions::index`].
    pub indexes: Vec<(&'static str, IndexFn)>,
}

impl InformerOptions {
    /// Adds an index: objects are found under each of the values.
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&ObjectKey, &Object) -> Vec<String> + Send + Sync + 'static,
    ) -> InformerOptions {
        self.indexes.push((name, Arc::new(values)));
        self
    }
}

/// Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Informer {
    held: Arc<Held>,
    _feeds: Arc<AbortOnDropHandle<()>>,
}

/// What feeds write and readers read.
pub(crate) struct Held {
    pub resource: Resource,
    pub options: InformerOptions,
    cache: RwLock<Cache>,
    notices: broadcast::Sender<Notice>,
    /// Sources that are whole, and those that are expected.
    synced: watch::Sender<(BTreeSet<SourceId>, BTreeSet<SourceId>)>,
}

impl Informer {
    /// Must be called within a tokio runtime.
    pub fn start(sources: &Sources, resource: Resource, options: InformerOptions) -> Informer {
        let expected = sources.all().iter().map(|source| source.id().clone()).collect();
        let held = Arc::new(Held {
            resource,
            cache: RwLock::new(Cache::new(options.indexes.clone())),
            options,
            notices: broadcast::Sender::new(CHANGES_MAX),
            synced: watch::Sender::new((BTreeSet::new(), expected)),
        });
        let feeds = tokio::spawn(follow_sources(sources.clone(), held.clone()));
        Informer {
            held,
            _feeds: Arc::new(AbortOnDropHandle::new(feeds)),
        }
    }

    pub fn resource(&self) -> &Resource {
        &self.held.resource
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Object> {
        self.held.read(|cache| cache.get(key).cloned())
    }

    /// Objects of one plane, in one namespace or (empty) in all.
    pub fn list(&self, plane: &PlaneKey, namespace: &str) -> Vec<Object> {
        self.held
            .read(|cache| cache.list(plane, namespace).map(|(_, object)| object.clone()).collect())
    }

    pub fn by_index(&self, index: &str, value: &str) -> Vec<Object> {
        self.held
            .read(|cache| cache.by_index(index, value).map(|(_, object)| object.clone()).collect())
    }

    pub fn keys_by_index(&self, index: &str, value: &str) -> Vec<ObjectKey> {
        self.held
            .read(|cache| cache.by_index(index, value).map(|(key, _)| key.clone()).collect())
    }

    pub fn all(&self) -> Vec<(ObjectKey, Object)> {
        self.held
            .read(|cache| cache.all().map(|(key, object)| (key.clone(), object.clone())).collect())
    }

    /// Changes from now on, after a first [`Notice::Rescan`].
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(self.held.notices.subscribe())
    }

    /// Whether what is absent here is known to be absent in that source (as of its last revision).
    pub fn is_synced(&self, source: &SourceId) -> bool {
        self.held.synced.borrow().0.contains(source)
    }

    /// Waits until every source is whole.
    pub async fn wait_synced(&self) {
        let mut synced = self.held.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|(whole, expected)| expected.is_subset(whole)).await;
    }
}

impl Held {
    fn read<T>(&self, read: impl FnOnce(&Cache) -> T) -> T {
        read(&self.cache.read().expect("no one panics while holding it"))
    }

    pub(crate) fn set(&self, key: ObjectKey, object: Option<Object>, gone: Option<&Object>) {
        let change = self
            .cache
            .write()
            .expect("no one panics while holding it")
            .set(key, object);
        if let Some(Change { key, old, new }) = change {
            // A deletion tells the last state, which may be newer than what was held.
            let old = if new.is_none() { gone.cloned().or(old) } else { old };
            // Nobody may be listening.
            let _ = self.notices.send(Notice::Change(Change { key, old, new }));
        }
    }

    /// A source's objects, whole.
    pub(crate) fn replace(&self, source: &SourceId, objects: Vec<(ObjectKey, Object)>) {
        let changes = {
            let mut cache = self.cache.write().expect("no one panics while holding it");
            cache.replace(source, objects)
        };
        self.synced.send_if_modified(|(whole, expected)| {
            expected.insert(source.clone());
            whole.insert(source.clone())
        });
        // Deletions are told one by one, since a rescan does not show them.
        if changes.len() < CHANGES_MAX / 2 {
            changes
                .into_iter()
                .for_each(|change| drop(self.notices.send(Notice::Change(change))));
        } else {
            let (gone, rest): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.new.is_none());
            gone.into_iter()
                .for_each(|change| drop(self.notices.send(Notice::Change(change))));
            if !rest.is_empty() {
                let _ = self.notices.send(Notice::Rescan);
            }
        }
    }

    /// A source that was taken away: its objects are known no more.
    fn forget(&self, source: &SourceId) {
        self.replace(source, Vec::new());
        self.synced.send_modify(|(whole, expected)| {
            whole.remove(source);
            expected.remove(source);
        });
    }
}

/// Keeps one feed a source.
async fn follow_sources(sources: Sources, held: Arc<Held>) {
    let mut changed = sources.changes();
    let mut feeds = BTreeMap::<SourceId, AbortOnDropHandle<()>>::new();
    loop {
        let wanted = sources.all();
        feeds.retain(|id, _| {
            let stays = wanted.iter().any(|source| source.id() == id);
            if !stays {
                held.forget(id);
            }
            stays
        });
        for source in wanted {
            feeds.entry(source.id().clone()).or_insert_with(|| {
                let feed = feed::run(source, held.clone(), sources.world().clone());
                AbortOnDropHandle::new(tokio::spawn(feed))
            });
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
