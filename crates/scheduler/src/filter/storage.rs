//! What the Pod's volumes say.

use api::volumes::is_reached;

use super::Reason;
use crate::{cycle::Cycle, node_info::NodeInfo, request::list, volumes::Claim};

/// A claim that only one Pod may use (`ReadWriteOncePod`).
pub fn alone(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    let namespace = cycle.pod.pod.namespace();
    let exclusive = cycle.pod.claims.iter().filter(|name| {
        let claim = cycle.volumes.claims.get(&format!("{namespace}/{name}"));
        claim.is_some_and(|claim| {
            list(&claim.tree()["spec"]["accessModes"])
                .iter()
                .any(|mode| mode == "ReadWriteOncePod")
        })
    });
    for name in exclusive {
        if node
            .pods()
            .any(|pod| pod.pod.namespace() == namespace && pod.claims.contains(name))
        {
            return Reason::of_pods(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            );
        }
    }
    Vec::new()
}

pub fn volumes(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    for name in &cycle.pod.claims {
        match cycle.volumes.claim(cycle.pod.pod.namespace(), name) {
            Claim::Bound(volume) if !is_reached(volume, &node.node) => {
                return Reason::of_node("node(s) didn't match PersistentVolume's node affinity");
            }
            Claim::Waits(claim) => {
                let found = cycle.volumes.free_for(claim, &node.node).is_some();
                if !found && !cycle.volumes.can_be_made(claim, &node.node) {
                    return Reason::of_node("node(s) didn't find available persistent volumes to bind");
                }
            }
            _ => {}
        }
    }
    Vec::new()
}
