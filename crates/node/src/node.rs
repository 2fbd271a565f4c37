//! Putting the agent together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use client::Client;
use network::proxy::Proxy;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use world::World;

use crate::agent::context::{self, Context, PULLS_MAX};
use crate::agent::events::Events;
use crate::agent::heartbeat::Heartbeat;
use crate::agent::log_rotation;
use crate::agent::neighbours;
use crate::agent::objects::Objects;
use crate::agent::pods::{self, Pods};
use crate::agent::pressure;
use crate::agent::runtime_events;
use crate::agent::services::ServiceView;
use crate::agent::tokens::{PlaneTokens, TokenSource};
use crate::agent::volume_directories;
use crate::agent::walls::{CircleOf, Walls};
use crate::container::dns::{ClusterDns, parse_resolv_conf};
use crate::container::service_env::KubernetesService;
use crate::cri::{CriError, Runtime};
use crate::kubelet_api::{self, KubeletTls};
use crate::machine;

/// What an agent is told.
pub struct NodeOptions {
    /// The Node object's name.
    pub name: String,
    /// The plane whose Pods run here, with rights as kubelet has them.
    pub client: Client,
    pub cri_socket: PathBuf,
    /// Where Pods' volumes and logs are kept.
    pub root: PathBuf,
    pub pod_cidr: String,
    /// Where this machine is reached.
    pub address: IpAddr,
    pub kubelet_listener: TcpListener,
    pub tls: KubeletTls,
    pub cluster_dns: Option<Ipv4Addr>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// Who mints Pods' tokens; the plane itself if absent.
    pub token_source: Option<Arc<dyn TokenSource>>,
    /// Where Pods find the API; the `kubernetes` Service if absent.
    pub kubernetes_service: Option<KubernetesService>,
    /// The kernel's rules for Services; without it somebody else serves them.
    pub proxy: Option<Proxy>,
    /// Whom a Pod may reach, by its annotations; everybody if absent.
    pub circles: Option<CircleOf>,
    pub door: Door,
    /// Of the Node object, beside our own.
    pub annotations: BTreeMap<String, String>,
    pub world: World,
}

/// Where the planes' door is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// On this machine; its Node says so to the others.
    Here,
    /// On the machine whose Node says so: a route for this range leads there.
    There(network::Range),
    /// There is none of ours.
    Nowhere,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the container runtime at {socket}: {source}", socket = socket.display())]
    Runtime { socket: PathBuf, source: CriError },
    #[error("{path}: {source}", path = path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("separating Pods: {0}")]
    Walls(#[from] network::Error),
    #[error(transparent)]
    Tls(#[from] kubelet_api::TlsError),
}

/// A running agent. Dropping it, or `stop`, ends its tasks and leaves every container as it is.
pub struct Running {
    pods: Pods,
    address: SocketAddr,
    tasks: Vec<AbortOnDropHandle<()>>,
}

pub struct Node;

impl Node {
    pub async fn start(options: NodeOptions) -> Result<Running, StartError> {
        let NodeOptions {
            name,
            client,
            cri_socket,
            root,
            world,
            ..
        } = options;
        let in_runtime = |source| StartError::Runtime {
            socket: cri_socket.clone(),
            source,
        };
        let runtime = Runtime::new(&cri_socket).map_err(in_runtime)?;
        let version = runtime.version().await.map_err(in_runtime)?;
        for path in [root.clone(), context::logs(&root), root.join("pods")] {
            std::fs::create_dir_all(&path).map_err(|source| StartError::Directory { path, source })?;
        }
        // Bind mounts and the runtime need whole paths.
        let root = std::fs::canonicalize(&root).map_err(|source| StartError::Directory {
            path: root.clone(),
            source,
        })?;
        if let Err(error) = runtime.update_config(&options.pod_cidr).await {
            tracing::debug!(%error, "the runtime takes no Pod range");
        }
        let address = options
            .kubelet_listener
            .local_addr()
            .map_err(|source| StartError::Directory {
                path: PathBuf::from("kubelet's listener"),
                source,
            })?;

        let walls = Walls::new(options.proxy.clone(), options.circles);
        let found = runtime.our_pods(&name).await.map_err(in_runtime)?;
        walls
            .begin(&found, options.address, machine::gateway(&options.pod_cidr))
            .await?;
        let machine = machine::read(&root);
        let client = client.with_manager("kubelet");
        let context = Arc::new(Context {
            events: Events::start(client.clone(), world.clone(), name.clone()),
            objects: Objects::new(client.clone(), world.clone()),
            services: ServiceView::start(&client, &world),
            walls,
            tokens: options
                .token_source
                .unwrap_or_else(|| Arc::new(PlaneTokens(client.clone()))),
            pulls: Semaphore::new(PULLS_MAX),
            node_name: name.clone(),
            client: client.clone(),
            runtime: runtime.clone(),
            runtime_name: version.runtime_name.clone(),
            host_ip: options.address,
            dns: ClusterDns {
                server: options.cluster_dns,
                domain: options.cluster_domain,
                host: parse_resolv_conf(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
            },
            capacity: machine.capacity,
            kubernetes: options.kubernetes_service,
            began: context::nanos(&world),
            world: world.clone(),
            root: root.clone(),
        });

        let pods = Pods::default();
        let mut tasks = Vec::new();
        let mut spawn = |task: futures::future::BoxFuture<'static, ()>| {
            tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
        };
        let api = kubelet_api::Server::new(Arc::clone(&context), pods.clone(), options.tls)?;
        spawn(Box::pin(api.serve(options.kubelet_listener)));
        let mut annotations = options.annotations;
        if options.door == Door::Here {
            annotations.insert(neighbours::DOOR.to_owned(), String::new());
        }
        let heartbeat = Heartbeat {
            client,
            runtime: runtime.clone(),
            world: world.clone(),
            name: name.clone(),
            address: options.address,
            kubelet_port: address.port(),
            pod_cidr: options.pod_cidr,
            machine,
            annotations,
            runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
            root,
        };
        spawn(Box::pin(heartbeat.run()));
        let waking = pods.clone();
        spawn(Box::pin(runtime_events::follow(runtime, world.clone(), move |whom| {
            waking.wake(whom);
        })));
        if options.proxy.is_some() {
            let door = match options.door {
                Door::There(range) => Some(range),
                Door::Here | Door::Nowhere => None,
            };
            spawn(Box::pin(neighbours::run(Arc::clone(&context), door)));
        }
        if let Some(proxy) = options.proxy {
            spawn(Box::pin(context.services.clone().drive(proxy, name, world)));
        }
        spawn(Box::pin(log_rotation::run(Arc::clone(&context), pods.clone())));
        spawn(Box::pin(volume_directories::run(Arc::clone(&context))));
        spawn(Box::pin(pressure::run(Arc::clone(&context), pods.clone())));
        spawn(Box::pin(pods::run(context, pods.clone())));
        Ok(Running { pods, address, tasks })
    }
}

impl Running {
    /// Where the kubelet API listens.
    pub fn kubelet_address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the agent; containers run on.
    pub async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        self.pods.stop().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pods.drop_all();
    }
}
