//! Transactions.

use super::*;
use crate::{Comparand, LeaseId, OpResult, Previous, Put, Relation, TXN_OPS_MAX};

pub async fn create_if_absent_happens_once(keyspace: Subject) {
    let first = put_if_unchanged(&keyspace, "a", Revision(0), "1").await;
    let second = put_if_unchanged(&keyspace, "a", Revision(0), "2").await;

    assert!(first.succeeded);
    assert!(!second.succeeded);
    assert_eq!(second.revision, first.revision);
    assert_eq!(get(&keyspace, "a").await.expect("is there").value, "1");
}

pub async fn the_failing_branch_reads_the_present(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;

    let answer = put_if_unchanged(&keyspace, "a", first, "3").await;

    let [OpResult::Range(found)] = &answer.results[..] else {
        panic!("expected a range, got {answer:?}")
    };
    assert_eq!(found.items.len(), 1);
    assert_eq!(
        (&found.items[0].value[..], found.items[0].mod_revision),
        (&b"2"[..], second)
    );
    assert!(put_if_unchanged(&keyspace, "a", second, "3").await.succeeded);
}

async fn holds(keyspace: &Subject, keys: KeyRange, relation: Relation, comparand: Comparand) -> bool {
    let asked = Txn {
        compares: vec![Compare {
            keys,
            relation,
            comparand,
        }],
        ..Txn::default()
    };
    txn(keyspace, asked).await.expect("a compare is decided").succeeded
}

pub async fn compares_hold_as_etcd_says(keyspace: Subject) {
    use Relation::*;
    let lease = keyspace
        .grant_lease(None, Duration::from_secs(100))
        .await
        .expect("a lease is granted");
    let created = put(&keyspace, "a", "m").await;
    let leased = Op::Put(Put {
        key: "a".into(),
        value: "m".into(),
        lease: Some(lease.id),
        previous: Previous::Omit,
        keep: Default::default(),
    });
    let modified = write(&keyspace, vec![leased]).await.revision;

    let before = |revision: Revision| Revision(revision.0 - 1);
    let cases = [
        (Equal, Comparand::ModRevision(modified), true),
        (Equal, Comparand::ModRevision(created), false),
        (Greater, Comparand::ModRevision(created), true),
        (Less, Comparand::ModRevision(created), false),
        (NotEqual, Comparand::ModRevision(created), true),
        (Equal, Comparand::CreateRevision(created), true),
        (Less, Comparand::CreateRevision(modified), true),
        (Greater, Comparand::CreateRevision(before(created)), true),
        (Equal, Comparand::Version(2), true),
        (Less, Comparand::Version(2), false),
        (Greater, Comparand::Version(1), true),
        (Equal, Comparand::Value("m".into()), true),
        (Less, Comparand::Value("n".into()), true),
        (Greater, Comparand::Value("lz".into()), true),
        (NotEqual, Comparand::Value("m".into()), false),
        (Equal, Comparand::Lease(Some(lease.id)), true),
        (Equal, Comparand::Lease(None), false),
        (Greater, Comparand::Lease(None), true),
    ];
    for (relation, comparand, expected) in cases {
        let label = format!("{relation:?} {comparand:?}");
        assert_eq!(
            holds(&keyspace, KeyRange::one("a"), relation, comparand).await,
            expected,
            "{label}"
        );
    }
    keyspace.revoke_lease(lease.id).await.expect("a lease is revoked");
}

pub async fn an_absent_key_compares_as_zero_but_has_no_value(keyspace: Subject) {
    use Relation::*;
    put(&keyspace, "b", "1").await;
    delete(&keyspace, "b").await;
    for key in ["a", "b"] {
        let cases = [
            (Equal, Comparand::ModRevision(Revision(0)), true),
            (Equal, Comparand::CreateRevision(Revision(0)), true),
            (Equal, Comparand::Version(0), true),
            (Greater, Comparand::Version(0), false),
            (Less, Comparand::Version(1), true),
            (Equal, Comparand::Lease(None), true),
            (Equal, Comparand::Value("".into()), false),
            (NotEqual, Comparand::Value("x".into()), false),
        ];
        for (relation, comparand, expected) in cases {
            let label = format!("{key} {relation:?} {comparand:?}");
            assert_eq!(
                holds(&keyspace, KeyRange::one(key), relation, comparand).await,
                expected,
                "{label}"
            );
        }
    }
}

