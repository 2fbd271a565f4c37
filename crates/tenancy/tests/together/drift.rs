//! Whatever is changed in the super cluster by others is put right as soon as it is seen.

use api::{
    Object, Resource,
    resource::{CONFIG_MAPS, ENDPOINT_SLICES, NAMESPACES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES},
};
use client::{DeleteOptions, ListOptions, Patch};
use serde_json::{Value, json};
use tenancy::identity;

use crate::harness::{House, Tenant, until};

async fn shop() -> (House, Tenant) {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make(
        &CONFIG_MAPS,
        "default",
        &json!({"metadata": {"name": "settings"}, "data": {"a": "1"}}),
    )
    .await;
    acme.make(
        &SECRETS,
        "default",
        &json!({"metadata": {"name": "password"}, "stringData": {"a": "1"}}),
    )
    .await;
    acme.make(
        &SERVICES,
        "default",
        &json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    acme.make(&SERVICE_ACCOUNTS, "default", &json!({"metadata": {"name": "robot"}}))
        .await;
    acme.make_pod("default", "web", |pod| {
        pod["metadata"]["annotations"] = json!({"note": "kept"});
        pod["spec"]["serviceAccountName"] = "robot".into();
        pod["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "password"}}]);
    })
    .await;
    acme.running("default", "web").await;
    (house, acme)
}

async fn patch(house: &House, resource: &Resource, object: &Object, patch: Value) {
    let patch = Patch::Strategic(patch);
    house
        .below
        .patch(resource, Some(object.namespace()), object.name(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_below_is_made_again() {
    let (house, acme) = shop().await;

    for (resource, name) in [
        (&CONFIG_MAPS, "settings"),
        (&SECRETS, "password"),
        (&SERVICES, "web"),
        (&SERVICE_ACCOUNTS, "robot"),
    ] {
        let there = house.super_object(&acme, resource, name, |_| true).await;
        house
            .below
            .delete(
                resource,
                Some(there.namespace()),
                name,
                &DeleteOptions::of_uid(there.uid()),
            )
            .await
            .unwrap();
        let again = house
            .super_object(&acme, resource, name, |again| again.uid() != there.uid())
            .await;
        for field in ["data", "spec"] {
            assert_eq!(again.tree()[field]["clusterIP"], there.tree()[field]["clusterIP"]);
            assert_eq!(again.tree()[field]["a"], there.tree()[field]["a"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_below_is_changed_back() {
    let (house, acme) = shop().await;

    let pod = house.super_object(&acme, &PODS, "web", |_| true).await;
    let image = json!([{"name": "main", "image": "other"}]);
    patch(&house, &PODS, &pod, json!({"spec": {"containers": image}})).await;
    patch(
        &house,
        &PODS,
        &pod,
        json!({"metadata": {"labels": {"app": "other", "stray": "x"}, "annotations": {"note": null}}}),
    )
    .await;
    house
        .super_object(&acme, &PODS, "web", |now| {
            now.tree()["spec"]["containers"][0]["image"] == "registry.example/one:1"
                && now.label("app") == Some("web")
                && now.label("stray").is_none()
                && now.annotation("note") == Some("kept")
                && now.uid() == pod.uid()
        })
        .await;

    let settings = house.super_object(&acme, &CONFIG_MAPS, "settings", |_| true).await;
    patch(&house, &CONFIG_MAPS, &settings, json!({"data": {"a": "2", "b": "3"}})).await;
    house
        .super_object(&acme, &CONFIG_MAPS, "settings", |now| {
            now.tree()["data"] == json!({"a": "1"})
        })
        .await;

    let service = house.super_object(&acme, &SERVICES, "web", |_| true).await;
    patch(
        &house,
        &SERVICES,
        &service,
        json!({"spec": {"selector": {"app": "other"}}}),
    )
    .await;
    house
        .super_object(&acme, &SERVICES, "web", |now| {
            now.tree()["spec"]["selector"] == json!({"app": "web"})
        })
        .await;

    let namespace = house.below.get(&NAMESPACES, None, pod.namespace()).await.unwrap();
    let stray = Patch::Merge(json!({"metadata": {"labels": {"stray": "x"}}}));
    house
        .below
        .patch(&NAMESPACES, None, namespace.name(), &stray)
        .await
        .unwrap();
    house
        .super_object(&acme, &NAMESPACES, namespace.name(), |now| now.label("stray").is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_own_secret_follows_its_labels_and_is_restored() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |pod| {
        let labels = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
        pod["spec"]["volumes"] = json!([{"name": "info", "downwardAPI": {"items": [labels]}}]);
    })
    .await;
    acme.running("default", "web").await;
    let own = until("it is there", &house.below, &SECRETS, None, |secrets| {
        secrets.iter().find(|secret| acme.owns(secret)).cloned()
    })
    .await;
    let labels = |text: &str| json!(base64(text));
    assert_eq!(own.tree()["data"]["labels"], labels("app=\"web\""));

    acme.merge(
        &PODS,
        "default",
        "web",
        json!({"metadata": {"labels": {"tier": "front"}}}),
    )
    .await;
    let now = house
        .super_object(&acme, &SECRETS, own.name(), |now| {
            now.tree()["data"]["labels"] == labels("app=\"web\"\ntier=\"front\"")
        })
        .await;
    assert_eq!(now.tree()["data"]["token-0"], own.tree()["data"]["token-0"]);

    let spoilt = json!({"data": {"token-0": null, "ca.crt": labels("another")}});
    patch(&house, &SECRETS, &now, spoilt).await;
    let is_whole = |secret: &Object| {
        let data = &secret.tree()["data"];
        data["token-0"].is_string() && data["ca.crt"] == own.tree()["data"]["ca.crt"]
    };
    house.super_object(&acme, &SECRETS, own.name(), is_whole).await;
    house
        .below
        .delete(&SECRETS, Some(own.namespace()), own.name(), &DeleteOptions::default())
        .await
        .unwrap();
    house
        .super_object(&acme, &SECRETS, own.name(), |again| {
            again.uid() != own.uid() && is_whole(again)
        })
        .await;
}

fn base64(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tenant_changes_goes_down() {
    let (house, acme) = shop().await;

    acme.merge(
        &CONFIG_MAPS,
        "default",
        "settings",
        json!({"data": {"a": null, "b": "2"}}),
    )
    .await;
    acme.merge(
        &SERVICES,
        "default",
        "web",
        json!({"spec": {"ports": [{"port": 81, "targetPort": 8080, "protocol": "TCP"}]}}),
    )
    .await;
    let image =
        Patch::Strategic(json!({"spec": {"containers": [{"name": "main", "image": "registry.example/one:2"}]}}));
    acme.client.patch(&PODS, Some("default"), "web", &image).await.unwrap();
    acme.merge(
        &PODS,
        "default",
        "web",
        json!({"metadata": {"labels": {"tier": "front"}, "annotations": {"note": null}}}),
    )
    .await;

    house
        .super_object(&acme, &CONFIG_MAPS, "settings", |now| {
            now.tree()["data"] == json!({"b": "2"})
        })
        .await;
    house
        .super_object(&acme, &SERVICES, "web", |now| {
            now.tree()["spec"]["ports"][0]["port"] == 81
        })
        .await;
    house
        .super_object(&acme, &PODS, "web", |now| {
            now.tree()["spec"]["containers"][0]["image"] == "registry.example/one:2"
                && now.label("tier") == Some("front")
                && now.annotation("note").is_none()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_pod_names_any_more_is_not_below() {
    let (house, acme) = shop().await;
    acme.make(
        &CONFIG_MAPS,
        "default",
        &json!({"metadata": {"name": "unused"}, "data": {"a": "1"}}),
    )
    .await;
    house.super_object(&acme, &CONFIG_MAPS, "settings", |_| true).await;

    acme.delete(&PODS, "default", "web", None).await;

    house.super_object_gone(&acme, &PODS, "web").await;
    for (resource, name) in [
        (&CONFIG_MAPS, "settings"),
        (&SECRETS, "password"),
        (&SERVICE_ACCOUNTS, "robot"),
        (&CONFIG_MAPS, "unused"),
    ] {
        house.super_object_gone(&acme, resource, name).await;
    }
    until("its own Secret is gone", &house.below, &SECRETS, None, |secrets| {
        (!secrets.iter().any(|secret| acme.owns(secret))).then_some(())
    })
    .await;
    acme.object(&CONFIG_MAPS, "default", "settings", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_by_hand_go_down_for_services_without_a_selector_and_for_no_others() {
    let (house, acme) = shop().await;
    acme.make(
        &SERVICES,
        "default",
        &json!({"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    for (slice, service) in [("outside-1", "outside"), ("web-by-hand", "web")] {
        let slice = json!({"metadata": {"name": slice, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"port": 80, "protocol": "TCP", "name": ""}],
            "endpoints": [{"addresses": ["203.0.113.7"], "targetRef": {"kind": "Pod", "name": "x", "namespace": "default"}}]});
        acme.make(&ENDPOINT_SLICES, "default", &slice).await;
    }

    let below = house.super_object(&acme, &ENDPOINT_SLICES, "outside-1", |_| true).await;
    assert_eq!(below.tree()["endpoints"][0]["addresses"], json!(["203.0.113.7"]));
    assert!(below.tree()["endpoints"][0].get("targetRef").is_none());
    // The Service gets a selector: the endpoints are the super cluster's to find.
    acme.merge(
        &SERVICES,
        "default",
        "outside",
        json!({"spec": {"selector": {"app": "web"}}}),
    )
    .await;
    house.super_object_gone(&acme, &ENDPOINT_SLICES, "outside-1").await;
    house.super_object_gone(&acme, &ENDPOINT_SLICES, "web-by-hand").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_planes_have_by_birth_goes_down_and_stays_like_all_else() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "web", |_| {}).await;
    acme.running("default", "web").await;
    let pod = house.super_object(&acme, &PODS, "web", |_| true).await;
    let accounts = || async {
        let (namespace, all) = (Some(pod.namespace()), ListOptions::default());
        let list = house.below.list(&SERVICE_ACCOUNTS, namespace, &all).await;
        list.unwrap().items
    };
    let account = accounts().await.remove(0);

    // Whoever made it: a change of it is nothing by which it goes.
    let noted = json!({"metadata": {"labels": {"stray": "x"}}});
    patch(&house, &SERVICE_ACCOUNTS, &account, noted).await;
    acme.make_pod("default", "next", |_| {}).await;
    acme.running("default", "next").await;

    let now = accounts().await;
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].uid(), account.uid());
    let maps = house
        .below
        .list(&CONFIG_MAPS, Some(pod.namespace()), &ListOptions::default())
        .await
        .unwrap();
    assert!(maps.items.iter().all(|map| !acme.owns(map)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_a_tenant_writes_lead_nowhere() {
    let (house, acme) = shop().await;
    let globex = house.tenant("globex").await;
    let victim = house.super_object(&acme, &PODS, "web", |_| true).await;

    globex
        .make_pod("default", "web", |pod| {
            pod["metadata"]["labels"][identity::PLANE] = acme.plane.as_str().into();
            pod["metadata"]["annotations"] =
                json!({identity::PLANE: acme.plane, identity::UID: victim.annotation(identity::UID)});
        })
        .await;

    let below = house.super_object(&globex, &PODS, "web", |_| true).await;
    assert_eq!(below.annotation(identity::PLANE), Some(globex.plane.as_str()));
    assert_ne!(below.annotation(identity::UID), victim.annotation(identity::UID));
    let pods = house.below.list(&PODS, None, &ListOptions::default()).await.unwrap();
    assert_eq!(pods.items.iter().filter(|pod| acme.owns(pod)).count(), 1);
}
