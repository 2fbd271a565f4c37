//! Which planes there are, through which sources (D2).

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use api::PlaneId;
use tokio::sync::watch;
use world::World;

use crate::{Client, Error, PlaneKey, SourceId};

/// A keyspace as a watcher sees it.
#[derive(Clone)]
pub enum Source {
    /// Many planes behind the all-planes door of one API server.
    Shared { id: SourceId, client: Client },
    /// One plane with a keyspace of its own: embedded, dedicated or external.
    Plane {
        id: SourceId,
        plane: PlaneId,
        client: Client,
    },
}

impl Source {
    pub fn id(&self) -> &SourceId {
        match self {
            Source::Shared { id, .. } | Source::Plane { id, .. } => id,
        }
    }

    /// Through which lists and watches of everything go.
    pub(crate) fn stream_client(&self) -> Client {
        match self {
            Source::Shared { client, .. } => client.everywhere(),
            Source::Plane { client, .. } => client.clone(),
        }
    }

    /// The plane of an item: named by the door, or the only one.
    pub(crate) fn plane_key(&self, named: Option<PlaneId>) -> Option<PlaneKey> {
        let plane = match self {
            Source::Shared { .. } => named?,
            Source::Plane { plane, .. } => *plane,
        };
        Some(PlaneKey {
            source: self.id().clone(),
            plane,
        })
    }
}

/// The set of sources; may change while loops run. Cheap to clone, all clones are one set.
#[derive(Clone)]
pub struct Sources {
    inner: Arc<Inner>,
}

struct Inner {
    sources: RwLock<BTreeMap<SourceId, Entry>>,
    /// How often the set has changed.
    changed: watch::Sender<u64>,
    world: World,
}

/// A source and when it was added: one that replaces another of its name is a new one.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) added: u64,
    pub(crate) source: Source,
}

impl Sources {
    pub fn new(world: World, sources: impl IntoIterator<Item = Source>) -> Sources {
        let sources = sources
            .into_iter()
            .map(|source| (source.id().clone(), Entry { added: 0, source }))
            .collect();
        Sources {
            inner: Arc::new(Inner {
                sources: RwLock::new(sources),
                changed: watch::Sender::new(0),
                world,
            }),
        }
    }

    /// Adds a source, or replaces the one of its name.
    pub fn add(&self, source: Source) {
        self.inner.changed.send_modify(|version| {
            *version += 1;
            let entry = Entry {
                added: *version,
                source,
            };
            self.lock_write().insert(entry.source.id().clone(), entry);
        });
    }

    pub fn remove(&self, id: &SourceId) {
        self.inner.changed.send_modify(|version| {
            *version += 1;
            self.lock_write().remove(id);
        });
    }

    pub fn all(&self) -> Vec<Source> {
        self.lock_read().values().map(|entry| entry.source.clone()).collect()
    }

    pub(crate) fn entries(&self) -> BTreeMap<SourceId, Entry> {
        self.lock_read().clone()
    }

    /// A client of one plane.
    pub fn client(&self, plane: &PlaneKey) -> Result<Client, Error> {
        match self.lock_read().get(&plane.source).map(|entry| &entry.source) {
            Some(Source::Shared { client, .. }) => Ok(client.plane(plane.plane)),
            Some(Source::Plane { plane: id, client, .. }) if *id == plane.plane => Ok(client.clone()),
            _ => Err(Error::UnknownSource(plane.source.clone())),
        }
    }

    pub fn world(&self) -> &World {
        &self.inner.world
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    fn lock_read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<SourceId, Entry>> {
        self.inner.sources.read().expect("no one panics while holding it")
    }

    fn lock_write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<SourceId, Entry>> {
        self.inner.sources.write().expect("no one panics while holding it")
    }
}
