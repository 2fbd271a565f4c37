//! Services: one address on both sides, the load balancer's status up.

use api::{Object, resource};
use client::{DeleteOptions, ObjectKey, Outcome, Patch};
use serde_json::json;

use super::{Handled, Shared, SyncError, pods, sides};
use crate::{
    identity::{Origin, Tenant},
    translate::{service, status},
};

impl Shared {
    pub(super) async fn handle_service(&self, tenant: &Tenant, key: &ObjectKey) -> Handled {
        let namespace = self.tenant_namespace(key).await?;
        let cached = self.sides.above.services.get(key);
        let object = cached.clone().filter(|object| !object.is_deleting());
        let (wanted, below) = match (&namespace, &object) {
            (Some(namespace), Some(object)) if !namespace.is_deleting() => {
                let below = tenant.super_namespace(namespace.name(), namespace.uid());
                (service::down(tenant, object, &below), Some(below))
            }
            _ => (None, None),
        };
        let mut here = None;
        for (_, copy) in self
            .sides
            .below
            .services
            .by_index(sides::ORIGIN, &sides::origin_key(key))
        {
            let stays = wanted.is_some() && Some(copy.namespace()) == below.as_deref();
            let is_this = object
                .as_ref()
                .is_some_and(|object| Origin::owns(tenant, object, &copy));
            if stays && is_this {
                here = Some(copy);
            } else if cached.is_some() || self.is_gone_above(&resource::SERVICES, key, &copy).await? {
                self.delete_super_service(&copy).await?;
            }
        }
        let (Some(namespace), Some(object), Some(wanted)) = (namespace, object, wanted) else {
            return Ok(Outcome::Done);
        };
        match here {
            None => {
                let below = self.ensure_super_namespace(tenant, &key.plane, &namespace).await?;
                self.create_super_service(tenant, key, &object, &wanted, &below).await?;
            }
            Some(here) => {
                if let Some(patch) = service::drift(&wanted, &here) {
                    self.patch_super_service(patch, &here).await?;
                }
                self.status_up(key, &object, &here).await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn create_super_service(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        object: &Object,
        wanted: &serde_json::Value,
        below: &str,
    ) -> Result<(), SyncError> {
        match self.super_client.create(&resource::SERVICES, Some(below), wanted).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => {
                match pods::found(self.super_client.get(&resource::SERVICES, Some(below), &key.name).await)? {
                    Some(there) if Origin::owns(tenant, object, &there) => Ok(()),
                    Some(there) if Origin::of(&there, &tenant.super_id).is_some_and(|o| o.plane == tenant.plane) => {
                        self.delete_super_service(&there).await?;
                        Err(SyncError::NotYet(format!(
                            "an older Service {} has to leave the super cluster",
                            key.name
                        )))
                    }
                    Some(_) => {
                        self.tell(
                            key,
                            object,
                            "NotSynced",
                            "the super cluster has another Service by this name",
                        )
                        .await;
                        Ok(())
                    }
                    None => Err(SyncError::NotYet(format!(
                        "an older Service {} has just left",
                        key.name
                    ))),
                }
            }
            Err(error) => {
                self.tell_refusal(key, object, below, &error).await;
                Err(error.into())
            }
        }
    }

    async fn patch_super_service(&self, patch: serde_json::Value, here: &Object) -> Result<(), SyncError> {
        let patch = Patch::Merge(pods::with_uid(patch, here));
        match self
            .super_client
            .patch(&resource::SERVICES, Some(here.namespace()), here.name(), &patch)
            .await
        {
            Ok(_) => Ok(()),
            // The address can't change in place (a Service that was headless, say): it is made anew.
            Err(error) if error.is_invalid() => {
                self.delete_super_service(here).await?;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn status_up(&self, key: &ObjectKey, object: &Object, here: &Object) -> Result<(), SyncError> {
        let wanted = status::service_up(here);
        if object.tree()["spec"]["type"] != "LoadBalancer"
            || wanted["loadBalancer"] == object.tree()["status"]["loadBalancer"]
        {
            return Ok(());
        }
        let client = self.options.planes.client(&key.plane)?;
        let patch = Patch::Json(json!([
            {"op": "test", "path": "/metadata/uid", "value": object.uid()},
            {"op": "add", "path": "/status/loadBalancer", "value": wanted["loadBalancer"]},
        ]));
        client
            .patch_sub(&resource::SERVICES, key.namespace(), &key.name, "status", &patch)
            .await?;
        Ok(())
    }

    async fn delete_super_service(&self, service: &Object) -> Result<(), SyncError> {
        let options = DeleteOptions::of_uid(service.uid());
        pods::gone(
            self.super_client
                .delete(&resource::SERVICES, Some(service.namespace()), service.name(), &options)
                .await,
        )
    }
}
