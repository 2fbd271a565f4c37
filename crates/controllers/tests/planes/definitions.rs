use api::{
    Resource,
    resource::{CUSTOM_RESOURCE_DEFINITIONS, Scope},
};
use client::DeleteOptions;
use keyspace::{KeyRange, Op, Options, Previous, Txn};
use serde_json::json;

use crate::house::{House, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_whose_deletion_was_cut_off_goes_when_the_loops_start_again() {
    let mut house = House::open().await;
    let plane = house.planes[0].clone();
    let client = house.client(&plane);
    let schema = json!({"type": "object"});
    let definition = json!({"metadata": {"name": "hats.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "hats", "singular": "hat", "kind": "Hat"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let hats = Resource {
        group: "example.com".into(),
        version: "v1".into(),
        plural: "hats".into(),
        kind: "Hat".into(),
        scope: Scope::Cluster,
    };
    client
        .create(&CUSTOM_RESOURCE_DEFINITIONS, None, &definition)
        .await
        .unwrap();
    let hat =
        json!({"apiVersion": "example.com/v1", "kind": "Hat", "metadata": {"name": "top", "finalizers": ["x/y"]}});
    client.create(&hats, None, &hat).await.unwrap();
    let options = DeleteOptions::default();
    client
        .delete(&CUSTOM_RESOURCE_DEFINITIONS, None, "hats.example.com", &options)
        .await
        .unwrap();
    // As if the server had ended after its last object was gone and before the definition was.
    let objects = Op::Delete {
        keys: KeyRange::prefix("/c/"),
        previous: Previous::Omit,
    };
    let txn = Txn {
        success: vec![objects],
        ..Txn::default()
    };
    house.shared().txn(txn, Options::default()).await.unwrap();
    let definition = client.get(&CUSTOM_RESOURCE_DEFINITIONS, None, "hats.example.com").await;
    assert!(definition.unwrap().is_deleting());

    house.restart_loops().await;

    until("it is gone", || async {
        let found = client.get(&CUSTOM_RESOURCE_DEFINITIONS, None, "hats.example.com").await;
        found.is_err_and(|error| error.is_not_found()).then_some(())
    })
    .await;
}
