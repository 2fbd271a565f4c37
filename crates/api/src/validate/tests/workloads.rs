//! What keeps Pods running.

use serde_json::{Value, json};

use super::{created, updated};
use crate::resource::{DAEMON_SETS, DEPLOYMENTS, REPLICATION_CONTROLLERS, Resource, STATEFUL_SETS};

fn workload(spec: Value) -> Value {
    let mut whole = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "b"}]},
        },
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"metadata": {"name": "web", "namespace": "n"}, "spec": whole})
}

fn template(spec: Value) -> Value {
    let mut pod = json!({"containers": [{"name": "a", "image": "b"}]});
    pod.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}})
}

fn check(resource: &Resource, table: Vec<(Value, Vec<&str>)>) {
    for (spec, expected) in table {
        assert_eq!(created(resource, workload(spec.clone())), expected, "{spec}");
    }
}

#[test]
fn a_deployment_is_refused_in_upstreams_words() {
    check(
        &DEPLOYMENTS,
        vec![
            (
                template(json!({"restartPolicy": "Never"})),
                vec!["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
            (
                template(json!({"activeDeadlineSeconds": 5})),
                vec![
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not \
                     Supported",
                ],
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}),
                vec!["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxUnavailable": "lots"}}}),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"lots\": a valid percent string must be \
                     a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is \
                     '[0-9]+%')",
                ],
            ),
            (
                json!({"minReadySeconds": 10, "progressDeadlineSeconds": 5}),
                vec!["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
            ),
        ],
    );
}

#[test]
fn a_stateful_set_is_refused_in_upstreams_words() {
    check(
        &STATEFUL_SETS,
        vec![
            (
                json!({"serviceName": "web", "template": template(json!({"subdomain": "Not.Checked"}))["template"]}),
                vec![],
            ),
            (
                json!({"podManagementPolicy": "Sometimes"}),
                vec!["spec.podManagementPolicy: Invalid value: \"Sometimes\": must be 'OrderedReady' or 'Parallel'"],
            ),
            (
                json!({"ordinals": {"start": -1}}),
                vec!["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy \
                     'RollingUpdate'",
                ],
            ),
            (
                json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]}),
                vec![
                    "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                ],
            ),
        ],
    );
    let changed = updated(
        &STATEFUL_SETS,
        workload(json!({"serviceName": "other", "replicas": 3})),
        workload(json!({"serviceName": "web"})),
    );
    assert_eq!(
        changed,
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
             forbidden"
        ]
    );
}

#[test]
fn daemon_sets_and_replication_controllers_too() {
    check(
        &DAEMON_SETS,
        vec![
            (
                json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is \
                     non-zero",
                ],
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
        ],
    );
    check(
        &REPLICATION_CONTROLLERS,
        vec![
            (json!({"selector": {"app": "web"}}), vec![]),
            (
                json!({"selector": {"app": "db"}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template \
                     `labels`",
                ],
            ),
        ],
    );
}
