//! What is asked.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;
use world::World;

use super::{
    Case, Measured,
    call::{CallError, Connection, Incoming, Outgoing},
    percentiles,
};
use crate::wire::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    watch_request::RequestUnion,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    Put,
    Get,
    /// 500 keys of many.
    Range,
    /// `if the key is as I read it then put`, as Kubernetes writes.
    TxnPut,
    /// Reads, lists and conditional writes, as an API server mixes them.
    Kubernetes,
    WatchFanOut {
        watchers: usize,
    },
    KeepAlive,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::Range => "range 500",
            Workload::TxnPut => "txn compare-and-put",
            Workload::Kubernetes => "kubernetes mix",
            Workload::WatchFanOut { .. } => "watch fan-out",
            Workload::KeepAlive => "lease keep-alive",
        }
    }
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

const KEYS: u64 = 2000;
const LISTED: i64 = 500;
const KEYS_A_TXN: u64 = 50;

const WATCHED: &str = "/registry/bench/watched";

/// Of a stream, as etcd's own benchmark shares them.
const WATCHES_A_STREAM: usize = 100;

/// What all clients know.
pub struct Prepared {
    value: Bytes,
    leases: Vec<i64>,
}

fn key(number: u64) -> Bytes {
    format!("/registry/bench/objects/namespace-0/object-{number:08}").into()
}

fn ended(what: &str) -> CallError {
    CallError::ended(what)
}

/// The same keys are there before each run.
pub async fn prepare(connection: &Connection, case: Case, world: &World) -> Result<Prepared, CallError> {
    let mut connection = connection.clone();
    let mut value = vec![0; case.value_bytes];
    world.random.fill(&mut value);
    let value = Bytes::from(value);
    for first in (0..KEYS).step_by(KEYS_A_TXN as usize) {
        let puts = (first..first + KEYS_A_TXN).map(|number| RequestOp {
            request: Some(Request::RequestPut(put(key(number), &value))),
        });
        let txn = TxnRequest {
            success: puts.collect(),
            ..TxnRequest::default()
        };
        let _: TxnResponse = connection.unary(TXN, &txn).await?;
    }
    let mut leases = Vec::new();
    if case.workload == Workload::KeepAlive {
        for _ in 0..case.clients {
            let grant = LeaseGrantRequest { ttl: 3600, id: 0 };
            let granted: LeaseGrantResponse = connection.unary(GRANT, &grant).await?;
            leases.push(granted.id);
        }
    }
    Ok(Prepared { value, leases })
}

fn put(key: Bytes, value: &Bytes) -> PutRequest {
    PutRequest {
        key,
        value: value.clone(),
        ..PutRequest::default()
    }
}

/// One client.
pub struct Asking {
    client: usize,
    case: Case,
    prepared: Arc<Prepared>,
    /// A small generator of its own: what is asked need not be secret, only spread.
    state: u64,
    revision: i64,
    keeper: Option<(Incoming, Outgoing)>,
}

