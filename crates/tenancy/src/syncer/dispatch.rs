//! Turns changes on both sides into items: each names the tenant's object that has to be compared.

use std::sync::Arc;

use api::{Object, PlaneId};
use client::{Change, Informer, Notice, ObjectKey, SourceId, Tasks};

use super::{Item, Shared, What, copies, everything, shown, sides};
use crate::{
    identity::Origin,
    references::References,
    translate::{ingress, namespaced::Copied, shown::Shown},
};

pub(super) const COPIES: [Copied; 4] = [
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
    for_above(shared, tasks, &sides.above.claims, claims_above);
    for_above(shared, tasks, &sides.above.ingresses, ingresses_above);
    for_above(shared, tasks, &sides.above.volumes, |_, change| {
        vec![Item::of(What::Volume, &change.key)]
    });
    for kind in Shown::ALL {
        for_above(shared, tasks, sides.above.shown(kind), move |_, change| {
            vec![Item::of(What::Shown(kind), &change.key)]
        });
        let everywhere = move |shared: &Shared, change: &Change| shared.shown_everywhere(kind, &change.key.name);
        watch(shared, tasks, sides.below.shown(kind), everywhere, |_, _| Vec::new());
    }
    for_below(shared, tasks, &sides.below.namespaces, |origin, _| {
        vec![namespace(origin.plane, &origin.namespace)]
    });
    watch(shared, tasks, &sides.below.pods, pods_below, |_, _| Vec::new());
    for_below(shared, tasks, &sides.below.services, |origin, service| {
        vec![below(What::Service, origin, service.name())]
    });
    for_below(shared, tasks, &sides.below.claims, claim_below);
    for_below(shared, tasks, &sides.below.ingresses, ingress_below);
    for informer in [&sides.below.services, &sides.below.claims, &sides.below.ingresses] {
        watch(shared, tasks, informer, told_before, |_, _| Vec::new());
    }
    watch(shared, tasks, &sides.below.volumes, volumes_below, |_, _| Vec::new());
    watch(shared, tasks, &sides.below.events, events_below, |_, _| Vec::new());
    watch(shared, tasks, &sides.below.virtual_clusters, clusters_below, |_, _| {
        Vec::new()
    });
}

pub(super) fn namespace(plane: PlaneId, name: &str) -> Item {
    Item {
        what: What::Namespace,
        plane,
        namespace: "".into(),
        name: name.into(),
    }
}

pub(super) fn below(what: What, origin: &Origin, name: &str) -> Item {
    Item {
        what,
        plane: origin.plane,
        namespace: origin.namespace.as_str().into(),
        name: name.into(),
    }
}

/// A copy, or a Pod's own Secret.
pub(super) fn copy_below(kind: Copied, origin: &Origin, object: &Object) -> Vec<Item> {
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

/// A claim, and the volume that it has.
fn claims_above(_: &Shared, change: &Change) -> Vec<Item> {
    let mut items = vec![Item::of(What::Claim, &change.key)];
    let states = change.old.iter().chain(&change.new);
    items.extend(states.filter_map(|claim| volume_of(change.key.plane.plane, claim)));
    items
}

pub(super) fn claim_below(origin: &Origin, claim: &Object) -> Vec<Item> {
    let mut items = vec![below(What::Claim, origin, claim.name())];
    items.extend(volume_of(origin.plane, claim));
    items
}

fn volume_of(plane: PlaneId, claim: &Object) -> Option<Item> {
    let name = claim.tree()["spec"]["volumeName"].as_str()?;
    (!name.is_empty()).then(|| volume(plane, name))
}

pub(super) fn volume(plane: PlaneId, name: &str) -> Item {
    Item {
        what: What::Volume,
        plane,
        namespace: "".into(),
        name: name.into(),
    }
}

/// A volume of the super cluster: in the plane whose claim has it. Where it was shown before, its claim has told.
fn volumes_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let states = change.old.iter().chain(&change.new);
    let owners = states.filter_map(|volume| shared.super_claim_of(volume));
    owners
        .map(|(_, origin)| volume(origin.plane, &change.key.name))
        .collect()
}

/// What an Ingress stands for, and its certificates, which are below as long as it is.
pub(super) fn ingress_below(origin: &Origin, ingress: &Object) -> Vec<Item> {
    let mut items = vec![below(What::Ingress, origin, ingress.name())];
    let secrets = ingress::secrets(ingress);
    items.extend(
        secrets
            .iter()
            .map(|name| below(What::Copy(Copied::Secret), origin, name)),
    );
    items
}

