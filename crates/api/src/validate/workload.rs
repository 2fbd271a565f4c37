//! What keeps Pods running: Deployments, ReplicaSets, StatefulSets, DaemonSets, replication controllers.

use serde_json::Value;

use super::{
    check::{Check, is_empty_map, list, percent_of, text},
    pod::{TemplateOf, check_pod_spec},
    storage,
};
use crate::{field::Path, names, selector::LabelSelector};

pub fn check_template(check: &mut Check, path: &Path, template: &Value) {
    let metadata = &template["metadata"];
    check.labels(&path.field("labels"), &metadata["labels"]);
    check.annotations(&path.field("annotations"), &metadata["annotations"]);
    let spec_path = path.field("spec");
    check_pod_spec(check, &spec_path, &template["spec"], TemplateOf::Workload);
    if !list(&template["spec"]["ephemeralContainers"]).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        check.forbidden(&spec_path.field("ephemeralContainers"), detail);
    }
}

/// A template whose Pods run for ever, and which a selector must match.
fn check_lasting_template(check: &mut Check, path: &Path, template: &Value, kind: &str) {
    check_template(check, path, template);
    let spec = path.field("spec");
    if template["spec"]["restartPolicy"] != "Always" {
        let policy = template["spec"]["restartPolicy"].clone();
        check.not_supported(&spec.field("restartPolicy"), policy, &["Always"]);
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        check.forbidden(&spec.field("activeDeadlineSeconds"), detail);
    }
}

/// The selector is there, well formed, not empty, and matches the template.
fn check_selector(check: &mut Check, path: &Path, spec: &Value, kind: &str) {
    let selector = &spec["selector"];
    let selector_path = path.field("selector");
    if selector.is_null() {
        check.required(&selector_path, "");
    } else {
        check.label_selector(&selector_path, selector);
        if is_empty_map(&selector["matchLabels"]) && list(&selector["matchExpressions"]).is_empty() {
            let detail = format!("empty selector is invalid for {kind}");
            check.invalid(&selector_path, selector.clone(), detail);
            return;
        }
    }
    check_selector_matches(check, path, spec);
}

pub fn check_selector_matches(check: &mut Check, path: &Path, spec: &Value) {
    let Ok(selector) = LabelSelector::from_json(&spec["selector"]) else {
        return;
    };
    let labels = &spec["template"]["metadata"]["labels"];
    if !spec["selector"].is_null() && !selector.matches(labels) {
        let template = path.field("template");
        let metadata = template.field("metadata");
        let shown = if labels.is_null() {
            Value::Object(Default::default())
        } else {
            labels.clone()
        };
        check.invalid(
            &metadata.field("labels"),
            shown,
            "`selector` does not match template `labels`",
        );
    }
}

fn check_counts(check: &mut Check, path: &Path, spec: &Value, fields: &[&str]) {
    for field in fields {
        check.non_negative(&path.field(field), &spec[*field]);
    }
}

pub fn check_deployment(check: &mut Check, deployment: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &deployment["spec"];
    check_counts(
        check,
        &path,
        spec,
        &[
            "replicas",
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ],
    );
    check_selector(check, &path, spec, "deployment");
    check_lasting_template(check, &path.field("template"), &spec["template"], "ReplicaSet");
    check_deployment_strategy(check, &path.field("strategy"), &spec["strategy"]);
    let ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
    if spec["progressDeadlineSeconds"]
        .as_i64()
        .is_some_and(|deadline| deadline <= ready)
    {
        check.invalid(
            &path.field("progressDeadlineSeconds"),
            spec["progressDeadlineSeconds"].clone(),
            "must be greater than minReadySeconds",
        );
    }
    if let Some(old) = old {
        check.immutable(&path.field("selector"), &spec["selector"], &old["spec"]["selector"]);
    }
}

