//! Histories as a good store makes them, and ways to break them: who judges histories must notice each.

use world::sim::SimRandom;

use super::{
    Log, Operation, Outcome, Time,
    model::{Event, KeyValue, Keys, Op, Request, State},
    watch::{Response, Told, Watch, Watched},
};

pub struct Sample {
    pub operations: Vec<Operation>,
    pub log: Log,
}

const KEYS: u64 = 6;
const LEASES: u64 = 3;

/// A request among a few keys and leases; `number` makes its value one of its kind.
pub fn request(random: &SimRandom, number: usize, known: &State) -> Request {
    let key = || format!("k/{}", random.below(KEYS));
    let put = |key: String, of: &str| Op::Put {
        key,
        value: format!("{number}{of}"),
        lease: if random.chance(20) {
            1 + random.below(LEASES) as i64
        } else {
            0
        },
    };
    let seen = |key: &str| known.keys.get(key).map_or(0, |kv| kv.mod_revision);
    match random.below(20) {
        0..=6 => {
            let key = key();
            let expected = seen(&key);
            Request::Txn {
                compares: vec![(key.clone(), expected)],
                success: vec![put(key.clone(), "")],
                failure: vec![Op::Range(Keys::one(&key))],
            }
        }
        7 => {
            let key = key();
            let expected = seen(&key);
            Request::Txn {
                compares: vec![(key.clone(), expected)],
                success: vec![Op::Delete(Keys::one(&key))],
                failure: vec![Op::Range(Keys::one(&key))],
            }
        }
        8 | 9 => Request::of(put(key(), "")),
        10..=12 => Request::of(Op::Range(Keys::one(&key()))),
        13 | 14 => Request::of(Op::Range(Keys::prefix("k/"))),
        15 => Request::of(Op::Delete(Keys::one(&key()))),
        16 | 17 => Request::Txn {
            compares: Vec::new(),
            // One after the other, and never one twice.
            success: vec![
                put("k/0".into(), "a"),
                put("k/1".into(), "b"),
                Op::Delete(Keys::one("k/2")),
                Op::Range(Keys::prefix("k/")),
            ],
            failure: Vec::new(),
        },
        18 => Request::Grant(1 + random.below(LEASES) as i64),
        _ => Request::Revoke(1 + random.below(LEASES) as i64),
    }
}

/// `clients` at once; some answers are lost, done or not.
pub fn good(seed: u64, clients: usize, requests: usize) -> Sample {
    let random = SimRandom::new(seed);
    let mut state = State::default();
    let mut log = Log::default();
    let mut operations = Vec::new();
    // What clients go by is not always new.
    let mut before = state.clone();
    let mut now: Time = 0;
    // Requests overlap with those of the other clients: each is done somewhere between its call and its answer.
    let mut free_at = vec![0; clients];
    for number in 0..requests {
        now += 10;
        let client = random.below(clients as u64) as usize;
        let called = (now - random.below(10)).max(free_at[client]).saturating_sub(5);
        let known = if random.chance(30) { &before } else { &state };
        let request = request(&random, number, known);
        if number % 10 == 0 {
            before = state.clone();
        }
        let is_lost = random.chance(6);
        let is_done = !is_lost || random.chance(50);
        let outcome = if is_done {
            let (after, answer, events) = state.after(&request);
            if !events.is_empty() {
                log.revisions.insert(after.revision, events);
            }
            state = after;
            let at = now + 5 + random.below(40);
            free_at[client] = at;
            if is_lost {
                Outcome::Unknown
            } else {
                Outcome::Told { at, answer }
            }
        } else {
            Outcome::Unknown
        };
        operations.push(Operation {
            called: called.min(now),
            request,
            outcome,
        });
    }
    Sample { operations, log }
}

/// What a watch of all keys tells of a log, with progress in between.
pub fn watched(log: &Log, watch: Watch) -> Watched {
    let states = log.states();
    let mut responses = Vec::new();
    for (revision, events) in log.revisions.range(watch.from..) {
        let kept = |event: &&Event| {
            let kind = if matches!(event, Event::Put(_)) {
                watch.puts
            } else {
                watch.deletes
            };
            kind && watch.keys.contain(event.key())
        };
        let before = |event: &Event| -> Option<KeyValue> {
            let before = states.get(&(revision - 1))?.get(event.key()).cloned();
            before.filter(|_| watch.previous)
        };
        let told: Vec<Told> = (events.iter().filter(kept))
            .map(|event| Told {
                revision: *revision,
                event: event.clone(),
                previous: before(event),
            })
            .collect();
        if !told.is_empty() {
            responses.push(Response::Events(told));
        }
        if revision % 5 == 0 {
            responses.push(Response::Progress(*revision));
        }
    }
    Watched {
        watch,
        responses,
        compacted: 0,
    }
}
