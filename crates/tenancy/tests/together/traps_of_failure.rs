//! The traps of a syncer where things fail or are at their limits, by number: planes that go and come back older (10), sizes
//! (11), two syncers at once (12).

use api::resource::{CONFIG_MAPS, PODS, SERVICES};
use client::{ListOptions, Patch};
use keyspace::{KeyRange, Op, Options, Range, Txn};
use serde_json::json;
use tenancy::identity;

use crate::{gate::Manner, harness::House};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_10_a_plane_that_is_down_loses_nothing_below_and_holds_up_nobody() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for tenant in [&acme, &globex] {
        tenant.make_pod("default", "web", |_| {}).await;
        tenant.running("default", "web").await;
    }
    let before = house.super_object(&acme, &PODS, "web", |_| true).await;

    house.gate.trouble(acme.plane, Manner::Fails);
    // Somebody touches it below, and much happens elsewhere.
    let stray = Patch::Merge(json!({"metadata": {"labels": {"stray": "x"}}}));
    house
        .below
        .patch(&PODS, Some(before.namespace()), "web", &stray)
        .await
        .unwrap();
    for number in 0..10 {
        globex.make_pod("default", &format!("more-{number}"), |_| {}).await;
    }
    for number in 0..10 {
        globex.running("default", &format!("more-{number}")).await;
    }
    let now = house.super_object(&acme, &PODS, "web", |_| true).await;
    assert_eq!(now.uid(), before.uid());
    assert!(!now.is_deleting());

    house.gate.no_trouble();
    house
        .super_object(&acme, &PODS, "web", |pod| {
            pod.label("stray").is_none() && pod.uid() == before.uid()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_10_a_plane_that_returns_with_an_older_state_is_followed_without_running_anything_twice() {
    let mut house = House::open().await;
    let acme = house.tenant("acme").await;
    let kept = acme.make_pod("default", "kept", |_| {}).await;
    acme.running("default", "kept").await;
    acme.make_pod("default", "finished-since", |_| {}).await;
    acme.running("default", "finished-since").await;
    let shared = house.planes.server.planes().shared().clone();
    let everything = || Range::of(KeyRange::prefix("/"));
    let backup: Vec<_> = shared.range(everything(), Options::default()).await.unwrap().items;

    // Since the backup one Pod has gone, another has come, and labels have changed.
    acme.delete(&PODS, "default", "finished-since", Some(0)).await;
    acme.gone(&PODS, "default", "finished-since").await;
    house.super_object_gone(&acme, &PODS, "finished-since").await;
    acme.merge(
        &PODS,
        "default",
        "kept",
        json!({"metadata": {"labels": {"since": "x"}}}),
    )
    .await;
    acme.make_pod("default", "since", |_| {}).await;
    acme.running("default", "since").await;
    house
        .super_object(&acme, &PODS, "kept", |pod| pod.label("since").is_some())
        .await;
    house.stop_syncer().await;
    let pods_of = |key: &[u8]| {
        let key = String::from_utf8_lossy(key).into_owned();
        key.contains("/pods/") && key.contains(acme.plane.as_str())
    };
    let now = shared.range(everything(), Options::default()).await.unwrap().items;
    let is_in_backup = |key: &[u8]| backup.iter().any(|item| item.key == key);
    let mut restore: Vec<Op> = now
        .iter()
        .filter(|item| pods_of(&item.key) && !is_in_backup(&item.key))
        .map(|item| Op::delete(item.key.clone()))
        .collect();
    let older = backup.iter().filter(|item| pods_of(&item.key));
    restore.extend(older.map(|item| Op::put(item.key.clone(), item.value.clone())));
    let restore = Txn {
        success: restore,
        ..Txn::default()
    };
    shared.txn(restore, Options::default()).await.unwrap();
    house.start_syncer();

    // What the plane does not know (any more) leaves; what it has forgotten to have ended does not run again.
    house.super_object_gone(&acme, &PODS, "since").await;
    acme.gone(&PODS, "default", "finished-since").await;
    let below = house
        .super_object(&acme, &PODS, "kept", |pod| pod.label("since").is_none())
        .await;
    assert_eq!(below.annotation(identity::UID), Some(kept.uid()));
    acme.running("default", "kept").await;
    let pods = house.below.list(&PODS, None, &ListOptions::default()).await.unwrap();
    assert_eq!(pods.items.iter().filter(|pod| acme.owns(pod)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_11_objects_at_the_limits_go_down_and_one_that_is_too_large_below_is_told() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    // As many annotations as an object may have, and as much data.
    let full = "x".repeat((256 << 10) - "full".len() - "note".len() - 4);
    let annotations = json!({"full": full, "note": "kept"});
    let settings = json!({"metadata": {"name": "settings", "annotations": annotations},
        "data": {"a": "y".repeat((1 << 20) - 1)}});
    acme.make(&CONFIG_MAPS, "default", &settings).await;
    acme.make_pod("default", "web", |pod| {
        pod["metadata"]["annotations"] = annotations.clone();
        pod["spec"]["volumes"] = json!([{"name": "c", "configMap": {"name": "settings"}}, {"name": "d", "downwardAPI":
            {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.annotations"}}]}}]);
    })
    .await;

    acme.running("default", "web").await;
    let pod = house.super_object(&acme, &PODS, "web", |_| true).await;
    assert_eq!(pod.annotation("note"), Some("kept"));
    assert!(pod.annotation("full").is_none());
    let copy = house.super_object(&acme, &CONFIG_MAPS, "settings", |_| true).await;
    assert_eq!(copy.tree()["data"], settings["data"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_12_two_syncers_at_once_make_nothing_twice_and_take_nothing_away() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    let other = house.another_syncer();
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    acme.make(
        &CONFIG_MAPS,
        "default",
        &json!({"metadata": {"name": "settings"}, "data": {"round": "0"}}),
    )
    .await;
    let mut uids = Vec::new();
    for round in 0..4 {
        let mut made = Vec::new();
        for number in 0..6 {
            let name = format!("web-{number}");
            made.push(
                acme.make_pod("default", &name, |pod| {
                    pod["spec"]["volumes"] = json!([{"name": "c", "configMap": {"name": "settings"}}]);
                })
                .await,
            );
            acme.make(&SERVICES, "default", &service(&name)).await;
        }
        for pod in &made {
            let running = acme.running("default", pod.name()).await;
            assert_eq!(running.uid(), pod.uid(), "it was not taken away");
            house.super_object(&acme, &SERVICES, pod.name(), |_| true).await;
        }
        let below = house.below.list(&PODS, None, &ListOptions::default()).await.unwrap();
        let ours = below.items.iter().filter(|pod| acme.owns(pod) && !pod.is_deleting());
        let mut stand_for: Vec<_> = ours
            .map(|pod| pod.annotation(identity::UID).unwrap().to_owned())
            .collect();
        let mut wanted: Vec<_> = made.iter().map(|pod| pod.uid().to_owned()).collect();
        stand_for.sort();
        wanted.sort();
        assert_eq!(stand_for, wanted, "round {round}");
        uids.extend(below.items.iter().map(|pod| pod.uid().to_owned()));
        for pod in &made {
            acme.delete(&PODS, "default", pod.name(), Some(0)).await;
            acme.delete(&SERVICES, "default", pod.name(), None).await;
        }
        for pod in &made {
            acme.gone(&PODS, "default", pod.name()).await;
            house.super_object_gone(&acme, &SERVICES, pod.name()).await;
        }
    }
    let made = uids.len();
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), made, "each Pod had one super Pod in its life");
    other.stop().await;
}
