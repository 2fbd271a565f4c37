//! Carries what tenants ask for down to the super cluster, and what came of it back up.
//!
//! One queue for all tenants, fair between them; every item names a tenant's object and is handled by comparing both
//! sides (level-triggered: handling twice changes nothing). Drift on the super side is seen by watch and repaired at once.
//! [`sides`] is what both sides hold, [`dispatch`] turns changes into items, the rest handles them, a kind a file.

mod claims;
mod copies;
mod dispatch;
mod endpoints;
mod events;
mod everything;
mod ingresses;
mod namespaces;
mod pod_changes;
mod pod_secret;
mod pods;
mod services;
mod shown;
mod sides;
mod volumes;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use api::{Object, PlaneId};
use client::{
    Client, EventRecorder, Informer, ObjectKey, Outcome, PlaneKey, QueueOptions, SourceId, Sources, Tasks, WorkQueue,
};
use world::World;

use crate::{
    policy::Policy,
    provision::{ProvisionError, Provisioner, SuperCluster},
    translate::{namespaced::Copied, shown::Shown},
    virtual_cluster::{self, Settings},
};
use sides::Sides;

/// Items handled at once. Handling waits for in-process or network answers, not for the processor.
const WORKERS: usize = 64;

/// How often all there is on both sides is compared. Nothing waits for it: changes come by watch, and what fails comes again.
/// It is for what no watch tells, a bug here or there.
const SCAN_EVERY: Duration = Duration::from_secs(600);

/// Of one tenant of weight 1: a plane that does not answer holds so many workers and no more; heavier ones have up to four times as many.
const TENANT_WORKERS: usize = 8;

pub struct SyncerOptions {
    /// The super plane alone.
    pub super_sources: Sources,
    pub super_plane: PlaneKey,
    pub super_cluster: SuperCluster,
    /// From [`virtual_cluster::follow`].
    pub clusters: Informer,
    /// Tenants' planes.
    pub planes: Sources,
    pub tenants: Arc<dyn Provisioner>,
    pub policy: Policy,
    pub world: World,
}

/// One tenant's object to be compared with what stands for it. It says nothing of how the plane is reached: that is asked
/// for when it is handled, so that whatever leads to an object leads to one item.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Item {
    pub what: What,
    pub plane: PlaneId,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum What {
    /// The item's name is the namespace.
    Namespace,
    Pod,
    Service,
    Claim,
    Ingress,
    Copy(Copied),
    /// One of the super cluster's volumes that a claim of the tenant's has.
    Volume,
    /// One of the super cluster's objects that tenants see.
    Shown(Shown),
    /// An Event of the super cluster about something of the tenant's; namespace and name are those down there.
    Event,
}

impl Item {
    /// The object itself.
    fn of(what: What, key: &ObjectKey) -> Item {
        Item {
            what,
            plane: key.plane.plane,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }

    /// Another object of its namespace.
    fn sibling(what: What, key: &ObjectKey, name: &str) -> Item {
        Item {
            name: name.into(),
            ..Item::of(what, key)
        }
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}/{} of {}", self.what, self.namespace, self.name, self.plane)
    }
}

/// Why an item could not be handled now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// Something has to happen first.
    #[error("{0}")]
    NotYet(String),
}

/// What came of an item: done, or to be looked at again after a while.
pub(crate) type Handled = Result<Outcome, SyncError>;

/// What the items are handled with.
pub(crate) struct Shared {
    sides: Sides,
    super_client: Client,
    queue: WorkQueue<Item, PlaneId>,
    recorder: EventRecorder,
    /// Sources that have become whole, all of which was looked at then.
    announced: Mutex<HashSet<SourceId>>,
    options: SyncerOptions,
}

/// Starts the syncer; it ends when the returned tasks are stopped or dropped.
pub fn start(options: SyncerOptions) -> Result<Tasks, client::Error> {
    let tasks = Tasks::new();
    let limited = QueueOptions {
        lane_workers: Some(TENANT_WORKERS),
        ..QueueOptions::default()
    };
    let sides = Sides::start(&options);
    let clusters = sides.below.virtual_clusters.clone();
    let weight_of = move |plane: &PlaneId| {
        let cluster = virtual_cluster::of_plane(&clusters, *plane);
        cluster.map_or(1, |cluster| virtual_cluster::weight(&cluster))
    };
    let queue = WorkQueue::fair(&options.world, limited, |item: &Item| item.plane, weight_of);
    let shared = Arc::new(Shared {
        sides,
        super_client: options.super_sources.client(&options.super_plane)?,
        queue,
        recorder: EventRecorder::start(&tasks, &options.world, "mangrove-syncer"),
        announced: Mutex::default(),
        options,
    });
    tasks.spawn(async move {
        // Nothing is handled before the super side is whole: absence in a half cache proves nothing. The tenants' side may
        // be of many sources, each of which is looked at when its items come.
        shared.sides.below.wait_whole().await;
        // They fall with this task.
        let loops = Tasks::new();
        dispatch::start(&shared, &loops);
        let handler = shared.clone();
        client::run(&loops, "syncer", &shared.queue, WORKERS, move |item| {
            let shared = handler.clone();
            async move { shared.handle(item).await }
        });
        loop {
            shared.options.world.clock.sleep(SCAN_EVERY).await;
            everything::items(&shared)
                .into_iter()
                .for_each(|item| shared.queue.add(item));
        }
    });
    Ok(tasks)
}

impl Shared {
    fn lock_announced(&self) -> MutexGuard<'_, HashSet<SourceId>> {
        self.announced.lock().expect("no one panics while holding it")
    }

    fn virtual_cluster(&self, name: &str) -> Option<Object> {
        let key = self.options.super_plane.object("", name);
        self.sides.below.virtual_clusters.get(&key)
    }

    async fn handle(&self, item: Item) -> Handled {
        let Some(found) = self.options.tenants.find(item.plane).await? else {
            return match item.what {
                What::Namespace => self.delete_orphans(item.plane, &item.name).await,
                _ => Ok(Outcome::Done),
            };
        };
        if !self.sides.above.is_whole(&found.plane.source) {
            // Everything of that source comes again when it is.
            return Ok(Outcome::Done);
        }
        let settings = self.virtual_cluster(&found.name).map(|cluster| Settings::of(&cluster));
        let tenant = found.tenant(&self.options.super_cluster, settings.unwrap_or_default());
        let key = found.plane.object(&item.namespace, &item.name);
        match item.what {
            What::Namespace => self.handle_namespace(&tenant, &key).await,
            What::Pod => self.handle_pod(&tenant, &key).await,
            What::Service => self.handle_service(&tenant, &key).await,
            What::Claim => self.handle_claim(&tenant, &key).await,
            What::Ingress => self.handle_ingress(&tenant, &key).await,
            What::Copy(kind) => self.handle_copy(&tenant, kind, &key).await,
            What::Volume => self.handle_volume(&tenant, &key).await,
            What::Shown(kind) => self.handle_shown(&tenant, kind, &key).await,
            What::Event => {
                let below = self.options.super_plane.object(&item.namespace, &item.name);
                self.handle_event(&tenant, &found.plane, &below).await
            }
        }
    }
}
