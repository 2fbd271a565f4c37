//! What the node itself says.

use api::placement;
use serde_json::json;

use super::Reason;
use crate::{
    cycle::{Cycle, spec},
    node_info::NodeInfo,
};

pub fn unschedulable(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    const TAINT: &str = "node.kubernetes.io/unschedulable";
    if node.node.tree()["spec"]["unschedulable"] != true {
        return Vec::new();
    }
    let taint = json!([{"key": TAINT, "effect": "NoSchedule"}]);
    match placement::untolerated(&spec(cycle)["tolerations"], &taint, &["NoSchedule"]) {
        Some(_) => Reason::of_node("node(s) were unschedulable"),
        None => Vec::new(),
    }
}

pub fn name(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    match spec(cycle)["nodeName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) if name != node.name() => Reason::of_node("node(s) didn't match the requested node name"),
        _ => Vec::new(),
    }
}

pub fn taints(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    let taints = &node.node.tree()["spec"]["taints"];
    let effects = ["NoSchedule", "NoExecute"];
    match placement::untolerated(&spec(cycle)["tolerations"], taints, &effects) {
        Some(taint) => {
            let text = |field: &str| taint[field].as_str().unwrap_or("").to_owned();
            let (key, value) = (text("key"), text("value"));
            Reason::of_node(format!("node(s) had untolerated taint {{{key}: {value}}}"))
        }
        None => Vec::new(),
    }
}

pub fn affinity(cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Reason> {
    if placement::node_matches(spec(cycle), node.node.tree()) {
        Vec::new()
    } else {
        Reason::of_node("node(s) didn't match Pod's node affinity/selector")
    }
}
