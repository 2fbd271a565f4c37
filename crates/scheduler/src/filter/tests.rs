use std::sync::Arc;

use api::Object;
use serde_json::{Value, json};

use super::summary;
use crate::{
    node_info::NodeInfo,
    place::{Decision, place},
    pod_info::PodInfo,
    snapshot::Snapshot,
};

pub(crate) fn node(name: &str, change: impl FnOnce(&mut Value)) -> NodeInfo {
    let mut tree = json!({"metadata": {"name": name, "labels": {"zone": "a", "kubernetes.io/hostname": name}},
        "spec": {}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "3"}}});
    change(&mut tree);
    NodeInfo::new(Object::from_tree(tree))
}

pub(crate) fn pod(name: &str, change: impl FnOnce(&mut Value)) -> PodInfo {
    let mut tree =
        json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}}, "spec": {}});
    change(&mut tree);
    PodInfo::of(&Object::from_tree(tree))
}

pub(crate) fn asks(cpu: &str) -> impl FnOnce(&mut Value) {
    let cpu = cpu.to_owned();
    move |pod| pod["spec"]["containers"] = json!([{"resources": {"requests": {"cpu": cpu}}}])
}

/// Nodes, each with Pods.
pub(crate) fn snapshot(nodes: Vec<(NodeInfo, Vec<PodInfo>)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (mut node, pods) in nodes {
        pods.into_iter().for_each(|pod| node.put(Arc::new(pod)));
        snapshot.nodes.insert(node.name().to_owned(), Arc::new(node));
    }
    snapshot
}

fn against(pod: &PodInfo, snapshot: &Snapshot) -> String {
    match place(pod, snapshot) {
        Decision::Node(node) => node,
        Decision::Nowhere(nowhere) => nowhere.message,
    }
}

fn one(node: NodeInfo) -> Snapshot {
    snapshot(vec![(node, vec![])])
}

#[test]
fn each_filter_objects_in_upstreams_words() {
    let cases = [
        (
            pod("p", |_| {}),
            one(node("n", |n| n["spec"]["unschedulable"] = true.into())),
            "node(s) were unschedulable",
        ),
        (
            pod("p", |p| p["spec"]["nodeName"] = json!("m")),
            one(node("n", |_| {})),
            "node(s) didn't match the requested node name",
        ),
        (
            pod("p", |_| {}),
            one(node("n", |n| {
                n["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}])
            })),
            "node(s) had untolerated taint {k: v}",
        ),
        (
            pod("p", |p| p["spec"]["nodeSelector"] = json!({"zone": "b"})),
            one(node("n", |_| {})),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (pod("p", asks("1001m")), one(node("n", |_| {})), "Insufficient cpu"),
    ];
    for (pod, snapshot, reason) in cases {
        assert_eq!(
            against(&pod, &snapshot),
            format!("0/1 nodes are available: 1 {reason}.")
        );
    }
    assert_eq!(
        against(&pod("p", |_| {}), &Snapshot::default()),
        "no nodes available to schedule pods"
    );
}

#[test]
fn a_full_node_takes_no_more_until_a_pod_leaves() {
    let mut full = snapshot(vec![(node("n", |_| {}), vec![pod("one", asks("600m"))])]);
    let next = pod("next", asks("600m"));
    assert!(against(&next, &full).contains("1 Insufficient cpu"));

    full.node_mut("n").unwrap().take("one");
    assert_eq!(against(&next, &full), "n");

    let many = snapshot(vec![(
        node("n", |_| {}),
        vec![pod("a", |_| {}), pod("b", |_| {}), pod("c", |_| {})],
    )]);
    assert!(against(&pod("d", |_| {}), &many).contains("1 Too many pods"));
}

#[test]
fn host_ports_clash_on_one_address_and_on_all() {
    let port = |address: &'static str| {
        move |pod: &mut Value| pod["spec"]["containers"] = json!([{"ports": [{"hostPort": 80, "hostIP": address}]}])
    };
    let taken = snapshot(vec![(node("n", |_| {}), vec![pod("one", port("10.0.0.1"))])]);

    assert_eq!(against(&pod("p", port("10.0.0.2")), &taken), "n");
    for address in ["10.0.0.1", ""] {
        assert!(against(&pod("p", port(address)), &taken).contains("free ports"));
    }
}

fn zones() -> [NodeInfo; 3] {
    [("a1", "a"), ("a2", "a"), ("b1", "b")]
        .map(|(name, zone)| node(name, |n| n["metadata"]["labels"]["zone"] = zone.into()))
}

fn spread_over(key: &str) -> impl FnOnce(&mut Value) {
    let key = key.to_owned();
    move |pod| {
        pod["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    }
}

#[test]
fn no_domain_gets_ahead_of_the_emptiest_by_more_than_the_skew() {
    let [a1, a2, b1] = zones();
    let cluster = snapshot(vec![(a1, vec![pod("x", |_| {})]), (a2, vec![]), (b1, vec![])]);
    assert_eq!(against(&pod("p", spread_over("zone")), &cluster), "b1");

    let [a1, a2, b1] = zones();
    let closed = node("b1", |n| {
        n["metadata"]["labels"]["zone"] = "b".into();
        n["spec"]["unschedulable"] = true.into();
    });
    drop(b1);
    let cluster = snapshot(vec![(a1, vec![pod("x", |_| {})]), (a2, vec![]), (closed, vec![])]);
    let told = against(&pod("p", spread_over("zone")), &cluster);
    assert!(
        told.contains("2 node(s) didn't match pod topology spread constraints"),
        "{told}"
    );

    let told = against(&pod("p", spread_over("rack")), &one(node("n", |_| {})));
    assert!(told.contains("(missing required label)"), "{told}");
}

#[test]
fn too_few_domains_count_as_empty_ones() {
    let constraint = |pod: &mut Value| {
        spread_over("zone")(pod);
        pod["spec"]["topologySpreadConstraints"][0]["minDomains"] = json!(2);
    };
    let cluster = snapshot(vec![(node("n", |_| {}), vec![pod("x", |_| {})])]);

    assert!(against(&pod("p", constraint), &cluster).contains("topology spread"));
    assert_eq!(against(&pod("p", spread_over("zone")), &cluster), "n");
}

fn affinity(kind: &str, key: &str) -> impl FnOnce(&mut Value) {
    let (kind, key) = (kind.to_owned(), key.to_owned());
    move |pod| {
        pod["spec"]["affinity"][kind]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}]);
    }
}

