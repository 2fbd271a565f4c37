//! A node with what the Pods on it take: kept up to date Pod by Pod, never summed anew.

use std::collections::BTreeMap;

use api::Object;

use crate::request::{self, Amounts};

#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub node: Object,
    pub allocatable: Amounts,
    pub requested: Amounts,
    /// By uid.
    pods: BTreeMap<String, Placed>,
}

/// What one Pod takes of a node.
#[derive(Clone, Debug)]
pub struct Placed {
    pub requested: Amounts,
    pub host_ports: Vec<(String, String, i64)>,
    /// The controller, by which Pods of one workload are spread.
    pub owner: Option<String>,
}

impl Placed {
    pub fn of(pod: &Object) -> Placed {
        let spec = &pod.tree()["spec"];
        let owners = pod.tree()["metadata"]["ownerReferences"].as_array();
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        Placed {
            requested: request::requested(spec),
            host_ports: request::host_ports(spec),
            owner: controller.and_then(|owner| owner["uid"].as_str()).map(str::to_owned),
        }
    }
}

impl NodeInfo {
    pub fn new(node: Object) -> NodeInfo {
        let allocatable = request::amounts(&node.tree()["status"]["allocatable"]);
        NodeInfo {
            node,
            allocatable,
            requested: Amounts::new(),
            pods: BTreeMap::new(),
        }
    }

    pub fn set_node(&mut self, node: Object) {
        self.allocatable = request::amounts(&node.tree()["status"]["allocatable"]);
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.name()
    }

    pub fn put(&mut self, uid: &str, placed: Placed) {
        self.take(uid);
        request::add(&mut self.requested, &placed.requested);
        self.pods.insert(uid.to_owned(), placed);
    }

    pub fn take(&mut self, uid: &str) {
        if let Some(placed) = self.pods.remove(uid) {
            request::subtract(&mut self.requested, &placed.requested);
        }
    }

    /// The Pods of a node that is gone.
    pub fn into_pods(self) -> impl Iterator<Item = (String, Placed)> {
        self.pods.into_iter()
    }

    pub fn pods(&self) -> impl Iterator<Item = &Placed> {
        self.pods.values()
    }

    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}
