use serde_json::{Value, json};

use crate::{
    filter::tests::{asks, node, pod, snapshot},
    node_info::NodeInfo,
    place::{Decision, place},
    pod_info::PodInfo,
    snapshot::Snapshot,
};

fn chosen(pod: &PodInfo, snapshot: &Snapshot) -> String {
    match place(pod, snapshot) {
        Decision::Node(node) => node,
        Decision::Nowhere(nowhere) => panic!("{}", nowhere.message),
    }
}

fn pair(change: impl FnOnce(&mut Value)) -> Vec<(NodeInfo, Vec<PodInfo>)> {
    vec![(node("a", |_| {}), vec![]), (node("b", change), vec![])]
}

#[test]
fn an_empty_node_is_better_than_a_busy_one_and_of_equals_the_first_is_taken() {
    let busy = snapshot(vec![
        (node("a", |_| {}), vec![pod("x", asks("400m"))]),
        (node("b", |_| {}), vec![]),
    ]);

    assert_eq!(chosen(&pod("p", asks("400m")), &busy), "b");
    assert_eq!(chosen(&pod("p", |_| {}), &snapshot(pair(|_| {}))), "a");
}

#[test]
fn pods_of_one_workload_are_spread() {
    let owned = |tree: &mut Value| tree["metadata"]["ownerReferences"] = json!([{"controller": true, "uid": "rs"}]);
    let cluster = snapshot(vec![
        (node("a", |_| {}), vec![pod("x", owned)]),
        (node("b", |_| {}), vec![pod("y", |_| {})]),
    ]);

    assert_eq!(chosen(&pod("p", owned), &cluster), "b");
}

#[test]
fn wishes_count_taints_labels_neighbours_domains_images() {
    let tainted = snapshot(vec![
        (
            node("a", |n| {
                n["spec"]["taints"] = json!([{"key": "k", "effect": "PreferNoSchedule"}])
            }),
            vec![],
        ),
        (node("b", |_| {}), vec![]),
    ]);
    assert_eq!(chosen(&pod("p", |_| {}), &tainted), "b");

    let prefers = |p: &mut Value| {
        p["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{"weight": 1,
            "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]);
    };
    let with_disk = snapshot(pair(|n| n["metadata"]["labels"]["disk"] = json!("ssd")));
    assert_eq!(chosen(&pod("p", prefers), &with_disk), "b");

    let term = json!([{"weight": 10, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "web"}}}}]);
    let likes = |kind: &'static str| {
        let term = term.clone();
        move |p: &mut Value| {
            p["spec"]["affinity"][kind]["preferredDuringSchedulingIgnoredDuringExecution"] = term;
        }
    };
    let neighbours = || {
        let there = (node("b", |_| {}), vec![pod("x", |_| {})]);
        snapshot(vec![(node("a", |_| {}), vec![]), there])
    };
    assert_eq!(chosen(&pod("p", likes("podAffinity")), &neighbours()), "b");
    assert_eq!(chosen(&pod("p", likes("podAntiAffinity")), &neighbours()), "a");

    let spreads = |p: &mut Value| {
        p["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    };
    let crowded = snapshot(vec![
        (node("a", |_| {}), vec![pod("x", |_| {})]),
        (node("b", |_| {}), vec![]),
    ]);
    assert_eq!(chosen(&pod("p", spreads), &crowded), "b");

    let image = |n: &mut Value| {
        n["status"]["images"] = json!([{"names": ["docker.io/library/big:latest"], "sizeBytes": 900_000_000}]);
    };
    let wants = |p: &mut Value| p["spec"]["containers"] = json!([{"image": "docker.io/library/big"}]);
    assert_eq!(chosen(&pod("p", wants), &snapshot(pair(image))), "b");
}
