//! The built-in resources of Kubernetes 1.36, and the definition of our own.

use std::{collections::HashMap, sync::OnceLock};

use serde::Deserialize;
use serde_json::Value;

use crate::{Resource, resource::Scope};

static DATA: &[u8] = include_bytes!("../data/resources.json");

/// What is known of one resource in one version: a built-in one, or one of a custom resource definition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceInfo {
    pub resource: Resource,
    /// The group and version under which objects are stored; one kind may be served in several versions.
    pub storage: Resource,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    /// As published in discovery; empty where nothing is stored (reviews, bindings).
    pub storage_hash: String,
}

/// A subresource, such as `deployments/scale` of kind `autoscaling/v1 Scale`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Subresource {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

impl ResourceInfo {
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|has| has == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    pub fn namespaced(&self) -> bool {
        self.resource.scope == Scope::Namespaced
    }

    /// Whether objects of it are kept at all; reviews and bindings are only asked.
    pub fn is_stored(&self) -> bool {
        self.has_verb("get") && !(self.resource.group.is_empty() && self.resource.plural == "componentstatuses")
    }
}

/// A group and its versions, the preferred one first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupInfo {
    pub name: String,
    pub versions: Vec<String>,
}

impl GroupInfo {
    pub fn preferred(&self) -> &str {
        &self.versions[0]
    }
}

struct Table {
    resources: &'static [ResourceInfo],
    groups: Vec<GroupInfo>,
    by_plural: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

#[derive(Deserialize)]
struct Line {
    group: String,
    version: String,
    plural: String,
    kind: String,
    singular: String,
    namespaced: bool,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    verbs: Vec<String>,
    storage: Option<Storage>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct Storage {
    group: String,
    version: String,
    hash: String,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    static RESOURCES: OnceLock<Vec<ResourceInfo>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let resources = RESOURCES.get_or_init(|| {
            let lines: Vec<Line> = serde_json::from_slice(DATA).expect("the embedded resource table is well formed");
            lines.into_iter().map(ResourceInfo::from).collect()
        });
        let mut groups: Vec<GroupInfo> = Vec::new();
        let mut by_plural = HashMap::new();
        let mut by_kind = HashMap::new();
        for (at, info) in resources.iter().enumerate() {
            let resource = &info.resource;
            by_plural.insert((&*resource.group, &*resource.version, &*resource.plural), at);
            by_kind.insert((&*resource.group, &*resource.version, &*resource.kind), at);
            match groups.iter_mut().find(|group| group.name == resource.group) {
                Some(group) if group.versions.iter().any(|version| *version == resource.version) => {}
                Some(group) => group.versions.push(resource.version.to_string()),
                None => groups.push(GroupInfo {
                    name: resource.group.to_string(),
                    versions: vec![resource.version.to_string()],
                }),
            }
        }
        Table {
            resources,
            groups,
            by_plural,
            by_kind,
        }
    })
}

impl From<Line> for ResourceInfo {
    fn from(line: Line) -> ResourceInfo {
        let resource = Resource {
            group: line.group.into(),
            version: line.version.into(),
            plural: line.plural.into(),
            kind: line.kind.into(),
            scope: if line.namespaced {
                Scope::Namespaced
            } else {
                Scope::Cluster
            },
        };
        let mut storage = resource.clone();
        let mut storage_hash = String::new();
        if let Some(stored) = line.storage {
            storage.group = stored.group.into();
            storage.version = stored.version.into();
            storage_hash = stored.hash;
        }
        ResourceInfo {
            resource,
            storage,
            singular: line.singular,
            short_names: line.short_names,
            categories: line.categories,
            verbs: line.verbs,
            subresources: line.subresources,
            storage_hash,
        }
    }
}

/// All built-in resources, groups and versions in upstream's order.
pub fn resources() -> &'static [ResourceInfo] {
    table().resources
}

/// All built-in groups in upstream's order; the core group (an empty name) comes first.
pub fn groups() -> &'static [GroupInfo] {
    &table().groups
}

pub fn group(name: &str) -> Option<&'static GroupInfo> {
    groups().iter().find(|group| group.name == name)
}

pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static ResourceInfo> {
    let table = table();
    table
        .by_plural
        .get(&(group, version, plural))
        .map(|at| &table.resources[*at])
}

pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static ResourceInfo> {
    let table = table();
    table
        .by_kind
        .get(&(group, version, kind))
        .map(|at| &table.resources[*at])
}

/// The definition of `VirtualCluster`, which every super plane has from the start.
pub fn virtual_cluster_definition() -> Value {
    serde_json::from_slice(include_bytes!("../data/virtualclusters.json"))
        .expect("the embedded definition is well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_found_by_plural_and_by_kind() {
        let deployments = find("apps", "v1", "deployments").unwrap();

        assert_eq!(deployments.resource, crate::resource::DEPLOYMENTS);
        assert_eq!(find_kind("apps", "v1", "Deployment"), Some(deployments));
        assert_eq!(deployments.short_names, ["deploy"]);
        assert_eq!(deployments.subresource("scale").unwrap().kind, "Scale");
        assert!(deployments.has_status());
        assert!(find("apps", "v1beta1", "deployments").is_none());
    }

    #[test]
    fn what_is_served_in_two_versions_is_stored_in_one() {
        let old = find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let events = find("events.k8s.io", "v1", "events").unwrap();

        assert_eq!(old.storage.version, "v2");
        assert_eq!(events.storage, crate::resource::EVENTS);
        for info in resources().iter().filter(|info| info.is_stored()) {
            let storage = find(&info.storage.group, &info.storage.version, &info.storage.plural);
            assert_eq!(
                storage.map(|storage| &storage.storage),
                Some(&info.storage),
                "{:?}",
                info.resource
            );
        }
    }

    #[test]
    fn reviews_are_not_stored() {
        let stored = |group, plural| find(group, "v1", plural).unwrap().is_stored();

        assert!(stored("", "pods"));
        assert!(!stored("authorization.k8s.io", "subjectaccessreviews"));
        assert!(!stored("", "bindings"));
        assert!(!stored("", "componentstatuses"));
    }

    #[test]
    fn the_core_group_comes_first_and_preferred_versions_lead() {
        assert_eq!(groups()[0].name, "");
        assert_eq!(group("autoscaling").unwrap().preferred(), "v2");
        assert_eq!(resources().len(), 95);
    }
}
