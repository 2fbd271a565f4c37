//! PriorityClasses, RuntimeClasses and definitions that the super cluster shows to its tenants by a label.

use api::{Object, PlaneId};
use client::{DeleteOptions, ObjectKey, Outcome, Patch};
use identity::SHOWN;

use super::{Handled, Item, Shared, SyncError, What, pods};
use crate::{
    identity::{self, Tenant},
    translate::shown::Shown,
    virtual_cluster::Extra,
};

impl Shared {
    pub(super) async fn handle_shown(&self, tenant: &Tenant, kind: Shown, key: &ObjectKey) -> Handled {
        let is_for_this = kind != Shown::Definition || tenant.settings.sync.contains(&Extra::Definitions);
        let below = self.options.super_plane.object("", &key.name);
        let source = self.sides.below.shown(kind).get(&below).filter(|_| is_for_this);
        let wanted = source.and_then(|source| kind.up(tenant.plane, &source));
        let there = self.sides.above.shown(kind).get(key);
        let client = self.options.planes.client(&key.plane)?;
        let Some(wanted) = wanted else {
            if let Some(there) = there {
                self.delete_shown(kind, key, &there).await?;
            }
            return Ok(Outcome::Done);
        };
        let resource = kind.resource();
        let there = match there {
            Some(there) => there,
            None => match pods::found(client.get(&resource, None, &key.name).await)? {
                // The tenant's own by that name goes before.
                Some(there) if there.label(SHOWN).is_none() => return Ok(Outcome::Done),
                Some(there) => there,
                None => {
                    client.create(&resource, None, &wanted).await?;
                    return Ok(Outcome::Done);
                }
            },
        };
        if there.is_deleting() {
            return Ok(Outcome::Done);
        }
        if let Some(patch) = kind.drift(&wanted, &there) {
            let patch = Patch::Merge(pods::with_uid(patch, &there));
            match client.patch(&resource, None, &key.name, &patch).await {
                // A class's value, say, can't change in place. A definition is never made anew: its objects would go with it.
                Err(error) if (error.is_invalid() || error.is_forbidden()) && kind != Shown::Definition => {
                    self.delete_shown(kind, key, &there).await?;
                    return Err(error.into());
                }
                patched => drop(pods::found(patched)?),
            }
        }
        Ok(Outcome::Done)
    }

    async fn delete_shown(&self, kind: Shown, key: &ObjectKey, there: &Object) -> Result<(), SyncError> {
        if there.is_deleting() {
            return Ok(());
        }
        let client = self.options.planes.client(&key.plane)?;
        let options = DeleteOptions::of_uid(there.uid());
        pods::gone(client.delete(&kind.resource(), None, &key.name, &options).await)
    }

    /// One of the super cluster's objects in all planes.
    pub(super) fn shown_everywhere(&self, kind: Shown, name: &str) -> Vec<Item> {
        let planes = self.sides.below.virtual_clusters.all().into_iter();
        planes
            .filter_map(|(_, cluster)| plane_of(&cluster))
            .map(|plane| shown_item(kind, plane, name))
            .collect()
    }

    /// All that one plane should see.
    pub(super) fn all_shown(&self, plane: PlaneId) -> Vec<Item> {
        let of_kind = |kind: Shown| {
            let keys = self.sides.below.shown(kind).keys();
            keys.into_iter().map(move |key| shown_item(kind, plane, &key.name))
        };
        Shown::ALL.into_iter().flat_map(of_kind).collect()
    }
}

pub(super) fn plane_of(cluster: &Object) -> Option<PlaneId> {
    cluster.tree()["status"]["plane"].as_str()?.parse().ok()
}

fn shown_item(kind: Shown, plane: PlaneId, name: &str) -> Item {
    Item {
        what: What::Shown(kind),
        plane,
        namespace: "".into(),
        name: name.into(),
    }
}