pub async fn a_compare_of_a_range_asks_every_key(keyspace: Subject) {
    use Relation::*;
    put(&keyspace, "a/1", "x").await;
    put(&keyspace, "a/2", "x").await;
    put(&keyspace, "a/2", "y").await;
    let ask = async |prefix: &'static str, relation, comparand| {
        holds(&keyspace, KeyRange::prefix(prefix), relation, comparand).await
    };

    assert!(ask("a/", Greater, Comparand::Version(0)).await);
    assert!(!ask("a/", Equal, Comparand::Version(1)).await);
    assert!(!ask("a/", Equal, Comparand::Value("x".into())).await);
    assert!(
        ask("b/", Equal, Comparand::Version(0)).await,
        "no key compares as an absent one"
    );
    assert!(!ask("b/", Equal, Comparand::Value("x".into())).await);
}

pub async fn reads_see_the_writes_before_them(keyspace: Subject) {
    let old = put(&keyspace, "a", "old").await;
    let at_old = Op::Range(Range {
        revision: Some(old),
        ..Range::of(everything())
    });

    let ops = vec![
        Op::get("a"),
        Op::put("a", "new"),
        Op::get("a"),
        Op::put("b", "new"),
        at_old,
    ];
    let done = write(&keyspace, ops).await;

    let values = |result: &OpResult| match result {
        OpResult::Range(found) => found.items.iter().map(|kv| kv.value.clone()).collect::<Vec<_>>(),
        other => panic!("expected a range, got {other:?}"),
    };
    assert_eq!(values(&done.results[0]), ["old"]);
    assert_eq!(values(&done.results[2]), ["new"]);
    assert_eq!(values(&done.results[4]), ["old"]);
}

pub async fn nested_compares_see_the_state_before_the_transaction(keyspace: Subject) {
    let nested = Txn {
        compares: vec![Compare::unchanged("a", Revision(0))],
        success: vec![Op::put("b", "absent before")],
        failure: vec![Op::put("b", "there before")],
    };

    let done = write(&keyspace, vec![Op::put("a", "1"), Op::Txn(Box::new(nested))]).await;

    assert!(matches!(&done.results[1], OpResult::Txn(nested) if nested.succeeded));
    assert_eq!(get(&keyspace, "b").await.expect("is there").value, "absent before");
    assert_eq!(get(&keyspace, "a").await.expect("is there").mod_revision, done.revision);
    assert_eq!(get(&keyspace, "b").await.expect("is there").mod_revision, done.revision);
}

pub async fn no_key_is_written_twice(keyspace: Subject) {
    let before = put(&keyspace, "a", "1").await;
    let nested = |success: Vec<Op>, failure: Vec<Op>| {
        Op::Txn(Box::new(Txn {
            compares: vec![],
            success,
            failure,
        }))
    };
    let range = Op::Delete {
        keys: KeyRange::prefix("a"),
        previous: Previous::Omit,
    };
    let wrong = [
        vec![Op::put("a", "2"), Op::put("a", "3")],
        vec![Op::put("ab", "2"), range.clone()],
        vec![range.clone(), Op::put("ab", "2")],
        vec![Op::put("a", "2"), nested(vec![], vec![Op::put("a", "3")])],
        vec![range, nested(vec![Op::put("ab", "2")], vec![])],
        vec![
            nested(vec![Op::put("a", "2")], vec![]),
            nested(vec![Op::put("a", "3")], vec![]),
        ],
    ];
    for ops in wrong {
        let asked = Txn {
            success: ops.clone(),
            ..Txn::default()
        };
        invalid(txn(&keyspace, asked).await);
        // Also on the branch that is not taken.
        let asked = Txn {
            failure: ops,
            ..Txn::default()
        };
        invalid(txn(&keyspace, asked).await);
    }
    assert_eq!(revision(&keyspace).await, before);

    // The branches of one nested transaction exclude each other.
    write(
        &keyspace,
        vec![nested(vec![Op::put("a", "2")], vec![Op::put("a", "3")])],
    )
    .await;
    assert_eq!(get(&keyspace, "a").await.expect("is there").value, "2");
}

