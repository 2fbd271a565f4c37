//! The PersistentVolume that a tenant's claim has got, as the tenant sees it. Where it really is stays below.

use api::{Object, PlaneId};
use serde_json::{Map, Value, json};

use crate::identity::{self, SHOWN};

/// What of a volume's spec goes up.
const FIELDS: [&str; 6] = [
    "accessModes",
    "capacity",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeMode",
];

/// The driver that tenants' volumes name: nothing is mounted by it, since Pods run below.
const DRIVER: &str = "tenancy.mangrove.io";

/// The tenant's volume for `volume`, which the super claim of `claim` has.
pub fn up(plane: PlaneId, volume: &Object, claim: &Object) -> Value {
    let shown = identity::shown(plane, volume.uid());
    let mut spec: Map<String, Value> = FIELDS
        .iter()
        .filter(|field| !volume.tree()["spec"][**field].is_null())
        .map(|field| ((*field).to_owned(), volume.tree()["spec"][*field].clone()))
        .collect();
    spec.insert("csi".to_owned(), json!({"driver": DRIVER, "volumeHandle": shown}));
    spec.insert(
        "claimRef".to_owned(),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name(), "namespace": claim.namespace(),
            "uid": claim.uid()}),
    );
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": volume.name(), "labels": {SHOWN: shown}},
        "spec": spec,
    })
}

/// Whether the tenant's object by this name shows one of the super cluster's, rather than being the tenant's own.
pub fn is_shown(object: &Object) -> bool {
    object.label(SHOWN).is_some()
}

/// A merge patch that makes the tenant's volume follow; `None` if it does.
pub fn drift(wanted: &Value, observed: &Object) -> Option<Value> {
    let mut spec = Map::new();
    for field in FIELDS.into_iter().chain(["claimRef"]) {
        let (ours, theirs) = (&wanted["spec"][field], &observed.tree()["spec"][field]);
        let is_same = match field {
            // The server adds to it.
            "claimRef" => ["name", "namespace", "uid"]
                .iter()
                .all(|part| ours[part] == theirs[part]),
            _ => ours == theirs,
        };
        if !is_same {
            spec.insert(field.to_owned(), ours.clone());
        }
    }
    let mut patch = Map::new();
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), spec.into());
    }
    let shown = &wanted["metadata"]["labels"][SHOWN];
    if observed.label(SHOWN) != shown.as_str() {
        patch.insert("metadata".to_owned(), json!({"labels": {SHOWN: shown}}));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The volume's status: its phase, and no reasons of machines.
pub fn status(volume: &Object) -> Value {
    json!({"phase": volume.tree()["status"]["phase"].as_str().unwrap_or("Pending")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_says_how_much_and_for_whom_and_not_where() {
        let volume = Object::from_tree(json!({
            "metadata": {"name": "pvc-1", "uid": "secret-uid", "annotations": {"operator": "secret"}},
            "spec": {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/secret"}, "storageClassName": "fast",
                "mountOptions": ["secret"], "claimRef": {"namespace": "secret", "name": "data", "uid": "secret"}}}));
        let claim = Object::from_tree(json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u"}}));

        let up = up("a".repeat(16).parse().unwrap(), &volume, &claim);

        assert!(!up.to_string().contains("secret"), "{up}");
        assert_eq!(up["spec"]["claimRef"]["uid"], "u");
        assert_eq!(drift(&up, &Object::from_tree(up.clone())), None);
    }
}
