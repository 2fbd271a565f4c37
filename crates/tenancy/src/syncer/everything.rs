//! All that there is on both sides, as items: for a source that has become whole, and for the scan now and then.

use api::Object;
use client::Informer;

use super::{
    Item, Shared, What,
    dispatch::{COPIES, below, claim_below, copy_below, ingress_below, namespace},
    shown,
};
use crate::identity::Origin;

pub(super) fn items(shared: &Shared) -> Vec<Item> {
    let mut items = above(shared);
    let sides = &shared.sides.below;
    let mut stand_for = |informer: &Informer, items_of: &dyn Fn(&Origin, &Object) -> Vec<Item>| {
        for (_, object) in informer.all() {
            let origin = Origin::of(&object, &shared.options.super_cluster.id);
            items.extend(origin.iter().flat_map(|origin| items_of(origin, &object)));
        }
    };
    stand_for(&sides.namespaces, &|origin, _| {
        vec![namespace(origin.plane, &origin.namespace)]
    });
    stand_for(&sides.pods, &|origin, pod| vec![below(What::Pod, origin, pod.name())]);
    stand_for(&sides.services, &|origin, service| {
        vec![below(What::Service, origin, service.name())]
    });
    stand_for(&sides.claims, &claim_below);
    stand_for(&sides.ingresses, &ingress_below);
    for kind in COPIES {
        stand_for(sides.of(kind), &|origin, object| copy_below(kind, origin, object));
    }
    let planes = sides.virtual_clusters.all();
    let planes = planes.iter().filter_map(|(_, cluster)| shown::plane_of(cluster));
    items.extend(planes.flat_map(|plane| shared.all_shown(plane)));
    items
}

/// Tenants' own objects.
fn above(shared: &Shared) -> Vec<Item> {
    let above = &shared.sides.above;
    let namespaces = above.namespaces.keys();
    let mut items: Vec<Item> = namespaces
        .iter()
        .map(|key| namespace(key.plane.plane, &key.name))
        .collect();
    let kinds = [
        (What::Pod, &above.pods),
        (What::Service, &above.services),
        (What::Claim, &above.claims),
        (What::Ingress, &above.ingresses),
        (What::Volume, &above.volumes),
    ];
    let copies = COPIES.map(|kind| (What::Copy(kind), above.of(kind)));
    for (what, informer) in kinds.into_iter().chain(copies) {
        items.extend(informer.keys().iter().map(|key| Item::of(what, key)));
    }
    items
}
