//! Pods and Pod specs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    check::{Check, Seen, list, text},
    container, resources, scheduling, security, volume,
};
use crate::{field::Path, names, status::Cause};

/// Whose Pod spec it is; some rules hold for Pods alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TemplateOf {
    Pod,
    Workload,
}

/// The checks of a Pod spec alone.
pub fn validate_pod_spec(path: &Path, spec: &Value) -> Vec<Cause> {
    let mut check = Check::default();
    check_pod_spec(&mut check, path, spec, TemplateOf::Pod);
    check.causes
}

pub fn check_pod(check: &mut Check, pod: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &pod["spec"];
    check_pod_spec(check, &path, spec, TemplateOf::Pod);
    check_pod_annotations(check, pod);
    if text(&spec["serviceAccountName"]).is_empty() {
        let volumes = path.field("volumes");
        for (at, volume) in list(&spec["volumes"]).iter().enumerate() {
            let volume_path = volumes.index(at);
            let projected = volume_path.field("projected");
            let sources = projected.field("sources");
            for (at, source) in list(&volume["projected"]["sources"]).iter().enumerate() {
                if !source["serviceAccountToken"].is_null() {
                    let source = sources.index(at);
                    let detail = "must not be specified when serviceAccountName is not set";
                    check.forbidden(&source.field("serviceAccountToken"), detail);
                }
            }
        }
    }
    for kind in ["containers", "initContainers"] {
        let containers = path.field(kind);
        for (at, container) in list(&spec[kind]).iter().enumerate() {
            let image = text(&container["image"]);
            if image.trim() != image {
                let container = containers.index(at);
                let detail = "must not have leading or trailing whitespace";
                check.invalid(&container.field("image"), image, detail);
            }
        }
    }
    if old.is_none() {
        if !list(&spec["ephemeralContainers"]).is_empty() {
            check.forbidden(&path.field("ephemeralContainers"), "cannot be set on create");
        }
        if !text(&spec["nodeName"]).is_empty() && !list(&spec["schedulingGates"]).is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            check.forbidden(&path.field("nodeName"), detail);
        }
    }
}

fn check_pod_annotations(check: &mut Check, pod: &Value) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let metadata = Path::ROOT.field("metadata");
    let path = metadata.field("annotations");
    let annotations = &pod["metadata"]["annotations"];
    if annotations[MIRROR].is_string() && text(&pod["spec"]["nodeName"]).is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        check.invalid(&path.key(MIRROR), text(&annotations[MIRROR]), detail);
    }
    let cost = text(&annotations[COST]);
    let plain = !cost.starts_with('+') && (cost == "0" || !cost.trim_start_matches('-').starts_with('0'));
    if annotations[COST].is_string() && !(plain && cost.parse::<i32>().is_ok()) {
        check.invalid(&path.key(COST), cost, "must be a 32bit integer");
    }
}

pub fn check_pod_spec(check: &mut Check, path: &Path, spec: &Value, of: TemplateOf) {
    if spec["terminationGracePeriodSeconds"].is_null() {
        check.required(&path.field("terminationGracePeriodSeconds"), "");
    }
    let volumes = volume::check_volumes(check, &path.field("volumes"), &spec["volumes"]);
    resources::check_pod_claims(check, &path.field("resourceClaims"), &spec["resourceClaims"]);
    container::check_containers(check, path, spec, &volumes);
    resources::check_pod_resources(check, path, spec);
    check_host_network(check, path, spec, of);
    check.one_of(
        &path.field("restartPolicy"),
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
    );
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    check.one_of(&path.field("dnsPolicy"), &spec["dnsPolicy"], &policies);
    check.labels(&path.field("nodeSelector"), &spec["nodeSelector"]);
    security::check_pod_security(check, path, spec);
    scheduling::check_affinity(check, &path.field("affinity"), &spec["affinity"]);
    check_dns(
        check,
        &path.field("dnsConfig"),
        &spec["dnsConfig"],
        text(&spec["dnsPolicy"]),
    );
    check_gates(check, path, spec);
    scheduling::check_spread(
        check,
        &path.field("topologySpreadConstraints"),
        &spec["topologySpreadConstraints"],
    );
    security::check_own_users(check, path, spec);
    check_host_name(check, path, spec);
    for (field, rule) in [
        (
            "serviceAccountName",
            names::dns1123_subdomain as fn(&str) -> names::Problems,
        ),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ] {
        let value = text(&spec[field]);
        if !value.is_empty() {
            check.named(&path.field(field), value, rule(value));
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        check.invalid(&path.field("activeDeadlineSeconds"), seconds, detail);
    }
    scheduling::check_tolerations(check, &path.field("tolerations"), &spec["tolerations"]);
    let aliases = path.field("hostAliases");
    for (at, alias) in list(&spec["hostAliases"]).iter().enumerate() {
        let path = aliases.index(at);
        check.ip_address(&path.field("ip"), text(&alias["ip"]));
        let hosts = path.field("hostnames");
        for (at, host) in list(&alias["hostnames"]).iter().enumerate() {
            check.named(&hosts.index(at), text(host), names::dns1123_subdomain(text(host)));
        }
    }
    let preemption = path.field("preemptionPolicy");
    check.one_of_or_none(
        &preemption,
        &spec["preemptionPolicy"],
        &["PreemptLowerPriority", "Never"],
    );
    resources::check_resources(
        check,
        &path.field("overhead"),
        &serde_json::json!({"limits": spec["overhead"]}),
        &BTreeSet::new(),
    );
    security::check_system(check, path, spec);
    volume::check_file_keys(check, path, spec);
}

/// A name of its own on the wire, whatever the Pod's name is.
fn check_host_name(check: &mut Check, path: &Path, spec: &Value) {
    if spec["hostnameOverride"].is_null() {
        return;
    }
    let name = text(&spec["hostnameOverride"]);
    let path = path.field("hostnameOverride");
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec[field] == true {
            check.forbidden(&path, format!("may not be specified when {field} is true"));
        }
    }
    if name.len() > HOST_NAME_MAX {
        check.causes.push(crate::field::too_long(&path, HOST_NAME_MAX));
    }
    check.named(&path, name, names::dns1123_subdomain(name));
}

