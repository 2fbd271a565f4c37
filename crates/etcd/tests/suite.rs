//! A real etcd against the suite of keyspaces, started on loopback and ended again. Where there is none, the tests say so and do
//! nothing.

mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd::{ConnectError, EtcdKeyspace, EtcdOptions, ProgressBy};
use keyspace::{Error, Followed, KeyRange, Keyspace, Op, Options, Range, Txn, suite};
use server::{Etcd, Generation};
use world::World;

fn fresh_prefix() -> String {
    static PREFIXES: AtomicUsize = AtomicUsize::new(0);
    format!("/test-{}/", PREFIXES.fetch_add(1, Ordering::Relaxed))
}

async fn fresh(etcd: &Etcd) -> EtcdKeyspace {
    etcd.keyspace(&fresh_prefix()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_a_keyspace() {
    let Some(etcd) = Etcd::start() else { return };
    suite::run(|| async { Arc::new(fresh(&etcd).await) as Arc<dyn Keyspace> }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_followed_is_a_keyspace() {
    let Some(etcd) = Etcd::start() else { return };
    suite::run(|| async {
        let far = Arc::new(fresh(&etcd).await);
        let followed = Followed::start(far, World::real()).await;
        Arc::new(followed.expect("it can be read")) as Arc<dyn Keyspace>
    })
    .await;
}

/// With 3.4.23 the answer may be ahead of events under load; a few writes one after another are no load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_can_be_requested_of_etcd_itself() {
    let Some(etcd) = Etcd::start() else { return };
    for behaviour in suite::BEHAVIOURS
        .iter()
        .filter(|behaviour| behaviour.name.contains("progress"))
    {
        let options = EtcdOptions::new([&etcd.endpoint], fresh_prefix());
        let keyspace = EtcdKeyspace::connect_with(options, Some(ProgressBy::Request))
            .await
            .expect("etcd answers");
        let checked = tokio::time::timeout(Duration::from_secs(30), (behaviour.check)(Arc::new(keyspace))).await;
        assert!(checked.is_ok(), "{} hangs", behaviour.name);
    }
}

async fn keys(keyspace: &EtcdKeyspace) -> Vec<String> {
    let found = keyspace
        .range(Range::of(KeyRange::prefix("")), Options::default())
        .await;
    let found = found.expect("can be read");
    assert_eq!(found.count, found.items.len());
    found
        .items
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

async fn put(keyspace: &EtcdKeyspace, key: &'static str) -> Result<(), Error> {
    let txn = Txn {
        success: vec![Op::put(key, "")],
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.map(drop)
}

#[tokio::test]
async fn keyspaces_of_one_etcd_do_not_see_each_other() {
    let Some(etcd) = Etcd::start() else { return };
    let whole = etcd.keyspace("").await;
    let a = etcd.keyspace("/a/").await;
    let b = etcd.keyspace("/b/").await;
    put(&a, "x").await.expect("can be written");
    put(&b, "y").await.expect("can be written");
    for keyspace in [&a, &b, &whole] {
        keyspace.request_progress().await.expect("a bookmark can be put");
    }

    assert_eq!(keys(&a).await, ["x"]);
    assert_eq!(keys(&b).await, ["y"]);
    // One whose answers of progress can be trusted needs no bookmarks.
    let all: &[&str] = match etcd.generation {
        Generation::Before36 => &["/a/x", "/a0\0mangrove-bookmark", "/b/y", "/b0\0mangrove-bookmark"],
        Generation::From36 => &["/a/x", "/b/y"],
    };
    assert_eq!(keys(&whole).await, all);
}

#[tokio::test]
async fn an_etcd_that_is_gone_is_told_apart_from_one_that_may_have_written() {
    let Some(mut etcd) = Etcd::start() else { return };
    let keyspace = fresh(&etcd).await;
    put(&keyspace, "x").await.expect("can be written");
    etcd.end();

    let options = Options {
        timeout: Some(Duration::from_secs(3)),
        ..Options::default()
    };
    let read = keyspace.range(Range::of(KeyRange::one("x")), options).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    let written = put(&keyspace, "y").await;
    assert!(
        matches!(written, Err(Error::Unavailable(_) | Error::Unknown(_))),
        "{written:?}"
    );
    let refused = EtcdKeyspace::connect(EtcdOptions::new([&etcd.endpoint], "/x/")).await;
    assert!(matches!(refused.err(), Some(ConnectError::Unreachable { .. })));
}

#[tokio::test]
async fn options_that_can_not_be_right_are_refused() {
    for options in [
        EtcdOptions::new(Vec::<String>::new(), "/x/"),
        EtcdOptions {
            key_pem: Some(Vec::new()),
            ..EtcdOptions::new(["https://127.0.0.1:1"], "/x/")
        },
        EtcdOptions::new(["https://127.0.0.1:1"], "/x/"),
    ] {
        let refused = EtcdKeyspace::connect(options).await.err();
        assert!(matches!(refused, Some(ConnectError::Options(_))), "{refused:?}");
    }
}
