//! What a Job needs next, given the Pods that are its own.

use std::time::Duration;

use api::Object;
use client::EventType;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    conditions::{Conditions, Verdict},
    indexes::Indexes,
    pod,
    spec::{Spec, index_of},
    success_policy,
    tally::{self, Tally},
};
use crate::{pods, time};

/// Pods made in one pass at most; upstream's number.
const BURST_MAX: usize = 500;
/// After a failure the next Pod waits, each time twice as long; upstream's numbers.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub struct Plan {
    /// The status to write, as a merge patch; `None` if it stands. Before everything else.
    pub status: Option<Value>,
    /// Lose the finalizer, now that they are counted.
    pub strip: Vec<Object>,
    pub create: Vec<Value>,
    /// Are not needed any more: they go without being counted.
    pub remove: Vec<Object>,
    /// Go with the Job that has ended, and count.
    pub kill: Vec<Object>,
    /// It has been finished for long enough.
    pub expired: bool,
    pub tell: Vec<(EventType, &'static str, String)>,
    pub look_again: Option<Duration>,
}

pub fn plan(job: &Object, owned: &[Object], now: Timestamp) -> Plan {
    let spec = Spec::of(job);
    let conditions = Conditions::of(job);
    let finished = conditions.finished().is_some();
    let mut planner = Planner {
        tally: Tally::of(job, &spec, owned, finished || conditions.target().is_some()),
        active: owned.iter().filter(|pod| pods::is_active(pod)).collect(),
        leaving: owned
            .iter()
            .filter(|pod| pod.is_deleting() && !matches!(pods::phase(pod), "Succeeded" | "Failed"))
            .collect(),
        plan: Plan::default(),
        started: time::parse(&job.tree()["status"]["startTime"]),
        ended: None,
        conditions,
        job,
        spec,
        owned,
        now,
    };
    if finished {
        planner.rest();
    } else if !job.is_deleting() {
        planner.work();
    }
    planner.done()
}

struct Planner<'a> {
    job: &'a Object,
    spec: Spec,
    owned: &'a [Object],
    active: Vec<&'a Object>,
    leaving: Vec<&'a Object>,
    tally: Tally,
    conditions: Conditions,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    plan: Plan,
    now: Timestamp,
}

