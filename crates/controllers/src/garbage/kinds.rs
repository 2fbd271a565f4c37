//! The kinds that are watched for owners and dependents, and how others are found.

use std::collections::HashMap;

use api::{
    Resource,
    resource::{CUSTOM_OBJECTS, Scope},
    table,
};
use client::{Client, Discovered, Error, Informer, InformerOptions, Sources};

use crate::{informers::Informers, ownership};

/// Built-in kinds that own or are owned in practice. Others are looked up when an owner is one of them.
const WATCHED: [(&str, &str); 10] = [
    ("", "configmaps"),
    ("", "secrets"),
    ("coordination.k8s.io", "leases"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "networkpolicies"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
];

pub struct Kinds {
    /// The last is of all custom objects of planes that share a keyspace, by their uids.
    pub informers: Vec<Informer>,
    /// By group and kind; versions of one kind are one.
    by_kind: HashMap<(String, String), usize>,
}

impl Kinds {
    pub fn start(sources: &Sources, shared: &Informers) -> Kinds {
        let mut informers: Vec<Informer> = shared.all().into_iter().cloned().collect();
        let wanted = table::resources().iter().filter(|info| {
            let resource = &info.resource;
            WATCHED.contains(&(&*resource.group, &*resource.plural)) && info.storage == *resource
        });
        for info in wanted {
            let options = InformerOptions {
                metadata_only: true,
                ..InformerOptions::default()
            };
            informers.push(Informer::start(
                sources,
                info.resource.clone(),
                ownership::owners(options),
            ));
        }
        let by_kind = informers.iter().enumerate().map(|(at, informer)| {
            let resource = informer.resource();
            ((resource.group.to_string(), resource.kind.to_string()), at)
        });
        let by_kind = by_kind.collect();
        let options = InformerOptions {
            metadata_only: true,
            by_uid: true,
            behind_the_door: true,
            ..InformerOptions::default()
        };
        informers.push(Informer::start(sources, CUSTOM_OBJECTS, ownership::owners(options)));
        Kinds { by_kind, informers }
    }

    pub fn customs(&self) -> usize {
        self.informers.len() - 1
    }

    /// The informer of a kind that is watched.
    pub fn watched(&self, api_version: &str, kind: &str) -> Option<&Informer> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.by_kind
            .get(&(group.to_owned(), kind.to_owned()))
            .map(|at| &self.informers[*at])
    }
}

/// The resource of a kind that is not watched; `None` if the plane does not serve it.
pub async fn resolve(client: &Client, api_version: &str, kind: &str) -> Result<Option<Resource>, Error> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(info) = table::find_kind(group, version, kind) {
        return Ok(Some(info.resource.clone()));
    }
    let there = |served: Vec<Discovered>| {
        let mut resources = served.into_iter().map(|served| served.resource);
        resources.find(|resource| resource.group == group && resource.kind == kind)
    };
    match client.discover_version(group, version).await {
        Ok(served) => Ok(there(served)),
        // What is stored in a version that is not served any more is served in another.
        Err(error) if error.is_not_found() => client.discover().await.map(there),
        Err(error) => Err(error),
    }
}

/// The namespace in which a dependent's owner is; `None` if it cannot be named from there.
pub fn namespace_of_owner<'a>(owner: &Resource, dependent_namespace: Option<&'a str>) -> Option<Option<&'a str>> {
    match (owner.scope, dependent_namespace) {
        (Scope::Cluster, _) => Some(None),
        (Scope::Namespaced, Some(namespace)) => Some(Some(namespace)),
        // A cluster-scoped object cannot say in which namespace its owner is.
        (Scope::Namespaced, None) => None,
    }
}
