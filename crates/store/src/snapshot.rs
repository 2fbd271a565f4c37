//! A keyspace as a file: its keys with all versions since the oldest revision that can be read. So a restart loses no
//! history, and whoever watched goes on. Large values are in files of their own ([`crate::value_file`]), and only their
//! places are here.
//!
//! ```text
//! "MGRVSNAP" | version u32, then blocks: length u32 | crc32c u32 | payload
//! payload: kind u8, then what that kind has. First the head, last the end with its counts.
//! ```
//!
//! Written under another name, synced, and only then given its own.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use keyspace::{
    Event, LeaseId, Revision,
    index::{Commit, Head, Kept, Limits, Loader, compaction::Pinned},
    values::Place,
};
use world::DiskFile;

use crate::{
    codec::{Malformed, Reader, put_bytes, put_number},
    record::{self, SpaceId},
    segment::{FORMAT_VERSION, FRAME_BYTES_MAX, u32_at},
    value_file::SUM_BYTES,
};

const MAGIC: &[u8; 8] = b"MGRVSNAP";
const START_BYTES: usize = 12;
const BLOCK_HEADER_BYTES: usize = 8;

/// How much is gathered before it is written.
const BLOCK_BYTES: usize = 256 << 10;

const HEAD: u8 = 1;
const LEASE: u8 = 2;
const KEY: u8 = 3;
const BASE: u8 = 4;
const FILE: u8 = 5;
const END: u8 = 6;

/// What a version is.
const DELETION: u8 = 0;
const VALUE: u8 = 1;
const PLACE: u8 = 2;

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

/// A file of values that places lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileOfValues {
    pub number: u32,
    pub nonce: u64,
    pub bytes: u64,
}

