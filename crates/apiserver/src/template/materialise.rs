//! Writing the template out, for planes whose keyspace is to be exchangeable with an upstream one.

use std::net::SocketAddrV4;

use api::{Object, Status, resource};
use keyspace::{Compare, Op, Options, Revision, TXN_OPS_MAX, Txn};
use serde_json::Value;

use super::{birthright, derived_uid, entries, resources};
use crate::{
    planes::{Plane, read_key, refuse},
    registry::accepted_names,
};

/// Writes what is not there yet. Doing it again changes nothing.
pub(crate) async fn materialise(plane: &Plane) -> Result<(), Status> {
    let mut missing: Vec<Op> = Vec::new();
    for resource in resources() {
        for entry in entries(resource) {
            let key = plane.layout.key(plane.id, resource, None, entry.namespace, entry.name);
            missing.push(create_if_absent(key, entry.render(&plane.record).to_vec()));
        }
    }
    // A nested transaction counts as one operation, and what it holds as well.
    for ops in missing.chunks(TXN_OPS_MAX / 2) {
        let txn = Txn {
            success: ops.to_vec(),
            ..Txn::default()
        };
        plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
    }
    Ok(())
}

/// Makes the super plane's own definition what this binary has it to be. It is ours: an older binary's goes, and so
/// does what anybody changed in its `spec`.
pub(crate) async fn own_definition(plane: &Plane) -> Result<(), Status> {
    let definitions = &resource::CUSTOM_RESOURCE_DEFINITIONS;
    let wanted = api::table::virtual_cluster_definition();
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let key = plane.layout.key(plane.id, definitions, None, None, &name);
    let (_, found) = read_key(&*plane.keyspace, key.clone()).await?;
    let guard = found.as_ref().map_or(Revision(0), |found| found.mod_revision);
    let before = found.map(|found| Object::from_stored(found.value));
    let mut tree = match &before {
        Some(before) => before.tree().clone(),
        None => {
            let mut tree = wanted.clone();
            tree["metadata"]["uid"] = derived_uid(&plane.record, definitions, "", &name).into();
            tree["metadata"]["creationTimestamp"] = plane.record.created.clone().into();
            tree
        }
    };
    tree["spec"] = wanted["spec"].clone();
    api::default::apply(definitions, &mut tree);
    let changed = before
        .as_ref()
        .is_none_or(|before| before.tree()["spec"] != tree["spec"]);
    if changed {
        let generation = tree["metadata"]["generation"].as_i64().unwrap_or(0);
        tree["metadata"]["generation"] = (generation + 1).into();
    }
    accepted_names::accept(&mut tree, &accepted_names::Taken::default(), &plane.record.created);
    let after = Object::from_tree(tree);
    if before.as_ref() != Some(&after) {
        let txn = Txn {
            compares: vec![Compare::unchanged(key.clone(), guard)],
            success: vec![Op::put(key, after.bytes().clone())],
            failure: Vec::new(),
        };
        // Refused if another server did it at the same time: then it is done.
        plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
    }
    Ok(())
}

fn create_if_absent(key: String, value: Vec<u8>) -> Op {
    Op::Txn(Box::new(Txn {
        compares: vec![Compare::unchanged(key.clone(), Revision(0))],
        success: vec![Op::put(key, value)],
        failure: Vec::new(),
    }))
}

/// Makes `address` the endpoint of the plane's `kubernetes` Service, if it is not so already.
pub(crate) async fn advertise(plane: &Plane, address: SocketAddrV4) -> Result<(), Status> {
    let ip = address.ip().to_string();
    let (endpoints, ports) = birthright::slice_parts(&ip, address.port());
    let changes = [
        (
            &resource::ENDPOINTS,
            vec![("subsets", birthright::subsets(&ip, address.port()))],
        ),
        (
            &resource::ENDPOINT_SLICES,
            vec![("endpoints", endpoints), ("ports", ports)],
        ),
        (&resource::SERVICES, vec![("spec", Value::Null)]),
    ];
    for (resource, fields) in changes {
        let key = plane
            .layout
            .key(plane.id, resource, None, Some("default"), "kubernetes");
        let (_, Some(found)) = read_key(&*plane.keyspace, key.clone()).await? else {
            continue;
        };
        let before = Object::from_stored(found.value);
        let mut tree = before.tree().clone();
        for (field, value) in fields {
            if field == "spec" {
                // The port Pods dial stays 443; where it leads is the advertised one.
                if let Some(port) = tree.pointer_mut("/spec/ports/0") {
                    port["targetPort"] = address.port().into();
                }
            } else {
                tree[field] = value;
            }
        }
        let after = Object::from_tree(tree);
        if after != before {
            let txn = Txn {
                compares: vec![Compare::unchanged(key.clone(), found.mod_revision)],
                success: vec![Op::put(key, after.bytes().clone())],
                failure: Vec::new(),
            };
            plane.keyspace.txn(txn, Options::default()).await.map_err(refuse)?;
        }
    }
    Ok(())
}
