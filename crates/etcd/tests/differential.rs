//! Ours and a real etcd side by side: the same random sequences, and the same answers, revisions and watch streams.
//! `DIFFERENTIAL_SEED=n` runs one seed alone, `DIFFERENTIAL_SEQUENCES=n` so many sequences, from seed
//! `DIFFERENTIAL_FIRST=n` on; `cargo xtask long` plays 10,000 others.
//!
//! What an etcd before 3.6 answers otherwise, which is followed, is masked in `mask` or not asked in `ask`, and nowhere else.

mod ask;
mod mask;
mod served;
mod server;
mod wire;

use std::{fmt::Debug, ops::Range};

use ask::{Asked, Asker, Watching};
use bytes::Bytes;
use etcd::wire::{
    etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
        WatchCreateRequest, WatchResponse, watch_create_request::FilterType, watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use mask::Masked;
use prost::Message;
use served::Served;
use server::{Etcd, Generation};
use tokio::task::JoinSet;
use tonic::Status;
use wire::{Client, WatchCalls};

const SEQUENCES: u64 = 10_000;

/// Pairs of servers at once: each waits often, for its disk or its watch.
const LANES: u64 = 4;

const REQUESTS: usize = 20;

/// More are not told at once.
const DIFFERENCES_MAX: usize = 5;

/// An event that has not come by then never will.
const HANG: std::time::Duration = std::time::Duration::from_secs(30);

struct Both {
    ours: Client,
    theirs: Client,
    generation: Generation,
    differences: Vec<String>,
}

impl Both {
    async fn ask<Q, A>(&mut self, what: &str, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Clone + Debug + 'static,
        A: Message + Default + Masked + Clone + Debug + 'static,
    {
        let ours = self.ours.call::<Q, A>(method, request.clone());
        let theirs = self.theirs.call::<Q, A>(method, request.clone());
        let both = async { tokio::join!(ours, theirs) };
        let Ok((ours, theirs)) = tokio::time::timeout(HANG, both).await else {
            panic!("{what}: {method}: one of them never answered {request:?}");
        };
        let generation = self.generation;
        let told = |answer: &Result<A, Status>| match answer {
            Ok(answer) => format!("{:?}", answer.clone().masked(generation)),
            Err(status)
                if generation == Generation::Before36
                    && method.ends_with("/Txn")
                    && mask::refused_transaction(status.message()) =>
            {
                "one of its operations is refused".to_owned()
            }
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        let (one, other) = (told(&ours), told(&theirs));
        if one != other {
            self.differences.push(format!(
                "{what}: {method}\nasked  {request:?}\nours   {one}\ntheirs {other}"
            ));
            // What follows may only follow from these.
            assert!(
                self.differences.len() < DIFFERENCES_MAX,
                "{}",
                self.differences.join("\n")
            );
        }
        ours
    }

    /// Before 3.6 a hash where no key is left has all in it that the last compaction kept.
    async fn has_no_key(&mut self, revision: i64) -> bool {
        let range = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            revision,
            count_only: true,
            ..RangeRequest::default()
        };
        let answer: Result<RangeResponse, _> = self.ours.call("/etcdserverpb.KV/Range", range).await;
        answer.is_ok_and(|answer| answer.count == 0)
    }

    async fn watch(&mut self, what: &str, watching: &Watching) {
        let request = &watching.request;
        let create = || RequestUnion::CreateRequest(request.clone());
        let mut ours = self.ours.watch(create()).await;
        let mut theirs = self.theirs.watch(create()).await;
        let both = async { tokio::join!(ours.next(), theirs.next()) };
        let Ok((one, other)) = tokio::time::timeout(HANG, both).await else {
            panic!("{what}: {request:?}: one of them never made it");
        };
        let told = |response: &WatchResponse| {
            assert!(response.created, "{what}: it is created first");
            (
                response.canceled,
                response.watch_id,
                response.cancel_reason.clone(),
                response.events.len(),
            )
        };
        assert!(
            told(&one) == told(&other),
            "{what}: {request:?}\nours   {one:?}\ntheirs {other:?}"
        );
        if one.canceled {
            return;
        }
        // Now that there is one: a put and a deletion of a key that it sees.
        let key = request.key.clone();
        let put = PutRequest {
            key: key.clone(),
            value: "end".into(),
            ..PutRequest::default()
        };
        let put: PutResponse = self.ask(what, "/etcdserverpb.KV/Put", put).await.expect("it is put");
        let delete = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        let _: DeleteRangeResponse =
            (self.ask(what, "/etcdserverpb.KV/DeleteRange", delete).await).expect("it is deleted");
        let last = put.header.expect("a header").revision + 1;
        let both = async { tokio::join!(seen(&mut ours, request, last), seen(&mut theirs, request, last)) };
        let Ok((ours, theirs)) = tokio::time::timeout(HANG, both).await else {
            panic!("{what}: {request:?}: one of them never told the event of revision {last}");
        };
        assert!(
            ours == theirs,
            "{what}: {request:?}\nours   {ours:?}\ntheirs {theirs:?}"
        );
    }
}

/// What a watch tells up to the last event that it can see, apart from how that is cut into responses.
#[derive(PartialEq, Debug, Default)]
struct Seen {
    compacted: Option<i64>,
    events: Vec<Event>,
}

async fn seen(calls: &mut WatchCalls, request: &WatchCreateRequest, last: i64) -> Seen {
    let mut seen = Seen::default();
    let last = match request.filters.contains(&(FilterType::Nodelete as i32)) {
        true => last - 1,
        false => last,
    };
    loop {
        let response: WatchResponse = calls.next().await;
        assert!(!response.created, "it is created once");
        if response.canceled {
            seen.compacted = (response.compact_revision != 0).then_some(response.compact_revision);
            return seen;
        }
        for event in &response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            assert!(response.header.is_some_and(|header| header.revision >= revision));
        }
        seen.events.extend(response.events);
        if seen
            .events
            .last()
            .is_some_and(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision >= last))
        {
            let kind = |event: &Event| EventType::try_from(event.r#type).expect("a known kind");
            let filtered = |kind: FilterType| request.filters.contains(&(kind as i32));
            assert!(!(filtered(FilterType::Noput) && seen.events.iter().any(|event| kind(event) == EventType::Put)));
            return seen;
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_can_tell_the_store_from_an_etcd() {
    let (first, count) = match number("DIFFERENTIAL_SEED") {
        Some(seed) => (seed, 1),
        None => (
            number("DIFFERENTIAL_FIRST").unwrap_or(0),
            number("DIFFERENTIAL_SEQUENCES").unwrap_or(SEQUENCES),
        ),
    };
    let a_lane = count.div_ceil(LANES).max(1);
    let mut lanes = JoinSet::new();
    for from in (first..first + count).step_by(a_lane.try_into().expect("a count")) {
        lanes.spawn(play(from..(from + a_lane).min(first + count)));
    }
    lanes.join_all().await;
}

/// Servers of their own for these seeds, one after another.
async fn play(seeds: Range<u64>) {
    let Some(etcd) = Etcd::start_in(served::folder()) else {
        return;
    };
    let served = Served::start().await;
    let mut both = Both {
        ours: Client::connect(&served.endpoint).await,
        theirs: Client::connect(&etcd.endpoint).await,
        generation: etcd.generation,
        differences: Vec::new(),
    };
    let (mut revision, mut compacted) = (1, 0);
    for seed in seeds {
        let mut asker = Asker::new(seed, revision, compacted, etcd.generation);
        for request in 0..REQUESTS {
            let what = format!("seed {seed}, request {request}");
            match asker.ask() {
                Asked::Range(request) => {
                    let answer = both.ask(&what, "/etcdserverpb.KV/Range", request).await;
                    asker.saw(answer.ok().and_then(|answer: RangeResponse| answer.header));
                }
                Asked::Put(request) => {
                    let answer = both.ask(&what, "/etcdserverpb.KV/Put", request).await;
                    asker.saw(answer.ok().and_then(|answer: PutResponse| answer.header));
                }
                Asked::Delete(request) => {
                    let answer = both.ask(&what, "/etcdserverpb.KV/DeleteRange", request).await;
                    asker.saw(answer.ok().and_then(|answer: DeleteRangeResponse| answer.header));
                }
                Asked::Txn(request) => {
                    let answer = both.ask(&what, "/etcdserverpb.KV/Txn", request).await;
                    asker.saw(
                        answer
                            .ok()
                            .and_then(|answer: etcd::wire::etcdserverpb::TxnResponse| answer.header),
                    );
                }
                Asked::Compact(request) => {
                    let asked = request.revision;
                    let answer: Result<etcd::wire::etcdserverpb::CompactionResponse, _> =
                        both.ask(&what, "/etcdserverpb.KV/Compact", request).await;
                    if answer.is_ok() {
                        asker.compacted = asked;
                    }
                }
                Asked::Grant(request) => {
                    let _: Result<etcd::wire::etcdserverpb::LeaseGrantResponse, _> =
                        both.ask(&what, "/etcdserverpb.Lease/LeaseGrant", request).await;
                }
                Asked::Revoke(request) => {
                    let answer = both.ask(&what, "/etcdserverpb.Lease/LeaseRevoke", request).await;
                    let header = answer
                        .ok()
                        .and_then(|answer: etcd::wire::etcdserverpb::LeaseRevokeResponse| answer.header);
                    asker.saw(header);
                }
                Asked::TimeToLive(request) => {
                    let _: Result<etcd::wire::etcdserverpb::LeaseTimeToLiveResponse, _> =
                        both.ask(&what, "/etcdserverpb.Lease/LeaseTimeToLive", request).await;
                }
                Asked::Leases(request) => {
                    let _: Result<etcd::wire::etcdserverpb::LeaseLeasesResponse, _> =
                        both.ask(&what, "/etcdserverpb.Lease/LeaseLeases", request).await;
                }
                Asked::HashKv(request) => {
                    if both.generation == Generation::Before36 && both.has_no_key(request.revision).await {
                        continue;
                    }
                    let _: Result<etcd::wire::etcdserverpb::HashKvResponse, _> =
                        both.ask(&what, "/etcdserverpb.Maintenance/HashKV", request).await;
                }
                Asked::Watch(watching) => {
                    both.watch(&what, &watching).await;
                    asker.revision += 2;
                }
            }
        }
        (revision, compacted) = (asker.revision, asker.compacted);
    }
    assert!(both.differences.is_empty(), "{}", both.differences.join("\n"));
}
