//! What a node's state means: its taints, its conditions when it is silent, and which Pods have to leave it. Pure.

use std::time::Duration;

use api::{Object, placement};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{pods::condition, time};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, the status that repels, and the taint by which it does.
const REPELLING: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that nobody vouches for when the node is silent.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Whether Pods are driven off unreachable nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evicts {
    Pods,
    /// No node at all is heard of: it is more likely that we are cut off.
    Nobody,
}

pub fn is_ready(node: &Object) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// `status.conditions` to write for a node that is silent, as a strategic patch; `None` if it says so already.
pub fn silent_conditions(node: &Object, now: Timestamp) -> Option<Value> {
    let unknown = |kind: &&str| condition(node, kind).is_none_or(|condition| condition["status"] != "Unknown");
    let changed: Vec<Value> = VOUCHED
        .iter()
        .filter(|kind| unknown(kind))
        .map(|kind| {
            let (reason, message) = match condition(node, kind) {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            json!({"type": kind, "status": "Unknown", "reason": reason, "message": message,
                "lastTransitionTime": time::text(now)})
        })
        .collect();
    (!changed.is_empty()).then(|| json!({"conditions": changed}))
}

/// `spec.taints` to write, whole; `None` if they are right.
pub fn taints(node: &Object, evicts: Evicts, now: Timestamp) -> Option<Value> {
    let spec = &node.tree()["spec"];
    let has: Vec<&Value> = spec["taints"].as_array().into_iter().flatten().collect();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in REPELLING {
        let is = condition(node, kind).map_or(kind == "Ready" && status == "Unknown", |condition| {
            condition["status"] == status
        });
        if !is {
            continue;
        }
        wanted.push((key, "NoSchedule"));
        if key == NOT_READY || (key == UNREACHABLE && evicts == Evicts::Pods) {
            wanted.push((key, "NoExecute"));
        }
    }
    if spec["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Value| {
        let key = taint["key"].as_str().unwrap_or("");
        key == UNSCHEDULABLE || REPELLING.iter().any(|(_, _, repels)| *repels == key)
    };
    let is = |taint: &Value, (key, effect): (&str, &str)| taint["key"] == key && taint["effect"] == effect;
    let kept = has
        .iter()
        .filter(|taint| !ours(taint) || wanted.iter().any(|wanted| is(taint, *wanted)));
    let mut taints: Vec<Value> = kept.map(|taint| (*taint).clone()).collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, (key, effect))) {
            taints.push(json!({"key": key, "effect": effect, "timeAdded": time::text(now)}));
        }
    }
    let same = taints.len() == has.len() && taints.iter().zip(&has).all(|(new, old)| new == *old);
    (!same).then(|| if taints.is_empty() { Value::Null } else { json!(taints) })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Stays,
    LeavesIn(Duration),
    Leaves,
}

/// What a node's `NoExecute` taints mean to a Pod on it.
pub fn fate(pod: &Object, node: &Object, now: Timestamp) -> Fate {
    let taints = &node.tree()["spec"]["taints"];
    let tolerations = &pod.tree()["spec"]["tolerations"];
    if placement::untolerated(tolerations, taints, &["NoExecute"]).is_some() {
        return Fate::Leaves;
    }
    let mut earliest: Option<i64> = None;
    let repelling = taints
        .as_array()
        .into_iter()
        .flatten()
        .filter(|taint| taint["effect"] == "NoExecute");
    for taint in repelling {
        let covering = tolerations
            .as_array()
            .into_iter()
            .flatten()
            .filter(|toleration| placement::tolerates(toleration, taint));
        let patience = covering
            .filter_map(|toleration| toleration["tolerationSeconds"].as_i64())
            .min();
        let Some(seconds) = patience else { continue };
        let since = time::parse(&taint["timeAdded"]).unwrap_or(now).as_second();
        let at = since + seconds.max(0);
        earliest = Some(earliest.map_or(at, |before| before.min(at)));
    }
    match earliest.map(|at| at - now.as_second()) {
        None => Fate::Stays,
        Some(left) if left <= 0 => Fate::Leaves,
        Some(left) => Fate::LeavesIn(Duration::from_secs(left.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    fn node(ready: &str, change: impl FnOnce(&mut Value)) -> Object {
        let mut tree = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"conditions": [
            {"type": "Ready", "status": ready}, {"type": "MemoryPressure", "status": "False"}]}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    fn keys(taints: Option<Value>) -> Vec<String> {
        let taints = taints.expect("taints are to change");
        let taint = |taint: &Value| {
            let key = taint["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/");
            format!("{key}:{}", taint["effect"].as_str().unwrap())
        };
        taints.as_array().into_iter().flatten().map(taint).collect()
    }

    #[test]
    fn conditions_become_taints_and_others_taints_are_kept() {
        let both = ["not-ready:NoSchedule", "not-ready:NoExecute"];
        assert_eq!(keys(taints(&node("False", |_| {}), Evicts::Pods, now())), both);
        assert_eq!(
            keys(taints(&node("Unknown", |_| {}), Evicts::Nobody, now())),
            ["unreachable:NoSchedule"]
        );
        let pressed = node("True", |node| {
            node["status"]["conditions"][1]["status"] = json!("True");
            node["spec"]["unschedulable"] = json!(true);
            node["spec"]["taints"] = json!([{"key": "mine", "effect": "NoExecute"},
                {"key": NOT_READY, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]);
        });
        assert_eq!(
            keys(taints(&pressed, Evicts::Pods, now())),
            [
                "mine:NoExecute",
                "memory-pressure:NoSchedule",
                "unschedulable:NoSchedule"
            ]
        );
        assert_eq!(taints(&node("True", |_| {}), Evicts::Pods, now()), None);
        let recovered = node("True", |node| {
            node["spec"]["taints"] = json!([{"key": NOT_READY, "effect": "NoSchedule"}])
        });
        assert_eq!(taints(&recovered, Evicts::Pods, now()), Some(Value::Null));
    }

    #[test]
    fn a_silent_node_is_vouched_for_by_nobody() {
        let patch = silent_conditions(&node("True", |_| {}), now()).unwrap();
        assert_eq!(patch["conditions"].as_array().unwrap().len(), 4);
        assert_eq!(patch["conditions"][0]["reason"], "NodeStatusUnknown");
        let told = Object::from_tree(json!({"status": patch}));
        assert_eq!(silent_conditions(&told, now()), None);
    }

    #[test]
    fn a_pod_leaves_when_its_patience_is_at_an_end() {
        let tainted = node("Unknown", |node| {
            node["spec"]["taints"] =
                json!([{"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]);
        });
        let pod = |tolerations: Value| Object::from_tree(json!({"spec": {"tolerations": tolerations}}));
        let patient = |seconds: Option<i64>| {
            pod(
                json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]),
            )
        };

        assert_eq!(fate(&pod(Value::Null), &tainted, now()), Fate::Leaves);
        assert_eq!(fate(&patient(None), &tainted, now()), Fate::Stays);
        assert_eq!(
            fate(&patient(Some(300)), &tainted, now()),
            Fate::LeavesIn(Duration::from_secs(240))
        );
        assert_eq!(fate(&patient(Some(60)), &tainted, now()), Fate::Leaves);
        assert_eq!(fate(&pod(Value::Null), &node("True", |_| {}), now()), Fate::Stays);
    }
}
