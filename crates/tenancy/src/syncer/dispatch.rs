//! Turns changes on both sides into items: each names the tenant's object that has to be compared.

use std::sync::Arc;

use api::Object;
use client::{Change, Informer, Notice, ObjectKey, PlaneKey, Tasks};

use super::{Item, Shared, copies, sides};
use crate::{identity::Origin, references::References, translate::namespaced::Copied};

const COPIES: [Copied; 4] = [
    Copied::ConfigMap,
    Copied::Secret,
    Copied::ServiceAccount,
    Copied::EndpointSlice,
];

/// Starts the watchers of both sides.
pub fn start(shared: &Arc<Shared>, tasks: &Tasks) {
    let sides = &shared.sides;
    for_changes(shared, tasks, &sides.above.namespaces, |_, change| {
        vec![Item::Namespace(change.key.plane.object("", &change.key.name))]
    });
    for_changes(shared, tasks, &sides.above.pods, pods_above);
    for_changes(shared, tasks, &sides.above.services, services_above);
    for kind in COPIES {
        for_changes(shared, tasks, sides.above.of(kind), move |_, change| {
            vec![Item::Copy(kind, change.key.clone())]
        });
        for_below(shared, tasks, sides.below.of(kind), move |key, object| {
            match object.annotation(sides::POD) {
                Some(pod) => vec![Item::Pod(key.sibling(pod))],
                None => vec![Item::Copy(kind, key)],
            }
        });
    }
    for_below(shared, tasks, &sides.below.namespaces, |key, _| {
        vec![Item::Namespace(key.plane.object("", &key.namespace))]
    });
    for_below(shared, tasks, &sides.below.pods, |key, _| vec![Item::Pod(key)]);
    for_below(shared, tasks, &sides.below.services, |key, _| vec![Item::Service(key)]);
    for_changes(shared, tasks, &sides.below.events, events_below);
}

/// A Pod, and what it names (or named): these stay below only while a Pod names them.
fn pods_above(_: &Shared, change: &Change) -> Vec<Item> {
    let mut items = vec![Item::Pod(change.key.clone())];
    let ended = change.new.as_ref().is_none_or(crate::pod_plan::is_finished);
    if let (true, Some(pod)) = (ended, change.old.as_ref().or(change.new.as_ref())) {
        let names = References::of(&pod.tree()["spec"]);
        let sibling = |name: &String| change.key.sibling(name);
        items.extend(
            names
                .config_maps
                .iter()
                .map(|name| Item::Copy(Copied::ConfigMap, sibling(name))),
        );
        items.extend(
            names
                .secrets
                .iter()
                .map(|name| Item::Copy(Copied::Secret, sibling(name))),
        );
        items.extend(
            names
                .service_account
                .iter()
                .map(|name| Item::Copy(Copied::ServiceAccount, sibling(name))),
        );
    }
    items
}

/// A Service, and the slices written by hand for it.
fn services_above(shared: &Shared, change: &Change) -> Vec<Item> {
    let mut items = vec![Item::Service(change.key.clone())];
    let slices = shared
        .sides
        .above
        .endpoint_slices
        .list(&change.key.plane, change.key.namespace());
    let ours = |slice: &&Object| slice.label(copies::SERVICE_NAME) == Some(&*change.key.name);
    items.extend(
        slices
            .iter()
            .filter(ours)
            .map(|slice| Item::Copy(Copied::EndpointSlice, change.key.sibling(slice.name()))),
    );
    items
}

/// An Event about a super Pod that stands for a tenant's.
fn events_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let Some(event) = &change.new else { return Vec::new() };
    let pod = event.tree()["involvedObject"]["name"].as_str().unwrap_or("");
    let pod = shared.sides.below.pods.get(&change.key.sibling(pod));
    let owner = pod.and_then(|pod| Origin::of(&pod, &shared.options.super_cluster.id));
    owner
        .map(|owner| Item::Event(change.key.clone(), owner.plane))
        .into_iter()
        .collect()
}

fn for_changes(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    informer: &Informer,
    items: impl Fn(&Shared, &Change) -> Vec<Item> + Send + Sync + 'static,
) {
    let shared = shared.clone();
    let informer = informer.clone();
    tasks.spawn(async move {
        let mut changes = informer.subscribe();
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Synced(_) | Notice::Removed(_) => {}
                Notice::Change(change) => items(&shared, &change)
                    .into_iter()
                    .for_each(|item| shared.queue.add(item)),
                // Too many at once: everything there is is looked at.
                Notice::Rescan => {
                    for (key, object) in informer.all() {
                        let change = Change {
                            key,
                            old: None,
                            new: Some(object),
                        };
                        items(&shared, &change)
                            .into_iter()
                            .for_each(|item| shared.queue.add(item));
                    }
                }
            }
        }
    });
}

/// Changes of super objects, by the key of the tenant object they stand for.
fn for_below(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    informer: &Informer,
    items: impl Fn(ObjectKey, &Object) -> Vec<Item> + Send + Sync + 'static,
) {
    for_changes(shared, tasks, informer, move |shared, change| {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else {
            return Vec::new();
        };
        match shared.tenant_key(object) {
            Some(key) => items(key, object),
            None => Vec::new(),
        }
    });
}

impl Shared {
    /// The key of the tenant object that a super object stands for.
    fn tenant_key(&self, object: &Object) -> Option<ObjectKey> {
        let origin = Origin::of(object, &self.options.super_cluster.id)?;
        let plane = PlaneKey {
            source: self.options.planes_source.clone(),
            plane: origin.plane,
        };
        Some(plane.object(&origin.namespace, object.name()))
    }
}
