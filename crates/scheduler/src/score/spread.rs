//! Wishes to be spread; lower is better.

use crate::{cycle::Cycle, node_info::NodeInfo};

/// Fixed point of the logarithm below.
const UNIT: f64 = 1000.0;

pub fn spread(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    if cycle.pod.spread.is_empty() {
        return siblings(cycle, node);
    }
    let wishes = cycle.spread.iter().filter(|spread| !spread.constraint.hard);
    let crowding = wishes.map(|spread| {
        let Some(domain) = node.label(&spread.constraint.topology_key) else {
            // Nodes without the label come last.
            return f64::from(1 << 20);
        };
        let here = spread.counts.get(domain).copied().unwrap_or(0);
        // A domain among few weighs more than one among many, as upstream has it.
        let weight = ((spread.counts.len() + 2) as f64).ln();
        here as f64 * weight + (spread.constraint.skew_max - 1) as f64
    });
    (crowding.sum::<f64>() * UNIT) as i64
}

/// Without constraints, Pods of one workload are kept apart from one another.
fn siblings(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let Some(owner) = &cycle.pod.owner else { return 0 };
    let siblings = node.pods().filter(|other| other.owner.as_ref() == Some(owner));
    i64::try_from(siblings.count()).unwrap_or(i64::MAX)
}
