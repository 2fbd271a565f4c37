//! The same beside an upstream Kubernetes: the one whose administrator's kubeconfig `MANGROVE_UPSTREAM_KUBECONFIG` names, with
//! controller manager and scheduler. CI has none; the node is one that runs nothing.

use std::path::PathBuf;

use api::resource::{NODES, STORAGE_CLASSES, VIRTUAL_CLUSTERS};
use client::{Client, DeleteOptions, Patch, PlaneKey, Source, SourceId, Sources};
use serde_json::json;
use testkit::nodes::FakeNode;
use world::World;

use crate::{acme_goes_and_globex_stays, manifest, process::Process, two_tenants_live_on, until};

const NODE: &str = "mangrove-upstream";
const TENANTS: [&str; 2] = ["acme", "globex"];

async fn none_left(admin: &Client) {
    until("both tenants are gone", admin, &VIRTUAL_CLUSTERS, None, |clusters| {
        clusters.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_live_on_an_upstream_kubernetes() {
    let Some(kubeconfig) = std::env::var_os("MANGROVE_UPSTREAM_KUBECONFIG").map(PathBuf::from) else {
        println!("skipped: MANGROVE_UPSTREAM_KUBECONFIG names no upstream cluster");
        return;
    };
    let admin = Client::from_kubeconfig(&kubeconfig, None).await.unwrap();
    manifest::apply(&kubeconfig);
    let world = World::real();
    let plane = PlaneKey {
        source: SourceId::new("upstream"),
        plane: "upstreamsupercls".parse().unwrap(),
    };
    let source = Source::Plane {
        id: plane.source.clone(),
        plane: plane.plane,
        client: admin.clone(),
    };
    let sources = Sources::new(world.clone(), [source]);
    // Left by a run that was cut off.
    for (resource, name) in [(&NODES, NODE), (&STORAGE_CLASSES, "fast")] {
        let _ = admin.delete(resource, None, name, &DeleteOptions::default()).await;
    }
    let _node = FakeNode::join(&sources, &plane, NODE, &world).await.unwrap();
    let ready = Patch::Merge(json!({"spec": {"taints": null}}));
    admin.patch(&NODES, None, NODE, &ready).await.unwrap();

    for tenant in TENANTS {
        let _ = admin
            .delete(&VIRTUAL_CLUSTERS, None, tenant, &DeleteOptions::default())
            .await;
    }
    let process = Process::start(&kubeconfig).await;
    none_left(&admin).await;
    let (_, globex) = two_tenants_live_on(&admin, &process, NODE).await;
    acme_goes_and_globex_stays(&admin, &globex).await;

    admin
        .delete(&VIRTUAL_CLUSTERS, None, "globex", &DeleteOptions::default())
        .await
        .unwrap();
    none_left(&admin).await;
    process.stop().await;
    admin
        .delete(&NODES, None, NODE, &DeleteOptions::default())
        .await
        .unwrap();
}
