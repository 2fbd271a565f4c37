//! Was that an etcd? What clients asked of a store and were told, while it was killed, stopped and cut off, is checked here:
//! [`linear`] finds one order of all requests that explains every answer, [`watch`] holds what watches told against it. Pure:
//! histories come from a test, or from [`sample`], which also breaks them to see that the checks notice.
//!
//! Start reading at [`model`], which says what an etcd is.

pub mod linear;
pub mod model;
pub mod sample;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};

use model::{Answer, Event, KeyValue, Op, Request, State};

/// Nanoseconds of one clock.
pub type Time = u64;

/// A request with what its client knows of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Operation {
    pub called: Time,
    pub request: Request,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    Told {
        at: Time,
        answer: Answer,
    },
    /// It may have been done, at any time since, or never.
    Unknown,
}

/// A read at a revision that was asked for: it needs no order, what it names says it all.
#[derive(Clone, PartialEq, Debug)]
pub struct PastRead {
    pub keys: model::Keys,
    pub revision: i64,
    pub found: Vec<KeyValue>,
    /// The current revision, as it was told beside.
    pub current: i64,
}

/// What happened at each revision, as one watch of everything has told it.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Log {
    pub revisions: BTreeMap<i64, Vec<Event>>,
}

impl Log {
    pub fn last(&self) -> i64 {
        self.revisions.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    /// From the first write of a fresh store on there is a revision for each number.
    pub fn is_whole(&self) -> Result<(), String> {
        for (expected, revision) in (2..).zip(self.revisions.keys()) {
            if *revision != expected {
                return Err(format!("revision {expected} is missing, {revision} comes next"));
            }
        }
        Ok(())
    }

    /// What is there after each revision, revision 1 included.
    pub fn states(&self) -> BTreeMap<i64, BTreeMap<String, KeyValue>> {
        let mut keys = BTreeMap::new();
        let mut states = BTreeMap::from([(1, keys.clone())]);
        for (revision, events) in &self.revisions {
            for event in events {
                event.apply(&mut keys);
            }
            states.insert(*revision, keys.clone());
        }
        states
    }
}

/// Values are written once each: who put one can be told from the log.
fn values(request: &Request) -> BTreeSet<&str> {
    let Request::Txn { success, failure, .. } = request else {
        return BTreeSet::new();
    };
    let puts = success.iter().chain(failure).filter_map(|op| match op {
        Op::Put { value, .. } => Some(value.as_str()),
        Op::Range(_) | Op::Delete(_) => None,
    });
    puts.collect()
}

/// Those whose outcome is unknown and that the log says were never done are left out: they explain nothing.
pub fn without_undone(operations: &[Operation], log: &Log) -> Vec<Operation> {
    let events = log.revisions.values().flatten();
    let written: BTreeSet<&str> = events
        .filter_map(|event| match event {
            Event::Put(kv) => Some(kv.value.as_str()),
            Event::Delete { .. } => None,
        })
        .collect();
    let may_be_done = |operation: &&Operation| {
        let values = values(&operation.request);
        match operation.outcome {
            Outcome::Told { .. } => true,
            Outcome::Unknown if operation.request.only_reads() => false,
            // One that deletes in one branch and puts in the other may have deleted.
            Outcome::Unknown if operation.request.deletes() || values.is_empty() => true,
            Outcome::Unknown => values.iter().any(|value| written.contains(value)),
        }
    };
    operations.iter().filter(may_be_done).cloned().collect()
}

/// Reads of the past found what was there then.
pub fn past_reads(reads: &[PastRead], log: &Log) -> Result<(), String> {
    let states = log.states();
    for read in reads {
        let Some(keys) = states.get(&read.revision) else {
            return Err(format!("revision {} was read and never was", read.revision));
        };
        let expected = State::found(keys, &read.keys);
        if expected != read.found {
            return Err(format!(
                "at revision {}, {:?}: expected {expected:?}, found {:?}",
                read.revision, read.keys, read.found
            ));
        }
        if read.current < read.revision {
            return Err(format!(
                "revision {} was read when the current one was {}",
                read.revision, read.current
            ));
        }
    }
    Ok(())
}
