use api::resource::{SECRETS, SERVICE_ACCOUNTS};
use client::DeleteOptions;
use serde_json::json;

use crate::house::{House, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_asks_for_a_token_gets_it_and_goes_with_its_account() {
    let house = House::open().await;
    let plane = &house.planes[0];
    let client = house.client(plane);
    let account = json!({"metadata": {"name": "robot"}});
    client
        .create(&SERVICE_ACCOUNTS, Some("default"), &account)
        .await
        .unwrap();
    let secret = json!({"metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token"});
    client.create(&SECRETS, Some("default"), &secret).await.unwrap();

    let filled = until("it is filled in", || async {
        let secret = client.get(&SECRETS, Some("default"), "robot-token").await.unwrap();
        secret.tree()["data"]["token"].is_string().then_some(secret)
    })
    .await;
    assert!(filled.tree()["data"]["ca.crt"].is_string() && filled.tree()["data"]["namespace"].is_string());
    assert!(filled.annotation("kubernetes.io/service-account.uid").is_some());

    client
        .delete(&SERVICE_ACCOUNTS, Some("default"), "robot", &DeleteOptions::default())
        .await
        .unwrap();
    until("it is gone with its account", || async {
        client
            .get(&SECRETS, Some("default"), "robot-token")
            .await
            .is_err()
            .then_some(())
    })
    .await;
    house.close().await;
}
