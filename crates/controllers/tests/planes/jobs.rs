use api::resource::{CRON_JOBS, JOBS, PODS};
use client::{Patch, PlaneKey};
use serde_json::{Value, json};

use crate::house::{House, until};

/// Images `done` and `broken` end at once, well and badly.
fn spec(image: &str) -> Value {
    json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}}})
}

async fn make(house: &House, plane: &PlaneKey, name: &str, spec: Value) {
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
    house.client(plane).create(&JOBS, Some("default"), &job).await.unwrap();
}

async fn ended(house: &House, plane: &PlaneKey, name: &str, how: &str) -> api::Object {
    until(&format!("{name} is {how} in {plane}"), || async {
        let job = house.client(plane).get(&JOBS, Some("default"), name).await.ok()?;
        let conditions = job.tree()["status"]["conditions"].as_array()?;
        let is = conditions
            .iter()
            .any(|condition| condition["type"] == how && condition["status"] == "True");
        is.then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_count_their_pods_exactly_in_every_plane() {
    let house = House::open().await;
    for plane in &house.planes {
        let mut many = spec("done");
        many["completions"] = json!(12);
        many["parallelism"] = json!(4);
        make(&house, plane, "many", many).await;
        let mut indexed = spec("done");
        indexed["completions"] = json!(3);
        indexed["parallelism"] = json!(3);
        indexed["completionMode"] = json!("Indexed");
        make(&house, plane, "indexed", indexed).await;
        let mut bad = spec("broken");
        bad["backoffLimit"] = json!(0);
        make(&house, plane, "bad", bad).await;
    }

    for plane in &house.planes {
        let many = ended(&house, plane, "many", "Complete").await;
        assert_eq!(many.tree()["status"]["succeeded"], 12);
        let indexed = ended(&house, plane, "indexed", "Complete").await;
        assert_eq!(indexed.tree()["status"]["completedIndexes"], "0-2");
        let bad = ended(&house, plane, "bad", "Failed").await;
        assert_eq!(bad.tree()["status"]["failed"], 1);
        let pods = house.list(plane, &PODS, "default").await;
        assert_eq!(pods.len(), 16, "no Pod is made twice");
        let held = pods.iter().filter(|pod| {
            let finalizers = pod.tree()["metadata"]["finalizers"].as_array();
            finalizers.is_some_and(|finalizers| !finalizers.is_empty())
        });
        assert_eq!(held.count(), 0);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_job_waits_and_one_that_is_deleted_lets_its_pods_go() {
    let house = House::open().await;
    let plane = &house.planes[0];
    let client = house.client(plane);
    let mut waits = spec("one");
    waits["suspend"] = json!(true);
    make(&house, plane, "waits", waits).await;
    until("it says that it is suspended", || async {
        let job = client.get(&JOBS, Some("default"), "waits").await.unwrap();
        (job.tree()["status"]["conditions"][0]["type"] == "Suspended").then_some(())
    })
    .await;
    assert!(house.list(plane, &PODS, "default").await.is_empty());

    let resume = Patch::Merge(json!({"spec": {"suspend": false}}));
    client.patch(&JOBS, Some("default"), "waits", &resume).await.unwrap();
    until("its Pod runs", || async {
        (house.list(plane, &PODS, "default").await.len() == 1).then_some(())
    })
    .await;
    client
        .delete(
            &JOBS,
            Some("default"),
            "waits",
            &client::DeleteOptions {
                propagation: Some(client::Propagation::Background),
                ..client::DeleteOptions::default()
            },
        )
        .await
        .unwrap();
    until("nothing holds the Pod", || async {
        house.list(plane, &PODS, "default").await.is_empty().then_some(())
    })
    .await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_fires_again_and_again_and_keeps_few() {
    let house = House::open().await;
    for plane in [&house.planes[1], &house.planes[2]] {
        let body = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": {
            "schedule": "@every 1s", "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": spec("done")}}});
        house
            .client(plane)
            .create(&CRON_JOBS, Some("default"), &body)
            .await
            .unwrap();
    }
    for plane in [&house.planes[1], &house.planes[2]] {
        let cron_job = until(&format!("it has fired in {plane}"), || async {
            let cron_job = house
                .client(plane)
                .get(&CRON_JOBS, Some("default"), "tick")
                .await
                .unwrap();
            cron_job.tree()["status"]["lastSuccessfulTime"]
                .is_string()
                .then_some(cron_job)
        })
        .await;
        assert!(cron_job.tree()["status"]["lastScheduleTime"].is_string());
        let jobs = house.list(plane, &JOBS, "default").await;
        assert!(jobs.iter().all(|job| job.name().starts_with("tick-")), "{jobs:?}");
    }
    house.close().await;
}
