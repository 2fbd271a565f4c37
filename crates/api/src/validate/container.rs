//! Containers of a Pod: what runs, what it is given, how it is probed.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    check::{Check, entries, list, text},
    pod,
    volume::{self, Volumes},
};
use crate::{field::Path, names, quantity::Quantity};

/// All containers of a Pod spec, of the three kinds.
pub fn check_containers(check: &mut Check, path: &Path, spec: &Value, volumes: &Volumes) {
    let grace = spec["terminationGracePeriodSeconds"].as_i64();
    let containers = list(&spec["containers"]);
    let containers_path = path.field("containers");
    if containers.is_empty() {
        check.required(&containers_path, "");
    }
    let mut names: HashSet<&str> = HashSet::new();
    for (at, container) in containers.iter().enumerate() {
        let path = containers_path.index(at);
        check_container(check, &path, container, volumes);
        unique(check, &path, container, &mut names);
        check_hooks(check, &path, container, grace);
        check_restart(check, &path, container, &["Always", "OnFailure", "Never"]);
    }
    check_host_ports(check, &containers_path, containers);

    let init_path = path.field("initContainers");
    for (at, container) in list(&spec["initContainers"]).iter().enumerate() {
        let path = init_path.index(at);
        check_container(check, &path, container, volumes);
        check_restart(check, &path, container, &["Always", "OnFailure", "Never"]);
        unique(check, &path, container, &mut names);
        check_host_ports(check, &init_path, std::slice::from_ref(container));
        if container["restartPolicy"] == "Always" {
            check_hooks(check, &path, container, grace);
            continue;
        }
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
        check_container(check, &path, container, volumes);
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
    }
}

fn unique<'a>(check: &mut Check, path: &Path, container: &'a Value, names: &mut HashSet<&'a str>) {
    let name = text(&container["name"]);
    if !name.is_empty() && !names.insert(name) {
        check.duplicate(&path.field("name"), name);
    }
}

fn check_restart(check: &mut Check, path: &Path, container: &Value, supported: &[&str]) {
    check.one_of_or_none(&path.field("restartPolicy"), &container["restartPolicy"], supported);
}

fn check_container(check: &mut Check, path: &Path, container: &Value, volumes: &Volumes) {
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
    volume::check_mounts(check, path, container, volumes);
    let pulls = ["Always", "IfNotPresent", "Never"];
    check.one_of(&path.field("imagePullPolicy"), &container["imagePullPolicy"], &pulls);
    check_resources(check, &path.field("resources"), &container["resources"]);
    check_security(check, &path.field("securityContext"), &container["securityContext"]);
}

