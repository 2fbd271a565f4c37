//! Makes a plane for each VirtualCluster of the super plane, and ends it again.

use std::{sync::Arc, time::Duration};

use api::{
    Object,
    resource::{self, VIRTUAL_CLUSTERS},
};
use client::{
    Client, DeleteOptions, Informer, InformerOptions, ObjectKey, Outcome, Patch, PlaneKey, Sources, Tasks, WorkQueue,
};
use serde_json::json;
use world::World;

use crate::{
    identity,
    provision::{ProvisionError, Provisioner},
};

/// On VirtualClusters: held until nothing of the tenant is left.
pub const FINALIZER: &str = "tenancy.mangrove.io/plane";

/// Planes made or ended at once.
const WORKERS: usize = 4;

/// Namespaces that are ending are watched; this is for the case that an event about one can't be told from nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub struct OperatorOptions {
    /// The super plane alone.
    pub super_sources: Sources,
    pub super_plane: PlaneKey,
    pub tenants: Arc<dyn Provisioner>,
    pub world: World,
}

#[derive(Debug, thiserror::Error)]
enum OperatorError {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}

struct Operator {
    client: Client,
    tenants: Arc<dyn Provisioner>,
    clusters: Informer,
    /// Super namespaces of tenants, by plane: while one is left, its tenant is not gone.
    namespaces: Informer,
}

const BY_PLANE: &str = "plane";

/// Starts the operator; it ends when the returned tasks are stopped or dropped.
pub fn start(options: OperatorOptions) -> Result<Tasks, client::Error> {
    let tasks = Tasks::new();
    let labelled = InformerOptions {
        label_selector: Some(identity::PLANE.to_owned()),
        ..InformerOptions::default()
    }
    .index(BY_PLANE, |_, namespace| {
        namespace
            .label(identity::PLANE)
            .map(str::to_owned)
            .into_iter()
            .collect()
    });
    let operator = Arc::new(Operator {
        client: options.super_sources.client(&options.super_plane)?,
        tenants: options.tenants,
        clusters: Informer::start(&options.super_sources, VIRTUAL_CLUSTERS, InformerOptions::default()),
        namespaces: Informer::start(&options.super_sources, resource::NAMESPACES, labelled),
    });
    let queue = WorkQueue::<ObjectKey>::new(&options.world);
    client::enqueue(&tasks, &operator.clusters, &queue, |key, _| vec![key.clone()], Vec::new);
    // The last namespace of a tenant that leaves lets its VirtualCluster go.
    let super_plane = options.super_plane;
    let by_namespace = move |_: &ObjectKey, namespace: &Object| {
        let tenant = namespace
            .annotation(identity::TENANT)
            .filter(|_| namespace.is_deleting());
        tenant
            .map(|tenant| super_plane.object("", tenant))
            .into_iter()
            .collect()
    };
    client::enqueue(&tasks, &operator.namespaces, &queue, by_namespace, Vec::new);
    let handler = operator.clone();
    tasks.spawn(async move {
        operator.clusters.wait_synced().await;
        operator.namespaces.wait_synced().await;
        let loops = Tasks::new();
        client::run(&loops, "operator", &queue, WORKERS, move |key| {
            let operator = handler.clone();
            async move {
                let handled = operator.handle(&key).await;
                if let Err(error) = &handled {
                    operator.tell(&key, error).await;
                }
                handled
            }
        });
        std::future::pending::<()>().await;
        drop(loops);
    });
    Ok(tasks)
}

impl Operator {
    async fn handle(&self, key: &ObjectKey) -> Result<Outcome, OperatorError> {
        let Some(cluster) = self.clusters.get(key) else {
            return Ok(Outcome::Done);
        };
        if cluster.is_deleting() {
            return self.end(&cluster).await;
        }
        if !finalizers(&cluster).iter().any(|finalizer| finalizer == FINALIZER) {
            let mut finalizers = finalizers(&cluster);
            finalizers.push(FINALIZER.to_owned());
            self.write_finalizers(&cluster, finalizers).await?;
        }
        let found = self.tenants.provide(cluster.name()).await?;
        let status = json!({"phase": "Running", "plane": found.plane.plane, "message": ""});
        if cluster.tree()["status"] != status {
            self.write_status(&cluster, status).await?;
        }
        Ok(Outcome::Done)
    }

    /// The plane first, so that nothing more is asked for; then what is left of it in the super cluster; then the object.
    async fn end(&self, cluster: &Object) -> Result<Outcome, OperatorError> {
        let kept: Vec<String> = finalizers(cluster)
            .into_iter()
            .filter(|finalizer| finalizer != FINALIZER)
            .collect();
        if kept.len() == finalizers(cluster).len() {
            return Ok(Outcome::Done);
        }
        // From the status, since a plane whose deletion has begun has no name any more.
        let plane = match cluster.tree()["status"]["plane"]
            .as_str()
            .and_then(|id| id.parse().ok())
        {
            Some(plane) => Some(plane),
            None => self.tenants.named(cluster.name()).await?,
        };
        if let Some(plane) = plane {
            self.tenants.delete(plane).await?;
            let left = self.namespaces.by_index(BY_PLANE, plane.as_str());
            let left: Vec<Object> = left.into_iter().map(|(_, namespace)| namespace).collect();
            for namespace in left.iter().filter(|namespace| !namespace.is_deleting()) {
                let options = DeleteOptions::of_uid(namespace.uid());
                match self
                    .client
                    .delete(&resource::NAMESPACES, None, namespace.name(), &options)
                    .await
                {
                    Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                    _ => {}
                }
            }
            if !left.is_empty() {
                return Ok(Outcome::After(LOOK_AGAIN));
            }
        }
        self.write_finalizers(cluster, kept).await?;
        Ok(Outcome::Done)
    }

    async fn write_finalizers(&self, cluster: &Object, finalizers: Vec<String>) -> Result<(), OperatorError> {
        let patch = json!({"metadata": {"uid": cluster.uid(), "resourceVersion": cluster.resource_version(),
            "finalizers": finalizers}});
        match self
            .client
            .patch(&VIRTUAL_CLUSTERS, None, cluster.name(), &Patch::Merge(patch))
            .await
        {
            // A newer state is on its way to the cache, and will be handled.
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn write_status(&self, cluster: &Object, status: serde_json::Value) -> Result<(), OperatorError> {
        let patch = Patch::Merge(json!({"metadata": {"uid": cluster.uid()}, "status": status}));
        match self
            .client
            .patch_sub(&VIRTUAL_CLUSTERS, None, cluster.name(), "status", &patch)
            .await
        {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Says in the object why its plane is not there.
    async fn tell(&self, key: &ObjectKey, error: &OperatorError) {
        let Some(cluster) = self.clusters.get(key) else { return };
        let (phase, message) = match error {
            _ if cluster.is_deleting() => ("Deleting", error.to_string()),
            OperatorError::Provision(ProvisionError::Failed(reason)) => ("Error", reason.clone()),
            _ => ("Pending", error.to_string()),
        };
        let status = json!({"phase": phase, "message": message});
        if cluster.tree()["status"]["message"] != status["message"]
            && let Err(error) = self.write_status(&cluster, status).await
        {
            tracing::debug!(%error, tenant = cluster.name(), "its status could not be written");
        }
    }
}

fn finalizers(object: &Object) -> Vec<String> {
    let finalizers = object.tree()["metadata"]["finalizers"].as_array();
    finalizers
        .into_iter()
        .flatten()
        .filter_map(|finalizer| finalizer.as_str().map(str::to_owned))
        .collect()
}
