//! Events about synced objects go up.

use api::{Object, resource};
use client::{Informer, ObjectKey, Outcome, Patch, PlaneKey};
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
        let Some((about, above)) = self.involved(key, &below) else {
            return Ok(Outcome::Done);
        };
        let Some(own) = self.own_object_of(plane, &about, above) else {
            return Ok(Outcome::Done);
        };
        let client = self.options.planes.client(plane)?;
        let wanted = event::up(tenant, &below, &own, &about);
        let namespace = Some(own.namespace());
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

    /// The super object that an Event is about, and where its tenant's own would be. Events about other kinds stay below.
    pub(super) fn involved(&self, key: &ObjectKey, event: &Object) -> Option<(Object, &Informer)> {
        let involved = &event.tree()["involvedObject"];
        let sides = &self.sides;
        let (below, above) = match involved["kind"].as_str()? {
            "Pod" => (&sides.below.pods, &sides.above.pods),
            "Service" => (&sides.below.services, &sides.above.services),
            "PersistentVolumeClaim" => (&sides.below.claims, &sides.above.claims),
            "Ingress" => (&sides.below.ingresses, &sides.above.ingresses),
            _ => return None,
        };
        let about = below.get(&key.sibling(involved["name"].as_str()?))?;
        // Not about an older one by this name.
        let is_it = involved["uid"]
            .as_str()
            .is_none_or(|uid| uid.is_empty() || uid == about.uid());
        is_it.then_some((about, above))
    }

    /// The tenant's object for which a super object stands.
    fn own_object_of(&self, plane: &PlaneKey, about: &Object, above: &Informer) -> Option<Object> {
        let origin = Origin::of(about, &self.options.super_cluster.id)?;
        if origin.plane != plane.plane {
            return None;
        }
        let own = above.get(&plane.object(&origin.namespace, about.name()))?;
        (own.uid() == origin.uid).then_some(own)
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
