//! How Pods of a super cluster that is elsewhere reach their plane's API server and DNS: for each tenant that has something there,
//! a Service of the super cluster with the address that its Pods know, which leads to sockets of this process. The super
//! cluster's network changes the address that was dialled, so each plane has sockets of its own.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use api::{
    Object, PlaneId,
    resource::{ENDPOINT_SLICES, NAMESPACES, SERVICES},
};
use apiserver::ApiServer;
use client::{Client, DeleteOptions, Informer, InformerOptions, Notice, Sources, Tasks};
use network::dns::{self, Zones};
use serde_json::{Value, json};
use tenancy::{Provisioner, identity};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// On what is made here: whose door it is.
pub const DOOR_OF: &str = "tenancy.mangrove.io/door-of";

/// Tenants that may have Pods at once: each takes three sockets.
const DOORS_MAX: usize = 4096;

pub struct DoorsOptions {
    pub super_sources: Sources,
    pub below: Client,
    pub namespace: String,
    /// Where Pods reach this process.
    pub address: Ipv4Addr,
    pub api: ApiServer,
    pub tenants: Arc<dyn Provisioner>,
    pub zones: Zones,
    pub cluster_domain: String,
}

struct Doors {
    options: DoorsOptions,
    namespaces: Informer,
    open: HashMap<PlaneId, DropGuard>,
}

pub fn start(options: DoorsOptions) -> Tasks {
    let tasks = Tasks::new();
    let labelled = InformerOptions {
        label_selector: Some(identity::PLANE.to_owned()),
        ..InformerOptions::default()
    };
    let doors = Doors {
        namespaces: Informer::start(&options.super_sources, NAMESPACES, labelled),
        options,
        open: HashMap::new(),
    };
    tasks.spawn(doors.run());
    tasks
}

fn plane_of(namespace: &Object) -> Option<PlaneId> {
    namespace.label(identity::PLANE)?.parse().ok()
}

impl Doors {
    async fn run(mut self) {
        let mut changes = self.namespaces.subscribe();
        while let Some(notice) = changes.next().await {
            let planes: Vec<PlaneId> = match notice {
                Notice::Change(change) => change.new.iter().chain(&change.old).filter_map(plane_of).collect(),
                Notice::Rescan | Notice::Synced(_) => {
                    let all = self.namespaces.all().into_iter();
                    all.filter_map(|(_, namespace)| plane_of(&namespace)).collect()
                }
                Notice::Removed(_) => Vec::new(),
            };
            for plane in planes {
                if let Err(error) = self.settle(plane).await {
                    tracing::warn!(%plane, %error, "a plane's door can't be opened: its Pods don't reach it");
                }
            }
        }
    }

    /// Opens or closes a plane's door, as it has something below or not.
    async fn settle(&mut self, plane: PlaneId) -> anyhow::Result<()> {
        let all = self.namespaces.all();
        let has_something = all.iter().any(|(_, namespace)| plane_of(namespace) == Some(plane));
        if !has_something {
            self.open.remove(&plane);
            return self.remove(plane).await;
        }
        if self.open.contains_key(&plane) {
            return Ok(());
        }
        anyhow::ensure!(self.open.len() < DOORS_MAX, "there are {DOORS_MAX} open already");
        let Some(found) = self.options.tenants.find(plane).await? else {
            return Ok(());
        };
        let address: Ipv4Addr = found.kubernetes_address.parse()?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let https = listener.local_addr()?.port();
        let names = dns::listen_for(address, &self.options.cluster_domain, self.options.zones.clone()).await?;
        let dns = names.port()?;
        let stop = CancellationToken::new();
        tokio::spawn(apiserver::http::serve_pods_of(
            address,
            listener,
            self.options.api.clone(),
            stop.clone(),
        ));
        tokio::spawn(names.serve(stop.clone()));
        self.open.insert(plane, stop.drop_guard());
        self.publish(plane, address, https, dns).await
    }

    /// The Service by the plane's address, and where it leads. What an older process has left is replaced.
    async fn publish(&self, plane: PlaneId, address: Ipv4Addr, https: u16, dns: u16) -> anyhow::Result<()> {
        let name = name(plane);
        let metadata = json!({"name": name, "labels": {DOOR_OF: plane.as_str()}});
        let ports = |https: u16, dns: u16| {
            json!([{"name": "https", "protocol": "TCP", "port": https}, {"name": "dns", "protocol": "UDP", "port": dns},
                {"name": "dns-tcp", "protocol": "TCP", "port": dns}])
        };
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"clusterIP": address.to_string(), "ports": ports(443, 53)}});
        let namespace = Some(self.options.namespace.as_str());
        self.replace(&SERVICES, &name, &service, |there| {
            there.tree()["spec"]["clusterIP"] == service["spec"]["clusterIP"]
        })
        .await?;
        let mut metadata = metadata;
        metadata["labels"]["kubernetes.io/service-name"] = name.clone().into();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "ports": ports(https, dns),
            "endpoints": [{"addresses": [self.options.address.to_string()], "conditions": {"ready": true}}]});
        let options = DeleteOptions::default();
        match self
            .options
            .below
            .delete(&ENDPOINT_SLICES, namespace, &name, &options)
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        self.options.below.create(&ENDPOINT_SLICES, namespace, &slice).await?;
        Ok(())
    }

    async fn replace(
        &self,
        resource: &api::Resource,
        name: &str,
        wanted: &Value,
        is_good: impl Fn(&Object) -> bool,
    ) -> Result<(), client::Error> {
        let namespace = Some(self.options.namespace.as_str());
        match self.options.below.get(resource, namespace, name).await {
            Ok(there) if is_good(&there) => return Ok(()),
            Ok(there) => {
                let options = DeleteOptions::of_uid(there.uid());
                self.options.below.delete(resource, namespace, name, &options).await?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.options.below.create(resource, namespace, wanted).await.map(drop)
    }

    async fn remove(&self, plane: PlaneId) -> anyhow::Result<()> {
        let name = name(plane);
        for resource in [&SERVICES, &ENDPOINT_SLICES] {
            let options = DeleteOptions::default();
            let namespace = Some(self.options.namespace.as_str());
            match self.options.below.delete(resource, namespace, &name, &options).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn name(plane: PlaneId) -> String {
    format!("plane-{plane}")
}
