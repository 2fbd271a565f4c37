//! What of a status must be written so that the plane has it.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

/// The strategic merge patch that makes `current` (the status in the plane) what is `wanted`, or `None` if it is so.
/// `lastTransitionTime` of a condition that this node wrote in the same state is not a difference.
pub fn patch(pod: &Pod, current: &Value, wanted: &Value) -> Option<Value> {
    let mut changed = Map::new();
    for (key, value) in wanted.as_object()? {
        let differs = match key.as_str() {
            "conditions" => value.as_array().into_iter().flatten().any(|condition| {
                let found = current["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|other| other["type"] == condition["type"]);
                found.is_none_or(|other| {
                    ["status", "reason", "message"]
                        .iter()
                        .any(|field| blank(&other[field]) != blank(&condition[field]))
                })
            }),
            // Set once; admission or an agent before this one may have been first.
            "startTime" | "qosClass" => blank(&current[key]).is_none() && !value.is_null(),
            _ => normal(&current[key]) != normal(value),
        };
        if differs {
            changed.insert(key.clone(), value.clone());
        }
    }
    if changed.is_empty() {
        return None;
    }
    // These lists merge by key; an address that is gone must go.
    for key in ["podIPs", "hostIPs"] {
        if let Some(Value::Array(list)) = changed.get_mut(key) {
            list.push(json!({"$patch": "replace"}));
        }
    }
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": changed}))
}

fn blank(value: &Value) -> Option<&Value> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        other => Some(other),
    }
}

/// Without what means nothing: nulls, empty objects and empty texts, which a server may leave out.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: Map<String, Value> = map
                .iter()
                .map(|(key, value)| (key.clone(), normal(value)))
                .filter(|(_, value)| {
                    !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()) && *value != json!("")
                })
                .collect();
            if map.is_empty() {
                Value::Null
            } else {
                Value::Object(map)
            }
        }
        Value::Array(list) => Value::Array(list.iter().map(normal).collect()),
        Value::String(text) if text.is_empty() => Value::Null,
        other => other.clone(),
    }
}
