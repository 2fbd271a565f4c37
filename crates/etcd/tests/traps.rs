//! Traps of one etcd, by the numbers they have in the list they were collected in: what stores of this kind got wrong. Trap 12 is
//! `a_lease_ends_by_the_clock_and_has_its_whole_time_after_a_restart` of the store. Those of several stores that merge (27 to
//! 32, 36) are not here.

mod served;
mod wire;

use etcd::{
    server::MemberOptions,
    wire::etcdserverpb::{
        AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest,
        DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse,
        LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
        MemberListRequest, MemberListResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
        RangeStreamResponse, RequestOp, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchCancelRequest,
        WatchCreateRequest, WatchProgressRequest, compare::TargetUnion, request_op::Request,
        watch_request::RequestUnion,
    },
};
use keyspace::{Op, Txn, index::Limits, values::Warm};
use served::Served;
use tonic::{Code, Status};
use wire::Client;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";

struct Fixture {
    client: Client,
    served: Served,
}

async fn fresh() -> Fixture {
    let served = Served::start().await;
    Fixture {
        client: Client::connect(&served.endpoint).await,
        served,
    }
}

fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

fn all() -> RangeRequest {
    RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..RangeRequest::default()
    }
}

impl Fixture {
    async fn put(&mut self, key: &str, value: &str) -> i64 {
        let answer: PutResponse = self.client.call(PUT, put_request(key, value)).await.unwrap();
        answer.header.unwrap().revision
    }

    async fn range(&mut self, request: RangeRequest) -> RangeResponse {
        self.client.call(RANGE, request).await.unwrap()
    }

    async fn compact(&mut self, revision: i64) {
        let compact = CompactionRequest {
            revision,
            physical: true,
        };
        let _: CompactionResponse = self.client.call(COMPACT, compact).await.unwrap();
    }

    async fn holds(&mut self, compare: Compare) -> bool {
        let txn = TxnRequest {
            compare: vec![compare],
            ..TxnRequest::default()
        };
        let answer: TxnResponse = self.client.call(TXN, txn).await.unwrap();
        answer.succeeded
    }
}

#[tokio::test]
async fn trap_1_and_3_the_count_ignores_limit_and_filters() {
    let mut etcd = fresh().await;
    for number in 0..9 {
        etcd.put(&format!("k{number}"), "").await;
    }

    let limited = etcd.range(RangeRequest { limit: 4, ..all() }).await;
    let filtered = etcd
        .range(RangeRequest {
            min_mod_revision: 9,
            ..all()
        })
        .await;
    let counted = etcd
        .range(RangeRequest {
            count_only: true,
            limit: 4,
            ..all()
        })
        .await;

    assert_eq!((limited.kvs.len(), limited.count, limited.more), (4, 9, true));
    assert_eq!((filtered.kvs.len(), filtered.count, filtered.more), (2, 9, false));
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (0, 9, false));
}

#[tokio::test]
async fn trap_2_a_read_of_the_past_tells_the_current_revision() {
    let mut etcd = fresh().await;
    let first = etcd.put("a", "1").await;
    let last = etcd.put("a", "2").await;

    let past = etcd
        .range(RangeRequest {
            revision: first,
            ..all()
        })
        .await;

    assert_eq!(past.header.unwrap().revision, last);
    assert_eq!(&past.kvs[0].value[..], b"1");
}

#[tokio::test]
async fn trap_4_an_absent_key_has_revision_0_and_no_value() {
    let mut etcd = fresh().await;
    let compare = |target, result, union| Compare {
        key: "absent".into(),
        target,
        result,
        target_union: Some(union),
        ..Compare::default()
    };
    const EQUAL: i32 = 0;
    const NOT_EQUAL: i32 = 3;
    const MOD: i32 = 2;
    const VALUE: i32 = 3;

    assert!(etcd.holds(compare(MOD, EQUAL, TargetUnion::ModRevision(0))).await);
    assert!(!etcd.holds(compare(VALUE, EQUAL, TargetUnion::Value("".into()))).await);
    assert!(
        !etcd
            .holds(compare(VALUE, NOT_EQUAL, TargetUnion::Value("x".into())))
            .await
    );
}

