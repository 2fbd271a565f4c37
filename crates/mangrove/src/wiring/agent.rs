//! A node alone: runtime, network rules and node agent, for a super plane that is reached over the network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use anyhow::Context;
use api::resource;
use client::Client;
use identity::{Ca, SubjectName};
use network::proxy::Proxy;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use world::World;

use super::{
    house::{self, CLUSTER_DOMAIN, DOOR, SERVING_LIFE},
    pod_range,
};
use crate::{
    cli,
    platform::{Layout, Platform},
    progress::Progress,
};

/// kubelet's.
const KUBELET_PORT: u16 = 10250;

pub struct Agent {
    name: String,
    node: node::Running,
    listeners: TaskTracker,
    stop: CancellationToken,
}

impl Agent {
    pub async fn open(options: &cli::Agent, layout: &Layout, progress: &Progress) -> anyhow::Result<Agent> {
        let world = World::real();
        let client = connect(options).await?;
        let name = options.node_name.clone().unwrap_or_else(house::node_name);
        let address = options.address.map_or_else(house::node_address, Ok)?;
        let authority = root_authority(&client).await?;
        let dns = dns_address(&client).await?;
        let range = pod_range::claim(&client, &name, &world).await?;
        progress.done(&format!("joined as {name}, with Pods in {range}"));

        let mut runtime_options = house::runtime_options(layout)?;
        runtime_options.pod_cidr = range.to_string();
        runtime_options.cgroup_root = options.cgroup_root.clone();
        let runtime = runtime::Runtime::open(runtime_options)
            .await
            .context("opening the container runtime")?;
        import_images(&runtime, layout).await?;
        let (stop, listeners) = (CancellationToken::new(), TaskTracker::new());
        let (serving, until) = (runtime.clone(), stop.clone());
        listeners.spawn(async move {
            if let Err(error) = serving.serve(until).await {
                tracing::error!(%error, "the container runtime has ended");
            }
        });
        progress.done("container runtime");

        let gateway = Ipv4Addr::from(u32::from(range.network) + 1);
        let network = house::network_options(gateway, None);
        let services = Proxy::start(&network).await?;
        network::door::open(&network).await?;
        progress.done("network");

        let now = world.clock.wall();
        let own = Ca::generate(&format!("kubelet of {name}"), now, &*world.random).context("making a CA")?;
        let names = [SubjectName::of(&name), SubjectName::of(&address.to_string())];
        let serving = own
            .issue_server(&name, &names, SERVING_LIFE, now, &*world.random)
            .context("issuing the node's serving certificate")?;
        let node = node::Node::start(node::NodeOptions {
            name: name.clone(),
            client,
            cri_socket: layout.cri_socket(),
            root: layout.node(),
            pod_cidr: range.to_string(),
            address: IpAddr::V4(address),
            kubelet_listener: TcpListener::bind((address, KUBELET_PORT))
                .await
                .with_context(|| format!("opening the node's API at {address}:{KUBELET_PORT}"))?,
            tls: node::KubeletTls {
                certificate: serving.certificate_pem.into(),
                key: serving.key_pem.into(),
                client_ca: authority.into(),
            },
            cluster_dns: Some(dns),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            token_source: None,
            kubernetes_service: None,
            proxy: Some(services),
            circles: Some(Arc::new(tenancy::walls::circle)),
            door: node::Door::There(DOOR),
            annotations: BTreeMap::from([(node::KUBELET_AUTHORITY.to_owned(), own.certificate_pem().to_owned())]),
            world,
        })
        .await
        .context("starting the node agent")?;
        progress.done("node agent");

        let server = options.server.clone().unwrap_or_default();
        let mut platform = Platform::of_this_process(&std::path::absolute(&layout.data_dir)?, server)?;
        platform.cgroup_root = Some(options.cgroup_root.clone());
        platform.write()?;
        listeners.close();
        Ok(Agent {
            name,
            node,
            listeners,
            stop,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the agent; containers run on.
    pub async fn close(self) {
        self.node.stop().await;
        self.stop.cancel();
        self.listeners.wait().await;
    }
}

async fn connect(options: &cli::Agent) -> anyhow::Result<Client> {
    let client = match (&options.kubeconfig, &options.server) {
        (Some(file), _) => Client::from_kubeconfig(file, None).await,
        (None, server) => {
            let authority = options.certificate_authority.as_ref().map(std::path::absolute);
            let cluster = json!({"server": server, "certificate-authority": authority.transpose()?});
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "super",
                "clusters": [{"name": "super", "cluster": cluster}],
                "users": [{"name": "node", "user": {"token": options.token}}],
                "contexts": [{"name": "super", "context": {"cluster": "super", "user": "node"}}],
            });
            // JSON is YAML.
            Client::from_kubeconfig_text(&config.to_string(), None).await
        }
    };
    client.context("connecting to the super cluster")
}

/// Who signs for the API server when it comes to ask for logs and streams.
async fn root_authority(client: &Client) -> anyhow::Result<String> {
    let map = client
        .get(&resource::CONFIG_MAPS, Some("kube-system"), "kube-root-ca.crt")
        .await
        .context("reading the super cluster's CA")?;
    let authority = map.tree()["data"]["ca.crt"].as_str();
    Ok(authority.context("the super cluster tells no CA")?.to_owned())
}

/// The super cluster's DNS: by the name that it has everywhere else, or, in a cluster of ours, the API's own address.
async fn dns_address(client: &Client) -> anyhow::Result<Ipv4Addr> {
    let dns = match client.get(&resource::SERVICES, Some("kube-system"), "kube-dns").await {
        Ok(dns) => Ok(dns),
        Err(error) if error.is_not_found() => client.get(&resource::SERVICES, Some("default"), "kubernetes").await,
        Err(error) => Err(error),
    };
    let dns = dns.context("reading the super cluster's own Services")?;
    let address = dns.tree()["spec"]["clusterIP"].as_str().unwrap_or_default();
    address
        .parse()
        .with_context(|| format!("the super cluster's Service {} has the address {address:?}", dns.name()))
}

/// What a person has put into `images` for a machine that can't or shan't pull.
async fn import_images(runtime: &runtime::Runtime, layout: &Layout) -> anyhow::Result<()> {
    let folder = layout.data_dir.join("images");
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let archive = entry.path();
        runtime
            .import_archive(&archive)
            .await
            .with_context(|| format!("importing {}", archive.display()))?;
    }
    Ok(())
}
