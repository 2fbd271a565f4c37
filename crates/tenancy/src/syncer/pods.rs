//! Pods: the plan is `pod_plan`, its steps are carried out here.

use std::time::Duration;

use api::{Object, Resource, resource};
use client::{DeleteOptions, EventType, Informer, ObjectKey, Outcome, Patch};
use serde_json::{Value, json};

use super::{Handled, Shared, SyncError, sides};
use crate::{
    identity::{self, Origin, Tenant},
    pod_plan::{self, Step},
    references::References,
    translate::{
        namespaced::Copied,
        pod::{self, Surroundings},
        status::{hide_others, rename},
    },
};

impl Shared {
    pub(super) async fn handle_pod(&self, tenant: &Tenant, key: &ObjectKey) -> Handled {
        let tenant_pod = self.sides.above.pods.get(key);
        let is_cached = tenant_pod.is_some();
        let namespace = self.tenant_namespace(key).await?;
        // Without its namespace a Pod is as good as gone; the namespace's own end follows.
        let tenant_pod = tenant_pod.filter(|_| namespace.is_some());
        let below = namespace
            .as_ref()
            .map(|namespace| tenant.super_namespace(namespace.name(), namespace.uid()));

        let mut here = None;
        for (_, pod) in self.sides.below.pods.by_index(sides::ORIGIN, &sides::origin_key(key)) {
            if Some(pod.namespace()) == below.as_deref() {
                here = Some(pod);
            } else {
                // In the super namespace of an older namespace by this name.
                self.delete_super_pod(&pod, None).await?;
            }
        }
        // Another syncer (one that leads by now, or led until now) may know of a Pod that this one has not heard of yet: what is
        // absent is asked for before anything is taken away (trap 12).
        if let (false, Some(pod)) = (is_cached, &here)
            && !self.is_gone_above(&resource::PODS, key, pod).await?
        {
            return Ok(Outcome::Done);
        }
        if here.is_none()
            && let (Some(pod), Some(below)) = (&tenant_pod, &below)
        {
            // Another's Pod by this name carries none of our marks, so the index has not shown it; and only a live answer
            // may end a tenant's Pod (trap 14 of the field: absence in a cache proves nothing).
            if pod.is_deleting() || pod.tree()["status"]["startTime"].is_string() {
                here = self.live_super_pod(below, pod.name()).await?;
            }
        }

        let translated = match (&tenant_pod, &below) {
            (Some(pod), Some(below)) => Some(pod::down(
                tenant,
                pod,
                &Surroundings {
                    namespace: below,
                    namespaces: &|name| self.known_super_namespace(key, name),
                    has_priority: &|name| self.is_offered(&self.sides.below.priority_classes, name),
                },
            )),
            _ => None,
        };
        for step in pod_plan::plan(tenant, tenant_pod.as_ref(), here.as_ref(), translated.as_ref()) {
            match (step, &tenant_pod, &here) {
                (Step::CreateSuper, Some(pod), _) => {
                    let (Some(namespace), Some(down)) = (&namespace, &translated) else {
                        continue;
                    };
                    self.create_super_pod(tenant, key, namespace, pod, down).await?;
                }
                (Step::PatchSuper(patch), _, Some(below)) => {
                    let patch = with_uid(patch, below);
                    self.super_client
                        .patch(
                            &resource::PODS,
                            Some(below.namespace()),
                            below.name(),
                            &Patch::Strategic(patch),
                        )
                        .await?;
                }
                (Step::AddEphemeral(containers), Some(pod), Some(below)) => {
                    self.add_ephemeral(tenant, key, pod, below, containers).await?
                }
                (Step::ResizeSuper(patch), Some(pod), Some(below)) => self.resize(key, pod, below, patch).await?,
                (Step::DeleteSuper { grace_seconds }, _, Some(below)) => {
                    self.delete_super_pod(below, grace_seconds).await?
                }
                (Step::Withdraw, _, Some(below)) => self.withdraw_super_pod(below).await?,
                (Step::GatesDown(conditions), _, Some(below)) => {
                    let patch = with_uid(json!({"status": {"conditions": conditions}}), below);
                    let patch = Patch::Strategic(patch);
                    self.super_client
                        .patch_sub(&resource::PODS, Some(below.namespace()), below.name(), "status", &patch)
                        .await?;
                }
                (Step::Bind { node }, Some(pod), _) => self.bind(key, pod, &node).await?,
                (Step::WriteStatus(status), Some(pod), _) => self.write_status(key, pod, status).await?,
                (Step::DeleteTenant { grace_seconds }, Some(pod), _) => {
                    self.delete_tenant_pod(key, pod, grace_seconds).await?
                }
                (Step::Refuse(reason), Some(pod), _) => self.tell(key, pod, "NotSynced", &reason).await,
                _ => {}
            }
        }
        let refresh = self
            .keep_pod_secret(tenant, key, tenant_pod.as_ref(), here.as_ref(), translated.as_ref())
            .await?;
        Ok(refresh.map_or(Outcome::Done, Outcome::After))
    }

