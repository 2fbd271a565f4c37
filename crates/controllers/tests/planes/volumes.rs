use api::{
    Object,
    resource::{NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES},
};
use client::{DeleteOptions, Patch};
use serde_json::json;

use crate::{
    daemons::node,
    house::{House, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_gets_a_directory_on_its_pods_node_and_gives_it_back() {
    let house = House::open().await;
    let plane = &house.planes[2];
    let client = house.client(plane);
    client.create(&NODES, None, &node("a")).await.unwrap();
    until("there is a default class", || async {
        client.get(&STORAGE_CLASSES, None, "local-path").await.ok()
    })
    .await;
    let body = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    client
        .create(&PERSISTENT_VOLUME_CLAIMS, Some("default"), &body)
        .await
        .unwrap();
    // What the scheduler does.
    let selected = Patch::Merge(json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}}}));
    client
        .patch(&PERSISTENT_VOLUME_CLAIMS, Some("default"), "data", &selected)
        .await
        .unwrap();
    let bound = until("it is bound", || async {
        let claim = client
            .get(&PERSISTENT_VOLUME_CLAIMS, Some("default"), "data")
            .await
            .unwrap();
        (claim.tree()["status"]["phase"] == "Bound").then_some(claim)
    })
    .await;
    let name = bound.tree()["spec"]["volumeName"].as_str().unwrap().to_owned();
    let volume = until("so is its volume", || async {
        let volume = client.get(&PERSISTENT_VOLUMES, None, &name).await.unwrap();
        (volume.tree()["status"]["phase"] == "Bound").then_some(volume)
    })
    .await;
    assert_eq!(
        volume.tree()["spec"]["local"]["path"],
        format!("/volumes/pvc-{}_default_data", bound.uid())
    );

    let pod = json!({"metadata": {"name": "user"}, "spec": {"containers": [{"name": "main", "image": "one"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    client.create(&PODS, Some("default"), &pod).await.unwrap();
    let held = |object: &Object, finalizer: &str| {
        let finalizers = object.tree()["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|finalizers| finalizers.iter().any(|held| held == finalizer))
    };
    until("the claim is protected", || async {
        let claim = client
            .get(&PERSISTENT_VOLUME_CLAIMS, Some("default"), "data")
            .await
            .unwrap();
        held(&claim, "kubernetes.io/pvc-protection").then_some(())
    })
    .await;
    client
        .delete(
            &PERSISTENT_VOLUME_CLAIMS,
            Some("default"),
            "data",
            &DeleteOptions::default(),
        )
        .await
        .unwrap();
    let claim = client
        .get(&PERSISTENT_VOLUME_CLAIMS, Some("default"), "data")
        .await
        .unwrap();
    assert!(claim.is_deleting(), "a Pod uses it");

    client
        .delete(&PODS, Some("default"), "user", &DeleteOptions::default())
        .await
        .unwrap();
    let leaving = until("the volume goes", || async {
        let volume = client.get(&PERSISTENT_VOLUMES, None, &name).await.unwrap();
        volume.is_deleting().then_some(volume)
    })
    .await;
    assert!(
        held(&leaving, "volume.mangrove.io/directory"),
        "until its directory is gone"
    );
    client
        .delete(&NODES, None, "a", &DeleteOptions::default())
        .await
        .unwrap();
    until("with its node the directory is gone", || async {
        client
            .get(&PERSISTENT_VOLUMES, None, &name)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_free_volume_is_bound_and_planes_without_nodes_are_left_alone() {
    let house = House::open().await;
    for plane in &house.planes[1..] {
        let client = house.client(plane);
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "storageClassName": "manual"}});
        client.create(&PERSISTENT_VOLUMES, None, &volume).await.unwrap();
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": "manual", "resources": {"requests": {"storage": "1Gi"}}}});
        client
            .create(&PERSISTENT_VOLUME_CLAIMS, Some("default"), &claim)
            .await
            .unwrap();
    }
    let own = house.client(&house.planes[2]);
    until("the cluster's claim is bound", || async {
        let claim = own
            .get(&PERSISTENT_VOLUME_CLAIMS, Some("default"), "data")
            .await
            .unwrap();
        (claim.tree()["status"]["phase"] == "Bound" && claim.tree()["spec"]["volumeName"] == "pv").then_some(())
    })
    .await;

    let tenant = house.client(&house.planes[1]);
    let claim = tenant
        .get(&PERSISTENT_VOLUME_CLAIMS, Some("default"), "data")
        .await
        .unwrap();
    assert_eq!(claim.tree()["status"]["phase"], "Pending");
    house.close().await;
}
