//! What is known of sandboxes and containers: the part that never changes, which lies on disk, and the part that does.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_cri::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::link::Link;
use crate::supervisor::plan::{ContainerPlan, ContainerState, PidPlan};

pub const SANDBOX_RECORD: &str = "sandbox.json";
pub const CONTAINER_RECORD: &str = "container.json";

/// Lies in the sandbox's folder once the sandbox has been made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: String,
    pub created_ns: i64,
    pub config: v1::PodSandboxConfig,
    pub runtime_handler: String,
    pub address: Option<Ipv4Addr>,
    pub host_interface: Option<String>,
    /// The group of the sandbox's containers.
    pub cgroup: String,
    /// The group is ours to remove, not the caller's.
    pub owns_cgroup: bool,
    pub pid: PidPlan,
    pub supervisor_pid: i32,
    pub pid_holder: Option<i32>,
    pub stopped: bool,
}

pub struct Sandbox {
    pub id: String,
    record: Mutex<SandboxRecord>,
    link: Mutex<Option<Arc<Link>>>,
    /// Stopping and removing take their time; a second call waits for the first.
    pub changing: tokio::sync::Mutex<()>,
}

/// Lies in the container's folder once the container has been made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    pub sandbox: String,
    pub created_ns: i64,
    pub config: v1::ContainerConfig,
    pub image_id: String,
    pub image_ref: String,
    pub stop_signal: i32,
    pub plan: ContainerPlan,
}

pub struct Container {
    pub id: String,
    pub sandbox: String,
    record: Mutex<ContainerRecord>,
    pub phase: watch::Sender<Phase>,
    pub changing: tokio::sync::Mutex<()>,
    /// The last measurement, for rates: time and processor time, both in nanoseconds.
    pub measured: Mutex<Option<(i64, u64)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Created,
    Running(ContainerState),
    Exited(ContainerState),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Sandbox {
    pub fn new(record: SandboxRecord, link: Option<Link>) -> Sandbox {
        Sandbox {
            id: record.id.clone(),
            record: Mutex::new(record),
            link: Mutex::new(link.map(Arc::new)),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    pub fn record(&self) -> SandboxRecord {
        lock(&self.record).clone()
    }

    /// What the record says, without copying all of it.
    pub fn with<T>(&self, look: impl FnOnce(&SandboxRecord) -> T) -> T {
        look(&lock(&self.record))
    }

    pub fn change(&self, change: impl FnOnce(&mut SandboxRecord)) -> SandboxRecord {
        let mut record = lock(&self.record);
        change(&mut record);
        record.clone()
    }

    pub fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    pub fn unlink(&self) {
        lock(&self.link).take();
    }

    pub fn is_ready(&self) -> bool {
        !self.with(|record| record.stopped)
    }
}

impl Container {
    pub fn new(record: ContainerRecord, phase: Phase) -> Container {
        Container {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            record: Mutex::new(record),
            phase: watch::Sender::new(phase),
            changing: tokio::sync::Mutex::new(()),
            measured: Mutex::new(None),
        }
    }

    pub fn record(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    pub fn with<T>(&self, look: impl FnOnce(&ContainerRecord) -> T) -> T {
        look(&lock(&self.record))
    }

    pub fn change(&self, change: impl FnOnce(&mut ContainerRecord)) -> ContainerRecord {
        let mut record = lock(&self.record);
        change(&mut record);
        record.clone()
    }

    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub fn is_running(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Running(_))
    }
}
