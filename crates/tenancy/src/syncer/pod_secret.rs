//! The Secret beside each Pod: tokens of the tenant's plane, its CA, the Pod's own namespace and uid (D11).

use std::time::{Duration, UNIX_EPOCH};

use api::{Object, resource};
use base64::{Engine, engine::general_purpose::STANDARD};
use client::{DeleteOptions, ObjectKey, Patch};
use serde_json::{Map, Value, json};

use super::{Shared, SyncError, pods, sides};
use crate::{
    identity::{self, Tenant},
    pod_plan,
    translate::pod::Down,
};

/// When the Secret's tokens have to be replaced, seconds since 1970.
const REFRESH_AT: &str = "tenancy.mangrove.io/refresh-at";

/// A token that lives shorter than this is refreshed no more often.
const REFRESH_MIN: Duration = Duration::from_secs(60);

impl Shared {
    /// Makes the Pod's Secret if it is not there: it has to stand before the Pod.
    pub(super) async fn ensure_pod_secret(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        tenant_pod: &Object,
        down: &Down,
        below: &str,
    ) -> Result<(), SyncError> {
        if down.values.is_empty() {
            return Ok(());
        }
        let (data, refresh_at) = self.pod_values(key, tenant_pod, down).await?;
        let mut annotations = Map::new();
        identity::mark(tenant, tenant_pod.namespace(), tenant_pod.uid(), &mut annotations);
        annotations.insert(sides::POD.to_owned(), tenant_pod.name().into());
        annotations.insert(REFRESH_AT.to_owned(), refresh_at.to_string().into());
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {"name": down.secret_name, "namespace": below, "annotations": annotations,
                "labels": {identity::PLANE: tenant.plane.as_str()}}});
        match self.super_client.create(&resource::SECRETS, Some(below), &secret).await {
            Ok(_) => Ok(()),
            // Made by an attempt that came no further. Its name holds the Pod's uid, so it is this Pod's.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refreshes the Secret of a running Pod, and removes those of Pods that are no more. Returns when to look again.
    pub(super) async fn keep_pod_secret(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        tenant_pod: Option<&Object>,
        super_pod: Option<&Object>,
        down: Option<&Down>,
    ) -> Result<Option<Duration>, SyncError> {
        let mut look_again = None;
        let mut is_there = false;
        for (_, secret) in self.sides.below.secrets.by_index(sides::POD, &sides::origin_key(key)) {
            let owner = secret.annotation(identity::UID).unwrap_or("");
            let is_ours = tenant_pod.is_some_and(|pod| pod.uid() == owner && !pod_plan::is_finished(pod));
            // A super Pod that is still there (or on its way) may mount it.
            let is_mounted = super_pod.is_some_and(|pod| pod.annotation(identity::UID) == Some(owner));
            if !is_ours && !is_mounted {
                let options = DeleteOptions::of_uid(secret.uid());
                pods::gone(
                    self.super_client
                        .delete(&resource::SECRETS, Some(secret.namespace()), secret.name(), &options)
                        .await,
                )?;
                continue;
            }
            let (Some(pod), Some(down), true) = (tenant_pod, down, is_ours) else {
                continue;
            };
            if down.values.is_empty() || secret.name() != tenant.pod_secret(pod.uid()) {
                continue;
            }
            is_there = true;
            let due = secret
                .annotation(REFRESH_AT)
                .and_then(|at| at.parse().ok())
                .unwrap_or(0);
            let now = self.now();
            let data = &secret.tree()["data"];
            let lacks_token = down.values.tokens.iter().any(|token| !data[&token.key].is_string());
            if due <= now || lacks_token {
                let (data, refresh_at) = self.pod_values(key, pod, down).await?;
                let annotations = json!({REFRESH_AT: refresh_at.to_string()});
                self.patch_pod_secret(&secret, json!({"data": data, "metadata": {"annotations": annotations}}))
                    .await?;
                look_again = Some(Duration::from_secs(refresh_at.saturating_sub(now)));
                continue;
            }
            let changed: Map<String, Value> = literals(down).filter(|(name, value)| data[name] != *value).collect();
            if !changed.is_empty() {
                self.patch_pod_secret(&secret, json!({"data": changed})).await?;
            }
            if !down.values.tokens.is_empty() {
                look_again = Some(Duration::from_secs(due - now));
            }
        }
        if let (false, Some(pod), Some(below), Some(down)) = (is_there, tenant_pod, super_pod, down) {
            self.restore_pod_secret(tenant, key, pod, below, down).await?;
        }
        Ok(look_again)
    }

    async fn patch_pod_secret(&self, secret: &Object, patch: Value) -> Result<(), SyncError> {
        let patch = Patch::Merge(pods::with_uid(patch, secret));
        self.super_client
            .patch(&resource::SECRETS, Some(secret.namespace()), secret.name(), &patch)
            .await?;
        Ok(())
    }

    /// Makes the Secret of a Pod that runs below again, if it has gone there.
    async fn restore_pod_secret(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        tenant_pod: &Object,
        super_pod: &Object,
        down: &Down,
    ) -> Result<(), SyncError> {
        let is_its = super_pod.annotation(identity::UID) == Some(tenant_pod.uid());
        let ends = |pod: &Object| pod.is_deleting() || pod_plan::is_finished(pod);
        if down.values.is_empty() || !is_its || ends(tenant_pod) || ends(super_pod) {
            return Ok(());
        }
        let below = Some(super_pod.namespace());
        // The cache may not show yet what was made with the Pod.
        let there = pods::found(
            self.super_client
                .get(&resource::SECRETS, below, &down.secret_name)
                .await,
        )?;
        if there.is_none() {
            self.ensure_pod_secret(tenant, key, tenant_pod, down, super_pod.namespace())
                .await?;
        }
        Ok(())
    }

    /// The Secret's data, and when its first token has to be replaced.
    async fn pod_values(&self, key: &ObjectKey, pod: &Object, down: &Down) -> Result<(Value, u64), SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        let account = pod.tree()["spec"]["serviceAccountName"]
            .as_str()
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let mut data = Map::new();
        let now = self.now();
        let mut refresh_at = u64::MAX;
        for wanted in &down.values.tokens {
            let audiences: Vec<&String> = wanted.audience.iter().collect();
            let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
                "audiences": audiences, "expirationSeconds": wanted.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()}}});
            let answer = client
                .create_sub(&resource::SERVICE_ACCOUNTS, key.namespace(), account, "token", &request)
                .await?;
            let token = answer.tree()["status"]["token"].as_str().unwrap_or("");
            if token.is_empty() {
                return Err(SyncError::NotYet(format!("the plane has given no token for {account}")));
            }
            data.insert(wanted.key.clone(), STANDARD.encode(token).into());
            let life = pods::refresh_after(Duration::from_secs(wanted.expiration_seconds)).max(REFRESH_MIN);
            refresh_at = refresh_at.min(now + life.as_secs());
        }
        data.extend(literals(down));
        Ok((data.into(), refresh_at))
    }

    fn now(&self) -> u64 {
        self.options
            .world
            .clock
            .wall()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

/// What of a Pod's values is no token, as a Secret has it.
fn literals(down: &Down) -> impl Iterator<Item = (String, Value)> {
    let literals = down.values.literals.iter();
    literals.map(|(name, value)| (name.clone(), STANDARD.encode(value).into()))
}
