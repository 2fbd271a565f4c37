//! The loop: Pods without a node are placed one by one, in order of priority and age; what does not fit waits until the cluster
//! changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use api::{Object, resource};
use client::{
    Change, Client, EventRecorder, EventType, Informer, InformerOptions, Notice, ObjectKey, Patch, PlaneKey, Sources,
    Tasks,
};
use serde_json::json;
use tokio::sync::Notify;
use world::World;

use crate::{
    filter,
    node_info::{NodeInfo, Placed},
    score,
};

/// Upstream's name: a Pod that names another scheduler is not ours.
const NAME: &str = "default-scheduler";

pub struct Options {
    /// The one plane whose Pods and Nodes these are.
    pub sources: Sources,
    pub plane: PlaneKey,
    pub world: World,
}

/// Owns the loop's tasks.
pub struct Running {
    tasks: Tasks,
}

impl Running {
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}

/// Starts the loop. Nothing is placed before all Pods and Nodes are known.
pub fn start(options: Options) -> Result<Running, client::Error> {
    let tasks = Tasks::new();
    let scheduler = Arc::new(Scheduler {
        client: options.sources.client(&options.plane)?,
        pods: Informer::start(&options.sources, resource::PODS, InformerOptions::default()),
        nodes: Informer::start(&options.sources, resource::NODES, InformerOptions::default()),
        recorder: EventRecorder::start(&tasks, &options.world, NAME),
        plane: options.plane,
        cluster: Mutex::default(),
        changed: Notify::new(),
    });
    let watcher = scheduler.clone();
    tasks.spawn(async move { watcher.watch().await });
    tasks.spawn(async move { scheduler.run().await });
    Ok(Running { tasks })
}

struct Scheduler {
    client: Client,
    pods: Informer,
    nodes: Informer,
    recorder: EventRecorder,
    plane: PlaneKey,
    cluster: Mutex<Cluster>,
    /// Something happened that may let a Pod be placed.
    changed: Notify,
}

/// What is known of the cluster, with placements that were made and not yet seen come back.
#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<String, NodeInfo>,
    /// By the Pod's uid: the node it takes room on.
    placed: HashMap<String, String>,
    /// Pods on nodes that are not known (yet).
    homeless: HashMap<String, (String, Placed)>,
    waiting: BTreeMap<ObjectKey, Object>,
    /// Waiting ones that did not fit, and nothing has changed since.
    hopeless: HashSet<ObjectKey>,
}

impl Scheduler {
    async fn watch(&self) {
        let (mut pods, mut nodes) = (self.pods.subscribe(), self.nodes.subscribe());
        let (mut pods_known, mut nodes_known) = (false, false);
        loop {
            tokio::select! {
                notice = pods.next() => {
                    let Some(notice) = notice else { return };
                    pods_known |= self.tells_all(&self.pods, &notice);
                    if let Notice::Rescan = notice {
                        let there = self.pods.all();
                        self.lock().forget_pods_but(&there);
                    }
                    each(&self.pods, notice, |change| self.lock().see_pod(change));
                }
                notice = nodes.next() => {
                    let Some(notice) = notice else { return };
                    nodes_known |= self.tells_all(&self.nodes, &notice);
                    if let Notice::Rescan = notice {
                        let there = self.nodes.all();
                        self.lock().forget_nodes_but(&there);
                    }
                    each(&self.nodes, notice, |change| self.lock().see_node(change));
                }
            }
            if pods_known && nodes_known {
                self.changed.notify_one();
            }
        }
    }

    /// After this notice all that the plane has was told: before, what is missing would be taken for absent.
    fn tells_all(&self, informer: &Informer, notice: &Notice) -> bool {
        match notice {
            Notice::Synced(source) => *source == self.plane.source,
            Notice::Rescan => informer.synced(&self.plane.source),
            _ => false,
        }
    }

    async fn run(&self) {
        loop {
            // Woken for the first time when everything is known.
            self.changed.notified().await;
            while let Some((key, pod)) = self.next() {
                self.place(&key, &pod).await;
            }
        }
    }

