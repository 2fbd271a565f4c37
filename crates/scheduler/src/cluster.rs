//! What is known of the cluster, with placements that were made and not yet seen come back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use api::Object;
use client::{Change, ObjectKey};

use crate::{
    filter::Hears, node_info::NodeInfo, pod_info::PodInfo, preempt::Budget, snapshot::Snapshot, waiting::Waiting,
};

/// Upstream's name: a Pod that names another scheduler is not ours.
pub const NAME: &str = "default-scheduler";

#[derive(Default)]
pub struct Cluster {
    pub snapshot: Snapshot,
    pub waiting: Waiting,
    /// Placed, and bound when their volumes are.
    pub pending: HashMap<ObjectKey, Pending>,
    /// Gated ones that have not been told so.
    pub gated: Vec<(ObjectKey, Object)>,
    budgets: BTreeMap<ObjectKey, Budget>,
    /// By the Pod's uid: the node it takes room on.
    placed: HashMap<String, String>,
    /// Pods on nodes that are not known (yet).
    homeless: HashMap<String, (String, Arc<PodInfo>)>,
}

#[derive(Clone)]
pub struct Pending {
    pub pod: Arc<PodInfo>,
    pub node: String,
}

/// Ours to place: no node yet, not on its way out.
pub fn is_ours(pod: &Object) -> bool {
    let spec = &pod.tree()["spec"];
    spec["nodeName"].as_str().unwrap_or("").is_empty()
        && spec["schedulerName"].as_str().is_none_or(|name| name == NAME)
        && !pod.is_deleting()
        && !is_finished(pod)
}

pub fn is_gated(pod: &Object) -> bool {
    let gates = pod.tree()["spec"]["schedulingGates"].as_array();
    gates.is_some_and(|gates| !gates.is_empty())
}

