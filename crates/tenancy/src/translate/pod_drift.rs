//! Where a running super Pod differs from what its tenant Pod asks for now.

use serde_json::{Map, Value, json};

use crate::identity;
use api::{Object, quantity::Quantity};

/// What of a running super Pod has to follow its tenant Pod: labels, annotations, and the few fields of a spec that may
/// change. `None` if nothing differs. What the super cluster added on its own account stays (trap 29 of the field).
pub fn drift(wanted: &Value, observed: &Object) -> Option<Value> {
    let mut patch = Map::new();
    let metadata = metadata_drift(&wanted["metadata"], &observed.tree()["metadata"]);
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    let mut spec = Map::new();
    let theirs = &observed.tree()["spec"];
    if wanted["spec"]["activeDeadlineSeconds"] != theirs["activeDeadlineSeconds"] {
        let deadline = wanted["spec"]["activeDeadlineSeconds"].clone();
        spec.insert("activeDeadlineSeconds".to_owned(), deadline);
    }
    // Tolerations can only be added to; the super cluster adds its own.
    let mut tolerations = theirs["tolerations"].as_array().cloned().unwrap_or_default();
    let known = tolerations.len();
    for toleration in wanted["spec"]["tolerations"].as_array().into_iter().flatten() {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > known {
        spec.insert("tolerations".to_owned(), tolerations.into());
    }
    for field in ["initContainers", "containers"] {
        let changed: Vec<Value> = wanted["spec"][field]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|container| {
                let theirs = observed.tree()["spec"][field]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|candidate| candidate["name"] == container["name"]);
                theirs.is_some_and(|theirs| theirs["image"] != container["image"])
            })
            .map(|container| json!({"name": container["name"], "image": container["image"]}))
            .collect();
        if !changed.is_empty() {
            spec.insert(field.to_owned(), changed.into());
        }
    }
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), spec.into());
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Containers that came while the Pod ran and are not below yet.
pub fn new_ephemeral<'a>(wanted: &'a [Value], observed: &Object) -> Vec<&'a Value> {
    let there = observed.tree()["spec"]["ephemeralContainers"].as_array();
    let is_there = |container: &Value| there.into_iter().flatten().any(|one| one["name"] == container["name"]);
    wanted.iter().filter(|container| !is_there(container)).collect()
}

/// A strategic patch for the super Pod's `resize`, if the tenant asks for other amounts than its containers have. What the super
/// cluster has added (a default limit, say) stays.
pub fn resized(wanted: &Value, observed: &Object) -> Option<Value> {
    let mut spec = Map::new();
    for field in ["initContainers", "containers"] {
        let theirs = |name: &Value| {
            let containers = observed.tree()["spec"][field].as_array();
            containers.into_iter().flatten().find(|one| one["name"] == *name)
        };
        let mut changed = Vec::new();
        for container in wanted["spec"][field].as_array().into_iter().flatten() {
            let Some(theirs) = theirs(&container["name"]) else {
                continue;
            };
            let mut resources = Map::new();
            for amount in ["requests", "limits"] {
                let ours = container["resources"][amount].as_object().into_iter().flatten();
                let other: Map<String, Value> = ours
                    .filter(|(name, _)| RESIZED.contains(&name.as_str()))
                    .filter(|(name, value)| !is_equal(value, &theirs["resources"][amount][name.as_str()]))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                if !other.is_empty() {
                    resources.insert(amount.to_owned(), other.into());
                }
            }
            if !resources.is_empty() {
                changed.push(json!({"name": container["name"], "resources": resources}));
            }
        }
        if !changed.is_empty() {
            spec.insert(field.to_owned(), changed.into());
        }
    }
    (!spec.is_empty()).then(|| json!({"spec": spec}))
}

/// What can be resized in place.
const RESIZED: [&str; 2] = ["cpu", "memory"];

fn is_equal(one: &Value, other: &Value) -> bool {
    let quantity = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    one == other || quantity(one).is_some_and(|one| Some(one) == quantity(other))
}

