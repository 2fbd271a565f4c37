//! Informers against a server that does what it is told: ends watches, forgets history, goes away.

mod fake;

use std::{cell::RefCell, sync::Arc, time::Duration};

use api::resource::PODS;
use client::{Change, Informer, InformerOptions, Notice, Source, SourceId, Sources, Subscription};
use fake::Fake;
use world::{World, sim::SimClock};

fn sources(fakes: &[(&str, &Fake)]) -> Sources {
    let source = |(name, fake): &(&str, &Fake)| Source::Shared {
        id: SourceId::new(name),
        client: fake.client(),
    };
    Sources::new(World::real(), fakes.iter().map(source))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("comes within 20 s")
}

async fn next_change(changes: &mut Subscription) -> Change {
    soon(async {
        loop {
            if let Notice::Change(change) = changes.next().await.expect("the informer lives") {
                return change;
            }
        }
    })
    .await
}

fn names(informer: &Informer) -> Vec<String> {
    informer
        .keys()
        .into_iter()
        .map(|key| format!("{}/{}", key.plane.source, key.name))
        .collect()
}

#[tokio::test]
async fn two_sources_are_one_cache_and_each_is_synced_by_itself() {
    let (one, two) = (Fake::new(), Fake::new());
    one.put("a", "1");
    two.put("a", "2");
    two.hold_lists(true);

    let informer = Informer::start(
        &sources(&[("one", &one), ("two", &two)]),
        PODS,
        InformerOptions::default(),
    );
    soon(async {
        while !informer.synced(&SourceId::new("one")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!informer.synced(&SourceId::new("two")));
    assert_eq!(names(&informer), ["one/a"]);

    two.hold_lists(false);
    soon(informer.wait_synced()).await;
    assert_eq!(names(&informer), ["one/a", "two/a"]);
}

#[tokio::test]
async fn a_watch_that_breaks_off_goes_on_where_it_was_without_a_new_list() {
    let fake = Fake::new();
    fake.put("a", "1");
    let informer = Informer::start(&sources(&[("one", &fake)]), PODS, InformerOptions::default());
    soon(informer.wait_synced()).await;
    let mut changes = informer.subscribe();
    fake.put("b", "1");
    assert_eq!(&*next_change(&mut changes).await.key.name, "b");

    fake.break_watches();
    fake.put("c", "1");
    fake.delete("a");

    assert_eq!(&*next_change(&mut changes).await.key.name, "c");
    let gone = next_change(&mut changes).await;
    assert_eq!(
        (&*gone.key.name, gone.new.is_none(), gone.old.is_some()),
        ("a", true, true)
    );
    assert_eq!(fake.lists(), 1);
}

#[tokio::test]
async fn after_lost_history_the_new_list_shows_what_was_deleted_meanwhile() {
    for watch_list in [true, false] {
        let fake = Fake::new();
        fake.knows_watch_list(watch_list);
        fake.put("a", "1");
        fake.put("b", "1");
        let informer = Informer::start(&sources(&[("one", &fake)]), PODS, InformerOptions::default());
        soon(informer.wait_synced()).await;
        let mut changes = informer.subscribe();

        fake.go_away(true);
        fake.break_watches();
        fake.delete("a");
        fake.put("b", "2");
        fake.put("c", "1");
        fake.compact();
        assert_eq!(
            names(&informer),
            ["one/a", "one/b"],
            "nothing seems deleted while the source is away"
        );
        fake.go_away(false);

        let mut seen: Vec<(String, bool, bool)> = Vec::new();
        for _ in 0..3 {
            let change = next_change(&mut changes).await;
            seen.push((change.key.name.to_string(), change.old.is_some(), change.new.is_some()));
        }
        seen.sort();
        let expected = [("a", true, false), ("b", true, true), ("c", false, true)];
        assert_eq!(
            seen,
            expected.map(|(name, old, new)| (name.to_owned(), old, new)),
            "WatchList: {watch_list}"
        );
    }
}

#[tokio::test]
async fn absence_is_proven_only_while_the_source_is_watched() {
    let fake = Fake::new();
    let informer = Informer::start(&sources(&[("one", &fake)]), PODS, InformerOptions::default());
    soon(informer.wait_synced()).await;
    let source = SourceId::new("one");
    soon(async {
        while !informer.proves_absence(&source) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    fake.go_away(true);
    fake.break_watches();
    soon(async {
        while informer.proves_absence(&source) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(informer.synced(&source));
}

#[tokio::test]
async fn a_source_that_is_away_is_not_stormed() {
    const INFORMERS: usize = 20;
    let (fake, clock) = (Fake::new(), Arc::new(SimClock::new()));
    fake.go_away(true);
    let world = World {
        clock: clock.clone(),
        ..World::real()
    };
    let source = Source::Shared {
        id: SourceId::new("one"),
        client: fake.client(),
    };
    let sources = Sources::new(world, [source]);
    let start = || Informer::start(&sources, PODS, InformerOptions::default());
    let informers: Vec<Informer> = std::iter::repeat_with(start).take(INFORMERS).collect();
    let at_once = RefCell::new(Vec::new());
    let pass = async |seconds: u64| {
        for _ in 0..seconds * 10 {
            let before = fake.requests();
            clock.advance(Duration::from_millis(100));
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            at_once.borrow_mut().push(fake.requests() - before);
        }
        fake.requests()
    };

    let first = pass(60).await;
    let second = pass(600).await - first;

    // Delays of 0.1, 0.2, 0.4, ... 30 s at most, half of that at least.
    assert!(first <= INFORMERS * 14, "{first} requests in the first minute");
    assert!(
        (INFORMERS * 20..=INFORMERS * 41).contains(&second),
        "{second} in ten minutes"
    );
    let late = at_once.borrow().iter().skip(600).max().copied().unwrap();
    assert!(late <= INFORMERS / 2, "{late} come within a tenth of a second");

    fake.go_away(false);
    pass(31).await;
    assert!(informers.iter().all(|informer| informer.synced(&SourceId::new("one"))));
}

#[tokio::test]
async fn sources_come_and_go_and_their_going_deletes_nothing() {
    let (one, two) = (Fake::new(), Fake::new());
    one.put("a", "1");
    two.put("a", "1");
    let sources = sources(&[("one", &one)]);
    let informer = Informer::start(&sources, PODS, InformerOptions::default());
    soon(informer.wait_synced()).await;
    let mut changes = informer.subscribe();

    sources.add(Source::Shared {
        id: SourceId::new("two"),
        client: two.client(),
    });
    assert_eq!(next_change(&mut changes).await.key.plane.source.as_str(), "two");

    sources.remove(&SourceId::new("two"));
    let removed = soon(async {
        loop {
            match changes.next().await.unwrap() {
                Notice::Removed(source) => return source,
                Notice::Change(change) => panic!("{change:?}"),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(removed, SourceId::new("two"));
    assert_eq!(names(&informer), ["one/a"]);
    assert!(!informer.synced(&removed));
}
