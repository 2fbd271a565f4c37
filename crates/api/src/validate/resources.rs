//! Amounts of resources that containers ask for and nodes have.

use serde_json::Value;

use super::check::{Check, entries};
use crate::{field::Path, names, quantity::Quantity};

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