fn check_deployment_strategy(check: &mut Check, path: &Path, strategy: &Value) {
    let rolling = &strategy["rollingUpdate"];
    let rolling_path = path.field("rollingUpdate");
    match text(&strategy["type"]) {
        "Recreate" => {
            if !rolling.is_null() {
                check.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => {
            check.count_or_percent(&rolling_path.field("maxUnavailable"), &rolling["maxUnavailable"]);
            check.count_or_percent(&rolling_path.field("maxSurge"), &rolling["maxSurge"]);
            if is_zero(&rolling["maxUnavailable"]) && is_zero(&rolling["maxSurge"]) {
                check.invalid(
                    &rolling_path.field("maxUnavailable"),
                    rolling["maxUnavailable"].clone(),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            at_most_all(check, &rolling_path.field("maxUnavailable"), &rolling["maxUnavailable"]);
        }
        _ => check.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(percent) => percent_of(percent) == Some(0),
        number => number.as_i64() == Some(0),
    }
}

fn at_most_all(check: &mut Check, path: &Path, value: &Value) {
    if percent_of(text(value)).is_some_and(|percent| percent > 100) {
        check.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

pub fn check_replica_set(check: &mut Check, set: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &set["spec"];
    check_counts(check, &path, spec, &["replicas", "minReadySeconds"]);
    // Upstream says "deployment" here too.
    check_selector(check, &path, spec, "deployment");
    check_lasting_template(check, &path.field("template"), &spec["template"], "ReplicaSet");
    if let Some(old) = old {
        check.immutable(&path.field("selector"), &spec["selector"], &old["spec"]["selector"]);
    }
}

pub fn check_replication_controller(check: &mut Check, path: &Path, spec: &Value) {
    check_counts(check, path, spec, &["replicas", "minReadySeconds"]);
    if is_empty_map(&spec["selector"]) {
        check.required(&path.field("selector"), "");
    }
    let template_path = path.field("template");
    if spec["template"].is_null() {
        check.required(&template_path, "");
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !LabelSelector::from_map(&spec["selector"]).matches(labels) {
        let metadata = template_path.field("metadata");
        check.invalid(
            &metadata.field("labels"),
            labels.clone(),
            "`selector` does not match template `labels`",
        );
    }
    check_lasting_template(check, &template_path, &spec["template"], "ReplicationController");
}

pub fn check_stateful_set(check: &mut Check, set: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &set["spec"];
    if !matches!(text(&spec["podManagementPolicy"]), "OrderedReady" | "Parallel") {
        check.invalid(
            &path.field("podManagementPolicy"),
            spec["podManagementPolicy"].clone(),
            "must be 'OrderedReady' or 'Parallel'",
        );
    }
    let strategy = &spec["updateStrategy"];
    let strategy_path = path.field("updateStrategy");
    let rolling_path = strategy_path.field("rollingUpdate");
    match text(&strategy["type"]) {
        "" => check.required(&strategy_path, ""),
        "OnDelete" => {
            if !strategy["rollingUpdate"].is_null() {
                check.invalid(
                    &rolling_path,
                    strategy["rollingUpdate"].clone(),
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            check.non_negative(
                &rolling_path.field("partition"),
                &strategy["rollingUpdate"]["partition"],
            );
        }
        _ => check.invalid(
            &strategy_path,
            strategy.clone(),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
    let retention = &spec["persistentVolumeClaimRetentionPolicy"];
    let retention_path = path.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        check.one_of_or_none(&retention_path.field(field), &retention[field], &["Delete", "Retain"]);
    }
    check_counts(
        check,
        &path,
        spec,
        &["replicas", "minReadySeconds", "revisionHistoryLimit"],
    );
    check.non_negative(&path.field("ordinals.start"), &spec["ordinals"]["start"]);
    if !text(&spec["serviceName"]).is_empty() && old.is_none() {
        let name = text(&spec["serviceName"]);
        check.named(&path.field("serviceName"), name, names::dns1123_label(name));
    }
    check_selector(check, &path, spec, "statefulset");
    let claims_path = path.field("volumeClaimTemplates");
    if old.is_none() {
        for (at, claim) in list(&spec["volumeClaimTemplates"]).iter().enumerate() {
            let path = claims_path.index(at);
            storage::check_claim_spec(check, &path.field("spec"), &claim["spec"]);
        }
    }
    check_lasting_template(
        check,
        &path.field("template"),
        &with_claimed_volumes(spec),
        "StatefulSet",
    );
    if let Some(old) = old {
        let mut munged = spec.clone();
        if let Some(fields) = munged.as_object_mut() {
            for field in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                match old["spec"].get(field) {
                    Some(value) => fields.insert(field.to_owned(), value.clone()),
                    None => fields.remove(field),
                };
            }
        }
        if munged != old["spec"] {
            check.forbidden(
                &path,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            );
        }
    }
}

/// The template as its Pods will have it: with the volumes that they get from the claims, so that mounts of those are
/// found, and without the names that are given to them.
fn with_claimed_volumes(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    if let Some(pod) = template["spec"].as_object_mut() {
        // The controller writes its own over them.
        pod.retain(|field, _| !matches!(field.as_str(), "subdomain" | "hostname"));
    }
    let claims = list(&spec["volumeClaimTemplates"]);
    if claims.is_empty() || !template["spec"].is_object() {
        return template;
    }
    let names: Vec<&str> = claims.iter().map(|claim| text(&claim["metadata"]["name"])).collect();
    let mut volumes: Vec<Value> = list(&template["spec"]["volumes"])
        .iter()
        .filter(|volume| !names.contains(&text(&volume["name"])))
        .cloned()
        .collect();
    volumes.extend(
        names
            .iter()
            .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}})),
    );
    template["spec"]["volumes"] = Value::Array(volumes);
    template
}

pub fn check_daemon_set(check: &mut Check, set: &Value, old: Option<&Value>) {
    let path = Path::ROOT.field("spec");
    let spec = &set["spec"];
    check_selector(check, &path, spec, "daemonset");
    check_lasting_template(check, &path.field("template"), &spec["template"], "DaemonSet");
    check_counts(check, &path, spec, &["minReadySeconds", "revisionHistoryLimit"]);
    let strategy = &spec["updateStrategy"];
    let strategy_path = path.field("updateStrategy");
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = &strategy["rollingUpdate"];
            let rolling_path = strategy_path.field("rollingUpdate");
            for field in ["maxUnavailable", "maxSurge"] {
                check.count_or_percent(&rolling_path.field(field), &rolling[field]);
                at_most_all(check, &rolling_path.field(field), &rolling[field]);
            }
            let (unavailable, surge) = (is_zero(&rolling["maxUnavailable"]), is_zero(&rolling["maxSurge"]));
            if !unavailable && !surge {
                let detail = "may not be set when maxUnavailable is non-zero";
                check.invalid(&rolling_path.field("maxSurge"), rolling["maxSurge"].clone(), detail);
            } else if unavailable && surge {
                let detail = "cannot be 0 when maxSurge is 0";
                check.required(&rolling_path.field("maxUnavailable"), detail);
            }
        }
        _ => check.not_supported(&strategy_path, strategy.clone(), &["OnDelete", "RollingUpdate"]),
    }
    if let Some(old) = old {
        check.immutable(&path.field("selector"), &spec["selector"], &old["spec"]["selector"]);
    }
}

/// The counts of a workload's status fit together.
pub fn check_replica_counts(check: &mut Check, status: &Value) {
    let path = Path::ROOT.field("status");
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "fullyLabeledReplicas",
        "currentReplicas",
        "collisionCount",
    ] {
        check.non_negative(&path.field(field), &status[field]);
    }
    let Some(replicas) = status["replicas"].as_i64() else {
        return;
    };
    for field in [
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "fullyLabeledReplicas",
    ] {
        if let Some(count) = status[field].as_i64().filter(|count| *count > replicas) {
            check.invalid(&path.field(field), count, "cannot be greater than status.replicas");
        }
    }
}
