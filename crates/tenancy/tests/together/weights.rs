//! Tenants take turns in the syncer, by the weights of their VirtualClusters.

use api::resource::{PODS, VIRTUAL_CLUSTERS};
use client::Patch;
use serde_json::json;

use crate::harness::{House, Tenant};

const PODS_EACH: usize = 60;

async fn flood(tenant: &Tenant) {
    for number in 0..PODS_EACH {
        tenant
            .make_pod("default", &format!("web-{number}"), |pod| {
                pod["spec"]["automountServiceAccountToken"] = json!(false);
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heavier_tenant_gets_its_weight_in_turns_and_no_other_starves() {
    let mut house = House::open().await;
    let heavy = house.tenant_with("heavy", json!({"weight": 9})).await;
    let light = house.tenant("light").await;
    // Both have their backlog when the syncer begins.
    house.stop_syncer().await;
    flood(&light).await;
    flood(&heavy).await;
    house.gate.forget_writes();
    house.start_syncer();
    for tenant in [&heavy, &light] {
        for number in 0..PODS_EACH {
            house
                .super_object(tenant, &PODS, &format!("web-{number}"), |_| true)
                .await;
        }
    }

    // The order in which Pods were made below.
    let made: Vec<String> = house
        .gate
        .writes()
        .into_iter()
        .filter(|write| write.starts_with("POST") && write.ends_with("/pods"))
        .collect();
    let of = |tenant: &Tenant, path: &str| path.contains(&format!("/namespaces/{}-", tenant.name));
    let last_heavy = made.iter().rposition(|path| of(&heavy, path)).unwrap();
    let light_before = made[..last_heavy].iter().filter(|path| of(&light, path)).count();
    let first_light = made.iter().position(|path| of(&light, path)).unwrap();
    assert!(
        light_before < PODS_EACH * 2 / 3,
        "the lighter one did not wait: {light_before} of {}",
        made.len()
    );
    assert!(first_light < PODS_EACH, "the lighter one was starved: {first_light}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weight_that_no_tenant_can_have_is_refused() {
    let house = House::open().await;
    house.tenant("acme").await;
    for weight in [0, 101] {
        let patch = Patch::Merge(json!({"spec": {"weight": weight}}));
        let refused = house.below.patch(&VIRTUAL_CLUSTERS, None, "acme", &patch).await;
        let refused = refused.unwrap_err();
        assert!(refused.is_invalid(), "{refused}");
    }
}
