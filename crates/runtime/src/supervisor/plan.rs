//! What the server writes down for a supervisor, and what the supervisor writes down for whoever comes after it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::system::process::ProcessName;

/// One sandbox, as its supervisor needs to know it. Lies as `plan.json` in the sandbox's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPlan {
    pub id: String,
    /// Survives reboots; holds `plan.json`, `supervisor.json`, `supervisor.log`.
    pub folder: PathBuf,
    /// Does not need to survive; holds the socket, shared memory and the OCI state.
    pub run: PathBuf,
    pub containers: PathBuf,
    pub layers: PathBuf,
    pub hostname: String,
    pub network: NetworkPlan,
    pub ipc: IpcPlan,
    pub pid: PidPlan,
    pub sysctls: Vec<(String, String)>,
    /// The group that supervisors live in, away from that of the server.
    pub supervisor_cgroup: String,
    pub shm_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkPlan {
    Host,
    /// A pair of interfaces, with routes on both ends and no neighbours beside each other.
    #[serde(alias = "Bridge")]
    Routed {
        /// The interface of the host that has the gateway's address.
        #[serde(alias = "bridge")]
        device: String,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
        /// The sandbox's end of the pair on the host.
        host_interface: String,
        mtu: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcPlan {
    Own,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidPlan {
    /// Each container has its own.
    Container,
    /// One for the whole sandbox.
    Sandbox,
    Host,
}

impl SandboxPlan {
    pub fn socket(&self) -> PathBuf {
        self.run.join("socket")
    }

    pub fn shm(&self) -> PathBuf {
        self.run.join("shm")
    }

    pub fn oci_state(&self) -> PathBuf {
        self.run.join("oci")
    }
}

pub const SANDBOX_PLAN: &str = "plan.json";
pub const SUPERVISOR_RECORD: &str = "supervisor.json";
pub const SUPERVISOR_LOG: &str = "supervisor.log";
pub const CONTAINER_PLAN: &str = "plan.json";
pub const CONTAINER_STATE: &str = "state.json";
pub const BUNDLE: &str = "bundle";

/// Written before the supervisor makes anything, so that whoever ends it finds all of it: it leads a session that its helpers
/// and the holder of its pid namespace are in. Written again when all is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorRecord {
    pub process: ProcessName,
    /// The process that keeps a shared pid namespace alive.
    pub pid_holder: Option<i32>,
}

/// One container, as its supervisor needs to know it. Lies as `plan.json` in the container's folder, next to the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub id: String,
    pub cgroup: String,
    /// Names of layer folders, the uppermost first (overlayfs's order).
    pub layers: Vec<String>,
    pub log: Option<PathBuf>,
    pub tty: Tty,
    pub stdin: Stdin,
    pub user: UserPlan,
    pub oom_score_adj: i32,
    pub propagation: Propagation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tty {
    No,
    Yes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    Closed,
    Open,
    /// Closed when the first client that was attached goes away.
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// The container sees what was mounted when it started.
    Private,
    /// Mounts made on the host appear in the container, never the other way.
    Slave,
    /// A mount of this container hands mounts back to the host.
    Shared,
}

/// Who the container runs as; names are looked up in the container's own root, when it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    pub uid: Option<u32>,
    pub name: Option<String>,
    pub gid: Option<u32>,
    /// `user[:group]` as the image says.
    pub image: String,
    pub groups: Vec<u32>,
    pub image_groups: ImageGroups,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageGroups {
    /// Groups which the image's `/etc/group` gives the user are added.
    #[default]
    Merge,
    /// Only those that the request names.
    Strict,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Written by the supervisor at each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub pid: i32,
    pub started_ns: i64,
    pub user: ResolvedUser,
    pub exit: Option<Exit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell would say it: 128 + signal for a signal.
    pub code: i32,
    pub finished_ns: i64,
    pub cause: ExitCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    Ended,
    OutOfMemory,
    /// Nobody saw it end: the supervisor or the machine went away.
    Lost,
    /// It never ran; why.
    NotStarted(String),
}

pub fn container_folder(plan: &SandboxPlan, container: &str) -> PathBuf {
    plan.containers.join(container)
}

pub fn bundle(folder: &Path) -> PathBuf {
    folder.join(BUNDLE)
}
