//! What bounds a namespace: quotas, limits, finalizers.

use serde_json::{Value, json};

use super::{created, updated};
use crate::resource::{EVENTS, NAMESPACES, NODES, Resource, Scope};

const QUOTAS: Resource = Resource::built_in("", "v1", "resourcequotas", "ResourceQuota", Scope::Namespaced);
const LIMITS: Resource = Resource::built_in("", "v1", "limitranges", "LimitRange", Scope::Namespaced);

fn quota(spec: Value) -> Value {
    json!({"metadata": {"name": "q", "namespace": "n"}, "spec": spec})
}

#[test]
fn quotas_bound_what_can_be_counted() {
    for (spec, expected) in [
        (
            json!({"hard": {"pods": "1", "count/deployments.apps": "3", "requests.example.com/gpu": "1"}}),
            vec![],
        ),
        (
            json!({"hard": {"widgets": "1"}}),
            vec![
                "spec.hard[widgets]: Invalid value: \"widgets\": must be a standard resource type or fully qualified",
                "spec.hard[widgets]: Invalid value: \"widgets\": must be a standard resource for quota",
            ],
        ),
        (
            json!({"hard": {"pods": "1500m"}}),
            vec!["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
        ),
        (
            json!({"hard": {"cpu": "-1"}}),
            vec!["spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        ),
        (
            json!({"hard": {"pods": "1"}, "scopes": ["Sometimes"]}),
            vec!["spec.scopes: Invalid value: [\"Sometimes\"]: unsupported scope"],
        ),
        (
            json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
            vec!["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        ),
        (
            json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}),
            vec!["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
        ),
        (
            json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "In"},
            ]}}),
            vec![
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when \
                 `operator` is 'In' or 'NotIn' for scope selector",
            ],
        ),
    ] {
        assert_eq!(created(&QUOTAS, quota(spec.clone())), expected, "{spec}");
    }
    assert_eq!(
        updated(
            &QUOTAS,
            quota(json!({"hard": {"pods": "1"}, "scopes": ["Terminating"]})),
            quota(json!({"hard": {"pods": "1"}})),
        ),
        ["spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"]
    );
}

#[test]
fn limits_go_from_small_to_large() {
    let at = "spec.limits[0]";
    for (limit, expected) in [
        (
            json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
            vec![
                format!("{at}.min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"),
                format!(
                    "{at}.defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1"
                ),
                format!("{at}.default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1"),
            ],
        ),
        (
            json!({"type": "Pod", "default": {"cpu": "1"}}),
            vec![format!(
                "{at}.default: Forbidden: may not be specified when `type` is 'Pod'"
            )],
        ),
        (
            json!({"type": "PersistentVolumeClaim"}),
            vec![format!(
                "{at}.limits: Required value: either minimum or maximum storage value is required, but neither was provided"
            )],
        ),
        (
            json!({"type": "Sandbox"}),
            vec![format!(
                "{at}.type: Invalid value: \"Sandbox\": must be a standard limit type or fully qualified"
            )],
        ),
        (
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}),
            vec![format!(
                "{at}.maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"
            )],
        ),
        (
            json!({"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}}),
            vec![format!(
                "{at}.defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1"
            )],
        ),
    ] {
        let range = json!({"metadata": {"name": "l", "namespace": "n"}, "spec": {"limits": [limit]}});
        assert_eq!(created(&LIMITS, range.clone()), expected, "{range}");
    }
}

#[test]
fn a_namespaces_finalizers_have_an_owner() {
    let namespace = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes", "example.com/x", "mine"]}});

    assert_eq!(
        created(&NAMESPACES, namespace),
        [
            "spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully \
             qualified"
        ]
    );
}

#[test]
fn an_event_lies_where_its_object_does() {
    let event = |namespace: &str, about: Value| {
        let event = json!({"metadata": {"name": "e", "namespace": namespace}, "involvedObject": about});
        created(&EVENTS, event)
    };

    assert_eq!(
        event("n", json!({"kind": "Pod", "namespace": "n"})),
        Vec::<String>::new()
    );
    assert_eq!(event("default", json!({"kind": "Node"})), Vec::<String>::new());
    assert_eq!(
        event("n", json!({"kind": "Pod", "namespace": "m"})),
        ["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"]
    );
}

#[test]
fn a_node_keeps_its_addresses() {
    let node = |cidr: &str| json!({"metadata": {"name": "n"}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});

    assert_eq!(
        updated(&NODES, node("10.2.0.0/24"), node("10.1.0.0/24")),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
}
