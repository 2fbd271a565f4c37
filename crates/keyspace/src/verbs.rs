//! The verbs and their types. Semantics are etcd v3's, to the letter (etcd `api/v3rpc`, `server/storage/mvcc`).

use std::{ops::Bound, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A keyspace's own counter: 1 when empty, +1 for each transaction that changes something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease; 0 is never one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(pub i64);

/// One key's state at a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Number of puts since the key was last created; 1 for the first.
    pub version: u64,
    pub lease: Option<LeaseId>,
}

/// A half-open range of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    pub start: Bytes,
    /// `Excluded` for `[start, end)`, `Unbounded` for "all keys >= start", `Included(start)` for the one key.
    pub end: Bound<Bytes>,
}

impl KeyRange {
    pub fn one(key: impl Into<Bytes>) -> KeyRange {
        let key = key.into();
        KeyRange {
            start: key.clone(),
            end: Bound::Included(key),
        }
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start = prefix.into();
        let end = prefix_end(&start).map_or(Bound::Unbounded, Bound::Excluded);
        KeyRange { start, end }
    }

    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange {
            start: start.into(),
            end: Bound::Excluded(end.into()),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref()
            && match &self.end {
                Bound::Included(end) => key <= end.as_ref(),
                Bound::Excluded(end) => key < end.as_ref(),
                Bound::Unbounded => true,
            }
    }
}

/// The first key after all keys that start with `prefix`; `None` if there is none.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// How fresh a read has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// May lag; never goes back on one keyspace handle.
    Serializable,
}

/// What every verb is given besides its arguments.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub consistency: Consistency,
    /// Give up after this long; `None` leaves it to the implementation.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Content {
    #[default]
    Full,
    /// Values are left empty.
    KeysOnly,
    /// No keys at all, only the count.
    CountOnly,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    pub keys: KeyRange,
    /// `None` is the current revision.
    pub revision: Option<Revision>,
    /// `None` is all. The order is always by key, ascending.
    pub limit: Option<usize>,
    pub content: Content,
}

