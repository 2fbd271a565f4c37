//! What a StatefulSet needs next, given the Pods that are its own.

use std::{collections::BTreeMap, time::Duration};

use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    identity,
    spec::{Spec, Strategy},
};
use crate::pods;

pub struct Observed<'a> {
    pub set: &'a Object,
    pub pods: &'a [Object],
    /// The names of the revision that is rolled out from, and of the one that is rolled out.
    pub current: &'a str,
    pub update: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    Current,
    Update,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It has failed or succeeded, and its successor needs its name.
    Over,
    /// There are too many.
    Scale,
    /// It is of an old revision.
    Update,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// With its claims.
    Create {
        ordinal: i64,
        which: Which,
    },
    Delete {
        pod: Object,
        why: Why,
    },
    /// Labels that it lacks, as a merge patch of its metadata.
    Mend {
        pod: Object,
        metadata: Value,
    },
}

#[derive(Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// When a Pod will have been ready for long enough.
    pub look_again: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let spec = Spec::of(observed.set);
    let numbered = observed
        .pods
        .iter()
        .filter_map(|pod| Some((identity::ordinal(observed.set, pod.name())?, pod)));
    let planner = Planner {
        observed,
        pods: numbered.collect(),
        now,
        spec,
    };
    if observed.set.is_deleting() {
        return Plan {
            steps: Vec::new(),
            look_again: None,
        };
    }
    let mut steps = Vec::new();
    let settled = planner.fill(&mut steps) && planner.shrink(&mut steps);
    if settled {
        planner.update(&mut steps);
    }
    Plan {
        steps,
        look_again: planner.look_again(),
    }
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    pods: BTreeMap<i64, &'a Object>,
    now: Timestamp,
    spec: Spec,
}

impl Planner<'_> {
    /// What is missing is made, from the lowest number on. Returns whether to go on.
    fn fill(&self, steps: &mut Vec<Step>) -> bool {
        for ordinal in self.spec.ordinals() {
            let waits = match self.pods.get(&ordinal) {
                None => {
                    let which = self.which(ordinal);
                    steps.push(Step::Create { ordinal, which });
                    true
                }
                Some(pod) if pod.is_deleting() => true,
                Some(pod) if is_over(pod) => {
                    let pod = (*pod).clone();
                    steps.push(Step::Delete { pod, why: Why::Over });
                    true
                }
                Some(pod) => {
                    if let Some(metadata) = identity::lacks(self.observed.set, pod) {
                        let pod = (*pod).clone();
                        steps.push(Step::Mend { pod, metadata });
                    }
                    !self.works(pod)
                }
            };
            if waits && self.spec.ordered {
                return false;
            }
        }
        true
    }

    /// What is too much goes, from the highest number on. Returns whether to go on.
    fn shrink(&self, steps: &mut Vec<Step>) -> bool {
        let asked = self.spec.ordinals();
        let condemned = self.pods.iter().filter(|(ordinal, _)| !asked.contains(ordinal));
        let broken = condemned.clone().find(|(_, pod)| !self.works(pod)).map(|(at, _)| *at);
        for (ordinal, pod) in condemned.rev() {
            if pod.is_deleting() {
                if self.spec.ordered {
                    return false;
                }
                continue;
            }
            // While one is broken no other goes: the set may lose no more than one at a time.
            if self.spec.ordered && !self.works(pod) && broken != Some(*ordinal) {
                return false;
            }
            let pod = (*pod).clone();
            steps.push(Step::Delete { pod, why: Why::Scale });
            if self.spec.ordered {
                return false;
            }
        }
        true
    }

    /// What is of an old revision goes, from the highest number on, and comes back as the new one.
    fn update(&self, steps: &mut Vec<Step>) {
        if self.spec.strategy == Strategy::OnDelete {
            return;
        }
        let first = self.spec.start + self.spec.partition.unwrap_or(0);
        let mut budget = self.spec.unavailable_max;
        for ordinal in self.spec.ordinals().rev().take_while(|ordinal| *ordinal >= first) {
            if budget == 0 {
                return;
            }
            let Some(pod) = self.pods.get(&ordinal) else {
                budget -= 1;
                continue;
            };
            if identity::revision(pod) != self.observed.update && !pod.is_deleting() {
                let pod = (*pod).clone();
                steps.push(Step::Delete { pod, why: Why::Update });
                budget -= 1;
            } else if !self.works(pod) {
                budget -= 1;
            }
        }
    }

    /// Of which revision a new Pod is.
    fn which(&self, ordinal: i64) -> Which {
        let kept = match (self.spec.strategy, self.spec.partition) {
            (Strategy::OnDelete, _) => 0,
            (Strategy::Rolling, Some(partition)) => partition,
            (Strategy::Rolling, None) => {
                let status = &self.observed.set.tree()["status"];
                status["currentReplicas"].as_i64().unwrap_or(0)
            }
        };
        if ordinal < self.spec.start + kept {
            Which::Current
        } else {
            Which::Update
        }
    }

    fn works(&self, pod: &Object) -> bool {
        !pod.is_deleting()
            && is_running_and_ready(pod)
            && pods::is_available(pod, self.spec.min_ready_seconds, self.now)
    }

    fn look_again(&self) -> Option<Duration> {
        let waiting = self
            .pods
            .values()
            .filter(|pod| is_running_and_ready(pod) && !self.works(pod));
        let left = waiting.filter_map(|pod| {
            let since = pods::ready_since(pod)?.as_second();
            Some(self.spec.min_ready_seconds - (self.now.as_second() - since))
        });
        let left = left.min()?.clamp(1, self.spec.min_ready_seconds.max(1));
        Some(Duration::from_secs(left.unsigned_abs()))
    }
}

fn is_over(pod: &Object) -> bool {
    matches!(pods::phase(pod), "Succeeded" | "Failed")
}

fn is_running_and_ready(pod: &Object) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

/// The status to write, as a merge patch; `None` if it stands.
pub fn status(observed: &Observed<'_>, collisions: Option<i64>, now: Timestamp) -> Option<Value> {
    let spec = Spec::of(observed.set);
    let told = &observed.set.tree()["status"];
    let mine: Vec<&Object> = observed
        .pods
        .iter()
        .filter(|pod| identity::ordinal(observed.set, pod.name()).is_some())
        .collect();
    let count = |counts: &dyn Fn(&Object) -> bool| mine.iter().filter(|pod| counts(pod)).count();
    let of_revision = |revision: &str| count(&|pod| !pod.is_deleting() && identity::revision(pod) == revision);
    let ready = count(&is_running_and_ready);
    let updated = of_revision(observed.update);
    let complete = spec.strategy == Strategy::Rolling
        && [mine.len(), ready, updated]
            .iter()
            .all(|count| i64::try_from(*count) == Ok(spec.replicas));
    let current = if complete { observed.update } else { observed.current };
    let status = json!({
        "observedGeneration": observed.set.tree()["metadata"]["generation"],
        "replicas": mine.len(),
        "readyReplicas": counted(ready),
        "availableReplicas": count(&|pod| is_running_and_ready(pod)
            && pods::is_available(pod, spec.min_ready_seconds, now)),
        "currentReplicas": counted(of_revision(current)),
        "updatedReplicas": counted(updated),
        "currentRevision": current,
        "updateRevision": observed.update,
        "collisionCount": collisions.or(told["collisionCount"].as_i64()).unwrap_or(0),
    });
    let stands = status
        .as_object()
        .into_iter()
        .flatten()
        .all(|(field, value)| told[field] == *value);
    (!stands).then_some(status)
}

/// Upstream leaves zero counts out.
fn counted(count: usize) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}