#[tokio::test]
async fn trap_5_nested_compares_see_what_was_before_and_ranges_what_is_written() {
    let mut etcd = fresh().await;
    let op = |request| RequestOp { request: Some(request) };
    let nested = TxnRequest {
        compare: vec![Compare {
            key: "a".into(),
            target: 2,
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Compare::default()
        }],
        success: vec![op(Request::RequestRange(RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        }))],
        ..TxnRequest::default()
    };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestPut(put_request("a", "1"))),
            op(Request::RequestTxn(nested)),
        ],
        ..TxnRequest::default()
    };

    let answer: TxnResponse = etcd.client.call(TXN, txn).await.unwrap();

    let told = format!("{:?}", answer.responses[1]);
    assert!(told.contains("succeeded: true") && told.contains("count: 1"), "{told}");
}

#[tokio::test]
async fn trap_6_a_key_twice_is_refused_in_the_branch_not_taken_too() {
    let mut etcd = fresh().await;
    let put = || RequestOp {
        request: Some(Request::RequestPut(put_request("a", ""))),
    };
    let txn = TxnRequest {
        failure: vec![put(), put()],
        ..TxnRequest::default()
    };

    let refused = etcd.client.call::<_, TxnResponse>(TXN, txn).await.unwrap_err();

    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: duplicate key given in txn request");
}

#[tokio::test]
async fn trap_7_a_missing_key_is_an_invalid_argument() {
    let mut etcd = fresh().await;
    let keep = PutRequest {
        ignore_value: true,
        ..put_request("absent", "")
    };

    let refused = etcd.client.call::<_, PutResponse>(PUT, keep).await.unwrap_err();

    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: key not found")
    );
}

/// As 3.6 does: a transaction's operations are checked one after another, and a put alone by its lease first.
#[tokio::test]
async fn of_several_things_that_are_wrong_the_one_is_told_that_etcd_tells() {
    let mut etcd = fresh().await;
    let keep = PutRequest {
        ignore_value: true,
        lease: 99,
        ..put_request("absent", "")
    };
    let future = RangeRequest {
        key: "a".into(),
        revision: 1000,
        ..RangeRequest::default()
    };
    let txn = |ops: Vec<Request>| TxnRequest {
        success: (ops.into_iter())
            .map(|request| RequestOp { request: Some(request) })
            .collect(),
        ..TxnRequest::default()
    };
    let (put, range) = (Request::RequestPut(keep.clone()), Request::RequestRange(future));
    let put_first = txn(vec![put.clone(), range.clone()]);
    let range_first = txn(vec![range, put]);

    let alone = etcd.client.call::<_, PutResponse>(PUT, keep).await.unwrap_err();
    let put_first = etcd.client.call::<_, TxnResponse>(TXN, put_first).await.unwrap_err();
    let range_first = etcd.client.call::<_, TxnResponse>(TXN, range_first).await.unwrap_err();

    assert_eq!(alone.message(), "etcdserver: requested lease not found");
    assert_eq!(put_first.message(), "etcdserver: key not found");
    let future = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(range_first.message(), future);
}

/// The revision that was compacted last is still there, and its hash; what was before is not.
#[tokio::test]
async fn a_hash_is_of_the_revision_that_was_asked_for() {
    let mut etcd = fresh().await;
    for value in ["1", "2", "3"] {
        etcd.put("a", value).await;
    }
    let compact = CompactionRequest {
        revision: 3,
        physical: true,
    };
    let _: CompactionResponse = etcd.client.call(COMPACT, compact).await.unwrap();
    let mut hash = async |revision| {
        let asked = etcd.client.call(HASH_KV, HashKvRequest { revision });
        let answer: Result<HashKvResponse, Status> = asked.await;
        answer.map(|answer| answer.hash_revision)
    };

    assert_eq!(hash(0).await.unwrap(), 4);
    assert_eq!(hash(-1).await.unwrap(), -1);
    assert_eq!(hash(3).await.unwrap(), 3);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(hash(2).await.unwrap_err().message(), compacted);
}