impl Asking {
    pub fn new(client: usize, case: Case, prepared: Arc<Prepared>) -> Asking {
        Asking {
            client,
            case,
            prepared,
            state: (client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            revision: 0,
            keeper: None,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    pub async fn once(&mut self, connection: &mut Connection) -> Result<(), CallError> {
        match self.case.workload {
            Workload::Put => {
                let request = put(key(self.below(KEYS)), &self.prepared.value);
                let _: PutResponse = connection.unary(PUT, &request).await?;
                Ok(())
            }
            Workload::Get => self.get(connection).await,
            Workload::Range => self.list(connection).await,
            // Its own key: what is measured is a write that succeeds.
            Workload::TxnPut => {
                let key = format!("/registry/bench/own/{:06}", self.client).into();
                self.compare_and_put(connection, key).await
            }
            Workload::Kubernetes => match self.below(100) {
                0..5 => self.list(connection).await,
                5..70 => self.get(connection).await,
                _ => {
                    let key = format!("/registry/bench/own/{:06}", self.client).into();
                    self.compare_and_put(connection, key).await
                }
            },
            Workload::KeepAlive => self.keep_alive(connection).await,
            // It has clients of two kinds, see `fan_out`.
            Workload::WatchFanOut { .. } => Ok(()),
        }
    }

    async fn get(&mut self, connection: &mut Connection) -> Result<(), CallError> {
        let request = RangeRequest {
            key: key(self.below(KEYS)),
            ..RangeRequest::default()
        };
        let answer: RangeResponse = connection.unary(RANGE, &request).await?;
        if answer.kvs.len() == 1 {
            Ok(())
        } else {
            Err(ended("a key that was put is not there"))
        }
    }

    async fn list(&mut self, connection: &mut Connection) -> Result<(), CallError> {
        let request = RangeRequest {
            key: key(self.below(KEYS - LISTED as u64)),
            range_end: "/registry/bench/objects0".into(),
            limit: LISTED,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = connection.unary(RANGE, &request).await?;
        if answer.kvs.len() == LISTED as usize {
            Ok(())
        } else {
            Err(ended("a list is not whole"))
        }
    }

    async fn compare_and_put(&mut self, connection: &mut Connection, key: Bytes) -> Result<(), CallError> {
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone(),
                target_union: Some(TargetUnion::ModRevision(self.revision)),
                ..Compare::default()
            }],
            success: vec![RequestOp {
                request: Some(Request::RequestPut(put(key.clone(), &self.prepared.value))),
            }],
            failure: vec![RequestOp {
                request: Some(Request::RequestRange(RangeRequest {
                    key,
                    ..RangeRequest::default()
                })),
            }],
        };
        let answer: TxnResponse = connection.unary(TXN, &request).await?;
        self.revision = if answer.succeeded {
            answer.header.map_or(0, |header| header.revision)
        } else {
            // Of a run before this one.
            let found = answer
                .responses
                .into_iter()
                .find_map(|response| match response.response {
                    Some(crate::wire::etcdserverpb::response_op::Response::ResponseRange(range)) => {
                        range.kvs.into_iter().next()
                    }
                    _ => None,
                });
            found.map_or(0, |kv| kv.mod_revision)
        };
        Ok(())
    }

    async fn keep_alive(&mut self, connection: &mut Connection) -> Result<(), CallError> {
        let id = self.prepared.leases.get(self.client).copied().unwrap_or_default();
        let request = LeaseKeepAliveRequest { id };
        let answer = match &mut self.keeper {
            Some((incoming, outgoing)) => {
                outgoing.send(&request)?;
                incoming.next().await?
            }
            None => {
                let (mut incoming, outgoing) = connection.stream(KEEP_ALIVE, &request).await?;
                let answer = incoming.next().await?;
                self.keeper = Some((incoming, outgoing));
                answer
            }
        };
        answer.map(drop).ok_or_else(|| ended("the stream has ended"))
    }
}

/// One writer, many watchers of what it writes: until the time is over and all have seen all.
pub async fn fan_out(
    address: &str,
    writer: &Connection,
    watchers: usize,
    case: Case,
    prepared: &Arc<Prepared>,
    world: &World,
) -> Result<Measured, CallError> {
    let clock = world.clock.clone();
    let (told, mut puts) = tokio::sync::watch::channel(None::<u64>);
    let mut streams = JoinSet::new();
    for first in (0..watchers).step_by(WATCHES_A_STREAM) {
        let count = WATCHES_A_STREAM.min(watchers - first);
        let mut connection = Connection::open(address).await?;
        let (mut incoming, mut outgoing) = connection.stream(WATCH, &create()).await?;
        for _ in 1..count {
            outgoing.send(&create())?;
        }
        // Each is made before anything is written.
        let mut seen = 0;
        while seen < count {
            incoming.next().await?.ok_or_else(|| ended("the watch has ended"))?;
            seen += 1;
        }
        let mut puts = told.subscribe();
        streams.spawn(async move {
            // Kept, or the server would think that nobody asks any more.
            let _outgoing = outgoing;
            let mut events = 0;
            loop {
                if let Some(puts) = *puts.borrow_and_update()
                    && events >= puts * count as u64
                {
                    return Ok::<u64, CallError>(events);
                }
                tokio::select! {
                    message = incoming.next() => {
                        let message = message?.ok_or_else(|| ended("the watch has ended"))?;
                        events += events_in(&message)?;
                    }
                    changed = puts.changed() => changed.map_err(CallError::ended)?,
                }
            }
        });
    }
    puts.mark_unchanged();
    let begun = clock.monotonic();
    let mut connection = writer.clone();
    let request = put(WATCHED.into(), &prepared.value);
    let mut took = Vec::new();
    while clock.monotonic() - begun < case.lasts {
        let begun = clock.monotonic();
        let _: PutResponse = connection.unary(PUT, &request).await?;
        took.push((clock.monotonic() - begun).as_nanos() as u64);
    }
    told.send(Some(took.len() as u64)).map_err(CallError::ended)?;
    let mut events = 0;
    while let Some(stream) = streams.join_next().await {
        events += stream.map_err(CallError::ended)??;
    }
    Ok(Measured {
        done: events,
        seconds: (clock.monotonic() - begun).max(Duration::from_nanos(1)).as_secs_f64(),
        ..percentiles(took)
    })
}

/// Several may come in one response. They are counted, not decoded: a client is not what is measured.
fn events_in(mut response: &[u8]) -> Result<u64, CallError> {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    const EVENTS: u32 = 11;
    let mut events = 0;
    while !response.is_empty() {
        let (tag, wire) = decode_key(&mut response).map_err(CallError::ended)?;
        events += u64::from(tag == EVENTS);
        skip_field(wire, tag, &mut response, DecodeContext::default()).map_err(CallError::ended)?;
    }
    Ok(events)
}

fn create() -> WatchRequest {
    WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: WATCHED.into(),
            ..WatchCreateRequest::default()
        })),
    }
}
