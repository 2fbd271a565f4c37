//! The conformance suite (D4): what every keyspace does, one function a behaviour. A failed one panics.
//!
//! [`run`] takes a maker of fresh keyspaces. "Fresh" may be a new prefix in a store that others have written to, so no
//! behaviour knows an absolute revision; but nobody else may write to that store during the run.

mod compaction;
mod kv;
mod lease;
mod txn;
mod watch;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};

use crate::{
    Compare, Error, Event, KeyRange, KeyValue, Keyspace, Op, Options, Range, Ranged, Result, Revision, Txn, Txned,
    Watch, WatchStream, Watched,
};

/// Much longer than anything takes; only a hang gets here.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a watch is listened to that has nothing to say.
const SILENCE: Duration = Duration::from_millis(150);

type Subject = Arc<dyn Keyspace>;

pub struct Behaviour {
    pub name: &'static str,
    pub check: fn(Subject) -> BoxFuture<'static, ()>,
}

macro_rules! behaviours {
    ($($module:ident::$name:ident,)*) => {
        &[$(Behaviour { name: stringify!($name), check: |keyspace| Box::pin($module::$name(keyspace)) }),*]
    };
}

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    kv::a_fresh_keyspace_has_no_keys,
    kv::a_put_is_read_back,
    kv::a_second_put_keeps_the_creation_and_raises_the_version,
    kv::a_deleted_key_starts_anew,
    kv::deleting_nothing_changes_no_revision,
    kv::ranges_are_ordered_and_half_open,
    kv::a_limit_cuts_items_but_not_the_count,
    kv::keys_only_and_count_only_leave_out_what_they_say,
    kv::the_past_can_be_read_and_the_answer_tells_the_present,
    kv::the_future_cannot_be_read,
    kv::keys_and_values_are_any_bytes,
    kv::a_list_read_in_pages_at_one_revision_is_whole,
    kv::serializable_reads_do_not_go_back,
    kv::an_empty_key_is_refused,
    txn::create_if_absent_happens_once,
    txn::the_failing_branch_reads_the_present,
    txn::compares_hold_as_etcd_says,
    txn::an_absent_key_compares_as_zero_but_has_no_value,
    txn::a_compare_of_a_range_asks_every_key,
    txn::reads_see_the_writes_before_them,
    txn::nested_compares_see_the_state_before_the_transaction,
    txn::no_key_is_written_twice,
    txn::there_are_no_more_operations_than_allowed,
    txn::all_of_it_is_one_revision,
    txn::previous_values_come_when_asked_for,
    txn::an_error_leaves_nothing_behind,
    txn::writers_at_once_lose_no_update,
    watch::it_begins_with_its_revision,
    watch::the_past_is_told_from_the_asked_revision_on,
    watch::the_revision_asked_for_is_included,
    watch::one_revision_comes_at_once,
    watch::previous_values_are_told_when_asked_for,
    watch::only_its_keys_are_told,
    watch::nothing_written_after_it_is_missed,
    watch::progress_comes_behind_events,
    watch::a_future_one_waits_and_tells_nothing_older,
    watch::a_compacted_one_is_refused,
    watch::an_empty_range_is_refused,
    watch::a_broken_one_goes_on_where_it_ended,
    watch::a_slow_one_misses_nothing_or_is_told,
    watch::many_see_the_same,
    compaction::the_past_is_gone_and_the_present_stays,
    compaction::it_goes_only_forward_and_not_ahead,
    compaction::a_deleted_key_stays_deleted,
    compaction::a_watch_that_has_seen_it_all_goes_on,
    lease::its_keys_go_with_it_in_one_revision,
    lease::a_put_without_it_lets_go,
    lease::an_unknown_one_is_refused,
    lease::an_id_is_given_once,
    lease::it_ends_when_nobody_keeps_it,
];

/// Runs every behaviour, one after another, each on a fresh keyspace.
pub async fn run<F: Future<Output = Arc<dyn Keyspace>>>(fresh: impl Fn() -> F) {
    for behaviour in BEHAVIOURS {
        println!("keyspace suite: {}", behaviour.name);
        let check = (behaviour.check)(fresh().await);
        let ended = tokio::time::timeout(PATIENCE * 3, check).await;
        assert!(ended.is_ok(), "{} hangs", behaviour.name);
    }
}

