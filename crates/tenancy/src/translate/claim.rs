//! A tenant's PersistentVolumeClaim as a super claim, and what comes of it back up. The super cluster provisions and binds.

use api::{Object, quantity::Quantity};
use serde_json::{Map, Value, json};

use super::{pod_drift::metadata_drift, status::rename};
use crate::identity::{self, Tenant};

/// What of a claim's spec goes down. A volume or a selector of volumes would choose among the operator's (and other tenants')
/// disks; which one it gets is told in the status.
const FIELDS: [&str; 4] = ["accessModes", "resources", "storageClassName", "volumeMode"];

/// What of a claim's status comes up.
const STATUS_FIELDS: [&str; 5] = ["accessModes", "allocatedResources", "capacity", "conditions", "phase"];

/// What makes a claim bound, on both sides.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The super claim, or why there can be none, in the tenant's words.
pub fn down(
    tenant: &Tenant,
    claim: &Object,
    super_namespace: &str,
    is_offered: &dyn Fn(&str) -> bool,
) -> Result<Value, String> {
    let source = &claim.tree()["spec"];
    match source["storageClassName"].as_str() {
        Some(class) if is_offered(class) => {}
        None => {
            return Err(
                "a claim has to name one of this cluster's storage classes: none of them is the default".to_owned(),
            );
        }
        Some(class) => return Err(format!("storage class {class:?} is not one of this cluster's")),
    }
    if !source["dataSource"].is_null() || !source["dataSourceRef"].is_null() {
        return Err("volumes that begin as copies are not supported in this cluster yet".to_owned());
    }
    let spec: Map<String, Value> = FIELDS
        .iter()
        .filter(|field| !source[**field].is_null())
        .map(|field| ((*field).to_owned(), source[*field].clone()))
        .collect();
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": identity::super_metadata(tenant, claim, super_namespace),
        "spec": spec,
    }))
}

/// A merge patch that makes the super claim follow; `None` if it does. Of the spec only the amount may change, and only grow.
pub fn drift(wanted: &Value, observed: &Object) -> Option<Value> {
    let mut patch = Map::new();
    let metadata = metadata_drift(&wanted["metadata"], &observed.tree()["metadata"]);
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    let amount = |tree: &Value| {
        tree["spec"]["resources"]["requests"]["storage"]
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok())
    };
    if let (Some(ours), Some(theirs)) = (amount(wanted), amount(observed.tree()))
        && ours > theirs
    {
        let storage = &wanted["spec"]["resources"]["requests"]["storage"];
        patch.insert(
            "spec".to_owned(),
            json!({"resources": {"requests": {"storage": storage}}}),
        );
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// What of the tenant's claim has to change so that it tells what the super claim has become.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Up {
    /// A merge patch of the claim itself: the volume that it has got.
    pub main: Option<Value>,
    /// Its new status.
    pub status: Option<Value>,
}

pub fn up(claim: &Object, super_claim: &Object) -> Up {
    let mut up = Up::default();
    let volume = super_claim.tree()["spec"]["volumeName"].as_str().unwrap_or("");
    let is_bound = super_claim.annotation(BIND_COMPLETED).is_some();
    let has = claim.tree()["spec"]["volumeName"].as_str().unwrap_or("");
    if !volume.is_empty() && (has.is_empty() || is_bound && claim.annotation(BIND_COMPLETED).is_none()) {
        let mut main = json!({"metadata": {"annotations": {}}, "spec": {"volumeName": volume}});
        if is_bound {
            main["metadata"]["annotations"][BIND_COMPLETED] = "yes".into();
        }
        up.main = Some(main);
    }
    let mut status: Map<String, Value> = STATUS_FIELDS
        .iter()
        .filter(|field| !super_claim.tree()["status"][**field].is_null())
        .map(|field| ((*field).to_owned(), super_claim.tree()["status"][*field].clone()))
        .collect();
    status.entry("phase").or_insert_with(|| "Pending".into());
    let mut status = Value::Object(status);
    rename(&mut status, super_claim.namespace(), claim.namespace());
    rename(&mut status, super_claim.uid(), claim.uid());
    if status != claim.tree()["status"] {
        up.status = Some(status);
    }
    up
}

/// The status of a claim whose super claim somebody has deleted: what was in its volume may be gone, and an empty one in its
/// place would hide that.
pub fn lost(claim: &Object) -> Option<Value> {
    let mut status = claim.tree()["status"].clone();
    status["phase"] = "Lost".into();
    (status != claim.tree()["status"]).then_some(status)
}

/// The claim has (or had) a volume.
pub fn had_volume(claim: &Object) -> bool {
    claim.annotation(BIND_COMPLETED).is_some()
        || matches!(claim.tree()["status"]["phase"].as_str(), Some("Bound" | "Lost"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::acme;

    fn claim(spec: Value) -> Object {
        Object::from_tree(
            json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u"}, "spec": spec,
            "status": {"phase": "Pending"}}),
        )
    }

    fn down_of(spec: Value) -> Result<Value, String> {
        down(&acme(), &claim(spec), "s", &|class| class == "fast")
    }

    #[test]
    fn a_claim_asks_for_an_amount_of_a_class_and_for_no_disk_by_name() {
        let down = down_of(
            json!({"storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "of-globex", "selector": {"matchLabels": {"a": "b"}}}),
        );

        let spec = &down.unwrap()["spec"];
        assert!(spec.get("volumeName").is_none() && spec.get("selector").is_none());
        assert_eq!(spec["resources"]["requests"]["storage"], "1Gi");
        for refused in [
            json!({}),
            json!({"storageClassName": ""}),
            json!({"storageClassName": "secret"}),
            json!({"storageClassName": "fast", "dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}),
        ] {
            assert!(down_of(refused.clone()).is_err(), "{refused}");
        }
    }

    #[test]
    fn an_amount_only_grows() {
        let wanted = |amount: &str| json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": amount}}}});
        let observed = Object::from_tree(wanted("1Gi"));

        assert_eq!(drift(&wanted("1024Mi"), &observed), None);
        assert_eq!(drift(&wanted("1Mi"), &observed), None);
        assert_eq!(
            drift(&wanted("2Gi"), &observed),
            Some(json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}))
        );
    }

    #[test]
    fn a_bound_claim_tells_its_volume_and_nothing_of_the_super_cluster() {
        let below = Object::from_tree(json!({
            "metadata": {"name": "data", "namespace": "acme-shop-x", "uid": "super-uid", "annotations": {BIND_COMPLETED: "yes"}},
            "spec": {"volumeName": "pvc-1"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": [{"message": "acme-shop-x/data"}]}}));

        let up = up(&claim(json!({})), &below);

        assert_eq!(up.main.unwrap()["spec"]["volumeName"], "pvc-1");
        let status = up.status.unwrap();
        assert_eq!(status["conditions"][0]["message"], "shop/data");
        assert_eq!(status["phase"], "Bound");
    }
}
