//! Tenants' views of the super plane's resources, as the API server of this process takes them.

use std::sync::Arc;

use api::{Object, PlaneId, Reason, Status};
use apiserver::{Lens, Plane, Projection};
use futures::future::BoxFuture;
use keyspace::Revision;
use tenancy::{
    nodes::{NodeView, NodeViews, Unmarked},
    storage_classes,
};

/// Nodes, as each tenant's VirtualCluster has it.
pub struct Nodes(pub NodeViews);

/// The super cluster's public StorageClasses. What a plane sees of one depends on that one alone.
pub struct StorageClasses;

struct OfStorageClasses(PlaneId);

impl Projection for StorageClasses {
    fn lens<'a>(&'a self, plane: &'a Plane) -> BoxFuture<'a, Result<Arc<dyn Lens>, Status>> {
        let lens: Arc<dyn Lens> = Arc::new(OfStorageClasses(plane.id));
        Box::pin(async move { Ok(lens) })
    }
}

impl Lens for OfStorageClasses {
    fn show(&self, class: &Object) -> Option<Object> {
        storage_classes::show(self.0, class)
    }

    fn since(&self) -> Revision {
        Revision(0)
    }

    fn replaced(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

struct OfNodes(NodeView);

impl Projection for Nodes {
    fn lens<'a>(&'a self, plane: &'a Plane) -> BoxFuture<'a, Result<Arc<dyn Lens>, Status>> {
        Box::pin(async move {
            let view = self.0.view(plane.id, &plane.record.name).await;
            let ended = || {
                Status::new(
                    Reason::ServiceUnavailable,
                    "nodes can't be shown: the platform is ending",
                )
            };
            let lens: Arc<dyn Lens> = Arc::new(OfNodes(view.ok_or_else(ended)?));
            Ok(lens)
        })
    }
}

impl Lens for OfNodes {
    fn show(&self, node: &Object) -> Option<Object> {
        self.0.show(node)
    }

    fn since(&self) -> Revision {
        Revision(self.0.since())
    }

    fn change<'a>(&'a self, node: &'a Object, wanted: &'a Object) -> BoxFuture<'a, Result<Revision, Status>> {
        Box::pin(async move {
            let refusal = |error: Unmarked| {
                let reason = match error {
                    Unmarked::Refused(_) => Reason::Forbidden,
                    Unmarked::Later(_) => Reason::ServiceUnavailable,
                };
                Status::new(reason, format!("nodes {:?} can't be changed so: {error}", node.name()))
            };
            self.0.mark(node, wanted).await.map(Revision).map_err(refusal)
        })
    }

    fn replaced(&self) -> BoxFuture<'static, ()> {
        self.0.replaced()
    }
}
