use api::resource;
use client::DeleteOptions;
use serde_json::json;

use crate::house::{House, deployment, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_namespace_has_an_account_and_its_planes_ca_and_ends_with_all_that_is_in_it() {
    let house = House::open().await;
    for plane in &house.planes {
        let client = house.client(plane);
        client
            .create(&resource::NAMESPACES, None, &json!({"metadata": {"name": "team"}}))
            .await
            .unwrap();
    }
    for plane in &house.planes {
        let client = house.client(plane);
        until("the account is there", || async {
            client
                .get(&resource::SERVICE_ACCOUNTS, Some("team"), "default")
                .await
                .ok()
        })
        .await;
        let bundle = until("the CA is there", || async {
            client
                .get(&resource::CONFIG_MAPS, Some("team"), "kube-root-ca.crt")
                .await
                .ok()
        })
        .await;
        assert_eq!(bundle.tree()["data"]["ca.crt"], format!("CA of {}", plane.plane));
        client
            .create(&resource::DEPLOYMENTS, Some("team"), &deployment("web", 2, "one"))
            .await
            .unwrap();
        until("its Pods are there", || async {
            (house.list(plane, &resource::PODS, "team").await.len() == 2).then_some(())
        })
        .await;
    }

    let (ended, kept) = (&house.planes[0], &house.planes[1]);
    let client = house.client(ended);
    client
        .delete(&resource::NAMESPACES, None, "team", &DeleteOptions::default())
        .await
        .unwrap();
    until("the namespace is gone", || async {
        client
            .get(&resource::NAMESPACES, None, "team")
            .await
            .is_err()
            .then_some(())
    })
    .await;

    for kind in [
        resource::PODS,
        resource::REPLICA_SETS,
        resource::DEPLOYMENTS,
        resource::CONFIG_MAPS,
    ] {
        assert_eq!(house.list(ended, &kind, "team").await, [], "{}", kind.plural);
    }
    assert_eq!(house.list(kept, &resource::PODS, "team").await.len(), 2);
    house.close().await;
}
