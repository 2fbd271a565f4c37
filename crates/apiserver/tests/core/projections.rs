//! Resources that tenants' planes see and do not keep.

use std::sync::Arc;

use api::{Object, Status, resource};
use apiserver::{Lens, Plane, Projection};
use futures::{FutureExt, future::BoxFuture};
use http::Method;
use keyspace::Revision;
use serde_json::{Value, json};

use crate::harness::{Api, House};

const NODES: &str = "/api/v1/nodes";

/// A tenant sees nodes that carry its name as label, without their annotations.
struct ByName;

struct Named(String);

impl Projection for ByName {
    fn lens<'a>(&'a self, plane: &'a Plane) -> BoxFuture<'a, Result<Arc<dyn Lens>, Status>> {
        let lens: Arc<dyn Lens> = Arc::new(Named(plane.record.name.clone()));
        async { Ok(lens) }.boxed()
    }
}

impl Lens for Named {
    fn show(&self, node: &Object) -> Option<Object> {
        node.label(&self.0)?;
        let mut tree = node.tree().clone();
        tree["metadata"].as_object_mut()?.remove("annotations");
        Some(Object::from_tree(tree))
    }

    fn since(&self) -> Revision {
        Revision(0)
    }

    fn replaced(&self) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }
}

async fn make_node(root: &Api, name: &str, labels: Value) {
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"secret": "s"}}});
    root.made(NODES, &node).await;
}

async fn house() -> (House, Api, Api) {
    let house = House::new();
    house.server.registry().project(&resource::NODES, Arc::new(ByName));
    let (root, acme) = (house.root(), house.tenant("acme").await);
    make_node(&root, "n1", json!({"acme": ""})).await;
    make_node(&root, "n2", json!({})).await;
    make_node(&root, "n3", json!({"acme": "", "globex": ""})).await;
    (house, root, acme)
}

#[tokio::test]
async fn a_plane_sees_its_part_of_the_super_planes_objects_in_every_form() {
    let (house, root, acme) = house().await;
    let globex = house.tenant("globex").await;

    assert_eq!(acme.names(NODES).await, ["n1", "n3"]);
    assert_eq!(globex.names(NODES).await, ["n3"]);
    assert_eq!(root.names(NODES).await, ["n1", "n2", "n3"]);
    assert_eq!(
        acme.names("/api/v1/nodes?fieldSelector=metadata.name%3Dn3").await,
        ["n3"]
    );
    assert_eq!(acme.names("/api/v1/nodes?labelSelector=globex").await, ["n3"]);

    let (status, node) = acme.get("/api/v1/nodes/n1").await;
    assert_eq!((status.as_u16(), node["metadata"]["name"].as_str()), (200, Some("n1")));
    assert!(node["metadata"].get("annotations").is_none());
    let (_, above) = root.get("/api/v1/nodes/n1").await;
    assert_eq!(
        node["metadata"]["resourceVersion"],
        above["metadata"]["resourceVersion"]
    );
    let (status, hidden) = acme.get("/api/v1/nodes/n2").await;
    let (_, absent) = acme.get("/api/v1/nodes/n9").await;
    assert_eq!(status, 404);
    assert_eq!(
        hidden["message"].as_str().unwrap().replace("n2", "n9"),
        absent["message"].as_str().unwrap()
    );
}

#[tokio::test]
async fn a_list_in_parts_tells_nothing_of_what_is_hidden() {
    let (_house, _, acme) = house().await;

    let (_, first) = acme.get("/api/v1/nodes?limit=1").await;
    assert_eq!(first["items"][0]["metadata"]["name"], "n1");
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = acme.get(&format!("/api/v1/nodes?limit=1&continue={token}")).await;

    assert_eq!(second["items"][0]["metadata"]["name"], "n3");
    assert!(second["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_watch_goes_on_from_a_list() {
    let (_house, root, acme) = house().await;
    let (_, list) = acme.get(NODES).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = acme
        .watch(&format!("/api/v1/nodes?watch=1&resourceVersion={revision}"))
        .await;

    make_node(&root, "n4", json!({})).await;
    root.merge(
        "/api/v1/nodes/n1",
        &json!({"metadata": {"annotations": {"secret": "t"}}}),
    )
    .await;
    root.merge("/api/v1/nodes/n2", &json!({"metadata": {"labels": {"acme": ""}}}))
        .await;
    root.merge("/api/v1/nodes/n2", &json!({"spec": {"unschedulable": true}}))
        .await;
    root.merge("/api/v1/nodes/n2", &json!({"metadata": {"labels": {"acme": null}}}))
        .await;
    root.delete("/api/v1/nodes/n3").await;

    // What is hidden, or hardly different, is not told.
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(watch.short().await);
    }
    assert_eq!(told, ["ADDED n2", "MODIFIED n2", "DELETED n2", "DELETED n3"]);
}

#[tokio::test]
async fn what_a_plane_only_sees_it_can_neither_write_nor_reach() {
    let (_house, root, acme) = house().await;
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});

    for (status, refusal) in [
        acme.post(NODES, &node("n9")).await,
        acme.put("/api/v1/nodes/n1", &node("n1")).await,
        acme.merge("/api/v1/nodes/n1", &json!({"spec": {"unschedulable": true}}))
            .await,
        acme.merge("/api/v1/nodes/n1/status", &json!({"status": {}})).await,
        acme.delete("/api/v1/nodes/n1").await,
        acme.delete(NODES).await,
    ] {
        assert_eq!(status, 405, "{refusal}");
        let message = refusal["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("the cluster underneath and can't be changed here"),
            "{refusal}"
        );
    }
    for path in ["/api/v1/nodes/n1/proxy", "/api/v1/nodes/n1/proxy/pods"] {
        for method in [Method::GET, Method::POST] {
            let (status, refusal) = acme.send(method, path, "application/json", String::new()).await;
            assert_eq!((status.as_u16(), refusal["reason"].as_str()), (403, Some("Forbidden")));
        }
    }
    assert_eq!(root.names(NODES).await, ["n1", "n2", "n3"]);
}
