//! What is known of a cluster at one moment: all that filters and scores may look at.

use std::{collections::BTreeMap, sync::Arc};

use crate::{node_info::NodeInfo, pod_info::PodInfo, term::Namespaces, volumes::Volumes};

#[derive(Clone, Default)]
pub struct Snapshot {
    pub nodes: BTreeMap<String, Arc<NodeInfo>>,
    pub namespaces: Namespaces,
    pub volumes: Volumes,
    /// Pods for which others make room: by the node they wait for.
    pub nominated: BTreeMap<String, Vec<Arc<PodInfo>>>,
}

impl Snapshot {
    pub fn node_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        self.nodes.get_mut(name).map(Arc::make_mut)
    }

    /// A node as `pod` has to see it: with those that it was promised to before, if they matter more.
    pub fn seen_by(&self, pod: &PodInfo, node: &Arc<NodeInfo>) -> Arc<NodeInfo> {
        let promised = self.nominated.get(node.name()).into_iter().flatten();
        let mut promised = promised
            .filter(|other| other.priority >= pod.priority && other.uid() != pod.uid())
            .peekable();
        if promised.peek().is_none() {
            return node.clone();
        }
        let mut fuller = NodeInfo::clone(node);
        promised.for_each(|other| fuller.put(other.clone()));
        Arc::new(fuller)
    }
}
