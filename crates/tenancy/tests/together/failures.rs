//! The syncer when things go wrong, and when it starts anew.

use api::resource::{CONFIG_MAPS, EVENTS, PODS, SERVICES};
use serde_json::json;
use std::time::Duration;

use crate::{
    gate::Manner,
    harness::{House, Tenant, until},
};

async fn shop(house: &House, name: &str) -> Tenant {
    let tenant = house.tenant(name).await;
    tenant.make_namespace("shop").await;
    let settings = json!({"metadata": {"name": "settings", "labels": {"a": "b"}}, "data": {"a": "1"}});
    tenant.make(&CONFIG_MAPS, "shop", &settings).await;
    for service in [
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "name": "http"}]}}),
        json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}}),
        json!({"metadata": {"name": "open"}, "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        json!({"metadata": {"name": "balanced"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
            "ports": [{"port": 80}]}}),
    ] {
        tenant.make(&SERVICES, "shop", &service).await;
    }
    tenant
        .make_pod("shop", "web", |pod| {
            pod["spec"]["volumes"] = json!([{"name": "v", "configMap": {"name": "settings"}}]);
            pod["spec"]["readinessGates"] = json!([{"conditionType": "x/y"}]);
        })
        .await;
    tenant.running("shop", "web").await;
    for service in ["web", "headless", "open", "balanced"] {
        house.super_object(&tenant, &SERVICES, service, |_| true).await;
    }
    // The scheduler's word about it has come up as well.
    until("an Event is there", &tenant.client, &EVENTS, Some("shop"), |events| {
        events
            .iter()
            .any(|event| event.tree()["reason"] == "Scheduled")
            .then_some(())
    })
    .await;
    tenant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_syncer_that_starts_where_all_is_well_writes_nothing() {
    let mut house = House::open().await;
    let acme = shop(&house, "acme").await;
    house.stop_syncer().await;

    house.gate.forget_writes();
    house.start_syncer();
    // What comes after all that was there has gone its whole way, and its writes are the only ones.
    acme.make(
        &SERVICES,
        "shop",
        &json!({"metadata": {"name": "last"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    house.super_object(&acme, &SERVICES, "last", |_| true).await;
    acme.make_pod("shop", "last", |pod| {
        pod["spec"]["automountServiceAccountToken"] = json!(false);
    })
    .await;
    acme.running("shop", "last").await;
    house.stop_syncer().await;

    let others: Vec<String> = house
        .gate
        .writes()
        .into_iter()
        .filter(|write| !write.contains("/last"))
        .filter(|write| {
            !["/services", "/pods", "/events"]
                .iter()
                .any(|made| write.starts_with("POST") && write.ends_with(made))
        })
        .collect();
    assert_eq!(others, Vec::<String>::new());
    let below = house
        .below
        .list(&PODS, None, &client::ListOptions::default())
        .await
        .unwrap();
    assert_eq!(below.items.iter().filter(|pod| acme.owns(pod)).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_that_does_not_answer_holds_up_nobody_else() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    acme.make_namespace("shop").await;

    house.gate.trouble(acme.plane, Manner::Hangs);
    // More than there are workers.
    for number in 0..80 {
        acme.make_pod("shop", &format!("web-{number}"), |_| {}).await;
    }
    globex.make_pod("default", "web", |_| {}).await;
    globex.running("default", "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_that_fails_is_asked_again_ever_more_rarely_and_goes_on_when_it_is_back() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_namespace("shop").await;
    // By then the syncer has seen all there is.
    acme.make_pod("shop", "first", |_| {}).await;
    acme.running("shop", "first").await;
    house.gate.trouble(acme.plane, Manner::Fails);

    acme.make_pod("shop", "web", |_| {}).await;

    // They double from 5 ms.
    let pauses = house.gate.pauses("/pods/web", 6).await;
    assert!(
        pauses[3] >= Duration::from_millis(40) && pauses[4] >= Duration::from_millis(80),
        "{pauses:?}"
    );
    house.gate.no_trouble();
    acme.running("shop", "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_super_cluster_refuses_is_told_in_the_tenants_own_names() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "first", |_| {}).await;
    acme.running("default", "first").await;
    let below = house.super_object(&acme, &PODS, "first", |_| true).await;

    // No super object may be as large as this one becomes below.
    acme.make_pod("default", "host", |pod| pod["spec"]["hostNetwork"] = true.into())
        .await;
    let told = until("the tenant is told", &acme.client, &EVENTS, Some("default"), |events| {
        let refusal = events.iter().find(|event| event.tree()["reason"] == "FailedCreate")?;
        Some(refusal.tree()["message"].as_str().unwrap_or("").to_owned())
    })
    .await;

    assert_eq!(told, "spec.hostNetwork is not allowed in this cluster");
    assert!(!told.contains(below.namespace()));
}
