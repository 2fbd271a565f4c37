//! Making, starting, stopping and removing containers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1;

use super::records::{CONTAINER_RECORD, Container, ContainerRecord, Phase, Sandbox};
use super::runtime::{ContainerName, Inner, blocking, new_id, now_ns};
use super::seccomp;
use super::spec::{self, PidNamespace, Surroundings};
use super::status::log_path;
use crate::error::{Doing, Error, Result};
use crate::image::Image;
use crate::supervisor::FILTER;
use crate::supervisor::plan::{
    CONTAINER_PLAN, CONTAINER_STATE, ContainerPlan, ContainerState, Exit, ExitCause, ResolvedUser, Stdin, Tty, bundle,
};
use crate::supervisor::protocol::{Answer, Call};
use crate::system::persist;

/// After SIGKILL only a process that waits for the kernel (a dead disk, a dead server) is still there.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the kernel says of a process ended by SIGKILL.
const KILLED: i32 = 128 + libc::SIGKILL;

/// runc's code for a container that could not be started.
const NOT_STARTED: i32 = 128;

impl Inner {
    pub(super) async fn create_container(self: Arc<Inner>, request: v1::CreateContainerRequest) -> Result<String> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::Precondition(format!("sandbox {} is stopped", sandbox.id)));
        }
        let config = request
            .config
            .ok_or_else(|| Error::Invalid("a container needs a configuration".into()))?;
        let metadata = config
            .metadata
            .clone()
            .filter(|metadata| !metadata.name.is_empty())
            .ok_or_else(|| Error::Invalid("a container needs a name".into()))?;
        let wanted = config.image.clone().unwrap_or_default().image;
        let image = self
            .images
            .find(&wanted)
            .ok_or_else(|| Error::not_found("image", wanted))?;
        let name = ContainerName {
            sandbox: sandbox.id.clone(),
            name: metadata.name,
            attempt: metadata.attempt,
        };
        let id = new_id();
        {
            let mut state = self.state();
            if let Some(known) = state.container_names.get(&name) {
                return Err(Error::Exists(format!(
                    "attempt {} of container {} is {known}",
                    name.attempt, name.name
                )));
            }
            state.container_names.insert(name.clone(), id.clone());
        }
        self.images.hold(&id, &image.layers);
        let inner = self.clone();
        let (owned, of_sandbox) = (id.clone(), sandbox.clone());
        let made = blocking(move || inner.plan_container(&owned, &of_sandbox, config, &image)).await;
        match made {
            Ok(record) => {
                let container = Arc::new(Container::new(record, Phase::Created));
                self.state().containers.insert(id.clone(), container.clone());
                self.tell_of_container(v1::ContainerEventType::ContainerCreatedEvent, &container);
                Ok(id)
            }
            Err(e) => {
                self.state().container_names.remove(&name);
                self.images.release(&id);
                let folder = self.container_folder(&id);
                let _ = blocking(move || fs::remove_dir_all(folder).doing(|| "clear")).await;
                Err(e)
            }
        }
    }

    /// Decides everything and writes it down for the supervisor.
    fn plan_container(
        &self,
        id: &str,
        sandbox: &Sandbox,
        config: v1::ContainerConfig,
        image: &Image,
    ) -> Result<ContainerRecord> {
        let of = sandbox.record();
        let security = spec::security(&config);
        let namespaces = security.namespace_options.clone().unwrap_or_default();
        let (pid, holder) = Inner::holder_of(&of);
        let pid = match v1::NamespaceMode::try_from(namespaces.pid) {
            Ok(v1::NamespaceMode::Target) => self.pid_namespace_of(&namespaces.target_id, &sandbox.id)?,
            _ => PidNamespace::of_sandbox(pid, holder),
        };
        let sandbox_namespaces = of
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .and_then(|security| security.namespace_options.clone())
            .unwrap_or_default();
        let own_ipc = sandbox_namespaces.ipc != v1::NamespaceMode::Node as i32;
        let folder = self.sandbox_folder(&sandbox.id);
        let in_folder = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let shm = if own_ipc {
            self.run_folder(&sandbox.id).join("shm").to_string_lossy().into_owned()
        } else {
            "/dev/shm".to_owned()
        };
        let around = Surroundings {
            supervisor_pid: of.supervisor_pid,
            own_network: sandbox_namespaces.network != v1::NamespaceMode::Node as i32,
            own_ipc,
            pid,
            cgroup: format!("{}/{id}", of.cgroup.trim_end_matches('/')),
            cgroup_unified: self.hierarchies.describe() == "v2",
            hostname: fs::read_to_string(folder.join("hostname"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
            sandbox_mounts: vec![
                (shm, "/dev/shm".into()),
                (in_folder("hosts"), "/etc/hosts".into()),
                (in_folder("hostname"), "/etc/hostname".into()),
                (in_folder("resolv.conf"), "/etc/resolv.conf".into()),
            ],
            available: self.capabilities,
        };
        let document = spec::build(&config, &image.config, &around)?;
        let filter = match security.privileged {
            true => None,
            false => seccomp::program(security.seccomp.as_ref(), &spec::bounding(&document))?,
        };
        for path in spec::host_folders(&config) {
            if !path.exists() {
                fs::create_dir_all(path).doing(|| format!("make {}", path.display()))?;
            }
        }
        let resources = config
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.clone())
            .unwrap_or_default();
        let log = log_path(&of.config.log_directory, &config.log_path);
        if Path::new(&config.log_path)
            .components()
            .any(|part| part == std::path::Component::ParentDir)
        {
            return Err(Error::Invalid(format!(
                "log path {:?} leaves its folder",
                config.log_path
            )));
        }
        let plan = ContainerPlan {
            id: id.to_owned(),
            cgroup: around.cgroup.clone(),
            layers: image.layers.iter().rev().cloned().collect(),
            log: (!log.is_empty()).then(|| log.into()),
            tty: if config.tty { Tty::Yes } else { Tty::No },
            stdin: match (config.stdin, config.stdin_once) {
                (false, _) => Stdin::Closed,
                (true, false) => Stdin::Open,
                (true, true) => Stdin::Once,
            },
            user: spec::user(&config, &image.config)?,
            oom_score_adj: resources.oom_score_adj.clamp(-1000, 1000) as i32,
            propagation: spec::propagation(&config),
        };
        let folder = self.container_folder(id);
        let doing = || "make the container's folder";
        for name in ["upper", "work", "bundle/rootfs"] {
            fs::create_dir_all(folder.join(name)).doing(doing)?;
        }
        if let Some(program) = filter {
            fs::write(bundle(&folder).join(FILTER), program).doing(doing)?;
        }
        fs::write(bundle(&folder).join("config.json"), document.to_string()).doing(doing)?;
        persist::write_json_volatile(&folder.join(CONTAINER_PLAN), &plan).doing(doing)?;
        let image_ref = image.digests.iter().next().cloned().unwrap_or_else(|| image.id.clone());
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.id.clone(),
            created_ns: now_ns(),
            stop_signal: spec::stop_signal(&image.config),
            image_id: image.id.clone(),
            image_ref,
            config,
            plan,
        };
        // From here on the container exists, whoever crashes.
        persist::write_json(&folder.join(CONTAINER_RECORD), &record).doing(doing)?;
        Ok(record)
    }

    /// The namespace of another container of the same sandbox, for one that debugs it.
    fn pid_namespace_of(&self, target: &str, sandbox: &str) -> Result<PidNamespace> {
        let target = self.container(target)?;
        if target.sandbox != sandbox {
            return Err(Error::Invalid(format!("container {} is in another sandbox", target.id)));
        }
        match target.phase() {
            Phase::Running(state) => Ok(PidNamespace::Of(state.pid)),
            Phase::Created | Phase::Exited(_) => {
                Err(Error::Precondition(format!("container {} is not running", target.id)))
            }
        }
    }

    pub(super) async fn start_container(self: Arc<Inner>, id: String) -> Result<()> {
        let container = self.container(&id)?;
        let _changing = container.changing.lock().await;
        if container.phase() != Phase::Created {
            return Err(Error::Precondition(format!("container {id} has been started before")));
        }
        let sandbox = self.sandbox(&container.sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        // That it runs is noted where the supervisor's news are heard, in order with all others.
        let started = link
            .call(Call::Start {
                container: container.id.clone(),
            })
            .await;
        let error = match started {
            Ok(Answer::Started { .. }) => return Ok(()),
            Ok(other) => Error::Supervisor(format!("an odd answer to a start: {other:?}")),
            Err(e) => e,
        };
        let now = now_ns();
        let state = ContainerState {
            pid: 0,
            started_ns: now,
            user: ResolvedUser::default(),
            exit: Some(Exit {
                code: NOT_STARTED,
                finished_ns: now,
                cause: ExitCause::NotStarted(error.to_string()),
            }),
        };
        self.keep_state(&container, &state).await;
        container.phase.send_replace(Phase::Exited(state));
        self.tell_of_container(v1::ContainerEventType::ContainerStoppedEvent, &container);
        Err(error)
    }

    pub(super) async fn stop_container(self: Arc<Inner>, id: String, grace: Duration) -> Result<()> {
        let container = match self.container(&id) {
            Ok(container) => container,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        // One that is being started right now has to be ended, too.
        drop(container.changing.lock().await);
        self.end(&container, grace).await
    }

    /// Asks the container to end, and after the grace period makes it.
    async fn end(&self, container: &Container, grace: Duration) -> Result<()> {
        if !container.is_running() {
            return Ok(());
        }
        let sandbox = self.sandbox(&container.sandbox)?;
        let Some(link) = sandbox.link() else {
            // Whoever stops the sandbox sees to its containers.
            return Ok(());
        };
        let mut phase = container.phase.subscribe();
        let mut ended = async |limit: Duration| {
            let exited = phase.wait_for(|phase| !matches!(phase, Phase::Running(_)));
            tokio::time::timeout(limit, exited).await.is_ok()
        };
        let signal = async |signal: i32| {
            let call = Call::Signal {
                container: container.id.clone(),
                signal,
            };
            match link.call(call).await {
                Err(e) if container.is_running() => Err(e),
                _ => Ok(()),
            }
        };
        if !grace.is_zero() {
            signal(container.with(|record| record.stop_signal)).await?;
            if ended(grace).await {
                return Ok(());
            }
        }
        signal(libc::SIGKILL).await?;
        if ended(KILL_TIMEOUT).await {
            return Ok(());
        }
        Err(Error::Timeout(format!("container {} does not end", container.id)))
    }

    pub(super) async fn remove_container(self: Arc<Inner>, id: String) -> Result<()> {
        let container = match self.container(&id) {
            Ok(container) => container,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let _changing = container.changing.lock().await;
        self.end(&container, Duration::ZERO).await?;
        let removed = self.state().containers.remove(&container.id).is_some();
        if !removed {
            return Ok(());
        }
        let sandbox = self.sandbox(&container.sandbox)?;
        let inner = self.clone();
        let gone = container.clone();
        blocking(move || {
            let folder = inner.container_folder(&gone.id);
            // The record first: without it the folder counts as rubbish.
            let _ = fs::remove_file(folder.join(CONTAINER_RECORD));
            let _ = inner
                .hierarchies
                .remove(&gone.with(|record| record.plan.cgroup.clone()));
            let removed = fs::remove_dir_all(&folder);
            inner.images.release(&gone.id);
            removed.doing(|| "remove the container's folder")
        })
        .await?;
        self.state().container_names.retain(|_, holder| *holder != container.id);
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, &container.id, &sandbox);
        Ok(())
    }

    /// A container's supervisor does not have it (any more): if it ever ran, it has ended.
    pub(super) async fn lose(&self, container: &Arc<Container>) {
        let file = self.container_folder(&container.id).join(CONTAINER_STATE);
        let written = persist::read_json::<ContainerState>(&file).ok();
        let state = match (container.phase(), written) {
            (Phase::Exited(_), _) => return,
            // Its supervisor has seen it after all.
            (_, Some(written)) if written.exit.is_some() => written,
            (Phase::Running(state), _) | (Phase::Created, Some(state)) => {
                let state = ContainerState {
                    exit: Some(Exit {
                        code: KILLED,
                        finished_ns: now_ns(),
                        cause: ExitCause::Lost,
                    }),
                    ..state
                };
                self.keep_state(container, &state).await;
                state
            }
            (Phase::Created, None) => return,
        };
        container.phase.send_replace(Phase::Exited(state));
        self.tell_of_container(v1::ContainerEventType::ContainerStoppedEvent, container);
    }

    async fn keep_state(&self, container: &Container, state: &ContainerState) {
        let file = self.container_folder(&container.id).join(CONTAINER_STATE);
        let state = state.clone();
        let kept = blocking(move || persist::write_json(&file, &state).doing(|| "keep the container's state")).await;
        if let Err(e) = kept {
            tracing::error!(container = container.id, "{e}");
        }
    }

    pub(super) fn tell_of_container(&self, kind: v1::ContainerEventType, container: &Container) {
        if let Ok(sandbox) = self.sandbox(&container.sandbox) {
            self.tell(kind, &container.id, &sandbox);
        }
    }

    pub(super) async fn update_resources(
        self: Arc<Inner>,
        id: String,
        wanted: v1::LinuxContainerResources,
    ) -> Result<()> {
        let container = self.container(&id)?;
        let _changing = container.changing.lock().await;
        let record = container.change(|record| {
            let linux = record.config.linux.get_or_insert_with(Default::default);
            let known = linux.resources.get_or_insert_with(Default::default);
            let numbers = [
                (&mut known.cpu_period, wanted.cpu_period),
                (&mut known.cpu_quota, wanted.cpu_quota),
                (&mut known.cpu_shares, wanted.cpu_shares),
                (&mut known.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
                (&mut known.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
                (&mut known.oom_score_adj, wanted.oom_score_adj),
            ];
            for (known, wanted) in numbers {
                if wanted != 0 {
                    *known = wanted;
                }
            }
            if !wanted.cpuset_cpus.is_empty() {
                known.cpuset_cpus = wanted.cpuset_cpus.clone();
            }
            if !wanted.cpuset_mems.is_empty() {
                known.cpuset_mems = wanted.cpuset_mems.clone();
            }
        });
        let limits = spec::limits(&wanted);
        let folder = self.container_folder(&container.id);
        let running = container.is_running();
        let created = container.phase() == Phase::Created;
        let inner = self.clone();
        blocking(move || {
            if running {
                inner
                    .hierarchies
                    .limit(&record.plan.cgroup, &limits)
                    .doing(|| format!("limit container {}", record.id))?;
            } else if created {
                // Not made yet: what it will be made from has to say it.
                let file = bundle(&folder).join("config.json");
                let mut document: serde_json::Value = persist::read_json(&file).doing(|| "read the bundle")?;
                let security = spec::security(&record.config);
                let resources = record.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
                document["linux"]["resources"] = spec::resources(&record.config, resources, security.privileged)?;
                persist::write_json_volatile(&file, &document).doing(|| "write the bundle")?;
            }
            persist::write_json(&folder.join(CONTAINER_RECORD), &record).doing(|| "keep the container")
        })
        .await
    }
}
