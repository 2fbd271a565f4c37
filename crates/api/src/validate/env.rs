//! What a container's environment is made of.

use serde_json::Value;

use super::check::{Check, list, text};
use crate::{field::Path, names};

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

pub fn check_env(check: &mut Check, path: &Path, env: &Value) {
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

pub fn check_env_from(check: &mut Check, path: &Path, sources: &Value) {
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
