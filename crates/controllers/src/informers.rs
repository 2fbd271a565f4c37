//! What several loops look at, watched once for all of them.

use api::{Object, Resource, resource};
use client::{Informer, InformerOptions, ObjectKey, PlaneKey, Sources};

use crate::{endpoints, ownership, pods};

/// Pods are found by their node.
pub const BY_NODE: &str = "node";

/// A value of [`BY_NODE`].
pub fn of_node(plane: &PlaneKey, node: &str) -> String {
    format!("{plane} {node}")
}

/// Pods that are over are found (and counted) by their plane.
pub const FINISHED: &str = "finished";

pub struct Informers {
    pub namespaces: Informer,
    pub nodes: Informer,
    pub pods: Informer,
    pub replica_sets: Informer,
    pub replication_controllers: Informer,
    pub deployments: Informer,
    pub stateful_sets: Informer,
    pub daemon_sets: Informer,
    pub controller_revisions: Informer,
    pub jobs: Informer,
    pub cron_jobs: Informer,
    pub services: Informer,
    pub endpoints: Informer,
    pub endpoint_slices: Informer,
    pub claims: Informer,
    pub volumes: Informer,
    pub budgets: Informer,
    pub service_accounts: Informer,
    /// Their metadata alone.
    pub definitions: Informer,
}

impl Informers {
    pub fn start(sources: &Sources) -> Informers {
        let owned = || ownership::owners(InformerOptions::default());
        let claimed = || ownership::indexes(owned());
        let by_service = |key: &ObjectKey, slice: &Object| {
            let service = endpoints::service_of(key, slice);
            service.into_iter().map(|service| service.to_string()).collect()
        };
        let by_node = |key: &ObjectKey, pod: &Object| {
            let node = pod.tree()["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
            node.into_iter().map(|node| of_node(&key.plane, node)).collect()
        };
        let finished = |key: &ObjectKey, pod: &Object| {
            let over = matches!(pods::phase(pod), "Succeeded" | "Failed");
            over.then(|| key.plane.to_string()).into_iter().collect()
        };
        let start = |resource: Resource, options: InformerOptions| Informer::start(sources, resource, options);
        Informers {
            namespaces: start(resource::NAMESPACES, owned()),
            nodes: start(resource::NODES, owned()),
            pods: start(
                resource::PODS,
                claimed().index(BY_NODE, by_node).index(FINISHED, finished),
            ),
            replica_sets: start(resource::REPLICA_SETS, claimed()),
            replication_controllers: start(resource::REPLICATION_CONTROLLERS, owned()),
            deployments: start(resource::DEPLOYMENTS, owned()),
            stateful_sets: start(resource::STATEFUL_SETS, owned()),
            daemon_sets: start(resource::DAEMON_SETS, owned()),
            controller_revisions: start(resource::CONTROLLER_REVISIONS, claimed()),
            jobs: start(resource::JOBS, claimed()),
            cron_jobs: start(resource::CRON_JOBS, owned()),
            services: start(resource::SERVICES, owned()),
            endpoints: start(resource::ENDPOINTS, owned()),
            endpoint_slices: start(
                resource::ENDPOINT_SLICES,
                owned().index(endpoints::BY_SERVICE, by_service),
            ),
            claims: start(resource::PERSISTENT_VOLUME_CLAIMS, owned()),
            volumes: start(resource::PERSISTENT_VOLUMES, owned()),
            budgets: start(resource::POD_DISRUPTION_BUDGETS, owned()),
            service_accounts: start(resource::SERVICE_ACCOUNTS, owned()),
            definitions: start(
                resource::CUSTOM_RESOURCE_DEFINITIONS,
                InformerOptions {
                    metadata_only: true,
                    ..owned()
                },
            ),
        }
    }

    pub fn all(&self) -> [&Informer; 19] {
        [
            &self.namespaces,
            &self.nodes,
            &self.pods,
            &self.replica_sets,
            &self.replication_controllers,
            &self.deployments,
            &self.stateful_sets,
            &self.daemon_sets,
            &self.controller_revisions,
            &self.jobs,
            &self.cron_jobs,
            &self.services,
            &self.endpoints,
            &self.endpoint_slices,
            &self.claims,
            &self.volumes,
            &self.budgets,
            &self.service_accounts,
            &self.definitions,
        ]
    }
}
