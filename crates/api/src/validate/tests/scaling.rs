//! Autoscalers and disruption budgets.

use serde_json::{Value, json};

use super::created;
use crate::resource::{Resource, Scope};

const AUTOSCALERS: Resource = Resource::built_in(
    "autoscaling",
    "v2",
    "horizontalpodautoscalers",
    "HorizontalPodAutoscaler",
    Scope::Namespaced,
);

fn autoscaler(spec: Value) -> Vec<String> {
    let mut whole =
        json!({"maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    created(
        &AUTOSCALERS,
        json!({"metadata": {"name": "h", "namespace": "n"}, "spec": whole}),
    )
}

#[test]
fn an_autoscaler_is_refused_in_upstreams_words() {
    for (spec, expected) in [
        (json!({}), vec![]),
        (
            json!({"maxReplicas": 0}),
            vec![
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            json!({"minReplicas": 9}),
            vec!["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
        ),
        (
            json!({"metrics": [{"type": "Resource"}]}),
            vec!["spec.metrics[0].resource: Required value: must populate information for the given metric source"],
        ),
        (
            json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]}),
            vec![
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw \
                 value or a target utilization",
            ],
        ),
        (
            json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 9999, "policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}}}),
            vec![
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 9999: must be less than or equal to 3600",
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            ],
        ),
    ] {
        assert_eq!(autoscaler(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn a_budget_says_one_thing() {
    let budgets = Resource::built_in(
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        Scope::Namespaced,
    );
    let budget = |spec: Value| {
        created(
            &budgets,
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}),
        )
    };

    assert_eq!(
        budget(json!({"minAvailable": 1, "maxUnavailable": "150%"})),
        [
            "spec: Invalid value: {\"maxUnavailable\":\"150%\",\"minAvailable\":1}: minAvailable and maxUnavailable \
             cannot be both set",
            "spec.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%"
        ]
    );
}
