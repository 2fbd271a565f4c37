//! Evictions and the budgets that may refuse them.

use serde_json::{Value, json};

use crate::harness::{Api, House, POD};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// Pods that run and are ready, under a budget whose controller has counted them.
async fn guarded(api: &Api, pods: &[&str], allowed: usize) {
    for name in pods {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
        api.made(POD, &pod).await;
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let (status, said) = api.merge(&format!("{POD}/{name}/status"), &running).await;
        assert_eq!(status, 200, "{said}");
    }
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": pods.len() - allowed,
        "selector": {"matchLabels": {"app": "web"}}}});
    api.made(BUDGETS, &budget).await;
    let counted = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "expectedPods": pods.len(),
        "currentHealthy": pods.len(), "desiredHealthy": pods.len() - allowed}});
    let (status, said) = api.merge(&format!("{BUDGETS}/web/status"), &counted).await;
    assert_eq!(status, 200, "{said}");
}

async fn evict(api: &Api, pod: &str, query: &str) -> (u16, Value) {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let (status, said) = api.post(&format!("{POD}/{pod}/eviction{query}"), &eviction).await;
    (status.as_u16(), said)
}

#[tokio::test]
async fn a_budget_allows_as_many_evictions_as_it_has() {
    let house = House::new();
    let api = house.tenant("acme").await;
    guarded(&api, &["one", "two", "three"], 1).await;

    let (dry, _) = evict(&api, "one", "?dryRun=All").await;
    let (first, _) = evict(&api, "one", "").await;
    let (second, said) = evict(&api, "two", "").await;
    let (_, budget) = api.get(&format!("{BUDGETS}/web")).await;

    assert_eq!((dry, first, second), (201, 201, 429));
    assert_eq!(
        said["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        said["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget web does not allow evicting pods currently (InsufficientPods)"}])
    );
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["one"].is_string());
    assert_eq!(api.names(POD).await, ["three", "two"]);
}

#[tokio::test]
async fn what_no_budget_covers_and_what_serves_nobody_goes() {
    let house = House::new();
    let api = house.tenant("acme").await;
    guarded(&api, &["one"], 0).await;
    for (name, labels) in [("free", json!({})), ("pending", json!({"app": "web"}))] {
        let pod = json!({"metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
        api.made(POD, &pod).await;
    }

    let codes = [
        evict(&api, "free", "").await.0,
        evict(&api, "pending", "").await.0,
        evict(&api, "one", "").await.0,
        evict(&api, "nobody", "").await.0,
    ];

    assert_eq!(codes, [201, 201, 429, 404]);
    assert_eq!(api.names(POD).await, ["one"]);
}

#[tokio::test]
async fn two_budgets_over_one_pod_are_nobodys_wish() {
    let house = House::new();
    let api = house.tenant("acme").await;
    guarded(&api, &["one"], 1).await;
    let other = json!({"metadata": {"name": "other"}, "spec": {"maxUnavailable": 1, "selector": {}}});
    api.made(BUDGETS, &other).await;

    let (code, said) = evict(&api, "one", "").await;

    assert_eq!(code, 500);
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("more than one PodDisruptionBudget")
    );
}
