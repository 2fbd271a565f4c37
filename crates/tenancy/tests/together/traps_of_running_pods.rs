//! What changes of a Pod that runs (trap 15): containers that come later, other amounts, conditions of both sides.

use api::resource::{EVENTS, PODS};
use client::Patch;
use serde_json::json;

use crate::harness::{House, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_15_containers_that_come_later_go_down_unless_they_lead_to_the_machine() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |_| {}).await;
    acme.running("default", "web").await;
    let before = house.super_object(&acme, &PODS, "web", |_| true).await;

    let add = |container: serde_json::Value| {
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
        let client = acme.client.clone();
        async move {
            client
                .patch_sub(&PODS, Some("default"), "web", "ephemeralcontainers", &patch)
                .await
                .unwrap()
        }
    };
    add(json!({"name": "debug", "image": "tools", "env": [
        {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]}))
    .await;
    let below = house
        .super_object(&acme, &PODS, "web", |pod| {
            pod.tree()["spec"]["ephemeralContainers"][0]["name"] == "debug"
        })
        .await;
    assert_eq!(below.uid(), before.uid());
    let env = below.tree()["spec"]["ephemeralContainers"][0]["env"].to_string();
    assert!(env.contains("{\"name\":\"NS\",\"value\":\"default\"}"), "{env}");

    add(json!({"name": "root", "image": "tools", "securityContext": {"privileged": true}})).await;
    until("the tenant is told", &acme.client, &EVENTS, Some("default"), |events| {
        let told = |message: &str| message.contains("privileged container \"root\"");
        let mut events = events.iter();
        events
            .find(|event| event.tree()["message"].as_str().is_some_and(told))
            .map(drop)
    })
    .await;
    let below = house.super_object(&acme, &PODS, "web", |_| true).await;
    assert_eq!(below.tree()["spec"]["ephemeralContainers"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_15_a_resize_goes_down_and_conditions_of_both_sides_stay() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |pod| {
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    })
    .await;
    acme.running("default", "web").await;
    let before = house.super_object(&acme, &PODS, "web", |_| true).await;

    let more = Patch::Strategic(json!({"spec": {"containers": [
        {"name": "main", "resources": {"requests": {"cpu": "200m"}}}]}}));
    acme.client
        .patch_sub(&PODS, Some("default"), "web", "resize", &more)
        .await
        .unwrap();
    let below = house
        .super_object(&acme, &PODS, "web", |pod| {
            pod.tree()["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "200m"
        })
        .await;
    assert_eq!(below.uid(), before.uid());

    // One says something of its own, the node another thing.
    let scanned =
        Patch::Strategic(json!({"status": {"conditions": [{"type": "acme.example/scanned", "status": "True"}]}}));
    acme.client
        .patch_sub(&PODS, Some("default"), "web", "status", &scanned)
        .await
        .unwrap();
    let told = Patch::Strategic(json!({"status": {"message": "hot", "conditions": [
        {"type": "node.example/hot", "status": "True"}]}}));
    house
        .below
        .patch_sub(&PODS, Some(below.namespace()), "web", "status", &told)
        .await
        .unwrap();

    acme.object(&PODS, "default", "web", |pod| {
        let conditions = pod.tree()["status"]["conditions"].to_string();
        pod.tree()["status"]["message"] == "hot"
            && conditions.contains("acme.example/scanned")
            && conditions.contains("node.example/hot")
    })
    .await;
}
