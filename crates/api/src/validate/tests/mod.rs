use serde_json::{Value, json};

use super::*;
use crate::resource::{self, CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, PODS, SECRETS, SERVICES};

mod admission;
mod batch;
mod namespaces;
mod pods;
mod scaling;
mod services;
mod storage;
mod workloads;

/// An object as it reaches validation: decoded and defaulted.
fn prepared(resource: &Resource, mut object: Value) -> Value {
    crate::decode::decode(resource, &mut object).unwrap();
    crate::default::apply(resource, &mut object);
    object
}

fn lines(causes: Vec<Cause>) -> Vec<String> {
    causes
        .into_iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn created(resource: &Resource, object: Value) -> Vec<String> {
    lines(create(resource, &prepared(resource, object)))
}

fn updated(resource: &Resource, new: Value, old: Value) -> Vec<String> {
    lines(update(
        resource,
        Part::Main,
        &prepared(resource, new),
        &prepared(resource, old),
    ))
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "one", "namespace": "web"}, "spec": spec})
}

fn container() -> Value {
    json!({"name": "a", "image": "b"})
}

#[test]
fn a_plain_pod_is_accepted() {
    let found = created(
        &PODS,
        pod(json!({
            "containers": [{
                "name": "a",
                "image": "b",
                "ports": [{"containerPort": 80, "name": "http"}],
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "envFrom": [{"configMapRef": {"name": "c"}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"httpGet": {"port": "http"}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            }],
            "initContainers": [{"name": "i", "image": "b"}, {"name": "s", "image": "b", "restartPolicy": "Always"}],
            "volumes": [
                {"name": "v", "emptyDir": {}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "c"}}]}},
                {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            ],
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        })),
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_pod_is_refused_in_upstreams_words() {
    for (spec, expected) in [
        (json!({}), "spec.containers: Required value"),
        (
            json!({"containers": [{"image": "b"}]}),
            "spec.containers[0].name: Required value",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            "spec.containers[0].image: Required value",
        ),
        (
            json!({"containers": [container(), container()]}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"containers": [container()], "restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 70000}]}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"containers": [{"name": "a", "image": "b", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"containers": [{"name": "a", "image": "b", "livenessProbe": {}}]}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"containers": [{"name": "a", "image": "b", "env": [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            json!({"containers": [container()], "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"containers": [container()], "initContainers": [{"name": "i", "image": "b", "readinessProbe": {"exec": {"command": ["a"]}}}]}),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            json!({"containers": [container()], "tolerations": [{"operator": "Equal", "value": "a"}]}),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            json!({"containers": [container()], "dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
    ] {
        assert_eq!(created(&PODS, pod(spec.clone())), [expected], "{spec}");
    }
}

#[test]
fn metadata_is_checked() {
    let found = |metadata: Value| created(&CONFIG_MAPS, json!({"metadata": metadata}));

    assert_eq!(
        found(json!({"namespace": "a"})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    assert!(
        found(json!({"name": "A", "namespace": "a"}))[0]
            .starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of")
    );
    assert_eq!(found(json!({"name": "a"})), ["metadata.namespace: Required value"]);
    assert!(
        found(json!({"name": "a", "namespace": "a", "labels": {"a b": "c"}}))[0]
            .starts_with("metadata.labels: Invalid value: \"a b\": name part must consist of")
    );
    assert_eq!(
        found(json!({"name": "a", "namespace": "a", "annotations": {"a": "x".repeat(256 * 1024)}})),
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
    assert_eq!(
        found(
            json!({"name": "a", "namespace": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]})
        ),
        ["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"]
    );
    assert_eq!(
        created(&NAMESPACES, json!({"metadata": {"name": "a", "namespace": "b"}})),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    assert_eq!(
        created(&resource::CLUSTER_ROLES, json!({"metadata": {"name": "system:x"}})),
        Vec::<String>::new()
    );
}

fn deployment(change: impl FnOnce(&mut Value)) -> Value {
    let mut deployment = json!({
        "metadata": {"name": "web", "namespace": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()]}},
        },
    });
    change(&mut deployment);
    deployment
}

#[test]
fn a_selector_must_match_its_template_and_stay() {
    assert_eq!(created(&DEPLOYMENTS, deployment(|_| {})), Vec::<String>::new());
    assert_eq!(
        created(
            &DEPLOYMENTS,
            deployment(|d| d["spec"]["selector"]["matchLabels"]["app"] = json!("db"))
        ),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template \
             `labels`"
        ]
    );
    assert_eq!(
        created(&DEPLOYMENTS, deployment(|d| d["spec"]["selector"] = json!({}))),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    );
    assert_eq!(
        created(&DEPLOYMENTS, deployment(|d| d["spec"]["replicas"] = json!(-1))),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
    let other = deployment(|d| {
        d["spec"]["selector"]["matchLabels"] = json!({"app": "x"});
        d["spec"]["template"]["metadata"]["labels"] = json!({"app": "x"});
    });
    assert_eq!(
        updated(&DEPLOYMENTS, other, deployment(|_| {})),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"]
    );
}

#[test]
fn of_a_pod_only_the_image_may_change() {
    let old = pod(json!({"containers": [container()]}));
    let with = |spec| updated(&PODS, pod(spec), old.clone());

    assert_eq!(
        with(json!({"containers": [{"name": "a", "image": "c:2", "imagePullPolicy": "Always"}]})),
        Vec::<String>::new()
    );
    assert_eq!(
        with(json!({"containers": [container(), {"name": "b", "image": "b"}]})),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let changed = with(json!({"containers": [container()], "nodeName": "n"}));
    assert!(
        changed[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"),
        "{changed:?}"
    );
    let tolerating = with(json!({"containers": [container()], "tolerations": [{"key": "a", "operator": "Exists"}]}));
    assert_eq!(tolerating, Vec::<String>::new());
}

#[test]
fn services_are_checked() {
    let service = |spec: Value| {
        created(
            &SERVICES,
            json!({"metadata": {"name": "web", "namespace": "web"}, "spec": spec}),
        )
    };

    assert_eq!(
        service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}})),
        Vec::<String>::new()
    );
    assert_eq!(service(json!({})), ["spec.ports: Required value"]);
    assert_eq!(
        service(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
        Vec::<String>::new()
    );
    assert_eq!(
        service(json!({"ports": [{"port": 80}, {"port": 81}]})),
        [
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value"
        ]
    );
    assert_eq!(
        service(json!({"type": "Foo", "ports": [{"port": 80}]})),
        [
            "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""
        ]
    );
    assert_eq!(
        service(json!({"ports": [{"port": 80, "nodePort": 30000}]})),
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
    );
    let at = |address: &str| json!({"metadata": {"name": "web", "namespace": "web"}, "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}});
    assert_eq!(
        updated(&SERVICES, at("10.0.0.2"), at("10.0.0.1")),
        ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
    );
}

#[test]
fn immutable_data_stays() {
    let map =
        |data: &str| json!({"metadata": {"name": "c", "namespace": "web"}, "immutable": true, "data": {"a": data}});

    assert_eq!(updated(&CONFIG_MAPS, map("1"), map("1")), Vec::<String>::new());
    assert_eq!(
        updated(&CONFIG_MAPS, map("2"), map("1")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert!(
        created(
            &CONFIG_MAPS,
            json!({"metadata": {"name": "c", "namespace": "w"}, "data": {"a b": ""}})
        )[0]
        .starts_with("data[a b]: Invalid value: \"a b\": a valid config key must consist of")
    );
    assert_eq!(
        created(
            &SECRETS,
            json!({"metadata": {"name": "c", "namespace": "w"}, "type": "kubernetes.io/tls", "data": {}})
        ),
        ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
    );
}

#[test]
fn roles_and_bindings_are_checked() {
    let role = |rule: Value| {
        created(
            &resource::ROLES,
            json!({"metadata": {"name": "r", "namespace": "w"}, "rules": [rule]}),
        )
    };
    assert_eq!(
        role(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})),
        Vec::<String>::new()
    );
    assert_eq!(
        role(json!({"verbs": ["get"], "apiGroups": [""]})),
        ["rules[0].resources: Required value: resource rules must supply at least one resource"]
    );
    let binding = |role: &str| json!({"metadata": {"name": "b", "namespace": "w"}, "roleRef": {"kind": "Role", "name": role}, "subjects": [{"kind": "User", "name": "u"}]});
    assert_eq!(created(&resource::ROLE_BINDINGS, binding("r")), Vec::<String>::new());
    assert_eq!(
        updated(&resource::ROLE_BINDINGS, binding("s"), binding("r")),
        [
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"s\"}: cannot change roleRef"
        ]
    );
}

#[test]
fn the_refusal_names_kind_and_name() {
    let info = crate::table::find("apps", "v1", "deployments").unwrap();
    let object = prepared(&DEPLOYMENTS, deployment(|d| d["spec"]["replicas"] = json!(-1)));

    let status = refusal(info, &object, create(&DEPLOYMENTS, &object)).unwrap();

    assert_eq!(
        status.message,
        "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[test]
fn anything_decoded_can_be_validated() {
    for info in crate::table::resources() {
        let resource = &info.resource;
        for object in [
            json!({}),
            json!({"metadata": {"name": "a", "namespace": "b"}}),
            json!({"metadata": {"name": "a"}, "spec": {}}),
            json!({"spec": {"template": {"spec": {"containers": [{}], "volumes": [{}]}}}}),
        ] {
            let mut object = object;
            if crate::decode::decode(resource, &mut object).is_ok() {
                crate::default::apply(resource, &mut object);
                create(resource, &object);
                update(resource, Part::Main, &object, &json!({"metadata": {}}));
                update(resource, Part::Status, &object, &object);
            }
        }
    }
}
