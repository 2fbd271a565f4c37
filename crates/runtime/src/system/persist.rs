//! Files that are either the old one or the new one, never half of one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No state file of ours comes near this; a bigger one is not ours.
const MAX_STATE_FILE_BYTES: u64 = 16 << 20;

/// Replaces `path` as a whole and does not come back before the disk has it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Replaces `path` as a whole; survives the end of this process, not the end of the machine. For what means nothing
/// after a reboot, or is rebuilt then.
pub fn write_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

pub fn write_json_volatile(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_volatile(path, &serde_json::to_vec(value)?)
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_STATE_FILE_BYTES).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
