//! Values that are not in memory: read as if they were, rewritten under those who read them, and refused when damaged.
#![allow(clippy::disallowed_methods, reason = "tests damage data directories by hand")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::StreamExt;
use keyspace::{
    Comparand, Compare, Error, Event, KeyRange, Keyspace, Local, Op, OpResult, Options, Previous, Put, Range, Relation,
    Revision, Txn, Watch, Watched, suite,
};
use store::{OpenError, Store, StoreOptions, ValueOptions};
use world::World;

/// None stays in memory that can be elsewhere.
const COLD: ValueOptions = ValueOptions {
    memory_bytes: 0,
    apart_bytes_min: 0,
    keyspace_bytes_min: 0,
    file_bytes: 4096,
};

fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        values: COLD,
        ..StoreOptions::new(dir, World::real())
    }
}

fn open(dir: &Path) -> Store {
    Store::open(options(dir)).unwrap()
}

async fn write(keyspace: &dyn Keyspace, ops: Vec<Op>) -> Revision {
    let txn = Txn {
        success: ops,
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.unwrap().revision
}

fn value(number: usize, round: usize) -> Vec<u8> {
    format!("{number}/{round}/").into_bytes().repeat(40)
}

fn key(number: usize) -> String {
    format!("key-{number:04}")
}

async fn fill(keyspace: &dyn Keyspace, keys: usize, round: usize) -> Revision {
    let mut last = Revision(0);
    for first in (0..keys).step_by(100) {
        let ops = (first..(first + 100).min(keys)).map(|number| Op::put(key(number), value(number, round)));
        last = write(keyspace, ops.collect()).await;
    }
    last
}

async fn read(keyspace: &dyn Keyspace, keys: KeyRange) -> keyspace::Result<Vec<Vec<u8>>> {
    let found = keyspace.range(Range::of(keys), Options::default()).await?;
    Ok(found.items.iter().map(|kv| kv.value.to_vec()).collect())
}

fn everything() -> KeyRange {
    KeyRange::prefix("")
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(kind))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_a_keyspace_whose_values_are_never_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        // After each commit, while the next ones go on.
        checkpoint_bytes: 1,
        ..options(dir.path())
    };
    let store = Store::open(options).unwrap();
    let made = AtomicUsize::new(0);
    suite::run(|| async {
        let name = format!("k{}", made.fetch_add(1, Ordering::Relaxed));
        store.keyspace(&name).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn more_than_fits_in_memory_is_read_before_and_after_a_restart() {
    const KEYS: usize = 2000;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        values: ValueOptions {
            memory_bytes: 100_000,
            ..COLD
        },
        ..StoreOptions::new(dir.path(), World::real())
    };
    let expected: Vec<_> = (0..KEYS).map(|number| value(number, 0)).collect();
    let all = expected.iter().map(Vec::len).sum::<usize>();
    assert!(all > 5 * options.values.memory_bytes);

    let store = Store::open(options.clone()).unwrap();
    let a = store.local("a").await.unwrap();
    fill(a.as_ref(), KEYS, 0).await;
    assert_eq!(store.resident(), all, "the log alone has them yet");
    store.checkpoint().unwrap();
    assert!(store.resident() <= options.values.memory_bytes, "{}", store.resident());
    assert_eq!(read(a.as_ref(), everything()).await.unwrap(), expected);
    drop((a, store));

    let store = Store::open(options.clone()).unwrap();
    let a = store.local("a").await.unwrap();
    assert_eq!(store.resident(), 0, "a start reads no value");
    assert_eq!(read(a.as_ref(), everything()).await.unwrap(), expected);
    assert_eq!(store.resident(), 0, "who lists all warms none");
    assert_eq!(read(a.as_ref(), KeyRange::one(key(7))).await.unwrap(), [value(7, 0)]);
    assert_eq!(store.resident(), value(7, 0).len(), "who asks for one keeps it");
    for number in 0..KEYS {
        assert_eq!(
            read(a.as_ref(), KeyRange::one(key(number))).await.unwrap(),
            [value(number, 0)]
        );
    }
    assert!(store.resident() <= options.values.memory_bytes, "{}", store.resident());
}

#[tokio::test]
async fn transactions_decide_on_and_tell_values_that_are_not_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let a = store.local("a").await.unwrap();
    fill(a.as_ref(), 10, 0).await;
    store.checkpoint().unwrap();
    assert_eq!(store.resident(), 0);
    let compare = |number: usize, round: usize| Compare {
        keys: KeyRange::one(key(number)),
        relation: Relation::Equal,
        comparand: Comparand::Value(value(number, round).into()),
    };
    let put = Put {
        key: key(2).into(),
        value: "new".into(),
        lease: None,
        previous: Previous::Return,
        keep: Default::default(),
    };
    let txn = Txn {
        compares: vec![compare(1, 0)],
        success: vec![
            Op::Put(put),
            Op::Delete {
                keys: KeyRange::one(key(3)),
                previous: Previous::Return,
            },
            Op::Range(Range::of(everything())),
        ],
        failure: Vec::new(),
    };

    let answer = a.txn(txn, Options::default()).await.unwrap();

    assert!(answer.succeeded);
    let [
        OpResult::Put { previous: Some(two) },
        OpResult::Delete { previous: three, .. },
        OpResult::Range(ranged),
    ] = &answer.results[..]
    else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (&two.value[..], &three[0].value[..]),
        (&value(2, 0)[..], &value(3, 0)[..])
    );
    let found: Vec<_> = ranged.items.iter().map(|kv| kv.value.to_vec()).collect();
    let expected = (0..10).filter(|number| *number != 3).map(|number| match number {
        2 => b"new".to_vec(),
        _ => value(number, 0),
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
    let other = Txn {
        compares: vec![compare(1, 1)],
        ..Txn::default()
    };
    assert!(!a.txn(other, Options::default()).await.unwrap().succeeded);
}

fn watch_from(from: Revision) -> Watch {
    Watch {
        keys: everything(),
        from: Some(from),
        previous: Previous::Return,
    }
}

#[tokio::test]
async fn files_are_rewritten_in_the_back_of_those_who_read_and_give_their_room_back() {
    const KEYS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let a = store.local("a").await.unwrap();
    fill(a.as_ref(), KEYS, 0).await;
    store.checkpoint().unwrap();
    let mut watch = a.watch(watch_from(Revision(2)), Options::default()).await.unwrap();
    let small = a.storage().size_bytes;
    for round in 1..6 {
        fill(a.as_ref(), KEYS - 20, round).await;
        let last = write(a.as_ref(), vec![Op::put("small", "1")]).await;
        store.checkpoint().unwrap();
        if round == 5 {
            // Whoever has begun to read before reads what there was then.
            let first = watch.next().await.unwrap().unwrap();
            assert!(matches!(first, Watched::Progress { .. }), "{first:?}");
            let Watched::Events { revision, events } = watch.next().await.unwrap().unwrap() else {
                panic!("no events")
            };
            assert_eq!(revision, Revision(2));
            assert!(matches!(&events[99], Event::Put { kv, .. } if kv.value == value(99, 0)));
            a.compact(last, Options::default()).await.unwrap();
        }
    }
    let before = files(dir.path(), "values-");

    a.defragment().await.unwrap();

    assert!(a.storage().size_bytes < small * 3 / 2, "{small}, {:?}", a.storage());
    // Files that were read stayed as long as somebody might go on to read them.
    drop(watch);
    let after = files(dir.path(), "values-");
    assert!(after.len() < before.len() / 2, "{} of {}", after.len(), before.len());
    let round = |number| if number < KEYS - 20 { 5 } else { 0 };
    let mut expected: Vec<_> = (0..KEYS).map(|number| value(number, round(number))).collect();
    expected.push(b"1".to_vec());
    assert_eq!(read(a.as_ref(), everything()).await.unwrap(), expected);
    drop((a, store));
    let store = open(dir.path());
    let a = store.local("a").await.unwrap();
    assert_eq!(read(a.as_ref(), everything()).await.unwrap(), expected);
}

#[tokio::test]
async fn an_event_of_long_ago_has_its_values_although_none_is_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let a = store.local("a").await.unwrap();
    fill(a.as_ref(), 100, 0).await;
    let second = fill(a.as_ref(), 100, 1).await;
    write(a.as_ref(), vec![Op::delete(key(5))]).await;
    store.checkpoint().unwrap();
    drop((a, store));

    let store = open(dir.path());
    let a = store.local("a").await.unwrap();
    let mut watch = a.watch(watch_from(second), Options::default()).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 101 {
        if let Watched::Events { events, .. } = watch.next().await.unwrap().unwrap() {
            told.extend(events);
        }
    }

    for (number, event) in told[..100].iter().enumerate() {
        let Event::Put {
            kv,
            previous: Some(old),
        } = event
        else {
            panic!("{event:?}")
        };
        assert_eq!(
            (&kv.value[..], &old.value[..]),
            (&value(number, 1)[..], &value(number, 0)[..])
        );
    }
    assert!(matches!(&told[100], Event::Delete { previous: Some(old), .. } if old.value == value(5, 1)));
    assert_eq!(store.resident(), 0);
}

