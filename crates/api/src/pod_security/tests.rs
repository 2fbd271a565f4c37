use serde_json::json;

use super::*;

fn found(level: Level, spec: Value) -> String {
    shown(&violations(level, &json!({}), &spec))
}

fn with(security: Value) -> Value {
    json!({"containers": [{"name": "a", "securityContext": security}]})
}

/// A container that restricted allows.
fn harmless() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    })
}

#[test]
fn a_plain_pod_is_fine_for_baseline_and_not_for_restricted() {
    let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});

    assert_eq!(found(Level::Baseline, plain.clone()), "");
    assert_eq!(
        found(Level::Restricted, plain),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(found(Level::Restricted, with(harmless())), "");
}

#[test]
fn each_rule_of_baseline_has_its_words() {
    for (spec, expected) in [
        (
            json!({"hostNetwork": true, "hostPID": true, "containers": []}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            with(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            with(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}], "containers": []}),
            "hostPath volumes (volume \"h\")",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            with(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            with(json!({"seLinuxOptions": {"type": "x_t", "user": "u"}})),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"x_t\"; user may not \
             be set)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": []}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}, "containers": []}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            with(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": []}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ] {
        assert_eq!(found(Level::Baseline, spec.clone()), expected, "{spec}");
        assert_eq!(found(Level::Privileged, spec), "");
    }
}

#[test]
fn each_rule_of_restricted_has_its_words() {
    let but = |field: &str, value: Value| {
        let mut security = harmless();
        security[field] = value;
        with(security)
    };
    let mut nfs = with(harmless());
    nfs["volumes"] = json!([{"name": "n", "nfs": {"server": "s"}}, {"name": "e", "emptyDir": {}}]);
    for (spec, expected) in [
        (
            but("runAsNonRoot", json!(false)),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            but("runAsUser", json!(0)),
            "runAsUser=0 (container \"a\" must not set runAsUser=0)",
        ),
        (
            but(
                "capabilities",
                json!({"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}),
            ),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in \
             securityContext.capabilities.add)",
        ),
        (
            nfs,
            "restricted volume types (volume \"n\" uses restricted volume type \"nfs\")",
        ),
    ] {
        assert_eq!(found(Level::Restricted, spec.clone()), expected, "{spec}");
    }
    let mut own_users = but("runAsUser", json!(0));
    own_users["hostUsers"] = json!(false);
    assert_eq!(found(Level::Restricted, own_users), "");
}

#[test]
fn labels_say_what_is_enforced_and_what_is_warned_of() {
    let policy = |labels: Value| {
        let policy = Policy::of_labels(&labels);
        (policy.enforce.shown(), policy.warn.shown())
    };
    let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());

    assert_eq!(policy(json!(null)), pair("privileged:latest", "privileged:latest"));
    assert_eq!(
        policy(
            json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"})
        ),
        pair("restricted:v1.30", "restricted:v1.30")
    );
    assert_eq!(
        policy(json!({"pod-security.kubernetes.io/warn": "baseline"})),
        pair("privileged:latest", "baseline:latest")
    );
    let causes = check_labels(&json!({
        "pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "1.2",
    }));
    let lines: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    assert_eq!(
        lines,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, \
             baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.2\": must be \"latest\" or \
             \"v1.x\""
        ]
    );
}
