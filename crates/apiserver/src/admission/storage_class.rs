//! `DefaultStorageClass`: a claim that names no class gets the plane's default one.

use api::{Object, Resource, Status, resource::Scope};
use serde_json::Value;

use super::Attempt;

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