fn check_ports(check: &mut Check, path: &Path, ports: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for (at, port) in list(ports).iter().enumerate() {
        let path = path.index(at);
        let name = text(&port["name"]);
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && seen.contains(&name) {
                check.duplicate(&path.field("name"), name);
            }
            check.named(&path.field("name"), name, problems);
            seen.push(name);
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

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn check_env(check: &mut Check, path: &Path, env: &Value) {
    for (at, variable) in list(env).iter().enumerate() {
        let path = path.index(at);
        check.required_name(&path.field("name"), &variable["name"], names::env_var_name);
        let from = &variable["valueFrom"];
        if from.is_null() {
            continue;
        }
        let from_path = path.field("valueFrom");
        let mut sources = 0;
        if !from["fieldRef"].is_null() {
            sources += 1;
            check_field_ref(check, &from_path.field("fieldRef"), &from["fieldRef"], &ENV_FIELDS);
        }
        if !from["resourceFieldRef"].is_null() {
            sources += 1;
            check_resource_ref(check, &from_path.field("resourceFieldRef"), &from["resourceFieldRef"]);
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if !from[source].is_null() {
                sources += 1;
                let path = from_path.field(source);
                let name = text(&from[source]["name"]);
                check.named(&path.field("name"), name, names::dns1123_subdomain(name));
                check.required_name(&path.field("key"), &from[source]["key"], names::config_key);
            }
        }
        if !from["fileKeyRef"].is_null() {
            sources += 1;
            let path = from_path.field("fileKeyRef");
            check.required_name(&path.field("key"), &from["fileKeyRef"]["key"], names::env_var_name);
            check.required_name(
                &path.field("volumeName"),
                &from["fileKeyRef"]["volumeName"],
                names::dns1123_label,
            );
            check.present(&path.field("path"), &from["fileKeyRef"]["path"]);
        }
        if sources == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                          `fileKeyRef`";
            check.invalid(&from_path, "", detail);
        } else if !text(&variable["value"]).is_empty() {
            check.invalid(&from_path, "", "may not be specified when `value` is not empty");
        } else if sources > 1 {
            check.invalid(&from_path, "", "may not have more than one field specified at a time");
        }
    }
}

/// A reference to a field of the Pod. Annotations and labels may be named by key.
pub fn check_field_ref(check: &mut Check, path: &Path, reference: &Value, supported: &[&str]) {
    if !check.present(&path.field("apiVersion"), &reference["apiVersion"])
        || !check.present(&path.field("fieldPath"), &reference["fieldPath"])
    {
        return;
    }
    let field = text(&reference["fieldPath"]);
    if let Some((name, key)) = field.strip_suffix("']").and_then(|field| field.split_once("['")) {
        match name {
            "metadata.annotations" => check.named(path, key, names::qualified_name(&key.to_lowercase())),
            "metadata.labels" => check.named(path, key, names::qualified_name(key)),
            _ => check.invalid(path, name, "does not support subscript"),
        }
    } else if !supported.contains(&field) {
        check.not_supported(&path.field("fieldPath"), field, supported);
    }
}

const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub fn check_resource_ref(check: &mut Check, path: &Path, reference: &Value) {
    if !check.present(&path.field("resource"), &reference["resource"]) {
        return;
    }
    let resource = text(&reference["resource"]);
    let huge = ["limits.hugepages-", "requests.hugepages-"];
    if !RESOURCE_FIELDS.contains(&resource) && !huge.iter().any(|prefix| resource.starts_with(prefix)) {
        check.not_supported(&path.field("resource"), resource, &RESOURCE_FIELDS);
    }
}

fn check_env_from(check: &mut Check, path: &Path, sources: &Value) {
    for (at, source) in list(sources).iter().enumerate() {
        let item = path.index(at);
        let prefix = text(&source["prefix"]);
        if !prefix.is_empty() {
            check.named(&item.field("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            if !source[kind].is_null() {
                count += 1;
                let reference = item.field(kind);
                check.required_name(
                    &reference.field("name"),
                    &source[kind]["name"],
                    names::dns1123_subdomain,
                );
            }
        }
        if count == 0 {
            check.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if count > 1 {
            check.invalid(path, "", "may not have more than one field specified at a time");
        }
    }
}

/// Requests and limits of a container.
pub fn check_resources(check: &mut Check, path: &Path, resources: &Value) {
    for kind in ["limits", "requests"] {
        let path = path.field(kind);
        for (name, amount) in entries(&resources[kind]) {
            let path = path.key(name);
            check_resource_name(check, &path, name);
            check_amount(check, &path, name, amount);
        }
    }
    let requests = path.field("requests");
    for (name, request) in entries(&resources["requests"]) {
        let overcommits = overcommits(name);
        let limit = resources["limits"].get(name).and_then(Quantity::from_json);
        match (Quantity::from_json(request), limit) {
            (Some(request), Some(limit)) if request != limit && !overcommits => {
                let detail = format!("must be equal to {name} limit of {limit}");
                check.invalid(&requests, request.to_string(), detail);
            }
            (Some(request), Some(limit)) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                check.invalid(&requests, request.to_string(), detail);
            }
            (Some(_), None) if !overcommits => {
                check.required(
                    &path.field("limits"),
                    "Limit must be set for non overcommitable resources",
                );
            }
            _ => {}
        }
    }
}

/// Native resources but huge pages may be promised more than once.
fn overcommits(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}

fn check_resource_name(check: &mut Check, path: &Path, name: &str) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        check.named(path, name, problems);
        return;
    }
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        check.invalid(path, name, "must be a standard resource type or fully qualified");
        check.invalid(path, name, "must be a standard resource for containers");
    }
}

pub fn check_amount(check: &mut Check, path: &Path, name: &str, amount: &Value) {
    let Some(quantity) = Quantity::from_json(amount) else {
        return;
    };
    if quantity.is_negative() {
        check.invalid(path, quantity.to_string(), "must be greater than or equal to 0");
    }
    let counted = name.contains('/') && !name.contains("kubernetes.io/");
    if counted && !quantity.is_integer() {
        check.invalid(path, quantity.to_string(), "must be an integer");
    }
}

fn check_security(check: &mut Check, path: &Path, security: &Value) {
    for field in ["runAsUser", "runAsGroup"] {
        pod::check_id(check, &path.field(field), &security[field]);
    }
    check.one_of_or_none(
        &path.field("procMount"),
        &security["procMount"],
        &["Default", "Unmasked"],
    );
    pod::check_seccomp(check, &path.field("seccompProfile"), &security["seccompProfile"]);
    if security["allowPrivilegeEscalation"] == false {
        if security["privileged"] == true {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            check.invalid(path, security.clone(), detail);
        }
        if list(&security["capabilities"]["add"])
            .iter()
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            check.invalid(path, security.clone(), detail);
        }
    }
}

/// Probes and lifecycle hooks.
fn check_hooks(check: &mut Check, path: &Path, container: &Value, grace: Option<i64>) {
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
