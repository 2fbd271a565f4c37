//! What all of the agent's loops share.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Resource;
use api::resource::Scope;
use client::Client;
use tokio::sync::Semaphore;
use world::World;

use super::events::Events;
use super::objects::Objects;
use super::services::ServiceView;
use super::tokens::TokenSource;
use super::walls::Walls;
use crate::container::dns::ClusterDns;
use crate::container::resources::NodeCapacity;
use crate::container::service_env::KubernetesService;
use crate::cri::{CriError, Runtime};
use crate::pod::observed::Nanos;

pub struct Context {
    pub node_name: String,
    pub client: Client,
    pub runtime: Runtime,
    /// As in container ids: `containerd://...`.
    pub runtime_name: String,
    pub root: PathBuf,
    pub host_ip: IpAddr,
    pub dns: ClusterDns,
    pub capacity: NodeCapacity,
    /// Where Pods find the plane's API, if the `kubernetes` Service is not to say.
    pub kubernetes: Option<KubernetesService>,
    pub world: World,
    pub began: Nanos,
    pub events: Events,
    pub objects: Objects,
    pub services: ServiceView,
    pub walls: Walls,
    pub tokens: Arc<dyn TokenSource>,
    /// Pulls that may go on at once; more only compete for the same line and disk.
    pub pulls: Semaphore,
}

pub const PULLS_MAX: usize = 4;

const RUNTIME_CLASSES: Resource =
    Resource::built_in("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", Scope::Cluster);

impl Context {
    pub fn now(&self) -> Nanos {
        nanos(&self.world)
    }

    pub fn logs(&self) -> PathBuf {
        logs(&self.root)
    }

    /// The runtime handler of a RuntimeClass; none has none.
    pub async fn handler_of(&self, class: &str) -> Result<String, CriError> {
        if class.is_empty() {
            return Ok(String::new());
        }
        let problem = |problem: String| CriError::RuntimeClass {
            name: class.to_owned(),
            problem,
        };
        let object = self
            .client
            .get(&RUNTIME_CLASSES, None, class)
            .await
            .map_err(|error| problem(error.to_string()))?;
        let handler = object.tree()["handler"].as_str();
        handler
            .map(str::to_owned)
            .ok_or_else(|| problem("it has no handler".to_owned()))
    }

    pub fn seccomp(&self) -> PathBuf {
        self.root.join("seccomp")
    }
}

pub fn logs(root: &Path) -> PathBuf {
    root.join("logs")
}

pub fn nanos(world: &World) -> Nanos {
    world
        .clock
        .wall()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| Nanos::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}
