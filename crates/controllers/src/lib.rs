//! The loops that make a plane useful, once for all planes: Deployments, ReplicaSets, endpoints, namespaces, accounts, garbage.
//!
//! May use `client` (planes through sources) and `api`. Never knows a tenant, a node, or whether a plane is in this process. A loop
//! is a pure `plan` and a thin shell that carries it out; keys begin with the source and the plane. Start reading at
//! [`start`], then a loop's `plan`.

mod accounts;
mod deployment;
mod endpoints;
mod expectations;
mod namespaces;
mod ownership;
mod pods;
mod replica_set;
mod time;

use std::sync::Arc;

use api::resource;
use client::{Informer, InformerOptions, PlaneKey, Sources, Tasks};
use futures::future::BoxFuture;
use world::World;

/// The CA of a plane, PEM; `None` of one that is not known.
pub type RootCa = Arc<dyn Fn(&PlaneKey) -> BoxFuture<'static, Option<String>> + Send + Sync>;

pub struct Options {
    pub root_ca: RootCa,
    pub world: World,
}

/// Owns the loops.
pub struct Running {
    tasks: Tasks,
}

impl Running {
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

/// Starts all loops on all planes of `sources`.
pub fn start(sources: Sources, options: Options) -> Running {
    let tasks = Tasks::new();
    let Options { root_ca, world } = options;
    let namespaces = namespaces::informer(&sources);
    let claimed = || ownership::indexes(InformerOptions::default());
    let pods = Informer::start(&sources, resource::PODS, claimed());
    let replica_sets = Informer::start(&sources, resource::REPLICA_SETS, claimed());
    namespaces::start(&sources, &namespaces, &pods, world.clone(), &tasks);
    accounts::start(&sources, &namespaces, root_ca, world.clone(), &tasks);
    deployment::start(&sources, &replica_sets, &pods, &world, &tasks);
    replica_set::start(&sources, &replica_sets, &pods, &world, &tasks);
    endpoints::start(&sources, &pods, &world, &tasks);
    Running { tasks }
}
