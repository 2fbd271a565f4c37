//! Planes in memory: the real API server over keyspaces that are gone with the test, and clients of it. No root, no
//! network, no disk.

use std::sync::Arc;

use api::{Object, PlaneId, Resource};
use apiserver::{ApiServer, ApiServerOptions, PlaneSpec, ServiceRanges};
use client::{Client, Event, ListOptions, PlaneKey, Source, SourceId, Sources, WatchOptions};
use futures::StreamExt;
use keyspace::MemoryKeyspace;
use world::World;

/// Who tests are unless they say otherwise.
const ADMIN: &str = "testkit:admin";

pub struct PlanesInMemory {
    pub server: ApiServer,
    pub world: World,
    pub root: PlaneKey,
    /// The source in which all tenants' planes are.
    pub shared: SourceId,
}

impl PlanesInMemory {
    /// Has to be called within a tokio runtime.
    pub async fn start() -> PlanesInMemory {
        let world = World::real();
        let server = ApiServer::new(ApiServerOptions {
            shared: Arc::new(MemoryKeyspace::new(world.clone())),
            root: Arc::new(MemoryKeyspace::new(world.clone())),
            world: world.clone(),
            pod_backend: None,
            ranges: ServiceRanges::default(),
            advertise: None,
        });
        let root = server.planes().root().await.expect("memory does not fail");
        PlanesInMemory {
            root: PlaneKey {
                source: SourceId::new("super"),
                plane: root.id,
            },
            shared: SourceId::new("shared"),
            server,
            world,
        }
    }

    /// The super plane, as its administrator.
    pub fn root(&self) -> Client {
        in_process::client(&self.server, ADMIN, &["system:masters"])
    }

    /// Makes a tenant's plane by itself, without a VirtualCluster; its administrator.
    pub async fn tenant(&self, name: &str) -> (PlaneId, Client) {
        let spec = PlaneSpec {
            name: name.to_owned(),
            ..PlaneSpec::default()
        };
        let record = self.server.planes().create(spec).await.expect("the name is free");
        (record.id, self.root().plane(record.id))
    }

    /// The super plane as a source of informers.
    pub fn root_source(&self) -> Source {
        Source::Plane {
            id: self.root.source.clone(),
            plane: self.root.plane,
            client: self.root(),
        }
    }

    /// All tenants' planes as one source of informers.
    pub fn shared_source(&self) -> Source {
        Source::Shared {
            id: self.shared.clone(),
            client: self.root(),
        }
    }

    pub fn sources(&self, sources: impl IntoIterator<Item = Source>) -> Sources {
        Sources::new(self.world.clone(), sources)
    }
}

/// Watches until the objects of a list are as `done` wants them.
pub async fn wait_until<T>(
    client: &Client,
    resource: &Resource,
    namespace: Option<&str>,
    mut done: impl FnMut(&[Object]) -> Option<T>,
) -> T {
    loop {
        let list = client
            .list(resource, namespace, &ListOptions::default())
            .await
            .expect("it can be listed");
        if let Some(found) = done(&list.items) {
            return found;
        }
        let from_here = WatchOptions {
            resource_version: Some(list.resource_version),
            ..WatchOptions::default()
        };
        let events = client
            .watch(resource, namespace, &from_here)
            .await
            .expect("it can be watched");
        let mut events = std::pin::pin!(events);
        // Any change is a reason to look again; so is the end of the watch.
        while let Some(Ok(event)) = events.next().await {
            if matches!(event, Event::Added(_) | Event::Modified(_) | Event::Deleted(_)) {
                break;
            }
        }
    }
}
