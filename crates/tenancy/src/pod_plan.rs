//! What to do so that a tenant's Pod and its super Pod agree. Pure; the syncer carries the steps out.

use api::Object;
use serde_json::Value;

use crate::{
    identity::{Origin, Tenant},
    translate::{
        pod::{Down, kept_off},
        pod_drift, status,
    },
};

/// One change, on one side. Deletions carry the uid of what they mean, as a precondition.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    CreateSuper,
    /// A merge patch of metadata, a strategic one of spec.
    PatchSuper(Value),
    /// Containers that came while it ran.
    AddEphemeral(Vec<Value>),
    /// It waits for a node that it is kept off, or does not wait for one that it should be: the place it asks for can't be
    /// changed in place, so it is taken away as it is now, to be made anew.
    Withdraw,
    /// A strategic patch for `resize`.
    ResizeSuper(Value),
    DeleteSuper {
        grace_seconds: Option<u64>,
    },
    /// The readiness gates' conditions that the super Pod lacks.
    GatesDown(Vec<Value>),
    Bind {
        node: String,
    },
    WriteStatus(Value),
    DeleteTenant {
        grace_seconds: Option<u64>,
    },
    /// A Pod of another owner has the name: nothing is touched.
    Refuse(String),
}

/// Both sides as last observed. `absent` super Pods must have been confirmed absent: by a synced and live source, or by
/// asking the super plane.
pub fn plan(
    tenant: &Tenant,
    tenant_pod: Option<&Object>,
    super_pod: Option<&Object>,
    wanted: Option<&Down>,
) -> Vec<Step> {
    match (tenant_pod, super_pod) {
        (None, None) => Vec::new(),
        (None, Some(super_pod)) => delete_super_once(super_pod, None),
        (Some(tenant_pod), None) => without_super(tenant_pod),
        (Some(tenant_pod), Some(super_pod)) if Origin::owns(tenant, tenant_pod, super_pod) => {
            both(tenant, tenant_pod, super_pod, wanted)
        }
        // The name was deleted and made anew while nobody looked: the old one goes first (trap 1).
        (Some(_), Some(super_pod))
            if Origin::of(super_pod, &tenant.super_id).is_some_and(|o| o.plane == tenant.plane) =>
        {
            delete_super_once(super_pod, None)
        }
        (Some(tenant_pod), Some(_)) if tenant_pod.is_deleting() => vec![Step::DeleteTenant { grace_seconds: Some(0) }],
        (Some(_), Some(_)) => vec![Step::Refuse(
            "the super cluster has another Pod by this name".to_owned(),
        )],
    }
}

fn without_super(tenant_pod: &Object) -> Vec<Step> {
    let was_lost = was_running(tenant_pod) && !is_finished(tenant_pod) || was_taken_away(tenant_pod);
    if tenant_pod.is_deleting() || was_lost {
        // Nothing of it is left below: deleted here and finished there (trap 2), or evicted, preempted or lost with its
        // node (trap 3). Its owner makes another; this one never runs twice.
        return vec![Step::DeleteTenant { grace_seconds: Some(0) }];
    }
    if is_to_be_made(tenant_pod) {
        return vec![Step::CreateSuper];
    }
    Vec::new()
}

/// Whether a Pod for which nothing stands below has to be made there. Gates are the tenant's to lift, and until then
/// there is nothing to schedule.
pub fn is_to_be_made(tenant_pod: &Object) -> bool {
    !tenant_pod.is_deleting() && !was_running(tenant_pod) && !is_finished(tenant_pod) && !is_gated(tenant_pod)
}

fn both(tenant: &Tenant, tenant_pod: &Object, super_pod: &Object, wanted: Option<&Down>) -> Vec<Step> {
    let mut steps = Vec::new();
    if tenant_pod.is_deleting() {
        let grace = grace_seconds(tenant_pod);
        match super_pod.is_deleting() {
            false => steps.push(Step::DeleteSuper { grace_seconds: grace }),
            // The tenant shortened the grace while it was under way.
            true if grace < grace_seconds(super_pod) => steps.push(Step::DeleteSuper { grace_seconds: grace }),
            true => {}
        }
    } else if super_pod.is_deleting() {
        steps.push(Step::DeleteTenant {
            grace_seconds: grace_seconds(super_pod),
        });
    } else if let Some(wanted) = wanted {
        if waits_elsewhere(wanted, super_pod) && !was_running(tenant_pod) {
            return vec![Step::Withdraw];
        }
        follow(wanted, super_pod, &mut steps);
    }
    let node = super_pod.tree()["spec"]["nodeName"].as_str().unwrap_or("");
    let bound = tenant_pod.tree()["spec"]["nodeName"].as_str().unwrap_or("");
    if !node.is_empty() && bound.is_empty() && !tenant_pod.is_deleting() {
        steps.push(Step::Bind { node: node.to_owned() });
    }
    let status = status::up(tenant, tenant_pod, super_pod);
    if status != tenant_pod.tree()["status"] {
        steps.push(Step::WriteStatus(status));
    }
    if let Some(conditions) = status::gates_down(tenant_pod, super_pod) {
        steps.push(Step::GatesDown(conditions));
    }
    steps
}

