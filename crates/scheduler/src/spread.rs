//! Topology spread constraints, as a Pod states them.

use api::{Object, selector::LabelSelector};
use serde_json::Value;

use crate::{request::list, term};

#[derive(Clone, Debug)]
pub struct Constraint {
    pub topology_key: String,
    pub skew_max: i64,
    pub selector: LabelSelector,
    /// `DoNotSchedule`; otherwise it is a wish.
    pub hard: bool,
    pub domains_min: i64,
    /// Nodes that the Pod's own affinity (its taints) rule out are not counted.
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

impl Constraint {
    pub fn of(pod: &Object) -> Vec<Constraint> {
        let constraints = list(&pod.tree()["spec"]["topologySpreadConstraints"]);
        let read = |constraint: &Value| Constraint {
            topology_key: constraint["topologyKey"].as_str().unwrap_or("").to_owned(),
            skew_max: constraint["maxSkew"].as_i64().unwrap_or(1),
            selector: term::selector(constraint, pod),
            hard: constraint["whenUnsatisfiable"] != "ScheduleAnyway",
            domains_min: constraint["minDomains"].as_i64().unwrap_or(1),
            honors_affinity: constraint["nodeAffinityPolicy"] != "Ignore",
            honors_taints: constraint["nodeTaintsPolicy"] == "Honor",
        };
        constraints.iter().map(read).collect()
    }
}
