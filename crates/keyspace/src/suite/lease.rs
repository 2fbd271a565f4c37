//! Leases.

use super::*;
use crate::{LeaseId, Previous, Put};

fn leased(key: &'static str, lease: LeaseId) -> Op {
    Op::Put(Put {
        key: key.into(),
        value: "".into(),
        lease: Some(lease),
        previous: Previous::Omit,
        keep: Default::default(),
    })
}

async fn grant(keyspace: &Subject, seconds: u64) -> LeaseId {
    let granted = keyspace.grant_lease(None, Duration::from_secs(seconds)).await;
    granted.expect("a lease is granted").id
}

pub async fn its_keys_go_with_it_in_one_revision(keyspace: Subject) {
    let granted = keyspace
        .grant_lease(None, Duration::from_secs(60))
        .await
        .expect("a lease is granted");
    assert_eq!(granted.ttl, Duration::from_secs(60));
    let before = revision(&keyspace).await;
    write(&keyspace, vec![leased("b", granted.id), leased("a", granted.id)]).await;
    put(&keyspace, "c", "").await;
    assert_eq!(get(&keyspace, "a").await.expect("is there").lease, Some(granted.id));
    let state = keyspace.lease_state(granted.id).await.expect("the lease is there");
    let mut attached = state.keys;
    attached.sort();
    assert_eq!(attached, ["a", "b"]);
    assert_eq!(state.granted_ttl, Duration::from_secs(60));
    assert!(state.remaining <= Duration::from_secs(60) && state.remaining > Duration::from_secs(40));
    let mut watch = Listener::on(&keyspace, everything(), None).await;

    keyspace.revoke_lease(granted.id).await.expect("a lease is revoked");

    let (at, events) = watch.events().await;
    assert_eq!(at, Revision(before.0 + 3));
    assert_eq!(
        events.iter().map(|event| &event.key()[..]).collect::<Vec<_>>(),
        [b"a", b"b"]
    );
    assert!(events.iter().all(|event| matches!(event, Event::Delete { .. })));
    assert_eq!(keys(&keyspace, everything()).await, ["c"]);
    let gone = keyspace.lease_state(granted.id).await;
    assert!(matches!(gone, Err(Error::NoLease(_))), "{gone:?}");
}

pub async fn a_put_without_it_lets_go(keyspace: Subject) {
    let lease = grant(&keyspace, 60).await;
    let other = grant(&keyspace, 60).await;
    write(
        &keyspace,
        vec![leased("a", lease), leased("b", lease), leased("c", lease)],
    )
    .await;

    put(&keyspace, "a", "").await;
    write(&keyspace, vec![leased("b", other)]).await;
    delete(&keyspace, "c").await;

    assert_eq!(get(&keyspace, "a").await.expect("is there").lease, None);
    assert!(
        keyspace
            .lease_state(lease)
            .await
            .expect("the lease is there")
            .keys
            .is_empty()
    );
    let before = revision(&keyspace).await;
    keyspace.revoke_lease(lease).await.expect("a lease is revoked");
    assert_eq!(
        revision(&keyspace).await,
        before,
        "a lease without keys changes nothing when it goes"
    );
    assert_eq!(keys(&keyspace, everything()).await, ["a", "b"]);
    keyspace.revoke_lease(other).await.expect("a lease is revoked");
    assert_eq!(keys(&keyspace, everything()).await, ["a"]);
}

pub async fn an_unknown_one_is_refused(keyspace: Subject) {
    let nobody = LeaseId(0x7777_1234);
    let before = revision(&keyspace).await;

    let put = Txn {
        success: vec![leased("a", nobody)],
        ..Txn::default()
    };
    assert_eq!(txn(&keyspace, put).await, Err(Error::NoLease(nobody)));
    assert_eq!(keyspace.revoke_lease(nobody).await, Err(Error::NoLease(nobody)));
    assert_eq!(keyspace.keep_lease(nobody).await, Err(Error::NoLease(nobody)));
    assert_eq!(keyspace.lease_state(nobody).await, Err(Error::NoLease(nobody)));
    assert_eq!(revision(&keyspace).await, before);
}

pub async fn an_id_is_given_once(keyspace: Subject) {
    let id = grant(&keyspace, 60).await;
    assert!(id.0 > 0);
    assert_ne!(grant(&keyspace, 60).await, id);
    keyspace.revoke_lease(id).await.expect("a lease is revoked");

    let again = keyspace.grant_lease(Some(id), Duration::from_secs(60)).await;
    assert_eq!(again.expect("a free id can be asked for").id, id);
    let twice = keyspace.grant_lease(Some(id), Duration::from_secs(60)).await;
    assert_eq!(twice, Err(Error::LeaseExists(id)));
    keyspace.revoke_lease(id).await.expect("a lease is revoked");
}

pub async fn it_ends_when_nobody_keeps_it(keyspace: Subject) {
    let short = grant(&keyspace, 2).await;
    let kept = grant(&keyspace, 2).await;
    write(&keyspace, vec![leased("short", short), leased("kept", kept)]).await;
    let mut watch = Listener::on(&keyspace, everything(), None).await;

    let keep = async {
        loop {
            let ttl = keyspace.keep_lease(kept).await.expect("a lease that is kept stays");
            assert!(ttl >= Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let event = tokio::select! {
        event = watch.event() => event,
        () = keep => unreachable!("it goes on"),
    };

    assert!(
        matches!(&event, Event::Delete { key, .. } if key == "short"),
        "{event:?}"
    );
    assert_eq!(keys(&keyspace, everything()).await, ["kept"]);
    assert_eq!(keyspace.keep_lease(short).await, Err(Error::NoLease(short)));
    keyspace.revoke_lease(kept).await.expect("a lease is revoked");
}
