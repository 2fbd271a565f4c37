//! Writes: decided and applied to the index as *staged*, in the order they come.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Change, Commit, Freed, Index, Undo, Version, Versions, bounds,
    commit::{Part, PartOf},
};
use crate::{
    Comparand, Compare, Content, Error, Event, Granted, Keep, KeyRange, KeyValue, LeaseId, Op, OpResult, Previous, Put,
    Relation, Result, Revision, Txn, Txned,
    values::{Needs, Place, Warm},
};

/// A decided transaction. Nothing of it may be told before it is published.
#[derive(Debug)]
pub struct Staged {
    pub answer: Txned,
    /// `None` if nothing changed.
    pub commit: Option<Arc<Commit>>,
}

/// What became of a transaction.
#[derive(Debug)]
pub enum Staging {
    Done(Staged),
    /// Nothing yet: it depends on values that are not in memory.
    Needs(Needs),
}

/// The events of a revision that is being made.
#[derive(Default)]
struct Making {
    events: Vec<Event>,
    /// What of them is not in memory.
    parts: Vec<Part>,
}

impl Index {
    /// The transaction must have passed [`crate::check::txn`]. `warm` has the values that an earlier try needed.
    pub fn stage(&mut self, txn: &Txn, warm: &Warm) -> Result<Staging> {
        if let Some(needs) = self.needed(self.compared(txn, warm)) {
            return Ok(Staging::Needs(needs));
        }
        // All compares, of all levels, are decided before anything is written, and then everything that can fail.
        let mut path = Vec::new();
        self.decide(txn, &mut path, warm);
        self.check(txn, &path)?;
        if let Some(needs) = self.needed(self.told(txn, &path, warm)?) {
            return Ok(Staging::Needs(needs));
        }

        let mut run = Run {
            revision: Revision(self.head.0 + 1),
            making: Making {
                // Most have one, and it is kept in the history.
                events: Vec::with_capacity(1),
                parts: Vec::new(),
            },
            index: self,
            warm,
        };
        let mut answer = run.txn(txn, &mut path.iter());
        let Run { revision, making, .. } = run;

        let commit = self.commit(revision, making);
        stamp(&mut answer, self.head);
        Ok(Staging::Done(Staged { answer, commit }))
    }

    /// Values that the transaction needs as things are now, so that they can be read before it is its turn.
    pub fn needs(&self, txn: &Txn, warm: &Warm) -> Result<Option<Needs>> {
        let compared = self.compared(txn, warm);
        if !compared.is_empty() {
            return Ok(self.needed(compared));
        }
        let mut path = Vec::new();
        self.decide(txn, &mut path, warm);
        Ok(self.needed(self.told(txn, &path, warm)?))
    }

    fn needed(&self, places: Vec<Place>) -> Option<Needs> {
        let values = self.values.clone().filter(|_| !places.is_empty())?;
        Some(Needs { places, values })
    }

    /// Values that are compared and neither in memory nor in `warm`: of all levels, whichever branches they are on.
    fn compared(&self, txn: &Txn, warm: &Warm) -> Vec<Place> {
        let mut places = Vec::new();
        if self.values.is_none() {
            return places;
        }
        for compare in &txn.compares {
            if matches!(compare.comparand, Comparand::Value(_)) {
                self.each(&compare.keys, self.head, |_, version| lacks(version, warm, &mut places));
            }
        }
        for op in txn.success.iter().chain(&txn.failure) {
            if let Op::Txn(nested) = op {
                places.extend(self.compared(nested, warm));
            }
        }
        places
    }

