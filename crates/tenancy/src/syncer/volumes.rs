//! PersistentVolumes: those that the super cluster has given to tenants' claims, shown in the tenants' planes.

use api::{Object, resource::PERSISTENT_VOLUMES};
use client::{DeleteOptions, ObjectKey, Outcome, Patch};
use serde_json::json;

use super::{Handled, Shared, SyncError, pods};
use crate::{
    identity::{Origin, Tenant},
    translate::volume,
};

impl Shared {
    pub(super) async fn handle_volume(&self, tenant: &Tenant, key: &ObjectKey) -> Handled {
        let below = self.options.super_plane.object("", &key.name);
        let given = self.sides.below.volumes.get(&below).and_then(|volume| {
            let claim = self.claim_of(tenant, key, &volume)?;
            Some((volume, claim))
        });
        let there = self.sides.above.volumes.get(key);
        let client = self.options.planes.client(&key.plane)?;
        let Some((volume, claim)) = given else {
            if let Some(there) = there.filter(volume::is_shown) {
                self.delete_shown_volume(key, &there).await?;
            }
            return Ok(Outcome::Done);
        };
        let wanted = volume::up(tenant.plane, &volume, &claim);
        let there = match there {
            Some(there) => there,
            None => match pods::found(client.get(&PERSISTENT_VOLUMES, None, &key.name).await)? {
                // The tenant's own by that name: it leads nowhere, and is its own business.
                Some(there) if !volume::is_shown(&there) => return Ok(Outcome::Done),
                Some(there) => there,
                None => client.create(&PERSISTENT_VOLUMES, None, &wanted).await?,
            },
        };
        if there.is_deleting() {
            return Ok(Outcome::Done);
        }
        if let Some(patch) = volume::drift(&wanted, &there) {
            let patch = Patch::Merge(pods::with_uid(patch, &there));
            match client.patch(&PERSISTENT_VOLUMES, None, &key.name, &patch).await {
                // What can't change in place is made anew.
                Err(error) if error.is_invalid() => {
                    self.delete_shown_volume(key, &there).await?;
                    return Err(error.into());
                }
                patched => drop(pods::found(patched)?),
            }
        }
        let status = volume::status(&volume);
        if there.tree()["status"]["phase"] != status["phase"] {
            let patch = Patch::Merge(pods::with_uid(json!({"status": status}), &there));
            let patched = client
                .patch_sub(&PERSISTENT_VOLUMES, None, &key.name, "status", &patch)
                .await;
            pods::found(patched)?;
        }
        Ok(Outcome::Done)
    }

    /// The tenant's claim that has the super cluster's volume, if one of this tenant has it.
    fn claim_of(&self, tenant: &Tenant, key: &ObjectKey, volume: &Object) -> Option<Object> {
        let (super_claim, origin) = self.super_claim_of(volume)?;
        if origin.plane != tenant.plane {
            return None;
        }
        let claim = self
            .sides
            .above
            .claims
            .get(&key.plane.object(&origin.namespace, super_claim.name()))?;
        (claim.uid() == origin.uid).then_some(claim)
    }

    /// The synced super claim that has the volume, and whose it is.
    pub(super) fn super_claim_of(&self, volume: &Object) -> Option<(Object, Origin)> {
        let reference = &volume.tree()["spec"]["claimRef"];
        let (namespace, name) = (reference["namespace"].as_str()?, reference["name"].as_str()?);
        let claim = self
            .sides
            .below
            .claims
            .get(&self.options.super_plane.object(namespace, name))?;
        let is_its = reference["uid"].as_str() == Some(claim.uid())
            && claim.tree()["spec"]["volumeName"].as_str() == Some(volume.name());
        let origin = Origin::of(&claim, &self.options.super_cluster.id)?;
        is_its.then_some((claim, origin))
    }

    async fn delete_shown_volume(&self, key: &ObjectKey, volume: &Object) -> Result<(), SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        // What is bound is held by the plane's own protection of volumes in use.
        if volume.tree()["status"]["phase"] == "Bound" {
            let released = Patch::Merge(pods::with_uid(json!({"status": {"phase": "Released"}}), volume));
            let patched = client
                .patch_sub(&PERSISTENT_VOLUMES, None, &key.name, "status", &released)
                .await;
            pods::found(patched)?;
        }
        if volume.is_deleting() {
            return Ok(());
        }
        let options = DeleteOptions::of_uid(volume.uid());
        pods::gone(client.delete(&PERSISTENT_VOLUMES, None, &key.name, &options).await)
    }
}
