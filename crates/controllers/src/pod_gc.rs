//! Pods that nobody will end: on nodes that are gone, deleted before they had a node, or finished and too many.

use std::{collections::HashSet, sync::Arc, time::Duration};

use api::{
    Object,
    resource::{NODES, PODS},
};
use client::{Client, DeleteOptions, Error, Informer, Notice, ObjectKey, Outcome, Patch, PlaneKey, Sources, Tasks};
use serde_json::json;
use world::World;

use crate::{
    Clusters, fairness,
    fairness::Queue,
    informers::{BY_NODE, FINISHED, Informers, of_node},
    pods,
};

const WORKERS: usize = 2;

/// A node that is missing may be about to come (back); upstream's quarantine.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Finished Pods kept over all of a plane; upstream's `--terminated-pod-gc-threshold`.
const FINISHED_MAX: usize = 12_500;

struct PodGc {
    sources: Sources,
    clusters: Clusters,
    pods: Informer,
    nodes: Informer,
    queue: Queue<ObjectKey>,
}

pub fn start(sources: &Sources, informers: &Informers, clusters: &Clusters, world: &World, tasks: &Tasks) {
    let shared = Arc::new(PodGc {
        sources: sources.clone(),
        clusters: clusters.clone(),
        pods: informers.pods.clone(),
        nodes: informers.nodes.clone(),
        queue: fairness::by_plane(world),
    });
    let watcher = shared.clone();
    tasks.spawn(async move { watcher.watch_nodes().await });
    let watcher = shared.clone();
    tasks.spawn(async move { watcher.watch_pods().await });
    let queue = shared.queue.clone();
    client::run(tasks, "pod garbage", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

impl PodGc {
    async fn watch_nodes(&self) {
        let mut changes = self.nodes.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) if change.new.is_none() => {
                    let pods = self
                        .pods
                        .by_index(BY_NODE, &of_node(&change.key.plane, &change.key.name));
                    for (key, _) in pods.into_iter().filter(|(key, pod)| self.is_lost(key, pod)) {
                        self.queue.add_after(key, QUARANTINE);
                    }
                }
                Notice::Rescan | Notice::Synced(_) => self.add_lost(),
                _ => {}
            }
        }
    }

    async fn watch_pods(&self) {
        let mut changes = self.pods.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    let Some(pod) = change.new else { continue };
                    let ended = |pod: &Object| matches!(pods::phase(pod), "Succeeded" | "Failed");
                    if ended(&pod) && !change.old.as_ref().is_some_and(ended) {
                        self.add_finished(&change.key.plane);
                    }
                    if self.is_lost(&change.key, &pod) {
                        self.queue.add_after(change.key, QUARANTINE);
                    }
                }
                Notice::Rescan | Notice::Synced(_) => self.add_lost(),
                Notice::Removed(_) => {}
            }
        }
    }

    fn add_lost(&self) {
        let mut planes = HashSet::new();
        for (key, pod) in self.pods.all() {
            if self.is_lost(&key, &pod) {
                self.queue.add_after(key.clone(), QUARANTINE);
            }
            planes.insert(key.plane);
        }
        planes.iter().for_each(|plane| self.add_finished(plane));
    }

    /// The oldest of the finished ones beyond the limit.
    fn add_finished(&self, plane: &PlaneKey) {
        if !self.clusters.has(plane) {
            return;
        }
        if !self.has_excess(plane) {
            return;
        }
        let finished = self.pods.by_index(FINISHED, &plane.to_string()).into_iter();
        let mut finished: Vec<Object> = finished.map(|(_, pod)| pod).filter(|pod| !pod.is_deleting()).collect();
        finished.sort_by_key(|pod| {
            pod.tree()["metadata"]["creationTimestamp"]
                .as_str()
                .unwrap_or("")
                .to_owned()
        });
        let excess = finished.len().saturating_sub(FINISHED_MAX);
        for pod in finished.into_iter().take(excess) {
            self.queue.add(plane.object(pod.namespace(), pod.name()));
        }
    }

    /// On a node that is not there; nodes are shown to other planes by somebody else, who sees to their Pods too.
    fn is_lost(&self, key: &ObjectKey, pod: &Object) -> bool {
        self.clusters.has(&key.plane)
            && self.nodes.synced(&key.plane.source)
            && node_of(pod).is_some_and(|node| self.nodes.get(&key.plane.object("", node)).is_none())
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Outcome::Done);
        };
        let client = self.sources.client(&key.plane)?;
        let finished = matches!(pods::phase(&pod), "Succeeded" | "Failed");
        if !self.is_lost(key, &pod) {
            // Back again; or one of too many.
            if finished && !pod.is_deleting() && self.has_excess(&key.plane) {
                delete(&client, &pod).await?;
            }
            return Ok(Outcome::Done);
        }
        let node = node_of(&pod).unwrap_or("");
        match client.get(&NODES, None, node).await {
            Err(error) if error.is_not_found() => {}
            Ok(_) => return Ok(Outcome::Done),
            Err(error) => return Err(error),
        }
        if !finished {
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists"});
            let patch =
                json!({"metadata": {"uid": pod.uid()}, "status": {"phase": "Failed", "conditions": [condition]}});
            let patch = Patch::Strategic(patch);
            match client
                .patch_sub(&PODS, key.namespace(), &key.name, "status", &patch)
                .await
            {
                Err(error) if error.is_not_found() || error.is_conflict() => return Ok(Outcome::Done),
                done => drop(done?),
            }
        }
        delete(&client, &pod).await?;
        Ok(Outcome::Done)
    }

    fn has_excess(&self, plane: &PlaneKey) -> bool {
        self.pods.count_by_index(FINISHED, &plane.to_string()) > FINISHED_MAX
    }
}

fn node_of(pod: &Object) -> Option<&str> {
    pod.tree()["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

/// At once: there is nobody who would end it gracefully.
async fn delete(client: &Client, pod: &Object) -> Result<(), Error> {
    let options = DeleteOptions {
        grace_seconds: Some(0),
        ..DeleteOptions::of_uid(pod.uid())
    };
    match client.delete(&PODS, Some(pod.namespace()), pod.name(), &options).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        done => done,
    }
}
