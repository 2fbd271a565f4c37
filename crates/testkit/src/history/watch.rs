//! The nine checks that etcd's own robustness suite holds a watch to, by their names there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Log,
    model::{Event, KeyValue, Keys},
};

/// What was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Watch {
    pub keys: Keys,
    /// Where it begins; that the client asked from "now" on is known by the answer.
    pub from: i64,
    pub previous: bool,
    pub puts: bool,
    pub deletes: bool,
}

impl Watch {
    fn wants(&self, event: &Event) -> bool {
        let kind = match event {
            Event::Put(_) => self.puts,
            Event::Delete { .. } => self.deletes,
        };
        kind && self.keys.contain(event.key())
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    pub revision: i64,
    pub event: Event,
    pub previous: Option<KeyValue>,
}

/// One answer on a watch's stream.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    Events(Vec<Told>),
    /// Everything up to the revision was told.
    Progress(i64),
}

/// A watch, from its creation until its stream broke or it was cancelled.
#[derive(Clone, PartialEq, Debug)]
pub struct Watched {
    pub watch: Watch,
    pub responses: Vec<Response>,
    /// The newest compaction that was asked for before the watch ended: what was before it may be gone.
    pub compacted: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    Bookmarkable,
    Ordered,
    Unique,
    Atomic,
    Reliable,
    Resumable,
    PreviousValue,
    IsCreate,
    Filter,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    pub check: Check,
    pub what: String,
}

/// Everything that is wrong with the watch, given what really happened.
pub fn check(watched: &Watched, log: &Log) -> Vec<Broken> {
    let states = log.states();
    check_with(watched, log, &states)
}

pub fn check_all(all: &[Watched], log: &Log) -> Vec<Broken> {
    let states = log.states();
    (all.iter())
        .flat_map(|watched| check_with(watched, log, &states))
        .collect()
}

type States = BTreeMap<i64, BTreeMap<String, KeyValue>>;

fn check_with(watched: &Watched, log: &Log, states: &States) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut found = |check: Check, what: String| broken.push(Broken { check, what });
    bookmarkable(watched, &mut found);
    ordered(watched, &mut found);
    unique(watched, &mut found);
    atomic(watched, &mut found);
    reliable(watched, log, &mut found);
    resumable(watched, log, &mut found);
    for told in events(watched) {
        previous_value(watched, told, states, &mut found);
        is_create(told, states, &mut found);
        if !watched.watch.wants(&told.event) || told.revision < watched.watch.from {
            found(
                Check::Filter,
                format!("{told:?} was not asked for by {:?}", watched.watch),
            );
        }
    }
    broken
}

type Found<'a> = dyn FnMut(Check, String) + 'a;

fn events(watched: &Watched) -> impl Iterator<Item = &Told> {
    let events = watched.responses.iter().filter_map(|response| match response {
        Response::Events(events) => Some(events),
        Response::Progress(_) => None,
    });
    events.flatten()
}

/// After progress there are only newer events, and it is not behind what was told before.
fn bookmarkable(watched: &Watched, found: &mut Found<'_>) {
    let mut progress = 0;
    let mut newest = 0;
    for response in &watched.responses {
        match response {
            Response::Progress(revision) => {
                if *revision < newest || *revision < progress {
                    let before = newest.max(progress);
                    found(
                        Check::Bookmarkable,
                        format!("progress at {revision} after revision {before}"),
                    );
                }
                progress = *revision;
            }
            Response::Events(events) => {
                for told in events {
                    if told.revision <= progress {
                        found(
                            Check::Bookmarkable,
                            format!("{told:?} after progress at revision {progress}"),
                        );
                    }
                    newest = newest.max(told.revision);
                }
            }
        }
    }
}

fn ordered(watched: &Watched, found: &mut Found<'_>) {
    let mut before = 0;
    for told in events(watched) {
        if told.revision < before {
            found(Check::Ordered, format!("{told:?} after revision {before}"));
        }
        before = told.revision;
    }
}

