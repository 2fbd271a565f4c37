//! The decision: a function of a Pod and a snapshot. The fleet places on clusters by the same one.

use crate::{
    cycle::Cycle,
    filter::{self, Hears, Refusal},
    node_info::NodeInfo,
    pod_info::PodInfo,
    score,
    snapshot::Snapshot,
};

#[derive(Debug)]
pub enum Decision {
    Node(String),
    Nowhere(Nowhere),
}

/// Why no node will do.
#[derive(Debug)]
pub struct Nowhere {
    /// By node.
    pub refusals: Vec<(String, Refusal)>,
    pub message: String,
    /// What could change that.
    pub hears: Hears,
}

pub fn place(pod: &PodInfo, snapshot: &Snapshot) -> Decision {
    let nodes = snapshot.nodes.len();
    let nowhere = |message: String, hears: Hears| {
        Decision::Nowhere(Nowhere {
            refusals: Vec::new(),
            message,
            hears,
        })
    };
    if nodes == 0 {
        return nowhere("no nodes available to schedule pods".to_owned(), Hears::NODE);
    }
    let cycle = Cycle::new(pod, snapshot);
    if let Some(reason) = cycle.hopeless() {
        return nowhere(format!("0/{nodes} nodes are available: {reason}."), Hears::VOLUMES);
    }
    let (mut possible, mut refusals) = (Vec::new(), Vec::new());
    for (name, node) in &snapshot.nodes {
        match filter::refusal(&cycle, &snapshot.seen_by(pod, node)) {
            None => possible.push(&**node),
            Some(refusal) => refusals.push((name.clone(), refusal)),
        }
    }
    // One that others made room on is taken if it will do.
    let nominated = pod.pod.tree()["status"]["nominatedNodeName"].as_str();
    let nominated = possible.iter().find(|node| Some(node.name()) == nominated).copied();
    let best: Option<&NodeInfo> = nominated.or_else(|| score::best(&cycle, &possible));
    if let Some(node) = best {
        return Decision::Node(node.name().to_owned());
    }
    let reasons = refusals.iter().flat_map(|(_, refusal)| &refusal.reasons);
    let message = filter::summary(nodes, reasons.map(|reason| reason.text.as_str()));
    let hears = refusals
        .iter()
        .fold(Hears::default(), |all, (_, refusal)| all.and(refusal.hears));
    Decision::Nowhere(Nowhere {
        refusals,
        message,
        hears,
    })
}
