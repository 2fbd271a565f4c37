//! What to change so that a Deployment's ReplicaSets become what it asks for.

use std::time::Duration;

use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    scale,
    set::{REVISION, Set},
    spec::{Spec, Strategy},
    status::{self, Conditions, Judge, PROGRESSING},
    template,
};

/// What was seen besides the Deployment itself.
pub struct Observed {
    /// The ReplicaSets that are its own.
    pub sets: Vec<Set>,
    /// Pods of a set other than the new one still run (only asked of `Recreate`).
    pub old_pods_run: bool,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    /// Make the ReplicaSet of the present template.
    Create { body: Value },
    /// Change a set's revision or annotations.
    Renew { set: Object, patch: Value },
    /// Ask a set for another number of Pods.
    Scale {
        set: Object,
        from: i64,
        to: i64,
        patch: Value,
    },
    /// Forget a revision beyond the history's limit.
    Forget { set: Object },
}

#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// The revision to show on the Deployment, if it shows another.
    pub revision: Option<i64>,
    pub status: Option<Value>,
    pub look_again: Option<Duration>,
}

/// One pass: steps that may be taken at once, given what was observed. The next pass goes on from there.
pub fn plan(deployment: &Object, observed: Observed, now: Timestamp) -> Plan {
    let spec = Spec::of(deployment);
    let mut rollout = Rollout::new(deployment, &spec, observed.sets, now);
    let mut judge = Judge::Progress;
    if deployment.is_deleting() {
        judge = Judge::Nothing;
    } else {
        rollout.note_pause();
        if spec.paused {
            judge = Judge::Nothing;
            rollout.find_new();
            rollout.scale_all();
            rollout.forget_old();
        } else if rollout.was_scaled() {
            judge = Judge::Nothing;
            rollout.find_new();
            rollout.scale_all();
        } else if spec.strategy == Strategy::Recreate {
            rollout.recreate(observed.old_pods_run);
        } else {
            rollout.roll();
        }
    }
    rollout.end(judge)
}

