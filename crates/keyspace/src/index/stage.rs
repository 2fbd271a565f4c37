//! Writes: decided and applied to the index as *staged*, in the order they come.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Change, Commit, Index, Undo, Version, Versions, bounds};
use crate::{
    Comparand, Compare, Error, Event, Granted, Keep, KeyRange, KeyValue, LeaseId, Op, OpResult, Previous, Put,
    Relation, Result, Revision, Txn, Txned,
};

/// A decided transaction. Nothing of it may be told before it is published.
#[derive(Debug)]
pub struct Staged {
    pub answer: Txned,
    /// `None` if nothing changed.
    pub commit: Option<Arc<Commit>>,
}

impl Index {
    /// The transaction must have passed [`crate::check::txn`].
    pub fn stage(&mut self, txn: &Txn) -> Result<Staged> {
        // All compares, of all levels, are decided before anything is written, and then everything that can fail.
        let mut path = Vec::new();
        self.decide(txn, &mut path);
        self.check(txn, &path)?;

        let mut run = Run {
            revision: Revision(self.head.0 + 1),
            // Most have one, and it is kept in the history.
            events: Vec::with_capacity(1),
            index: self,
        };
        let mut answer = run.txn(txn, &mut path.iter());
        let Run { revision, events, .. } = run;

        let commit = self.commit(revision, events);
        stamp(&mut answer, self.head);
        Ok(Staged { answer, commit })
    }

    pub fn stage_grant(&mut self, id: LeaseId, ttl: Duration, now: Duration) -> Result<Granted> {
        let granted = self.leases.grant(id, ttl, now)?;
        self.undo.push(Undo::Grant(id));
        Ok(granted)
    }

    /// The lease goes, and its keys in one revision.
    pub fn stage_revoke(&mut self, id: LeaseId) -> Result<Option<Arc<Commit>>> {
        let lease = self.leases.remove(id)?;
        let revision = Revision(self.head.0 + 1);
        let mut events = Vec::with_capacity(lease.keys.len());
        for key in &lease.keys {
            events.extend(self.delete_key(key, revision, events.len() as u32));
        }
        // The commit is taken back first, then the lease comes back with all its keys.
        self.undo.push(Undo::Revoke(id, lease));
        Ok(self.commit(revision, events))
    }

