//! The store against the suite of keyspaces, and what a restart keeps.
#![allow(
    clippy::disallowed_methods,
    reason = "tests make and damage data directories by hand"
)]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use keyspace::{
    Error, Event, KeyRange, Keyspace, LeaseId, Op, Options, Previous, Put, Range, Revision, Txn, Watch, Watched, suite,
};
use store::{OpenError, Store, StoreOptions};
use world::World;

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(StoreOptions::new(dir, World::real()))
}

async fn write(keyspace: &Arc<dyn Keyspace>, ops: Vec<Op>) -> Result<Revision, Error> {
    let txn = Txn {
        success: ops,
        ..Txn::default()
    };
    Ok(keyspace.txn(txn, Options::default()).await?.revision)
}

async fn values(keyspace: &Arc<dyn Keyspace>, revision: Option<Revision>) -> Vec<(String, String)> {
    let range = Range {
        revision,
        ..Range::of(KeyRange::prefix(""))
    };
    let found = keyspace.range(range, Options::default()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    found.items.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_a_keyspace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let made = AtomicUsize::new(0);
    suite::run(|| async {
        let name = format!("k{}", made.fetch_add(1, Ordering::Relaxed));
        store.keyspace(&name).await.unwrap()
    })
    .await;
    assert_eq!(store.keyspaces().len(), suite::BEHAVIOURS.len());
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    for checkpoints in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let (a, b) = (store.keyspace("a").await.unwrap(), store.keyspace("b").await.unwrap());
        let first = write(&a, vec![Op::put("x", "1")]).await.unwrap();
        write(&a, vec![Op::put("x", "2"), Op::put("y", "1")]).await.unwrap();
        write(&b, vec![Op::put("z", "1")]).await.unwrap();
        let last = write(&a, vec![Op::delete("y"), Op::put("w", "1")]).await.unwrap();
        let lease = a.grant_lease(Some(LeaseId(7)), Duration::from_secs(100)).await.unwrap();
        let put = Put {
            key: "leased".into(),
            value: "1".into(),
            lease: Some(lease.id),
            previous: Previous::Omit,
            keep: Default::default(),
        };
        write(&b, vec![Op::delete("z")]).await.unwrap();
        if checkpoints {
            store.checkpoint().unwrap();
        }
        write(&a, vec![Op::Put(put)]).await.unwrap();
        let mut watch = a.watch(everything_from(first), Options::default()).await.unwrap();
        drop(store);
        // A watch that was open ends.
        while let Some(Ok(_)) = watch.next().await {}
        assert!(matches!(
            write(&a, vec![Op::put("x", "3")]).await,
            Err(Error::Unavailable(_))
        ));

        let store = open(dir.path()).unwrap();

        assert_eq!(store.keyspaces(), ["a", "b"]);
        let (a, b) = (store.keyspace("a").await.unwrap(), store.keyspace("b").await.unwrap());
        assert_eq!(
            values(&a, None).await,
            pairs(&[("leased", "1"), ("w", "1"), ("x", "2")])
        );
        assert_eq!(values(&a, Some(first)).await, pairs(&[("x", "1")]));
        assert_eq!(values(&b, None).await, []);
        let state = a.lease_state(lease.id).await.unwrap();
        assert_eq!(
            (state.granted_ttl, state.keys),
            (Duration::from_secs(100), vec!["leased".into()])
        );
        // Whoever watched before goes on, with what was there before.
        let mut watch = a
            .watch(everything_from(Revision(first.0 + 1)), Options::default())
            .await
            .unwrap();
        let (revision, events) = next_events(&mut watch).await;
        assert_eq!((revision, events.len()), (Revision(first.0 + 1), 2));
        let Event::Put {
            kv,
            previous: Some(old),
        } = &events[0]
        else {
            panic!("{events:?}")
        };
        assert_eq!((&kv.value[..], kv.version, &old.value[..]), (&b"2"[..], 2, &b"1"[..]));
        assert_eq!(next_events(&mut watch).await.0, last);
        a.revoke_lease(lease.id).await.unwrap();
        assert_eq!(values(&a, None).await, pairs(&[("w", "1"), ("x", "2")]));
    }
}

fn everything_from(from: Revision) -> Watch {
    Watch {
        keys: KeyRange::prefix(""),
        from: Some(from),
        previous: Previous::Return,
    }
}

async fn next_events(watch: &mut keyspace::WatchStream) -> (Revision, Vec<Event>) {
    loop {
        match watch.next().await.unwrap().unwrap() {
            Watched::Events { revision, events } => return (revision, events),
            Watched::Progress { .. } => {}
        }
    }
}

#[tokio::test]
async fn what_was_compacted_stays_compacted() {
    for checkpoints in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let a = store.keyspace("a").await.unwrap();
        let first = write(&a, vec![Op::put("x", "1")]).await.unwrap();
        let second = write(&a, vec![Op::put("x", "2")]).await.unwrap();
        a.compact(second, Options::default()).await.unwrap();
        write(&a, vec![Op::put("x", "3")]).await.unwrap();
        if checkpoints {
            store.checkpoint().unwrap();
        }
        drop(store);

        let store = open(dir.path()).unwrap();
        let a = store.keyspace("a").await.unwrap();

        let old = Range {
            revision: Some(first),
            ..Range::of(KeyRange::prefix(""))
        };
        let answer = a.range(old, Options::default()).await;
        assert!(matches!(answer, Err(Error::Compacted { .. })), "{answer:?}");
        assert_eq!(values(&a, Some(second)).await, pairs(&[("x", "2")]));
        // A watch may begin at the compacted revision, and knows what was before even then.
        let mut watch = a.watch(everything_from(second), Options::default()).await.unwrap();
        let (revision, events) = next_events(&mut watch).await;
        assert_eq!(revision, second);
        assert!(
            matches!(&events[0], Event::Put { previous: Some(old), .. } if old.value == "1"),
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn a_directory_is_used_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();

    let error = open(dir.path()).err().unwrap();

    assert!(
        matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    drop(store);
    open(dir.path()).unwrap();
}

fn log_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().contains("log-")).collect();
    files.sort();
    files
}

