//! Kinds about the plane and its nodes.

use serde_json::Value;

use super::{
    check::{Check, entries, list, percent_of, text},
    resources, scheduling,
};
use crate::{field::Path, names, quantity::Quantity};

pub fn check_namespace_status(check: &mut Check, namespace: &Value) {
    let status = Path::ROOT.field("status");
    let phase = &namespace["status"]["phase"];
    let deleting = namespace["metadata"]["deletionTimestamp"].is_string();
    if !deleting && phase != "Active" {
        let detail = "may only be 'Active' if `deletionTimestamp` is empty";
        check.invalid(&status.field("Phase"), phase.clone(), detail);
    } else if deleting && phase != "Terminating" {
        let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
        check.invalid(&status.field("Phase"), phase.clone(), detail);
    }
}

pub fn check_node(check: &mut Check, node: &Value) {
    let metadata = Path::ROOT.field("metadata");
    // Upstream puts them under metadata in its messages.
    let taints_path = metadata.field("taints");
    let taints = list(&node["spec"]["taints"]);
    for (at, taint) in taints.iter().enumerate() {
        let path = taints_path.index(at);
        let key = text(&taint["key"]);
        check.named(&path.field("key"), key, names::qualified_name(key));
        let value = text(&taint["value"]);
        let problems = names::label_value(value);
        if !problems.is_empty() {
            check.invalid(&path.field("value"), value, problems.join(";"));
        }
        if check.present(&path.field("effect"), &taint["effect"]) {
            scheduling::check_effect(check, &path.field("effect"), text(&taint["effect"]));
        }
        let same = |other: &&Value| other["key"] == taint["key"] && other["effect"] == taint["effect"];
        if taints[..at].iter().any(|other| same(&other)) {
            let mut cause = crate::field::duplicate(&path, taint.clone());
            cause.message.push_str(": taints must be unique by key and effect pair");
            check.causes.push(cause);
        }
    }
    let status = Path::ROOT.field("status");
    for kind in ["capacity", "allocatable"] {
        let path = status.field(kind);
        for (name, amount) in entries(&node["status"][kind]) {
            resources::check_amount(check, &path.key(name), name, amount);
        }
    }
}

pub fn check_limit_range(check: &mut Check, range: &Value) {
    let spec = Path::ROOT.field("spec");
    let limits = spec.field("limits");
    for (at, limit) in list(&range["spec"]["limits"]).iter().enumerate() {
        let path = limits.index(at);
        check.present(&path.field("type"), &limit["type"]);
        if list(&range["spec"]["limits"])[..at]
            .iter()
            .any(|other| other["type"] == limit["type"])
        {
            check.duplicate(&path.field("type"), limit["type"].clone());
        }
        let amount = |kind: &str, name: &str| limit[kind].get(name).and_then(Quantity::from_json);
        for kind in ["max", "min", "default", "defaultRequest"] {
            for (name, _) in entries(&limit[kind]) {
                let min = amount("min", name);
                let max = amount("max", name);
                let own = amount(kind, name);
                let above = |bound: Option<Quantity>| matches!((own, bound), (Some(own), Some(bound)) if own > bound);
                let below = |bound: Option<Quantity>| matches!((own, bound), (Some(own), Some(bound)) if own < bound);
                let kind_path = path.field(kind);
                let entry = kind_path.key(name);
                let shown = own.map(|own| own.to_string()).unwrap_or_default();
                if kind == "min" && above(max) {
                    let detail = format!(
                        "min value {shown} is greater than max value {}",
                        max.unwrap_or(Quantity::ZERO)
                    );
                    check.invalid(&entry, shown, detail);
                } else if kind != "max" && kind != "min" {
                    let what = if kind == "default" {
                        "default"
                    } else {
                        "default request"
                    };
                    if above(max) {
                        let max = max.unwrap_or(Quantity::ZERO);
                        let detail = format!("{what} value {shown} is greater than max value {max}");
                        check.invalid(&entry, shown, detail);
                    } else if below(min) {
                        let min = min.unwrap_or(Quantity::ZERO);
                        let detail = format!("min value {min} is greater than {what} value {shown}");
                        check.invalid(&entry, shown, detail);
                    }
                }
            }
        }
    }
}

