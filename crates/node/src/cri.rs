//! The runtime, over its CRI Unix socket. A thin client: the verbs that the agent uses, typed errors, a time limit on
//! each call, and what it lists already in the agent's words.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request};

use crate::pod::observed::{Container, Observed, Sandbox, label};

/// As kubelet's `--runtime-request-timeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A large image over a slow line.
const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// ExecSync may answer with 16 MiB of each stream.
const ANSWER_BYTES_MAX: usize = 36 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The runtime refused, or is not there.
    #[error("{}", .status.message())]
    Call {
        call: &'static str,
        status: Box<tonic::Status>,
    },
    #[error("the runtime's answer to {0} has no content")]
    Empty(&'static str),
    /// The Pod wants a way of running that the plane does not define.
    #[error("RuntimeClass {name:?}: {problem}")]
    RuntimeClass { name: String, problem: String },
    #[error("{0:?} cannot be a CRI socket")]
    Socket(PathBuf),
}

impl CriError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, CriError::Call { status, .. } if status.code() == Code::NotFound)
    }

    pub fn is_unimplemented(&self) -> bool {
        matches!(self, CriError::Call { status, .. } if status.code() == Code::Unimplemented)
    }
}

fn failed(call: &'static str) -> impl FnOnce(tonic::Status) -> CriError {
    move |status| CriError::Call {
        call,
        status: Box::new(status),
    }
}

/// Cheap to clone; connects when first used, and again when the runtime comes back.
#[derive(Clone)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

macro_rules! call {
    ($client:expr, $method:ident, $request:expr, $timeout:expr) => {{
        let mut request = Request::new($request);
        request.set_timeout($timeout);
        tokio::time::timeout($timeout, $client.clone().$method(request))
            .await
            .unwrap_or_else(|_| {
                Err(tonic::Status::deadline_exceeded(concat!(
                    stringify!($method),
                    ": no answer in time"
                )))
            })
            .map(tonic::Response::into_inner)
            .map_err(failed(stringify!($method)))
    }};
}

