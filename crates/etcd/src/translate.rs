//! The words of a keyspace in etcd's, and back.

use std::ops::Bound;

use bytes::Bytes;
use etcd_client as etcd;
use keyspace::{
    Comparand, Compare, Content, KeyRange, KeyValue, LeaseId, Op, OpResult, Previous, Put, Range, Ranged, Relation,
    Revision, Txn, Txned,
};

/// Where the keyspace's keys lie in etcd.
#[derive(Clone, Debug)]
pub(crate) struct Prefix(Vec<u8>);

/// etcd's way to say "to the end of all keys".
const TO_THE_END: &[u8] = b"\0";

/// A key in etcd and the end of the range, as etcd has them: an empty end is the one key.
pub(crate) type EtcdRange = (Vec<u8>, Vec<u8>);

impl Prefix {
    pub fn new(prefix: Vec<u8>) -> Prefix {
        Prefix(prefix)
    }

    pub fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.0, key].concat()
    }

    /// The key as the keyspace has it; `None` if it is none of its keys.
    pub fn strip<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        let key = key.strip_prefix(self.0.as_slice())?;
        // Without a prefix, the first key is the bookmark.
        (!self.0.is_empty() || key != self.bookmark()).then_some(key)
    }

    /// The key that is put to see how far a watch has got: behind the keyspace's keys, or the first one if all keys are
    /// the keyspace's.
    pub fn bookmark(&self) -> Vec<u8> {
        match self.end() {
            None => TO_THE_END.to_vec(),
            Some(end) => [&end[..], b"\0mangrove-bookmark"].concat(),
        }
    }

    /// The first key behind all of the keyspace; `None` if all keys are the keyspace's.
    fn end(&self) -> Option<Vec<u8>> {
        match KeyRange::prefix(self.0.clone()).end {
            Bound::Excluded(end) => Some(end.into()),
            _ => None,
        }
    }

    /// All of the keyspace, and the bookmark.
    pub fn with_bookmark(&self) -> EtcdRange {
        match self.end() {
            None => (TO_THE_END.to_vec(), TO_THE_END.to_vec()),
            Some(_) => (self.0.clone(), [&self.bookmark()[..], b"\0"].concat()),
        }
    }

    pub fn range(&self, keys: &KeyRange) -> EtcdRange {
        let one = matches!(&keys.end, Bound::Included(end) if *end == keys.start);
        if one {
            return (self.key(&keys.start), Vec::new());
        }
        let empty = match &keys.end {
            Bound::Included(end) => *end < keys.start,
            Bound::Excluded(end) => *end <= keys.start,
            Bound::Unbounded => false,
        };
        let mut start = self.key(&keys.start);
        let mut end = match &keys.end {
            Bound::Included(end) => [&self.key(end)[..], b"\0"].concat(),
            Bound::Excluded(end) => self.key(end),
            Bound::Unbounded => self.end().unwrap_or(TO_THE_END.to_vec()),
        };
        if self.0.is_empty() {
            // Not the bookmark; and an end that etcd would take for "all" is the end of nothing.
            start = start.max(b"\0\0".to_vec());
            if keys.end != Bound::Unbounded && end <= start {
                end = start.clone();
            }
        }
        if empty {
            end = start.clone();
        }
        (start, end)
    }

    pub fn get(&self, range: &Range) -> (Vec<u8>, etcd::GetOptions) {
        let (key, end) = self.range(&range.keys);
        let mut options = etcd::GetOptions::new();
        if !end.is_empty() {
            options = options.with_range(end);
        }
        if let Some(revision) = range.revision {
            options = options.with_revision(revision.0 as i64);
        }
        options = match (range.content, range.limit) {
            (Content::CountOnly, _) | (_, Some(0)) => options.with_count_only(),
            (_, Some(limit)) => options.with_limit(limit as i64),
            (_, None) => options,
        };
        if range.content == Content::KeysOnly {
            options = options.with_keys_only();
        }
        (key, options)
    }

    pub fn ranged(&self, range: &Range, mut answer: etcd::GetResponse) -> Ranged {
        let count = answer.count() as usize;
        let limit_is_none = range.limit == Some(0) && range.content != Content::CountOnly;
        Ranged {
            revision: answer
                .header()
                .map_or(Revision(0), |header| Revision(header.revision() as u64)),
            more: answer.more() || limit_is_none && count > 0,
            items: answer
                .take_kvs()
                .into_iter()
                .filter_map(|kv| self.key_value(kv))
                .collect(),
            count,
        }
    }

    /// `None` for what is none of the keyspace's.
    pub fn key_value(&self, kv: etcd::KeyValue) -> Option<KeyValue> {
        let (create_revision, mod_revision) = (kv.create_revision(), kv.mod_revision());
        let (version, lease) = (kv.version(), kv.lease());
        let (key, value) = kv.into_key_value();
        self.strip(&key)?;
        Some(KeyValue {
            key: Bytes::from(key).slice(self.0.len()..),
            value: value.into(),
            create_revision: Revision(create_revision as u64),
            mod_revision: Revision(mod_revision as u64),
            version: version as u64,
            lease: (lease != 0).then_some(LeaseId(lease)),
        })
    }

    pub fn txn(&self, txn: &Txn) -> etcd::Txn {
        let compares: Vec<_> = txn.compares.iter().map(|compare| self.compare(compare)).collect();
        let ops = |ops: &[Op]| ops.iter().map(|op| self.op(op)).collect::<Vec<_>>();
        etcd::Txn::new()
            .when(compares)
            .and_then(ops(&txn.success))
            .or_else(ops(&txn.failure))
    }

    fn compare(&self, compare: &Compare) -> etcd::Compare {
        let (key, end) = self.range(&compare.keys);
        let relation = match compare.relation {
            Relation::Equal => etcd::CompareOp::Equal,
            Relation::NotEqual => etcd::CompareOp::NotEqual,
            Relation::Greater => etcd::CompareOp::Greater,
            Relation::Less => etcd::CompareOp::Less,
        };
        let told = match &compare.comparand {
            Comparand::ModRevision(revision) => etcd::Compare::mod_revision(key, relation, revision.0 as i64),
            Comparand::CreateRevision(revision) => etcd::Compare::create_revision(key, relation, revision.0 as i64),
            Comparand::Version(version) => etcd::Compare::version(key, relation, *version as i64),
            Comparand::Value(value) => etcd::Compare::value(key, relation, value.to_vec()),
            Comparand::Lease(lease) => etcd::Compare::lease(key, relation, lease.map_or(0, |lease| lease.0)),
        };
        if end.is_empty() { told } else { told.with_range(end) }
    }

    fn op(&self, op: &Op) -> etcd::TxnOp {
        match op {
            Op::Range(range) => {
                let (key, options) = self.get(range);
                etcd::TxnOp::get(key, Some(options))
            }
            Op::Put(put) => etcd::TxnOp::put(self.key(&put.key), put.value.to_vec(), Some(put_options(put))),
            Op::Delete { keys, previous } => {
                let (key, end) = self.range(keys);
                let mut options = etcd::DeleteOptions::new();
                if !end.is_empty() {
                    options = options.with_range(end);
                }
                if *previous == Previous::Return {
                    options = options.with_prev_key();
                }
                etcd::TxnOp::delete(key, Some(options))
            }
            Op::Txn(nested) => etcd::TxnOp::txn(self.txn(nested)),
        }
    }

    /// `None` if the answer is not one to this transaction.
    pub fn txned(&self, txn: &Txn, revision: Revision, answer: &etcd::TxnResponse) -> Option<Txned> {
        let succeeded = answer.succeeded();
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let answers = answer.op_responses();
        if answers.len() != ops.len() {
            return None;
        }
        let mut results = Vec::with_capacity(ops.len());
        for (op, answer) in ops.iter().zip(answers) {
            results.push(match (op, answer) {
                (Op::Range(range), etcd::TxnOpResponse::Get(answer)) => {
                    let mut ranged = self.ranged(range, answer);
                    ranged.revision = revision;
                    OpResult::Range(ranged)
                }
                (Op::Put(_), etcd::TxnOpResponse::Put(mut answer)) => OpResult::Put {
                    previous: answer.take_prev_key().and_then(|kv| self.key_value(kv)),
                },
                (Op::Delete { .. }, etcd::TxnOpResponse::Delete(mut answer)) => OpResult::Delete {
                    deleted: answer.deleted() as usize,
                    previous: (answer.take_prev_kvs().into_iter())
                        .filter_map(|kv| self.key_value(kv))
                        .collect(),
                },
                (Op::Txn(nested), etcd::TxnOpResponse::Txn(answer)) => {
                    OpResult::Txn(self.txned(nested, revision, &answer)?)
                }
                _ => return None,
            });
        }
        Some(Txned {
            revision,
            succeeded,
            results,
        })
    }
}

