//! Work by key: each key at most once in the queue and at most once in work, retried with back-off, or later.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;
use world::World;

use crate::{backoff::exponential, lanes::Lanes};

/// Client-go's per-item limiter has the same two numbers; its global bucket is not needed where requests are cheap.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    pub retry_first: Duration,
    pub retry_longest: Duration,
    /// Keys of one lane in work at once, so that a lane whose work hangs does not take all workers; `None` is any number.
    /// A heavier lane has its weight times as many, up to four times: what goes at one speed is shared by how much is
    /// under way, not by turns alone.
    pub lane_workers: Option<usize>,
}

/// How many times as many workers the heaviest lane may hold as one of weight 1.
pub(crate) const HEAVY_MAX: u32 = 4;

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            retry_first: Duration::from_millis(5),
            retry_longest: Duration::from_secs(60),
            lane_workers: None,
        }
    }
}

/// A queue of keys. Its size is bounded by the number of distinct keys, of objects that is. All clones are one queue.
///
/// `L` is the lane by which [`WorkQueue::fair`] is fair; a plain queue has one.
pub struct WorkQueue<K, L = ()> {
    inner: Arc<Inner<K, L>>,
}

impl<K, L> Clone for WorkQueue<K, L> {
    fn clone(&self) -> Self {
        WorkQueue {
            inner: self.inner.clone(),
        }
    }
}

type LaneOf<K, L> = Box<dyn Fn(&K) -> L + Send + Sync>;
type WeightOf<L> = Box<dyn Fn(&L) -> u32 + Send + Sync>;

struct Inner<K, L> {
    state: Mutex<State<K, L>>,
    /// One waiter is woken for one piece of news; whoever takes news hands on what is left.
    news: Notify,
    world: World,
    options: QueueOptions,
    lane_of: LaneOf<K, L>,
    weight_of: WeightOf<L>,
}

struct State<K, L> {
    ready: Lanes<K, L>,
    /// In `ready`, or to be put there when the work on it ends.
    dirty: HashSet<K>,
    working: HashSet<K>,
    /// How many keys of each lane are in work; lanes without any are not kept. Counted only where there is a limit.
    lane_working: HashMap<L, usize>,
    later: BinaryHeap<Later<K>>,
    /// The earliest moment for each key in `later`; entries of the heap that differ are void.
    due: HashMap<K, Duration>,
    failures: HashMap<K, u32>,
}

struct Later<K> {
    at: Duration,
    key: K,
}

impl<K> PartialEq for Later<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Later<K> {}

impl<K> PartialOrd for Later<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Later<K> {
    /// Earliest first out of a max-heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<K: Hash + Eq + Clone> WorkQueue<K> {
    pub fn new(world: &World) -> WorkQueue<K> {
        WorkQueue::with_options(world, QueueOptions::default())
    }

    pub fn with_options(world: &World, options: QueueOptions) -> WorkQueue<K> {
        WorkQueue::build(world, options, Box::new(|_| ()), Box::new(|()| 1))
    }
}

impl<K: Hash + Eq + Clone, L: Hash + Eq + Clone> WorkQueue<K, L> {
    /// Takes turns over lanes (tenants, say), each with a weight.
    pub fn fair<F, W>(world: &World, options: QueueOptions, lane_of: F, weight_of: W) -> WorkQueue<K, L>
    where
        F: Fn(&K) -> L + Send + Sync + 'static,
        W: Fn(&L) -> u32 + Send + Sync + 'static,
    {
        WorkQueue::build(world, options, Box::new(lane_of), Box::new(weight_of))
    }

    fn build(world: &World, options: QueueOptions, lane_of: LaneOf<K, L>, weight_of: WeightOf<L>) -> WorkQueue<K, L> {
        WorkQueue {
            inner: Arc::new(Inner {
                state: Mutex::new(State {
                    ready: Lanes::new(),
                    dirty: HashSet::new(),
                    working: HashSet::new(),
                    lane_working: HashMap::new(),
                    later: BinaryHeap::new(),
                    due: HashMap::new(),
                    failures: HashMap::new(),
                }),
                news: Notify::new(),
                world: world.clone(),
                options,
                lane_of,
                weight_of,
            }),
        }
    }

    /// To be worked on soon. A key in work comes again after that work.
    pub fn add(&self, key: K) {
        self.inner.add(&mut self.inner.lock(), key);
        self.inner.news.notify_one();
    }