impl Runtime {
    /// `socket` may be a path or `unix:///path`.
    pub fn new(socket: &Path) -> Result<Runtime, CriError> {
        let path = match socket.to_str().and_then(|text| text.strip_prefix("unix://")) {
            Some(path) => PathBuf::from(path),
            None => socket.to_owned(),
        };
        if path.as_os_str().is_empty() {
            return Err(CriError::Socket(path));
        }
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name only fills the `:authority` header.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(connector);
        Ok(Runtime {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }

    pub async fn version(&self) -> Result<cri::VersionResponse, CriError> {
        let version = "v1".to_owned();
        call!(self.runtime, version, cri::VersionRequest { version }, CALL_TIMEOUT)
    }

    /// Conditions that are not met, in the runtime's words; empty when it is ready.
    pub async fn unready(&self) -> Result<Vec<String>, CriError> {
        let answer = call!(self.runtime, status, cri::StatusRequest::default(), CALL_TIMEOUT)?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(conditions
            .into_iter()
            .filter(|condition| !condition.status && matches!(&*condition.r#type, "RuntimeReady" | "NetworkReady"))
            .map(|condition| format!("{}: {} {}", condition.r#type, condition.reason, condition.message))
            .collect())
    }

    /// Tells the runtime the node's Pod range; runtimes with a network of their own ignore it.
    pub async fn update_config(&self, pod_cidr: &str) -> Result<(), CriError> {
        let runtime_config = Some(cri::RuntimeConfig {
            network_config: Some(cri::NetworkConfig {
                pod_cidr: pod_cidr.to_owned(),
            }),
        });
        let request = cri::UpdateRuntimeConfigRequest { runtime_config };
        call!(self.runtime, update_runtime_config, request, CALL_TIMEOUT).map(drop)
    }

    /// Pods that have sandboxes here which this node's agent made.
    pub async fn our_pods(&self, node_name: &str) -> Result<Vec<OurPod>, CriError> {
        let filter = cri::PodSandboxFilter {
            label_selector: HashMap::from([(label::NODE.to_owned(), node_name.to_owned())]),
            ..Default::default()
        };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        let answer = call!(self.runtime, list_pod_sandbox, request, CALL_TIMEOUT)?;
        let mut pods = Vec::new();
        for sandbox in answer.items {
            let Some(metadata) = sandbox.metadata else { continue };
            let ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
            let ips = match ready {
                true => self.ips_of(&sandbox.id).await?,
                false => Vec::new(),
            };
            pods.push(OurPod {
                uid: metadata.uid,
                namespace: metadata.namespace,
                name: metadata.name,
                annotations: sandbox.annotations.into_iter().collect(),
                ips,
            });
        }
        Ok(pods)
    }

    async fn ips_of(&self, sandbox: &str) -> Result<Vec<IpAddr>, CriError> {
        match self.sandbox_status(sandbox).await {
            Ok(status) => Ok(Sandbox::from_cri(status).ips),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// All that the runtime has of one Pod.
    pub async fn observe(&self, uid: &str) -> Result<Observed, CriError> {
        let selector = HashMap::from([(label::POD_UID.to_owned(), uid.to_owned())]);
        let filter = cri::PodSandboxFilter {
            label_selector: selector.clone(),
            ..Default::default()
        };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        let listed = call!(self.runtime, list_pod_sandbox, request, CALL_TIMEOUT)?;
        let mut sandboxes = Vec::new();
        for sandbox in listed.items {
            match self.sandbox_status(&sandbox.id).await {
                Ok(status) => sandboxes.push(Sandbox::from_cri(status)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let filter = cri::ContainerFilter {
            label_selector: selector,
            ..Default::default()
        };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        let listed = call!(self.runtime, list_containers, request, CALL_TIMEOUT)?;
        let mut containers = Vec::new();
        for container in listed.containers {
            let request = cri::ContainerStatusRequest {
                container_id: container.id,
                verbose: false,
            };
            match call!(self.runtime, container_status, request, CALL_TIMEOUT) {
                Ok(answer) => {
                    let status = answer.status.ok_or(CriError::Empty("container_status"))?;
                    containers.push(Container::from_cri(container.pod_sandbox_id, status));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Observed::new(sandboxes, containers))
    }

    /// Every container's Pod, id and state, for runtimes that tell no events.
    pub async fn states(&self) -> Result<HashMap<String, (String, i32)>, CriError> {
        let answer = call!(
            self.runtime,
            list_containers,
            cri::ListContainersRequest::default(),
            CALL_TIMEOUT
        )?;
        let mut states: HashMap<String, (String, i32)> = answer
            .containers
            .into_iter()
            .filter_map(|container| {
                let uid = container.labels.get(label::POD_UID)?.clone();
                Some((container.id, (uid, container.state)))
            })
            .collect();
        let request = cri::ListPodSandboxRequest::default();
        let answer = call!(self.runtime, list_pod_sandbox, request, CALL_TIMEOUT)?;
        for sandbox in answer.items {
            if let Some(metadata) = sandbox.metadata {
                states.insert(sandbox.id, (metadata.uid, sandbox.state));
            }
        }
        Ok(states)
    }

    async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, CriError> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let answer = call!(self.runtime, pod_sandbox_status, request, CALL_TIMEOUT)?;
        answer.status.ok_or(CriError::Empty("pod_sandbox_status"))
    }

    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String, CriError> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: handler.to_owned(),
        };
        Ok(call!(self.runtime, run_pod_sandbox, request, CALL_TIMEOUT)?.pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let pod_sandbox_id = id.to_owned();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id };
        gone_is_fine(call!(self.runtime, stop_pod_sandbox, request, CALL_TIMEOUT).map(drop))
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let pod_sandbox_id = id.to_owned();
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id };
        gone_is_fine(call!(self.runtime, remove_pod_sandbox, request, CALL_TIMEOUT).map(drop))
    }

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime, create_container, request, CALL_TIMEOUT)?.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let container_id = id.to_owned();
        let request = cri::StartContainerRequest { container_id };
        call!(self.runtime, start_container, request, CALL_TIMEOUT).map(drop)
    }

    /// Asks the container to end, and kills it after `grace_seconds`. Returns when it has ended.
    pub async fn stop_container(&self, id: &str, grace_seconds: u64) -> Result<(), CriError> {
        let request = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(grace_seconds).unwrap_or(i64::MAX),
        };
        let timeout = CALL_TIMEOUT.saturating_add(Duration::from_secs(grace_seconds.min(7 * 24 * 3600)));
        gone_is_fine(call!(self.runtime, stop_container, request, timeout).map(drop))
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let container_id = id.to_owned();
        let request = cri::RemoveContainerRequest { container_id };
        gone_is_fine(call!(self.runtime, remove_container, request, CALL_TIMEOUT).map(drop))
    }

    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let container_id = id.to_owned();
        let request = cri::ReopenContainerLogRequest { container_id };
        call!(self.runtime, reopen_container_log, request, CALL_TIMEOUT).map(drop)
    }

    pub async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse, CriError> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).max(1),
        };
        // The runtime ends the command; the call is given a little longer than that.
        let timeout = timeout + Duration::from_secs(5);
        call!(self.runtime, exec_sync, request, timeout)
    }

    pub async fn exec_url(&self, request: cri::ExecRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime, exec, request, CALL_TIMEOUT)?.url)
    }

