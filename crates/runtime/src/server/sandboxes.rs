//! Making, stopping and removing sandboxes.

mod plan;
mod supervision;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use k8s_cri::v1;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::files;
use super::link::{Link, News};
use super::records::{Phase, SANDBOX_RECORD, Sandbox, SandboxRecord};
use super::runtime::{Inner, SandboxName, blocking, new_id, now_ns};
use super::spec;
use super::status::pid_plan;
use crate::error::{Doing, Error, Result};
use crate::supervisor::plan::{
    IpcPlan, NetworkPlan, PidPlan, SANDBOX_PLAN, SUPERVISOR_RECORD, SandboxPlan, SupervisorRecord,
};
use crate::supervisor::protocol::{Answer, Call, Message};
use crate::supervisor::{ARGUMENT, READY};
use crate::system::netlink::Netlink;
use crate::system::{mounts, persist};

/// A supervisor is ready within milliseconds; one that is not after this never will be.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a supervisor may take to kill and reap everything before it is killed itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The kubelet's default size of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

/// A longer one the kernel refuses (HOST_NAME_MAX).
const MAX_HOSTNAME_BYTES: usize = 64;

/// Interfaces of sandboxes on the host; the prefix by which leftovers are known.
pub const INTERFACE_PREFIX: &str = "mgv";

/// The handlers that mean the container engine.
pub(super) const HANDLERS: [&str; 2] = ["", "container"];

