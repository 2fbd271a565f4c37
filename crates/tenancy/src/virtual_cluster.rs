//! What a VirtualCluster asks for, read from the object.

use std::collections::BTreeMap;

use api::Object;

/// Names that would be taken for the platform's own: kubeconfigs call the super cluster by it.
const RESERVED: &[&str] = &["mangrove"];

/// A tenant's name begins its super namespaces, so it is a DNS label.
const NAME_MAX: usize = 63;

/// The part of a VirtualCluster's spec that loops act on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// The nodes that the tenant sees and its Pods run on; all if empty.
    pub node_selector: BTreeMap<String, String>,
}

impl Settings {
    pub fn of(cluster: &Object) -> Settings {
        let selector = cluster.tree()["spec"]["nodeSelector"].as_object();
        let label = |(key, value): (&String, &serde_json::Value)| Some((key.clone(), value.as_str()?.to_owned()));
        Settings {
            node_selector: selector.into_iter().flatten().filter_map(label).collect(),
        }
    }

    /// Whether the tenant has this node.
    pub fn selects(&self, node: &Object) -> bool {
        self.node_selector
            .iter()
            .all(|(key, value)| node.label(key) == Some(value))
    }
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
    fn all_nodes_are_selected_unless_labels_are_asked_for() {
        let node = Object::from_tree(json!({"metadata": {"name": "n", "labels": {"zone": "a", "pool": "x"}}}));
        let selects = |spec| Settings::of(&Object::from_tree(json!({"spec": spec}))).selects(&node);

        assert!(selects(json!({})));
        assert!(selects(json!({"nodeSelector": {"zone": "a"}})));
        assert!(!selects(json!({"nodeSelector": {"zone": "a", "pool": "y"}})));
        assert!(!selects(json!({"nodeSelector": {"gpu": ""}})));
    }
}
