//! A runtime in memory, behind a real CRI socket: containers that do nothing until the test says what happens to them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use k8s_cri::v1::image_service_server::{ImageService, ImageServiceServer};
use k8s_cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use k8s_cri::v1::*;
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<ContainerEventResponse>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    sandboxes: BTreeMap<String, (PodSandboxStatus, PodSandboxConfig)>,
    containers: BTreeMap<String, Kept>,
    next: u64,
    images: Vec<String>,
    pulls: Vec<String>,
    /// What was asked for, in order.
    calls: Vec<String>,
    exec: HashMap<String, i32>,
    stream_url: String,
    without_events: bool,
}

#[derive(Clone)]
pub struct Kept {
    pub status: ContainerStatus,
    pub config: ContainerConfig,
    pub sandbox: String,
}

impl Runtime {
    pub fn new() -> Runtime {
        Runtime {
            inner: Arc::new(Mutex::new(Inner::default())),
            events: broadcast::channel(1024).0,
            changed: watch::channel(0).0,
        }
    }

    /// Until the test's own runtime ends.
    pub fn serve(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let (runtime, images) = (self.clone(), self.clone());
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(RuntimeServiceServer::new(runtime))
                .add_service(ImageServiceServer::new(images))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let result = act(&mut self.inner.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    pub fn tell_no_events(&self) {
        self.with(|inner| inner.without_events = true);
    }

    /// The code with which a command in a container will exit.
    pub fn exec_exits(&self, command: &str, code: i32) {
        self.with(|inner| inner.exec.insert(command.to_owned(), code));
    }

    pub fn stream_at(&self, url: &str) {
        self.with(|inner| inner.stream_url = url.to_owned());
    }

    pub fn calls(&self) -> Vec<String> {
        self.with(|inner| inner.calls.clone())
    }

    pub fn pulls(&self) -> Vec<String> {
        self.with(|inner| inner.pulls.clone())
    }

    /// Containers of that name, oldest first.
    pub fn containers(&self, name: &str) -> Vec<Kept> {
        self.with(|inner| {
            let of = inner
                .containers
                .values()
                .filter(|kept| kept.config.metadata.as_ref().unwrap().name == name);
            of.cloned().collect()
        })
    }

    pub fn sandboxes(&self) -> usize {
        self.with(|inner| inner.sandboxes.len())
    }

    /// Waits until `check` holds.
    pub async fn until(&self, what: &str, check: impl Fn(&Runtime) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if check(self) {
                    return;
                }
                // `check` itself counts as a change.
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let limit = std::time::Duration::from_secs(20);
        if tokio::time::timeout(limit, waiting).await.is_err() {
            panic!("{what} never happened; calls: {:#?}", self.calls());
        }
    }

    pub async fn running(&self, name: &str) -> Kept {
        self.until(&format!("{name} running"), |runtime| {
            runtime
                .containers(name)
                .last()
                .is_some_and(|kept| kept.status.state == ContainerState::ContainerRunning as i32)
        })
        .await;
        self.containers(name).pop().unwrap()
    }

    pub fn write_log(&self, name: &str, line: &str) {
        use std::io::Write;
        let kept = self.containers(name).pop().unwrap();
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(kept.status.log_path)
            .unwrap();
        writeln!(file, "2026-01-01T00:00:01Z stdout F {line}").unwrap();
    }

    /// The newest container of that name ends by itself.
    pub fn exit(&self, name: &str, code: i32) {
        let id = self.containers(name).pop().unwrap().status.id;
        self.end(&id, code);
    }

    fn end(&self, id: &str, code: i32) {
        let is_news = self.with(|inner| {
            let Some(kept) = inner.containers.get_mut(id) else {
                return false;
            };
            if kept.status.state == ContainerState::ContainerExited as i32 {
                return false;
            }
            kept.status.state = ContainerState::ContainerExited as i32;
            kept.status.exit_code = code;
            kept.status.finished_at = now();
            true
        });
        if is_news {
            self.tell(id, ContainerEventType::ContainerStoppedEvent);
        }
    }

    fn tell(&self, id: &str, kind: ContainerEventType) {
        let sandbox = self.with(|inner| {
            let kept = inner.containers.get(id)?;
            inner.sandboxes.get(&kept.sandbox).map(|(status, _)| status.clone())
        });
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            pod_sandbox_status: sandbox,
            containers_statuses: vec![],
        });
    }

