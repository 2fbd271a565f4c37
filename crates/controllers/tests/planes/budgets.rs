use api::resource::{DEPLOYMENTS, POD_DISRUPTION_BUDGETS};
use serde_json::json;

use crate::house::{House, deployment, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_says_how_many_pods_may_go() {
    let house = House::open().await;
    for plane in [&house.planes[0], &house.planes[2]] {
        let client = house.client(plane);
        let budget = json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
        client
            .create(&POD_DISRUPTION_BUDGETS, Some("default"), &budget)
            .await
            .unwrap();
        client
            .create(&DEPLOYMENTS, Some("default"), &deployment("web", 3, "one"))
            .await
            .unwrap();
        let status = until(&format!("one may go in {plane}"), || async {
            let budget = client
                .get(&POD_DISRUPTION_BUDGETS, Some("default"), "web")
                .await
                .unwrap();
            (budget.tree()["status"]["disruptionsAllowed"] == 1).then(|| budget.tree()["status"].clone())
        })
        .await;
        assert_eq!(
            (&status["expectedPods"], &status["desiredHealthy"]),
            (&json!(3), &json!(2))
        );
    }
    house.close().await;
}
