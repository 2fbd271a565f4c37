//! The super cluster's Nodes as tenants see them (D12): those that their VirtualCluster selects, and of these what a
//! scheduler or a person needs. Nothing of them is stored: a node is translated when it is read. What a tenant says of nodes for
//! itself are its [`marks`].

pub(crate) mod marks;
mod views;

use api::{Object, PlaneId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::virtual_cluster::Settings;
pub use views::{NodeView, NodeViews, Unmarked};

/// Labels that go up: what upstream's own controllers and common manifests select by. Others are the operator's business.
const LABELS: &[&str] = &[
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
];
const LABEL_DOMAIN: &str = "topology.kubernetes.io/";

/// What of a NodeSystemInfo goes up. Its ids of machine and boot are the machine's own.
const SYSTEM_INFO: &[&str] = &[
    "architecture",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "operatingSystem",
    "osImage",
];
const WITHHELD_IDS: &[&str] = &["bootID", "machineID", "systemUUID"];

/// The space of uids of projected nodes.
const UIDS: Uuid = Uuid::from_u128(0x6d61_6e67_726f_7665_8000_6e6f_6465_7300);

/// The node as the plane sees it; `None` if it does not. Addresses, the kubelet's port, images, annotations and the
/// range of Pods' addresses stay below.
pub fn show(plane: PlaneId, settings: &Settings, node: &Object) -> Option<Object> {
    let mut shown = show_unmarked(plane, settings, node)?;
    if let Some(mark) = settings.marks.get(node.name()) {
        mark.show(&mut shown["spec"]);
    }
    Some(Object::from_tree(shown))
}

/// The node without what the tenant itself says of it.
fn show_unmarked(plane: PlaneId, settings: &Settings, node: &Object) -> Option<Value> {
    if !settings.selects(node) {
        return None;
    }
    let (source, metadata) = (node.tree(), &node.tree()["metadata"]);
    let labels: Map<String, Value> = metadata["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| LABELS.contains(&key.as_str()) || key.starts_with(LABEL_DOMAIN))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut shown = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name(),
            "uid": uid(plane, node.uid()),
            "creationTimestamp": metadata["creationTimestamp"],
            "labels": labels,
        },
        "spec": {},
        "status": {},
    });
    copy(&source["spec"], &mut shown["spec"], &["taints", "unschedulable"]);
    copy(
        &source["status"],
        &mut shown["status"],
        &["allocatable", "capacity", "conditions"],
    );
    if source["status"]["nodeInfo"].is_object() {
        let mut info = json!({});
        copy(&source["status"]["nodeInfo"], &mut info, SYSTEM_INFO);
        // Clients' types have them as required.
        for id in WITHHELD_IDS {
            info[*id] = "".into();
        }
        shown["status"]["nodeInfo"] = info;
    }
    Some(shown)
}

/// Another for each plane, so that planes can't be compared by it, and the same for as long as the node is the same.
fn uid(plane: PlaneId, node: &str) -> String {
    Uuid::new_v5(&UIDS, format!("{plane}/{node}").as_bytes()).to_string()
}

fn copy(from: &Value, to: &mut Value, fields: &[&str]) {
    for field in fields {
        if !from[*field].is_null() {
            to[*field] = from[*field].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Object {
        Object::from_tree(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "a", "operator/pool": "x"},
                "annotations": {"secret": "s"}, "finalizers": ["x/y"], "managedFields": [{"manager": "m"}]},
            "spec": {"podCIDR": "10.244.0.0/24", "providerID": "secret://1", "unschedulable": true,
                "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "3"}, "conditions": [{"type": "Ready"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}, "images": [{"names": ["secret"]}],
                "nodeInfo": {"machineID": "secret", "systemUUID": "secret", "bootID": "secret", "kernelVersion": "6.1",
                    "operatingSystem": "linux"}},
        }))
    }

    fn plane(name: &str) -> PlaneId {
        name.repeat(16).parse().unwrap()
    }

    #[test]
    fn a_node_shows_what_schedulers_need_and_nothing_that_leads_to_the_machine() {
        let shown = show(plane("a"), &Settings::default(), &node()).unwrap();

        let mut tree = shown.tree().clone();
        tree["metadata"]["uid"] = "".into();
        assert_eq!(
            tree,
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "n1", "uid": "", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "a"}},
                "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]},
                "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "3"}, "conditions": [{"type": "Ready"}],
                    "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.1",
                        "operatingSystem": "linux"}},
            })
        );
    }

    #[test]
    fn a_nodes_uid_is_stable_and_each_planes_own() {
        let uid = |name| {
            show(plane(name), &Settings::default(), &node())
                .unwrap()
                .uid()
                .to_owned()
        };

        assert_eq!(uid("a"), uid("a"));
        assert_ne!(uid("a"), uid("b"));
        assert_ne!(uid("a"), "u1");
    }

    #[test]
    fn a_node_that_is_not_selected_is_not_there() {
        let settings = Settings {
            node_selector: [("operator/pool".to_owned(), "y".to_owned())].into(),
            ..Settings::default()
        };

        assert_eq!(show(plane("a"), &settings, &node()), None);
    }
}
