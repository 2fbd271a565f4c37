//! What a ReplicaSet needs, given the Pods that are its own.

use std::time::Duration;

use api::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    pod_control::Failure,
    pod_template::{self, Name},
    pods, time,
};

/// Pods made or deleted in one pass at most, as upstream's `BurstReplicas`.
pub const BURST_MAX: usize = 500;

/// What to change.
#[derive(Debug, PartialEq)]
pub enum Step {
    Create(usize),
    /// These, the least useful first.
    Delete(Vec<Object>),
    Nothing,
}

/// Whether there are too few Pods, or which are too many. `related` are Pods of the same workload, for spreading.
pub fn plan(set: &Object, owned: &[Object], related: &[Object], now: Timestamp) -> Step {
    if set.is_deleting() {
        return Step::Nothing;
    }
    let wanted = replicas(set);
    let mut active: Vec<Object> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    if active.len() < wanted {
        return Step::Create((wanted - active.len()).min(BURST_MAX));
    }
    if active.len() == wanted {
        return Step::Nothing;
    }
    let excess = (active.len() - wanted).min(BURST_MAX);
    let node = |pod: &Object| pod.tree()["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
    let mut by_node = std::collections::HashMap::<String, usize>::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *by_node.entry(node(pod)).or_default() += 1;
    }
    pods::sort_for_deletion(&mut active, |pod| by_node.get(&node(pod)).copied().unwrap_or(0), now);
    active.truncate(excess);
    Step::Delete(active)
}

pub fn replicas(set: &Object) -> usize {
    let wanted = set.tree()["spec"]["replicas"].as_i64().unwrap_or(1);
    usize::try_from(wanted).unwrap_or(0)
}

pub fn min_ready_seconds(set: &Object) -> i64 {
    set.tree()["spec"]["minReadySeconds"].as_i64().unwrap_or(0)
}

/// The Pod that a set makes; the server completes its name.
pub fn pod(set: &Object, owner: Value) -> Value {
    let name = Name::BeginsWith(format!("{}-", set.name()));
    pod_template::pod(&set.tree()["spec"]["template"], name, owner)
}

/// The status to write, as a merge patch, or `None` if it stands; and when to look again for Pods that become available.
pub fn status(
    set: &Object,
    owned: &[Object],
    failure: Option<&Failure>,
    now: Timestamp,
) -> (Option<Value>, Option<Duration>) {
    let template_labels = set.tree()["spec"]["template"]["metadata"]["labels"].as_object();
    let labelled = |pod: &Object| {
        let mut labels = template_labels.into_iter().flatten();
        labels.all(|(key, value)| pod.tree()["metadata"]["labels"][key] == *value)
    };
    let min_ready = min_ready_seconds(set);
    let active: Vec<&Object> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    let count = |counts: &dyn Fn(&Object) -> bool| active.iter().filter(|pod| counts(pod)).count();
    let ready = count(&|pod| pods::is_ready(pod));
    let available = count(&|pod| pods::is_available(pod, min_ready, now));
    let old = &set.tree()["status"];
    let mut new = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": counted(count(&labelled)),
        "readyReplicas": counted(ready),
        "availableReplicas": counted(available),
        "observedGeneration": set.tree()["metadata"]["generation"],
    });
    new["conditions"] = conditions(&old["conditions"], failure, now);
    let stands = new
        .as_object()
        .into_iter()
        .flatten()
        .all(|(field, value)| old[field] == *value);
    let look_again = (min_ready > 0 && ready > available).then(|| {
        let waiting = active
            .iter()
            .filter(|pod| pods::is_ready(pod) && !pods::is_available(pod, min_ready, now));
        let left = waiting.filter_map(|pod| Some(min_ready - (now.as_second() - pods::ready_since(pod)?.as_second())));
        Duration::from_secs(left.min().unwrap_or(min_ready).clamp(1, min_ready).unsigned_abs())
    });
    ((!stands).then_some(new), look_again)
}

/// Upstream leaves zero counts out.
fn counted(count: usize) -> Value {
    if count == 0 { Value::Null } else { json!(count) }
}

