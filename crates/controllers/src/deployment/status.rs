//! What a Deployment says of itself: counts, and the conditions that `kubectl rollout status` reads.

use std::time::Duration;

use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{set::Set, spec::Spec};
use crate::{pods, time};

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The conditions of a status, changed as upstream changes them: what is said already keeps its times.
pub struct Conditions(Vec<Value>);

impl Conditions {
    pub fn of(deployment: &Object) -> Conditions {
        Conditions(
            deployment.tree()["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        )
    }

    pub fn get(&self, kind: &str) -> Option<&Value> {
        self.0.iter().find(|condition| condition["type"] == kind)
    }

    pub fn reason(&self, kind: &str) -> &str {
        self.get(kind)
            .and_then(|condition| condition["reason"].as_str())
            .unwrap_or("")
    }

    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
        let said = self
            .get(kind)
            .is_some_and(|old| old["status"] == status && old["reason"] == reason);
        if !said {
            self.renew(kind, status, reason, message, now);
        }
    }

    /// As `set`, but the time of update moves even if nothing else does.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
        let same = self.get(kind).filter(|old| old["status"] == status);
        let since = same.map_or_else(|| json!(time::text(now)), |old| old["lastTransitionTime"].clone());
        let condition = json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": time::text(now), "lastTransitionTime": since});
        self.remove(kind);
        self.0.push(condition);
    }

    fn remove(&mut self, kind: &str) {
        self.0.retain(|condition| condition["type"] != kind);
    }
}

/// The counts of a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub present: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
}

impl Counts {
    fn told(deployment: &Object) -> Counts {
        let status = |field: &str| deployment.tree()["status"][field].as_i64().unwrap_or(0);
        Counts {
            present: status("replicas"),
            updated: status("updatedReplicas"),
            ready: status("readyReplicas"),
            available: status("availableReplicas"),
        }
    }

    fn of(new: Option<&Set>, old: &[Set]) -> Counts {
        let sum = |field: fn(&Set) -> i64| old.iter().chain(new).map(field).sum();
        Counts {
            present: sum(|set| set.present),
            updated: new.map_or(0, |set| set.present),
            ready: sum(|set| set.ready),
            available: sum(|set| set.available),
        }
    }

    fn is_complete(&self, spec: &Spec) -> bool {
        self.updated == spec.replicas && self.present == spec.replicas && self.available == spec.replicas
    }

    fn has_progressed_from(&self, before: &Counts) -> bool {
        self.updated > before.updated
            || self.present - self.updated < before.present - before.updated
            || self.ready > before.ready
            || self.available > before.available
    }
}

/// Everything asked for is there, is of the present template, and works.
pub fn is_complete(spec: &Spec, new: Option<&Set>, old: &[Set]) -> bool {
    Counts::of(new, old).is_complete(spec)
}

pub struct Told {
    /// The whole status as a merge patch; `None` if it stands.
    pub patch: Option<Value>,
    /// When the progress deadline should be looked at.
    pub look_again: Option<Duration>,
}

/// Whether progress is judged: not while only the number changes or the Deployment is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    Progress,
    Nothing,
}

pub fn tell(
    deployment: &Object,
    spec: &Spec,
    new: Option<&Set>,
    old: &[Set],
    mut conditions: Conditions,
    judge: Judge,
    now: Timestamp,
) -> Told {
    let counts = Counts::of(new, old);
    let asked: i64 = old.iter().chain(new).map(|set| set.replicas).sum();
    if counts.available >= spec.replicas - spec.unavailable() {
        let message = "Deployment has minimum availability.";
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now);
    }
    let mut look_again = None;
    if judge == Judge::Progress {
        look_again = progress(deployment, spec, new, &counts, &mut conditions, now);
        match old
            .iter()
            .chain(new)
            .find_map(|set| pods::condition(&set.object, REPLICA_FAILURE))
        {
            Some(failure) => {
                let text = |field: &str| failure[field].as_str().unwrap_or("").to_owned();
                conditions.set(REPLICA_FAILURE, "True", &text("reason"), &text("message"), now);
            }
            None => conditions.remove(REPLICA_FAILURE),
        }
    }
    let status = json!({
        "observedGeneration": deployment.tree()["metadata"]["generation"],
        "replicas": counted(counts.present),
        "updatedReplicas": counted(counts.updated),
        "readyReplicas": counted(counts.ready),
        "availableReplicas": counted(counts.available),
        "unavailableReplicas": counted((asked - counts.available).max(0)),
        "conditions": conditions.0,
    });
    let told = &deployment.tree()["status"];
    let stands = status
        .as_object()
        .into_iter()
        .flatten()
        .all(|(field, value)| told[field] == *value);
    Told {
        patch: (!stands).then_some(status),
        look_again,
    }
}

fn progress(
    deployment: &Object,
    spec: &Spec,
    new: Option<&Set>,
    counts: &Counts,
    conditions: &mut Conditions,
    now: Timestamp,
) -> Option<Duration> {
    let Some(deadline) = spec.deadline_seconds else {
        conditions.remove(PROGRESSING);
        return None;
    };
    // A rollout that was complete stays so while Pods come and go, until the template changes.
    if counts.present == counts.updated && conditions.reason(PROGRESSING) == COMPLETE {
        return None;
    }
    let who = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.name()),
        None => format!("Deployment \"{}\"", deployment.name()),
    };
    if counts.is_complete(spec) {
        let message = format!("{who} has successfully progressed.");
        conditions.set(PROGRESSING, "True", COMPLETE, &message, now);
        return None;
    }
    if counts.has_progressed_from(&Counts::told(deployment)) {
        let message = format!("{who} is progressing.");
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
    }
    let condition = conditions.get(PROGRESSING)?;
    if matches!(conditions.reason(PROGRESSING), TIMED_OUT | "DeploymentPaused") {
        return None;
    }
    let since = time::parse(&condition["lastUpdateTime"])?;
    let left = deadline - (now.as_second() - since.as_second());
    if left < 0 {
        let message = format!("{who} has timed out progressing.");
        conditions.set(PROGRESSING, "False", TIMED_OUT, &message, now);
        return None;
    }
    // A second more, since times are whole seconds.
    Some(Duration::from_secs(left.unsigned_abs() + 1))
}

/// Upstream leaves zero counts out.
fn counted(count: i64) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}
