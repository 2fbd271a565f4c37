//! The runtime as a whole: opening, serving, taking down.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_cri::v1;
use k8s_cri::v1::image_service_server::ImageServiceServer;
use k8s_cri::v1::runtime_service_server::RuntimeServiceServer;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::exec::Execs;
use super::options::{Cidr, RuntimeOptions};
use super::records::{Container, Sandbox};
use super::streams::StreamServer;
use crate::error::{Doing, Error, Result};
use crate::image::{Image, ImageStore};
use crate::system::cgroup::Hierarchies;
use crate::system::mounts;
use crate::system::netlink::{Netlink, hardware_address};

/// Events that a slow subscriber may be behind; then it is cut off and lists anew. A node's worth of Pods ending at once
/// (110 Pods, a few containers each, four events a container) fits.
const MAX_EVENTS_BEHIND: usize = 4096;

/// CRI requests carry whole configurations; this is the kubelet's own limit (16 MiB).
const MAX_CRI_MESSAGE_BYTES: usize = 16 << 20;

/// A CRI v1 runtime on this machine. Cheap to clone.
///
/// Dropping it (or killing its process) leaves all containers running; opening it again finds them.
#[derive(Clone)]
pub struct Runtime {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub options: RuntimeOptions,
    pub images: ImageStore,
    pub addresses: Addresses,
    pub hierarchies: Hierarchies,
    pub capabilities: u64,
    pub events: broadcast::Sender<v1::ContainerEventResponse>,
    pub execs: Execs,
    pub streams: StreamServer,
    state: Mutex<State>,
    /// Held for as long as this runtime lives, so that no second one opens the same folder.
    _lock: fs::File,
}

#[derive(Default)]
pub(super) struct State {
    pub sandboxes: HashMap<String, Arc<Sandbox>>,
    pub containers: HashMap<String, Arc<Container>>,
    /// Who holds a name, also while it is being made.
    pub sandbox_names: HashMap<SandboxName, String>,
    pub container_names: HashMap<ContainerName, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SandboxName {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ContainerName {
    pub sandbox: String,
    pub name: String,
    pub attempt: u32,
}

impl Inner {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn sandbox_folder(&self, id: &str) -> PathBuf {
        self.options.root.join("sandboxes").join(id)
    }

    pub fn container_folder(&self, id: &str) -> PathBuf {
        self.options.root.join("containers").join(id)
    }

    pub fn run_folder(&self, id: &str) -> PathBuf {
        self.options.run.join("sandboxes").join(id)
    }

    pub fn supervisor_cgroup(&self) -> String {
        format!("/{}/supervisors", self.options.cgroup_root)
    }

    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        find(&self.state().sandboxes, id)
            .cloned()
            .ok_or_else(|| Error::not_found("sandbox", id))
    }

    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        find(&self.state().containers, id)
            .cloned()
            .ok_or_else(|| Error::not_found("container", id))
    }

    pub fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut containers: Vec<_> = self
            .state()
            .containers
            .values()
            .filter(|c| c.sandbox == sandbox)
            .cloned()
            .collect();
        containers.sort_by_key(|c| c.with(|record| record.created_ns));
        containers
    }
}

/// Whole ids first, then beginnings that mean one thing (people shorten ids).
fn find<'a, T>(map: &'a HashMap<String, T>, id: &str) -> Option<&'a T> {
    if let Some(found) = map.get(id) {
        return Some(found);
    }
    if id.len() < 8 {
        return None;
    }
    let mut matching = map.iter().filter(|(known, _)| known.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Some(found),
        _ => None,
    }
}

pub(super) fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

/// 128 random bits: never the same twice, short enough for socket paths and mount options.
pub(super) fn new_id() -> String {
    use world::Random;
    let mut bytes = [0; 16];
    world::OsRandom.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs file work on a thread that may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Supervisor(format!("work on the disk stopped: {e}"))),
    }
}

/// Carries a change through to its end even if the caller hangs up half-way.
pub(super) async fn through<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Supervisor(format!("the call stopped: {e}"))),
    }
}

impl Runtime {
    /// Opens the runtime's folders, finds what runs, and clears away what a crash left half made.
    pub async fn open(options: RuntimeOptions) -> Result<Runtime> {
        let inner = blocking(move || Inner::open(options)).await?;
        let runtime = Runtime { inner: Arc::new(inner) };
        super::recover::recover(&runtime.inner).await?;
        runtime.inner.streams.start(Arc::downgrade(&runtime.inner)).await?;
        Ok(runtime)
    }

    pub fn options(&self) -> &RuntimeOptions {
        &self.inner.options
    }

    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Brings in all images of an OCI or docker archive (a tar, perhaps gzipped).
    pub async fn import_archive(&self, path: impl AsRef<Path>) -> Result<Vec<Image>> {
        let path = path.as_ref().to_owned();
        let file = tokio::fs::File::open(&path)
            .await
            .doing(|| format!("open {}", path.display()))?
            .into_std()
            .await;
        self.import(file).await
    }

    pub async fn import(&self, reader: impl Read + Send + 'static) -> Result<Vec<Image>> {
        let images = self.inner.images.clone();
        blocking(move || images.import(reader)).await
    }

