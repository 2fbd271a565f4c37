//! What tenants see of the super cluster's nodes.

use std::time::Duration;

use api::resource::{DAEMON_SETS, NODES, PODS, VIRTUAL_CLUSTERS};
use client::{Informer, InformerOptions, ListOptions, Patch, Source, SourceId};
use serde_json::json;
use testkit::nodes::FakeNode;

use crate::harness::{House, Tenant, until};

async fn label(house: &House, node: &str, labels: serde_json::Value) {
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    house.below.patch(&NODES, None, node, &patch).await.unwrap();
}

async fn join(house: &House, name: &str) -> FakeNode {
    let sources = house.planes.sources([house.planes.root_source()]);
    let node = FakeNode::join(&sources, &house.planes.root, name, &house.planes.world)
        .await
        .unwrap();
    let ready = Patch::Merge(json!({"spec": {"taints": null}}));
    house.below.patch(&NODES, None, name, &ready).await.unwrap();
    node
}

/// An informer of nodes, as a tenant's own controllers would have it.
fn informer(house: &House, tenant: &Tenant) -> Informer {
    let source = Source::Plane {
        id: SourceId::new("tenant"),
        plane: tenant.plane,
        client: tenant.client.clone(),
    };
    Informer::start(&house.planes.sources([source]), NODES, InformerOptions::default())
}

