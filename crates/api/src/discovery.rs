//! Discovery documents, in the old form (a document a group version) and the aggregated one.
//!
//! Everything is computed from [`table`] and the caller's custom resources, so a plane's documents follow its
//! definitions at once.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Map, Value, json};

use crate::table::{self, GroupInfo, ResourceInfo};

/// What one plane serves.
#[derive(Clone, Copy)]
pub struct Served<'a> {
    /// Which built-in groups are served; the core group is the empty name.
    pub group: &'a dyn Fn(&str) -> bool,
    /// Resources of established custom resource definitions, in every served version.
    pub custom: &'a [&'a ResourceInfo],
}

impl Served<'static> {
    /// All built-in groups and nothing else.
    pub const BUILT_IN: Served<'static> = Served {
        group: &|_| true,
        custom: &[],
    };
}

impl Served<'_> {
    /// All groups but the core one: built-in ones first, then those of definitions by name. A group's versions
    /// are in the order of preference.
    pub fn groups(&self) -> Vec<GroupInfo> {
        let mut groups: Vec<GroupInfo> = table::groups()
            .iter()
            .filter(|group| !group.name.is_empty() && (self.group)(&group.name))
            .cloned()
            .collect();
        let mut custom: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for info in self.custom {
            let versions = custom.entry(&info.resource.group).or_default();
            if !versions.iter().any(|version| *version == info.resource.version) {
                versions.push(info.resource.version.to_string());
            }
        }
        for (name, mut versions) in custom {
            versions.sort_by_cached_key(|version| Reverse(VersionOrder::of(version)));
            match groups.iter_mut().find(|group| group.name == name) {
                Some(group) => {
                    versions.retain(|version| !group.versions.contains(version));
                    group.versions.extend(versions);
                }
                None => groups.push(GroupInfo {
                    name: name.to_owned(),
                    versions,
                }),
            }
        }
        groups
    }

    /// The resources of one group version, by name.
    pub fn resources(&self, group: &str, version: &str) -> Vec<&ResourceInfo> {
        let built_in = table::resources().iter().filter(|_| (self.group)(group));
        let custom = self.custom.iter().copied();
        let mut resources: Vec<&ResourceInfo> = built_in
            .chain(custom)
            .filter(|info| info.resource.group == group && info.resource.version == version)
            .collect();
        resources.sort_by(|one, other| one.resource.plural.cmp(&other.resource.plural));
        resources
    }
}

/// Upstream's order of versions: `v2` > `v1` > `v1beta2` > `v1alpha1` > anything else (by name, backwards).
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionOrder {
    stability: u8,
    major: u64,
    minor: u64,
    other: Reverse<String>,
}

impl VersionOrder {
    pub fn of(version: &str) -> VersionOrder {
        let other = || VersionOrder {
            stability: 0,
            major: 0,
            minor: 0,
            other: Reverse(version.to_owned()),
        };
        let parse = || {
            let rest = version.strip_prefix('v')?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (major, rest) = rest.split_at(end);
            let major: u64 = major.parse().ok()?;
            let (stability, minor) = if rest.is_empty() {
                (3, 0)
            } else if let Some(minor) = rest.strip_prefix("beta") {
                (2, minor.parse().ok()?)
            } else {
                (1, rest.strip_prefix("alpha")?.parse().ok()?)
            };
            Some(VersionOrder {
                stability,
                major,
                minor,
                other: Reverse(String::new()),
            })
        };
        parse().unwrap_or_else(other)
    }
}

/// `/api`.
pub fn legacy_api(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`.
pub fn legacy_apis(served: &Served) -> Value {
    let groups: Vec<Value> = served.groups().iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`; `None` if it is not served.
pub fn group(served: &Served, name: &str) -> Option<Value> {
    let group = served.groups().into_iter().find(|group| group.name == name)?;
    let mut document = group_entry(&group);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Some(document)
}

fn group_entry(group: &GroupInfo) -> Value {
    let entry = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|version| entry(version)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": entry(group.preferred())})
}

/// `/api/v1` (an empty group) or `/apis/<group>/<version>`; `None` if it is not served.
pub fn group_version(served: &Served, group: &str, version: &str) -> Option<Value> {
    let infos = served.resources(group, version);
    if infos.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for info in infos {
        resources.push(resource_entry(info));
        let mut subresources: Vec<_> = info.subresources.iter().collect();
        subresources.sort_by(|one, other| one.name.cmp(&other.name));
        for sub in subresources {
            let mut entry = json!({
                "name": format!("{}/{}", info.resource.plural, sub.name),
                "singularName": "",
                "namespaced": info.namespaced(),
                "kind": sub.kind,
                "verbs": sub.verbs,
            });
            if (sub.group.as_str(), sub.version.as_str()) != (group, version) {
                entry["group"] = json!(sub.group);
                entry["version"] = json!(sub.version);
            }
            resources.push(entry);
        }
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        "resources": resources,
    });
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    Some(list)
}