struct Rollout<'a> {
    deployment: &'a Object,
    spec: &'a Spec,
    new: Option<Set>,
    old: Vec<Set>,
    conditions: Conditions,
    plan: Plan,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Object, spec: &'a Spec, sets: Vec<Set>, now: Timestamp) -> Rollout<'a> {
        let new = template::find_new(deployment, &sets).cloned();
        let is_new = |set: &Set| new.as_ref().is_some_and(|new| new.object.uid() == set.object.uid());
        let old = sets.into_iter().filter(|set| !is_new(set)).collect();
        Rollout {
            deployment,
            spec,
            new,
            old,
            conditions: Conditions::of(deployment),
            plan: Plan::default(),
            now,
        }
    }

    /// A pause stops the clock of the progress deadline, and its end starts it anew.
    fn note_pause(&mut self) {
        if self.spec.deadline_seconds.is_none() {
            return;
        }
        match (self.spec.paused, self.conditions.reason(PROGRESSING)) {
            // The reason stands for why the last rollout ended.
            (_, "ProgressDeadlineExceeded") | (true, "DeploymentPaused") => {}
            (true, _) => {
                self.conditions.set(
                    PROGRESSING,
                    "Unknown",
                    "DeploymentPaused",
                    "Deployment is paused",
                    self.now,
                );
            }
            (false, "DeploymentPaused") => {
                self.conditions.set(
                    PROGRESSING,
                    "Unknown",
                    "DeploymentResumed",
                    "Deployment is resumed",
                    self.now,
                );
            }
            (false, _) => {}
        }
    }

    /// The Deployment's own number changed since the sets were scaled.
    fn was_scaled(&self) -> bool {
        let active = self.new.iter().chain(&self.old).filter(|set| set.replicas > 0);
        active
            .filter_map(|set| set.desired)
            .any(|desired| desired != self.spec.replicas)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| set.revision).max().unwrap_or(0) + 1
    }

    /// Brings the existing new set up to date.
    fn find_new(&mut self) {
        let revision = self.next_revision();
        let Some(new) = &self.new else { return };
        if let Some(patch) = template::renew(self.deployment, self.spec, new, revision) {
            self.plan.steps.push(Step::Renew {
                set: new.object.clone(),
                patch,
            });
        }
        let shown = new.revision.max(revision);
        if self.conditions.get(PROGRESSING).is_none() && self.spec.deadline_seconds.is_some() {
            let message = format!("Found new replica set \"{}\"", new.name());
            self.conditions
                .set(PROGRESSING, "True", "FoundNewReplicaSet", &message, self.now);
        }
        self.show_revision(shown);
    }

    fn show_revision(&mut self, revision: i64) {
        if self.deployment.annotation(REVISION) != Some(revision.to_string().as_str()) {
            self.plan.revision = Some(revision);
        }
    }

    /// Finds the new set or makes it; says whether it exists already.
    fn find_or_make_new(&mut self) -> bool {
        self.find_new();
        if self.new.is_some() {
            return true;
        }
        let total = self.old.iter().map(|set| set.replicas).sum();
        let replicas = scale::new_set_replicas(self.spec, total, 0);
        let revision = self.next_revision();
        let body = template::new_set(self.deployment, self.spec, replicas, revision);
        if self.spec.deadline_seconds.is_some() {
            let message = format!(
                "Created new replica set \"{}\"",
                body["metadata"]["name"].as_str().unwrap_or("")
            );
            self.conditions
                .set(PROGRESSING, "True", "NewReplicaSetCreated", &message, self.now);
        }
        self.plan.steps.push(Step::Create { body });
        self.show_revision(revision);
        false
    }

    fn roll(&mut self) {
        if !self.find_or_make_new() || self.grow_new() {
            return;
        }
        let Some(new) = &self.new else { return };
        let changes = scale::shrink_old(self.spec, new, &self.old);
        if !changes.is_empty() {
            changes.into_iter().for_each(|(at, to)| self.scale_old(at, to));
        } else if status::is_complete(self.spec, self.new.as_ref(), &self.old) {
            self.forget_old();
        }
    }

    fn recreate(&mut self, old_pods_run: bool) {
        self.find_new();
        let active: Vec<usize> = (0..self.old.len()).filter(|&at| self.old[at].replicas > 0).collect();
        if !active.is_empty() {
            active.into_iter().for_each(|at| self.scale_old(at, 0));
            return;
        }
        if old_pods_run || self.old.iter().any(|set| set.present > 0) {
            return;
        }
        let exists = self.new.is_some() || self.find_or_make_new();
        if exists && !self.grow_new() && status::is_complete(self.spec, self.new.as_ref(), &self.old) {
            self.forget_old();
        }
    }

    /// Brings the new set nearer to its aim; says whether that changed anything.
    fn grow_new(&mut self) -> bool {
        let total: i64 = self.new.iter().chain(&self.old).map(|set| set.replicas).sum();
        let Some(new) = &mut self.new else { return false };
        let to = if new.replicas > self.spec.replicas {
            self.spec.replicas
        } else {
            scale::new_set_replicas(self.spec, total, new.replicas)
        };
        scale_set(&mut self.plan, self.spec, new, to)
    }

    fn scale_old(&mut self, at: usize, to: i64) {
        scale_set(&mut self.plan, self.spec, &mut self.old[at], to);
    }

    /// Follows a change of the number alone, without rolling any further.
    fn scale_all(&mut self) {
        let spec = self.spec;
        let mut active: Vec<&mut Set> = self
            .old
            .iter_mut()
            .chain(&mut self.new)
            .filter(|set| set.replicas > 0)
            .collect();
        if active.is_empty() {
            let latest = self.old.iter_mut().max_by(|one, other| one.age().cmp(&other.age()));
            if let Some(set) = self.new.as_mut().or(latest) {
                scale_set(&mut self.plan, spec, set, spec.replicas);
            }
            return;
        }
        if let [only] = active.as_mut_slice() {
            scale_set(&mut self.plan, spec, only, spec.replicas);
            return;
        }
        let saturated = self.new.as_ref().is_some_and(|new| {
            new.desired == Some(spec.replicas) && new.replicas == spec.replicas && new.available == spec.replicas
        });
        if saturated {
            for set in self.old.iter_mut().filter(|set| set.replicas > 0) {
                scale_set(&mut self.plan, spec, set, 0);
            }
            return;
        }
        if spec.strategy == Strategy::Recreate {
            return;
        }
        let present = self.deployment.tree()["status"]["replicas"].as_i64().unwrap_or(0);
        let active: Vec<&mut Set> = self
            .old
            .iter_mut()
            .chain(&mut self.new)
            .filter(|set| set.replicas > 0)
            .collect();
        let seen: Vec<Set> = active.iter().map(|set| (**set).clone()).collect();
        let sizes = scale::in_proportion(spec, present, &seen);
        for (set, to) in active.into_iter().zip(sizes) {
            scale_set(&mut self.plan, spec, set, to);
        }
    }

    /// Old revisions beyond the limit, oldest first, if nothing of them is left.
    fn forget_old(&mut self) {
        let Some(limit) = self.spec.history_limit.and_then(|limit| usize::try_from(limit).ok()) else {
            return;
        };
        let mut alive: Vec<&Set> = self.old.iter().filter(|set| !set.object.is_deleting()).collect();
        let excess = alive.len().saturating_sub(limit);
        alive.sort_by_key(|set| set.revision);
        let spent = alive.into_iter().take(excess).filter(|set| set.is_spent());
        self.plan.steps.extend(spent.map(|set| Step::Forget {
            set: set.object.clone(),
        }));
    }

    fn end(mut self, judge: Judge) -> Plan {
        let told = status::tell(
            self.deployment,
            self.spec,
            self.new.as_ref(),
            &self.old,
            self.conditions,
            judge,
            self.now,
        );
        self.plan.status = told.patch;
        self.plan.look_again = told.look_again;
        self.plan
    }
}

/// Plans a change of a set's number, or of what it remembers of the Deployment's aim; says whether the number changes.
fn scale_set(plan: &mut Plan, spec: &Spec, set: &mut Set, to: i64) -> bool {
    let remembers = set.desired == Some(spec.replicas) && set.most == Some(spec.most());
    let from = set.replicas;
    if to == from && remembers {
        return false;
    }
    let aims: serde_json::Map<String, Value> = template::aims(spec).into_iter().collect();
    plan.steps.push(Step::Scale {
        set: set.object.clone(),
        from,
        to,
        patch: json!({"metadata": {"annotations": aims}, "spec": {"replicas": to}}),
    });
    set.replicas = to;
    to != from
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
