//! The one writer. It takes all writes that wait, decides them in order on the index, writes what they change as one
//! frame, waits until that is durable, and only then shows it and answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use keyspace::{
    Error, Result, Txn,
    index::{Index, Staged, Staging},
    values::Warm,
};

use crate::{
    engine::{Answer, Engine, Request, SPACES_MAX, Space, What, Work, lock},
    log::{AppendError, Log},
    record::{self, SpaceId},
    segment::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES},
};

/// What one commit takes: enough that the sync costs nothing a write, little enough that nobody waits long.
pub(crate) const BATCH_REQUESTS_MAX: usize = 1024;
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;

/// Leases are looked at no more often than this.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Once for what is compared, once for what is told, and again if a look for cold values or a checkpoint came between.
const READS_MAX: usize = 8;

/// Leases of one keyspace that end in one commit.
const EXPIRE_AT_ONCE_MAX: usize = 1000;

pub(crate) struct Committer {
    pub log: Log,
    pub last_space: u32,
    /// Kept from batch to batch.
    frame: Vec<u8>,
}

/// A batch being decided.
struct Batch<'a> {
    engine: &'a Engine,
    frame: &'a mut Vec<u8>,
    last_space: &'a mut u32,
    touched: Vec<Arc<Space>>,
    created: Vec<Arc<Space>>,
    now: Duration,
}

type Decided = (Request, Result<Answer>);