fn put_options(put: &Put) -> etcd::PutOptions {
    let mut options = etcd::PutOptions::new();
    if let Some(lease) = put.lease {
        options = options.with_lease(lease.0);
    }
    if put.previous == Previous::Return {
        options = options.with_prev_key();
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: &[u8], keys: KeyRange) -> (Vec<u8>, Vec<u8>) {
        Prefix::new(prefix.to_vec()).range(&keys)
    }

    fn pair(start: &[u8], end: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (start.to_vec(), end.to_vec())
    }

    #[test]
    fn ranges_stay_inside_the_prefix() {
        let unbounded = KeyRange {
            start: "b".into(),
            end: Bound::Unbounded,
        };
        assert_eq!(range(b"/p/", KeyRange::one("a")), pair(b"/p/a", b""));
        assert_eq!(range(b"/p/", KeyRange::prefix("")), pair(b"/p/", b"/p0"));
        assert_eq!(range(b"/p/", KeyRange::prefix("a")), pair(b"/p/a", b"/p/b"));
        assert_eq!(range(b"/p/", KeyRange::prefix(&b"\xff"[..])), pair(b"/p/\xff", b"/p0"));
        assert_eq!(range(b"/p/", unbounded.clone()), pair(b"/p/b", b"/p0"));
        assert_eq!(range(b"/p/", KeyRange::between("b", "a")), pair(b"/p/b", b"/p/b"));
        assert_eq!(range(b"/p\xff", KeyRange::prefix("")), pair(b"/p\xff", b"/q"));
        assert_eq!(range(b"", KeyRange::prefix("")), pair(b"\0\0", b"\0"));
        assert_eq!(range(b"", unbounded), pair(b"b", b"\0"));
        assert_eq!(range(b"", KeyRange::between("", &b"\0"[..])), pair(b"\0\0", b"\0\0"));
        assert_eq!(range(b"", KeyRange::between("a", "")), pair(b"a", b"a"));
    }

    #[test]
    fn the_bookmark_is_watched_and_not_seen() {
        for prefix in [&b"/p/"[..], b"", b"/p\xff"] {
            let prefix = Prefix::new(prefix.to_vec());
            let (start, end) = prefix.with_bookmark();
            let bookmark = prefix.bookmark();
            assert!(bookmark >= start && (bookmark < end || end == TO_THE_END));
            assert_eq!(prefix.strip(&bookmark), None);
            let (start, end) = prefix.range(&KeyRange::prefix(""));
            assert!(bookmark < start || bookmark >= end && end != TO_THE_END);
        }
    }
}
