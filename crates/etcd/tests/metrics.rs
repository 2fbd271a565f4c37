//! `/metrics` counts what is done, by etcd's names.

mod served;
mod wire;

use std::collections::BTreeMap;

use etcd::wire::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, request_op::Request,
    watch_request::RequestUnion,
};
use served::Served;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wire::Client;

type Numbers = BTreeMap<String, f64>;

async fn numbers(served: &Served) -> Numbers {
    let address = served.endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines
        .filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?)))
        .collect()
}

fn put(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        lease,
        ..PutRequest::default()
    }
}

fn range(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    }
}

/// Of every operation a known number.
async fn operate(served: &Served) {
    let mut client = Client::connect(&served.endpoint).await;
    let watch = RequestUnion::CreateRequest(WatchCreateRequest {
        key: "a".into(),
        ..WatchCreateRequest::default()
    });
    let mut watch = client.watch(watch).await;
    assert!(watch.next().await.created);
    for id in [1, 2, 3] {
        let grant = LeaseGrantRequest { ttl: 600, id };
        let _: LeaseGrantResponse = client.call("/etcdserverpb.Lease/LeaseGrant", grant).await.unwrap();
    }
    for _ in 0..5 {
        let _: PutResponse = client.call("/etcdserverpb.KV/Put", put("a", 1)).await.unwrap();
        assert_eq!(watch.next().await.events.len(), 1);
    }
    for _ in 0..4 {
        let _: RangeResponse = client.call("/etcdserverpb.KV/Range", range("a")).await.unwrap();
    }
    let op = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestPut(put("b", 0))),
            op(Request::RequestRange(range("a"))),
            op(Request::RequestPut(put("c", 0))),
        ],
        ..TxnRequest::default()
    };
    let _: TxnResponse = client.call("/etcdserverpb.KV/Txn", txn).await.unwrap();
    let delete = DeleteRangeRequest {
        key: "b".into(),
        ..DeleteRangeRequest::default()
    };
    let _: DeleteRangeResponse = client.call("/etcdserverpb.KV/DeleteRange", delete).await.unwrap();
    let kept = [1, 1, 77].map(|id| LeaseKeepAliveRequest { id });
    let kept: Vec<LeaseKeepAliveResponse> = client
        .all("/etcdserverpb.Lease/LeaseKeepAlive", kept.to_vec())
        .await
        .unwrap();
    assert_eq!(kept.len(), 3);
    let revoke = LeaseRevokeRequest { id: 2 };
    let _: LeaseRevokeResponse = client.call("/etcdserverpb.Lease/LeaseRevoke", revoke).await.unwrap();
    client
        .call::<_, PutResponse>("/etcdserverpb.KV/Put", put("", 0))
        .await
        .unwrap_err();

    let open = numbers(served).await;
    assert_eq!(open["etcd_debugging_mvcc_watch_stream_total"], 1.0);
    assert_eq!(open["etcd_debugging_mvcc_watcher_total"], 1.0);
}

#[tokio::test]
async fn every_operation_is_counted() {
    let served = Served::start().await;
    let before = numbers(&served).await;

    operate(&served).await;
    // A stream that its client has dropped ends when the server hears of it.
    let watched =
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\"}";
    let after = loop {
        let after = numbers(&served).await;
        if after.contains_key(watched) {
            break after;
        }
    };

    let by = |name: &str| after[name] - before.get(name).copied().unwrap_or(0.0);
    for (name, expected) in [
        ("etcd_mvcc_put_total", 7.0),
        ("etcd_mvcc_range_total", 5.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_debugging_mvcc_events_total", 5.0),
        ("etcd_debugging_mvcc_keys_total", 2.0),
        ("etcd_debugging_mvcc_current_revision", 7.0),
        ("etcd_debugging_mvcc_watch_stream_total", 0.0),
        ("etcd_debugging_mvcc_watcher_total", 0.0),
        ("etcd_debugging_lease_granted_total", 3.0),
        ("etcd_debugging_lease_renewed_total", 2.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
    ] {
        assert_eq!(by(name), expected, "{name}");
    }
    let method = |what: &str, service: &str, name: &str| {
        after[&format!("{what}grpc_method=\"{name}\",grpc_service=\"etcdserverpb.{service}\"}}")]
    };
    assert_eq!(method("grpc_server_started_total{", "KV", "Put"), 6.0);
    assert_eq!(method("grpc_server_handled_total{grpc_code=\"OK\",", "KV", "Put"), 5.0);
    let refused = "grpc_server_handled_total{grpc_code=\"InvalidArgument\",";
    assert_eq!(method(refused, "KV", "Put"), 1.0);
    assert_eq!(method("grpc_server_handling_seconds_count{", "KV", "Range"), 4.0);
    let kept = method("grpc_server_handled_total{grpc_code=\"OK\",", "Lease", "LeaseKeepAlive");
    assert_eq!(kept, 1.0, "one stream");
    // Six puts of nine bytes and more, and what was answered.
    assert!(by("etcd_network_client_grpc_received_bytes_total") > 100.0);
    assert!(by("etcd_network_client_grpc_sent_bytes_total") > 300.0);
}