#[tokio::test]
async fn trap_8_deleting_nothing_changes_nothing() {
    let mut etcd = fresh().await;
    let before = etcd.put("a", "").await;
    let delete = DeleteRangeRequest {
        key: "b".into(),
        ..DeleteRangeRequest::default()
    };

    let deleted: DeleteRangeResponse = etcd.client.call(DELETE, delete).await.unwrap();

    assert_eq!((deleted.deleted, deleted.header.unwrap().revision), (0, before));
}

#[tokio::test]
async fn traps_9_and_10_leases_are_granted_and_told_as_etcd_does() {
    let mut etcd = fresh().await;

    let grant = LeaseGrantRequest { ttl: 1, id: 5 };
    let granted: LeaseGrantResponse = etcd.client.call("/etcdserverpb.Lease/LeaseGrant", grant).await.unwrap();
    let ask = LeaseTimeToLiveRequest { id: 99, keys: true };
    let unknown: LeaseTimeToLiveResponse = etcd
        .client
        .call("/etcdserverpb.Lease/LeaseTimeToLive", ask)
        .await
        .unwrap();

    assert_eq!((granted.id, granted.ttl), (5, 2));
    assert_eq!((unknown.ttl, unknown.granted_ttl), (-1, 0));
}

#[tokio::test]
async fn trap_11_a_lease_has_the_keys_that_were_last_put_with_it() {
    let mut etcd = fresh().await;
    for id in [1, 2] {
        let grant = LeaseGrantRequest { ttl: 600, id };
        let _: LeaseGrantResponse = etcd.client.call("/etcdserverpb.Lease/LeaseGrant", grant).await.unwrap();
    }
    for lease in [1, 2, 0] {
        let put = PutRequest {
            lease,
            ..put_request(&format!("until-{lease}"), "")
        };
        let _: PutResponse = etcd.client.call(PUT, put).await.unwrap();
        let moved = PutRequest {
            lease,
            ..put_request("moved", "")
        };
        let _: PutResponse = etcd.client.call(PUT, moved).await.unwrap();
    }

    for (id, keys) in [(1, vec!["until-1"]), (2, vec!["until-2"])] {
        let ask = LeaseTimeToLiveRequest { id, keys: true };
        let state: LeaseTimeToLiveResponse = etcd
            .client
            .call("/etcdserverpb.Lease/LeaseTimeToLive", ask)
            .await
            .unwrap();
        assert_eq!(state.keys, keys);
    }
}

fn create(request: WatchCreateRequest) -> RequestUnion {
    RequestUnion::CreateRequest(request)
}

fn everything(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        range_end: "\0".into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

#[tokio::test]
async fn traps_13_and_16_watches_are_numbered_from_0_and_unknown_ones_cancelled_in_silence() {
    let mut etcd = fresh().await;
    let mut watch = etcd.client.watch(create(everything(0))).await;
    let first = watch.next().await;
    watch
        .send(create(WatchCreateRequest {
            watch_id: 1,
            ..everything(0)
        }))
        .await;
    let second = watch.next().await;
    watch
        .send(create(WatchCreateRequest {
            watch_id: 1,
            ..everything(0)
        }))
        .await;
    let same = watch.next().await;
    watch.send(create(everything(0))).await;
    let third = watch.next().await;
    watch
        .send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 77 }))
        .await;
    watch
        .send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 1 }))
        .await;
    let cancelled = watch.next().await;

    assert_eq!((first.watch_id, first.created), (0, true));
    assert_eq!((second.watch_id, second.created), (1, true));
    assert_eq!((same.watch_id, same.canceled), (-1, true));
    assert_eq!(
        same.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    assert_eq!((third.watch_id, third.created), (2, true));
    assert_eq!(
        (cancelled.watch_id, cancelled.canceled, &cancelled.cancel_reason[..]),
        (1, true, "")
    );
}

