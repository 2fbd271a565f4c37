//! What Pods that run think of this one, and it of them.

use crate::{cycle::Cycle, node_info::NodeInfo};

pub fn liking(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let here = cycle
        .liking
        .iter()
        .filter(|((key, value), _)| node.label(key) == Some(*value));
    here.map(|(_, weight)| weight).sum()
}