fn resource_entry(info: &ResourceInfo) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), json!(info.resource.plural));
    entry.insert("singularName".into(), json!(info.singular));
    entry.insert("namespaced".into(), json!(info.namespaced()));
    entry.insert("kind".into(), json!(info.resource.kind));
    entry.insert("verbs".into(), json!(info.verbs));
    if !info.short_names.is_empty() {
        entry.insert("shortNames".into(), json!(info.short_names));
    }
    if !info.categories.is_empty() {
        entry.insert("categories".into(), json!(info.categories));
    }
    if !info.storage_hash.is_empty() {
        entry.insert("storageVersionHash".into(), json!(info.storage_hash));
    }
    Value::Object(entry)
}

/// The version of the aggregated form that the client asked for; the two differ in name only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    pub fn version(self) -> &'static str {
        match self {
            Aggregated::V2 => "v2",
            Aggregated::V2Beta1 => "v2beta1",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Aggregated::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Aggregated::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// `/api` in the aggregated form.
pub fn aggregated_api(served: &Served, form: Aggregated) -> Value {
    let core = GroupInfo {
        name: String::new(),
        versions: vec!["v1".to_owned()],
    };
    aggregated(served, form, &[core])
}

/// `/apis` in the aggregated form.
pub fn aggregated_apis(served: &Served, form: Aggregated) -> Value {
    aggregated(served, form, &served.groups())
}

fn aggregated(served: &Served, form: Aggregated, groups: &[GroupInfo]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = served
                        .resources(&group.name, version)
                        .into_iter()
                        .map(aggregated_entry)
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.name.is_empty() {
                metadata["name"] = json!(group.name);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.version()),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_entry(info: &ResourceInfo) -> Value {
    let resource = &info.resource;
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": if info.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular,
        "verbs": info.verbs,
    });
    if !info.short_names.is_empty() {
        entry["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        entry["categories"] = json!(info.categories);
    }
    if !info.subresources.is_empty() {
        let mut subresources: Vec<_> = info.subresources.iter().collect();
        subresources.sort_by(|one, other| one.name.cmp(&other.name));
        let subresources: Vec<Value> = subresources
            .into_iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name,
                    "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                    "verbs": sub.verbs,
                })
            })
            .collect();
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut versions = [
            "v1beta1",
            "foo10",
            "v2",
            "v1alpha2",
            "v10",
            "v1",
            "v11beta2",
            "foo1",
            "v12alpha1",
        ];

        versions.sort_by_cached_key(|version| Reverse(VersionOrder::of(version)));

        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v1beta1",
                "v12alpha1",
                "v1alpha2",
                "foo1",
                "foo10"
            ]
        );
    }

    #[test]
    fn a_group_that_is_not_served_is_nowhere() {
        let served = Served {
            group: &|group| group != "apps",
            custom: &[],
        };

        assert!(group(&served, "apps").is_none());
        assert!(group_version(&served, "apps", "v1").is_none());
        assert!(group(&served, "batch").is_some());
        let names: Vec<String> = served.groups().into_iter().map(|group| group.name).collect();
        assert!(!names.contains(&"apps".to_owned()));
    }

    #[test]
    fn custom_resources_come_after_the_built_in_ones() {
        let mut one = table::find("apps", "v1", "deployments").unwrap().clone();
        one.resource.group = "example.com".into();
        let mut two = one.clone();
        two.resource.version = "v2".into();
        let custom = [&one, &two];
        let served = Served {
            group: &|_| true,
            custom: &custom,
        };

        let group = group(&served, "example.com").unwrap();

        assert_eq!(group["preferredVersion"]["version"], "v2");
        assert_eq!(served.groups().last().unwrap().name, "example.com");
        assert_eq!(
            aggregated_apis(&served, Aggregated::V2)["items"]
                .as_array()
                .unwrap()
                .len(),
            table::groups().len()
        );
    }

    #[test]
    fn an_aggregated_core_document_has_no_group_name() {
        let document = aggregated_api(&Served::BUILT_IN, Aggregated::V2Beta1);

        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        assert!(document["items"][0]["metadata"].get("name").is_none());
        let pods = document["items"][0]["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|resource| resource["resource"] == "pods")
            .unwrap();
        assert_eq!(pods["scope"], "Namespaced");
    }
}
