//! T11: the node proxy and its like. T12: streams into another's Pods. T14: Services, Ingresses and endpoints that catch what is
//! another's. T22: what is left of one that was deleted.

use api::resource::{ENDPOINT_SLICES, ENDPOINTS, INGRESSES, NODES, PODS, SECRETS, SERVICES, VIRTUAL_CLUSTERS};
use client::{DeleteOptions, ListOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::arena::{Arena, CANARY, WithCertificate, is_refusal};

const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_no_proxy_leads_to_a_machine_or_beyond() {
    let arena = Arena::open().await;
    let own = arena.acme.plane;
    let mut targets: Vec<String> = [
        "pods",
        "runningpods/",
        "logs/",
        "logs/../../etc/shadow",
        "configz",
        "debug/pprof/",
        "metrics",
        "metrics/cadvisor",
        "run/default/pod-of-globex/main",
        "exec/default/pod-of-globex/main",
        "containerLogs/default/pod-of-globex/main",
        "checkpoint/default/pod-of-globex/main",
        "stats/summary",
        "spec/",
        "healthz",
        "",
    ]
    .iter()
    .map(|path| format!("api/v1/nodes/n1/proxy/{path}"))
    .collect();
    targets.extend(
        [
            "api/v1/nodes/n1:10250/proxy/pods",
            "api/v1/nodes/https:n1:10250/proxy/pods",
            "api/v1/nodes/127.0.0.1:2379/proxy/",
            "api/v1/proxy/nodes/n1/pods",
            "api/v1/namespaces/default/pods/pod-of-acme/proxy/",
            "api/v1/namespaces/default/pods/pod-of-acme:22/proxy/",
            "api/v1/namespaces/default/pods/http:pod-of-acme:80/proxy/",
            "api/v1/namespaces/default/services/kubernetes/proxy/",
            "api/v1/namespaces/default/services/https:kubernetes:443/proxy/api/v1/secrets",
            "api/v1/namespaces/default/services/169.254.169.254:80/proxy/latest/meta-data",
            "api/v1/nodes/n1/log",
            "api/v1/nodes/n1/exec",
        ]
        .map(str::to_owned),
    );
    for target in &targets {
        for method in ["GET", "POST"] {
            let answer = arena.send(method, &format!("/planes/{own}/{target}"), &[], "").await;
            assert!(
                is_refusal(answer.code) || answer.code == 501,
                "{method} {target}: {}",
                answer.text
            );
        }
        let answer = arena
            .send("GET", &format!("/planes/{own}/{target}"), &UPGRADE, "")
            .await;
        assert!(
            is_refusal(answer.code) || answer.code == 501,
            "{target}: {}",
            answer.text
        );
    }
    // No node of one's own with somebody's address either (CVE-2022-3294's class), nor a changed one.
    let spoofed = json!({"metadata": {"name": "spoofed"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    let made = arena.acme.client.create(&NODES, None, &spoofed).await.unwrap_err();
    assert!(made.to_string().contains("can't be changed here"), "{made}");
    let changed =
        client::Patch::Merge(json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}));
    arena
        .acme
        .client
        .patch_sub(&NODES, None, "n1", "status", &changed)
        .await
        .unwrap_err();
    assert!(arena.reached.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_no_stream_reaches_another_tenants_pod() {
    let arena = Arena::open().await;
    let own = arena.acme.plane;
    let theirs = arena
        .house
        .super_object(&arena.globex, &PODS, "pod-of-globex", |_| true)
        .await;
    let theirs_above = arena.globex.running("default", "pod-of-globex").await;
    // One of the attacker's own by the same name, in a namespace called as the victim's below: it is reached, and it alone.
    for way in ["log", "exec?command=sh", "attach", "portforward?ports=80"] {
        for pod in [
            format!("default/pods/pod-of-globex/{way}"),
            format!("{}/pods/pod-of-globex/{way}", theirs.namespace()),
            format!("default/pods/{}/{way}", theirs.uid()),
            format!("default/pods/{}/{way}", theirs_above.uid()),
            format!("default/pods/pod-of-acme%2f..%2fpod-of-globex/{way}"),
            format!("default/pods/..%2f{}%2fpod-of-globex/{way}", theirs.namespace()),
        ] {
            let target = format!("/planes/{own}/api/v1/namespaces/{pod}");
            let answer = arena.send("GET", &target, &[], "").await;
            assert!(is_refusal(answer.code), "{target}: {}", answer.text);
            let answer = arena.send("GET", &target, &UPGRADE, "").await;
            assert!(is_refusal(answer.code), "{target}: {}", answer.text);
        }
    }
    let target = format!("/planes/{own}/api/v1/namespaces/default/pods/pod-of-acme/log");
    assert_eq!(
        arena.send("GET", &target, &[], "").await.code,
        200,
        "its own is reached"
    );
    let reached = arena.reached.lock().unwrap().clone();
    assert_eq!(reached.len(), 1, "{reached:?}");
    arena.victim_is_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_after_an_upgrade_that_failed_the_next_request_is_judged_like_any_other() {
    let arena = Arena::open().await;
    let (own, theirs) = (arena.acme.plane, arena.globex.plane);
    // CVE-2018-1002105's class: the connection must not be left open to the backend.
    let mut stream = arena.connect(WithCertificate::Own).await;
    let mut first = format!(
        "GET /planes/{own}/api/v1/namespaces/default/pods/nothing/exec?command=sh HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    );
    for (name, value) in UPGRADE {
        first.push_str(&format!("{name}: {value}\r\n"));
    }
    first.push_str("\r\n");
    let second = format!(
        "GET /planes/{theirs}/api/v1/namespaces/default/secrets/canary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\
         GET /exec/{theirs}/pod-of-globex/main?command=id HTTP/1.1\r\nHost: x\r\n\r\n"
    );
    stream.write_all(first.as_bytes()).await.unwrap();
    let _ = stream.write_all(second.as_bytes()).await;
    let mut received = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut received)).await;
    let text = String::from_utf8_lossy(&received);

    assert!(!text.contains(CANARY), "{text}");
    let codes: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert!(
        !codes.is_empty() && codes.iter().all(|code| code.starts_with('4')),
        "{text}"
    );
    arena.victim_is_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_nothing_of_a_tenants_catches_what_is_sent_to_another() {
    let arena = Arena::open().await;
    let (acme, globex) = (&arena.acme, &arena.globex);
    let victim =
        json!({"metadata": {"name": "shop"}, "spec": {"selector": {"app": "pod-of-globex"}, "ports": [{"port": 80}]}});
    let victim = globex.make(&SERVICES, "default", &victim).await;
    let address = victim.tree()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let their_pod = globex.running("default", "pod-of-globex").await;
    let their_ip = their_pod.tree()["status"]["podIP"].as_str().unwrap().to_owned();

    // Its address, by all fields that have one.
    let stolen = json!({"metadata": {"name": "stolen"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    acme.client
        .create(&SERVICES, Some("default"), &stolen)
        .await
        .unwrap_err();
    let external = json!({"metadata": {"name": "external"}, "spec": {"type": "LoadBalancer", "externalIPs": [address, "8.8.8.8"],
        "loadBalancerIP": address, "loadBalancerSourceRanges": ["0.0.0.0/0"], "ports": [{"port": 80}]}});
    acme.make(&SERVICES, "default", &external).await;
    // A way to its Pod, and to the machine.
    acme.make(
        &SERVICES,
        "default",
        &json!({"metadata": {"name": "hand"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    let targets = [
        their_ip.as_str(),
        "127.0.0.1",
        "169.254.169.254",
        "10.96.0.1",
        "::1",
        "0.0.0.0",
    ];
    for (number, target) in targets.iter().enumerate() {
        let family = if target.contains(':') { "IPv6" } else { "IPv4" };
        let slice = json!({"metadata": {"name": format!("hand-{number}"), "labels": {"kubernetes.io/service-name": "hand"}},
            "addressType": family, "ports": [{"port": 80}], "endpoints": [{"addresses": [target]}]});
        // Its own plane may refuse it.
        let _ = acme.client.create(&ENDPOINT_SLICES, Some("default"), &slice).await;
        let endpoints = json!({"metadata": {"name": "hand"}, "subsets": [{"addresses": [{"ip": target}], "ports": [{"port": 80}]}]});
        let _ = acme.client.create(&ENDPOINTS, Some("default"), &endpoints).await;
        let options = DeleteOptions::default();
        let _ = acme.client.delete(&ENDPOINTS, Some("default"), "hand", &options).await;
    }
    let ingress = json!({"metadata": {"name": "steal"}, "spec": {"rules": [{"host": "globex.example", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "hand", "port": {"number": 80}}}}]}}]}});
    acme.make(&INGRESSES, "default", &ingress).await;
    acme.make_pod("default", "after", |_| {}).await;
    acme.running("default", "after").await;
    arena.house.super_object(acme, &SERVICES, "hand", |_| true).await;
    let external = arena.house.super_object(acme, &SERVICES, "external", |_| true).await;

    let text = external.tree().to_string();
    assert!(!text.contains("8.8.8.8") && !text.contains(&address), "{text}");
    for kind in [&ENDPOINT_SLICES, &ENDPOINTS] {
        let below = arena
            .house
            .below
            .list(kind, None, &ListOptions::default())
            .await
            .unwrap();
        for object in below.items.iter().filter(|object| acme.owns(object)) {
            let text = object.tree()["endpoints"].to_string() + &object.tree()["subsets"].to_string();
            for target in targets {
                assert!(!text.contains(&format!("\"{target}\"")), "{target} is in {text}");
            }
        }
    }
    let below = arena
        .house
        .below
        .list(&INGRESSES, None, &ListOptions::default())
        .await
        .unwrap();
    assert!(below.items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t22_a_tenant_of_a_name_that_was_anothers_finds_nothing_of_it() {
    let arena = Arena::open().await;
    let old = arena.globex.plane;
    let old_token = arena.token(&arena.globex, "robot", json!({})).await.unwrap();
    let admin_before = arena.house.planes.root().plane(old);

    // While it is deleted things are made in it: none of them is left.
    let options = DeleteOptions::default();
    arena
        .house
        .below
        .delete(&VIRTUAL_CLUSTERS, None, "globex", &options)
        .await
        .unwrap();
    for number in 0..20 {
        let secret = json!({"metadata": {"name": format!("late-{number}")}, "stringData": {"a": CANARY}});
        let _ = admin_before.create(&SECRETS, Some("default"), &secret).await;
        let pod = crate::harness::pod(&format!("late-{number}"));
        let _ = admin_before.create(&PODS, Some("default"), &pod).await;
    }
    crate::harness::until("it is gone", &arena.house.below, &VIRTUAL_CLUSTERS, None, |clusters| {
        (!clusters.iter().any(|cluster| cluster.name() == "globex")).then_some(())
    })
    .await;

    let new = arena.house.tenant("globex").await;
    assert_ne!(new.plane, old);
    let secrets = new.client.list(&SECRETS, None, &ListOptions::default()).await.unwrap();
    assert!(
        !secrets
            .items
            .iter()
            .any(|secret| secret.tree().to_string().contains("canary"))
    );
    // Neither its old token nor the plane's own old address leads anywhere.
    assert_eq!(arena.with_token(&new, &old_token).await, 401);
    let target = format!("/planes/{old}/api/v1/namespaces/default/secrets");
    let authorization = format!("Bearer {old_token}");
    let answer = arena
        .send_by(
            WithCertificate::None,
            "GET",
            &target,
            &[("Authorization", &authorization)],
            "",
        )
        .await;
    assert_eq!(answer.code, 404, "{}", answer.text);
    // Below nothing of the old one is left, in whatever kind.
    assert_eq!(arena.house.all_below(&arena.globex).await, Vec::<String>::new());
    new.make_pod("default", "reads", |pod| {
        pod["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "canary", "optional": true}}]);
    })
    .await;
    new.running("default", "reads").await;
    let below = arena
        .house
        .below
        .list(&SECRETS, None, &ListOptions::default())
        .await
        .unwrap();
    assert!(
        !below
            .items
            .iter()
            .any(|secret| secret.tree().to_string().contains(CANARY) || secret.name() == "canary")
    );
}