fn conditions(old: &Value, failure: Option<&Failure>, now: Timestamp) -> Value {
    const KIND: &str = "ReplicaFailure";
    let mut kept: Vec<Value> = old.as_array().cloned().unwrap_or_default();
    let position = kept.iter().position(|condition| condition["type"] == KIND);
    match (failure, position) {
        (None, None) => {}
        (None, Some(at)) => drop(kept.remove(at)),
        (Some(failure), position) => {
            let condition = json!({"type": KIND, "status": "True", "reason": failure.reason,
                "message": failure.message, "lastTransitionTime": time::text(now)});
            match position {
                // What is already said keeps its time.
                Some(at) if kept[at]["reason"] == failure.reason => {}
                Some(at) => kept[at] = condition,
                None => kept.push(condition),
            }
        }
    }
    if kept.is_empty() {
        Value::Null
    } else {
        Value::Array(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    fn set(replicas: i64) -> Object {
        Object::from_tree(json!({
            "metadata": {"name": "web-abc", "namespace": "n", "uid": "rs", "generation": 2},
            "spec": {"replicas": replicas, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}},
            "status": {"replicas": 0}}))
    }

    fn pod_named(name: &str, ready: bool) -> Object {
        let status = if ready { "True" } else { "False" };
        Object::from_tree(json!({
            "metadata": {"name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "a"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:55Z"}]}}))
    }

    #[test]
    fn pods_are_made_deleted_or_left_by_their_number() {
        let pods = [pod_named("a", true), pod_named("b", false), pod_named("c", true)];

        assert_eq!(plan(&set(5), &pods, &pods, now()), Step::Create(2));
        assert_eq!(plan(&set(3), &pods, &pods, now()), Step::Nothing);
        assert_eq!(plan(&set(2), &pods, &pods, now()), Step::Delete(vec![pods[1].clone()]));
        assert_eq!(plan(&set(10_000), &pods, &pods, now()), Step::Create(BURST_MAX));
    }

    #[test]
    fn finished_and_leaving_pods_are_replaced() {
        let failed = Object::from_tree(json!({"metadata": {"name": "a", "uid": "a"}, "status": {"phase": "Failed"}}));
        let leaving = Object::from_tree(
            json!({"metadata": {"name": "b", "uid": "b", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );

        assert_eq!(plan(&set(2), &[failed, leaving], &[], now()), Step::Create(2));
    }

    #[test]
    fn a_set_that_is_being_deleted_makes_nothing() {
        let mut tree = set(3).tree().clone();
        tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();

        assert_eq!(plan(&Object::from_tree(tree), &[], &[], now()), Step::Nothing);
    }

    #[test]
    fn the_pod_carries_the_template_its_owner_and_a_name_to_be_completed() {
        let pod = pod(&set(1), json!({"uid": "rs"}));

        insta::assert_json_snapshot!(pod, @r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "generateName": "web-abc-",
            "labels": {
              "app": "web"
            },
            "ownerReferences": [
              {
                "uid": "rs"
              }
            ]
          },
          "spec": {
            "containers": [
              {
                "name": "c"
              }
            ]
          }
        }
        "#);
    }

    #[test]
    fn status_counts_and_is_written_once() {
        let pods = [pod_named("a", true), pod_named("b", false)];
        let set = set(2);

        let (patch, _) = status(&set, &pods, None, now());

        let patch = patch.unwrap();
        assert_eq!(patch["replicas"], 2);
        assert_eq!(
            (&patch["readyReplicas"], &patch["observedGeneration"]),
            (&json!(1), &json!(2))
        );
        let mut tree = set.tree().clone();
        tree["status"] = patch;
        assert_eq!(status(&Object::from_tree(tree), &pods, None, now()), (None, None));
    }

    #[test]
    fn a_pod_that_is_ready_but_not_for_long_enough_is_looked_at_again_in_time() {
        let mut tree = set(1).tree().clone();
        tree["spec"]["minReadySeconds"] = json!(30);

        let (patch, again) = status(&Object::from_tree(tree), &[pod_named("a", true)], None, now());

        assert_eq!(patch.unwrap()["availableReplicas"], Value::Null);
        assert_eq!(again, Some(Duration::from_secs(25)));
    }

    #[test]
    fn a_failure_becomes_a_condition_and_goes_with_its_cause() {
        let failure = Failure {
            reason: "FailedCreate",
            message: "exceeded quota".to_owned(),
        };
        let (patch, _) = status(&set(1), &[], Some(&failure), now());
        let patch = patch.unwrap();
        assert_eq!(patch["conditions"][0]["reason"], "FailedCreate");

        let mut tree = set(1).tree().clone();
        tree["status"] = patch;
        let (patch, _) = status(&Object::from_tree(tree), &[], None, now());
        assert_eq!(patch.unwrap()["conditions"], Value::Null);
    }
}
