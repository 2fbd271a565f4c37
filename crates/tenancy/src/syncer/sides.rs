//! What both sides hold, by watch.

use api::{Object, PlaneId, resource};
use client::{Informer, InformerOptions, ObjectKey, SourceId, Sources};

use super::SyncerOptions;
use crate::{
    identity::{self, Origin},
    pod_plan::is_finished,
    translate::shown::Shown,
};

/// Index of super objects by the tenant object they stand for: `plane/namespace/name`.
pub const ORIGIN: &str = "origin";

/// Index of Pods' own Secrets by the Pod: `plane/namespace/name`. Also the annotation that names the Pod.
pub const POD: &str = "tenancy.mangrove.io/pod";

/// Index of Events by the uid of the super Pod that they are about.
pub const INVOLVED: &str = "involved";

/// Index of slices that tenants write by hand, by the addresses in them: `plane/address`. The same of super Pods.
pub const ADDRESS: &str = "address";

/// By this label a slice says who keeps it.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Tenants' objects, of all planes.
pub struct Above {
    pub namespaces: Informer,
    pub pods: Informer,
    pub services: Informer,
    pub config_maps: Informer,
    pub secrets: Informer,
    pub service_accounts: Informer,
    pub endpoint_slices: Informer,
    pub claims: Informer,
    pub ingresses: Informer,
    /// Of these, what shows objects of the super cluster.
    pub volumes: Informer,
    pub priority_classes: Informer,
    pub runtime_classes: Informer,
    pub definitions: Informer,
}

/// The super cluster's objects that carry our label, its Events, and what tenants there are.
pub struct Below {
    pub namespaces: Informer,
    pub pods: Informer,
    pub services: Informer,
    pub config_maps: Informer,
    pub secrets: Informer,
    pub service_accounts: Informer,
    pub endpoint_slices: Informer,
    pub claims: Informer,
    pub ingresses: Informer,
    pub events: Informer,
    pub virtual_clusters: Informer,
    /// All of them: whose they are their claims say.
    pub volumes: Informer,
    /// Where machines and their Pods are.
    pub nodes: Informer,
    /// What is for tenants to see.
    pub storage_classes: Informer,
    pub runtime_classes: Informer,
    pub priority_classes: Informer,
    pub definitions: Informer,
}

pub struct Sides {
    pub above: Above,
    pub below: Below,
}

impl Above {
    fn all(&self) -> [&Informer; 13] {
        [
            &self.namespaces,
            &self.pods,
            &self.services,
            &self.config_maps,
            &self.secrets,
            &self.service_accounts,
            &self.endpoint_slices,
            &self.claims,
            &self.ingresses,
            &self.volumes,
            &self.priority_classes,
            &self.runtime_classes,
            &self.definitions,
        ]
    }

    /// Whether the caches hold all of a source.
    pub fn is_whole(&self, source: &SourceId) -> bool {
        self.all().into_iter().all(|informer| informer.synced(source))
    }

    pub fn shown(&self, kind: Shown) -> &Informer {
        match kind {
            Shown::PriorityClass => &self.priority_classes,
            Shown::RuntimeClass => &self.runtime_classes,
            Shown::Definition => &self.definitions,
        }
    }
}

impl Below {
    /// Waits until the caches hold all of the super cluster.
    pub async fn wait_whole(&self) {
        let all = [
            &self.namespaces,
            &self.pods,
            &self.services,
            &self.config_maps,
            &self.secrets,
            &self.service_accounts,
            &self.endpoint_slices,
            &self.claims,
            &self.ingresses,
            &self.events,
            &self.virtual_clusters,
            &self.volumes,
            &self.nodes,
            &self.storage_classes,
            &self.runtime_classes,
            &self.priority_classes,
            &self.definitions,
        ];
        for informer in all {
            informer.wait_synced().await;
        }
    }

    pub fn shown(&self, kind: Shown) -> &Informer {
        match kind {
            Shown::PriorityClass => &self.priority_classes,
            Shown::RuntimeClass => &self.runtime_classes,
            Shown::Definition => &self.definitions,
        }
    }
}

