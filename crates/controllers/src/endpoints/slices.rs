//! EndpointSlices of one Service: which to make, change and delete, moving as few ends as possible.

use std::collections::BTreeMap;

use api::{Object, resource::SERVICES};
use serde_json::{Map, Value, json};

use super::backend::{self, Backend, Family};
use crate::ownership;

/// Upstream's `--max-endpoints-per-slice`.
const ENDPOINTS_MAX: usize = 100;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";

#[derive(Debug, PartialEq)]
pub enum Step {
    Create(Value),
    /// A merge patch.
    Change {
        slice: Object,
        patch: Value,
    },
    Delete(Object),
}

/// Ends that share their ports are in slices together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: Family,
    /// As text, for want of an order on values.
    ports: String,
}

/// `slices` are those of this Service that are ours.
pub fn plan(service: &Object, backends: &[Backend], slices: &[Object]) -> Vec<Step> {
    let mut wanted = BTreeMap::<Group, (Value, BTreeMap<String, Value>)>::new();
    for family in backend::families(service) {
        for backend in backends {
            let Some(address) = backend::address(&backend.pod, family) else {
                continue;
            };
            let ports = Value::Array(backend::ports(service, &backend.pod));
            let group = Group {
                family,
                ports: ports.to_string(),
            };
            let (_, endpoints) = wanted.entry(group).or_insert_with(|| (ports, BTreeMap::new()));
            endpoints.insert(backend.pod.uid().to_owned(), endpoint(service, backend, address));
        }
        // A Service without ends has a slice that says so.
        if !wanted.keys().any(|group| group.family == family) {
            let nothing = Group {
                family,
                ports: String::new(),
            };
            wanted.insert(nothing, (Value::Null, BTreeMap::new()));
        }
    }
    let mut existing = BTreeMap::<Group, Vec<&Object>>::new();
    let mut steps = Vec::new();
    for slice in slices.iter().filter(|slice| !slice.is_deleting()) {
        match group_of(slice).filter(|group| wanted.contains_key(group)) {
            Some(group) => existing.entry(group).or_default().push(slice),
            None => steps.push(Step::Delete(slice.clone())),
        }
    }
    for (group, (ports, endpoints)) in wanted {
        let slices = existing.remove(&group).unwrap_or_default();
        fill(service, group.family, &ports, endpoints, &slices, &mut steps);
    }
    // What is made comes before what is deleted, so that no end is missing in between.
    steps.sort_by_key(|step| matches!(step, Step::Delete(_)));
    steps
}

fn group_of(slice: &Object) -> Option<Group> {
    let family = match slice.tree()["addressType"].as_str()? {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return None,
    };
    let ports = &slice.tree()["ports"];
    let none = slice.tree()["endpoints"].as_array().is_none_or(Vec::is_empty);
    // A slice that says "none" has no ports either.
    let ports = if ports.is_null() && none {
        String::new()
    } else {
        canonical(ports).to_string()
    };
    Some(Group { family, ports })
}

/// Ports as `backend::ports` writes them, whatever the server left out or filled in.
fn canonical(ports: &Value) -> Value {
    let ports = ports.as_array().into_iter().flatten().map(|port| {
        let mut plain = json!({
            "name": port["name"].as_str().unwrap_or(""),
            "protocol": port["protocol"].as_str().unwrap_or("TCP"),
            "port": port["port"],
        });
        if let Some(application) = port["appProtocol"].as_str() {
            plain["appProtocol"] = json!(application);
        }
        plain
    });
    Value::Array(ports.collect())
}

fn endpoint(service: &Object, backend: &Backend, address: &str) -> Value {
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating},
        "targetRef": backend.target_ref(),
    });
    if let Some(node) = backend.node() {
        endpoint["nodeName"] = json!(node);
    }
    if let Some(hostname) = backend.hostname(service) {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}

/// Ends stay in the slice where they are; new ones go where there is room, into slices that change anyway first.
fn fill(
    service: &Object,
    family: Family,
    ports: &Value,
    mut wanted: BTreeMap<String, Value>,
    slices: &[&Object],
    steps: &mut Vec<Step>,
) {
    let labels = labels(service);
    let mut contents: Vec<(&Object, Vec<Value>, bool)> = Vec::new();
    for slice in slices {
        let old = slice.tree()["endpoints"].as_array().cloned().unwrap_or_default();
        let uid = |endpoint: &Value| endpoint["targetRef"]["uid"].as_str().unwrap_or("").to_owned();
        let kept: Vec<Value> = old
            .iter()
            .filter_map(|endpoint| wanted.remove(&uid(endpoint)))
            .collect();
        let changes = kept != old || !has_labels(slice, &labels);
        contents.push((slice, kept, changes));
    }
    let mut new: Vec<Value> = wanted.into_values().rev().collect();
    for changed_already in [true, false] {
        for (_, endpoints, changes) in contents
            .iter_mut()
            .filter(|(_, _, changes)| *changes == changed_already)
        {
            let room = ENDPOINTS_MAX.saturating_sub(endpoints.len());
            let taken = new.split_off(new.len().saturating_sub(room));
            *changes |= !taken.is_empty();
            endpoints.extend(taken.into_iter().rev());
        }
    }
    let mut used = 0;
    for (slice, endpoints, changes) in contents {
        let last_hope = used == 0 && new.is_empty() && ports.is_null();
        if endpoints.is_empty() && !last_hope {
            steps.push(Step::Delete(slice.clone()));
            continue;
        }
        used += 1;
        if changes {
            let patch = json!({
                "metadata": {"uid": slice.uid(), "resourceVersion": slice.resource_version(),
                    "labels": label_patch(slice, &labels)},
                "endpoints": endpoints, "ports": ports,
            });
            steps.push(Step::Change {
                slice: slice.clone(),
                patch,
            });
        }
    }
    while !new.is_empty() || used == 0 {
        let rest = new.len().saturating_sub(ENDPOINTS_MAX);
        let endpoints: Vec<Value> = new.drain(rest..).rev().collect();
        used += 1;
        steps.push(Step::Create(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{}-", service.name()), "namespace": service.namespace(), "labels": labels,
                "ownerReferences": [ownership::reference(service, &SERVICES)],
            },
            "addressType": family.address_type(), "endpoints": endpoints, "ports": ports,
        })));
    }
}

/// The Service's own labels, and ours.
fn labels(service: &Object) -> Map<String, Value> {
    let mut labels = service.tree()["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), json!(service.name()));
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    if backend::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    labels
}

fn has_labels(slice: &Object, labels: &Map<String, Value>) -> bool {
    slice.tree()["metadata"]["labels"].as_object() == Some(labels)
}

/// Labels that went are named with null.
fn label_patch(slice: &Object, labels: &Map<String, Value>) -> Map<String, Value> {
    let old = slice.tree()["metadata"]["labels"].as_object();
    let gone = old.into_iter().flatten().filter(|(key, _)| !labels.contains_key(*key));
    let mut patch: Map<String, Value> = gone.map(|(key, _)| (key.clone(), Value::Null)).collect();
    patch.extend(labels.clone());
    patch
}

#[cfg(test)]
#[path = "slices_tests.rs"]
pub(super) mod tests;
