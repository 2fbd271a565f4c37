//! Kinds that configure the plane itself: namespaces, bindings, admission, quotas, definitions.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{at, each, inside, set, set_number, set_over};

pub(super) fn default_namespace(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].as_str().unwrap_or("").to_owned();
    if !name.is_empty() {
        set_over(
            at(at(namespace, "metadata"), "labels"),
            "kubernetes.io/metadata.name",
            name,
        );
    }
    set(at(namespace, "status"), "phase", "Active");
}

/// `stringData` is for writing only: it goes over `data`, and is never kept (upstream does it in conversion).
pub(super) fn default_secret(secret: &mut Value) {
    set(secret, "type", "Opaque");
    let plain = secret.as_object_mut().and_then(|secret| secret.remove("stringData"));
    for (key, value) in plain.iter().filter_map(Value::as_object).flatten() {
        if let Some(value) = value.as_str() {
            set_over(at(secret, "data"), key, STANDARD.encode(value));
        }
    }
}

pub(super) fn default_node(node: &mut Value) {
    if let Some(status) = inside(node, "status")
        && status["allocatable"].is_null()
        && status["capacity"].is_object()
    {
        let capacity = status["capacity"].clone();
        set(status, "allocatable", capacity);
    }
}

pub(super) fn default_limit_range(range: &mut Value) {
    for item in each(at(range, "spec"), "limits") {
        if item["type"] != "Container" {
            continue;
        }
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let Some(amounts) = item[from].as_object().cloned() else {
                continue;
            };
            for (name, amount) in amounts {
                set(at(item, to), &name, amount);
            }
        }
    }
}

pub(super) fn default_binding(binding: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = inside(binding, "roleRef") {
        set(role, "apiGroup", GROUP);
    }
    for subject in each(binding, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", GROUP);
        }
    }
}

pub(super) fn default_autoscaler(autoscaler: &mut Value, version: &str) {
    let spec = at(autoscaler, "spec");
    set(spec, "minReplicas", 1);
    if version == "v1" {
        return;
    }
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        let metrics = json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }]);
        set_over(spec, "metrics", metrics);
    }
    if let Some(behavior) = inside(spec, "behavior") {
        let up = at(behavior, "scaleUp");
        set(up, "stabilizationWindowSeconds", 0);
        set(up, "selectPolicy", "Max");
        let policies = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        set(up, "policies", policies);
        let down = at(behavior, "scaleDown");
        set(down, "selectPolicy", "Max");
        set(
            down,
            "policies",
            json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
}

pub(super) fn default_admission(object: &mut Value, plural: &str) {
    match plural {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            for webhook in each(object, "webhooks") {
                default_webhook(webhook);
                if plural.starts_with("mutating") {
                    set(webhook, "reinvocationPolicy", "Never");
                }
            }
        }
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            let spec = at(object, "spec");
            set(spec, "failurePolicy", "Fail");
            if let Some(resources) = inside(spec, "matchConstraints") {
                default_match(resources);
            }
        }
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
            if let Some(resources) = inside(at(object, "spec"), "matchResources") {
                default_match(resources);
            }
        }
        _ => {}
    }
}

fn default_webhook(webhook: &mut Value) {
    set(webhook, "failurePolicy", "Fail");
    set(webhook, "timeoutSeconds", 10);
    set(webhook, "matchPolicy", "Equivalent");
    set(webhook, "namespaceSelector", json!({}));
    set(webhook, "objectSelector", json!({}));
    for rule in each(webhook, "rules") {
        set(rule, "scope", "*");
    }
    if let Some(client) = inside(webhook, "clientConfig")
        && let Some(service) = inside(client, "service")
    {
        set(service, "port", 443);
    }
}

fn default_match(resources: &mut Value) {
    set(resources, "matchPolicy", "Equivalent");
    set(resources, "namespaceSelector", json!({}));
    set(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in each(resources, list) {
            set(rule, "scope", "*");
        }
    }
}

pub(super) fn default_flow_control(object: &mut Value, plural: &str) {
    let spec = at(object, "spec");
    if plural == "flowschemas" {
        set_number(spec, "matchingPrecedence", 1000);
        return;
    }
    if let Some(exempt) = inside(spec, "exempt") {
        set(exempt, "nominalConcurrencyShares", 0);
        set(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = inside(spec, "limited") {
        set(limited, "nominalConcurrencyShares", 30);
        set(limited, "lendablePercent", 0);
        if let Some(response) = inside(limited, "limitResponse")
            && let Some(queuing) = inside(response, "queuing")
        {
            set_number(queuing, "handSize", 8);
            set_number(queuing, "queues", 64);
            set_number(queuing, "queueLengthLimit", 50);
        }
    }
}

pub(super) fn default_devices(object: &mut Value, plural: &str) {
    let claim = match plural {
        "resourceclaims" => inside(object, "spec"),
        "resourceclaimtemplates" => inside(object, "spec").and_then(|spec| inside(spec, "spec")),
        _ => None,
    };
    let Some(devices) = claim.and_then(|spec| inside(spec, "devices")) else {
        return;
    };
    for request in each(devices, "requests") {
        if let Some(exactly) = inside(request, "exactly") {
            default_request(exactly);
        }
        each(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    set(request, "allocationMode", "ExactCount");
    if request["allocationMode"] == "ExactCount" {
        set_number(request, "count", 1);
    }
}

pub(super) fn default_definition(definition: &mut Value) {
    let spec = at(definition, "spec");
    let names = at(spec, "names");
    let kind = names["kind"].as_str().unwrap_or("").to_owned();
    if !kind.is_empty() {
        set(names, "singular", kind.to_lowercase());
        set(names, "listKind", format!("{kind}List"));
    }
    set(spec, "conversion", json!({"strategy": "None"}));
    if let Some(webhook) = inside(at(spec, "conversion"), "webhook")
        && let Some(client) = inside(webhook, "clientConfig")
        && let Some(service) = inside(client, "service")
    {
        set(service, "port", 443);
    }
    let stored = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    let status = at(definition, "status");
    if status["storedVersions"].as_array().is_none_or(Vec::is_empty)
        && let Some(stored) = stored
    {
        set_over(status, "storedVersions", json!([stored]));
    }
}
