//! A store, from outside.

use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use keyspace::{
    Error, Keyspace, Local, Result, Revision,
    index::{Index, Limits},
};
use world::{DiskLock, LockError, World};

use crate::{
    checkpoint,
    committer::{self, Committer},
    engine::{Answer, Engine, SPACE_NAME_BYTES_MAX, What, lock},
    error::OpenError,
    keyspace_on_disk::DiskKeyspace,
    recovery::{Recovered, recover},
};

/// With more files of the log than this at the start, a checkpoint is due however small they are: each start begins a
/// new one.
const FILES_MAX: usize = 64;

#[derive(Clone)]
pub struct StoreOptions {
    pub dir: PathBuf,
    pub world: World,
    /// Of each keyspace.
    pub limits: Limits,
    /// A file of the log is ended at this size.
    pub segment_bytes: u64,
    /// The log is cut when it has grown by this much, or by as much as the snapshots take if that is more.
    pub checkpoint_bytes: u64,
    /// Room that is made in the log before it is needed: a sync of bytes that a file had already is only that of the
    /// bytes, and not also of its size and of where its blocks are.
    pub room_bytes: usize,
    pub values: ValueOptions,
    pub commits: Commits,
}

/// Which values are kept in memory, and which only on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValueOptions {
    /// What values may take of the memory, of all keyspaces together. Those that were not asked for lately go first. It
    /// can be gone beyond by what was written since the last checkpoint.
    pub memory_bytes: usize,
    /// Values up to this length always stay in memory: without them a key would hardly take less.
    pub apart_bytes_min: usize,
    /// A keyspace that takes less stays in memory and in its snapshot as a whole.
    pub keyspace_bytes_min: usize,
    /// A file of values is ended at this size. It is rewritten as a whole.
    pub file_bytes: u64,
}

impl Default for ValueOptions {
    fn default() -> ValueOptions {
        ValueOptions {
            memory_bytes: 1 << 30,
            apart_bytes_min: 128,
            keyspace_bytes_min: 1 << 20,
            file_bytes: 128 << 20,
        }
    }
}

impl ValueOptions {
    /// What is written stays in memory until a checkpoint has given it its place on the disk.
    pub(crate) fn unsaved_bytes_max(&self) -> u64 {
        /// Less is not worth a checkpoint.
        const UNSAVED_BYTES_MIN: u64 = 16 << 20;
        (self.memory_bytes as u64 / 2).max(UNSAVED_BYTES_MIN)
    }
}

impl StoreOptions {
    pub fn new(dir: impl Into<PathBuf>, world: World) -> StoreOptions {
        StoreOptions {
            dir: dir.into(),
            world,
            limits: Limits::default(),
            segment_bytes: 64 << 20,
            checkpoint_bytes: 128 << 20,
            room_bytes: 256 << 10,
            values: ValueOptions::default(),
            commits: Commits::OwnThread,
        }
    }
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commits {
    /// A thread of the store's own, because a sync blocks.
    OwnThread,
    /// Nobody, until [`Store::step`] or [`Store::checkpoint`] is called: a simulation decides when things happen.
    ByHand,
}

/// Many keyspaces over one log.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyspace::{Op, Options, Txn};
///
/// let dir = std::env::temp_dir().join(format!("mangrove-store-{}", std::process::id()));
/// let store = store::Store::open(store::StoreOptions::new(&dir, world::World::real()))?;
/// let keyspace = store.keyspace("super").await?;
/// let txn = Txn { success: vec![Op::put("key", "value")], ..Txn::default() };
/// let written = keyspace.txn(txn, Options::default()).await?;
/// assert_eq!(written.revision.0, 2);
/// # drop(store);
/// # Ok(())
/// # }
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(example()).unwrap();
/// ```
pub struct Store {
    engine: Arc<Engine>,
    threads: Vec<JoinHandle<()>>,
    /// Given back last, when nobody writes any more.
    _lock: Box<dyn DiskLock>,
}

impl Store {
    /// Reads what is there; blocks while it does.
    pub fn open(options: StoreOptions) -> Result<Store, OpenError> {
        let StoreOptions { dir, world, .. } = &options;
        world.disk.create_dir(dir).map_err(OpenError::io(dir))?;
        if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
            world.disk.sync_dir(above).map_err(OpenError::io(above))?;
        }
        let lock_path = dir.join("lock");
        let lock = world.disk.lock(&lock_path).map_err(|error| match error {
            LockError::Held { pid } => OpenError::InUse { dir: dir.clone(), pid },
            LockError::Io(source) => OpenError::Io {
                path: lock_path,
                source,
            },
        })?;
        let recovered = recover(&options)?;
        let Recovered {
            spaces,
            log,
            last_space,
            look_at,
            files,
        } = recovered;
        let committer = Committer::new(log, last_space);
        let engine = Arc::new(Engine::new(&options, spaces, committer, look_at, files > FILES_MAX));
        let mut store = Store {
            engine,
            threads: Vec::new(),
            _lock: lock,
        };
        if options.commits == Commits::OwnThread {
            store.spawn("store-commit", committer::run)?;
            store.spawn("store-snapshot", checkpoint::run)?;
        }
        Ok(store)
    }

