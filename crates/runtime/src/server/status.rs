//! Sandboxes and containers in CRI's words.

use std::collections::HashMap;

use k8s_cri::v1;

use super::records::{Container, Phase, Sandbox};
use super::runtime::Inner;
use crate::supervisor::plan::{ExitCause, PidPlan};

/// The words that the kubelet and people know from docker and containerd.
fn reason(code: i32, cause: &ExitCause) -> &'static str {
    match (cause, code) {
        (ExitCause::OutOfMemory, _) => "OOMKilled",
        (ExitCause::NotStarted(_), _) => "StartError",
        (ExitCause::Lost, _) => "Unknown",
        (ExitCause::Ended, 0) => "Completed",
        (ExitCause::Ended, _) => "Error",
    }
}

pub fn state_of(phase: &Phase) -> v1::ContainerState {
    match phase {
        Phase::Created => v1::ContainerState::ContainerCreated,
        Phase::Running(_) => v1::ContainerState::ContainerRunning,
        Phase::Exited(_) => v1::ContainerState::ContainerExited,
    }
}

pub fn container_status(container: &Container, log_directory: &str) -> v1::ContainerStatus {
    let phase = container.phase();
    container.with(|record| {
        let config = &record.config;
        let mut status = v1::ContainerStatus {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            state: state_of(&phase) as i32,
            created_at: record.created_ns,
            image: config.image.clone(),
            image_ref: record.image_ref.clone(),
            image_id: record.image_id.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log_path(log_directory, &config.log_path),
            resources: config
                .linux
                .as_ref()
                .and_then(|linux| linux.resources.clone())
                .map(|linux| v1::ContainerResources {
                    linux: Some(linux),
                    windows: None,
                }),
            ..v1::ContainerStatus::default()
        };
        if let Phase::Running(state) | Phase::Exited(state) = &phase {
            status.started_at = state.started_ns;
            status.user = Some(v1::ContainerUser {
                linux: Some(v1::LinuxContainerUser {
                    uid: state.user.uid.into(),
                    gid: state.user.gid.into(),
                    supplemental_groups: state.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
                }),
            });
            if let Some(exit) = &state.exit {
                status.finished_at = exit.finished_ns;
                status.exit_code = exit.code;
                status.reason = reason(exit.code, &exit.cause).to_owned();
                status.message = match &exit.cause {
                    ExitCause::NotStarted(text) => text.clone(),
                    ExitCause::Lost => "nobody saw it end: the machine or the sandbox's supervisor went away".into(),
                    ExitCause::Ended | ExitCause::OutOfMemory => String::new(),
                };
            }
        }
        status
    })
}

pub fn container_item(container: &Container) -> v1::Container {
    let state = state_of(&container.phase()) as i32;
    container.with(|record| v1::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        state,
        created_at: record.created_ns,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    })
}

pub fn log_path(directory: &str, path: &str) -> String {
    if directory.is_empty() || path.is_empty() {
        String::new()
    } else {
        format!("{}/{path}", directory.trim_end_matches('/'))
    }
}

pub fn sandbox_state(sandbox: &Sandbox) -> v1::PodSandboxState {
    if sandbox.is_ready() {
        v1::PodSandboxState::SandboxReady
    } else {
        v1::PodSandboxState::SandboxNotready
    }
}

pub fn sandbox_status(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let state = sandbox_state(sandbox) as i32;
    sandbox.with(|record| {
        let options = record
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .and_then(|security| security.namespace_options.clone());
        v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state,
            created_at: record.created_ns,
            network: record.address.map(|address| v1::PodSandboxNetworkStatus {
                ip: address.to_string(),
                additional_ips: Vec::new(),
            }),
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace { options }),
            }),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    })
}

pub fn sandbox_item(sandbox: &Sandbox) -> v1::PodSandbox {
    let status = sandbox_status(sandbox);
    v1::PodSandbox {
        id: status.id,
        metadata: status.metadata,
        state: status.state,
        created_at: status.created_at,
        labels: status.labels,
        annotations: status.annotations,
        runtime_handler: status.runtime_handler,
    }
}

pub fn selected(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Inner {
    pub(super) fn containers_statuses(&self, sandbox: &Sandbox) -> Vec<v1::ContainerStatus> {
        let directory = sandbox.with(|record| record.config.log_directory.clone());
        self.containers_of(&sandbox.id)
            .iter()
            .map(|container| container_status(container, &directory))
            .collect()
    }
}

/// What CRI asks for as the pid namespace, as a plan.
pub fn pid_plan(options: &v1::NamespaceOption) -> PidPlan {
    match v1::NamespaceMode::try_from(options.pid) {
        Ok(v1::NamespaceMode::Pod) => PidPlan::Sandbox,
        Ok(v1::NamespaceMode::Node) => PidPlan::Host,
        _ => PidPlan::Container,
    }
}
