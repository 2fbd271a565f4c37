//! What may differ between ours and a real etcd, and more if that one is older than 3.6.
#![allow(dead_code, reason = "each test uses its part")]

use etcd::wire::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseLeasesResponse,
    LeaseRevokeResponse, LeaseTimeToLiveResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse,
};

use crate::server::Generation;

pub trait Masked {
    fn masked(self, theirs: Generation) -> Self;
}

/// Before 3.6 all puts of a transaction are checked before its ranges are, from then on operation by operation: of several
/// errors it tells another one.
pub fn refused_transaction(message: &str) -> bool {
    [
        "etcdserver: key not found",
        "etcdserver: requested lease not found",
        "etcdserver: mvcc: required revision has been compacted",
        "etcdserver: mvcc: required revision is a future revision",
    ]
    .contains(&message)
}

/// Who answers is not what is answered.
fn header(header: Option<ResponseHeader>) -> Option<ResponseHeader> {
    header.map(|header| ResponseHeader {
        cluster_id: 0,
        member_id: 0,
        raft_term: 0,
        ..header
    })
}

macro_rules! header_only {
    ($($answer:ty),*) => {
        $(impl Masked for $answer {
            fn masked(mut self, _: Generation) -> Self {
                self.header = header(self.header);
                self
            }
        })*
    };
}

header_only!(
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseRevokeResponse
);

impl Masked for RangeResponse {
    fn masked(mut self, _: Generation) -> Self {
        // Those that are equal by what they are ordered by come in any order.
        self.kvs.sort_by(|one, other| one.key.cmp(&other.key));
        Self {
            header: header(self.header),
            ..self
        }
    }
}

impl Masked for LeaseTimeToLiveResponse {
    fn masked(mut self, _: Generation) -> Self {
        self.keys.sort();
        Self {
            header: header(self.header),
            // A second may pass between two answers; whether it is there shows.
            ttl: self.ttl.min(0),
            ..self
        }
    }
}

impl Masked for LeaseLeasesResponse {
    fn masked(mut self, _: Generation) -> Self {
        // They come by their ends, and equal ones in any order.
        self.leases.sort_by_key(|lease| lease.id);
        Self {
            header: header(self.header),
            ..self
        }
    }
}

impl Masked for HashKvResponse {
    fn masked(self, theirs: Generation) -> Self {
        Self {
            header: header(self.header),
            hash_revision: match theirs {
                Generation::Before36 => 0,
                Generation::From36 => self.hash_revision,
            },
            ..self
        }
    }
}
