//! How Pods end: containers are asked, given their grace, and killed; then the sandbox goes, the last status is
//! written, the Pod is taken out of the plane, and at last what is left on this machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use api::resource;
use client::DeleteOptions;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::events::EventType;
use super::handler::Target;
use super::hooks;
use super::worker::{Worker, revision};
use crate::container::sandbox::log_directory_name;
use crate::cri::{CriError, Runtime};
use crate::pod::observed::Observed;
use crate::pod::plan::shutdown_order;
use crate::pod::references::containers;

/// After a `preStop` hook has used all of the grace, the container still has this long to react to the signal.
const LEAST_AFTER_HOOK_SECONDS: u64 = 2;
/// What a Pod has when nobody has said a word (the API's default).
const DEFAULT_GRACE_SECONDS: u64 = 30;

/// How long the Pod's containers have to end.
pub(super) fn grace_seconds(pod: &Pod) -> u64 {
    let asked = pod
        .metadata
        .deletion_grace_period_seconds
        .or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds));
    asked.map_or(DEFAULT_GRACE_SECONDS, |seconds| u64::try_from(seconds).unwrap_or(0))
}

/// Runs the container's `preStop` hook and stops it, all within `grace`.
pub(super) async fn stop_container(
    runtime: &Runtime,
    id: &str,
    spec: Option<&Spec>,
    ip: Option<IpAddr>,
    grace_seconds: u64,
) -> Result<(), CriError> {
    let mut left = grace_seconds;
    let hook = spec.and_then(|spec| Some((spec, spec.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let Some((spec, hook)) = hook.filter(|_| grace_seconds > 0) {
        let began = std::time::Instant::now();
        let target = Target {
            container_id: id,
            container: spec,
            ip,
        };
        if let Err(problem) = hooks::run(runtime, target, hook, Duration::from_secs(grace_seconds)).await {
            tracing::info!(container = spec.name, problem, "a preStop hook failed");
        }
        left = grace_seconds
            .saturating_sub(began.elapsed().as_secs())
            .max(LEAST_AFTER_HOOK_SECONDS.min(grace_seconds));
    }
    runtime.stop_container(id, left).await
}

impl Worker {
    /// The Pod is over by itself: what still runs ends, the dead stay for their logs.
    pub(super) async fn finish(&mut self) -> Result<(), CriError> {
        self.probers.stop();
        let grace = grace_seconds(&self.pod);
        let signals = self.signals.clone();
        tokio::select! {
            result = self.stop_all(grace) => result?,
            // Its deletion has a grace of its own.
            () = Worker::interrupted(&signals) => return Ok(()),
        };
        self.context.objects.forget(&self.uid);
        Ok(())
    }

    /// Stops all containers in their order, then the sandboxes. Returns what is left then.
    async fn stop_all(&mut self, grace_seconds: u64) -> Result<std::sync::Arc<Observed>, CriError> {
        let pod = self.pod.clone();
        let observed = self.observe().await?;
        let ip = self.ips(&observed).first().copied();
        for group in shutdown_order(Some(&pod), &observed) {
            let stops = group.iter().map(|container| {
                let spec = containers(&pod).find(|spec| spec.name == container.name);
                self.context.events.pod(
                    &pod,
                    Some(&container.name),
                    EventType::Normal,
                    "Killing",
                    format!("Stopping container {}", container.name),
                );
                stop_container(&self.context.runtime, &container.id, spec, ip, grace_seconds)
            });
            for result in join_all(stops).await {
                result?;
            }
        }
        for sandbox in observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            self.context.runtime.stop_sandbox(&sandbox.id).await?;
        }
        self.admit(None);
        self.observe().await
    }

    /// The plane wants the Pod gone, or has it no more. Returns when nothing is left of it.
    pub(super) async fn end(&mut self) {
        self.probers.stop();
        loop {
            match self.try_end().await {
                Ok(()) => return,
                Err(error) => {
                    let metadata = &self.pod.metadata;
                    tracing::warn!(pod = ?metadata.name, namespace = ?metadata.namespace, %error, "ending a Pod failed");
                    let delay = self.back_off();
                    let clock = self.context.world.clock.clone();
                    clock.sleep(Duration::from_nanos(delay.unsigned_abs())).await;
                    self.take_newest();
                }
            }
        }
    }

    async fn try_end(&mut self) -> Result<(), EndError> {
        let observed = self.stop_within_grace().await?;
        self.report(&observed, &BTreeMap::new(), true).await;

        let directory = self.directory.clone();
        tokio::task::spawn_blocking(move || directory.remove())
            .await
            .map_err(|error| EndError::Disk(error.to_string()))?
            .map_err(|error| EndError::Disk(error.to_string()))?;
        self.context.objects.forget(&self.uid);

        if !*self.signals.gone.borrow() {
            self.delete_from_plane().await?;
        }
        for container in &observed.containers {
            self.context.runtime.remove_container(&container.id).await?;
        }
        for sandbox in &observed.sandboxes {
            self.context.runtime.remove_sandbox(&sandbox.id).await?;
        }
        let logs = self.context.logs().join(log_directory_name(&self.pod));
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EndError::Disk(error.to_string())),
            _ => Ok(()),
        }
    }

    /// Stops everything; a grace that the plane shortens meanwhile (`kubectl delete --now` after a first delete) holds
    /// at once.
    async fn stop_within_grace(&mut self) -> Result<std::sync::Arc<Observed>, CriError> {
        loop {
            self.take_newest();
            let asked = grace_seconds(&self.pod);
            // Taken out of the plane without a word, the Pod has at least a second.
            let least = u64::from(*self.signals.gone.borrow());
            let grace = asked.max(least);
            let known = revision(&self.pod);
            let mut pod = self.signals.pod.clone();
            // Less than was asked before, by a Pod that is newer: or this would come true again and again.
            let shortened = async move {
                let _ = pod
                    .wait_for(|pod| revision(pod) >= known && grace_seconds(pod) < asked)
                    .await;
            };
            tokio::select! {
                result = self.stop_all(grace) => return result,
                () = shortened => {}
            }
        }
    }

    async fn delete_from_plane(&self) -> Result<(), EndError> {
        let metadata = &self.pod.metadata;
        let options = DeleteOptions {
            grace_seconds: Some(0),
            ..DeleteOptions::of_uid(&self.uid)
        };
        let result = self
            .context
            .client
            .delete(
                &resource::PODS,
                metadata.namespace.as_deref(),
                metadata.name.as_deref().unwrap_or_default(),
                &options,
            )
            .await;
        match result {
            Ok(()) => Ok(()),
            // Gone already, or another Pod has the name now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(EndError::Plane(error)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error(transparent)]
    Runtime(#[from] CriError),
    #[error(transparent)]
    Plane(client::Error),
    #[error("{0}")]
    Disk(String),
}
