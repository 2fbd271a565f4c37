//! The kinds beyond Pods and what they name: storage, what the super cluster shows by a label, and the opt-in ones.

use api::{
    Object,
    resource::{
        CUSTOM_RESOURCE_DEFINITIONS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, INGRESSES, PERSISTENT_VOLUME_CLAIMS as CLAIMS,
        PERSISTENT_VOLUMES as VOLUMES, PODS, PRIORITY_CLASSES, RUNTIME_CLASSES, SECRETS, SERVICES, STORAGE_CLASSES,
        VIRTUAL_CLUSTERS,
    },
};
use client::{DeleteOptions, ListOptions, Patch};
use serde_json::{Value, json};
use tenancy::identity;

use crate::harness::{House, Tenant, named, until};

async fn public_class(house: &House) {
    let class = json!({"metadata": {"name": "fast", "labels": {identity::PUBLIC: "true"}},
        "provisioner": "example.org/disk", "parameters": {"pool": "secret"}, "allowVolumeExpansion": true});
    house.below.create(&STORAGE_CLASSES, None, &class).await.unwrap();
    let hidden = json!({"metadata": {"name": "operators"}, "provisioner": "example.org/disk"});
    house.below.create(&STORAGE_CLASSES, None, &hidden).await.unwrap();
}

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}})
}

/// What a provisioner and the binder do for a super claim.
async fn bind(house: &House, claim: &Object, volume: &str) {
    let body = json!({"metadata": {"name": volume}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "persistentVolumeReclaimPolicy": "Delete",
        "hostPath": {"path": "/secret"}, "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace(), "name": claim.name(), "uid": claim.uid()}}});
    house.below.create(&VOLUMES, None, &body).await.unwrap();
    let bound = Patch::Merge(json!({"status": {"phase": "Bound"}}));
    house
        .below
        .patch_sub(&VOLUMES, None, volume, "status", &bound)
        .await
        .unwrap();
    let named = Patch::Merge(
        json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume}}),
    );
    let namespace = Some(claim.namespace());
    house
        .below
        .patch(&CLAIMS, namespace, claim.name(), &named)
        .await
        .unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"]}}));
    house
        .below
        .patch_sub(&CLAIMS, namespace, claim.name(), "status", &status)
        .await
        .unwrap();
}