impl Range {
    pub fn of(keys: KeyRange) -> Range {
        Range {
            keys,
            revision: None,
            limit: None,
            content: Content::Full,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranged {
    /// The current revision, not the asked one.
    pub revision: Revision,
    pub items: Vec<KeyValue>,
    /// Keys in the range at that revision, whatever the limit.
    pub count: usize,
    /// The limit cut items off.
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Comparand {
    /// 0 means "absent".
    ModRevision(Revision),
    /// 0 means "absent".
    CreateRevision(Revision),
    /// 0 means "absent".
    Version(u64),
    /// False for an absent key.
    Value(Bytes),
    Lease(Option<LeaseId>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// True if every key of the range (or the absent key, if none is there) stands in `relation` to `comparand`:
/// `stored.field <relation> comparand`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    pub keys: KeyRange,
    pub relation: Relation,
    pub comparand: Comparand,
}

impl Compare {
    /// The key is as it was at `revision`; `Revision(0)` for "absent".
    pub fn unchanged(key: impl Into<Bytes>, revision: Revision) -> Compare {
        Compare {
            keys: KeyRange::one(key),
            relation: Relation::Equal,
            comparand: Comparand::ModRevision(revision),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: Option<LeaseId>,
    pub previous: Previous,
    pub keep: Keep,
}

/// What of the key a put leaves as it is; the key has to be there then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    #[default]
    Nothing,
    /// [`Put::value`] is not looked at.
    Value,
    /// [`Put::lease`] is not looked at.
    Lease,
    Both,
}

/// Whether an answer or event carries what was there before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Previous {
    #[default]
    Omit,
    Return,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Range(Range),
    Put(Put),
    Delete { keys: KeyRange, previous: Previous },
    Txn(Box<Txn>),
}

impl Op {
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::Put(Put {
            key: key.into(),
            value: value.into(),
            lease: None,
            previous: Previous::Omit,
            keep: Keep::Nothing,
        })
    }

    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op::Delete {
            keys: KeyRange::one(key),
            previous: Previous::Omit,
        }
    }

    pub fn get(key: impl Into<Bytes>) -> Op {
        Op::Range(Range::of(KeyRange::one(key)))
    }
}

/// `if all compares hold then success else failure`, atomically. At most [`TXN_OPS_MAX`] of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// etcd's `--max-txn-ops` default.
pub const TXN_OPS_MAX: usize = 128;

/// etcd's `--max-request-bytes` default, 1.5 MiB, is what a real etcd takes; the API's own body limit is 3 MiB.
pub const VALUE_BYTES_MAX: usize = 3 << 20;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpResult {
    Range(Ranged),
    Put { previous: Option<KeyValue> },
    Delete { deleted: usize, previous: Vec<KeyValue> },
    Txn(Txned),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txned {
    /// The revision after the transaction.
    pub revision: Revision,
    pub succeeded: bool,
    pub results: Vec<OpResult>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Put {
        kv: KeyValue,
        /// Absent for creations, and where compaction has taken it.
        previous: Option<KeyValue>,
    },
    Delete {
        key: Bytes,
        revision: Revision,
        previous: Option<KeyValue>,
    },
}

impl Event {
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put { kv, .. } => &kv.key,
            Event::Delete { key, .. } => key,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { kv, .. } => kv.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    pub keys: KeyRange,
    /// First revision to see; `None` is "after the current one".
    pub from: Option<Revision>,
    pub previous: Previous,
}

/// What a watch yields, in order of revision. The stream ends only after an `Err`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// All events of this range at one revision, together.
    Events { revision: Revision, events: Vec<Event> },
    /// Everything up to and including this revision has been yielded. Comes once at the start, with the revision the
    /// watch begins after, and then whenever [`Keyspace::request_progress`] was called (or the source offers it).
    Progress { revision: Revision },
}

pub type WatchStream = BoxStream<'static, Result<Watched, Error>>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    pub id: LeaseId,
    pub ttl: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseState {
    pub granted_ttl: Duration,
    pub remaining: Duration,
    pub keys: Vec<Bytes>,
}

/// What went wrong, by what the caller can do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// List anew and watch from there.
    #[error("revision {wanted} was compacted; the oldest kept is {oldest}")]
    Compacted { wanted: Revision, oldest: Revision },
    /// Ask again when the keyspace has got there.
    #[error("revision {wanted} is in the future; the current one is {current}")]
    Future { wanted: Revision, current: Revision },
    /// The request itself is wrong: never retry it.
    #[error("{0}")]
    Invalid(String),
    #[error("lease {0:?} does not exist")]
    NoLease(LeaseId),
    #[error("lease {0:?} exists already")]
    LeaseExists(LeaseId),
    /// Writes are refused, reads go on: the quota or the disk is full.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// The request had no effect; retry later.
    #[error("the keyspace can't be reached: {0}")]
    Unavailable(String),
    /// A write may or may not have happened: read before deciding.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// The store has failed and refuses writes until it is opened anew.
    #[error("the store has failed: {0}")]
    Failed(String),
    /// What was durable is not what was written: this cannot be read, other things can.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A watcher was too slow; watch again from the last revision seen.
    #[error("the watcher fell behind")]
    TooSlow,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A revisioned map of keys. Answers to writes come after the write is durable.
#[async_trait]
pub trait Keyspace: Send + Sync + 'static {
    async fn range(&self, range: Range, options: Options) -> Result<Ranged>;

    async fn txn(&self, txn: Txn, options: Options) -> Result<Txned>;

    /// The stream is subscribed when this returns: nothing written after is missed.
    async fn watch(&self, watch: Watch, options: Options) -> Result<WatchStream>;

    /// Every open watch yields [`Watched::Progress`] soon, behind the events before it.
    async fn request_progress(&self) -> Result<()>;

    /// History before `revision` is given up. Reads at `revision` itself still work.
    async fn compact(&self, revision: Revision, options: Options) -> Result<()>;

    async fn grant_lease(&self, id: Option<LeaseId>, ttl: Duration) -> Result<Granted>;

    /// Deletes the lease's keys in one revision.
    async fn revoke_lease(&self, id: LeaseId) -> Result<()>;

    /// The new time to live.
    async fn keep_lease(&self, id: LeaseId) -> Result<Duration>;

    async fn lease_state(&self, id: LeaseId) -> Result<LeaseState>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_can_be_raised() {
        assert_eq!(KeyRange::prefix("a/").end, Bound::Excluded("a0".into()));
        assert_eq!(KeyRange::prefix(&b"a\xff"[..]).end, Bound::Excluded("b".into()));
        assert_eq!(KeyRange::prefix(&b"\xff"[..]).end, Bound::Unbounded);
        assert!(!KeyRange::prefix("a-b").contains(b"a-c"));
    }
}