impl Planner<'_> {
    /// Nothing is to be done but to clear away.
    fn rest(&mut self) {
        self.plan.kill = self.active.drain(..).cloned().collect();
        let ended = self
            .conditions
            .finished()
            .and_then(|at| time::parse(&at["lastTransitionTime"]));
        if let (Some(ttl), Some(ended)) = (self.spec.ttl_seconds, ended)
            && !self.job.is_deleting()
        {
            match ended.as_second() + ttl - self.now.as_second() {
                left if left <= 0 => self.plan.expired = true,
                left => self.look_again(Duration::from_secs(left.unsigned_abs())),
            }
        }
    }

    fn work(&mut self) {
        if self.started.is_none() && !self.spec.suspended {
            self.started = Some(self.now);
        }
        let verdict = self.verdict();
        if let Some(verdict) = &verdict {
            self.conditions.aim(verdict, self.now);
            self.plan.kill = self.active.iter().map(|pod| (*pod).clone()).collect();
        } else {
            self.suspend_or_resume();
            self.manage();
        }
        let quiet = self.active.is_empty() && self.leaving.is_empty() && self.tally.is_settled();
        let Some(verdict) = verdict.or_else(|| self.completed()) else {
            return;
        };
        self.conditions.aim(&verdict, self.now);
        if !quiet {
            return;
        }
        self.conditions.finish(&verdict, self.now);
        if verdict.succeeds {
            self.ended = Some(self.now);
            let message = "Job completed".to_owned();
            self.plan.tell.push((EventType::Normal, "Completed", message));
        } else {
            let reason = verdict.reason;
            self.plan
                .tell
                .push((EventType::Warning, reason, verdict.message.clone()));
        }
        if let Some(ttl) = self.spec.ttl_seconds {
            self.look_again(Duration::from_secs(ttl.unsigned_abs().max(1)));
        }
    }

    /// How it ends, if that is decided while Pods may still run.
    fn verdict(&mut self) -> Option<Verdict> {
        if let Some(verdict) = self.conditions.target() {
            return Some(verdict);
        }
        if let Some(message) = self.tally.fails.take() {
            return Some(Verdict::fails("PodFailurePolicy", message));
        }
        if self.tally.failed > self.spec.backoff_limit || self.restarted_too_often() {
            let message = "Job has reached the specified backoff limit".to_owned();
            return Some(Verdict::fails("BackoffLimitExceeded", message));
        }
        if let (Some(deadline), Some(started), false) = (self.spec.deadline_seconds, self.started, self.spec.suspended)
        {
            match started.as_second() + deadline - self.now.as_second() {
                left if left <= 0 => {
                    let message = "Job was active longer than specified deadline".to_owned();
                    return Some(Verdict::fails("DeadlineExceeded", message));
                }
                left => self.look_again(Duration::from_secs(left.unsigned_abs())),
            }
        }
        if self.spec.index_backoff_limit.is_some() {
            if let Some(max) = self.spec.failed_indexes_max
                && self.tally.failed_indexes.len() > max
            {
                let message = "Job has exceeded the specified maximal number of failed indexes".to_owned();
                return Some(Verdict::fails("MaxFailedIndexesExceeded", message));
            }
            let over = self.tally.completed.len() + self.tally.failed_indexes.len();
            if self.tally.failed_indexes.len() > 0 && Some(over) >= self.spec.completions {
                return Some(Verdict::fails("FailedIndexes", "Job has failed indexes".to_owned()));
            }
        }
        let policy = &self.job.tree()["spec"]["successPolicy"];
        let rule = success_policy::matched(policy, &self.tally.completed, self.spec.index_count())?;
        let message = format!("Matched rules at index {rule}");
        Some(Verdict::succeeds("SuccessPolicy", message))
    }

    /// Enough have succeeded, and none runs any more.
    fn completed(&self) -> Option<Verdict> {
        let complete = match self.spec.completions {
            None => self.tally.succeeded > 0 && self.active.is_empty(),
            Some(wanted) => self.tally.succeeded >= wanted && self.active.is_empty(),
        };
        let message = "Reached expected number of succeeded pods".to_owned();
        complete.then(|| Verdict::succeeds("CompletionsReached", message))
    }

    fn restarted_too_often(&self) -> bool {
        if !self.spec.restarts_on_failure {
            return false;
        }
        let restarts = |pod: &&Object| -> i64 {
            let status = &pod.tree()["status"];
            let lists = ["initContainerStatuses", "containerStatuses"];
            let statuses = lists
                .into_iter()
                .flat_map(|list| status[list].as_array().into_iter().flatten());
            statuses.filter_map(|status| status["restartCount"].as_i64()).sum()
        };
        let sum: i64 = self.active.iter().map(restarts).sum();
        if self.spec.backoff_limit == 0 {
            sum > 0
        } else {
            sum >= self.spec.backoff_limit
        }
    }

    fn suspend_or_resume(&mut self) {
        if self.spec.suspended {
            if self
                .conditions
                .set("Suspended", "True", "JobSuspended", "Job suspended", self.now)
            {
                self.plan
                    .tell
                    .push((EventType::Normal, "Suspended", "Job suspended".to_owned()));
            }
            self.started = None;
        } else if self.conditions.is_true("Suspended") {
            self.conditions
                .set("Suspended", "False", "JobResumed", "Job resumed", self.now);
            self.plan
                .tell
                .push((EventType::Normal, "Resumed", "Job resumed".to_owned()));
            self.started = Some(self.now);
        }
    }

    /// As many Pods as are needed now.
    fn manage(&mut self) {
        if self.spec.suspended {
            self.plan.remove = self.active.iter().map(|pod| (*pod).clone()).collect();
            return;
        }
        let count = |list: &[&Object]| i64::try_from(list.len()).unwrap_or(i64::MAX);
        let active = count(&self.active);
        let wanted = match self.spec.completions {
            None if self.tally.succeeded > 0 => active,
            None => self.spec.parallelism,
            Some(completions) => {
                let given_up = if self.spec.index_backoff_limit.is_some() {
                    self.tally.failed_indexes.len()
                } else {
                    0
                };
                let left = completions - self.tally.succeeded - given_up;
                self.spec.parallelism.min(left).max(0)
            }
        };
        let surplus = self.surplus(usize::try_from((active - wanted).max(0)).unwrap_or(0));
        if !surplus.is_empty() {
            self.plan.remove = surplus;
            return;
        }
        let mut taken = active;
        if self.spec.replaces_late {
            taken += count(&self.leaving);
        }
        let missing = usize::try_from(wanted - taken).unwrap_or(0).min(BURST_MAX);
        if missing == 0 {
            return;
        }
        if self.spec.indexed {
            self.create_indexed(missing);
            return;
        }
        match self.retry_in(|_| true) {
            Some(wait) => self.look_again(wait),
            None => self.plan.create = vec![pod::plain(self.job); missing],
        }
    }

    /// What is too much: doubles and strangers among the indexes first, then the least useful.
    fn surplus(&self, count: usize) -> Vec<Object> {
        let mut pods: Vec<Object> = self.active.iter().map(|pod| (*pod).clone()).collect();
        pods::sort_for_deletion(&mut pods, |_| 0, self.now);
        let mut surplus = Vec::new();
        if self.spec.indexed {
            let mut seen = Indexes::default();
            // Backwards, so that of two with one index the more useful one stays.
            for pod in pods.iter().rev() {
                let index = index_of(pod).filter(|index| *index < self.spec.index_count());
                let useful = index.is_some_and(|index| !self.tally.completed.contains(index) && seen.insert(index));
                if !useful {
                    surplus.push(pod.clone());
                }
            }
        }
        let rest = pods
            .into_iter()
            .filter(|pod| !surplus.iter().any(|other: &Object| other.uid() == pod.uid()));
        let more: Vec<Object> = rest.take(count.saturating_sub(surplus.len())).collect();
        surplus.extend(more);
        surplus
    }

    fn create_indexed(&mut self, missing: usize) {
        let mut busy = Indexes::default();
        let late = self.leaving.iter().filter(|_| self.spec.replaces_late);
        for index in self.active.iter().chain(late).filter_map(|pod| index_of(pod)) {
            busy.insert(index);
        }
        let per_index = self.spec.index_backoff_limit.is_some();
        if !per_index && let Some(wait) = self.retry_in(|_| true) {
            return self.look_again(wait);
        }
        let free = (0..self.spec.index_count()).filter(|index| {
            !busy.contains(*index)
                && !self.tally.completed.contains(*index)
                && !self.tally.failed_indexes.contains(*index)
        });
        let free: Vec<u32> = free.collect();
        for index in free {
            if self.plan.create.len() == missing {
                return;
            }
            let mut failures = None;
            if per_index {
                if let Some(wait) = self.retry_in(|pod| index_of(pod) == Some(index)) {
                    self.look_again(wait);
                    continue;
                }
                failures = Some(self.failures_of(index));
            }
            self.plan.create.push(pod::indexed(self.job, index, failures));
        }
    }

    /// How often Pods of an index have failed: one more than its last Pod knew.
    fn failures_of(&self, index: u32) -> i64 {
        let failed = self
            .owned
            .iter()
            .filter(|pod| index_of(pod) == Some(index) && tally::is_failed(pod, &self.spec));
        failed.map(|pod| tally::failures_before(pod) + 1).max().unwrap_or(0)
    }

    /// How long the successor of the Pods that failed last still has to wait.
    fn retry_in(&self, counts: impl Fn(&Object) -> bool) -> Option<Duration> {
        let pods = || self.owned.iter().filter(|pod| counts(pod));
        let last_success = pods()
            .filter(|pod| pods::phase(pod) == "Succeeded")
            .filter_map(finished_at)
            .max();
        let failures: Vec<Timestamp> = pods()
            .filter(|pod| tally::is_failed(pod, &self.spec))
            .filter_map(finished_at)
            .filter(|at| last_success.is_none_or(|success| *at > success))
            .collect();
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
        let wait = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_LONGEST);
        let over = u64::try_from(self.now.as_second() - last.as_second()).unwrap_or(0);
        wait.checked_sub(Duration::from_secs(over))
            .filter(|left| !left.is_zero())
    }

    fn look_again(&mut self, after: Duration) {
        self.plan.look_again = Some(self.plan.look_again.map_or(after, |before| before.min(after)));
    }

    fn done(mut self) -> Plan {
        let told = &self.job.tree()["status"];
        let ready = self.active.iter().filter(|pod| pods::is_ready(pod)).count();
        let text = |at: Option<Timestamp>| at.map_or(Value::Null, |at| json!(time::text(at)));
        let mut status = json!({
            "active": counted(self.active.len()),
            "ready": ready,
            "terminating": self.leaving.len(),
            "succeeded": number(self.tally.counted_succeeded),
            "failed": number(self.tally.counted_failed),
            "uncountedTerminatedPods": self.tally.uncounted(),
            "startTime": text(self.started),
            "conditions": self.conditions.value(),
        });
        if let Some(ended) = self.ended {
            status["completionTime"] = json!(time::text(ended));
        }
        if self.spec.indexed {
            status["completedIndexes"] = words(&self.tally.completed);
            if self.spec.index_backoff_limit.is_some() {
                status["failedIndexes"] = json!(self.tally.failed_indexes.to_string());
            }
        }
        let stands = status.as_object().into_iter().flatten().all(|(field, value)| {
            let told = &told[field];
            *told == *value || (field == "uncountedTerminatedPods" && without_nulls(told) == without_nulls(value))
        });
        self.plan.status = (!stands).then_some(status);
        self.plan.strip = std::mem::take(&mut self.tally.strip);
        self.plan
    }
}

/// When a Pod came to its end.
fn finished_at(pod: &Object) -> Option<Timestamp> {
    let tree = pod.tree();
    let statuses = tree["status"]["containerStatuses"].as_array();
    let ends = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| time::parse(&status["state"]["terminated"]["finishedAt"]));
    ends.max()
        .or_else(|| time::parse(&pods::condition(pod, "Ready")?["lastTransitionTime"]))
        .or_else(|| time::parse(&tree["metadata"]["deletionTimestamp"]))
        .or_else(|| time::parse(&tree["metadata"]["creationTimestamp"]))
}

fn without_nulls(value: &Value) -> Vec<(&String, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).collect()
}

/// Upstream leaves zero counts out.
fn counted(count: usize) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}

fn number(count: i64) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}

fn words(indexes: &Indexes) -> Value {
    if indexes.len() == 0 {
        Value::Null
    } else {
        json!(indexes.to_string())
    }
}
