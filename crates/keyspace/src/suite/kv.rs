//! Keys and values, now and in the past.

use super::*;
use crate::{Consistency, Content, OpResult};

pub async fn a_fresh_keyspace_has_no_keys(keyspace: Subject) {
    let found = range(&keyspace, Range::of(everything())).await.expect("can be read");
    assert_eq!((found.count, found.items.len(), found.more), (0, 0, false));
    assert!(found.revision >= Revision(1));
}

pub async fn a_put_is_read_back(keyspace: Subject) {
    let before = revision(&keyspace).await;
    let at = put(&keyspace, "a", "1").await;
    assert_eq!(at, Revision(before.0 + 1));

    let found = get(&keyspace, "a").await;

    let expected = KeyValue {
        key: "a".into(),
        value: "1".into(),
        create_revision: at,
        mod_revision: at,
        version: 1,
        lease: None,
    };
    assert_eq!(found, Some(expected));
    assert_eq!(revision(&keyspace).await, at);
}

pub async fn a_second_put_keeps_the_creation_and_raises_the_version(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;

    let found = get(&keyspace, "a").await.expect("is there");

    assert_eq!(second, Revision(first.0 + 1));
    assert_eq!(
        (found.create_revision, found.mod_revision, found.version),
        (first, second, 2)
    );
    assert_eq!(found.value, "2");
}

pub async fn a_deleted_key_starts_anew(keyspace: Subject) {
    put(&keyspace, "a", "1").await;
    put(&keyspace, "a", "2").await;
    delete(&keyspace, "a").await;
    assert_eq!(get(&keyspace, "a").await, None);

    let again = put(&keyspace, "a", "3").await;

    let found = get(&keyspace, "a").await.expect("is there");
    assert_eq!(
        (found.create_revision, found.mod_revision, found.version),
        (again, again, 1)
    );
}

pub async fn deleting_nothing_changes_no_revision(keyspace: Subject) {
    let before = put(&keyspace, "a", "1").await;

    let done = write(&keyspace, vec![Op::delete("b")]).await;

    assert_eq!(done.revision, before);
    assert!(matches!(done.results[..], [OpResult::Delete { deleted: 0, .. }]));
    assert_eq!(revision(&keyspace).await, before);
}

pub async fn ranges_are_ordered_and_half_open(keyspace: Subject) {
    for key in ["b", "a/2", "a/1", "a", "a0", "c"] {
        put(&keyspace, key, "").await;
    }

    assert_eq!(keys(&keyspace, everything()).await, ["a", "a/1", "a/2", "a0", "b", "c"]);
    assert_eq!(keys(&keyspace, KeyRange::prefix("a/")).await, ["a/1", "a/2"]);
    assert_eq!(keys(&keyspace, KeyRange::between("a/2", "c")).await, ["a/2", "a0", "b"]);
    assert_eq!(keys(&keyspace, KeyRange::one("a")).await, ["a"]);
    let from = KeyRange {
        start: "b".into(),
        end: std::ops::Bound::Unbounded,
    };
    assert_eq!(keys(&keyspace, from).await, ["b", "c"]);
    assert!(keys(&keyspace, KeyRange::between("c", "a")).await.is_empty());
    assert!(keys(&keyspace, KeyRange::between("a", "a")).await.is_empty());
}

pub async fn a_limit_cuts_items_but_not_the_count(keyspace: Subject) {
    for key in ["a", "b", "c"] {
        put(&keyspace, key, "").await;
    }
    let limited = |limit| Range {
        limit: Some(limit),
        ..Range::of(everything())
    };

    let two = range(&keyspace, limited(2)).await.expect("can be read");
    let three = range(&keyspace, limited(3)).await.expect("can be read");

    assert_eq!((two.items.len(), two.count, two.more), (2, 3, true));
    assert_eq!((three.items.len(), three.count, three.more), (3, 3, false));
}