impl Sides {
    pub(super) fn start(options: &SyncerOptions) -> Sides {
        let above = |resource| Informer::start(&options.planes, resource, InformerOptions::default());
        let shown = |resource| Informer::start(&options.planes, resource, labelled_by(identity::SHOWN));
        let below = |resource| labelled(&options.super_sources, resource, &options.super_cluster.id);
        let all = |resource| Informer::start(&options.super_sources, resource, InformerOptions::default());
        let public = |resource| {
            let public = labelled_by(&format!("{}=true", identity::PUBLIC));
            Informer::start(&options.super_sources, resource, public)
        };
        let slices = InformerOptions::default().index(ADDRESS, |key, slice| match is_by_hand(slice) {
            true => addresses(slice)
                .map(|address| address_key(key.plane.plane, address))
                .collect(),
            false => Vec::new(),
        });
        Sides {
            above: Above {
                namespaces: above(resource::NAMESPACES),
                pods: above(resource::PODS),
                services: above(resource::SERVICES),
                config_maps: above(resource::CONFIG_MAPS),
                secrets: above(resource::SECRETS),
                service_accounts: above(resource::SERVICE_ACCOUNTS),
                endpoint_slices: Informer::start(&options.planes, resource::ENDPOINT_SLICES, slices),
                claims: above(resource::PERSISTENT_VOLUME_CLAIMS),
                ingresses: above(resource::INGRESSES),
                volumes: shown(resource::PERSISTENT_VOLUMES),
                priority_classes: shown(resource::PRIORITY_CLASSES),
                runtime_classes: shown(resource::RUNTIME_CLASSES),
                definitions: shown(resource::CUSTOM_RESOURCE_DEFINITIONS),
            },
            below: Below {
                namespaces: below(resource::NAMESPACES),
                pods: below(resource::PODS),
                services: below(resource::SERVICES),
                config_maps: below(resource::CONFIG_MAPS),
                secrets: below(resource::SECRETS),
                service_accounts: below(resource::SERVICE_ACCOUNTS),
                endpoint_slices: below(resource::ENDPOINT_SLICES),
                claims: below(resource::PERSISTENT_VOLUME_CLAIMS),
                ingresses: below(resource::INGRESSES),
                events: Informer::start(
                    &options.super_sources,
                    resource::EVENTS,
                    InformerOptions::default().index(INVOLVED, |_, event| {
                        let uid = event.tree()["involvedObject"]["uid"].as_str();
                        uid.map(str::to_owned).into_iter().collect()
                    }),
                ),
                virtual_clusters: options.clusters.clone(),
                volumes: all(resource::PERSISTENT_VOLUMES),
                nodes: all(resource::NODES),
                storage_classes: public(resource::STORAGE_CLASSES),
                runtime_classes: public(resource::RUNTIME_CLASSES),
                priority_classes: public(resource::PRIORITY_CLASSES),
                definitions: public(resource::CUSTOM_RESOURCE_DEFINITIONS),
            },
        }
    }
}

fn labelled_by(selector: &str) -> InformerOptions {
    InformerOptions {
        label_selector: Some(selector.to_owned()),
        ..InformerOptions::default()
    }
}

/// A slice that no controller keeps for a Service with a selector.
pub fn is_by_hand(slice: &Object) -> bool {
    slice
        .label(MANAGED_BY)
        .is_none_or(|by| by != "endpointslice-controller.k8s.io")
}

/// The addresses in a slice.
pub fn addresses(slice: &Object) -> impl Iterator<Item = &str> {
    let endpoints = slice.tree()["endpoints"].as_array().into_iter().flatten();
    endpoints
        .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
        .filter_map(|address| address.as_str())
}

/// The value in the index of addresses.
pub fn address_key(plane: PlaneId, address: &str) -> String {
    format!("{plane}/{address}")
}

fn labelled(source: &Sources, resource: api::Resource, super_id: &str) -> Informer {
    let super_id = super_id.to_owned();
    let options = InformerOptions {
        label_selector: Some(identity::PLANE.to_owned()),
        ..InformerOptions::default()
    }
    .index(ORIGIN, move |_, object| origin_of(object, &super_id))
    .index(POD, |_, object| pod_of(object))
    .index(ADDRESS, |_, object| address_of(object));
    Informer::start(source, resource, options)
}

/// For the index of [`ORIGIN`]. A Pod's own Secret stands for no object of the tenant's.
fn origin_of(object: &Object, super_id: &str) -> Vec<String> {
    if object.annotation(POD).is_some() {
        return Vec::new();
    }
    Origin::of(object, super_id)
        .map(|origin| match object.kind() {
            "Namespace" => self::origin(origin.plane, "", &origin.namespace),
            _ => self::origin(origin.plane, &origin.namespace, object.name()),
        })
        .into_iter()
        .collect()
}

fn pod_of(object: &Object) -> Vec<String> {
    let key = |pod: &str| {
        Some(format!(
            "{}/{}/{pod}",
            object.annotation(identity::PLANE)?,
            object.annotation(identity::NAMESPACE)?
        ))
    };
    object.annotation(POD).and_then(key).into_iter().collect()
}

/// Of a super Pod with an address of its own, that as its tenant's.
fn address_of(object: &Object) -> Vec<String> {
    let key = || {
        let plane: PlaneId = object.annotation(identity::PLANE)?.parse().ok()?;
        let is_its_own = object.kind() == "Pod" && object.tree()["spec"]["hostNetwork"] != true && !is_finished(object);
        let address = object.tree()["status"]["podIP"].as_str().filter(|_| is_its_own)?;
        Some(address_key(plane, address))
    };
    key().into_iter().collect()
}

/// The value in both indexes for a tenant's object.
pub fn origin_key(key: &ObjectKey) -> String {
    origin(key.plane.plane, &key.namespace, &key.name)
}

pub fn origin(plane: PlaneId, namespace: &str, name: &str) -> String {
    format!("{plane}/{namespace}/{name}")
}