fn unique(watched: &Watched, found: &mut Found<'_>) {
    let mut seen = BTreeSet::new();
    for told in events(watched) {
        if !seen.insert((told.revision, told.event.key())) {
            found(Check::Unique, format!("{told:?} a second time"));
        }
    }
}

/// Events of one revision come in one response.
fn atomic(watched: &Watched, found: &mut Found<'_>) {
    let mut before = 0;
    for response in &watched.responses {
        let Response::Events(events) = response else { continue };
        if let Some(first) = events.first()
            && first.revision == before
        {
            found(Check::Atomic, format!("{first:?} in the response after its revision's"));
        }
        before = events.last().map_or(before, |told| told.revision);
    }
}

fn wanted<'a>(
    watch: &'a Watch,
    log: &'a Log,
    revisions: std::ops::RangeInclusive<i64>,
) -> impl Iterator<Item = (i64, &'a Event)> {
    let revisions = log.revisions.range(revisions);
    let events = revisions.flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)));
    events.filter(|(_, event)| watch.wants(event))
}

/// From its first event to the last that it told, or told progress of, it told everything.
fn reliable(watched: &Watched, log: &Log, found: &mut Found<'_>) {
    let mut through = 0;
    for response in &watched.responses {
        through = through.max(match response {
            Response::Events(events) => events.last().map_or(0, |told| told.revision),
            Response::Progress(revision) => *revision,
        });
    }
    let Some(first) = events(watched).next().map(|told| told.revision) else {
        // That something is missing before all else is another check's.
        return;
    };
    if through < first {
        return;
    }
    let told: BTreeSet<(i64, &str)> = events(watched).map(|told| (told.revision, told.event.key())).collect();
    for (revision, event) in wanted(&watched.watch, log, first..=through) {
        if !told.contains(&(revision, event.key())) {
            found(
                Check::Reliable,
                format!("{event:?} of revision {revision} was never told"),
            );
        }
    }
    for told in events(watched) {
        let happened = log.revisions.get(&told.revision);
        if !happened.is_some_and(|events| events.contains(&told.event)) {
            found(Check::Reliable, format!("{told:?} never happened"));
        }
    }
}

/// It goes on exactly where it was asked to.
fn resumable(watched: &Watched, log: &Log, found: &mut Found<'_>) {
    let through = watched.responses.iter().map(|response| match response {
        Response::Events(events) => events.last().map_or(0, |told| told.revision),
        Response::Progress(revision) => *revision,
    });
    let through = through.max().unwrap_or(0);
    if through < watched.watch.from {
        return;
    }
    let first = wanted(&watched.watch, log, watched.watch.from..=through).next();
    let told = events(watched).next();
    let expected = first.map(|(revision, event)| (revision, event.key()));
    let got = told.map(|told| (told.revision, told.event.key()));
    if expected != got {
        let from = watched.watch.from;
        found(
            Check::Resumable,
            format!("asked from {from} on, the first is {got:?} and not {expected:?}"),
        );
    }
}

fn before<'a>(told: &Told, states: &'a States) -> Option<&'a KeyValue> {
    states.get(&(told.revision - 1))?.get(told.event.key())
}

fn previous_value(watched: &Watched, told: &Told, states: &States, found: &mut Found<'_>) {
    let expected = before(told, states).filter(|_| watched.watch.previous);
    let is_gone = told.previous.is_none() && told.revision - 1 < watched.compacted;
    if told.previous.as_ref() != expected && !is_gone {
        found(
            Check::PreviousValue,
            format!("{told:?}: before it there was {expected:?}"),
        );
    }
}

fn is_create(told: &Told, states: &States, found: &mut Found<'_>) {
    if let Event::Put(kv) = &told.event
        && states.contains_key(&(told.revision - 1))
    {
        let says_so = kv.create_revision == kv.mod_revision;
        if says_so != before(told, states).is_none() {
            found(
                Check::IsCreate,
                format!("{told:?}: before it there was {:?}", before(told, states)),
            );
        }
    }
}
