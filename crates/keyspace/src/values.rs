//! Values that are not in memory: where each lies, who reads it, and how much memory those take that are there.
//!
//! A store keeps large values on its disk and drops them from memory when they are cold. The index then knows only their
//! [`Place`]; it never reads one, because nothing blocks under its lock. Whoever is given an answer with values missing
//! reads them after the lock is let go ([`Missing::fill`]).

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::{KeyValue, Result};

/// Where a value lies. Twelve bytes, because a million cold keys have a million of them; so a file has less than 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Place {
    /// 0 for none.
    pub file: u32,
    pub offset: u32,
    pub length: u32,
}

impl Place {
    pub fn is_some(self) -> bool {
        self.file != 0
    }
}

/// What leads from places to values, as of one moment: whoever holds it can read all that there was then, whatever is
/// rewritten meanwhile.
pub trait Values: Send + Sync + fmt::Debug {
    /// In the order of `places`. [`crate::Error::Damaged`] if one is not what was written.
    fn read(&self, places: &[Place]) -> Result<Vec<Bytes>>;

    /// The same for these places alone: whoever holds it for long keeps nothing else from being given up.
    fn only(&self, places: &mut dyn Iterator<Item = Place>) -> Arc<dyn Values>;
}

/// Values are read in portions of about so many bytes.
const READ_BYTES: usize = 4 << 20;

/// What an answer lacks.
#[derive(Debug, Default)]
pub struct Missing {
    places: Vec<(usize, Place)>,
    values: Option<Arc<dyn Values>>,
}

impl Missing {
    pub(crate) fn of(places: Vec<(usize, Place)>, values: &Option<Arc<dyn Values>>) -> Missing {
        let values = if places.is_empty() { None } else { values.clone() };
        Missing { places, values }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn first(&self) -> Option<Place> {
        self.places.first().map(|(_, place)| *place)
    }

    /// Blocks while the disk is read.
    pub fn fill(self, items: &mut [KeyValue]) -> Result<()> {
        let Some(values) = self.values else { return Ok(()) };
        let mut rest = &self.places[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(portion(rest));
            let places: Vec<Place> = now.iter().map(|(_, place)| *place).collect();
            for ((at, _), value) in now.iter().zip(values.read(&places)?) {
                items[*at].value = value;
            }
            rest = later;
        }
        Ok(())
    }
}

/// How many of these are read at once.
fn portion(places: &[(usize, Place)]) -> usize {
    let mut bytes = 0;
    let fit = places.iter().take_while(|(_, place)| {
        bytes += place.length as usize;
        bytes <= READ_BYTES
    });
    fit.count().max(1)
}

/// Values that were read for a transaction before it is decided.
#[derive(Clone, Debug, Default)]
pub struct Warm(HashMap<Place, Bytes>);

impl Warm {
    pub fn get(&self, place: Place) -> Option<&Bytes> {
        self.0.get(&place)
    }
}

/// What has to be read before a transaction can be decided.
#[derive(Debug)]
pub struct Needs {
    pub(crate) places: Vec<Place>,
    pub(crate) values: Arc<dyn Values>,
}

impl Needs {
    /// Blocks while the disk is read.
    pub fn read(mut self, warm: &mut Warm) -> Result<()> {
        self.places.sort_unstable();
        self.places.dedup();
        let values = self.values.read(&self.places)?;
        warm.0.extend(self.places.into_iter().zip(values));
        Ok(())
    }
}

/// How much memory the values of many indexes may take together.
pub struct Memory {
    used: AtomicUsize,
    budget: usize,
    /// What was read from the disk and found no room, since somebody was last asked to make some.
    turned_away: AtomicUsize,
    make_room: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.used();
        f.debug_struct("Memory").field("used", &used).finish_non_exhaustive()
    }
}

/// When so much of the budget was read and found no room, what is in memory is no longer what is asked for.
const TURNED_AWAY_PART: usize = 16;

impl Memory {
    /// `make_room` is called, and must not block, when values that are asked for find no room.
    pub fn new(budget: usize, make_room: Box<dyn Fn() + Send + Sync>) -> Memory {
        Memory {
            used: AtomicUsize::new(0),
            budget,
            turned_away: AtomicUsize::new(0),
            make_room,
        }
    }

    pub fn unlimited() -> Memory {
        Memory::new(usize::MAX, Box::new(|| {}))
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn budget(&self) -> usize {
        self.budget
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a value that was just read may stay.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        if self.used().saturating_add(bytes) <= self.budget {
            return true;
        }
        let turned_away = self.turned_away.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if turned_away > self.budget / TURNED_AWAY_PART {
            self.turned_away.store(0, Ordering::Relaxed);
            (self.make_room)();
        }
        false
    }
}
