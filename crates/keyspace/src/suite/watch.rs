//! Watches. The checks of etcd's own robustness tests are in here: ordered, unique, atomic, reliable, resumable,
//! bookmarkable, right previous value, right creation, right filter.

use super::*;
use crate::{Previous, QUEUE_COMMITS_MAX};

pub async fn it_begins_with_its_revision(keyspace: Subject) {
    let before = put(&keyspace, "a", "1").await;

    let mut watch = Listener::on(&keyspace, everything(), None).await;

    assert_eq!(watch.progress().await, before);
    let at = put(&keyspace, "a", "2").await;
    assert_eq!(watch.event().await.revision(), at);
}

pub async fn the_past_is_told_from_the_asked_revision_on(keyspace: Subject) {
    put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;
    let third = delete(&keyspace, "a").await;

    let mut watch = Listener::on(&keyspace, everything(), Some(second)).await;

    assert_eq!(watch.progress().await, Revision(second.0 - 1));
    let Event::Put { kv, .. } = watch.event().await else {
        panic!("expected a put")
    };
    assert_eq!((&kv.value[..], kv.mod_revision, kv.version), (&b"2"[..], second, 2));
    assert!(matches!(watch.event().await, Event::Delete { key, revision, .. } if key == "a" && revision == third));
    let fourth = put(&keyspace, "a", "4").await;
    let Event::Put { kv, .. } = watch.event().await else {
        panic!("expected a put")
    };
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (fourth, fourth, 1));
}

pub async fn the_revision_asked_for_is_included(keyspace: Subject) {
    let current = put(&keyspace, "a", "1").await;
    let mut watch = Listener::on(&keyspace, KeyRange::one("a"), Some(current)).await;
    assert_eq!(watch.event().await.revision(), current);
}

pub async fn one_revision_comes_at_once(keyspace: Subject) {
    put(&keyspace, "old", "").await;
    let mut live = Listener::on(&keyspace, everything(), None).await;
    let ops: Vec<Op> = (0..50).map(|number| Op::put(format!("k{number:02}"), "")).collect();
    let done = write(&keyspace, [ops, vec![Op::delete("old")]].concat()).await;
    let mut late = Listener::on(&keyspace, everything(), Some(done.revision)).await;

    for watch in [&mut live, &mut late] {
        let (revision, events) = watch.events().await;
        assert_eq!((revision, events.len()), (done.revision, 51));
        assert_eq!(events[7].key(), "k07");
        assert!(matches!(&events[50], Event::Delete { key, .. } if key == "old"));
    }
}

pub async fn previous_values_are_told_when_asked_for(keyspace: Subject) {
    let watch = |previous| Watch {
        keys: everything(),
        from: None,
        previous,
    };
    let mut with = Listener::to(&keyspace, watch(Previous::Return)).await;
    let mut without = Listener::to(&keyspace, watch(Previous::Omit)).await;
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;
    delete(&keyspace, "a").await;

    let previous = |event: Event| match event {
        Event::Put { previous, .. } | Event::Delete { previous, .. } => previous,
    };
    assert_eq!(previous(with.event().await), None, "a creation has nothing before it");
    let old = previous(with.event().await).expect("an update tells what was before");
    assert_eq!((&old.value[..], old.mod_revision), (&b"1"[..], first));
    let old = previous(with.event().await).expect("a deletion tells what was before");
    assert_eq!((&old.value[..], old.mod_revision, old.version), (&b"2"[..], second, 2));
    for _ in 0..3 {
        assert_eq!(previous(without.event().await), None);
    }
}

pub async fn only_its_keys_are_told(keyspace: Subject) {
    let from = revision(&keyspace).await;
    let from = Some(Revision(from.0 + 1));
    let ranges = [
        (everything(), vec!["a", "a/1", "a/2", "a0", "b"]),
        (KeyRange::prefix("a/"), vec!["a/1", "a/2"]),
        (KeyRange::one("a"), vec!["a"]),
        (KeyRange::between("a/2", "b"), vec!["a/2", "a0"]),
        (
            KeyRange {
                start: "a0".into(),
                end: std::ops::Bound::Unbounded,
            },
            vec!["a0", "b"],
        ),
    ];
    let mut live = Vec::new();
    for (range, _) in &ranges {
        live.push(Listener::on(&keyspace, range.clone(), None).await);
    }
    for key in ["a", "a/1", "a/2", "a0", "b"] {
        put(&keyspace, key, "").await;
    }
    for ((range, expected), mut live) in ranges.into_iter().zip(live) {
        let mut late = Listener::on(&keyspace, range, from).await;
        for key in expected {
            assert_eq!(live.event().await.key(), key);
            assert_eq!(late.event().await.key(), key);
        }
        live.silent().await;
        late.silent().await;
    }
}

