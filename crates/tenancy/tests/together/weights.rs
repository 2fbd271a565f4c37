//! Tenants take turns in the syncer, by the weights of their VirtualClusters.

use std::time::Duration;

use api::resource::{PODS, VIRTUAL_CLUSTERS};
use client::Patch;
use serde_json::json;

use crate::harness::{House, Tenant, until};

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
    // Both have their backlog before the first of them gets anything.
    house.stop_syncer().await;
    flood(&light).await;
    flood(&heavy).await;
    house.gate.forget_writes();
    house.gate.hold_back("/pods");
    house.start_syncer();
    let of = |tenant: &Tenant, path: &str| path.contains(&format!("/namespaces/{}-", tenant.name));
    let waiting = |tenant: &Tenant| {
        let writes = house.gate.writes();
        writes
            .iter()
            .filter(|path| path.ends_with("/pods") && of(tenant, path))
            .count()
    };
    // Each has all that it may have under way, and the rest of its backlog behind that.
    let both_wait = async {
        while waiting(&light) < 8 || waiting(&heavy) < 32 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let both_wait = tokio::time::timeout(Duration::from_secs(60), both_wait).await;
    both_wait.expect("both have Pods to be made");
    house.gate.let_go();
    until("all Pods are below", &house.below, &PODS, None, |pods| {
        (pods.len() == 2 * PODS_EACH).then_some(())
    })
    .await;

    // The order in which Pods were made below.
    let made: Vec<String> = house
        .gate
        .writes()
        .into_iter()
        .filter(|write| write.starts_with("POST") && write.ends_with("/pods"))
        .collect();
    // Some are made once more at the end, before it was seen that they are there.
    let half = made
        .iter()
        .enumerate()
        .filter(|(_, path)| of(&heavy, path))
        .nth(PODS_EACH / 2);
    let (half, _) = half.expect("all were made");
    let light_before = made[..half].iter().filter(|path| of(&light, path)).count();
    let first_light = made.iter().position(|path| of(&light, path)).unwrap();
    assert!(
        light_before < PODS_EACH / 4,
        "the lighter one did not wait: {light_before} while the other got {}",
        PODS_EACH / 2
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
