//! Carrying out a plan's steps against the runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::events::EventType;
use super::handler::Target;
use super::images::{self, PullFailure};
use super::worker::{Materials, Worker};
use super::{ending, hooks};
use crate::container::config::{self, message_path};
use crate::container::{dns, env, sandbox};
use crate::cri::CriError;
use crate::pod::health::ProbeKind;
use crate::pod::observed::Observed;
use crate::pod::plan::{Step, Waiting, Why};
use crate::pod::references::containers;
use crate::volume::VolumeError;

/// Why a container does not run. The first word is the status reason.
enum StartError {
    Image(PullFailure),
    /// `CreateContainerConfigError`: the Pod asks for what can't be given now.
    Config(String),
    /// `CreateContainerError`
    Create(String),
    /// `RunContainerError`
    Run(String),
    /// `PostStartHookError`
    Hook(String),
    /// The plane wants the Pod ended; nothing is wrong.
    Interrupted,
}

impl Worker {
    pub(super) async fn step(
        &mut self,
        step: &Step,
        observed: &Observed,
        materials: Option<&Materials>,
    ) -> Result<(), CriError> {
        match step {
            Step::CreateSandbox { attempt } => self.create_sandbox(*attempt).await,
            Step::StopSandbox { id } => {
                for container in observed.running().filter(|container| container.sandbox_id == *id) {
                    self.context.runtime.stop_container(&container.id, 0).await?;
                }
                self.context.runtime.stop_sandbox(id).await
            }
            Step::Start {
                name,
                attempt,
                backoff_seconds,
            } => {
                if let Some(materials) = materials {
                    self.start(name, *attempt, *backoff_seconds, observed, materials).await;
                }
                Ok(())
            }
            Step::Kill { id, name, why } => self.kill(id, name, why, observed).await,
            Step::RemoveContainer { id } => {
                self.context.runtime.remove_container(id).await?;
                if let Some(container) = observed.containers.iter().find(|container| container.id == *id) {
                    remove_log(Path::new(&container.log_path));
                    let message = self.directory.message_file(&container.name, container.attempt);
                    let _ = std::fs::remove_file(message);
                }
                Ok(())
            }
            Step::RemoveSandbox { id } => self.context.runtime.remove_sandbox(id).await,
            Step::Finish => self.finish().await,
        }
    }

    fn sandbox_config(&self, attempt: u32) -> cri::PodSandboxConfig {
        let context = &self.context;
        sandbox::of(&self.pod, attempt, &context.node_name, &context.dns, &context.logs())
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Result<(), CriError> {
        let config = self.sandbox_config(attempt);
        let _ = std::fs::create_dir_all(&config.log_directory);
        let handler = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.runtime_class_name.as_deref())
            .unwrap_or_default();
        let result = match self.context.handler_of(handler).await {
            Ok(handler) => self.context.runtime.run_sandbox(config, &handler).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => {
                self.context.events.pod(
                    &self.pod,
                    None,
                    EventType::Warning,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                );
                Err(error)
            }
        }
    }

