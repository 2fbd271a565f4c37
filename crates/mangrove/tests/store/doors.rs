//! What is asked over plain HTTP, and what is behind which listener.

use etcd_client::{AlarmAction, AlarmType, Client};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::process::{Process, free_port};

/// Status line and body.
async fn ask(port: u16, request: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens");
    let head = format!("{request} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.lines().next().expect("a status line");
    (status[9..].to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_metrics_are_served_no_key_can_be_had() {
    let metrics = free_port();
    let flags = vec!["--listen-metrics-urls".into(), format!("http://127.0.0.1:{metrics}")];
    let data = tempfile::tempdir().unwrap();
    let Some(store) = Process::start_on(data, flags).await else {
        return;
    };
    let mut client = Client::connect([store.endpoint()], None).await.unwrap();
    client.put("secret", "canary", None).await.unwrap();

    let (status, body) = ask(metrics, "GET /metrics", "").await;
    assert_eq!(status, "200 OK");
    assert!(body.contains("etcd_server_has_leader 1"), "{body}");
    for path in ["/health", "/version"] {
        let told = ask(metrics, &format!("GET {path}"), "").await;
        assert_eq!(told, ask(store.port, &format!("GET {path}"), "").await);
        assert_eq!(told.0, "200 OK", "{path}");
    }
    let range = r#"{"key":"c2VjcmV0"}"#;
    let (status, body) = ask(store.port, "POST /v3/kv/range", range).await;
    assert!(status == "200 OK" && body.contains("Y2FuYXJ5"), "{body}");
    let (status, body) = ask(metrics, "POST /v3/kv/range", range).await;
    assert!(status != "200 OK" && !body.contains("Y2FuYXJ5"), "{status} {body}");

    let mut other = Client::connect([format!("http://127.0.0.1:{metrics}")], None)
        .await
        .unwrap();
    assert!(other.get("secret", None).await.is_err());
    assert!(other.put("secret", "other", None).await.is_err());
    let kept = client.get("secret", None).await.unwrap();
    assert_eq!(kept.kvs()[0].value(), b"canary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_leaves_out_the_alarms_it_is_told_to() {
    let Some(store) = Process::start().await else { return };
    let mut client = Client::connect([store.endpoint()], None).await.unwrap();
    client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await
        .unwrap();

    let health = async |query: &str| ask(store.port, &format!("GET /health{query}"), "").await;
    let sick = (
        "503 Service Unavailable".to_owned(),
        r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned(),
    );
    assert_eq!(health("").await, sick);
    assert_eq!(health("?exclude=CORRUPT").await, sick);
    assert_eq!(health("?exclude=NOSPACE").await.0, "200 OK");
    assert_eq!(health("?exclude=CORRUPT&exclude=NOSPACE").await.0, "200 OK");
}

/// A newer client may say more than is known here; etcd's gateway takes it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_passes_over_fields_that_it_does_not_know() {
    let Some(store) = Process::start().await else { return };
    let put = r#"{"key":"YQ==","value":"Yg==","later":{"than":["us"]}}"#;
    assert_eq!(ask(store.port, "POST /v3/kv/put", put).await.0, "200 OK");
    let (status, _) = ask(store.port, "POST /v3/kv/put", r#"{"key":7}"#).await;
    assert_eq!(status, "400 Bad Request");

    let mut client = Client::connect([store.endpoint()], None).await.unwrap();
    assert_eq!(client.get("a", None).await.unwrap().kvs()[0].value(), b"b");
}
