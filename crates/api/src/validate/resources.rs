//! Amounts of resources that containers and Pods ask for and nodes have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    check::{Check, Seen, entries, list, text},
    quota::is_standard,
};
use crate::{
    amounts::{Bound, amounts, is_of_pods, of_containers},
    field::{self, Path},
    names,
    quantity::Quantity,
};

/// Requests, limits and device claims of a container; `claims` are those of its Pod by name.
pub fn check_resources(check: &mut Check, path: &Path, resources: &Value, claims: &BTreeSet<&str>) {
    check_requirements(check, path, resources, check_container_resource);
    check_claims(check, &path.field("claims"), &resources["claims"], claims);
}

fn check_requirements(check: &mut Check, path: &Path, resources: &Value, name_rule: fn(&mut Check, &Path, &str)) {
    let (mut compute, mut huge) = (false, false);
    for kind in ["limits", "requests"] {
        let kind_path = path.field(kind);
        for (name, amount) in entries(&resources[kind]) {
            let entry = kind_path.key(name);
            name_rule(check, &entry, name);
            check_amount(check, &entry, name, amount);
            compute |= matches!(name.as_str(), "cpu" | "memory");
            huge |= name.starts_with("hugepages-");
            if kind == "requests" {
                check_against_limit(check, path, name, amount, resources);
            }
            check_pages(check, &entry, name, amount);
        }
    }
    if huge && !compute {
        check.forbidden(path, "HugePages require cpu or memory");
    }
}

fn check_against_limit(check: &mut Check, path: &Path, name: &str, request: &Value, resources: &Value) {
    let requests = path.field("requests");
    let limit = resources["limits"].get(name).and_then(Quantity::from_json);
    match (Quantity::from_json(request), limit) {
        (Some(request), Some(limit)) if request != limit && !overcommits(name) => {
            let detail = format!("must be equal to {name} limit of {limit}");
            check.invalid(&requests, request.to_string(), detail);
        }
        (Some(request), Some(limit)) if request > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            check.invalid(&requests, request.to_string(), detail);
        }
        (Some(_), None) if !overcommits(name) => {
            check.required(
                &path.field("limits"),
                "Limit must be set for non overcommitable resources",
            );
        }
        _ => {}
    }
}

/// Huge pages are asked for by whole pages.
fn check_pages(check: &mut Check, path: &Path, name: &str, amount: &Value) {
    let Some(page) = name
        .strip_prefix("hugepages-")
        .and_then(|size| size.parse::<Quantity>().ok())
    else {
        return;
    };
    let Some(amount) = Quantity::from_json(amount) else {
        return;
    };
    let (page, bytes) = (page.value(), amount.value());
    if page <= 0 || bytes <= 0 || bytes % page != 0 {
        let detail = format!("{amount} is not positive integer multiple of {name}");
        check.invalid(path, amount.to_string(), detail);
    }
}

/// Native resources but huge pages may be promised more than once.
pub fn overcommits(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}

