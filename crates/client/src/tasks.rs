//! Owners of tasks, and the shell that every loop has.

use std::{fmt::Debug, future::Future, hash::Hash, sync::Arc, time::Duration};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::WorkQueue;

/// Owns tasks: they end when it is stopped or dropped.
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    _end_on_drop: DropGuard,
}

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks::new()
    }
}

impl Tasks {
    pub fn new() -> Tasks {
        let stop = CancellationToken::new();
        Tasks {
            tracker: TaskTracker::new(),
            _end_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Runs until done or until the owner ends it, at the next await.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends all tasks and waits for them.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// What came of handling a key.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// Done for now; look again after a while.
    Again(Duration),
    /// Try again after the key's back-off.
    Failed(String),
}

/// Handles the queue's keys with `workers` tasks.
pub fn run<K, F, R>(tasks: &Tasks, name: &'static str, queue: &WorkQueue<K>, workers: usize, handle: F)
where
    K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    F: Fn(K) -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send,
{
    let handle = Arc::new(handle);
    for _ in 0..workers {
        let (queue, handle) = (queue.clone(), handle.clone());
        tasks.spawn(async move {
            while let Some(work) = queue.next().await {
                let key = work.key.clone();
                match handle(key.clone()).await {
                    Outcome::Done => queue.forget(&key),
                    Outcome::Again(delay) => {
                        queue.forget(&key);
                        queue.add_after(key, delay);
                    }
                    Outcome::Failed(reason) => {
                        tracing::debug!(loop = name, ?key, reason, "will be tried again");
                        queue.retry(key);
                    }
                }
                drop(work);
            }
        });
    }
}
