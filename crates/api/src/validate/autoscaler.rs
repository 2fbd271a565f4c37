//! HorizontalPodAutoscalers, in the version with metrics.

use serde_json::Value;

use super::{
    check::{Check, list, text},
    resources::check_container_resource,
};
use crate::{field::Path, names, quantity::Quantity};

/// The longest that a policy looks back.
const PERIOD_SECONDS_MAX: i64 = 1800;

const WINDOW_SECONDS_MAX: i64 = 3600;

pub fn check_autoscaler(check: &mut Check, autoscaler: &Value) {
    let spec = &autoscaler["spec"];
    let path = Path::ROOT.field("spec");
    let min = spec["minReplicas"].as_i64();
    let max = spec["maxReplicas"].as_i64().unwrap_or(0);
    let max_path = path.field("maxReplicas");
    if let Some(min) = min.filter(|min| *min < 1) {
        check.invalid(&path.field("minReplicas"), min, "must be greater than or equal to 1");
    }
    if max == 0 {
        check.required(&max_path, "must be set and greater than 0");
    } else if max < 0 {
        check.invalid(&max_path, max, "must be greater than or equal to 1");
    }
    if min.is_some_and(|min| max < min) {
        check.invalid(&max_path, max, "must be greater than or equal to `minReplicas`");
    }
    check_reference(check, &path.field("scaleTargetRef"), &spec["scaleTargetRef"]);
    let metrics = path.field("metrics");
    for (at, metric) in list(&spec["metrics"]).iter().enumerate() {
        check_metric(check, &metrics.index(at), metric);
    }
    let behavior = path.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if !rules.is_null() {
            check_rules(check, &behavior.field(direction), rules);
        }
    }
}

fn check_reference(check: &mut Check, path: &Path, reference: &Value) {
    for field in ["kind", "name"] {
        check.required_name(&path.field(field), &reference[field], names::path_segment);
    }
    let version = text(&reference["apiVersion"]);
    if version.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {version}");
        check.invalid(&path.field("apiVersion"), version, detail);
    }
}

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn check_metric(check: &mut Check, path: &Path, metric: &Value) {
    let kind = text(&metric["type"]);
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    let kinds = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    if kind.is_empty() {
        check.required(&path.field("type"), "must specify a metric source type");
    }
    if expected.is_none() {
        check.not_supported(&path.field("type"), kind, &kinds);
    }
    let present: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| !metric[*field].is_null())
        .collect();
    if let Some(first) = present.first() {
        check_source(check, &path.field(first), first, &metric[*first]);
    }
    if let Some(expected) = expected.filter(|expected| metric[*expected].is_null()) {
        let detail = "must populate information for the given metric source";
        check.required(&path.field(expected), detail);
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            check.forbidden(&path.field(field), "must populate the given metric source only");
        }
    }
}

fn check_source(check: &mut Check, path: &Path, field: &str, source: &Value) {
    let target = &source["target"];
    let target_path = path.field("target");
    let has = |name: &str| !target[name].is_null();
    if field == "object" {
        check_reference(check, &path.field("describedObject"), &source["describedObject"]);
    }
    if field.ends_with("esource") {
        if text(&source["name"]).is_empty() {
            check.required(&path.field("name"), "must specify a resource name");
        } else if field == "containerResource" {
            check_container_resource(check, &path.field("name"), text(&source["name"]));
        }
        if field == "containerResource" {
            let container = text(&source["container"]);
            if container.is_empty() {
                check.required(&path.field("container"), "must specify a container");
            } else {
                check.named(&path.field("container"), container, names::dns1123_label(container));
            }
        }
    } else {
        let name = text(&source["metric"]["name"]);
        let metric = path.field("metric");
        if name.is_empty() {
            check.required(&metric.field("name"), "must specify a metric name");
        } else {
            check.named(&metric.field("name"), name, names::path_segment(name));
        }
    }
    check_target(check, &target_path, target);
    let average = target_path.field("averageValue");
    match field {
        "object" if !has("value") && !has("averageValue") => {
            check.required(&average, "must set either a target value or averageValue");
        }
        "external" if !has("value") && !has("averageValue") => {
            check.required(
                &average,
                "must set either a target value for metric or a per-pod target",
            );
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            check.forbidden(&target_path.field("value"), detail);
        }
        "pods" if !has("averageValue") => {
            check.required(&average, "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            let detail = "must set either a target raw value or a target utilization";
            check.required(&target_path.field("averageUtilization"), detail);
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            check.forbidden(&average, "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn check_target(check: &mut Check, path: &Path, target: &Value) {
    let kind = text(&target["type"]);
    if kind.is_empty() {
        check.required(&path.field("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        check.invalid(&path.field("type"), kind, detail);
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = Quantity::from_json(&target[field]).filter(|amount| *amount <= Quantity::ZERO) {
            check.invalid(&path.field(field), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = target["averageUtilization"].as_i64().filter(|percent| *percent < 1) {
        check.invalid(&path.field("averageUtilization"), percent, "must be greater than 0");
    }
}

fn check_rules(check: &mut Check, path: &Path, rules: &Value) {
    if let Some(seconds) = rules["stabilizationWindowSeconds"].as_i64() {
        let path = path.field("stabilizationWindowSeconds");
        if seconds < 0 {
            check.invalid(&path, seconds, "must be greater than or equal to zero");
        }
        if seconds > WINDOW_SECONDS_MAX {
            check.invalid(
                &path,
                seconds,
                format!("must be less than or equal to {WINDOW_SECONDS_MAX}"),
            );
        }
    }
    let choices = ["Disabled", "Max", "Min"];
    check.one_of_or_none(&path.field("selectPolicy"), &rules["selectPolicy"], &choices);
    let policies_path = path.field("policies");
    let policies = list(&rules["policies"]);
    if policies.is_empty() {
        check.required(&policies_path, "must specify at least one Policy");
    }
    for (at, policy) in policies.iter().enumerate() {
        let path = policies_path.index(at);
        let kind = text(&policy["type"]);
        if !matches!(kind, "Pods" | "Percent") {
            check.not_supported(&path.field("type"), kind, &["Percent", "Pods"]);
        }
        check.positive(&path.field("value"), &policy["value"]);
        let period = path.field("periodSeconds");
        check.positive(&period, &policy["periodSeconds"]);
        if let Some(seconds) = policy["periodSeconds"].as_i64().filter(|it| *it > PERIOD_SECONDS_MAX) {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            check.invalid(&period, seconds, detail);
        }
    }
    if let Some(tolerance) = Quantity::from_json(&rules["tolerance"]).filter(Quantity::is_negative) {
        let detail = "must be greater than or equal to 0";
        check.invalid(&path.field("tolerance"), tolerance.to_string(), detail);
    }
}
