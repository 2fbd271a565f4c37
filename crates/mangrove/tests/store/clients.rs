//! Clients: each asks one thing after another, and goes on when it is not answered.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, LeaseGrantOptions, PutOptions, Txn,
    TxnOp, TxnOpResponse,
};
use testkit::history::{
    Operation, Outcome, PastRead,
    model::{Answer, Done, KeyValue, Keys, Op, Request, State},
    sample,
};
use world::sim::SimRandom;

use crate::round::Shared;

/// A client that waits longer is wrong about nothing; it only asks less.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between tries to reach a server that is not there.
const PAUSE: Duration = Duration::from_millis(10);

/// Revisions that compaction leaves.
const KEPT: i64 = 40;

/// No lease ends by itself in a round.
const LEASE_TTL_SECONDS: i64 = 3600;

/// Codes of gRPC.
const CANCELED: i32 = 1;
const UNKNOWN: i32 = 2;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;

pub async fn connect(shared: &Shared) -> Client {
    loop {
        let options = ConnectOptions::new().with_connect_timeout(PATIENCE);
        if let Ok(client) = Client::connect([&shared.endpoint], Some(options)).await {
            return client;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The current one.
pub async fn revision(shared: &Shared) -> i64 {
    loop {
        let answer = connect(shared).await.get("k/0", None).await;
        if let Some(revision) = answer.ok().and_then(|answer| Some(answer.header()?.revision())) {
            return revision;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub async fn run(shared: Arc<Shared>, number: u64) {
    let random = SimRandom::new(shared.seed * 1000 + number);
    let mut client = connect(&shared).await;
    // As far as this client knows.
    let mut known = State::default();
    for asked in 0.. {
        if *shared.over.borrow() {
            return;
        }
        let is_reached = match random.below(40) {
            0 | 1 => read_the_past(&shared, &mut client, &random, &known).await,
            2 if number == 0 => compact(&shared, &mut client).await,
            3 if number == 1 => client.defragment().await.is_ok(),
            _ => {
                let request = sample::request(&random, (number * 1_000_000 + asked) as usize, &known);
                ask(&shared, &mut client, request, &mut known).await
            }
        };
        if !is_reached {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn ask(shared: &Shared, client: &mut Client, request: Request, known: &mut State) -> bool {
    let called = shared.now();
    let answered = tokio::time::timeout(PATIENCE, call(client, &request)).await;
    let outcome = match answered {
        Ok(Ok(answer)) => Outcome::Told {
            at: shared.now(),
            answer,
        },
        Ok(Err(error)) => {
            if let Some(wrong) = explained(&error) {
                shared.wrong.lock().unwrap().push(format!("{request:?}: {wrong}"));
            }
            Outcome::Unknown
        }
        Err(_) => Outcome::Unknown,
    };
    if let Outcome::Told { answer, .. } = &outcome {
        learn(known, &request, answer);
    }
    let is_told = outcome != Outcome::Unknown;
    shared.record(Operation {
        called,
        request,
        outcome,
    });
    is_told
}

/// Errors of a server that is going, or gone, are no wonder; all others are.
fn explained(error: &Error) -> Option<String> {
    match error {
        Error::GRpcStatus(status) => {
            let code = status.code() as i32;
            let is_gone = [CANCELED, UNKNOWN, UNAVAILABLE].contains(&code);
            // HTTP/2 that was cut.
            let is_cut = code == INTERNAL && !status.message().starts_with("etcdserver");
            (!is_gone && !is_cut).then(|| status.to_string())
        }
        _ => None,
    }
}

fn learn(known: &mut State, request: &Request, answer: &Answer) {
    let (
        Request::Txn { success, failure, .. },
        Answer::Txn {
            revision,
            succeeded,
            done,
        },
    ) = (request, answer)
    else {
        return;
    };
    known.revision = known.revision.max(*revision);
    let ops = if *succeeded { success } else { failure };
    for (op, done) in ops.iter().zip(done) {
        match (op, done) {
            (Op::Range(keys), Done::Range(found)) => {
                known.keys.retain(|key, _| !keys.contain(key));
                known.keys.extend(found.iter().map(|kv| (kv.key.clone(), kv.clone())));
            }
            (Op::Put { key, value, lease }, _) => {
                let kv = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: *revision,
                    mod_revision: *revision,
                    version: 1,
                    lease: *lease,
                };
                known.keys.insert(key.clone(), kv);
            }
            (Op::Delete(keys), _) => known.keys.retain(|key, _| !keys.contain(key)),
            _ => {}
        }
    }
}

async fn call(client: &mut Client, request: &Request) -> Result<Answer, Error> {
    let answered = match request {
        Request::Grant(id) => {
            let options = LeaseGrantOptions::new().with_id(*id);
            let granted = client.lease_grant(LEASE_TTL_SECONDS, Some(options)).await;
            granted.map(|_| Answer::Granted)
        }
        Request::Revoke(id) => client.lease_revoke(*id).await.map(|_| Answer::Revoked),
        Request::Txn {
            compares,
            success,
            failure,
        } => match (&compares[..], &success[..], &failure[..]) {
            ([], [op], []) => alone(client, op).await,
            _ => transaction(client, compares, success, failure).await,
        },
    };
    match answered {
        Err(Error::GRpcStatus(status)) => match status.message() {
            "etcdserver: requested lease not found" => Ok(Answer::LeaseNotFound),
            "etcdserver: lease already exists" => Ok(Answer::LeaseExists),
            _ => Err(Error::GRpcStatus(status)),
        },
        other => other,
    }
}

fn end(keys: &Keys) -> Option<&str> {
    keys.end.as_deref()
}

fn get_options(keys: &Keys) -> GetOptions {
    end(keys).map_or_else(GetOptions::new, |end| GetOptions::new().with_range(end))
}

fn delete_options(keys: &Keys) -> DeleteOptions {
    end(keys).map_or_else(DeleteOptions::new, |end| DeleteOptions::new().with_range(end))
}

fn put_options(lease: i64) -> PutOptions {
    PutOptions::new().with_lease(lease)
}

pub fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("what was put is text");
    KeyValue {
        key: text(kv.key()),
        value: text(kv.value()),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

fn found(kvs: &[etcd_client::KeyValue]) -> Done {
    Done::Range(kvs.iter().map(key_value).collect())
}

async fn alone(client: &mut Client, op: &Op) -> Result<Answer, Error> {
    let (header, done) = match op {
        Op::Range(keys) => {
            let mut answer = client.get(keys.start.as_str(), Some(get_options(keys))).await?;
            (answer.take_header(), found(answer.kvs()))
        }
        Op::Put { key, value, lease } => {
            let mut answer = client
                .put(key.as_str(), value.as_str(), Some(put_options(*lease)))
                .await?;
            (answer.take_header(), Done::Put)
        }
        Op::Delete(keys) => {
            let mut answer = client.delete(keys.start.as_str(), Some(delete_options(keys))).await?;
            (answer.take_header(), Done::Delete(answer.deleted() as usize))
        }
    };
    Ok(Answer::Txn {
        revision: header.map_or(0, |header| header.revision()),
        succeeded: true,
        done: vec![done],
    })
}

async fn transaction(
    client: &mut Client,
    compares: &[(String, i64)],
    success: &[Op],
    failure: &[Op],
) -> Result<Answer, Error> {
    let op = |op: &Op| match op {
        Op::Range(keys) => TxnOp::get(keys.start.as_str(), Some(get_options(keys))),
        Op::Put { key, value, lease } => TxnOp::put(key.as_str(), value.as_str(), Some(put_options(*lease))),
        Op::Delete(keys) => TxnOp::delete(keys.start.as_str(), Some(delete_options(keys))),
    };
    let compares = compares
        .iter()
        .map(|(key, revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision));
    let txn = Txn::new()
        .when(compares.collect::<Vec<_>>())
        .and_then(success.iter().map(op).collect::<Vec<_>>())
        .or_else(failure.iter().map(op).collect::<Vec<_>>());
    let answer = client.txn(txn).await?;
    let done = answer.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Put(_) => Done::Put,
        TxnOpResponse::Get(get) => found(get.kvs()),
        TxnOpResponse::Delete(delete) => Done::Delete(delete.deleted() as usize),
        TxnOpResponse::Txn(_) => unreachable!("none is asked for"),
    });
    Ok(Answer::Txn {
        revision: answer.header().map_or(0, |header| header.revision()),
        succeeded: answer.succeeded(),
        done: done.collect(),
    })
}

/// At a revision that this client was told of: it must be there, or be compacted.
async fn read_the_past(shared: &Shared, client: &mut Client, random: &SimRandom, known: &State) -> bool {
    let revision = (known.revision - random.below(30) as i64).max(1);
    let options = GetOptions::new().with_prefix().with_revision(revision);
    let answered = tokio::time::timeout(PATIENCE, client.get("k/", Some(options))).await;
    match answered {
        Ok(Ok(answer)) => {
            let read = PastRead {
                keys: Keys::prefix("k/"),
                revision,
                found: answer.kvs().iter().map(key_value).collect(),
                current: answer.header().map_or(0, |header| header.revision()),
            };
            shared.past_reads.lock().unwrap().push(read);
            true
        }
        Ok(Err(Error::GRpcStatus(status))) if status.message().contains("has been compacted") => {
            if revision >= shared.compacted() {
                let wrong = format!("revision {revision} is said to be compacted");
                shared.wrong.lock().unwrap().push(wrong);
            }
            true
        }
        Ok(Err(error)) => {
            if let Some(wrong) = explained(&error) {
                let wrong = format!("revision {revision}, which was told of: {wrong}");
                shared.wrong.lock().unwrap().push(wrong);
            }
            false
        }
        Err(_) => false,
    }
}

/// Never what the log has not seen.
async fn compact(shared: &Shared, client: &mut Client) -> bool {
    let revision = shared.logged.load(Ordering::SeqCst) - KEPT;
    if revision <= shared.compacted() {
        return true;
    }
    shared.compacted.store(revision, Ordering::SeqCst);
    let compacted = tokio::time::timeout(PATIENCE, client.compact(revision, None)).await;
    match compacted {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            if let Some(wrong) = explained(&error) {
                shared
                    .wrong
                    .lock()
                    .unwrap()
                    .push(format!("compact {revision}: {wrong}"));
            }
            false
        }
        Err(_) => false,
    }
}
