//! ResourceQuotas.

use serde_json::Value;

use super::{
    check::{Check, entries, list, text},
    resources::check_resource_name,
};
use crate::{field::Path, quantity::Quantity};

const COMPUTE: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// Names without a domain that quotas know.
pub fn is_standard(name: &str) -> bool {
    const OTHERS: [&str; 13] = [
        "configmaps",
        "ephemeral-storage",
        "limits.ephemeral-storage",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.ephemeral-storage",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    ];
    COMPUTE.contains(&name)
        || OTHERS.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// Measured in whole numbers.
fn is_counted(name: &str) -> bool {
    const COUNTED: [&str; 9] = [
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    ];
    COUNTED.contains(&name)
}

pub fn check_resource_quota(check: &mut Check, quota: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &quota["spec"];
    check_amounts(check, &path.field("hard"), &spec["hard"]);
    let status = Path::ROOT.field("status");
    for field in ["hard", "used"] {
        check_amounts(check, &status.field(field), &quota["status"][field]);
    }
    check_scopes(check, &path, spec);
    check_selector(check, &path, spec);
    if let Some(old) = old {
        let set = |spec: &Value| -> std::collections::BTreeSet<String> {
            list(&spec["scopes"])
                .iter()
                .map(|scope| text(scope).to_owned())
                .collect()
        };
        if set(spec) != set(&old["spec"]) {
            check.invalid(&path.field("scopes"), spec["scopes"].clone(), "field is immutable");
        }
    }
}

fn check_amounts(check: &mut Check, path: &Path, amounts: &Value) {
    for (name, amount) in entries(amounts) {
        let path = path.key(name);
        check_resource_name(check, &path, name);
        if !name.contains('/') && !is_standard(name) {
            check.invalid(&path, name.as_str(), "must be a standard resource for quota");
        }
        let Some(amount) = Quantity::from_json(amount) else {
            continue;
        };
        if amount.is_negative() {
            check.invalid(&path, amount.to_string(), "must be greater than or equal to 0");
        }
        if is_counted(name) && !amount.is_integer() {
            check.invalid(&path, amount.to_string(), "must be an integer");
        }
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        scope if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

fn conflict(scopes: &[&str]) -> bool {
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]]
        .iter()
        .any(|pair| pair.iter().all(|scope| scopes.contains(scope)))
}

fn check_scopes(check: &mut Check, path: &Path, spec: &Value) {
    let path = path.field("scopes");
    let shown = || spec["scopes"].clone();
    let scopes: Vec<&str> = list(&spec["scopes"]).iter().map(text).collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            check.invalid(&path, shown(), "unsupported scope");
        }
        for (name, _) in entries(&spec["hard"]) {
            if is_standard(name) && !applies(scope, name) {
                check.invalid(&path, shown(), "unsupported scope applied to resource");
            }
        }
    }
    if conflict(&scopes) {
        check.invalid(&path, shown(), "conflicting scopes");
    }
}

fn check_selector(check: &mut Check, path: &Path, spec: &Value) {
    let selector = path.field("scopeSelector");
    let path = selector.field("matchExpressions");
    let requirements = list(&spec["scopeSelector"]["matchExpressions"]);
    for requirement in requirements {
        let scope = text(&requirement["scopeName"]);
        let operator = text(&requirement["operator"]);
        if !SCOPES.contains(&scope) {
            check.invalid(&path.field("scopeName"), scope, "unsupported scope");
        }
        for (name, _) in entries(&spec["hard"]) {
            if is_standard(name) && !applies(scope, name) {
                let detail = "unsupported scope applied to resource";
                check.invalid(&path, spec["scopeSelector"].clone(), detail);
            }
        }
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            check.invalid(
                &path.field("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        let values = list(&requirement["values"]);
        match operator {
            "In" | "NotIn" if values.is_empty() => check.required(
                &path.field("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => check.invalid(
                &path.field("values"),
                requirement["values"].clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "Exists" | "DoesNotExist" => {}
            other => check.invalid(&path.field("operator"), other, "not a valid selector operator"),
        }
    }
    let scopes: Vec<&str> = requirements
        .iter()
        .map(|requirement| text(&requirement["scopeName"]))
        .collect();
    if conflict(&scopes) {
        check.invalid(&path, spec["scopes"].clone(), "conflicting scopes");
    }
}
