//! CRI's runtime service.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_cri::v1;
use k8s_cri::v1::runtime_service_server::RuntimeService;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::runtime::{Runtime, blocking, through};
use super::sandboxes::HANDLERS;
use super::status::{
    container_item, container_status, sandbox_item, sandbox_state, sandbox_status, selected, state_of,
};
use crate::error::Error;
use crate::supervisor::protocol::Call;

type Answer<T> = Result<Response<T>, Status>;
type Events = Pin<Box<dyn Stream<Item = Result<v1::ContainerEventResponse, Status>> + Send>>;

fn answer<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn not_offered<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("this runtime does not offer {what}")))
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        answer(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "mangrove".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let inner = self.inner.clone();
        let network = blocking(move || inner.ensure_device()).await;
        let condition = |kind: &str, result: Result<(), String>| v1::RuntimeCondition {
            r#type: kind.into(),
            status: result.is_ok(),
            reason: if result.is_ok() {
                String::new()
            } else {
                format!("{kind}Failed")
            },
            message: result.err().unwrap_or_default(),
        };
        let exe = &self.options().supervisor_exe;
        let runtime = match exe.exists() {
            true => Ok(()),
            false => Err(format!("{} is gone", exe.display())),
        };
        let mut info = HashMap::new();
        if request.into_inner().verbose {
            let text = serde_json::json!({
                "cgroup": self.inner.hierarchies.describe(),
                "seccomp": "applied: RuntimeDefault is containerd's list",
                "apparmor": "profiles of the machine's own; there is none of ours",
                "addressesTaken": self.inner.addresses.taken(),
                "root": self.options().root,
            });
            info.insert("config".into(), text.to_string());
        }
        answer(v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", runtime),
                    condition("NetworkReady", network.map_err(|e| e.to_string())),
                ],
            }),
            info,
            runtime_handlers: HANDLERS
                .iter()
                .map(|name| v1::RuntimeHandler {
                    name: (*name).into(),
                    features: Some(v1::RuntimeHandlerFeatures {
                        recursive_read_only_mounts: true,
                        user_namespaces: false,
                    }),
                })
                .collect(),
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
            }),
        })
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let pod_sandbox_id = through(self.inner.clone().run_sandbox(request.into_inner())).await?;
        answer(v1::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        through(self.inner.clone().stop_sandbox(request.into_inner().pod_sandbox_id)).await?;
        answer(v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        through(self.inner.clone().remove_sandbox(request.into_inner().pod_sandbox_id)).await?;
        answer(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.inner.sandbox(&request.pod_sandbox_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let text = sandbox.with(|record| {
                serde_json::json!({
                    "pid": record.supervisor_pid,
                    "engine": "container",
                    "config": record.config,
                })
                .to_string()
            });
            info.insert("info".into(), text);
        }
        answer(v1::PodSandboxStatusResponse {
            status: Some(sandbox_status(&sandbox)),
            info,
            containers_statuses: self.inner.containers_statuses(&sandbox),
            timestamp: super::runtime::now_ns(),
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let sandboxes: Vec<_> = self.inner.state().sandboxes.values().cloned().collect();
        let mut items: Vec<_> = sandboxes
            .iter()
            .filter(|sandbox| filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
            .filter(|sandbox| {
                filter
                    .state
                    .as_ref()
                    .is_none_or(|state| state.state == sandbox_state(sandbox) as i32)
            })
            .filter(|sandbox| sandbox.with(|record| selected(&record.config.labels, &filter.label_selector)))
            .map(|sandbox| sandbox_item(sandbox))
            .collect();
        items.sort_by_key(|item| -item.created_at);
        answer(v1::ListPodSandboxResponse { items })
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let container_id = through(self.inner.clone().create_container(request.into_inner())).await?;
        answer(v1::CreateContainerResponse { container_id })
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        through(self.inner.clone().start_container(request.into_inner().container_id)).await?;
        answer(v1::StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(request.timeout.try_into().unwrap_or(0));
        through(self.inner.clone().stop_container(request.container_id, grace)).await?;
        answer(v1::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        through(self.inner.clone().remove_container(request.into_inner().container_id)).await?;
        answer(v1::RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let all: Vec<_> = self.inner.state().containers.values().cloned().collect();
        let mut containers: Vec<_> = all
            .iter()
            .filter(|container| filter.id.is_empty() || container.id.starts_with(&filter.id))
            .filter(|container| {
                filter.pod_sandbox_id.is_empty() || container.sandbox.starts_with(&filter.pod_sandbox_id)
            })
            .filter(|container| {
                filter
                    .state
                    .as_ref()
                    .is_none_or(|state| state.state == state_of(&container.phase()) as i32)
            })
            .filter(|container| container.with(|record| selected(&record.config.labels, &filter.label_selector)))
            .map(|container| container_item(container))
            .collect();
        containers.sort_by_key(|container| -container.created_at);
        answer(v1::ListContainersResponse { containers })
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.inner.container(&request.container_id)?;
        let directory = self
            .inner
            .sandbox(&container.sandbox)
            .map(|sandbox| sandbox.with(|record| record.config.log_directory.clone()))
            .unwrap_or_default();
        let mut info = HashMap::new();
        if request.verbose {
            let pid = match container.phase() {
                super::records::Phase::Running(state) => state.pid,
                _ => 0,
            };
            let text = container.with(|record| {
                serde_json::json!({"pid": pid, "sandboxID": record.sandbox, "config": record.config}).to_string()
            });
            info.insert("info".into(), text);
        }
        answer(v1::ContainerStatusResponse {
            status: Some(container_status(&container, &directory)),
            info,
        })
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let wanted = request
            .linux
            .ok_or_else(|| Error::Invalid("the request names no resources".into()))?;
        through(self.inner.clone().update_resources(request.container_id, wanted)).await?;
        answer(v1::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let container = self.inner.container(&request.into_inner().container_id)?;
        if !container.is_running() {
            return Err(Error::Precondition(format!("container {} is not running", container.id)).into());
        }
        let sandbox = self.inner.sandbox(&container.sandbox)?;
        let link = sandbox
            .link()
            .ok_or_else(|| Error::Precondition(format!("sandbox {} is stopped", sandbox.id)))?;
        let reopen = Call::ReopenLog {
            container: container.id.clone(),
        };
        link.call(reopen).await?;
        answer(v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        answer(self.inner.clone().exec_sync(request.into_inner()).await?)
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let url = self.inner.exec_url(request.into_inner())?;
        answer(v1::ExecResponse { url })
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        let url = self.inner.attach_url(request.into_inner())?;
        answer(v1::AttachResponse { url })
    }

    async fn port_forward(&self, request: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        let url = self.inner.port_forward_url(request.into_inner())?;
        answer(v1::PortForwardResponse { url })
    }

    async fn container_stats(&self, request: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        let container = self.inner.container(&request.into_inner().container_id)?;
        let inner = self.inner.clone();
        let stats = blocking(move || {
            inner
                .container_stats(&container)
                .ok_or_else(|| Error::Precondition(format!("container {} is not running", container.id)))
        })
        .await?;
        answer(v1::ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let inner = self.inner.clone();
        let stats = blocking(move || {
            let containers: Vec<_> = inner.state().containers.values().cloned().collect();
            Ok(containers
                .iter()
                .filter(|c| filter.id.is_empty() || c.id.starts_with(&filter.id))
                .filter(|c| filter.pod_sandbox_id.is_empty() || c.sandbox.starts_with(&filter.pod_sandbox_id))
                .filter(|c| c.with(|record| selected(&record.config.labels, &filter.label_selector)))
                .filter_map(|c| inner.container_stats(c))
                .collect())
        })
        .await?;
        answer(v1::ListContainerStatsResponse { stats })
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let sandbox = self.inner.sandbox(&request.into_inner().pod_sandbox_id)?;
        let inner = self.inner.clone();
        let stats = blocking(move || inner.sandbox_stats(&sandbox)).await?;
        answer(v1::PodSandboxStatsResponse { stats: Some(stats) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let inner = self.inner.clone();
        let stats = blocking(move || {
            let sandboxes: Vec<_> = inner.state().sandboxes.values().cloned().collect();
            sandboxes
                .iter()
                .filter(|sandbox| sandbox.is_ready())
                .filter(|sandbox| filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
                .filter(|sandbox| sandbox.with(|record| selected(&record.config.labels, &filter.label_selector)))
                .map(|sandbox| inner.sandbox_stats(sandbox))
                .collect()
        })
        .await?;
        answer(v1::ListPodSandboxStatsResponse { stats })
    }

    async fn update_runtime_config(
        &self,
        _: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        // The range of addresses is fixed at opening; the kubelet only needs an answer.
        answer(v1::UpdateRuntimeConfigResponse {})
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        not_offered("checkpoints")
    }

    type GetContainerEventsStream = Events;

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Events> {
        let events = BroadcastStream::new(self.inner.events.subscribe()).map(|event| {
            event.map_err(|_| Status::data_loss("the subscriber fell behind and missed events; list and listen anew"))
        });
        answer(Box::pin(events))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        not_offered("metric descriptors")
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        not_offered("sandbox metrics")
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        answer(v1::RuntimeConfigResponse {
            linux: Some(v1::LinuxRuntimeConfiguration {
                cgroup_driver: v1::CgroupDriver::Cgroupfs as i32,
            }),
        })
    }
}
