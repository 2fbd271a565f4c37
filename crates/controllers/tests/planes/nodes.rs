use api::resource::{NODES, PODS};
use client::{DeleteOptions, Patch};
use serde_json::json;

use crate::{
    daemons::node,
    house::{House, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_ready_repels_and_one_that_is_again_does_not() {
    let house = House::open().await;
    let plane = &house.planes[2];
    let client = house.client(plane);
    for name in ["a", "b"] {
        client.create(&NODES, None, &node(name)).await.unwrap();
    }
    let pod = |name: &str, tolerates: bool| {
        let tolerations = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": if tolerates { 3600 } else { 0 }}]);
        json!({"metadata": {"name": name}, "spec": {"nodeName": "a", "tolerations": tolerations,
            "containers": [{"name": "main", "image": "one"}]}})
    };
    for (name, tolerates) in [("patient", true), ("hasty", false)] {
        client
            .create(&PODS, Some("default"), &pod(name, tolerates))
            .await
            .unwrap();
    }
    let ready =
        |status: &str| Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}));

    client
        .patch_sub(&NODES, None, "a", "status", &ready("False"))
        .await
        .unwrap();
    until("it is tainted", || async {
        let node = client.get(&NODES, None, "a").await.unwrap();
        let taints = node.tree()["spec"]["taints"].as_array()?.clone();
        let is = |effect: &str| {
            taints
                .iter()
                .any(|taint| taint["key"] == "node.kubernetes.io/not-ready" && taint["effect"] == effect)
        };
        (is("NoSchedule") && is("NoExecute")).then_some(())
    })
    .await;
    until("the hasty Pod has gone", || async {
        client.get(&PODS, Some("default"), "hasty").await.is_err().then_some(())
    })
    .await;
    assert!(client.get(&PODS, Some("default"), "patient").await.is_ok());

    client
        .patch_sub(&NODES, None, "a", "status", &ready("True"))
        .await
        .unwrap();
    until("the taints are gone", || async {
        let node = client.get(&NODES, None, "a").await.unwrap();
        node.tree()["spec"]["taints"]
            .as_array()
            .is_none_or(Vec::is_empty)
            .then_some(())
    })
    .await;
    client
        .delete(&NODES, None, "b", &DeleteOptions::default())
        .await
        .unwrap();
    house.close().await;
}
