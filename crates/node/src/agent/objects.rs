//! The ConfigMaps, Secrets and claims that this node's Pods name, each watched by itself while some Pod does.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use api::{Object, resource};
use client::Client;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use world::World;

use crate::pod::references::{Keys, Kind, Known, Reference, Snapshot};
use crate::watch::{self, Delta, Selection};

/// Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    world: World,
    watched: Mutex<HashMap<(String, Reference), Watched>>,
}

struct Watched {
    known: Option<Known>,
    /// Pods (uids) that name it, and how to wake them.
    readers: HashMap<String, Arc<Notify>>,
    _task: AbortOnDropHandle<()>,
}

impl Objects {
    pub fn new(client: Client, world: World) -> Objects {
        Objects {
            inner: Arc::new(Inner {
                client,
                world,
                watched: Mutex::new(HashMap::new()),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Reference), Watched>> {
        // Nothing in here can be left half done by a panic.
        self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what a Pod names from now on, and returns what is known of it. `wake` is notified of every change.
    pub fn want(&self, namespace: &str, uid: &str, wanted: &BTreeSet<Reference>, wake: &Arc<Notify>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut watched = self.lock();
        for reference in wanted {
            let key = (namespace.to_owned(), reference.clone());
            let entry = watched.entry(key).or_insert_with(|| Watched {
                known: None,
                readers: HashMap::new(),
                _task: self.start(namespace, reference),
            });
            entry.readers.entry(uid.to_owned()).or_insert_with(|| Arc::clone(wake));
            if let Some(known) = &entry.known {
                snapshot.0.insert(reference.clone(), known.clone());
            }
        }
        watched.retain(|(_, reference), entry| {
            if !wanted.contains(reference) {
                entry.readers.remove(uid);
            }
            !entry.readers.is_empty()
        });
        snapshot
    }

    /// The Pod is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|_, entry| {
            entry.readers.remove(uid);
            !entry.readers.is_empty()
        });
    }

    fn start(&self, namespace: &str, reference: &Reference) -> AbortOnDropHandle<()> {
        let selection = Selection {
            resource: match reference.kind {
                Kind::ConfigMap => resource::CONFIG_MAPS,
                Kind::Secret => resource::SECRETS,
                Kind::Claim => resource::PERSISTENT_VOLUME_CLAIMS,
                Kind::Volume => resource::PERSISTENT_VOLUMES,
            },
            namespace: (reference.kind != Kind::Volume).then(|| namespace.to_owned()),
            fields: Some(format!("metadata.name={}", reference.name)),
        };
        let key = (namespace.to_owned(), reference.clone());
        // Weak: the task must not keep alive what owns it.
        let inner = Arc::downgrade(&self.inner);
        let follow = watch::follow(
            self.inner.client.clone(),
            selection,
            self.inner.world.clone(),
            move |delta| {
                let Some(inner) = inner.upgrade() else { return };
                Objects { inner }.learn(&key, delta);
            },
        );
        AbortOnDropHandle::new(tokio::spawn(follow))
    }

    fn learn(&self, key: &(String, Reference), delta: Delta) {
        let keys = |object: &Object| Known::Present(Arc::new(Keys::of(key.1.kind, object.tree())));
        let known = match &delta {
            Delta::All(objects) => objects
                .iter()
                .find(|object| object.name() == key.1.name)
                .map_or(Known::Absent, keys),
            Delta::Set(object) => keys(object),
            Delta::Gone(_) => Known::Absent,
        };
        if let Some(entry) = self.lock().get_mut(key)
            && entry.known.as_ref() != Some(&known)
        {
            entry.known = Some(known);
            for reader in entry.readers.values() {
                reader.notify_one();
            }
        }
    }
}
