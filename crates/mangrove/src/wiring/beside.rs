//! Tenants' planes beside a Kubernetes that runs already: operator and syncer against it, and of it only what tenants see
//! mirrored here. What the whole platform has of its own besides (nodes, network, the super plane) is that cluster's.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, bail};
use api::resource::{self, VIRTUAL_CLUSTERS};
use apiserver::{ApiServer, ApiServerOptions, PlaneRecord};
use client::{Client, PlaneKey, Source, SourceId, Sources, Tasks};
use identity::{Ca, Certified, SubjectName, tls};
use in_process::{InProcess, Nodes, StorageClasses};
use tenancy::{NodeProxy, Provisioner, SuperCluster, mirror, reserved::Cidr, super_streams::SuperStreams};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use world::World;

use super::{
    credentials, doors,
    house::{SERVING_LIFE, machine_addresses, reachable, super_id},
    kubeconfigs::Kubeconfigs,
    leading::{Leading, Loops},
    service_range,
    storage::Storage,
    taken,
};
use crate::{cli, platform::Layout};

/// By what id the super cluster goes in this process, which has no plane of it. None that is made at random is likely to be it.
const SUPER_PLANE: &str = "awaysupercluster";

/// What tenants see of the super cluster through views: it has to be where the planes are.
const MIRRORED: [api::Resource; 3] = [resource::NODES, resource::STORAGE_CLASSES, VIRTUAL_CLUSTERS];

pub struct Beside {
    api: ApiServer,
    server: String,
    listeners: TaskTracker,
    stop: CancellationToken,
    leading: Leading,
    _storage: Storage,
}

impl Beside {
    pub async fn open(options: &cli::Tenancy, layout: &Layout) -> anyhow::Result<Beside> {
        let world = World::real();
        let below = super_client(options).await?;
        let super_cluster = SuperCluster {
            id: super_id(&below).await?,
            cluster_domain: options.cluster_domain.clone(),
        };
        ensure_installed(&below, &options.namespace).await?;
        let ranges = service_range::shared_out(&options.service_cluster_ip_range)?;
        service_range::ensure_known(&below, &ranges).await?;
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("can't listen on {}: choose another by --listen", options.listen))?;
        let listen = listener.local_addr().context("reading the listener's address")?;
        let storage = Storage::open(&options.etcd, layout, &world).await?;
        let api = ApiServer::new(ApiServerOptions {
            shared: storage.shared.clone(),
            root: storage.root.clone(),
            world: world.clone(),
            pod_backend: None,
            ranges,
            advertise: None,
        });
        // Nobody has a credential for this plane but this process: it is the mirror of what tenants see.
        let local = api.planes().root().await.context("opening the local plane")?;

        let stop = CancellationToken::new();
        let listeners = TaskTracker::new();
        let advertised = options
            .advertise
            .clone()
            .unwrap_or_else(|| reachable(listen).to_string());
        let serving = serving_certificate(&local.record, listen, &advertised, &options.namespace, &world)?;
        let resolver = tls::Rotating::new(&serving).context("preparing TLS")?;
        let people =
            tls::server_config(Arc::new(resolver), tls::ClientCertificates::Requested).context("preparing TLS")?;
        listeners.spawn(apiserver::http::serve_people(
            listener,
            people,
            api.clone(),
            stop.clone(),
        ));
        listeners.close();
        let server = format!("https://{advertised}");
        let kubeconfigs = Arc::new(Kubeconfigs {
            api: api.clone(),
            server: server.clone(),
            authority_pem: local.record.ca_cert_pem.clone(),
            world: world.clone(),
        });

        let wires = Wires {
            api: api.clone(),
            below: below.clone(),
            local: PlaneKey {
                source: SourceId::new("local"),
                plane: local.id,
            },
            super_plane: PlaneKey {
                source: SourceId::new("super"),
                plane: SUPER_PLANE.parse().context("the super cluster's id here")?,
            },
            shared: SourceId::new("shared"),
            super_cluster,
            kubeconfigs,
            namespace: options.namespace.clone(),
            reserved: Cidr::parse(&options.service_cluster_ip_range),
            pods_door: options.pods_door,
            world: world.clone(),
        };
        let clusters = wires.connect(&api)?;
        let identity = replica_name();
        let leading = Leading::start(below, &world, &options.namespace, &identity, move || {
            wires.begin(&clusters)
        });
        Ok(Beside {
            api,
            server,
            listeners,
            stop,
            leading,
            _storage: storage,
        })
    }

    /// Where tenants' APIs are served.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Ends the server; what runs in the super cluster runs on.
    pub async fn close(self) {
        self.leading.stop().await;
        self.stop.cancel();
        self.listeners.wait().await;
        self.api.shutdown().await;
    }
}