    /// The waiting Pod of the highest priority, the oldest of these.
    fn next(&self) -> Option<(ObjectKey, Object)> {
        let cluster = self.lock();
        let candidates = cluster
            .waiting
            .iter()
            .filter(|(key, _)| !cluster.hopeless.contains(*key));
        let order = |pod: &Object| {
            let created = pod.tree()["metadata"]["creationTimestamp"]
                .as_str()
                .unwrap_or("")
                .to_owned();
            (
                std::cmp::Reverse(pod.tree()["spec"]["priority"].as_i64().unwrap_or(0)),
                created,
            )
        };
        candidates
            .min_by_key(|(_, pod)| order(pod))
            .map(|(key, pod)| (key.clone(), pod.clone()))
    }

    async fn place(&self, key: &ObjectKey, pod: &Object) {
        let asks = Placed::of(pod);
        let decision = {
            let mut cluster = self.lock();
            let decision = score::place(pod, &asks, cluster.nodes.values()).map(str::to_owned);
            let nodes = cluster.nodes.len();
            match decision {
                Ok(node) => {
                    // Assumed: the next Pod sees the room taken, before the binding has come back.
                    cluster.put(pod.uid(), &node, asks);
                    cluster.waiting.remove(key);
                    Ok(node)
                }
                Err(against) => {
                    cluster.hopeless.insert(key.clone());
                    Err(filter::summary(nodes, &against))
                }
            }
        };
        match decision {
            Ok(node) => self.bind(key, pod, &node).await,
            Err(reason) => self.tell_unschedulable(key, pod, &reason).await,
        }
    }

    async fn bind(&self, key: &ObjectKey, pod: &Object, node: &str) {
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        match self
            .client
            .create_sub(&resource::PODS, key.namespace(), &key.name, "binding", &binding)
            .await
        {
            Ok(_) => {
                let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
                self.recorder
                    .record(&self.client, pod, EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(%error, pod = ?pod, node, "a binding was refused");
                let mut cluster = self.lock();
                // If it went through all the same, the watch shows the Pod on its node.
                cluster.take(pod.uid());
                if let Some(pod) = self.pods.get(key).filter(is_waiting) {
                    cluster.waiting.insert(key.clone(), pod);
                    // Tried again with the next change, not in a loop.
                    cluster.hopeless.insert(key.clone());
                }
            }
        }
    }

    async fn tell_unschedulable(&self, key: &ObjectKey, pod: &Object, reason: &str) {
        self.recorder
            .record(&self.client, pod, EventType::Warning, "FailedScheduling", reason);
        let conditions = pod.tree()["status"]["conditions"].as_array();
        let told = conditions.into_iter().flatten().any(|condition| {
            condition["type"] == "PodScheduled" && condition["status"] == "False" && condition["message"] == reason
        });
        if told {
            return;
        }
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": reason});
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}}));
        let written = self
            .client
            .patch_sub(&resource::PODS, key.namespace(), &key.name, "status", &patch)
            .await;
        if let Err(error) = written {
            tracing::debug!(%error, pod = ?pod, "a condition could not be written");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no one panics while holding it")
    }
}

/// Calls `see` for one change, or for everything there is.
fn each(informer: &Informer, notice: Notice, mut see: impl FnMut(Change)) {
    match notice {
        Notice::Change(change) => see(change),
        Notice::Synced(_) | Notice::Removed(_) => {}
        Notice::Rescan => {
            for (key, object) in informer.all() {
                see(Change {
                    key,
                    old: None,
                    new: Some(object),
                });
            }
        }
    }
}

/// Ours to place: no node yet, not gated, not on its way out.
fn is_waiting(pod: &Object) -> bool {
    let spec = &pod.tree()["spec"];
    spec["nodeName"].as_str().unwrap_or("").is_empty()
        && spec["schedulerName"].as_str().is_none_or(|name| name == NAME)
        && spec["schedulingGates"].as_array().is_none_or(Vec::is_empty)
        && !pod.is_deleting()
        && !is_finished(pod)
}