/// What Linux takes for a host's name.
const HOST_NAME_MAX: usize = 64;

fn check_host_network(check: &mut Check, path: &Path, spec: &Value, of: TemplateOf) {
    if spec["hostNetwork"] != true {
        return;
    }
    let containers = path.field("containers");
    for (at, container) in list(&spec["containers"]).iter().enumerate() {
        let container_path = containers.index(at);
        let ports = container_path.field("ports");
        for (at, port) in list(&container["ports"]).iter().enumerate() {
            let host = port["hostPort"].as_i64().unwrap_or(0);
            let own = port["containerPort"].as_i64().unwrap_or(0);
            if (of == TemplateOf::Pod || host != 0) && host != own {
                let port = ports.index(at);
                let detail = "must match `containerPort` when `hostNetwork` is true";
                check.invalid(&port.field("hostPort"), host, detail);
            }
        }
    }
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

fn check_dns(check: &mut Check, path: &Path, config: &Value, policy: &str) {
    if policy == "None" {
        if config.is_null() {
            check.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if list(&config["nameservers"]).is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            check.required(&path.field("nameservers"), detail);
            return;
        }
    }
    let servers = list(&config["nameservers"]);
    let servers_path = path.field("nameservers");
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        check.invalid(&servers_path, config["nameservers"].clone(), detail);
    }
    for (at, server) in servers.iter().enumerate() {
        check.ip_address(&servers_path.index(at), text(server));
    }
    let searches = list(&config["searches"]);
    let searches_path = path.field("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        check.invalid(&searches_path, config["searches"].clone(), detail);
    }
    let characters: usize = searches.iter().map(|search| text(search).len() + 1).sum();
    if characters > SEARCH_CHARACTERS_MAX + 1 {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list");
        check.invalid(&searches_path, config["searches"].clone(), detail);
    }
    for (at, search) in searches.iter().enumerate() {
        let search = text(search);
        let name = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        if search != "." {
            check.named(&searches_path.index(at), search, names::dns1123_subdomain(&name));
        }
    }
    let options = path.field("options");
    for (at, option) in list(&config["options"]).iter().enumerate() {
        if text(&option["name"]).is_empty() {
            check.required(&options.index(at), "must not be empty");
        }
    }
}

fn check_gates(check: &mut Check, path: &Path, spec: &Value) {
    let readiness = path.field("readinessGates");
    for (at, gate) in list(&spec["readinessGates"]).iter().enumerate() {
        let condition = text(&gate["conditionType"]);
        let path = readiness.index(at);
        check.named(
            &path.field("conditionType"),
            condition,
            names::qualified_name(condition),
        );
    }
    let scheduling = path.field("schedulingGates");
    let mut seen = Seen::default();
    for (at, gate) in list(&spec["schedulingGates"]).iter().enumerate() {
        let name = text(&gate["name"]);
        let path = scheduling.index(at);
        check.named(&path, name, names::qualified_name(name));
        if seen.again(name) {
            check.duplicate(&path, name);
        }
    }
}