    async fn start(
        &mut self,
        name: &str,
        attempt: u32,
        backoff_seconds: u64,
        observed: &Observed,
        materials: &Materials,
    ) {
        let pod = self.pod.clone();
        let Some(spec) = containers(&pod).find(|spec| spec.name == name) else {
            return;
        };
        let Err(error) = self
            .try_start(&pod, spec, attempt, backoff_seconds, observed, materials)
            .await
        else {
            self.failed_starts.remove(name);
            return;
        };
        let (reason, message) = match error {
            StartError::Interrupted => return,
            StartError::Image(failure) if failure.backs_off => {
                // The first time the error itself, then that it waits.
                let again = self.failed_starts.contains_key(name);
                self.hold_back(
                    name,
                    observed,
                    Waiting {
                        reason: failure.reason.to_owned(),
                        message: failure.message.clone(),
                    },
                );
                let image = spec.image.as_deref().unwrap_or_default();
                let text = format!("Back-off pulling image {image:?}");
                let message = format!("{text}: {}: {}", failure.reason, failure.message);
                if failure.reason == "ErrImagePull" && again {
                    self.context
                        .events
                        .pod(&pod, Some(name), EventType::Normal, "BackOff", text);
                    if let Some(failed) = self.failed_starts.get_mut(name) {
                        failed.waiting = Waiting {
                            reason: "ImagePullBackOff".to_owned(),
                            message,
                        };
                    }
                }
                return;
            }
            StartError::Image(failure) => (failure.reason, failure.message),
            StartError::Config(message) => ("CreateContainerConfigError", message),
            StartError::Create(message) => ("CreateContainerError", message),
            StartError::Run(message) => ("RunContainerError", message),
            StartError::Hook(message) => ("PostStartHookError", message),
        };
        let text = format!("Error: {message}");
        self.context
            .events
            .pod(&pod, Some(name), EventType::Warning, "Failed", text);
        let waiting = Waiting {
            reason: reason.to_owned(),
            message,
        };
        self.hold_back(name, observed, waiting);
    }

    async fn try_start(
        &mut self,
        pod: &Pod,
        spec: &Spec,
        attempt: u32,
        backoff_seconds: u64,
        observed: &Observed,
        materials: &Materials,
    ) -> Result<(), StartError> {
        let context = self.context.clone();
        let sandbox = observed.sandbox().ok_or(StartError::Interrupted)?;
        let sandbox_config = self.sandbox_config(sandbox.attempt);

        let image = tokio::select! {
            image = images::ensure(&context, pod, spec, &materials.references, &sandbox_config) => {
                image.map_err(StartError::Image)?
            }
            () = Worker::interrupted(&self.signals) => return Err(StartError::Interrupted),
        };
        let env = env::of(pod, spec, &materials.services, &materials.references, &materials.facts)
            .map_err(|error| StartError::Config(error.to_string()))?;
        config::check_user(pod, spec, &image.user).map_err(|error| StartError::Config(error.to_string()))?;
        let mounts = self
            .mounts(pod, spec, attempt, &env, materials)
            .map_err(|error| StartError::Config(error.to_string()))?;
        let seccomp_root = context.seccomp().to_string_lossy().into_owned();
        let container_config = config::of(config::Inputs {
            pod,
            container: spec,
            attempt,
            backoff_seconds,
            image_ref: &image.image_ref,
            env: &env,
            mounts,
            capacity: context.capacity,
            node_name: &context.node_name,
            seccomp_root: &seccomp_root,
        });
        let log = PathBuf::from(&sandbox_config.log_directory).join(&container_config.log_path);
        if let Some(parent) = log.parent() {
            let _ = std::fs::create_dir_all(parent);
        }

        let id = context
            .runtime
            .create_container(&sandbox.id, container_config, sandbox_config)
            .await
            .map_err(|error| StartError::Create(error.to_string()))?;
        let event = |kind, reason: &str, message: String| {
            context.events.pod(pod, Some(&spec.name), kind, reason, message);
        };
        event(
            EventType::Normal,
            "Created",
            format!("Container created: {}", spec.name),
        );
        if let Some(admission) = self.admission.take() {
            match admission.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(StartError::Run(error.to_string())),
                Err(error) => return Err(StartError::Run(error.to_string())),
            }
        }
        if let Err(error) = context.runtime.start_container(&id).await {
            return Err(StartError::Run(error.to_string()));
        }
        event(
            EventType::Normal,
            "Started",
            format!("Container started: {}", spec.name),
        );