/// Not bound yet, and kept off other nodes than its tenant wants it to be.
fn waits_elsewhere(wanted: &Down, super_pod: &Object) -> bool {
    let spec = &super_pod.tree()["spec"];
    spec["nodeName"].as_str().unwrap_or("").is_empty() && kept_off(spec) != kept_off(&wanted.pod["spec"])
}

fn follow(wanted: &Down, super_pod: &Object, steps: &mut Vec<Step>) {
    steps.extend(pod_drift::drift(&wanted.pod, super_pod).map(Step::PatchSuper));
    if is_finished(super_pod) {
        return;
    }
    let new = pod_drift::new_ephemeral(&wanted.ephemeral, super_pod);
    if !new.is_empty() {
        steps.push(Step::AddEphemeral(new.into_iter().cloned().collect()));
    }
    steps.extend(pod_drift::resized(&wanted.pod, super_pod).map(Step::ResizeSuper));
}

fn delete_super_once(super_pod: &Object, grace_seconds: Option<u64>) -> Vec<Step> {
    if super_pod.is_deleting() {
        Vec::new()
    } else {
        vec![Step::DeleteSuper { grace_seconds }]
    }
}

fn grace_seconds(pod: &Object) -> Option<u64> {
    pod.tree()["metadata"]["deletionGracePeriodSeconds"].as_u64()
}

/// Some super Pod has stood for it: only status that came up says so (a tenant may set `nodeName` itself).
fn was_running(pod: &Object) -> bool {
    pod.tree()["status"]["startTime"].is_string()
}

/// The super cluster has said that it takes the Pod away, and has failed it first: what it ended itself comes to another end.
/// Only a kubelet's word leaves the Pod there.
fn was_taken_away(pod: &Object) -> bool {
    let conditions = pod.tree()["status"]["conditions"].as_array();
    let target = |condition: &&Value| condition["type"] == "DisruptionTarget" && condition["status"] == "True";
    conditions
        .into_iter()
        .flatten()
        .find(target)
        .is_some_and(|condition| condition["reason"] != "TerminationByKubelet")
}

fn is_gated(pod: &Object) -> bool {
    let gates = pod.tree()["spec"]["schedulingGates"].as_array();
    gates.is_some_and(|gates| !gates.is_empty())
}