async fn holds(informer: &Informer, names: &[&str]) {
    let mut changes = informer.subscribe();
    let held = async {
        loop {
            let mut held: Vec<String> = informer.keys().iter().map(|key| key.name.to_string()).collect();
            held.sort();
            if held == names {
                return;
            }
            changes.next().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), held).await;
    assert!(in_time.is_ok(), "{:?} never was {names:?}", informer.keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_all_nodes_and_nothing_that_leads_to_them() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    let annotated = Patch::Merge(json!({"metadata": {"annotations": {"secret": "s"}}}));
    house.below.patch(&NODES, None, "n1", &annotated).await.unwrap();

    let node = acme.client.get(&NODES, None, "n1").await.unwrap();

    assert_eq!(node.label("kubernetes.io/hostname"), Some("n1"));
    assert_eq!(node.tree()["status"]["capacity"]["cpu"], "2");
    assert!(node.annotation("secret").is_none());
    assert!(node.tree()["status"].get("addresses").is_none());
    let super_node = house.below.get(&NODES, None, "n1").await.unwrap();
    assert_ne!(node.uid(), super_node.uid());
    assert_eq!(node.uid(), acme.client.get(&NODES, None, "n1").await.unwrap().uid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informers_of_nodes_follow_what_happens_below() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    let nodes = informer(&house, &acme);
    holds(&nodes, &["n1"]).await;

    let _second = join(&house, "n2").await;
    holds(&nodes, &["n1", "n2"]).await;
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    house.below.patch(&NODES, None, "n2", &cordon).await.unwrap();
    until("it is seen", &acme.client, &NODES, None, |nodes| {
        nodes
            .iter()
            .any(|node| node.name() == "n2" && node.tree()["spec"]["unschedulable"] == true)
            .then_some(())
    })
    .await;
    let options = client::DeleteOptions::default();
    house.below.delete(&NODES, None, "n2", &options).await.unwrap();
    holds(&nodes, &["n1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_a_selector_sees_its_nodes_alone_and_runs_on_them_alone() {
    let house = House::open().await;
    label(&house, "n1", json!({"pool": "common"})).await;
    let _second = join(&house, "n2").await;
    label(&house, "n2", json!({"pool": "reserved"})).await;
    let acme = house
        .tenant_with("acme", json!({"nodeSelector": {"pool": "reserved"}}))
        .await;

    let nodes = acme.client.list(&NODES, None, &ListOptions::default()).await.unwrap();
    assert_eq!(nodes.items.len(), 1);
    assert_eq!(nodes.items[0].name(), "n2");
    assert!(nodes.items[0].label("pool").is_none());
    for number in 0..4 {
        acme.make_pod("default", &format!("web-{number}"), |_| {}).await;
    }
    for number in 0..4 {
        let pod = acme.running("default", &format!("web-{number}")).await;
        assert_eq!(pod.tree()["spec"]["nodeName"], "n2");
    }
    // Its own affinity does not lead elsewhere.
    acme.make_pod("default", "elsewhere", |pod| pod["spec"]["nodeName"] = "n1".into())
        .await;
    house
        .super_object(&acme, &PODS, "elsewhere", |pod| {
            let conditions = pod.tree()["status"]["conditions"].as_array();
            conditions.is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selector_that_changes_is_seen_by_informers_that_are_under_way() {
    let house = House::open().await;
    label(&house, "n1", json!({"pool": "common"})).await;
    let _second = join(&house, "n2").await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let (acmes, globexes) = (informer(&house, &acme), informer(&house, &globex));
    holds(&acmes, &["n1", "n2"]).await;
    holds(&globexes, &["n1", "n2"]).await;

    let select = Patch::Merge(json!({"spec": {"nodeSelector": {"pool": "common"}}}));
    house
        .below
        .patch(&VIRTUAL_CLUSTERS, None, "acme", &select)
        .await
        .unwrap();

    holds(&acmes, &["n1"]).await;
    holds(&globexes, &["n1", "n2"]).await;
    let all = Patch::Merge(json!({"spec": {"nodeSelector": null}}));
    house.below.patch(&VIRTUAL_CLUSTERS, None, "acme", &all).await.unwrap();
    holds(&acmes, &["n1", "n2"]).await;
}

async fn cordon(client: &client::Client, node: &str, cordoned: bool) {
    let patch = Patch::Strategic(json!({"spec": {"unschedulable": cordoned.then_some(true)}}));
    client.patch(&NODES, None, node, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordon_of_a_tenant_is_its_own_and_what_waits_for_its_end_runs_then() {
    let house = House::open().await;
    let _second = join(&house, "n2").await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let nodes = informer(&house, &acme);
    holds(&nodes, &["n1", "n2"]).await;

    cordon(&acme.client, "n2", true).await;

    let seen = acme.client.get(&NODES, None, "n2").await.unwrap();
    assert_eq!(seen.tree()["spec"]["unschedulable"], true);
    assert_eq!(
        seen.tree()["spec"]["taints"][0]["key"],
        "node.kubernetes.io/unschedulable"
    );
    for other in [&house.below, &globex.client] {
        let seen = other.get(&NODES, None, "n2").await.unwrap();
        assert_eq!(seen.tree()["spec"]["unschedulable"], serde_json::Value::Null);
    }
    for number in 0..4 {
        acme.make_pod("default", &format!("web-{number}"), |_| {}).await;
    }
    for number in 0..4 {
        let pod = acme.running("default", &format!("web-{number}")).await;
        assert_eq!(pod.tree()["spec"]["nodeName"], "n1");
    }

    cordon(&acme.client, "n1", true).await;
    acme.make_pod("default", "waits", |_| {}).await;
    house
        .super_object(&acme, &PODS, "waits", |pod| {
            let conditions = pod.tree()["status"]["conditions"].as_array();
            conditions.is_some_and(|conditions| conditions.iter().any(|one| one["reason"] == "Unschedulable"))
        })
        .await;
    cordon(&acme.client, "n2", false).await;

    let pod = acme.running("default", "waits").await;
    assert_eq!(pod.tree()["spec"]["nodeName"], "n2");
    // And what runs on the other runs on.
    assert!(acme.running("default", "web-0").await.tree()["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_tenants_to_say_of_a_node_is_refused() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    for patch in [
        json!({"metadata": {"labels": {"x": "y"}}}),
        json!({"spec": {"podCIDR": "10.0.0.0/8"}}),
        json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}),
    ] {
        let refused = acme
            .client
            .patch(&NODES, None, "n1", &Patch::Merge(patch.clone()))
            .await;
        assert!(refused.is_err(), "{patch}");
    }
    let below = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    house.below.patch(&NODES, None, "n1", &below).await.unwrap();
    let refused = acme
        .client
        .patch(
            &NODES,
            None,
            "n1",
            &Patch::Merge(json!({"spec": {"unschedulable": null}})),
        )
        .await;
    assert!(refused.unwrap_err().to_string().contains("has cordoned it"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_follows_the_nodes_that_its_tenant_is_shown() {
    let house = House::open().await;
    label(&house, "n1", json!({"pool": "common"})).await;
    let _second = join(&house, "n2").await;
    let acme = house
        .tenant_with("acme", json!({"nodeSelector": {"pool": "common"}}))
        .await;
    let set = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "agent"}},
        "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    acme.client.create(&DAEMON_SETS, Some("default"), &set).await.unwrap();
    let runs_on = async |wanted: &[&str]| {
        until(
            "it runs where it should",
            &acme.client,
            &PODS,
            Some("default"),
            |pods| {
                let here = pods.iter().filter(|pod| !pod.is_deleting());
                let mut nodes: Vec<&str> = here.filter_map(|pod| pod.tree()["spec"]["nodeName"].as_str()).collect();
                nodes.sort_unstable();
                (nodes == wanted).then_some(())
            },
        )
        .await;
    };
    runs_on(&["n1"]).await;

    // No node changes, only who sees it.
    let all = Patch::Merge(json!({"spec": {"nodeSelector": null}}));
    house.below.patch(&VIRTUAL_CLUSTERS, None, "acme", &all).await.unwrap();

    runs_on(&["n1", "n2"]).await;
}
