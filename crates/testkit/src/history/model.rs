//! What an etcd is: keys with revisions, transactions, leases. One request after another.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    /// 0 is none.
    pub lease: i64,
}

/// One key, or all from `start` up to `end`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    pub start: String,
    pub end: Option<String>,
}

impl Keys {
    pub fn one(key: &str) -> Keys {
        Keys {
            start: key.to_owned(),
            end: None,
        }
    }

    /// `prefix` ends with a letter that has a next one.
    pub fn prefix(prefix: &str) -> Keys {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Keys {
            start: prefix.to_owned(),
            end: Some(String::from_utf8(end).expect("the prefix ends in ASCII")),
        }
    }

    pub fn contain(&self, key: &str) -> bool {
        match &self.end {
            None => key == self.start,
            Some(end) => self.start.as_str() <= key && key < end.as_str(),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    Range(Keys),
    Put { key: String, value: String, lease: i64 },
    Delete(Keys),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// A put, a read, a deletion alone are transactions of one operation.
    Txn {
        /// Keys and the revisions of their last change; 0 is for a key that is not there.
        compares: Vec<(String, i64)>,
        success: Vec<Op>,
        failure: Vec<Op>,
    },
    Grant(i64),
    Revoke(i64),
}

impl Request {
    pub fn of(op: Op) -> Request {
        Request::Txn {
            compares: Vec::new(),
            success: vec![op],
            failure: Vec::new(),
        }
    }

    fn any(&self, is: impl Fn(&Op) -> bool) -> bool {
        match self {
            Request::Txn { success, failure, .. } => success.iter().chain(failure).any(is),
            Request::Grant(_) | Request::Revoke(_) => false,
        }
    }

    pub fn only_reads(&self) -> bool {
        matches!(self, Request::Txn { .. }) && !self.any(|op| !matches!(op, Op::Range(_)))
    }

    pub fn deletes(&self) -> bool {
        matches!(self, Request::Revoke(_)) || self.any(|op| matches!(op, Op::Delete(_)))
    }
}

#[derive(Clone, PartialEq, Debug)]
pub enum Done {
    Range(Vec<KeyValue>),
    Put,
    Delete(usize),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Txn {
        revision: i64,
        succeeded: bool,
        done: Vec<Done>,
    },
    Granted,
    Revoked,
    LeaseNotFound,
    LeaseExists,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    Put(KeyValue),
    Delete { key: String },
}

impl Event {
    pub fn key(&self) -> &str {
        match self {
            Event::Put(kv) => &kv.key,
            Event::Delete { key } => key,
        }
    }

    pub fn apply(&self, keys: &mut BTreeMap<String, KeyValue>) {
        match self {
            Event::Put(kv) => drop(keys.insert(kv.key.clone(), kv.clone())),
            Event::Delete { key } => drop(keys.remove(key)),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct State {
    pub revision: i64,
    pub keys: BTreeMap<String, KeyValue>,
    pub leases: BTreeSet<i64>,
}

impl Default for State {
    fn default() -> State {
        State {
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeSet::new(),
        }
    }
}

impl State {
    pub fn found(keys: &BTreeMap<String, KeyValue>, wanted: &Keys) -> Vec<KeyValue> {
        let found = keys.values().filter(|kv| wanted.contain(&kv.key));
        found.cloned().collect()
    }

    /// What the request does here, what it answers, and its events.
    pub fn after(&self, request: &Request) -> (State, Answer, Vec<Event>) {
        match request {
            Request::Txn {
                compares,
                success,
                failure,
            } => self.txn(compares, success, failure),
            Request::Grant(id) if self.leases.contains(id) => (self.clone(), Answer::LeaseExists, Vec::new()),
            Request::Grant(id) => {
                let mut after = self.clone();
                after.leases.insert(*id);
                (after, Answer::Granted, Vec::new())
            }
            Request::Revoke(id) if !self.leases.contains(id) => (self.clone(), Answer::LeaseNotFound, Vec::new()),
            Request::Revoke(id) => self.revoke(*id),
        }
    }

    fn revoke(&self, id: i64) -> (State, Answer, Vec<Event>) {
        let mut after = self.clone();
        after.leases.remove(&id);
        let ended = self.keys.values().filter(|kv| kv.lease == id);
        let events: Vec<Event> = ended.map(|kv| Event::Delete { key: kv.key.clone() }).collect();
        events.iter().for_each(|event| event.apply(&mut after.keys));
        after.revision += i64::from(!events.is_empty());
        (after, Answer::Revoked, events)
    }

    fn txn(&self, compares: &[(String, i64)], success: &[Op], failure: &[Op]) -> (State, Answer, Vec<Event>) {
        let succeeded =
            (compares.iter()).all(|(key, revision)| self.keys.get(key).map_or(0, |kv| kv.mod_revision) == *revision);
        let ops = if succeeded { success } else { failure };
        let lacks = |op: &Op| matches!(op, Op::Put { lease, .. } if *lease != 0 && !self.leases.contains(lease));
        if ops.iter().any(lacks) {
            return (self.clone(), Answer::LeaseNotFound, Vec::new());
        }
        let mut after = self.clone();
        let mut events = Vec::new();
        let revision = self.revision + 1;
        let done = (ops.iter())
            .map(|op| match op {
                Op::Range(keys) => Done::Range(State::found(&after.keys, keys)),
                Op::Put { key, value, lease } => {
                    let before = after.keys.get(key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: before.map_or(0, |kv| kv.version) + 1,
                        lease: *lease,
                    };
                    after.keys.insert(key.clone(), kv.clone());
                    events.push(Event::Put(kv));
                    Done::Put
                }
                Op::Delete(keys) => {
                    let found = State::found(&after.keys, keys);
                    for KeyValue { key, .. } in &found {
                        after.keys.remove(key);
                        events.push(Event::Delete { key: key.clone() });
                    }
                    Done::Delete(found.len())
                }
            })
            .collect();
        if !events.is_empty() {
            after.revision = revision;
        }
        let answer = Answer::Txn {
            revision: after.revision,
            succeeded,
            done,
        };
        (after, answer, events)
    }

    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.revision.hash(&mut hasher);
        self.keys.values().for_each(|kv| kv.hash(&mut hasher));
        self.leases.hash(&mut hasher);
        hasher.finish()
    }
}
