use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Fit, Observed, Plan, fit, plan};

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

fn set(change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": "agent", "uid": "d", "generation": 1}, "spec": {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "template": {"spec": {}}}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": name, "labels": {"disk": "ssd"}}, "spec": {}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn pod(name: &str, node: &str, hash: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({
        "metadata": {"name": name, "uid": name, "labels": {"controller-revision-hash": hash}},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn unready(pod: &mut Value) {
    pod["status"]["conditions"][0]["status"] = json!("False");
}

fn planned(set: &Object, nodes: &[Object], pods: &[Object]) -> Plan {
    let observed = Observed {
        set,
        nodes,
        pods,
        hash: "new",
    };
    plan(&observed, None, now())
}

fn names(pods: &[Object]) -> Vec<&str> {
    pods.iter().map(Object::name).collect()
}

#[test]
fn taints_selectors_and_names_say_where_it_belongs() {
    let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
    let plain = set(|_| {});
    let cases = [
        (plain.clone(), node("a", |_| {}), Fit::Runs),
        (
            plain.clone(),
            node("a", |node| node["spec"]["taints"] = taint("mine", "NoSchedule")),
            Fit::Stays,
        ),
        (
            plain.clone(),
            node("a", |node| node["spec"]["taints"] = taint("mine", "NoExecute")),
            Fit::Leaves,
        ),
        (
            plain.clone(),
            node("a", |node| {
                node["spec"]["taints"] = taint("node.kubernetes.io/not-ready", "NoExecute")
            }),
            Fit::Runs,
        ),
        (
            plain,
            node("a", |node| {
                node["spec"]["taints"] = taint("node.kubernetes.io/unschedulable", "NoSchedule")
            }),
            Fit::Runs,
        ),
        (
            set(|set| set["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "hdd"})),
            node("a", |_| {}),
            Fit::Leaves,
        ),
    ];
    for (set, node, expected) in cases {
        assert_eq!(fit(&set, &node), expected, "{node:?}");
    }
}

#[test]
fn every_node_gets_one_and_no_other() {
    let nodes = [
        node("a", |_| {}),
        node("b", |_| {}),
        node("c", |node| {
            node["spec"]["taints"] = json!([{"key": "mine", "effect": "NoExecute"}]);
        }),
    ];
    let pods = [
        pod("p1", "a", "new", |_| {}),
        pod("p2", "a", "new", |_| {}),
        pod("p3", "c", "new", |_| {}),
        pod("p4", "gone", "new", |_| {}),
        pod("p5", "", "new", |pod| {
            pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]});
        }),
    ];

    let plan = planned(&set(|_| {}), &nodes, &pods);

    assert_eq!(plan.create, ["b"]);
    assert_eq!(names(&plan.delete), ["p2", "p3", "p5"]);
    let status = plan.status.unwrap();
    assert_eq!(
        (
            &status["desiredNumberScheduled"],
            &status["currentNumberScheduled"],
            &status["numberMisscheduled"]
        ),
        (&json!(2), &json!(1), &json!(1))
    );
}

#[test]
fn a_failed_pod_is_replaced_after_its_back_off() {
    let pods = [pod("p", "a", "new", |pod| pod["status"]["phase"] = json!("Failed"))];

    let plan = planned(&set(|_| {}), &[node("a", |_| {})], &pods);

    assert_eq!(names(&plan.failed), ["p"]);
    assert!(plan.create.is_empty());
}

#[test]
fn an_update_takes_as_many_nodes_at_once_as_it_may() {
    let nodes = ["a", "b", "c"].map(|name| node(name, |_| {}));
    let old = ["a", "b", "c"].map(|name| pod(name, name, "old", |_| {}));

    assert_eq!(names(&planned(&set(|_| {}), &nodes, &old).delete), ["a"]);
    let mixed = [pod("a", "a", "new", unready), old[1].clone(), old[2].clone()];
    assert!(planned(&set(|_| {}), &nodes, &mixed).delete.is_empty());
    let broken = [old[0].clone(), old[1].clone(), pod("c", "c", "old", unready)];
    assert_eq!(
        names(&planned(&set(|_| {}), &nodes, &broken).delete),
        ["c"],
        "a broken one costs nothing"
    );
    let half = set(|set| set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("50%"));
    assert_eq!(names(&planned(&half, &nodes, &old).delete), ["a", "b"]);
    let by_hand = set(|set| set["spec"]["updateStrategy"] = json!({"type": "OnDelete"}));
    assert!(planned(&by_hand, &nodes, &old).delete.is_empty());
}

#[test]
fn a_surge_starts_the_new_one_first() {
    let nodes = ["a", "b"].map(|name| node(name, |_| {}));
    let surge = set(|set| {
        set["spec"]["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": 1});
    });
    let old = ["a", "b"].map(|name| pod(name, name, "old", |_| {}));

    let first = planned(&surge, &nodes, &old);
    assert_eq!((first.create, names(&first.delete)), (vec!["a".to_owned()], vec![]));
    let starting = [old[0].clone(), old[1].clone(), pod("a2", "a", "new", unready)];
    let waits = planned(&surge, &nodes, &starting);
    assert!(waits.create.is_empty() && waits.delete.is_empty());
    let works = [old[0].clone(), old[1].clone(), pod("a2", "a", "new", |_| {})];
    assert_eq!(names(&planned(&surge, &nodes, &works).delete), ["a"]);
}
