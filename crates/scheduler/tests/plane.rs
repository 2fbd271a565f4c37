//! The loop on a plane in memory, as its users see it.

use std::{future::Future, time::Duration};

use api::{Object, resource};
use client::{Client, DeleteOptions, ListOptions, Patch, Sources};
use serde_json::{Value, json};
use testkit::planes::PlanesInMemory;

/// Far more than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    client: Client,
    sources: Sources,
    planes: PlanesInMemory,
}

impl House {
    async fn open() -> House {
        let planes = PlanesInMemory::start().await;
        House {
            client: planes.root(),
            sources: planes.sources([planes.root_source()]),
            planes,
        }
    }

    fn start(&self) -> scheduler::Running {
        let options = scheduler::Options {
            sources: self.sources.clone(),
            plane: self.planes.root.clone(),
            world: self.planes.world.clone(),
        };
        scheduler::start(options).unwrap()
    }

    async fn node(&self, name: &str, cpu: &str) {
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"capacity": {"cpu": cpu, "memory": "1Gi", "pods": "110"},
                "allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "110"}}});
        self.client.create(&resource::NODES, None, &node).await.unwrap();
        // A node that reports itself is not tainted any more.
        let patch = Patch::Merge(json!({"spec": {"taints": null}}));
        self.client.patch(&resource::NODES, None, name, &patch).await.unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "main", "image": "one", "resources": {"requests": {"cpu": cpu}}}]}});
        change(&mut pod);
        self.client
            .create(&resource::PODS, Some("default"), &pod)
            .await
            .unwrap();
    }

    async fn bound(&self, name: &str) -> String {
        until(&format!("{name} has a node"), || async {
            let pod = self.client.get(&resource::PODS, Some("default"), name).await.unwrap();
            let node = pod.tree()["spec"]["nodeName"].as_str()?.to_owned();
            (!node.is_empty()).then_some(node)
        })
        .await
    }

    async fn event(&self, reason: &str) -> Object {
        until(&format!("{reason} is told"), || async {
            let events = self
                .client
                .list_all(&resource::EVENTS, Some("default"), &ListOptions::default())
                .await
                .unwrap();
            events.items.into_iter().find(|event| event.tree()["reason"] == reason)
        })
        .await
    }
}

async fn until<T, F: Future<Output = Option<T>>>(waiting_for: &str, mut what: impl FnMut() -> F) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = what().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {waiting_for}"))
}

