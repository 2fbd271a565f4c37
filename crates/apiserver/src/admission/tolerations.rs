//! `DefaultTolerationSeconds`: a Pod outlives five minutes of a node's absence.

use serde_json::{Value, json};

const SECONDS: i64 = 300;

pub(super) fn admit(tree: &mut Value) {
    let spec = &mut tree["spec"];
    if !spec.is_object() {
        return;
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |toleration: &Value| {
            let is_for = |field: &str, value: &str| {
                matches!(toleration[field].as_str(), None | Some("")) || toleration[field] == value
            };
            is_for("key", key) && is_for("effect", "NoExecute")
        };
        let tolerations = &mut spec["tolerations"];
        if !tolerations.is_array() {
            *tolerations = json!([]);
        }
        if let Some(tolerations) = tolerations.as_array_mut()
            && !tolerations.iter().any(tolerates)
        {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_otherwise_is_heard() {
        let mut plain = json!({"spec": {}});
        let mut own = json!({"spec": {"tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
        ]}});
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});

        for tree in [&mut plain, &mut own, &mut all] {
            admit(tree);
        }

        assert_eq!(plain["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(own["spec"]["tolerations"][0]["tolerationSeconds"], 1);
        assert_eq!(own["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
