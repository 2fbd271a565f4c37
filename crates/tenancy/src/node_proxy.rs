//! Streams into tenants' Pods, by identity: a tenant names its own Pod, and reaches the super Pod whose annotations say that
//! it stands for exactly that one. A guessed name, a stale uid or another tenant's Pod leads nowhere.

use std::sync::Arc;

use api::{Object, PlaneId, resource};
use async_trait::async_trait;
use client::{Client, Sources};
use http::{Response, StatusCode};
use streaming::{Body, PodBackend, PodStream, status};

use crate::{
    identity::Origin,
    provision::{Provisioner, SuperCluster},
    virtual_cluster::Settings,
};

/// Serves all planes: tenants' Pods are translated, the super plane's own go straight on.
pub struct NodeProxy {
    pub super_client: Client,
    pub planes: Sources,
    pub super_plane: PlaneId,
    pub super_cluster: SuperCluster,
    pub tenants: Arc<dyn Provisioner>,
    /// Reaches Pods of the super cluster.
    pub inner: Arc<dyn PodBackend>,
}

#[async_trait]
impl PodBackend for NodeProxy {
    async fn stream(&self, stream: PodStream) -> Response<Body> {
        match stream.plane.parse::<PlaneId>() {
            Ok(plane) if plane != self.super_plane => {
                match self.super_pod(&wanted(plane, &stream), &stream.name.clone()).await {
                    Ok(pod) => {
                        let node = pod.tree()["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
                        let below = PodStream {
                            plane: self.super_plane.to_string(),
                            namespace: pod.namespace().to_owned(),
                            uid: pod.uid().to_owned(),
                            node,
                            ..stream
                        };
                        self.inner.stream(below).await
                    }
                    Err(refusal) => refusal,
                }
            }
            // The super plane, by its id or by its name.
            _ => self.inner.stream(stream).await,
        }
    }
}

impl NodeProxy {
    /// The super Pod that stands for exactly the tenant's Pod `name`.
    async fn super_pod(&self, wanted: &Origin, name: &str) -> Result<Object, Response<Body>> {
        let unavailable = |error: &dyn std::fmt::Display| {
            status::failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                &error.to_string(),
            )
        };
        let not_yet = || {
            status::failure(
                StatusCode::BAD_REQUEST,
                "BadRequest",
                &format!("pod {name} does not run yet: the super cluster has none for it"),
            )
        };
        let found = self
            .tenants
            .find(wanted.plane)
            .await
            .map_err(|error| unavailable(&error))?
            .ok_or_else(not_yet)?;
        let tenant = found.tenant(&self.super_cluster, Settings::default());
        let plane_client = self.planes.client(&found.plane).map_err(|error| unavailable(&error))?;
        let namespace = match plane_client.get(&resource::NAMESPACES, None, &wanted.namespace).await {
            Ok(namespace) => namespace,
            Err(error) if error.is_not_found() => return Err(not_yet()),
            Err(error) => return Err(unavailable(&error)),
        };
        let below = tenant.super_namespace(namespace.name(), namespace.uid());
        let pod = match self.super_client.get(&resource::PODS, Some(&below), name).await {
            Ok(pod) => pod,
            Err(error) if error.is_not_found() => return Err(not_yet()),
            Err(error) => return Err(unavailable(&error)),
        };
        Some(pod)
            .filter(|pod| Origin::of(pod, &self.super_cluster.id).as_ref() == Some(wanted))
            .ok_or_else(not_yet)
    }
}

fn wanted(plane: PlaneId, stream: &PodStream) -> Origin {
    Origin {
        plane,
        namespace: stream.namespace.clone(),
        uid: stream.uid.clone(),
    }
}