pub async fn nothing_written_after_it_is_missed(keyspace: Subject) {
    const WRITES: usize = 200;
    let writer = tokio::spawn({
        let keyspace = keyspace.clone();
        async move {
            for number in 0..WRITES {
                put(&keyspace, "k", &number.to_string()).await;
            }
        }
    });
    let mut last = Revision(0);
    while !writer.is_finished() {
        let mut watch = Listener::on(&keyspace, everything(), None).await;
        let begin = watch.progress().await;
        assert!(begin >= last, "a watch begins no earlier than one before it");
        last = begin;
        let read = get(&keyspace, "k").await.map_or(Revision(0), |kv| kv.mod_revision);
        if read > begin {
            // Revisions may have gaps, where others write to the same store.
            let (revision, _) = watch.events().await;
            assert!(revision > begin && revision <= read);
        }
    }
    writer.await.expect("the writer does not fail");
}

pub async fn progress_comes_behind_events(keyspace: Subject) {
    let mut busy = Listener::on(&keyspace, KeyRange::prefix("a"), None).await;
    let mut idle = Listener::on(&keyspace, KeyRange::prefix("b"), None).await;
    busy.progress().await;
    idle.progress().await;
    for round in 0..10 {
        let at = put(&keyspace, "a", &round.to_string()).await;
        keyspace.request_progress().await.expect("progress can be asked for");
        for watch in [&mut busy, &mut idle] {
            // A progress that was on its way may come first.
            let mut seen = Revision(0);
            while seen < at {
                match watch.next().await.expect("the watch goes on") {
                    Watched::Events { revision, .. } => assert!(revision > seen),
                    Watched::Progress { revision } => {
                        assert!(revision >= seen);
                        seen = revision;
                    }
                }
            }
        }
        assert_eq!(get(&keyspace, "a").await.expect("is there").mod_revision, at);
    }
}

pub async fn a_future_one_waits_and_tells_nothing_older(keyspace: Subject) {
    let current = put(&keyspace, "a", "0").await;
    let from = Revision(current.0 + 3);
    let mut watch = Listener::on(&keyspace, everything(), Some(from)).await;

    for value in ["1", "2", "3", "4"] {
        put(&keyspace, "a", value).await;
    }

    assert_eq!(watch.event().await.revision(), from);
    assert_eq!(watch.event().await.revision(), Revision(from.0 + 1));
}

pub async fn a_compacted_one_is_refused(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    put(&keyspace, "a", "2").await;
    let third = put(&keyspace, "a", "3").await;
    keyspace
        .compact(third, Options::default())
        .await
        .expect("can be compacted");
    let watch = Watch {
        keys: everything(),
        from: Some(first),
        previous: Previous::Omit,
    };

    // Some know it at once, some are told after they began.
    let answer = match keyspace.watch(watch, Options::default()).await {
        Err(error) => Err(error),
        Ok(stream) => {
            let mut watch = Listener(stream);
            loop {
                match watch.next().await {
                    Ok(Watched::Progress { .. }) => {}
                    other => break other,
                }
            }
        }
    };

    assert!(
        matches!(&answer, Err(Error::Compacted { oldest, .. }) if *oldest == third),
        "{answer:?}"
    );
    let mut watch = Listener::on(&keyspace, everything(), Some(third)).await;
    assert_eq!(watch.event().await.revision(), third);
}

pub async fn an_empty_range_is_refused(keyspace: Subject) {
    for keys in [KeyRange::between("b", "a"), KeyRange::between("a", "a")] {
        let watch = Watch {
            keys,
            from: None,
            previous: Previous::Omit,
        };
        invalid(keyspace.watch(watch, Options::default()).await.map(|_| ()));
    }
}

pub async fn a_broken_one_goes_on_where_it_ended(keyspace: Subject) {
    const WRITES: usize = 300;
    let start = revision(&keyspace).await;
    let writer = tokio::spawn({
        let keyspace = keyspace.clone();
        async move {
            let mut written = Vec::new();
            for number in 0..WRITES {
                written.push(put(&keyspace, &format!("k{}", number % 7), "").await);
            }
            written
        }
    });
    let mut seen = Vec::new();
    while seen.len() < WRITES {
        let from = seen
            .last()
            .map_or(Revision(start.0 + 1), |last: &Revision| Revision(last.0 + 1));
        let mut watch = Listener::on(&keyspace, everything(), Some(from)).await;
        for _ in 0..(WRITES - seen.len()).min(23) {
            seen.push(watch.event().await.revision());
        }
    }
    assert_eq!(seen, writer.await.expect("the writer does not fail"));
}

pub async fn a_slow_one_misses_nothing_or_is_told(keyspace: Subject) {
    let mut watch = Listener::on(&keyspace, KeyRange::prefix("k"), None).await;
    let mut written = Vec::new();
    for chunk in 0..QUEUE_COMMITS_MAX / 16 + 20 {
        let puts = (0..16).map(|number| {
            let keyspace = keyspace.clone();
            async move { put(&keyspace, &format!("k{}", number % 5), &chunk.to_string()).await }
        });
        written.extend(futures::future::join_all(puts).await);
    }
    written.sort();

    for expected in written {
        assert_eq!(watch.event().await.revision(), expected);
    }
}

pub async fn many_see_the_same(keyspace: Subject) {
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(Listener::on(&keyspace, KeyRange::prefix("a/"), None).await);
    }
    let mut written = Vec::new();
    for number in 0..10 {
        written.push(put(&keyspace, &format!("a/{number}"), "").await);
    }
    for mut watch in watches {
        for at in &written {
            assert_eq!(watch.event().await.revision(), *at);
        }
    }
}