    /// Takes back everything since the last publication.
    pub fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Grant(id) => drop(self.leases.remove(id)),
                Undo::Revoke(id, lease) => self.leases.restore(id, lease),
                Undo::Commit => {
                    let commit = self.history.pop_newest().expect("a staged commit is in the history");
                    commit.events.iter().rev().for_each(|event| self.take_back(event.key()));
                }
            }
        }
        self.head = self.published;
        self.to_compact = self.compacted;
    }

    fn take_back(&mut self, key: &Bytes) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        if let Some(lease) = versions.last().lease() {
            self.leases.detach(lease, key);
        }
        let was_live = versions.live().is_some();
        match versions.pop() {
            Some(version) => {
                self.bytes -= version.bytes();
                if let Some(lease) = versions.last().lease() {
                    self.leases.attach(lease, key);
                }
                self.live = self.live + usize::from(versions.live().is_some()) - usize::from(was_live);
            }
            None => {
                self.live -= usize::from(was_live);
                self.bytes -= key.len() + versions.last().bytes();
                self.keys.remove(key);
            }
        }
    }

    /// Applies what was decided before, elsewhere: a record of the log, or a revision of a remote store. Revisions may
    /// leave gaps. Staged; [`Index::publish`] shows it.
    pub fn replay(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change>) -> Option<Arc<Commit>> {
        let mut events = Vec::new();
        for change in changes {
            match change {
                Change::Put(kv) => {
                    let version = Version::of(&kv, events.len() as u32);
                    let (kv, previous) = self.put_version(&kv.key, version);
                    events.push(Event::Put { kv, previous });
                }
                Change::Delete(key) => events.extend(self.delete_key(&key, revision, events.len() as u32)),
            }
        }
        let commit = self.commit(revision, events);
        self.head = self.head.max(revision);
        commit
    }

    /// Nothing changed here up to `revision`.
    pub fn advance(&mut self, revision: Revision) {
        self.head = self.head.max(revision);
    }

    /// Gives a lease that was granted before; its keys attach themselves as they are replayed.
    pub fn replay_grant(&mut self, granted: Granted, now: Duration) {
        // A log that was written by this code never grants a lease twice, nor one that is out of bounds.
        let _ = self.leases.grant(granted.id, granted.ttl, now);
    }

    pub fn replay_revoke(&mut self, id: LeaseId) {
        let _ = self.leases.remove(id);
    }

    fn commit(&mut self, revision: Revision, mut events: Vec<Event>) -> Option<Arc<Commit>> {
        if events.is_empty() {
            return None;
        }
        before_the_revision(&mut events, revision);
        events.shrink_to_fit();
        let commit = Arc::new(Commit::new(revision, events));
        self.head = revision;
        self.history.push(commit.clone());
        self.undo.push(Undo::Commit);
        Some(commit)
    }

    fn decide(&self, txn: &Txn, path: &mut Vec<bool>) {
        let holds = txn.compares.iter().all(|compare| self.holds(compare));
        path.push(holds);
        for op in branch(txn, holds) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path);
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut found = false;
        let mut all = true;
        self.each(&compare.keys, self.head, |_, version| {
            found = true;
            all = all && compares(version, compare);
        });
        match (&compare.comparand, found) {
            (_, true) => all,
            (Comparand::Value(_), false) => false,
            (_, false) => compares(&Version::deletion(Revision(0), 0), compare),
        }
    }

    /// Puts of all levels first, then ranges: of several errors, etcd tells the same one.
    fn check(&self, txn: &Txn, path: &[bool]) -> Result<()> {
        self.check_each(txn, &mut path.iter(), &mut |op| match op {
            Op::Put(Put { lease: Some(id), .. }) if !self.leases.contains(*id) => Err(Error::NoLease(*id)),
            // What is kept is what was there before the transaction, even if an operation before this one puts the key.
            Op::Put(put)
                if put.keep != Keep::Nothing && self.keys.get(&put.key).is_none_or(|it| it.live().is_none()) =>
            {
                Err(Error::Invalid("key not found".into()))
            }
            Op::Put(_) if self.bytes > self.limits.quota_bytes_max => Err(Error::NoSpace(format!(
                "the keyspace has {} bytes, its quota is {}",
                self.bytes, self.limits.quota_bytes_max
            ))),
            _ => Ok(()),
        })?;
        self.check_each(txn, &mut path.iter(), &mut |op| match op {
            Op::Range(range) => self.readable(range.revision, self.head).map(drop),
            _ => Ok(()),
        })
    }

    fn check_each(
        &self,
        txn: &Txn,
        path: &mut std::slice::Iter<'_, bool>,
        check: &mut impl FnMut(&Op) -> Result<()>,
    ) -> Result<()> {
        for op in branch(txn, next(path)) {
            match op {
                Op::Txn(nested) => self.check_each(nested, path, check)?,
                op => check(op)?,
            }
        }
        Ok(())
    }

    /// The key as it is stored, the new state and the one before.
    fn put_version(&mut self, key: &Bytes, version: Version) -> (KeyValue, Option<KeyValue>) {
        if let Some((stored, versions)) = entry(&mut self.keys, key) {
            let previous = versions.live().map(|version| version.with_key(stored));
            if let Some(lease) = previous.as_ref().and_then(|kv| kv.lease) {
                self.leases.detach(lease, stored);
            }
            if let Some(lease) = version.lease() {
                self.leases.attach(lease, stored);
            }
            self.live += usize::from(previous.is_none());
            self.bytes += version.bytes();
            let kv = version.with_key(stored);
            versions.push(version);
            return (kv, previous);
        }
        // A key may be a slice of a whole request; what is kept for long must not hold on to that.
        let stored = Bytes::copy_from_slice(key);
        if let Some(lease) = version.lease() {
            self.leases.attach(lease, &stored);
        }
        self.live += 1;
        self.bytes += stored.len() + version.bytes();
        let kv = version.with_key(&stored);
        self.keys.insert(stored, Versions::new(version));
        (kv, None)
    }

    fn delete_key(&mut self, key: &Bytes, revision: Revision, sub: u32) -> Option<Event> {
        let (stored, versions) = entry(&mut self.keys, key)?;
        let previous = versions.live()?.with_key(stored);
        if let Some(lease) = previous.lease {
            self.leases.detach(lease, stored);
        }
        let deletion = Version::deletion(revision, sub);
        self.live -= 1;
        self.bytes += deletion.bytes();
        versions.push(deletion);
        Some(Event::Delete {
            key: stored.clone(),
            revision,
            previous: Some(previous),
        })
    }
}

fn entry<'a>(
    keys: &'a mut std::collections::BTreeMap<Bytes, Versions>,
    key: &Bytes,
) -> Option<(&'a Bytes, &'a mut Versions)> {
    keys.range_mut::<Bytes, _>(key..=key).next()
}

