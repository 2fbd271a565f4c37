//! 1,000,000 keys of 1 KiB: what they take of the memory, how long a start takes, and how long writers are ever held up while
//! checkpoints, compaction and defragmentation go on.
//!
//! `cargo bench -p store --bench million`, or with `KEYS=100000`, or with `DIR=` on another disk. It takes some 5 GB there.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the real clock")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use keyspace::{KeyRange, Local, Op, Options, Range, Revision, Txn, index::Limits};
use store::{Store, StoreOptions, ValueOptions};
use tokio::runtime::Runtime;
use world::World;

const VALUE_BYTES: usize = 1024;

/// Puts of one transaction while keys are made.
const PUTS: usize = 100;

/// What values may take of the memory when they are to be cold.
const COLD_BYTES: usize = 32 << 20;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime")
});

fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}

fn keys() -> usize {
    let keys = std::env::var("KEYS").ok();
    keys.map_or(1_000_000, |keys| keys.parse().expect("a number of keys"))
}

/// As Kubernetes has them.
fn key(number: usize) -> String {
    format!("/registry/pods/namespace-{:03}/pod-{number:07}", number % 500)
}

fn value(number: usize, round: usize) -> Vec<u8> {
    let mut value = format!("{number}/{round}/").into_bytes();
    value.resize(VALUE_BYTES, (number % 251) as u8);
    value
}

fn open(dir: &Path, memory_bytes: usize) -> Store {
    let options = StoreOptions {
        // As `mangrove store` has them: who uses a keyspace compacts it.
        limits: Limits {
            history_revisions_max: usize::MAX,
            history_bytes_max: usize::MAX,
            quota_bytes_max: usize::MAX,
        },
        values: ValueOptions {
            memory_bytes,
            ..ValueOptions::default()
        },
        ..StoreOptions::new(dir, World::real())
    };
    Store::open(options).expect("it opens")
}

/// Of `/proc/self/status`, in MB.
fn megabytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is a status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("the field");
    let kilobytes = line.trim_start_matches(':').trim().trim_end_matches("kB").trim();
    kilobytes.parse::<u64>().expect("a number") * 1024 / 1_000_000
}

fn report(what: &str, began: Instant) {
    println!(
        "{what:<58} {:>7.2} s   RSS {:>5} MB   peak {:>5} MB",
        began.elapsed().as_secs_f64(),
        megabytes("VmRSS"),
        megabytes("VmHWM")
    );
}

fn write(keyspace: &dyn Local, ops: Vec<Op>) -> Revision {
    let txn = Txn {
        success: ops,
        ..Txn::default()
    };
    block_on(keyspace.txn(txn, Options::default()))
        .expect("it is written")
        .revision
}

fn fill(keyspace: &dyn Local, round: usize, part: usize) -> Revision {
    let mut last = Revision(0);
    for first in (0..keys() / part).step_by(PUTS) {
        let ops = (first..first + PUTS).map(|number| Op::put(key(number), value(number, round)));
        last = write(keyspace, ops.collect());
    }
    last
}

fn a(store: &Store) -> Arc<dyn Local> {
    block_on(store.local("a")).expect("a keyspace")
}

/// One writer, one put at a time: how long each took at most, while `work` goes on.
fn longest_stop(keyspace: &Arc<dyn Local>, what: &str, work: impl FnOnce()) {
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (keyspace, over) = (keyspace.clone(), over.clone());
        std::thread::spawn(move || {
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                write(
                    keyspace.as_ref(),
                    vec![Op::put("/registry/leases/one", value(took.len(), 0))],
                );
                took.push(begin.elapsed());
            }
            took
        })
    };
    work();
    over.store(true, Ordering::Relaxed);
    let mut took: Vec<Duration> = writer.join().expect("it writes");
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 1000].as_secs_f64() * 1000.0;
    println!(
        "  writer while {what:<40} p50 {:>7.3} ms   p99.9 {:>8.3} ms   longest {:>8.3} ms   ({} puts)",
        at(500),
        at(999),
        at(1000),
        took.len()
    );
}

