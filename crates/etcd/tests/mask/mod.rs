//! What may differ between ours and Debian's etcd 3.4.23.
#![allow(dead_code, reason = "each test uses its part")]

use etcd::wire::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseLeasesResponse,
    LeaseRevokeResponse, LeaseTimeToLiveResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse,
};

pub trait Masked {
    fn masked(self) -> Self;
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
            fn masked(mut self) -> Self {
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
    fn masked(mut self) -> Self {
        // Those that are equal by what they are ordered by come in any order.
        self.kvs.sort_by(|one, other| one.key.cmp(&other.key));
        Self {
            header: header(self.header),
            ..self
        }
    }
}

impl Masked for LeaseTimeToLiveResponse {
    fn masked(mut self) -> Self {
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
    fn masked(mut self) -> Self {
        // They come by their ends, and equal ones in any order.
        self.leases.sort_by_key(|lease| lease.id);
        Self {
            header: header(self.header),
            ..self
        }
    }
}

impl Masked for HashKvResponse {
    fn masked(self) -> Self {
        Self {
            header: header(self.header),
            // Not there before 3.6.
            hash_revision: 0,
            ..self
        }
    }
}