/// A data directory with one file of the log that has ten commits.
async fn ten_commits(dir: &Path) -> std::path::PathBuf {
    let store = open(dir).unwrap();
    let a = store.keyspace("a").await.unwrap();
    for number in 0..9 {
        write(&a, vec![Op::put("x", number.to_string())]).await.unwrap();
    }
    drop(store);
    log_files(dir).pop().unwrap()
}

#[tokio::test]
async fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = ten_commits(dir.path()).await;
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 4;
    fs::write(&file, bytes).unwrap();

    let error = open(dir.path()).err().unwrap();

    assert!(
        matches!(error, OpenError::OtherFormat { found: 4, known: 3, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn e05_a_torn_end_is_cut_and_damage_before_it_is_refused() {
    let whole = tempfile::tempdir().unwrap();
    let file = ten_commits(whole.path()).await;
    let good = fs::read(&file).unwrap();
    let name = file.file_name().unwrap();
    // Where the last frame begins: its magic is nowhere else.
    let last = good.windows(4).rposition(|window| window == b"MGRF").unwrap();

    for at in (0..good.len()).step_by(7) {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(dir.path().join(name), bad).unwrap();
        match open(dir.path()) {
            Ok(store) => {
                assert!(at >= last, "damage at {at} was not seen");
                let a = store.keyspace("a").await.unwrap();
                assert_eq!(values(&a, None).await, pairs(&[("x", "7")]));
            }
            Err(OpenError::Corrupt { .. }) => {
                assert!(at < last, "the torn end at {at} was refused");
                assert_eq!(
                    fs::read(dir.path().join(name)).unwrap().len(),
                    good.len(),
                    "nothing was changed"
                );
            }
            Err(OpenError::OtherFormat { .. }) => assert!((8..12).contains(&at)),
            Err(other) => panic!("{other}"),
        }
    }
    for end in [last, last + 1, last + 25, good.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), &good[..end]).unwrap();
        let store = open(dir.path()).unwrap();
        let a = store.keyspace("a").await.unwrap();
        assert_eq!(values(&a, None).await, pairs(&[("x", "7")]));
        write(&a, vec![Op::put("x", "again")]).await.unwrap();
        drop(store);
        let store = open(dir.path()).unwrap();
        let a = store.keyspace("a").await.unwrap();
        assert_eq!(values(&a, None).await, pairs(&[("x", "again")]));
    }
}

#[tokio::test]
async fn e05_a_missing_file_of_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        ten_commits(dir.path()).await;
    }
    let files = log_files(dir.path());
    assert_eq!(files.len(), 3);
    fs::remove_file(&files[1]).unwrap();

    let error = open(dir.path()).err().unwrap();

    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn e05_a_damaged_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let a = store.keyspace("a").await.unwrap();
    write(&a, vec![Op::put("x", "1")]).await.unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let mut entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = entries
        .find(|path| path.to_string_lossy().contains("snapshot-"))
        .unwrap();
    let good = fs::read(&snapshot).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&snapshot, bad).unwrap();
        assert!(open(dir.path()).is_err(), "damage at {at} was not seen");
        fs::write(&snapshot, &good[..at]).unwrap();
        assert!(open(dir.path()).is_err(), "a snapshot cut at {at} was taken");
    }
    fs::write(&snapshot, good).unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn the_log_is_cut_and_hundreds_of_keyspaces_come_back() {
    const SPACES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        segment_bytes: 16 << 10,
        checkpoint_bytes: 64 << 10,
        ..StoreOptions::new(dir.path(), World::real())
    };
    let store = Store::open(options.clone()).unwrap();
    let mut spaces = Vec::new();
    for number in 0..SPACES {
        spaces.push(store.keyspace(&format!("plane-{number}")).await.unwrap());
    }
    for round in 0..4 {
        let writes = spaces
            .iter()
            .map(|space| write(space, vec![Op::put("x", format!("{round:0200}"))]));
        for written in futures::future::join_all(writes).await {
            assert_eq!(written.unwrap(), Revision(2 + round));
        }
    }
    store.checkpoint().unwrap();
    assert_eq!(log_files(dir.path()).len(), 1, "what is in snapshots is not kept twice");
    write(&spaces[7], vec![Op::put("x", "last")]).await.unwrap();
    drop((store, spaces));

    let store = Store::open(options).unwrap();

    assert_eq!(store.keyspaces().len(), SPACES);
    for number in 0..SPACES {
        let space = store.keyspace(&format!("plane-{number}")).await.unwrap();
        let found = values(&space, None).await;
        let expected = if number == 7 {
            "last".into()
        } else {
            format!("{:0200}", 3)
        };
        assert_eq!(found, [("x".to_owned(), expected)]);
    }
}

#[tokio::test]
async fn names_of_keyspaces_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for name in ["", &"x".repeat(254)] {
        assert!(matches!(store.keyspace(name).await, Err(Error::Invalid(_))));
    }
    store.keyspace(&"x".repeat(253)).await.unwrap();
}
