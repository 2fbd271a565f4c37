//! The process that writes, what it says, and whether that is true afterwards.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use keyspace::{KeyRange, Op, Options, Range, Revision, Txn};
use store::{Store, StoreOptions, ValueOptions};
use tokio::runtime::Runtime;
use world::{Disk, DiskFile, DiskLock, LockError, RealDisk, World};

pub const DIR: &str = "STORE_PROCESS_DIR";
const KILL_AT: &str = "STORE_PROCESS_KILL_AT";

const KEYS: u64 = 12;
const COMMITS: u64 = 90;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime")
});

fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

/// Everything happens often.
fn options(dir: &Path, world: World) -> StoreOptions {
    StoreOptions {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 12 << 10,
        room_bytes: 1 << 10,
        values: ValueOptions {
            memory_bytes: 2000,
            apart_bytes_min: 100,
            keyspace_bytes_min: 0,
            file_bytes: 4 << 10,
        },
        ..StoreOptions::new(dir, world)
    }
}

/// One value says which commit wrote it, at some length.
fn value(commit: u64) -> String {
    format!("{commit}/").repeat(1 + (commit * 37 % 300) as usize)
}

/// Two keys in each commit, so that half of one would be seen.
fn keys(commit: u64) -> [String; 2] {
    [
        format!("k{}", commit % KEYS),
        format!("k{}", (commit + KEYS / 2) % KEYS),
    ]
}

pub fn run_if_told() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let kill_at = crate::number(KILL_AT).unwrap_or(u64::MAX);
    let world = World {
        disk: Arc::new(Killing {
            left: Arc::new(AtomicU64::new(kill_at)),
        }),
        ..World::real()
    };
    let store = Store::open(options(dir.as_ref(), world)).expect("it opens");
    let space = block_on(store.local("a")).expect("a keyspace");
    let begun = space.view().read().revision().0;
    for commit in begun..begun + COMMITS {
        let ops = keys(commit).map(|key| Op::put(key, value(commit)));
        let txn = Txn {
            success: ops.into(),
            ..Txn::default()
        };
        let Ok(written) = block_on(space.txn(txn, Options::default())) else {
            // The disk is gone.
            return;
        };
        assert_eq!(written.revision, Revision(commit + 1));
        say(&format!("acknowledged {commit}"));
        if commit % 20 == 19 {
            let compacted = block_on(space.compact(Revision(commit - 5), Options::default()));
            say(&compacted.map_or_else(|_| String::new(), |()| format!("compacted {}", commit - 5)));
        }
    }
}

fn say(what: &str) {
    let mut out = io::stdout().lock();
    // Whoever listened may have gone.
    let _ = writeln!(out, "{what}").and_then(|()| out.flush());
}

/// What a process said before its end.
#[derive(Default)]
pub struct Told {
    pub commits: u64,
    pub was_killed: bool,
}

#[derive(Default)]
pub struct Acknowledged {
    last_commit: u64,
}

impl Acknowledged {
    pub fn add(&mut self, told: &Told) {
        self.last_commit = self.last_commit.max(told.commits);
    }
}

/// What one that has ended said.
pub fn told(out: &[u8], was_killed: bool) -> Told {
    let text = String::from_utf8_lossy(out);
    let commits = text
        .lines()
        .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    Told {
        commits: commits.max().unwrap_or(0),
        was_killed,
    }
}

/// Runs it until it is killed at its `operation`th sync or change of names.
pub fn killed_at(mut process: Command, operation: u64) -> Told {
    let process = process.env(KILL_AT, operation.to_string()).stderr(Stdio::null());
    let output = process.output().expect("it runs");
    told(&output.stdout, !output.status.success())
}

/// All that was acknowledged is there, whole commits, and at most one more.
pub fn check(dir: &Path, acknowledged: &Acknowledged, when: &str) {
    let store = Store::open(options(dir, World::real())).unwrap_or_else(|error| panic!("{when}: {error}"));
    let space = block_on(store.local("a")).expect("a keyspace");
    let found = block_on(space.range(Range::of(KeyRange::prefix("")), Options::default())).expect("it is read");
    let last = found.revision.0 - 1;
    assert!(
        last >= acknowledged.last_commit,
        "{when}: {last} of {}",
        acknowledged.last_commit
    );
    let mut expected = BTreeMap::new();
    for commit in 1..=last {
        expected.extend(keys(commit).map(|key| (key, value(commit))));
    }
    let found: BTreeMap<String, String> = (found.items.iter())
        .map(|kv| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            (text(&kv.key), text(&kv.value))
        })
        .collect();
    assert!(found == expected, "{when}: at commit {last} there are {found:?}");
}

/// The real disk, until it was asked so often to make something last, or to change a name.
struct Killing {
    left: Arc<AtomicU64>,
}

impl Killing {
    fn operation(&self) {
        count_down(&self.left);
    }
}

fn count_down(left: &AtomicU64) {
    if left.fetch_sub(1, Ordering::SeqCst) == 0 {
        let pid = std::process::id().to_string();
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
        // It takes a moment to come.
        loop {
            std::thread::park();
        }
    }
}

impl Disk for Killing {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.operation();
        let file = RealDisk.create(path)?;
        Ok(Box::new(KillingFile(file, self.left.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = RealDisk.open(path)?;
        Ok(Box::new(KillingFile(file, self.left.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation();
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation();
        RealDisk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operation();
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        RealDisk.lock(path)
    }
}

struct KillingFile(Box<dyn DiskFile>, Arc<AtomicU64>);

impl DiskFile for KillingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, bytes)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        count_down(&self.1);
        self.0.set_size(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        count_down(&self.1);
        self.0.sync_data()
    }
}
