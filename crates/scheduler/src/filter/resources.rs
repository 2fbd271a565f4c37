//! What the Pods on a node leave of it.

use super::Reason;
use crate::{cycle::Cycle, node_info::NodeInfo};

pub fn ports(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    let clash = |one: &(String, String, i64), other: &(String, String, i64)| {
        one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || one.0 == "0.0.0.0" || other.0 == "0.0.0.0")
    };
    let asked = &cycle.pod.host_ports;
    let mut taken = node.pods().flat_map(|pod| &pod.host_ports);
    if !asked.is_empty() && taken.any(|port| asked.iter().any(|asked| clash(port, asked))) {
        Reason::of_pods("node(s) didn't have free ports for the requested pod ports")
    } else {
        Vec::new()
    }
}

pub fn fit(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let pods_max = node.allocatable.get("pods").copied().unwrap_or(0);
    if i64::try_from(node.pod_count()).unwrap_or(i64::MAX) >= pods_max {
        reasons.extend(Reason::of_pods("Too many pods"));
    }
    for (name, amount) in &cycle.pod.requested {
        let has = node.allocatable.get(name).copied().unwrap_or(0);
        let taken = node.requested.get(name).copied().unwrap_or(0);
        if *amount > 0 && *amount > has.saturating_sub(taken) {
            let text = format!("Insufficient {name}");
            // More than the whole node has: no Pod's going would help.
            reasons.extend(if *amount > has {
                Reason::of_node(text)
            } else {
                Reason::of_pods(text)
            });
        }
    }
    reasons
}
