//! Ingresses, for tenants whose VirtualCluster has them synced: down with the hosts that were granted, up with their addresses.

use api::{Object, resource::INGRESSES};
use client::{DeleteOptions, ObjectKey, Outcome, Patch};
use serde_json::json;

use super::{Handled, Shared, SyncError, pods, sides};
use crate::{
    identity::{Origin, Tenant},
    translate::{ingress, namespaced::Copied},
    virtual_cluster::Extra,
};

impl Shared {
    pub(super) async fn handle_ingress(&self, tenant: &Tenant, key: &ObjectKey) -> Handled {
        let is_synced = tenant.settings.sync.contains(&Extra::Ingresses);
        let below = &self.sides.below.ingresses;
        let copies = below.by_index(sides::ORIGIN, &sides::origin_key(key));
        if !is_synced && copies.is_empty() {
            return Ok(Outcome::Done);
        }
        let namespace = self.tenant_namespace(key).await?;
        let object = self
            .sides
            .above
            .ingresses
            .get(key)
            .filter(|object| is_synced && !object.is_deleting());
        let wanted = match (&namespace, &object) {
            (Some(namespace), Some(object)) if !namespace.is_deleting() => {
                let below = tenant.super_namespace(namespace.name(), namespace.uid());
                Some((ingress::down(tenant, object, &below), below))
            }
            _ => None,
        };
        let mut here = None;
        for (_, copy) in copies {
            let is_this = object
                .as_ref()
                .is_some_and(|object| Origin::owns(tenant, object, &copy));
            // One that is refused by now (its host was taken back) leaves.
            let stays = wanted
                .as_ref()
                .is_some_and(|(wanted, below)| wanted.is_ok() && below == copy.namespace());
            if is_this && stays {
                here = Some(copy);
            } else {
                self.delete_super_ingress(&copy).await?;
            }
        }
        let (Some(namespace), Some(object), Some((wanted, below))) = (namespace, object, wanted) else {
            return Ok(Outcome::Done);
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(refusal) => {
                self.tell(key, &object, "NotSynced", &refusal).await;
                return Ok(Outcome::Done);
            }
        };
        match here {
            None => {
                self.ensure_super_namespace(tenant, &key.plane, &namespace).await?;
                for name in ingress::secrets(&object) {
                    self.ensure_copy(tenant, Copied::Secret, &key.sibling(&name), &below)
                        .await?;
                }
                match self.super_client.create(&INGRESSES, Some(&below), &wanted).await {
                    Ok(_) => {}
                    Err(error) if error.is_already_exists() => {
                        // Ours comes by the watch; another's is waited out.
                        return Err(SyncError::NotYet(format!("an Ingress {} is below already", key.name)));
                    }
                    Err(error) => {
                        self.tell_refusal(key, &object, &below, &error).await;
                        return Err(error.into());
                    }
                }
            }
            Some(here) => {
                if let Some(patch) = ingress::drift(&wanted, &here) {
                    let patch = Patch::Merge(pods::with_uid(patch, &here));
                    self.super_client
                        .patch(&INGRESSES, Some(&below), here.name(), &patch)
                        .await?;
                }
                self.ingress_up(key, &object, &here).await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn ingress_up(&self, key: &ObjectKey, object: &Object, here: &Object) -> Result<(), SyncError> {
        let balancer = &here.tree()["status"]["loadBalancer"];
        let none = json!({});
        let (theirs, ours) = (balancer, &object.tree()["status"]["loadBalancer"]);
        let or_none = |value: &serde_json::Value| if value.is_null() { none.clone() } else { value.clone() };
        if or_none(theirs) == or_none(ours) {
            return Ok(());
        }
        let client = self.options.planes.client(&key.plane)?;
        let patch = Patch::Json(json!([
            {"op": "test", "path": "/metadata/uid", "value": object.uid()},
            {"op": "add", "path": "/status", "value": {"loadBalancer": or_none(theirs)}},
        ]));
        let patched = client
            .patch_sub(&INGRESSES, key.namespace(), &key.name, "status", &patch)
            .await;
        pods::found(patched)?;
        Ok(())
    }

    async fn delete_super_ingress(&self, ingress: &Object) -> Result<(), SyncError> {
        let options = DeleteOptions::of_uid(ingress.uid());
        let deleted = self
            .super_client
            .delete(&INGRESSES, Some(ingress.namespace()), ingress.name(), &options)
            .await;
        pods::gone(deleted)
    }
}
