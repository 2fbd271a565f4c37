//! What a Pod's status says to those who count Pods, and which of them go first.

use std::cmp::Ordering;

use api::Object;
use jiff::Timestamp;
use serde_json::Value;

use crate::time::parse;

pub fn phase(pod: &Object) -> &str {
    pod.tree()["status"]["phase"].as_str().unwrap_or("")
}

/// Counts towards its owner's replicas.
pub fn is_active(pod: &Object) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && !pod.is_deleting()
}

pub fn condition<'a>(object: &'a Object, kind: &str) -> Option<&'a Value> {
    let conditions = object.tree()["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

pub fn is_ready(pod: &Object) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
}

/// Since when it has been ready.
pub fn ready_since(pod: &Object) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready["status"] == "True")?;
    parse(&ready["lastTransitionTime"])
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Object, min_ready_seconds: i64, now: Timestamp) -> bool {
    if !is_ready(pod) {
        return false;
    }
    min_ready_seconds == 0
        || ready_since(pod).is_some_and(|since| now.as_second() - since.as_second() >= min_ready_seconds)
}

/// Sorts Pods so that the first are those to delete first, as upstream ranks them. `neighbours` says how many related
/// Pods share a Pod's node.
pub fn sort_for_deletion(pods: &mut [Object], neighbours: impl Fn(&Object) -> usize, now: Timestamp) {
    pods.sort_by(|one, other| {
        let by = |key: fn(&Object) -> i64| key(one).cmp(&key(other));
        by(|pod| i64::from(is_assigned(pod)))
            .then_with(|| by(phase_rank))
            .then_with(|| by(|pod| i64::from(is_ready(pod))))
            .then_with(|| by(deletion_cost))
            .then_with(|| neighbours(other).cmp(&neighbours(one)))
            .then_with(|| by_age(ready_since(one), ready_since(other), now))
            .then_with(|| by(restarts).reverse())
            .then_with(|| by_age(created(one), created(other), now))
            .then_with(|| one.uid().cmp(other.uid()))
    });
}

fn is_assigned(pod: &Object) -> bool {
    pod.tree()["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty())
}

fn phase_rank(pod: &Object) -> i64 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Object) -> i64 {
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0).into()
}

fn restarts(pod: &Object) -> i64 {
    let containers = pod.tree()["status"]["containerStatuses"].as_array();
    let counts = containers
        .into_iter()
        .flatten()
        .filter_map(|status| status["restartCount"].as_i64());
    counts.max().unwrap_or(0)
}

fn created(pod: &Object) -> Option<Timestamp> {
    parse(&pod.tree()["metadata"]["creationTimestamp"])
}

/// Younger first, ages compared by order of magnitude, so that among Pods of about one age chance decides.
fn by_age(one: Option<Timestamp>, other: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |since: Option<Timestamp>| {
        let age = since.map_or(0, |since| now.as_second() - since.as_second());
        if age <= 0 { -1 } else { i64::from(age.ilog2()) }
    };
    magnitude(one).cmp(&magnitude(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Object {
        let mut tree = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}});
        change(&mut tree);
        Object::from_tree(tree)
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let mut pods = [
            pod("settled", |_| {}),
            pod("young", |pod| {
                pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T23:59:00Z".into()
            }),
            pod("restarted", |pod| {
                pod["status"]["containerStatuses"] = json!([{"restartCount": 3}])
            }),
            pod("cheap", |pod| {
                pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-1"})
            }),
            pod("crowded", |pod| pod["spec"]["nodeName"] = "crowd".into()),
            pod("unready", |pod| {
                pod["status"]["conditions"][0]["status"] = "False".into()
            }),
            pod("pending", |pod| pod["status"]["phase"] = "Pending".into()),
            pod("unassigned", |pod| {
                pod["spec"] = json!({});
                pod["status"] = json!({"phase": "Pending"});
            }),
        ];

        let crowd = |pod: &Object| {
            if pod.tree()["spec"]["nodeName"] == "crowd" {
                5
            } else {
                1
            }
        };
        sort_for_deletion(&mut pods, crowd, "2026-01-02T00:00:00Z".parse().unwrap());

        let names: Vec<_> = pods.iter().map(Object::name).collect();
        let expected = [
            "unassigned",
            "pending",
            "unready",
            "cheap",
            "crowded",
            "young",
            "restarted",
            "settled",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn available_means_ready_for_long_enough() {
        let ready = pod("p", |_| {});
        let at = |text: &str| text.parse::<Timestamp>().unwrap();

        assert!(is_available(&ready, 0, at("2026-01-01T00:00:10Z")));
        assert!(!is_available(&ready, 5, at("2026-01-01T00:00:14Z")));
        assert!(is_available(&ready, 5, at("2026-01-01T00:00:15Z")));
    }
}
