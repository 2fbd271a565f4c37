//! Telling the plane how a Pod is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::resource;
use client::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::worker::{Worker, revision};
use crate::pod::observed::{Nanos, Observed, SECOND};
use crate::pod::plan::Waiting;
use crate::pod::{status, status_patch};

/// A plane that does not answer must not keep a Pod from being restarted.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
const REPORT_AGAIN: Nanos = 2 * SECOND;

impl Worker {
    /// Writes the status into the plane if it differs from what is there.
    pub(super) async fn report(&mut self, observed: &Observed, waiting: &BTreeMap<String, Waiting>, ended: bool) {
        if *self.signals.gone.borrow() {
            return;
        }
        let wanted = status::status(&status::Inputs {
            pod: &self.pod,
            observed,
            health: &self.health,
            waiting,
            failure: self.failure.as_ref(),
            host_ip: self.context.host_ip,
            started_at: self.started_at,
            now: self.context.now(),
            runtime_name: &self.context.runtime_name,
            messages: &self.messages,
            ended,
        });
        let current = serde_json::to_value(&self.pod.status).unwrap_or(Value::Null);
        let Some(patch) = status_patch::patch(&self.pod, &current, &wanted) else {
            return;
        };
        let metadata = &self.pod.metadata;
        let patch = Patch::Strategic(patch);
        let pods = resource::PODS;
        let writing = self.context.client.patch_sub(
            &pods,
            metadata.namespace.as_deref(),
            metadata.name.as_deref().unwrap_or_default(),
            "status",
            &patch,
        );
        let Ok(result) = tokio::time::timeout(REPORT_TIMEOUT, writing).await else {
            tracing::warn!(pod = ?metadata.name, namespace = ?metadata.namespace, "the plane does not take a status");
            self.report_later();
            return;
        };
        match result {
            Ok(object) => match object.view::<Pod>() {
                Ok(pod) => {
                    if revision(&pod) >= revision(&self.pod) {
                        self.pod = Arc::new(pod);
                        self.view.send_modify(|view| view.pod = Arc::clone(&self.pod));
                    }
                }
                Err(error) => tracing::warn!(%error, "the plane answered a status with something that is no Pod"),
            },
            // The watch will say the same.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(pod = ?metadata.name, namespace = ?metadata.namespace, %error, "a status was not written");
                self.report_later();
            }
        }
    }

    /// A status that was not written is tried on a later turn; this makes sure that there is one.
    fn report_later(&mut self) {
        self.report_at = Some(self.context.now() + REPORT_AGAIN);
    }
}
