//! Nodes that fall silent: they are marked, nothing new goes there, and in the end their Pods go elsewhere.

mod eviction;
mod plan;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    Object,
    resource::{LEASES, NODES, PODS},
};
use client::{
    Client, Error, EventRecorder, EventType, Informer, InformerOptions, Notice, ObjectKey, Outcome, Patch, PlaneKey,
    Sources, Tasks,
};
use serde_json::{Value, json};
use world::World;

use crate::{
    Clusters, fairness,
    fairness::Queue,
    informers::{BY_NODE, Informers, of_node},
    pods, time,
};
use plan::Evicts;

const WORKERS: usize = 4;

/// A node that says nothing for so long is taken for lost: four of its Leases' renewals, as upstream has it.
const GRACE: Duration = Duration::from_secs(40);

const LEASE_NAMESPACE: &str = "kube-node-lease";

struct NodeLifecycle {
    sources: Sources,
    clusters: Clusters,
    nodes: Informer,
    leases: Informer,
    pods: Informer,
    recorder: EventRecorder,
    queue: Queue<ObjectKey>,
    heard: Mutex<HashMap<ObjectKey, Heard>>,
    world: World,
}

/// The last sign of life, and when it came, by our own clock: nodes' clocks are not trusted.
struct Heard {
    renewed: Value,
    reported: Value,
    at: Duration,
}

pub fn start(sources: &Sources, informers: &Informers, clusters: &Clusters, world: &World, tasks: &Tasks) {
    let options = InformerOptions {
        namespace: Some(LEASE_NAMESPACE.to_owned()),
        ..InformerOptions::default()
    };
    let shared = Arc::new(NodeLifecycle {
        sources: sources.clone(),
        clusters: clusters.clone(),
        nodes: informers.nodes.clone(),
        leases: Informer::start(sources, LEASES, options),
        pods: informers.pods.clone(),
        recorder: EventRecorder::start(tasks, world, "node-controller"),
        queue: fairness::by_plane(world),
        heard: Mutex::default(),
        world: world.clone(),
    });
    for informer in [shared.nodes.clone(), shared.leases.clone()] {
        let shared = shared.clone();
        tasks.spawn(async move { shared.watch(&informer).await });
    }
    let queue = shared.queue.clone();
    client::run(tasks, "node lifecycle", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
    eviction::start(sources, informers, clusters, world, tasks);
}

impl NodeLifecycle {
    async fn watch(&self, informer: &Informer) {
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) if self.clusters.has(&change.key.plane) => {
                    let node = change.key.plane.object("", &change.key.name);
                    let readiness = |object: &Option<Object>| object.as_ref().map(plan::is_ready);
                    let turned = change.key.namespace.is_empty() && readiness(&change.old) != readiness(&change.new);
                    self.queue.add(node);
                    if turned {
                        // Whether any node is heard of concerns all.
                        self.add_all(&change.key.plane);
                    }
                }
                Notice::Rescan | Notice::Synced(_) => {
                    let nodes = self.nodes.keys().into_iter();
                    nodes
                        .filter(|key| self.clusters.has(&key.plane))
                        .for_each(|key| self.queue.add(key));
                }
                _ => {}
            }
        }
    }

    fn add_all(&self, plane: &PlaneKey) {
        let nodes = self.nodes.list(plane, None);
        nodes
            .iter()
            .for_each(|node| self.queue.add(plane.object("", node.name())));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let source = &key.plane.source;
        if ![&self.nodes, &self.leases, &self.pods]
            .iter()
            .all(|informer| informer.synced(source))
        {
            return Ok(Outcome::Done);
        }
        let Some(node) = self.nodes.get(key) else {
            self.heard().remove(key);
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        let now = time::now(&self.world);
        let silent_for = self.silent_for(key, &node);
        let again = GRACE.checked_sub(silent_for).filter(|left| !left.is_zero());
        if again.is_none()
            && let Some(status) = plan::silent_conditions(&node, now)
        {
            let metadata = json!({"uid": node.uid(), "resourceVersion": node.resource_version()});
            let patch = Patch::Strategic(json!({"metadata": metadata, "status": status}));
            settled(client.patch_sub(&NODES, None, &key.name, "status", &patch).await)?;
            // What was written comes back, and the taints follow from it.
            return Ok(Outcome::Done);
        }
        let nodes = self.nodes.list(&key.plane, None);
        let evicts = if nodes.iter().any(plan::is_ready) {
            Evicts::Pods
        } else {
            Evicts::Nobody
        };
        if let Some(taints) = plan::taints(&node, evicts, now) {
            let metadata = json!({"uid": node.uid(), "resourceVersion": node.resource_version()});
            let patch = Patch::Merge(json!({"metadata": metadata, "spec": {"taints": taints}}));
            settled(client.patch(&NODES, None, &key.name, &patch).await)?;
        }
        if !plan::is_ready(&node) {
            self.mark_pods(&client, key, &node).await?;
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    /// How long nothing was heard of a node: neither a renewed Lease nor a reported status.
    fn silent_for(&self, key: &ObjectKey, node: &Object) -> Duration {
        let now = self.world.clock.monotonic();
        let lease = self.leases.get(&key.plane.object(LEASE_NAMESPACE, &key.name));
        let renewed = lease.map_or(Value::Null, |lease| lease.tree()["spec"]["renewTime"].clone());
        let reported = pods::condition(node, "Ready").map_or(Value::Null, |ready| ready["lastHeartbeatTime"].clone());
        let mut all = self.heard();
        match all.get_mut(key) {
            Some(heard) if heard.renewed == renewed && heard.reported == reported => now.saturating_sub(heard.at),
            _ => {
                let at = now;
                all.insert(key.clone(), Heard { renewed, reported, at });
                Duration::ZERO
            }
        }
    }

    /// Nothing is to be sent to Pods of which nothing is heard.
    async fn mark_pods(&self, client: &Client, key: &ObjectKey, node: &Object) -> Result<(), Error> {
        let silent = pods::condition(node, "Ready").is_none_or(|ready| ready["status"] == "Unknown");
        if !silent {
            // It reports, and says itself which of its Pods are ready.
            return Ok(());
        }
        for (_, pod) in self.pods.by_index(BY_NODE, &of_node(&key.plane, &key.name)) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let condition = json!({"type": "Ready", "status": "False",
                "lastTransitionTime": time::text(time::now(&self.world))});
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
            settled(
                client
                    .patch_sub(
                        &PODS,
                        Some(pod.namespace()),
                        pod.name(),
                        "status",
                        &Patch::Strategic(patch),
                    )
                    .await,
            )?;
            self.recorder
                .record(client, &pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, Heard>> {
        self.heard.lock().expect("no one panics while holding it")
    }
}

/// What is gone or has changed needs nothing more from this pass; its event brings us back.
fn settled(result: Result<Object, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done.map(drop),
    }
}
