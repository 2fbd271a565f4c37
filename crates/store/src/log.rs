//! The end of the log, where frames are appended, and the files before it.

use std::{
    io,
    path::{Path, PathBuf},
};

use world::{DiskFile, World};

use crate::segment::{self, FRAME_HEADER_BYTES, HEADER_BYTES, Header};

/// A frame longer than this part of the room that is made at once makes its own: the zeros would cost as much as they
/// spare.
const ROOM_FRAMES_MIN: usize = 8;

pub(crate) struct Log {
    dir: PathBuf,
    world: World,
    file: Box<dyn DiskFile>,
    header: Header,
    /// Where the next frame goes.
    offset: u64,
    /// Up to where the file is known to have room.
    room_until: u64,
    /// What room is made of.
    room: Vec<u8>,
    next_sequence: u64,
    first_number: u64,
    /// Bytes in files before the current one.
    older_bytes: u64,
}

pub(crate) enum AppendError {
    /// Nothing was written.
    Full(io::Error),
    /// Nothing is known, and nothing more can be written.
    Failed(io::Error),
}

impl Log {
    /// Begins a new file after those that are there.
    pub fn begin(
        dir: &Path,
        world: &World,
        number: u64,
        next_sequence: u64,
        first_number: u64,
        older_bytes: u64,
        room_bytes: usize,
    ) -> io::Result<Log> {
        let (file, header) = create(dir, world, number, next_sequence)?;
        Ok(Log {
            dir: dir.to_owned(),
            world: world.clone(),
            file,
            header,
            offset: HEADER_BYTES as u64,
            room_until: HEADER_BYTES as u64,
            room: vec![0; room_bytes],
            next_sequence,
            first_number: first_number.min(number),
            older_bytes,
        })
    }

    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    pub fn file_bytes(&self) -> u64 {
        self.offset
    }

    pub fn bytes(&self) -> u64 {
        self.older_bytes + self.offset
    }

    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Whether anything was appended to the current file.
    pub fn has_frames(&self) -> bool {
        self.offset > HEADER_BYTES as u64
    }

    /// `frame` has [`FRAME_HEADER_BYTES`] of room in front. Durable when this returns its sequence.
    pub fn append(&mut self, frame: &mut [u8]) -> Result<u64, AppendError> {
        debug_assert!(frame.len() > FRAME_HEADER_BYTES);
        let sequence = self.next_sequence;
        segment::seal(frame, sequence, self.header.nonce);
        if let Err(error) = self.file.write_at(self.offset, frame) {
            // What was written of it is no good frame, and is cut away for good: the next one must not be behind it, nor
            // the file be the last but one with a torn end.
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            self.room_until = self.offset;
            return Err(
                match self.file.set_size(self.offset).and_then(|()| self.file.sync_data()) {
                    Ok(()) if full => AppendError::Full(error),
                    _ => AppendError::Failed(error),
                },
            );
        }
        let end = self.offset + frame.len() as u64;
        if end > self.room_until && frame.len() * ROOM_FRAMES_MIN <= self.room.len() {
            // Without room it goes on more slowly, that is all.
            let made = self.file.write_at(end, &self.room);
            self.room_until = made.map_or(end, |()| end + self.room.len() as u64);
        }
        // An error here is final: the system may have dropped what it could not write, and would say that all is well
        // when asked again.
        self.file.sync_data().map_err(AppendError::Failed)?;
        self.offset = end;
        self.next_sequence += 1;
        Ok(sequence)
    }

    /// Goes on in a new file. If that can't be made the current one stays, unless the new one can't be taken away again.
    pub fn rotate(&mut self) -> Result<(), AppendError> {
        let number = self.header.number + 1;
        match create(&self.dir, &self.world, number, self.next_sequence) {
            Ok((file, header)) => {
                self.older_bytes += self.offset;
                self.trim();
                self.offset = HEADER_BYTES as u64;
                self.room_until = self.offset;
                self.file = file;
                self.header = header;
                Ok(())
            }
            Err(error) => {
                // Left behind, it would say that the current file is complete.
                let path = self.dir.join(segment::file_name(number));
                let removed = match self.world.disk.remove(&path) {
                    Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other.and_then(|()| self.world.disk.sync_dir(&self.dir)),
                };
                Err(match removed {
                    Ok(()) => AppendError::Full(error),
                    Err(_) => AppendError::Failed(error),
                })
            }
        }
    }

    /// Gives back the room that no frame needed. If it can't be, zeros are no harm.
    pub fn trim(&mut self) {
        if self.room_until > self.offset && self.file.set_size(self.offset).is_ok() {
            self.room_until = self.offset;
        }
    }

    /// The oldest file, if it is before the one with this number.
    pub fn oldest_before(&self, number: u64) -> Option<PathBuf> {
        let is_before = self.first_number < number.min(self.header.number);
        is_before.then(|| self.dir.join(segment::file_name(self.first_number)))
    }

    /// The oldest file was removed; so many bytes were in it.
    pub fn forget_oldest(&mut self, bytes: u64) {
        self.first_number += 1;
        self.older_bytes = self.older_bytes.saturating_sub(bytes);
    }
}

fn create(dir: &Path, world: &World, number: u64, first_sequence: u64) -> io::Result<(Box<dyn DiskFile>, Header)> {
    let mut nonce = [0; 8];
    world.random.fill(&mut nonce);
    let header = Header {
        number,
        first_sequence,
        nonce: u64::from_le_bytes(nonce),
    };
    let file = world.disk.create(&dir.join(segment::file_name(number)))?;
    file.write_at(0, &header.encode())?;
    file.sync_data()?;
    world.disk.sync_dir(dir)?;
    Ok((file, header))
}
