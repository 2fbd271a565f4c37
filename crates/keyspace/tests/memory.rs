//! The keyspace in memory against the suite, and its limits.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use keyspace::{
    Error, KeyRange, Keyspace, MemoryKeyspace, Op, Options, Range, Revision, Txn, Watch, Watched, index::Limits, suite,
};
use world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_a_keyspace() {
    suite::run(|| async { Arc::new(MemoryKeyspace::new(World::real())) as Arc<dyn Keyspace> }).await;
}

async fn put(keyspace: &MemoryKeyspace, key: &str, value: Vec<u8>) -> Result<Revision, Error> {
    let txn = Txn {
        success: vec![Op::put(key.to_owned(), value)],
        ..Txn::default()
    };
    Ok(keyspace.txn(txn, Options::default()).await?.revision)
}

fn everything() -> KeyRange {
    KeyRange::prefix("")
}

#[tokio::test]
async fn history_stops_growing_at_its_limit() {
    let limits = Limits {
        history_revisions_max: 100,
        ..Limits::default()
    };
    let keyspace = MemoryKeyspace::with_limits(World::real(), limits);
    let mut last = Revision(0);
    for number in 0..1000 {
        last = put(&keyspace, &format!("k{}", number % 3), vec![0; 10]).await.unwrap();
    }

    let at = |revision| Range {
        revision: Some(revision),
        ..Range::of(everything())
    };
    let kept = keyspace.range(at(Revision(last.0 - 50)), Options::default()).await;
    let gone = keyspace.range(at(Revision(last.0 - 150)), Options::default()).await;

    assert_eq!(kept.unwrap().items.len(), 3);
    assert!(matches!(gone, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_watcher_that_history_has_run_away_from_is_told() {
    let limits = Limits {
        history_revisions_max: 100,
        ..Limits::default()
    };
    let keyspace = MemoryKeyspace::with_limits(World::real(), limits);
    let watch = Watch {
        keys: everything(),
        from: None,
        previous: Default::default(),
    };
    let mut stream = keyspace.watch(watch, Options::default()).await.unwrap();
    for _ in 0..keyspace::QUEUE_COMMITS_MAX + 1000 {
        put(&keyspace, "k", vec![]).await.unwrap();
    }

    let mut seen = Vec::new();
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(Watched::Events { revision, .. }) => seen.push(revision),
            Ok(Watched::Progress { .. }) => {}
            Err(error) => break error,
        }
    };

    assert_eq!(error, Error::TooSlow);
    let expected: Vec<_> = (2..2 + seen.len() as u64).map(Revision).collect();
    assert_eq!(seen, expected, "what it saw has no gap");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn beyond_the_quota_only_deletions_are_taken() {
    let limits = Limits {
        quota_bytes_max: 10_000,
        ..Limits::default()
    };
    let keyspace = MemoryKeyspace::with_limits(World::real(), limits);
    put(&keyspace, "a", vec![0; 9_000]).await.unwrap();
    put(&keyspace, "b", vec![0; 9_000]).await.unwrap();

    let full = put(&keyspace, "c", vec![0; 10]).await;
    assert!(matches!(full, Err(Error::NoSpace(_))), "{full:?}");
    let delete = Txn {
        success: vec![Op::delete("a")],
        ..Txn::default()
    };
    let deleted = keyspace.txn(delete, Options::default()).await.unwrap();
    keyspace.compact(deleted.revision, Options::default()).await.unwrap();

    put(&keyspace, "c", vec![0; 10]).await.unwrap();
}

#[tokio::test]
async fn watches_end_with_the_keyspace() {
    let keyspace = MemoryKeyspace::new(World::real());
    let watch = Watch {
        keys: everything(),
        from: None,
        previous: Default::default(),
    };
    let mut stream = keyspace.watch(watch, Options::default()).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Watched::Progress { .. }))));

    drop(keyspace);

    let end = tokio::time::timeout(Duration::from_secs(5), stream.next())
        .await
        .unwrap();
    assert!(matches!(end, Some(Err(Error::Unavailable(_)))), "{end:?}");
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_keyspace_is_one_too() {
    suite::run(|| async {
        let world = World::real();
        let far = Arc::new(MemoryKeyspace::new(world.clone()));
        let followed = keyspace::Followed::start(far, world).await;
        Arc::new(followed.expect("it can be read")) as Arc<dyn Keyspace>
    })
    .await;
}

#[tokio::test]
async fn a_view_that_was_compacted_away_begins_anew() {
    let world = World::real();
    let far = Arc::new(MemoryKeyspace::with_limits(
        world.clone(),
        Limits {
            history_revisions_max: 10,
            ..Limits::default()
        },
    ));
    put(&far, "a", vec![]).await.unwrap();
    let followed = keyspace::Followed::start(far.clone(), world).await.unwrap();
    let watch = Watch {
        keys: everything(),
        from: None,
        previous: Default::default(),
    };
    let mut stream = followed.watch(watch, Options::default()).await.unwrap();
    // In one go, on one thread: the follower sees none of it before the history is gone.
    let mut last = Revision(0);
    for _ in 0..keyspace::QUEUE_COMMITS_MAX + 1000 {
        last = put(&far, "b", vec![1]).await.unwrap();
    }

    let found = followed
        .range(Range::of(everything()), Options::default())
        .await
        .unwrap();
    assert_eq!((found.count, found.revision), (2, last));
    let end = loop {
        match stream.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end, Error::TooSlow);
}
