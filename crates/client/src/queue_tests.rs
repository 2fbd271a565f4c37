use std::{hash::Hash, time::Duration};

use world::World;

use crate::{QueueOptions, WorkQueue};

async fn now<K, L>(queue: &WorkQueue<K, L>) -> Option<K>
where
    K: Hash + Eq + Clone,
    L: Hash + Eq + Clone,
{
    tokio::time::timeout(Duration::from_millis(20), queue.next())
        .await
        .ok()
        .map(|work| work.key().clone())
}

#[tokio::test]
async fn a_key_is_once_in_the_queue_and_once_in_work() {
    let queue = WorkQueue::new(&World::real());
    queue.add(1);
    queue.add(1);

    let work = queue.next().await;
    queue.add(1);
    assert_eq!(now(&queue).await, None);

    drop(work);
    assert_eq!(now(&queue).await, Some(1));
    assert_eq!(now(&queue).await, None);
}

#[tokio::test]
async fn the_earliest_of_several_delays_wins_and_wakes_a_waiter() {
    let queue = WorkQueue::new(&World::real());
    queue.add_after(1, Duration::from_secs(3600));
    let waiter = tokio::spawn({
        let queue = queue.clone();
        async move { *queue.next().await.key() }
    });
    tokio::task::yield_now().await;

    queue.add_after(1, Duration::from_millis(5));

    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), waiter)
            .await
            .unwrap()
            .unwrap(),
        1
    );
    assert_eq!(now(&queue).await, None);
}

#[tokio::test]
async fn a_delay_is_seen_though_the_worker_that_took_its_wake_up_is_busy() {
    let queue = WorkQueue::new(&World::real());
    let (first, second) = (queue.clone(), queue.clone());
    let waiters = [
        tokio::spawn(async move { first.next().await }),
        tokio::spawn(async move { second.next().await }),
    ];
    tokio::task::yield_now().await;

    queue.add_after(2, Duration::from_millis(5));
    queue.add(1);

    for waiter in waiters {
        // Both keep what they got: each key needs a worker of its own.
        std::mem::forget(
            tokio::time::timeout(Duration::from_secs(5), waiter)
                .await
                .unwrap()
                .unwrap(),
        );
    }
}

#[tokio::test]
async fn a_lane_whose_work_hangs_leaves_workers_to_the_others_and_goes_on_later() {
    let options = QueueOptions {
        lane_workers: Some(1),
        ..QueueOptions::default()
    };
    let queue = WorkQueue::fair(&World::real(), options, |(lane, _): &(char, u32)| *lane, |_| 1);
    [('a', 1), ('a', 2), ('b', 1)]
        .into_iter()
        .for_each(|key| queue.add(key));

    let hanging = queue.next().await;
    assert_eq!(*hanging.key(), ('a', 1));
    assert_eq!(now(&queue).await, Some(('b', 1)));
    assert_eq!(now(&queue).await, None);

    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { *queue.next().await.key() }
    });
    tokio::task::yield_now().await;
    drop(hanging);
    let next = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert_eq!(next.unwrap().unwrap(), ('a', 2));
}

#[tokio::test]
async fn a_heavier_lane_has_more_in_work_but_not_all() {
    let options = QueueOptions {
        lane_workers: Some(1),
        ..QueueOptions::default()
    };
    let weight = |lane: &char| if *lane == 'a' { 100 } else { 1 };
    let queue = WorkQueue::fair(&World::real(), options, |(lane, _): &(char, u32)| *lane, weight);
    for number in 0..10 {
        queue.add(('a', number));
        queue.add(('b', number));
    }

    let mut in_work = Vec::new();
    for _ in 0..5 {
        in_work.push(queue.next().await);
    }

    assert_eq!(
        in_work.iter().filter(|work| work.key().0 == 'a').count(),
        crate::queue::HEAVY_MAX as usize
    );
    assert_eq!(now(&queue).await, None, "both have all that they may have");
}

#[tokio::test]
async fn failures_are_counted_by_key_until_forgotten() {
    let queue = WorkQueue::new(&World::real());
    (0..3).for_each(|_| queue.retry("a"));
    queue.retry("b");
    assert_eq!((queue.failures(&"a"), queue.failures(&"b")), (3, 1));

    queue.forget(&"a");
    assert_eq!((queue.failures(&"a"), queue.failures(&"b")), (0, 1));
}
