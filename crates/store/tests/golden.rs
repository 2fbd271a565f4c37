//! Data directories of every format version since the first release can be opened, and say what they said.
//!
//! `GOLDEN=write cargo test -p store --test golden` makes the directory of the current version anew; that is right only
//! until a version is released.
#![allow(clippy::disallowed_methods, reason = "tests make data directories by hand")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures::StreamExt;
use keyspace::{
    Error, Event, KeyRange, Keyspace, LeaseId, Op, Options, Previous, Put, Range, Revision, Txn, Watch, Watched,
};
use store::{FORMAT_VERSION, Store, StoreOptions};
use world::{RealDisk, World, sim::Sim};

/// Formats before it were never released, and are refused.
const RELEASED_FIRST: u32 = FORMAT_VERSION;

fn golden(version: u32) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

/// The same bytes each time: only the disk is real.
fn world() -> World {
    World {
        disk: Arc::new(RealDisk),
        clock: World::real().clock,
        ..Sim::new(1).world()
    }
}

async fn write(keyspace: &Arc<dyn Keyspace>, ops: Vec<Op>) -> Revision {
    let txn = Txn {
        success: ops,
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.unwrap().revision
}

async fn make(dir: &Path) {
    let store = Store::open(StoreOptions::new(dir, world())).unwrap();
    let (a, b) = (store.keyspace("a").await.unwrap(), store.keyspace("b/ü").await.unwrap());
    write(&a, vec![Op::put("x", "1")]).await;
    write(&a, vec![Op::put("x", "2"), Op::put(&b"\0\xff"[..], &b"\0"[..])]).await;
    write(&a, vec![Op::delete("x")]).await;
    a.compact(Revision(3), Options::default()).await.unwrap();
    a.grant_lease(Some(LeaseId(i64::MAX)), Duration::from_secs(3600))
        .await
        .unwrap();
    write(&b, vec![Op::put("gone", "1")]).await;
    store.checkpoint().unwrap();
    let leased = Put {
        key: "leased".into(),
        value: vec![7; 1000].into(),
        lease: Some(LeaseId(i64::MAX)),
        previous: Previous::Omit,
        keep: Default::default(),
    };
    write(&a, vec![Op::Put(leased), Op::put("x", "3")]).await;
    b.grant_lease(Some(LeaseId(5)), Duration::from_secs(60)).await.unwrap();
    b.revoke_lease(LeaseId(5)).await.unwrap();
    write(&b, vec![Op::delete("gone")]).await;
}

async fn check(dir: &Path) {
    let store = Store::open(StoreOptions::new(dir, world())).unwrap();
    assert_eq!(store.keyspaces(), ["a", "b/ü"]);
    let (a, b) = (store.keyspace("a").await.unwrap(), store.keyspace("b/ü").await.unwrap());
    let read = async |keyspace: &Arc<dyn Keyspace>, revision| {
        let range = Range {
            revision,
            ..Range::of(KeyRange::prefix(""))
        };
        keyspace.range(range, Options::default()).await
    };

    let now = read(&a, None).await.unwrap();
    let told: Vec<_> = (now.items.iter())
        .map(|kv| {
            (
                &kv.key[..],
                kv.value.len(),
                kv.create_revision.0,
                kv.mod_revision.0,
                kv.version,
                kv.lease,
            )
        })
        .collect();
    let expected: [(&[u8], _, _, _, _, _); 3] = [
        (b"\0\xff", 1, 3, 3, 1, None),
        (b"leased", 1000, 5, 5, 1, Some(LeaseId(i64::MAX))),
        (b"x", 1, 5, 5, 1, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(now.revision, Revision(5));
    let old = read(&a, Some(Revision(3))).await.unwrap();
    assert_eq!(
        old.items.iter().map(|kv| &kv.value[..]).collect::<Vec<_>>(),
        [&b"\0"[..], b"2"]
    );
    assert!(matches!(
        read(&a, Some(Revision(2))).await,
        Err(Error::Compacted { .. })
    ));
    assert_eq!(a.lease_state(LeaseId(i64::MAX)).await.unwrap().keys, ["leased"]);
    let empty = read(&b, None).await.unwrap();
    assert_eq!((empty.count, empty.revision), (0, Revision(3)));
    assert_eq!(b.lease_state(LeaseId(5)).await, Err(Error::NoLease(LeaseId(5))));

    let watch = Watch {
        keys: KeyRange::one("x"),
        from: Some(Revision(3)),
        previous: Previous::Return,
    };
    let mut watch = a.watch(watch, Options::default()).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        if let Watched::Events { events, .. } = watch.next().await.unwrap().unwrap() {
            told.extend(events.into_iter().map(|event| match event {
                Event::Put { kv, previous } => (Some(kv.value), previous.map(|kv| kv.value)),
                Event::Delete { previous, .. } => (None, previous.map(|kv| kv.value)),
            }));
        }
    }
    let value = |text: &'static str| Some(text.into());
    assert_eq!(told, [(value("2"), value("1")), (None, value("2")), (value("3"), None)]);
    assert_eq!(write(&a, vec![Op::put("x", "4")]).await, Revision(6));
}

#[tokio::test]
async fn every_version_can_be_opened() {
    let current = golden(FORMAT_VERSION);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        let _ = fs::remove_dir_all(&current);
        make(&current).await;
        fs::remove_file(current.join("lock")).unwrap();
    }
    for version in RELEASED_FIRST..=FORMAT_VERSION {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(golden(version)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        check(copy.path()).await;
        check_again(copy.path()).await;
    }
}

/// What was opened and written to can be opened once more.
async fn check_again(dir: &Path) {
    let store = Store::open(StoreOptions::new(dir, world())).unwrap();
    let a = store.keyspace("a").await.unwrap();
    assert_eq!(write(&a, vec![Op::put("x", "5")]).await, Revision(7));
}

/// A change of the format that forgot to raise the version shows here.
#[tokio::test]
async fn what_is_written_today_is_what_the_version_says() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path()).await;
    for entry in fs::read_dir(golden(FORMAT_VERSION)).unwrap() {
        let entry = entry.unwrap();
        let today = fs::read(dir.path().join(entry.file_name())).unwrap();
        assert!(
            today == fs::read(entry.path()).unwrap(),
            "{:?} has other bytes",
            entry.file_name()
        );
    }
}
