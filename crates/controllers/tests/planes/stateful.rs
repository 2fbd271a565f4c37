use api::resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use client::Patch;
use serde_json::{Value, json};

use crate::house::{House, until};

fn set(name: &str, replicas: u32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": {
        "serviceName": name, "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}}}}]}})
}

async fn pods(house: &House, plane: &client::PlaneKey) -> Vec<(String, String)> {
    let pods = house.list(plane, &PODS, "default").await;
    let image = |pod: &api::Object| {
        pod.tree()["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    let mut pods: Vec<_> = pods.iter().map(|pod| (pod.name().to_owned(), image(pod))).collect();
    pods.sort();
    pods
}

fn all(names: &[&str], image: &str) -> Vec<(String, String)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), image.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_of_one_name_in_three_planes_keep_names_claims_and_history() {
    let house = House::open().await;
    for plane in &house.planes {
        let client = house.client(plane);
        client
            .create(&STATEFUL_SETS, Some("default"), &set("db", 3, "one"))
            .await
            .unwrap();
    }
    for plane in &house.planes {
        until(&format!("three Pods are in {plane}"), || async {
            (pods(&house, plane).await == all(&["db-0", "db-1", "db-2"], "one")).then_some(())
        })
        .await;
        let claims = house.list(plane, &PERSISTENT_VOLUME_CLAIMS, "default").await;
        let mut names: Vec<_> = claims.iter().map(|claim| claim.name().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["data-db-0", "data-db-1", "data-db-2"]);
    }

    let plane = &house.planes[0];
    let client = house.client(plane);
    let patch = Patch::Merge(json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "main", "image": "two"}]}}}}));
    client
        .patch(&STATEFUL_SETS, Some("default"), "db", &patch)
        .await
        .unwrap();
    until("the highest is new and the others are old", || async {
        let mut wanted = all(&["db-0", "db-1"], "one");
        wanted.extend(all(&["db-2"], "two"));
        (pods(&house, plane).await == wanted).then_some(())
    })
    .await;
    let patch = Patch::Merge(json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}));
    client
        .patch(&STATEFUL_SETS, Some("default"), "db", &patch)
        .await
        .unwrap();
    let done = until("the rollout is done", || async {
        let set = client.get(&STATEFUL_SETS, Some("default"), "db").await.unwrap();
        let status = &set.tree()["status"];
        (status["currentRevision"] == status["updateRevision"] && status["updatedReplicas"] == 3).then_some(set)
    })
    .await;
    assert_eq!(done.tree()["status"]["readyReplicas"], 3);
    assert_eq!(pods(&house, plane).await, all(&["db-0", "db-1", "db-2"], "two"));
    assert_eq!(house.list(plane, &CONTROLLER_REVISIONS, "default").await.len(), 2);
    assert_eq!(
        pods(&house, &house.planes[1]).await,
        all(&["db-0", "db-1", "db-2"], "one")
    );
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_set_loses_its_highest_pods_and_their_claims_if_it_says_so() {
    let house = House::open().await;
    let plane = &house.planes[1];
    let client = house.client(plane);
    let mut body = set("db", 2, "one");
    body["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    client.create(&STATEFUL_SETS, Some("default"), &body).await.unwrap();
    until("two Pods are there", || async {
        (pods(&house, plane).await.len() == 2).then_some(())
    })
    .await;

    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    client
        .patch(&STATEFUL_SETS, Some("default"), "db", &scale)
        .await
        .unwrap();
    until("one Pod and its claim are left", || async {
        let claims = house.list(plane, &PERSISTENT_VOLUME_CLAIMS, "default").await;
        let left: Vec<_> = claims.iter().map(|claim| claim.name().to_owned()).collect();
        (pods(&house, plane).await == all(&["db-0"], "one") && left == ["data-db-0"]).then_some(())
    })
    .await;

    client
        .delete(&STATEFUL_SETS, Some("default"), "db", &client::DeleteOptions::default())
        .await
        .unwrap();
    until("nothing is left", || async {
        let claims = house.list(plane, &PERSISTENT_VOLUME_CLAIMS, "default").await;
        (pods(&house, plane).await.is_empty() && claims.is_empty()).then_some(())
    })
    .await;
    house.close().await;
}
