//! The Pod of a DaemonSet for one node, and which node a Pod is for.

use api::{Object, resource::DAEMON_SETS};
use serde_json::{Value, json};

use crate::{
    ownership,
    pod_template::{self, Name, list, set_metadata},
};

pub const HASH_LABEL: &str = "controller-revision-hash";
const GENERATION_LABEL: &str = "pod-template-generation";

const NODE_FIELD: &str = "metadata.name";

/// What a daemon puts up with on any node: upstream's list. The network one is for those that bring the network.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_TOLERATED: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A Pod for the node called `node`.
pub fn pod(set: &Object, hash: &str, node: &str) -> Value {
    let template = &set.tree()["spec"]["template"];
    let name = Name::BeginsWith(format!("{}-", set.name()));
    let mut pod = pod_template::pod(template, name, ownership::reference(set, &DAEMON_SETS));
    set_metadata(&mut pod, "labels", HASH_LABEL, hash);
    if let Some(generation) = set.tree()["metadata"]["generation"].as_i64() {
        set_metadata(&mut pod, "labels", GENERATION_LABEL, &generation.to_string());
    }
    tolerate(&mut pod["spec"]);
    pin(&mut pod["spec"], node);
    pod
}

/// Adds the tolerations that daemons have.
pub fn tolerate(spec: &mut Value) {
    let network = (spec["hostNetwork"] == true).then_some(NETWORK_TOLERATED);
    let tolerations = list(spec, "tolerations");
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// Whatever it requires of nodes is replaced by the one node: the scheduler places it there and nowhere
/// else, once there is room.
fn pin(spec: &mut Value, node: &str) {
    let only = json!([{"key": NODE_FIELD, "operator": "In", "values": [node]}]);
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    // Terms of the template were looked at when the node was chosen.
    *required = json!({"nodeSelectorTerms": [{"matchFields": only}]});
}

/// The node that a Pod runs on or is meant for.
pub fn node_of(pod: &Object) -> Option<&str> {
    let spec = &pod.tree()["spec"];
    if let Some(node) = spec["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array()?;
    let fields = terms
        .iter()
        .flat_map(|term| term["matchFields"].as_array().into_iter().flatten());
    let named = fields.filter(|field| field["key"] == NODE_FIELD && field["operator"] == "In");
    named.filter_map(|field| field["values"][0].as_str()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_for_one_node_and_stays_when_the_node_is_in_trouble() {
        let set = Object::from_tree(
            json!({"metadata": {"name": "agent", "uid": "d", "generation": 2}, "spec": {
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"hostNetwork": true}}}}),
        );

        let pod = Object::from_tree(pod(&set, "abc", "n1"));

        assert_eq!(node_of(&pod), Some("n1"));
        assert_eq!(pod.tree()["spec"]["tolerations"].as_array().unwrap().len(), 7);
        assert_eq!(
            pod.tree()["metadata"]["labels"],
            json!({"app": "agent", "controller-revision-hash": "abc", "pod-template-generation": "2"})
        );
    }
}
