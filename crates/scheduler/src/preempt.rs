//! Preemption: which Pods of lower priority have to go so that one can run; pure, as placing is.

use std::sync::Arc;

use api::{Object, selector::LabelSelector};

use crate::{cycle::Cycle, filter, place::Nowhere, pod_info::PodInfo, snapshot::Snapshot};

/// A disruption budget, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: String,
    pub selector: LabelSelector,
    pub allowed: i64,
}

impl Budget {
    pub fn of(budget: &Object) -> Budget {
        let tree = budget.tree();
        let selector = &tree["spec"]["selector"];
        Budget {
            namespace: budget.namespace().to_owned(),
            selector: if selector.is_null() {
                LabelSelector::nothing()
            } else {
                LabelSelector::from_json(selector).unwrap_or_else(|_| LabelSelector::nothing())
            },
            allowed: tree["status"]["disruptionsAllowed"].as_i64().unwrap_or(0),
        }
    }
}

#[derive(Debug)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

/// What came of looking for victims.
#[derive(Debug)]
pub enum Outcome {
    Found(Preemption),
    /// In upstream's words, to go behind the reasons of the nodes.
    Nothing(String),
    /// Room is being made already.
    UnderWay,
}

pub fn preempt(pod: &PodInfo, nowhere: &Nowhere, snapshot: &Snapshot, budgets: &[Budget]) -> Outcome {
    let tree = pod.pod.tree();
    let nodes = snapshot.nodes.len();
    if tree["spec"]["preemptionPolicy"] == "Never" {
        return Outcome::Nothing(format!(
            "preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
        ));
    }
    let nominated = tree["status"]["nominatedNodeName"]
        .as_str()
        .and_then(|name| snapshot.nodes.get(name));
    if nominated.is_some_and(|node| {
        node.pods()
            .any(|other| other.pod.is_deleting() && other.priority < pod.priority)
    }) {
        return Outcome::UnderWay;
    }
    let mut best: Option<Candidate> = None;
    let mut reasons = Vec::new();
    for (name, refusal) in &nowhere.refusals {
        if !refusal.by_pods() {
            reasons.push("Preemption is not helpful for scheduling");
            continue;
        }
        match victims_on(pod, name, snapshot, budgets) {
            Some(candidate) => {
                if best.as_ref().is_none_or(|best| candidate.rank() < best.rank()) {
                    best = Some(candidate);
                }
            }
            None => reasons.push("No preemption victims found for incoming pod"),
        }
    }
    match best {
        Some(best) => Outcome::Found(Preemption {
            node: best.node,
            victims: best.victims,
        }),
        None => Outcome::Nothing(format!("preemption: {}", filter::summary(nodes, reasons))),
    }
}

struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

impl Candidate {
    /// Less is better: violated budgets, the highest priority, the sum of priorities, the number; then who began last.
    fn rank(&self) -> (usize, i64, i64, usize, std::cmp::Reverse<String>, &str) {
        // Moved up so that many Pods of negative priority don't look better than few.
        let moved = |priority: i64| priority - i64::from(i32::MIN);
        let highest = self.victims.iter().map(|pod| pod.priority).max().unwrap_or(i64::MIN);
        let sum = self.victims.iter().map(|pod| moved(pod.priority)).sum();
        let top = self.victims.iter().filter(|pod| pod.priority == highest);
        let earliest = top.map(|pod| started(pod)).min().unwrap_or_default();
        (
            self.violations,
            highest,
            sum,
            self.victims.len(),
            std::cmp::Reverse(earliest),
            &self.node,
        )
    }
}

fn started(pod: &PodInfo) -> String {
    pod.pod.tree()["status"]["startTime"].as_str().unwrap_or("").to_owned()
}

/// The fewest Pods of lower priority without which `pod` fits on a node.
fn victims_on(pod: &PodInfo, name: &str, snapshot: &Snapshot, budgets: &[Budget]) -> Option<Candidate> {
    let mut without = snapshot.clone();
    let node = without.node_mut(name)?;
    let lower: Vec<Arc<PodInfo>> = node
        .pods()
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect();
    if lower.is_empty() {
        return None;
    }
    for other in &lower {
        node.take(other.uid());
    }
    if !fits(pod, name, &without) {
        return None;
    }
    let (mut violating, mut others) = split(lower, budgets);
    // The most important are spared first, those that a budget protects before all.
    let important = |one: &Arc<PodInfo>, other: &Arc<PodInfo>| {
        (std::cmp::Reverse(one.priority), started(one)).cmp(&(std::cmp::Reverse(other.priority), started(other)))
    };
    violating.sort_by(important);
    others.sort_by(important);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let protected = violating.into_iter().map(|other| (other, 1));
    for (other, violates) in protected.chain(others.into_iter().map(|other| (other, 0))) {
        without.node_mut(name)?.put(other.clone());
        if !fits(pod, name, &without) {
            without.node_mut(name)?.take(other.uid());
            victims.push(other);
            violations += violates;
        }
    }
    Some(Candidate {
        node: name.to_owned(),
        victims,
        violations,
    })
}

fn fits(pod: &PodInfo, name: &str, snapshot: &Snapshot) -> bool {
    let cycle = Cycle::new(pod, snapshot);
    let node = snapshot.nodes.get(name);
    node.is_some_and(|node| filter::refusal(&cycle, &snapshot.seen_by(pod, node)).is_none())
}

/// Those whose going would violate a budget, and the others.
fn split(pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i64> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.namespace == pod.pod.namespace() && budget.selector.matches_object(&pod.pod) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}