/// A nested transaction may put a key that a later one deletes. What was before an event is what was before its revision,
/// and not what was before it in the same revision.
fn before_the_revision(events: &mut [Event], revision: Revision) {
    for at in 1..events.len() {
        let (earlier, rest) = events.split_at_mut(at);
        let key = rest[0].key().clone();
        let (Event::Put { previous, .. } | Event::Delete { previous, .. }) = &mut rest[0];
        if previous.as_ref().is_some_and(|kv| kv.mod_revision == revision) {
            let first = earlier.iter().find(|event| *event.key() == key);
            *previous = first.and_then(|event| match event {
                Event::Put { previous, .. } | Event::Delete { previous, .. } => previous.clone(),
            });
        }
    }
}

fn branch(txn: &Txn, holds: bool) -> &[Op] {
    if holds { &txn.success } else { &txn.failure }
}

fn next(path: &mut std::slice::Iter<'_, bool>) -> bool {
    *path.next().expect("the path has a decision for each transaction on it")
}

fn compares(version: &Version, compare: &Compare) -> bool {
    let order = match &compare.comparand {
        Comparand::ModRevision(asked) if version.is_live() => version.mod_revision.cmp(asked),
        Comparand::ModRevision(asked) => Revision(0).cmp(asked),
        Comparand::CreateRevision(asked) => version.create_revision.cmp(asked),
        Comparand::Version(asked) => version.version.cmp(asked),
        Comparand::Value(asked) => version.value.cmp(asked),
        Comparand::Lease(asked) => version.lease().cmp(asked),
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

/// Answers inside a transaction carry the revision of the transaction.
fn stamp(answer: &mut Txned, revision: Revision) {
    answer.revision = revision;
    for result in &mut answer.results {
        match result {
            OpResult::Range(ranged) => ranged.revision = revision,
            OpResult::Txn(nested) => stamp(nested, revision),
            OpResult::Put { .. } | OpResult::Delete { .. } => {}
        }
    }
}

/// A transaction being carried out; nothing in here can fail.
struct Run<'a> {
    index: &'a mut Index,
    revision: Revision,
    events: Vec<Event>,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn, path: &mut std::slice::Iter<'_, bool>) -> Txned {
        let succeeded = next(path);
        let results = (branch(txn, succeeded).iter())
            .map(|op| match op {
                Op::Range(range) => {
                    let at = range.revision.unwrap_or(self.revision);
                    OpResult::Range(self.index.read(range, at, self.revision))
                }
                Op::Put(put) => self.put(put),
                Op::Delete { keys, previous } => self.delete(keys, *previous),
                Op::Txn(nested) => OpResult::Txn(self.txn(nested, path)),
            })
            .collect();
        Txned {
            revision: self.revision,
            succeeded,
            results,
        }
    }

    fn put(&mut self, put: &Put) -> OpResult {
        let before = (self.index.keys.get(&put.key)).and_then(|versions| versions.live());
        let (value, lease) = match (put.keep, before) {
            (Keep::Value, Some(before)) => (before.value.clone(), put.lease),
            (Keep::Lease, Some(before)) => (put.value.clone(), before.lease()),
            (Keep::Both, Some(before)) => (before.value.clone(), before.lease()),
            _ => (put.value.clone(), put.lease),
        };
        let kv = KeyValue {
            key: Bytes::new(),
            value,
            mod_revision: self.revision,
            create_revision: before.map_or(self.revision, |version| version.create_revision),
            version: before.map_or(0, |version| version.version) + 1,
            lease,
        };
        let version = Version::of(&kv, self.events.len() as u32);
        let (kv, previous) = self.index.put_version(&put.key, version);
        let told = previous.clone().filter(|_| put.previous == Previous::Return);
        self.events.push(Event::Put { kv, previous });
        OpResult::Put { previous: told }
    }

    fn delete(&mut self, keys: &KeyRange, told: Previous) -> OpResult {
        let live: Vec<Bytes> = match bounds(keys) {
            None => Vec::new(),
            Some(bounds) => (self.index.keys.range::<[u8], _>(bounds))
                .filter(|(_, versions)| versions.live().is_some())
                .map(|(key, _)| key.clone())
                .collect(),
        };
        let mut previous = Vec::new();
        for key in &live {
            let Some(event) = self.index.delete_key(key, self.revision, self.events.len() as u32) else {
                continue;
            };
            if let (Previous::Return, Event::Delete { previous: Some(kv), .. }) = (told, &event) {
                previous.push(kv.clone());
            }
            self.events.push(event);
        }
        OpResult::Delete {
            deleted: live.len(),
            previous,
        }
    }
}
