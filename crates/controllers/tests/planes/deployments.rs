use api::{Object, resource};
use client::{Patch, PlaneKey};
use serde_json::{Value, json};

use crate::house::{House, deployment, until};

async fn rolled_out(house: &House, plane: &PlaneKey, image: &str) -> Object {
    until(&format!("web runs {image} in {plane}"), || async {
        let web = house
            .client(plane)
            .get(&resource::DEPLOYMENTS, Some("default"), "web")
            .await
            .unwrap();
        let (spec, status) = (&web.tree()["spec"], &web.tree()["status"]);
        let replicas = &spec["replicas"];
        let observed = status["observedGeneration"] == web.tree()["metadata"]["generation"];
        // What `kubectl rollout status` looks at.
        let done = observed
            && spec["template"]["spec"]["containers"][0]["image"] == image
            && ["replicas", "updatedReplicas", "availableReplicas"]
                .iter()
                .all(|field| status[field] == *replicas);
        done.then_some(web)
    })
    .await
}

fn reason(object: &Object, kind: &str) -> String {
    let conditions = object.tree()["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    condition["reason"].as_str().unwrap().to_owned()
}

async fn set_image(house: &House, plane: &PlaneKey, image: &str) {
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    let client = house.client(plane);
    client
        .patch(&resource::DEPLOYMENTS, Some("default"), "web", &Patch::Strategic(patch))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_of_one_name_in_three_planes_roll_out_each_by_itself() {
    let house = House::open().await;
    for plane in &house.planes {
        let body = deployment("web", 3, "one");
        house
            .client(plane)
            .create(&resource::DEPLOYMENTS, Some("default"), &body)
            .await
            .unwrap();
    }

    for plane in &house.planes {
        let web = rolled_out(&house, plane, "one").await;
        assert_eq!(reason(&web, "Available"), "MinimumReplicasAvailable");
        let pods = house.list(plane, &resource::PODS, "default").await;
        assert_eq!(pods.len(), 3, "{plane}: {pods:?}");
        let sets = house.list(plane, &resource::REPLICA_SETS, "default").await;
        assert!(
            pods.iter()
                .all(|pod| pod.name().starts_with(&format!("{}-", sets[0].name()))),
            "{pods:?}"
        );
    }

    // One of them moves on, and the others stay as they are.
    let (mover, others) = house.planes.split_first().unwrap();
    set_image(&house, mover, "two").await;
    let web = rolled_out(&house, mover, "two").await;
    assert_eq!(web.annotation("deployment.kubernetes.io/revision"), Some("2"));
    for plane in others {
        assert_eq!(
            house.list(plane, &resource::REPLICA_SETS, "default").await.len(),
            1,
            "{plane}"
        );
    }

    // What `kubectl rollout undo` does.
    set_image(&house, mover, "one").await;
    let web = rolled_out(&house, mover, "one").await;
    assert_eq!(web.annotation("deployment.kubernetes.io/revision"), Some("3"));
    let sets = house.list(mover, &resource::REPLICA_SETS, "default").await;
    assert_eq!(sets.len(), 2, "the old set is used again: {sets:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deployment_did_is_told_in_upstreams_events() {
    let house = House::open().await;
    let plane = &house.planes[0];
    let client = house.client(plane);
    client
        .create(&resource::DEPLOYMENTS, Some("default"), &deployment("web", 2, "one"))
        .await
        .unwrap();
    rolled_out(&house, plane, "one").await;

    let events = until("all events are there", || async {
        let events = house.list(plane, &resource::EVENTS, "default").await;
        (events.len() >= 3).then_some(events)
    })
    .await;

    let told: Vec<(&str, &str)> = events
        .iter()
        .map(|event| {
            (
                event.tree()["reason"].as_str().unwrap(),
                event.tree()["message"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(
        told.iter().any(|(reason, message)| *reason == "ScalingReplicaSet"
            && message.starts_with("Scaled up replica set web-")
            && message.ends_with(" from 0 to 2")),
        "{told:?}"
    );
    let made = told
        .iter()
        .filter(|(reason, message)| *reason == "SuccessfulCreate" && message.starts_with("Created pod: web-"));
    assert_eq!(made.count(), 2, "{told:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_set_gets_exactly_its_pods_and_a_smaller_one_keeps_its_best() {
    let house = House::open().await;
    let plane = &house.planes[1];
    let client = house.client(plane);
    client
        .create(&resource::DEPLOYMENTS, Some("default"), &deployment("web", 60, "one"))
        .await
        .unwrap();
    rolled_out(&house, plane, "one").await;

    assert_eq!(house.list(plane, &resource::PODS, "default").await.len(), 60);
    let created = house.list(plane, &resource::EVENTS, "default").await;
    let deleted = created
        .iter()
        .filter(|event| event.tree()["reason"] == "SuccessfulDelete");
    assert_eq!(deleted.count(), 0, "none too many was made");

    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    client
        .patch(&resource::DEPLOYMENTS, Some("default"), "web", &patch)
        .await
        .unwrap();
    rolled_out(&house, plane, "one").await;
    let left = until("five are left", || async {
        let pods = house.list(plane, &resource::PODS, "default").await;
        (pods.len() <= 5).then_some(pods.len())
    })
    .await;
    assert_eq!(left, 5);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_to_a_broken_image_leaves_the_old_pods_running() {
    let house = House::open().await;
    let plane = &house.planes[2];
    let client = house.client(plane);
    client
        .create(&resource::DEPLOYMENTS, Some("default"), &deployment("web", 4, "one"))
        .await
        .unwrap();
    rolled_out(&house, plane, "one").await;

    set_image(&house, plane, "broken").await;
    let web = until("the rollout stands", || async {
        let web = client
            .get(&resource::DEPLOYMENTS, Some("default"), "web")
            .await
            .unwrap();
        let status = &web.tree()["status"];
        // A quarter more and a quarter less, of four.
        (status["updatedReplicas"] == 2 && status["availableReplicas"] == 3).then_some(web)
    })
    .await;

    assert_eq!(web.tree()["status"]["unavailableReplicas"], 2);
    assert_eq!(reason(&web, "Available"), "MinimumReplicasAvailable");
    assert_ne!(web.tree()["status"]["conditions"], Value::Null);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_that_match_are_adopted_and_pods_that_no_longer_match_are_released() {
    let house = House::open().await;
    let plane = &house.planes[0];
    let client = house.client(plane);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "one"}]}});
    client.create(&resource::PODS, Some("default"), &pod).await.unwrap();
    let mut set = deployment("web", 2, "one");
    set["kind"] = json!("ReplicaSet");
    client
        .create(&resource::REPLICA_SETS, Some("default"), &set)
        .await
        .unwrap();

    let owned = |object: &Object| object.tree()["metadata"]["ownerReferences"][0]["name"] == "web";
    let pods = until("two Pods are the set's", || async {
        let pods = house.list(plane, &resource::PODS, "default").await;
        (pods.iter().filter(|pod| owned(pod)).count() == 2).then_some(pods)
    })
    .await;
    assert_eq!(pods.len(), 2, "the stray is one of them: {pods:?}");

    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    client
        .patch(&resource::PODS, Some("default"), "stray", &patch)
        .await
        .unwrap();
    until("the stray is free and replaced", || async {
        let pods = house.list(plane, &resource::PODS, "default").await;
        let stray = pods.iter().find(|pod| pod.name() == "stray")?;
        (!owned(stray) && pods.iter().filter(|pod| owned(pod)).count() == 2).then_some(())
    })
    .await;
    house.close().await;
}
