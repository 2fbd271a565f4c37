//! Deletion.

use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, House, POD};

async fn bound_pod(api: &Api, name: &str) -> Value {
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
    api.made(POD, &pod).await;
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    let (status, said) = api.post(&format!("{POD}/{name}/binding"), &binding).await;
    assert_eq!(status, 201, "{said}");
    api.get(&format!("{POD}/{name}")).await.1
}

#[tokio::test]
async fn what_has_no_finalizers_goes_at_once() {
    let house = House::new();
    let api = house.root();
    let made = api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;

    let (status, said) = api.delete(&format!("{CONFIG_MAPS}/one")).await;

    assert_eq!(status, 200);
    assert_eq!(said["status"], "Success");
    assert_eq!(
        said["details"],
        json!({"name": "one", "kind": "configmaps", "uid": made["metadata"]["uid"]})
    );
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/one")).await.0, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_done() {
    let house = House::new();
    let api = house.root();
    let path = format!("{CONFIG_MAPS}/one");
    api.made(
        CONFIG_MAPS,
        &json!({"metadata": {"name": "one", "finalizers": ["example.com/x"]}}),
    )
    .await;

    let (_, pending) = api.delete(&path).await;
    let (again, _) = api.delete(&path).await;
    let (_, read) = api.get(&path).await;
    let (_, too_soon) = api.post(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
    let (done, _) = api.merge(&path, &json!({"metadata": {"finalizers": null}})).await;

    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    assert_eq!((again.as_u16(), done.as_u16()), (200, 200));
    assert_eq!(read["metadata"]["finalizers"], json!(["example.com/x"]));
    assert_eq!(
        too_soon["message"],
        "object is being deleted: configmaps \"one\" already exists"
    );
    assert_eq!(api.get(&path).await.0, 404);
}

#[tokio::test]
async fn propagation_is_told_to_the_garbage_collector_by_finalizers() {
    let house = House::new();
    let api = house.root();
    for (name, policy) in [("f", "Foreground"), ("o", "Orphan"), ("b", "Background")] {
        api.made(CONFIG_MAPS, &json!({"metadata": {"name": name}})).await;
        let path = format!("{CONFIG_MAPS}/{name}");
        api.delete_with(&path, &json!({"kind": "DeleteOptions", "propagationPolicy": policy}))
            .await;
    }

    let finalizers = |name: &str| {
        let (api, path) = (api.clone(), format!("{CONFIG_MAPS}/{name}"));
        async move { api.get(&path).await.1["metadata"]["finalizers"].clone() }
    };
    assert_eq!(finalizers("f").await, json!(["foregroundDeletion"]));
    assert_eq!(finalizers("o").await, json!(["orphan"]));
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/b")).await.0, 404);
}

#[tokio::test]
async fn preconditions_are_kept() {
    let house = House::new();
    let api = house.root();
    let made = api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}})).await;
    let path = format!("{CONFIG_MAPS}/one");

    let (other, said) = api
        .delete_with(&path, &json!({"preconditions": {"uid": "other"}}))
        .await;
    let (stale, _) = api
        .delete_with(&path, &json!({"preconditions": {"resourceVersion": "1"}}))
        .await;
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
    let (gone, _) = api.delete_with(&path, &right).await;

    assert_eq!((other.as_u16(), stale.as_u16(), gone.as_u16()), (409, 409, 200));
    let uid = made["metadata"]["uid"].as_str().unwrap();
    assert_eq!(
        said["message"],
        format!(
            "Operation cannot be fulfilled on configmaps \"one\": Precondition failed: UID in precondition: other, UID in \
             object meta: {uid}"
        )
    );
}

#[tokio::test]
async fn a_pod_on_a_node_has_its_grace_and_goes_when_the_node_says_so() {
    let house = House::new();
    let api = house.root();
    let pod = bound_pod(&api, "one").await;
    let path = format!("{POD}/one");

    let (_, marked) = api.delete(&path).await;
    let (_, again) = api.delete(&path).await;
    let (_, hastened) = api.delete_with(&path, &json!({"gracePeriodSeconds": 5})).await;
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}});
    let (gone, _) = api.delete_with(&path, &options).await;

    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(again, marked);
    assert_eq!(hastened["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(gone, 200);
    assert_eq!(api.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_pod_that_no_node_has_goes_at_once() {
    let house = House::new();
    let api = house.root();
    let pod = json!({"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
    api.made(POD, &pod).await;

    api.delete(&format!("{POD}/one")).await;

    assert_eq!(api.get(&format!("{POD}/one")).await.0, 404);
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let house = House::new();
    let api = house.root();
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        api.made(
            CONFIG_MAPS,
            &json!({"metadata": {"name": name, "labels": {"l": label}}}),
        )
        .await;
    }

    let (status, _) = api.delete(&format!("{CONFIG_MAPS}?labelSelector=l%3Dx")).await;

    assert_eq!(status, 200);
    assert_eq!(api.names(CONFIG_MAPS).await, ["c", "kube-root-ca.crt"]);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made("/api/v1/namespaces", &json!({"metadata": {"name": "web"}}))
        .await;
    let path = "/api/v1/namespaces/web";

    let (_, mut terminating) = api.delete(path).await;
    let (refused, why) = api
        .post(
            "/api/v1/namespaces/web/configmaps",
            &json!({"metadata": {"name": "late"}}),
        )
        .await;
    assert_eq!(terminating["status"]["phase"], "Terminating");
    terminating["spec"]["finalizers"] = json!([]);
    let (finalized, said) = api.put(&format!("{path}/finalize"), &terminating).await;

    assert_eq!(refused, 403);
    assert_eq!(why["details"]["causes"][0]["reason"], "NamespaceTerminating");
    assert_eq!(finalized, 200, "{said}");
    assert_eq!(api.get(path).await.0, 404);
    assert_eq!(api.delete("/api/v1/namespaces/default").await.0, 403);
}

#[tokio::test]
async fn an_eviction_is_a_deletion() {
    let house = House::new();
    let api = house.root();
    bound_pod(&api, "one").await;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one"},
        "deleteOptions": {"gracePeriodSeconds": 0},
    });

    let (status, said) = api.post(&format!("{POD}/one/eviction"), &eviction).await;

    assert_eq!((status.as_u16(), &said["status"]), (201, &json!("Success")));
    assert_eq!(api.get(&format!("{POD}/one")).await.0, 404);
}
