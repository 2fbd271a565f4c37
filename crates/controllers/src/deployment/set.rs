//! A ReplicaSet as its Deployment sees it.

use api::Object;
use jiff::Timestamp;

use crate::time;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

#[derive(Clone, Debug)]
pub struct Set {
    pub object: Object,
    /// What the set is asked for; steps of a plan change it as they are planned.
    pub replicas: i64,
    pub present: i64,
    pub ready: i64,
    pub available: i64,
    pub revision: i64,
    /// The Deployment's own aim when the set was scaled last.
    pub desired: Option<i64>,
    /// The most Pods there could be then.
    pub most: Option<i64>,
    pub created: Option<Timestamp>,
}

impl Set {
    pub fn of(object: &Object) -> Set {
        let tree = object.tree();
        let status = |field: &str| tree["status"][field].as_i64().unwrap_or(0);
        let number = |annotation: &str| object.annotation(annotation).and_then(|text| text.parse().ok());
        Set {
            object: object.clone(),
            replicas: tree["spec"]["replicas"].as_i64().unwrap_or(1),
            present: status("replicas"),
            ready: status("readyReplicas"),
            available: status("availableReplicas"),
            revision: number(REVISION).unwrap_or(0),
            desired: number(DESIRED),
            most: number(MAX),
            created: time::parse(&tree["metadata"]["creationTimestamp"]),
        }
    }

    pub fn name(&self) -> &str {
        self.object.name()
    }

    /// For sorting: age, then name.
    pub fn age(&self) -> (Option<Timestamp>, &str) {
        (self.created, self.object.name())
    }

    /// Its controller has seen its present spec, and nothing of it is left.
    pub fn is_spent(&self) -> bool {
        let tree = self.object.tree();
        let observed = tree["status"]["observedGeneration"].as_i64().unwrap_or(0);
        self.replicas == 0
            && self.present == 0
            && !self.object.is_deleting()
            && tree["metadata"]["generation"].as_i64().unwrap_or(0) <= observed
    }
}
