//! Which objects a quota is for.

use serde_json::Value;

use crate::{Resource, strategy::qos_class};

/// Whether an object lies within all scopes of a quota. What has no scopes lies in none.
pub fn matches(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let selected = spec["scopeSelector"]["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut requirements = plain
        .map(|scope| (scope.as_str().unwrap_or(""), "Exists", &Value::Null))
        .chain(selected.map(|requirement| {
            (
                requirement["scopeName"].as_str().unwrap_or(""),
                requirement["operator"].as_str().unwrap_or(""),
                &requirement["values"],
            )
        }));
    requirements.all(|(scope, operator, values)| within(resource, object, scope, operator, values))
}

fn within(resource: &Resource, object: &Value, scope: &str, operator: &str, values: &Value) -> bool {
    let spec = &object["spec"];
    match (&*resource.group, &*resource.plural, scope) {
        ("", "pods", "Terminating") => is_terminating(spec),
        ("", "pods", "NotTerminating") => !is_terminating(spec),
        ("", "pods", "BestEffort") => qos_class(spec) == "BestEffort",
        ("", "pods", "NotBestEffort") => qos_class(spec) != "BestEffort",
        ("", "pods", "PriorityClass") => selects(&[spec["priorityClassName"].as_str().unwrap_or("")], operator, values),
        ("", "pods", "CrossNamespacePodAffinity") => crosses_namespaces(&spec["affinity"]),
        ("", "persistentvolumeclaims", "VolumeAttributesClass") => {
            let status = &object["status"];
            let names = [
                &spec["volumeAttributesClassName"],
                &status["currentVolumeAttributesClassName"],
                &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
            ];
            selects(&names.map(|name| name.as_str().unwrap_or("")), operator, values)
        }
        _ => false,
    }
}

/// Its end is set before it begins.
fn is_terminating(spec: &Value) -> bool {
    spec["activeDeadlineSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds >= 0)
}

fn selects(names: &[&str], operator: &str, values: &Value) -> bool {
    let named: Vec<&str> = names.iter().copied().filter(|name| !name.is_empty()).collect();
    let listed = |name: &&str| {
        values
            .as_array()
            .is_some_and(|values| values.iter().any(|value| value == name))
    };
    match operator {
        "Exists" => !named.is_empty(),
        "DoesNotExist" => named.is_empty(),
        "In" => named.iter().any(listed),
        "NotIn" => named.is_empty() || !named.iter().all(listed),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"]
            .as_array()
            .is_some_and(|namespaces| !namespaces.is_empty())
            || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let list = |field: &str| affinity[kind][field].as_array().into_iter().flatten();
        list("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || list("preferredDuringSchedulingIgnoredDuringExecution").any(|term| crosses(&term["podAffinityTerm"]))
    })
}
