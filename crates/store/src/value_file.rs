//! Large values of one keyspace, apart from its snapshot: written once, in the order of keys, and read one by one. Its index
//! knows where each lies; a checkpoint gives a file up when most of what is in it is not needed any more.
//!
//! ```text
//! header  "MGRVVAL\0" | version u32 | keyspace u32 | number u32 | nonce u64 | crc32c u32      (little endian)
//! value   crc32c(nonce, offset, value) u32 | value
//! ```
//!
//! A value's length is known by who knows its place. Nonce and offset are in the checksum, so that neither a piece of
//! another file nor of another place is taken for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use keyspace::values::Place;
use world::{Disk, DiskFile, World};

use crate::{
    record::SpaceId,
    segment::{BadHeader, FORMAT_VERSION, u32_at, u64_at},
};

const MAGIC: &[u8; 8] = b"MGRVVAL\0";
const HEADER_BYTES: usize = 32;
pub(crate) const SUM_BYTES: usize = 4;

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name {
    pub space: SpaceId,
    pub number: u32,
}

impl Name {
    pub fn file(&self) -> PathBuf {
        format!("values-{:08x}-{:08x}", self.space.0, self.number).into()
    }

    pub fn parse(name: &str) -> Option<Name> {
        let (space, number) = name.strip_prefix("values-")?.split_once('-')?;
        Some(Name {
            space: SpaceId(u32::from_str_radix(space, 16).ok()?),
            number: u32::from_str_radix(number, 16).ok()?,
        })
    }
}

fn header(name: Name, nonce: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&name.space.0.to_le_bytes());
    out.extend_from_slice(&name.number.to_le_bytes());
    out.extend_from_slice(&nonce.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn checksum(nonce: u64, offset: u32, value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&nonce.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &offset.to_le_bytes()), value)
}

/// A file that is whole and lasts.
pub(crate) struct ValueFile {
    pub name: Name,
    pub nonce: u64,
    pub bytes: u64,
    pub path: PathBuf,
    file: Box<dyn DiskFile>,
    disk: Arc<dyn Disk>,
    /// To be removed when the last who may read it has gone.
    doomed: AtomicBool,
}

pub(crate) enum OpenFileError {
    Io(io::Error),
    Header(BadHeader),
    /// It is another's.
    Other,
    CutShort,
}

impl ValueFile {
    /// As a snapshot speaks of it.
    pub fn open(dir: &Path, world: &World, name: Name, nonce: u64, bytes: u64) -> Result<ValueFile, OpenFileError> {
        let path = dir.join(name.file());
        let file = world.disk.open(&path).map_err(OpenFileError::Io)?;
        let mut found = [0; HEADER_BYTES];
        let read = file.read_at(0, &mut found).map_err(OpenFileError::Io)?;
        if read < HEADER_BYTES || &found[..8] != MAGIC {
            return Err(OpenFileError::Header(BadHeader::Damaged));
        }
        match u32_at(&found, 8) {
            Some(version) if version != FORMAT_VERSION => return Err(OpenFileError::Header(BadHeader::Other(version))),
            _ => {}
        }
        if u32_at(&found, HEADER_BYTES - 4) != Some(crc32c::crc32c(&found[..HEADER_BYTES - 4])) {
            return Err(OpenFileError::Header(BadHeader::Damaged));
        }
        if found[..] != header(name, nonce) || u64_at(&found, 20) != Some(nonce) {
            return Err(OpenFileError::Other);
        }
        if file.size().map_err(OpenFileError::Io)? < bytes {
            return Err(OpenFileError::CutShort);
        }
        Ok(ValueFile {
            name,
            nonce,
            bytes,
            path,
            file,
            disk: world.disk.clone(),
            doomed: AtomicBool::new(false),
        })
    }

    /// Of values with their checksums.
    pub fn content_bytes(&self) -> u64 {
        self.bytes.saturating_sub(HEADER_BYTES as u64)
    }

    /// Values and all that lies between; less only at the end of the file.
    pub fn read_at(&self, offset: u32, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.file.read_at(offset.into(), &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// `record` is what lies at the place.
    pub fn is_good(&self, place: Place, record: &[u8]) -> bool {
        record.len() == SUM_BYTES + place.length as usize
            && u32_at(record, 0) == Some(checksum(self.nonce, place.offset, &record[SUM_BYTES..]))
    }

    /// Nothing that lasts leads to it any more.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for ValueFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            // If it stays, the next start removes it.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// A file that is being written.
pub(crate) struct Writer {
    name: Name,
    nonce: u64,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// `None` when it is finished.
    file: Option<Box<dyn DiskFile>>,
    written: u64,
    buffer: Vec<u8>,
}

impl Writer {
    pub fn create(dir: &Path, world: &World, name: Name) -> io::Result<Writer> {
        let mut nonce = [0; 8];
        world.random.fill(&mut nonce);
        let nonce = u64::from_le_bytes(nonce);
        let path = dir.join(name.file());
        let file = world.disk.create(&path)?;
        Ok(Writer {
            name,
            nonce,
            path,
            disk: world.disk.clone(),
            file: Some(file),
            written: 0,
            buffer: header(name, nonce),
        })
    }

    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub fn push(&mut self, value: &[u8]) -> io::Result<Place> {
        let wide = |number: usize| u32::try_from(number).map_err(io::Error::other);
        let place = Place {
            file: self.name.number,
            offset: wide(self.bytes() as usize)?,
            length: wide(value.len())?,
        };
        let sum = checksum(self.nonce, place.offset, value);
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(value);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(place)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_at(self.written, &self.buffer)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Its contents last when this returns; its name does not yet.
    pub fn finish(mut self) -> io::Result<ValueFile> {
        self.flush()?;
        let file = self.file.take().ok_or_else(|| io::Error::other("it was finished"))?;
        if let Err(error) = file.sync_data() {
            self.file = Some(file);
            return Err(error);
        }
        Ok(ValueFile {
            name: self.name,
            nonce: self.nonce,
            bytes: self.written,
            path: std::mem::take(&mut self.path),
            file,
            disk: self.disk.clone(),
            doomed: AtomicBool::new(false),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Half of it is there; nothing leads to it.
            let _ = self.disk.remove(&self.path);
        }
    }
}
