//! Opening after whatever happened before: a clean end, `kill -9`, a power cut. What runs is found again, what was half
//! made is taken away, and nothing is taken for running that is not.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::records::{CONTAINER_RECORD, Container, ContainerRecord, Phase, SANDBOX_RECORD, Sandbox, SandboxRecord};
use super::runtime::{ContainerName, Inner, SandboxName, blocking};
use super::sandboxes::INTERFACE_PREFIX;
use crate::error::{Doing, Result};
use crate::supervisor::plan::{CONTAINER_STATE, ContainerState, SUPERVISOR_RECORD, SupervisorRecord};
use crate::supervisor::protocol::{Answer, Call};
use crate::system::netlink::Netlink;
use crate::system::{mounts, persist};

/// A supervisor answers within milliseconds, or when the container that it is starting has started.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn recover(inner: &Arc<Inner>) -> Result<()> {
    let to_bury = find_sandboxes(inner).await?;
    find_containers(inner).await?;
    for sandbox in to_bury {
        inner.bury(&sandbox).await?;
    }
    let inner = inner.clone();
    blocking(move || {
        sweep(&inner);
        Ok(())
    })
    .await
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Returns those that were running and run no more.
async fn find_sandboxes(inner: &Arc<Inner>) -> Result<Vec<Arc<Sandbox>>> {
    let mut to_bury = Vec::new();
    for id in names(&inner.options.root.join("sandboxes")) {
        let folder = inner.sandbox_folder(&id);
        let record: SandboxRecord = match persist::read_json(&folder.join(SANDBOX_RECORD)) {
            Ok(record) => record,
            Err(e) => {
                tracing::info!(sandbox = id, "half made, taken away ({e})");
                let inner = inner.clone();
                blocking(move || {
                    inner.clear_away(&id);
                    Ok(())
                })
                .await?;
                continue;
            }
        };
        let metadata = record.config.metadata.clone().unwrap_or_default();
        let stopped = record.stopped;
        let alive = !stopped
            && persist::read_json::<SupervisorRecord>(&folder.join(SUPERVISOR_RECORD))
                .is_ok_and(|supervisor| supervisor.process.is_alive());
        let link = if alive { inner.connect(&id).ok() } else { None };
        let sandbox = Arc::new(Sandbox::new(record, link));
        if sandbox.link().is_none() && !stopped {
            to_bury.push(sandbox.clone());
        }
        let mut state = inner.state();
        state.sandbox_names.insert(
            SandboxName {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                attempt: metadata.attempt,
            },
            id.clone(),
        );
        state.sandboxes.insert(id, sandbox);
    }
    Ok(to_bury)
}

async fn find_containers(inner: &Arc<Inner>) -> Result<()> {
    for id in names(&inner.options.root.join("containers")) {
        let folder = inner.container_folder(&id);
        let record: Option<ContainerRecord> = persist::read_json(&folder.join(CONTAINER_RECORD)).ok();
        let Some(record) = record.filter(|record| inner.sandbox(&record.sandbox).is_ok()) else {
            tracing::info!(container = id, "half made or half removed, taken away");
            blocking(move || fs::remove_dir_all(&folder).doing(|| "remove a container's folder")).await?;
            continue;
        };
        let phase = match persist::read_json::<ContainerState>(&folder.join(CONTAINER_STATE)) {
            Err(_) => Phase::Created,
            Ok(state) if state.exit.is_some() => Phase::Exited(state),
            Ok(state) => Phase::Running(state),
        };
        inner.images.hold(&id, &record.plan.layers);
        let metadata = record.config.metadata.clone().unwrap_or_default();
        let name = ContainerName {
            sandbox: record.sandbox.clone(),
            name: metadata.name,
            attempt: metadata.attempt,
        };
        let mut state = inner.state();
        state.container_names.insert(name, id.clone());
        state.containers.insert(id, Arc::new(Container::new(record, phase)));
    }
    // What the supervisors say is newer than what we read. Events that come meanwhile come after it, on the same link.
    let sandboxes: Vec<Arc<Sandbox>> = inner.state().sandboxes.values().cloned().collect();
    for sandbox in sandboxes {
        let Some(link) = sandbox.link() else { continue };
        let hello = tokio::time::timeout(HELLO_TIMEOUT, link.call(Call::Hello)).await;
        let Ok(Ok(Answer::Running { containers })) = hello else {
            tracing::warn!(
                sandbox = sandbox.id,
                "its supervisor does not answer; ending what is left of it"
            );
            inner.bury(&sandbox).await?;
            continue;
        };
        for container in inner.containers_of(&sandbox.id) {
            match containers.get(&container.id) {
                Some(state) => container.phase.send_modify(|phase| {
                    if *phase == Phase::Created {
                        *phase = Phase::Running(state.clone());
                    }
                }),
                None => inner.lose(&container).await,
            }
        }
    }
    Ok(())
}

/// Takes away what belongs to no sandbox that is alive.
fn sweep(inner: &Arc<Inner>) {
    let (living, supervisors): (HashSet<String>, HashSet<i32>) = {
        let state = inner.state();
        let ready = state.sandboxes.values().filter(|sandbox| sandbox.is_ready());
        ready
            .map(|sandbox| (sandbox.id.clone(), sandbox.with(|record| record.supervisor_pid)))
            .unzip()
    };
    inner.addresses.sweep(&living);
    inner.images.sweep();

    // A supervisor that nobody knows was made by a server which died before it wrote the sandbox down.
    inner.end_sessions(|session| !supervisors.contains(&session));
    let root = format!("/{}", inner.options.cgroup_root);
    for name in inner.hierarchies.children(&root) {
        if name != "supervisors" && !living.contains(&name) {
            let group = format!("{root}/{name}");
            inner.hierarchies.kill(&group);
            inner.remove_cgroup(&group);
        }
    }
    for name in names(&inner.options.run.join("sandboxes")) {
        if !living.contains(&name) {
            let run = inner.run_folder(&name);
            let _ = mounts::unmount_below(&run);
            let _ = fs::remove_dir_all(run);
        }
    }
    let interfaces: HashSet<String> = living
        .iter()
        .map(|id| format!("{INTERFACE_PREFIX}{}", &id[..11.min(id.len())]))
        .collect();
    let Ok(mut netlink) = Netlink::open() else { return };
    for link in netlink.links().unwrap_or_default() {
        if link.name.starts_with(INTERFACE_PREFIX)
            && link.alias.as_deref() == Some(&inner.options.device)
            && !interfaces.contains(&link.name)
        {
            let _ = netlink.delete(link.index);
        }
    }
}
