//! Random requests, with every option there is, near where the keyspace is.

use bytes::Bytes;
use etcd::wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
    WatchCreateRequest, compare::TargetUnion, range_request::SortTarget, request_op::Request,
};
use world::sim::SimRandom;

use crate::server::Generation;

/// Bytes that are easy to get wrong are among them.
const KEYS: [&[u8]; 9] = [b"a", b"a/", b"a/b", b"a/c", b"a0", b"b", b"\0", b"\xff", b"a\0"];

pub enum Asked {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases(LeaseLeasesRequest),
    HashKv(HashKvRequest),
    Watch(Watching),
}

pub struct Watching {
    pub request: WatchCreateRequest,
}

pub struct Asker {
    random: SimRandom,
    theirs: Generation,
    pub revision: i64,
    pub compacted: i64,
}

impl Asker {
    pub fn new(seed: u64, revision: i64, compacted: i64, theirs: Generation) -> Asker {
        Asker {
            random: SimRandom::new(seed),
            theirs,
            revision,
            compacted,
        }
    }

    pub fn saw(&mut self, header: Option<ResponseHeader>) {
        self.revision = header.map_or(self.revision, |header| header.revision);
    }

    pub fn ask(&mut self) -> Asked {
        match self.random.below(40) {
            0..=10 => Asked::Put(self.put()),
            11..=18 => Asked::Range(self.range(true)),
            19..=22 => Asked::Delete(self.delete()),
            23..=30 => Asked::Txn(self.txn(0)),
            31 => Asked::Compact(CompactionRequest {
                // An etcd takes its first compaction at 0 for one.
                revision: self.near().max(i64::from(self.compacted == 0)),
                physical: self.random.chance(50),
            }),
            32 | 33 => Asked::Grant(LeaseGrantRequest {
                id: self.lease(),
                // Long ones: the two don't end a lease in the same moment.
                ttl: self.one_of(&[60, 3600, 3600, 9_000_000_001]),
            }),
            34 => Asked::Revoke(LeaseRevokeRequest { id: self.lease() }),
            35 => Asked::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.random.chance(70),
            }),
            36 if self.random.chance(50) => Asked::Leases(LeaseLeasesRequest {}),
            36 | 37 => Asked::HashKv(HashKvRequest {
                revision: match self.one_of(&[0, self.near(), self.near(), -1]) {
                    // 3.6 keeps hashes that it made when it compacted, and answers them after that.
                    kept if self.theirs == Generation::From36 && kept <= self.compacted => 0,
                    // Before that the one that was compacted last is gone, too.
                    last if self.theirs == Generation::Before36 && last == self.compacted => 0,
                    revision => revision,
                },
            }),
            _ => Asked::Watch(self.watch()),
        }
    }

    fn one_of<T: Clone>(&self, all: &[T]) -> T {
        all[self.random.below(all.len() as u64) as usize].clone()
    }

    fn key(&self) -> Bytes {
        if self.random.chance(2) {
            return Bytes::new();
        }
        Bytes::from_static(self.one_of(&KEYS))
    }

    fn end(&self) -> Bytes {
        match self.random.below(8) {
            0..=3 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            5 => self.key(),
            _ => Bytes::from_static(self.one_of(&[b"b", b"a0", b"a1", b"c"])),
        }
    }

    fn near(&self) -> i64 {
        let near = self.revision - self.random.below(14) as i64 + self.random.below(3) as i64;
        near.max(0)
    }

    fn lease(&self) -> i64 {
        1 + self.random.below(4) as i64
    }

    fn value(&self) -> Bytes {
        self.one_of(&["", "1", "2", "3"]).into()
    }

    fn put(&self) -> PutRequest {
        PutRequest {
            key: self.key(),
            value: self.value(),
            lease: if self.random.chance(25) { self.lease() } else { 0 },
            prev_kv: self.random.chance(30),
            ignore_value: self.random.chance(8),
            ignore_lease: self.random.chance(8),
        }
    }

    fn delete(&self) -> DeleteRangeRequest {
        DeleteRangeRequest {
            key: self.key(),
            range_end: self.end(),
            prev_kv: self.random.chance(50),
        }
    }

    /// Which of several equal ones comes first is nobody's promise, so that only keys are ordered where a limit cuts.
    fn range(&self, anything: bool) -> RangeRequest {
        // Orders that there are not: 3.4 takes them for none, 3.6 refuses them.
        let unknown = u64::from(self.theirs == Generation::From36);
        let target = if anything && self.random.chance(25) {
            self.random.below(5 + unknown) as i32
        } else {
            0
        };
        let by_key = target == SortTarget::Key as i32;
        let bound = |chance| if self.random.chance(chance) { self.near() } else { 0 };
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if by_key && self.random.chance(30) {
                self.random.below(4) as i64 - 1
            } else {
                0
            },
            revision: if self.random.chance(30) { self.near() } else { 0 },
            sort_order: if self.random.chance(30) {
                self.random.below(3 + unknown) as i32
            } else {
                0
            },
            sort_target: target,
            serializable: self.random.chance(20),
            keys_only: self.random.chance(15),
            count_only: self.random.chance(15),
            min_mod_revision: bound(6),
            max_mod_revision: bound(6),
            min_create_revision: bound(6),
            max_create_revision: bound(6),
        }
    }

    fn compare(&self) -> Compare {
        let number = self.one_of(&[0, 1, 2, self.near(), self.near(), -1]);
        let (target, union) = match self.random.below(5) {
            0 => (0, TargetUnion::Version(self.one_of(&[0, 1, 2, -1]))),
            1 => (1, TargetUnion::CreateRevision(number)),
            2 => (2, TargetUnion::ModRevision(number)),
            3 => (3, TargetUnion::Value(self.value())),
            _ => (4, TargetUnion::Lease(self.one_of(&[0, self.lease()]))),
        };
        Compare {
            result: self.random.below(4) as i32,
            target,
            key: self.key(),
            range_end: if self.random.chance(25) {
                self.end()
            } else {
                Bytes::new()
            },
            target_union: self.random.chance(95).then_some(union),
        }
    }

    fn op(&self, depth: u32) -> RequestOp {
        let request = match self.random.below(10) {
            0..=4 => Request::RequestPut(self.put()),
            5 | 6 => {
                let mut delete = self.delete();
                if &delete.range_end[..] == b"\0" {
                    // etcd's rule of duplicate keys takes this end for a key, and lets a transaction put what it deletes.
                    delete.range_end = Bytes::new();
                }
                Request::RequestDeleteRange(delete)
            }
            7 if depth < 3 => Request::RequestTxn(self.txn(depth + 1)),
            _ => Request::RequestRange(self.range(false)),
        };
        RequestOp { request: Some(request) }
    }

    fn txn(&self, depth: u32) -> TxnRequest {
        let some = |limit| 0..self.random.below(limit);
        TxnRequest {
            compare: some(3).map(|_| self.compare()).collect(),
            success: some(4).map(|_| self.op(depth)).collect(),
            failure: some(3).map(|_| self.op(depth)).collect(),
        }
    }

    fn watch(&self) -> Watching {
        let key = Bytes::from_static(self.one_of(&KEYS));
        // It has to see the key that ends it.
        let end = match self.random.below(4) {
            0 => Bytes::from_static(b"\0"),
            1 => [&key[..], b"\xff"].concat().into(),
            _ => Bytes::new(),
        };
        Watching {
            request: WatchCreateRequest {
                key,
                range_end: end,
                start_revision: if self.random.chance(80) {
                    match self.near().clamp(0, self.revision + 1) {
                        // Before 3.6 a deletion of that revision is gone with what was before it.
                        last if self.theirs == Generation::Before36 && last == self.compacted => last + 1,
                        start => start,
                    }
                } else {
                    0
                },
                prev_kv: self.random.chance(50),
                filters: match self.random.below(6) {
                    0 => vec![0],
                    1 => vec![1],
                    _ => vec![],
                },
                fragment: self.random.chance(20),
                watch_id: self.one_of(&[0, 0, 7]),
                progress_notify: self.random.chance(20),
            },
        }
    }
}