    fn call(&self, text: String) {
        self.with(|inner| inner.calls.push(text));
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn fits(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

macro_rules! unimplemented_calls {
    ($($name:ident: $request:ty => $answer:ty;)*) => {
        $(fn $name<'a, 'b>(&'a self, _: Request<$request>) -> Pin<Box<dyn Future<Output = Answer<$answer>> + Send + 'b>>
        where 'a: 'b, Self: 'b {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        })*
    };
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        ok(StatusResponse::default())
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap();
        let id = self.with(|inner| {
            inner.next += 1;
            let id = format!("sandbox-{:04}", inner.next);
            let status = PodSandboxStatus {
                id: id.clone(),
                metadata: config.metadata.clone(),
                state: PodSandboxState::SandboxReady as i32,
                created_at: now(),
                network: Some(PodSandboxNetworkStatus {
                    ip: "127.0.0.1".into(),
                    additional_ips: vec![],
                }),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                ..Default::default()
            };
            inner.sandboxes.insert(id.clone(), (status, config));
            id
        });
        self.call(format!("run {id}"));
        ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.call(format!("stop {id}"));
        self.with(|inner| {
            if let Some((status, _)) = inner.sandboxes.get_mut(&id) {
                status.state = PodSandboxState::SandboxNotready as i32;
            }
        });
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.call(format!("remove {id}"));
        self.with(|inner| inner.sandboxes.remove(&id));
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let found = self.with(|inner| inner.sandboxes.get(&id).map(|(status, _)| status.clone()));
        ok(PodSandboxStatusResponse {
            status: Some(found.ok_or_else(|| Status::not_found(id))?),
            ..Default::default()
        })
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let items = self.with(|inner| {
            let all = inner.sandboxes.values().map(|(status, _)| status);
            all.filter(|status| fits(&status.labels, &selector))
                .map(|status| PodSandbox {
                    id: status.id.clone(),
                    metadata: status.metadata.clone(),
                    state: status.state,
                    created_at: status.created_at,
                    labels: status.labels.clone(),
                    ..Default::default()
                })
                .collect()
        });
        ok(ListPodSandboxResponse { items })
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let (config, sandbox_config) = (request.config.unwrap(), request.sandbox_config.unwrap());
        let id = self.with(|inner| {
            inner.next += 1;
            let id = format!("container-{:04}", inner.next);
            let log = PathBuf::from(&sandbox_config.log_directory).join(&config.log_path);
            let status = ContainerStatus {
                id: id.clone(),
                metadata: config.metadata.clone(),
                state: ContainerState::ContainerCreated as i32,
                created_at: now(),
                image: config.image.clone(),
                image_ref: config.image.as_ref().unwrap().image.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                mounts: config.mounts.clone(),
                log_path: log.to_string_lossy().into_owned(),
                ..Default::default()
            };
            let kept = Kept {
                status,
                config,
                sandbox: request.pod_sandbox_id,
            };
            inner.containers.insert(id.clone(), kept);
            id
        });
        self.call(format!("create {id}"));
        ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let log = self.with(|inner| {
            let kept = inner.containers.get_mut(&id).unwrap();
            kept.status.state = ContainerState::ContainerRunning as i32;
            kept.status.started_at = now();
            kept.status.log_path.clone()
        });
        std::fs::File::create(log).unwrap();
        self.tell(&id, ContainerEventType::ContainerStartedEvent);
        ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let name = self.with(|inner| {
            let kept = inner.containers.get(&request.container_id)?;
            Some(kept.config.metadata.clone()?.name)
        });
        self.call(format!("stop {} {}", name.unwrap_or_default(), request.timeout));
        self.end(&request.container_id, 137);
        ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.with(|inner| inner.containers.remove(&id));
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let containers = self.with(|inner| {
            let all = inner.containers.values();
            all.filter(|kept| fits(&kept.status.labels, &selector))
                .map(|kept| Container {
                    id: kept.status.id.clone(),
                    pod_sandbox_id: kept.sandbox.clone(),
                    metadata: kept.status.metadata.clone(),
                    state: kept.status.state,
                    labels: kept.status.labels.clone(),
                    ..Default::default()
                })
                .collect()
        });
        ok(ListContainersResponse { containers })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let found = self.with(|inner| inner.containers.get(&id).map(|kept| kept.status.clone()));
        ok(ContainerStatusResponse {
            status: Some(found.ok_or_else(|| Status::not_found(id))?),
            ..Default::default()
        })
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let command = request.into_inner().cmd.join(" ");
        let exit_code = self.with(|inner| inner.exec.get(&command).copied().unwrap_or(0));
        self.call(format!("exec {command}"));
        ok(ExecSyncResponse {
            exit_code,
            stderr: b"said no".to_vec(),
            ..Default::default()
        })
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        self.call(format!(
            "stream {} stdin={} tty={}",
            request.cmd.join(" "),
            request.stdin,
            request.tty
        ));
        let url = self.with(|inner| inner.stream_url.clone());
        ok(ExecResponse { url })
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        if self.with(|inner| inner.without_events) {
            return Err(Status::unimplemented("GetContainerEvents"));
        }
        let stream = BroadcastStream::new(self.events.subscribe()).filter_map(|event| async { event.ok().map(Ok) });
        ok(Box::pin(stream))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        ok(UpdateRuntimeConfigResponse {})
    }

    unimplemented_calls! {
        update_container_resources: UpdateContainerResourcesRequest => UpdateContainerResourcesResponse;
        reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse;
        attach: AttachRequest => AttachResponse;
        port_forward: PortForwardRequest => PortForwardResponse;
        container_stats: ContainerStatsRequest => ContainerStatsResponse;
        list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse;
        pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse;
        list_pod_sandbox_stats: ListPodSandboxStatsRequest => ListPodSandboxStatsResponse;
        checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse;
        list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse;
        runtime_config: RuntimeConfigRequest => RuntimeConfigResponse;
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap().image;
        let found = self.with(|inner| inner.images.contains(&name));
        let image = found.then(|| Image {
            id: format!("sha256:{name}"),
            ..Default::default()
        });
        ok(ImageStatusResponse {
            image,
            ..Default::default()
        })
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let name = request.into_inner().image.unwrap().image;
        self.with(|inner| inner.pulls.push(name.clone()));
        if name.starts_with("missing") {
            return Err(Status::not_found(format!("{name}: not found in the registry")));
        }
        self.with(|inner| inner.images.push(name.clone()));
        ok(PullImageResponse {
            image_ref: format!("sha256:{name}"),
        })
    }

    unimplemented_calls! {
        list_images: ListImagesRequest => ListImagesResponse;
        remove_image: RemoveImageRequest => RemoveImageResponse;
        image_fs_info: ImageFsInfoRequest => ImageFsInfoResponse;
    }
}
