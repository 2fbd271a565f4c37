//! How a Job says that it will end, and that it has.

use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::time;

const FAILS: &str = "FailureTarget";
const SUCCEEDS: &str = "SuccessCriteriaMet";

/// How a Job ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub succeeds: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    pub fn fails(reason: &'static str, message: String) -> Verdict {
        Verdict {
            succeeds: false,
            reason,
            message,
        }
    }

    pub fn succeeds(reason: &'static str, message: String) -> Verdict {
        Verdict {
            succeeds: true,
            reason,
            message,
        }
    }
}

/// Reasons as they are written; what is read back is one of them.
const REASONS: [&str; 7] = [
    "PodFailurePolicy",
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
    "SuccessPolicy",
    "CompletionsReached",
];

pub struct Conditions(Vec<Value>);

impl Conditions {
    pub fn of(job: &Object) -> Conditions {
        Conditions(
            job.tree()["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        )
    }

    pub fn is_true(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|condition| condition["status"] == "True")
    }

    fn get(&self, kind: &str) -> Option<&Value> {
        self.0.iter().find(|condition| condition["type"] == kind)
    }

    /// `Complete` or `Failed`.
    pub fn finished(&self) -> Option<&Value> {
        ["Complete", "Failed"]
            .into_iter()
            .filter(|kind| self.is_true(kind))
            .find_map(|kind| self.get(kind))
    }

    /// What was decided before, while Pods were still running.
    pub fn target(&self) -> Option<Verdict> {
        let kind = [FAILS, SUCCEEDS].into_iter().find(|kind| self.is_true(kind))?;
        let condition = self.get(kind)?;
        let written = condition["reason"].as_str().unwrap_or("");
        let reason = REASONS.into_iter().find(|reason| *reason == written);
        Some(Verdict {
            succeeds: kind == SUCCEEDS,
            reason: reason.unwrap_or(if kind == SUCCEEDS {
                "CompletionsReached"
            } else {
                "BackoffLimitExceeded"
            }),
            message: condition["message"].as_str().unwrap_or("").to_owned(),
        })
    }

    pub fn aim(&mut self, verdict: &Verdict, now: Timestamp) {
        let kind = if verdict.succeeds { SUCCEEDS } else { FAILS };
        self.set(kind, "True", verdict.reason, &verdict.message, now);
    }

    pub fn finish(&mut self, verdict: &Verdict, now: Timestamp) {
        let kind = if verdict.succeeds { "Complete" } else { "Failed" };
        self.set(kind, "True", verdict.reason, &verdict.message, now);
    }

    /// Returns whether that is news.
    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> bool {
        if self.get(kind).is_some_and(|old| old["status"] == status) {
            return false;
        }
        let at = time::text(now);
        self.0.retain(|condition| condition["type"] != kind);
        self.0.push(
            json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastProbeTime": at, "lastTransitionTime": at}),
        );
        true
    }

    pub fn value(&self) -> Value {
        if self.0.is_empty() { Value::Null } else { json!(self.0) }
    }
}