/// What the loops are made of.
struct Wires {
    api: ApiServer,
    below: Client,
    /// The mirror.
    local: PlaneKey,
    super_plane: PlaneKey,
    shared: SourceId,
    super_cluster: SuperCluster,
    kubeconfigs: Arc<Kubeconfigs>,
    namespace: String,
    reserved: Option<Cidr>,
    /// Where Pods reach this process.
    pods_door: Option<Ipv4Addr>,
    world: World,
}

impl Wires {
    fn as_component(&self, name: &str) -> Client {
        in_process::client(&self.api, name, &["system:masters"])
    }

    fn super_sources(&self, name: &str) -> Sources {
        let source = Source::Plane {
            id: self.super_plane.source.clone(),
            plane: self.super_plane.plane,
            client: self.below.with_manager(name),
        };
        Sources::new(self.world.clone(), [source])
    }

    fn local_sources(&self, name: &str) -> Sources {
        let source = Source::Plane {
            id: self.local.source.clone(),
            plane: self.local.plane,
            client: self.as_component(name),
        };
        Sources::new(self.world.clone(), [source])
    }

    fn planes(&self, name: &str) -> Sources {
        let source = Source::Shared {
            id: self.shared.clone(),
            client: self.as_component(name),
        };
        Sources::new(self.world.clone(), [source])
    }

    fn tenants(&self) -> Arc<dyn Provisioner> {
        Arc::new(InProcess {
            planes: self.api.planes().clone(),
            shared: self.shared.clone(),
        })
    }

    /// What every replica serves by, whether it leads or not. Returns what its planes are to controllers: nodes and volumes are
    /// the super cluster's.
    fn connect(&self, api: &ApiServer) -> anyhow::Result<controllers::Clusters> {
        api.set_pod_backend(Arc::new(NodeProxy {
            super_client: self.below.clone(),
            planes: self.planes("system:mangrove"),
            super_plane: self.super_plane.plane,
            super_cluster: self.super_cluster.clone(),
            tenants: self.tenants(),
            inner: Arc::new(SuperStreams::new(self.below.clone())),
        }));
        let name = "system:mangrove:nodes";
        let seen = tenancy::virtual_cluster::follow(&self.local_sources(name));
        let views =
            tenancy::nodes::NodeViews::start(seen, self.as_component(name), self.below.clone(), self.world.clone());
        let clusters =
            controllers::Clusters::new(|_| false, "").told_of_nodes_by(in_process::reshown(&views, &self.shared));
        api.registry().project(&resource::NODES, Arc::new(Nodes(views)));
        api.registry()
            .project(&resource::STORAGE_CLASSES, Arc::new(StorageClasses));
        Ok(clusters)
    }

    /// Starts the loops of the replica that leads.
    fn begin(&self, planes: &controllers::Clusters) -> Result<Loops, client::Error> {
        let mirrored = mirror::MirrorOptions {
            from: self.super_sources("mangrove-mirror"),
            from_plane: self.super_plane.clone(),
            to: self.local_sources("system:mangrove:mirror"),
            to_plane: self.local.clone(),
            world: self.world.clone(),
        };
        let operators = self.super_sources("mangrove-operator");
        let clusters = tenancy::virtual_cluster::follow(&operators);
        let mut tasks = vec![
            mirror::start(&mirrored, &MIRRORED)?,
            taken::start(&operators, &self.super_plane, &self.local, self.api.planes().clone()),
            credentials::start(
                clusters.clone(),
                self.below.clone(),
                &self.namespace,
                self.kubeconfigs.clone(),
                &self.world,
            ),
            tenancy::operator::start(tenancy::operator::OperatorOptions {
                super_sources: operators,
                super_plane: self.super_plane.clone(),
                clusters: clusters.clone(),
                tenants: self.tenants(),
                world: self.world.clone(),
            })?,
            tenancy::syncer::start(tenancy::syncer::SyncerOptions {
                super_sources: self.super_sources("mangrove-syncer"),
                super_plane: self.super_plane.clone(),
                super_cluster: self.super_cluster.clone(),
                clusters,
                planes: self.planes("system:mangrove:syncer"),
                tenants: self.tenants(),
                policy: tenancy::policy::Policy {
                    reserved: self.reserved.into_iter().collect(),
                    ..tenancy::policy::Policy::default()
                },
                world: self.world.clone(),
            })?,
        ];
        if let Some(address) = self.pods_door {
            tasks.extend(self.doors(address));
        }
        // Of the tenants' planes alone: the super cluster has its own.
        let controllers = controllers::start(
            self.planes("system:kube-controller-manager"),
            controllers::Options {
                root_ca: Arc::new(in_process::root_ca(self.api.planes(), &self.local)),
                clusters: planes.clone(),
                world: self.world.clone(),
            },
        );
        Ok(Loops { tasks, controllers })
    }
}

