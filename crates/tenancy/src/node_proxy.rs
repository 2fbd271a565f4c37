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
    translate::status::{hide_others, rename},
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
                        let (namespace, uid) = (stream.namespace.clone(), stream.uid.clone());
                        let below = PodStream {
                            plane: self.super_plane.to_string(),
                            namespace: pod.namespace().to_owned(),
                            uid: pod.uid().to_owned(),
                            node,
                            ..stream
                        };
                        let answer = self.inner.stream(below).await;
                        in_own_words(answer, &[(pod.namespace(), &namespace), (pod.uid(), &uid)]).await
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

/// Refusals are a line or a `Status`.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// A refusal from below speaks of the super Pod: here it is put into the tenant's words (trap 14). What succeeds is the Pod's own.
async fn in_own_words(answer: Response<Body>, words: &[(&str, &str)]) -> Response<Body> {
    if answer.status().as_u16() < 400 {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let text = match client::read_body(body, REFUSAL_BYTES_MAX).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => {
            let message = "the Pod's node has refused at length";
            return status::failure(parts.status, "InternalError", message);
        }
    };
    let mut said = serde_json::json!({"message": text});
    for (theirs, own) in words {
        rename(&mut said, theirs, own);
    }
    hide_others(&mut said);
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(
        parts,
        streaming::body::full(said["message"].as_str().unwrap_or("").to_owned()),
    )
}

fn wanted(plane: PlaneId, stream: &PodStream) -> Origin {
    Origin {
        plane,
        namespace: stream.namespace.clone(),
        uid: stream.uid.clone(),
    }
}
