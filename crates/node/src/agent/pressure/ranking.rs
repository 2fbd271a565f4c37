//! Whose turn it is. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::is_running;
use crate::container::quantity;

/// `system-cluster-critical`: such Pods are never evicted.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The Pod to evict: one that uses more than it asked for, then of the lowest priority, then who is most above. `None` if
/// there is none to evict.
pub fn first<'a>(pods: &'a [Arc<Pod>], usage: &BTreeMap<String, i64>, resource: &str) -> Option<&'a Arc<Pod>> {
    pods.iter()
        .filter(|pod| is_running(pod) && priority(pod) < CRITICAL_PRIORITY)
        .filter(|pod| usage.contains_key(uid(pod)))
        .max_by_key(|pod| {
            let above = usage.get(uid(pod)).copied().unwrap_or(0) - requested(pod, resource);
            (above > 0, std::cmp::Reverse(priority(pod)), above)
        })
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

fn requested(pod: &Pod, resource: &str) -> i64 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .filter_map(|container| {
            let requests = container.resources.as_ref()?.requests.as_ref()?;
            quantity::whole(&requests.get(resource)?.0)
        })
        .fold(0, i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, request: &str) -> Arc<Pod> {
        let tree = json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"memory": request}}}]}});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn chosen(pods: &[Arc<Pod>], usage: &[(&str, i64)]) -> Option<String> {
        let usage = usage
            .iter()
            .map(|(uid, bytes)| ((*uid).to_owned(), bytes << 20))
            .collect();
        first(pods, &usage, "memory").and_then(|pod| pod.metadata.name.clone())
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first() {
        let pods = [
            pod("modest", 0, "100Mi"),
            pod("greedy", 10, "10Mi"),
            pod("more", 10, "10Mi"),
        ];

        assert_eq!(
            chosen(&pods, &[("modest", 90), ("greedy", 20), ("more", 30)]).as_deref(),
            Some("more")
        );
    }

    #[test]
    fn among_those_the_lowest_priority_goes_first() {
        let pods = [pod("high", 10, "1Mi"), pod("low", 0, "1Mi")];

        assert_eq!(chosen(&pods, &[("high", 500), ("low", 2)]).as_deref(), Some("low"));
    }

    #[test]
    fn critical_and_ended_pods_stay() {
        let mut ended = (*pod("ended", 0, "1Mi")).clone();
        ended.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        let pods = [pod("critical", CRITICAL_PRIORITY, "1Mi"), Arc::new(ended)];

        assert_eq!(chosen(&pods, &[("critical", 500), ("ended", 500)]), None);
    }
}
