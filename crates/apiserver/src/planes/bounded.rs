//! A cache with a bound.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard},
};

/// Keeps at most `capacity` values; when full, the least recently used eighth goes at once, so that a scan for it is
/// paid for by many insertions.
pub(crate) struct Bounded<K, V> {
    capacity: usize,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: HashMap<K, (V, u64)>,
    /// Counts uses; a use is younger than all before it.
    uses: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Bounded<K, V> {
    pub(crate) fn new(capacity: usize) -> Bounded<K, V> {
        Bounded {
            capacity,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                uses: 0,
            }),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.lock();
        inner.uses += 1;
        let now = inner.uses;
        let (value, used) = inner.entries.get_mut(key)?;
        *used = now;
        Some(value.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        let mut inner = self.lock();
        if inner.entries.len() >= self.capacity && !inner.entries.contains_key(&key) {
            let mut ages: Vec<u64> = inner.entries.values().map(|(_, used)| *used).collect();
            let nth = ages.len() / 8;
            let (_, oldest_kept, _) = ages.select_nth_unstable(nth);
            let oldest_kept = *oldest_kept;
            inner.entries.retain(|_, (_, used)| *used > oldest_kept);
        }
        inner.uses += 1;
        let now = inner.uses;
        inner.entries.insert(key, (value, now));
    }

    pub(crate) fn remove(&self, key: &K) {
        self.lock().entries.remove(key);
    }

    pub(crate) fn clear(&self) {
        self.lock().entries.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first_and_the_bound_holds() {
        let cache = Bounded::new(16);
        for key in 0..16 {
            cache.insert(key, key);
        }
        assert_eq!(cache.get(&0), Some(0));

        cache.insert(16, 16);

        assert_eq!(cache.get(&0), Some(0));
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.get(&16), Some(16));
        for key in 100..200 {
            cache.insert(key, key);
            assert!(cache.lock().entries.len() <= 16);
        }
    }
}
