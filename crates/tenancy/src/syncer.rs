//! Carries what tenants ask for down to the super cluster, and what came of it back up.
//!
//! One queue for all tenants, fair between them; every item names a tenant's object and is handled by comparing both
//! sides (level-triggered: handling twice changes nothing). Drift on the super side is seen by watch and repaired at once.
//! [`sides`] is what both sides hold, [`dispatch`] turns changes into items, the rest handles them, a kind a file.

mod copies;
mod dispatch;
mod events;
mod namespaces;
mod pod_secret;
mod pods;
mod services;
mod sides;

use std::sync::Arc;

use api::{Object, PlaneId};
use client::{Client, EventRecorder, ObjectKey, Outcome, PlaneKey, SourceId, Sources, Tasks, WorkQueue};
use world::World;

use crate::{
    identity::Tenant,
    policy::Policy,
    provision::{ProvisionError, Provisioner, SuperCluster},
    translate::namespaced::Copied,
    virtual_cluster::Settings,
};
use sides::Sides;

/// Items handled at once. Handling waits for in-process or network answers, not for the processor.
const WORKERS: usize = 16;

pub struct SyncerOptions {
    /// The super plane alone.
    pub super_sources: Sources,
    pub super_plane: PlaneKey,
    pub super_cluster: SuperCluster,
    /// Tenants' planes.
    pub planes: Sources,
    /// The source through which a tenant's plane is reached when only its id is known.
    pub planes_source: SourceId,
    pub tenants: Arc<dyn Provisioner>,
    pub policy: Policy,
    pub world: World,
}

/// One thing to compare; keys are the tenant's, save for Events.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Item {
    /// The key's name is the namespace.
    Namespace(ObjectKey),
    Pod(ObjectKey),
    Service(ObjectKey),
    Copy(Copied, ObjectKey),
    /// An Event of the super cluster, by its key there, and whose it is.
    Event(ObjectKey, PlaneId),
}

impl Item {
    fn plane(&self) -> PlaneId {
        match self {
            Item::Namespace(key) | Item::Pod(key) | Item::Service(key) | Item::Copy(_, key) => key.plane.plane,
            Item::Event(_, plane) => *plane,
        }
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
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
    options: SyncerOptions,
}

/// Starts the syncer; it ends when the returned tasks are stopped or dropped.
pub fn start(options: SyncerOptions) -> Result<Tasks, client::Error> {
    let tasks = Tasks::new();
    // All tenants weigh the same, until VirtualClusters say otherwise.
    let queue = WorkQueue::fair(&options.world, Item::plane, |_| 1);
    let shared = Arc::new(Shared {
        sides: Sides::start(&options),
        super_client: options.super_sources.client(&options.super_plane)?,
        queue,
        recorder: EventRecorder::start(&tasks, &options.world, "mangrove-syncer"),
        options,
    });
    tasks.spawn(async move {
        // Nothing is handled before both sides are whole: absence in a half cache proves nothing.
        shared.sides.wait_whole().await;
        let loops = Tasks::new();
        dispatch::start(&shared, &loops);
        let handler = shared.clone();
        client::run(&loops, "syncer", &shared.queue, WORKERS, move |item| {
            let shared = handler.clone();
            async move { shared.handle(item).await }
        });
        std::future::pending::<()>().await;
        drop(loops);
    });
    Ok(tasks)
}

impl Shared {
    /// The tenant of a plane; `None` if the plane is no more.
    async fn tenant(&self, plane: PlaneId) -> Result<Option<Tenant>, SyncError> {
        let Some(found) = self.options.tenants.find(plane).await? else {
            return Ok(None);
        };
        let settings = self.virtual_cluster(&found.name).map(|cluster| Settings::of(&cluster));
        Ok(Some(
            found.tenant(&self.options.super_cluster, settings.unwrap_or_default()),
        ))
    }

    fn virtual_cluster(&self, name: &str) -> Option<Object> {
        let key = self.options.super_plane.object("", name);
        self.sides.below.virtual_clusters.get(&key)
    }

    async fn handle(&self, item: Item) -> Handled {
        match &item {
            Item::Namespace(key) => self.handle_namespace(key).await,
            Item::Pod(key) => self.handle_pod(key).await,
            Item::Service(key) => self.handle_service(key).await,
            Item::Copy(kind, key) => self.handle_copy(*kind, key).await,
            Item::Event(key, _) => self.handle_event(key).await,
        }
    }
}