async fn txn(keyspace: &Subject, txn: Txn) -> Result<Txned> {
    keyspace.txn(txn, Options::default()).await
}

async fn write(keyspace: &Subject, ops: Vec<Op>) -> Txned {
    let written = txn(
        keyspace,
        Txn {
            success: ops,
            ..Txn::default()
        },
    );
    written.await.expect("a write with nothing wrong in it is done")
}

async fn put(keyspace: &Subject, key: &str, value: &str) -> Revision {
    write(keyspace, vec![Op::put(key.to_owned(), value.to_owned())])
        .await
        .revision
}

async fn delete(keyspace: &Subject, key: &str) -> Revision {
    write(keyspace, vec![Op::delete(key.to_owned())]).await.revision
}

async fn put_if_unchanged(keyspace: &Subject, key: &str, at: Revision, value: &str) -> Txned {
    let asked = Txn {
        compares: vec![Compare::unchanged(key.to_owned(), at)],
        success: vec![Op::put(key.to_owned(), value.to_owned())],
        failure: vec![Op::get(key.to_owned())],
    };
    txn(keyspace, asked).await.expect("a compare-and-put is decided")
}

async fn range(keyspace: &Subject, range: Range) -> Result<Ranged> {
    keyspace.range(range, Options::default()).await
}

async fn get(keyspace: &Subject, key: &str) -> Option<KeyValue> {
    let found = range(keyspace, Range::of(KeyRange::one(key.to_owned()))).await;
    found.expect("one key can be read").items.pop()
}

async fn revision(keyspace: &Subject) -> Revision {
    let read = range(keyspace, Range::of(KeyRange::one("nothing"))).await;
    read.expect("one key can be read").revision
}

async fn keys(keyspace: &Subject, keys: KeyRange) -> Vec<Bytes> {
    let found = range(keyspace, Range::of(keys)).await.expect("a range can be read");
    assert_eq!(found.count, found.items.len());
    assert!(!found.more);
    found.items.into_iter().map(|kv| kv.key).collect()
}

fn everything() -> KeyRange {
    KeyRange::prefix("")
}

/// A watch, listened to.
struct Listener(WatchStream);

impl Listener {
    async fn to(keyspace: &Subject, watch: Watch) -> Listener {
        let stream = keyspace.watch(watch, Options::default()).await;
        Listener(stream.expect("a watch with nothing wrong in it is opened"))
    }

    async fn on(keyspace: &Subject, keys: KeyRange, from: Option<Revision>) -> Listener {
        let watch = Watch {
            keys,
            from,
            previous: Default::default(),
        };
        Listener::to(keyspace, watch).await
    }

    async fn next(&mut self) -> Result<Watched> {
        let item = tokio::time::timeout(PATIENCE, self.0.next()).await;
        item.expect("the watch says something")
            .expect("a watch ends only after an error")
    }

    async fn progress(&mut self) -> Revision {
        match self.next().await {
            Ok(Watched::Progress { revision }) => revision,
            other => panic!("expected progress, got {other:?}"),
        }
    }

    /// The next events, past all progress.
    async fn events(&mut self) -> (Revision, Vec<Event>) {
        loop {
            match self.next().await {
                Ok(Watched::Events { revision, events }) => {
                    assert!(events.iter().all(|event| event.revision() == revision));
                    return (revision, events);
                }
                Ok(Watched::Progress { .. }) => {}
                Err(error) => panic!("expected events, got {error:?}"),
            }
        }
    }

    async fn event(&mut self) -> Event {
        let (_, mut events) = self.events().await;
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// No events come, for a while.
    async fn silent(&mut self) {
        let listen = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Watched::Progress { .. })) => {}
                    other => return other,
                }
            }
        };
        if let Ok(heard) = tokio::time::timeout(SILENCE, listen).await {
            panic!("expected silence, got {heard:?}");
        }
    }
}

fn invalid<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(
        matches!(answer, Err(Error::Invalid(_))),
        "expected it to be refused, got {answer:?}"
    );
}
