//! What tenants see of the super cluster's nodes.

use std::time::Duration;

use api::resource::{NODES, PODS, VIRTUAL_CLUSTERS};
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
