//! The whole platform: opened from the ground up, closed from the roof down.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use api::resource;
use apiserver::{ApiServer, ApiServerOptions, PlaneRecord};
use client::{Client, PlaneKey, Source, SourceId, Sources, Tasks};
use futures::stream::BoxStream;
use identity::{Ca, Certified, SubjectName, kubeconfig, tls};
use in_process::{InProcess, Nodes, StorageClasses};
use network::{DoorPorts, Range, dns, proxy::Proxy};
use tenancy::{NodeProxy, Provisioner, SuperCluster};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use world::World;

use super::{images::Images, kubeconfigs::Kubeconfigs, storage::Storage};
use crate::{
    cli,
    control::Control,
    platform::{Layout, Platform},
    progress::Progress,
};

pub const CLUSTER_DOMAIN: &str = "cluster.local";
pub const PODS: Range = Range::new(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Of [`PODS`], what this machine's sandboxes get.
const NODE_PODS: &str = "10.244.0.0/24";
/// The first of them: what this machine is to its own Pods.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The interface with the gateway's address.
const DEVICE: &str = "mangrove0";
const SERVICES: Range = Range::new(Ipv4Addr::new(10, 96, 0, 0), 12);
pub const DOOR: Range = Range::new(Ipv4Addr::new(10, 104, 0, 0), 13);

/// A year; a server that runs longer is started anew for an update before.
pub const SERVING_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

pub struct House {
    api: ApiServer,
    listeners: TaskTracker,
    stop: CancellationToken,
    loops: Vec<Tasks>,
    controllers: controllers::Running,
    scheduler: scheduler::Running,
    node: node::Running,
    _storage: Storage,
}

impl House {
    pub async fn open(options: &cli::Up, layout: &Layout, progress: &Progress) -> anyhow::Result<House> {
        let world = World::real();
        let listener = TcpListener::bind(options.listen).await.with_context(|| {
            format!(
                "can't listen on {}: is the port in use? Choose another by --listen",
                options.listen
            )
        })?;
        let listen = listener.local_addr().context("reading the listener's address")?;
        let storage = Storage::open(&options.etcd, layout, &world).await?;
        progress.done("store");

        let api = ApiServer::new(ApiServerOptions {
            shared: storage.shared.clone(),
            root: storage.root.clone(),
            world: world.clone(),
            pod_backend: None,
            ranges: apiserver::ServiceRanges::default(),
            advertise: advertised(listen),
        });
        api.registry()
            .hold_from_birth(&resource::VIRTUAL_CLUSTERS, tenancy::operator::FINALIZER);
        let root = api.planes().root().await.context("opening the super plane")?;
        progress.done("planes");

        let stop = CancellationToken::new();
        let listeners = TaskTracker::new();
        let serving = serving_certificate(&root.record, listen, &world)?;
        let resolver = tls::Rotating::new(&serving).context("preparing TLS")?;
        let people =
            tls::server_config(Arc::new(resolver), tls::ClientCertificates::Requested).context("preparing TLS")?;
        listeners.spawn(apiserver::http::serve_people(
            listener,
            people,
            api.clone(),
            stop.clone(),
        ));
        let door = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
            .await
            .context("opening the Pods' door")?;
        let door_port = door.local_addr().context("reading the door's address")?.port();
        listeners.spawn(apiserver::http::serve_pods(door, api.clone(), stop.clone()));
        let zones = dns::Zones::default();
        let names = dns::listen(0, CLUSTER_DOMAIN, zones.clone()).await?;
        let network = network_options(
            GATEWAY,
            Some(DoorPorts {
                api: door_port,
                dns: names.port().context("reading the DNS port")?,
            }),
        );
        listeners.spawn(names.serve(stop.clone()));
        progress.done(&format!("listening on {listen}"));

        let runtime = runtime::Runtime::open(runtime_options(layout)?)
            .await
            .context("opening the container runtime")?;
        let serve_runtime = runtime.clone();
        let runtime_stop = stop.clone();
        listeners.spawn(async move {
            if let Err(error) = serve_runtime.serve(runtime_stop).await {
                tracing::error!(%error, "the container runtime has ended");
            }
        });
        progress.done("container runtime");

        let services = Proxy::start(&network).await?;
        network::door::open(&network).await?;
        progress.done("network");

        let root_key = PlaneKey {
            source: SourceId::new("super"),
            plane: root.id,
        };
        let shared_id = SourceId::new("shared");
        let as_component = |name: &str| in_process::client(&api, name, &["system:masters"]);
        let root_client = as_component("system:mangrove");
        let super_cluster = SuperCluster {
            id: super_id(&root_client).await?,
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
        };
        let super_sources = |name: &str| {
            let client = as_component(name);
            Sources::new(
                world.clone(),
                [Source::Plane {
                    id: root_key.source.clone(),
                    plane: root.id,
                    client,
                }],
            )
        };
        let shared_source = |name: &str| Source::Shared {
            id: shared_id.clone(),
            client: as_component(name),
        };
        let planes = |name: &str| Sources::new(world.clone(), [shared_source(name)]);
        let tenants: Arc<dyn Provisioner> = Arc::new(InProcess {
            planes: api.planes().clone(),
            shared: shared_id.clone(),
        });

        let clusters = tenancy::virtual_cluster::follow(&super_sources("system:mangrove"));
        let views = tenancy::nodes::NodeViews::start(
            clusters.clone(),
            as_component("system:mangrove:nodes"),
            root_client.clone(),
            world.clone(),
        );
        let reshown = in_process::reshown(&views, &shared_id);
        api.registry().project(&resource::NODES, Arc::new(Nodes(views)));
        api.registry()
            .project(&resource::STORAGE_CLASSES, Arc::new(StorageClasses));

        let everything = super_sources("system:kube-controller-manager");
        everything.add(shared_source("system:kube-controller-manager"));
        let controllers = controllers::start(
            everything,
            controller_options(&api, &root_key, reshown, layout, &world)?,
        );
        let scheduler = scheduler::start(scheduler::Options {
            sources: super_sources("system:kube-scheduler"),
            plane: root_key.clone(),
            world: world.clone(),
        })?;
        progress.done("controllers and scheduler");

        let node_name = node_name();
        let node = node::Node::start(node::NodeOptions {
            name: node_name.clone(),
            client: in_process::client(
                &api,
                &format!("system:node:{node_name}"),
                &["system:nodes", "system:masters"],
            ),
            cri_socket: layout.cri_socket(),
            root: layout.node(),
            pod_cidr: NODE_PODS.to_owned(),
            address: own_address().into(),
            kubelet_listener: TcpListener::bind((own_address(), 0))
                .await
                .context("opening the node's API")?,
            tls: node::KubeletTls {
                certificate: serving.certificate_pem.clone().into(),
                key: serving.key_pem.clone().into(),
                client_ca: root.record.ca_cert_pem.clone().into(),
            },
            cluster_dns: Some(api.planes().ranges().root_kubernetes()),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            token_source: None,
            kubernetes_service: None,
            proxy: Some(services),
            circles: Some(Arc::new(tenancy::walls::circle)),
            door: node::Door::Here,
            annotations: std::collections::BTreeMap::new(),
            world: world.clone(),
        })
        .await
        .context("starting the node agent")?;
        progress.done("node agent");

        let kubeconfigs = Arc::new(Kubeconfigs {
            api: api.clone(),
            server: format!("https://{}", reachable(listen)),
            authority_pem: root.record.ca_cert_pem.clone(),
            world: world.clone(),
        });
        let kubelet_client =
            kubeconfigs.certificate(&root.record, "kube-apiserver-kubelet-client", &["system:masters"])?;
        let kubelets = node::KubeletBackend::new(
            root_client.clone(),
            node::KubeletClientTls {
                certificate: kubelet_client.certificate_pem.into(),
                key: kubelet_client.key_pem.into(),
                server_ca: Some(root.record.ca_cert_pem.clone().into()),
            },
        )
        .context("preparing TLS to the node")?;
        api.set_pod_backend(Arc::new(NodeProxy {
            super_client: root_client,
            planes: planes("system:mangrove"),
            super_plane: root.id,
            super_cluster: super_cluster.clone(),
            tenants: tenants.clone(),
            inner: Arc::new(kubelets),
        }));
        let loops = vec![
            tenancy::operator::start(tenancy::operator::OperatorOptions {
                super_sources: super_sources("system:mangrove:operator"),
                super_plane: root_key.clone(),
                clusters: clusters.clone(),
                tenants: tenants.clone(),
                world: world.clone(),
            })?,
            tenancy::syncer::start(tenancy::syncer::SyncerOptions {
                super_sources: super_sources("system:mangrove:syncer"),
                super_plane: root_key.clone(),
                super_cluster: super_cluster.clone(),
                clusters,
                planes: planes("system:mangrove:syncer"),
                tenants: tenants.clone(),
                policy: tenancy::policy::Policy {
                    reserved: [PODS, SERVICES, DOOR].iter().filter_map(reserved).collect(),
                    ..tenancy::policy::Policy::default()
                },
                world: world.clone(),
            })?,
            tenancy::names::start(tenancy::names::NamesOptions {
                planes: planes("system:mangrove:dns"),
                super_sources: super_sources("system:mangrove:dns"),
                super_id: super_cluster.id.clone(),
                tenants,
                zones,
            }),
        ];
        progress.done("tenancy");

        write_kubeconfigs(options, layout, &kubeconfigs).await?;
        let control = Control {
            api: api.clone(),
            kubeconfigs,
            images: Images { runtime },
        };
        listeners.spawn(control.serve(layout.control_socket(), stop.clone())?);
        Platform::of_this_process(&std::path::absolute(&layout.data_dir)?, listen.to_string())?.write()?;
        listeners.close();
        Ok(House {
            api,
            listeners,
            stop,
            loops,
            controllers,
            scheduler,
            node,
            _storage: storage,
        })
    }

    /// Ends the server; containers run on.
    pub async fn close(self) {
        for tasks in self.loops {
            tasks.stop().await;
        }
        self.controllers.stop().await;
        self.scheduler.stop().await;
        self.node.stop().await;
        self.stop.cancel();
        self.listeners.wait().await;
        self.api.shutdown().await;
    }
}

/// What the runtime is called with; `down` needs the same.
pub fn runtime_options(layout: &Layout) -> anyhow::Result<runtime::RuntimeOptions> {
    let supervisor = std::env::current_exe().context("finding this program")?;
    let root = std::path::absolute(layout.runtime()).context("reading the current folder")?;
    let mut options = runtime::RuntimeOptions::new(root, layout.runtime_run(), layout.cri_socket(), supervisor);
    options.pod_cidr = NODE_PODS.to_owned();
    options.device = DEVICE.to_owned();
    Ok(options)
}

/// What the network is set up with; to take it back the door's ports don't matter.
pub fn network_options(gateway: Ipv4Addr, door_ports: Option<DoorPorts>) -> network::Options {
    network::Options {
        pods: PODS,
        gateway,
        services: SERVICES,
        door: DOOR,
        door_ports,
        device: DEVICE.to_owned(),
        interfaces: runtime::INTERFACE_PREFIX.to_owned(),
    }
}

fn controller_options(
    api: &ApiServer,
    root: &PlaneKey,
    reshown: impl Fn() -> BoxStream<'static, controllers::Reshown> + Send + Sync + 'static,
    layout: &Layout,
    world: &World,
) -> anyhow::Result<controllers::Options> {
    let volumes = std::path::absolute(layout.node().join("volumes")).context("reading the current folder")?;
    Ok(controllers::Options {
        root_ca: Arc::new(in_process::root_ca(api.planes(), root)),
        clusters: controllers::Clusters::only(root.clone(), &volumes.to_string_lossy()).told_of_nodes_by(reshown),
        world: world.clone(),
    })
}

fn reserved(range: &Range) -> Option<tenancy::reserved::Cidr> {
    tenancy::reserved::Cidr::parse(&range.to_string())
}

/// The super cluster is known by the uid of its `kube-system` namespace.
pub(super) async fn super_id(client: &Client) -> anyhow::Result<String> {
    let namespace = client.get(&resource::NAMESPACES, None, "kube-system").await;
    Ok(namespace.context("reading the super cluster's id")?.uid().to_owned())
}

async fn write_kubeconfigs(options: &cli::Up, layout: &Layout, kubeconfigs: &Kubeconfigs) -> anyhow::Result<()> {
    let entry = kubeconfigs.root().await?.into_entry();
    let own = layout.admin_kubeconfig();
    kubeconfig::write(&own, &kubeconfig::document(&entry)?)
        .with_context(|| format!("can't write {}", own.display()))?;
    if let Some(file) = &options.kubeconfig {
        kubeconfig::merge(file, &entry, kubeconfig::Current::Switch)
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}

/// The serving certificate of the server, of the super plane's CA.
fn serving_certificate(record: &PlaneRecord, listen: SocketAddr, world: &World) -> anyhow::Result<Certified> {
    let ca = Ca::from_pem(&record.ca_cert_pem, &record.ca_key_pem).context("reading the server's CA")?;
    let own = own_address().to_string();
    let mut names: Vec<SubjectName> = ["localhost", "127.0.0.1", "::1", &node_name(), &own]
        .map(SubjectName::of)
        .into();
    names.extend(
        machine_addresses(listen)
            .iter()
            .map(|address| SubjectName::of(&address.to_string())),
    );
    let now = world.clock.wall();
    ca.issue_server("mangrove", &names, SERVING_LIFE, now, &*world.random)
        .context("issuing the serving certificate")
}

/// Where the server can be reached: the address it listens on, or all of the machine's.
pub(super) fn machine_addresses(listen: SocketAddr) -> Vec<IpAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen.ip()];
    }
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect()
}

