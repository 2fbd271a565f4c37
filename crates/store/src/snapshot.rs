//! A keyspace as a file: its keys at the oldest revision that can be read, and every commit since. So a restart loses no
//! history, and whoever watched goes on.
//!
//! ```text
//! "MGRVSNAP" | version u32, then blocks: length u32 | crc32c u32 | payload
//! payload: kind u8, then what that kind has. First the head, last the end with its counts.
//! ```
//!
//! Written under another name, synced, and only then given its own.

use std::{io, path::PathBuf};

use bytes::Bytes;
use keyspace::{
    Event, Granted, Revision,
    index::{Change, Commit, Item, compaction::Pinned},
};
use world::DiskFile;

use crate::{
    codec::{Malformed, Reader, put_bytes, put_number},
    record::{self, Record, SpaceId},
    segment::{FORMAT_VERSION, FRAME_BYTES_MAX, u32_at},
};

const MAGIC: &[u8; 8] = b"MGRVSNAP";
const START_BYTES: usize = 12;
const BLOCK_HEADER_BYTES: usize = 8;

/// How much is gathered before it is written.
const BLOCK_BYTES: usize = 256 << 10;

const HEAD: u8 = 1;
const LEASE: u8 = 2;
const ITEM: u8 = 3;
const BASE: u8 = 4;
const COMMIT: u8 = 5;
const END: u8 = 6;

/// What the file's name says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name {
    pub space: SpaceId,
    /// All of the log up to this frame is in it.
    pub sequence: u64,
}

impl Name {
    pub fn file(&self) -> PathBuf {
        format!("snapshot-{:08x}-{:016x}", self.space.0, self.sequence).into()
    }

    pub fn parse(name: &str) -> Option<Name> {
        let (space, sequence) = name.strip_prefix("snapshot-")?.split_once('-')?;
        Some(Name {
            space: SpaceId(u32::from_str_radix(space, 16).ok()?),
            sequence: u64::from_str_radix(sequence, 16).ok()?,
        })
    }
}

pub(crate) struct Writer {
    file: Box<dyn DiskFile>,
    offset: u64,
    block: Vec<u8>,
    base: Revision,
    items: u64,
    commits: u64,
}

impl Writer {
    pub fn start(file: Box<dyn DiskFile>, name: &str, pinned: &Pinned) -> io::Result<Writer> {
        let mut start = MAGIC.to_vec();
        start.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        file.write_at(0, &start)?;
        let mut writer = Writer {
            file,
            offset: START_BYTES as u64,
            block: vec![0; BLOCK_HEADER_BYTES],
            base: pinned.base,
            items: 0,
            commits: 0,
        };
        let block = &mut writer.block;
        block.push(HEAD);
        put_bytes(block, name.as_bytes());
        put_number(block, pinned.base.0);
        put_number(block, pinned.compacted.0);
        put_number(block, pinned.revision.0);
        for granted in &pinned.leases {
            block.push(LEASE);
            put_number(block, granted.id.0 as u64);
            put_number(block, granted.ttl.as_secs());
        }
        if let Some(commit) = &pinned.base_commit {
            writer.base_commit(commit);
        }
        writer.flush_if_long()?;
        Ok(writer)
    }

    /// The one commit whose previous values no earlier item has.
    fn base_commit(&mut self, commit: &Commit) {
        self.block.push(BASE);
        put_number(&mut self.block, commit.events.len() as u64);
        for event in &commit.events {
            let (kv, previous) = match event {
                Event::Put { kv, previous } => (Some(kv), previous),
                Event::Delete { previous, .. } => (None, previous),
            };
            put_bytes(&mut self.block, event.key());
            for kv in [kv, previous.as_ref()] {
                self.block.push(kv.is_some().into());
                if let Some(kv) = kv {
                    record::put_item(&mut self.block, kv, commit.revision);
                }
            }
        }
    }

    pub fn item(&mut self, item: &Item) -> io::Result<()> {
        self.block.push(ITEM);
        record::put_item(&mut self.block, &item.kv, self.base);
        put_number(&mut self.block, item.sub.into());
        self.items += 1;
        self.flush_if_long()
    }

    pub fn commit(&mut self, space: SpaceId, commit: &Commit) -> io::Result<()> {
        self.block.push(COMMIT);
        record::put_commit(&mut self.block, space, commit);
        self.commits += 1;
        self.flush_if_long()
    }

    /// Durable when this returns; its name is not.
    pub fn end(mut self) -> io::Result<u64> {
        self.block.push(END);
        put_number(&mut self.block, self.items);
        put_number(&mut self.block, self.commits);
        self.flush()?;
        self.file.sync_data()?;
        Ok(self.offset)
    }

