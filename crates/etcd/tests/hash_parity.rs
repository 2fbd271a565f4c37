//! One script of puts, transactions, deletions, leases and compactions on ours and on a real etcd: `HashKV` is the same at
//! twenty revisions, and so it is after a restart of ours. `HASH_OPERATIONS=n` makes the script as long as wanted,
//! `HASH_SEED=n` another one.

mod served;
mod server;
mod wire;

use etcd::{
    server::MemberOptions,
    wire::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, HashKvRequest, HashKvResponse, LeaseGrantRequest,
        LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, RequestOp, TxnRequest, TxnResponse,
        request_op::Request,
    },
};
use served::Served;
use server::Etcd;
use wire::Client;
use world::sim::SimRandom;

const OPERATIONS: u64 = 100_000;
const OPERATIONS_A_TXN: u64 = 20;
const KEYS: u64 = 500;
const LEASES: i64 = 8;
const COMPACTIONS: u64 = 3;
const HASHES: i64 = 20;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

/// The same on each server; gives the revision it ends at and the one it was compacted at.
async fn play(client: &mut Client, operations: u64) -> (i64, i64) {
    let random = SimRandom::new(number("HASH_SEED", 7));
    for id in 1..=LEASES {
        let grant = LeaseGrantRequest { id, ttl: 3600 };
        let _: LeaseGrantResponse = client
            .call("/etcdserverpb.Lease/LeaseGrant", grant)
            .await
            .expect("granted");
    }
    let (mut revision, mut compacted) = (1, 0);
    let txns = operations / OPERATIONS_A_TXN;
    for number in 1..=txns {
        let first = random.below(KEYS);
        let ops = (0..OPERATIONS_A_TXN).map(|at| {
            // No key twice.
            let key = format!("/registry/kind-{}/{:05}", at % 3, (first + at * 31) % 100_000).into();
            let request = match random.below(10) {
                0 | 1 => Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                }),
                _ => Request::RequestPut(PutRequest {
                    key,
                    value: vec![random.below(256) as u8; random.below(300) as usize].into(),
                    lease: if random.chance(20) {
                        1 + random.below(LEASES as u64 - 1) as i64
                    } else {
                        0
                    },
                    ..PutRequest::default()
                }),
            };
            RequestOp { request: Some(request) }
        });
        let txn = TxnRequest {
            success: ops.collect(),
            ..TxnRequest::default()
        };
        let answer: TxnResponse = client.call("/etcdserverpb.KV/Txn", txn).await.expect("done");
        revision = answer.header.expect("a header").revision;
        if number % (txns / (COMPACTIONS + 1)).max(1) == 0 && number < txns {
            compacted = revision - 7;
            let compact = CompactionRequest {
                revision: compacted,
                physical: true,
            };
            let _: CompactionResponse = client
                .call("/etcdserverpb.KV/Compact", compact)
                .await
                .expect("compacted");
        }
    }
    let revoke = LeaseRevokeRequest { id: 1 };
    let answer: LeaseRevokeResponse = client
        .call("/etcdserverpb.Lease/LeaseRevoke", revoke)
        .await
        .expect("revoked");
    (answer.header.map_or(revision, |header| header.revision), compacted)
}

async fn hashes(client: &mut Client, last: i64, compacted: i64) -> Vec<(i64, u32)> {
    let step = ((last - compacted - 1) / HASHES).max(1);
    let mut hashes = Vec::new();
    for revision in (compacted + 1..=last)
        .rev()
        .step_by(step as usize)
        .take(HASHES as usize)
    {
        let request = HashKvRequest { revision };
        let answer: HashKvResponse = client
            .call("/etcdserverpb.Maintenance/HashKV", request)
            .await
            .expect("hashed");
        hashes.push((revision, answer.hash));
    }
    hashes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_are_those_of_etcd() {
    let Some(etcd) = Etcd::start_in(served::folder()) else {
        return;
    };
    let served = Served::start().await;
    let operations = number("HASH_OPERATIONS", OPERATIONS);
    let mut ours = Client::connect(&served.endpoint).await;
    let mut theirs = Client::connect(&etcd.endpoint).await;
    let (one, other) = tokio::join!(play(&mut ours, operations), play(&mut theirs, operations));
    assert_eq!(one, other, "the script ends at the same revision");

    let (last, compacted) = one;
    let expected = hashes(&mut theirs, last, compacted).await;
    assert_eq!(hashes(&mut ours, last, compacted).await, expected);
    assert!(
        expected.len() as i64 >= HASHES.min(last - compacted),
        "{}",
        expected.len()
    );

    drop(ours);
    let dir = served.stop().await;
    let again = Served::in_dir(dir, MemberOptions::default(), served::limits()).await;
    let mut ours = Client::connect(&again.endpoint).await;
    assert_eq!(hashes(&mut ours, last, compacted).await, expected, "after a restart");
}
