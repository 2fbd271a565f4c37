//! `DefaultStorageClass` and `PersistentVolumeClaimResize`: a claim that names no class gets the plane's default one, and
//! grows only if its class lets it.

use api::{Object, Resource, Status, quantity::Quantity, resource::Scope};
use serde_json::Value;

use super::Attempt;
use crate::registry::refuse_forbidden;

const STORAGE_CLASSES: Resource =
    Resource::built_in("storage.k8s.io", "v1", "storageclasses", "StorageClass", Scope::Cluster);

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

pub(super) async fn admit(attempt: &Attempt<'_>, tree: &mut Value) -> Result<(), Status> {
    let named = !tree["spec"]["storageClassName"].is_null()
        || tree["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].is_string();
    if named || !tree["spec"].is_object() {
        return Ok(());
    }
    let (_, classes) = attempt
        .registry
        .list_objects(attempt.place.plane, &STORAGE_CLASSES, None)
        .await?;
    let newest = |class: &&Object| {
        class.tree()["metadata"]["creationTimestamp"]
            .as_str()
            .map(str::to_owned)
    };
    let default = classes
        .iter()
        .filter(|class| class.annotation(IS_DEFAULT) == Some("true"))
        .max_by_key(newest);
    if let Some(class) = default {
        tree["spec"]["storageClassName"] = class.name().into();
    }
    Ok(())
}

/// `old` is the claim as it is.
pub(super) async fn check_growth(attempt: &Attempt<'_>, tree: &Value, old: &Value) -> Result<(), Status> {
    let place = &attempt.place;
    let size = |claim: &Value| Quantity::from_json(&claim["spec"]["resources"]["requests"]["storage"]);
    if size(tree) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(refuse_forbidden(
            place.kind,
            place.name,
            "Only bound persistent volume claims can be expanded",
        ));
    }
    let class = tree["spec"]["storageClassName"].as_str().unwrap_or_default();
    let (_, classes) = attempt
        .registry
        .list_objects(place.plane, &STORAGE_CLASSES, None)
        .await?;
    let expands = classes
        .iter()
        .any(|known| known.name() == class && known.tree()["allowVolumeExpansion"] == true);
    if expands {
        return Ok(());
    }
    Err(refuse_forbidden(
        place.kind,
        place.name,
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}
