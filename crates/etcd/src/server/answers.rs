//! What a keyspace says, in etcd's messages.

use keyspace::{KeyValue, OpResult, Ranged, Revision, Txned};

use super::{order::Order, read::Shape};
use crate::wire::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse, response_op::Response,
    },
    mvccpb,
};

pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0 as i64,
        mod_revision: kv.mod_revision.0 as i64,
        version: kv.version as i64,
        value: kv.value,
        lease: kv.lease.map_or(0, |lease| lease.0),
    }
}

pub fn range(header: ResponseHeader, mut ranged: Ranged, order: &Order) -> RangeResponse {
    order.apply(&mut ranged);
    RangeResponse {
        header: Some(header),
        kvs: ranged.items.into_iter().map(key_value).collect(),
        more: ranged.more,
        count: ranged.count as i64,
    }
}

pub fn put(header: ResponseHeader, result: Option<OpResult>) -> PutResponse {
    let previous = match result {
        Some(OpResult::Put { previous }) => previous,
        _ => None,
    };
    PutResponse {
        header: Some(header),
        prev_kv: previous.map(key_value),
    }
}

pub fn delete(header: ResponseHeader, result: Option<OpResult>) -> DeleteRangeResponse {
    let (deleted, previous) = match result {
        Some(OpResult::Delete { deleted, previous }) => (deleted, previous),
        _ => (0, Vec::new()),
    };
    DeleteRangeResponse {
        header: Some(header),
        deleted: deleted as i64,
        prev_kvs: previous.into_iter().map(key_value).collect(),
    }
}

pub fn txn(header: ResponseHeader, txned: Txned, shape: &Shape) -> TxnResponse {
    let mut now = txned.revision;
    if changes(&txned) {
        now = Revision(now.0 - 1);
    }
    let succeeded = txned.succeeded;
    TxnResponse {
        succeeded,
        responses: ops(txned, shape, &mut now),
        header: Some(header),
    }
}

fn changes(txned: &Txned) -> bool {
    txned.results.iter().any(|result| match result {
        OpResult::Range(_) => false,
        OpResult::Put { .. } => true,
        OpResult::Delete { deleted, .. } => *deleted > 0,
        OpResult::Txn(nested) => changes(nested),
    })
}

/// `now` is the revision that an operation finds: the transaction's own from its first change on.
fn ops(txned: Txned, shape: &Shape, now: &mut Revision) -> Vec<ResponseOp> {
    let revision = txned.revision;
    let shapes = match shape {
        Shape::Txn { success, .. } if txned.succeeded => success,
        Shape::Txn { failure, .. } => failure,
        _ => return Vec::new(),
    };
    let header = |revision: Revision| ResponseHeader {
        revision: revision.0 as i64,
        ..ResponseHeader::default()
    };
    let results = txned.results.into_iter().zip(shapes);
    results
        .map(|(result, shape)| ResponseOp {
            response: Some(match result {
                OpResult::Range(ranged) => {
                    let plain = Order::default();
                    let order = if let Shape::Range(order) = shape { order } else { &plain };
                    Response::ResponseRange(range(header(*now), ranged, order))
                }
                OpResult::Put { .. } => {
                    *now = revision;
                    Response::ResponsePut(put(header(*now), Some(result)))
                }
                OpResult::Delete { deleted, .. } => {
                    if deleted > 0 {
                        *now = revision;
                    }
                    Response::ResponseDeleteRange(delete(header(*now), Some(result)))
                }
                OpResult::Txn(nested) => Response::ResponseTxn(TxnResponse {
                    // etcd fills in only the outermost.
                    header: Some(ResponseHeader::default()),
                    succeeded: nested.succeeded,
                    responses: ops(nested, shape, now),
                }),
            }),
        })
        .collect()
}
