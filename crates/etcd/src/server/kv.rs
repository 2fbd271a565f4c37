//! The service `etcdserverpb.KV`.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use keyspace::{Content, KeyRange, Op, Options, Range, Ranged, Revision, Txn, check};
use prost::Message;

use super::{
    answers,
    auth::{self, Caller},
    grpc::{Outgoing, framed},
    member::Member,
    order::Order,
    read,
    status::{self, Code, Status},
};
use crate::wire::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};

/// As etcd's: it begins with few keys, so that the first come soon, and then aims at messages of this size.
const STREAM_KEYS_FIRST: usize = 10;
const STREAM_BYTES: usize = 3 << 19;

impl Member {
    pub(super) fn range(&self, request: RangeRequest, caller: &Caller) -> Result<RangeResponse, Status> {
        let (range, order) = read::range(request)?;
        auth::reads(self, caller, &range.keys)?;
        let ranged = self.view().range(&range)?;
        self.metrics.ranges.add(1);
        Ok(answers::range(self.header_at(ranged.revision), ranged, &order))
    }

    pub(super) async fn put(&self, request: PutRequest, caller: &Caller) -> Result<PutResponse, Status> {
        let bytes = request.encoded_len();
        let put = read::put(request)?;
        auth::puts(self, caller, &put)?;
        self.fits(bytes)?;
        self.has_room()?;
        let lease = put.lease;
        let txn = Txn {
            success: vec![Op::Put(put)],
            ..Txn::default()
        };
        let mut txned = match (self.write(txn).await, lease) {
            // Of two things that are wrong at once, etcd tells the lease of a put by itself, and the key in a transaction.
            (Err(refused), Some(id)) if refused == status::KEY_NOT_FOUND => {
                self.keyspace.lease_state(id).await?;
                return Err(refused);
            }
            (answer, _) => answer?,
        };
        Ok(answers::put(self.header_at(txned.revision), txned.results.pop()))
    }

    pub(super) async fn delete(
        &self,
        request: DeleteRangeRequest,
        caller: &Caller,
    ) -> Result<DeleteRangeResponse, Status> {
        self.fits(request.encoded_len())?;
        let op = read::delete(request)?;
        auth::writes(self, caller, &op)?;
        let txn = Txn {
            success: vec![op],
            ..Txn::default()
        };
        let mut txned = self.write(txn).await?;
        Ok(answers::delete(self.header_at(txned.revision), txned.results.pop()))
    }

    pub(super) async fn txn(&self, request: TxnRequest, caller: &Caller) -> Result<TxnResponse, Status> {
        let bytes = request.encoded_len();
        let (txn, shape) = read::txn(request, self.options.txn_ops_max)?;
        check::txn_within(&txn, self.options.txn_ops_max)?;
        auth::transacts(self, caller, &txn)?;
        self.fits(bytes)?;
        if puts(&txn) {
            self.has_room()?;
        }
        let txned = self.write(txn).await?;
        Ok(answers::txn(self.header_at(txned.revision), txned, &shape))
    }

    pub(super) async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        self.is_sound()?;
        let revision = match u64::try_from(request.revision) {
            // There is nothing before it.
            Ok(0) if self.view().read().compacted() == Revision(0) => None,
            Ok(revision) => Some(Revision(revision)),
            Err(_) => return Err(status::COMPACTED),
        };
        match revision {
            Some(revision) if request.physical => self.keyspace.compact(revision, Options::default()).await?,
            Some(revision) => self.keyspace.begin_compaction(revision).await?,
            None => {}
        }
        Ok(CompactionResponse {
            header: Some(self.header()),
        })
    }

    /// The same answer in pieces, all at one revision.
    pub(super) fn range_stream(self: &Arc<Member>, request: RangeRequest, caller: &Caller) -> Result<Outgoing, Status> {
        let (range, order) = read::range(request)?;
        auth::reads(self, caller, &range.keys)?;
        if !order.is_plain() {
            let what = "etcdserver: a range is streamed neither ordered nor filtered";
            return Err(Status::of(Code::Unimplemented, what));
        }
        let first = self.view().range(&Range {
            content: Content::CountOnly,
            ..range.clone()
        })?;
        let state = Streaming {
            member: self.clone(),
            left: range.limit.unwrap_or(usize::MAX),
            range: Range {
                revision: Some(range.revision.unwrap_or(first.revision)),
                ..range
            },
            count: first.count,
            keys: STREAM_KEYS_FIRST,
            order,
            sent: 0,
            done: false,
        };
        Ok(Box::pin(stream::unfold(state, |mut state| async move {
            if state.done {
                return None;
            }
            let piece = state.next();
            state.member.note(&piece).await;
            state.done |= piece.is_err();
            Some((piece, state))
        })))
    }
}

struct Streaming {
    member: Arc<Member>,
    range: Range,
    order: Order,
    left: usize,
    count: usize,
    keys: usize,
    sent: usize,
    done: bool,
}

impl Streaming {
    fn next(&mut self) -> Result<Bytes, Status> {
        let limit = self.keys.min(self.left);
        let ranged = self.member.view().page(&Range {
            limit: Some(limit),
            ..self.range.clone()
        })?;
        let bytes: usize = ranged.items.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        match bytes {
            0..=STREAM_BYTES if bytes < STREAM_BYTES / 2 => self.keys = self.keys.saturating_mul(2),
            0..=STREAM_BYTES => {}
            _ => self.keys = (self.keys / 2).max(1),
        }
        self.left -= ranged.items.len();
        self.sent += ranged.items.len();
        if let Some(last) = ranged.items.last() {
            let start: Bytes = [&last.key[..], b"\0"].concat().into();
            self.range.keys = KeyRange {
                start,
                end: std::mem::replace(&mut self.range.keys.end, std::ops::Bound::Unbounded),
            };
        }
        let counts_only = self.range.content == Content::CountOnly;
        let no_more = counts_only
            || !ranged.more
            || self.left == 0
            || matches!(self.range.keys.end, std::ops::Bound::Included(_));
        self.done = no_more;
        let Ranged { revision, .. } = ranged;
        let mut piece = answers::range(self.member.header_at(revision), ranged, &Order::default());
        piece.more = no_more && !counts_only && self.count > self.sent;
        piece.count = if no_more { self.count as i64 } else { 0 };
        if !no_more {
            piece.header = None;
        }
        if self.order.is_keys_only() {
            piece.kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(framed(&RangeStreamResponse {
            range_response: Some(piece),
        }))
    }
}

fn puts(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(nested) => puts(nested),
        Op::Range(_) | Op::Delete { .. } => false,
    })
}
