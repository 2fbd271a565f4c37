//! The downward API: fields of the Pod itself, for variables and for volume files.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::resources::{self, NodeCapacity};
use crate::pod::references::containers;

/// What a Pod may ask about the node and about itself that its spec does not say.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub host_ip: IpAddr,
    pub pod_ips: Vec<IpAddr>,
    pub capacity: NodeCapacity,
}

#[cfg(test)]
impl NodeFacts {
    pub fn for_tests() -> NodeFacts {
        NodeFacts {
            host_ip: [192, 0, 2, 1].into(),
            pod_ips: vec![[10, 244, 0, 5].into()],
            capacity: NodeCapacity {
                cpu_milli: 4000,
                memory_bytes: 8 << 30,
                ephemeral_storage_bytes: 100 << 30,
            },
        }
    }
}

/// A `fieldPath`; `None` if there is no such field.
pub fn of(pod: &Pod, path: &str, facts: &NodeFacts) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path
        .split_once("['")
        .and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)))
    {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return None,
        };
        return Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => quoted_lines(metadata.labels.iter().flatten()),
        "metadata.annotations" => quoted_lines(metadata.annotations.iter().flatten()),
        "spec.nodeName" => spec?.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec?.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" => facts.pod_ips.first().map(IpAddr::to_string).unwrap_or_default(),
        "status.podIPs" => {
            let all: Vec<String> = facts.pod_ips.iter().map(IpAddr::to_string).collect();
            all.join(",")
        }
        _ => return None,
    })
}

/// `key="value"` a line, sorted, quoted as Go's `%q` does.
fn quoted_lines<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = map.map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for c in text.chars() {
        match c {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => result.push_str(&format!("\\x{:02x}", c as u32)),
            c => result.push(c),
        }
    }
    result.push('"');
    result
}

/// A `resourceFieldRef`; `container` is the one that asks, unless the reference names another.
pub fn resource(
    pod: &Pod,
    container: Option<&Container>,
    source: &ResourceFieldSelector,
    facts: &NodeFacts,
) -> Option<String> {
    let container = match source.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => containers(pod).find(|container| container.name == name)?,
        None => container?,
    };
    let divisor = source.divisor.as_ref().map(|quantity| quantity.0.as_str());
    Some(resources::field(container, &source.resource, divisor, facts.capacity)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_read_as_upstream_writes_them() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web", "uid": "u-1",
                "labels": {"b": "2", "a": "x\"y\n"}, "annotations": {"note/k": "v"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "robot", "containers": []},
        }))
        .unwrap();
        let facts = NodeFacts::for_tests();
        for (path, expected) in [
            ("metadata.name", Some("p")),
            ("metadata.labels", Some("a=\"x\\\"y\\n\"\nb=\"2\"")),
            ("metadata.labels['b']", Some("2")),
            ("metadata.labels['none']", Some("")),
            ("metadata.annotations['note/k']", Some("v")),
            ("spec.serviceAccountName", Some("robot")),
            ("status.hostIP", Some("192.0.2.1")),
            ("status.podIPs", Some("10.244.0.5")),
            ("metadata.finalizers", None),
            ("spec.labels['b']", None),
        ] {
            assert_eq!(of(&pod, path, &facts).as_deref(), expected, "{path}");
        }
    }
}
