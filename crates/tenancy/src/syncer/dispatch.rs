//! Turns changes on both sides into items: each names the tenant's object that has to be compared.

use std::sync::Arc;

use api::{Object, PlaneId};
use client::{Change, Informer, Notice, ObjectKey, Tasks};

use super::{Item, Shared, What, copies, sides};
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
    for_above(shared, tasks, &sides.above.namespaces, |_, change| {
        vec![namespace(change.key.plane.plane, &change.key.name)]
    });
    for_above(shared, tasks, &sides.above.pods, pods_above);
    for_above(shared, tasks, &sides.above.services, services_above);
    for kind in COPIES {
        for_above(shared, tasks, sides.above.of(kind), move |_, change| {
            vec![Item::of(What::Copy(kind), &change.key)]
        });
        for_below(shared, tasks, sides.below.of(kind), move |origin, object| {
            copy_below(kind, origin, object)
        });
    }
    for_below(shared, tasks, &sides.below.namespaces, |origin, _| {
        vec![namespace(origin.plane, &origin.namespace)]
    });
    watch(shared, tasks, &sides.below.pods, pods_below, |_| Vec::new());
    for_below(shared, tasks, &sides.below.services, |origin, service| {
        vec![below(What::Service, origin, service.name())]
    });
    watch(shared, tasks, &sides.below.events, events_below, |_| Vec::new());
}

fn namespace(plane: PlaneId, name: &str) -> Item {
    Item {
        what: What::Namespace,
        plane,
        namespace: "".into(),
        name: name.into(),
    }
}

fn below(what: What, origin: &Origin, name: &str) -> Item {
    Item {
        what,
        plane: origin.plane,
        namespace: origin.namespace.as_str().into(),
        name: name.into(),
    }
}

/// A copy, or a Pod's own Secret.
fn copy_below(kind: Copied, origin: &Origin, object: &Object) -> Vec<Item> {
    match object.annotation(sides::POD) {
        Some(pod) => vec![below(What::Pod, origin, pod)],
        None => vec![below(What::Copy(kind), origin, object.name())],
    }
}

/// A Pod, and what it names (or named): these stay below only while a Pod names them.
fn pods_above(_: &Shared, change: &Change) -> Vec<Item> {
    let mut items = vec![Item::of(What::Pod, &change.key)];
    let ended = change.new.as_ref().is_none_or(crate::pod_plan::is_finished);
    if let (true, Some(pod)) = (ended, change.old.as_ref().or(change.new.as_ref())) {
        let names = References::of(&pod.tree()["spec"]);
        let named = |kind, name: &String| Item::sibling(What::Copy(kind), &change.key, name);
        items.extend(names.config_maps.iter().map(|name| named(Copied::ConfigMap, name)));
        items.extend(names.secrets.iter().map(|name| named(Copied::Secret, name)));
        items.extend(
            names
                .service_account
                .iter()
                .map(|name| named(Copied::ServiceAccount, name)),
        );
    }
    items
}

/// A Service, and the slices written by hand for it.
fn services_above(shared: &Shared, change: &Change) -> Vec<Item> {
    let mut items = vec![Item::of(What::Service, &change.key)];
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
            .map(|slice| Item::sibling(What::Copy(Copied::EndpointSlice), &change.key, slice.name())),
    );
    items
}

/// What a super Pod stands for, and with its first sight the Events about it that were seen before it was.
fn pods_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let mut items = standing_for(shared, change, |origin, pod| vec![below(What::Pod, origin, pod.name())]);
    if let (None, Some(pod)) = (&change.old, &change.new)
        && let Some(origin) = Origin::of(pod, &shared.options.super_cluster.id)
    {
        let events = shared.sides.below.events.by_index(sides::INVOLVED, pod.uid());
        items.extend(events.into_iter().map(|(key, _)| Item {
            plane: origin.plane,
            ..Item::of(What::Event, &key)
        }));
    }
    items
}

/// An Event about a super Pod that stands for a tenant's.
fn events_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let Some(event) = &change.new else { return Vec::new() };
    let pod = event.tree()["involvedObject"]["name"].as_str().unwrap_or("");
    let pod = shared.sides.below.pods.get(&change.key.sibling(pod));
    let owner = pod.and_then(|pod| Origin::of(&pod, &shared.options.super_cluster.id));
    owner
        .map(|owner| Item {
            plane: owner.plane,
            ..Item::of(What::Event, &change.key)
        })
        .into_iter()
        .collect()
}

