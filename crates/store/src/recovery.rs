//! From what lies in a data directory to keyspaces in memory. Nothing on the disk is changed before all of it was read
//! and found good; then unfinished files go and a torn end of the log is cut.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use keyspace::index::{Index, Limits};
use world::{Disk, World};

use crate::{
    apart::SpaceFiles,
    checkpoint::UNFINISHED,
    codec::{Malformed, Reader},
    engine::{Space, Spaces},
    error::OpenError,
    log::Log,
    record::{self, Record, SpaceId},
    segment::{self, BadHeader, FORMAT_VERSION, HEADER_BYTES, Header},
    snapshot::{self, Name, ReadError},
    store::StoreOptions,
    value_file::{self, OpenFileError, ValueFile},
    values::Files,
};

pub(crate) struct Recovered {
    pub spaces: Spaces,
    pub log: Log,
    pub last_space: u32,
    /// When the first lease ends.
    pub look_at: Option<Duration>,
    pub files: usize,
}

struct Loaded {
    name: String,
    index: Index,
    last_frame: u64,
    snapshot_frame: u64,
    snapshot_bytes: u64,
    files: SpaceFiles,
}

struct Recovery<'a> {
    dir: &'a Path,
    world: &'a World,
    limits: Limits,
    now: Duration,
    spaces: BTreeMap<SpaceId, Loaded>,
    next_sequence: u64,
    /// What is to be done once all is found good.
    to_remove: Vec<PathBuf>,
    to_cut: Option<(PathBuf, u64)>,
}

pub(crate) fn recover(options: &StoreOptions) -> Result<Recovered, OpenError> {
    let StoreOptions { dir, world, .. } = options;
    let names = world.disk.list(dir).map_err(OpenError::io(dir))?;
    let mut recovery = Recovery {
        dir,
        world,
        limits: options.limits,
        now: world.clock.monotonic(),
        spaces: BTreeMap::new(),
        next_sequence: 1,
        to_remove: Vec::new(),
        to_cut: None,
    };
    recovery.snapshots(&names)?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let files = recovery.segments(&numbers)?;
    let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED));
    recovery.to_remove.extend(unfinished.map(|name| dir.join(name)));
    recovery.forget_values(&names);
    recovery.clean().map_err(OpenError::io(dir))?;
    recovery.finish(files, options.room_bytes)
}

/// The files of the log that stay.
#[derive(Default)]
struct LogFiles {
    first: Option<u64>,
    last: u64,
    bytes: u64,
    count: usize,
}

