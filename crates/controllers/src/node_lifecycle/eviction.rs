//! Pods leave nodes whose `NoExecute` taints they do not (or no longer) tolerate.

use std::sync::Arc;

use api::{Object, resource::PODS};
use client::{
    DeleteOptions, Error, EventRecorder, EventType, Informer, Notice, ObjectKey, Outcome, Patch, Sources, Tasks,
};
use serde_json::json;
use world::World;

use super::{
    plan::{self, Fate},
    settled,
};
use crate::{
    Clusters, fairness,
    fairness::Queue,
    informers::{BY_NODE, Informers, of_node},
    pods, time,
};

const WORKERS: usize = 4;

struct Eviction {
    sources: Sources,
    clusters: Clusters,
    nodes: Informer,
    pods: Informer,
    recorder: EventRecorder,
    queue: Queue<ObjectKey>,
    world: World,
}

pub fn start(sources: &Sources, informers: &Informers, clusters: &Clusters, world: &World, tasks: &Tasks) {
    let shared = Arc::new(Eviction {
        sources: sources.clone(),
        clusters: clusters.clone(),
        nodes: informers.nodes.clone(),
        pods: informers.pods.clone(),
        recorder: EventRecorder::start(tasks, world, "taint-eviction-controller"),
        queue: fairness::by_plane(world),
        world: world.clone(),
    });
    let watcher = shared.clone();
    tasks.spawn(async move { watcher.watch_nodes().await });
    let watcher = shared.clone();
    tasks.spawn(async move { watcher.watch_pods().await });
    let queue = shared.queue.clone();
    client::run(tasks, "taint eviction", &queue, WORKERS, move |key| {
        let shared = shared.clone();
        async move { shared.reconcile(&key).await }
    });
}

impl Eviction {
    async fn watch_nodes(&self) {
        let mut changes = self.nodes.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    let taints =
                        |object: &Option<Object>| object.as_ref().map(|node| node.tree()["spec"]["taints"].clone());
                    if change.new.is_some() && taints(&change.old) != taints(&change.new) {
                        self.add_pods_of(&change.key);
                    }
                }
                Notice::Rescan | Notice::Synced(_) => self.nodes.keys().iter().for_each(|node| self.add_pods_of(node)),
                Notice::Removed(_) => {}
            }
        }
    }

    async fn watch_pods(&self) {
        let mut changes = self.pods.subscribe();
        while let Some(notice) = changes.next().await {
            // What was there before is found by its node.
            let Notice::Change(change) = notice else { continue };
            let Some(pod) = change.new else { continue };
            let place = |pod: &Object| {
                let spec = &pod.tree()["spec"];
                (spec["nodeName"].clone(), spec["tolerations"].clone())
            };
            if self.clusters.has(&change.key.plane) && change.old.as_ref().map(place) != Some(place(&pod)) {
                self.queue.add(change.key);
            }
        }
    }

    fn add_pods_of(&self, node: &ObjectKey) {
        if self.clusters.has(&node.plane) {
            let pods = self.pods.by_index(BY_NODE, &of_node(&node.plane, &node.name));
            pods.into_iter().for_each(|(key, _)| self.queue.add(key));
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.is_deleting()) else {
            return Ok(Outcome::Done);
        };
        if matches!(pods::phase(&pod), "Succeeded" | "Failed") {
            return Ok(Outcome::Done);
        }
        let node = pod.tree()["spec"]["nodeName"].as_str().unwrap_or("");
        let Some(node) = self.nodes.get(&key.plane.object("", node)) else {
            return Ok(Outcome::Done);
        };
        match plan::fate(&pod, &node, time::now(&self.world)) {
            Fate::Stays => return Ok(Outcome::Done),
            Fate::LeavesIn(left) => return Ok(Outcome::After(left)),
            Fate::Leaves => {}
        }
        let client = self.sources.client(&key.plane)?;
        let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
        self.recorder
            .record(&client, &pod, EventType::Normal, "TaintManagerEviction", message);
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint"});
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
        settled(
            client
                .patch_sub(&PODS, key.namespace(), &key.name, "status", &Patch::Strategic(patch))
                .await,
        )?;
        match client
            .delete(&PODS, key.namespace(), &key.name, &DeleteOptions::of_uid(pod.uid()))
            .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Outcome::Done),
            done => done.map(|()| Outcome::Done),
        }
    }
}
