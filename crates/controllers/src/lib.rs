//! The loops that make a plane useful, once for all planes: workloads, endpoints, namespaces, accounts, garbage; and, for planes
//! that have nodes of their own, volumes and the life of nodes.
//!
//! May use `client` (planes through sources) and `api`. Never knows a tenant, a node, or whether a plane is in this process. A loop
//! is a pure `plan` and a thin shell that carries it out; keys begin with the source and the plane. Start reading at
//! [`start`], then a loop's `plan`.

mod accounts;
mod claims;
mod clusters;
mod cron_job;
mod daemon_set;
mod definitions;
mod deployment;
mod disruption;
mod endpoints;
mod ephemeral;
mod expectations;
mod fairness;
mod garbage;
mod informers;
mod job;
mod namespaces;
mod node_lifecycle;
mod ownership;
mod pod_control;
mod pod_gc;
mod pod_template;
mod pods;
mod replica_set;
mod revisions;
mod stateful_set;
mod template_hash;
mod time;
mod tokens;
mod volumes;
mod written;

use std::sync::Arc;

use client::{PlaneKey, Sources, Tasks};
use futures::future::BoxFuture;
use world::World;

use informers::Informers;

pub use clusters::{Clusters, Reshown};

/// The CA of a plane, PEM; `None` of one that is not known.
pub type RootCa = Arc<dyn Fn(&PlaneKey) -> BoxFuture<'static, Option<String>> + Send + Sync>;

pub struct Options {
    pub root_ca: RootCa,
    pub clusters: Clusters,
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
    let Options {
        root_ca,
        clusters,
        world,
    } = options;
    let informers = Informers::start(&sources);
    namespaces::start(&sources, &informers.namespaces, &informers.pods, world.clone(), &tasks);
    tokens::start(&sources, &informers, root_ca.clone(), &world, &tasks);
    accounts::start(&sources, &informers.namespaces, root_ca, world.clone(), &tasks);
    deployment::start(&sources, &informers, &world, &tasks);
    replica_set::start(&sources, &informers, &world, &tasks);
    stateful_set::start(&sources, &informers, &world, &tasks);
    daemon_set::start(&sources, &informers, &clusters, &world, &tasks);
    job::start(&sources, &informers, &world, &tasks);
    cron_job::start(&sources, &informers, &world, &tasks);
    disruption::start(&sources, &informers, &world, &tasks);
    ephemeral::start(&sources, &informers, &world, &tasks);
    volumes::start(&sources, &informers, &clusters, &world, &tasks);
    volumes::protection::start(&sources, &informers, &clusters, &world, &tasks);
    node_lifecycle::start(&sources, &informers, &clusters, &world, &tasks);
    pod_gc::start(&sources, &informers, &clusters, &world, &tasks);
    endpoints::start(&sources, &informers, &world, &tasks);
    definitions::start(&sources, &informers, &world, &tasks);
    garbage::start(&sources, &informers, &world, &tasks);
    Running { tasks }
}
