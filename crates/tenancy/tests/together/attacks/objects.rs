//! T2: names that reach out of their place. T7: super namespaces that collide. T8: the syncer's marks, written by a tenant.

use api::resource::{CONFIG_MAPS, NAMESPACES, PODS, SECRETS, SERVICES};
use client::Patch;
use keyspace::{KeyRange, Options, Range};
use serde_json::{Value, json};
use tenancy::identity;

use super::arena::{Arena, is_refusal};

/// All keys of the shared keyspace with their revisions.
async fn keys(arena: &Arena) -> Vec<(String, u64)> {
    let shared = arena.house.planes.server.planes().shared().clone();
    let all = Range::of(KeyRange::prefix("/"));
    let ranged = shared.range(all, Options::default()).await.unwrap();
    let key = |item: &keyspace::KeyValue| (String::from_utf8_lossy(&item.key).into_owned(), item.mod_revision.0);
    ranged.items.iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t02_no_name_reaches_out_of_its_plane() {
    let arena = Arena::open().await;
    let (own, theirs) = (arena.acme.plane, arena.globex.plane);
    let before = keys(&arena).await;
    let their_keys = |keys: &[(String, u64)]| -> Vec<(String, u64)> {
        keys.iter()
            .filter(|(key, _)| key.contains(theirs.as_str()) && !key.contains("events"))
            .cloned()
            .collect()
    };

    let long = "x".repeat(10_000);
    let names = [
        format!("../../{theirs}/default/canary"),
        format!("..%2f..%2f{theirs}%2fdefault%2fcanary"),
        format!("/{theirs}/default/canary"),
        "a/b".to_owned(),
        "..".to_owned(),
        ".".to_owned(),
        "a%2fb".to_owned(),
        "a\u{0}b".to_owned(),
        "UPPER".to_owned(),
        "*".to_owned(),
        "a b".to_owned(),
        "ä".to_owned(),
        "a\nb".to_owned(),
        String::new(),
        long,
    ];
    for name in &names {
        for (path, body) in [
            ("api/v1/namespaces/default/secrets", json!({"metadata": {"name": name}})),
            (
                "api/v1/namespaces/default/configmaps",
                json!({"metadata": {"generateName": name}}),
            ),
            ("api/v1/namespaces", json!({"metadata": {"name": name}})),
            (
                "api/v1/namespaces/default/secrets",
                json!({"metadata": {"name": "x", "namespace": name}}),
            ),
        ] {
            // What stands for no name at all is upstream's business; a name that is written into a key is ours.
            if name.is_empty() && (path.ends_with("configmaps") || body["metadata"]["namespace"].is_string()) {
                continue;
            }
            let answer = arena
                .send("POST", &format!("/planes/{own}/{path}"), &[], &body.to_string())
                .await;
            assert!(
                is_refusal(answer.code),
                "{path} {:?}: {}",
                &name[..name.len().min(40)],
                answer.text
            );
        }
    }
    let encoded = |text: &str| text.replace('%', "%25").replace('/', "%2f").replace('\0', "%00");
    for name in &names[..8] {
        for method in ["GET", "DELETE", "PUT"] {
            let target = format!("/planes/{own}/api/v1/namespaces/default/secrets/{}", encoded(name));
            let body = if method == "PUT" {
                "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{}}"
            } else {
                ""
            };
            let answer = arena.send(method, &target, &[], body).await;
            assert!(is_refusal(answer.code), "{method} {target}: {}", answer.text);
        }
    }
    // Definitions named like what is there already, or like a way (CVE-2022-3162's class).
    for (group, plural) in [
        ("core", "secrets"),
        ("", "secrets"),
        ("apps", "deployments"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("../secrets", "widgets"),
        ("example.org", "../../secrets"),
        ("example.org", "secrets/status"),
        ("secrets", "x"),
    ] {
        let definition = json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "kind": "Widget"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        let target = format!("/planes/{own}/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
        let answer = arena.send("POST", &target, &[], &definition.to_string()).await;
        assert!(is_refusal(answer.code), "{group} {plural}: {}", answer.text);
    }
    // And one that is allowed keeps to its own plane, whatever its objects are called.
    let definition = json!({"metadata": {"name": "secrets.acme.example"}, "spec": {"group": "acme.example", "scope": "Namespaced",
        "names": {"plural": "secrets", "kind": "Secret"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let target = format!("/planes/{own}/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    assert_eq!(
        arena.send("POST", &target, &[], &definition.to_string()).await.code,
        201
    );
    for name in ["..", "../../x", "%2e%2e"] {
        let target = format!(
            "/planes/{own}/apis/acme.example/v1/namespaces/default/secrets/{}",
            encoded(name)
        );
        let answer = arena.send("GET", &target, &[], "").await;
        assert!(is_refusal(answer.code), "{name}: {}", answer.text);
    }

    let after = keys(&arena).await;
    assert_eq!(
        their_keys(&before),
        their_keys(&after),
        "nothing of the victim's was written"
    );
    let known = |key: &str| before.iter().any(|(known, _)| known == key);
    for (key, _) in after.iter().filter(|(key, _)| !known(key)) {
        assert!(key.contains(own.as_str()), "a key of nobody's: {key}");
        assert!(
            !key.contains("..") && !key.contains('\0') && !key.contains('%'),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t07_no_namespace_is_named_into_anothers() {
    let arena = Arena::open().await;
    let (acme, globex) = (&arena.acme, &arena.globex);
    let theirs = arena.house.super_object(globex, &PODS, "pod-of-globex", |_| true).await;
    let their_namespace = theirs.namespace().to_owned();
    // The victim's super namespace by its own name; what is cut off; what joins by another hyphen.
    let mut made = Vec::new();
    for name in [
        their_namespace.clone(),
        their_namespace.trim_start_matches("globex-").to_owned(),
        "l".repeat(63),
        format!("{}x", "l".repeat(62)),
        "globex-default".to_owned(),
    ] {
        acme.make_namespace(&name).await;
        acme.make_pod(&name, "pod-of-globex", |_| {}).await;
        let own = acme.running(&name, "pod-of-globex").await;
        let below = arena
            .house
            .super_object(acme, &PODS, "pod-of-globex", |pod| {
                pod.annotation(identity::UID) == Some(own.uid())
            })
            .await;
        made.push(below.namespace().to_owned());
    }
    made.push(their_namespace.clone());
    let count = made.len();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), count, "one super namespace each");
    // Another tenant, whose name is the beginning of the victim's, and a hash of its own choosing.
    let prefix = arena.house.tenant("glob").await;
    prefix.make_namespace("ex-default").await;
    prefix.make_pod("ex-default", "pod-of-globex", |_| {}).await;
    prefix.running("ex-default", "pod-of-globex").await;
    arena.victim_is_untouched().await;
    let now = arena.house.super_object(globex, &PODS, "pod-of-globex", |_| true).await;
    assert_eq!(now.uid(), theirs.uid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t08_marks_owners_and_finalizers_that_a_tenant_writes_do_nothing_below() {
    let arena = Arena::open().await;
    let (acme, globex) = (&arena.acme, &arena.globex);
    let theirs = arena.house.super_object(globex, &PODS, "pod-of-globex", |_| true).await;
    let their_secret = arena.house.super_object(globex, &SECRETS, "canary", |_| true).await;
    let marks = |metadata: &mut Value| {
        metadata["annotations"] = theirs.tree()["metadata"]["annotations"].clone();
        metadata["labels"] = theirs.tree()["metadata"]["labels"].clone();
        metadata["labels"][identity::PUBLIC] = "true".into();
        metadata["labels"][identity::SHOWN] = "x".into();
        metadata["annotations"]["tenancy.mangrove.io/pod"] = "pod-of-globex".into();
        metadata["annotations"]["tenancy.mangrove.io/refresh-at"] = "0".into();
        metadata["finalizers"] = json!([identity::FINALIZER, "tenancy.mangrove.io/plane"]);
        metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": theirs.name(),
            "uid": theirs.uid(), "blockOwnerDeletion": true, "controller": true}]);
    };
    let mut secret = json!({"metadata": {"name": "forged"}, "stringData": {"a": "b"}});
    marks(&mut secret["metadata"]);
    // It stays, though its owner is nobody in this plane: owners are looked at by garbage collection, so it may go; then it is
    // made without.
    secret["metadata"]["ownerReferences"] = Value::Null;
    acme.make(&SECRETS, "default", &secret).await;
    let mut service = json!({"metadata": {"name": "forged"}, "spec": {"selector": {"canary": super::arena::CANARY}, "ports": [{"port": 80}]}});
    marks(&mut service["metadata"]);
    service["metadata"]["ownerReferences"] = Value::Null;
    acme.make(&SERVICES, "default", &service).await;
    acme.make_pod("default", "forged", |pod| {
        marks(&mut pod["metadata"]);
        pod["metadata"]["ownerReferences"] = Value::Null;
        pod["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "forged"}}]);
    })
    .await;
    acme.running("default", "forged").await;

    for (resource, name) in [(&PODS, "forged"), (&SECRETS, "forged"), (&SERVICES, "forged")] {
        let below = arena.house.super_object(acme, resource, name, |_| true).await;
        let metadata = &below.tree()["metadata"];
        assert_eq!(below.annotation(identity::TENANT), Some("acme"), "{metadata}");
        assert_eq!(below.annotation(identity::NAMESPACE), Some("default"), "{metadata}");
        assert_ne!(below.namespace(), theirs.namespace());
        for key in [identity::PUBLIC, identity::SHOWN] {
            assert!(below.label(key).is_none(), "{metadata}");
        }
        assert!(
            below.annotation("tenancy.mangrove.io/refresh-at").is_none(),
            "{metadata}"
        );
        assert!(
            metadata["finalizers"].is_null() && metadata["ownerReferences"].is_null(),
            "{metadata}"
        );
    }
    // A Service of the attacker's selects its own Pods, since its super Service is where they are.
    // Forging goes on for ever without an end of writes? No: once all is well nothing more is written.
    arena.house.gate.forget_writes();
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"tenancy.mangrove.io/uid": "again"}}}));
    for (resource, name) in [(&PODS, "forged"), (&SECRETS, "forged"), (&SERVICES, "forged")] {
        acme.client
            .patch(resource, Some("default"), name, &touch)
            .await
            .unwrap();
    }
    acme.make(&CONFIG_MAPS, "default", &json!({"metadata": {"name": "after"}}))
        .await;
    acme.make_pod("default", "after", |pod| {
        pod["spec"]["volumes"] = json!([{"name": "c", "configMap": {"name": "after"}}]);
    })
    .await;
    acme.running("default", "after").await;
    let writes = arena.house.gate.writes();
    let about_forged: Vec<_> = writes.iter().filter(|write| write.ends_with("/forged")).collect();
    assert!(about_forged.is_empty(), "{about_forged:?}");
    let now = arena.house.super_object(globex, &PODS, "pod-of-globex", |_| true).await;
    assert_eq!(
        (now.uid(), now.resource_version()),
        (theirs.uid(), theirs.resource_version())
    );
    let now = arena.house.super_object(globex, &SECRETS, "canary", |_| true).await;
    assert_eq!(now.resource_version(), their_secret.resource_version());

    // Its own namespaces end nevertheless: the finalizer of ours that it wrote itself on other things is its own to take away.
    acme.make_namespace("ends").await;
    acme.delete(&NAMESPACES, "", "ends", None).await;
    acme.gone(&NAMESPACES, "", "ends").await;
}
