//! Which addresses a joining node gives to its Pods: claimed by creating an object that must not exist, so that two nodes that
//! join at once never get the same.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, bail};
use api::{Object, resource};
use client::{Client, DeleteOptions, ListOptions};
use network::Range;
use serde_json::json;
use world::World;

use super::house::{PODS, rfc3339};

const NAMESPACE: &str = "kube-node-lease";
const PREFIX_BITS: u8 = 24;

/// A claim without a Node is of one that is just joining, or that has been removed; after this it is the latter.
const UNUSED_AFTER: Duration = Duration::from_secs(3600);

/// The range that the node has, or the first that nobody has.
pub async fn claim(client: &Client, node: &str, world: &World) -> anyhow::Result<Range> {
    let nodes = client
        .list_all(&resource::NODES, None, &ListOptions::default())
        .await
        .context("listing the nodes")?
        .items;
    let range_of = |node: &Object| node.pointer("/spec/podCIDR")?.as_str()?.parse::<Range>().ok();
    if let Some(range) = nodes.iter().find(|known| known.name() == node).and_then(range_of) {
        return Ok(range);
    }
    // The first is the server's own.
    for number in 1..1u32 << (PREFIX_BITS - PODS.prefix) {
        let network = u32::from(PODS.network) + (number << (32 - PREFIX_BITS));
        let range = Range::new(Ipv4Addr::from(network), PREFIX_BITS);
        if nodes.iter().filter_map(range_of).any(|taken| taken == range) {
            continue;
        }
        if take(client, node, range, &nodes, world).await? {
            return Ok(range);
        }
    }
    bail!("all ranges of {PODS} are taken by other nodes")
}

async fn take(client: &Client, node: &str, range: Range, nodes: &[Object], world: &World) -> anyhow::Result<bool> {
    let name = format!("pods-{}-{}", range.network, range.prefix);
    let now = world.clock.wall();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"holderIdentity": node, "renewTime": rfc3339(now)}});
    loop {
        match client.create(&resource::LEASES, Some(NAMESPACE), &lease).await {
            Ok(_) => return Ok(true),
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error).context("claiming a range of addresses for Pods"),
        }
        let known = match client.get(&resource::LEASES, Some(NAMESPACE), &name).await {
            Ok(known) => known,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error).context("reading whose a range of addresses is"),
        };
        let holder = known.pointer("/spec/holderIdentity").and_then(|holder| holder.as_str());
        if holder == Some(node) {
            return Ok(true);
        }
        let lives = nodes.iter().any(|other| Some(other.name()) == holder);
        let claimed = known.pointer("/spec/renewTime").and_then(|time| time.as_str());
        let stale = claimed.is_some_and(|time| time < rfc3339(now - UNUSED_AFTER).as_str());
        if lives || !stale {
            return Ok(false);
        }
        let options = DeleteOptions::of_uid(known.uid());
        let deleted = client.delete(&resource::LEASES, Some(NAMESPACE), &name, &options).await;
        deleted
            .or_else(|error| {
                if error.is_not_found() || error.is_conflict() {
                    Ok(())
                } else {
                    Err(error)
                }
            })
            .context("freeing a range of addresses")?;
    }
}
