//! What no client of etcd sends: it is refused in words, nothing large is allocated for it, and others are served on (row
//! E12 of the fault matrix, and E10: those who don't read).

mod served;
mod wire;

use bytes::{Buf, BufMut, Bytes};
use etcd::wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse,
    RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, alarm_request::AlarmAction, request_op::Request as Op,
    watch_request::RequestUnion,
};
use prost::Message;
use served::Served;
use store::ValueOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use wire::Client;
use world::sim::SimRandom;

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn send(endpoint: &str, method: &'static str, message: Bytes) -> Result<Bytes, Status> {
    let channel = Channel::from_shared(endpoint.to_owned())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(method);
    Ok(grpc.unary(Request::new(message), path, Raw).await?.into_inner())
}

async fn is_served(served: &Served) {
    let mut client = Client::connect(&served.endpoint).await;
    let put = PutRequest {
        key: "still".into(),
        ..PutRequest::default()
    };
    let _: PutResponse = client
        .call("/etcdserverpb.KV/Put", put)
        .await
        .expect("others are served");
}

#[tokio::test]
async fn e12_malformed_messages_are_refused() {
    let served = Served::start().await;
    let good = PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..PutRequest::default()
    };
    let good = good.encode_to_vec();
    let random = SimRandom::new(12);
    for at in 0..200 {
        let mut bad = good.clone();
        match at % 3 {
            0 => bad.truncate(random.below(good.len() as u64) as usize),
            1 => bad[random.below(good.len() as u64) as usize] ^= 1 << random.below(8),
            _ => bad = (0..random.below(40)).map(|_| random.below(256) as u8).collect(),
        }
        for method in ["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range"] {
            // Whether it is still a request or none: it is answered.
            let _ = send(&served.endpoint, method, bad.clone().into()).await;
        }
    }
    // A length of 2 GiB in a message of ten bytes.
    let lie = vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x07, b'x'];
    let refused = send(&served.endpoint, "/etcdserverpb.KV/Put", lie.into())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    let unknown = send(&served.endpoint, "/etcdserverpb.KV/Nothing", Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    is_served(&served).await;
}

#[tokio::test]
async fn e12_deep_and_wide_transactions_are_refused() {
    let served = Served::start().await;
    let mut client = Client::connect(&served.endpoint).await;
    let mut deep = TxnRequest::default();
    for _ in 0..200 {
        deep = TxnRequest {
            success: vec![RequestOp {
                request: Some(Op::RequestTxn(deep)),
            }],
            ..TxnRequest::default()
        };
    }
    client
        .call::<_, TxnResponse>("/etcdserverpb.KV/Txn", deep)
        .await
        .expect_err("too deep");
    let range = RequestOp {
        request: Some(Op::RequestRange(RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        })),
    };
    let wide = |count| TxnRequest {
        success: vec![range.clone(); count],
        ..TxnRequest::default()
    };
    let refused = client
        .call::<_, TxnResponse>("/etcdserverpb.KV/Txn", wide(129))
        .await
        .unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many operations in txn request");
    client
        .call::<_, TxnResponse>("/etcdserverpb.KV/Txn", wide(128))
        .await
        .expect("as many as are allowed");
}

#[tokio::test]
async fn e12_e13_what_is_compressed_or_too_long_is_refused_before_it_is_read() {
    let served = Served::start().await;
    let channel = Channel::from_shared(served.endpoint.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(Bytes::from_static(b"\x1f\x8b"));
    request.metadata_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let refused = grpc.unary(request, path, Raw).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);

    let long = Bytes::from(vec![0; 4 << 20]);
    let refused = send(&served.endpoint, "/etcdserverpb.KV/Put", long).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    is_served(&served).await;
}

