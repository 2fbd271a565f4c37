//! Where a Pod can run. Each filter says why not, in upstream's words, since users search for them.

mod near;
mod node;
mod resources;
mod spread;
mod storage;
#[cfg(test)]
pub(crate) mod tests;

use crate::{cycle::Cycle, node_info::NodeInfo};

/// One reason against a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    pub text: String,
    /// Whether it might go if other Pods went.
    pub by_pods: bool,
}

impl Reason {
    fn of_node(text: impl Into<String>) -> Vec<Reason> {
        vec![Reason {
            text: text.into(),
            by_pods: false,
        }]
    }

    fn of_pods(text: impl Into<String>) -> Vec<Reason> {
        vec![Reason {
            text: text.into(),
            by_pods: true,
        }]
    }
}

/// A filter: nothing to say means the node will do.
pub struct Filter {
    pub name: &'static str,
    pub run: fn(&Cycle<'_>, &NodeInfo) -> Vec<Reason>,
    /// What may change its mind.
    pub hears: Hears,
}

/// Kinds of events; a Pod that waits is looked at again when one happens that a filter which refused it hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hears(u8);

impl Hears {
    pub const NODE: Hears = Hears(1);
    pub const POD_GONE: Hears = Hears(2);
    pub const POD_CAME: Hears = Hears(4);
    pub const VOLUMES: Hears = Hears(8);
    pub const NAMESPACES: Hears = Hears(16);
    pub const ALL: Hears = Hears(31);

    pub const fn and(self, other: Hears) -> Hears {
        Hears(self.0 | other.0)
    }

    pub fn meets(self, other: Hears) -> bool {
        self.0 & other.0 != 0
    }
}

const PODS: Hears = Hears::POD_GONE.and(Hears::POD_CAME);

/// In upstream's order; the first that objects gives the node's reasons.
pub const FILTERS: &[Filter] = &[
    Filter {
        name: "NodeUnschedulable",
        run: node::unschedulable,
        hears: Hears::NODE,
    },
    Filter {
        name: "NodeName",
        run: node::name,
        hears: Hears::NODE,
    },
    Filter {
        name: "TaintToleration",
        run: node::taints,
        hears: Hears::NODE,
    },
    Filter {
        name: "NodeAffinity",
        run: node::affinity,
        hears: Hears::NODE,
    },
    Filter {
        name: "NodePorts",
        run: resources::ports,
        hears: Hears::NODE.and(Hears::POD_GONE),
    },
    Filter {
        name: "NodeResourcesFit",
        run: resources::fit,
        hears: Hears::NODE.and(Hears::POD_GONE),
    },
    Filter {
        name: "VolumeRestrictions",
        run: storage::alone,
        hears: Hears::POD_GONE.and(Hears::VOLUMES),
    },
    Filter {
        name: "VolumeBinding",
        run: storage::volumes,
        hears: Hears::NODE.and(Hears::VOLUMES),
    },
    Filter {
        name: "PodTopologySpread",
        run: spread::spread,
        hears: Hears::NODE.and(PODS),
    },
    Filter {
        name: "InterPodAffinity",
        run: near::near_and_apart,
        hears: Hears::NODE.and(PODS).and(Hears::NAMESPACES),
    },
];

/// Why a node will not do.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reasons: Vec<Reason>,
    pub hears: Hears,
}

impl Refusal {
    /// It might do if other Pods went.
    pub fn by_pods(&self) -> bool {
        self.reasons.iter().all(|reason| reason.by_pods)
    }
}

/// Why the Pod can't run on `node`; `None` if it can.
pub fn refusal(cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Refusal> {
    FILTERS.iter().find_map(|filter| {
        let reasons = (filter.run)(cycle, node);
        (!reasons.is_empty()).then_some(Refusal {
            reasons,
            hears: filter.hears,
        })
    })
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn summary<'a>(nodes: usize, reasons: impl IntoIterator<Item = &'a str>) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    lines.sort();
    format!("0/{nodes} nodes are available: {}.", lines.join(", "))
}