    /// Serves CRI on its socket until `shutdown` is cancelled. Containers go on running.
    pub async fn serve(&self, shutdown: CancellationToken) -> Result<()> {
        let listener = self.listen().await?;
        let runtime = RuntimeServiceServer::new(self.clone()).max_decoding_message_size(MAX_CRI_MESSAGE_BYTES);
        let image = ImageServiceServer::new(self.clone()).max_decoding_message_size(MAX_CRI_MESSAGE_BYTES);
        let served = tonic::transport::Server::builder()
            .add_service(runtime)
            .add_service(image)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.clone().cancelled_owned());
        // Event streams have no end of their own, so waiting for all connections would take for ever.
        tokio::select! {
            result = served => result.map_err(|e| Error::Supervisor(format!("CRI server: {e}")))?,
            () = shutdown.cancelled() => {}
        }
        let _ = fs::remove_file(&self.inner.options.socket);
        Ok(())
    }

    async fn listen(&self) -> Result<UnixListener> {
        let path = &self.inner.options.socket;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).doing(|| format!("make {}", folder.display()))?;
        }
        // A socket that nobody answers is a dead server's.
        if path.exists() {
            if UnixStream::connect(path).await.is_ok() {
                return Err(Error::Exists(format!(
                    "{} is served by another process",
                    path.display()
                )));
            }
            let _ = fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).doing(|| format!("listen on {}", path.display()))?;
        use std::os::unix::fs::PermissionsExt;
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o660));
        Ok(listener)
    }

    /// Stops all sandboxes and leaves no process, mount, control group or interface. What is on disk (images, records of
    /// what was) stays.
    pub async fn teardown(&self) -> Result<()> {
        let ids: Vec<String> = self.inner.state().sandboxes.keys().cloned().collect();
        let stops = ids.iter().map(|id| self.inner.clone().stop_sandbox(id.clone()));
        for result in futures::future::join_all(stops).await {
            result?;
        }
        let inner = self.inner.clone();
        blocking(move || {
            let root = format!("/{}", inner.options.cgroup_root);
            inner.hierarchies.kill(&root);
            for _ in 0..CGROUP_TRIES {
                if inner.hierarchies.remove(&root).is_ok() {
                    break;
                }
                // The kernel counts a killed process as a member until it has been reaped.
                std::thread::sleep(CGROUP_PAUSE);
            }
            mounts::unmount_below(&inner.options.run).doing(|| "unmount what is left")?;
            let _ = fs::remove_dir_all(&inner.options.run);
            let mut netlink = Netlink::open().doing(|| "open netlink")?;
            if let Some(index) = netlink
                .index_of(&inner.options.device)
                .doing(|| "find the gateway's interface")?
            {
                netlink.delete(index).doing(|| "remove the gateway's interface")?;
            }
            Ok(())
        })
        .await
    }
}

/// Two seconds in all for the kernel to let go of killed processes; what remains then is reported by the next opening.
const CGROUP_TRIES: usize = 200;
const CGROUP_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

impl Inner {
    fn open(mut options: RuntimeOptions) -> Result<Inner> {
        // Namespaces and control groups of containers are the kernel's to give, and it gives them to root.
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::Precondition("the container runtime needs to run as root".into()));
        }
        let cidr = Cidr::parse(&options.pod_cidr)?;
        for folder in ["sandboxes", "containers"] {
            let folder = options.root.join(folder);
            fs::create_dir_all(&folder).doing(|| format!("make {}", folder.display()))?;
        }
        let run = options.run.join("sandboxes");
        fs::create_dir_all(&run).doing(|| format!("make {}", run.display()))?;
        options.root = options.root.canonicalize().doing(|| "resolve the root folder")?;
        options.run = options.run.canonicalize().doing(|| "resolve the run folder")?;
        let lock = lock_folder(&options.root)?;
        let hierarchies = Hierarchies::find().doing(|| "read the mount table")?;
        if !hierarchies.exist() {
            return Err(Error::Precondition(
                "no control groups are mounted: neither cgroup2 at /sys/fs/cgroup nor version 1 with memory".into(),
            ));
        }
        let supervisors = format!("/{}/supervisors", options.cgroup_root);
        hierarchies
            .make(&supervisors)
            .doing(|| format!("make control group {supervisors}"))?;
        let images = ImageStore::open(options.root.join("images"), options.root.join("layers"))?;
        let addresses = Addresses::open(options.root.join("addresses"), cidr)?;
        let (events, _) = broadcast::channel(MAX_EVENTS_BEHIND);
        // The ring provider is the house's; whoever was first keeps theirs.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = Inner {
            options,
            images,
            addresses,
            hierarchies,
            capabilities: super::spec::available(),
            events,
            execs: Execs::default(),
            streams: StreamServer::new(),
            state: Mutex::new(State::default()),
            _lock: lock,
        };
        inner.ensure_device()?;
        Ok(inner)
    }

    /// The interface with the gateway's address. A bridge without ports: what every kernel has that holds an address.
    pub(super) fn ensure_device(&self) -> Result<()> {
        let cidr = self.addresses.cidr();
        let name = &self.options.device;
        let doing = || format!("make interface {name}");
        let mut netlink = Netlink::open().doing(doing)?;
        if netlink.index_of(name).doing(doing)?.is_none() {
            netlink
                .add_bridge(name, hardware_address(cidr.gateway()))
                .doing(doing)?;
        }
        let index = netlink
            .index_of(name)
            .doing(doing)?
            .ok_or_else(|| Error::Precondition(format!("interface {name} went away")))?;
        // The whole range leads here; each sandbox's own route is more exact, and what is nobody's goes nowhere.
        netlink.add_address(index, cidr.gateway(), cidr.prefix).doing(doing)?;
        netlink.set_up(index).doing(doing)?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").doing(|| "switch IP forwarding on")
    }
}

fn lock_folder(root: &Path) -> Result<fs::File> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))
        .doing(|| "open the lock")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Exists(format!(
            "{} is in use by another runtime",
            root.display()
        ))),
        Err(fs::TryLockError::Error(e)) => Err(e).doing(|| "lock the root folder"),
    }
}
