//! What is worked out once for a Pod before it is held against each node.

use std::collections::HashMap;

use api::{Object, placement};
use serde_json::Value;

use crate::{
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::Snapshot,
    spread::Constraint,
    volumes::{Claim, Volumes},
};

/// Of topology key and value.
pub type Counts<'a> = HashMap<(&'a str, &'a str), i64>;

pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub volumes: &'a Volumes,
    pub node_count: usize,
    /// Domains in which a Pod runs that wants this one kept away.
    pub repelled: Counts<'a>,
    /// Domains in which Pods run that this one wants to be near, and apart from.
    pub near: Counts<'a>,
    pub apart: Counts<'a>,
    /// Whether the Pod would satisfy its own wish to be near: the first of its kind may go anywhere.
    pub near_itself: bool,
    /// What Pods here and there think of it, and it of them.
    pub liking: Counts<'a>,
    pub spread: Vec<Spread<'a>>,
    /// How many nodes have each image of the Pod.
    pub image_spread: HashMap<String, usize>,
}

/// One constraint, with how many matching Pods each domain has.
pub struct Spread<'a> {
    pub constraint: &'a Constraint,
    pub counts: HashMap<&'a str, i64>,
    /// The Pod itself would count.
    pub counts_itself: bool,
}

impl Spread<'_> {
    /// The emptiest domain's count; none counts as empty while there are fewer domains than asked for.
    pub fn least(&self) -> i64 {
        let domains = i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        if domains < self.constraint.domains_min {
            return 0;
        }
        self.counts.values().min().copied().unwrap_or(0)
    }
}

impl<'a> Cycle<'a> {
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Cycle<'a> {
        let mut cycle = Cycle {
            pod,
            volumes: &snapshot.volumes,
            node_count: snapshot.nodes.len(),
            repelled: Counts::new(),
            near: Counts::new(),
            apart: Counts::new(),
            near_itself: pod.near.iter().all(|term| term.matches(&pod.pod, &snapshot.namespaces)),
            liking: Counts::new(),
            spread: Vec::new(),
            image_spread: image_spread(&pod.pod, snapshot),
        };
        for node in snapshot.nodes.values() {
            cycle.see(node, snapshot);
        }
        cycle.spread = pod
            .spread
            .iter()
            .map(|constraint| count_spread(pod, constraint, snapshot))
            .collect();
        cycle
    }

    fn see(&mut self, node: &'a NodeInfo, snapshot: &'a Snapshot) {
        /// Weight of a required affinity of Pods that run already, as upstream's `hardPodAffinityWeight`.
        const REQUIRED_WEIGHT: i64 = 1;
        let (pod, namespaces) = (self.pod, &snapshot.namespaces);
        let mut add = |counts: fn(&mut Self) -> &mut Counts<'a>, key: &'a str, weight: i64| {
            if let Some(value) = node.label(key) {
                *counts(self).entry((key, value)).or_default() += weight;
            }
        };
        for other in node.opinionated() {
            for term in other.apart.iter().filter(|term| term.matches(&pod.pod, namespaces)) {
                add(|cycle| &mut cycle.repelled, &term.topology_key, 1);
            }
            for term in other.near.iter().filter(|term| term.matches(&pod.pod, namespaces)) {
                add(|cycle| &mut cycle.liking, &term.topology_key, REQUIRED_WEIGHT);
            }
            for (weight, term) in &other.liked {
                if term.matches(&pod.pod, namespaces) {
                    add(|cycle| &mut cycle.liking, &term.topology_key, *weight);
                }
            }
        }
        if pod.near.is_empty() && pod.apart.is_empty() && pod.liked.is_empty() {
            return;
        }
        for other in node.pods() {
            if !pod.near.is_empty() && pod.near.iter().all(|term| term.matches(&other.pod, namespaces)) {
                for term in &pod.near {
                    add(|cycle| &mut cycle.near, &term.topology_key, 1);
                }
            }
            for term in pod.apart.iter().filter(|term| term.matches(&other.pod, namespaces)) {
                add(|cycle| &mut cycle.apart, &term.topology_key, 1);
            }
            for (weight, term) in &pod.liked {
                if term.matches(&other.pod, namespaces) {
                    add(|cycle| &mut cycle.liking, &term.topology_key, *weight);
                }
            }
        }
    }

    /// Why the Pod can run on no node at all, whatever the nodes are like.
    pub fn hopeless(&self) -> Option<String> {
        let namespace = self.pod.pod.namespace();
        for name in &self.pod.claims {
            match self.volumes.claim(namespace, name) {
                Claim::Missing => return Some(format!("persistentvolumeclaim \"{name}\" not found")),
                Claim::Leaving => return Some(format!("persistentvolumeclaim \"{name}\" is being deleted")),
                Claim::Unbound => return Some("pod has unbound immediate PersistentVolumeClaims".to_owned()),
                Claim::Bound(_) | Claim::Waits(_) => {}
            }
        }
        None
    }
}

fn count_spread<'a>(pod: &'a PodInfo, constraint: &'a Constraint, snapshot: &'a Snapshot) -> Spread<'a> {
    let mut counts = HashMap::new();
    let keys = || pod.spread.iter().filter(|other| other.hard == constraint.hard);
    for node in snapshot.nodes.values() {
        let Some(domain) = node.label(&constraint.topology_key) else {
            continue;
        };
        if !keys().all(|other| node.label(&other.topology_key).is_some()) || !is_counted(pod, constraint, node) {
            continue;
        }
        let matching = node.pods().filter(|other| {
            !other.pod.is_deleting()
                && other.pod.namespace() == pod.pod.namespace()
                && constraint.selector.matches_object(&other.pod)
        });
        *counts.entry(domain).or_default() += i64::try_from(matching.count()).unwrap_or(i64::MAX);
    }
    Spread {
        constraint,
        counts,
        counts_itself: constraint.selector.matches_object(&pod.pod),
    }
}

fn is_counted(pod: &PodInfo, constraint: &Constraint, node: &NodeInfo) -> bool {
    let (spec, node) = (&pod.pod.tree()["spec"], node.node.tree());
    let fits = !constraint.honors_affinity || placement::node_matches(spec, node);
    let effects = ["NoSchedule", "NoExecute"];
    let tolerates = !constraint.honors_taints
        || placement::untolerated(&spec["tolerations"], &node["spec"]["taints"], &effects).is_none();
    fits && tolerates
}

fn image_spread(pod: &Object, snapshot: &Snapshot) -> HashMap<String, usize> {
    let images = images(pod);
    let count = |image: &String| {
        let nodes = snapshot.nodes.values();
        nodes.filter(|node| node.images.contains_key(image)).count()
    };
    images.into_iter().map(|image| (image.clone(), count(&image))).collect()
}

/// Images by full name, as nodes report them.
pub fn images(pod: &Object) -> Vec<String> {
    let spec = &pod.tree()["spec"];
    let containers = crate::request::list(&spec["containers"]).iter();
    let all = containers.chain(crate::request::list(&spec["initContainers"]));
    all.filter_map(|container| container["image"].as_str())
        .map(full_name)
        .collect()
}

/// With the tag that is meant if none is given.
fn full_name(image: &str) -> String {
    let after_slash = image.rsplit('/').next().unwrap_or(image);
    if after_slash.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// A field of a Pod's spec.
pub fn spec<'a>(cycle: &Cycle<'a>) -> &'a Value {
    &cycle.pod.pod.tree()["spec"]
}