#[tokio::test]
async fn e12_what_is_no_http_at_all_ends_its_own_connection_only() {
    let served = Served::start().await;
    let address = served.endpoint.trim_start_matches("http://").to_owned();
    for garbage in [
        &b"\0\0\0\0"[..],
        b"GET",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    let post = async |path: &str, body: &str| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let deep = format!("{}{}", "{\"success\":[{\"request_txn\":".repeat(300), "null");
    for (path, body) in [
        ("put", "{"),
        ("put", "[]"),
        ("put", "{\"key\":5}"),
        ("put", "{\"key\":\"!\"}"),
        ("txn", &deep),
    ] {
        let answer = post(&format!("/v3/kv/{path}"), body).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:.40}: {answer}");
    }
    assert!(
        post("/v3/kv/put", "{\"key\":\"YQ==\",\"value\":\"Yg==\"}")
            .await
            .starts_with("HTTP/1.1 200")
    );
    is_served(&served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e10_watchers_that_do_not_read_hold_up_nobody_and_miss_nothing() {
    const WATCHERS: usize = 50;
    const PUTS: i64 = 1500;
    let served = Served::start().await;
    let mut client = Client::connect(&served.endpoint).await;
    let create = || {
        RequestUnion::CreateRequest(WatchCreateRequest {
            key: "k".into(),
            ..WatchCreateRequest::default()
        })
    };
    let mut slow = Vec::new();
    for _ in 0..WATCHERS {
        let mut watch = Client::connect(&served.endpoint).await.watch(create()).await;
        assert!(watch.next().await.created);
        slow.push(watch);
    }
    let value = Bytes::from(vec![b'v'; 2000]);
    let mut last = 0;
    for _ in 0..PUTS {
        let put = PutRequest {
            key: "k".into(),
            value: value.clone(),
            ..PutRequest::default()
        };
        let answer: PutResponse = client.call("/etcdserverpb.KV/Put", put).await.unwrap();
        last = answer.header.unwrap().revision;
    }
    let range = RangeRequest {
        key: "k".into(),
        ..RangeRequest::default()
    };
    let read: RangeResponse = client.call("/etcdserverpb.KV/Range", range).await.unwrap();
    assert_eq!(read.header.unwrap().revision, last);

    for mut watch in slow {
        let mut next = last - PUTS + 1;
        while next <= last {
            for event in watch.next().await.events {
                assert_eq!(event.kv.unwrap().mod_revision, next);
                next += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e13_a_huge_range_is_streamed_in_pieces_from_values_that_are_not_in_memory() {
    const KEYS: usize = 20_000;
    let served = Served::with_values(ValueOptions {
        memory_bytes: 0,
        apart_bytes_min: 0,
        keyspace_bytes_min: 0,
        ..ValueOptions::default()
    })
    .await;
    for first in (0..KEYS).step_by(100) {
        let puts = (first..first + 100).map(|number| keyspace::Op::put(format!("{number:05}"), vec![7; 1000]));
        let txn = keyspace::Txn {
            success: puts.collect(),
            ..keyspace::Txn::default()
        };
        served.keyspace.txn(txn, keyspace::Options::default()).await.unwrap();
    }
    served.keyspace.defragment().await.unwrap();
    assert_eq!(served.resident(), 0);
    let everything = RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..RangeRequest::default()
    };
    let channel = Channel::from_shared(served.endpoint.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/RangeStream");
    let request = Request::new(Bytes::from(everything.encode_to_vec()));
    let mut stream = grpc.server_streaming(request, path, Raw).await.unwrap().into_inner();
    let (mut keys, mut longest) = (0, 0);
    while let Some(piece) = stream.message().await.unwrap() {
        longest = longest.max(piece.len());
        let piece = RangeStreamResponse::decode(piece).unwrap().range_response.unwrap();
        assert!(piece.kvs.iter().all(|kv| kv.value == vec![7; 1000]));
        keys += piece.kvs.len();
    }

    assert_eq!(keys, KEYS);
    assert!(longest < 4 << 20, "a piece has {longest} bytes");
    assert_eq!(served.resident(), 0, "who lists all keeps nothing in memory");
    is_served(&served).await;
}

#[tokio::test]
async fn e05_a_damaged_value_raises_the_alarm_and_all_else_is_served() {
    let served = Served::with_values(ValueOptions {
        memory_bytes: 0,
        apart_bytes_min: 0,
        keyspace_bytes_min: 0,
        ..ValueOptions::default()
    })
    .await;
    let mut client = Client::connect(&served.endpoint).await;
    for key in ["a", "b"] {
        let put = PutRequest {
            key: key.into(),
            value: key.repeat(500).into_bytes().into(),
            ..PutRequest::default()
        };
        let _: PutResponse = client.call("/etcdserverpb.KV/Put", put).await.unwrap();
    }
    served.keyspace.defragment().await.unwrap();
    served.damage("aaaaaaaa");
    let get = |key: &'static str| RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    };

    let refused = client
        .call::<_, RangeResponse>("/etcdserverpb.KV/Range", get("a"))
        .await
        .unwrap_err();
    let read: RangeResponse = client.call("/etcdserverpb.KV/Range", get("b")).await.unwrap();
    let put = PutRequest {
        key: "c".into(),
        ..PutRequest::default()
    };
    let write = client
        .call::<_, PutResponse>("/etcdserverpb.KV/Put", put)
        .await
        .unwrap_err();

    assert_eq!(
        (refused.code(), refused.message()),
        (Code::DataLoss, "etcdserver: corrupt cluster")
    );
    assert_eq!(read.kvs.len(), 1);
    assert_eq!(write.code(), Code::DataLoss);
    let alarms: AlarmResponse = client
        .call("/etcdserverpb.Maintenance/Alarm", AlarmRequest::default())
        .await
        .unwrap();
    assert_eq!(alarms.alarms[0].alarm, AlarmType::Corrupt as i32);
    let disarm = AlarmRequest {
        action: AlarmAction::Deactivate as i32,
        alarm: AlarmType::Corrupt as i32,
        ..AlarmRequest::default()
    };
    let _: AlarmResponse = client.call("/etcdserverpb.Maintenance/Alarm", disarm).await.unwrap();
    is_served(&served).await;
}
