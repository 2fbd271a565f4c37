//! Tasks with an owner, and the shell that loops have in common.

use std::{fmt::Display, hash::Hash, panic::AssertUnwindSafe, time::Duration};

use api::Object;
use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Informer, Notice, ObjectKey, WorkQueue};

/// Owns tasks: they end when it is stopped or dropped.
#[derive(Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Ends at whatever point it waits at when it is told to.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            token.run_until_cancelled(work).await;
        });
    }

    /// Looks at the token itself, to end where it likes.
    pub fn spawn_graceful<F>(&self, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(work(self.token.clone()));
    }

    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Tells all to end, and waits until they have.
    pub async fn stop(self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// What a loop makes of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// Look again after this time even if nothing happens.
    After(Duration),
}

/// Works a queue off with `workers` tasks. A key that fails comes again with back-off; on stopping, keys in work are
/// finished.
pub fn run<K, L, F, Fut, E>(tasks: &Tasks, name: &'static str, queue: &WorkQueue<K, L>, workers: usize, reconcile: F)
where
    K: Hash + Eq + Clone + Display + Send + Sync + 'static,
    L: Hash + Eq + Clone + Send + Sync + 'static,
    F: Fn(K) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send,
    E: Display + Send,
{
    for _ in 0..workers {
        let (queue, reconcile) = (queue.clone(), reconcile.clone());
        tasks.spawn_graceful(|token| async move {
            while let Some(work) = token.run_until_cancelled(queue.next()).await {
                let key = work.key().clone();
                // A bug met by one object must not end the loop for all others.
                match AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await {
                    Ok(Ok(outcome)) => {
                        queue.forget(&key);
                        if let Outcome::After(delay) = outcome {
                            queue.add_after(key, delay);
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(name, %key, %error, "to be tried again");
                        queue.retry(key);
                    }
                    Err(_) => {
                        tracing::error!(name, %key, "panicked; to be tried again");
                        queue.retry(key);
                    }
                }
            }
        });
    }
}

/// Feeds a queue from an informer: `keys` says which keys a change concerns (it is called for the old and for the new
/// state), `all` which to look at when changes were missed.
pub fn enqueue<K, L, F, A>(tasks: &Tasks, informer: &Informer, queue: &WorkQueue<K, L>, keys: F, all: A)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    L: Hash + Eq + Clone + Send + Sync + 'static,
    F: Fn(&ObjectKey, &Object) -> Vec<K> + Send + Sync + 'static,
    A: Fn() -> Vec<K> + Send + Sync + 'static,
{
    let mut changes = informer.subscribe();
    let (informer, queue) = (informer.clone(), queue.clone());
    tasks.spawn(async move {
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Change(change) => {
                    for object in change.old.iter().chain(&change.new) {
                        keys(&change.key, object).into_iter().for_each(|key| queue.add(key));
                    }
                }
                // A loop may have put off what it could not decide before the source was whole.
                Notice::Rescan | Notice::Synced(_) => {
                    // What has gone meanwhile is found by `all` only.
                    all().into_iter().for_each(|key| queue.add(key));
                    for (key, object) in informer.all() {
                        keys(&key, &object).into_iter().for_each(|key| queue.add(key));
                    }
                }
                Notice::Removed(_) => {}
            }
        }
    });
}
