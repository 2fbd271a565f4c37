//! Events that were written lately, and are counted up when they come again.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    time::{Duration, SystemTime},
};

/// Events that can be counted up instead of written anew, as many as client-go's correlator keeps.
const REMEMBERED_MAX: usize = 4096;
/// After this an event that repeats is written anew (client-go's interval).
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// What makes two events one, in short.
pub type Sameness = u64;

#[derive(Default)]
pub struct Remembered {
    hasher: RandomState,
    written: HashMap<Sameness, Written>,
    /// From the one that was written first.
    order: VecDeque<Sameness>,
}

struct Written {
    name: String,
    count: u64,
    at: SystemTime,
}

impl Written {
    fn is_recent(&self, now: SystemTime) -> bool {
        now.duration_since(self.at).is_ok_and(|age| age < REMEMBERED_FOR)
    }
}

impl Remembered {
    /// `what` is all by which an event is told from others.
    pub fn of(&self, what: impl Hash) -> Sameness {
        self.hasher.hash_one(what)
    }

    /// Counts one that comes again; its name, and how often it has come.
    pub fn again(&mut self, same: Sameness, now: SystemTime) -> Option<(&str, u64)> {
        let before = self.written.get_mut(&same)?;
        if !before.is_recent(now) {
            return None;
        }
        before.count += 1;
        before.at = now;
        Some((&before.name, before.count))
    }

    /// One that was written for the first time, or anew.
    pub fn insert(&mut self, same: Sameness, name: String, now: SystemTime) {
        let fresh = Written {
            name,
            count: 1,
            at: now,
        };
        if self.written.insert(same, fresh).is_none() {
            self.order.push_back(same);
        }
        while let Some(oldest) = self.order.pop_front() {
            match self.written.get(&oldest) {
                Some(written) if written.is_recent(now) && self.order.len() < REMEMBERED_MAX => {
                    // One that was counted up since may stay before others that are older than it.
                    match written.count {
                        1 => self.order.push_front(oldest),
                        _ => self.order.push_back(oldest),
                    }
                    return;
                }
                _ => drop(self.written.remove(&oldest)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_no_more_is_forgotten_and_the_rest_has_a_bound() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut remembered = Remembered::default();
        for second in 0..2000 {
            remembered.insert(second, "e".to_owned(), at(second));
            // One that always comes again.
            assert_eq!(remembered.again(0, at(second)), Some(("e", second + 2)));
        }
        let lately = remembered.written.len();
        for same in 0..10_000 {
            remembered.insert(10_000 + same, "e".to_owned(), at(2000));
        }

        let most = usize::try_from(REMEMBERED_FOR.as_secs()).unwrap() + 2;
        assert!((100..=most).contains(&lately), "{lately}");
        assert!(remembered.again(19_999, at(2000)).is_some());
        assert_eq!(remembered.again(19_998, at(2000) + REMEMBERED_FOR), None);
        assert!(remembered.written.len() <= REMEMBERED_MAX + 1);
        assert_eq!(remembered.order.len(), remembered.written.len());
    }
}
