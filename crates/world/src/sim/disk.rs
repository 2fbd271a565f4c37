//! A disk that keeps only what it promised. At a power loss each sector of a write that was not synced is there or not,
//! by the seed, and of the changes to names that were not synced only the first few; a sync can fail and then has
//! dropped what it should have written, as Linux does; the disk can be full.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Disk, DiskFile, DiskLock, LockError, sim::SimRandom};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: SimRandom,
    files: BTreeMap<u64, Contents>,
    last_file: u64,
    names: BTreeMap<PathBuf, u64>,
    lasting_names: BTreeMap<PathBuf, u64>,
    /// Changes to names since they were last synced, in order.
    renamed: Vec<(PathBuf, Renamed)>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Grows at each power loss: who held a file before holds nothing now.
    boot: u64,
    powered: bool,
    operations: u64,
    power_lost_at: Option<u64>,
    sync_fails_at: Option<u64>,
    syncs: u64,
    bytes_max: u64,
}

enum Renamed {
    Points(u64),
    Gone,
}

#[derive(Default, Clone)]
struct Contents {
    /// As a reader sees it.
    current: Vec<u8>,
    /// As it is after a power loss, before luck is asked about the rest.
    lasting: Vec<u8>,
    unsynced: Vec<Written>,
}

#[derive(Clone)]
enum Written {
    Bytes { offset: usize, bytes: Vec<u8> },
    Size(usize),
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(State {
                random: SimRandom::new(seed ^ 0x6469_736b),
                files: BTreeMap::new(),
                last_file: 0,
                names: BTreeMap::new(),
                lasting_names: BTreeMap::new(),
                renamed: Vec::new(),
                dirs: BTreeSet::new(),
                locks: BTreeSet::new(),
                boot: 0,
                powered: true,
                operations: 0,
                power_lost_at: None,
                sync_fails_at: None,
                syncs: 0,
                bytes_max: u64::MAX,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// How often the disk was asked to change something.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The power goes in the middle of the `operations`th change from now, counted from 0.
    pub fn lose_power_after(&self, operations: u64) {
        let mut state = self.state();
        state.power_lost_at = Some(state.operations + operations);
    }

    pub fn has_power(&self) -> bool {
        self.state().powered
    }

    /// The power goes now if it has not yet, and comes back.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// The `syncs`th sync of a file from now fails, counted from 0.
    pub fn fail_sync_after(&self, syncs: u64) {
        let mut state = self.state();
        state.sync_fails_at = Some(state.syncs + syncs);
    }

    /// How many bytes all files may have together.
    pub fn set_capacity(&self, bytes_max: u64) {
        self.state().bytes_max = bytes_max;
    }

    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The contents of a file as a reader sees them.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.names.get(path)?;
        Some(state.files.get(file)?.current.clone())
    }

    /// Turns a bit of what lies on the disk.
    pub fn rot(&self, path: &Path, offset: usize) {
        let mut state = self.state();
        let Some(file) = state.names.get(path).copied() else {
            return;
        };
        let Some(contents) = state.files.get_mut(&file) else {
            return;
        };
        for bytes in [&mut contents.current, &mut contents.lasting] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1;
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_power() -> io::Error {
    io::Error::other("the power is gone")
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

impl State {
    fn used(&self) -> u64 {
        self.files.values().map(|contents| contents.current.len() as u64).sum()
    }

    /// Counts a change; false if the power goes while it is made.
    fn change(&mut self) -> io::Result<bool> {
        if !self.powered {
            return Err(no_power());
        }
        if self.power_lost_at == Some(self.operations) {
            self.powered = false;
        }
        self.operations += 1;
        Ok(self.powered)
    }

    fn name(&mut self, path: &Path, renamed: Renamed) {
        match renamed {
            Renamed::Points(file) => self.names.insert(path.to_owned(), file),
            Renamed::Gone => self.names.remove(path),
        };
        self.renamed.push((path.to_owned(), renamed));
    }

    fn restart(&mut self) {
        let lucky = self.random.below(self.renamed.len() as u64 + 1) as usize;
        for (path, renamed) in self.renamed.drain(..).take(lucky) {
            match renamed {
                Renamed::Points(file) => self.lasting_names.insert(path, file),
                Renamed::Gone => self.lasting_names.remove(&path),
            };
        }
        self.names = self.lasting_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        for contents in self.files.values_mut() {
            contents.lose_power(&self.random);
        }
        self.locks.clear();
        self.boot += 1;
        self.powered = true;
        self.power_lost_at = None;
        self.sync_fails_at = None;
    }
}

impl Contents {
    fn lose_power(&mut self, random: &SimRandom) {
        // Three kinds of luck: nothing more was written, all of it was, or any sectors of it.
        let luck = random.below(3);
        for written in std::mem::take(&mut self.unsynced) {
            match written {
                Written::Size(size) if luck == 1 || luck == 2 && random.chance(50) => self.lasting.resize(size, 0),
                Written::Bytes { offset, bytes } if luck == 1 => overwrite(&mut self.lasting, offset, &bytes),
                Written::Bytes { offset, bytes } if luck == 2 => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(bytes.len());
                        if random.chance(60) {
                            overwrite(&mut self.lasting, offset + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
                Written::Size(_) | Written::Bytes { .. } => {}
            }
        }
        self.current = self.lasting.clone();
    }
}

/// A hole reads as zeros.
fn overwrite(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there", path.display()),
            ));
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(missing(path));
        }
        let powered = state.change()?;
        state.last_file += 1;
        let file = state.last_file;
        state.files.insert(file, Contents::default());
        state.name(path, Renamed::Points(file));
        if powered {
            Ok(self.file(&state, file))
        } else {
            Err(no_power())
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        if !state.powered {
            return Err(no_power());
        }
        let file = *state.names.get(path).ok_or_else(|| missing(path))?;
        Ok(self.file(&state, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = *state.names.get(from).ok_or_else(|| missing(from))?;
        let powered = state.change()?;
        // Both names change at once, as in one entry of a file system's journal: the new one first, so that a power
        // loss between them leaves two names and never none.
        state.name(to, Renamed::Points(file));
        state.name(from, Renamed::Gone);
        if powered { Ok(()) } else { Err(no_power()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(missing(path));
        }
        let powered = state.change()?;
        state.name(path, Renamed::Gone);
        let lasting: BTreeSet<u64> = state
            .names
            .values()
            .chain(state.lasting_names.values())
            .copied()
            .collect();
        let pending: BTreeSet<u64> = (state.renamed.iter())
            .filter_map(|(_, renamed)| match renamed {
                Renamed::Points(file) => Some(*file),
                Renamed::Gone => None,
            })
            .collect();
        state
            .files
            .retain(|file, _| lasting.contains(file) || pending.contains(file));
        if powered { Ok(()) } else { Err(no_power()) }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.powered {
            return Err(no_power());
        }
        // Folders last at once: what is simulated is what goes on inside them.
        state.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.powered {
            return Err(no_power());
        }
        if !state.dirs.contains(dir) {
            return Err(missing(dir));
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.change()? {
            return Err(no_power());
        }
        let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.renamed)
            .into_iter()
            .partition(|(path, _)| path.parent() == Some(dir));
        state.renamed = rest;
        for (path, renamed) in synced {
            match renamed {
                Renamed::Points(file) => state.lasting_names.insert(path, file),
                Renamed::Gone => state.lasting_names.remove(&path),
            };
        }
        let named: BTreeSet<u64> = (state.names.values())
            .chain(state.lasting_names.values())
            .copied()
            .collect();
        if state.renamed.is_empty() {
            state.files.retain(|file, _| named.contains(file));
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let mut state = self.state();
        if !state.powered {
            return Err(no_power().into());
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(LockError::Held { pid: None });
        }
        Ok(Box::new(SimLock {
            state: self.state.clone(),
            path: path.to_owned(),
            boot: state.boot,
        }))
    }
}

struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    boot: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}

impl SimDisk {
    fn file(&self, state: &State, file: u64) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            state: self.state.clone(),
            file,
            boot: state.boot,
        })
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    file: u64,
    boot: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.powered && state.boot == self.boot {
            Ok(state)
        } else {
            Err(no_power())
        }
    }

    fn contents<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Contents> {
        state
            .files
            .get_mut(&self.file)
            .ok_or_else(|| io::Error::other("the file was removed"))
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let powered = state.change()?;
        let free = state.bytes_max.saturating_sub(state.used());
        let contents = self.contents(&mut state)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let grows = (offset + bytes.len()).saturating_sub(contents.current.len()) as u64;
        // A full disk takes what it has room for.
        let lacking = grows.saturating_sub(free) as usize;
        let bytes = &bytes[..bytes.len().saturating_sub(lacking)];
        overwrite(&mut contents.current, offset, bytes);
        contents.unsynced.push(Written::Bytes {
            offset,
            bytes: bytes.to_vec(),
        });
        match (powered, lacking) {
            (false, _) => Err(no_power()),
            (true, 0) => Ok(()),
            (true, _) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        let contents = self.contents(&mut state)?;
        let rest = contents.current.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        Ok(self.contents(&mut state)?.current.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let powered = state.change()?;
        let contents = self.contents(&mut state)?;
        contents.current.resize(size as usize, 0);
        contents.unsynced.push(Written::Size(size as usize));
        if powered { Ok(()) } else { Err(no_power()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let powered = state.change()?;
        let fails = state.sync_fails_at == Some(state.syncs);
        state.syncs += 1;
        let contents = self.contents(&mut state)?;
        if !powered {
            return Err(no_power());
        }
        if fails {
            // The pages count as clean now, and a later sync says that all is well.
            contents.unsynced.clear();
            return Err(io::Error::other("the disk could not write"));
        }
        for written in std::mem::take(&mut contents.unsynced) {
            match written {
                Written::Size(size) => contents.lasting.resize(size, 0),
                Written::Bytes { offset, bytes } => overwrite(&mut contents.lasting, offset, &bytes),
            }
        }
        Ok(())
    }
}
