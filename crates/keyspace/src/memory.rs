//! A keyspace in memory: the index and nothing below it. For tests, and for state that may be lost.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, task::JoinHandle};
use world::World;

use crate::{
    Error, Granted, Keyspace, LeaseId, LeaseState, Local, Options, Range, Ranged, Result, Revision, Storage, Txn,
    Txned, Watch, WatchStream, check,
    expiry::{self, Next},
    index::{Index, Limits, Staging},
    values::Warm,
    view::View,
};

/// Leases that end in one look; the rest follows at once.
const EXPIRE_AT_ONCE_MAX: usize = 1000;

/// Writes are "durable" when they are in memory: all is lost with the process.
pub struct MemoryKeyspace {
    shared: Arc<Shared>,
    expiry: OnceLock<JoinHandle<()>>,
}

struct Shared {
    view: Arc<View>,
    world: World,
    /// One writer from staging to publication.
    writer: Mutex<()>,
    woken: Arc<Notify>,
}

impl MemoryKeyspace {
    pub fn new(world: World) -> MemoryKeyspace {
        MemoryKeyspace::with_limits(world, Limits::default())
    }

    pub fn with_limits(world: World, limits: Limits) -> MemoryKeyspace {
        MemoryKeyspace {
            shared: Arc::new(Shared {
                view: View::new(Index::new(limits)),
                world,
                writer: Mutex::default(),
                woken: Arc::default(),
            }),
            expiry: OnceLock::new(),
        }
    }

    fn watch_expiry(&self) {
        self.expiry.get_or_init(|| {
            let shared = Arc::downgrade(&self.shared);
            let woken = self.shared.woken.clone();
            tokio::spawn(expiry::run(self.shared.world.clock.clone(), woken, move |now| {
                std::future::ready(expire(&shared, now))
            }))
        });
        self.shared.woken.notify_one();
    }
}

impl Shared {
    fn stage<T>(&self, write: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.view.write();
        let staged = write(&mut index)?;
        index.publish();
        drop(index);
        self.view.dispatch();
        Ok(staged)
    }
}

fn expire(shared: &Weak<Shared>, now: Duration) -> Next {
    let Some(shared) = shared.upgrade() else {
        return Next::Gone;
    };
    let due = shared.view.read().expired_leases(now, EXPIRE_AT_ONCE_MAX);
    for id in due {
        // Somebody else may have revoked it in between.
        let _ = shared.stage(|index| index.stage_revoke(id));
    }
    let next = shared.view.read().next_lease_expiry();
    next.map_or(Next::Idle, Next::At)
}

#[async_trait]
impl Keyspace for MemoryKeyspace {
    async fn range(&self, range: Range, _options: Options) -> Result<Ranged> {
        self.shared.view.range(&range)
    }

    async fn txn(&self, txn: Txn, options: Options) -> Result<Txned> {
        check::txn(&txn)?;
        self.checked_txn(txn, options).await
    }

    async fn watch(&self, watch: Watch, _options: Options) -> Result<WatchStream> {
        self.shared.view.watch(watch)
    }

    async fn request_progress(&self) -> Result<()> {
        self.shared.view.request_progress();
        Ok(())
    }

    async fn compact(&self, revision: Revision, _options: Options) -> Result<()> {
        self.shared.view.compact(revision)
    }

    async fn grant_lease(&self, id: Option<LeaseId>, ttl: Duration) -> Result<Granted> {
        let world = &self.shared.world;
        let now = world.clock.monotonic();
        let granted = self.shared.stage(|index| {
            let id = id.unwrap_or_else(|| index.free_lease_id(world.random.as_ref()));
            index.stage_grant(id, ttl, now)
        })?;
        self.watch_expiry();
        Ok(granted)
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<()> {
        self.shared.stage(|index| index.stage_revoke(id))?;
        Ok(())
    }

    async fn keep_lease(&self, id: LeaseId) -> Result<Duration> {
        let now = self.shared.world.clock.monotonic();
        self.shared.view.write().keep_lease(id, now)
    }

    async fn lease_state(&self, id: LeaseId) -> Result<LeaseState> {
        let now = self.shared.world.clock.monotonic();
        self.shared.view.read().lease_state(id, now)
    }
}

#[async_trait]
impl Local for MemoryKeyspace {
    fn view(&self) -> &Arc<View> {
        &self.shared.view
    }

    async fn checked_txn(&self, txn: Txn, _options: Options) -> Result<Txned> {
        let mut warm = Warm::default();
        loop {
            match self.shared.stage(|index| index.stage(&txn, &warm))? {
                Staging::Done(staged) => return Ok(staged.answer),
                // Nothing here is on a disk, but what is read is read alike.
                Staging::Needs(needs) => needs.read(&mut warm)?,
            }
        }
    }

    fn storage(&self) -> Storage {
        let index = self.shared.view.read();
        Storage {
            size_bytes: index.bytes() as u64,
            in_use_bytes: index.bytes() as u64,
            commits: index.revision().0,
        }
    }

    async fn defragment(&self) -> Result<()> {
        Ok(())
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }
}

impl Drop for MemoryKeyspace {
    fn drop(&mut self) {
        if let Some(task) = self.expiry.get() {
            task.abort();
        }
        self.shared
            .view
            .close(Error::Unavailable("the keyspace is closed".into()));
    }
}
