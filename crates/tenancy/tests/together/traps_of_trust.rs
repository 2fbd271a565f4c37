//! The traps of a syncer where a tenant means ill, by number: tokens (8), marks and Pods (9), Services (13), words (14).

use api::{
    Object, Resource,
    resource::{ENDPOINT_SLICES, EVENTS, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES, Scope, VIRTUAL_CLUSTERS},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use client::{Client, ListOptions, Patch};
use serde_json::{Value, json};
use tenancy::identity;

use crate::harness::{House, Tenant, until};

const REVIEWS: Resource = Resource::built_in(
    "authentication.k8s.io",
    "v1",
    "tokenreviews",
    "TokenReview",
    Scope::Cluster,
);

/// What a plane says of a token.
async fn review(client: &Client, token: &str, audience: Option<&str>) -> Value {
    let audiences: Vec<&str> = audience.into_iter().collect();
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    let answer = client.create(&REVIEWS, None, &body).await.unwrap();
    answer.tree()["status"].clone()
}

async fn pod_secret(house: &House, tenant: &Tenant, pod: &str, good: impl Fn(&Object) -> bool) -> Object {
    let what = format!("the Secret of {pod} is below");
    until(&what, &house.below, &SECRETS, None, |secrets| {
        let its = |secret: &&Object| {
            tenant.owns(secret) && secret.annotation("tenancy.mangrove.io/pod") == Some(pod) && good(secret)
        };
        secrets.iter().find(its).cloned()
    })
    .await
}

fn value(secret: &Object, key: &str) -> String {
    let encoded = secret.tree()["data"][key].as_str().unwrap_or("");
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_08_a_pods_tokens_are_its_own_planes_bound_to_it_renewed_and_end_with_it() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let pod = acme
        .make_pod("default", "web", |pod| {
            pod["spec"]["volumes"] = json!([{"name": "vault", "projected": {"sources": [
                {"serviceAccountToken": {"path": "vault", "audience": "vault", "expirationSeconds": 600}}]}}]);
        })
        .await;
    acme.running("default", "web").await;
    let secret = pod_secret(&house, &acme, "web", |_| true).await;
    let tokens: Vec<String> = ["token-0", "token-1"].map(|key| value(&secret, key)).into();
    let (vault, usual) = match review(&acme.client, &tokens[0], Some("vault")).await["authenticated"] == true {
        true => (&tokens[0], &tokens[1]),
        false => (&tokens[1], &tokens[0]),
    };

    let status = review(&acme.client, usual, None).await;
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    let extra = &status["user"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([pod.uid()]));
    let status = review(&acme.client, vault, Some("vault")).await;
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_ne!(review(&acme.client, vault, None).await["authenticated"], true);
    // Neither the super cluster nor another tenant takes them.
    for token in [vault, usual] {
        for elsewhere in [&house.below, &globex.client] {
            assert_ne!(review(elsewhere, token, None).await["authenticated"], true);
        }
    }

    // Due: another is asked for.
    let due = Patch::Merge(json!({"metadata": {"annotations": {"tenancy.mangrove.io/refresh-at": "1"}}}));
    house
        .below
        .patch(&SECRETS, Some(secret.namespace()), secret.name(), &due)
        .await
        .unwrap();
    let before = secret.tree()["data"].clone();
    pod_secret(&house, &acme, "web", |now| {
        now.annotation("tenancy.mangrove.io/refresh-at") != Some("1")
            && now.tree()["data"]["token-0"] != before["token-0"]
    })
    .await;

    // Revoked with the Pod, whose Secret goes.
    acme.delete(&PODS, "default", "web", Some(0)).await;
    acme.gone(&PODS, "default", "web").await;
    assert_ne!(review(&acme.client, usual, None).await["authenticated"], true);
    until("the Secret is gone", &house.below, &SECRETS, None, |secrets| {
        (!secrets.iter().any(|one| one.name() == secret.name())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_08_a_legacy_token_secret_is_bytes_below_and_the_super_clusters_token_is_never_mounted() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make(&SERVICE_ACCOUNTS, "default", &json!({"metadata": {"name": "robot"}}))
        .await;
    let legacy = json!({"metadata": {"name": "robot-token",
        "annotations": {"kubernetes.io/service-account.name": "robot"}}, "type": "kubernetes.io/service-account-token"});
    acme.make(&SECRETS, "default", &legacy).await;
    acme.make_pod("default", "web", |pod| {
        pod["spec"]["serviceAccountName"] = "robot".into();
        pod["spec"]["volumes"] = json!([{"name": "t", "secret": {"secretName": "robot-token", "optional": true}}]);
    })
    .await;

    let below = house.super_object(&acme, &PODS, "web", |_| true).await;
    assert_eq!(below.tree()["spec"]["automountServiceAccountToken"], false);
    assert!(!below.tree()["spec"].to_string().contains("serviceAccountToken\":{"));
    let secret = house.super_object(&acme, &SECRETS, "robot-token", |_| true).await;
    assert_eq!(secret.tree()["type"], "Opaque");
    assert!(secret.annotation("kubernetes.io/service-account.name").is_none());
    let account = house.super_object(&acme, &SERVICE_ACCOUNTS, "robot", |_| true).await;
    assert_eq!(account.tree()["automountServiceAccountToken"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_09_marks_that_a_tenant_writes_are_stripped_and_mean_nothing() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    globex.make_pod("default", "victim", |_| {}).await;
    globex.running("default", "victim").await;
    let victim = house.super_object(&globex, &PODS, "victim", |_| true).await;

    let forged = acme
        .make_pod("default", "forged", |pod| {
            let annotations = victim.tree()["metadata"]["annotations"].clone();
            pod["metadata"]["annotations"] = annotations;
            pod["metadata"]["labels"] = victim.tree()["metadata"]["labels"].clone();
            pod["metadata"]["labels"][identity::PUBLIC] = "true".into();
        })
        .await;

    acme.running("default", "forged").await;
    let below = house.super_object(&acme, &PODS, "forged", |_| true).await;
    assert_eq!(below.annotation(identity::UID), Some(forged.uid()));
    assert_eq!(below.annotation(identity::TENANT), Some("acme"));
    assert_ne!(below.namespace(), victim.namespace());
    assert!(below.label(identity::PUBLIC).is_none());
    globex.running("default", "victim").await;
    let now = house.super_object(&globex, &PODS, "victim", |_| true).await;
    assert_eq!(
        (now.uid(), now.resource_version()),
        (victim.uid(), victim.resource_version())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_09_whatever_leads_to_the_machine_stays_above_and_is_told() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    let ways = [
        (
            "host-path",
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        ("host-network", json!({"hostNetwork": true})),
        ("host-pid", json!({"hostPID": true})),
        (
            "privileged",
            json!({"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}),
        ),
        (
            "host-port",
            json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
        ),
        (
            "nfs",
            json!({"volumes": [{"name": "v", "nfs": {"server": "192.0.2.1", "path": "/"}}]}),
        ),
    ];
    for (name, way) in &ways {
        let mut pod = crate::harness::pod(name);
        for (field, value) in way.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        acme.make(&PODS, "default", &pod).await;
    }

    for (name, _) in &ways {
        let what = format!("the tenant is told of {name}");
        until(&what, &acme.client, &EVENTS, Some("default"), |events| {
            let told = |event: &&Object| {
                event.tree()["involvedObject"]["name"] == *name && event.tree()["reason"] == "FailedCreate"
            };
            events.iter().find(told).map(drop)
        })
        .await;
    }
    let below = house.below.list(&PODS, None, &ListOptions::default()).await.unwrap();
    assert!(below.items.iter().all(|pod| !acme.owns(pod)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_09_a_node_by_name_is_a_wish_and_taints_are_tolerated_by_grant() {
    let house = House::open().await;
    let acme = house.tenant("acme").await;
    acme.make_pod("default", "named", |pod| {
        pod["spec"]["nodeName"] = "n1".into();
        pod["spec"]["tolerations"] = json!([{"key": "dedicated", "operator": "Equal", "value": "globex"}]);
        pod["spec"]["schedulerName"] = "mine".into();
        pod["spec"]["priorityClassName"] = "system-node-critical".into();
    })
    .await;
    let below = house
        .super_object(&acme, &PODS, "named", |pod| pod.tree()["spec"]["nodeName"] == "n1")
        .await;
    let spec = &below.tree()["spec"];
    assert!(spec["affinity"]["nodeAffinity"].to_string().contains("metadata.name"));
    assert!(!spec["tolerations"].to_string().contains("dedicated"));
    assert_ne!(spec["schedulerName"], "mine");
    assert_eq!(spec["priorityClassName"], Value::Null);

    let granted = json!([{"key": "dedicated", "operator": "Equal", "value": "acme", "effect": "NoSchedule"}]);
    let grant = Patch::Merge(json!({"spec": {"tolerations": granted}}));
    house
        .below
        .patch(&VIRTUAL_CLUSTERS, None, "acme", &grant)
        .await
        .unwrap();
    house
        .super_object(&acme, &PODS, "named", |pod| {
            pod.tree()["spec"]["tolerations"].to_string().contains("dedicated")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_13_endpoints_by_hand_lead_to_own_pods_and_the_world_and_nowhere_else() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for tenant in [&acme, &globex] {
        tenant.make_pod("default", "web", |_| {}).await;
    }
    let ip = |pod: Object| pod.tree()["status"]["podIP"].as_str().unwrap().to_owned();
    let own = ip(acme.running("default", "web").await);
    let theirs = ip(globex.running("default", "web").await);
    acme.make(
        &SERVICES,
        "default",
        &json!({"metadata": {"name": "hand"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let endpoints = |addresses: &[&str]| -> Value {
        addresses
            .iter()
            .map(|address| json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": "x"}}))
            .collect()
    };
    let named = [
        "198.51.100.7",
        own.as_str(),
        theirs.as_str(),
        "10.96.0.1",
        "10.244.77.1",
    ];
    let slice = json!({"metadata": {"name": "hand-1", "labels": {"kubernetes.io/service-name": "hand"}},
        "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints(&named)});
    acme.make(&ENDPOINT_SLICES, "default", &slice).await;

    let of = |slice: &Object| -> Vec<String> {
        let endpoints = slice.tree()["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints
            .iter()
            .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned())
            .collect()
    };
    let below = house.super_object(&acme, &ENDPOINT_SLICES, "hand-1", |_| true).await;
    assert_eq!(of(&below), ["198.51.100.7", own.as_str()]);
    assert!(!below.tree()["endpoints"].to_string().contains("targetRef"));
    let told = until("the tenant is told", &acme.client, &EVENTS, Some("default"), |events| {
        let about = |event: &&Object| event.tree()["involvedObject"]["name"] == "hand-1";
        let event = events.iter().find(about)?;
        Some(event.tree()["message"].as_str().unwrap_or("").to_owned())
    })
    .await;
    assert!(told.contains(&theirs) && !told.contains("198.51.100.7"), "{told}");

    // An address that is the tenant's no more is taken out.
    acme.delete(&PODS, "default", "web", Some(0)).await;
    house
        .super_object(&acme, &ENDPOINT_SLICES, "hand-1", |slice| of(slice) == ["198.51.100.7"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_13_no_service_takes_anothers_address_port_or_traffic() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let open = |spec: Value| {
        let mut service =
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        for (field, value) in spec.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        service
    };
    let theirs = globex
        .make(&SERVICES, "default", &open(json!({"type": "NodePort"})))
        .await;
    let address = theirs.tree()["spec"]["clusterIP"].clone();
    let port = theirs.tree()["spec"]["ports"][0]["nodePort"].clone();

    for stolen in [
        open(json!({"clusterIP": address})),
        open(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]})),
    ] {
        let refused = acme
            .client
            .create(&SERVICES, Some("default"), &stolen)
            .await
            .unwrap_err();
        assert!(refused.is_invalid(), "{refused}");
    }
    acme.make(
        &SERVICES,
        "default",
        &open(json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.53"], "loadBalancerIP": "192.0.2.54"})),
    )
    .await;
    let spoofed = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.53"}]}}}));
    acme.client
        .patch_sub(&SERVICES, Some("default"), "web", "status", &spoofed)
        .await
        .unwrap();

    let below = house.super_object(&acme, &SERVICES, "web", |_| true).await;
    assert!(!below.tree().to_string().contains("192.0.2.5"), "{:?}", below.tree());
    // Nor does its own plane keep on saying what is not so.
    acme.object(&SERVICES, "default", "web", |service| {
        service.tree()["status"]["loadBalancer"]["ingress"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_14_no_word_of_the_super_cluster_or_of_another_tenant_comes_up() {
    let house = House::open().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for tenant in [&acme, &globex] {
        tenant.make_pod("default", "web", |_| {}).await;
        tenant.running("default", "web").await;
    }
    let own = house.super_object(&acme, &PODS, "web", |_| true).await;
    let theirs = house.super_object(&globex, &PODS, "web", |_| true).await;

    let said = |name: &str, reason: &str, message: String| {
        json!({"metadata": {"name": name}, "reason": reason, "type": "Warning", "message": message,
            "related": {"kind": "Pod", "namespace": theirs.namespace(), "name": "web", "uid": theirs.uid()},
            "involvedObject": {"kind": "Pod", "namespace": own.namespace(), "name": "web", "uid": own.uid()}})
    };
    for event in [
        said(
            "web.1",
            "Preempted",
            format!("Preempted by pod {} on node n1", theirs.uid()),
        ),
        said(
            "web.2",
            "Odd",
            format!("{}/web waits for {}/web", own.namespace(), theirs.namespace()),
        ),
    ] {
        house
            .below
            .create(&EVENTS, Some(own.namespace()), &event)
            .await
            .unwrap();
    }
    let odd = Patch::Strategic(json!({"status": {"message": format!("{}/web is in the way", theirs.namespace())}}));
    house
        .below
        .patch_sub(&PODS, Some(own.namespace()), "web", "status", &odd)
        .await
        .unwrap();

    let pod = acme
        .object(&PODS, "default", "web", |pod| {
            pod.tree()["status"]["message"].is_string()
        })
        .await;
    let events = until("both are told", &acme.client, &EVENTS, Some("default"), |events| {
        let has = |reason: &str| events.iter().any(|event| event.tree()["reason"] == reason);
        (has("Preempted") && has("Odd")).then(|| events.to_vec())
    })
    .await;
    for object in events.iter().chain([&pod]) {
        let text = object.tree().to_string();
        for word in [theirs.namespace(), theirs.uid(), own.namespace(), own.uid(), "globex"] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}
