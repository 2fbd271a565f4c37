//! What speaks for a node itself.

use api::placement;
use serde_json::json;

use crate::{
    cycle::{Cycle, spec},
    node_info::NodeInfo,
    request::list,
};

/// How many taints would rather not have the Pod.
pub fn taints_preferred_not(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let tolerations = &spec(cycle)["tolerations"];
    let taints = list(&node.node.tree()["spec"]["taints"]);
    let unwelcome = taints
        .iter()
        .filter(|taint| placement::untolerated(tolerations, &json!([taint]), &["PreferNoSchedule"]).is_some());
    i64::try_from(unwelcome.count()).unwrap_or(i64::MAX)
}

/// The weights of the preferred terms that it matches.
pub fn affinity_preferred(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let affinity = &spec(cycle)["affinity"]["nodeAffinity"];
    let terms = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]);
    let matching = terms
        .iter()
        .filter(|term| placement::term_matches(&term["preference"], node.node.tree()));
    matching.filter_map(|term| term["weight"].as_i64()).sum()
}

/// Images that need not be fetched, by their size; those that few nodes have count less, lest these get all the Pods.
pub fn images_there(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    /// Below and above these sizes (a container's, the upper one) it makes no difference; upstream's numbers.
    const SMALLEST_BYTES: i64 = 23 << 20;
    const LARGEST_BYTES: i64 = 1000 << 20;
    let nodes = i64::try_from(cycle.node_count).unwrap_or(i64::MAX).max(1);
    let there = cycle.image_spread.iter().filter_map(|(image, on)| {
        let size = node.images.get(image)?;
        Some(size.saturating_mul(i64::try_from(*on).unwrap_or(0)) / nodes)
    });
    let sum: i64 = there.sum();
    let containers = list(&spec(cycle)["containers"]).len() + list(&spec(cycle)["initContainers"]).len();
    let largest = LARGEST_BYTES.saturating_mul(i64::try_from(containers.max(1)).unwrap_or(1));
    (sum.clamp(SMALLEST_BYTES, largest) - SMALLEST_BYTES) * 100 / (largest - SMALLEST_BYTES)
}
