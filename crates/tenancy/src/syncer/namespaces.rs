//! Super namespaces: made by need, checked before use, gone before the tenant's own is (trap 6).

use api::{Object, PlaneId, resource};
use client::{DeleteOptions, ObjectKey, Outcome, Patch, PlaneKey};
use serde_json::json;

use super::{Handled, Shared, SyncError, pods, sides};
use crate::{
    identity::{FINALIZER, Tenant, finalizers},
    translate::{namespace, pod_drift::metadata_drift},
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
    pub(super) fn known_super_namespace(&self, key: &ObjectKey, name: &str) -> Option<String> {
        let known = self.super_namespaces_of(&sides::origin_key(&key.plane.object("", name)));
        let alive = known.into_iter().find(|namespace| !namespace.is_deleting());
        alive.map(|namespace| namespace.name().to_owned())
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
        let namespace = self.tenant_namespace(&key.plane.object(&key.name, "")).await?;
        let mut below = None;
        for candidate in self.super_namespaces_of(&sides::origin_key(key)) {
            match &namespace {
                Some(namespace) if namespace::is_ours(tenant, namespace, &candidate) => below = Some(candidate),
                // Of a namespace by this name that is no more.
                _ => self.delete_super_namespace(&candidate).await?,
            }
        }
        match (namespace, below) {
            (Some(namespace), below) if namespace.is_deleting() => {
                self.end_namespace(tenant, &key.plane, &namespace, below).await?
            }
            (Some(namespace), Some(below)) if !below.is_deleting() => {
                self.follow_namespace(tenant, &namespace, &below).await?
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    /// The tenant's content has to be gone first, then the super namespace, then our finalizer (trap 6).
    async fn end_namespace(
        &self,
        tenant: &Tenant,
        plane: &PlaneKey,
        namespace: &Object,
        below: Option<Object>,
    ) -> Result<(), SyncError> {
        let content = namespace.tree()["spec"]["finalizers"].as_array();
        if content.is_some_and(|finalizers| !finalizers.is_empty()) {
            return Ok(());
        }
        if let Some(below) = below {
            return self.delete_super_namespace(&below).await;
        }
        let mut finalizers = finalizers(namespace);
        let before = finalizers.len();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if finalizers.len() == before {
            return Ok(());
        }
        // The cache may not show yet what was just made: a live answer has to say that nothing is there.
        let name = tenant.super_namespace(namespace.name(), namespace.uid());
        match pods::found(self.super_client.get(&resource::NAMESPACES, None, &name).await)? {
            Some(below) if namespace::is_ours(tenant, namespace, &below) => self.delete_super_namespace(&below).await,
            _ => match self.write_finalizers(plane, namespace, finalizers).await {
                Err(SyncError::Client(error)) if error.is_not_found() => Ok(()),
                written => written,
            },
        }
    }

    /// Labels and annotations as the tenant has them.
    async fn follow_namespace(&self, tenant: &Tenant, namespace: &Object, below: &Object) -> Result<(), SyncError> {
        let wanted = namespace::down(tenant, namespace);
        let drift = metadata_drift(&wanted["metadata"], &below.tree()["metadata"]);
        if drift.is_empty() {
            return Ok(());
        }
        let patch = Patch::Merge(pods::with_uid(json!({"metadata": drift}), below));
        self.super_client
            .patch(&resource::NAMESPACES, None, below.name(), &patch)
            .await?;
        Ok(())
    }

    /// All super namespaces that stand (or stood) for a tenant's namespace of that name.
    fn super_namespaces_of(&self, origin: &str) -> Vec<Object> {
        let found = self.sides.below.namespaces.by_index(sides::ORIGIN, origin);
        found.into_iter().map(|(_, namespace)| namespace).collect()
    }

    /// Super namespaces of a plane that is no more: made while its deletion was under way, or left by a crash.
    pub(super) async fn delete_orphans(&self, plane: PlaneId, namespace: &str) -> Handled {
        for orphan in self.super_namespaces_of(&sides::origin(plane, "", namespace)) {
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