fn phase(name: &str, dir: &Path) {
    let began = Instant::now();
    match name {
        "fill" => {
            let store = open(dir, 2 << 30);
            fill(a(&store).as_ref(), 0, 1);
            report("made, all values and all history in memory", began);
            let began = Instant::now();
            let keyspace = a(&store);
            let now = keyspace.view().read().revision();
            block_on(keyspace.compact(now, Options::default())).expect("it compacts");
            store.checkpoint().expect("there is room");
            report("compacted and saved, all values in memory", began);
        }
        "fill-cold" => {
            let store = open(dir, COLD_BYTES);
            fill(a(&store).as_ref(), 0, 1);
            report("made, values cold, all history kept", began);
            let began = Instant::now();
            let keyspace = a(&store);
            let now = keyspace.view().read().revision();
            block_on(keyspace.compact(now, Options::default())).expect("it compacts");
            store.checkpoint().expect("there is room");
            report("compacted and saved", began);
        }
        "start" | "start-cold" => {
            let store = open(dir, if name == "start" { 2 << 30 } else { COLD_BYTES });
            report("started", began);
            let began = Instant::now();
            let keyspace = a(&store);
            for number in (0..keys()).step_by(97) {
                let found = block_on(keyspace.range(Range::of(KeyRange::one(key(number))), Options::default()));
                let found = found.expect("it is read");
                assert_eq!(found.items[0].value.len(), VALUE_BYTES);
            }
            report("one of 97 keys read by name", began);
            let began = Instant::now();
            let mut after = KeyRange::prefix("/registry/pods/");
            let mut seen = 0;
            loop {
                let page = Range {
                    limit: Some(500),
                    ..Range::of(after.clone())
                };
                let page = keyspace.view().page(&page).expect("it is read");
                seen += page.items.len();
                let Some(last) = page.items.last().filter(|_| page.more) else {
                    break;
                };
                after.start = [&last.key[..], b"\0"].concat().into();
            }
            assert_eq!(seen, keys());
            report("all listed in pages of 500", began);
        }
        "stops" => {
            let store = open(dir, COLD_BYTES);
            let keyspace = a(&store);
            longest_stop(&keyspace, "nothing else goes on", || {
                std::thread::sleep(Duration::from_secs(3))
            });
            let half = fill(keyspace.as_ref(), 1, 2);
            longest_stop(&keyspace, "a checkpoint is written", || {
                store.checkpoint().expect("there is room")
            });
            longest_stop(&keyspace, "half the keys' old versions are compacted", || {
                block_on(keyspace.compact(half, Options::default())).expect("it compacts")
            });
            longest_stop(&keyspace, "all is defragmented", || {
                block_on(keyspace.defragment()).expect("there is room")
            });
            report("done", began);
        }
        other => panic!("no phase is called {other}"),
    }
}

fn main() {
    let argument = std::env::args().nth(1).filter(|argument| argument != "--bench");
    if let Some(name) = argument {
        let dir = std::env::var_os("MILLION_DIR").expect("the parent says where");
        return phase(&name, &PathBuf::from(dir));
    }
    let place = std::env::var("DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let dir = tempfile::tempdir_in(place).expect("a folder");
    println!("{} keys of {VALUE_BYTES} bytes", keys());
    for (set, phases) in [
        ("warm", &["fill", "start", "start-cold", "stops"][..]),
        ("cold", &["fill-cold", "start-cold"][..]),
    ] {
        let dir = dir.path().join(set);
        for phase in phases {
            println!("{set}: {phase}");
            let program = std::env::current_exe().expect("this program");
            let status = Command::new(program).arg(phase).env("MILLION_DIR", &dir).status();
            assert!(status.is_ok_and(|status| status.success()), "{phase} goes through");
        }
        fs::remove_dir_all(&dir).expect("it goes");
    }
}