impl Inner {
    pub(super) async fn run_sandbox(self: Arc<Inner>, request: v1::RunPodSandboxRequest) -> Result<String> {
        let config = request
            .config
            .ok_or_else(|| Error::Invalid("a sandbox needs a configuration".into()))?;
        let metadata = config
            .metadata
            .clone()
            .ok_or_else(|| Error::Invalid("a sandbox needs metadata".into()))?;
        if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
            return Err(Error::Invalid("a sandbox needs a name, a namespace and a uid".into()));
        }
        if !HANDLERS.contains(&request.runtime_handler.as_str()) {
            return Err(Error::Invalid(format!(
                "there is no runtime handler {:?}; this runtime has {:?}",
                request.runtime_handler, HANDLERS[1]
            )));
        }
        let name = SandboxName {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            attempt: metadata.attempt,
        };
        let id = new_id();
        {
            let mut state = self.state();
            if let Some(known) = state.sandbox_names.get(&name) {
                return match state.sandboxes.get(known) {
                    Some(sandbox) if sandbox.is_ready() => Ok(known.clone()),
                    Some(_) => Err(Error::Exists(format!(
                        "sandbox {known} of {}/{} is stopped; make another attempt",
                        name.namespace, name.name
                    ))),
                    None => Err(Error::Exists(format!(
                        "the sandbox of {}/{} is being made",
                        name.namespace, name.name
                    ))),
                };
            }
            state.sandbox_names.insert(name.clone(), id.clone());
        }
        match self.make_sandbox(&id, config, request.runtime_handler).await {
            Ok(sandbox) => {
                let sandbox = Arc::new(sandbox);
                self.state().sandboxes.insert(id.clone(), sandbox.clone());
                self.tell(v1::ContainerEventType::ContainerCreatedEvent, &id, &sandbox);
                self.tell(v1::ContainerEventType::ContainerStartedEvent, &id, &sandbox);
                // If its supervisor has ended before it was known, nobody heard of that.
                if sandbox.link().is_some_and(|link| link.has_ended()) {
                    tokio::spawn(self.clone().supervisor_gone(sandbox));
                }
                Ok(id)
            }
            Err(e) => {
                let inner = self.clone();
                let gone = id.clone();
                let cleared = blocking(move || {
                    inner.clear_away(&gone);
                    Ok(())
                });
                let _ = cleared.await;
                self.state().sandbox_names.remove(&name);
                Err(e)
            }
        }
    }

    async fn make_sandbox(
        self: &Arc<Inner>,
        id: &str,
        config: v1::PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<Sandbox> {
        let inner = self.clone();
        let owned = id.to_owned();
        let (plan, mut record) = blocking(move || inner.plan_sandbox(&owned, config, runtime_handler)).await?;
        self.start_supervisor(&plan.folder).await?;
        let supervisor: SupervisorRecord =
            persist::read_json(&plan.folder.join(SUPERVISOR_RECORD)).doing(|| "read the supervisor's record")?;
        record.supervisor_pid = supervisor.process.pid;
        record.pid_holder = supervisor.pid_holder;
        let link = self.connect(id)?;
        link.call(Call::Hello).await?;
        let file = plan.folder.join(SANDBOX_RECORD);
        let record = blocking(move || {
            // From here on the sandbox exists, whoever crashes.
            persist::write_json(&file, &record).doing(|| "keep the sandbox")?;
            Ok(record)
        })
        .await?;
        Ok(Sandbox::new(record, Some(link)))
    }

    pub(super) async fn stop_sandbox(self: Arc<Inner>, id: String) -> Result<()> {
        let sandbox = match self.sandbox(&id) {
            Ok(sandbox) => sandbox,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        let _changing = sandbox.changing.lock().await;
        if !sandbox.is_ready() {
            return Ok(());
        }
        if let Some(link) = sandbox.link() {
            match tokio::time::timeout(STOP_TIMEOUT, link.call(Call::Stop)).await {
                Ok(Ok(Answer::Done)) => {}
                Ok(Ok(other)) => tracing::warn!(sandbox = id, "an odd answer to a stop: {other:?}"),
                Ok(Err(e)) => tracing::warn!(sandbox = id, "stop: {e}"),
                Err(_) => tracing::warn!(sandbox = id, "its supervisor does not stop; killing it"),
            }
        }
        self.bury(&sandbox).await
    }

    /// Ends what is still there of the sandbox, gives back what it had, and writes down that it is stopped.
    pub(super) async fn bury(self: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<()> {
        sandbox.unlink();
        let inner = self.clone();
        let id = sandbox.id.clone();
        let groups: Vec<String> = self
            .containers_of(&id)
            .iter()
            .map(|container| container.with(|record| record.plan.cgroup.clone()))
            .collect();
        let record = sandbox.record();
        blocking(move || {
            inner.end_supervisor(&inner.sandbox_folder(&id));
            for group in &groups {
                inner.hierarchies.kill(group);
                inner.remove_cgroup(group);
            }
            inner.release_network(&record);
            if record.owns_cgroup {
                inner.hierarchies.kill(&record.cgroup);
                inner.remove_cgroup(&record.cgroup);
            }
            let run = inner.run_folder(&record.id);
            mounts::unmount_below(&run).doing(|| "unmount what the sandbox had")?;
            let _ = fs::remove_dir_all(run);
            Ok(())
        })
        .await?;
        for container in self.containers_of(&sandbox.id) {
            self.lose(&container).await;
        }
        let record = sandbox.change(|record| {
            record.stopped = true;
        });
        let file = self.sandbox_folder(&sandbox.id).join(SANDBOX_RECORD);
        blocking(move || persist::write_json(&file, &record).doing(|| "keep the sandbox")).await?;
        self.tell(v1::ContainerEventType::ContainerStoppedEvent, &sandbox.id, sandbox);
        Ok(())
    }

    /// A group can be removed once the kernel has let go of its last member, a moment after the kill.
    pub(super) fn remove_cgroup(&self, path: &str) {
        for _ in 0..100 {
            match self.hierarchies.remove(path) {
                Ok(()) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        tracing::warn!("control group {path} is still busy");
    }

    pub(super) fn release_network(&self, record: &SandboxRecord) {
        if let Some(interface) = &record.host_interface {
            let removed = Netlink::open().and_then(|mut netlink| match netlink.index_of(interface)? {
                Some(index) => netlink.delete(index),
                None => Ok(()),
            });
            if let Err(e) = removed {
                tracing::warn!("remove interface {interface}: {e}");
            }
        }
        if let Some(address) = record.address {
            self.addresses.give_back(address, &record.id);
        }
    }

    pub(super) async fn remove_sandbox(self: Arc<Inner>, id: String) -> Result<()> {
        let sandbox = match self.sandbox(&id) {
            Ok(sandbox) => sandbox,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        self.clone().stop_sandbox(sandbox.id.clone()).await?;
        for container in self.containers_of(&sandbox.id) {
            self.clone().remove_container(container.id.clone()).await?;
        }
        let _changing = sandbox.changing.lock().await;
        let removed = self.state().sandboxes.remove(&sandbox.id).is_some();
        if !removed {
            return Ok(());
        }
        let inner = self.clone();
        let gone = sandbox.id.clone();
        blocking(move || {
            inner.clear_away(&gone);
            Ok(())
        })
        .await?;
        self.state().sandbox_names.retain(|_, holder| *holder != sandbox.id);
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, &sandbox.id, &sandbox);
        Ok(())
    }

    /// Removes every trace of a sandbox that does not exist (any more, or not yet).
    pub(super) fn clear_away(&self, id: &str) {
        let folder = self.sandbox_folder(id);
        // The record first: without it the folder counts as half made, and the next opening goes on from here.
        let _ = fs::remove_file(folder.join(SANDBOX_RECORD));
        self.end_supervisor(&folder);
        let group = format!("/{}/{id}", self.options.cgroup_root);
        if !self.hierarchies.processes(&group).is_empty() {
            self.hierarchies.kill(&group);
        }
        self.remove_cgroup(&group);
        if let Ok(plan) = persist::read_json::<SandboxPlan>(&folder.join(SANDBOX_PLAN))
            && let NetworkPlan::Routed {
                address,
                host_interface,
                ..
            } = plan.network
        {
            if let Ok(mut netlink) = Netlink::open()
                && let Ok(Some(index)) = netlink.index_of(&host_interface)
            {
                let _ = netlink.delete(index);
            }
            self.addresses.give_back(address, id);
        }
        let run = self.run_folder(id);
        if let Err(e) = mounts::unmount_below(&run) {
            tracing::warn!("unmount below {}: {e}", run.display());
        }
        let _ = fs::remove_dir_all(run);
        let _ = fs::remove_dir_all(folder);
    }

    /// The pid namespace of a sandbox in the words that the specification needs.
    pub(super) fn holder_of(record: &SandboxRecord) -> (PidPlan, Option<i32>) {
        (record.pid, record.pid_holder)
    }
}
