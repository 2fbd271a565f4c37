//! A runtime of one test's own: its folders, its network, its control group, and an image made of busybox.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use runtime::{Runtime, RuntimeOptions};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

pub const IMAGE: &str = "docker.io/library/busybox:test";

pub struct Machine {
    pub folder: tempfile::TempDir,
    pub options: RuntimeOptions,
    serving: Option<Serving>,
    taken_down: bool,
}

struct Serving {
    runtime: Runtime,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Says why a test can't run here.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("skipped: needs root");
    }
    if busybox().is_none() {
        return Some("skipped: needs busybox (Debian: busybox-static)");
    }
    if !Path::new("/sys/fs/cgroup").exists() {
        return Some("skipped: needs control groups");
    }
    None
}

fn busybox() -> Option<PathBuf> {
    ["/usr/bin/busybox", "/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A root with busybox under all names that tests use.
pub fn layer() -> Vec<u8> {
    let busybox = std::fs::read(busybox().expect("checked by missing()")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    for (name, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)] {
        let mut folder = header(tar::EntryType::Directory, mode, 0);
        tar.append_data(&mut folder, name, &[][..]).unwrap();
    }
    let mut file = header(tar::EntryType::Regular, 0o755, busybox.len());
    tar.append_data(&mut file, "bin/busybox", &busybox[..]).unwrap();
    for name in [
        "sh", "echo", "cat", "sleep", "id", "ls", "ip", "ping", "true", "false", "kill", "nc", "wc", "seq", "mount",
        "touch", "hostname", "env", "pwd", "dd", "tail", "head", "ps", "wget", "httpd", "stty", "trap", "date", "yes",
    ] {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut link, format!("bin/{name}"), "busybox").unwrap();
    }
    for (name, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/tmp:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\nweb:x:44:\nlogs:x:50:web\n"),
    ] {
        let mut file = header(tar::EntryType::Regular, 0o644, text.len());
        tar.append_data(&mut file, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub struct BuiltImage {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub blobs: HashMap<String, Vec<u8>>,
}

impl BuiltImage {
    pub fn new(layers: &[Vec<u8>], config: serde_json::Value) -> BuiltImage {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| digest(l)).collect::<Vec<_>>()},
        })
        .to_string()
        .into_bytes();
        let mut blobs = HashMap::new();
        let mut descriptors = Vec::new();
        for layer in layers {
            let packed = gzip(layer);
            descriptors.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&packed), "size": packed.len(),
            }));
            blobs.insert(digest(&packed), packed);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len(),
            },
            "layers": descriptors,
        })
        .to_string()
        .into_bytes();
        blobs.insert(digest(&config), config.clone());
        blobs.insert(digest(&manifest), manifest.clone());
        BuiltImage {
            manifest,
            config,
            blobs,
        }
    }

    pub fn busybox() -> BuiltImage {
        BuiltImage::new(
            &[layer()],
            json!({"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"]}),
        )
    }

    pub fn manifest_digest(&self) -> String {
        digest(&self.manifest)
    }

    /// As an OCI archive.
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            (
                "index.json".into(),
                json!({"schemaVersion": 2, "manifests": [{
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": self.manifest_digest(), "size": self.manifest.len(),
                    "annotations": {"io.containerd.image.name": name},
                }]})
                .to_string()
                .into_bytes(),
            ),
        ];
        for (digest, bytes) in &self.blobs {
            files.push((format!("blobs/sha256/{}", &digest[7..]), bytes.clone()));
        }
        archive(&files)
    }
}

pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

impl Machine {
    /// Folders and names for one test; nothing runs yet.
    pub fn new() -> Machine {
        // Different processes and tests must not meet on one interface or in one control group.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() % 20_000) * 8 + NEXT.fetch_add(1, Ordering::Relaxed) % 8;
        let folder = tempfile::tempdir().unwrap();
        let mut options = RuntimeOptions::new(
            folder.path().join("root"),
            folder.path().join("run"),
            folder.path().join("cri.sock"),
            env!("CARGO_BIN_EXE_cri-host"),
        );
        options.device = format!("mgt{number}");
        options.cgroup_root = format!("mangrove-test-{number}");
        // Blocks of sixteen addresses in a range that nobody routes.
        let block = number % 65_536;
        options.pod_cidr = format!("198.18.{}.{}/28", block / 16 % 256, block % 16 * 16);
        Machine {
            folder,
            options,
            serving: None,
            taken_down: false,
        }
    }

    /// A machine with a runtime that serves and has the busybox image.
    pub async fn ready() -> Machine {
        let mut machine = Machine::new();
        machine.start().await;
        machine.import_busybox().await;
        machine
    }