pub(crate) struct Writer {
    file: Box<dyn DiskFile>,
    offset: u64,
    block: Vec<u8>,
    revision: Revision,
    keys: u64,
    versions: u64,
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
            revision: pinned.revision,
            keys: 0,
            versions: 0,
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
        // What else has to be known before the keys is in blocks before theirs.
        writer.flush()?;
        if let Some(commit) = &pinned.base_commit {
            writer.base_commit(commit)?;
        }
        Ok(writer)
    }

    /// The one commit whose previous values no version has.
    fn base_commit(&mut self, commit: &Commit) -> io::Result<()> {
        for event in commit.each_read() {
            let event = event.map_err(io::Error::other)?;
            let (kv, previous) = match &event {
                Event::Put { kv, previous } => (Some(kv), previous),
                Event::Delete { previous, .. } => (None, previous),
            };
            self.block.push(BASE);
            put_bytes(&mut self.block, event.key());
            for kv in [kv, previous.as_ref()] {
                self.block.push(kv.is_some().into());
                if let Some(kv) = kv {
                    record::put_item(&mut self.block, kv, commit.revision);
                }
            }
            self.flush_if_long()?;
        }
        Ok(())
    }

    /// `versions` by age, each with its place if its value is in a file of values.
    pub fn key(&mut self, key: &[u8], versions: &[Kept]) -> io::Result<()> {
        let block = &mut self.block;
        block.push(KEY);
        put_bytes(block, key);
        put_number(block, versions.len() as u64);
        for version in versions {
            let kind = match (version.version, version.place.is_some()) {
                (0, _) => DELETION,
                (_, false) => VALUE,
                (_, true) => PLACE,
            };
            block.push(kind);
            put_number(block, self.revision.0 - version.revision.0);
            put_number(block, version.sub.into());
            if kind == DELETION {
                continue;
            }
            put_number(block, version.revision.0 - version.created.0);
            put_number(block, version.version);
            put_number(block, version.lease.map_or(0, |lease| lease.0 as u64));
            if kind == VALUE {
                put_bytes(block, &version.value);
            } else {
                put_number(block, version.place.file.into());
                put_number(block, version.place.offset.into());
                put_number(block, version.place.length.into());
            }
        }
        self.keys += 1;
        self.versions += versions.len() as u64;
        self.flush_if_long()
    }

    /// With the files that places lead to. Durable when this returns; its name is not.
    pub fn end(mut self, files: impl IntoIterator<Item = FileOfValues>) -> io::Result<u64> {
        for file in files {
            self.block.push(FILE);
            put_number(&mut self.block, file.number.into());
            put_number(&mut self.block, file.nonce);
            put_number(&mut self.block, file.bytes);
        }
        self.block.push(END);
        put_number(&mut self.block, self.keys);
        put_number(&mut self.block, self.versions);
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
pub(crate) struct Read {
    pub name: String,
    pub loader: Loader,
    pub files: Vec<FileOfValues>,
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

pub(crate) fn read(file: &dyn DiskFile, limits: Limits, now: Duration) -> Result<Read, ReadError> {
    let mut start = [0; START_BYTES];
    let damaged = |offset, what| ReadError::Damaged { offset, what };
    if file.read_at(0, &mut start)? < START_BYTES || &start[..8] != MAGIC {
        return Err(damaged(0, "it is no snapshot"));
    }
    match u32_at(&start, 8) {
        Some(version) if version != FORMAT_VERSION => return Err(ReadError::Other(version)),
        _ => {}
    }
    let mut reading: Option<Reading> = None;
    let mut payload = Vec::new();
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
        payload.resize(length, 0);
        if file.read_at(offset + BLOCK_HEADER_BYTES as u64, &mut payload)? < length
            || u32_at(&header, 4) != Some(crc32c::crc32c(&payload))
        {
            return Err(damaged(offset, "a block's checksum is wrong"));
        }
        let mut block = Reader(&payload);
        let ended = match &mut reading {
            None => head(&mut block, limits, now).map(|read| {
                reading = Some(read);
                false
            }),
            Some(reading) => reading.block(&mut block),
        };
        match ended {
            Ok(true) => break,
            Ok(false) => {}
            Err(Malformed(what)) => return Err(damaged(offset, what)),
        }
        offset += (BLOCK_HEADER_BYTES + length) as u64;
    }
    let read = reading.map(Reading::whole);
    let read = read.unwrap_or(Err(Malformed("it has no head")));
    read.map_err(|Malformed(what)| damaged(offset, what))
}

struct Reading {
    name: String,
    head: Head,
    loader: Loader,
    /// Of the commit at the base.
    base_events: Vec<Event>,
    files: Vec<FileOfValues>,
    /// Up to where places lead, by file.
    reached: BTreeMap<u32, u64>,
    last_key: Option<Bytes>,
    keys: u64,
    versions: u64,
}

/// The first block.
fn head(reader: &mut Reader<'_>, limits: Limits, now: Duration) -> Result<Reading, Malformed> {
    if reader.byte()? != HEAD {
        return Err(Malformed("it does not begin with its head"));
    }
    let name = record::text(reader.bytes()?)?;
    let head = Head {
        base: Revision(reader.number()?),
        compacted: Revision(reader.number()?),
        revision: Revision(reader.number()?),
    };
    let mut leases = Vec::new();
    while !reader.is_empty() {
        if reader.byte()? != LEASE {
            return Err(Malformed("something else is among the leases"));
        }
        leases.push(record::granted(reader)?);
    }
    Ok(Reading {
        name,
        head,
        loader: Loader::new(limits, head, leases, now),
        base_events: Vec::new(),
        files: Vec::new(),
        reached: BTreeMap::new(),
        last_key: None,
        keys: 0,
        versions: 0,
    })
}

impl Reading {
    /// True at the end.
    fn block(&mut self, reader: &mut Reader<'_>) -> Result<bool, Malformed> {
        while !reader.is_empty() {
            match reader.byte()? {
                KEY => self.key(reader)?,
                BASE => self.base_event(reader)?,
                FILE => self.files.push(FileOfValues {
                    number: small(reader)?,
                    nonce: reader.number()?,
                    bytes: reader.number()?,
                }),
                END => {
                    if (reader.number()?, reader.number()?) != (self.keys, self.versions) {
                        return Err(Malformed("it has not as many keys as it says"));
                    }
                    return Ok(true);
                }
                _ => return Err(Malformed("a part is of an unknown kind")),
            }
        }
        Ok(false)
    }

    fn key(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let key = reader.bytes()?;
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Err(Malformed("its keys are not in order"));
        }
        let count = reader.number()?;
        let mut wrong = None;
        let mut last = Revision(0);
        let versions = (0..count).map_while(|_| {
            let version = self::version(reader, self.head.revision);
            match version {
                Ok(version) if version.revision >= last => {
                    last = version.revision;
                    if version.place.is_some() {
                        let end = u64::from(version.place.offset) + SUM_BYTES as u64 + u64::from(version.place.length);
                        let reached = self.reached.entry(version.place.file).or_default();
                        *reached = (*reached).max(end);
                    }
                    self.versions += 1;
                    Some(version)
                }
                Ok(_) => {
                    wrong = Some(Malformed("versions of a key are not in order"));
                    None
                }
                Err(malformed) => {
                    wrong = Some(malformed);
                    None
                }
            }
        });
        self.loader.key(key.clone(), versions);
        self.last_key = Some(key);
        self.keys += 1;
        wrong.map_or(Ok(()), Err)
    }

    fn base_event(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let revision = self.head.base;
        let key: Bytes = reader.bytes()?;
        let mut kvs = [None, None];
        for kv in &mut kvs {
            if reader.byte()? != 0 {
                *kv = Some(record::item(reader, revision)?);
            }
        }
        self.base_events.push(match kvs {
            [Some(kv), previous] => Event::Put { kv, previous },
            [None, previous] => Event::Delete {
                key,
                revision,
                previous,
            },
        });
        Ok(())
    }

    fn whole(mut self) -> Result<Read, Malformed> {
        for (number, reached) in &self.reached {
            let file = self.files.iter().find(|file| file.number == *number);
            if file.is_none_or(|file| *reached > file.bytes) {
                return Err(Malformed("a value is in no file that it names"));
            }
        }
        if !self.base_events.is_empty() {
            self.loader.base_commit(Commit::new(self.head.base, self.base_events));
        }
        Ok(Read {
            name: self.name,
            loader: self.loader,
            files: self.files,
        })
    }
}

fn version(reader: &mut Reader<'_>, revision: Revision) -> Result<Kept, Malformed> {
    let kind = reader.byte()?;
    let mod_revision = record::before(revision, reader.number()?)?;
    let mut kept = Kept {
        revision: mod_revision,
        sub: small(reader)?,
        created: Revision(0),
        version: 0,
        lease: None,
        value: Bytes::new(),
        place: Place::default(),
    };
    if kind == DELETION {
        return Ok(kept);
    }
    kept.created = record::before(mod_revision, reader.number()?)?;
    kept.version = reader.number()?;
    let lease = reader.number()? as i64;
    kept.lease = (lease != 0).then_some(LeaseId(lease));
    match kind {
        VALUE => kept.value = reader.bytes()?,
        PLACE => {
            kept.place = Place {
                file: small(reader)?,
                offset: small(reader)?,
                length: small(reader)?,
            };
            if !kept.place.is_some() {
                return Err(Malformed("a value has no place"));
            }
        }
        _ => return Err(Malformed("a version is of an unknown kind")),
    }
    Ok(kept)
}

fn small(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(reader.number()?).map_err(|_| Malformed("a number is too large"))
}
