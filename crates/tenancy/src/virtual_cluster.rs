//! VirtualClusters: followed once for all who look at them, and what one asks for, read from the object.

use std::collections::{BTreeMap, BTreeSet};

use api::{Object, PlaneId, resource::VIRTUAL_CLUSTERS};
use client::{Informer, InformerOptions, Sources};
use serde_json::Value;

use crate::nodes::marks::{self, Marks};

/// Names that would be taken for the platform's own: kubeconfigs call the super cluster by it.
const RESERVED: &[&str] = &["mangrove"];

/// A tenant's name begins its super namespaces, so it is a DNS label.
const NAME_MAX: usize = 63;

/// Weights are shares: a hundred to one is as unequal as two tenants can be.
const WEIGHT_MAX: u64 = 100;

/// Index of VirtualClusters by their plane.
const OF_PLANE: &str = "plane";

/// All VirtualClusters of the super plane. There may be thousands, and each is read and kept once an informer.
pub fn follow(super_sources: &Sources) -> Informer {
    let by_plane = InformerOptions::default().index(OF_PLANE, |_, cluster| {
        let plane = cluster.tree()["status"]["plane"].as_str();
        plane.map(str::to_owned).into_iter().collect()
    });
    Informer::start(super_sources, VIRTUAL_CLUSTERS, by_plane)
}

/// The VirtualCluster of a plane, out of those that are followed.
pub fn of_plane(clusters: &Informer, plane: PlaneId) -> Option<Object> {
    let found = clusters.by_index(OF_PLANE, plane.as_str());
    found.into_iter().map(|(_, cluster)| cluster).next()
}

/// What is synced for a tenant only if its VirtualCluster says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Extra {
    Ingresses,
    Definitions,
}

/// The part of a VirtualCluster that loops act on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// The nodes that the tenant sees and its Pods run on; all if empty.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the tenant's Pods tolerate, besides the nodes' own conditions.
    pub tolerations: Vec<Value>,
    pub sync: BTreeSet<Extra>,
    /// Hosts that the tenant's Ingresses may have; `*.example.org` stands for all names one label below.
    pub ingress_hosts: Vec<String>,
    /// Its Pods meet those of other tenants that want it too, instead of their own alone.
    pub open_network: bool,
    /// What the tenant itself says of nodes.
    pub marks: Marks,
}

impl Settings {
    pub fn of(cluster: &Object) -> Settings {
        let selector = cluster.tree()["spec"]["nodeSelector"].as_object();
        let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        let list = |field: &str| cluster.tree()["spec"][field].as_array().cloned().unwrap_or_default();
        let extra = |name: &Value| match name.as_str()? {
            "ingresses" => Some(Extra::Ingresses),
            "customresourcedefinitions" => Some(Extra::Definitions),
            _ => None,
        };
        Settings {
            node_selector: selector.into_iter().flatten().filter_map(label).collect(),
            tolerations: list("tolerations"),
            sync: list("sync").iter().filter_map(extra).collect(),
            ingress_hosts: list("ingressHosts")
                .iter()
                .filter_map(|host| host.as_str().map(str::to_owned))
                .collect(),
            open_network: cluster.tree()["spec"]["network"] == "Open",
            marks: marks::of(cluster),
        }
    }

    /// Whether an Ingress of the tenant may have this host. Which it may have is granted, not first come, first served.
    pub fn grants_host(&self, host: &str) -> bool {
        self.ingress_hosts
            .iter()
            .any(|granted| match granted.strip_prefix("*.") {
                Some(domain) => host
                    .split_once('.')
                    .is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
                None => granted == host,
            })
    }

    /// Whether the tenant has this node.
    pub fn selects(&self, node: &Object) -> bool {
        self.node_selector
            .iter()
            .all(|(key, value)| node.label(key) == Some(value))
    }
}

/// The tenant's share of the syncer's turns.
pub fn weight(cluster: &Object) -> u32 {
    let asked = cluster.tree()["spec"]["weight"].as_u64().unwrap_or(1);
    u32::try_from(asked.clamp(1, WEIGHT_MAX)).unwrap_or(1)
}

/// Why no tenant can have this name; `None` if one can. The definition refuses most of it already, but the super cluster
/// may be another's, with another definition.
pub fn name_refusal(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("the name {name:?} is the super cluster's own"));
    }
    let is_label = !name.is_empty()
        && name.len() <= NAME_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    (!is_label).then(|| {
        format!(
            "the name {name:?} is no DNS label: at most {NAME_MAX} lower-case letters, digits and hyphens, with a letter \
             or digit at both ends"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tenants_name_is_a_dns_label_that_is_not_the_platforms() {
        for good in ["a", "0", "acme", "a-b-1", &"n".repeat(63)] {
            assert_eq!(name_refusal(good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "a.b", "A", "ä", "a/b", "mangrove", &"n".repeat(64)] {
            assert!(name_refusal(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_network_is_closed_unless_it_is_asked_to_be_open() {
        let open = |spec| Settings::of(&Object::from_tree(json!({"spec": spec}))).open_network;

        assert!(open(json!({"network": "Open"})));
        for closed in [json!({}), json!({"network": "Isolated"}), json!({"network": true})] {
            assert!(!open(closed));
        }
    }

    #[test]
    fn all_nodes_are_selected_unless_labels_are_asked_for() {
        let node = Object::from_tree(json!({"metadata": {"name": "n", "labels": {"zone": "a", "pool": "x"}}}));
        let selects = |spec| Settings::of(&Object::from_tree(json!({"spec": spec}))).selects(&node);

        assert!(selects(json!({})));
        assert!(selects(json!({"nodeSelector": {"zone": "a"}})));
        assert!(!selects(json!({"nodeSelector": {"zone": "a", "pool": "y"}})));
        assert!(!selects(json!({"nodeSelector": {"gpu": ""}})));
    }

    #[test]
    fn a_weight_is_at_least_one_and_not_without_bounds() {
        let weight_of = |spec| weight(&Object::from_tree(json!({"spec": spec})));

        assert_eq!(weight_of(json!({})), 1);
        assert_eq!(weight_of(json!({"weight": 0})), 1);
        assert_eq!(weight_of(json!({"weight": 7})), 7);
        assert_eq!(weight_of(json!({"weight": 1_000_000})), 100);
    }

    #[test]
    fn hosts_are_granted_by_name_or_one_label_below_a_domain() {
        let settings = Settings::of(&Object::from_tree(
            json!({"spec": {"ingressHosts": ["shop.example.org", "*.acme.example"]}}),
        ));

        for granted in ["shop.example.org", "a.acme.example", "*.acme.example"] {
            assert!(settings.grants_host(granted), "{granted}");
        }
        for not in [
            "example.org",
            "x.shop.example.org",
            "acme.example",
            ".acme.example",
            "a.b.acme.example",
            "",
        ] {
            assert!(!settings.grants_host(not), "{not}");
        }
    }
}
