//! What makes a request itself wrong, before anything is looked at: etcd's limits and its duplicate-key rule
//! (`server/etcdserver/api/v3rpc/key.go`). Every keyspace applies these first, so that a wrong request is refused alike
//! whatever is below.

use std::{collections::HashSet, ops::Bound};

use bytes::Bytes;

use crate::{Compare, Error, KeyRange, Op, Put, Range, Result, TXN_OPS_MAX, Txn, VALUE_BYTES_MAX, Watch};

/// All keys and values that one transaction puts. Bounds a record of the log and what a watcher gets at once.
pub const TXN_BYTES_MAX: usize = 16 << 20;

/// How deep transactions may be nested. etcd's limit follows from the budget of operations: each level takes one.
const TXN_DEPTH_MAX: usize = 128;

pub fn range(range: &Range) -> Result<()> {
    keys(&range.keys)
}

pub fn watch(watch: &Watch) -> Result<()> {
    keys(&watch.keys)?;
    if is_empty(&watch.keys) {
        return Err(Error::Invalid("the watched range is empty".into()));
    }
    Ok(())
}

pub fn txn(txn: &Txn) -> Result<()> {
    txn_within(txn, TXN_OPS_MAX)
}

/// With at most `ops_max` operations.
pub fn txn_within(txn: &Txn, ops_max: usize) -> Result<()> {
    let mut bytes = 0;
    shape(txn, ops_max, 0, &mut bytes)?;
    for branch in [&txn.success, &txn.failure] {
        if branch.len() > 1 {
            no_key_twice(branch)?;
        } else if let Some(Op::Txn(nested)) = branch.first() {
            no_key_twice(&nested.success)?;
            no_key_twice(&nested.failure)?;
        }
    }
    Ok(())
}

fn keys(keys: &KeyRange) -> Result<()> {
    match &keys.end {
        Bound::Included(end) if keys.start.is_empty() && end.is_empty() => {
            Err(Error::Invalid("key is not provided".into()))
        }
        _ => Ok(()),
    }
}

fn is_empty(keys: &KeyRange) -> bool {
    match &keys.end {
        Bound::Included(end) => end < &keys.start,
        Bound::Excluded(end) => end <= &keys.start,
        Bound::Unbounded => false,
    }
}

/// Counts and sizes. A nested transaction may have as many operations as its parent left over.
fn shape(txn: &Txn, budget: usize, depth: usize, bytes: &mut usize) -> Result<()> {
    let count = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    if count > budget || depth > TXN_DEPTH_MAX {
        return Err(Error::Invalid("too many operations in txn request".into()));
    }
    for Compare { keys: range, .. } in &txn.compares {
        keys(range)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(asked) => range(asked)?,
            Op::Put(asked) => put(asked, bytes)?,
            Op::Delete { keys: range, .. } => keys(range)?,
            Op::Txn(nested) => shape(nested, budget - count, depth + 1, bytes)?,
        }
    }
    Ok(())
}

fn put(put: &Put, bytes: &mut usize) -> Result<()> {
    if put.key.is_empty() {
        return Err(Error::Invalid("key is not provided".into()));
    }
    *bytes += put.key.len() + put.value.len();
    if put.key.len() + put.value.len() > VALUE_BYTES_MAX || *bytes > TXN_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "request is too large: a key and its value may have {VALUE_BYTES_MAX} bytes, a transaction {TXN_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// What a list of operations may write, over all branches.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    fn deletes(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }
}

/// One transaction must not put a key twice, nor put what it deletes. The branches of one nested transaction exclude
/// each other, so they may put the same key.
fn no_key_twice(ops: &[Op]) -> Result<Writes<'_>> {
    let duplicate = || Error::Invalid("duplicate key given in txn request".into());
    let mut writes = Writes::default();
    for op in ops {
        if let Op::Delete { keys, .. } = op {
            writes.deletes.push(keys);
        }
    }
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let success = no_key_twice(&nested.success)?;
        let failure = no_key_twice(&nested.failure)?;
        if success
            .puts
            .union(&failure.puts)
            .any(|key| writes.puts.contains(*key) || writes.deletes(key))
        {
            return Err(duplicate());
        }
        writes.puts.extend(success.puts);
        writes.puts.extend(failure.puts);
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for op in ops {
        let Op::Put(put) = op else { continue };
        if writes.deletes(&put.key) || !writes.puts.insert(&put.key) {
            return Err(duplicate());
        }
    }
    Ok(writes)
}
