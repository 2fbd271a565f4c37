//! Webhooks, classes, network policies.

use serde_json::{Value, json};

use super::{created, updated};
use crate::resource::{Resource, Scope};

fn cluster(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource::built_in(group, "v1", plural, kind, Scope::Cluster)
}

#[test]
fn webhooks_are_refused_in_upstreams_words() {
    let kind = cluster(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    );
    let found = |change: Value| {
        let mut webhook = json!({
            "name": "check.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://example.com/check"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        webhook
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        created(&kind, json!({"metadata": {"name": "w"}, "webhooks": [webhook]}))
    };
    for (change, expected) in [
        (json!({}), vec![]),
        (
            json!({"name": "check"}),
            vec![
                "webhooks[0].name: Invalid value: \"check\": should be a domain with at least three segments separated by dots",
            ],
        ),
        (
            json!({"sideEffects": "Some"}),
            vec!["webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""],
        ),
        (
            json!({"timeoutSeconds": 60}),
            vec!["webhooks[0].timeoutSeconds: Invalid value: 60: the timeout value must be between 1 and 30 seconds"],
        ),
        (
            json!({"clientConfig": {}}),
            vec!["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
        ),
        (
            json!({"clientConfig": {"url": "http://example.com"}}),
            vec![
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired \
                 format: https://host[/path]",
            ],
        ),
        (
            json!({"admissionReviewVersions": ["v2"]}),
            vec![
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ],
        ),
        (
            json!({"rules": [{"operations": ["*", "CREATE"], "apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods/*", "pods/log"]}]}),
            vec![
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify \
                 other operations",
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not \
                 specify pods/log",
            ],
        ),
    ] {
        assert_eq!(found(change.clone()), expected, "{change}");
    }
}

#[test]
fn classes_name_who_serves_them() {
    let ingress = cluster("networking.k8s.io", "ingressclasses", "IngressClass");
    let runtime = cluster("node.k8s.io", "runtimeclasses", "RuntimeClass");
    let class = |controller: &str| json!({"metadata": {"name": "c"}, "spec": {"controller": controller}});
    let run = |handler: &str| json!({"metadata": {"name": "c"}, "handler": handler});

    assert_eq!(created(&ingress, class("example.com/proxy")), Vec::<String>::new());
    assert_eq!(created(&ingress, class("")), ["spec.controller: Required value"]);
    assert_eq!(
        created(&ingress, class("proxy")),
        ["spec.controller: Invalid value: \"proxy\": must be a domain-prefixed path (such as \"acme.io/foo\")"]
    );
    assert_eq!(
        updated(&ingress, class("example.com/a"), class("example.com/b")),
        ["spec.controller: Invalid value: \"example.com/a\": field is immutable"]
    );
    assert_eq!(created(&runtime, run("")), ["handler: Required value"]);
    assert_eq!(
        updated(&runtime, run("vm"), run("container")),
        ["handler: Invalid value: \"vm\": field is immutable"]
    );
}

#[test]
fn network_policies_name_ports_and_peers() {
    let kind = Resource::built_in(
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        "NetworkPolicy",
        Scope::Namespaced,
    );
    let rule = |rule: Value| {
        created(
            &kind,
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"podSelector": {}, "ingress": [rule]}}),
        )
    };
    let first = "spec.ingress[0]";

    assert_eq!(
        rule(json!({"ports": [{"port": 90, "endPort": 80}, {"port": "web", "endPort": 80}, {"endPort": 80}]})),
        [
            format!("{first}.ports[0].endPort: Invalid value: 90: must be greater than or equal to `port`"),
            format!("{first}.ports[1].endPort: Invalid value: 80: may not be specified when `port` is non-numeric"),
            format!("{first}.ports[2].endPort: Invalid value: 80: may not be specified when `port` is not specified"),
        ]
    );
    assert_eq!(
        rule(json!({"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}}]})),
        [
            format!("{first}.from[0]: Required value: must specify a peer"),
            format!(
                "{first}.from[1].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"
            ),
        ]
    );
}

#[test]
fn a_signing_request_says_what_for_and_by_whom() {
    let kind = cluster(
        "certificates.k8s.io",
        "certificatesigningrequests",
        "CertificateSigningRequest",
    );
    let request = |usages: Value, signer: &str| json!({"metadata": {"name": "r"}, "spec": {"request": "YQ==", "usages": usages, "signerName": signer}});

    assert_eq!(
        created(
            &kind,
            request(json!(["client auth"]), "kubernetes.io/kube-apiserver-client")
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        created(&kind, request(json!([]), "signer")),
        [
            "spec.usages: Required value",
            "spec.signerName: Invalid value: \"signer\": must be a fully qualified domain and path of the form \
             'example.com/signer-name'"
        ]
    );
    assert_eq!(
        created(&kind, request(json!(["signing", "signing"]), "local/x")),
        [
            "spec.usages[1]: Duplicate value: \"signing\"",
            "spec.signerName: Invalid value: \"local\": should be a domain with at least two segments separated by dots"
        ]
    );
}
