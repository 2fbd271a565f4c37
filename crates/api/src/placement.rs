//! Which Pods may go to which Nodes: taints and tolerations, node selectors and affinity. Pure matching, shared by
//! whoever has to agree on it (scheduler, DaemonSets, projections).

use serde_json::Value;

/// Whether one toleration covers one taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let effect = text(&toleration["effect"]);
    if !effect.is_empty() && effect != text(&taint["effect"]) {
        return false;
    }
    let key = text(&toleration["key"]);
    if !key.is_empty() && key != text(&taint["key"]) {
        return false;
    }
    match toleration["operator"].as_str().unwrap_or("") {
        "" | "Equal" => !key.is_empty() && text(&toleration["value"]) == text(&taint["value"]),
        "Exists" => true,
        operator @ ("Lt" | "Gt") => {
            let number = |value: &Value| text(value).parse::<i64>().ok();
            match (number(&toleration["value"]), number(&taint["value"])) {
                (Some(bound), Some(actual)) if operator == "Lt" => actual < bound,
                (Some(bound), Some(actual)) => actual > bound,
                _ => false,
            }
        }
        _ => false,
    }
}

/// The first taint with one of the effects that no toleration covers. `tolerations` and `taints` are the lists of
/// a Pod's and a Node's spec; null stands for none.
pub fn untolerated<'a>(tolerations: &Value, taints: &'a Value, effects: &[&str]) -> Option<&'a Value> {
    let tolerations = tolerations.as_array().map_or(&[][..], Vec::as_slice);
    taints
        .as_array()
        .into_iter()
        .flatten()
        .filter(|taint| taint["effect"].as_str().is_some_and(|effect| effects.contains(&effect)))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a Node satisfies a Pod's `spec.nodeSelector` and its required node affinity.
pub fn node_matches(pod_spec: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selector = pod_spec["nodeSelector"].as_object();
    let selected = selector
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = &pod_spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    selected && (affinity.is_null() || node_selector_matches(affinity, node))
}

/// A `NodeSelector`: one of its terms must match. Without terms nothing matches.
pub fn node_selector_matches(selector: &Value, node: &Value) -> bool {
    selector["nodeSelectorTerms"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|term| term_matches(term, node))
}

/// One `NodeSelectorTerm`; an empty one matches nothing. Preferred affinities are terms with a weight.
pub fn term_matches(term: &Value, node: &Value) -> bool {
    let expressions = term["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
    let fields = term["matchFields"].as_array().map_or(&[][..], Vec::as_slice);
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = &node["metadata"]["labels"];
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let field = |key: &str| {
        (key == "metadata.name")
            .then(|| node["metadata"]["name"].as_str())
            .flatten()
    };
    expressions
        .iter()
        .all(|expression| requirement_matches(expression, label))
        && fields.iter().all(|expression| requirement_matches(expression, field))
}

fn requirement_matches<'a>(requirement: &Value, look_up: impl Fn(&str) -> Option<&'a str>) -> bool {
    let value = look_up(requirement["key"].as_str().unwrap_or(""));
    let values = requirement["values"].as_array().map_or(&[][..], Vec::as_slice);
    let listed = |value: &str| values.iter().any(|candidate| candidate == value);
    let compare = || {
        let bound = values.first()?.as_str()?.parse::<i64>().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match requirement["operator"].as_str().unwrap_or("") {
        "In" => value.is_some_and(listed),
        "NotIn" => value.is_none_or(|value| !listed(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|(value, bound)| value > bound),
        "Lt" => compare().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations_cover_taints_as_upstream_has_it() {
        let taint = json!({"key": "gpu", "value": "a", "effect": "NoSchedule"});
        for (toleration, expected) in [
            (
                json!({"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoSchedule"}),
                true,
            ),
            (json!({"key": "gpu", "value": "a"}), true),
            (json!({"key": "gpu", "value": "b"}), false),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (
                json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "cpu", "operator": "Exists"}), false),
            (json!({}), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration}");
        }
    }

    #[test]
    fn only_taints_with_the_asked_effects_repel() {
        let taints = json!([{"key": "a", "effect": "PreferNoSchedule"}, {"key": "b", "effect": "NoExecute"}]);

        let found = untolerated(&Value::Null, &taints, &["NoSchedule", "NoExecute"]);

        assert_eq!(found.unwrap()["key"], "b");
        assert_eq!(
            untolerated(&json!([{"operator": "Exists"}]), &taints, &["NoExecute"]),
            None
        );
    }

    #[test]
    fn selectors_and_affinity_must_both_hold() {
        let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}});
        let term = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let spec = |terms: Value| {
            json!({
                "nodeSelector": {"zone": "a"},
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
            })
        };

        assert!(node_matches(&json!({}), &node));
        assert!(!node_matches(&json!({"nodeSelector": {"zone": "b"}}), &node));
        assert!(node_matches(&spec(json!([term("cores", "Gt", json!(["4"]))])), &node));
        assert!(!node_matches(&spec(json!([term("cores", "Lt", json!(["8"]))])), &node));
        assert!(node_matches(
            &spec(json!([
                term("x", "Exists", json!([])),
                term("x", "NotIn", json!(["1"]))
            ])),
            &node
        ));
        assert!(!node_matches(&spec(json!([{}])), &node));
        assert!(node_matches(
            &spec(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])),
            &node
        ));
    }
}
