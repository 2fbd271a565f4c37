//! Watches.

use serde_json::json;

use crate::harness::{CONFIG_MAPS, House};

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_revision() {
    let house = House::new();
    let api = house.root();
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "old"}})).await;
    let (_, list) = api.get(CONFIG_MAPS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();

    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}"))
        .await;
    let made = api.made(CONFIG_MAPS, &json!({"metadata": {"name": "new"}})).await;
    api.merge(&format!("{CONFIG_MAPS}/new"), &json!({"data": {"a": "1"}}))
        .await;
    api.delete(&format!("{CONFIG_MAPS}/new")).await;

    let added = watch.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]), (&json!("ADDED"), &made));
    assert_eq!(watch.short().await, "MODIFIED new");
    let deleted = watch.next().await.unwrap();
    assert_eq!(
        (&deleted["type"], &deleted["object"]["data"]["a"]),
        (&json!("DELETED"), &json!("1"))
    );
    let version = |event: &serde_json::Value| -> u64 {
        event["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(version(&deleted) > version(&added));
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;

    let mut watch = api
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ))
        .await;

    assert_eq!(watch.short().await, "ADDED a");
    assert_eq!(watch.short().await, "ADDED kube-root-ca.crt");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "b"}})).await;
    assert_eq!(watch.short().await, "ADDED b");
    let (refused, _) = api.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(refused, 422);
}

#[tokio::test]
async fn a_selector_turns_transitions_into_additions_and_deletions() {
    let house = House::new();
    let api = house.root();
    let mut watch = api
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&labelSelector=on%3Dyes&resourceVersion=0"
        ))
        .await;
    let path = format!("{CONFIG_MAPS}/one");
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
    api.merge(&path, &json!({"metadata": {"labels": {"on": "yes"}}})).await;
    api.merge(&path, &json!({"data": {"a": "1"}})).await;
    api.merge(&path, &json!({"metadata": {"labels": {"on": "no"}}})).await;
    api.delete(&path).await;
    api.made(
        CONFIG_MAPS,
        &json!({"metadata": {"name": "two", "labels": {"on": "yes"}}}),
    )
    .await;

    assert_eq!(watch.short().await, "ADDED one");
    assert_eq!(watch.short().await, "MODIFIED one");
    let deleted = watch.next().await.unwrap();
    assert_eq!(
        (&deleted["type"], &deleted["object"]["metadata"]["labels"]["on"]),
        (&json!("DELETED"), &json!("yes"))
    );
    assert_eq!(watch.short().await, "ADDED two");
}

#[tokio::test]
async fn a_watch_of_what_was_compacted_ends_with_an_error_in_the_stream() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let made = api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
    let last = api.made(CONFIG_MAPS, &json!({"metadata": {"name": "two"}})).await;
    let now = last["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let keyspace: &dyn keyspace::Keyspace = &*house.shared;
    keyspace
        .compact(keyspace::Revision(now), Default::default())
        .await
        .unwrap();
    let old = made["metadata"]["resourceVersion"].as_str().unwrap();

    let mut watch = api
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={}",
            old.parse::<u64>().unwrap() - 1
        ))
        .await;

    let error = watch.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(error["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over_and_with_the_server() {
    let house = House::new();
    let api = house.root();
    let mut short = api
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1"))
        .await;
    let mut long = api.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0")).await;
    assert_eq!(short.short().await, "ADDED kube-root-ca.crt");
    assert_eq!(long.short().await, "ADDED kube-root-ca.crt");

    assert!(short.next().await.is_none());
    house.server.shutdown().await;
    assert!(long.next().await.is_none());
}

#[tokio::test]
async fn progress_becomes_a_bookmark_for_who_asked() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let (_, list) = api.get(CONFIG_MAPS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}");
    let mut asked = api.watch(&format!("{path}&allowWatchBookmarks=true")).await;
    let mut plain = api.watch(&path).await;
    let other = api
        .made(
            "/api/v1/namespaces/default/secrets",
            &json!({"metadata": {"name": "s"}}),
        )
        .await;

    let keyspace: &dyn keyspace::Keyspace = &*house.shared;
    keyspace.request_progress().await.unwrap();
    let bookmark = asked.next().await.unwrap();
    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;

    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["resourceVersion"],
        other["metadata"]["resourceVersion"]
    );
    assert_eq!(plain.short().await, "ADDED one");
}

#[tokio::test]
async fn all_planes_are_one_list_and_one_watch() {
    let house = House::new();
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let all = house.all();
    acme.made(CONFIG_MAPS, &json!({"metadata": {"name": "same"}})).await;
    globex.made(CONFIG_MAPS, &json!({"metadata": {"name": "same"}})).await;

    let (status, list) = all.get("/api/v1/configmaps").await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = all
        .watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={revision}"))
        .await;
    globex
        .merge(
            &format!("{CONFIG_MAPS}/kube-root-ca.crt"),
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await;
    globex.delete(&format!("{CONFIG_MAPS}/kube-root-ca.crt")).await;
    acme.delete(&format!("{CONFIG_MAPS}/kube-root-ca.crt")).await;
    acme.delete(&format!("{CONFIG_MAPS}/same")).await;

    assert_eq!(status, 200, "{list}");
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert!(items.iter().all(|item| item["object"]["metadata"]["name"] == "same"));
    let planes: std::collections::BTreeSet<_> = items.iter().map(|item| item["plane"].as_str().unwrap()).collect();
    assert_eq!(planes.len(), 2);
    let id = |api: &crate::harness::Api| api.prefix.rsplit('/').next().unwrap().to_owned();
    // What a plane has by birth appears with its first write.
    let added = watch.next().await.unwrap();
    assert_eq!(
        (&added["type"], &added["plane"]),
        (&json!("ADDED"), &json!(id(&globex)))
    );
    assert_eq!(watch.short().await, "DELETED kube-root-ca.crt");
    let last = watch.next().await.unwrap();
    assert_eq!((&last["type"], &last["plane"]), (&json!("DELETED"), &json!(id(&acme))));
    assert_eq!(last["object"]["metadata"]["name"], "same");
}
