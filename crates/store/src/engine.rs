//! What the threads of a store and the handles of its keyspaces share: the keyspaces, the queue of writes, and whether
//! the store is still good.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use keyspace::{
    Error, Granted, LeaseId, Result, Revision, Txn, Txned,
    index::{Index, Limits},
    values::{Memory, Warm},
    view::View,
};
use tokio::sync::oneshot;
use world::World;

use crate::{
    apart::SpaceFiles,
    committer::{self, Committer},
    record::SpaceId,
    store::ValueOptions,
};

/// Writes that wait for a commit. A commit takes a millisecond; more than this is an overload that must be told.
pub(crate) const QUEUE_REQUESTS_MAX: usize = 16 << 10;
pub(crate) const QUEUE_BYTES_MAX: usize = 128 << 20;

/// Made by name and never given back; each costs some kilobytes.
pub(crate) const SPACES_MAX: usize = 100_000;
pub(crate) const SPACE_NAME_BYTES_MAX: usize = 253;

pub(crate) struct Space {
    pub id: SpaceId,
    pub name: String,
    pub view: Arc<View>,
    /// The last frame of the log that has something of it.
    pub last_frame: AtomicU64,
    /// Everything up to this frame is in its snapshot.
    pub snapshot_frame: AtomicU64,
    pub snapshot_bytes: AtomicU64,
    pub values_bytes: AtomicU64,
    pub files: Mutex<SpaceFiles>,
    /// Where the look for cold values goes on.
    pub hand: Mutex<Option<Bytes>>,
}

impl Space {
    /// One that is not on the disk yet.
    pub fn new(id: SpaceId, name: String, index: Index) -> Space {
        Space {
            id,
            name,
            view: View::new(index),
            last_frame: 0.into(),
            snapshot_frame: 0.into(),
            snapshot_bytes: 0.into(),
            values_bytes: 0.into(),
            files: Mutex::default(),
            hand: Mutex::default(),
        }
    }

    pub fn is_ahead_of_its_snapshot(&self) -> bool {
        self.last_frame.load(Ordering::Acquire) > self.snapshot_frame.load(Ordering::Acquire)
    }
}

#[derive(Default)]
pub(crate) struct Spaces {
    pub by_id: BTreeMap<SpaceId, Arc<Space>>,
    pub by_name: HashMap<String, Arc<Space>>,
}

impl Spaces {
    pub fn insert(&mut self, space: Arc<Space>) {
        self.by_name.insert(space.name.clone(), space.clone());
        self.by_id.insert(space.id, space);
    }
}

pub(crate) enum Work {
    /// With what was read for it already.
    Txn(Txn, Warm),
    Grant {
        id: Option<LeaseId>,
        ttl: Duration,
    },
    Revoke(LeaseId),
    Compact(Revision),
}

#[derive(Debug)]
pub(crate) enum Answer {
    Txned(Txned),
    Granted(Granted),
    Done,
    Created(Arc<Space>),
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

pub(crate) enum What {
    Create(String),
    In(Arc<Space>, Work),
}

pub(crate) struct Request {
    pub what: What,
    pub bytes: usize,
    /// `None` for what the store does by itself.
    pub reply: Option<oneshot::Sender<Result<Answer>>>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    bytes: usize,
    stopping: bool,
    /// When leases have to be looked at, in monotonic time.
    look_at: Option<Duration>,
}

pub(crate) struct Engine {
    pub dir: PathBuf,
    pub world: World,
    pub limits: Limits,
    pub segment_bytes: u64,
    pub checkpoint_bytes: u64,
    pub values: ValueOptions,
    pub memory: Arc<Memory>,
    pub spaces: RwLock<Spaces>,
    queue: Mutex<Queue>,
    queued: Condvar,
    pub committer: Mutex<Committer>,
    failed: Mutex<Option<Error>>,
    pub checkpoints: Arc<Checkpoints>,
    pub sizes: Sizes,
}

/// As last seen, for whoever asks how large the store is.
#[derive(Default)]
pub(crate) struct Sizes {
    pub log_bytes: AtomicU64,
    pub commits: AtomicU64,
}

/// When a checkpoint is due, and that one is asked for.
pub(crate) struct Checkpoints {
    /// Size of the log at which the next one is due.
    pub due_at_bytes: AtomicU64,
    pub running: Mutex<()>,
    pub stopping: AtomicBool,
    asked: Mutex<Asked>,
    ask: Condvar,
}

/// What the thread behind the committer is asked for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    pub checkpoint: bool,
    /// Room in memory for values that are read again and again.
    pub room: bool,
}

impl Checkpoints {
    pub fn new(due_at_bytes: u64) -> Checkpoints {
        Checkpoints {
            due_at_bytes: AtomicU64::new(due_at_bytes),
            running: Mutex::default(),
            stopping: AtomicBool::new(false),
            asked: Mutex::default(),
            ask: Condvar::new(),
        }
    }

    pub fn ask(&self) {
        lock(&self.asked).checkpoint = true;
        self.ask.notify_one();
    }

    pub fn ask_for_room(&self) {
        lock(&self.asked).room = true;
        self.ask.notify_one();
    }

    pub fn stop(&self) {
        // Under the lock, so that who is about to wait sees it.
        let _asked = lock(&self.asked);
        self.stopping.store(true, Ordering::Release);
        self.ask.notify_one();
    }

