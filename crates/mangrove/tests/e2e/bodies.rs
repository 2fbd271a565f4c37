//! Malformed, oversized and deeply nested bodies: a `Status` with the right code, and bounded memory.

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use testkit::platform::Platform;

use crate::{
    BINARY,
    door::{Access, Door, block_on, request},
};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Kubernetes refuses request bodies above this.
const BODY_BYTES_MAX: usize = 3 << 20;
/// What a server may take more than before, whatever was sent: a few bodies of the allowed size and their trees.
const GROWTH_KIB_MAX: u64 = 160 << 10;

#[test]
fn bad_bodies_are_answered_by_a_status_with_the_right_code_and_cost_little() {
    let Some(platform) = Platform::start(BINARY) else {
        return;
    };
    let acme = platform.tenant("acme");
    let access = Access::of(&acme);
    let before = resident_kib(&platform);
    block_on(async {
        let door = access.open().await.unwrap();
        let mut asking = Asking {
            door,
            wrong: Vec::new(),
        };
        let path = format!("{}/api/v1/namespaces/default/configmaps", access.prefix);
        malformed(&mut asking, &path).await;
        deeply_nested(&mut asking, &path).await;
        oversized(&mut asking, &access, &path).await;
        odd_requests(&mut asking, &access.prefix).await;
        assert!(asking.wrong.is_empty(), "{:#?}", asking.wrong);

        // It is still there, and as it was.
        let (status, list) = asking.door.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        let names = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["metadata"]["name"]);
        assert_eq!(names.collect::<Vec<_>>(), ["just-small-enough", "kube-root-ca.crt"]);
    });
    let grown = resident_kib(&platform).saturating_sub(before);
    println!("resident memory grew by {grown} KiB, from {before} KiB");
    assert!(grown < GROWTH_KIB_MAX, "{before} KiB grew by {grown} KiB");
    platform.finish();
}

/// A connection, and what was answered wrongly on it: all of it is told at the end.
struct Asking {
    door: Door,
    wrong: Vec<String>,
}

impl Asking {
    async fn refused_post(&mut self, path: &str, kind: &str, body: impl Into<Bytes>, wanted: StatusCode, reason: &str) {
        let body = body.into();
        let what = format!("{kind} {:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
        let answer = self.door.post(path, kind, body).await;
        self.is_refusal(&what, answer, wanted, reason);
    }

    async fn refused_get(&mut self, path: &str, wanted: StatusCode, reason: &str) {
        let answer = self.door.get(path).await;
        self.is_refusal(path, answer, wanted, reason);
    }

    /// A Kubernetes `Status` of failure with this code.
    fn is_refusal(&mut self, what: &str, (status, body): (StatusCode, Value), wanted: StatusCode, reason: &str) {
        let is_status = body["kind"] == "Status" && body["apiVersion"] == "v1" && body["status"] == "Failure";
        let has_code = status == wanted && body["code"] == wanted.as_u16() && body["reason"] == reason;
        let says_why = body["message"].as_str().is_some_and(|message| !message.is_empty());
        if !(is_status && has_code && says_why) {
            self.wrong
                .push(format!("{what}: wanted {wanted} {reason}, got {status} {body}"));
        }
    }
}

async fn malformed(asking: &mut Asking, path: &str) {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let bad = [
        "",
        "{",
        "null",
        "[]",
        "\"ConfigMap\"",
        "{\"kind\": \"ConfigMap\"} trailing",
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": []}",
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": 7}}",
        "{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {\"name\": \"x\"}}",
        "{\"apiVersion\": \"v2\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"x\"}}",
    ];
    for body in bad {
        asking.refused_post(path, JSON, body, BAD, "BadRequest").await;
    }
    let not_utf8 = b"{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"\xff\xfe\"}}";
    asking.refused_post(path, JSON, &not_utf8[..], BAD, "BadRequest").await;
    for body in ["a: [", "- a", "a: &x [*x]", "a: b: c"] {
        asking.refused_post(path, YAML, body, BAD, "BadRequest").await;
    }
    for body in [&b"k8s\0"[..], b"k8s\0\xff\xff\xff\xff\xff\xff", b"nothing of that kind"] {
        asking.refused_post(path, PROTOBUF, body, BAD, "BadRequest").await;
    }
    let invalid = [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not A Name"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x".repeat(254)}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a key": "v"}}),
    ];
    for body in invalid {
        let body = body.to_string();
        asking
            .refused_post(path, JSON, body, StatusCode::UNPROCESSABLE_ENTITY, "Invalid")
            .await;
    }
    let unknown = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    asking
        .refused_post(path, "text/plain", "{}", unknown, "UnsupportedMediaType")
        .await;
}