    /// The same of those that are told.
    fn told(&self, txn: &Txn, path: &[bool], warm: &Warm) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        if self.values.is_some() {
            self.check_each(txn, &mut path.iter(), &mut |op| {
                self.told_by(op, warm, &mut places);
                Ok(())
            })?;
        }
        Ok(places)
    }

    fn told_by(&self, op: &Op, warm: &Warm, places: &mut Vec<Place>) {
        match op {
            Op::Range(range) if range.content == Content::Full => {
                let at = range.revision.unwrap_or(self.head);
                let mut left = range.limit.unwrap_or(usize::MAX);
                self.each(&range.keys, at, |_, version| {
                    if left > 0 {
                        left -= 1;
                        lacks(version, warm, places);
                    }
                });
            }
            Op::Put(put) if put.previous == Previous::Return || matches!(put.keep, Keep::Value | Keep::Both) => {
                let live = self.keys.get(&put.key).and_then(|versions| versions.live());
                live.into_iter().for_each(|version| lacks(version, warm, places));
            }
            Op::Delete {
                keys,
                previous: Previous::Return,
            } => self.each(keys, self.head, |_, version| lacks(version, warm, places)),
            Op::Range(_) | Op::Put(_) | Op::Delete { .. } | Op::Txn(_) => {}
        }
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
        let mut making = Making::default();
        for key in &lease.keys {
            self.delete_key(key, revision, &mut making, &Warm::default());
        }
        // The commit is taken back first, then the lease comes back with all its keys.
        self.undo.push(Undo::Revoke(id, lease));
        Ok(self.commit(revision, making))
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
        let mut freed = Freed::default();
        match versions.pop() {
            Some(version) => {
                freed.add(&version);
                if let Some(lease) = versions.last().lease() {
                    self.leases.attach(lease, key);
                }
                self.live = self.live + usize::from(versions.live().is_some()) - usize::from(was_live);
            }
            None => {
                self.live -= usize::from(was_live);
                freed.add(versions.last());
                freed.bytes += key.len();
                self.keys.remove(key);
            }
        }
        self.free(freed);
    }

    /// Applies what was decided before, elsewhere: a record of the log, or a revision of a remote store. Revisions may
    /// leave gaps. Staged; [`Index::publish`] shows it.
    pub fn replay(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change>) -> Option<Arc<Commit>> {
        let mut making = Making::default();
        for change in changes {
            match change {
                Change::Put(kv) => {
                    let version = Version::of(&kv, making.events.len() as u32);
                    self.put_version(&kv.key, version, &mut making, &Warm::default());
                }
                Change::Delete(key) => drop(self.delete_key(&key, revision, &mut making, &Warm::default())),
            }
        }
        let commit = self.commit(revision, making);
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

    fn commit(&mut self, revision: Revision, mut making: Making) -> Option<Arc<Commit>> {
        if making.events.is_empty() {
            return None;
        }
        making.tell_before(revision);
        let Making { mut events, parts } = making;
        events.shrink_to_fit();
        let commit = Arc::new(Commit::with_parts(revision, events, parts, &self.values));
        self.head = revision;
        self.history.push(commit.clone());
        self.undo.push(Undo::Commit);
        Some(commit)
    }

    fn decide(&self, txn: &Txn, path: &mut Vec<bool>, warm: &Warm) {
        let holds = txn.compares.iter().all(|compare| self.holds(compare, warm));
        path.push(holds);
        for op in branch(txn, holds) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path, warm);
            }
        }
    }

    fn holds(&self, compare: &Compare, warm: &Warm) -> bool {
        let mut found = false;
        let mut all = true;
        self.each(&compare.keys, self.head, |_, version| {
            found = true;
            all = all && compares(version, compare, warm);
        });
        match (&compare.comparand, found) {
            (_, true) => all,
            (Comparand::Value(_), false) => false,
            (_, false) => compares(&Version::deletion(Revision(0), 0), compare, warm),
        }
    }

    /// Operation by operation, on all levels: of several errors, etcd 3.6 tells the same one.
    fn check(&self, txn: &Txn, path: &[bool]) -> Result<()> {
        self.check_each(txn, &mut path.iter(), &mut |op| match op {
            // What is kept is what was there before the transaction, even if an operation before this one puts the key.
            Op::Put(put)
                if put.keep != Keep::Nothing && self.keys.get(&put.key).is_none_or(|it| it.live().is_none()) =>
            {
                Err(Error::Invalid("key not found".into()))
            }
            Op::Put(Put { lease: Some(id), .. }) if !self.leases.contains(*id) => Err(Error::NoLease(*id)),
            Op::Put(_) if self.bytes > self.limits.quota_bytes_max => Err(Error::NoSpace(format!(
                "the keyspace has {} bytes, its quota is {}",
                self.bytes, self.limits.quota_bytes_max
            ))),
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

    /// One more event: the key as it is stored, the new state and the one before.
    fn put_version(&mut self, key: &Bytes, version: Version, making: &mut Making, warm: &Warm) {
        self.resident += version.resident();
        self.memory.add(version.resident());
        if let Some((stored, versions)) = entry(&mut self.keys, key) {
            let previous = versions.live().map(|version| making.previous(version, stored, warm));
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
            making.events.push(Event::Put { kv, previous });
            return;
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
        making.events.push(Event::Put { kv, previous: None });
    }

    /// One more event, if the key is there; what it was.
    fn delete_key(&mut self, key: &Bytes, revision: Revision, making: &mut Making, warm: &Warm) -> Option<KeyValue> {
        let (stored, versions) = entry(&mut self.keys, key)?;
        let previous = making.previous(versions.live()?, stored, warm);
        if let Some(lease) = previous.lease {
            self.leases.detach(lease, stored);
        }
        let deletion = Version::deletion(revision, making.events.len() as u32);
        self.live -= 1;
        self.bytes += deletion.bytes();
        versions.push(deletion);
        making.events.push(Event::Delete {
            key: stored.clone(),
            revision,
            previous: Some(previous.clone()),
        });
        Some(previous)
    }
}

impl Making {
    /// What is there before the next event.
    fn previous(&mut self, version: &Version, key: &Bytes, warm: &Warm) -> KeyValue {
        let mut kv = version.with_key(key);
        if let Some(place) = version.cold() {
            match warm.get(place) {
                Some(value) => kv.value = value.clone(),
                None => self.parts.push(Part {
                    event: self.events.len(),
                    of: PartOf::Previous,
                    place,
                }),
            }
        }
        kv
    }

    /// A nested transaction may put a key that a later one deletes. What was before an event is what was before its
    /// revision, and not what was before it in the same revision.
    fn tell_before(&mut self, revision: Revision) {
        let mut parts = Vec::new();
        for at in 1..self.events.len() {
            let (earlier, rest) = self.events.split_at_mut(at);
            let key = rest[0].key().clone();
            let (Event::Put { previous, .. } | Event::Delete { previous, .. }) = &mut rest[0];
            if previous.as_ref().is_some_and(|kv| kv.mod_revision == revision) {
                let first = earlier.iter().position(|event| *event.key() == key);
                *previous = first.and_then(|first| match &earlier[first] {
                    Event::Put { previous, .. } | Event::Delete { previous, .. } => previous.clone(),
                });
                let same = self.parts.iter().find(|part| Some(part.event) == first);
                parts.extend(same.map(|part| Part { event: at, ..*part }));
            }
        }
        if !parts.is_empty() {
            self.parts.extend(parts);
            self.parts.sort_by_key(|part| part.event);
        }
    }
}

/// The value has to be read before it can be told.
fn lacks(version: &Version, warm: &Warm, places: &mut Vec<Place>) {
    places.extend(version.cold().filter(|place| warm.get(*place).is_none()));
}

fn entry<'a>(
    keys: &'a mut std::collections::BTreeMap<Bytes, Versions>,
    key: &Bytes,
) -> Option<(&'a Bytes, &'a mut Versions)> {
    keys.range_mut::<Bytes, _>(key..=key).next()
}

fn branch(txn: &Txn, holds: bool) -> &[Op] {
    if holds { &txn.success } else { &txn.failure }
}

fn next(path: &mut std::slice::Iter<'_, bool>) -> bool {
    *path.next().expect("the path has a decision for each transaction on it")
}

fn compares(version: &Version, compare: &Compare, warm: &Warm) -> bool {
    let order = match &compare.comparand {
        Comparand::ModRevision(asked) if version.is_live() => version.mod_revision.cmp(asked),
        Comparand::ModRevision(asked) => Revision(0).cmp(asked),
        Comparand::CreateRevision(asked) => version.create_revision.cmp(asked),
        Comparand::Version(asked) => version.version.cmp(asked),
        // It was read before, or the transaction would not be decided.
        Comparand::Value(asked) => version.value(warm).cmp(&Some(asked)),
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
    making: Making,
    /// Has all that is cold and is told.
    warm: &'a Warm,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn, path: &mut std::slice::Iter<'_, bool>) -> Txned {
        let succeeded = next(path);
        let results = (branch(txn, succeeded).iter())
            .map(|op| match op {
                Op::Range(range) => {
                    let at = range.revision.unwrap_or(self.revision);
                    let (ranged, missing) = self.index.read(range, at, self.revision, self.warm);
                    debug_assert!(missing.is_empty(), "what is told was read before");
                    OpResult::Range(ranged)
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
        let kept = |before: &Version| before.value(self.warm).cloned().unwrap_or_default();
        let (value, lease) = match (put.keep, before) {
            (Keep::Value, Some(before)) => (kept(before), put.lease),
            (Keep::Lease, Some(before)) => (put.value.clone(), before.lease()),
            (Keep::Both, Some(before)) => (kept(before), before.lease()),
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
        let version = Version::of(&kv, self.making.events.len() as u32);
        self.index.put_version(&put.key, version, &mut self.making, self.warm);
        let told = match (put.previous, self.making.events.last()) {
            (Previous::Return, Some(Event::Put { previous, .. })) => previous.clone(),
            _ => None,
        };
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
            let deleted = (self.index).delete_key(key, self.revision, &mut self.making, self.warm);
            previous.extend(deleted.filter(|_| told == Previous::Return));
        }
        OpResult::Delete {
            deleted: live.len(),
            previous,
        }
    }
}
