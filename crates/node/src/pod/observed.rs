//! What the runtime says of one Pod, in the words that `plan` and `status` need. Everything that must outlive this
//! process is read back from the labels and annotations that `container::config` wrote.

use std::net::IpAddr;

use k8s_cri::v1 as cri;

/// The labels and annotations that kubelet writes too, so that `crictl` and log collectors understand our Pods.
pub mod label {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const HASH: &str = "io.kubernetes.container.hash";
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Ours: which node's agent made it. Sandboxes without it belong to someone else and are never touched.
    pub const NODE: &str = "node.mangrove.io/name";
    /// Ours: how long to wait before the next start, so that back-off survives a restart of the agent.
    pub const BACKOFF_SECONDS: &str = "node.mangrove.io/backoff-seconds";
}

/// Nanoseconds since 1970, as CRI counts; 0 is "never".
pub type Nanos = i64;

pub const SECOND: Nanos = 1_000_000_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Nanos,
    /// Empty on the host's network.
    pub ips: Vec<IpAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    /// How often a container of that name was started before this one.
    pub attempt: u32,
    pub state: State,
    pub created_at: Nanos,
    pub started_at: Nanos,
    pub finished_at: Nanos,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_id: String,
    pub hash: String,
    pub backoff_seconds: u64,
    pub log_path: String,
    /// The file in which the container may leave its last words, on the host; and whether the log may stand in.
    pub message_file: Option<String>,
    pub message_from_log: bool,
}

/// Both lists are newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl Observed {
    pub fn new(mut sandboxes: Vec<Sandbox>, mut containers: Vec<Container>) -> Observed {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.attempt)));
        containers.sort_by_key(|container| std::cmp::Reverse((container.created_at, container.attempt)));
        Observed { sandboxes, containers }
    }

    /// The newest sandbox, if it is ready.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The instance before the latest.
    pub fn previous(&self, name: &str) -> Option<&Container> {
        self.containers.iter().filter(|container| container.name == name).nth(1)
    }

    pub fn latest_in(&self, sandbox_id: &str, name: &str) -> Option<&Container> {
        self.latest(name).filter(|container| container.sandbox_id == sandbox_id)
    }

    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers
            .iter()
            .filter(|container| container.state == State::Running)
    }

    pub fn is_running(&self) -> bool {
        self.running().next().is_some() || self.sandboxes.iter().any(|sandbox| sandbox.ready)
    }
}

impl Sandbox {
    pub fn from_cri(status: cri::PodSandboxStatus) -> Sandbox {
        let network = status.network.unwrap_or_default();
        let ips = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
            .filter_map(|ip| ip.parse().ok())
            .collect();
        Sandbox {
            id: status.id,
            attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
            ready: status.state == cri::PodSandboxState::SandboxReady as i32,
            created_at: status.created_at,
            ips,
        }
    }
}

/// The name that the Pod gave; what the runtime was told is what that meant at the time.
fn asked_for(image: cri::ImageSpec) -> String {
    if image.user_specified_image.is_empty() {
        image.image
    } else {
        image.user_specified_image
    }
}

impl Container {
    pub fn from_cri(sandbox_id: String, status: cri::ContainerStatus) -> Container {
        let metadata = status.metadata.unwrap_or_default();
        let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
        let label = |key: &str| status.labels.get(key).map(String::as_str);
        let inside = annotation(label::MESSAGE_PATH).unwrap_or_default();
        let message_file = status
            .mounts
            .iter()
            .find(|mount| !inside.is_empty() && mount.container_path == inside)
            .map(|mount| mount.host_path.clone());
        Container {
            name: label(label::CONTAINER_NAME).map_or(metadata.name, str::to_owned),
            attempt: annotation(label::RESTART_COUNT)
                .and_then(|text| text.parse().ok())
                .unwrap_or(metadata.attempt),
            state: match cri::ContainerState::try_from(status.state) {
                Ok(cri::ContainerState::ContainerCreated) => State::Created,
                Ok(cri::ContainerState::ContainerRunning) => State::Running,
                Ok(cri::ContainerState::ContainerExited) => State::Exited,
                Ok(cri::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
            },
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            message: status.message,
            reason: status.reason,
            image: status.image.map(asked_for).unwrap_or_default(),
            hash: annotation(label::HASH).unwrap_or_default().to_owned(),
            backoff_seconds: annotation(label::BACKOFF_SECONDS)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            message_from_log: annotation(label::MESSAGE_POLICY) == Some("FallbackToLogsOnError"),
            message_file,
            image_id: if status.image_ref.is_empty() {
                status.image_id
            } else {
                status.image_ref
            },
            log_path: status.log_path,
            id: status.id,
            sandbox_id,
        }
    }
}
