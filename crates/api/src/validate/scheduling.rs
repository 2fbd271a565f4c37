//! Where a Pod wants to go: affinity, tolerations, spreading.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::check::{Check, list, text};
use crate::{field::Path, names};

pub fn check_affinity(check: &mut Check, path: &Path, affinity: &Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = &affinity["nodeAffinity"];
    let node_path = path.field("nodeAffinity");
    if !node[REQUIRED].is_null() {
        check_node_selector(check, &node_path.field(REQUIRED), &node[REQUIRED]);
    }
    let preferred = node_path.field(PREFERRED);
    for (at, term) in list(&node[PREFERRED]).iter().enumerate() {
        let path = preferred.index(at);
        check_weight(check, &path, term);
        check_term(check, &path.field("preference"), &term["preference"]);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = path.field(kind);
        let required = path.field(REQUIRED);
        for (at, term) in list(&affinity[kind][REQUIRED]).iter().enumerate() {
            check_pod_term(check, &required.index(at), term);
        }
        let preferred = path.field(PREFERRED);
        for (at, term) in list(&affinity[kind][PREFERRED]).iter().enumerate() {
            let path = preferred.index(at);
            check_weight(check, &path, term);
            check_pod_term(check, &path.field("podAffinityTerm"), &term["podAffinityTerm"]);
        }
    }
}

fn check_weight(check: &mut Check, path: &Path, term: &Value) {
    let weight = term["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        check.invalid(&path.field("weight"), weight, "must be in the range 1-100");
    }
}

pub fn check_node_selector(check: &mut Check, path: &Path, selector: &Value) {
    let terms_path = path.field("nodeSelectorTerms");
    let terms = list(&selector["nodeSelectorTerms"]);
    if terms.is_empty() {
        check.required(&terms_path, "must have at least one node selector term");
    }
    for (at, term) in terms.iter().enumerate() {
        check_term(check, &terms_path.index(at), term);
    }
}

fn check_term(check: &mut Check, path: &Path, term: &Value) {
    let expressions = path.field("matchExpressions");
    for (at, requirement) in list(&term["matchExpressions"]).iter().enumerate() {
        check_requirement(check, &expressions.index(at), requirement);
    }
    let fields = path.field("matchFields");
    for (at, requirement) in list(&term["matchFields"]).iter().enumerate() {
        let path = fields.index(at);
        let operator = text(&requirement["operator"]);
        if !matches!(operator, "In" | "NotIn") {
            check.invalid(&path.field("operator"), operator, "not a valid selector operator");
        } else if list(&requirement["values"]).len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            check.required(&path.field("values"), detail);
        }
        if text(&requirement["key"]) != "metadata.name" {
            check.invalid(
                &path.field("key"),
                text(&requirement["key"]),
                "not a valid field selector key",
            );
        }
    }
}

