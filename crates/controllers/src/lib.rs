//! The loops that make a plane useful, once for all planes: Deployments, ReplicaSets, endpoints, namespaces, accounts, garbage.
//!
//! May use `client` (planes through sources) and `api`. Never knows a tenant, a node, or whether a plane is in this process. A loop
//! is a pure `plan` and a thin shell that carries it out; keys begin with the source and the plane. Start reading at
//! [`start`], then a loop's `plan`.

mod accounts;
mod deployment;
mod endpoints;
mod expectations;
mod fairness;
mod garbage;
mod informers;
mod namespaces;
mod ownership;
mod pods;
mod replica_set;
mod time;

use std::sync::Arc;

use client::{PlaneKey, Sources, Tasks};
use futures::future::BoxFuture;
use world::World;

use informers::Informers;

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
    let informers = Informers::start(&sources);
    namespaces::start(&sources, &informers.namespaces, &informers.pods, world.clone(), &tasks);
    accounts::start(&sources, &informers.namespaces, root_ca, world.clone(), &tasks);
    deployment::start(&sources, &informers, &world, &tasks);
    replica_set::start(&sources, &informers, &world, &tasks);
    endpoints::start(&sources, &informers, &world, &tasks);
    garbage::start(&sources, &informers, &world, &tasks);
    Running { tasks }
}
