//! Which volumes will do for which claims: pure matching, shared by who binds them and who places Pods.

use serde_json::Value;

use crate::{Object, placement, quantity::Quantity, selector::LabelSelector};

/// A claim that has its volume for good.
pub fn is_bound(claim: &Object) -> bool {
    claim.annotation("pv.kubernetes.io/bind-completed").is_some()
}

/// Whether a volume can be reached from a node.
pub fn is_reached(volume: &Object, node: &Object) -> bool {
    let required = &volume.tree()["spec"]["nodeAffinity"]["required"];
    required.is_null() || placement::node_selector_matches(required, node.tree())
}

/// Whether nobody has a volume, or it is kept for this claim.
pub fn is_free_for(volume: &Object, claim: &Object) -> bool {
    let reference = &volume.tree()["spec"]["claimRef"];
    let kept_for = |field: &str, value: &str| reference[field].as_str().unwrap_or("") == value;
    let free = reference.is_null()
        || (kept_for("namespace", claim.namespace())
            && kept_for("name", claim.name())
            && (kept_for("uid", "") || kept_for("uid", claim.uid())));
    free && !volume.is_deleting()
        && matches!(
            volume.tree()["status"]["phase"].as_str(),
            Some("Available" | "Pending") | None
        )
}

/// Whether a volume is what a claim asks for: class, modes, size, labels.
pub fn satisfies(volume: &Object, claim: &Object) -> bool {
    let (has, wants) = (&volume.tree()["spec"], &claim.tree()["spec"]);
    let class = |spec: &Value| spec["storageClassName"].as_str().unwrap_or("").to_owned();
    let mode = |spec: &Value| spec["volumeMode"].as_str().unwrap_or("Filesystem").to_owned();
    let modes = items(&has["accessModes"]);
    let selector = &wants["selector"];
    let selected =
        selector.is_null() || LabelSelector::from_json(selector).is_ok_and(|selector| selector.matches_object(volume));
    let asked = Quantity::from_json(&wants["resources"]["requests"]["storage"]).map_or(0, |quantity| quantity.value());
    class(has) == class(wants)
        && mode(has) == mode(wants)
        && items(&wants["accessModes"]).iter().all(|mode| modes.contains(mode))
        && selected
        && capacity(volume) >= asked
}

/// In bytes.
pub fn capacity(volume: &Object) -> i64 {
    Quantity::from_json(&volume.tree()["spec"]["capacity"]["storage"]).map_or(0, |quantity| quantity.value())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_will_do_if_class_modes_size_and_labels_agree() {
        let volume = Object::from_tree(json!({"metadata": {"name": "v", "labels": {"tier": "fast"}}, "spec": {
            "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "c"}}));
        let claim = |change: fn(&mut Value)| {
            let mut tree = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "c",
                "resources": {"requests": {"storage": "1Gi"}}, "selector": {"matchLabels": {"tier": "fast"}}}});
            change(&mut tree);
            Object::from_tree(tree)
        };

        assert!(satisfies(&volume, &claim(|_| {})));
        let wrong: [fn(&mut Value); 5] = [
            |claim| claim["spec"]["storageClassName"] = json!("d"),
            |claim| claim["spec"]["accessModes"] = json!(["ReadWriteMany"]),
            |claim| claim["spec"]["resources"]["requests"]["storage"] = json!("3Gi"),
            |claim| claim["spec"]["selector"] = json!({"matchLabels": {"tier": "slow"}}),
            |claim| claim["spec"]["volumeMode"] = json!("Block"),
        ];
        for change in wrong {
            assert!(!satisfies(&volume, &claim(change)));
        }
    }

    #[test]
    fn a_volume_is_free_for_whom_it_is_kept() {
        let claim = Object::from_tree(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}}));
        let kept = |reference: Value| {
            let volume = Object::from_tree(json!({"metadata": {"name": "v"}, "spec": {"claimRef": reference},
                "status": {"phase": "Available"}}));
            is_free_for(&volume, &claim)
        };

        assert!(kept(Value::Null));
        assert!(kept(json!({"namespace": "n", "name": "c"})));
        assert!(kept(json!({"namespace": "n", "name": "c", "uid": "u"})));
        assert!(!kept(json!({"namespace": "n", "name": "c", "uid": "other"})));
        assert!(!kept(json!({"namespace": "n", "name": "d"})));
    }
}
