//! Pods and everything that has a Pod template.

use serde_json::{Value, json};

use super::{at, each, inside, set, set_number, set_over};
use crate::{
    amounts::{Bound, of_containers},
    quantity::Quantity,
};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A Pod itself; some defaults are meant for Pods alone and not for templates.
pub(super) fn default_pod(pod: &mut Value) {
    let spec = at(pod, "spec");
    default_pod_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
        }
    }
    default_pod_requests(spec);
    set(spec, "enableServiceLinks", true);
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for container in each(spec, list) {
                for port in each(container, "ports") {
                    let number = port["containerPort"].as_i64().unwrap_or(0);
                    set_number(port, "hostPort", number);
                }
            }
        }
    }
}

pub(super) fn default_template(template: &mut Value) {
    default_pod_spec(at(template, "spec"));
}

/// What every Pod spec gets, in a Pod or a template.
pub fn default_pod_spec(spec: &mut Value) {
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "schedulerName", "default-scheduler");
    one_account_name(spec);
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            default_container(container);
        }
    }
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
    if let Some(resources) = inside(spec, "resources") {
        round_resources(resources);
    }
    if let Some(overhead) = inside(spec, "overhead") {
        round_amounts(overhead);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always written.
fn one_account_name(spec: &mut Value) {
    let name = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find_map(|field| spec[field].as_str().filter(|name| !name.is_empty()).map(str::to_owned));
    if let Some(name) = name {
        set_over(spec, "serviceAccountName", name.clone());
        set_over(spec, "serviceAccount", name);
    }
}

fn default_container(container: &mut Value) {
    let always = image_tag(container["image"].as_str().unwrap_or("")) == Some("latest");
    set(
        container,
        "imagePullPolicy",
        if always { "Always" } else { "IfNotPresent" },
    );
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    set(container, "resources", json!({}));
    round_resources(at(container, "resources"));
    for port in each(container, "ports") {
        set(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(from) = inside(variable, "valueFrom") {
            default_references(from);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = inside(container, probe) {
            set_number(probe, "timeoutSeconds", 1);
            set_number(probe, "periodSeconds", 10);
            set_number(probe, "successThreshold", 1);
            set_number(probe, "failureThreshold", 3);
            default_action(probe);
        }
    }
    if let Some(lifecycle) = inside(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = inside(lifecycle, hook) {
                default_action(hook);
            }
        }
    }
}

fn default_action(handler: &mut Value) {
    if let Some(get) = inside(handler, "httpGet") {
        set(get, "path", "/");
        set(get, "scheme", "HTTP");
    }
    if let Some(grpc) = inside(handler, "grpc") {
        set(grpc, "service", "");
    }
}

/// References to fields and resources of the Pod, in variables and in downward volumes.
fn default_references(from: &mut Value) {
    if let Some(field) = inside(from, "fieldRef") {
        set(field, "apiVersion", "v1");
    }
    if let Some(resource) = inside(from, "resourceFieldRef") {
        // The encoder upstream always writes the divisor.
        set(resource, "divisor", "0");
    }
}

const FILE_MODE: i64 = 0o644;

fn default_volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .map_or(0, |fields| fields.len() - usize::from(fields.contains_key("name")));
    if sources == 0 {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = inside(volume, source) {
            set(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(downward) = inside(volume, "downwardAPI") {
        each(downward, "items").for_each(default_references);
    }
    if let Some(projected) = inside(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = inside(source, "serviceAccountToken") {
                set(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = inside(source, "downwardAPI") {
                each(downward, "items").for_each(default_references);
            }
        }
    }
    if let Some(host) = inside(volume, "hostPath")
        && host["type"].is_null()
    {
        set_over(host, "type", "");
    }
    if let Some(image) = inside(volume, "image") {
        let always = image_tag(image["reference"].as_str().unwrap_or("")) == Some("latest");
        set(image, "pullPolicy", if always { "Always" } else { "IfNotPresent" });
    }
    if let Some(ephemeral) = inside(volume, "ephemeral")
        && let Some(template) = inside(ephemeral, "volumeClaimTemplate")
    {
        set(at(template, "spec"), "volumeMode", "Filesystem");
    }
    super::storage::default_volume_source(volume);
}

/// The tag of an image reference: `latest` if it has neither tag nor digest, `None` if it has a digest alone or is
/// malformed.
pub fn image_tag(image: &str) -> Option<&str> {
    if image.is_empty() || image.contains(char::is_whitespace) {
        return None;
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    }
}

fn requests_from_limits(container: &mut Value) {
    let resources = at(container, "resources");
    let Some(limits) = resources["limits"].as_object().cloned() else {
        return;
    };
    let requests = at(resources, "requests");
    for (name, limit) in limits {
        set(requests, &name, limit);
    }
}

/// Requests of the Pod as a whole, where it has limits as a whole.
fn default_pod_requests(spec: &mut Value) {
    let Some(limits) = spec["resources"]["limits"]
        .as_object()
        .filter(|limits| !limits.is_empty())
        .cloned()
    else {
        return;
    };
    let mut requests = spec["resources"]["requests"].as_object().cloned().unwrap_or_default();
    let mut containers = spec.clone();
    set_over(&mut containers, "resources", Value::Null);
    for (name, sum) in of_containers(&containers, Bound::Requests) {
        if matches!(name.as_str(), "cpu" | "memory") {
            requests.entry(name).or_insert_with(|| Value::String(sum.to_string()));
        }
    }
    for (name, limit) in limits {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            requests.entry(name).or_insert(limit);
        }
    }
    set_over(at(spec, "resources"), "requests", Value::Object(requests));
}

fn round_resources(resources: &mut Value) {
    for list in ["limits", "requests"] {
        if let Some(amounts) = inside(resources, list) {
            round_amounts(amounts);
        }
    }
}

/// Amounts are kept to a thousandth; less is rounded up.
pub(super) fn round_amounts(amounts: &mut Value) {
    for amount in amounts
        .as_object_mut()
        .into_iter()
        .flat_map(|amounts| amounts.values_mut())
    {
        if let Some(text) = amount.as_str().filter(|text| text.ends_with(['n', 'u']))
            && let Ok(quantity) = text.parse::<Quantity>()
        {
            *amount = Value::String(Quantity::from_milli(quantity.milli()).to_string());
        }
    }
}