async fn event(tenant: &Tenant, namespace: &str, about: &str, reason: &str) -> String {
    let what = format!("{} is told {reason} about {about}", tenant.name);
    until(&what, &tenant.client, &EVENTS, Some(namespace), |events| {
        let told = events
            .iter()
            .find(|event| event.tree()["reason"] == reason && event.tree()["involvedObject"]["name"] == about)?;
        Some(told.tree()["message"].as_str().unwrap_or("").to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_goes_down_and_its_volume_comes_up_in_its_own_plane_alone() {
    let house = House::open().await;
    public_class(&house).await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);

    // The default class of the super cluster is the tenants' too.
    let mut unnamed = claim("unnamed");
    unnamed["spec"]["storageClassName"] = Value::Null;
    acme.object(&STORAGE_CLASSES, "", "local-path", |_| true).await;
    let unnamed = acme.make(&CLAIMS, "default", &unnamed).await;
    assert_eq!(unnamed.tree()["spec"]["storageClassName"], "local-path");
    let made = acme.make(&CLAIMS, "default", &claim("data")).await;
    let below = house.super_object(&acme, &CLAIMS, "data", |_| true).await;
    assert_eq!(below.tree()["spec"]["resources"]["requests"]["storage"], "1Gi");
    bind(&house, &below, "pvc-of-acme").await;

    let above = acme
        .object(&CLAIMS, "default", "data", |claim| {
            claim.tree()["status"]["phase"] == "Bound"
        })
        .await;
    assert_eq!(above.tree()["spec"]["volumeName"], "pvc-of-acme");
    assert_eq!(above.tree()["status"]["capacity"]["storage"], "1Gi");
    let volume = acme
        .object(&VOLUMES, "", "pvc-of-acme", |volume| {
            volume.tree()["status"]["phase"] == "Bound"
        })
        .await;
    assert_eq!(volume.tree()["spec"]["claimRef"]["uid"], made.uid());
    assert_eq!(volume.tree()["spec"]["claimRef"]["namespace"], "default");
    let text = volume.tree().to_string();
    assert!(!text.contains("/secret") && !text.contains(below.namespace()), "{text}");
    let theirs = globex
        .client
        .list(&VOLUMES, None, &ListOptions::default())
        .await
        .unwrap();
    assert!(theirs.items.is_empty());

    // It grows, and a Pod that names it goes down with it.
    acme.merge(
        &CLAIMS,
        "default",
        "data",
        json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
    )
    .await;
    house
        .super_object(&acme, &CLAIMS, "data", |claim| {
            claim.tree()["spec"]["resources"]["requests"]["storage"] == "2Gi"
        })
        .await;
    acme.make_pod("default", "db", |pod| {
        pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    })
    .await;
    house
        .super_object(&acme, &PODS, "db", |pod| {
            pod.tree()["spec"]["volumes"]
                .to_string()
                .contains("\"claimName\":\"data\"")
        })
        .await;

    // What a tenant does to the volume that it is shown is put right; its end takes everything along.
    acme.merge(
        &VOLUMES,
        "",
        "pvc-of-acme",
        json!({"spec": {"capacity": {"storage": "9Gi"}}}),
    )
    .await;
    acme.object(&VOLUMES, "", "pvc-of-acme", |volume| {
        volume.tree()["spec"]["capacity"]["storage"] == "1Gi"
    })
    .await;
    acme.delete(&PODS, "default", "db", Some(0)).await;
    acme.delete(&CLAIMS, "default", "data", None).await;
    house.super_object_gone(&acme, &CLAIMS, "data").await;
    house
        .below
        .delete(&VOLUMES, None, "pvc-of-acme", &DeleteOptions::default())
        .await
        .unwrap();
    acme.gone(&VOLUMES, "", "pvc-of-acme").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_volume_was_taken_away_below_is_lost_and_not_made_anew_and_empty() {
    let house = House::open().await;
    public_class(&house).await;
    let acme = house.tenant("acme").await;
    acme.make(&CLAIMS, "default", &claim("data")).await;
    let below = house.super_object(&acme, &CLAIMS, "data", |_| true).await;
    // Before it has a volume it is made again, as everything is.
    let delete = |object: Object| {
        let client = house.below.clone();
        async move {
            let options = DeleteOptions::of_uid(object.uid());
            client
                .delete(&CLAIMS, Some(object.namespace()), "data", &options)
                .await
                .unwrap();
        }
    };
    delete(below.clone()).await;
    let again = house
        .super_object(&acme, &CLAIMS, "data", |again| again.uid() != below.uid())
        .await;
    bind(&house, &again, "pvc-1").await;
    acme.object(&CLAIMS, "default", "data", |claim| {
        claim.tree()["status"]["phase"] == "Bound"
    })
    .await;

    delete(again).await;

    acme.object(&CLAIMS, "default", "data", |claim| {
        claim.tree()["status"]["phase"] == "Lost"
    })
    .await;
    house.super_object_gone(&acme, &CLAIMS, "data").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_and_priority_classes_are_shown_by_a_label_and_no_longer_without() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    public_class(&house).await;
    let priority = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "value": 1000, "description": name});
    let create = async |body: Value| house.below.create(&PRIORITY_CLASSES, None, &body).await.unwrap();
    create(priority("urgent", json!({identity::PUBLIC: "true"}))).await;
    create(priority("operators", json!({}))).await;

    for tenant in [&acme, &globex] {
        let class = tenant.object(&STORAGE_CLASSES, "", "fast", |_| true).await;
        assert!(!class.tree().to_string().contains("secret"), "{:?}", class.tree());
        let urgent = tenant.object(&PRIORITY_CLASSES, "", "urgent", |_| true).await;
        assert_eq!(urgent.tree()["value"], 1000);
        for (resource, name) in [(&STORAGE_CLASSES, "operators"), (&PRIORITY_CLASSES, "operators")] {
            assert!(
                tenant
                    .client
                    .get(resource, None, name)
                    .await
                    .unwrap_err()
                    .is_not_found()
            );
        }
        let own = json!({"metadata": {"name": "x"}, "provisioner": "p"});
        tenant.client.create(&STORAGE_CLASSES, None, &own).await.unwrap_err();
    }
    // A Pod's priority goes down by the name of a class that is shown, and by no other.
    acme.make(&PRIORITY_CLASSES, "", &priority("own", json!({}))).await;
    for (pod, class, below) in [("a", "urgent", json!("urgent")), ("b", "own", Value::Null)] {
        acme.make_pod("default", pod, |pod| pod["spec"]["priorityClassName"] = class.into())
            .await;
        house
            .super_object(&acme, &PODS, pod, |pod| {
                pod.tree()["spec"]["priorityClassName"] == below
            })
            .await;
    }
    // The same of ways to run Pods.
    let sandboxed =
        json!({"metadata": {"name": "sandboxed", "labels": {identity::PUBLIC: "true"}}, "handler": "microvm"});
    house.below.create(&RUNTIME_CLASSES, None, &sandboxed).await.unwrap();
    acme.object(&RUNTIME_CLASSES, "", "sandboxed", |_| true).await;
    acme.make_pod("default", "c", |pod| {
        pod["spec"]["runtimeClassName"] = "sandboxed".into()
    })
    .await;
    house
        .super_object(&acme, &PODS, "c", |pod| {
            pod.tree()["spec"]["runtimeClassName"] == "sandboxed"
        })
        .await;
    // Drift on the tenant's side.
    acme.delete(&PRIORITY_CLASSES, "", "urgent", None).await;
    acme.object(&PRIORITY_CLASSES, "", "urgent", |_| true).await;

    let hide = Patch::Merge(json!({"metadata": {"labels": {identity::PUBLIC: null}}}));
    house.below.patch(&STORAGE_CLASSES, None, "fast", &hide).await.unwrap();
    house
        .below
        .patch(&PRIORITY_CLASSES, None, "urgent", &hide)
        .await
        .unwrap();
    for tenant in [&acme, &globex] {
        tenant.gone(&STORAGE_CLASSES, "", "fast").await;
        tenant.gone(&PRIORITY_CLASSES, "", "urgent").await;
    }
    acme.object(&PRIORITY_CLASSES, "", "own", |_| true).await;
    // Without a class that is offered a claim stays where it is, and says why.
    acme.make(&CLAIMS, "default", &claim("data")).await;
    let why = event(&acme, "default", "data", "NotSynced").await;
    assert!(why.contains("storage class"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_shown_to_those_who_ask_for_them() {
    let house = House::open().await;
    let acme = house
        .tenant_with("acme", json!({"sync": ["customresourcedefinitions"]}))
        .await;
    let globex = house.tenant("globex").await;
    let definition = json!({"metadata": {"name": "widgets.example.org", "labels": {identity::PUBLIC: "true"}},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}});
    house
        .below
        .create(&CUSTOM_RESOURCE_DEFINITIONS, None, &definition)
        .await
        .unwrap();

    acme.object(&CUSTOM_RESOURCE_DEFINITIONS, "", "widgets.example.org", |definition| {
        definition.tree()["status"]["conditions"]
            .to_string()
            .contains("Established")
    })
    .await;
    let widgets = acme.client.discover().await.unwrap();
    assert!(widgets.iter().any(|kind| kind.resource.plural == "widgets"));
    let theirs = globex
        .client
        .list(&CUSTOM_RESOURCE_DEFINITIONS, None, &ListOptions::default())
        .await
        .unwrap();
    assert!(theirs.items.is_empty());

    let ask = Patch::Merge(json!({"spec": {"sync": ["customresourcedefinitions"]}}));
    house
        .below
        .patch(&VIRTUAL_CLUSTERS, None, "globex", &ask)
        .await
        .unwrap();
    globex
        .object(&CUSTOM_RESOURCE_DEFINITIONS, "", "widgets.example.org", |_| true)
        .await;
}

fn ingress(name: &str, host: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"nginx.example/server-snippet": "steal"}},
        "spec": {"tls": [{"hosts": [host], "secretName": "cert"}],
            "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingresses_go_down_for_those_who_may_have_them_and_with_granted_hosts_only() {
    let house = House::open().await;
    let spec = json!({"sync": ["ingresses"], "ingressHosts": ["*.acme.example"]});
    let acme = house.tenant_with("acme", spec).await;
    let globex = house.tenant("globex").await;
    for tenant in [&acme, &globex] {
        let cert = json!({"metadata": {"name": "cert"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": "c", "tls.key": "k"}});
        tenant.make(&SECRETS, "default", &cert).await;
        tenant
            .make(&INGRESSES, "default", &ingress("web", "shop.acme.example"))
            .await;
    }
    acme.make(&INGRESSES, "default", &ingress("steal", "globex.example"))
        .await;

    let below = house.super_object(&acme, &INGRESSES, "web", |_| true).await;
    assert!(!below.tree().to_string().contains("steal"), "{:?}", below.tree());
    let cert = house.super_object(&acme, &SECRETS, "cert", |_| true).await;
    assert_eq!(cert.namespace(), below.namespace());
    let why = event(&acme, "default", "steal", "NotSynced").await;
    assert_eq!(why, "host \"globex.example\" is not granted to this tenant");

    let balanced = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}));
    house
        .below
        .patch_sub(&INGRESSES, Some(below.namespace()), "web", "status", &balanced)
        .await
        .unwrap();
    acme.object(&INGRESSES, "default", "web", |ingress| {
        ingress.tree()["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.7"
    })
    .await;
    // What the grant was taken away from leaves.
    let none = Patch::Merge(json!({"spec": {"ingressHosts": []}}));
    house.below.patch(&VIRTUAL_CLUSTERS, None, "acme", &none).await.unwrap();
    house.super_object_gone(&acme, &INGRESSES, "web").await;
    house.super_object_gone(&acme, &SECRETS, "cert").await;
    let all = house
        .below
        .list(&INGRESSES, None, &ListOptions::default())
        .await
        .unwrap();
    assert!(named(&all.items, "steal").is_none() && all.items.iter().all(|ingress| !globex.owns(ingress)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_about_claims_come_up_in_the_tenants_own_words() {
    let house = House::open().await;
    public_class(&house).await;
    let acme = house.tenant("acme").await;
    acme.make(&CLAIMS, "default", &claim("data")).await;
    let below = house.super_object(&acme, &CLAIMS, "data", |_| true).await;

    let said = json!({"metadata": {"name": "data.1"}, "reason": "ProvisioningFailed", "type": "Warning",
        "message": format!("no space for claim {}/data", below.namespace()),
        "involvedObject": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data",
            "namespace": below.namespace(), "uid": below.uid()}});
    house
        .below
        .create(&EVENTS, Some(below.namespace()), &said)
        .await
        .unwrap();

    assert_eq!(
        event(&acme, "default", "data", "ProvisioningFailed").await,
        "no space for claim default/data"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_are_written_by_hand_carry_traffic_below() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    acme.make(&SERVICES, "default", &service).await;
    let endpoints = |ip: &str| json!({"metadata": {"name": "db"}, "subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 5432}]}]});
    acme.make(&ENDPOINTS, "default", &endpoints("198.51.100.7")).await;

    let leads_to = async |ip: Option<&str>| {
        let what = format!("db leads to {ip:?} below");
        until(&what, &house.below, &ENDPOINT_SLICES, None, |slices| {
            let mut ours = slices
                .iter()
                .filter(|slice| acme.owns(slice) && slice.label("kubernetes.io/service-name") == Some("db"));
            match ip {
                Some(ip) => ours
                    .find(|slice| slice.tree()["endpoints"][0]["addresses"][0] == ip)
                    .map(drop),
                None => ours.next().is_none().then_some(()),
            }
        })
        .await;
    };
    leads_to(Some("198.51.100.7")).await;
    let moved = json!({"subsets": endpoints("198.51.100.8")["subsets"]});
    acme.merge(&ENDPOINTS, "default", "db", moved).await;
    leads_to(Some("198.51.100.8")).await;
    acme.delete(&ENDPOINTS, "default", "db", None).await;
    leads_to(None).await;
}
