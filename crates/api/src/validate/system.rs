//! Kinds about the plane and its nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    check::{Check, Seen, entries, list, percent_of, text},
    resources, scheduling,
};
use crate::{field::Path, names};

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

pub fn check_node(check: &mut Check, node: &Value, old: Option<&Value>) {
    if let Some(old) = old {
        check_node_update(check, &node["spec"], &old["spec"]);
    }
    let metadata = Path::ROOT.field("metadata");
    // Upstream puts them under metadata in its messages.
    let taints_path = metadata.field("taints");
    let taints = list(&node["spec"]["taints"]);
    let mut seen = Seen::default();
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
        if seen.again(format!("{key}:{}", text(&taint["effect"]))) {
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

/// What a node was given once stays.
fn check_node_update(check: &mut Check, spec: &Value, old: &Value) {
    let path = Path::ROOT.field("spec");
    for (field, shown) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let had = !list(&old[field]).is_empty() || !text(&old[field]).is_empty();
        if had && spec[field] != old[field] {
            let detail = format!("node updates may not change {shown} except from \"\" to valid");
            check.forbidden(&path.field(field), detail);
        }
    }
}

/// An Event lies where what it is about lies; what lies nowhere has its Events in `default`.
pub fn check_event(check: &mut Check, event: &Value) {
    let own = text(&event["metadata"]["namespace"]);
    let object = Path::ROOT.field("involvedObject");
    let about = text(&event["involvedObject"]["namespace"]);
    let agrees = if about.is_empty() {
        matches!(own, "" | "default")
    } else {
        own == about
    };
    if !agrees {
        let detail = "does not match event.namespace";
        check.invalid(&object.field("namespace"), about, detail);
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

pub fn check_namespace(check: &mut Check, namespace: &Value) {
    let spec = Path::ROOT.field("spec");
    let path = spec.field("finalizers");
    for finalizer in list(&namespace["spec"]["finalizers"]) {
        let name = text(finalizer);
        check.named(&path, name, names::qualified_name(name));
        if !name.contains('/') && !matches!(name, "kubernetes" | "foregroundDeletion" | "orphan") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            check.invalid(&path, name, detail);
        }
    }
}

pub fn check_runtime_class(check: &mut Check, class: &Value, old: Option<&Value>) {
    let handler = Path::ROOT.field("handler");
    if let Some(old) = old {
        check.immutable(&handler, &class["handler"], &old["handler"]);
        return;
    }
    check.required_name(&handler, &class["handler"], names::dns1123_label);
    let fixed = serde_json::json!({"limits": class["overhead"]["podFixed"]});
    resources::check_resources(check, &Path::ROOT.field("overhead"), &fixed, &BTreeSet::new());
    let path = Path::ROOT.field("scheduling");
    check.labels(&path.field("nodeSelector"), &class["scheduling"]["nodeSelector"]);
    let tolerations_path = path.field("tolerations");
    let tolerations = &class["scheduling"]["tolerations"];
    scheduling::check_tolerations(check, &tolerations_path, tolerations);
    let mut seen = Seen::default();
    for (at, toleration) in list(tolerations).iter().enumerate() {
        let key = ["key", "operator", "value", "effect"].map(|field| text(&toleration[field]));
        if seen.again(key.join("\n")) {
            check.duplicate(&tolerations_path.index(at), toleration.clone());
        }
    }
}