    fn flush_if_long(&mut self) -> io::Result<()> {
        if self.block.len() < BLOCK_BYTES {
            Ok(())
        } else {
            self.flush()
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let payload = &self.block[BLOCK_HEADER_BYTES..];
        let (length, crc) = (payload.len() as u32, crc32c::crc32c(payload));
        self.block[..4].copy_from_slice(&length.to_le_bytes());
        self.block[4..8].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(self.offset, &self.block)?;
        self.offset += self.block.len() as u64;
        self.block.truncate(BLOCK_HEADER_BYTES);
        Ok(())
    }
}

/// A snapshot as it was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub name: String,
    pub base: Revision,
    pub compacted: Revision,
    pub revision: Revision,
    pub leases: Vec<Granted>,
    pub items: Vec<Item>,
    pub base_commit: Option<Commit>,
    pub commits: Vec<(Revision, Vec<Change>)>,
}

pub(crate) enum ReadError {
    Io(io::Error),
    /// Of another format version.
    Other(u32),
    Damaged {
        offset: u64,
        what: &'static str,
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

pub(crate) fn read(file: &dyn DiskFile) -> Result<Read, ReadError> {
    let mut start = [0; START_BYTES];
    let damaged = |offset, what| ReadError::Damaged { offset, what };
    if file.read_at(0, &mut start)? < START_BYTES || &start[..8] != MAGIC {
        return Err(damaged(0, "it is no snapshot"));
    }
    match u32_at(&start, 8) {
        Some(version) if version != FORMAT_VERSION => return Err(ReadError::Other(version)),
        _ => {}
    }
    let mut read = Read {
        name: String::new(),
        base: Revision(0),
        compacted: Revision(0),
        revision: Revision(0),
        leases: Vec::new(),
        items: Vec::new(),
        base_commit: None,
        commits: Vec::new(),
    };
    let mut offset = START_BYTES as u64;
    loop {
        let mut header = [0; BLOCK_HEADER_BYTES];
        if file.read_at(offset, &mut header)? < BLOCK_HEADER_BYTES {
            return Err(damaged(offset, "it has no end"));
        }
        let length = u32_at(&header, 0).unwrap_or(0) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(damaged(offset, "a block is too long"));
        }
        let mut payload = vec![0; length];
        if file.read_at(offset + BLOCK_HEADER_BYTES as u64, &mut payload)? < length
            || u32_at(&header, 4) != Some(crc32c::crc32c(&payload))
        {
            return Err(damaged(offset, "a block's checksum is wrong"));
        }
        match read.block(&payload) {
            Ok(true) => return Ok(read),
            Ok(false) => {}
            Err(Malformed(what)) => return Err(damaged(offset, what)),
        }
        offset += (BLOCK_HEADER_BYTES + length) as u64;
    }
}

impl Read {
    /// True at the end.
    fn block(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        let mut reader = Reader(payload);
        while !reader.is_empty() {
            match reader.byte()? {
                HEAD => {
                    self.name = record::text(reader.bytes()?)?;
                    self.base = Revision(reader.number()?);
                    self.compacted = Revision(reader.number()?);
                    self.revision = Revision(reader.number()?);
                }
                LEASE => self.leases.push(record::granted(&mut reader)?),
                ITEM => self.items.push(Item {
                    kv: record::item(&mut reader, self.base)?,
                    sub: u32::try_from(reader.number()?).map_err(|_| Malformed("a number of a change is too large"))?,
                }),
                BASE => self.base_commit = Some(self.read_base_commit(&mut reader)?),
                COMMIT => match record::read(&mut reader)? {
                    (_, Record::Commit { revision, changes }) => self.commits.push((revision, changes)),
                    _ => return Err(Malformed("a commit is of another kind")),
                },
                END => {
                    let (items, commits) = (reader.number()?, reader.number()?);
                    if (items, commits) != (self.items.len() as u64, self.commits.len() as u64) {
                        return Err(Malformed("it has not as many items as it says"));
                    }
                    return Ok(true);
                }
                _ => return Err(Malformed("a part is of an unknown kind")),
            }
        }
        Ok(false)
    }

    fn read_base_commit(&self, reader: &mut Reader<'_>) -> Result<Commit, Malformed> {
        let revision = self.base;
        let mut events = Vec::new();
        for _ in 0..reader.number()? {
            let key: Bytes = reader.bytes()?;
            let mut kvs = [None, None];
            for kv in &mut kvs {
                if reader.byte()? != 0 {
                    *kv = Some(record::item(reader, revision)?);
                }
            }
            events.push(match kvs {
                [Some(kv), previous] => Event::Put { kv, previous },
                [None, previous] => Event::Delete {
                    key,
                    revision,
                    previous,
                },
            });
        }
        Ok(Commit::new(revision, events))
    }
}
