//! Keeping the log short: a snapshot of each keyspace that changed since its last one, then the old files of the log go.
//! Writers are held up only for the moment in which a keyspace is pinned.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use keyspace::{Revision, index::compaction::Pinned};

use crate::{
    engine::{Engine, Space, lock},
    log::AppendError,
    snapshot::{Name, Writer},
};

/// Keys that are read under one hold of a keyspace's lock.
const SLICE_KEYS: usize = 1000;

/// Commits that are read under one hold.
const SLICE_COMMITS: usize = 1000;

/// The thread.
pub(crate) fn run(engine: Arc<Engine>) {
    while engine.checkpoints.wait() {
        if let Err(error) = checkpoint(&engine) {
            tracing::warn!(%error, "no checkpoint could be made; the log goes on growing");
        }
    }
}

pub(crate) fn checkpoint(engine: &Engine) -> io::Result<()> {
    let _running = lock(&engine.checkpoints.running);
    let made = make(engine);
    let log_bytes = lock(&engine.committer).log.bytes();
    // As much again as was just written: so what checkpoints write is at most what the log is written anyway.
    let more = engine.checkpoint_bytes.max(*made.as_ref().unwrap_or(&0));
    engine
        .checkpoints
        .due_at_bytes
        .store(log_bytes + more, Ordering::Release);
    made.map(|_| ())
}

/// Bytes of the snapshots written.
fn make(engine: &Engine) -> io::Result<u64> {
    if let Err(error) = engine.health() {
        return Err(io::Error::other(error));
    }
    let kept_from = {
        let mut committer = lock(&engine.committer);
        if committer.log.has_frames() {
            committer.log.rotate().map_err(|error| match error {
                AppendError::Full(error) => error,
                AppendError::Failed(error) => {
                    engine.fail(format!("a file of the log can't be made: {error}"));
                    error
                }
            })?;
        }
        committer.log.number()
    };
    let mut bytes = 0;
    for space in engine.all_spaces() {
        if space.is_ahead_of_its_snapshot() {
            bytes += snapshot(engine, &space)?;
        }
    }
    let mut committer = lock(&engine.committer);
    committer.log.remove_before(kept_from)?;
    engine.sizes.log_bytes.store(committer.log.bytes(), Ordering::Relaxed);
    Ok(bytes)
}

fn snapshot(engine: &Engine, space: &Space) -> io::Result<u64> {
    let before = space.snapshot_frame.load(Ordering::Acquire);
    let (name, pinned) = {
        // Between two commits, so that what is pinned is all of the log so far.
        let committer = lock(&engine.committer);
        let name = Name {
            space: space.id,
            sequence: committer.log.last_sequence(),
        };
        (name, space.view.write().pin())
    };
    let written = write(engine, space, name, &pinned);
    space.view.write().unpin(pinned.base);
    space.view.prune();
    let bytes = written?;
    space.snapshot_frame.store(name.sequence, Ordering::Release);
    space.snapshot_bytes.store(bytes, Ordering::Relaxed);
    if before > 0 && before != name.sequence {
        let old = Name {
            sequence: before,
            ..name
        };
        engine.world.disk.remove(&engine.dir.join(old.file()))?;
    }
    Ok(bytes)
}

fn write(engine: &Engine, space: &Space, name: Name, pinned: &Pinned) -> io::Result<u64> {
    let disk = &engine.world.disk;
    let path = engine.dir.join(name.file());
    let unfinished = path.with_extension(UNFINISHED);
    let written = (|| {
        // Left by one that failed.
        let _ = disk.remove(&unfinished);
        let mut writer = Writer::start(disk.create(&unfinished)?, &space.name, pinned)?;
        let mut after: Option<Bytes> = None;
        loop {
            if engine.checkpoints.stopping.load(Ordering::Acquire) {
                return Err(io::Error::other("the store is being closed"));
            }
            let (items, last) = space.view.read().slice(pinned.base, after.as_ref(), SLICE_KEYS);
            for item in &items {
                writer.item(item)?;
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        let mut next = Revision(pinned.base.0 + 1);
        while next <= pinned.revision {
            let commits = space.view.read().commits(next, SLICE_COMMITS);
            for commit in commits.iter().take_while(|commit| commit.revision <= pinned.revision) {
                writer.commit(space.id, commit)?;
            }
            match commits.last() {
                Some(last) => next = Revision(last.revision.0 + 1),
                None => break,
            }
        }
        let bytes = writer.end()?;
        disk.rename(&unfinished, &path)?;
        disk.sync_dir(&engine.dir)?;
        Ok(bytes)
    })();
    if written.is_err() {
        // It would be in the way of the next one. Nothing depends on its going.
        let _ = disk.remove(&unfinished);
    }
    written
}

/// What a snapshot's file is called until it is whole.
pub(crate) const UNFINISHED: &str = "unfinished";