fn check_requirement(check: &mut Check, path: &Path, requirement: &Value) {
    let values = list(&requirement["values"]);
    let values_path = path.field("values");
    match text(&requirement["operator"]) {
        "In" | "NotIn" => {
            if values.is_empty() {
                check.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                check.forbidden(&values_path, detail);
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                check.required(&values_path, detail);
            }
        }
        other => check.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
    let key = text(&requirement["key"]);
    check.named(&path.field("key"), key, names::qualified_name(key));
    for (at, value) in values.iter().enumerate() {
        check.named(&values_path.index(at), text(value), names::label_value(text(value)));
    }
}

fn check_pod_term(check: &mut Check, path: &Path, term: &Value) {
    for selector in ["labelSelector", "namespaceSelector"] {
        check.label_selector(&path.field(selector), &term[selector]);
    }
    for namespace in list(&term["namespaces"]) {
        let name = text(namespace);
        check.named(&path.field("namespace"), name, names::dns1123_label(name));
    }
    check_label_keys(check, path, term);
    let key = text(&term["topologyKey"]);
    let key_path = path.field("topologyKey");
    if key.is_empty() {
        check.required(&key_path, "can not be empty");
    }
    check.named(&key_path, key, names::qualified_name(key));
}

pub fn check_tolerations(check: &mut Check, path: &Path, tolerations: &Value) {
    for (at, toleration) in list(tolerations).iter().enumerate() {
        let path = path.index(at);
        let key = text(&toleration["key"]);
        let operator = text(&toleration["operator"]);
        let value = text(&toleration["value"]);
        let effect = text(&toleration["effect"]);
        let operator_path = path.field("operator");
        if !key.is_empty() {
            check.named(&path.field("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            check.invalid(&operator_path, operator, detail);
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            check.invalid(&path.field("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => {
                let problems = names::label_value(value);
                if !problems.is_empty() {
                    check.invalid(&operator_path, value, problems.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    check.invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'");
                }
            }
            "Lt" | "Gt" => {
                if value.parse::<i64>().is_err() {
                    let detail = "must be a valid decimal integer in canonical form";
                    check.invalid(&path.field("value"), value, detail);
                }
            }
            other => check.not_supported(&operator_path, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            check_effect(check, &path.field("effect"), effect);
        }
    }
}

pub fn check_effect(check: &mut Check, path: &Path, effect: &str) {
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !effects.contains(&effect) {
        check.not_supported(path, effect, &effects);
    }
}

pub fn check_spread(check: &mut Check, path: &Path, constraints: &Value) {
    let constraints = list(constraints);
    let last: HashMap<String, usize> = constraints
        .iter()
        .enumerate()
        .map(|(at, it)| {
            let shown = format!("{{{}, {}}}", text(&it["topologyKey"]), text(&it["whenUnsatisfiable"]));
            (shown, at)
        })
        .collect();
    for (at, constraint) in constraints.iter().enumerate() {
        let path = path.index(at);
        check.positive(&path.field("maxSkew"), &constraint["maxSkew"]);
        if text(&constraint["topologyKey"]).is_empty() {
            check.required(&path.field("topologyKey"), "can not be empty");
        }
        let action = text(&constraint["whenUnsatisfiable"]);
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            check.not_supported(&path.field("whenUnsatisfiable"), action, &actions);
        }
        let shown = format!("{{{}, {action}}}", text(&constraint["topologyKey"]));
        // It is told of all but the last.
        if last.get(&shown) != Some(&at) {
            check.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), shown);
        }
        if !constraint["minDomains"].is_null() {
            check.positive(&path.field("minDomains"), &constraint["minDomains"]);
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                check.invalid(&path.field("minDomains"), constraint["minDomains"].clone(), detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            check.one_of_or_none(&path.field(policy), &constraint[policy], &["Honor", "Ignore"]);
        }
        check_label_keys(check, &path, constraint);
        check.label_selector(&path.field("labelSelector"), &constraint["labelSelector"]);
    }
}

/// Keys whose values are the Pod's own, in an affinity's term or a constraint.
fn check_label_keys(check: &mut Check, path: &Path, term: &Value) {
    let selector = &term["labelSelector"];
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = list(&term[field]);
        let path = path.field(field);
        if !keys.is_empty() && selector.is_null() {
            check.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (at, key) in keys.iter().enumerate() {
            check.named(&path.index(at), text(key), names::qualified_name(text(key)));
        }
    }
    let same = list(&term["matchLabelKeys"]);
    let positions: HashMap<&str, usize> = same.iter().enumerate().map(|(at, key)| (text(key), at)).collect();
    let mut selected: HashSet<&str> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    for expression in list(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let listed = positions.get(key);
        if let Some(at) = listed.filter(|_| selected.contains(key)) {
            check.invalid(&path.index(*at), key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    let keys = path.field("matchLabelKeys");
    let different: HashSet<&str> = list(&term["mismatchLabelKeys"]).iter().map(text).collect();
    for (at, key) in same.iter().enumerate() {
        if different.contains(text(key)) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            check.invalid(&keys.index(at), text(key), detail);
        }
    }
}
