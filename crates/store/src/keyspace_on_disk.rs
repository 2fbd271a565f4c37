//! One keyspace of a store: reads from its index, writes through the committer.

use std::{
    ops::Bound,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use keyspace::{
    Error, Granted, Keyspace, LeaseId, LeaseState, Local, Op, Options, Previous, Range, Ranged, Result, Revision,
    Storage, Txn, Txned, Watch, WatchStream, check, values::Warm, view::View,
};
use tokio::sync::oneshot;

use crate::{
    checkpoint,
    engine::{Answer, Engine, Space, What, Work},
};

pub(crate) struct DiskKeyspace {
    pub engine: Arc<Engine>,
    pub space: Arc<Space>,
}

impl DiskKeyspace {
    async fn submit(&self, work: Work, bytes: usize, timeout: Option<Duration>) -> Result<Answer> {
        self.engine
            .submit(What::In(self.space.clone(), work), bytes, timeout)
            .await
    }

    /// Values of many keys are read before the transaction's turn, so that nobody else waits for that. The committer reads
    /// what is still lacking then.
    fn read_ahead(&self, txn: &Txn) -> Result<Warm> {
        let mut warm = Warm::default();
        if tells_many(txn) && self.space.view.read().values().is_some() {
            let needs = self.space.view.read().needs(txn, &warm)?;
            if let Some(needs) = needs {
                needs.read(&mut warm)?;
            }
        }
        Ok(warm)
    }

    fn now(&self) -> Duration {
        self.engine.world.clock.monotonic()
    }
}

/// About what a request takes of the queue.
fn bytes(txn: &Txn) -> usize {
    const OVERHEAD_BYTES: usize = 256;
    let ops = txn.success.iter().chain(&txn.failure);
    let ops: usize = ops
        .map(|op| match op {
            Op::Put(put) => put.key.len() + put.value.len(),
            Op::Txn(nested) => bytes(nested),
            Op::Range(_) | Op::Delete { .. } => 0,
        })
        .sum();
    OVERHEAD_BYTES + ops
}

/// Whether values of more than a few keys may be told by it.
fn tells_many(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(Range { keys, .. })
        | Op::Delete {
            keys,
            previous: Previous::Return,
        } => !matches!(&keys.end, Bound::Included(end) if *end == keys.start),
        Op::Txn(nested) => tells_many(nested),
        Op::Put(_) | Op::Delete { .. } => false,
    })
}

fn unexpected(answer: Answer) -> Error {
    // Each kind of work has one kind of answer.
    Error::Failed(format!("a write was answered with {answer:?}"))
}

#[async_trait]
impl Keyspace for DiskKeyspace {
    async fn range(&self, range: Range, _options: Options) -> Result<Ranged> {
        // What is published is what was acknowledged, or is about to be: every read is linearizable.
        self.space.view.range(&range)
    }

    async fn txn(&self, txn: Txn, options: Options) -> Result<Txned> {
        check::txn(&txn)?;
        self.checked_txn(txn, options).await
    }

    async fn watch(&self, watch: Watch, _options: Options) -> Result<WatchStream> {
        self.space.view.watch(watch)
    }

    async fn request_progress(&self) -> Result<()> {
        self.space.view.request_progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision, options: Options) -> Result<()> {
        self.submit(Work::Compact(revision), 0, options.timeout).await?;
        self.space.view.prune();
        Ok(())
    }

    async fn grant_lease(&self, id: Option<LeaseId>, ttl: Duration) -> Result<Granted> {
        match self.submit(Work::Grant { id, ttl }, 0, None).await? {
            Answer::Granted(granted) => Ok(granted),
            other => Err(unexpected(other)),
        }
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<()> {
        self.submit(Work::Revoke(id), 0, None).await?;
        Ok(())
    }

    async fn keep_lease(&self, id: LeaseId) -> Result<Duration> {
        // Not durable, as in etcd: a restart gives each lease its whole time again.
        self.space.view.write().keep_lease(id, self.now())
    }

    async fn lease_state(&self, id: LeaseId) -> Result<LeaseState> {
        self.space.view.read().lease_state(id, self.now())
    }
}

#[async_trait]
impl Local for DiskKeyspace {
    fn view(&self) -> &Arc<View> {
        &self.space.view
    }

    async fn checked_txn(&self, txn: Txn, options: Options) -> Result<Txned> {
        let bytes = bytes(&txn);
        let warm = self.read_ahead(&txn)?;
        match self.submit(Work::Txn(txn, warm), bytes, options.timeout).await? {
            Answer::Txned(answer) => Ok(answer),
            other => Err(unexpected(other)),
        }
    }

    async fn begin_compaction(&self, revision: Revision) -> Result<()> {
        self.submit(Work::Compact(revision), 0, None).await?;
        let space = self.space.clone();
        let spawned = thread::Builder::new()
            .name("store-prune".to_owned())
            .spawn(move || space.view.prune());
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to free what was compacted; the next commits do it");
        }
        Ok(())
    }

    fn storage(&self) -> Storage {
        let sizes = &self.engine.sizes;
        let snapshots: u64 = self
            .engine
            .all_spaces()
            .iter()
            .map(|space| space.snapshot_bytes.load(Ordering::Relaxed) + space.values_bytes.load(Ordering::Relaxed))
            .sum();
        Storage {
            size_bytes: snapshots + sizes.log_bytes.load(Ordering::Relaxed),
            in_use_bytes: self.space.view.read().bytes() as u64,
            commits: sizes.commits.load(Ordering::Relaxed),
        }
    }

    async fn defragment(&self) -> Result<()> {
        let engine = self.engine.clone();
        let (done, answer) = oneshot::channel();
        // Of its own, because it blocks for as long as the disk needs for all there is.
        let spawned = thread::Builder::new()
            .name("store-defragment".to_owned())
            .spawn(move || {
                let _ = done.send(checkpoint::defragment(&engine));
            });
        let failed = |error: std::io::Error| Error::Unavailable(format!("no snapshot could be made: {error}"));
        spawned.map_err(failed)?;
        let made = answer
            .await
            .map_err(|_| Error::Unavailable("the store was closed".into()))?;
        made.map_err(failed)
    }

    fn health(&self) -> Result<()> {
        self.engine.health()
    }
}
