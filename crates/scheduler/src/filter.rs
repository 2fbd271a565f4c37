//! Where a Pod can run. Each filter says why not, in upstream's words, since users search for them.

use api::{Object, placement};

use crate::node_info::{NodeInfo, Placed};

/// One reason against a node, or several (a node may lack both processor and memory).
pub type Reasons = Vec<String>;

/// A filter: nothing to say means the node will do.
pub type Filter = fn(&Object, &Placed, &NodeInfo) -> Reasons;

/// In upstream's order; the first that objects gives the node's reasons.
pub const FILTERS: &[Filter] = &[unschedulable, node_name, taints, node_affinity, ports, fit];

/// Why `pod` can't run on `node`; empty if it can.
pub fn reasons_against(pod: &Object, asks: &Placed, node: &NodeInfo) -> Reasons {
    FILTERS
        .iter()
        .map(|filter| filter(pod, asks, node))
        .find(|reasons| !reasons.is_empty())
        .unwrap_or_default()
}

fn unschedulable(pod: &Object, _: &Placed, node: &NodeInfo) -> Reasons {
    const TAINT: &str = "node.kubernetes.io/unschedulable";
    if node.node.tree()["spec"]["unschedulable"] != true {
        return Vec::new();
    }
    let taint = serde_json::json!([{"key": TAINT, "effect": "NoSchedule"}]);
    match placement::untolerated(&pod.tree()["spec"]["tolerations"], &taint, &["NoSchedule"]) {
        Some(_) => vec!["node(s) were unschedulable".to_owned()],
        None => Vec::new(),
    }
}

fn node_name(pod: &Object, _: &Placed, node: &NodeInfo) -> Reasons {
    match pod.tree()["spec"]["nodeName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) if name != node.name() => vec!["node(s) didn't match the requested node name".to_owned()],
        _ => Vec::new(),
    }
}

fn taints(pod: &Object, _: &Placed, node: &NodeInfo) -> Reasons {
    let taints = &node.node.tree()["spec"]["taints"];
    match placement::untolerated(&pod.tree()["spec"]["tolerations"], taints, &["NoSchedule", "NoExecute"]) {
        Some(taint) => {
            let text = |field: &str| taint[field].as_str().unwrap_or("").to_owned();
            vec![format!(
                "node(s) had untolerated taint {{{}: {}}}",
                text("key"),
                text("value")
            )]
        }
        None => Vec::new(),
    }
}

fn node_affinity(pod: &Object, _: &Placed, node: &NodeInfo) -> Reasons {
    if placement::node_matches(&pod.tree()["spec"], node.node.tree()) {
        Vec::new()
    } else {
        vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]
    }
}

fn ports(_: &Object, asks: &Placed, node: &NodeInfo) -> Reasons {
    let clash = |one: &(String, String, i64), other: &(String, String, i64)| {
        one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || one.0 == "0.0.0.0" || other.0 == "0.0.0.0")
    };
    let taken = node.pods().flat_map(|placed| &placed.host_ports);
    if taken
        .into_iter()
        .any(|port| asks.host_ports.iter().any(|asked| clash(port, asked)))
    {
        vec!["node(s) didn't have free ports for the requested pod ports".to_owned()]
    } else {
        Vec::new()
    }
}

fn fit(_: &Object, asks: &Placed, node: &NodeInfo) -> Reasons {
    let mut reasons = Vec::new();
    let pods_max = node.allocatable.get("pods").copied().unwrap_or(0);
    if i64::try_from(node.pod_count()).unwrap_or(i64::MAX) >= pods_max {
        reasons.push("Too many pods".to_owned());
    }
    for (name, amount) in &asks.requested {
        let has = node.allocatable.get(name).copied().unwrap_or(0);
        let taken = node.requested.get(name).copied().unwrap_or(0);
        if *amount > 0 && *amount > has.saturating_sub(taken) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn summary(nodes: usize, reasons: &[Reasons]) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for reason in reasons.iter().flatten() {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    lines.sort();
    format!("0/{nodes} nodes are available: {}.", lines.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn node(name: &str, change: impl FnOnce(&mut Value)) -> NodeInfo {
        let mut tree = json!({"metadata": {"name": name, "labels": {"zone": "a"}},
            "spec": {}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}});
        change(&mut tree);
        NodeInfo::new(Object::from_tree(tree))
    }

    pub(crate) fn pod(spec: Value) -> (Object, Placed) {
        let pod = Object::from_tree(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec}));
        let placed = Placed::of(&pod);
        (pod, placed)
    }

    fn against(spec: Value, node: &NodeInfo) -> Reasons {
        let (pod, asks) = pod(spec);
        reasons_against(&pod, &asks, node)
    }

    #[test]
    fn each_filter_objects_in_upstreams_words() {
        let cases = [
            (
                json!({}),
                node("n", |n| n["spec"]["unschedulable"] = true.into()),
                "node(s) were unschedulable",
            ),
            (
                json!({"nodeName": "m"}),
                node("n", |_| {}),
                "node(s) didn't match the requested node name",
            ),
            (
                json!({}),
                node("n", |n| {
                    n["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}])
                }),
                "node(s) had untolerated taint {k: v}",
            ),
            (
                json!({"nodeSelector": {"zone": "b"}}),
                node("n", |_| {}),
                "node(s) didn't match Pod's node affinity/selector",
            ),
            (
                json!({"containers": [{"resources": {"requests": {"cpu": "1001m"}}}]}),
                node("n", |_| {}),
                "Insufficient cpu",
            ),
        ];

        for (spec, node, reason) in cases {
            assert_eq!(against(spec, &node), vec![reason.to_owned()]);
        }
    }

    #[test]
    fn a_full_node_takes_no_more_until_a_pod_leaves() {
        let mut full = node("n", |_| {});
        let (_, half) = pod(json!({"containers": [{"resources": {"requests": {"cpu": "600m"}}}]}));
        full.put("one", half.clone());
        let asks = json!({"containers": [{"resources": {"requests": {"cpu": "600m"}}}]});
        assert_eq!(against(asks.clone(), &full), vec!["Insufficient cpu".to_owned()]);

        full.put(
            "two",
            Placed {
                requested: Default::default(),
                ..half
            },
        );
        assert_eq!(against(json!({}), &full), vec!["Too many pods".to_owned()]);

        full.take("one");
        assert_eq!(against(asks, &full), Vec::<String>::new());
    }

    #[test]
    fn host_ports_clash_on_one_address_and_on_all() {
        let port = |address: &str| json!({"containers": [{"ports": [{"hostPort": 80, "hostIP": address}]}]});
        let mut taken = node("n", |_| {});
        taken.put("one", pod(port("10.0.0.1")).1);

        assert!(against(port("10.0.0.2"), &taken).is_empty());
        assert!(!against(port("10.0.0.1"), &taken).is_empty());
        assert!(!against(port(""), &taken).is_empty());
    }

    #[test]
    fn the_summary_counts_reasons() {
        let reasons = [
            vec!["Insufficient cpu".to_owned()],
            vec!["Insufficient cpu".to_owned(), "Too many pods".to_owned()],
        ];

        assert_eq!(
            summary(2, &reasons),
            "0/2 nodes are available: 1 Too many pods, 2 Insufficient cpu."
        );
        assert_eq!(summary(0, &[]), "no nodes available to schedule pods");
    }
}
