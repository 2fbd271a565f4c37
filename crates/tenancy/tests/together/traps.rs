//! The traps of a syncer, by number (1 to 7 of the list in `docs/tenancy.md`).

use api::{
    Object,
    resource::{CONFIG_MAPS, EVENTS, NAMESPACES, PODS, REPLICA_SETS, SECRETS, SERVICES},
};
use client::{DeleteOptions, ListOptions, Patch};
use serde_json::{Value, json};
use tenancy::identity;

use crate::harness::{House, Tenant, named, pod, until};

fn stands_for<'a>(object: &'a Object) -> impl Fn(&Object) -> bool + 'a {
    move |below| below.annotation(identity::UID) == Some(object.uid())
}

fn is_deleting(object: &Object) -> bool {
    object.is_deleting()
}

fn grace(object: &Object) -> Option<u64> {
    object.tree()["metadata"]["deletionGracePeriodSeconds"].as_u64()
}

async fn super_pods(house: &House, tenant: &Tenant) -> Vec<Object> {
    let pods = house.below.list(&PODS, None, &ListOptions::default()).await.unwrap();
    pods.items.into_iter().filter(|pod| tenant.owns(pod)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_01_what_was_made_anew_while_the_syncer_was_away_replaces_what_stood_for_the_old() {
    let mut house = House::open().await;
    let acme = house.tenant("acme").await;
    let mentions = |pod: &mut Value| {
        pod["spec"]["volumes"] = json!([{"name": "c", "configMap": {"name": "settings"}},
            {"name": "s", "secret": {"secretName": "password"}}]);
    };
    let settings = |value: &str| json!({"metadata": {"name": "settings"}, "data": {"a": value}});
    let password = json!({"metadata": {"name": "password"}, "stringData": {"a": "1"}});
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    acme.make(&CONFIG_MAPS, "default", &settings("old")).await;
    acme.make(&SECRETS, "default", &password).await;
    acme.make(&SERVICES, "default", &service).await;
    acme.make_pod("default", "web", mentions).await;
    acme.running("default", "web").await;
    let old = house.super_object(&acme, &PODS, "web", |_| true).await;
    house.super_object(&acme, &SERVICES, "web", |_| true).await;

    house.stop_syncer().await;
    for (resource, name) in [
        (&PODS, "web"),
        (&CONFIG_MAPS, "settings"),
        (&SECRETS, "password"),
        (&SERVICES, "web"),
    ] {
        acme.delete(resource, "default", name, Some(0)).await;
    }
    let new_settings = acme.make(&CONFIG_MAPS, "default", &settings("new")).await;
    let new_password = acme.make(&SECRETS, "default", &password).await;
    let new_service = acme.make(&SERVICES, "default", &service).await;
    let new = acme.make_pod("default", "web", mentions).await;
    house.start_syncer();

    let below = house.super_object(&acme, &PODS, "web", stands_for(&new)).await;
    assert_ne!(below.uid(), old.uid());
    house
        .super_object(&acme, &CONFIG_MAPS, "settings", stands_for(&new_settings))
        .await;
    house
        .super_object(&acme, &SECRETS, "password", stands_for(&new_password))
        .await;
    let service = house
        .super_object(&acme, &SERVICES, "web", stands_for(&new_service))
        .await;
    assert_eq!(
        service.tree()["spec"]["clusterIP"],
        new_service.tree()["spec"]["clusterIP"]
    );
    acme.running("default", "web").await;
    assert_eq!(super_pods(&house, &acme).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_02_a_deletion_goes_down_with_its_grace_and_the_tenants_pod_leaves_last() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |_| {}).await;
    acme.running("default", "web").await;

    house.node.linger();
    acme.delete(&PODS, "default", "web", Some(70)).await;
    let below = house.super_object(&acme, &PODS, "web", is_deleting).await;
    assert_eq!(grace(&below), Some(70));
    // Shortened while it is under way.
    acme.delete(&PODS, "default", "web", Some(5)).await;
    house
        .super_object(&acme, &PODS, "web", |pod| grace(pod) == Some(5))
        .await;
    // It is still running below, so it is still there above.
    let above = acme.object(&PODS, "default", "web", is_deleting).await;
    assert_eq!(grace(&above), Some(5));

    house.node.let_go();
    acme.gone(&PODS, "default", "web").await;
    assert!(super_pods(&house, &acme).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_02_a_tenants_finalizer_holds_the_tenants_pod_alone_and_force_goes_down_too() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "held", |pod| {
        pod["metadata"]["finalizers"] = json!(["acme.example/hold"]);
    })
    .await;
    acme.make_pod("default", "forced", |_| {}).await;
    acme.running("default", "held").await;
    acme.running("default", "forced").await;

    acme.delete(&PODS, "default", "held", None).await;
    house.super_object_gone(&acme, &PODS, "held").await;
    let held = acme.object(&PODS, "default", "held", |pod| grace(pod) == Some(0)).await;
    assert_eq!(held.tree()["metadata"]["finalizers"], json!(["acme.example/hold"]));
    acme.merge(&PODS, "default", "held", json!({"metadata": {"finalizers": null}}))
        .await;
    acme.gone(&PODS, "default", "held").await;

    acme.delete(&PODS, "default", "forced", Some(0)).await;
    acme.gone(&PODS, "default", "forced").await;
    house.super_object_gone(&acme, &PODS, "forced").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_03_a_pod_that_the_super_cluster_takes_away_is_gone_above_and_its_owner_makes_another() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make(&REPLICA_SETS, "default", &replica_set()).await;
    acme.make_pod("default", "alone", |_| {}).await;
    acme.running("default", "alone").await;
    let first = one_running(&acme, "").await;

    // Evicted: with grace. Lost with its node: at once.
    let below = house.super_object(&acme, &PODS, first.name(), |_| true).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": below.name()}});
    house
        .below
        .create_sub(&PODS, Some(below.namespace()), below.name(), "eviction", &eviction)
        .await
        .unwrap();
    acme.gone(&PODS, "default", first.name()).await;
    let second = one_running(&acme, first.uid()).await;
    force(&house, &house.super_object(&acme, &PODS, second.name(), |_| true).await).await;
    acme.gone(&PODS, "default", second.name()).await;
    one_running(&acme, second.uid()).await;

    // One without an owner is not made again.
    force(&house, &house.super_object(&acme, &PODS, "alone", |_| true).await).await;
    acme.gone(&PODS, "default", "alone").await;
    house.super_object_gone(&acme, &PODS, "alone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_03_a_pod_that_was_taken_away_while_the_syncer_was_away_is_not_made_again() {
    let mut house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "alone", |_| {}).await;
    acme.running("default", "alone").await;
    let below = house.super_object(&acme, &PODS, "alone", |_| true).await;

    house.stop_syncer().await;
    force(&house, &below).await;
    house.super_object_gone(&acme, &PODS, "alone").await;
    house.start_syncer();

    acme.gone(&PODS, "default", "alone").await;
    assert!(super_pods(&house, &acme).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_04_status_is_the_super_clusters_but_for_readiness_gates_which_are_the_tenants() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |pod| {
        pod["spec"]["readinessGates"] = json!([{"conditionType": "acme.example/warm"}]);
    })
    .await;
    let running = acme.running("default", "web").await;
    let address = running.tree()["status"]["podIP"].clone();

    // The tenant says what is not so, and what only it can say.
    let conditions = json!([{"type": "acme.example/warm", "status": "True"}]);
    let said =
        Patch::Strategic(json!({"status": {"podIP": "203.0.113.1", "phase": "Pending", "conditions": conditions}}));
    acme.client
        .patch_sub(&PODS, Some("default"), "web", "status", &said)
        .await
        .unwrap();

    let has_warm = |pod: &Object| {
        let conditions = pod.tree()["status"]["conditions"].as_array().unwrap();
        conditions
            .iter()
            .any(|condition| condition["type"] == "acme.example/warm" && condition["status"] == "True")
    };
    house.super_object(&acme, &PODS, "web", has_warm).await;
    let settled = acme
        .object(&PODS, "default", "web", |pod| {
            let status = &pod.tree()["status"];
            status["podIP"] == address && status["phase"] == "Running" && has_warm(pod)
        })
        .await;

    // What the node says next goes up and takes nothing of the tenant's with it.
    let below = house.super_object(&acme, &PODS, "web", |_| true).await;
    let restarted = Patch::Strategic(json!({"status": {"message": format!("seen in {}", below.namespace())}}));
    house
        .below
        .patch_sub(&PODS, Some(below.namespace()), "web", "status", &restarted)
        .await
        .unwrap();
    let last = acme
        .object(&PODS, "default", "web", |pod| {
            pod.tree()["status"]["message"] == "seen in default"
        })
        .await;
    assert!(has_warm(&last));
    assert_eq!(last.tree()["spec"], settled.tree()["spec"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_05_owners_do_not_cross_and_neither_sides_garbage_collection_touches_the_others() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    let owner = acme
        .make(&CONFIG_MAPS, "default", &json!({"metadata": {"name": "owner"}}))
        .await;
    let owned = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
    acme.make_pod("default", "owned", |pod| {
        pod["metadata"]["ownerReferences"] = owned.clone();
        pod["spec"]["volumes"] = json!([{"name": "c", "configMap": {"name": "settings", "optional": true}}]);
    })
    .await;
    let settings = json!({"metadata": {"name": "settings", "ownerReferences": owned}, "data": {"a": "1"}});
    acme.make(&CONFIG_MAPS, "default", &settings).await;
    acme.running("default", "owned").await;
    let pod = house.super_object(&acme, &PODS, "owned", |_| true).await;
    let copy = house.super_object(&acme, &CONFIG_MAPS, "settings", |_| true).await;
    for below in [&pod, &copy] {
        let metadata = below.tree()["metadata"].as_object().unwrap();
        assert!(!metadata.contains_key("ownerReferences") && !metadata.contains_key("finalizers"));
    }

    // The super plane's garbage collector has been round: an object of its own without its owner has gone.
    let orphan = json!({"metadata": {"name": "orphan", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "6f8e1a1c-0000-4000-8000-000000000000"}]}});
    house
        .below
        .create(&CONFIG_MAPS, Some(pod.namespace()), &orphan)
        .await
        .unwrap();
    until("the orphan is gone", &house.below, &CONFIG_MAPS, None, |maps| {
        named(maps, "orphan").is_none().then_some(())
    })
    .await;
    house
        .super_object(&acme, &PODS, "owned", |now| now.uid() == pod.uid())
        .await;
    house
        .super_object(&acme, &CONFIG_MAPS, "settings", |now| now.uid() == copy.uid())
        .await;

    // The tenant's collects what it owns above, and so below.
    acme.delete(&CONFIG_MAPS, "default", "owner", None).await;
    acme.gone(&PODS, "default", "owned").await;
    acme.gone(&CONFIG_MAPS, "default", "settings").await;
    house.super_object_gone(&acme, &PODS, "owned").await;
    house.super_object_gone(&acme, &CONFIG_MAPS, "settings").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_06_a_namespace_ends_from_its_content_over_the_super_namespace_to_itself() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_namespace("shop").await;
    acme.make_pod("shop", "web", |_| {}).await;
    acme.running("shop", "web").await;
    let below = house
        .super_object(&acme, &PODS, "web", |_| true)
        .await
        .namespace()
        .to_owned();
    let held = acme.object(&NAMESPACES, "", "shop", |_| true).await;
    assert_eq!(held.tree()["metadata"]["finalizers"], json!([identity::FINALIZER]));

    house.node.linger();
    acme.delete(&NAMESPACES, "", "shop", None).await;
    house.super_object(&acme, &PODS, "web", is_deleting).await;
    let above = acme.object(&NAMESPACES, "", "shop", is_deleting).await;
    assert_eq!(above.tree()["metadata"]["finalizers"], json!([identity::FINALIZER]));
    let super_namespace = house.below.get(&NAMESPACES, None, &below).await.unwrap();
    assert!(!super_namespace.is_deleting());

    // Something in the super namespace holds that, and it holds the tenant's.
    let hold = json!({"metadata": {"name": "hold", "finalizers": ["super.example/hold"]}});
    house.below.create(&CONFIG_MAPS, Some(&below), &hold).await.unwrap();
    house.node.let_go();
    acme.gone(&PODS, "shop", "web").await;
    house.super_object(&acme, &NAMESPACES, &below, is_deleting).await;
    acme.object(&NAMESPACES, "", "shop", is_deleting).await;
    let let_go = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    house
        .below
        .patch(&CONFIG_MAPS, Some(&below), "hold", &let_go)
        .await
        .unwrap();
    acme.gone(&NAMESPACES, "", "shop").await;
    assert!(
        house
            .below
            .get(&NAMESPACES, None, &below)
            .await
            .unwrap_err()
            .is_not_found()
    );

    // Made anew it is another.
    acme.make_namespace("shop").await;
    acme.make_pod("shop", "web", |_| {}).await;
    acme.running("shop", "web").await;
    let again = house.super_object(&acme, &PODS, "web", |_| true).await;
    assert_ne!(again.namespace(), below);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_names_that_run_into_one_another_stay_apart_and_the_longest_fit() {
    let house = House::open().await;
    let long = "l".repeat(63);
    let one = house.tenant("a-b").await;
    let two = house.tenant("a").await;
    let longest = house.tenant(&long).await;
    let mut namespaces = Vec::new();
    for (tenant, namespace) in [(&one, "c"), (&two, "b-c"), (&longest, long.as_str())] {
        tenant.make_namespace(namespace).await;
        tenant.make_pod(namespace, "web", |_| {}).await;
        tenant.running(namespace, "web").await;
        let below = house.super_object(tenant, &PODS, "web", |_| true).await;
        namespaces.push(below.namespace().to_owned());
    }

    namespaces.sort();
    namespaces.dedup();
    assert_eq!(namespaces.len(), 3);
    assert!(namespaces.iter().all(|namespace| namespace.len() <= 63));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_what_has_the_name_and_is_not_ours_is_never_touched() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "first", |_| {}).await;
    acme.running("default", "first").await;
    let below = house
        .super_object(&acme, &PODS, "first", |_| true)
        .await
        .namespace()
        .to_owned();
    let foreign = house.below.create(&PODS, Some(&below), &pod("web")).await.unwrap();

    acme.make_pod("default", "web", |_| {}).await;

    until("the tenant is told", &acme.client, &EVENTS, Some("default"), |events| {
        events
            .iter()
            .find(|event| event.tree()["reason"] == "NotSynced")
            .map(drop)
    })
    .await;
    acme.delete(&PODS, "default", "web", None).await;
    acme.gone(&PODS, "default", "web").await;
    let there = house.below.get(&PODS, Some(&below), "web").await.unwrap();
    assert_eq!(there.uid(), foreign.uid());
    assert!(!there.is_deleting());
    let options = DeleteOptions::default();
    house.below.delete(&PODS, Some(&below), "web", &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_07_whoever_says_that_it_stands_for_a_pod_and_does_not_goes() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |_| {}).await;
    acme.running("default", "web").await;
    let below = house.super_object(&acme, &PODS, "web", |_| true).await;
    let mut forged = pod("forged");
    forged["metadata"]["labels"] = below.tree()["metadata"]["labels"].clone();
    forged["metadata"]["annotations"] = below.tree()["metadata"]["annotations"].clone();

    house
        .below
        .create(&PODS, Some(below.namespace()), &forged)
        .await
        .unwrap();

    house.super_object_gone(&acme, &PODS, "forged").await;
    assert_eq!(super_pods(&house, &acme).await.len(), 1);
}

fn replica_set() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// The ReplicaSet's one Pod, which is not the one with that uid.
async fn one_running(tenant: &Tenant, not: &str) -> Object {
    until("another Pod runs", &tenant.client, &PODS, Some("default"), |pods| {
        let mut running = pods.iter().filter(|pod| {
            pod.label("app") == Some("web") && pod.uid() != not && pod.tree()["status"]["phase"] == "Running"
        });
        running.next().cloned()
    })
    .await
}

async fn force(house: &House, below: &Object) {
    let now = DeleteOptions {
        grace_seconds: Some(0),
        ..DeleteOptions::of_uid(below.uid())
    };
    house
        .below
        .delete(&PODS, Some(below.namespace()), below.name(), &now)
        .await
        .unwrap();
}
