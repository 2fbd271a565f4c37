//! What a DaemonSet needs, given the nodes there are and the Pods that are its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::{Object, placement};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pod;
use crate::pods;

pub struct Observed<'a> {
    pub set: &'a Object,
    pub nodes: &'a [Object],
    pub pods: &'a [Object],
    /// Of the present template.
    pub hash: &'a str,
}

/// What a node is to a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It should run there.
    Runs,
    /// It is not started there, and what runs already may stay.
    Stays,
    Leaves,
}

/// Whether a set's Pod belongs on a node.
pub fn fit(set: &Object, node: &Object) -> Fit {
    let mut spec = set.tree()["spec"]["template"]["spec"].clone();
    let named = spec["nodeName"].as_str().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.name()) || !placement::node_matches(&spec, node.tree()) {
        return Fit::Leaves;
    }
    pod::tolerate(&mut spec);
    let (tolerations, taints) = (&spec["tolerations"], &node.tree()["spec"]["taints"]);
    if placement::untolerated(tolerations, taints, &["NoExecute"]).is_some() {
        Fit::Leaves
    } else if placement::untolerated(tolerations, taints, &["NoSchedule"]).is_some() {
        Fit::Stays
    } else {
        Fit::Runs
    }
}

#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that lack a Pod.
    pub create: Vec<String>,
    pub delete: Vec<Object>,
    /// Pods that failed: deleted too, each after its back-off.
    pub failed: Vec<Object>,
    /// The status to write, as a merge patch; `None` if it stands.
    pub status: Option<Value>,
    pub look_again: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, collisions: Option<i64>, now: Timestamp) -> Plan {
    let min_ready = observed.set.tree()["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
    let mut by_node = BTreeMap::<&str, Vec<&Object>>::new();
    for pod in observed.pods {
        by_node.entry(pod::node_of(pod).unwrap_or("")).or_default().push(pod);
    }
    let planner = Planner {
        observed,
        by_node,
        now,
        min_ready,
        rolling: Rolling::of(observed.set),
    };
    let mut plan = Plan::default();
    if !observed.set.is_deleting() {
        planner.manage(&mut plan);
        if plan.create.is_empty() && plan.delete.is_empty() {
            planner.update(&mut plan);
        }
    }
    plan.status = planner.status(collisions);
    plan.look_again = planner.look_again();
    plan
}

struct Rolling {
    unavailable_max: Value,
    surge_max: Value,
    rolls: bool,
}

impl Rolling {
    fn of(set: &Object) -> Rolling {
        let strategy = &set.tree()["spec"]["updateStrategy"];
        let rolling = &strategy["rollingUpdate"];
        Rolling {
            unavailable_max: rolling["maxUnavailable"].clone(),
            surge_max: rolling["maxSurge"].clone(),
            rolls: strategy["type"] != "OnDelete",
        }
    }

    /// How many more Pods than nodes, and how many nodes without one, there may be.
    fn limits(&self, desired: usize) -> (usize, usize) {
        let surge = share(&self.surge_max, desired).unwrap_or(0);
        let unavailable = share(&self.unavailable_max, desired).unwrap_or(1);
        // Neither would mean no progress.
        (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
    }
}

/// A number, or a percentage of `whole` rounded up.
fn share(value: &Value, whole: usize) -> Option<usize> {
    if let Some(number) = value.as_u64() {
        return usize::try_from(number).ok();
    }
    let percent: usize = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    Some(whole.saturating_mul(percent).div_ceil(100))
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    by_node: BTreeMap<&'a str, Vec<&'a Object>>,
    now: Timestamp,
    min_ready: i64,
    rolling: Rolling,
}

impl<'a> Planner<'a> {
    /// The right nodes have a Pod, and the others none.
    fn manage(&self, plan: &mut Plan) {
        let known: BTreeSet<&str> = self.observed.nodes.iter().map(Object::name).collect();
        for node in self.observed.nodes {
            let here = self.pods_on(node.name());
            match fit(self.observed.set, node) {
                Fit::Leaves => plan.delete.extend(here.filter(|pod| !pod.is_deleting()).cloned()),
                Fit::Runs | Fit::Stays if self.pods_on(node.name()).next().is_some() => self.settle(node, plan),
                Fit::Runs => plan.create.push(node.name().to_owned()),
                Fit::Stays => {}
            }
        }
        // What runs on a node that is gone is cleared away with the node's Pods; what waits for it would wait for ever.
        for (node, pods) in &self.by_node {
            if !known.contains(node) {
                let waiting = pods
                    .iter()
                    .filter(|pod| pod.tree()["spec"]["nodeName"].as_str().unwrap_or("").is_empty());
                plan.delete
                    .extend(waiting.filter(|pod| !pod.is_deleting()).map(|pod| (*pod).clone()));
            }
        }
    }

    /// One Pod a node, or while one is replaced by surge an old and a new one.
    fn settle(&self, node: &Object, plan: &mut Plan) {
        let (surge, _) = self.limits();
        let mut alive: Vec<&Object> = Vec::new();
        for pod in self.pods_on(node.name()).filter(|pod| !pod.is_deleting()) {
            match pods::phase(pod) {
                "Failed" => plan.failed.push(pod.clone()),
                "Succeeded" => plan.delete.push(pod.clone()),
                _ => alive.push(pod),
            }
        }
        alive.sort_by_key(|pod| {
            let created = pod.tree()["metadata"]["creationTimestamp"].as_str().unwrap_or("");
            (created.to_owned(), pod.name().to_owned())
        });
        if surge == 0 {
            plan.delete.extend(alive.into_iter().skip(1).cloned());
            return;
        }
        let (new, old): (Vec<&Object>, Vec<&Object>) = alive.into_iter().partition(|pod| self.is_new(pod));
        let replaced = new.first().is_some_and(|pod| self.is_available(pod));
        plan.delete.extend(new.into_iter().skip(1).cloned());
        plan.delete
            .extend(old.into_iter().skip(usize::from(!replaced)).cloned());
    }

    fn update(&self, plan: &mut Plan) {
        if !self.rolling.rolls {
            return;
        }
        match self.limits() {
            (0, unavailable_max) => self.replace_in_place(plan, unavailable_max),
            (surge_max, _) => self.replace_by_surge(plan, surge_max),
        }
    }

    fn replace_in_place(&self, plan: &mut Plan, unavailable_max: usize) {
        let (mut unavailable, mut broken, mut working) = (0, Vec::new(), Vec::new());
        for node in self.running_nodes() {
            let pods: Vec<&Object> = self.pods_on(node.name()).collect();
            match pods[..] {
                [pod] if pods::is_active(pod) && self.is_new(pod) => {
                    unavailable += usize::from(!self.is_available(pod));
                }
                [pod] if pods::is_active(pod) && self.is_available(pod) => working.push(pod),
                [pod] if pods::is_active(pod) => {
                    unavailable += 1;
                    broken.push(pod);
                }
                // None, one that is over or leaves, or one that leaves beside its successor.
                _ => unavailable += 1,
            }
        }
        let room = unavailable_max.saturating_sub(unavailable);
        // One that does not work costs nothing.
        plan.delete.extend(broken.into_iter().cloned());
        plan.delete.extend(working.into_iter().take(room).cloned());
    }

    fn replace_by_surge(&self, plan: &mut Plan, surge_max: usize) {
        let (mut surging, mut broken, mut working) = (0, Vec::new(), Vec::new());
        for node in self.running_nodes() {
            let pods: Vec<&Object> = self.pods_on(node.name()).collect();
            let (new, old): (Vec<&Object>, Vec<&Object>) = pods.into_iter().partition(|pod| self.is_new(pod));
            match (&old[..], &new[..]) {
                ([], _) => {}
                ([old], []) if self.is_available(old) => working.push(node),
                (_, []) => broken.push(node),
                // The old one goes in `settle` once the new one works.
                _ => surging += 1,
            }
        }
        let room = surge_max.saturating_sub(surging);
        let nodes = broken.into_iter().chain(working.into_iter().take(room));
        plan.create.extend(nodes.map(|node| node.name().to_owned()));
    }

    fn status(&self, collisions: Option<i64>) -> Option<Value> {
        let (mut current, mut misplaced, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0);
        for node in self.observed.nodes {
            let mut pods: Vec<&Object> = self.pods_on(node.name()).collect();
            if fit(self.observed.set, node) != Fit::Runs {
                misplaced += usize::from(!pods.is_empty());
                continue;
            }
            // The newest tells, as upstream has it.
            pods.sort_by_key(|pod| {
                pod.tree()["metadata"]["creationTimestamp"]
                    .as_str()
                    .unwrap_or("")
                    .to_owned()
            });
            let Some(pod) = pods.first() else { continue };
            current += 1;
            ready += usize::from(pods::is_ready(pod));
            available += usize::from(self.is_available(pod));
            updated += usize::from(self.is_new(pod));
        }
        let desired = self.desired();
        let told = &self.observed.set.tree()["status"];
        let status = json!({
            "desiredNumberScheduled": desired, "currentNumberScheduled": current,
            "numberMisscheduled": misplaced, "numberReady": ready,
            "updatedNumberScheduled": counted(updated), "numberAvailable": counted(available),
            "numberUnavailable": counted(desired.saturating_sub(available)),
            "observedGeneration": self.observed.set.tree()["metadata"]["generation"],
            "collisionCount": collisions.or(told["collisionCount"].as_i64()),
        });
        let stands = status
            .as_object()
            .into_iter()
            .flatten()
            .all(|(field, value)| told[field] == *value);
        (!stands).then_some(status)
    }

    fn look_again(&self) -> Option<Duration> {
        let waiting = self
            .observed
            .pods
            .iter()
            .filter(|pod| pods::is_ready(pod) && !self.is_available(pod));
        let left = waiting
            .filter_map(|pod| Some(self.min_ready - (self.now.as_second() - pods::ready_since(pod)?.as_second())));
        let left = left.min()?.clamp(1, self.min_ready.max(1));
        Some(Duration::from_secs(left.unsigned_abs()))
    }

    fn pods_on(&self, node: &str) -> impl Iterator<Item = &'a Object> {
        self.by_node.get(node).cloned().into_iter().flatten()
    }

    fn running_nodes(&self) -> impl Iterator<Item = &'a Object> {
        let set = self.observed.set;
        self.observed.nodes.iter().filter(|node| fit(set, node) == Fit::Runs)
    }

    fn desired(&self) -> usize {
        self.running_nodes().count()
    }

    fn limits(&self) -> (usize, usize) {
        self.rolling.limits(self.desired())
    }

    fn is_new(&self, pod: &Object) -> bool {
        pod.tree()["metadata"]["labels"][pod::HASH_LABEL] == self.observed.hash
    }

    fn is_available(&self, pod: &Object) -> bool {
        pods::is_available(pod, self.min_ready, self.now)
    }
}

/// Upstream leaves zero counts out.
fn counted(count: usize) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}
