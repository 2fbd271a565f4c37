//! The other nodes: ways to their Pods, and which of those Pods this node's may reach.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use api::{Object, resource};
use client::Backoff;
use network::Range;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::context::Context;
use super::walls::Remote;
use crate::machine::gateway;
use crate::watch::{self as following, Delta, Selection};

/// On the Node of the machine that serves the planes' door.
pub const DOOR: &str = "node.mangrove.io/door";

#[derive(Clone, PartialEq, Eq, Debug)]
struct Neighbour {
    address: Ipv4Addr,
    pods: Range,
    gateway: Ipv4Addr,
    serves_door: bool,
}

#[derive(Clone, Default)]
struct Known {
    nodes: BTreeMap<String, Neighbour>,
    /// Pods of other nodes by (namespace, name).
    pods: BTreeMap<(String, String), Remote>,
}

/// Follows Nodes, and once there is another one, its Pods; never ends. `door` is the range that leads to the machine which
/// serves it, unless that is this one.
pub async fn run(context: Arc<Context>, door: Option<Range>) {
    let (known, mut changed) = watch::channel(Known::default());
    let known = Arc::new(known);
    let _nodes = {
        let (known, own) = (Arc::clone(&known), context.node_name.clone());
        follow(&context, resource::NODES, move |delta| {
            known.send_modify(|known| learn_nodes(&mut known.nodes, delta, &own));
        })
    };
    let mut pods = None;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        let now = changed.borrow_and_update().clone();
        if pods.is_none() && !now.nodes.is_empty() {
            let (known, own) = (Arc::clone(&known), context.node_name.clone());
            pods = Some(follow(&context, resource::PODS, move |delta| {
                known.send_modify(|known| learn_pods(&mut known.pods, delta, &own));
            }));
        }
        if let Err(error) = apply(&context, &now, door).await {
            tracing::warn!(%error, "the ways to other nodes' Pods were not made");
            context.world.clock.sleep(backoff.next(&*context.world.random)).await;
            continue;
        }
        backoff.reset();
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn follow(
    context: &Context,
    resource: api::Resource,
    tell: impl FnMut(Delta) + Send + 'static,
) -> AbortOnDropHandle<()> {
    let selection = Selection {
        resource,
        namespace: None,
        fields: None,
    };
    let task = following::follow(context.client.clone(), selection, context.world.clone(), tell);
    AbortOnDropHandle::new(tokio::spawn(task))
}

async fn apply(context: &Context, known: &Known, door: Option<Range>) -> Result<(), network::Error> {
    let nodes = known.nodes.values();
    let mut routes: BTreeMap<Range, Ipv4Addr> = nodes.clone().map(|node| (node.pods, node.address)).collect();
    if let Some(door) = door {
        let server = nodes.clone().find(|node| node.serves_door);
        routes.extend(server.map(|node| (door, node.address)));
    }
    let nodes = nodes.map(|node| (node.address, node.gateway)).collect();
    context
        .walls
        .set_remote(nodes, known.pods.values().cloned().collect())
        .await?;
    network::routes::bring(&routes).await
}

fn learn_nodes(nodes: &mut BTreeMap<String, Neighbour>, delta: Delta, own: &str) {
    let other = |object: &Object| neighbour(object).filter(|_| object.name() != own);
    match delta {
        Delta::Set(object) => match other(&object) {
            Some(neighbour) => drop(nodes.insert(object.name().to_owned(), neighbour)),
            None => drop(nodes.remove(object.name())),
        },
        Delta::Gone(object) => drop(nodes.remove(object.name())),
        Delta::All(objects) => {
            let found = objects
                .iter()
                .filter_map(|object| Some((object.name().to_owned(), other(object)?)));
            *nodes = found.collect();
        }
    }
}

fn neighbour(node: &Object) -> Option<Neighbour> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
    let range = node.pointer("/spec/podCIDR")?.as_str()?;
    Some(Neighbour {
        address: internal["address"].as_str()?.parse().ok()?,
        pods: range.parse().ok()?,
        gateway: gateway(range)?,
        serves_door: node.annotation(DOOR).is_some(),
    })
}

fn learn_pods(pods: &mut BTreeMap<(String, String), Remote>, delta: Delta, own: &str) {
    let key = |object: &Object| (object.namespace().to_owned(), object.name().to_owned());
    match delta {
        Delta::Set(object) => match remote(&object, own) {
            Some(pod) => drop(pods.insert(key(&object), pod)),
            None => drop(pods.remove(&key(&object))),
        },
        Delta::Gone(object) => drop(pods.remove(&key(&object))),
        Delta::All(objects) => {
            let found = objects
                .iter()
                .filter_map(|object| Some((key(object), remote(object, own)?)));
            *pods = found.collect();
        }
    }
}

/// A Pod of another node that has an address of its own.
fn remote(pod: &Object, own: &str) -> Option<Remote> {
    let tree = pod.tree();
    let over = matches!(tree["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let node = tree["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())?;
    if over || node == own || tree["spec"]["hostNetwork"] == true {
        return None;
    }
    let IpAddr::V4(address) = tree["status"]["podIP"].as_str()?.parse().ok()? else {
        return None;
    };
    let annotations = tree["metadata"]["annotations"].as_object().into_iter().flatten();
    Some(Remote {
        address,
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, annotations: Value) -> Object {
        Object::from_tree(json!({"metadata": {"name": name, "annotations": annotations},
            "spec": {"podCIDR": "10.244.1.0/24"},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "192.0.2.2"}]}}))
    }

    #[test]
    fn other_nodes_are_known_by_address_and_range() {
        let mut nodes = BTreeMap::new();

        learn_nodes(
            &mut nodes,
            Delta::All(vec![node("n1", json!({})), node("n2", json!({DOOR: ""}))]),
            "n1",
        );
        let found = nodes["n2"].clone();
        learn_nodes(&mut nodes, Delta::Gone(node("n2", json!({}))), "n1");

        assert_eq!(found.address, Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(
            (found.pods.to_string().as_str(), found.gateway),
            ("10.244.1.0/24", Ipv4Addr::new(10, 244, 1, 1))
        );
        assert!(found.serves_door);
        assert!(nodes.is_empty(), "oneself is no neighbour");
    }

    #[test]
    fn pods_of_other_nodes_are_known_while_they_run() {
        let pod = |node: &str, phase: &str| {
            Object::from_tree(
                json!({"metadata": {"name": "p", "namespace": "n", "annotations": {"a": "b"}},
                "spec": {"nodeName": node}, "status": {"phase": phase, "podIP": "10.244.1.7"}}),
            )
        };
        let mut pods = BTreeMap::new();

        learn_pods(&mut pods, Delta::Set(pod("n2", "Running")), "n1");
        assert_eq!(pods.values().next().unwrap().annotations["a"], "b");
        learn_pods(&mut pods, Delta::Set(pod("n2", "Failed")), "n1");
        assert!(pods.is_empty());
        learn_pods(&mut pods, Delta::Set(pod("n1", "Running")), "n1");
        assert!(pods.is_empty());
    }
}
