use serde_json::{Value, json};

use super::*;
use crate::resource::{self, DEPLOYMENTS, NAMESPACES, PODS, SERVICES};

fn defaulted(resource: &Resource, mut object: Value) -> Value {
    apply(resource, &mut object);
    object
}

#[test]
fn a_pod_gets_upstreams_defaults() {
    let pod = defaulted(
        &PODS,
        json!({
            "metadata": {"name": "one"},
            "spec": {
                "serviceAccount": "robot",
                "containers": [{
                    "name": "a",
                    "image": "registry:5000/web",
                    "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                }],
                "volumes": [{"name": "c", "configMap": {"name": "c"}}, {"name": "e"}],
            },
        }),
    );

    insta::assert_json_snapshot!(pod);
}

#[test]
fn a_deployment_gets_upstreams_defaults() {
    let deployment = defaulted(
        &DEPLOYMENTS,
        json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:1"}]}}}}),
    );

    insta::assert_json_snapshot!(deployment);
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, tag) in [
        ("a", Some("latest")),
        ("a:latest", Some("latest")),
        ("a:1", Some("1")),
        ("host:5000/a", Some("latest")),
        ("host:5000/a:2", Some("2")),
        ("a@sha256:00", None),
        ("a:latest@sha256:00", Some("latest")),
        ("", None),
    ] {
        assert_eq!(image_tag(image), tag, "{image}");
    }
}

#[test]
fn a_service_gets_upstreams_defaults() {
    let service = defaulted(
        &SERVICES,
        json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "web"}]}}),
    );

    assert_eq!(
        service["spec"],
        json!({
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "ports": [
                {"port": 80, "protocol": "TCP", "targetPort": 80},
                {"port": 81, "protocol": "TCP", "targetPort": "web"},
            ],
        })
    );
    let balancer = defaulted(
        &SERVICES,
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
    );
    assert_eq!(balancer["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(
        balancer["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
        10800
    );
}

#[test]
fn a_namespace_is_labelled_with_its_name() {
    let namespace = defaulted(&NAMESPACES, json!({"metadata": {"name": "web"}}));

    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "web");
    assert_eq!(namespace["status"]["phase"], "Active");
}

#[test]
fn a_jobs_counts_default_together() {
    let job = |spec| defaulted(&resource::JOBS, json!({"spec": spec}))["spec"].clone();

    let both = job(json!({}));
    let parallel = job(json!({"parallelism": 3}));

    assert_eq!((&both["completions"], &both["parallelism"]), (&json!(1), &json!(1)));
    assert!(parallel["completions"].is_null());
    assert_eq!(both["backoffLimit"], 6);
    assert_eq!(both["podReplacementPolicy"], "TerminatingOrFailed");
}

#[test]
fn subjects_get_their_group() {
    let binding = defaulted(
        &resource::ROLE_BINDINGS,
        json!({
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}],
        }),
    );

    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(binding["subjects"][1].get("apiGroup").is_none());
}

#[test]
fn defaulting_twice_changes_nothing() {
    for info in crate::table::resources() {
        let resource = &info.resource;
        let mut once = json!({
            "metadata": {"name": "one"},
            "spec": {
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a"}]}},
                "containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}}}],
                "names": {"kind": "Foo"},
                "ports": [{"port": 1}],
                "behavior": {},
            },
        });
        apply(resource, &mut once);
        let mut twice = once.clone();
        apply(resource, &mut twice);
        assert_eq!(once, twice, "{resource:?}");
    }
}

#[test]
fn anything_can_be_defaulted() {
    for info in crate::table::resources() {
        for mut object in [
            json!(null),
            json!([]),
            json!({"spec": 1, "metadata": []}),
            json!({"spec": {"template": "a", "containers": {}}}),
        ] {
            apply(&info.resource, &mut object);
        }
    }
}

#[test]
fn string_data_of_a_secret_goes_over_its_data_and_is_not_kept() {
    let mut secret = json!({"stringData": {"a": "x", "b": "y"}, "data": {"a": "b2xk", "c": "a2VwdA=="}});

    apply(&crate::resource::SECRETS, &mut secret);

    assert_eq!(
        secret,
        json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ==", "c": "a2VwdA=="}})
    );
}