pub fn is_finished(pod: &Object) -> bool {
    matches!(pod.tree()["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{self, tests::acme};
    use serde_json::{Map, json};

    fn tenant_pod(change: impl FnOnce(&mut Value)) -> Object {
        let mut tree = json!({"metadata": {"name": "p", "namespace": "web", "uid": "t1"}, "spec": {}, "status": {}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    fn super_pod(uid: &str, change: impl FnOnce(&mut Value)) -> Object {
        let mut annotations = Map::new();
        identity::mark(&acme(), "web", uid, &mut annotations);
        let mut tree = json!({"metadata": {"name": "p", "namespace": "s", "uid": "s1", "annotations": annotations},
            "spec": {}, "status": {}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    fn steps(tenant: Option<Object>, below: Option<Object>) -> Vec<Step> {
        plan(&acme(), tenant.as_ref(), below.as_ref(), None)
    }

    #[test]
    fn a_new_pod_is_created_below() {
        assert_eq!(steps(Some(tenant_pod(|_| {})), None), vec![Step::CreateSuper]);
    }

    #[test]
    fn a_gated_pod_waits_above() {
        let gated = tenant_pod(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "x/y"}]));

        assert_eq!(steps(Some(gated), None), vec![]);
    }

    #[test]
    fn trap_01_an_older_pod_of_the_same_name_goes_first() {
        let below = super_pod("t0", |_| {});

        assert_eq!(
            steps(Some(tenant_pod(|_| {})), Some(below)),
            vec![Step::DeleteSuper { grace_seconds: None }]
        );

        let going = super_pod("t0", |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into()
        });
        assert_eq!(steps(Some(tenant_pod(|_| {})), Some(going)), vec![]);
    }

    #[test]
    fn trap_02_deletion_goes_down_with_the_same_grace_and_the_tenants_pod_leaves_last() {
        let deleting = || {
            tenant_pod(|pod| {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                pod["metadata"]["deletionGracePeriodSeconds"] = 7.into();
            })
        };
        let going = super_pod("t1", |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 7.into();
        });

        assert_eq!(
            steps(Some(deleting()), Some(super_pod("t1", |_| {}))),
            vec![Step::DeleteSuper { grace_seconds: Some(7) }]
        );
        assert_eq!(steps(Some(deleting()), Some(going)), vec![]);
        assert_eq!(
            steps(Some(deleting()), None),
            vec![Step::DeleteTenant { grace_seconds: Some(0) }]
        );
    }

    #[test]
    fn trap_02_a_shortened_grace_goes_down_too() {
        let deleting = tenant_pod(|pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
        });
        let going = super_pod("t1", |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        });

        assert_eq!(
            steps(Some(deleting), Some(going)),
            vec![Step::DeleteSuper { grace_seconds: Some(1) }]
        );
    }

    #[test]
    fn trap_03_a_pod_that_was_lost_below_is_deleted_and_never_made_again() {
        let running = || {
            tenant_pod(|pod| {
                pod["spec"]["nodeName"] = "n".into();
                pod["status"] = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"});
            })
        };
        let evicted = super_pod("t1", |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
            pod["status"] = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"});
        });

        assert_eq!(
            steps(Some(running()), None),
            vec![Step::DeleteTenant { grace_seconds: Some(0) }]
        );
        assert_eq!(
            steps(Some(running()), Some(evicted)),
            vec![Step::DeleteTenant {
                grace_seconds: Some(30)
            }]
        );
    }

    #[test]
    fn trap_03_a_finished_pod_stays_finished() {
        let done = tenant_pod(|pod| pod["status"] = json!({"phase": "Succeeded", "startTime": "2026-01-01T00:00:00Z"}));

        assert_eq!(steps(Some(done), None), vec![]);
    }

    #[test]
    fn trap_03_a_pod_that_was_failed_to_be_taken_away_goes_and_one_that_its_node_has_failed_stays() {
        let failed = |reason: &str| {
            let conditions = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
            tenant_pod(|pod| {
                pod["status"] =
                    json!({"phase": "Failed", "startTime": "2026-01-01T00:00:00Z", "conditions": conditions})
            })
        };

        assert_eq!(
            steps(Some(failed("DeletionByPodGC")), None),
            vec![Step::DeleteTenant { grace_seconds: Some(0) }]
        );
        assert_eq!(steps(Some(failed("TerminationByKubelet")), None), vec![]);
    }

    #[test]
    fn trap_04_an_equal_status_is_not_written() {
        let status = json!({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"});
        let ours = tenant_pod(|pod| {
            pod["spec"]["nodeName"] = "n".into();
            pod["status"] = status.clone();
        });
        let below = super_pod("t1", |pod| {
            pod["spec"]["nodeName"] = "n".into();
            pod["status"] = status.clone();
        });

        assert_eq!(steps(Some(ours), Some(below)), vec![]);
    }

    #[test]
    fn a_placed_pod_is_bound_and_then_told() {
        let below = super_pod("t1", |pod| {
            pod["spec"]["nodeName"] = "n".into();
            pod["status"] = json!({"phase": "Pending"});
        });

        assert_eq!(
            steps(Some(tenant_pod(|_| {})), Some(below)),
            vec![
                Step::Bind { node: "n".to_owned() },
                Step::WriteStatus(json!({"phase": "Pending"}))
            ]
        );
    }

    #[test]
    fn trap_07_a_foreign_pod_is_never_touched() {
        let foreign = Object::from_tree(json!({"metadata": {"name": "p", "namespace": "s", "uid": "x"}}));

        assert!(matches!(
            steps(Some(tenant_pod(|_| {})), Some(foreign))[..],
            [Step::Refuse(_)]
        ));
    }
}