#[test]
fn pods_keep_near_to_and_apart_from_one_another() {
    let [a1, a2, b1] = zones();
    let cluster = snapshot(vec![(a1, vec![]), (a2, vec![]), (b1, vec![pod("x", |_| {})])]);
    assert_eq!(against(&pod("p", affinity("podAffinity", "zone")), &cluster), "b1");
    assert_eq!(against(&pod("p", affinity("podAntiAffinity", "zone")), &cluster), "a1");

    let all = snapshot(vec![(node("n", |_| {}), vec![pod("x", |_| {})])]);
    let told = against(&pod("p", affinity("podAntiAffinity", "zone")), &all);
    assert!(
        told.contains("1 node(s) didn't match pod anti-affinity rules"),
        "{told}"
    );
    let shy = snapshot(vec![(
        node("n", |_| {}),
        vec![pod("x", affinity("podAntiAffinity", "zone"))],
    )]);
    let told = against(&pod("p", |_| {}), &shy);
    assert!(
        told.contains("1 node(s) didn't satisfy existing pods anti-affinity rules"),
        "{told}"
    );
}

#[test]
fn the_first_of_its_kind_may_go_anywhere_and_a_stranger_nowhere() {
    let empty = one(node("n", |_| {}));

    assert_eq!(against(&pod("p", affinity("podAffinity", "zone")), &empty), "n");
    let stranger = |pod: &mut Value| {
        affinity("podAffinity", "zone")(pod);
        pod["metadata"]["labels"] = json!({"app": "other"});
    };
    assert!(against(&pod("p", stranger), &empty).contains("node(s) didn't match pod affinity rules"));
}

fn claims(pod: &mut Value) {
    pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
}

#[test]
fn a_pod_goes_where_its_volumes_are_or_can_be_made() {
    let with = |claim: Option<Value>, volume: Option<Value>, class: Option<Value>| {
        let mut snapshot = snapshot(vec![(node("a", |_| {}), vec![]), (node("b", |_| {}), vec![])]);
        if let Some(claim) = claim {
            snapshot
                .volumes
                .claims
                .insert("n/data".to_owned(), Object::from_tree(claim));
        }
        if let Some(volume) = volume {
            snapshot
                .volumes
                .volumes
                .insert("pv".to_owned(), Object::from_tree(volume));
        }
        if let Some(class) = class {
            snapshot
                .volumes
                .classes
                .insert("local".to_owned(), Object::from_tree(class));
        }
        against(&pod("p", claims), &snapshot)
    };
    let claim = json!({"metadata": {"name": "data", "namespace": "n", "uid": "c"}, "spec": {"storageClassName": "local",
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let mut bound = claim.clone();
    bound["spec"]["volumeName"] = json!("pv");
    bound["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let on = |node: &str, capacity: &str| {
        json!({"metadata": {"name": "pv"}, "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": capacity}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}},
            "status": {"phase": "Available"}})
    };
    let late = |provisioner: &str| json!({"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});

    assert_eq!(with(Some(bound.clone()), Some(on("b", "1Gi")), None), "b");
    assert_eq!(
        with(Some(bound), Some(on("c", "1Gi")), None),
        "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
    );
    assert_eq!(
        with(None, None, None),
        "0/2 nodes are available: persistentvolumeclaim \"data\" not found."
    );
    assert_eq!(
        with(Some(claim.clone()), None, None),
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    );
    assert_eq!(
        with(Some(claim.clone()), None, Some(late("mangrove.io/local-path"))),
        "a"
    );
    let none = Some(late("kubernetes.io/no-provisioner"));
    assert_eq!(with(Some(claim.clone()), Some(on("b", "2Gi")), none.clone()), "b");
    assert_eq!(
        with(Some(claim), Some(on("b", "500Mi")), none),
        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    );
}

#[test]
fn room_that_was_promised_to_more_important_pods_is_not_given_away() {
    let mut cluster = one(node("n", |_| {}));
    let important = pod("big", |p| {
        asks("800m")(p);
        p["spec"]["priority"] = json!(100);
    });
    cluster.nominated.insert("n".to_owned(), vec![Arc::new(important)]);

    assert!(against(&pod("p", asks("300m")), &cluster).contains("Insufficient cpu"));
    let more_important = pod("p", |p| {
        asks("300m")(p);
        p["spec"]["priority"] = json!(200);
    });
    assert_eq!(against(&more_important, &cluster), "n");
}

#[test]
fn the_summary_counts_reasons() {
    assert_eq!(
        summary(2, ["Insufficient cpu", "Insufficient cpu", "Too many pods"]),
        "0/2 nodes are available: 1 Too many pods, 2 Insufficient cpu."
    );
}
