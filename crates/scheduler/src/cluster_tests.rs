use std::sync::Arc;

use api::Object;
use client::{Change, ObjectKey, PlaneKey};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, is_gated, is_ours},
    filter::Hears,
    pod_info::PodInfo,
};

fn key(name: &str) -> ObjectKey {
    let plane = PlaneKey {
        source: client::SourceId::new("super"),
        plane: "aaaaaaaaaaaaaaaa".parse().unwrap(),
    };
    plane.object("n", name)
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "600m"}}}]}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn change(name: &str, old: Option<Object>, new: Option<Object>) -> Change {
    Change {
        key: key(name),
        old,
        new,
    }
}

fn node(change: impl FnOnce(&mut Value)) -> Object {
    let mut tree = json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1", "pods": "9"}}});
    change(&mut tree);
    Object::from_tree(tree)
}

fn with_node() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.see_node(change("a", None, Some(node(|_| {}))));
    cluster
}

fn taken(cluster: &Cluster) -> i64 {
    cluster.snapshot.nodes["a"].requested.get("cpu").copied().unwrap_or(0)
}

#[test]
fn a_pod_that_was_placed_keeps_its_room_while_its_binding_is_under_way() {
    let mut cluster = with_node();
    cluster.see_pod(change("p", None, Some(pod("p", |_| {}))));
    let info = Arc::new(PodInfo::of(&pod("p", |_| {})));
    cluster.assume(&key("p"), &info, "a");

    let labelled = pod("p", |pod| pod["metadata"]["labels"] = json!({"x": "y"}));
    cluster.see_pod(change("p", None, Some(labelled)));

    assert!(cluster.waiting.is_empty(), "it is not placed twice");
    assert_eq!(taken(&cluster), 600);
}

#[test]
fn a_deleted_pod_gives_its_room_back_and_wakes_whom_that_may_help() {
    let mut cluster = with_node();
    let running = pod("p", |pod| pod["spec"]["nodeName"] = "a".into());
    cluster.see_pod(change("p", None, Some(running.clone())));
    for (name, hears) in [("q", Hears::POD_GONE), ("r", Hears::VOLUMES)] {
        cluster.see_pod(change(name, None, Some(pod(name, |_| {}))));
        cluster.waiting.put_aside(&key(name), hears);
    }

    cluster.see_pod(change("p", Some(running), None));

    assert_eq!(taken(&cluster), 0);
    assert!(cluster.waiting.is_active(&key("q")));
    assert!(!cluster.waiting.is_active(&key("r")));
}

#[test]
fn a_heartbeat_wakes_nobody_and_more_room_does() {
    let mut cluster = with_node();
    cluster.see_pod(change("q", None, Some(pod("q", |_| {}))));
    cluster.waiting.put_aside(&key("q"), Hears::NODE);

    let beat = node(|node| node["status"]["conditions"] = json!([{"type": "Ready"}]));
    cluster.see_node(change("a", None, Some(beat)));
    assert!(!cluster.waiting.is_active(&key("q")));

    let larger = node(|node| node["status"]["allocatable"]["cpu"] = json!("2"));
    cluster.see_node(change("a", None, Some(larger)));
    assert!(cluster.waiting.is_active(&key("q")));
}

#[test]
fn a_pod_seen_before_its_node_takes_room_there_when_it_comes() {
    let mut cluster = Cluster::default();
    let running = pod("p", |pod| pod["spec"]["nodeName"] = "a".into());
    cluster.see_pod(change("p", None, Some(running)));

    cluster.see_node(change("a", None, Some(node(|_| {}))));

    assert_eq!(taken(&cluster), 600);
}

#[test]
fn the_most_important_and_then_the_oldest_comes_first() {
    let mut cluster = with_node();
    for (name, priority, created) in [("b", 0, "2"), ("a", 0, "1"), ("c", 9, "3")] {
        let pod = pod(name, |pod| {
            pod["spec"]["priority"] = json!(priority);
            pod["metadata"]["creationTimestamp"] = json!(created);
        });
        cluster.see_pod(change(name, None, Some(pod)));
    }

    let order: Vec<String> = std::iter::from_fn(|| {
        let (key, _) = cluster.waiting.next()?;
        cluster.waiting.remove(&key);
        Some(key.name.to_string())
    })
    .collect();
    assert_eq!(order, ["c", "a", "b"]);
}

#[test]
fn gated_foreign_and_finished_pods_do_not_wait() {
    let cases: [fn(&mut Value); 3] = [
        |pod| pod["spec"]["schedulerName"] = "mine".into(),
        |pod| pod["status"]["phase"] = "Succeeded".into(),
        |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
    ];
    for change in cases {
        assert!(!is_ours(&pod("p", change)));
    }
    assert!(is_ours(&pod("p", |_| {})));
    let gated = pod("p", |pod| pod["spec"]["schedulingGates"] = json!([{"name": "g"}]));
    assert!(is_gated(&gated));
    let mut cluster = with_node();
    cluster.see_pod(change("p", None, Some(gated.clone())));
    assert!(cluster.waiting.is_empty());
    assert_eq!(cluster.gated.len(), 1);
    cluster.see_pod(change("p", Some(gated), Some(pod("p", |_| {}))));
    assert!(cluster.waiting.is_active(&key("p")));
}