/// The name of a resource, whoever it is a resource of; false if there is nothing more to check of it.
pub fn check_resource_name(check: &mut Check, path: &Path, name: &str) -> bool {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        check.named(path, name, problems);
        return false;
    }
    if !name.contains('/') && !is_standard(name) && name != "storage" {
        check.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

pub fn check_container_resource(check: &mut Check, path: &Path, name: &str) {
    check_resource_name(check, path, name);
    let own = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') {
        if !own && names::qualified_name(name).is_empty() {
            check.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !name.contains("kubernetes.io/") && name.starts_with("requests.") {
        check.invalid(path, name, "doesn't follow extended resource name standard");
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

fn check_claims(check: &mut Check, path: &Path, own: &Value, claims: &BTreeSet<&str>) {
    let (mut seen, mut parted) = (Seen::default(), Seen::default());
    for (at, claim) in list(own).iter().enumerate() {
        let path = path.index(at);
        let (name, request) = (text(&claim["name"]), text(&claim["request"]));
        if name.is_empty() {
            check.required(&path, "");
            continue;
        }
        let mut key = name.to_owned();
        if seen.has(&key) {
            check.duplicate(&path, name);
        } else {
            if !request.is_empty() {
                check.named(&path.field("request"), request, names::dns1123_label(request));
                key = format!("{name}/{request}");
            }
            // All of a claim after a part of it.
            let overlaps = if request.is_empty() {
                parted.has(name)
            } else {
                parted.again(name);
                false
            };
            if seen.again(key.as_str()) || overlaps {
                check.duplicate(&path, key.as_str());
            }
        }
        if !claims.contains(name) {
            let mut cause = field::not_found(&path, name);
            cause
                .message
                .push_str(": must be one of the names in pod.spec.resourceClaims");
            if claims.is_empty() {
                cause.message.push_str(" which is empty");
            } else {
                let all: Vec<&str> = claims.iter().copied().collect();
                cause.message.push_str(&format!(": {}", all.join(", ")));
            }
            check.causes.push(cause);
        }
    }
}

/// What a Pod asks for as a whole, which has room for what its containers ask for.
pub fn check_pod_resources(check: &mut Check, path: &Path, spec: &Value) {
    let resources = &spec["resources"];
    if resources.is_null() {
        return;
    }
    let path = path.field("resources");
    if spec["os"]["name"] == "windows" {
        check.forbidden(&path, "may not be set for a windows pod");
        return;
    }
    if !list(&resources["claims"]).is_empty() {
        let detail = "claims may not be set for Resources at pod-level";
        check.forbidden(&path.field("claims"), detail);
    }
    check_requirements(check, &path, resources, check_pod_resource);
    let mut bare = spec.clone();
    if let Some(bare) = bare.as_object_mut() {
        bare.remove("resources");
    }
    for (kind, bound, what) in [
        ("requests", Bound::Requests, "container requests"),
        ("limits", Bound::Limits, "container limits"),
    ] {
        let own = amounts(&resources[kind]);
        let path = path.field(kind);
        for (name, sum) in of_containers(&bare, bound) {
            let compared = bound == Bound::Requests || name.starts_with("hugepages-");
            if let Some(own) = own.get(&name).filter(|own| compared && sum > **own) {
                let detail = format!("must be greater than or equal to aggregate {what} of {sum}");
                check.invalid(&path.key(&name), own.to_string(), detail);
            }
        }
    }
    let limits = amounts(&resources["limits"]);
    let containers = path.field("containers");
    for (at, container) in list(&spec["containers"]).iter().enumerate() {
        let container_path = containers.index(at);
        for (name, amount) in amounts(&container["resources"]["limits"]) {
            if let Some(limit) = limits.get(&name).filter(|limit| amount > **limit) {
                let detail = format!("must be less than or equal to pod limits of {limit}");
                let key = container_path.key(&name);
                check.invalid(&key.field("limits"), amount.to_string(), detail);
            }
        }
    }
}

fn check_pod_resource(check: &mut Check, path: &Path, name: &str) {
    if check_resource_name(check, path, name) && !is_of_pods(name) {
        check.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// Device claims of a Pod.
pub fn check_pod_claims(check: &mut Check, path: &Path, claims: &Value) {
    let mut seen = Seen::default();
    for (at, claim) in list(claims).iter().enumerate() {
        let path = path.index(at);
        let name = text(&claim["name"]);
        if name.is_empty() {
            check.required(&path.field("name"), "");
        } else if seen.again(name) {
            check.duplicate(&path.field("name"), name);
        } else {
            check.named(&path.field("name"), name, names::dns1123_label(name));
        }
        let (own, template) = (&claim["resourceClaimName"], &claim["resourceClaimTemplateName"]);
        match (own.is_null(), template.is_null()) {
            (false, false) => check.invalid(
                &path,
                claim.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (true, true) => check.invalid(
                &path,
                claim.clone(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            _ => {}
        }
        for (field, value) in [("resourceClaimName", own), ("resourceClaimTemplateName", template)] {
            if !value.is_null() {
                check.named(&path.field(field), text(value), names::dns1123_subdomain(text(value)));
            }
        }
    }
}
