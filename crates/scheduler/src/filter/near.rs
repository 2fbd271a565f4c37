//! Affinity between Pods.

use super::Reason;
use crate::{cycle::Cycle, node_info::NodeInfo};

pub fn near_and_apart(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    let near = cycle.pod.near.iter().all(|term| {
        let key = term.topology_key.as_str();
        let Some(value) = node.label(key) else { return false };
        // The first of its kind would wait for ever for one to be near to.
        cycle.near.contains_key(&(key, value)) || (cycle.near.is_empty() && cycle.near_itself)
    });
    if !near {
        // Pods only take part in it by being there.
        return Reason::of_node("node(s) didn't match pod affinity rules");
    }
    let apart = cycle.pod.apart.iter().any(|term| {
        let key = term.topology_key.as_str();
        node.label(key)
            .is_some_and(|value| cycle.apart.contains_key(&(key, value)))
    });
    if apart {
        return Reason::of_pods("node(s) didn't match pod anti-affinity rules");
    }
    if cycle
        .repelled
        .keys()
        .any(|(key, value)| node.label(key) == Some(*value))
    {
        return Reason::of_pods("node(s) didn't satisfy existing pods anti-affinity rules");
    }
    Vec::new()
}
