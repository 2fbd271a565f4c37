//! What a Job asks for, read once.

use api::Object;
use serde_json::Value;

use super::indexes::Indexes;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// Who may look after a Job instead of us says so in `spec.managedBy`.
const OURS: &str = "kubernetes.io/job-controller";

#[derive(Clone, Debug)]
pub struct Spec {
    pub parallelism: i64,
    /// Without, one success is enough.
    pub completions: Option<i64>,
    pub indexed: bool,
    pub backoff_limit: i64,
    pub index_backoff_limit: Option<i64>,
    pub failed_indexes_max: Option<i64>,
    pub deadline_seconds: Option<i64>,
    pub ttl_seconds: Option<i64>,
    pub suspended: bool,
    /// A Pod that is leaving is replaced only when it has left.
    pub replaces_late: bool,
    pub restarts_on_failure: bool,
}

impl Spec {
    pub fn of(job: &Object) -> Spec {
        let spec = &job.tree()["spec"];
        let number = |field: &str| spec[field].as_i64();
        Spec {
            parallelism: number("parallelism").unwrap_or(1).max(0),
            completions: number("completions"),
            indexed: spec["completionMode"] == "Indexed",
            backoff_limit: number("backoffLimit").unwrap_or(6),
            index_backoff_limit: number("backoffLimitPerIndex"),
            failed_indexes_max: number("maxFailedIndexes"),
            deadline_seconds: number("activeDeadlineSeconds"),
            ttl_seconds: number("ttlSecondsAfterFinished"),
            suspended: spec["suspend"] == true,
            replaces_late: spec["podReplacementPolicy"] == "Failed",
            restarts_on_failure: spec["template"]["spec"]["restartPolicy"] == "OnFailure",
        }
    }

    /// How many indexes there are; none if the Job is not indexed.
    pub fn index_count(&self) -> u32 {
        let count = self.completions.filter(|_| self.indexed).unwrap_or(0);
        u32::try_from(count).unwrap_or(0)
    }

    pub fn indexes(&self, told: &Value) -> Indexes {
        Indexes::parse(told.as_str().unwrap_or(""), self.index_count())
    }
}

pub fn is_ours(job: &Object) -> bool {
    job.tree()["spec"]["managedBy"]
        .as_str()
        .is_none_or(|manager| manager == OURS)
}

pub fn is_tracked(pod: &Object) -> bool {
    let finalizers = pod.tree()["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The completion index of a Pod.
pub fn index_of(pod: &Object) -> Option<u32> {
    pod.annotation(INDEX)?.parse().ok()
}
