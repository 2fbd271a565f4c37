//! The older Endpoints of one Service: one object with all ends, cut at a thousand.

use api::Object;
use serde_json::{Map, Value, json};

use super::{
    backend::{self, Backend},
    slices::HEADLESS,
};

/// Upstream's `maxCapacity`.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

#[derive(Debug, PartialEq)]
pub enum Step {
    Create(Value),
    /// A merge patch.
    Change(Value),
    Nothing,
}

pub fn plan(service: &Object, backends: &[Backend], there: Option<&Object>) -> Step {
    let (subsets, cut) = subsets(service, backends);
    let labels = labels(service);
    let Some(there) = there else {
        let annotations = cut.then(|| json!({OVER_CAPACITY: "truncated"}));
        return Step::Create(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": service.name(), "namespace": service.namespace(), "labels": labels,
                "annotations": annotations.unwrap_or(json!({}))},
            "subsets": subsets,
        }));
    };
    let none = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let old = &there.tree()["subsets"];
    let same = *old == subsets || (none(old) && none(&subsets));
    let labelled = there.tree()["metadata"]["labels"].as_object() == Some(&labels);
    if same && labelled && there.annotation(OVER_CAPACITY).is_some() == cut {
        return Step::Nothing;
    }
    let gone = there.tree()["metadata"]["labels"].as_object().into_iter().flatten();
    let gone = gone
        .filter(|(key, _)| !labels.contains_key(*key))
        .map(|(key, _)| (key.clone(), Value::Null));
    let mut label_patch: Map<String, Value> = gone.collect();
    label_patch.extend(labels);
    Step::Change(json!({
        "metadata": {"uid": there.uid(), "resourceVersion": there.resource_version(), "labels": label_patch,
            "annotations": {OVER_CAPACITY: cut.then_some("truncated")}},
        "subsets": subsets,
    }))
}

fn labels(service: &Object) -> Map<String, Value> {
    let mut labels = service.tree()["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    labels.remove(HEADLESS);
    if backend::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    labels.insert(MANAGED_BY.to_owned(), json!("endpoint-controller"));
    labels
}

/// Addresses, each with whether it is ready.
type Ends = Vec<(bool, Value)>;

/// Ports with the same ends share a subset. Says too whether ends were cut off.
fn subsets(service: &Object, backends: &[Backend]) -> (Value, bool) {
    let Some(family) = backend::families(service).first().copied() else {
        return (json!([]), false);
    };
    // Ends of each port, in the order in which ports are named.
    let mut by_port: Vec<(Value, Ends)> = Vec::new();
    let mut addresses = 0;
    let mut cut = false;
    for backend in backends {
        // The older form can't say that an end is about to go.
        if backend.terminating && !backend::publishes_unready(service) {
            continue;
        }
        let Some(ip) = backend::address(&backend.pod, family) else {
            continue;
        };
        if addresses == ADDRESSES_MAX {
            cut = true;
            break;
        }
        addresses += 1;
        let mut address = json!({"ip": ip, "targetRef": backend.target_ref()});
        if let Some(node) = backend.node() {
            address["nodeName"] = json!(node);
        }
        if let Some(hostname) = backend.hostname(service) {
            address["hostname"] = json!(hostname);
        }
        let ready = backend.ready;
        let mut ports = backend::ports(service, &backend.pod);
        if ports.is_empty() {
            // A headless Service may have no ports at all; others need the port to be of use.
            let portless = service.tree()["spec"]["ports"].as_array().is_none_or(Vec::is_empty);
            if !portless || !backend::is_headless(service) {
                continue;
            }
            ports.push(Value::Null);
        }
        for port in ports {
            match by_port.iter_mut().find(|(known, _)| *known == port) {
                Some((_, ends)) => ends.push((ready, address.clone())),
                None => by_port.push((port, vec![(ready, address.clone())])),
            }
        }
    }
    let mut groups: Vec<(Vec<Value>, Ends)> = Vec::new();
    for (port, ends) in by_port {
        match groups.iter_mut().find(|(_, known)| *known == ends) {
            Some((ports, _)) => ports.push(port),
            None => groups.push((vec![port], ends)),
        }
    }
    let subset = |(mut ports, ends): (Vec<Value>, Ends)| {
        let (ready, unready): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(ready, _)| *ready);
        let mut subset = json!({});
        for (field, ends) in [("addresses", ready), ("notReadyAddresses", unready)] {
            if !ends.is_empty() {
                subset[field] = ends.into_iter().map(|(_, address)| address).collect();
            }
        }
        ports.retain(|port| !port.is_null());
        if !ports.is_empty() {
            // An only port may be unnamed; the field is then left out.
            let unnamed = ports
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .filter(|port| port["name"] == "");
            unnamed.for_each(|port| drop(port.remove("name")));
            subset["ports"] = Value::Array(ports);
        }
        subset
    };
    (groups.into_iter().map(subset).collect(), cut)
}

#[cfg(test)]
#[path = "legacy_tests.rs"]
mod tests;