impl Wires {
    /// What Pods reach, and the names that they ask for there.
    fn doors(&self, address: Ipv4Addr) -> [Tasks; 2] {
        let zones = network::dns::Zones::default();
        let names = tenancy::names::start(tenancy::names::NamesOptions {
            planes: self.planes("system:mangrove:dns"),
            super_sources: self.super_sources("mangrove-dns"),
            super_id: self.super_cluster.id.clone(),
            tenants: self.tenants(),
            zones: zones.clone(),
        });
        let doors = doors::start(doors::DoorsOptions {
            super_sources: self.super_sources("mangrove-doors"),
            below: self.below.clone(),
            namespace: self.namespace.clone(),
            address,
            api: self.api.clone(),
            tenants: self.tenants(),
            zones,
            cluster_domain: self.super_cluster.cluster_domain.clone(),
        });
        [names, doors]
    }
}

async fn super_client(options: &cli::Tenancy) -> anyhow::Result<Client> {
    let client = match &options.kubeconfig {
        Some(file) => Client::from_kubeconfig(file, options.context.as_deref()).await,
        None => Client::in_cluster(),
    };
    client.context("can't use the super cluster: name its kubeconfig by --kubeconfig")
}

/// What `deploy/tenancy.yaml` installs has to be there; the namespace is made if it is not.
async fn ensure_installed(below: &Client, namespace: &str) -> anyhow::Result<()> {
    let definition = format!("{}.{}", VIRTUAL_CLUSTERS.plural, VIRTUAL_CLUSTERS.group);
    match below
        .get(&resource::CUSTOM_RESOURCE_DEFINITIONS, None, &definition)
        .await
    {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {
            bail!("the super cluster does not know VirtualClusters: `kubectl apply -f deploy/tenancy.yaml` there")
        }
        Err(error) => return Err(error).context("reading the super cluster's definitions"),
    }
    let body = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    match below.create(&resource::NAMESPACES, None, &body).await {
        Err(error) if !error.is_already_exists() => {
            // Who may not make namespaces may find it there.
            let found = below.get(&resource::NAMESPACES, None, namespace).await;
            found.with_context(|| {
                format!("namespace {namespace} of the super cluster can't be made or read ({error})")
            })?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// For the names by which tenants may reach it: what they are told, the machine's own, and the Service's in the cluster.
fn serving_certificate(
    record: &PlaneRecord,
    listen: SocketAddr,
    advertised: &str,
    namespace: &str,
    world: &World,
) -> anyhow::Result<Certified> {
    let ca = Ca::from_pem(&record.ca_cert_pem, &record.ca_key_pem).context("reading the server's CA")?;
    let service = format!("mangrove-tenancy.{namespace}.svc");
    let host = advertised.rsplit_once(':').map_or(advertised, |(host, _)| host);
    let mut names: Vec<SubjectName> = [
        "localhost",
        "127.0.0.1",
        "::1",
        service.as_str(),
        host.trim_matches(['[', ']']),
    ]
    .map(SubjectName::of)
    .into();
    let addresses: Vec<IpAddr> = machine_addresses(listen);
    names.extend(addresses.iter().map(|address| SubjectName::of(&address.to_string())));
    let now = world.clock.wall();
    ca.issue_server("mangrove", &names, SERVING_LIFE, now, &*world.random)
        .context("issuing the serving certificate")
}

/// Unique among replicas.
fn replica_name() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{}_{}", host.to_string_lossy(), std::process::id())
}
