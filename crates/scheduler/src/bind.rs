//! What the loop writes: bindings, volumes' nodes, conditions, and the end of those who make room.

use std::sync::Arc;

use api::{
    Object,
    resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS},
};
use client::{DeleteOptions, Error, EventType, ObjectKey, Patch};
use serde_json::{Value, json};

use crate::{cluster::NAME, pod_info::PodInfo, preempt::Preemption, scheduler::Scheduler};

/// Tells who makes volumes for which node; upstream's.
pub(crate) const SELECTED: &str = "volume.kubernetes.io/selected-node";

impl Scheduler {
    pub(crate) async fn bind(&self, key: &ObjectKey, pod: &Arc<PodInfo>, node: &str) {
        let object = &pod.pod;
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": object.name(), "namespace": object.namespace(), "uid": object.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        match self
            .client
            .create_sub(&PODS, key.namespace(), &key.name, "binding", &binding)
            .await
        {
            Ok(_) => {
                let message = format!(
                    "Successfully assigned {}/{} to {node}",
                    object.namespace(),
                    object.name()
                );
                self.recorder
                    .record(&self.client, object, EventType::Normal, "Scheduled", message);
            }
            Err(error) if error.is_not_found() => self.lock().give_back(key, object.uid()),
            Err(error) => {
                tracing::debug!(%error, pod = %key, node, "a binding was refused");
                self.give_back(key, pod);
            }
        }
    }

    /// A free volume is kept for a claim; the binder does the rest.
    pub(crate) async fn keep_volume(&self, volume: &Object, claim: &Object) -> Result<(), Error> {
        let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
            "name": claim.name(), "uid": claim.uid()});
        let metadata = json!({"uid": volume.uid(), "resourceVersion": volume.resource_version(),
            "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"claimRef": reference}}));
        let kept = self
            .client
            .patch(&PERSISTENT_VOLUMES, None, volume.name(), &patch)
            .await?;
        let volumes = &mut self.lock().snapshot.volumes.volumes;
        volumes.insert(kept.name().to_owned(), kept);
        Ok(())
    }

    /// A volume is to be made where this node reaches it.
    pub(crate) async fn select_node(&self, claim: &Object, node: &str) -> Result<(), Error> {
        let metadata = json!({"uid": claim.uid(), "annotations": {SELECTED: node}});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let namespace = Some(claim.namespace());
        let changed = self
            .client
            .patch(&PERSISTENT_VOLUME_CLAIMS, namespace, claim.name(), &patch)
            .await?;
        let claims = &mut self.lock().snapshot.volumes.claims;
        let name = format!("{}/{}", claim.namespace(), claim.name());
        // What has come by the watch meanwhile is newer.
        if claims
            .get(&name)
            .is_some_and(|known| known.resource_version() == claim.resource_version())
        {
            claims.insert(name, changed);
        }
        Ok(())
    }

    /// Has the victims go.
    pub(crate) async fn preempt(&self, pod: &PodInfo, preemption: &Preemption) {
        for victim in &preemption.victims {
            let victim = &victim.pod;
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": format!("{NAME}: preempting to accommodate a higher priority pod")});
            let patch =
                Patch::Strategic(json!({"metadata": {"uid": victim.uid()}, "status": {"conditions": [condition]}}));
            let namespace = Some(victim.namespace());
            let told = self
                .client
                .patch_sub(&PODS, namespace, victim.name(), "status", &patch)
                .await;
            let options = DeleteOptions::of_uid(victim.uid());
            let deleted = self.client.delete(&PODS, namespace, victim.name(), &options).await;
            match told.map(drop).and(deleted) {
                Ok(()) => {
                    let message = format!("Preempted by pod {} on node {}", pod.uid(), preemption.node);
                    self.recorder
                        .record(&self.client, victim, EventType::Normal, "Preempted", message);
                }
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                // Tried again with the next change.
                Err(error) => tracing::debug!(%error, victim = ?victim, "a Pod could not be preempted"),
            }
        }
    }

    pub(crate) async fn tell_unschedulable(
        &self,
        key: &ObjectKey,
        pod: &PodInfo,
        message: &str,
        nominated: Option<&str>,
    ) {
        let tree = pod.pod.tree();
        let told = says(&pod.pod, "Unschedulable", message);
        if !told {
            self.recorder
                .record(&self.client, &pod.pod, EventType::Warning, "FailedScheduling", message);
        }
        let nominates = nominated.is_some() && tree["status"]["nominatedNodeName"].as_str() != nominated;
        if told && !nominates {
            return;
        }
        let mut status = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message}]});
        if nominates {
            status["nominatedNodeName"] = json!(nominated);
        }
        self.write_status(key, &pod.pod, status).await;
    }

    pub(crate) async fn tell_gated(&self) {
        const MESSAGE: &str = "Scheduling is blocked due to non-empty scheduling gates";
        let gated = std::mem::take(&mut self.lock().gated);
        for (key, pod) in gated {
            if !says(&pod, "SchedulingGated", MESSAGE) {
                let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                    "message": MESSAGE});
                self.write_status(&key, &pod, json!({"conditions": [condition]})).await;
            }
        }
    }

    async fn write_status(&self, key: &ObjectKey, pod: &Object, status: Value) {
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        let written = self
            .client
            .patch_sub(&PODS, key.namespace(), &key.name, "status", &patch)
            .await;
        if let Err(error) = written {
            tracing::debug!(%error, pod = %key, "a condition could not be written");
        }
    }
}

fn says(pod: &Object, reason: &str, message: &str) -> bool {
    let conditions = pod.tree()["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "PodScheduled"
            && condition["status"] == "False"
            && condition["reason"] == reason
            && condition["message"] == message
    })
}