fn is_finished(pod: &Object) -> bool {
    matches!(pod.tree()["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

impl Cluster {
    pub fn budgets(&self) -> Vec<Budget> {
        self.budgets.values().cloned().collect()
    }

    pub fn see_pod(&mut self, change: Change) {
        let Change { key, old, new } = change;
        let Some(pod) = new else {
            if let Some(old) = old {
                self.lose_pod(&key, old.uid());
            }
            return;
        };
        // Made anew under its name: the old one is gone.
        if let Some(old) = old.as_ref().filter(|old| old.uid() != pod.uid()) {
            self.lose_pod(&key, old.uid());
        }
        let node = pod.tree()["spec"]["nodeName"].as_str().unwrap_or("");
        if is_finished(&pod) {
            self.lose_pod(&key, pod.uid());
        } else if !node.is_empty() {
            self.waiting.remove(&key);
            self.pending.remove(&key);
            self.forget_nomination(pod.uid());
            let labels = |pod: &Object| pod.tree()["metadata"]["labels"].clone();
            let news = !self.placed.contains_key(pod.uid())
                || old.is_some_and(|old| labels(&old) != labels(&pod) || old.is_deleting() != pod.is_deleting());
            let node = node.to_owned();
            self.put(&node, Arc::new(PodInfo::of(&pod)));
            if news {
                self.waiting.wake(Hears::POD_CAME);
            }
        } else if !is_ours(&pod) {
            self.lose_pod(&key, pod.uid());
        } else if is_gated(&pod) {
            self.waiting.remove(&key);
            self.gated.push((key, pod));
        } else if !self.placed.contains_key(pod.uid()) {
            // One that was just placed comes by once more as it was before.
            let pod = Arc::new(PodInfo::of(&pod));
            self.nominate(&pod, pod.pod.tree()["status"]["nominatedNodeName"].as_str());
            self.waiting.put(key, pod);
        }
    }

    fn lose_pod(&mut self, key: &ObjectKey, uid: &str) {
        self.waiting.remove(key);
        self.pending.remove(key);
        self.forget_nomination(uid);
        if self.take(uid) {
            self.waiting.wake(Hears::POD_GONE);
        }
    }

    /// Others see its room as taken.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        self.forget_nomination(pod.uid());
        if let Some(node) = node.filter(|node| !node.is_empty()) {
            let there = self.snapshot.nominated.entry(node.to_owned()).or_default();
            there.push(pod.clone());
        }
    }

    fn forget_nomination(&mut self, uid: &str) {
        for pods in self.snapshot.nominated.values_mut() {
            pods.retain(|pod| pod.uid() != uid);
        }
        self.snapshot.nominated.retain(|_, pods| !pods.is_empty());
    }

    pub fn see_node(&mut self, change: Change) {
        let name = change.key.name.to_string();
        let Some(node) = change.new else {
            return self.lose_node(&name);
        };
        // A heartbeat changes nothing for a Pod that did not fit.
        let matters = |node: &Object| {
            let tree = node.tree();
            (
                tree["spec"].clone(),
                tree["status"]["allocatable"].clone(),
                tree["metadata"]["labels"].clone(),
            )
        };
        if let Some(info) = self.snapshot.node_mut(&name) {
            let news = matters(&info.node) != matters(&node);
            info.set_node(node);
            if news {
                self.waiting.wake(Hears::NODE);
            }
            return;
        }
        let mut info = NodeInfo::new(node);
        let here: Vec<String> = self
            .homeless
            .iter()
            .filter(|(_, (node, _))| *node == name)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in here {
            if let Some((_, pod)) = self.homeless.remove(&uid) {
                info.put(pod);
                self.placed.insert(uid, name.clone());
            }
        }
        self.snapshot.nodes.insert(name, Arc::new(info));
        self.waiting.wake(Hears::NODE);
    }

    /// Its Pods are still there until they are deleted, and the node may come back.
    fn lose_node(&mut self, name: &str) {
        let Some(info) = self.snapshot.nodes.remove(name) else {
            return;
        };
        for pod in info.pods() {
            self.placed.remove(pod.uid());
            self.homeless
                .insert(pod.uid().to_owned(), (name.to_owned(), pod.clone()));
        }
        // Their messages count the nodes.
        self.waiting.wake(Hears::NODE);
    }

    pub fn see_namespace(&mut self, change: Change) {
        let name = change.key.name.to_string();
        let Some(namespace) = change.new else {
            self.snapshot.namespaces.remove(&name);
            return;
        };
        let labels = namespace.tree()["metadata"]["labels"].clone();
        if self.snapshot.namespaces.insert(name, labels.clone()) != Some(labels) {
            self.waiting.wake(Hears::NAMESPACES);
        }
    }

    pub fn see_budget(&mut self, change: Change) {
        match change.new {
            Some(budget) => drop(self.budgets.insert(change.key, Budget::of(&budget))),
            None => drop(self.budgets.remove(&change.key)),
        }
    }

    pub fn see_claim(&mut self, change: Change) {
        let name = format!("{}/{}", change.key.namespace, change.key.name);
        set(&mut self.snapshot.volumes.claims, name, change.new);
        self.waiting.wake(Hears::VOLUMES);
    }

    pub fn see_volume(&mut self, change: Change) {
        set(
            &mut self.snapshot.volumes.volumes,
            change.key.name.to_string(),
            change.new,
        );
        self.waiting.wake(Hears::VOLUMES);
    }

    pub fn see_class(&mut self, change: Change) {
        set(
            &mut self.snapshot.volumes.classes,
            change.key.name.to_string(),
            change.new,
        );
        self.waiting.wake(Hears::VOLUMES);
    }

    /// After missed notices: what is not there any more was deleted.
    pub fn forget_pods_but(&mut self, there: &[(ObjectKey, Object)]) {
        let uids: HashSet<&str> = there.iter().map(|(_, pod)| pod.uid()).collect();
        let known = self.placed.keys().chain(self.homeless.keys());
        let gone: Vec<String> = known.filter(|uid| !uids.contains(uid.as_str())).cloned().collect();
        for uid in &gone {
            self.take(uid);
        }
        self.waiting.retain(|pod| uids.contains(pod.uid()));
        self.pending.retain(|_, pending| uids.contains(pending.pod.uid()));
        self.waiting.wake(Hears::ALL);
    }

    pub fn forget_nodes_but(&mut self, there: &[(ObjectKey, Object)]) {
        let names: HashSet<&str> = there.iter().map(|(key, _)| &*key.name).collect();
        let known = self.snapshot.nodes.keys();
        let gone: Vec<String> = known.filter(|name| !names.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.lose_node(name));
    }

    pub fn forget_namespaces_but(&mut self, _: &[(ObjectKey, Object)]) {
        self.snapshot.namespaces.clear();
    }

    pub fn forget_budgets_but(&mut self, _: &[(ObjectKey, Object)]) {
        self.budgets.clear();
    }

    pub fn forget_claims_but(&mut self, _: &[(ObjectKey, Object)]) {
        self.snapshot.volumes.claims.clear();
    }

    pub fn forget_volumes_but(&mut self, _: &[(ObjectKey, Object)]) {
        self.snapshot.volumes.volumes.clear();
    }

    pub fn forget_classes_but(&mut self, _: &[(ObjectKey, Object)]) {
        self.snapshot.volumes.classes.clear();
    }

    /// The Pod takes room on a node from now on, before its binding has come back.
    pub fn assume(&mut self, key: &ObjectKey, pod: &Arc<PodInfo>, node: &str) {
        self.waiting.remove(key);
        self.put(node, pod.clone());
    }

    /// Gives back what was assumed. If the binding went through all the same, the watch shows the Pod on its node.
    pub fn give_back(&mut self, key: &ObjectKey, uid: &str) {
        self.pending.remove(key);
        self.take(uid);
    }

    fn put(&mut self, node: &str, pod: Arc<PodInfo>) {
        let uid = pod.uid().to_owned();
        if self.placed.get(&uid).is_some_and(|known| known != node) {
            self.take(&uid);
        }
        match self.snapshot.node_mut(node) {
            Some(info) => {
                info.put(pod);
                self.placed.insert(uid, node.to_owned());
            }
            None => drop(self.homeless.insert(uid, (node.to_owned(), pod))),
        }
    }

    fn take(&mut self, uid: &str) -> bool {
        let was_homeless = self.homeless.remove(uid).is_some();
        let Some(node) = self.placed.remove(uid) else {
            return was_homeless;
        };
        if let Some(info) = self.snapshot.node_mut(&node) {
            info.take(uid);
        }
        true
    }
}

fn set(map: &mut BTreeMap<String, Object>, name: String, object: Option<Object>) {
    match object {
        Some(object) => drop(map.insert(name, object)),
        None => drop(map.remove(&name)),
    }
}