/// A directory with one file of values, in which each byte matters.
async fn one_file(dir: &Path) -> PathBuf {
    let store = Store::open(StoreOptions {
        values: ValueOptions {
            file_bytes: 1 << 20,
            ..COLD
        },
        ..StoreOptions::new(dir, World::real())
    })
    .unwrap();
    for name in ["a", "b"] {
        fill(store.local(name).await.unwrap().as_ref(), 3, 0).await;
    }
    store.checkpoint().unwrap();
    drop(store);
    files(dir, "values-").remove(0)
}

#[tokio::test]
async fn e05_a_damaged_value_is_refused_and_others_are_served() {
    const HEADER_BYTES: usize = 32;
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path()).await;
    let good = fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(11) {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(copy.path().join(file.file_name().unwrap()), bad).unwrap();
        let opened = Store::open(options(copy.path()));
        if at < HEADER_BYTES {
            let error = opened.err().unwrap();
            assert!(
                matches!(error, OpenError::Corrupt { .. } | OpenError::OtherFormat { .. }),
                "{at}: {error}"
            );
            continue;
        }
        let store = opened.unwrap();
        let a = store.local("a").await.unwrap();
        let mut damaged = 0;
        for number in 0..3 {
            match read(a.as_ref(), KeyRange::one(key(number))).await {
                Ok(found) => assert_eq!(found, [value(number, 0)], "{at}"),
                Err(Error::Damaged(_)) => damaged += 1,
                Err(other) => panic!("{at}: {other}"),
            }
        }
        assert_eq!(damaged, 1, "{at}");
        let all = read(a.as_ref(), everything()).await;
        assert!(matches!(all, Err(Error::Damaged(_))), "{at}: {all:?}");
        let mut watch = a.watch(watch_from(Revision(2)), Options::default()).await.unwrap();
        let told = loop {
            match watch.next().await {
                Some(Ok(Watched::Progress { .. })) => {}
                other => break other,
            }
        };
        assert!(matches!(told, Some(Err(Error::Damaged(_)))), "{at}: {told:?}");
        let b = store.local("b").await.unwrap();
        assert_eq!(read(b.as_ref(), everything()).await.unwrap().len(), 3);
        // A checkpoint that rewrites the rest leaves what is damaged where it is.
        write(a.as_ref(), vec![Op::put("more", "1")]).await;
        a.defragment().await.unwrap();
        let all = read(a.as_ref(), everything()).await;
        assert!(matches!(all, Err(Error::Damaged(_))), "{at}: {all:?}");
    }
}

#[tokio::test]
async fn e05_a_file_of_values_that_is_another_or_cut_short_or_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path()).await;
    let good = fs::read(&file).unwrap();
    let other = fs::read(&files(dir.path(), "values-")[1]).unwrap();
    let refused = || Store::open(options(dir.path())).err().map(|error| error.to_string());

    fs::write(&file, &other).unwrap();
    assert!(refused().unwrap().contains("not the file"), "another keyspace's");
    fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert!(refused().unwrap().contains("cut short"));
    fs::remove_file(&file).unwrap();
    assert!(refused().is_some());
    fs::write(&file, &good).unwrap();
    assert_eq!(refused(), None);
}

#[tokio::test]
async fn files_that_no_snapshot_names_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = one_file(dir.path()).await;
    let left = dir.path().join("values-00000001-000000ff");
    fs::copy(&file, &left).unwrap();

    let store = open(dir.path());

    assert!(!left.exists());
    let a: Arc<dyn Local> = store.local("a").await.unwrap();
    assert_eq!(read(a.as_ref(), everything()).await.unwrap().len(), 3);
}
