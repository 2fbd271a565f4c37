//! Super namespaces: made by need, checked before use, gone before the tenant's own is (trap 6).

use api::{Object, PlaneId, resource};
use client::{DeleteOptions, ObjectKey, Outcome, Patch, PlaneKey};
use serde_json::json;

use super::{Handled, Shared, SyncError, pods, sides};
use crate::{
    identity::{FINALIZER, Tenant},
    translate::{namespace, pod::metadata_drift},
};

/// Namespaces that every plane has and that can't be deleted: no finalizer is needed, and an untouched one stays rendered.
const UNDELETABLE: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Shared {
    /// The tenant's namespace of `key`: from the cache, or (the default ones are not in the all-planes stream while they
    /// are untouched) from the plane.
    pub(super) async fn tenant_namespace(&self, key: &ObjectKey) -> Result<Option<Object>, SyncError> {
        if let Some(namespace) = self.sides.above.namespaces.get(&key.plane.object("", &key.namespace)) {
            return Ok(Some(namespace));
        }
        let client = self.options.planes.client(&key.plane)?;
        pods::found(client.get(&resource::NAMESPACES, None, &key.namespace).await)
    }

    /// The super namespace of another namespace of the same tenant, if it has one by now.
    pub(super) fn known_super_namespace(&self, tenant: &Tenant, key: &ObjectKey, name: &str) -> Option<String> {
        let origin = sides::origin_key(&key.plane.object("", name));
        let known = self.sides.below.namespaces.by_index(sides::ORIGIN, &origin);
        known
            .into_iter()
            .map(|(_, namespace)| namespace)
            .find(|namespace| !namespace.is_deleting())
            .map(|namespace| {
                debug_assert_eq!(namespace.label(crate::identity::PLANE), Some(tenant.plane.as_str()));
                namespace.name().to_owned()
            })
    }

    /// Makes the super namespace if it is not there, and returns its name.
    pub(super) async fn ensure_super_namespace(
        &self,
        tenant: &Tenant,
        plane: &PlaneKey,
        tenant_namespace: &Object,
    ) -> Result<String, SyncError> {
        let wanted = namespace::down(tenant, tenant_namespace);
        let name = tenant.super_namespace(tenant_namespace.name(), tenant_namespace.uid());
        let known = self
            .sides
            .below
            .namespaces
            .get(&self.options.super_plane.object("", &name));
        let there = match known {
            Some(known) => known,
            None => {
                self.hold(plane, tenant_namespace).await?;
                let made = match self.super_client.create(&resource::NAMESPACES, None, &wanted).await {
                    Ok(made) => made,
                    Err(error) if error.is_already_exists() => {
                        self.super_client.get(&resource::NAMESPACES, None, &name).await?
                    }
                    Err(error) => return Err(error.into()),
                };
                // Whoever deletes a plane looks for its super namespaces after that: either they have seen this one, or
                // this is seen here.
                if namespace::is_ours(tenant, tenant_namespace, &made)
                    && self.options.tenants.find(tenant.plane).await?.is_none()
                {
                    self.delete_super_namespace(&made).await?;
                    return Err(SyncError::NotYet(format!("the plane of {} is no more", tenant.name)));
                }
                made
            }
        };
        if !namespace::is_ours(tenant, tenant_namespace, &there) {
            return Err(SyncError::NotYet(format!(
                "the super cluster has another namespace {name}"
            )));
        }
        if there.is_deleting() {
            return Err(SyncError::NotYet(format!("super namespace {name} is ending")));
        }
        Ok(name)
    }

    /// Puts our finalizer on a tenant's namespace before anything of it exists below.
    async fn hold(&self, plane: &PlaneKey, tenant_namespace: &Object) -> Result<(), SyncError> {
        if UNDELETABLE.contains(&tenant_namespace.name()) || tenant_namespace.is_deleting() {
            return Ok(());
        }
        let mut finalizers = finalizers(tenant_namespace);
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        finalizers.push(FINALIZER.to_owned());
        self.write_finalizers(plane, tenant_namespace, finalizers).await
    }

    async fn write_finalizers(
        &self,
        plane: &PlaneKey,
        namespace: &Object,
        finalizers: Vec<String>,
    ) -> Result<(), SyncError> {
        let client = self.options.planes.client(plane)?;
        let patch = json!({"metadata": {"uid": namespace.uid(), "resourceVersion": namespace.resource_version(),
            "finalizers": finalizers}});
        client
            .patch(&resource::NAMESPACES, None, namespace.name(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    pub(super) async fn handle_namespace(&self, tenant: &Tenant, key: &ObjectKey) -> Handled {
        let there = self.tenant_namespace(&key.plane.object(&key.name, "")).await?;
        let mut below = None;
        for (_, candidate) in self
            .sides
            .below
            .namespaces
            .by_index(sides::ORIGIN, &sides::origin_key(key))
        {
            match &there {
                Some(namespace) if namespace::is_ours(tenant, namespace, &candidate) => below = Some(candidate),
                // Of a namespace by this name that is no more.
                _ => self.delete_super_namespace(&candidate).await?,
            }
        }
        let Some(namespace) = there else {
            return Ok(Outcome::Done);
        };
        if namespace.is_deleting() {
            let content_is_gone = namespace.tree()["spec"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty);
            let kept: Vec<String> = finalizers(&namespace)
                .into_iter()
                .filter(|finalizer| finalizer != FINALIZER)
                .collect();
            match below {
                _ if !content_is_gone => {}
                Some(below) => self.delete_super_namespace(&below).await?,
                // The last to leave: below there is nothing more, and a live answer says so.
                None if kept.len() < finalizers(&namespace).len() => {
                    let name = tenant.super_namespace(namespace.name(), namespace.uid());
                    match pods::found(self.super_client.get(&resource::NAMESPACES, None, &name).await)? {
                        Some(below) if namespace::is_ours(tenant, &namespace, &below) => {
                            self.delete_super_namespace(&below).await?
                        }
                        _ => match self.write_finalizers(&key.plane, &namespace, kept).await {
                            Err(SyncError::Client(error)) if error.is_not_found() => {}
                            written => written?,
                        },
                    }
                }
                None => {}
            }
            return Ok(Outcome::Done);
        }
        if let Some(below) = below.filter(|below| !below.is_deleting()) {
            let wanted = namespace::down(tenant, &namespace);
            let drift = metadata_drift(&wanted["metadata"], &below.tree()["metadata"]);
            if !drift.is_empty() {
                let patch = pods::with_uid(json!({"metadata": drift}), &below);
                self.super_client
                    .patch(&resource::NAMESPACES, None, below.name(), &Patch::Merge(patch))
                    .await?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Super namespaces of a plane that is no more: made while its deletion was under way, or left by a crash.
    pub(super) async fn delete_orphans(&self, plane: PlaneId, namespace: &str) -> Handled {
        let below = &self.sides.below.namespaces;
        for (_, orphan) in below.by_index(sides::ORIGIN, &sides::origin(plane, "", namespace)) {
            self.delete_super_namespace(&orphan).await?;
        }
        Ok(Outcome::Done)
    }

    async fn delete_super_namespace(&self, namespace: &Object) -> Result<(), SyncError> {
        if namespace.is_deleting() {
            return Ok(());
        }
        let options = DeleteOptions::of_uid(namespace.uid());
        pods::gone(
            self.super_client
                .delete(&resource::NAMESPACES, None, namespace.name(), &options)
                .await,
        )
    }
}

fn finalizers(object: &Object) -> Vec<String> {
    let finalizers = object.tree()["metadata"]["finalizers"].as_array();
    finalizers
        .into_iter()
        .flatten()
        .filter_map(|finalizer| finalizer.as_str().map(str::to_owned))
        .collect()
}
