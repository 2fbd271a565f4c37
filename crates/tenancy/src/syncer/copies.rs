//! ConfigMaps, Secrets and ServiceAccounts go down while a Pod names them (D7); EndpointSlices that a tenant writes by hand
//! go down for Services without a selector.

use api::Object;
use client::{DeleteOptions, ObjectKey, Outcome, Patch};

use super::{Handled, Shared, SyncError, pods, sides};
use crate::{
    identity::{Origin, Tenant},
    pod_plan,
    references::References,
    translate::{ingress, namespaced::Copied, service},
};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Shared {
    pub(super) async fn handle_copy(&self, tenant: &Tenant, kind: Copied, key: &ObjectKey) -> Handled {
        let cached = self.sides.above.of(kind).get(key);
        let is_needed = self.is_needed(kind, key, cached.as_ref());
        let copies = self
            .sides
            .below
            .of(kind)
            .by_index(sides::ORIGIN, &sides::origin_key(key));
        // As with most of what tenants have.
        if !is_needed && copies.is_empty() {
            return Ok(Outcome::Done);
        }
        let namespace = self.tenant_namespace(key).await?;
        let below = namespace
            .as_ref()
            .map(|namespace| tenant.super_namespace(namespace.name(), namespace.uid()));
        let object = match is_needed {
            true => self
                .tenant_object(kind, key)
                .await?
                .filter(|object| !object.is_deleting()),
            false => None,
        };
        for (_, copy) in copies {
            if object.is_none() || Some(copy.namespace()) != below.as_deref() {
                self.delete_copy(kind, &copy).await?;
            }
        }
        let (Some(object), Some(namespace), Some(below)) = (object, namespace, below) else {
            return Ok(Outcome::Done);
        };
        let is_there = match kind {
            // Its Service is below, or will be soon.
            Copied::EndpointSlice => {
                self.ensure_super_namespace(tenant, &key.plane, &namespace).await?;
                true
            }
            // Where no super namespace is, no Pod has gone down: it will bring what it names.
            _ => {
                let super_namespace = self.options.super_plane.object("", &below);
                let known = self.sides.below.namespaces.get(&super_namespace);
                known.is_some_and(|namespace| !namespace.is_deleting())
            }
        };
        if is_there {
            self.ensure_copy_of(tenant, kind, key, &object, &below).await?;
        }
        Ok(Outcome::Done)
    }

    /// Whether anything below needs the object.
    fn is_needed(&self, kind: Copied, key: &ObjectKey, object: Option<&Object>) -> bool {
        if kind == Copied::EndpointSlice {
            let Some(slice) = object else { return false };
            let service = slice
                .label(SERVICE_NAME)
                .and_then(|name| self.sides.above.services.get(&key.sibling(name)));
            return sides::is_by_hand(slice) && service.is_some_and(|service| service::is_selectorless(&service));
        }
        if kind == Copied::Secret && self.is_named_by_an_ingress(key) {
            return true;
        }
        self.sides
            .above
            .pods
            .list(&key.plane, key.namespace())
            .iter()
            .any(|pod| {
                let names = References::of(&pod.tree()["spec"]);
                !pod_plan::is_finished(pod)
                    && match kind {
                        Copied::ConfigMap => names.config_maps.contains(&*key.name),
                        Copied::Secret => names.secrets.contains(&*key.name),
                        Copied::ServiceAccount => names.service_account.as_deref() == Some(&*key.name),
                        Copied::EndpointSlice => false,
                    }
            })
    }

    /// An Ingress that is below has its certificates there too.
    fn is_named_by_an_ingress(&self, key: &ObjectKey) -> bool {
        let ingresses = self.sides.above.ingresses.list(&key.plane, key.namespace());
        let is_below = |ingress: &Object| {
            let origin = sides::origin_key(&key.sibling(ingress.name()));
            !self.sides.below.ingresses.by_index(sides::ORIGIN, &origin).is_empty()
        };
        let names_it = |ingress: &&Object| ingress::secrets(ingress).contains(&*key.name);
        ingresses.iter().filter(names_it).any(is_below)
    }

    /// The tenant's object: from the cache or, as what planes have alike is not in the all-planes stream, from its plane.
    async fn tenant_object(&self, kind: Copied, key: &ObjectKey) -> Result<Option<Object>, SyncError> {
        if let Some(object) = self.sides.above.of(kind).get(key) {
            return Ok(Some(object));
        }
        let client = self.options.planes.client(&key.plane)?;
        pods::found(client.get(&kind.resource(), key.namespace(), &key.name).await)
    }

    /// Makes the copy as it should be. An object of the tenant that is not there (yet) is not an error: the node waits.
    pub(super) async fn ensure_copy(
        &self,
        tenant: &Tenant,
        kind: Copied,
        key: &ObjectKey,
        below: &str,
    ) -> Result<(), SyncError> {
        match self.tenant_object(kind, key).await? {
            Some(object) => self.ensure_copy_of(tenant, kind, key, &object, below).await,
            None => Ok(()),
        }
    }

    async fn ensure_copy_of(
        &self,
        tenant: &Tenant,
        kind: Copied,
        key: &ObjectKey,
        object: &Object,
        below: &str,
    ) -> Result<(), SyncError> {
        let (resource, name) = (kind.resource(), object.name());
        let mut wanted = kind.down(tenant, object, below);
        if kind == Copied::EndpointSlice {
            let refused = self.keep_to_own_endpoints(tenant.plane, &mut wanted);
            if !refused.is_empty() {
                let message = format!(
                    "endpoints that are not this tenant's Pods do not get traffic: {}",
                    refused.join(", ")
                );
                self.tell(key, object, "NotSynced", &message).await;
            }
        }
        let cached = self
            .sides
            .below
            .of(kind)
            .get(&self.options.super_plane.object(below, name));
        let there = match cached {
            Some(there) => there,
            // Asked first: what the super cluster has made for itself is in no cache of ours, and stays for good.
            None => match pods::found(self.super_client.get(&resource, Some(below), name).await)? {
                Some(there) => there,
                None => {
                    if let Err(error) = self.super_client.create(&resource, Some(below), &wanted).await {
                        self.tell_refusal(key, object, below, &error).await;
                        return Err(error.into());
                    }
                    return Ok(());
                }
            },
        };
        match Origin::of(&there, &tenant.super_id) {
            // What the super cluster has made for itself in this namespace (its own default account) is left alone.
            None => Ok(()),
            Some(origin) if origin.plane != tenant.plane => Err(SyncError::NotYet(format!(
                "another tenant's {} {} is in the way",
                resource.kind, name
            ))),
            Some(origin) if origin.uid != object.uid() => {
                self.delete_copy(kind, &there).await?;
                Err(SyncError::NotYet(format!(
                    "an older {} {} has to leave the super cluster",
                    resource.kind, name
                )))
            }
            Some(_) => {
                if let Some(patch) = kind.drift(&wanted, &there) {
                    let patch = pods::with_uid(patch, &there);
                    match self
                        .super_client
                        .patch(&resource, Some(below), name, &Patch::Merge(patch))
                        .await
                    {
                        Ok(_) => {}
                        // Immutable below and made anew above: it has to be made anew below as well.
                        Err(error) if error.is_invalid() => {
                            self.delete_copy(kind, &there).await?;
                            return Err(error.into());
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            }
        }
    }

    async fn delete_copy(&self, kind: Copied, copy: &Object) -> Result<(), SyncError> {
        let options = DeleteOptions::of_uid(copy.uid());
        pods::gone(
            self.super_client
                .delete(&kind.resource(), Some(copy.namespace()), copy.name(), &options)
                .await,
        )
    }
}

impl sides::Above {
    pub(super) fn of(&self, kind: Copied) -> &client::Informer {
        match kind {
            Copied::ConfigMap => &self.config_maps,
            Copied::Secret => &self.secrets,
            Copied::ServiceAccount => &self.service_accounts,
            Copied::EndpointSlice => &self.endpoint_slices,
        }
    }
}

impl sides::Below {
    pub(super) fn of(&self, kind: Copied) -> &client::Informer {
        match kind {
            Copied::ConfigMap => &self.config_maps,
            Copied::Secret => &self.secrets,
            Copied::ServiceAccount => &self.service_accounts,
            Copied::EndpointSlice => &self.endpoint_slices,
        }
    }
}
