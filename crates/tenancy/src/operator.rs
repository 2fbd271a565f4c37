//! Makes a plane for each VirtualCluster of the super plane, and ends it again.

mod status;

use std::{sync::Arc, time::Duration};

use api::{
    Object, PlaneId,
    resource::{self, VIRTUAL_CLUSTERS},
};
use client::{
    Client, DeleteOptions, Informer, InformerOptions, ListOptions, ObjectKey, Outcome, Patch, PlaneKey, Sources, Tasks,
    WorkQueue,
};
use serde_json::json;
use world::World;

use crate::{
    identity::{self, finalizers},
    provision::{ProvisionError, Provisioner},
    virtual_cluster::name_refusal,
};
use status::{Phase, Status};

/// On VirtualClusters: held until nothing of the tenant is left.
pub const FINALIZER: &str = "tenancy.mangrove.io/plane";

/// Planes made or ended at once. Each waits for the disk most of the time.
const WORKERS: usize = 16;

/// Namespaces that are ending are watched; this is for one whose event came before it was listed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub struct OperatorOptions {
    /// The super plane alone.
    pub super_sources: Sources,
    pub super_plane: PlaneKey,
    /// From [`crate::virtual_cluster::follow`].
    pub clusters: Informer,
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
    /// Super namespaces of tenants: while one is left, its tenant is not gone.
    namespaces: Informer,
    world: World,
}

/// Starts the operator; it ends when the returned tasks are stopped or dropped.
pub fn start(options: OperatorOptions) -> Result<Tasks, client::Error> {
    let tasks = Tasks::new();
    let labelled = InformerOptions {
        label_selector: Some(identity::PLANE.to_owned()),
        ..InformerOptions::default()
    };
    let operator = Arc::new(Operator {
        client: options.super_sources.client(&options.super_plane)?,
        tenants: options.tenants,
        clusters: options.clusters,
        namespaces: Informer::start(&options.super_sources, resource::NAMESPACES, labelled),
        world: options.world.clone(),
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
        if let Some(refusal) = name_refusal(cluster.name()) {
            // It will not get another name.
            self.write_status(&cluster, &Status::of(Phase::Error, None, &refusal))
                .await?;
            return Ok(Outcome::Done);
        }
        // A super plane of ours gives it the finalizer at its creation.
        if !finalizers(&cluster).iter().any(|finalizer| finalizer == FINALIZER) {
            let mut finalizers = finalizers(&cluster);
            finalizers.push(FINALIZER.to_owned());
            // Before there is a plane, or one could be left behind. What comes of it is handled again.
            self.write_finalizers(&cluster, finalizers).await?;
            return Ok(Outcome::Done);
        }
        let found = self.tenants.provide(cluster.name()).await?;
        self.write_status(&cluster, &Status::of(Phase::Running, Some(found.plane.plane), ""))
            .await?;
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
        let plane = match status::plane(cluster) {
            Some(plane) => Some(plane),
            None => self.tenants.named(cluster.name()).await?,
        };
        if let Some(plane) = plane {
            // Known before its name goes, so that an attempt that comes no further can be gone on with.
            let message = "the plane is being deleted";
            if status::plane(cluster).is_none() {
                self.write_status(cluster, &Status::of(Phase::Deleting, Some(plane), message))
                    .await?;
            }
            self.tenants.delete(plane).await?;
            let left = self.end_super_namespaces(plane).await?;
            if left > 0 {
                let message = format!("{left} namespaces of the super cluster are ending");
                self.write_status(cluster, &Status::of(Phase::Deleting, Some(plane), &message))
                    .await?;
                return Ok(Outcome::After(LOOK_AGAIN));
            }
        }
        self.write_finalizers(cluster, kept).await?;
        Ok(Outcome::Done)
    }

    /// Deletes what the super cluster has of a plane that is no more; returns how many namespaces are left. Asks the super
    /// cluster itself: what a cache does not show may still be there.
    async fn end_super_namespaces(&self, plane: PlaneId) -> Result<usize, OperatorError> {
        let options = ListOptions {
            label_selector: Some(format!("{}={plane}", identity::PLANE)),
            ..ListOptions::default()
        };
        let left = self.client.list_all(&resource::NAMESPACES, None, &options).await?.items;
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
        Ok(left.len())
    }

    async fn write_finalizers(&self, cluster: &Object, finalizers: Vec<String>) -> Result<(), OperatorError> {
        let patch = json!({"metadata": {"uid": cluster.uid(), "resourceVersion": cluster.resource_version(),
            "finalizers": finalizers}});
        match self
            .client
            .patch(&VIRTUAL_CLUSTERS, None, cluster.name(), &Patch::Merge(patch))
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            // A conflict too: by what was read since then it may be another thing that is to be done.
            written => Ok(written.map(drop)?),
        }
    }

    async fn write_status(&self, cluster: &Object, status: &Status<'_>) -> Result<(), OperatorError> {
        let Some(patch) = status.patch(cluster, self.world.clock.wall()) else {
            return Ok(());
        };
        match self
            .client
            .patch_sub(&VIRTUAL_CLUSTERS, None, cluster.name(), "status", &Patch::Merge(patch))
            .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }

    /// Says in the object why its plane is not there (or still is).
    async fn tell(&self, key: &ObjectKey, error: &OperatorError) {
        let Some(cluster) = self.clusters.get(key) else { return };
        let phase = match error {
            // Somebody else wrote meanwhile: nothing to tell.
            OperatorError::Client(error) if error.is_conflict() => return,
            _ if cluster.is_deleting() => Phase::Deleting,
            OperatorError::Provision(ProvisionError::Failed(_)) => Phase::Error,
            _ => Phase::Pending,
        };
        let message = error.to_string();
        let status = Status::of(phase, status::plane(&cluster), &message);
        if let Err(error) = self.write_status(&cluster, &status).await {
            tracing::debug!(%error, tenant = cluster.name(), "its status could not be written");
        }
    }
}