#[tokio::test]
async fn pods_go_where_there_is_room_and_say_so() {
    let house = House::open().await;
    house.node("a", "1").await;
    house.node("b", "1").await;
    let running = house.start();
    for name in ["one", "two"] {
        house.pod(name, "600m", |_| {}).await;
    }

    let mut nodes = [house.bound("one").await, house.bound("two").await];
    nodes.sort();
    assert_eq!(nodes, ["a", "b"]);
    let pod = house.client.get(&resource::PODS, Some("default"), "one").await.unwrap();
    let conditions = pod.tree()["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|condition| condition["type"] == "PodScheduled" && condition["status"] == "True")
    );
    let message = house.event("Scheduled").await.tree()["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.starts_with("Successfully assigned default/"), "{message}");
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_goes_when_room_comes() {
    let house = House::open().await;
    house.node("a", "1").await;
    let running = house.start();
    house.pod("first", "600m", |_| {}).await;
    house.bound("first").await;
    house.pod("second", "600m", |_| {}).await;

    let event = house.event("FailedScheduling").await;
    assert_eq!(
        event.tree()["message"],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    let condition = until("the Pod says so too", || async {
        let pod = house
            .client
            .get(&resource::PODS, Some("default"), "second")
            .await
            .unwrap();
        let conditions = pod.tree()["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions
            .into_iter()
            .find(|condition| condition["type"] == "PodScheduled")
    })
    .await;
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("Unschedulable"))
    );

    let at_once = DeleteOptions {
        grace_seconds: Some(0),
        ..DeleteOptions::default()
    };
    house
        .client
        .delete(&resource::PODS, Some("default"), "first", &at_once)
        .await
        .unwrap();
    assert_eq!(house.bound("second").await, "a");

    house.pod("third", "600m", |_| {}).await;
    house.node("b", "1").await;
    assert_eq!(house.bound("third").await, "b");
    running.stop().await;
}

#[tokio::test]
async fn what_was_there_before_the_loop_is_counted_and_placed() {
    let house = House::open().await;
    house.node("a", "1").await;
    house.node("b", "1").await;
    house
        .pod("old", "900m", |pod| pod["spec"]["nodeName"] = "a".into())
        .await;
    house.pod("new", "900m", |_| {}).await;
    house
        .pod("other", "100m", |pod| pod["spec"]["schedulerName"] = "another".into())
        .await;

    let running = house.start();

    assert_eq!(house.bound("new").await, "b");
    let other = house
        .client
        .get(&resource::PODS, Some("default"), "other")
        .await
        .unwrap();
    assert!(
        other.tree()["spec"]["nodeName"].is_null(),
        "another scheduler's Pod is left to it"
    );
    running.stop().await;
}

#[tokio::test]
async fn no_node_is_given_more_than_it_has_however_many_pods_come_at_once() {
    let house = House::open().await;
    for name in ["a", "b", "c"] {
        house.node(name, "1").await;
    }
    let running = house.start();
    for number in 0..40 {
        house.pod(&format!("p{number:02}"), "100m", |_| {}).await;
    }

    let pods = until("thirty have a node", || async {
        let pods = house
            .client
            .list_all(&resource::PODS, Some("default"), &ListOptions::default())
            .await
            .unwrap()
            .items;
        let bound = pods
            .iter()
            .filter(|pod| pod.tree()["spec"]["nodeName"].is_string())
            .count();
        (bound >= 30).then_some(pods)
    })
    .await;
    house.event("FailedScheduling").await;

    for node in ["a", "b", "c"] {
        assert_eq!(
            pods.iter().filter(|pod| pod.tree()["spec"]["nodeName"] == node).count(),
            10,
            "{node}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn a_more_important_pod_makes_room_for_itself() {
    let house = House::open().await;
    house.node("a", "1").await;
    for (name, value) in [("low", 1), ("high", 100)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        house
            .client
            .create(&resource::PRIORITY_CLASSES, None, &class)
            .await
            .unwrap();
    }
    let running = house.start();
    house
        .pod("cheap", "800m", |pod| pod["spec"]["priorityClassName"] = "low".into())
        .await;
    house.bound("cheap").await;

    house
        .pod("dear", "800m", |pod| pod["spec"]["priorityClassName"] = "high".into())
        .await;

    let victim = until("the cheap one is asked to go", || async {
        let pod = house
            .client
            .get(&resource::PODS, Some("default"), "cheap")
            .await
            .unwrap();
        pod.is_deleting().then_some(pod)
    })
    .await;
    let conditions = victim.tree()["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|condition| condition["type"] == "DisruptionTarget")
    );
    until("its place is promised", || async {
        let pod = house
            .client
            .get(&resource::PODS, Some("default"), "dear")
            .await
            .unwrap();
        (pod.tree()["status"]["nominatedNodeName"] == "a").then_some(())
    })
    .await;
    house.event("Preempted").await;
    let at_once = DeleteOptions {
        grace_seconds: Some(0),
        ..DeleteOptions::default()
    };
    house
        .client
        .delete(&resource::PODS, Some("default"), "cheap", &at_once)
        .await
        .unwrap();
    assert_eq!(house.bound("dear").await, "a");
    running.stop().await;
}

#[tokio::test]
async fn a_gated_pod_waits_until_its_gates_are_taken_away() {
    let house = House::open().await;
    house.node("a", "1").await;
    let running = house.start();
    house
        .pod("gated", "100m", |pod| {
            pod["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}])
        })
        .await;
    until("it says so", || async {
        let pod = house
            .client
            .get(&resource::PODS, Some("default"), "gated")
            .await
            .unwrap();
        (pod.tree()["status"]["conditions"][0]["reason"] == "SchedulingGated").then_some(())
    })
    .await;

    let open = Patch::Merge(json!({"spec": {"schedulingGates": []}}));
    house
        .client
        .patch(&resource::PODS, Some("default"), "gated", &open)
        .await
        .unwrap();

    assert_eq!(house.bound("gated").await, "a");
    running.stop().await;
}

#[tokio::test]
async fn a_pod_is_bound_when_the_volume_is_there_that_was_asked_for_its_node() {
    let house = House::open().await;
    house.node("a", "1").await;
    let class = json!({"metadata": {"name": "late"}, "provisioner": "example.com/disks",
        "volumeBindingMode": "WaitForFirstConsumer"});
    house
        .client
        .create(&resource::STORAGE_CLASSES, None, &class)
        .await
        .unwrap();
    let claim = json!({"metadata": {"name": "data"}, "spec": {"storageClassName": "late",
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = &resource::PERSISTENT_VOLUME_CLAIMS;
    house.client.create(claims, Some("default"), &claim).await.unwrap();
    let running = house.start();
    house
        .pod("user", "100m", |pod| {
            pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        })
        .await;

    let asked = until("a volume is asked for", || async {
        let claim = house.client.get(claims, Some("default"), "data").await.unwrap();
        (claim.annotation("volume.kubernetes.io/selected-node") == Some("a")).then_some(claim)
    })
    .await;
    let pod = house
        .client
        .get(&resource::PODS, Some("default"), "user")
        .await
        .unwrap();
    assert!(pod.tree()["spec"]["nodeName"].is_null());

    let volume = json!({"metadata": {"name": "pv"}, "spec": {"storageClassName": "late", "hostPath": {"path": "/x"},
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": "default", "name": "data", "uid": asked.uid()}}});
    house
        .client
        .create(&resource::PERSISTENT_VOLUMES, None, &volume)
        .await
        .unwrap();
    let bound = Patch::Merge(json!({"spec": {"volumeName": "pv"},
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}));
    house
        .client
        .patch(claims, Some("default"), "data", &bound)
        .await
        .unwrap();

    assert_eq!(house.bound("user").await, "a");
    running.stop().await;
}