async fn deeply_nested(asking: &mut Asking, path: &str) {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let levels = BODY_BYTES_MAX / 12;
    let arrays = ["[".repeat(levels), "]".repeat(levels)].concat();
    let objects = ["{\"a\":".repeat(levels), "1".to_owned(), "}".repeat(levels)].concat();
    for inner in [arrays, objects] {
        let start = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"deep\"},\"data\":{\"a\":";
        asking
            .refused_post(path, JSON, format!("{start}{inner}}}}}"), BAD, "BadRequest")
            .await;
        for kind in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
            let patch = Bytes::from(format!("{{\"data\":{{\"a\":{inner}}}}}"));
            let target = format!("{path}/kube-root-ca.crt");
            let answer = asking.door.send(request(Method::PATCH, &target, kind, patch)).await;
            asking.is_refusal(kind, answer, BAD, "BadRequest");
        }
    }
    // An alias may stand for much: a hundred bytes that would be a billion.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{inner}]\n");
    }
    asking.refused_post(path, YAML, bomb, BAD, "BadRequest").await;
    let flow = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    asking.refused_post(path, YAML, flow, BAD, "BadRequest").await;
}

async fn oversized(asking: &mut Asking, access: &Access, path: &str) {
    let config_map = |name: &str, bytes: usize| {
        let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": ""}});
        let empty = empty.to_string();
        let filled = format!("\"a\":\"{}\"", "x".repeat(bytes - empty.len()));
        empty.replace("\"a\":\"\"", &filled)
    };
    // A ConfigMap may be 1 MiB; a body 3 MiB.
    let (status, made) = asking
        .door
        .post(path, JSON, config_map("just-small-enough", 1 << 20))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{}", made["message"]);
    for bytes in [2 << 20, BODY_BYTES_MAX] {
        let body = config_map("large", bytes);
        asking
            .refused_post(path, JSON, body, StatusCode::UNPROCESSABLE_ENTITY, "Invalid")
            .await;
    }
    let body = config_map("larger", BODY_BYTES_MAX + 1);
    asking
        .refused_post(path, JSON, body, StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
        .await;

    // Without an end: refused when it is too much, not when it is over. The server may also just hang up on it.
    for _ in 0..3 {
        let mut door = access.open().await.unwrap();
        let endless = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 16 << 10]))));
        let body = StreamBody::new(endless).boxed_unsync();
        let request = Request::post(format!("https://mangrove{path}")).header("content-type", JSON);
        match door.try_send(request.body(body).unwrap()).await {
            Ok((status, body)) => {
                let body = serde_json::from_slice(&body).unwrap();
                let answer = (status, body);
                asking.is_refusal(
                    "endless",
                    answer,
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                );
            }
            Err(error) => assert_ne!(error.to_string(), "deadline has elapsed", "it was read for ever"),
        }
    }
}

async fn odd_requests(asking: &mut Asking, prefix: &str) {
    let missing = StatusCode::NOT_FOUND;
    asking
        .refused_get(&format!("{prefix}/api/v1/nothing"), missing, "NotFound")
        .await;
    asking
        .refused_get(&format!("{prefix}/apis/no.such.group/v1/things"), missing, "NotFound")
        .await;
    let path = format!("{prefix}/api/v1/namespaces/default/configmaps");
    let put = request(Method::PUT, &path, JSON, Bytes::from_static(b"{}"));
    let answer = asking.door.send(put).await;
    asking.is_refusal(
        "PUT to a list",
        answer,
        StatusCode::METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
    );
    for query in [
        "labelSelector=%21%21",
        "continue=nonsense",
        "watch=1&resourceVersion=x",
        "limit=many",
    ] {
        asking
            .refused_get(&format!("{path}?{query}"), StatusCode::BAD_REQUEST, "BadRequest")
            .await;
    }
    for nowhere in ["nonsense", "aaaaaaaaaaaaaaaa"] {
        asking
            .refused_get(&format!("/planes/{nowhere}/api/v1/pods"), missing, "NotFound")
            .await;
    }
}

fn resident_kib(platform: &Platform) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", platform.pid())).expect("the server runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("the kernel says so");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number of KiB")
}