/// An Ingress, and the certificates that it names (or named).
fn ingresses_above(_: &Shared, change: &Change) -> Vec<Item> {
    let mut items = vec![Item::of(What::Ingress, &change.key)];
    for state in change.old.iter().chain(&change.new) {
        let secret = |name: &String| Item::sibling(What::Copy(Copied::Secret), &change.key, name);
        items.extend(ingress::secrets(state).iter().map(secret));
    }
    items
}

/// A tenant's settings: what it sees, which of its Ingresses go down, and whom its Pods reach.
fn clusters_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let state = |object: &Option<Object>| {
        object.as_ref().map(|cluster| {
            let tree = cluster.tree();
            let nodes = tree["status"]["nodes"].clone();
            (shown::plane_of(cluster), tree["spec"].clone(), nodes)
        })
    };
    let (old, new) = (state(&change.old), state(&change.new));
    let Some((Some(plane), _, _)) = new.as_ref().filter(|new| old.as_ref() != Some(new)) else {
        return Vec::new();
    };
    let mut items = shared.all_shown(*plane);
    let above = &shared.sides.above;
    for (what, keys) in [(What::Ingress, above.ingresses.keys()), (What::Pod, above.pods.keys())] {
        let own = keys.iter().filter(|key| key.plane.plane == *plane);
        items.extend(own.map(|key| Item::of(what, key)));
    }
    items
}

/// What a super Pod stands for, and with its first sight the Events about it that were seen before it was; with its address,
/// hand-written endpoints that name it.
fn pods_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let mut items = standing_for(shared, change, |origin, pod| vec![below(What::Pod, origin, pod.name())]);
    let address = |pod: &Option<Object>| {
        let address = pod.as_ref()?.tree()["status"]["podIP"].as_str()?.to_owned();
        Some(address)
    };
    let (before, now) = (address(&change.old), address(&change.new));
    let origin_of = |pod: &Object| Origin::of(pod, &shared.options.super_cluster.id);
    if before != now
        && let Some(origin) = change.old.iter().chain(&change.new).find_map(origin_of)
    {
        for address in before.iter().chain(&now) {
            let key = sides::address_key(origin.plane, address);
            let slices = shared.sides.above.endpoint_slices.by_index(sides::ADDRESS, &key);
            let slice = |(key, _): (ObjectKey, Object)| Item::of(What::Copy(Copied::EndpointSlice), &key);
            items.extend(slices.into_iter().map(slice));
        }
    }
    items.extend(told_before(shared, change));
    items
}

/// Events about a super object that were seen before it was.
fn told_before(shared: &Shared, change: &Change) -> Vec<Item> {
    let (None, Some(about)) = (&change.old, &change.new) else {
        return Vec::new();
    };
    let Some(origin) = Origin::of(about, &shared.options.super_cluster.id) else {
        return Vec::new();
    };
    let events = shared.sides.below.events.by_index(sides::INVOLVED, about.uid());
    let event = |(key, _): (ObjectKey, Object)| Item {
        plane: origin.plane,
        ..Item::of(What::Event, &key)
    };
    events.into_iter().map(event).collect()
}

/// An Event about something that stands for a tenant's.
fn events_below(shared: &Shared, change: &Change) -> Vec<Item> {
    let about = change
        .new
        .as_ref()
        .and_then(|event| shared.involved(&change.key, event));
    let owner = about.and_then(|(about, _)| Origin::of(&about, &shared.options.super_cluster.id));
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
    whole: impl Fn(&Shared, &SourceId) -> Vec<Item> + Send + Sync + 'static,
) {
    let shared = shared.clone();
    let informer = informer.clone();
    // Here and not in the task: whatever becomes whole after the first item was handled is heard of.
    let mut changes = informer.subscribe();
    tasks.spawn(async move {
        while let Some(notice) = changes.next().await {
            let found = match notice {
                Notice::Change(change) => items(&shared, &change),
                Notice::Synced(source) => whole(&shared, &source),
                Notice::Removed(source) => {
                    shared.lock_announced().remove(&source);
                    Vec::new()
                }
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
    watch(shared, tasks, informer, items, become_whole);
}

/// Once a source: whichever of its caches tells last.
fn become_whole(shared: &Shared, source: &SourceId) -> Vec<Item> {
    if shared.sides.above.is_whole(source) && shared.lock_announced().insert(source.clone()) {
        return everything::items(shared);
    }
    Vec::new()
}

/// Super objects, by what they stand for.
fn for_below(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    informer: &Informer,
    items: impl Fn(&Origin, &Object) -> Vec<Item> + Send + Sync + 'static,
) {
    let items = move |shared: &Shared, change: &Change| standing_for(shared, change, &items);
    watch(shared, tasks, informer, items, |_, _| Vec::new());
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
