//! A Pod as the end of a Service: its addresses, ports and state.

use api::Object;
use serde_json::{Value, json};

use crate::pods;

/// Ends that there are, with what a slice and the older Endpoints say of them.
#[derive(Clone, Debug)]
pub struct Backend {
    pub pod: Object,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn address_type(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// The Pods that stand behind a Service: those with an address that have not ended.
pub fn backends(service: &Object, pods: impl IntoIterator<Item = Object>) -> Vec<Backend> {
    let publish_unready = publishes_unready(service);
    let alive = pods
        .into_iter()
        .filter(|pod| !matches!(pods::phase(pod), "Succeeded" | "Failed") && !addresses(pod).is_empty());
    let backend = |pod: Object| {
        let (serving, terminating) = (pods::is_ready(&pod), pod.is_deleting());
        Backend {
            ready: publish_unready || (serving && !terminating),
            serving,
            terminating,
            pod,
        }
    };
    let mut backends: Vec<Backend> = alive.map(backend).collect();
    backends.sort_by(|one, other| one.pod.name().cmp(other.pod.name()));
    backends
}

pub fn publishes_unready(service: &Object) -> bool {
    service.tree()["spec"]["publishNotReadyAddresses"] == true
}

pub fn is_headless(service: &Object) -> bool {
    service.tree()["spec"]["clusterIP"] == "None"
}

/// Address families of a Service, the first one being what Endpoints show.
pub fn families(service: &Object) -> Vec<Family> {
    let named = service.tree()["spec"]["ipFamilies"].as_array();
    let families: Vec<Family> = named
        .into_iter()
        .flatten()
        .map(|family| if family == "IPv6" { Family::V6 } else { Family::V4 })
        .collect();
    if families.is_empty() {
        vec![Family::V4]
    } else {
        families
    }
}

fn addresses(pod: &Object) -> Vec<&str> {
    let status = &pod.tree()["status"];
    let all = status["podIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["ip"].as_str());
    let mut addresses: Vec<&str> = all.filter(|address| !address.is_empty()).collect();
    if addresses.is_empty() {
        addresses.extend(status["podIP"].as_str().filter(|address| !address.is_empty()));
    }
    addresses
}

pub fn address(pod: &Object, family: Family) -> Option<&str> {
    let of_family = |address: &&str| address.contains(':') == (family == Family::V6);
    addresses(pod).into_iter().find(of_family)
}

/// The Service's ports as this Pod has them; a named port that it does not have is left out.
pub fn ports(service: &Object, pod: &Object) -> Vec<Value> {
    let ports = service.tree()["spec"]["ports"].as_array();
    let resolved = ports.into_iter().flatten().filter_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = target(&port["targetPort"], port["port"].as_i64()?, protocol, pod)?;
        let mut resolved = json!({"name": port["name"].as_str().unwrap_or(""), "protocol": protocol, "port": number});
        if let Some(application) = port["appProtocol"].as_str() {
            resolved["appProtocol"] = json!(application);
        }
        Some(resolved)
    });
    resolved.collect()
}

fn target(target: &Value, port: i64, protocol: &str, pod: &Object) -> Option<i64> {
    match target {
        Value::Number(number) => number.as_i64().map(|number| if number == 0 { port } else { number }),
        Value::String(name) if !name.is_empty() => named(name, protocol, pod),
        _ => Some(port),
    }
}

/// A container's port by name; sidecars have ports too.
fn named(name: &str, protocol: &str, pod: &Object) -> Option<i64> {
    let spec = &pod.tree()["spec"];
    let containers = spec["containers"].as_array().into_iter().flatten();
    let initial = spec["initContainers"].as_array().into_iter().flatten();
    let sidecars = initial.filter(|container| container["restartPolicy"] == "Always");
    let mut ports = containers
        .chain(sidecars)
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    let port = ports.find(|port| port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol)?;
    port["containerPort"].as_i64()
}

impl Backend {
    pub fn target_ref(&self) -> Value {
        json!({"kind": "Pod", "namespace": self.pod.namespace(), "name": self.pod.name(), "uid": self.pod.uid()})
    }

    pub fn node(&self) -> Option<&str> {
        self.pod.tree()["spec"]["nodeName"]
            .as_str()
            .filter(|node| !node.is_empty())
    }

    /// By which the Pod is found under the Service's name.
    pub fn hostname(&self, service: &Object) -> Option<&str> {
        let spec = &self.pod.tree()["spec"];
        let under_service = spec["subdomain"] == service.name();
        spec["hostname"]
            .as_str()
            .filter(|hostname| under_service && !hostname.is_empty())
    }
}