fn is_finished(pod: &Object) -> bool {
    matches!(pod.tree()["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

impl Cluster {
    /// After missed notices: what is not there any more was deleted.
    fn forget_pods_but(&mut self, there: &[(ObjectKey, Object)]) {
        let uids: HashSet<&str> = there.iter().map(|(_, pod)| pod.uid()).collect();
        let known = self.placed.keys().chain(self.homeless.keys());
        let gone: Vec<String> = known.filter(|uid| !uids.contains(uid.as_str())).cloned().collect();
        gone.iter().for_each(|uid| self.take(uid));
        self.waiting.retain(|_, pod| uids.contains(pod.uid()));
        self.hopeless.clear();
    }

    fn forget_nodes_but(&mut self, there: &[(ObjectKey, Object)]) {
        let names: HashSet<&str> = there.iter().map(|(key, _)| &*key.name).collect();
        let gone: Vec<String> = self
            .nodes
            .keys()
            .filter(|name| !names.contains(name.as_str()))
            .cloned()
            .collect();
        gone.iter().for_each(|name| self.lose_node(name));
    }

    /// Its Pods are still there until they are deleted, and the node may come back.
    fn lose_node(&mut self, name: &str) {
        for (uid, placed) in self.nodes.remove(name).into_iter().flat_map(NodeInfo::into_pods) {
            self.placed.remove(&uid);
            self.homeless.insert(uid, (name.to_owned(), placed));
        }
    }

    fn see_pod(&mut self, change: Change) {
        let Some(pod) = change.new else {
            self.waiting.remove(&change.key);
            self.hopeless.remove(&change.key);
            if let Some(old) = change.old {
                self.take(old.uid());
                self.hopeless.clear();
            }
            return;
        };
        // Made anew under its name: the old one is gone.
        if let Some(old) = change.old.filter(|old| old.uid() != pod.uid()) {
            self.take(old.uid());
        }
        let node = pod.tree()["spec"]["nodeName"].as_str().unwrap_or("");
        if is_finished(&pod) {
            self.waiting.remove(&change.key);
            self.take(pod.uid());
            self.hopeless.clear();
        } else if !node.is_empty() {
            self.waiting.remove(&change.key);
            self.put(pod.uid(), node, Placed::of(&pod));
        } else if is_waiting(&pod) {
            // One that was just placed comes by once more as it was before.
            if !self.placed.contains_key(pod.uid()) {
                let spec_changed = self
                    .waiting
                    .get(&change.key)
                    .is_none_or(|known| known.tree()["spec"] != pod.tree()["spec"]);
                if spec_changed {
                    self.hopeless.remove(&change.key);
                }
                self.waiting.insert(change.key, pod);
            }
        } else {
            self.waiting.remove(&change.key);
        }
    }

    fn see_node(&mut self, change: Change) {
        let name = change.key.name.to_string();
        match change.new {
            Some(node) => {
                let before = self.nodes.get(&name).map(|info| info.node.clone());
                match self.nodes.get_mut(&name) {
                    Some(info) => info.set_node(node.clone()),
                    None => {
                        let mut info = NodeInfo::new(node.clone());
                        let here: Vec<String> = self
                            .homeless
                            .iter()
                            .filter(|(_, (node, _))| *node == name)
                            .map(|(uid, _)| uid.clone())
                            .collect();
                        for uid in here {
                            if let Some((_, placed)) = self.homeless.remove(&uid) {
                                info.put(&uid, placed);
                                self.placed.insert(uid, name.clone());
                            }
                        }
                        self.nodes.insert(name, info);
                    }
                }
                // A heartbeat changes nothing for a Pod that did not fit.
                let matters = |node: &Object| {
                    let tree = node.tree();
                    (
                        tree["spec"].clone(),
                        tree["status"]["allocatable"].clone(),
                        tree["metadata"]["labels"].clone(),
                    )
                };
                if before.as_ref().map(matters) != Some(matters(&node)) {
                    self.hopeless.clear();
                }
            }
            None => self.lose_node(&name),
        }
    }

    fn put(&mut self, uid: &str, node: &str, placed: Placed) {
        if self.placed.get(uid).is_some_and(|known| known != node) {
            self.take(uid);
        }
        match self.nodes.get_mut(node) {
            Some(info) => {
                info.put(uid, placed);
                self.placed.insert(uid.to_owned(), node.to_owned());
            }
            None => drop(self.homeless.insert(uid.to_owned(), (node.to_owned(), placed))),
        }
    }

    fn take(&mut self, uid: &str) {
        self.homeless.remove(uid);
        if let Some(node) = self.placed.remove(uid)
            && let Some(info) = self.nodes.get_mut(&node)
        {
            info.take(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn key(name: &str) -> ObjectKey {
        let plane = PlaneKey {
            source: client::SourceId::new("super"),
            plane: "aaaaaaaaaaaaaaaa".parse().unwrap(),
        };
        plane.object("n", name)
    }

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Object {
        let mut tree = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"containers": [{"resources": {"requests": {"cpu": "600m"}}}]}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    fn seen(cluster: &mut Cluster, name: &str, old: Option<Object>, new: Option<Object>) {
        cluster.see_pod(Change {
            key: key(name),
            old,
            new,
        });
    }

    fn with_node() -> Cluster {
        let mut cluster = Cluster::default();
        let node =
            Object::from_tree(json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1", "pods": "9"}}}));
        cluster.see_node(Change {
            key: key("a"),
            old: None,
            new: Some(node),
        });
        cluster
    }

    #[test]
    fn a_pod_that_was_placed_keeps_its_room_while_its_binding_is_under_way() {
        let mut cluster = with_node();
        seen(&mut cluster, "p", None, Some(pod("p", |_| {})));
        cluster.put("p", "a", Placed::of(&pod("p", |_| {})));
        cluster.waiting.clear();

        seen(
            &mut cluster,
            "p",
            None,
            Some(pod("p", |pod| pod["metadata"]["labels"] = json!({"x": "y"}))),
        );

        assert!(cluster.waiting.is_empty(), "it is not placed twice");
        assert_eq!(cluster.nodes["a"].requested["cpu"], 600);
    }

    #[test]
    fn a_deleted_pod_gives_its_room_and_hope_back() {
        let mut cluster = with_node();
        let running = pod("p", |pod| pod["spec"]["nodeName"] = "a".into());
        seen(&mut cluster, "p", None, Some(running.clone()));
        seen(&mut cluster, "q", None, Some(pod("q", |_| {})));
        cluster.hopeless.insert(key("q"));

        seen(&mut cluster, "p", Some(running), None);

        assert_eq!(cluster.nodes["a"].requested["cpu"], 0);
        assert!(cluster.hopeless.is_empty());
    }

    #[test]
    fn a_pod_seen_before_its_node_takes_room_there_when_it_comes() {
        let mut cluster = Cluster::default();
        seen(
            &mut cluster,
            "p",
            None,
            Some(pod("p", |pod| pod["spec"]["nodeName"] = "a".into())),
        );
        let node = Object::from_tree(json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1"}}}));

        cluster.see_node(Change {
            key: key("a"),
            old: None,
            new: Some(node),
        });

        assert_eq!(cluster.nodes["a"].requested["cpu"], 600);
    }

    #[test]
    fn gated_foreign_and_finished_pods_do_not_wait() {
        let cases: [fn(&mut Value); 4] = [
            |pod| pod["spec"]["schedulingGates"] = json!([{"name": "g"}]),
            |pod| pod["spec"]["schedulerName"] = "mine".into(),
            |pod| pod["status"]["phase"] = "Succeeded".into(),
            |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
        ];
        for change in cases {
            assert!(!is_waiting(&pod("p", change)));
        }
        assert!(is_waiting(&pod("p", |_| {})));
    }
}