    pub async fn attach_url(&self, request: cri::AttachRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime, attach, request, CALL_TIMEOUT)?.url)
    }

    pub async fn port_forward_url(&self, request: cri::PortForwardRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime, port_forward, request, CALL_TIMEOUT)?.url)
    }

    pub async fn stats(&self) -> Result<Vec<cri::ContainerStats>, CriError> {
        let request = cri::ListContainerStatsRequest::default();
        Ok(call!(self.runtime, list_container_stats, request, CALL_TIMEOUT)?.stats)
    }

    /// What happens to containers, as it happens.
    pub async fn events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>, CriError> {
        self.runtime
            .clone()
            .get_container_events(cri::GetEventsRequest {})
            .await
            .map(tonic::Response::into_inner)
            .map_err(failed("get_container_events"))
    }

    /// The image, if it is here.
    pub async fn image(&self, image: cri::ImageSpec) -> Result<Option<cri::Image>, CriError> {
        let request = cri::ImageStatusRequest {
            image: Some(image),
            verbose: false,
        };
        Ok(call!(self.images, image_status, request, CALL_TIMEOUT)?.image)
    }

    pub async fn images(&self) -> Result<Vec<cri::Image>, CriError> {
        let request = cri::ListImagesRequest::default();
        Ok(call!(self.images, list_images, request, CALL_TIMEOUT)?.images)
    }

    pub async fn remove_image(&self, id: &str) -> Result<(), CriError> {
        let image = Some(cri::ImageSpec {
            image: id.to_owned(),
            ..Default::default()
        });
        let request = cri::RemoveImageRequest { image };
        gone_is_fine(call!(self.images, remove_image, request, CALL_TIMEOUT).map(drop))
    }

    /// Ids of images that containers have, running or not.
    pub async fn used_images(&self) -> Result<BTreeSet<String>, CriError> {
        let request = cri::ListContainersRequest::default();
        let answer = call!(self.runtime, list_containers, request, CALL_TIMEOUT)?;
        // Older runtimes say in `image_ref` what newer ones say in `image_id`.
        let ids = answer
            .containers
            .into_iter()
            .flat_map(|container| [container.image_id, container.image_ref]);
        Ok(ids.filter(|id| !id.is_empty()).collect())
    }

    pub async fn pull(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = cri::PullImageRequest {
            image: Some(image),
            auth,
            sandbox_config: Some(sandbox),
        };
        Ok(call!(self.images, pull_image, request, PULL_TIMEOUT)?.image_ref)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OurPod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub annotations: BTreeMap<String, String>,
    /// Of its sandbox, while that is ready.
    pub ips: Vec<IpAddr>,
}

fn gone_is_fine(result: Result<(), CriError>) -> Result<(), CriError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
