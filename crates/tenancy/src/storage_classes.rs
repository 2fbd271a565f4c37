//! The super cluster's public StorageClasses as tenants see them. Nothing is stored: a class is translated when it is read, as
//! nodes are.

use api::{Object, PlaneId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::identity::is_public;

/// The space of uids of projected classes.
const UIDS: Uuid = Uuid::from_u128(0x6d61_6e67_726f_7665_8000_7374_6f72_6167);

/// Who asks for a class by none.
const DEFAULT_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";

/// What of a class goes up. Its parameters name the operator's disks and Secrets; where volumes may be is the super cluster's.
const FIELDS: [&str; 4] = [
    "allowVolumeExpansion",
    "provisioner",
    "reclaimPolicy",
    "volumeBindingMode",
];

/// The class as the plane sees it; `None` if it is not public.
pub fn show(plane: PlaneId, class: &Object) -> Option<Object> {
    if !is_public(class) {
        return None;
    }
    let mut annotations = Map::new();
    if let Some(default) = class.annotation(DEFAULT_ANNOTATION) {
        annotations.insert(DEFAULT_ANNOTATION.to_owned(), default.into());
    }
    let mut shown = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {
            "name": class.name(),
            "uid": Uuid::new_v5(&UIDS, format!("{plane}/{}", class.uid()).as_bytes()).to_string(),
            "creationTimestamp": class.tree()["metadata"]["creationTimestamp"],
            "annotations": annotations,
        },
    });
    for field in FIELDS {
        let value: &Value = &class.tree()[field];
        if !value.is_null() {
            shown[field] = value.clone();
        }
    }
    Some(Object::from_tree(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_class_shows_what_claims_need_and_not_where_the_disks_are() {
        let class = |labels: Value| {
            Object::from_tree(json!({"metadata": {"name": "fast", "uid": "u", "labels": labels,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {DEFAULT_ANNOTATION: "true", "operator/note": "secret"}},
                "provisioner": "example.org/disk", "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
                "parameters": {"path": "secret"}, "mountOptions": ["secret"]}))
        };
        let plane = "a".repeat(16).parse().unwrap();

        assert_eq!(show(plane, &class(json!({}))), None);
        let shown = show(plane, &class(json!({"tenancy.mangrove.io/public": "true"}))).unwrap();
        let text = shown.tree().to_string();
        assert!(!text.contains("secret") && !text.contains("\"u\""), "{text}");
        assert_eq!(shown.tree()["provisioner"], "example.org/disk");
        assert_eq!(shown.annotation(DEFAULT_ANNOTATION), Some("true"));
    }
}