    fn spawn(&mut self, name: &str, run: fn(Arc<Engine>)) -> Result<(), OpenError> {
        let engine = self.engine.clone();
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || run(engine));
        self.threads.push(spawned.map_err(OpenError::io(&self.engine.dir))?);
        Ok(())
    }

    /// The keyspace of that name, made durably if there is none.
    pub async fn keyspace(&self, name: &str) -> Result<Arc<dyn Keyspace>> {
        Ok(self.local(name).await?)
    }

    /// The same for who serves it to others.
    pub async fn local(&self, name: &str) -> Result<Arc<dyn Local>> {
        if name.is_empty() || name.len() > SPACE_NAME_BYTES_MAX {
            let what = format!(
                "a keyspace's name has 1 to {SPACE_NAME_BYTES_MAX} bytes, not {}",
                name.len()
            );
            return Err(Error::Invalid(what));
        }
        let space = match self.engine.space(name) {
            Some(space) => space,
            None => match self
                .engine
                .submit(What::Create(name.to_owned()), name.len(), None)
                .await?
            {
                Answer::Created(space) => space,
                other => return Err(Error::Failed(format!("a creation was answered with {other:?}"))),
            },
        };
        Ok(Arc::new(DiskKeyspace {
            engine: self.engine.clone(),
            space,
        }))
    }

    /// A keyspace as somebody else kept it, in place of a fresh one. Durable when this returns; blocks until then. Nobody
    /// may use the keyspace meanwhile.
    pub async fn load(&self, name: &str, mut index: Index) -> Result<()> {
        self.keyspace(name).await?;
        let space = self
            .engine
            .space(name)
            .ok_or_else(|| Error::Failed("a keyspace was made and is not there".into()))?;
        if space.view.read().head() > Revision(1) {
            return Err(Error::Invalid(format!(
                "the keyspace {name} has something in it already"
            )));
        }
        if let Some(at) = index.next_lease_expiry() {
            self.engine.look_no_later_than(at);
        }
        let replaced = Error::Unavailable("the keyspace was restored from a snapshot".into());
        index.share_memory(self.engine.memory.clone());
        space.view.replace(index, replaced);
        self.checkpoint()
            .map_err(|error| Error::NoSpace(format!("the snapshot can't be written: {error}")))
    }

    /// Names of all keyspaces, sorted.
    pub fn keyspaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .engine
            .all_spaces()
            .iter()
            .map(|space| space.name.clone())
            .collect();
        names.sort();
        names
    }

    /// Why writes are refused, if they are for good.
    pub fn health(&self) -> Result<()> {
        self.engine.health()
    }

    /// Commits what waits, once. Only needed with [`Commits::ByHand`].
    pub fn step(&self) {
        committer::step(&self.engine);
    }

    /// Writes snapshots and cuts the log, now. Blocks.
    pub fn checkpoint(&self) -> std::io::Result<()> {
        checkpoint::checkpoint(&self.engine)
    }

    /// Bytes of values that are in memory.
    pub fn resident(&self) -> usize {
        self.engine.memory.used()
    }
}

impl Drop for Store {
    /// What waits to be written is written first.
    fn drop(&mut self) {
        self.engine.stop();
        for thread in self.threads.drain(..) {
            // It has told why on its own.
            let _ = thread.join();
        }
        self.engine.close();
        lock(&self.engine.committer).log.trim();
    }
}
