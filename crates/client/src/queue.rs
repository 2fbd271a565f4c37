//! Keys waiting to be handled: each once however often it was added, with back-off a key, fair between lanes.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use world::World;

use crate::backoff::exponential;

/// Which sub-queue a key waits in: that of its tenant, say.
pub type LaneFn<K> = Arc<dyn Fn(&K) -> u64 + Send + Sync>;

#[derive(Clone)]
pub struct QueueOptions<K> {
    pub retry_first: Duration,
    pub retry_longest: Duration,
    /// Lanes are served in turn, one key each; without it all keys are in one.
    pub lane: Option<LaneFn<K>>,
}

impl<K> Default for QueueOptions<K> {
    /// client-go's controllers begin at 5 ms; their longest of 1,000 s is too long for a person who waits.
    fn default() -> QueueOptions<K> {
        QueueOptions {
            retry_first: Duration::from_millis(5),
            retry_longest: Duration::from_secs(60),
            lane: None,
        }
    }
}

/// Cheap to clone; all clones are one queue.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> WorkQueue<K> {
        WorkQueue {
            shared: self.shared.clone(),
        }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    options: QueueOptions<K>,
    world: World,
}

struct State<K> {
    /// Waiting to be handled, in their lanes.
    waiting: HashSet<K>,
    lanes: HashMap<u64, VecDeque<K>>,
    /// Lanes that have a key, in the order in which they are served.
    turn: VecDeque<u64>,
    /// Being handled; one that is added meanwhile is handled again afterwards.
    handled: HashSet<K>,
    again: HashSet<K>,
    failures: HashMap<K, u32>,
    /// By the time at which they are due. A key is here once: the earliest time counts.
    delayed: BinaryHeap<Reverse<(Duration, u64)>>,
    delayed_keys: HashMap<u64, K>,
    delayed_until: HashMap<K, (Duration, u64)>,
    next_delayed: u64,
    closed: bool,
}

/// A key that is being handled; dropping it says that it is done.
pub struct Work<K: Clone + Eq + Hash> {
    pub key: K,
    queue: WorkQueue<K>,
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    pub fn new(options: QueueOptions<K>, world: World) -> WorkQueue<K> {
        let state = State {
            waiting: HashSet::new(),
            lanes: HashMap::new(),
            turn: VecDeque::new(),
            handled: HashSet::new(),
            again: HashSet::new(),
            failures: HashMap::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            delayed_until: HashMap::new(),
            next_delayed: 0,
            closed: false,
        };
        WorkQueue {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
                options,
                world,
            }),
        }
    }

    pub fn add(&self, key: K) {
        let mut state = self.lock();
        self.put(&mut state, key);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Adds the key after a while; the earliest of several times counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        let due = self.shared.world.clock.monotonic() + delay;
        let mut state = self.lock();
        match state.delayed_until.get(&key) {
            Some((sooner, _)) if *sooner <= due => return,
            Some((_, id)) => {
                let id = *id;
                state.delayed_keys.remove(&id);
            }
            None => {}
        }
        let id = state.next_delayed;
        state.next_delayed += 1;
        state.delayed.push(Reverse((due, id)));
        state.delayed_keys.insert(id, key.clone());
        state.delayed_until.insert(key, (due, id));
        drop(state);
        // A worker that waits for a later time has to wait for this one.
        self.shared.changed.notify_one();
    }

    /// Adds the key after its back-off, which doubles with each failure.
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures - 1
        };
        let options = &self.shared.options;
        self.add_after(key, exponential(options.retry_first, options.retry_longest, failures));
    }

    /// The key was handled well: its back-off begins anew.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key; `None` once the queue is closed.
    pub async fn next(&self) -> Option<Work<K>> {
        loop {
            let changed = self.shared.changed.notified();
            let due = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                let due = self.take_due(&mut state);
                if let Some(key) = state.take() {
                    if !state.waiting.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return Some(Work {
                        key,
                        queue: self.clone(),
                    });
                }
                due
            };
            match due {
                Some(delay) => tokio::select! {
                    () = changed => {}
                    () = self.shared.world.clock.sleep(delay) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Workers get nothing more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }

    pub fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.delayed_until.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves what is due to its lane; returns how long the next one waits.
    fn take_due(&self, state: &mut State<K>) -> Option<Duration> {
        let now = self.shared.world.clock.monotonic();
        while let Some(Reverse((due, id))) = state.delayed.peek().copied() {
            // Replaced by an earlier time.
            if !state.delayed_keys.contains_key(&id) {
                state.delayed.pop();
                continue;
            }
            if due > now {
                return Some(due - now);
            }
            state.delayed.pop();
            if let Some(key) = state.delayed_keys.remove(&id) {
                state.delayed_until.remove(&key);
                self.put(state, key);
            }
        }
        None
    }

    fn put(&self, state: &mut State<K>, key: K) {
        if state.handled.contains(&key) {
            state.again.insert(key);
            return;
        }
        if !state.waiting.insert(key.clone()) {
            return;
        }
        let lane = self.shared.options.lane.as_ref().map_or(0, |lane| lane(&key));
        let keys = state.lanes.entry(lane).or_default();
        if keys.is_empty() {
            state.turn.push_back(lane);
        }
        keys.push_back(key);
    }

    fn done(&self, key: &K) {
        let mut state = self.lock();
        state.handled.remove(key);
        if state.again.remove(key) {
            self.put(&mut state, key.clone());
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.shared.state.lock().expect("no one panics while holding it")
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// One key of the lane whose turn it is.
    fn take(&mut self) -> Option<K> {
        let lane = self.turn.pop_front()?;
        let keys = self.lanes.get_mut(&lane).expect("a lane in turn has keys");
        let key = keys.pop_front().expect("a lane in turn has keys");
        if keys.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.turn.push_back(lane);
        }
        self.waiting.remove(&key);
        self.handled.insert(key.clone());
        Some(key)
    }
}

impl<K: Clone + Eq + Hash> Drop for Work<K> {
    fn drop(&mut self) {
        self.queue.done(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(lane: Option<LaneFn<u64>>) -> WorkQueue<u64> {
        WorkQueue::new(
            QueueOptions {
                lane,
                ..QueueOptions::default()
            },
            World::real(),
        )
    }

    #[tokio::test]
    async fn a_key_added_while_it_is_handled_is_handled_once_more() {
        let queue = queue(None);
        queue.add(1);
        queue.add(1);

        let work = queue.next().await.unwrap();
        assert!(queue.is_empty());
        queue.add(1);
        queue.add(1);
        assert!(queue.is_empty(), "it waits for the one that handles it");
        drop(work);

        assert_eq!(queue.next().await.unwrap().key, 1);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn lanes_are_served_in_turn() {
        let queue = queue(Some(Arc::new(|key| key / 100)));
        for key in [100, 101, 102, 103, 200] {
            queue.add(key);
        }

        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(queue.next().await.unwrap().key);
        }

        assert_eq!(order, [100, 200, 101, 102, 103]);
    }

    #[tokio::test]
    async fn the_earliest_of_several_delays_counts() {
        let queue = queue(None);
        queue.add_after(1, Duration::from_secs(3600));
        queue.add_after(1, Duration::from_millis(1));
        queue.add_after(1, Duration::from_secs(7200));

        assert_eq!(queue.next().await.unwrap().key, 1);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_closed_queue_lets_its_workers_go() {
        let queue = queue(None);
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.is_none() }
        });
        tokio::task::yield_now().await;

        queue.close();

        assert!(waiting.await.unwrap());
    }
}