    /// `None` when the store stops.
    pub fn wait(&self) -> Option<Asked> {
        let mut asked = lock(&self.asked);
        loop {
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            let now = std::mem::take(&mut *asked);
            if now.checkpoint || now.room {
                return Some(now);
            }
            asked = self.ask.wait(asked).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A holder that panicked left nothing half done that matters: what is staged and not published is rolled back.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

impl Engine {
    pub fn new(
        options: &crate::StoreOptions,
        spaces: Spaces,
        committer: Committer,
        look_at: Option<Duration>,
        is_due: bool,
    ) -> Engine {
        let checkpoint_bytes = options.checkpoint_bytes.min(options.values.unsaved_bytes_max());
        let due_at_bytes = if is_due { 0 } else { checkpoint_bytes };
        let checkpoints = Arc::new(Checkpoints::new(due_at_bytes));
        let asking = checkpoints.clone();
        let memory = Memory::new(options.values.memory_bytes, Box::new(move || asking.ask_for_room()));
        let memory = Arc::new(memory);
        for space in spaces.by_id.values() {
            space.view.write().share_memory(memory.clone());
        }
        Engine {
            dir: options.dir.clone(),
            world: options.world.clone(),
            limits: options.limits,
            segment_bytes: options.segment_bytes,
            checkpoint_bytes,
            values: options.values,
            memory,
            spaces: RwLock::new(spaces),
            queue: Mutex::new(Queue {
                look_at,
                ..Queue::default()
            }),
            queued: Condvar::new(),
            committer: Mutex::new(committer),
            failed: Mutex::default(),
            checkpoints,
            sizes: Sizes::default(),
        }
    }

    pub fn space(&self, name: &str) -> Option<Arc<Space>> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.by_name.get(name).cloned()
    }

    pub fn all_spaces(&self) -> Vec<Arc<Space>> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.by_id.values().cloned().collect()
    }

    pub fn health(&self) -> Result<()> {
        lock(&self.failed).clone().map_or(Ok(()), Err)
    }

    /// From now on every write is refused; reads go on.
    pub fn fail(&self, why: String) {
        tracing::error!(why, "the store has failed and takes no more writes");
        lock(&self.failed).get_or_insert(Error::Failed(why));
    }

    /// Puts a write into the queue and waits until it is durable.
    pub async fn submit(&self, what: What, bytes: usize, timeout: Option<Duration>) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Request {
            what,
            bytes,
            reply: Some(reply),
        })?;
        let unknown = |why: &str| Error::Unknown(format!("{why} before the write was done"));
        let Some(timeout) = timeout else {
            return answer.await.map_err(|_| unknown("the store was closed"))?;
        };
        tokio::select! {
            answer = answer => answer.map_err(|_| unknown("the store was closed"))?,
            () = self.world.clock.sleep(timeout) => Err(unknown("time was up")),
        }
    }

    fn enqueue(&self, request: Request) -> Result<()> {
        self.health()?;
        let mut queue = lock(&self.queue);
        if queue.stopping {
            return Err(closed());
        }
        if queue.requests.len() >= QUEUE_REQUESTS_MAX || queue.bytes + request.bytes > QUEUE_BYTES_MAX {
            return Err(Error::Unavailable("too many writes are waiting".into()));
        }
        queue.bytes += request.bytes;
        queue.requests.push_back(request);
        drop(queue);
        self.queued.notify_one();
        Ok(())
    }

    /// Takes what is to be done in one commit.
    pub fn take_batch(&self) -> Vec<Request> {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        let mut batch = Vec::new();
        while batch.len() < committer::BATCH_REQUESTS_MAX && bytes < committer::BATCH_BYTES_MAX {
            let Some(request) = queue.requests.pop_front() else {
                break;
            };
            bytes += request.bytes;
            queue.bytes -= request.bytes;
            batch.push(request);
        }
        batch
    }

    /// Waits for writes, or for leases to be looked at. False when the store stops and nothing is left to do.
    pub fn wait_for_work(&self) -> bool {
        let mut queue = lock(&self.queue);
        loop {
            if !queue.requests.is_empty() {
                return true;
            }
            if queue.stopping {
                return false;
            }
            queue = match queue.look_at {
                None => self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let pause = at.saturating_sub(self.world.clock.monotonic());
                    if pause.is_zero() {
                        return true;
                    }
                    let waited = self.queued.wait_timeout(queue, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub fn leases_are_due(&self, now: Duration) -> bool {
        lock(&self.queue).look_at.is_some_and(|at| at <= now)
    }

    pub fn look_no_later_than(&self, at: Duration) {
        let mut queue = lock(&self.queue);
        queue.look_at = Some(queue.look_at.map_or(at, |before| before.min(at)));
    }

    pub fn look_next(&self, at: Option<Duration>) {
        lock(&self.queue).look_at = at;
    }

    /// No more writes are taken; those that wait are still done.
    pub fn stop(&self) {
        lock(&self.queue).stopping = true;
        self.queued.notify_one();
        self.checkpoints.stop();
    }

    /// Nobody commits any more: whoever waits is told, and watches end.
    pub fn close(&self) {
        self.stop();
        let left = std::mem::take(&mut lock(&self.queue).requests);
        for request in left {
            if let Some(reply) = request.reply {
                let _ = reply.send(Err(closed()));
            }
        }
        for space in self.all_spaces() {
            space.view.close(closed());
        }
    }
}
