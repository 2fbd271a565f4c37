//! Workloads: Deployments and their like, Jobs.

use serde_json::{Value, json};

use super::{at, each, inside, is_empty_map, pod::default_template, set, set_over, storage};

pub(super) fn default_deployment(deployment: &mut Value) {
    let spec = at(deployment, "spec");
    default_template(at(spec, "template"));
    set(spec, "replicas", 1);
    let strategy = at(spec, "strategy");
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = at(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
}

pub(super) fn default_replica_set(set_: &mut Value) {
    let spec = at(set_, "spec");
    set(spec, "replicas", 1);
    if spec["template"].is_object() {
        default_template(at(spec, "template"));
    }
}

pub(super) fn default_replication_controller(controller: &mut Value) {
    let spec = at(controller, "spec");
    set(spec, "replicas", 1);
    if let Some(template) = inside(spec, "template") {
        default_template(template);
    }
    let labels = spec["template"]["metadata"]["labels"].clone();
    if is_empty_map(&labels) {
        return;
    }
    if is_empty_map(&spec["selector"]) {
        set_over(spec, "selector", labels.clone());
    }
    let metadata = at(controller, "metadata");
    if is_empty_map(&metadata["labels"]) {
        set_over(metadata, "labels", labels);
    }
}

pub(super) fn default_daemon_set(daemon_set: &mut Value) {
    let spec = at(daemon_set, "spec");
    default_template(at(spec, "template"));
    let strategy = at(spec, "updateStrategy");
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = at(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", 1);
        set(rolling, "maxSurge", 0);
    }
    set(spec, "revisionHistoryLimit", 10);
}

pub(super) fn default_stateful_set(stateful_set: &mut Value) {
    let spec = at(stateful_set, "spec");
    default_template(at(spec, "template"));
    set(spec, "podManagementPolicy", "OrderedReady");
    let strategy = at(spec, "updateStrategy");
    if strategy["type"].as_str().unwrap_or("").is_empty() {
        set(strategy, "type", "RollingUpdate");
        set(strategy, "rollingUpdate", json!({}));
    }
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling) = inside(strategy, "rollingUpdate")
    {
        set(rolling, "partition", 0);
    }
    let retention = at(spec, "persistentVolumeClaimRetentionPolicy");
    set(retention, "whenDeleted", "Retain");
    set(retention, "whenScaled", "Retain");
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    for claim in each(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        storage::default_claim(claim);
    }
}

pub(super) fn default_job(job: &mut Value) {
    let spec = at(job, "spec");
    default_job_spec(spec);
    let labels = spec["template"]["metadata"]["labels"].clone();
    let metadata = at(job, "metadata");
    if !is_empty_map(&labels) && is_empty_map(&metadata["labels"]) {
        set_over(metadata, "labels", labels);
    }
}

fn default_job_spec(spec: &mut Value) {
    default_template(at(spec, "template"));
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    let replaced = if spec["podFailurePolicy"].is_null() {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    set(spec, "podReplacementPolicy", replaced);
    set(spec, "manualSelector", false);
    if let Some(policy) = inside(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for pattern in each(rule, "onPodConditions") {
                set(pattern, "status", "True");
            }
        }
    }
}

pub(super) fn default_cron_job(cron_job: &mut Value) {
    let spec = at(cron_job, "spec");
    set(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    // A job's template has its Pods' defaults only; the rest comes when the Job is made.
    let job = at(at(spec, "jobTemplate"), "spec");
    default_template(at(job, "template"));
}
