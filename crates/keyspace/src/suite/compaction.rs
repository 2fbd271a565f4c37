//! Giving up history.

use super::*;

async fn read_at(keyspace: &Subject, revision: Revision) -> Result<Vec<(Bytes, Bytes)>> {
    let asked = Range {
        revision: Some(revision),
        ..Range::of(everything())
    };
    let found = range(keyspace, asked).await?;
    Ok(found.items.into_iter().map(|kv| (kv.key, kv.value)).collect())
}

async fn compact(keyspace: &Subject, revision: Revision) -> Result<()> {
    keyspace.compact(revision, Options::default()).await
}

pub async fn the_past_is_gone_and_the_present_stays(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "b", "1").await;
    let third = put(&keyspace, "a", "2").await;

    compact(&keyspace, second).await.expect("can be compacted");

    let old = read_at(&keyspace, first).await;
    assert!(matches!(old, Err(Error::Compacted { .. })), "{old:?}");
    let both = |value: &'static str| vec![("a".into(), value.into()), ("b".into(), "1".into())];
    assert_eq!(
        read_at(&keyspace, second).await,
        Ok(both("1")),
        "the compacted revision itself can be read"
    );
    assert_eq!(read_at(&keyspace, third).await, Ok(both("2")));
    let found = get(&keyspace, "a").await.expect("is there");
    assert_eq!((found.create_revision, found.version), (first, 2));
    assert_eq!(put(&keyspace, "c", "1").await, Revision(third.0 + 1));
}

pub async fn it_goes_only_forward_and_not_ahead(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;
    let third = put(&keyspace, "a", "3").await;

    compact(&keyspace, second).await.expect("can be compacted");

    for old in [first, second] {
        let answer = compact(&keyspace, old).await;
        assert!(matches!(answer, Err(Error::Compacted { .. })), "{answer:?}");
    }
    let answer = compact(&keyspace, Revision(third.0 + 1)).await;
    assert!(matches!(answer, Err(Error::Future { .. })), "{answer:?}");
    compact(&keyspace, third).await.expect("can be compacted further");
}

pub async fn a_deleted_key_stays_deleted(keyspace: Subject) {
    put(&keyspace, "a", "1").await;
    put(&keyspace, "a", "2").await;
    let deleted = delete(&keyspace, "a").await;
    let last = put(&keyspace, "b", "1").await;

    for revision in [deleted, last] {
        compact(&keyspace, revision).await.expect("can be compacted");
        assert_eq!(get(&keyspace, "a").await, None);
        assert_eq!(keys(&keyspace, everything()).await, ["b"].map(Bytes::from)[..]);
    }
    assert!(put_if_unchanged(&keyspace, "a", Revision(0), "3").await.succeeded);
    assert_eq!(get(&keyspace, "a").await.expect("is there").version, 1);
}

pub async fn a_watch_that_has_seen_it_all_goes_on(keyspace: Subject) {
    let mut watch = Listener::on(&keyspace, everything(), None).await;
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;
    assert_eq!(watch.event().await.revision(), first);
    assert_eq!(watch.event().await.revision(), second);

    compact(&keyspace, second).await.expect("can be compacted");

    let third = put(&keyspace, "a", "3").await;
    assert_eq!(watch.event().await.revision(), third);
}
