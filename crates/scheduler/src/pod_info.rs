//! A Pod as the scheduler looks at it, read once.

use api::Object;

use crate::{
    request::{self, Amounts},
    spread::Constraint,
    term::Term,
};

#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Object,
    pub requested: Amounts,
    /// As `requested`, with a little of what is not asked for, so that Pods that ask for nothing are spread too.
    pub assumed: Amounts,
    /// (address, protocol, port)
    pub host_ports: Vec<(String, String, i64)>,
    /// The controller, by which Pods of one workload are spread.
    pub owner: Option<String>,
    pub priority: i64,
    pub near: Vec<Term>,
    pub apart: Vec<Term>,
    /// Each with a weight; negative of those it would rather be apart from.
    pub liked: Vec<(i64, Term)>,
    pub spread: Vec<Constraint>,
    /// The claims of its volumes, by name.
    pub claims: Vec<String>,
}

impl PodInfo {
    pub fn of(pod: &Object) -> PodInfo {
        let spec = &pod.tree()["spec"];
        let owners = pod.tree()["metadata"]["ownerReferences"].as_array();
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let affinity = &spec["affinity"];
        let liked = Term::preferred(&affinity["podAffinity"], pod);
        let disliked = Term::preferred(&affinity["podAntiAffinity"], pod);
        PodInfo {
            requested: request::requested(spec),
            assumed: request::assumed(spec),
            host_ports: request::host_ports(spec),
            owner: controller.and_then(|owner| owner["uid"].as_str()).map(str::to_owned),
            priority: spec["priority"].as_i64().unwrap_or(0),
            near: Term::required(&affinity["podAffinity"], pod),
            apart: Term::required(&affinity["podAntiAffinity"], pod),
            liked: liked.chain(disliked.map(|(weight, term)| (-weight, term))).collect(),
            spread: Constraint::of(pod),
            claims: claims(pod),
            pod: pod.clone(),
        }
    }

    pub fn uid(&self) -> &str {
        self.pod.uid()
    }
}

fn claims(pod: &Object) -> Vec<String> {
    let volumes = request::list(&pod.tree()["spec"]["volumes"]);
    let claim = |volume: &serde_json::Value| {
        if volume["ephemeral"].is_object() {
            return Some(format!("{}-{}", pod.name(), volume["name"].as_str()?));
        }
        Some(volume["persistentVolumeClaim"]["claimName"].as_str()?.to_owned())
    };
    volumes.iter().filter_map(claim).collect()
}
