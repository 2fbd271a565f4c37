//! A table of what a Pod may not say: the spec besides one plain container, and the causes.

use serde_json::{Value, json};

use super::{created, pod, updated};
use crate::resource::PODS;

/// A Pod with these fields; what `a` says goes into its container.
fn with(mut spec: Value, container: Value) -> Value {
    let mut own = json!({"name": "a", "image": "b"});
    own.as_object_mut()
        .unwrap()
        .extend(container.as_object().unwrap().clone());
    spec["containers"] = json!([own]);
    pod(spec)
}

fn check(table: &[(Value, Value, &[&str])]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(spec, container, expected)| {
            let found = created(&PODS, with(spec.clone(), container.clone()));
            (found != *expected).then(|| format!("{spec} {container}: {found:#?} instead of {expected:#?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn resources() {
    let none = || json!({});
    check(&[
        (
            none(),
            json!({"resources": {"requests": {"memroy": "1"}}}),
            &[
                "spec.containers[0].resources.requests[memroy]: Invalid value: \"memroy\": must be a standard resource \
                 type or fully qualified",
                "spec.containers[0].resources.requests[memroy]: Invalid value: \"memroy\": must be a standard resource \
                 for containers",
            ],
        ),
        (
            none(),
            json!({"resources": {"requests": {"pods": "1"}}}),
            &[
                "spec.containers[0].resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            ],
        ),
        (
            none(),
            json!({"resources": {"requests": {"cpu": "-1"}}}),
            &["spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        ),
        (
            none(),
            json!({"resources": {"requests": {"example.com/gpu": "1"}}}),
            &[
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        ),
        (
            none(),
            json!({"resources": {"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}}),
            &[
                "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive \
                 integer multiple of hugepages-2Mi",
                "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive \
                 integer multiple of hugepages-2Mi",
            ],
        ),
        (
            none(),
            json!({"resources": {"limits": {"hugepages-2Mi": "2Mi"}}}),
            &["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
        ),
        (
            none(),
            json!({"resources": {"claims": [{"name": "gpu"}]}}),
            &[
                "spec.containers[0].resources.claims[0]: Not found: \"gpu\": must be one of the names in \
                 pod.spec.resourceClaims which is empty",
            ],
        ),
        (
            json!({"resourceClaims": [{"name": "gpu"}]}),
            none(),
            &[
                "spec.resourceClaims[0]: Invalid value: {\"name\":\"gpu\"}: must specify one of: `resourceClaimName`, \
                 `resourceClaimTemplateName`",
            ],
        ),
        (
            json!({"resources": {"requests": {"cpu": "1"}}}),
            json!({"resources": {"requests": {"cpu": "2"}}}),
            &[
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate \
                 container requests of 2",
            ],
        ),
        (
            json!({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}}),
            json!({"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}}),
            &[
                "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to \
                 pod limits of 1Gi",
            ],
        ),
        (
            json!({"resources": {"limits": {"example.com/gpu": "1"}}}),
            none(),
            &[
                "spec.resources.limits[example.com/gpu]: Unsupported value: \"example.com/gpu\": supported values: \
                 \"cpu\", \"hugepages-\", \"memory\"",
            ],
        ),
        (
            json!({"overhead": {"cpu": "-1"}}),
            none(),
            &["spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
        ),
    ]);
}

#[test]
fn security() {
    let none = || json!({});
    check(&[
        (
            json!({"securityContext": {"runAsUser": -1}}),
            none(),
            &["spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
        ),
        (
            json!({"shareProcessNamespace": true, "hostPID": true}),
            none(),
            &[
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID \
                 cannot both be enabled",
            ],
        ),
        (
            json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}),
            none(),
            &[
                "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified \
                 when 'hostNetwork' is true",
            ],
        ),
        (
            json!({"securityContext": {"supplementalGroupsPolicy": "All"}}),
            none(),
            &[
                "spec.securityContext.supplementalGroupsPolicy: Unsupported value: \"All\": supported values: \
                 \"Merge\", \"Strict\"",
            ],
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Localhost"}}}),
            none(),
            &[
                "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type \
                 is Localhost",
            ],
        ),
        (
            none(),
            json!({"securityContext": {"procMount": "Unmasked"}}),
            &[
                "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false \
                 to use `Unmasked`",
            ],
        ),
        (
            json!({"hostUsers": false, "hostPID": true}),
            none(),
            &["spec.HostPID: Forbidden: when `hostUsers` is false"],
        ),
        (
            json!({"os": {"name": "linux"}}),
            json!({"securityContext": {"windowsOptions": {}}}),
            &[
                "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a \
                 linux pod",
            ],
        ),
        (
            json!({"os": {"name": "windows"}, "hostIPC": true}),
            json!({"securityContext": {"runAsUser": 1}}),
            &[
                "spec.hostIPC: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            ],
        ),
        (
            none(),
            json!({"securityContext": {"allowPrivilegeEscalation": false, "privileged": true}}),
            &["spec.containers[0].securityContext: Invalid value: \
                 {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to \
                 false and `privileged` to true"],
        ),
    ]);
}

#[test]
fn starting_and_stopping() {
    let none = || json!({});
    check(&[
        (
            none(),
            json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}),
            &[
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            ],
        ),
        (
            none(),
            json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Stop"}]}),
            &[
                "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \
                 \"Restart\", \"RestartAllContainers\"",
                "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
            ],
        ),
        (
            json!({"restartPolicy": "Never"}),
            json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}),
            &[
                "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod \
                 `restartPolicy` is 'Never'",
            ],
        ),
        (
            none(),
            json!({"lifecycle": {"stopSignal": "SIGTERM"}}),
            &[
                "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
            ],
        ),
        (
            json!({"os": {"name": "windows"}}),
            json!({"lifecycle": {"stopSignal": "SIGHUP"}}),
            &[
                "spec.containers[0].lifecycle.stopSignal: Unsupported value: \"SIGHUP\": supported values: \
                 \"SIGKILL\", \"SIGTERM\"",
            ],
        ),
        (
            none(),
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}}),
            &[
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than \
                 terminationGracePeriodSeconds (30)",
            ],
        ),
        (
            none(),
            json!({"livenessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 2}}),
            &[
                "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            none(),
            json!({"readinessProbe": {"exec": {"command": []}}}),
            &["spec.containers[0].readinessProbe.exec.command: Required value"],
        ),
    ]);
}

#[test]
fn placement() {
    let none = || json!({});
    let term = |more: Value| {
        let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}});
        term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
    };
    let at = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    let both =
        format!("{at}.matchLabelKeys[0]: Invalid value: \"v\": exists in both matchLabelKeys and mismatchLabelKeys");
    let bare = format!("{at}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set");
    let empty = format!("{at}.topologyKey: Required value: can not be empty");
    check(&[
        (
            term(json!({"matchLabelKeys": ["v"], "mismatchLabelKeys": ["v"]})),
            none(),
            &[&both],
        ),
        (
            term(json!({"matchLabelKeys": ["v"], "labelSelector": null})),
            none(),
            &[&bare],
        ),
        (
            term(json!({"topologyKey": ""})),
            none(),
            &[
                &empty,
                &format!("{at}.topologyKey: Invalid value: \"\": name part must be non-empty"),
                &format!(
                    "{at}.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', \
                     '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name', \
                     \u{20}or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                ),
            ],
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Maybe"}]}),
            none(),
            &[
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Maybe\": supported values: \
                 \"DoNotSchedule\", \"ScheduleAnyway\"",
            ],
        ),
        (
            json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
            none(),
            &["spec.schedulingGates[1]: Duplicate value: \"a\""],
        ),
        (
            json!({"hostnameOverride": "web", "hostNetwork": true}),
            none(),
            &["spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true"],
        ),
        (
            none(),
            json!({"env": [{"name": "K", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "K"}}}]}),
            &["spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: \"v\""],
        ),
    ]);
}

#[test]
fn a_mirror_pod_stays_what_it_is() {
    let mut old = with(json!({"nodeName": "n"}), json!({}));
    old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    let mut new = old.clone();
    new["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("other");

    assert_eq!(
        updated(&PODS, new, old),
        [
            "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod \
             annotation"
        ]
    );
    let mut loose = with(json!({}), json!({}));
    loose["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "hash", "controller.kubernetes.io/pod-deletion-cost": "high",
    });
    assert_eq!(
        created(&PODS, loose),
        [
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"hash\": must set spec.nodeName if \
             mirror pod annotation is set",
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"high\": must be a \
             32bit integer"
        ]
    );
}
