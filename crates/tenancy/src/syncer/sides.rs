//! What both sides hold, by watch.

use api::{Object, PlaneId, resource};
use client::{Informer, InformerOptions, ObjectKey, SourceId, Sources};

use super::SyncerOptions;
use crate::identity::{self, Origin};

/// Index of super objects by the tenant object they stand for: `plane/namespace/name`.
pub const ORIGIN: &str = "origin";

/// Index of Pods' own Secrets by the Pod: `plane/namespace/name`. Also the annotation that names the Pod.
pub const POD: &str = "tenancy.mangrove.io/pod";

/// Index of Events by the uid of the super Pod that they are about.
pub const INVOLVED: &str = "involved";

/// Tenants' objects, of all planes.
pub struct Above {
    pub namespaces: Informer,
    pub pods: Informer,
    pub services: Informer,
    pub config_maps: Informer,
    pub secrets: Informer,
    pub service_accounts: Informer,
    pub endpoint_slices: Informer,
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
    pub events: Informer,
    pub virtual_clusters: Informer,
}

pub struct Sides {
    pub above: Above,
    pub below: Below,
}

impl Above {
    /// Whether the caches hold all of a source.
    pub fn is_whole(&self, source: &SourceId) -> bool {
        let all = [
            &self.namespaces,
            &self.pods,
            &self.services,
            &self.config_maps,
            &self.secrets,
            &self.service_accounts,
            &self.endpoint_slices,
        ];
        all.into_iter().all(|informer| informer.synced(source))
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
            &self.events,
            &self.virtual_clusters,
        ];
        for informer in all {
            informer.wait_synced().await;
        }
    }
}

impl Sides {
    pub(super) fn start(options: &SyncerOptions) -> Sides {
        let above = |resource| Informer::start(&options.planes, resource, InformerOptions::default());
        let below = |resource| labelled(&options.super_sources, resource, &options.super_cluster.id);
        Sides {
            above: Above {
                namespaces: above(resource::NAMESPACES),
                pods: above(resource::PODS),
                services: above(resource::SERVICES),
                config_maps: above(resource::CONFIG_MAPS),
                secrets: above(resource::SECRETS),
                service_accounts: above(resource::SERVICE_ACCOUNTS),
                endpoint_slices: above(resource::ENDPOINT_SLICES),
            },
            below: Below {
                namespaces: below(resource::NAMESPACES),
                pods: below(resource::PODS),
                services: below(resource::SERVICES),
                config_maps: below(resource::CONFIG_MAPS),
                secrets: below(resource::SECRETS),
                service_accounts: below(resource::SERVICE_ACCOUNTS),
                endpoint_slices: below(resource::ENDPOINT_SLICES),
                events: Informer::start(
                    &options.super_sources,
                    resource::EVENTS,
                    InformerOptions {
                        field_selector: Some("involvedObject.kind=Pod".to_owned()),
                        ..InformerOptions::default()
                    }
                    .index(INVOLVED, |_, event| {
                        let uid = event.tree()["involvedObject"]["uid"].as_str();
                        uid.map(str::to_owned).into_iter().collect()
                    }),
                ),
                virtual_clusters: Informer::start(
                    &options.super_sources,
                    resource::VIRTUAL_CLUSTERS,
                    InformerOptions::default(),
                ),
            },
        }
    }
}

fn labelled(source: &Sources, resource: api::Resource, super_id: &str) -> Informer {
    let super_id = super_id.to_owned();
    let options = InformerOptions {
        label_selector: Some(identity::PLANE.to_owned()),
        ..InformerOptions::default()
    }
    .index(ORIGIN, move |_, object| origin_of(object, &super_id))
    .index(POD, |_, object| pod_of(object));
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

/// The value in both indexes for a tenant's object.
pub fn origin_key(key: &ObjectKey) -> String {
    origin(key.plane.plane, &key.namespace, &key.name)
}

pub fn origin(plane: PlaneId, namespace: &str, name: &str) -> String {
    format!("{plane}/{namespace}/{name}")
}
