//! The node's own word: its Node object, and a Lease that is renewed while the agent lives.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::resource;
use client::{Client, Error, Patch};
use jiff::Timestamp;
use serde_json::{Value, json};
use world::World;

use crate::cri::Runtime;
use crate::machine::{self, Machine};
use crate::node_status::{self, Facts};

/// Upstream's: a quarter of the Lease's 40 s.
const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: u64 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Changes are looked for at each Lease; without any, the status is written this often.
const STATUS_EVERY: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_millis(500);

pub struct Heartbeat {
    pub client: Client,
    pub runtime: Runtime,
    pub world: World,
    pub name: String,
    pub address: IpAddr,
    pub kubelet_port: u16,
    pub pod_cidr: String,
    pub machine: Machine,
    pub annotations: BTreeMap<String, String>,
    pub runtime_version: String,
    pub root: PathBuf,
}

impl Heartbeat {
    /// Never ends.
    pub async fn run(self) {
        let mut registered: Option<(Value, Duration)> = None;
        let mut heard = self.world.clock.monotonic();
        loop {
            // After such a silence the plane has been told that we are lost: what stands there has to be read anew.
            let now = self.world.clock.monotonic();
            if now.saturating_sub(heard) >= Duration::from_secs(LEASE_SECONDS) {
                registered = None;
            }
            let wait = match self.beat(&mut registered).await {
                Ok(()) => {
                    heard = now;
                    LEASE_EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's status was not written");
                    RETRY
                }
            };
            self.world.clock.sleep(wait).await;
        }
    }

    async fn beat(&self, registered: &mut Option<(Value, Duration)>) -> Result<(), Error> {
        let problems = match self.runtime.unready().await {
            Ok(problems) => problems,
            Err(error) => vec![format!("container runtime is down: {error}")],
        };
        let facts = Facts {
            name: &self.name,
            address: self.address,
            kubelet_port: self.kubelet_port,
            machine: &self.machine,
            left: machine::left(&self.root),
            runtime_version: &self.runtime_version,
            runtime_problems: &problems,
            now: self.now(),
        };
        let monotonic = self.world.clock.monotonic();
        match registered {
            None => {
                let status = self.register(&facts).await?;
                *registered = Some((status, monotonic));
            }
            Some((current, written)) => {
                let wanted = node_status::status(&facts, current);
                if node_status::is_news(current, &wanted) || monotonic.saturating_sub(*written) >= STATUS_EVERY {
                    match self.write(&wanted).await {
                        Err(error) if error.is_not_found() => {
                            *registered = Some((self.register(&facts).await?, monotonic))
                        }
                        Err(error) => return Err(error),
                        Ok(()) => *registered = Some((wanted, monotonic)),
                    }
                }
            }
        }
        self.lease().await
    }

    fn now(&self) -> Timestamp {
        Timestamp::try_from(self.world.clock.wall()).unwrap_or_default()
    }

    /// Creates the Node, or takes over the one that is there: its labels, its range if it has none, its status.
    async fn register(&self, facts: &Facts<'_>) -> Result<Value, Error> {
        let mut object = node_status::object(facts, &self.pod_cidr);
        object["metadata"]["annotations"] = json!(self.annotations);
        let current = match self.client.create(&resource::NODES, None, &object).await {
            Ok(created) => created,
            Err(error) if error.is_already_exists() => {
                let existing = self.client.get(&resource::NODES, None, &self.name).await?;
                let mut change = json!({"metadata": {
                    "labels": node_status::labels(facts), "annotations": self.annotations}});
                if existing.pointer("/spec/podCIDR").is_none() {
                    change["spec"] = json!({"podCIDR": self.pod_cidr, "podCIDRs": [self.pod_cidr]});
                }
                self.client
                    .patch(&resource::NODES, None, &self.name, &Patch::Merge(change))
                    .await?
            }
            Err(error) => return Err(error),
        };
        let wanted = node_status::status(facts, &current.tree()["status"]);
        self.write(&wanted).await?;
        Ok(wanted)
    }

    async fn write(&self, wanted: &Value) -> Result<(), Error> {
        let patch = Patch::Strategic(node_status::patch(wanted));
        self.client
            .patch_sub(&resource::NODES, None, &self.name, "status", &patch)
            .await
            .map(drop)
    }

    async fn lease(&self) -> Result<(), Error> {
        let renew = format!("{:.6}", self.now());
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renew});
        let patch = Patch::Merge(json!({ "spec": spec }));
        let namespace = Some(LEASE_NAMESPACE);
        match self
            .client
            .patch(&resource::LEASES, namespace, &self.name, &patch)
            .await
        {
            Err(error) if error.is_not_found() => {
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": LEASE_NAMESPACE}, "spec": spec});
                self.client.create(&resource::LEASES, namespace, &lease).await.map(drop)
            }
            result => result.map(drop),
        }
    }
}