#[tokio::test]
async fn trap_14_a_watch_from_the_future_sees_nothing_older() {
    let mut etcd = fresh().await;
    let now = etcd.put("a", "1").await;
    let mut watch = etcd.client.watch(create(everything(now + 3))).await;
    assert!(watch.next().await.created);
    watch.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    for value in ["2", "3", "4"] {
        etcd.put("a", value).await;
    }

    let told = watch.next().await;

    assert_eq!(told.events.len(), 1, "and no progress before: {told:?}");
    assert_eq!(told.events[0].kv.as_ref().unwrap().mod_revision, now + 3);
}

#[tokio::test]
async fn trap_15_a_compacted_watch_is_made_and_then_cancelled_with_the_revision_alone() {
    let mut etcd = fresh().await;
    for value in ["1", "2", "3", "4"] {
        etcd.put("a", value).await;
    }
    etcd.compact(4).await;

    let mut watch = etcd.client.watch(create(everything(3))).await;
    let (made, cancelled) = (watch.next().await, watch.next().await);

    assert!(made.created && !made.canceled);
    assert!(cancelled.canceled && !cancelled.created);
    assert_eq!((cancelled.compact_revision, &cancelled.cancel_reason[..]), (4, ""));
}

#[tokio::test]
async fn trap_17_progress_is_never_ahead_of_events() {
    let mut etcd = fresh().await;
    let mut watch = etcd.client.watch(create(everything(0))).await;
    assert!(watch.next().await.created);
    let mut last_event = 0;
    let mut progress = 0;
    let mut writer = etcd.client.clone();
    let writing = tokio::spawn(async move {
        for number in 0..300 {
            let put = put_request(&format!("k{}", number % 7), "");
            let _: PutResponse = writer.call(PUT, put).await.unwrap();
        }
    });
    while progress < 100 {
        watch.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
        loop {
            let told = watch.next().await;
            let revision = told.header.unwrap().revision;
            if told.events.is_empty() {
                assert_eq!(told.watch_id, -1);
                assert!(revision >= last_event);
                last_event = revision;
                progress += 1;
                break;
            }
            for event in &told.events {
                let event = event.kv.as_ref().unwrap().mod_revision;
                assert!(event > last_event, "event {event} after progress or event {last_event}");
            }
            last_event = told.events.last().unwrap().kv.as_ref().unwrap().mod_revision;
        }
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn trap_19_one_revision_comes_in_one_response() {
    let mut etcd = fresh().await;
    let mut watch = etcd.client.watch(create(everything(0))).await;
    assert!(watch.next().await.created);
    let puts = (0..128).map(|number| RequestOp {
        request: Some(Request::RequestPut(put_request(&format!("k{number:03}"), "x"))),
    });
    let txn = TxnRequest {
        success: puts.collect(),
        ..TxnRequest::default()
    };
    let _: TxnResponse = etcd.client.call(TXN, txn).await.unwrap();

    assert_eq!(watch.next().await.events.len(), 128);
}

#[tokio::test]
async fn trap_20_previous_values_last_until_they_are_told() {
    let mut etcd = fresh().await;
    let first = etcd.put("a", "1").await;
    etcd.put("a", "2").await;
    let third = etcd.put("a", "3").await;
    etcd.compact(third - 1).await;

    let from = WatchCreateRequest {
        prev_kv: true,
        ..everything(third - 1)
    };
    let mut watch = etcd.client.watch(create(from)).await;
    assert!(watch.next().await.created);
    let mut previous = Vec::new();
    while previous.len() < 2 {
        let told = watch.next().await.events.into_iter();
        previous.extend(told.map(|event| event.prev_kv.map(|kv| kv.value)));
    }

    assert_eq!(first, 2);
    assert_eq!(previous[1].as_deref(), Some(&b"2"[..]));
}

/// Kubernetes' own tests count on it: such a watch ends in an error there.
#[tokio::test]
async fn trap_20_a_watch_from_the_compacted_revision_is_not_told_what_was_before() {
    let mut etcd = fresh().await;
    etcd.put("a", "1").await;
    let second = etcd.put("a", "2").await;
    let third = etcd.put("a", "3").await;
    let compact = CompactionRequest {
        revision: second,
        physical: true,
    };
    let _: CompactionResponse = etcd.client.call(COMPACT, compact).await.unwrap();

    let watch = WatchCreateRequest {
        key: "a".into(),
        start_revision: second,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    let mut calls = etcd.client.watch(RequestUnion::CreateRequest(watch)).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(calls.next().await.events);
    }

    assert_eq!(told[0].prev_kv, None);
    assert_eq!(told[1].kv.as_ref().unwrap().mod_revision, third);
    assert_eq!(told[1].prev_kv.as_ref().unwrap().value, "2");
}

#[tokio::test]
async fn trap_21_a_watch_from_the_current_revision_sees_it() {
    let mut etcd = fresh().await;
    let now = etcd.put("compact_rev_key", "1").await;

    let mut watch = etcd.client.watch(create(everything(now))).await;
    assert!(watch.next().await.created);

    assert_eq!(watch.next().await.events[0].kv.as_ref().unwrap().mod_revision, now);
}

#[tokio::test]
async fn traps_22_and_23_no_end_is_one_key_and_keys_are_bytes() {
    let mut etcd = fresh().await;
    for key in [&b"a"[..], b"a\0", b"\0", b"\xff\xff", b"\xc3\x28"] {
        let put = PutRequest {
            key: key.to_vec().into(),
            ..PutRequest::default()
        };
        let _: PutResponse = etcd.client.call(PUT, put).await.unwrap();
    }

    let one = etcd
        .range(RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        })
        .await;
    let from = RangeRequest {
        key: b"\xff\xff".to_vec().into(),
        ..all()
    };

    assert_eq!(one.count, 1);
    assert_eq!(etcd.range(from).await.count, 1);
    assert_eq!(etcd.range(all()).await.count, 5);
}

#[tokio::test]
async fn traps_24_and_25_the_version_is_one_that_has_progress_and_the_only_member_is_this_one() {
    let mut etcd = fresh().await;

    let status: StatusResponse = etcd
        .client
        .call("/etcdserverpb.Maintenance/Status", StatusRequest {})
        .await
        .unwrap();
    let list = MemberListRequest::default();
    let members: MemberListResponse = etcd
        .client
        .call("/etcdserverpb.Cluster/MemberList", list)
        .await
        .unwrap();

    assert!(status.version.starts_with("3.6."), "{}", status.version);
    assert_eq!(status.leader, status.header.unwrap().member_id);
    assert_eq!(members.members.len(), 1);
}

#[tokio::test]
async fn trap_34_a_full_keyspace_still_deletes_and_compacts_until_it_is_disarmed() {
    let limits = Limits {
        quota_bytes_max: 4000,
        ..served::limits()
    };
    let served = Served::with(MemberOptions::default(), limits).await;
    let mut client = Client::connect(&served.endpoint).await;
    let large = "x".repeat(1000);
    let mut refused = None;
    for number in 0..20 {
        match client
            .call::<_, PutResponse>(PUT, put_request(&format!("k{number}"), &large))
            .await
        {
            Ok(_) => {}
            Err(status) => refused = Some(status),
        }
    }
    let refused = refused.expect("the quota is reached");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");

    let delete = DeleteRangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..DeleteRangeRequest::default()
    };
    let deleted: DeleteRangeResponse = client.call(DELETE, delete).await.unwrap();
    let compact = CompactionRequest {
        revision: deleted.header.unwrap().revision,
        physical: true,
    };
    let _: CompactionResponse = client.call(COMPACT, compact).await.unwrap();
    client
        .call::<_, PutResponse>(PUT, put_request("a", ""))
        .await
        .expect_err("the alarm stays");
    let alarm = "/etcdserverpb.Maintenance/Alarm";
    let told: AlarmResponse = client.call(alarm, AlarmRequest::default()).await.unwrap();
    assert_eq!(told.alarms.len(), 1);
    let disarm = AlarmRequest {
        action: 2,
        alarm: 1,
        ..AlarmRequest::default()
    };
    let _: AlarmResponse = client.call(alarm, disarm).await.unwrap();

    client
        .call::<_, PutResponse>(PUT, put_request("a", ""))
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn trap_38_answers_may_be_large_and_requests_may_not() {
    let mut etcd = fresh().await;
    let value = "v".repeat(1 << 20);
    for number in 0..6 {
        etcd.put(&format!("k{number}"), &value).await;
    }

    let answer = etcd.range(all()).await;
    let too_large = put_request("k", &"v".repeat((3 << 19) + 1));
    let refused = etcd.client.call::<_, PutResponse>(PUT, too_large).await.unwrap_err();

    assert_eq!(answer.kvs.len(), 6);
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
}

#[tokio::test]
async fn a_streamed_range_is_the_same_as_one_answer() {
    let mut etcd = fresh().await;
    for number in 0..500 {
        etcd.put(&format!("k{number:04}"), &"v".repeat(number)).await;
    }

    for request in [
        all(),
        RangeRequest { limit: 77, ..all() },
        RangeRequest {
            keys_only: true,
            ..all()
        },
    ] {
        let whole = etcd.range(request.clone()).await;
        let parts: Vec<RangeStreamResponse> = etcd.client.many("/etcdserverpb.KV/RangeStream", request).await.unwrap();
        let parts: Vec<RangeResponse> = parts.into_iter().filter_map(|part| part.range_response).collect();
        let last = parts.last().unwrap();
        assert_eq!(
            (last.count, last.more, last.header),
            (whole.count, whole.more, whole.header)
        );
        assert!(parts[..parts.len() - 1].iter().all(|part| part.header.is_none()));
        let kvs: Vec<_> = parts.into_iter().flat_map(|part| part.kvs).collect();
        assert!(kvs == whole.kvs);
    }
}

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

#[tokio::test]
async fn trap_10_a_lease_that_is_not_there_is_kept_alive_with_no_time_and_its_stream_goes_on() {
    let mut etcd = fresh().await;
    let grant = LeaseGrantRequest { ttl: 600, id: 5 };
    let _: LeaseGrantResponse = etcd.client.call(GRANT, grant).await.unwrap();

    let asked = [99, 5, 98, 5].map(|id| LeaseKeepAliveRequest { id });
    let kept: Vec<LeaseKeepAliveResponse> = etcd
        .client
        .all("/etcdserverpb.Lease/LeaseKeepAlive", asked.to_vec())
        .await
        .unwrap();

    let told: Vec<_> = kept.iter().map(|kept| (kept.id, kept.ttl)).collect();
    assert_eq!(told, [(99, 0), (5, 600), (98, 0), (5, 600)]);
}

#[tokio::test]
async fn trap_18_what_is_caught_up_with_may_be_behind_its_header() {
    let mut etcd = fresh().await;
    let first = etcd.put("a", "1").await;
    let last = etcd.put("b", "2").await;

    let mut watch = etcd
        .client
        .watch(create(WatchCreateRequest {
            key: "a".into(),
            start_revision: first,
            ..WatchCreateRequest::default()
        }))
        .await;
    let made = watch.next().await;
    let told = watch.next().await;

    assert_eq!(made.header.unwrap().revision, last, "where the keyspace is");
    let event = told.events[0].kv.as_ref().unwrap().mod_revision;
    assert_eq!(event, first);
    assert!(told.header.unwrap().revision >= event);
}

#[tokio::test]
async fn trap_26_a_restored_keyspace_may_be_made_to_go_on_ahead_of_all_that_was_told() {
    let mut etcd = fresh().await;
    etcd.put("a", "1").await;
    let last = etcd.put("a", "2").await;

    let bumped = etcd.served.keyspace.view().clone();
    bumped.write().advance(keyspace::Revision(last as u64 + 1000));
    bumped.publish();
    bumped.compact(keyspace::Revision(last as u64 + 1000)).unwrap();

    // Whoever has an old watch is told so, and hears nothing in silence.
    let mut watch = etcd.client.watch(create(everything(last + 1))).await;
    assert!(watch.next().await.created);
    let cancelled = watch.next().await;
    assert!(
        cancelled.canceled && cancelled.compact_revision == last + 1000,
        "{cancelled:?}"
    );
    assert_eq!(etcd.range(all()).await.kvs[0].mod_revision, last);
}

#[tokio::test]
async fn trap_35_what_is_not_durable_is_neither_read_nor_watched() {
    let mut etcd = fresh().await;
    let before = etcd.put("a", "1").await;
    let mut watch = etcd.client.watch(create(everything(0))).await;
    assert!(watch.next().await.created);

    // As the store has it between deciding and the disk's answer.
    let staged = Txn {
        success: vec![Op::put("a", "staged")],
        ..Txn::default()
    };
    let view = etcd.served.keyspace.view().clone();
    view.write().stage(&staged, &Warm::default()).unwrap();
    let read = etcd.range(all()).await;
    watch.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = watch.next().await;
    // And the disk said no.
    view.write().roll_back();
    let after = etcd.put("a", "2").await;

    assert_eq!(&read.kvs[0].value[..], b"1");
    assert_eq!((progress.events.len(), progress.header.unwrap().revision), (0, before));
    assert_eq!(after, before + 1, "a revision that was taken back is used again");
    assert_eq!(&watch.next().await.events[0].kv.as_ref().unwrap().value[..], b"2");
}

#[tokio::test]
async fn trap_37_a_hundred_connections_that_say_nothing_cost_little() {
    const CONNECTIONS: u64 = 150;
    const BYTES_A_CONNECTION_MAX: u64 = 48 << 10;
    let served = Served::start().await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    // The first ones pay for what all share.
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(idle_watch(&served).await);
    }
    let before = resident();
    for _ in 0..CONNECTIONS {
        clients.push(idle_watch(&served).await);
    }

    // Both ends are in this process.
    let each = resident().saturating_sub(before) / CONNECTIONS / 2;

    assert!(each < BYTES_A_CONNECTION_MAX, "{each} bytes a connection");
}

