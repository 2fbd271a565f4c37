//! A node with what the Pods on it take: kept up to date Pod by Pod, never summed anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::Object;
use serde_json::Value;

use crate::{
    pod_info::PodInfo,
    request::{self, Amounts, list},
};

#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub node: Object,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub assumed: Amounts,
    /// Sizes by name; every name of an image is one.
    pub images: BTreeMap<String, i64>,
    /// By uid.
    pods: BTreeMap<String, Arc<PodInfo>>,
    /// Those with affinities, which have a say when others come.
    opinionated: BTreeSet<String>,
}

impl NodeInfo {
    pub fn new(node: Object) -> NodeInfo {
        let mut info = NodeInfo {
            node: Object::from_tree(Value::Null),
            allocatable: Amounts::new(),
            requested: Amounts::new(),
            assumed: Amounts::new(),
            images: BTreeMap::new(),
            pods: BTreeMap::new(),
            opinionated: BTreeSet::new(),
        };
        info.set_node(node);
        info
    }

    pub fn set_node(&mut self, node: Object) {
        let status = &node.tree()["status"];
        self.allocatable = request::amounts(&status["allocatable"]);
        self.images = list(&status["images"])
            .iter()
            .flat_map(|image| {
                let size = image["sizeBytes"].as_i64().unwrap_or(0);
                let names = list(&image["names"]).iter().filter_map(Value::as_str);
                names.map(move |name| (name.to_owned(), size))
            })
            .collect();
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.name()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.tree()["metadata"]["labels"].get(key)?.as_str()
    }

    pub fn put(&mut self, pod: Arc<PodInfo>) {
        self.take(pod.uid());
        request::add(&mut self.requested, &pod.requested);
        request::add(&mut self.assumed, &pod.assumed);
        if !pod.apart.is_empty() || !pod.near.is_empty() || !pod.liked.is_empty() {
            self.opinionated.insert(pod.uid().to_owned());
        }
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    pub fn take(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.opinionated.remove(uid);
        request::subtract(&mut self.requested, &pod.requested);
        request::subtract(&mut self.assumed, &pod.assumed);
        Some(pod)
    }

    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.pods.values()
    }

    pub fn opinionated(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.opinionated.iter().filter_map(|uid| self.pods.get(uid))
    }

    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }
}
