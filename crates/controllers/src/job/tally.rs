//! Counting a Job's Pods so that each is counted once, whatever is lost on the way: a Pod keeps a finalizer until its uid
//! stands in the Job's status, and leaves the list there when the finalizer is gone (KEP-2307).

use std::collections::HashSet;

use api::Object;
use serde_json::{Value, json};

use super::{
    failure_policy::{self, Means},
    indexes::Indexes,
    spec::{INDEX_FAILURES, Spec, index_of, is_tracked},
};
use crate::pods;

/// Pods counted in one pass, so that a status stays small; upstream's number.
const UNCOUNTED_MAX: usize = 500;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All that succeeded and failed, with those whose count is under way.
    pub succeeded: i64,
    pub failed: i64,
    /// What the status is to say.
    pub counted_succeeded: i64,
    pub counted_failed: i64,
    pub uncounted_succeeded: Vec<String>,
    pub uncounted_failed: Vec<String>,
    pub completed: Indexes,
    pub failed_indexes: Indexes,
    /// Lose their finalizer once the status is written.
    pub strip: Vec<Object>,
    /// `FailJob` by a rule.
    pub fails: Option<String>,
}

impl Tally {
    pub fn of(job: &Object, spec: &Spec, owned: &[Object], finishing: bool) -> Tally {
        let status = &job.tree()["status"];
        let uncounted = &status["uncountedTerminatedPods"];
        let tracked: HashSet<&str> = owned.iter().filter(|pod| is_tracked(pod)).map(Object::uid).collect();
        let mut tally = Tally {
            counted_succeeded: status["succeeded"].as_i64().unwrap_or(0),
            counted_failed: status["failed"].as_i64().unwrap_or(0),
            completed: spec.indexes(&status["completedIndexes"]),
            failed_indexes: spec.indexes(&status["failedIndexes"]),
            ..Tally::default()
        };
        let split = |list: &Value, counted: &mut i64| -> Vec<String> {
            let uids = list.as_array().into_iter().flatten().filter_map(Value::as_str);
            let (waiting, done): (Vec<&str>, Vec<&str>) = uids.partition(|uid| tracked.contains(uid));
            *counted += i64::try_from(done.len()).unwrap_or(0);
            waiting.into_iter().map(str::to_owned).collect()
        };
        tally.uncounted_succeeded = split(&uncounted["succeeded"], &mut tally.counted_succeeded);
        tally.uncounted_failed = split(&uncounted["failed"], &mut tally.counted_failed);
        for pod in owned.iter().filter(|pod| is_tracked(pod)) {
            if tally.strip.len() >= UNCOUNTED_MAX {
                break;
            }
            let known = tally.uncounted_succeeded.iter().chain(&tally.uncounted_failed);
            if known.into_iter().any(|uid| uid == pod.uid()) {
                tally.strip.push(pod.clone());
            } else if pods::phase(pod) == "Succeeded" {
                tally.succeed(spec, pod);
            } else if is_failed(pod, spec) || finishing && pod.is_deleting() && pods::phase(pod) == "Pending" {
                tally.fail(job, spec, pod);
            }
        }
        let len = |list: &[String]| i64::try_from(list.len()).unwrap_or(0);
        if spec.indexed {
            tally.counted_succeeded = tally.completed.len();
            tally.succeeded = tally.counted_succeeded;
        } else {
            tally.succeeded = tally.counted_succeeded + len(&tally.uncounted_succeeded);
        }
        tally.failed = tally.counted_failed + len(&tally.uncounted_failed);
        tally
    }

    fn succeed(&mut self, spec: &Spec, pod: &Object) {
        self.strip.push(pod.clone());
        if !spec.indexed {
            self.uncounted_succeeded.push(pod.uid().to_owned());
        } else if let Some(index) = index_of(pod).filter(|index| *index < spec.index_count()) {
            // A set counts by itself; the uid need not be kept.
            self.completed.insert(index);
        }
    }

    fn fail(&mut self, job: &Object, spec: &Spec, pod: &Object) {
        // Why it failed is known only at its end.
        let means = if pods::phase(pod) == "Failed" {
            failure_policy::judge(&job.tree()["spec"]["podFailurePolicy"], pod)
        } else {
            Means::Counts
        };
        self.strip.push(pod.clone());
        let index = index_of(pod).filter(|index| *index < spec.index_count());
        match means {
            Means::Ignored => return,
            Means::JobFails { message } => drop(self.fails.get_or_insert(message)),
            Means::IndexFails => {
                if let Some(index) = index.filter(|_| spec.index_backoff_limit.is_some()) {
                    self.failed_indexes.insert(index);
                }
            }
            Means::Counts => {
                if let (Some(index), Some(limit)) = (index, spec.index_backoff_limit)
                    && failures_before(pod) >= limit
                    && !self.completed.contains(index)
                {
                    self.failed_indexes.insert(index);
                }
            }
        }
        self.uncounted_failed.push(pod.uid().to_owned());
    }

    /// `status.uncountedTerminatedPods`.
    pub fn uncounted(&self) -> Value {
        let list = |uids: &[String]| if uids.is_empty() { Value::Null } else { json!(uids) };
        json!({"succeeded": list(&self.uncounted_succeeded), "failed": list(&self.uncounted_failed)})
    }

    pub fn is_settled(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && self.strip.is_empty()
    }
}

/// How often the Pod's index had failed when it was made.
pub fn failures_before(pod: &Object) -> i64 {
    let count = pod.annotation(INDEX_FAILURES);
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Failed, or deleted before it could succeed. Where a Pod is replaced only at its end, it is not counted before either.
pub fn is_failed(pod: &Object, spec: &Spec) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        phase => pod.is_deleting() && (!spec.replaces_late || phase == "Pending"),
    }
}
