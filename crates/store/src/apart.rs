//! Values that a checkpoint writes apart from the snapshot: those that are new, and those of files that have little left in
//! them. Each file is closed and lasts before the index is told of its places, so that what is in memory can be given up
//! while the checkpoint goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use keyspace::{
    Error,
    index::{Kept, Moved},
    values::{Place, Values},
};

use crate::{
    engine::{Engine, Space, lock},
    value_file::{self, SUM_BYTES, Writer},
    values::Files,
};

/// Places that the index is told of under one hold of its lock.
const SLICE_PLACES: usize = 1000;

/// With so many values a file is closed however small they are: all their places are told at its end.
const VALUES_MAX: usize = 128 << 10;

/// The files of values of one keyspace.
#[derive(Default)]
pub(crate) struct SpaceFiles {
    pub files: Arc<Files>,
    pub last_number: u32,
    /// What the last checkpoint found of them.
    pub found: Found,
}

#[derive(Default)]
pub(crate) struct Found {
    /// Bytes that are needed of each file; no more files are needed.
    pub live: BTreeMap<u32, u64>,
    /// Files with something damaged in them, which can't be moved: they stay as they are.
    pub damaged: BTreeSet<u32>,
}

/// Which files are rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rewrite {
    /// Those that are mostly waste, and no more of them than is written quickly.
    Some,
    /// All that have waste worth the name.
    All,
}

/// With [`Rewrite::Some`], so many needed bytes are moved by one checkpoint.
const MOVED_BYTES_MAX: u64 = 128 << 20;

impl SpaceFiles {
    pub fn to_rewrite(&self, rewrite: Rewrite) -> BTreeSet<u32> {
        let mut left = match rewrite {
            Rewrite::Some => MOVED_BYTES_MAX,
            Rewrite::All => u64::MAX,
        };
        let mut chosen = BTreeSet::new();
        for file in self.files.all() {
            let number = file.name.number;
            let Some(live) = self.found.live.get(&number).copied() else {
                continue;
            };
            if self.found.damaged.contains(&number) {
                continue;
            }
            let wasted = match rewrite {
                Rewrite::Some => live < file.content_bytes() / 2,
                Rewrite::All => live < file.content_bytes() / 10 * 9,
            };
            if wasted && live <= left {
                left -= live;
                chosen.insert(number);
            }
        }
        chosen
    }
}

pub(crate) struct Apart<'a> {
    engine: &'a Engine,
    space: &'a Space,
    /// False while the keyspace is so small that all of it is in its snapshot.
    begins: bool,
    rewritten: BTreeSet<u32>,
    writer: Option<Writer>,
    moved: Vec<Moved>,
    found: Found,
}

impl<'a> Apart<'a> {
    pub fn new(engine: &'a Engine, space: &'a Space, rewrite: Rewrite) -> Apart<'a> {
        let files = lock(&space.files);
        Apart {
            engine,
            space,
            begins: space.view.read().bytes() >= engine.values.keyspace_bytes_min,
            rewritten: files.to_rewrite(rewrite),
            writer: None,
            moved: Vec::new(),
            found: Found::default(),
        }
    }

    /// Gives the version the place that the snapshot is to name, if it is to have one. One that can't be read any more,
    /// and waits to be freed, is not worth a new one.
    pub fn place(
        &mut self,
        key: &Bytes,
        version: &mut Kept,
        values: Option<&Arc<dyn Values>>,
        is_readable: bool,
    ) -> io::Result<()> {
        let is_large = self.begins && is_readable && version.value.len() > self.engine.values.apart_bytes_min;
        let is_new = is_large && !version.place.is_some();
        let is_rewritten = self.rewritten.contains(&version.place.file);
        if is_new || is_rewritten {
            match self.value(version, values) {
                Ok(value) => version.place = self.write(key, version, &value)?,
                // What is damaged is found by who reads it; it must not keep all else from being saved.
                Err(Error::Damaged(what)) => {
                    tracing::error!(what, "a damaged value stays where it is");
                    self.found.damaged.insert(version.place.file);
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        if version.place.is_some() {
            let bytes = u64::from(version.place.length) + SUM_BYTES as u64;
            *self.found.live.entry(version.place.file).or_default() += bytes;
        }
        Ok(())
    }

    fn value(&self, version: &Kept, values: Option<&Arc<dyn Values>>) -> keyspace::Result<Bytes> {
        if !version.value.is_empty() {
            return Ok(version.value.clone());
        }
        let values = values.ok_or_else(|| Error::Damaged("a value has a place and nothing leads there".into()))?;
        Ok(values.read(&[version.place])?.pop().unwrap_or_default())
    }

    fn write(&mut self, key: &Bytes, version: &Kept, value: &[u8]) -> io::Result<Place> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let mut files = lock(&self.space.files);
                files.last_number += 1;
                let name = value_file::Name {
                    space: self.space.id,
                    number: files.last_number,
                };
                drop(files);
                self.writer
                    .insert(Writer::create(&self.engine.dir, &self.engine.world, name)?)
            }
        };
        let place = writer.push(value)?;
        let bytes = writer.bytes();
        self.moved.push(Moved {
            key: key.clone(),
            revision: version.revision,
            sub: version.sub,
            place,
        });
        if bytes >= self.engine.values.file_bytes || self.moved.len() >= VALUES_MAX {
            self.close()?;
        }
        Ok(place)
    }

    /// What was written lasts, and the index knows of it.
    fn close(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let file = writer.finish()?;
        // Its name has to last before that of a snapshot that leads to it.
        self.engine.world.disk.sync_dir(&self.engine.dir)?;
        let mut files = lock(&self.space.files);
        let mut grown = Files::clone(&files.files);
        grown.insert(file);
        files.files = Arc::new(grown);
        let before = self.space.view.write_behind().set_values(files.files.clone());
        drop((files, before));
        for moved in self.moved.chunks(SLICE_PLACES) {
            self.space.view.write_behind().place(moved);
        }
        self.moved = Vec::new();
        self.engine.make_room();
        Ok(())
    }

    /// What was found.
    pub fn end(mut self) -> io::Result<Found> {
        self.close()?;
        Ok(self.found)
    }
}
