//! What may change of a Pod that exists: images, deadlines, more tolerations, fewer gates.

use std::collections::HashSet;

use serde_json::Value;

use super::check::{Check, list, text};
use crate::{field::Path, names};

pub fn check_pod_update(check: &mut Check, new: &Value, old: &Value) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let mirror = |pod: &Value| pod["metadata"]["annotations"][MIRROR].clone();
    if mirror(new) != mirror(old) {
        let metadata = Path::ROOT.field("metadata");
        let annotations = metadata.field("annotations");
        let verb = if mirror(old).is_null() {
            "add"
        } else {
            "remove or update"
        };
        check.forbidden(
            &annotations.key(MIRROR),
            format!("may not {verb} mirror pod annotation"),
        );
    }
    let (spec, old) = (&new["spec"], &old["spec"]);
    let path = Path::ROOT.field("spec");
    for kind in ["containers", "initContainers"] {
        if list(&spec[kind]).len() != list(&old[kind]).len() {
            check.forbidden(&path.field(kind), "pod updates may not add or remove containers");
            return;
        }
    }
    check_deadline(check, &path.field("activeDeadlineSeconds"), spec, old);
    check_tolerations(check, &path.field("tolerations"), spec, old);
    let gates = path.field("schedulingGates");
    let known: HashSet<&Value> = list(&old["schedulingGates"]).iter().collect();
    for (at, gate) in list(&spec["schedulingGates"]).iter().enumerate() {
        if !known.contains(gate) {
            let gate_path = gates.index(at);
            let name = text(&gate["name"]);
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            check.forbidden(&gate_path.field("name"), detail);
        }
    }
    let munged = with_changeable_fields_of(spec, old);
    if munged != *old {
        check.forbidden(
            &path,
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,\
                 `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                 existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                 previously negative)\n{}",
                differences(old, &munged)
            ),
        );
    }
}

fn check_deadline(check: &mut Check, path: &Path, spec: &Value, old: &Value) {
    let before = old["activeDeadlineSeconds"].as_i64();
    match (spec["activeDeadlineSeconds"].as_i64(), before) {
        (Some(seconds), Some(before)) if seconds > before => {
            check.invalid(path, seconds, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            check.invalid(
                path,
                Value::Null,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
}

fn check_tolerations(check: &mut Check, path: &Path, spec: &Value, old: &Value) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let kept: HashSet<Value> = list(&spec["tolerations"]).iter().map(without_seconds).collect();
    if !list(&old["tolerations"])
        .iter()
        .all(|toleration| kept.contains(&without_seconds(toleration)))
    {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        check.forbidden(path, detail);
    }
}

/// The new spec with everything that may change put back as it was; what still differs may not.
fn with_changeable_fields_of(spec: &Value, old: &Value) -> Value {
    let mut munged = spec.clone();
    let gated = !list(&old["schedulingGates"]).is_empty();
    for kind in ["containers", "initContainers"] {
        let before = list(&old[kind]);
        let containers = munged.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(before) {
            copy(container, before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        copy(&mut munged, old, field);
    }
    let grace = |spec: &Value| spec["terminationGracePeriodSeconds"].as_i64();
    if grace(old).is_some_and(|seconds| seconds < 0) && grace(spec) == Some(1) {
        copy(&mut munged, old, "terminationGracePeriodSeconds");
    }
    if gated {
        // A Pod that waits may be given a narrower choice of nodes.
        let narrower = old["nodeSelector"]
            .as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| spec["nodeSelector"].get(key) == Some(value));
        if narrower {
            copy(&mut munged, old, "nodeSelector");
        }
        if old["affinity"]["nodeAffinity"].is_null() {
            if old["affinity"].is_null()
                && munged["affinity"]["podAffinity"].is_null()
                && munged["affinity"]["podAntiAffinity"].is_null()
            {
                copy(&mut munged, old, "affinity");
            } else if munged["affinity"].is_object() {
                copy(&mut munged["affinity"], &old["affinity"], "nodeAffinity");
            }
        }
    }
    munged
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// The fields that differ, a line each.
fn differences(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    let names = old
        .as_object()
        .into_iter()
        .flatten()
        .chain(new.as_object().into_iter().flatten());
    let mut seen: Vec<&String> = Vec::new();
    for (name, _) in names {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        if old[name] != new[name] {
            lines.push(format!("-  {name}: {}\n+  {name}: {}", old[name], new[name]));
        }
    }
    lines.join("\n")
}

pub fn check_pod_status(check: &mut Check, new: &Value, old: &Value) {
    let path = Path::ROOT.field("status");
    if new["spec"]["nodeName"] != old["spec"]["nodeName"] {
        check.forbidden(&path.field("nodeName"), "may not be changed directly");
    }
    let nominated = text(&new["status"]["nominatedNodeName"]);
    if !nominated.is_empty() && new["status"]["nominatedNodeName"] != old["status"]["nominatedNodeName"] {
        let problems = names::dns1123_subdomain(nominated);
        check.named(&path.field("nominatedNodeName"), nominated, problems);
    }
    check.non_negative(&path.field("observedGeneration"), &new["status"]["observedGeneration"]);
    if old["status"]["qosClass"].is_string() {
        check.immutable(
            &path.field("qosClass"),
            &new["status"]["qosClass"],
            &old["status"]["qosClass"],
        );
    }
    check_no_revival(check, &path, new, old);
}

/// A container that ended and is not to be restarted stays ended.
fn check_no_revival(check: &mut Check, path: &Path, new: &Value, old: &Value) {
    let policy = text(&old["spec"]["restartPolicy"]);
    if policy == "Always" {
        return;
    }
    let statuses = path.field("containerStatuses");
    for before in list(&old["status"]["containerStatuses"]) {
        let ended = &before["state"]["terminated"];
        if ended.is_null() || (policy == "OnFailure" && ended["exitCode"] != 0) {
            continue;
        }
        let own_policy = list(&old["spec"]["containers"])
            .iter()
            .find(|container| container["name"] == before["name"])
            .is_some_and(|container| !container["restartPolicy"].is_null());
        let now = list(&new["status"]["containerStatuses"]);
        let revived = now
            .iter()
            .position(|status| status["name"] == before["name"] && status["state"]["terminated"].is_null());
        if let Some(at) = revived.filter(|_| !own_policy) {
            let status = statuses.index(at);
            check.forbidden(
                &status.field("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}
