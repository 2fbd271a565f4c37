//! Topology spread: no domain gets far ahead of the emptiest one.

use super::Reason;
use crate::{cycle::Cycle, node_info::NodeInfo};

pub fn spread(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    const TEXT: &str = "node(s) didn't match pod topology spread constraints";
    for spread in cycle.spread.iter().filter(|spread| spread.constraint.hard) {
        let Some(domain) = node.label(&spread.constraint.topology_key) else {
            return Reason::of_node(format!("{TEXT} (missing required label)"));
        };
        let here = spread.counts.get(domain).copied().unwrap_or(0);
        let skew = here + i64::from(spread.counts_itself) - spread.least();
        if skew > spread.constraint.skew_max {
            return Reason::of_pods(TEXT);
        }
    }
    Vec::new()
}
