//! Finalizers that objects have from their creation, as upstream's `StorageObjectInUseProtection` gives claims theirs.

use std::sync::{PoisonError, RwLock};

use api::Resource;
use serde_json::{Value, json};

use super::Attempt;
use crate::registry::Kind;

/// By resource of the super plane. There are few.
#[derive(Default)]
pub(crate) struct BirthFinalizers(RwLock<Vec<(Resource, String)>>);

impl BirthFinalizers {
    pub fn add(&self, resource: &Resource, finalizer: &str) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.push((resource.clone(), finalizer.to_owned()));
    }

    fn of(&self, kind: &Kind) -> Vec<String> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_kind = known
            .iter()
            .filter(|(resource, _)| kind.is(&resource.group, &resource.plural));
        of_kind.map(|(_, finalizer)| finalizer.clone()).collect()
    }
}

pub(super) fn admit(attempt: &Attempt<'_>, tree: &mut Value) {
    if !attempt.creates() || !attempt.place.plane.is_root() {
        return;
    }
    for finalizer in attempt.registry.birth_finalizers().of(attempt.place.kind) {
        let finalizers = &mut tree["metadata"]["finalizers"];
        match finalizers.as_array_mut() {
            Some(there) if there.iter().any(|one| *one == *finalizer) => {}
            Some(there) => there.push(finalizer.into()),
            None => *finalizers = json!([finalizer]),
        }
    }
}
