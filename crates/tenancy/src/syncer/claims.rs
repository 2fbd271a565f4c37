//! PersistentVolumeClaims: down with their amounts, up with what they have got.

use api::{Object, resource::PERSISTENT_VOLUME_CLAIMS};
use client::{DeleteOptions, ObjectKey, Outcome, Patch};
use serde_json::{Value, json};

use super::{Handled, Shared, SyncError, pods, sides};
use crate::{
    identity::{Origin, Tenant},
    translate::claim,
};

impl Shared {
    pub(super) async fn handle_claim(&self, tenant: &Tenant, key: &ObjectKey) -> Handled {
        let namespace = self.tenant_namespace(key).await?;
        let claim = self.sides.above.claims.get(key);
        let below = namespace
            .as_ref()
            .map(|namespace| tenant.super_namespace(namespace.name(), namespace.uid()));
        let mut here = None;
        for (_, copy) in self.sides.below.claims.by_index(sides::ORIGIN, &sides::origin_key(key)) {
            let is_this = claim.as_ref().is_some_and(|claim| Origin::owns(tenant, claim, &copy));
            if is_this && Some(copy.namespace()) == below.as_deref() {
                here = Some(copy);
            } else if is_this || self.is_gone_above(&PERSISTENT_VOLUME_CLAIMS, key, &copy).await? {
                self.delete_super_claim(&copy).await?;
            }
        }
        let (Some(namespace), Some(claim), Some(below)) = (namespace, claim, below) else {
            return Ok(Outcome::Done);
        };
        if claim.is_deleting() || namespace.is_deleting() {
            if let Some(here) = here {
                self.delete_super_claim(&here).await?;
            }
            return Ok(Outcome::Done);
        }
        let offered = |name: &str| self.is_offered(&self.sides.below.storage_classes, name);
        match (here, claim::down(tenant, &claim, &below, &offered)) {
            (Some(here), wanted) => {
                // A class that is no longer offered takes no volume away.
                if let Some(patch) = wanted.ok().and_then(|wanted| claim::drift(&wanted, &here)) {
                    self.patch_super_claim(key, &claim, &here, patch).await?;
                }
                self.claim_up(key, &claim, claim::up(&claim, &here)).await?;
            }
            (None, Err(refusal)) => self.tell(key, &claim, "NotSynced", &refusal).await,
            (None, Ok(_)) if claim::had_volume(&claim) => {
                // Only a live answer may say that data is lost.
                match pods::found(
                    self.super_client
                        .get(&PERSISTENT_VOLUME_CLAIMS, Some(&below), &key.name)
                        .await,
                )? {
                    Some(there) if Origin::owns(tenant, &claim, &there) => {}
                    _ => {
                        let status = claim::lost(&claim);
                        self.claim_up(key, &claim, claim::Up { main: None, status }).await?;
                    }
                }
            }
            (None, Ok(wanted)) => {
                // The cache may not show yet that it has had a volume, so its plane is asked: an empty one must not take its place.
                let client = self.options.planes.client(&key.plane)?;
                let now = pods::found(client.get(&PERSISTENT_VOLUME_CLAIMS, key.namespace(), &key.name).await)?;
                let is_new = |now: &Object| now.uid() == claim.uid() && !now.is_deleting() && !claim::had_volume(now);
                if now.is_some_and(|now| is_new(&now)) {
                    let below = self.ensure_super_namespace(tenant, &key.plane, &namespace).await?;
                    self.create_super_claim(tenant, key, &claim, &wanted, &below).await?;
                }
            }
        }
        Ok(Outcome::Done)
    }

    async fn create_super_claim(
        &self,
        tenant: &Tenant,
        key: &ObjectKey,
        claim: &Object,
        wanted: &Value,
        below: &str,
    ) -> Result<(), SyncError> {
        let created = self
            .super_client
            .create(&PERSISTENT_VOLUME_CLAIMS, Some(below), wanted)
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => {
                match pods::found(
                    self.super_client
                        .get(&PERSISTENT_VOLUME_CLAIMS, Some(below), &key.name)
                        .await,
                )? {
                    Some(there) if Origin::owns(tenant, claim, &there) => Ok(()),
                    Some(there) if Origin::of(&there, &tenant.super_id).is_some_and(|o| o.plane == tenant.plane) => {
                        self.delete_super_claim(&there).await?;
                        Err(SyncError::NotYet(format!(
                            "an older claim {} has to leave the super cluster",
                            key.name
                        )))
                    }
                    Some(_) => {
                        let why = "the super cluster has another claim by this name";
                        self.tell(key, claim, "NotSynced", why).await;
                        Ok(())
                    }
                    None => Err(SyncError::NotYet(format!("an older claim {} has just left", key.name))),
                }
            }
            Err(error) => {
                self.tell_refusal(key, claim, below, &error).await;
                Err(error.into())
            }
        }
    }

    async fn patch_super_claim(
        &self,
        key: &ObjectKey,
        claim: &Object,
        here: &Object,
        patch: Value,
    ) -> Result<(), SyncError> {
        let patch = Patch::Merge(pods::with_uid(patch, here));
        let patched = self
            .super_client
            .patch(&PERSISTENT_VOLUME_CLAIMS, Some(here.namespace()), here.name(), &patch)
            .await;
        if let Err(error) = patched {
            self.tell_refusal(key, claim, here.namespace(), &error).await;
            return Err(error.into());
        }
        Ok(())
    }

    async fn claim_up(&self, key: &ObjectKey, claim: &Object, up: claim::Up) -> Result<(), SyncError> {
        let client = self.options.planes.client(&key.plane)?;
        if let Some(main) = up.main {
            let patch = Patch::Merge(pods::with_uid(main, claim));
            let patched = client
                .patch(&PERSISTENT_VOLUME_CLAIMS, key.namespace(), &key.name, &patch)
                .await;
            pods::found(patched)?;
        }
        if let Some(status) = up.status {
            let patch = Patch::Json(json!([
                {"op": "test", "path": "/metadata/uid", "value": claim.uid()},
                {"op": "add", "path": "/status", "value": status},
            ]));
            let patched = client
                .patch_sub(&PERSISTENT_VOLUME_CLAIMS, key.namespace(), &key.name, "status", &patch)
                .await;
            match patched {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn delete_super_claim(&self, claim: &Object) -> Result<(), SyncError> {
        if claim.is_deleting() {
            return Ok(());
        }
        let options = DeleteOptions::of_uid(claim.uid());
        let deleted = self
            .super_client
            .delete(
                &PERSISTENT_VOLUME_CLAIMS,
                Some(claim.namespace()),
                claim.name(),
                &options,
            )
            .await;
        pods::gone(deleted)
    }
}