pub async fn keys_only_and_count_only_leave_out_what_they_say(keyspace: Subject) {
    put(&keyspace, "a", "long").await;
    put(&keyspace, "b", "long").await;
    let with = |content| Range {
        content,
        ..Range::of(everything())
    };

    let names = range(&keyspace, with(Content::KeysOnly)).await.expect("can be read");
    let count = range(&keyspace, with(Content::CountOnly)).await.expect("can be read");

    assert_eq!(names.items.len(), 2);
    assert!(names.items.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    assert_eq!((count.items.len(), count.count), (0, 2));
}

pub async fn the_past_can_be_read_and_the_answer_tells_the_present(keyspace: Subject) {
    let first = put(&keyspace, "a", "1").await;
    let second = put(&keyspace, "a", "2").await;
    let third = delete(&keyspace, "a").await;
    let last = put(&keyspace, "b", "1").await;
    let at = async |revision| {
        let asked = Range {
            revision: Some(revision),
            ..Range::of(everything())
        };
        let found = range(&keyspace, asked).await.expect("the past can be read");
        assert_eq!(found.revision, last, "the answer tells the current revision");
        assert_eq!(found.count, found.items.len());
        found.items.into_iter().map(|kv| (kv.key, kv.value)).collect::<Vec<_>>()
    };

    assert_eq!(at(first).await, [("a".into(), "1".into())]);
    assert_eq!(at(second).await, [("a".into(), "2".into())]);
    assert_eq!(at(third).await, []);
    assert_eq!(at(last).await, [("b".into(), "1".into())]);
}

pub async fn the_future_cannot_be_read(keyspace: Subject) {
    let current = put(&keyspace, "a", "1").await;
    let asked = Range {
        revision: Some(Revision(current.0 + 1)),
        ..Range::of(everything())
    };

    let answer = range(&keyspace, asked).await;

    assert!(matches!(answer, Err(Error::Future { .. })), "{answer:?}");
}

pub async fn keys_and_values_are_any_bytes(keyspace: Subject) {
    let odd: [&[u8]; 5] = [b"\0", b"\0\0", b"a\0b", b"\xff", b"\xff\xff"];
    for key in odd {
        write(&keyspace, vec![Op::put(key, key)]).await;
    }

    assert_eq!(keys(&keyspace, everything()).await, odd);
    assert_eq!(keys(&keyspace, KeyRange::prefix(&b"\xff"[..])).await, odd[3..]);
    assert_eq!(keys(&keyspace, KeyRange::one(&b"\0"[..])).await, odd[..1]);
    let empty = put(&keyspace, "empty", "").await;
    let found = get(&keyspace, "empty").await.expect("an empty value is a value");
    assert_eq!((found.value.len(), found.mod_revision), (0, empty));
}

pub async fn a_list_read_in_pages_at_one_revision_is_whole(keyspace: Subject) {
    for number in 0..25 {
        put(&keyspace, &format!("p/{number:02}"), "old").await;
    }
    let pinned = revision(&keyspace).await;
    let mut items: Vec<KeyValue> = Vec::new();
    loop {
        let start = items.last().map_or("p/".into(), |kv| [&kv.key[..], b"\0"].concat());
        let page = Range {
            keys: KeyRange::between(start, "p0"),
            revision: Some(pinned),
            limit: Some(10),
            content: Content::Full,
        };
        let page = range(&keyspace, page).await.expect("a page can be read");
        assert_eq!(page.count, 25 - items.len());
        items.extend(page.items);
        if !page.more {
            break;
        }
        put(&keyspace, &format!("p/{:02}", items.len() + 1), "new").await;
        delete(&keyspace, &format!("p/{:02}", items.len() + 2)).await;
        put(&keyspace, &format!("p/{:02}x", items.len()), "new").await;
    }

    assert_eq!(items.len(), 25);
    assert!(items.iter().all(|kv| kv.value == "old"));
}

pub async fn serializable_reads_do_not_go_back(keyspace: Subject) {
    let options = Options {
        consistency: Consistency::Serializable,
        timeout: None,
    };
    let mut newest = Revision(0);
    for number in 0..20 {
        put(&keyspace, "a", &number.to_string()).await;
        let read = keyspace.range(Range::of(KeyRange::one("a")), options.clone()).await;
        let read = read.expect("can be read");
        assert!(read.revision >= newest);
        newest = read.revision;
    }
}

pub async fn an_empty_key_is_refused(keyspace: Subject) {
    let asked = Txn {
        success: vec![Op::put("", "1")],
        ..Txn::default()
    };
    invalid(txn(&keyspace, asked).await);
    invalid(range(&keyspace, Range::of(KeyRange::one(""))).await);
    let asked = Txn {
        success: vec![Op::delete("")],
        ..Txn::default()
    };
    invalid(txn(&keyspace, asked).await);
}
