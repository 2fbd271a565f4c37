//! Binding, and the way into Pods.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use streaming::{PodBackend, PodStream, Subresource};

use crate::harness::{House, POD};

#[tokio::test]
async fn a_pod_is_bound_once() {
    let house = House::new();
    let api = house.root();
    let pod = json!({"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
    let made = api.made(POD, &pod).await;
    let bind = |node: &str, uid: &str| {
        let binding = json!({"metadata": {"name": "one", "uid": uid}, "target": {"kind": "Node", "name": node}});
        let api = api.clone();
        async move { api.post(&format!("{POD}/one/binding"), &binding).await }
    };
    let uid = made["metadata"]["uid"].as_str().unwrap();

    let (other, _) = bind("n1", "00000000-0000-0000-0000-000000000000").await;
    let (first, _) = bind("n1", uid).await;
    let (second, said) = bind("n2", uid).await;
    let (_, pod) = api.get(&format!("{POD}/one")).await;

    assert_eq!((other.as_u16(), first.as_u16(), second.as_u16()), (409, 201, 409));
    assert_eq!(
        said["message"],
        "Operation cannot be fulfilled on pods/binding \"one\": pod one is already assigned to node \"n1\""
    );
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(
        api.names("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await,
        ["one"]
    );
}

#[derive(Default)]
struct Recorder(Mutex<Option<PodStream>>);

#[async_trait]
impl PodBackend for Recorder {
    async fn stream(&self, stream: PodStream) -> http::Response<streaming::Body> {
        *self.0.lock().unwrap() = Some(stream);
        http::Response::new(apiserver::full_body("hello"))
    }
}

#[tokio::test]
async fn a_stream_is_handed_to_who_can_reach_the_pod() {
    let house = House::new();
    let recorder = Arc::new(Recorder::default());
    house.server.set_pod_backend(recorder.clone());
    let api = house.tenant("acme").await;
    let pod = json!({"metadata": {"name": "one"}, "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "busybox"}]}});
    let made = api.made(POD, &pod).await;

    let (absent, _) = api.get(&format!("{POD}/two/log")).await;
    let (wrong, _) = api.get(&format!("{POD}/one/log?container=z")).await;
    let (status, said) = api.get(&format!("{POD}/one/log?follow=false")).await;

    assert_eq!((absent.as_u16(), wrong.as_u16(), status.as_u16()), (404, 400, 200));
    assert_eq!(said, "hello");
    let stream = recorder.0.lock().unwrap().take().unwrap();
    assert_eq!(stream.subresource, Subresource::Log);
    assert_eq!((stream.name.as_str(), stream.node.as_str()), ("one", "n1"));
    assert_eq!(stream.uid, made["metadata"]["uid"]);
    assert_eq!(stream.plane, api.prefix.rsplit('/').next().unwrap());
    assert_eq!(stream.request.uri().query(), Some("follow=false&container=a"));
}

#[tokio::test]
async fn a_debugger_joins_a_pod_and_only_by_its_own_subresource() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let pod = json!({"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
    api.made(POD, &pod).await;
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "busybox", "targetContainerName": "a"}],
        "nodeSelector": {"ignored": "here"}}});

    let (main, _) = api.strategic(&format!("{POD}/one"), &debugger).await;
    let path = format!("{POD}/one/ephemeralcontainers");
    let (joined, pod) = api.strategic(&path, &debugger).await;
    let changed = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "other"}]}});
    let (refused, said) = api.strategic(&path, &changed).await;

    assert_eq!(
        (main.as_u16(), joined.as_u16(), refused.as_u16()),
        (422, 200, 422),
        "{pod} {said}"
    );
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "Always");
    assert!(pod["spec"]["nodeSelector"].is_null());
    assert_eq!(pod["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_pods_resources_change_by_resize_alone() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let pod = json!({"metadata": {"name": "one"}, "spec": {"containers": [
        {"name": "a", "image": "busybox", "resources": {"requests": {"cpu": "100m"}}},
    ]}});
    api.made(POD, &pod).await;
    let more = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "200m"}}}]}});

    let (main, _) = api.strategic(&format!("{POD}/one"), &more).await;
    let (resized, pod) = api.strategic(&format!("{POD}/one/resize"), &more).await;

    assert_eq!((main.as_u16(), resized.as_u16()), (422, 200), "{pod}");
    assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"], "200m");
}