/// Labels and annotations of `wanted` that `observed` lacks or has otherwise, as a merge patch; ones that the tenant has
/// taken away become null. Labels select, so none is left that the tenant has not set, but for the super cluster's own keys
/// (of `kubernetes.io` and `k8s.io`); annotations go only if we carried them down.
pub fn metadata_drift(wanted: &Value, observed: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    for field in ["labels", "annotations"] {
        let mut changed = Map::new();
        let empty = Map::new();
        let ours = wanted[field].as_object().unwrap_or(&empty);
        let theirs = observed[field].as_object().unwrap_or(&empty);
        for (key, value) in ours {
            if theirs.get(key) != Some(value) {
                changed.insert(key.clone(), value.clone());
            }
        }
        let applied: Vec<&str> = match field {
            "annotations" => theirs.get(identity::APPLIED).and_then(Value::as_str),
            _ => None,
        }
        .map_or_else(Vec::new, |keys| keys.split(',').collect());
        let is_left_over = |key: &str| match field {
            "labels" => !is_clusters_own(key),
            _ => applied.contains(&key) || key.starts_with(identity::PREFIX),
        };
        for key in theirs
            .keys()
            .filter(|key| !ours.contains_key(*key) && is_left_over(key))
        {
            changed.insert(key.clone(), Value::Null);
        }
        if !changed.is_empty() {
            patch.insert(field.to_owned(), changed.into());
        }
    }
    patch
}

/// Recommended labels are people's, though their domain is Kubernetes'.
fn is_clusters_own(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    domain != "app.kubernetes.io" && (domain.ends_with("kubernetes.io") || domain.ends_with("k8s.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(spec: Value) -> Value {
        json!({"metadata": {"name": "web-1", "labels": {"app": "web"}, "annotations": {"note": "x", identity::APPLIED: "note"}},
            "spec": spec})
    }

    #[test]
    fn an_unchanged_pod_has_no_drift_and_additions_of_the_super_cluster_stay() {
        let down = wanted(json!({"containers": [{"name": "c", "image": "i"}]}));
        let mut observed = down.clone();
        observed["metadata"]["annotations"]["cni.k8s.io/address"] = "x".into();
        observed["spec"]["nodeName"] = "n1".into();
        observed["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "sidecar", "image": "s"}));

        assert_eq!(drift(&down, &Object::from_tree(observed)), None);
    }

    #[test]
    fn a_new_toleration_is_added_to_what_is_there() {
        let (ours, theirs) = (
            json!({"key": "a", "operator": "Exists"}),
            json!({"key": "b", "operator": "Exists"}),
        );
        let down = wanted(json!({"containers": [], "tolerations": [ours]}));
        let mut observed = down.clone();
        observed["spec"]["tolerations"] = json!([theirs]);

        let patch = drift(&down, &Object::from_tree(observed)).unwrap();

        assert_eq!(patch["spec"], json!({"tolerations": [theirs, ours]}));
    }

    #[test]
    fn a_new_image_and_a_lost_label_are_drift() {
        let down = wanted(json!({"containers": [{"name": "c", "image": "new"}]}));
        let mut observed = down.clone();
        observed["spec"]["containers"][0]["image"] = "old".into();
        observed["metadata"]["labels"] = json!({"stray": "x"});

        let patch = drift(&down, &Object::from_tree(observed)).unwrap();

        assert_eq!(patch["spec"]["containers"], json!([{"name": "c", "image": "new"}]));
        assert_eq!(patch["metadata"]["labels"]["app"], "web");
        assert_eq!(patch["metadata"]["labels"]["stray"], Value::Null);
    }

    #[test]
    fn an_annotation_that_went_down_and_has_gone_above_goes_and_a_foreign_one_stays() {
        let mut down = wanted(json!({"containers": []}));
        let mut observed = down.clone();
        observed["metadata"]["annotations"]["cni.example/address"] = "10.0.0.1".into();
        down["metadata"]["annotations"] = json!({});

        let patch = drift(&down, &Object::from_tree(observed)).unwrap();

        assert_eq!(
            patch["metadata"]["annotations"],
            json!({"note": null, identity::APPLIED: null})
        );
    }

    #[test]
    fn trap_15_other_amounts_are_a_resize_and_what_the_super_cluster_added_stays() {
        let down =
            wanted(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}}]}));
        let mut observed = down.clone();
        observed["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "0.2", "memory": "1Gi"}, "limits": {"cpu": "1"}});
        assert_eq!(resized(&down, &Object::from_tree(observed.clone())), None);

        observed["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "100m".into();

        assert_eq!(
            resized(&down, &Object::from_tree(observed)),
            Some(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "200m"}}}]}}))
        );
    }

    #[test]
    fn trap_15_only_ephemeral_containers_that_are_not_below_are_new() {
        let wanted = [json!({"name": "a"}), json!({"name": "b"})];
        let observed = Object::from_tree(json!({"spec": {"ephemeralContainers": [{"name": "a"}]}}));

        assert_eq!(new_ephemeral(&wanted, &observed), vec![&wanted[1]]);
    }
}