/// As Leases write times: of equal length, so that they are in order as text.
pub fn rfc3339(time: std::time::SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.6}")
}

/// Where other machines reach this one: what it speaks from to the outside.
pub fn node_address() -> anyhow::Result<Ipv4Addr> {
    // Nothing is sent: the kernel only looks which way it would go. The address is of a range for documentation.
    let looked = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr()
    });
    match looked {
        Ok(SocketAddr::V4(address)) if !address.ip().is_unspecified() => return Ok(*address.ip()),
        _ => {}
    }
    // No way to the world, but perhaps neighbours.
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut own = interfaces
        .filter(|interface| interface.interface_name != DEVICE)
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .filter(|address| !address.is_loopback() && !PODS.contains(*address));
    match own.next() {
        Some(address) => Ok(address),
        None => anyhow::bail!("this machine has no address: say by --address where other nodes reach it"),
    }
}

/// Without an outside, what this machine is to its own Pods.
fn own_address() -> Ipv4Addr {
    node_address().unwrap_or(GATEWAY)
}

/// The address that kubeconfigs name.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port())
    } else {
        listen
    }
}

fn advertised(listen: SocketAddr) -> Option<std::net::SocketAddrV4> {
    match listen {
        SocketAddr::V4(address) if !address.ip().is_unspecified() => Some(address),
        _ => None,
    }
}

/// The machine's name as a node's: a DNS label.
pub fn node_name() -> String {
    let name = nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() {
        "node".to_owned()
    } else {
        name.to_owned()
    }
}