    /// To be worked on after `delay`; the earliest of several wins.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = self.inner.world.clock.monotonic() + delay;
        let mut state = self.inner.lock();
        if state.due.get(&key).is_none_or(|due| at < *due) {
            state.due.insert(key.clone(), at);
            state.later.push(Later { at, key });
            drop(state);
            // Someone has to set a timer by it.
            self.inner.news.notify_one();
        }
    }

    /// After one more failure: later each time.
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.inner.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures - 1
        };
        let options = &self.inner.options;
        self.add_after(key, exponential(options.retry_first, options.retry_longest, failures));
    }

    /// After success: the next failure is the first again.
    pub fn forget(&self, key: &K) {
        self.inner.lock().failures.remove(key);
    }

    pub fn failures(&self, key: &K) -> u32 {
        self.inner.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Ready to be worked on, without those due later.
    pub fn len(&self) -> usize {
        self.inner.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&self) -> Work<K, L> {
        loop {
            let now = self.inner.world.clock.monotonic();
            let earliest = {
                let mut state = self.inner.lock();
                self.inner.ripen(&mut state, now);
                if let Some(key) = self.inner.pop(&mut state) {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    if state.ready.len() > 0 || !state.later.is_empty() {
                        // This waiter goes away to work: another one takes over the queue and its timer.
                        self.inner.news.notify_one();
                    }
                    return Work {
                        key,
                        queue: self.clone(),
                    };
                }
                state.later.peek().map(|later| later.at)
            };
            match earliest {
                None => self.inner.news.notified().await,
                Some(at) => tokio::select! {
                    () = self.inner.news.notified() => {}
                    () = self.inner.world.clock.sleep(at.saturating_sub(now)) => {}
                },
            }
        }
    }
}

impl<K: Hash + Eq + Clone, L: Hash + Eq + Clone> Inner<K, L> {
    fn lock(&self) -> MutexGuard<'_, State<K, L>> {
        self.state.lock().expect("no one panics while holding it")
    }

    fn add(&self, state: &mut State<K, L>, key: K) {
        if state.dirty.insert(key.clone()) && !state.working.contains(&key) {
            let lane = (self.lane_of)(&key);
            let weight = (self.weight_of)(&lane);
            state.ready.push(lane, weight, key);
        }
    }

    fn pop(&self, state: &mut State<K, L>) -> Option<K> {
        let Some(limit) = self.options.lane_workers else {
            return state.ready.pop(&self.weight_of, |_| true);
        };
        let working = &state.lane_working;
        let heavier = |lane: &L| limit * (self.weight_of)(lane).clamp(1, HEAVY_MAX) as usize;
        let may_go = |lane: &L| {
            let working = working.get(lane).copied().unwrap_or(0);
            working < limit || working < heavier(lane)
        };
        let key = state.ready.pop(&self.weight_of, may_go)?;
        *state.lane_working.entry((self.lane_of)(&key)).or_default() += 1;
        Some(key)
    }

    /// Returns whether keys of the lane have waited for this.
    fn leave(&self, state: &mut State<K, L>, key: &K) -> bool {
        let Some(limit) = self.options.lane_workers else {
            return false;
        };
        let lane = (self.lane_of)(key);
        let Some(working) = state.lane_working.get_mut(&lane) else {
            return false;
        };
        let was_full = *working >= limit;
        *working -= 1;
        if *working == 0 {
            state.lane_working.remove(&lane);
        }
        was_full && state.ready.len() > 0
    }

    /// Moves what is due by now among the ready.
    fn ripen(&self, state: &mut State<K, L>, now: Duration) {
        while state.later.peek().is_some_and(|later| later.at <= now) {
            let Some(later) = state.later.pop() else { return };
            if state.due.get(&later.key) == Some(&later.at) {
                state.due.remove(&later.key);
                self.add(state, later.key);
            }
        }
    }
}

/// A key in work; no one else gets it until this is dropped.
pub struct Work<K: Hash + Eq + Clone, L: Hash + Eq + Clone = ()> {
    key: K,
    queue: WorkQueue<K, L>,
}

impl<K: Hash + Eq + Clone, L: Hash + Eq + Clone> Work<K, L> {
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Hash + Eq + Clone, L: Hash + Eq + Clone> Drop for Work<K, L> {
    fn drop(&mut self) {
        let inner = &self.queue.inner;
        let mut state = inner.lock();
        state.working.remove(&self.key);
        let mut news = inner.leave(&mut state, &self.key);
        if state.dirty.remove(&self.key) {
            inner.add(&mut state, self.key.clone());
            news = true;
        }
        drop(state);
        if news {
            inner.news.notify_one();
        }
    }
}