/// Feeds the queue from an informer. `items` says what a change concerns; `whole` is asked when a source has been read
/// whole for the first time.
fn watch(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    informer: &Informer,
    items: impl Fn(&Shared, &Change) -> Vec<Item> + Send + Sync + 'static,
    whole: impl Fn(&Shared) -> Vec<Item> + Send + Sync + 'static,
) {
    let shared = shared.clone();
    let informer = informer.clone();
    // Here and not in the task: whatever becomes whole after the first item was handled is heard of.
    let mut changes = informer.subscribe();
    tasks.spawn(async move {
        while let Some(notice) = changes.next().await {
            let found = match notice {
                Notice::Change(change) => items(&shared, &change),
                Notice::Synced(_) => whole(&shared),
                Notice::Removed(_) => Vec::new(),
                // Too much at once: everything there is is looked at.
                Notice::Rescan => informer
                    .all()
                    .into_iter()
                    .flat_map(|(key, object)| items(&shared, &standing(key, object)))
                    .collect(),
            };
            found.into_iter().for_each(|item| shared.queue.add(item));
        }
    });
}

fn standing(key: ObjectKey, object: Object) -> Change {
    Change {
        key,
        old: None,
        new: Some(object),
    }
}

/// Tenants' objects. What came before its source was whole was put aside; the last cache of a source to become whole
/// brings all of it again.
fn for_above(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    informer: &Informer,
    items: impl Fn(&Shared, &Change) -> Vec<Item> + Send + Sync + 'static,
) {
    watch(shared, tasks, informer, items, everything);
}

/// Super objects, by what they stand for.
fn for_below(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    informer: &Informer,
    items: impl Fn(&Origin, &Object) -> Vec<Item> + Send + Sync + 'static,
) {
    let items = move |shared: &Shared, change: &Change| standing_for(shared, change, &items);
    watch(shared, tasks, informer, items, |_| Vec::new());
}

fn standing_for(shared: &Shared, change: &Change, items: impl Fn(&Origin, &Object) -> Vec<Item>) -> Vec<Item> {
    let origin_of = |object| Some((Origin::of(object, &shared.options.super_cluster.id)?, object));
    let mut found = Vec::new();
    // Both, since somebody may have changed whom it says that it stands for.
    for (origin, object) in change.old.iter().chain(&change.new).filter_map(origin_of) {
        found.extend(items(&origin, object));
    }
    found
}

/// All that there is on both sides.
fn everything(shared: &Shared) -> Vec<Item> {
    let (above, super_id) = (&shared.sides.above, &shared.options.super_cluster.id);
    let mut items = Vec::new();
    items.extend(
        above
            .namespaces
            .keys()
            .iter()
            .map(|key| namespace(key.plane.plane, &key.name)),
    );
    items.extend(above.pods.keys().iter().map(|key| Item::of(What::Pod, key)));
    items.extend(above.services.keys().iter().map(|key| Item::of(What::Service, key)));
    for kind in COPIES {
        let keys = above.of(kind).keys();
        items.extend(keys.iter().map(|key| Item::of(What::Copy(kind), key)));
    }
    let mut stand_for = |informer: &Informer, items_of: &dyn Fn(&Origin, &Object) -> Vec<Item>| {
        for (_, object) in informer.all() {
            let origin = Origin::of(&object, super_id);
            items.extend(origin.iter().flat_map(|origin| items_of(origin, &object)));
        }
    };
    let sides = &shared.sides.below;
    stand_for(&sides.namespaces, &|origin, _| {
        vec![namespace(origin.plane, &origin.namespace)]
    });
    stand_for(&sides.pods, &|origin, pod| vec![below(What::Pod, origin, pod.name())]);
    stand_for(&sides.services, &|origin, service| {
        vec![below(What::Service, origin, service.name())]
    });
    for kind in COPIES {
        stand_for(sides.of(kind), &|origin, object| copy_below(kind, origin, object));
    }
    items
}
