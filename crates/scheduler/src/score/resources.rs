//! How full a node would be.

use crate::{cycle::Cycle, node_info::NodeInfo, request::Amounts};

/// The share that would be left free, over processor and memory.
pub fn least_allocated(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let left = |name: &str| 100 - used(node, &node.assumed, &cycle.pod.assumed, name);
    (left("cpu") + left("memory")) / 2
}

/// Processor and memory should fill up alike.
pub fn balanced(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let share = |name: &str| used(node, &node.requested, &cycle.pod.requested, name);
    // Half the difference is the standard deviation of two.
    100 - (share("cpu") - share("memory")).abs() / 2
}

/// Percent of the node that is taken with the Pod on it.
fn used(node: &NodeInfo, taken: &Amounts, more: &Amounts, name: &str) -> i64 {
    let amount = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(0);
    let has = amount(&node.allocatable).max(1);
    let used = amount(taken).saturating_add(amount(more));
    (used.saturating_mul(100) / has).clamp(0, 100)
}