pub async fn there_are_no_more_operations_than_allowed(keyspace: Subject) {
    let puts = |count: usize| Txn {
        success: (0..count).map(|number| Op::put(format!("k{number}"), "")).collect(),
        ..Txn::default()
    };

    let most = txn(&keyspace, puts(TXN_OPS_MAX))
        .await
        .expect("as many as allowed are done");
    assert_eq!(most.results.len(), TXN_OPS_MAX);
    invalid(txn(&keyspace, puts(TXN_OPS_MAX + 1)).await);
    assert_eq!(revision(&keyspace).await, most.revision);
}

pub async fn all_of_it_is_one_revision(keyspace: Subject) {
    let before = put(&keyspace, "old", "").await;

    let done = write(&keyspace, vec![Op::put("a", ""), Op::put("b", ""), Op::delete("old")]).await;

    assert_eq!(done.revision, Revision(before.0 + 1));
    assert_eq!(get(&keyspace, "a").await.expect("is there").mod_revision, done.revision);
    assert_eq!(get(&keyspace, "b").await.expect("is there").mod_revision, done.revision);
    let nothing = write(&keyspace, vec![Op::get("a"), Op::delete("old")]).await;
    assert_eq!(nothing.revision, done.revision);
}

pub async fn previous_values_come_when_asked_for(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    let put = |key: &'static str| {
        Op::Put(Put {
            key: key.into(),
            value: "2".into(),
            lease: None,
            previous: Previous::Return,
            keep: Default::default(),
        })
    };
    let delete = |prefix: &'static str| Op::Delete {
        keys: KeyRange::prefix(prefix),
        previous: Previous::Return,
    };

    let puts = write(&keyspace, vec![put("a"), put("b")]).await;
    let deletes = write(&keyspace, vec![delete("")]).await;

    let [OpResult::Put { previous: Some(old) }, OpResult::Put { previous: None }] = &puts.results[..] else {
        panic!("{puts:?}")
    };
    assert_eq!((&old.value[..], old.mod_revision), (&b"1"[..], first));
    let [OpResult::Delete { deleted: 2, previous }] = &deletes.results[..] else {
        panic!("{deletes:?}")
    };
    assert_eq!(previous.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    assert!(previous.iter().all(|kv| kv.value == "2"));
}

pub async fn an_error_leaves_nothing_behind(keyspace: Subject) {
    let before = put(&keyspace, "a", "1").await;
    let wrong = [
        Op::Put(Put {
            key: "b".into(),
            value: "".into(),
            lease: Some(LeaseId(0x0dead)),
            previous: Previous::Omit,
            keep: Default::default(),
        }),
        Op::Range(Range {
            revision: Some(Revision(before.0 + 1000)),
            ..Range::of(everything())
        }),
    ];
    for op in wrong {
        let asked = Txn {
            success: vec![Op::put("a", "2"), op],
            ..Txn::default()
        };
        assert!(txn(&keyspace, asked).await.is_err());
    }

    assert_eq!(revision(&keyspace).await, before);
    assert_eq!(get(&keyspace, "a").await.expect("is there").value, "1");
}

pub async fn writers_at_once_lose_no_update(keyspace: Subject) {
    const WRITERS: usize = 8;
    const INCREMENTS: usize = 25;
    let increment = async |keyspace: &Subject| {
        let (mut at, mut value) = (Revision(0), 0);
        loop {
            let answer = put_if_unchanged(keyspace, "n", at, &(value + 1).to_string()).await;
            match &answer.results[..] {
                [OpResult::Put { .. }] => return,
                [OpResult::Range(found)] => {
                    let kv = found.items.first().expect("a counter that was made stays");
                    at = kv.mod_revision;
                    value = std::str::from_utf8(&kv.value).expect("text").parse().expect("a number");
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let writers = (0..WRITERS).map(|_| {
        let keyspace = keyspace.clone();
        tokio::spawn(async move {
            for _ in 0..INCREMENTS {
                increment(&keyspace).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no writer fails");
    }

    let found = get(&keyspace, "n").await.expect("is there");
    assert_eq!(found.value, (WRITERS * INCREMENTS).to_string());
    assert_eq!(found.version, (WRITERS * INCREMENTS) as u64);
}