impl Recovery<'_> {
    fn corrupt(&self, file: impl AsRef<Path>, offset: u64, what: impl Into<String>) -> OpenError {
        OpenError::Corrupt {
            file: self.dir.join(file),
            offset,
            what: what.into(),
        }
    }

    fn snapshots(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut newest: HashMap<SpaceId, Name> = HashMap::new();
        let found: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
        for name in &found {
            let entry = newest.entry(name.space).or_insert(*name);
            *entry = (*entry).max(*name);
        }
        for name in found {
            let path = self.dir.join(name.file());
            if newest[&name.space] != name {
                self.to_remove.push(path);
                continue;
            }
            let file = self.world.disk.open(&path).map_err(OpenError::io(&path))?;
            let read = snapshot::read(file.as_ref(), self.limits, self.now).map_err(|error| match error {
                ReadError::Io(source) => OpenError::Io {
                    path: path.clone(),
                    source,
                },
                ReadError::Other(found) => other_format(&path, found),
                ReadError::Damaged { offset, what } => self.corrupt(&path, offset, what),
            })?;
            let files = self.values(name.space, &read.files, names)?;
            let loaded = Loaded {
                name: read.name,
                index: read.loader.finish(Some(files.files.clone())),
                last_frame: name.sequence,
                snapshot_frame: name.sequence,
                snapshot_bytes: file.size().map_err(OpenError::io(&path))?,
                files,
            };
            self.spaces.insert(name.space, loaded);
        }
        Ok(())
    }

    /// The files of values that a snapshot leads to. What is in them is looked at when it is read.
    fn values(
        &self,
        space: SpaceId,
        named: &[snapshot::FileOfValues],
        names: &[String],
    ) -> Result<SpaceFiles, OpenError> {
        let mut files = Files::default();
        for file in named {
            let name = value_file::Name {
                space,
                number: file.number,
            };
            let path = self.dir.join(name.file());
            let opened = ValueFile::open(self.dir, self.world, name, file.nonce, file.bytes);
            files.insert(opened.map_err(|error| match error {
                OpenFileError::Io(source) => OpenError::Io { path, source },
                OpenFileError::Header(BadHeader::Other(found)) => other_format(&path, found),
                OpenFileError::Header(BadHeader::Damaged) => self.corrupt(path, 0, "its header is damaged"),
                OpenFileError::Other => self.corrupt(path, 0, "it is not the file that the snapshot leads to"),
                OpenFileError::CutShort => self.corrupt(path, file.bytes, "it is cut short"),
            })?);
        }
        let found = names.iter().filter_map(|name| value_file::Name::parse(name));
        let numbers = found.filter(|name| name.space == space).map(|name| name.number);
        Ok(SpaceFiles {
            files: Arc::new(files),
            last_number: numbers.max().unwrap_or(0),
            ..SpaceFiles::default()
        })
    }

    /// Files of values that no snapshot leads to: their checkpoint never came to its end.
    fn forget_values(&mut self, names: &[String]) {
        for name in names.iter().filter_map(|name| value_file::Name::parse(name)) {
            let files = self.spaces.get(&name.space).map(|loaded| &loaded.files.files);
            let is_named = files.is_some_and(|files| files.all().any(|file| file.name == name));
            if !is_named {
                self.to_remove.push(self.dir.join(name.file()));
            }
        }
    }

    fn segments(&mut self, numbers: &[u64]) -> Result<LogFiles, OpenError> {
        let mut files = LogFiles::default();
        if numbers.is_empty() && !self.spaces.is_empty() {
            return Err(self.corrupt("", 0, "there are snapshots and no log"));
        }
        for (at, number) in numbers.iter().copied().enumerate() {
            let is_last = at + 1 == numbers.len();
            let path = self.dir.join(segment::file_name(number));
            let bytes = self.read_file(&path).map_err(OpenError::io(&path))?;
            let header = match Header::decode(&bytes) {
                Ok(header) => header,
                Err(BadHeader::Other(found)) => return Err(other_format(&path, found)),
                // The power went while the file was made: before its header was durable it can have nothing else.
                Err(BadHeader::Damaged) if is_last && bytes.len() <= HEADER_BYTES => {
                    self.to_remove.push(path);
                    continue;
                }
                Err(BadHeader::Damaged) => return Err(self.corrupt(path, 0, "its header is damaged")),
            };
            if files.first.is_some() && (header.number != files.last + 1 || header.first_sequence != self.next_sequence)
            {
                return Err(self.corrupt(path, 0, "a file of the log before it is missing or cut short"));
            }
            self.next_sequence = header.first_sequence;
            let end = self.frames(&path, &bytes, &header, is_last)?;
            files.first.get_or_insert(number);
            files.last = number;
            files.bytes += end as u64;
            files.count += 1;
        }
        Ok(files)
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.world.disk.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Where the good frames end.
    fn frames(&mut self, path: &Path, bytes: &[u8], header: &Header, is_last: bool) -> Result<usize, OpenError> {
        let mut offset = HEADER_BYTES;
        while offset < bytes.len() {
            let Some(frame) = segment::frame(bytes, offset, header.nonce) else {
                if bytes[offset..].iter().all(|byte| *byte == 0) {
                    // Should good frames be missing after all, the next file's first sequence tells.
                    return Ok(offset);
                }
                if let Some(after) = segment::frame_after(bytes, offset, header.nonce) {
                    let what = format!("a commit is damaged, and good ones follow from byte {after} on");
                    return Err(self.corrupt(path, offset as u64, what));
                }
                if !is_last {
                    return Err(self.corrupt(path, offset as u64, "a commit is damaged, and another file follows"));
                }
                self.to_cut = Some((path.to_owned(), offset as u64));
                return Ok(offset);
            };
            if frame.sequence != self.next_sequence {
                let what = format!("expected commit {}, found {}", self.next_sequence, frame.sequence);
                return Err(self.corrupt(path, offset as u64, what));
            }
            self.replay(frame.payload, frame.sequence)
                .map_err(|Malformed(what)| self.corrupt(path, offset as u64, what))?;
            self.next_sequence += 1;
            offset = frame.next;
        }
        Ok(offset)
    }

    fn replay(&mut self, payload: &[u8], sequence: u64) -> Result<(), Malformed> {
        let mut reader = Reader(payload);
        while !reader.is_empty() {
            let (id, record) = record::read(&mut reader)?;
            if let Record::Created { name } = &record {
                self.spaces.entry(id).or_insert_with(|| Loaded {
                    name: name.clone(),
                    index: Index::new(self.limits),
                    last_frame: sequence,
                    snapshot_frame: 0,
                    snapshot_bytes: 0,
                    files: SpaceFiles::default(),
                });
                continue;
            }
            let loaded = self
                .spaces
                .get_mut(&id)
                .ok_or(Malformed("a record is of an unknown keyspace"))?;
            if sequence <= loaded.snapshot_frame {
                continue;
            }
            loaded.last_frame = sequence;
            let index = &mut loaded.index;
            match record {
                Record::Created { .. } => {}
                Record::Commit { revision, changes } => {
                    if revision <= index.revision() {
                        return Err(Malformed("a commit's revision goes back"));
                    }
                    index.replay(revision, changes);
                }
                Record::Granted(granted) => index.replay_grant(granted, self.now),
                Record::Revoked(lease) => index.replay_revoke(lease),
                // The history's limits may have gone further already.
                Record::Compacted(revision) => drop(index.compact(revision)),
            }
            index.publish();
        }
        Ok(())
    }

    fn clean(&self) -> io::Result<()> {
        let disk: &dyn Disk = self.world.disk.as_ref();
        if let Some((path, size)) = &self.to_cut {
            let file = disk.open(path)?;
            tracing::warn!(
                file = %path.display(),
                bytes = file.size()?.saturating_sub(*size),
                "the log's end was torn, and is cut; nobody was told of what was in it"
            );
            file.set_size(*size)?;
            file.sync_data()?;
        }
        for path in &self.to_remove {
            disk.remove(path)?;
        }
        disk.sync_dir(self.dir)
    }

    fn finish(self, files: LogFiles, room_bytes: usize) -> Result<Recovered, OpenError> {
        let last_space = self.spaces.keys().last().map_or(0, |id| id.0);
        let look_at = (self.spaces.values())
            .filter_map(|loaded| loaded.index.next_lease_expiry())
            .min();
        let mut spaces = Spaces::default();
        for (id, mut loaded) in self.spaces {
            while loaded.index.prune(usize::MAX) {}
            spaces.insert(Arc::new(Space {
                last_frame: loaded.last_frame.into(),
                snapshot_frame: loaded.snapshot_frame.into(),
                snapshot_bytes: loaded.snapshot_bytes.into(),
                values_bytes: loaded.files.files.bytes().into(),
                files: loaded.files.into(),
                ..Space::new(id, loaded.name, loaded.index)
            }));
        }
        // Never on in an old file: its end is known to be good now, and stays so.
        let number = files.last + 1;
        let first_number = files.first.unwrap_or(number);
        let log = Log::begin(
            self.dir,
            self.world,
            number,
            self.next_sequence,
            first_number,
            files.bytes,
            room_bytes,
        )
        .map_err(OpenError::io(self.dir.join(segment::file_name(number))))?;
        Ok(Recovered {
            spaces,
            log,
            last_space,
            look_at,
            files: files.count,
        })
    }
}

fn other_format(path: &Path, found: u32) -> OpenError {
    OpenError::OtherFormat {
        file: path.to_owned(),
        found,
        known: FORMAT_VERSION,
    }
}