        if let Some(hook) = spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref())
        {
            let target = Target {
                container_id: &id,
                container: spec,
                ip: self.ips(observed).first().copied(),
            };
            let result = tokio::select! {
                result = hooks::run(&context.runtime, target, hook, hooks::POST_START_TIMEOUT) => result,
                () = Worker::interrupted(&self.signals) => return Err(StartError::Interrupted),
            };
            if let Err(problem) = result {
                event(
                    EventType::Warning,
                    "FailedPostStartHook",
                    format!("PostStartHook failed: {problem}"),
                );
                let grace = ending::grace_seconds(pod);
                let _ = context.runtime.stop_container(&id, grace).await;
                return Err(StartError::Hook(problem));
            }
        }
        Ok(())
    }

    /// Volumes, `/etc/hosts` and the file for last words.
    fn mounts(
        &self,
        pod: &Pod,
        spec: &Spec,
        attempt: u32,
        env: &[(String, String)],
        materials: &Materials,
    ) -> Result<Vec<cri::Mount>, VolumeError> {
        let scope: BTreeMap<String, String> = env.iter().cloned().collect();
        let mut mounts = self.directory.mounts(pod, spec, &materials.places, &scope)?;
        let taken = |mounts: &[cri::Mount], path: &str| mounts.iter().any(|mount| mount.container_path == path);

        if !taken(&mounts, "/etc/hosts") {
            let path = self.directory.hosts_file();
            let ips: Vec<String> = materials.facts.pod_ips.iter().map(|ip| ip.to_string()).collect();
            let of_host = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            let text = dns::hosts_file(pod, &ips, &self.context.dns.domain, &of_host);
            write_file(&path, text.as_bytes(), 0o644)?;
            mounts.push(file_mount("/etc/hosts", &path));
        }
        let inside = message_path(spec);
        if !taken(&mounts, inside) {
            let path = self.directory.message_file(&spec.name, attempt);
            // The container may run as anyone.
            write_file(&path, b"", 0o666)?;
            mounts.push(file_mount(inside, &path));
        }
        Ok(mounts)
    }

    async fn kill(&mut self, id: &str, name: &str, why: &Why, observed: &Observed) -> Result<(), CriError> {
        let pod = self.pod.clone();
        let message = match why {
            Why::Probe(kind) => format!("Container {name} failed {} probe, will be restarted", kind.word()),
            Why::SpecChanged => format!("Container {name} definition changed, will be restarted"),
        };
        let spec = containers(&pod).find(|spec| spec.name == name);
        let of_probe = match why {
            Why::Probe(kind @ (ProbeKind::Liveness | ProbeKind::Startup)) => spec
                .and_then(|spec| kind.of(spec))
                .and_then(|probe| probe.termination_grace_period_seconds)
                .and_then(|seconds| u64::try_from(seconds).ok()),
            _ => None,
        };
        self.context
            .events
            .pod(&pod, Some(name), EventType::Normal, "Killing", message);
        self.condemned.insert(id.to_owned());
        let grace = of_probe.unwrap_or_else(|| ending::grace_seconds(&pod));
        let ip = self.ips(observed).first().copied();
        let stop = ending::stop_container(&self.context.runtime, id, spec, ip, grace);
        tokio::select! {
            result = stop => result,
            // Its own ending has its own grace.
            () = Worker::interrupted(&self.signals) => Ok(()),
        }
    }
}

fn file_mount(inside: &str, host: &Path) -> cri::Mount {
    cri::Mount {
        container_path: inside.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

/// Written over in place, never replaced: a running container has the file itself mounted.
fn write_file(path: &Path, data: &[u8], mode: u32) -> Result<(), VolumeError> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(VolumeError::io("creating", parent))?;
    }
    if std::fs::read(path).is_ok_and(|old| old == data) {
        return Ok(());
    }
    std::fs::write(path, data).map_err(VolumeError::io("writing", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(VolumeError::io("opening", path))
}

/// The log of one dead container, and what rotation has left of it.
fn remove_log(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let is_its = found
            .to_str()
            .is_some_and(|found| found == name || found.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
        if is_its {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
