use api::resource;
use client::{DeleteOptions, Propagation};

use crate::house::{House, deployment, until};

async fn with_pods(house: &House, plane: &client::PlaneKey, count: usize) {
    house
        .client(plane)
        .create(
            &resource::DEPLOYMENTS,
            Some("default"),
            &deployment("web", count as u32, "one"),
        )
        .await
        .unwrap();
    until("the Pods are there", || async {
        (house.list(plane, &resource::PODS, "default").await.len() == count).then_some(())
    })
    .await;
}

fn how(propagation: Propagation) -> DeleteOptions {
    DeleteOptions {
        propagation: Some(propagation),
        ..DeleteOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_takes_its_sets_and_pods_along_in_its_own_plane_only() {
    let house = House::open().await;
    for plane in &house.planes {
        with_pods(&house, plane, 2).await;
    }

    for (plane, propagation) in [
        (&house.planes[0], Propagation::Background),
        (&house.planes[2], Propagation::Foreground),
    ] {
        let client = house.client(plane);
        client
            .delete(&resource::DEPLOYMENTS, Some("default"), "web", &how(propagation))
            .await
            .unwrap();
        until(&format!("nothing is left in {plane}"), || async {
            let sets = house.list(plane, &resource::REPLICA_SETS, "default").await;
            let pods = house.list(plane, &resource::PODS, "default").await;
            let deployments = house.list(plane, &resource::DEPLOYMENTS, "default").await;
            (sets.is_empty() && pods.is_empty() && deployments.is_empty()).then_some(())
        })
        .await;
    }

    let other = &house.planes[1];
    assert_eq!(house.list(other, &resource::PODS, "default").await.len(), 2);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_have_no_owner_any_more() {
    let house = House::open().await;
    let plane = &house.planes[0];
    with_pods(&house, plane, 2).await;

    let client = house.client(plane);
    client
        .delete(
            &resource::DEPLOYMENTS,
            Some("default"),
            "web",
            &how(Propagation::Orphan),
        )
        .await
        .unwrap();
    until("the Deployment is gone", || async {
        house
            .list(plane, &resource::DEPLOYMENTS, "default")
            .await
            .is_empty()
            .then_some(())
    })
    .await;

    let sets = house.list(plane, &resource::REPLICA_SETS, "default").await;
    assert_eq!(sets.len(), 1);
    assert!(
        sets[0].tree()["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "{}",
        sets[0].tree()
    );
    assert_eq!(house.list(plane, &resource::PODS, "default").await.len(), 2);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_whose_owner_never_was_is_collected_and_one_with_another_owner_is_kept() {
    let house = House::open().await;
    let plane = &house.planes[1];
    let client = house.client(plane);
    let owner = client
        .create(
            &resource::CONFIG_MAPS,
            Some("default"),
            &serde_json::json!({"metadata": {"name": "owner"}}),
        )
        .await
        .unwrap();
    let reference =
        |name: &str, uid: &str| serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let ghost = reference("ghost", "00000000-0000-4000-8000-000000000000");
    for (name, owners) in [
        ("doomed", vec![ghost.clone()]),
        ("kept", vec![ghost.clone(), reference("owner", owner.uid())]),
    ] {
        let body = serde_json::json!({"metadata": {"name": name, "ownerReferences": owners}});
        client.create(&resource::SECRETS, Some("default"), &body).await.unwrap();
    }

    until("the doomed one is gone", || async {
        client
            .get(&resource::SECRETS, Some("default"), "doomed")
            .await
            .is_err()
            .then_some(())
    })
    .await;
    let kept = until("the other lost the ghost", || async {
        let kept = client.get(&resource::SECRETS, Some("default"), "kept").await.unwrap();
        (kept.tree()["metadata"]["ownerReferences"].as_array().unwrap().len() == 1).then_some(kept)
    })
    .await;
    assert_eq!(kept.tree()["metadata"]["ownerReferences"][0]["name"], "owner");
    house.close().await;
}
