//! Answers, lists and watches in Kubernetes' protobuf, which typed Go clients ask for first.

use api::protobuf;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, House, POD};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn asked(api: &Api, path: &str, accept: &str) -> (u16, String, Bytes) {
    let response = api.get_as(path, accept).await;
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    (status, media, response.into_body().collect().await.unwrap().to_bytes())
}

async fn decoded(api: &Api, path: &str, accept: &str) -> Value {
    let (status, media, bytes) = asked(api, path, accept).await;
    assert_eq!((status, media.as_str()), (200, PROTOBUF), "{path}");
    protobuf::decode(&bytes).unwrap()
}

/// Without what means "not set": Go's JSON writes some of it and leaves out the rest.
fn said(value: &Value) -> Value {
    let is_something = |value: &Value| {
        !matches!(value, Value::Null | Value::Bool(false))
            && *value != json!("")
            && *value != json!(0)
            && *value != json!({})
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), said(value)));
            fields.filter(|(_, value)| is_something(value)).collect()
        }
        Value::Array(items) => items.iter().map(said).collect(),
        other => other.clone(),
    }
}

/// Of a list; the kind that JSON may repeat in each is the list's.
fn items(list: &Value) -> Vec<Value> {
    let items = list["items"].as_array().into_iter().flatten().map(said);
    let without_kind = items.map(|mut item| {
        let fields = item.as_object_mut().unwrap();
        fields.retain(|field, _| field != "apiVersion" && field != "kind");
        item
    });
    without_kind.collect()
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
        "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "64Mi"}}],
        "containers": [{"name": "web", "image": "web:1", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "timeoutSeconds": 2},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}})
}

#[tokio::test]
async fn every_list_says_in_protobuf_what_it_says_in_json() {
    let house = House::new();
    let api = house.tenant("acme").await;
    api.made(POD, &pod()).await;
    let mut listed = 0;
    for info in api::table::resources() {
        if !info.has_verb("list") {
            continue;
        }
        let resource = &info.resource;
        let group = match &*resource.group {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        };
        let path = format!("{group}/{}", resource.plural);
        let (status, as_json) = api.get(&path).await;
        assert_eq!(status, 200, "{path}: {as_json}");

        let list = decoded(&api, &path, PROTOBUF).await;

        let (items, expected) = (items(&list), items(&as_json));
        assert_eq!(items, expected, "{path}");
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&as_json["kind"], &as_json["apiVersion"]),
            "{path}"
        );
        listed += items.len();
    }
    assert!(
        listed > 100,
        "{listed}: what planes have by birth, the Pod, what came with it"
    );
}

#[tokio::test]
async fn an_object_its_metadata_and_what_is_written_come_in_protobuf() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let made = api.made(POD, &pod()).await;

    let object = decoded(&api, &format!("{POD}/web"), &format!("{PROTOBUF},application/json")).await;
    let accept = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let metadata = decoded(&api, &format!("{POD}/web"), &accept).await;

    assert_eq!(said(&object), said(&made));
    assert_eq!(metadata["kind"], "PartialObjectMetadata");
    assert_eq!(said(&metadata["metadata"]), said(&made["metadata"]));
    assert_eq!(metadata.get("spec"), None);
}

#[tokio::test]
async fn a_watch_comes_in_frames_of_protobuf() {
    let house = House::new();
    let api = house.tenant("acme").await;
    let path = format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Done");
    let response = api
        .get_as(&path, &format!("{PROTOBUF};stream=watch,application/json"))
        .await;
    let media = response.headers()["content-type"].clone();
    let mut body = response.into_body();
    let one = format!("{CONFIG_MAPS}/one");

    api.made(CONFIG_MAPS, &json!({"metadata": {"name": "one"}, "data": {"a": "b"}}))
        .await;
    api.merge(&one, &json!({"data": {"a": "c"}})).await;
    api.delete(&one).await;

    let (mut read, mut events) = (Vec::new(), Vec::new());
    while events.len() < 3 {
        let frame = body.frame().await.unwrap().unwrap();
        read.extend_from_slice(&frame.into_data().unwrap());
        while let Some((length, rest)) = read.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(event) = rest.get(..length) else { break };
            // `type` and `object.raw`, and nothing else: the object's own bytes begin where its magic is.
            let at = event.windows(4).position(|bytes| bytes == protobuf::MAGIC).unwrap();
            let kind = String::from_utf8(event[2..2 + usize::from(event[1])].to_vec()).unwrap();
            events.push((kind, protobuf::decode(&event[at..]).unwrap()["data"]["a"].clone()));
            read.drain(..4 + length);
        }
    }
    assert_eq!(media, "application/vnd.kubernetes.protobuf;stream=watch");
    let expected = [("ADDED", "b"), ("MODIFIED", "c"), ("DELETED", "c")];
    assert_eq!(events, expected.map(|(kind, data)| (kind.to_owned(), json!(data))));
}

#[tokio::test]
async fn what_has_no_protobuf_comes_as_json_or_is_refused() {
    let house = House::new();
    let root = house.root();
    let path = "/apis/tenancy.mangrove.io/v1alpha1/virtualclusters";

    let (status, media, _) = asked(&root, path, &format!("{PROTOBUF},application/json")).await;
    let (refused, _, why) = asked(&root, path, PROTOBUF).await;

    assert_eq!((status, media.as_str()), (200, "application/json"));
    let why: Value = serde_json::from_slice(&why).unwrap();
    assert_eq!((refused, &why["reason"]), (406, &json!("NotAcceptable")));
}