async fn idle_watch(served: &Served) -> (Client, wire::WatchCalls) {
    let mut client = Client::connect(&served.endpoint).await;
    let mut watch = client.watch(create(everything(0))).await;
    assert!(watch.next().await.created);
    (client, watch)
}

#[tokio::test]
async fn traps_39_and_40_json_has_numbers_as_texts_and_leaves_out_what_is_nothing() {
    let mut etcd = fresh().await;
    etcd.put("a", "1").await;
    let address = etcd.served.endpoint.trim_start_matches("http://").to_owned();

    let body = r#"{"key":"YQ=="}"#;
    let range = http(&address, "POST /v3/kv/range", body).await;
    let metrics = http(&address, "GET /metrics", "").await;

    assert!(range.contains(r#""create_revision":"2""#), "{range}");
    assert!(
        range.contains(r#""count":"1""#) && !range.contains(r#""more""#),
        "{range}"
    );
    assert!(!range.contains(r#""lease""#), "{range}");
    assert!(metrics.contains("\nprocess_resident_memory_bytes "), "{metrics}");
}

async fn http(address: &str, what: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request =
        format!("{what} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn trap_33_what_was_done_is_never_told_as_something_to_repeat() {
    // kube-apiserver repeats a write on these texts.
    const REPEATED: [&str; 3] = ["leader changed", "no leader", "raft proposal dropped"];
    for error in [
        keyspace::Error::Unknown("the log can't be written".into()),
        keyspace::Error::Failed("the log can't be written".into()),
        keyspace::Error::Unavailable("too many writes are waiting".into()),
        keyspace::Error::Unavailable("the store is closed".into()),
        keyspace::Error::NoSpace("no space left on device".into()),
    ] {
        let status = etcd::server::status::Status::from(error);
        assert!(!REPEATED.iter().any(|text| status.text.contains(text)), "{status:?}");
    }
}
