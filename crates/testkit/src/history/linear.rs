//! Is there one order of all requests, in which each takes effect between its call and its answer, that explains every
//! answer? Found as Wing and Gong do it, with Lowe's cache of what was tried before.
//!
//! A store that counts revisions says most of the order itself, so the search hardly branches: only requests whose outcome
//! is unknown may go anywhere, and the log says which of them can have made a revision.

use std::collections::HashSet;

use super::{
    Log, Operation, Outcome,
    model::{Answer, State},
};

/// Tries after which a history counts as too tangled to judge.
const STEPS_MAX: usize = 50_000_000;

#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Violation {
    #[error(
        "no order explains all answers: at best {ordered} of {of} fit, up to revision {}; then none of {stuck:#?}",
        .state.revision
    )]
    NotLinearizable {
        ordered: usize,
        of: usize,
        state: Box<State>,
        /// Answered requests of which one would have to come next.
        stuck: Vec<Operation>,
    },
    #[error("undecided after {STEPS_MAX} steps")]
    Undecided,
}

/// Calls and answers in order of time, as a doubly linked list that requests are taken out of and put back into.
struct Timeline {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// By place: the request, and whether this is its call.
    events: Vec<(usize, bool)>,
    /// By request: places of its call and its answer.
    places: Vec<(usize, Option<usize>)>,
}

const HEAD: usize = 0;

impl Timeline {
    fn of(operations: &[Operation]) -> Timeline {
        let mut events = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            events.push((operation.called, true, at));
            if let Outcome::Told { at: told, .. } = operation.outcome {
                // What was told at the moment of a call was told after it.
                events.push((told, false, at));
            }
        }
        // At the same moment calls come first: they may have overlapped.
        events.sort_by_key(|(time, is_call, at)| (*time, !*is_call, *at));
        let mut timeline = Timeline {
            next: (1..=events.len() + 1).collect(),
            previous: (0..=events.len()).map(|place| place.saturating_sub(1)).collect(),
            events: vec![(usize::MAX, false)],
            places: vec![(0, None); operations.len()],
        };
        for (place, (_, is_call, at)) in (1..).zip(&events) {
            timeline.events.push((*at, *is_call));
            if *is_call {
                timeline.places[*at].0 = place;
            } else {
                timeline.places[*at].1 = Some(place);
            }
        }
        timeline
    }

    fn first(&self) -> Option<usize> {
        self.after(HEAD)
    }

    fn after(&self, place: usize) -> Option<usize> {
        let next = self.next[place];
        (next < self.events.len()).then_some(next)
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        if after < self.events.len() {
            self.previous[after] = before;
        }
    }

    fn relink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        if after < self.events.len() {
            self.previous[after] = place;
        }
    }

    fn take_out(&mut self, request: usize) {
        let (call, answer) = self.places[request];
        self.unlink(call);
        if let Some(answer) = answer {
            self.unlink(answer);
        }
    }

    fn put_back(&mut self, request: usize) {
        let (call, answer) = self.places[request];
        if let Some(answer) = answer {
            self.relink(answer);
        }
        self.relink(call);
    }
}

/// With `log`, what each request changes is also what was told at its revision.
pub fn check(operations: &[Operation], log: Option<&Log>) -> Result<State, Violation> {
    let mut timeline = Timeline::of(operations);
    let is_told = |request: usize| matches!(operations[request].outcome, Outcome::Told { .. });
    let mut left = (0..operations.len()).filter(|request| is_told(*request)).count();
    let answered = left;
    let mut state = State::default();
    let mut stack: Vec<(usize, State)> = Vec::new();
    let mut tried = HashSet::new();
    // A number for each set of requests that were ordered: the exclusive or of one random number each.
    let mut ordered: u64 = 0;
    let mut best: Option<Violation> = None;
    let mut best_left = usize::MAX;
    let mut place = timeline.first();
    for _ in 0..STEPS_MAX {
        if left == 0 && log.is_none_or(|log| log.last() <= state.revision) {
            return Ok(state);
        }
        let candidate = place.map(|place| (place, timeline.events[place]));
        if let Some((here, (request, true))) = candidate {
            let after = step(&state, &operations[request], log);
            let with = ordered ^ number(request);
            match after {
                Some(after) if tried.insert((with, after.digest())) => {
                    stack.push((request, std::mem::replace(&mut state, after)));
                    timeline.take_out(request);
                    ordered = with;
                    left -= usize::from(is_told(request));
                    place = timeline.first();
                }
                _ => place = timeline.after(here),
            }
            continue;
        }
        // The next thing is an answer to what could not be ordered before it, or nothing is left to try.
        if left < best_left {
            best_left = left;
            best = Some(Violation::NotLinearizable {
                ordered: answered - left,
                of: answered,
                state: Box::new(state.clone()),
                stuck: stuck(&timeline, operations, place),
            });
        }
        let Some((request, before)) = stack.pop() else {
            return Err(best.expect("something was tried"));
        };
        state = before;
        ordered ^= number(request);
        left += usize::from(is_told(request));
        timeline.put_back(request);
        place = timeline.after(timeline.places[request].0);
    }
    Err(Violation::Undecided)
}

/// Answered requests that overlap with the place.
fn stuck(timeline: &Timeline, operations: &[Operation], place: Option<usize>) -> Vec<Operation> {
    const TOLD_MAX: usize = 8;
    let mut stuck = Vec::new();
    let mut at = timeline.first();
    while let Some(here) = at.filter(|here| Some(*here) != place && stuck.len() < TOLD_MAX) {
        let operation = &operations[timeline.events[here].0];
        if matches!(operation.outcome, Outcome::Told { .. }) {
            stuck.push(operation.clone());
        }
        at = timeline.after(here);
    }
    stuck
}

/// What is after the operation, if it can have been done here with that outcome.
fn step(state: &State, operation: &Operation, log: Option<&Log>) -> Option<State> {
    if let Outcome::Told {
        answer: Answer::Txn { revision, .. },
        ..
    } = &operation.outcome
        && !(state.revision..=state.revision + 1).contains(revision)
    {
        return None;
    }
    let (after, answer, events) = state.after(&operation.request);
    match &operation.outcome {
        Outcome::Told { answer: told, .. } if *told != answer => return None,
        // Of one that changed nothing nobody knows; it need not be ordered.
        Outcome::Unknown if after == *state => return None,
        _ => {}
    }
    if let Some(log) = log
        && after.revision > state.revision
        && log.revisions.get(&after.revision) != Some(&events)
    {
        return None;
    }
    Some(after)
}

/// Spread over all bits (splitmix64).
fn number(request: usize) -> u64 {
    let mut mixed = (request as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
