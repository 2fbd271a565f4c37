//! Nodes that run nothing: Pods bound to them get addresses and are Running and Ready at once, and go when they are
//! deleted. What controllers, scheduler and syncer need of a node, and no more.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use api::{
    Object,
    resource::{LEASES, NODES, PODS},
};
use client::{
    Client, DeleteOptions, Informer, InformerOptions, ObjectKey, Outcome, Patch, PlaneKey, Sources, Tasks, WorkQueue,
};
use serde_json::{Value, json};
use world::World;

const WORKERS: usize = 2;

/// As much as the smallest of real machines.
const CAPACITY: [(&str, &str); 4] = [
    ("cpu", "2"),
    ("memory", "4Gi"),
    ("pods", "110"),
    ("ephemeral-storage", "10Gi"),
];

/// As an agent of ours does.
const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// A node; it is gone from the plane's point of view when this is dropped only in that it does nothing any more.
pub struct FakeNode {
    kubelet: Arc<Kubelet>,
    queue: WorkQueue<ObjectKey>,
    _tasks: Tasks,
}

struct Kubelet {
    client: Client,
    pods: Informer,
    next_address: AtomicU32,
    /// Pods that are deleted stay, as if their containers took their time.
    lingers: AtomicBool,
}

impl FakeNode {
    /// Registers the node in `plane` and runs what is bound to it.
    pub async fn join(
        sources: &Sources,
        plane: &PlaneKey,
        name: &str,
        world: &World,
    ) -> Result<FakeNode, client::Error> {
        let client = sources.client(plane)?;
        client.create(&NODES, None, &node(name)).await?;
        client
            .patch_sub(&NODES, None, name, "status", &Patch::Merge(node_status()))
            .await?;
        let mine = InformerOptions {
            field_selector: Some(format!("spec.nodeName={name}")),
            ..InformerOptions::default()
        };
        let pods = Informer::start(sources, PODS, mine);
        let queue = WorkQueue::<ObjectKey>::new(world);
        let tasks = Tasks::new();
        client::enqueue(&tasks, &pods, &queue, |key, _| vec![key.clone()], Vec::new);
        let kubelet = Arc::new(Kubelet {
            client,
            pods,
            next_address: AtomicU32::new(Ipv4Addr::new(10, 244, 0, 2).into()),
            lingers: AtomicBool::new(false),
        });
        tasks.spawn(beat(kubelet.client.clone(), name.to_owned(), world.clone()));
        let handler = kubelet.clone();
        client::run(&tasks, "fake node", &queue, WORKERS, move |key| {
            let kubelet = handler.clone();
            async move { kubelet.carry_out(&key).await }
        });
        Ok(FakeNode {
            kubelet,
            queue,
            _tasks: tasks,
        })
    }

    /// From now on Pods that are deleted stay until [`FakeNode::let_go`].
    pub fn linger(&self) {
        self.kubelet.lingers.store(true, Ordering::SeqCst);
    }

    pub fn let_go(&self) {
        self.kubelet.lingers.store(false, Ordering::SeqCst);
        self.kubelet.pods.keys().into_iter().for_each(|key| self.queue.add(key));
    }
}

impl Kubelet {
    async fn carry_out(&self, key: &ObjectKey) -> Result<Outcome, client::Error> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        let (namespace, name) = (Some(&*key.namespace), &*key.name);
        let done = if pod.is_deleting() && self.lingers.load(Ordering::SeqCst) {
            Ok(())
        } else if pod.is_deleting() {
            let now = DeleteOptions {
                grace_seconds: Some(0),
                ..DeleteOptions::of_uid(pod.uid())
            };
            self.client.delete(&PODS, namespace, name, &now).await
        } else if pod.tree()["status"]["phase"] != "Running" {
            let address = Ipv4Addr::from(self.next_address.fetch_add(1, Ordering::Relaxed));
            let status = Patch::Merge(running(&pod, address));
            self.client
                .patch_sub(&PODS, namespace, name, "status", &status)
                .await
                .map(drop)
        } else {
            Ok(())
        };
        match done {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

/// Says that the node lives, until dropped.
async fn beat(client: Client, name: String, world: World) {
    loop {
        // Upstream's controllers believe only a time that is after the last one, also that of a node of the same name before.
        let now = jiff::Timestamp::try_from(world.clock.wall()).unwrap_or_default();
        let spec = json!({"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")});
        let patch = Patch::Merge(json!({"spec": spec}));
        let renewed = client.patch(&LEASES, Some(LEASE_NAMESPACE), &name, &patch).await;
        if renewed.is_err_and(|error| error.is_not_found()) {
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": LEASE_NAMESPACE}, "spec": spec});
            // One that fails is made up for by the next.
            let _ = client.create(&LEASES, Some(LEASE_NAMESPACE), &lease).await;
        }
        world.clock.sleep(LEASE_EVERY).await;
    }
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
}

fn node_status() -> Value {
    let amounts: serde_json::Map<String, Value> = CAPACITY
        .iter()
        .map(|(what, amount)| ((*what).to_owned(), json!(amount)))
        .collect();
    json!({"status": {"capacity": amounts, "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "it runs nothing"}]}})
}

/// The status of a Pod all of whose containers run.
pub fn running(pod: &Object, address: Ipv4Addr) -> Value {
    let containers = pod.tree()["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let status = |container: &Value| {
        json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": true, "started": true,
            "restartCount": 0, "containerID": format!("fake://{}-{}", pod.uid(), container["name"].as_str().unwrap_or("")),
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"metadata": {"uid": pod.uid()}, "status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1",
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": conditions,
        "containerStatuses": containers.iter().map(status).collect::<Vec<_>>()}})
}
