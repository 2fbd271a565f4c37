//! Keeping the log short: a snapshot of each keyspace that changed since its last one, then the old files of the log go.
//! Writers are held up only for the moments in which a keyspace is pinned and a slice of it is read.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use keyspace::index::compaction::{Pinned, Slice, readable};

use crate::{
    apart::{Apart, Found, Rewrite},
    engine::{Engine, Space, lock},
    log::AppendError,
    snapshot::{FileOfValues, Name, Writer},
    values::Files,
};

/// Keys that are read under one hold of a keyspace's lock.
const SLICE_KEYS: usize = 1000;

/// The thread.
pub(crate) fn run(engine: Arc<Engine>) {
    while let Some(asked) = engine.checkpoints.wait() {
        if asked.checkpoint
            && let Err(error) = checkpoint(&engine)
        {
            tracing::warn!(%error, "no checkpoint could be made; the log goes on growing");
        }
        if asked.room {
            engine.make_more_room();
        }
    }
}

pub(crate) fn checkpoint(engine: &Engine) -> io::Result<()> {
    let _running = lock(&engine.checkpoints.running);
    one(engine, Rewrite::Some)
}

/// The first finds the waste, the second takes it away; what others waste meanwhile is left to later ones.
const DEFRAGMENT_CHECKPOINTS: usize = 2;

/// Takes away nearly all waste in the files of values.
pub(crate) fn defragment(engine: &Engine) -> io::Result<()> {
    let _running = lock(&engine.checkpoints.running);
    for number in 0..DEFRAGMENT_CHECKPOINTS {
        let spaces = engine.all_spaces();
        if number == 0 || spaces.iter().any(|space| is_wasteful(space, Rewrite::All)) {
            one(engine, Rewrite::All)?;
        }
    }
    Ok(())
}

fn is_wasteful(space: &Space, rewrite: Rewrite) -> bool {
    !lock(&space.files).to_rewrite(rewrite).is_empty()
}

fn one(engine: &Engine, rewrite: Rewrite) -> io::Result<()> {
    let made = make(engine, rewrite);
    let log_bytes = lock(&engine.committer).log.bytes();
    // As much again as was just written: so what checkpoints write is at most what the log is written anyway.
    let more = engine.checkpoint_bytes.max(*made.as_ref().unwrap_or(&0));
    engine
        .checkpoints
        .due_at_bytes
        .store(log_bytes + more, Ordering::Release);
    engine.make_room();
    made.map(|_| ())
}

/// Bytes of the snapshots written. What values take of their own files is no more than they took of the log.
fn make(engine: &Engine, rewrite: Rewrite) -> io::Result<u64> {
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
        if space.is_ahead_of_its_snapshot() || is_wasteful(&space, rewrite) {
            bytes += snapshot(engine, &space, rewrite)?;
        }
    }
    // One after another, and each under no lock: a gap would look like a file that was lost.
    loop {
        let next = lock(&engine.committer).log.oldest_before(kept_from);
        let Some(oldest) = next else { break };
        let disk = &engine.world.disk;
        let removed = disk.open(&oldest)?.size()?;
        disk.remove(&oldest)?;
        let mut committer = lock(&engine.committer);
        committer.log.forget_oldest(removed);
        engine.sizes.log_bytes.store(committer.log.bytes(), Ordering::Relaxed);
        drop(committer);
        disk.sync_dir(&engine.dir)?;
    }
    Ok(bytes)
}

fn snapshot(engine: &Engine, space: &Space, rewrite: Rewrite) -> io::Result<u64> {
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
    let written = write(engine, space, name, &pinned, rewrite);
    space.view.write().unpin(pinned.base);
    space.view.prune();
    let Written { bytes, found } = written?;
    space.snapshot_frame.store(name.sequence, Ordering::Release);
    space.snapshot_bytes.store(bytes, Ordering::Relaxed);
    if before > 0 && before != name.sequence {
        let old = Name {
            sequence: before,
            ..name
        };
        engine.world.disk.remove(&engine.dir.join(old.file()))?;
    }
    // Nothing that lasts leads to the others any more, and no version does.
    let mut files = lock(&space.files);
    if files
        .files
        .all()
        .any(|file| !found.live.contains_key(&file.name.number))
    {
        let mut kept = Files::clone(&files.files);
        kept.retain(|number| found.live.contains_key(&number));
        files.files = Arc::new(kept);
        let before = space.view.write_behind().set_values(files.files.clone());
        drop(before);
    }
    space.values_bytes.store(files.files.bytes(), Ordering::Relaxed);
    files.found = found;
    Ok(bytes)
}

struct Written {
    bytes: u64,
    found: Found,
}

fn write(engine: &Engine, space: &Space, name: Name, pinned: &Pinned, rewrite: Rewrite) -> io::Result<Written> {
    let disk = &engine.world.disk;
    let path = engine.dir.join(name.file());
    let unfinished = path.with_extension(UNFINISHED);
    let written = (|| {
        // Left by one that failed.
        let _ = disk.remove(&unfinished);
        let mut writer = Writer::start(disk.create(&unfinished)?, &space.name, pinned)?;
        let mut apart = Apart::new(engine, space, rewrite);
        let mut after: Option<Bytes> = None;
        loop {
            if engine.checkpoints.stopping.load(Ordering::Acquire) {
                return Err(io::Error::other("the store is being closed"));
            }
            let slice = space.view.read().slice(after.as_ref(), SLICE_KEYS);
            let Slice { keys, last, values } = slice;
            for (key, mut versions) in keys {
                // What came after the pin is in the log that stays.
                versions.retain(|version| version.revision <= pinned.revision);
                let first = versions.len() - readable(&versions, pinned.base).len();
                for (at, version) in versions.iter_mut().enumerate() {
                    apart.place(&key, version, values.as_ref(), at >= first)?;
                }
                if first < versions.len() {
                    writer.key(&key, &versions[first..])?;
                }
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        let found = apart.end()?;
        let files = lock(&space.files).files.clone();
        let files = files.all().filter(|file| found.live.contains_key(&file.name.number));
        let bytes = writer.end(files.map(|file| FileOfValues {
            number: file.name.number,
            nonce: file.nonce,
            bytes: file.bytes,
        }))?;
        disk.rename(&unfinished, &path)?;
        disk.sync_dir(&engine.dir)?;
        Ok(Written { bytes, found })
    })();
    if written.is_err() {
        // It would be in the way of the next one. Nothing depends on its going.
        let _ = disk.remove(&unfinished);
    }
    written
}

/// What a snapshot's file is called until it is whole.
pub(crate) const UNFINISHED: &str = "unfinished";