pub fn check_resource_quota(check: &mut Check, quota: &Value) {
    let spec = Path::ROOT.field("spec");
    let hard = spec.field("hard");
    for (name, amount) in entries(&quota["spec"]["hard"]) {
        let path = hard.key(name);
        check.named(&path, name, names::qualified_name(name));
        if let Some(amount) = Quantity::from_json(amount).filter(Quantity::is_negative) {
            check.invalid(&path, amount.to_string(), "must be greater than or equal to 0");
        }
    }
}

pub fn check_controller_revision(check: &mut Check, revision: &Value, old: Option<&Value>) {
    check.non_negative(&Path::ROOT.field("revision"), &revision["revision"]);
    if let Some(old) = old {
        check.immutable(&Path::ROOT.field("data"), &revision["data"], &old["data"]);
    } else if revision["data"].is_null() {
        check.required(&Path::ROOT.field("data"), "data is mandatory");
    }
}

pub fn check_lease(check: &mut Check, lease: &Value) {
    let spec = &lease["spec"];
    let path = Path::ROOT.field("spec");
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        check.invalid(&path.field("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    check.non_negative(&path.field("leaseTransitions"), &spec["leaseTransitions"]);
}

pub fn check_priority_class(check: &mut Check, class: &Value, old: Option<&Value>) {
    const HIGHEST_OF_USERS: i64 = 1_000_000_000;
    let name = text(&class["metadata"]["name"]);
    let value = class["value"].as_i64().unwrap_or(0);
    let known = [
        ("system-cluster-critical", 2_000_000_000),
        ("system-node-critical", 2_000_001_000),
    ];
    if name.starts_with("system-") {
        if !known.contains(&(name, value)) {
            let metadata = Path::ROOT.field("metadata");
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a \
                 known system priority class"
            );
            check.forbidden(&metadata.field("name"), detail);
        }
    } else if value > HIGHEST_OF_USERS {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
        check.forbidden(&Path::ROOT.field("value"), detail);
    }
    let policy = Path::ROOT.field("preemptionPolicy");
    check.one_of_or_none(&policy, &class["preemptionPolicy"], &["PreemptLowerPriority", "Never"]);
    if let Some(old) = old {
        if class["value"] != old["value"] {
            check.forbidden(&Path::ROOT.field("value"), "may not be changed in an update.");
        }
        check.immutable(&policy, &class["preemptionPolicy"], &old["preemptionPolicy"]);
    }
}

pub fn check_disruption_budget(check: &mut Check, budget: &Value) {
    let spec = &budget["spec"];
    let path = Path::ROOT.field("spec");
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        check.invalid(&path, spec.clone(), detail);
    }
    for field in ["minAvailable", "maxUnavailable"] {
        check.count_or_percent(&path.field(field), &spec[field]);
        if percent_of(text(&spec[field])).is_some_and(|percent| percent > 100) {
            check.invalid(&path.field(field), spec[field].clone(), "must not be greater than 100%");
        }
    }
    check.label_selector(&path.field("selector"), &spec["selector"]);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    check.one_of_or_none(
        &path.field("unhealthyPodEvictionPolicy"),
        &spec["unhealthyPodEvictionPolicy"],
        &policies,
    );
}

pub fn check_autoscaler(check: &mut Check, autoscaler: &Value) {
    let spec = &autoscaler["spec"];
    let path = Path::ROOT.field("spec");
    let (min, max) = (
        spec["minReplicas"].as_i64().unwrap_or(1),
        spec["maxReplicas"].as_i64().unwrap_or(0),
    );
    if min < 1 {
        check.invalid(&path.field("minReplicas"), min, "must be greater than or equal to 1");
    }
    if max < 1 {
        check.invalid(&path.field("maxReplicas"), max, "must be greater than 0");
    }
    if max < min {
        check.invalid(
            &path.field("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        );
    }
    let target = path.field("scaleTargetRef");
    for field in ["kind", "name"] {
        check.required_name(
            &target.field(field),
            &spec["scaleTargetRef"][field],
            names::path_segment,
        );
    }
}
