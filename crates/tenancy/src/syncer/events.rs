//! Events about synced Pods go up.

use api::{Object, resource};
use client::{ObjectKey, Outcome, Patch};
use serde_json::json;

use super::{Handled, Shared};
use crate::{identity::Origin, translate::event};

impl Shared {
    pub(super) async fn handle_event(&self, key: &ObjectKey) -> Handled {
        let Some(below) = self.sides.below.events.get(key) else {
            return Ok(Outcome::Done);
        };
        let involved = &below.tree()["involvedObject"];
        if involved["kind"] != "Pod" {
            return Ok(Outcome::Done);
        }
        let name = involved["name"].as_str().unwrap_or("");
        let Some(super_pod) = self.sides.below.pods.get(&key.sibling(name)) else {
            return Ok(Outcome::Done);
        };
        let Some((tenant_key, tenant_pod)) = self.tenant_pod_of(&super_pod).await? else {
            return Ok(Outcome::Done);
        };
        let client = self.options.planes.client(&tenant_key.plane)?;
        let wanted = event::up(&below, &tenant_pod, &super_pod);
        let told = match client.create(&resource::EVENTS, tenant_key.namespace(), &wanted).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => {
                // Seen again: count and time.
                let mut patch = json!({});
                for field in ["count", "lastTimestamp", "message", "series"] {
                    if !wanted[field].is_null() {
                        patch[field] = wanted[field].clone();
                    }
                }
                let name = below.name();
                client
                    .patch(&resource::EVENTS, tenant_key.namespace(), name, &Patch::Merge(patch))
                    .await
                    .map(drop)
            }
            Err(error) => Err(error),
        };
        match told {
            // An Event is news: where the namespace is ending nobody is left to tell.
            Err(error) if !error.is_not_found() && !error.is_namespace_terminating() => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }

    /// The tenant's Pod for which a super Pod stands.
    async fn tenant_pod_of(&self, super_pod: &Object) -> Result<Option<(ObjectKey, Object)>, super::SyncError> {
        let Some(origin) = Origin::of(super_pod, &self.options.super_cluster.id) else {
            return Ok(None);
        };
        let Some(found) = self.options.tenants.find(origin.plane).await? else {
            return Ok(None);
        };
        let key = found.plane.object(&origin.namespace, super_pod.name());
        let pod = self.sides.above.pods.get(&key).filter(|pod| pod.uid() == origin.uid);
        Ok(pod.map(|pod| (key, pod)))
    }
}
