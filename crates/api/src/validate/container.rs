//! Containers of a Pod: what runs, what it is given, how it is probed.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::{
    check::{Check, Seen, list, text},
    env::{check_env, check_env_from},
    resources::check_resources,
    restart, security,
    volume::{self, Volumes},
};
use crate::{field::Path, names};

/// What containers have to agree with.
struct Pod<'a> {
    spec: &'a Value,
    volumes: &'a Volumes<'a>,
    /// Device claims by name.
    claims: BTreeSet<&'a str>,
}

/// All containers of a Pod spec, of the three kinds.
pub fn check_containers(check: &mut Check, path: &Path, spec: &Value, volumes: &Volumes) {
    let grace = spec["terminationGracePeriodSeconds"].as_i64();
    let claims = list(&spec["resourceClaims"]).iter();
    let pod = Pod {
        spec,
        volumes,
        claims: claims.map(|claim| text(&claim["name"])).collect(),
    };
    let containers = list(&spec["containers"]);
    let containers_path = path.field("containers");
    if containers.is_empty() {
        check.required(&containers_path, "");
    }
    let mut names: HashSet<&str> = HashSet::new();
    for (at, container) in containers.iter().enumerate() {
        let path = containers_path.index(at);
        check_container(check, &path, container, &pod);
        unique(check, &path, container, &mut names);
        check_hooks(check, &path, container, grace, spec);
        restart::check_policy(check, &path, container);
    }
    check_host_ports(check, &containers_path, containers);

    let init_path = path.field("initContainers");
    for (at, container) in list(&spec["initContainers"]).iter().enumerate() {
        let path = init_path.index(at);
        check_container(check, &path, container, &pod);
        restart::check_policy(check, &path, container);
        unique(check, &path, container, &mut names);
        check_host_ports(check, &init_path, std::slice::from_ref(container));
        if container["restartPolicy"] == "Always" {
            check_hooks(check, &path, container, grace, spec);
            continue;
        }
        restart::check_resize_of_init(check, &path, container);
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if !container[field].is_null() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                check.forbidden(&path.field(field), detail);
            }
        }
    }

    let others = names.clone();
    let ephemeral_path = path.field("ephemeralContainers");
    for (at, container) in list(&spec["ephemeralContainers"]).iter().enumerate() {
        let path = ephemeral_path.index(at);
        check_container(check, &path, container, &pod);
        unique(check, &path, container, &mut names);
        let target = text(&container["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            check
                .causes
                .push(crate::field::not_found(&path.field("targetContainerName"), target));
        }
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resizePolicy",
        ] {
            if !container[field].is_null() {
                check.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
            }
        }
        if !container["resources"].is_null() && container["resources"] != serde_json::json!({}) {
            check.forbidden(&path.field("resources"), "cannot be set for an Ephemeral Container");
        }
        let mounts = path.field("volumeMounts");
        for (at, mount) in list(&container["volumeMounts"]).iter().enumerate() {
            let path = mounts.index(at);
            for field in ["subPath", "subPathExpr"] {
                if !text(&mount[field]).is_empty() {
                    check.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn unique<'a>(check: &mut Check, path: &Path, container: &'a Value, names: &mut HashSet<&'a str>) {
    let name = text(&container["name"]);
    if !name.is_empty() && !names.insert(name) {
        check.duplicate(&path.field("name"), name);
    }
}

fn check_container(check: &mut Check, path: &Path, container: &Value, pod: &Pod) {
    check.required_name(&path.field("name"), &container["name"], names::dns1123_label);
    check.present(&path.field("image"), &container["image"]);
    let policies = ["File", "FallbackToLogsOnError"];
    check.one_of(
        &path.field("terminationMessagePolicy"),
        &container["terminationMessagePolicy"],
        &policies,
    );
    check_ports(check, &path.field("ports"), &container["ports"]);
    check_env(check, &path.field("env"), &container["env"]);
    check_env_from(check, &path.field("envFrom"), &container["envFrom"]);
    volume::check_mounts(check, path, container, pod.volumes);
    let pulls = ["Always", "IfNotPresent", "Never"];
    check.one_of(&path.field("imagePullPolicy"), &container["imagePullPolicy"], &pulls);
    check_resources(check, &path.field("resources"), &container["resources"], &pod.claims);
    let policy = text(&pod.spec["restartPolicy"]);
    restart::check_resize(check, &path.field("resizePolicy"), &container["resizePolicy"], policy);
    security::check_container_security(
        check,
        &path.field("securityContext"),
        &container["securityContext"],
        pod.spec,
    );
}

fn check_ports(check: &mut Check, path: &Path, ports: &Value) {
    let mut seen = Seen::default();
    for (at, port) in list(ports).iter().enumerate() {
        let path = path.index(at);
        let name = text(&port["name"]);
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && seen.again(name) {
                check.duplicate(&path.field("name"), name);
            }
            check.named(&path.field("name"), name, problems);
        }
        if port["containerPort"].as_i64().unwrap_or(0) == 0 {
            check.required(&path.field("containerPort"), "");
        } else {
            check.port_number(&path.field("containerPort"), &port["containerPort"]);
        }
        if port["hostPort"].as_i64().unwrap_or(0) != 0 {
            check.port_number(&path.field("hostPort"), &port["hostPort"]);
        }
        check.one_of(&path.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
    }
}

fn check_host_ports(check: &mut Check, path: &Path, containers: &[Value]) {
    let mut taken: HashSet<String> = HashSet::new();
    for (at, container) in containers.iter().enumerate() {
        let container_path = path.index(at);
        let ports = container_path.field("ports");
        for (at, port) in list(&container["ports"]).iter().enumerate() {
            let number = port["hostPort"].as_i64().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", text(&port["protocol"]), text(&port["hostIP"]));
            if !taken.insert(key.clone()) {
                let port = ports.index(at);
                check.duplicate(&port.field("hostPort"), key);
            }
        }
    }
}

/// Probes and lifecycle hooks.
fn check_hooks(check: &mut Check, path: &Path, container: &Value, grace: Option<i64>, spec: &Value) {
    let lifecycle = path.field("lifecycle");
    for hook in ["postStart", "preStop"] {
        let handler = &container["lifecycle"][hook];
        if !handler.is_null() {
            check_handler(
                check,
                &lifecycle.field(hook),
                handler,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                grace,
            );
        }
    }
    restart::check_stop_signal(
        check,
        &lifecycle.field("stopSignal"),
        &container["lifecycle"]["stopSignal"],
        spec,
    );
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[kind];
        if probe.is_null() {
            continue;
        }
        let path = path.field(kind);
        check_handler(check, &path, probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            check.non_negative(&path.field(field), &probe[field]);
        }
        let grace_path = path.field("terminationGracePeriodSeconds");
        let grace = &probe["terminationGracePeriodSeconds"];
        if let Some(seconds) = grace.as_i64().filter(|seconds| *seconds <= 0) {
            check.invalid(&grace_path, seconds, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            if !grace.is_null() {
                check.invalid(&grace_path, grace.clone(), "must not be set for readinessProbes");
            }
        } else if probe["successThreshold"]
            .as_i64()
            .is_some_and(|threshold| threshold != 1)
        {
            check.invalid(
                &path.field("successThreshold"),
                probe["successThreshold"].clone(),
                "must be 1",
            );
        }
    }
}

fn check_handler(check: &mut Check, path: &Path, handler: &Value, kinds: &[&str], grace: Option<i64>) {
    let mut count = 0;
    for kind in kinds {
        let action = &handler[*kind];
        if action.is_null() {
            continue;
        }
        let path = path.field(kind);
        count += 1;
        if count > 1 {
            check.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                if list(&action["command"]).is_empty() {
                    check.required(&path.field("command"), "");
                }
            }
            "httpGet" => {
                check.present(&path.field("path"), &action["path"]);
                check.port_number_or_name(&path.field("port"), &action["port"]);
                check.one_of(&path.field("scheme"), &action["scheme"], &["HTTP", "HTTPS"]);
                for header in list(&action["httpHeaders"]) {
                    let name = text(&header["name"]);
                    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                        let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                                      'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                        check.invalid(&path.field("httpHeaders"), name, detail);
                    }
                }
            }
            "tcpSocket" => check.port_number_or_name(&path.field("port"), &action["port"]),
            "grpc" => check.port_number(&path.field("port"), &action["port"]),
            _ => {
                let seconds = action["seconds"].as_i64().unwrap_or(0);
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    check.invalid(&path, seconds, detail);
                }
            }
        }
    }
    if count == 0 {
        check.required(path, "must specify a handler type");
    }
}
