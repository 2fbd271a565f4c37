//! A cache with a bound.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard},
};

/// Keeps values of at most `capacity` in all (a value counts 1 unless it says otherwise); when full, the least recently
/// used eighth goes at once, so that a scan for it is paid for by many insertions.
pub(crate) struct Bounded<K, V> {
    capacity: usize,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Of all entries together.
    weight: usize,
    /// Counts uses; a use is younger than all before it.
    uses: u64,
}

struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Bounded<K, V> {
    pub(crate) fn new(capacity: usize) -> Bounded<K, V> {
        Bounded {
            capacity,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                weight: 0,
                uses: 0,
            }),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.lock();
        inner.uses += 1;
        let now = inner.uses;
        let entry = inner.entries.get_mut(key)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    pub(crate) fn insert(&self, key: K, value: V) {
        self.insert_weighing(key, value, 1);
    }

    /// What alone outweighs the whole cache is not kept.
    pub(crate) fn insert_weighing(&self, key: K, value: V, weight: usize) {
        let mut inner = self.lock();
        inner.remove(&key);
        if weight > self.capacity {
            return;
        }
        while inner.weight + weight > self.capacity {
            inner.shrink();
        }
        inner.uses += 1;
        inner.weight += weight;
        let used = inner.uses;
        inner.entries.insert(key, Entry { value, weight, used });
    }

    pub(crate) fn remove(&self, key: &K) {
        self.lock().remove(key);
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.entries.clear();
        inner.weight = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.weight -= entry.weight;
        }
    }

    /// Lets at least one entry go, if there is one.
    fn shrink(&mut self) {
        let mut ages: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        if ages.is_empty() {
            self.weight = 0;
            return;
        }
        let nth = ages.len() / 8;
        let (_, youngest_to_go, _) = ages.select_nth_unstable(nth);
        let youngest_to_go = *youngest_to_go;
        self.entries.retain(|_, entry| entry.used > youngest_to_go);
        self.weight = self.entries.values().map(|entry| entry.weight).sum();
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

    #[test]
    fn what_is_heavy_leaves_room_for_little_else() {
        let cache = Bounded::new(100);
        for key in 0..10 {
            cache.insert_weighing(key, key, 10);
        }

        cache.insert_weighing(10, 10, 95);
        cache.insert_weighing(11, 11, 101);

        assert_eq!(cache.get(&10), Some(10));
        assert_eq!((cache.get(&9), cache.get(&11)), (None, None));
        cache.insert_weighing(10, 10, 1);
        assert_eq!(cache.lock().weight, 1);
    }
}
