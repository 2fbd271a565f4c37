//! `metadata` of every kind.

use serde_json::Value;

use super::check::{Check, list, text};
use crate::{
    Resource,
    field::Path,
    names::{self, Problems},
    resource::Scope,
    status::Cause,
};

/// The names that a kind allows.
fn name_rule(resource: &Resource) -> fn(&str) -> Problems {
    match (&*resource.group, &*resource.plural) {
        ("", "namespaces" | "services") | ("apps", "statefulsets") => names::dns1123_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("certificates.k8s.io", "clustertrustbundles") => names::path_segment,
        ("flowcontrol.apiserver.k8s.io" | "internal.apiserver.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "ipaddresses") => |name| {
            if name.parse::<std::net::IpAddr>().is_ok() {
                Vec::new()
            } else {
                vec!["must be a valid IP address in canonical form".to_owned()]
            }
        },
        _ => names::dns1123_subdomain,
    }
}

/// As a part of the checks of a kind that is validated elsewhere.
pub fn validate_metadata(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut check = Check::default();
    check_metadata(&mut check, resource, object);
    check.causes
}

pub fn check_metadata(check: &mut Check, resource: &Resource, object: &Value) {
    let metadata = &object["metadata"];
    let path = Path::ROOT.field("metadata");
    let rule = name_rule(resource);

    let prefix = text(&metadata["generateName"]);
    if !prefix.is_empty() {
        // A dash at its end is followed by the generated part.
        let masked = match prefix.strip_suffix('-') {
            Some(start) if !start.is_empty() => format!("{start}a"),
            _ => prefix.to_owned(),
        };
        check.named(&path.field("generateName"), prefix, rule(&masked));
    }
    match text(&metadata["name"]) {
        "" => check.required(&path.field("name"), "name or generateName is required"),
        name => check.named(&path.field("name"), name, rule(name)),
    }
    let namespace = text(&metadata["namespace"]);
    match (resource.scope, namespace) {
        (Scope::Namespaced, "") => check.required(&path.field("namespace"), ""),
        (Scope::Namespaced, name) => check.named(&path.field("namespace"), name, names::dns1123_label(name)),
        (Scope::Cluster, "") => {}
        (Scope::Cluster, _) => check.forbidden(&path.field("namespace"), "not allowed on this type"),
    }
    check.non_negative(&path.field("generation"), &metadata["generation"]);
    check.labels(&path.field("labels"), &metadata["labels"]);
    check.annotations(&path.field("annotations"), &metadata["annotations"]);
    check_owners(check, &path.field("ownerReferences"), &metadata["ownerReferences"]);
    check_finalizers(check, &path.field("finalizers"), &metadata["finalizers"]);
}

fn check_owners(check: &mut Check, path: &Path, owners: &Value) {
    let mut controller: Option<String> = None;
    for owner in list(owners) {
        let (group, version) = match text(&owner["apiVersion"]).split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", text(&owner["apiVersion"])),
        };
        if version.is_empty() {
            check.invalid(
                &path.field("apiVersion"),
                owner["apiVersion"].clone(),
                "version must not be empty",
            );
        }
        for field in ["kind", "name", "uid"] {
            if text(&owner[field]).is_empty() {
                check.invalid(&path.field(field), text(&owner[field]), "must not be empty");
            }
        }
        if (group, version, text(&owner["kind"])) == ("", "v1", "Event") {
            check.invalid(path, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let name = format!("{}/{}", text(&owner["kind"]), text(&owner["name"]));
            match &controller {
                None => controller = Some(name),
                Some(first) => check.invalid(
                    path,
                    owners.clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {name}"
                    ),
                ),
            }
        }
    }
}

fn check_finalizers(check: &mut Check, path: &Path, finalizers: &Value) {
    let has = |name: &str| list(finalizers).iter().any(|finalizer| finalizer == name);
    for finalizer in list(finalizers) {
        check.named(path, text(finalizer), names::qualified_name(text(finalizer)));
    }
    if has("orphan") && has("foregroundDeletion") {
        check.invalid(
            path,
            finalizers.clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

pub fn check_metadata_update(check: &mut Check, new: &Value, old: &Value) {
    let (new, old) = (&new["metadata"], &old["metadata"]);
    let path = Path::ROOT.field("metadata");
    if !old["deletionTimestamp"].is_null() {
        let added: Vec<String> = list(&new["finalizers"])
            .iter()
            .filter(|finalizer| !list(&old["finalizers"]).contains(finalizer))
            .map(|finalizer| format!("{:?}", text(finalizer)))
            .collect();
        if !added.is_empty() {
            check.forbidden(
                &path.field("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers \
                     []string{{{}}}",
                    added.join(", ")
                ),
            );
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        check.immutable(&path.field(field), &new[field], &old[field]);
    }
}
