//! What one revision changed, as the history keeps it and watchers are given it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{
    Event, Previous, Result, Revision,
    values::{Place, Values},
};

/// What one revision changed. Shared by the history and by all watchers.
#[derive(Debug)]
pub struct Commit {
    pub revision: Revision,
    /// Each with what was there before; values that are not in memory are empty ([`Commit::read`]).
    pub events: Vec<Event>,
    pub bytes: usize,
    /// What a layer above makes of the events for all watchers alike, made once; see [`Commit::made`].
    made: [OnceLock<Bytes>; 2],
    cold: Option<Box<Cold>>,
}

/// Values of a commit that are not in memory.
#[derive(Debug)]
struct Cold {
    parts: Vec<Part>,
    values: Arc<dyn Values>,
    /// The commit with them, once somebody has read it.
    whole: OnceLock<Arc<Commit>>,
}

/// One value of a commit that is not in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub event: usize,
    pub of: PartOf,
    pub place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PartOf {
    Value,
    Previous,
}

impl Commit {
    pub fn new(revision: Revision, events: Vec<Event>) -> Commit {
        let bytes = events.iter().map(event_bytes).sum();
        Commit {
            revision,
            events,
            bytes,
            made: Default::default(),
            cold: None,
        }
    }

    /// `parts` are empty in the events.
    pub(crate) fn with_parts(
        revision: Revision,
        events: Vec<Event>,
        parts: Vec<Part>,
        values: &Option<Arc<dyn Values>>,
    ) -> Commit {
        let mut commit = Commit::new(revision, events);
        if let Some(values) = values
            && !parts.is_empty()
        {
            commit.bytes += parts.iter().map(|part| part.place.length as usize).sum::<usize>();
            let values = values.only(&mut parts.iter().map(|part| part.place));
            commit.cold = Some(Box::new(Cold {
                parts,
                values,
                whole: OnceLock::new(),
            }));
        }
        commit
    }

    /// All events as bytes, with or without what was there before; `make` is called by the first who asks.
    pub fn made(&self, previous: Previous, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.made[usize::from(previous == Previous::Return)].get_or_init(make)
    }

    /// The commit with all values in it that are wanted. Blocks while the disk is read, if it has to be.
    pub fn read(self: &Arc<Commit>, previous: Previous) -> Result<Arc<Commit>> {
        let Some(cold) = &self.cold else {
            return Ok(self.clone());
        };
        if previous == Previous::Omit && cold.parts.iter().all(|part| part.of == PartOf::Previous) {
            return Ok(self.clone());
        }
        if let Some(whole) = cold.whole.get() {
            return Ok(whole.clone());
        }
        let places: Vec<Place> = cold.parts.iter().map(|part| part.place).collect();
        let mut events = self.events.clone();
        for (part, value) in cold.parts.iter().zip(cold.values.read(&places)?) {
            put_in(&mut events, part, value);
        }
        let whole = Arc::new(Commit::new(self.revision, events));
        Ok(cold.whole.get_or_init(|| whole).clone())
    }

    /// One event after another, each with its values, without having all of them at once.
    pub fn each_read(&self) -> impl Iterator<Item = Result<Event>> {
        let parts = self.cold.iter().flat_map(|cold| cold.parts.iter());
        let mut parts = parts.peekable();
        self.events.iter().enumerate().map(move |(at, event)| {
            let mut event = event.clone();
            while let (Some(part), Some(cold)) = (parts.next_if(|part| part.event == at), &self.cold) {
                for value in cold.values.read(&[part.place])? {
                    let one = Part { event: 0, ..*part };
                    put_in(std::slice::from_mut(&mut event), &one, value);
                }
            }
            Ok(event)
        })
    }
}

fn put_in(events: &mut [Event], part: &Part, value: Bytes) {
    let kv = match (&mut events[part.event], part.of) {
        (Event::Put { kv, .. }, PartOf::Value) => Some(kv),
        (Event::Put { previous, .. } | Event::Delete { previous, .. }, PartOf::Previous) => previous.as_mut(),
        (Event::Delete { .. }, PartOf::Value) => None,
    };
    if let Some(kv) = kv {
        kv.value = value;
    }
}

/// What a change costs the history besides its key and values.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = size_of::<Event>();

fn event_bytes(event: &Event) -> usize {
    let (value, previous) = match event {
        Event::Put { kv, previous } => (kv.value.len(), previous),
        Event::Delete { previous, .. } => (0, previous),
    };
    EVENT_OVERHEAD_BYTES + event.key().len() + value + previous.as_ref().map_or(0, |kv| kv.value.len())
}
