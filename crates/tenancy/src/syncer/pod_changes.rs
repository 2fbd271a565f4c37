//! What changes of a Pod that runs, by ways of its own: containers that come later, and other amounts (trap 15).

use api::{Object, resource::PODS};
use client::{ObjectKey, Patch};
use serde_json::{Value, json};

use super::{Shared, SyncError, pods};
use crate::identity::Tenant;

impl Shared {
    /// Adds containers to the running super Pod. The policy is asked as at a Pod's creation: this is a second way to the machine
    /// (CVE-2023-2728's class).
    pub(super) async fn add_ephemeral(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        tenant_pod: &Object,
        super_pod: &Object,
        containers: Vec<Value>,
    ) -> Result<(), SyncError> {
        let refusals = self.options.policy.container_refusals(&containers);
        if !refusals.is_empty() {
            self.tell(key, tenant_pod, "NotSynced", &refusals.join("; ")).await;
            return Ok(());
        }
        self.ensure_references(tenant, key, &tenant_pod.tree()["spec"], super_pod.namespace())
            .await?;
        let patch = json!({"spec": {"ephemeralContainers": containers}});
        self.patch_running(key, tenant_pod, super_pod, "ephemeralcontainers", patch)
            .await
    }

    pub(super) async fn resize(
        &self,
        key: &ObjectKey,
        tenant_pod: &Object,
        super_pod: &Object,
        patch: Value,
    ) -> Result<(), SyncError> {
        self.patch_running(key, tenant_pod, super_pod, "resize", patch).await
    }

    async fn patch_running(
        &self,
        key: &ObjectKey,
        tenant_pod: &Object,
        super_pod: &Object,
        way: &str,
        patch: Value,
    ) -> Result<(), SyncError> {
        let patch = Patch::Strategic(pods::with_uid(patch, super_pod));
        let (namespace, name) = (super_pod.namespace(), super_pod.name());
        match self
            .super_client
            .patch_sub(&PODS, Some(namespace), name, way, &patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => {
                self.tell_refusal(key, tenant_pod, namespace, &error).await;
                // Gone by now, or a cluster that does not know this way: nothing more can be done about it.
                pods::found(Err(error)).map(drop)
            }
        }
    }
}