    pub async fn start(&mut self) {
        let runtime = Runtime::open(self.options.clone()).await.unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let (runtime, shutdown) = (runtime.clone(), shutdown.clone());
            async move { runtime.serve(shutdown).await.unwrap() }
        });
        self.serving = Some(Serving {
            runtime,
            shutdown,
            task,
        });
        // The socket is there once it answers.
        while UnixStream::connect(&self.options.socket).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// Ends the server as a clean exit would; containers go on.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.shutdown.cancel();
            serving.task.await.unwrap();
            drop(serving.runtime);
        }
    }

    pub fn runtime(&self) -> &Runtime {
        &self.serving.as_ref().expect("the runtime was started").runtime
    }

    pub async fn import_busybox(&self) {
        let archive = BuiltImage::busybox().oci_archive(IMAGE);
        self.runtime().import(std::io::Cursor::new(archive)).await.unwrap();
    }

    async fn channel(&self) -> Channel {
        let path = self.options.socket.clone();
        Endpoint::from_static("http://cri")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            }))
            .await
            .unwrap()
    }

    pub async fn cri(&self) -> Cri {
        let channel = self.channel().await;
        Cri {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            logs: self.folder.path().join("logs"),
        }
    }

    /// Ends all of it and checks that nothing is left.
    pub async fn take_down(mut self) {
        if self.serving.is_none() {
            self.start().await;
        }
        self.runtime().teardown().await.unwrap();
        self.stop().await;
        self.taken_down = true;
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }

    /// Traces on the machine: processes, mounts, interfaces, control groups.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let folder = self.folder.path().to_string_lossy().into_owned();
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            if line.contains(&folder) {
                found.push(format!("mount {line}"));
            }
        }
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&folder) {
                found.push(format!("process {}", String::from_utf8_lossy(&command)));
            }
        }
        if Path::new("/sys/class/net").join(&self.options.device).exists() {
            found.push(format!("interface {}", self.options.device));
        }
        for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            for group in [
                entry.path().join(&self.options.cgroup_root),
                Path::new("/sys/fs/cgroup").join(&self.options.cgroup_root),
            ] {
                if group.exists() {
                    found.push(format!("control group {}", group.display()));
                }
            }
        }
        found
    }
}

impl Drop for Machine {
    /// A failed test still must not leave processes behind.
    fn drop(&mut self) {
        if self.taken_down || !self.options.root.exists() {
            return;
        }
        let serving = self.serving.take();
        let options = self.options.clone();
        // The test's own threads still run, and this one may not wait inside of them.
        let _ = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio.block_on(async {
                let runtime = match serving {
                    Some(serving) => serving.runtime,
                    None => match Runtime::open(options).await {
                        Ok(runtime) => runtime,
                        Err(e) => return eprintln!("left behind: {e}"),
                    },
                };
                if let Err(e) = runtime.teardown().await {
                    eprintln!("left behind: {e}");
                }
            });
            Ok::<_, std::io::Error>(())
        })
        .join();
    }
}

#[derive(Clone)]
pub struct Cri {
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    pub logs: PathBuf,
}

pub fn sandbox_config(name: &str, logs: &Path) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "tests".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: logs.join(name).to_string_lossy().into_owned(),
        labels: HashMap::from([("app".into(), name.into())]),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn container_config(name: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(v1::ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        ..Default::default()
    }
}

impl Cri {
    pub async fn sandbox(&mut self, name: &str) -> String {
        let config = sandbox_config(name, &self.logs);
        self.sandbox_of(config).await
    }

    pub async fn sandbox_of(&mut self, config: v1::PodSandboxConfig) -> String {
        let request = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        self.runtime
            .run_pod_sandbox(request)
            .await
            .unwrap()
            .into_inner()
            .pod_sandbox_id
    }

    pub async fn create(&mut self, sandbox: &str, config: v1::ContainerConfig) -> String {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: None,
        };
        self.runtime
            .create_container(request)
            .await
            .unwrap()
            .into_inner()
            .container_id
    }

    pub async fn start(&mut self, container: &str) {
        let request = v1::StartContainerRequest {
            container_id: container.into(),
        };
        self.runtime.start_container(request).await.unwrap();
    }

    /// Creates and starts.
    pub async fn run(&mut self, sandbox: &str, config: v1::ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.start(&id).await;
        id
    }

    pub async fn status(&mut self, container: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest {
            container_id: container.into(),
            verbose: false,
        };
        self.runtime
            .container_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap()
    }

    pub async fn sandbox_status(&mut self, sandbox: &str) -> v1::PodSandboxStatus {
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.into(),
            verbose: false,
        };
        self.runtime
            .pod_sandbox_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap()
    }

    pub async fn address(&mut self, sandbox: &str) -> String {
        self.sandbox_status(sandbox).await.network.unwrap().ip
    }

    pub async fn events(&mut self) -> tonic::Streaming<v1::ContainerEventResponse> {
        self.runtime
            .get_container_events(v1::GetEventsRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    /// Waits for the container's end, by event.
    pub async fn ended(&mut self, container: &str) -> v1::ContainerStatus {
        let mut events = self.events().await;
        loop {
            let status = self.status(container).await;
            if status.state == v1::ContainerState::ContainerExited as i32 {
                return status;
            }
            tokio::time::timeout(Duration::from_secs(30), events.message())
                .await
                .expect("an event in time")
                .unwrap();
        }
    }

    pub async fn exec(&mut self, container: &str, command: &[&str]) -> v1::ExecSyncResponse {
        self.try_exec(container, command, 30).await.unwrap()
    }

    pub async fn try_exec(
        &mut self,
        container: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<v1::ExecSyncResponse, tonic::Status> {
        let request = v1::ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout,
        };
        Ok(self.runtime.exec_sync(request).await?.into_inner())
    }

    pub async fn exec_text(&mut self, container: &str, command: &[&str]) -> String {
        let response = self.exec(container, command).await;
        let text = String::from_utf8_lossy(&response.stdout).trim().to_owned();
        assert_eq!(
            response.exit_code,
            0,
            "{command:?}: {text} {}",
            String::from_utf8_lossy(&response.stderr)
        );
        text
    }

    pub async fn stop_sandbox(&mut self, sandbox: &str) {
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: sandbox.into(),
        };
        self.runtime.stop_pod_sandbox(request).await.unwrap();
    }

    pub async fn remove_sandbox(&mut self, sandbox: &str) {
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.into(),
        };
        self.runtime.remove_pod_sandbox(request).await.unwrap();
    }

    /// The log's lines without their times.
    pub fn log(&self, sandbox: &str, container: &str) -> Vec<String> {
        let path = self.logs.join(sandbox).join(format!("{container}.log"));
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest).to_owned())
            .collect()
    }
}
