//! Requests in the words of a keyspace, refused as etcd refuses them and in the same order
//! (`api/v3rpc/key.go`, `etcdserver/txn`).

use std::ops::Bound;

use bytes::Bytes;
use keyspace::{
    Comparand, Compare, Content, Keep, KeyRange, LeaseId, Op, Previous, Put, Range, Relation, Revision, Txn,
};

use super::{
    order::Order,
    status::{self, Code, Status},
};
use crate::wire::etcdserverpb::{
    Compare as WireCompare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

/// What of a request its answer depends on besides what the keyspace says.
#[derive(Clone, PartialEq, Debug)]
pub enum Shape {
    Range(Order),
    Put,
    Delete,
    Txn { success: Vec<Shape>, failure: Vec<Shape> },
}

/// A key and the end of its range, as etcd has them.
pub fn keys(key: Bytes, end: Bytes) -> KeyRange {
    let end = match &end[..] {
        b"" => Bound::Included(key.clone()),
        b"\0" => Bound::Unbounded,
        _ => Bound::Excluded(end),
    };
    KeyRange { start: key, end }
}

fn given(key: &Bytes) -> Result<(), Status> {
    if key.is_empty() { Err(status::EMPTY_KEY) } else { Ok(()) }
}

fn previous(wanted: bool) -> Previous {
    if wanted { Previous::Return } else { Previous::Omit }
}

fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then_some(LeaseId(id))
}

pub fn range(request: RangeRequest) -> Result<(Range, Order), Status> {
    given(&request.key)?;
    let order = Order::of(&request)?;
    let content = match (request.count_only, request.keys_only) {
        (true, _) => Content::CountOnly,
        (_, true) if order.needs_values() => Content::Full,
        (_, true) => Content::KeysOnly,
        _ => Content::Full,
    };
    let range = Range {
        limit: order.limit_before(),
        revision: (request.revision > 0).then_some(Revision(request.revision as u64)),
        keys: keys(request.key, request.range_end),
        content,
    };
    Ok((range, order))
}

pub fn put(request: PutRequest) -> Result<Put, Status> {
    given(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::LEASE_PROVIDED);
    }
    Ok(Put {
        key: request.key,
        value: request.value,
        lease: lease(request.lease),
        previous: previous(request.prev_kv),
        keep: match (request.ignore_value, request.ignore_lease) {
            (false, false) => Keep::Nothing,
            (true, false) => Keep::Value,
            (false, true) => Keep::Lease,
            (true, true) => Keep::Both,
        },
    })
}

pub fn delete(request: DeleteRangeRequest) -> Result<Op, Status> {
    given(&request.key)?;
    Ok(Op::Delete {
        keys: keys(request.key, request.range_end),
        previous: previous(request.prev_kv),
    })
}

/// With at most `budget` operations.
pub fn txn(request: TxnRequest, budget: usize) -> Result<(Txn, Shape), Status> {
    let count = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if count > budget {
        return Err(status::TOO_MANY_OPS);
    }
    for compare in &request.compare {
        given(&compare.key)?;
    }
    let compares = request.compare.into_iter().map(compare).collect::<Result<_, _>>()?;
    let (success, success_shape) = ops(request.success, budget - count)?;
    let (failure, failure_shape) = ops(request.failure, budget - count)?;
    let txn = Txn {
        compares,
        success,
        failure,
    };
    let shape = Shape::Txn {
        success: success_shape,
        failure: failure_shape,
    };
    Ok((txn, shape))
}

fn ops(requests: Vec<RequestOp>, budget: usize) -> Result<(Vec<Op>, Vec<Shape>), Status> {
    let mut ops = Vec::with_capacity(requests.len());
    let mut shapes = Vec::with_capacity(requests.len());
    for request in requests {
        let (op, shape) = match request.request.ok_or(status::KEY_NOT_FOUND)? {
            Request::RequestRange(request) => {
                let (range, order) = range(request)?;
                (Op::Range(range), Shape::Range(order))
            }
            Request::RequestPut(request) => (Op::Put(put(request)?), Shape::Put),
            Request::RequestDeleteRange(request) => (delete(request)?, Shape::Delete),
            Request::RequestTxn(request) => {
                let (nested, shape) = txn(request, budget)?;
                (Op::Txn(Box::new(nested)), shape)
            }
        };
        ops.push(op);
        shapes.push(shape);
    }
    Ok((ops, shapes))
}

fn compare(request: WireCompare) -> Result<Compare, Status> {
    let unknown = || Status::of(Code::InvalidArgument, "etcdserver: unknown compare");
    let target = CompareTarget::try_from(request.target).map_err(|_| unknown())?;
    let mut relation = match CompareResult::try_from(request.result).map_err(|_| unknown())? {
        CompareResult::Equal => Relation::Equal,
        CompareResult::NotEqual => Relation::NotEqual,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
    };
    // What is given for another target counts as nothing.
    let number = match (target, &request.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number))) => *number,
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => *number,
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => *number,
        (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    };
    let value = match request.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => Bytes::new(),
    };
    let comparand = |number: u64| match target {
        CompareTarget::Version => Comparand::Version(number),
        CompareTarget::Create => Comparand::CreateRevision(Revision(number)),
        _ => Comparand::ModRevision(Revision(number)),
    };
    let comparand = match target {
        CompareTarget::Value => Comparand::Value(value),
        CompareTarget::Lease => Comparand::Lease(lease(number)),
        _ if number < 0 => {
            // Every number that a keyspace counts is above it.
            relation = match relation {
                Relation::Greater | Relation::NotEqual => Relation::NotEqual,
                Relation::Less | Relation::Equal => Relation::Equal,
            };
            comparand(u64::MAX)
        }
        _ => comparand(number as u64),
    };
    Ok(Compare {
        keys: keys(request.key, request.range_end),
        relation,
        comparand,
    })
}