/// The thread.
pub(crate) fn run(engine: Arc<Engine>) {
    // However this ends, nobody waits for ever.
    struct Closing(Arc<Engine>);
    impl Drop for Closing {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let closing = Closing(engine);
    while closing.0.wait_for_work() {
        step(&closing.0);
    }
}

/// One commit of what waits.
pub(crate) fn step(engine: &Engine) {
    let mut committer = lock(&engine.committer);
    let now = engine.world.clock.monotonic();
    let mut batch = Vec::new();
    let look = engine.leases_are_due(now);
    if look {
        batch = expired(engine, now);
    }
    batch.extend(engine.take_batch());
    committer.commit(engine, batch, now);
    if look {
        let next = (engine.all_spaces().iter())
            .filter_map(|space| space.view.read().next_lease_expiry())
            .min();
        engine.look_next(next.map(|next| next.max(now + LOOK_PAUSE_MIN)));
    }
}

fn expired(engine: &Engine, now: Duration) -> Vec<Request> {
    let mut batch = Vec::new();
    for space in engine.all_spaces() {
        let due = space.view.read().expired_leases(now, EXPIRE_AT_ONCE_MAX);
        batch.extend(due.into_iter().map(|id| Request {
            what: What::In(space.clone(), Work::Revoke(id)),
            bytes: 0,
            reply: None,
        }));
    }
    batch
}

impl Committer {
    pub fn new(log: Log, last_space: u32) -> Committer {
        Committer {
            log,
            last_space,
            frame: Vec::new(),
        }
    }

    fn commit(&mut self, engine: &Engine, requests: Vec<Request>, now: Duration) {
        if requests.is_empty() {
            return;
        }
        if let Err(error) = engine.health() {
            answer(
                requests
                    .into_iter()
                    .map(|request| (request, Err(error.clone())))
                    .collect(),
            );
            return;
        }
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        let mut batch = Batch {
            engine,
            frame: &mut self.frame,
            last_space: &mut self.last_space,
            touched: Vec::new(),
            created: Vec::new(),
            now,
        };
        let mut decided: Vec<Decided> = Vec::with_capacity(requests.len());
        let mut too_long = None;
        for request in requests {
            let result = batch.decide(&request.what);
            if batch.frame.len() > FRAME_BYTES_MAX {
                too_long = too_long.or(Some(decided.len()));
            }
            decided.push((request, result));
        }
        let Batch { touched, created, .. } = batch;

        if let Some(at) = too_long {
            take_back(&touched);
            for (number, (_, result)) in decided.iter_mut().enumerate() {
                *result = Err(if number == at {
                    Error::Invalid("the transaction changes too much at once".into())
                } else {
                    Error::Unavailable("another write was too large".into())
                });
            }
        } else if self.frame.len() > FRAME_HEADER_BYTES {
            match self.log.append(&mut self.frame) {
                Ok(sequence) => publish(engine, &touched, &created, sequence),
                Err(error) => {
                    take_back(&touched);
                    let error = undone(engine, error);
                    // Those that changed nothing may have seen what the others were about to change.
                    decided.iter_mut().for_each(|(_, result)| *result = Err(error.clone()));
                }
            }
        }
        answer(decided);
        if self.frame.capacity() > 2 * BATCH_BYTES_MAX {
            self.frame = Vec::new();
        }
        self.keep_files_small(engine);
    }

    fn keep_files_small(&mut self, engine: &Engine) {
        if self.log.file_bytes() >= engine.segment_bytes {
            match self.log.rotate() {
                Ok(()) => {}
                Err(AppendError::Full(error)) => tracing::warn!(%error, "no new file for the log; the old one grows"),
                Err(AppendError::Failed(error)) => engine.fail(format!("a file of the log can't be made: {error}")),
            }
        }
        engine.sizes.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
        engine.sizes.commits.store(self.log.last_sequence(), Ordering::Relaxed);
        let due = engine.checkpoints.due_at_bytes.load(Ordering::Acquire);
        if self.log.bytes() >= due {
            engine.checkpoints.ask();
        }
    }
}

fn publish(engine: &Engine, touched: &[Arc<Space>], created: &[Arc<Space>], sequence: u64) {
    if !created.is_empty() {
        let mut spaces = engine.spaces.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        created.iter().for_each(|space| spaces.insert(space.clone()));
    }
    for space in touched.iter().chain(created) {
        space.last_frame.store(sequence, Ordering::Release);
        space.view.publish();
    }
}

fn take_back(touched: &[Arc<Space>]) {
    touched.iter().for_each(|space| space.view.write().roll_back());
}

fn undone(engine: &Engine, error: AppendError) -> Error {
    match error {
        AppendError::Full(error) => Error::NoSpace(error.to_string()),
        AppendError::Failed(error) => {
            engine.fail(format!("the log can't be written: {error}"));
            Error::Unknown(format!("the log can't be written: {error}"))
        }
    }
}

fn answer(decided: Vec<Decided>) {
    for (request, result) in decided {
        if let Some(reply) = request.reply {
            // Whoever asked may have gone.
            let _ = reply.send(result);
        }
    }
}

impl Batch<'_> {
    fn decide(&mut self, what: &What) -> Result<Answer> {
        let (space, work) = match what {
            What::Create(name) => return self.create(name),
            What::In(space, work) => (space, work),
        };
        let before = self.frame.len();
        let answer = self.write(space, work)?;
        if self.frame.len() > before && !self.touched.iter().any(|other| Arc::ptr_eq(other, space)) {
            self.touched.push(space.clone());
        }
        Ok(answer)
    }

    fn write(&mut self, space: &Space, work: &Work) -> Result<Answer> {
        let mut index = space.view.write();
        match work {
            Work::Txn(txn, warm) => {
                let mut staging = index.stage(txn, warm)?;
                drop(index);
                if let Staging::Needs(_) = staging {
                    staging = self.read_and_stage(space, txn, warm.clone(), staging)?;
                }
                let Staging::Done(Staged { answer, commit }) = staging else {
                    return Err(Error::Unavailable(
                        "values are given up faster than they are read".into(),
                    ));
                };
                if let Some(commit) = commit {
                    record::put_commit(self.frame, space.id, &commit);
                }
                Ok(Answer::Txned(answer))
            }
            Work::Grant { id, ttl } => {
                let id = id.unwrap_or_else(|| index.free_lease_id(self.engine.world.random.as_ref()));
                let granted = index.stage_grant(id, *ttl, self.now)?;
                record::put_granted(self.frame, space.id, &granted);
                self.engine.look_no_later_than(self.now + granted.ttl);
                Ok(Answer::Granted(granted))
            }
            Work::Revoke(id) => {
                let commit = index.stage_revoke(*id)?;
                record::put_revoked(self.frame, space.id, *id);
                if let Some(commit) = commit {
                    record::put_commit(self.frame, space.id, &commit);
                }
                Ok(Answer::Done)
            }
            Work::Compact(revision) => {
                index.stage_compact(*revision)?;
                record::put_compacted(self.frame, space.id, *revision);
                Ok(Answer::Done)
            }
        }
    }

    /// It depends on values that are on the disk.
    fn read_and_stage(&self, space: &Space, txn: &Txn, mut warm: Warm, mut staging: Staging) -> Result<Staging> {
        for _ in 0..READS_MAX {
            let Staging::Needs(needs) = staging else { break };
            needs.read(&mut warm)?;
            staging = space.view.write().stage(txn, &warm)?;
        }
        Ok(staging)
    }

    fn create(&mut self, name: &str) -> Result<Answer> {
        let made = self.created.iter().find(|space| space.name == name).cloned();
        if let Some(space) = made.or_else(|| self.engine.space(name)) {
            return Ok(Answer::Created(space));
        }
        if self.engine.all_spaces().len() + self.created.len() >= SPACES_MAX {
            return Err(Error::NoSpace(format!("{SPACES_MAX} keyspaces are there")));
        }
        *self.last_space += 1;
        let mut index = Index::new(self.engine.limits);
        index.share_memory(self.engine.memory.clone());
        let space = Arc::new(Space::new(SpaceId(*self.last_space), name.to_owned(), index));
        record::put_created(self.frame, space.id, name);
        self.created.push(space.clone());
        Ok(Answer::Created(space))
    }
}
