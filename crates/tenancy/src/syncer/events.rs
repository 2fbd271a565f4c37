//! Events about synced Pods go up.

use api::{Object, resource};
use client::{ObjectKey, Outcome, Patch, PlaneKey};
use serde_json::{Value, json};

use super::{Handled, Shared, pods};
use crate::{
    identity::{Origin, Tenant},
    translate::event,
};

/// What changes of an Event that is seen again.
const COUNTED: [&str; 4] = ["count", "lastTimestamp", "message", "series"];

impl Shared {
    pub(super) async fn handle_event(&self, tenant: &Tenant, plane: &PlaneKey, key: &ObjectKey) -> Handled {
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
        let Some((tenant_key, tenant_pod)) = self.tenant_pod_of(plane, &super_pod) else {
            return Ok(Outcome::Done);
        };
        let client = self.options.planes.client(plane)?;
        let wanted = event::up(tenant, &below, &tenant_pod, &super_pod);
        let namespace = tenant_key.namespace();
        // Asked first: after a restart nearly all of them are there.
        let told = match pods::found(client.get(&resource::EVENTS, namespace, below.name()).await)? {
            None => client.create(&resource::EVENTS, namespace, &wanted).await.map(drop),
            Some(there) => match seen_again(&wanted, &there) {
                None => Ok(()),
                Some(patch) => client
                    .patch(&resource::EVENTS, namespace, below.name(), &Patch::Merge(patch))
                    .await
                    .map(drop),
            },
        };
        match told {
            // An Event is news: where the namespace is ending nobody is left to tell.
            Err(error) if !error.is_not_found() && !error.is_namespace_terminating() => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }

    /// The tenant's Pod for which a super Pod stands.
    fn tenant_pod_of(&self, plane: &PlaneKey, super_pod: &Object) -> Option<(ObjectKey, Object)> {
        let origin = Origin::of(super_pod, &self.options.super_cluster.id)?;
        if origin.plane != plane.plane {
            return None;
        }
        let key = plane.object(&origin.namespace, super_pod.name());
        let pod = self.sides.above.pods.get(&key).filter(|pod| pod.uid() == origin.uid)?;
        Some((key, pod))
    }
}

fn seen_again(wanted: &Value, there: &Object) -> Option<Value> {
    let mut patch = json!({});
    for field in COUNTED {
        if !wanted[field].is_null() && wanted[field] != there.tree()[field] {
            patch[field] = wanted[field].clone();
        }
    }
    (patch != json!({})).then_some(patch)
}
