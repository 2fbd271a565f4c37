use api::resource::{DAEMON_SETS, NODES, PODS};
use client::Patch;
use serde_json::{Value, json};

use crate::house::{House, until};

fn set(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}},
        "template": {"metadata": {"labels": {"app": "agent"}},
            "spec": {"containers": [{"name": "main", "image": image}]}}}})
}

pub fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "status": {
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}})
}

/// The nodes that Pods are for, and their images.
async fn places(house: &House, plane: &client::PlaneKey) -> Vec<(String, String)> {
    let pods = house.list(plane, &PODS, "default").await;
    let place = |pod: &api::Object| {
        let spec = &pod.tree()["spec"];
        let term = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let node = &term["nodeSelectorTerms"][0]["matchFields"][0]["values"][0];
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        (text(node), text(&spec["containers"][0]["image"]))
    };
    let mut places: Vec<_> = pods.iter().filter(|pod| !pod.is_deleting()).map(place).collect();
    places.sort();
    places
}

fn on(nodes: &[&str], image: &str) -> Vec<(String, String)> {
    nodes
        .iter()
        .map(|node| ((*node).to_owned(), image.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_that_comes_gets_a_pod_and_an_update_reaches_them_all() {
    let house = House::open().await;
    let plane = &house.planes[2];
    let client = house.client(plane);
    for name in ["a", "b"] {
        client.create(&NODES, None, &node(name)).await.unwrap();
    }
    client.create(&DAEMON_SETS, Some("default"), &set("one")).await.unwrap();
    until("both nodes have one", || async {
        (places(&house, plane).await == on(&["a", "b"], "one")).then_some(())
    })
    .await;

    client.create(&NODES, None, &node("c")).await.unwrap();
    until("the new node has one", || async {
        (places(&house, plane).await == on(&["a", "b", "c"], "one")).then_some(())
    })
    .await;

    let image =
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "two"}]}}}}));
    client
        .patch(&DAEMON_SETS, Some("default"), "agent", &image)
        .await
        .unwrap();
    until("all are new", || async {
        let set = client.get(&DAEMON_SETS, Some("default"), "agent").await.unwrap();
        let updated = set.tree()["status"]["updatedNumberScheduled"] == 3;
        (updated && places(&house, plane).await == on(&["a", "b", "c"], "two")).then_some(())
    })
    .await;

    let taint = Patch::Merge(json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}}));
    client.patch(&NODES, None, "b", &taint).await.unwrap();
    until("the tainted node is left", || async {
        (places(&house, plane).await == on(&["a", "c"], "two")).then_some(())
    })
    .await;
    house.close().await;
}
