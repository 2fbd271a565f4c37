//! What an object counts for, by kind.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    Resource,
    amounts::{Amounts, Bound, amounts, is_of_pods, of_pod},
    quantity::Quantity,
};

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Kinds that are counted under a name of their own besides `count/...`.
const ALIASES: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// Whether quotas count objects of that kind at all. Events never were.
pub fn is_counted_kind(resource: &Resource) -> bool {
    &*resource.plural != "events"
}

/// Kinds of which an update may change what an object counts for; others count by being there.
pub fn changes_with_updates(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(&*resource.plural, "pods" | "services" | "persistentvolumeclaims")
}

/// `count/deployments.apps`.
fn counted_as(group: &str, plural: &str) -> String {
    if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    }
}

/// Everything that the object counts for.
pub fn usage(resource: &Resource, object: &Value) -> Amounts {
    let one = Quantity::from_integer(1);
    let mut found = Amounts::new();
    found.insert(counted_as(&resource.group, &resource.plural), one);
    if !resource.group.is_empty() {
        return found;
    }
    match &*resource.plural {
        "pods" if !has_ended(object) => {
            let requests = of_pod(&object["spec"], Bound::Requests);
            let limits = of_pod(&object["spec"], Bound::Limits);
            found.extend(compute(&requests, &limits));
        }
        "services" => found.extend(of_service(object)),
        "persistentvolumeclaims" => found.extend(of_claim(object)),
        plural if ALIASES.contains(&plural) => {
            found.insert(plural.to_owned(), one);
        }
        _ => {}
    }
    found
}

/// Its containers will not run again, so that it holds nothing of a node. (Upstream also lets go of Pods whose time to
/// end has passed; that is a matter of the clock, and not of the object.)
fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
}

fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut found = Amounts::new();
    found.insert("pods".to_owned(), Quantity::from_integer(1));
    for (name, amount) in requests {
        let huge = name.starts_with("hugepages-");
        let native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if native || huge {
            found.insert(name.clone(), *amount);
        }
        if native || huge || is_extended(name) {
            found.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            found.insert(format!("limits.{name}"), *amount);
        }
    }
    found
}

/// A resource that a device plug-in brings.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn of_service(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let explicit = || ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0);
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (explicit().count(), 1),
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let whole = |count: usize| Quantity::from_integer(i64::try_from(count).unwrap_or(i64::MAX));
    Amounts::from([
        ("services".to_owned(), whole(1)),
        ("services.nodeports".to_owned(), whole(node_ports)),
        ("services.loadbalancers".to_owned(), whole(balancers)),
    ])
}

fn of_claim(claim: &Value) -> Amounts {
    let one = Quantity::from_integer(1);
    let annotated = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotated.or(claim["spec"]["storageClassName"].as_str()).unwrap_or("");
    let mut found = Amounts::from([("persistentvolumeclaims".to_owned(), one)]);
    let asked = amounts(&claim["spec"]["resources"]["requests"]).remove("storage");
    // While a volume grows it may already be larger than what is asked for.
    let allocated = amounts(&claim["status"]["allocatedResources"]).remove("storage");
    let storage = asked.map(|asked| asked.max(allocated.unwrap_or(asked)));
    if let Some(storage) = storage {
        found.insert("requests.storage".to_owned(), storage);
    }
    if !class.is_empty() {
        found.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), one);
        if let Some(storage) = storage {
            found.insert(format!("{class}{OF_CLASS}requests.storage"), storage);
        }
    }
    found
}

/// The kinds that have to be counted for those names: (group, plural).
pub fn resources_of<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<(String, String)> {
    let core = |plural: &str| (String::new(), plural.to_owned());
    names
        .map(|name| {
            if let Some(counted) = name.strip_prefix("count/") {
                let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
                return (group.to_owned(), plural.to_owned());
            }
            match name.as_str() {
                "persistentvolumeclaims" | "requests.storage" => core("persistentvolumeclaims"),
                name if name.contains(OF_CLASS) => core("persistentvolumeclaims"),
                "services" | "services.nodeports" | "services.loadbalancers" => core("services"),
                name if ALIASES.contains(&name) => core(name),
                _ => core("pods"),
            }
        })
        .collect()
}

/// `limits.cpu for: a,b; requests.memory for: a`: what every container has to say where a quota bounds it.
pub(super) fn missing(quota: &Value, hard: &Amounts, resource: &Resource, pod: &Value) -> Option<String> {
    let spec = &pod["spec"];
    let whole = ["requests", "limits"]
        .into_iter()
        .any(|bound| amounts(&spec["resources"][bound]).keys().any(|name| is_of_pods(name)));
    if !resource.group.is_empty() || resource.plural != "pods" || whole || !super::matches_scopes(quota, resource, pod)
    {
        return None;
    }
    const NEEDED: [&str; 6] = [
        "cpu",
        "limits.cpu",
        "limits.memory",
        "memory",
        "requests.cpu",
        "requests.memory",
    ];
    let mut parts = Vec::new();
    for needed in NEEDED.into_iter().filter(|name| hard.contains_key(*name)) {
        let containers = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| spec[list].as_array().into_iter().flatten());
        let without: BTreeSet<&str> = containers
            .filter(|container| {
                let resources = &container["resources"];
                !compute(&amounts(&resources["requests"]), &amounts(&resources["limits"])).contains_key(needed)
            })
            .filter_map(|container| container["name"].as_str())
            .collect();
        if !without.is_empty() {
            let names: Vec<&str> = without.into_iter().collect();
            parts.push(format!("{needed} for: {}", names.join(",")));
        }
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}