    async fn create_super_pod(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        namespace: &Object,
        tenant_pod: &Object,
        down: &pod::Down,
    ) -> Result<(), SyncError> {
        let mut refusals = self.options.policy.refusals(&tenant_pod.tree()["spec"]);
        if let Some(class) = tenant_pod.tree()["spec"]["runtimeClassName"].as_str()
            && !self.is_offered(&self.sides.below.runtime_classes, class)
        {
            refusals.push(format!("runtime class {class:?} is not one of this cluster's"));
        }
        if !refusals.is_empty() {
            self.tell(key, tenant_pod, "FailedCreate", &refusals.join("; ")).await;
            return Ok(());
        }
        if namespace.is_deleting() {
            return Ok(());
        }
        if self.virtual_cluster(&tenant.name).is_none() {
            // Which nodes it may have is not known.
            return Err(SyncError::NotYet(format!(
                "the VirtualCluster {} is not known",
                tenant.name
            )));
        }
        // The cache may not show yet that it has run below and been lost there (trap 3), so its plane is asked.
        let client = self.options.planes.client(&key.plane)?;
        let now = found(client.get(&resource::PODS, key.namespace(), &key.name).await)?;
        if !now.is_some_and(|now| now.uid() == tenant_pod.uid() && pod_plan::is_to_be_made(&now)) {
            // What has changed is on its way to the cache, and will be handled.
            return Ok(());
        }
        let below = self.ensure_super_namespace(tenant, &key.plane, namespace).await?;
        self.ensure_references(tenant, key, &tenant_pod.tree()["spec"], &below)
            .await?;
        self.ensure_pod_secret(tenant, key, tenant_pod, down, &below).await?;
        match self.super_client.create(&resource::PODS, Some(&below), &down.pod).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => match self.live_super_pod(&below, &key.name).await? {
                // Made by an attempt whose answer was lost: the watch will show it.
                Some(pod) if Origin::owns(tenant, tenant_pod, &pod) => Ok(()),
                Some(pod) if Origin::of(&pod, &tenant.super_id).is_some_and(|origin| origin.plane == tenant.plane) => {
                    self.delete_super_pod(&pod, None).await?;
                    Err(SyncError::NotYet(format!(
                        "an older Pod {} has to leave the super cluster",
                        key.name
                    )))
                }
                Some(_) => {
                    self.tell(
                        key,
                        tenant_pod,
                        "NotSynced",
                        "the super cluster has another Pod by this name",
                    )
                    .await;
                    Ok(())
                }
                None => Err(SyncError::NotYet(format!(
                    "an older Pod {} has just left the super cluster",
                    key.name
                ))),
            },
            Err(error) => {
                self.tell_refusal(key, tenant_pod, &below, &error).await;
                Err(error.into())
            }
        }
    }

    /// What a PodSpec names goes down before the Pod that names it.
    pub(super) async fn ensure_references(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        spec: &Value,
        below: &str,
    ) -> Result<(), SyncError> {
        let names = References::of(spec);
        let referred = names
            .config_maps
            .iter()
            .map(|name| (Copied::ConfigMap, name))
            .chain(names.secrets.iter().map(|name| (Copied::Secret, name)))
            .chain(names.service_account.iter().map(|name| (Copied::ServiceAccount, name)));
        for (kind, name) in referred {
            self.ensure_copy(tenant, kind, &key.sibling(name), below).await?;
        }
        Ok(())
    }

    async fn live_super_pod(&self, namespace: &str, name: &str) -> Result<Option<Object>, SyncError> {
        found(self.super_client.get(&resource::PODS, Some(namespace), name).await)
    }

    async fn delete_super_pod(&self, pod: &Object, grace_seconds: Option<u64>) -> Result<(), SyncError> {
        if pod.is_deleting() && grace_seconds.is_none() {
            return Ok(());
        }
        let options = DeleteOptions {
            grace_seconds: grace_seconds.map(seconds),
            ..DeleteOptions::of_uid(pod.uid())
        };
        gone(
            self.super_client
                .delete(&resource::PODS, Some(pod.namespace()), pod.name(), &options)
                .await,
        )
    }

    /// Takes a Pod away as long as it is the one that was seen: bound by now, it stays.
    async fn withdraw_super_pod(&self, pod: &Object) -> Result<(), SyncError> {
        let options = DeleteOptions {
            grace_seconds: Some(0),
            resource_version: Some(pod.resource_version().to_owned()),
            ..DeleteOptions::of_uid(pod.uid())
        };
        gone(
            self.super_client
                .delete(&resource::PODS, Some(pod.namespace()), pod.name(), &options)
                .await,
        )
    }

    async fn delete_tenant_pod(
        &self,
        key: &ObjectKey,
        pod: &Object,
        grace_seconds: Option<u64>,
    ) -> Result<(), SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        let options = DeleteOptions {
            grace_seconds: grace_seconds.map(seconds),
            ..DeleteOptions::of_uid(pod.uid())
        };
        gone(
            client
                .delete(&resource::PODS, key.namespace(), &key.name, &options)
                .await,
        )
    }

    async fn bind(&self, key: &ObjectKey, pod: &Object, node: &str) -> Result<(), SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        match client
            .create_sub(&resource::PODS, key.namespace(), &key.name, "binding", &binding)
            .await
        {
            Ok(_) => Ok(()),
            // Bound by an attempt whose answer was lost, or gone: the watch tells.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_status(&self, key: &ObjectKey, pod: &Object, status: Value) -> Result<(), SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        // A merge would keep what the super cluster has taken away. And only if nobody wrote since: conditions of readiness
        // gates that came meanwhile would be lost.
        let patch = Patch::Json(json!([
            {"op": "test", "path": "/metadata/uid", "value": pod.uid()},
            {"op": "test", "path": "/metadata/resourceVersion", "value": pod.resource_version()},
            {"op": "add", "path": "/status", "value": status},
        ]));
        match client
            .patch_sub(&resource::PODS, key.namespace(), &key.name, "status", &patch)
            .await
        {
            Ok(_) => Ok(()),
            // The newer one is on its way to the cache, and will be compared again.
            Err(error) if error.is_not_found() || error.is_conflict() || error.is_invalid() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the tenant's object for which `copy` stands is no more. The plane itself is asked.
    pub(super) async fn is_gone_above(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        copy: &Object,
    ) -> Result<bool, SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        let now = found(client.get(resource, key.namespace(), &key.name).await)?;
        Ok(now.is_none_or(|now| copy.annotation(identity::UID) != Some(now.uid())))
    }

    /// Whether the super cluster has a class of this name for tenants.
    pub(super) fn is_offered(&self, classes: &Informer, name: &str) -> bool {
        let class = classes.get(&self.options.super_plane.object("", name));
        class.is_some_and(|class| identity::is_public(&class) && !class.is_deleting())
    }

    /// Says to the tenant, in its own words, what the super cluster has refused for good.
    pub(super) async fn tell_refusal(&self, key: &ObjectKey, about: &Object, below: &str, error: &client::Error) {
        let is_final =
            error.is_invalid() || error.is_forbidden() && !error.is_namespace_terminating() || is_too_large(error);
        if is_final {
            let mut refusal = json!({"message": error.to_string()});
            rename(&mut refusal, below, &key.namespace);
            hide_others(&mut refusal);
            let refusal = refusal["message"].as_str().unwrap_or("");
            self.tell(key, about, "FailedCreate", refusal).await;
        }
    }

    pub(super) async fn tell(&self, key: &ObjectKey, about: &Object, reason: &str, message: &str) {
        if let Ok(client) = self.options.planes.client(&key.plane) {
            self.recorder
                .record(&client, about, EventType::Warning, reason, message);
        }
    }
}

/// A patch that holds only for this very object.
pub(super) fn with_uid(mut patch: Value, object: &Object) -> Value {
    patch["metadata"]["uid"] = object.uid().into();
    patch
}

pub(super) fn found(result: Result<Object, client::Error>) -> Result<Option<Object>, SyncError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Deleting what is gone, or is another by now, is done.
pub(super) fn gone(result: Result<(), client::Error>) -> Result<(), SyncError> {
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
        _ => Ok(()),
    }
}

/// An object that is too large below: 413, or what a store says of it.
fn is_too_large(error: &client::Error) -> bool {
    error.refusal().is_some_and(|refusal| refusal.code == 413)
}

fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// How long before its end a token is replaced: at 80 % of its life, as kubelets do.
pub(super) fn refresh_after(life: Duration) -> Duration {
    life.mul_f64(0.8)
}
