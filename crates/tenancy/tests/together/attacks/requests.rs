//! T1: paths and headers that lead elsewhere. T3: revisions and tokens of others. T21: every route without a credential.

use api::resource::SECRETS;
use client::ListOptions;

use super::arena::{Arena, WithCertificate, is_refusal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_no_path_and_no_header_leads_to_another_plane() {
    let arena = Arena::open().await;
    let (own, theirs) = (arena.acme.plane, arena.globex.plane);
    let secrets = "api/v1/namespaces/default/secrets/canary";

    let upper = theirs.to_string().to_uppercase();
    for target in [
        format!("/planes/{theirs}/{secrets}"),
        format!("/planes/{own}/../{theirs}/{secrets}"),
        format!("/planes/{own}/%2e%2e/{theirs}/{secrets}"),
        format!("/planes/{own}%2f..%2f{theirs}/{secrets}"),
        format!("/planes/{own}/api/v1/namespaces/..%2f..%2f..%2f..%2f{theirs}/secrets/canary"),
        format!("/planes/{own}//planes/{theirs}/{secrets}"),
        format!("/planes/{own}/planes/{theirs}/{secrets}"),
        format!("//planes/{theirs}/{secrets}"),
        format!("/planes//{theirs}/{secrets}"),
        format!("/planes/{own};/planes/{theirs}/{secrets}"),
        format!("/planes/{upper}/{secrets}"),
        format!("/Planes/{theirs}/{secrets}"),
        format!("/planes/{theirs}%00/{secrets}"),
        "/planes/*/api/v1/secrets".to_owned(),
        "/planes/%2a/api/v1/secrets".to_owned(),
        "/planes/%2A/api/v1/secrets".to_owned(),
        format!("/{secrets}"),
        format!("/planes/{own}/api/v1/namespaces/default/secrets/..%2f..%2f{theirs}%2fdefault%2fcanary"),
        format!("https://other/planes/{theirs}/{secrets}"),
        format!("http://{theirs}.mangrove/planes/{theirs}/{secrets}"),
    ] {
        let answer = arena.send("GET", &target, &[], "").await;
        assert!(is_refusal(answer.code), "{target}: {}", answer.text);
    }
    let answer = arena.send("CONNECT", "127.0.0.1:2379", &[], "").await;
    assert!(is_refusal(answer.code), "{}", answer.text);

    // Headers that proxies set, and those of impersonation, on one's own plane and on the other.
    let theirs_path = format!("/planes/{theirs}/{secrets}");
    let own_path = format!("/planes/{own}/{secrets}");
    let robot = "system:serviceaccount:default:robot";
    for (name, value) in [
        ("Host", theirs.as_str()),
        ("X-Forwarded-Host", theirs.as_str()),
        ("X-Forwarded-Prefix", &format!("/planes/{theirs}")),
        ("X-Original-URL", theirs_path.as_str()),
        ("X-Rewrite-URL", theirs_path.as_str()),
        ("Forwarded", "for=127.0.0.1;host=localhost"),
        ("X-Forwarded-For", "127.0.0.1"),
    ] {
        assert_eq!(
            arena.send("GET", &theirs_path, &[(name, value)], "").await.code,
            401,
            "{name}"
        );
        // One's own plane has no such Secret, whatever the header says.
        assert_eq!(
            arena.send("GET", &own_path, &[(name, value)], "").await.code,
            404,
            "{name}"
        );
    }
    for (user, group) in [
        ("admin", "system:masters"),
        ("system:kube-controller-manager", "system:masters"),
        ("system:mangrove:syncer", "system:masters"),
        (robot, "system:serviceaccounts"),
    ] {
        let remote = [("X-Remote-User", user), ("X-Remote-Group", group)];
        let impersonate = [("Impersonate-User", user), ("Impersonate-Group", group)];
        for headers in [remote, impersonate] {
            let answer = arena.send("GET", &theirs_path, &headers, "").await;
            assert_eq!(answer.code, 401, "{headers:?}: {}", answer.text);
            let answer = arena
                .send_by(WithCertificate::None, "GET", &theirs_path, &headers, "")
                .await;
            assert!(is_refusal(answer.code), "{headers:?}: {}", answer.text);
            // On its own plane an administrator may be anybody, and is still on its own plane.
            let answer = arena.send("GET", &own_path, &headers, "").await;
            assert!(is_refusal(answer.code), "{headers:?}: {}", answer.text);
        }
    }
    arena.victim_is_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_a_request_hidden_in_another_is_none() {
    let arena = Arena::open().await;
    let (own, theirs) = (arena.acme.plane, arena.globex.plane);
    let hidden = format!("GET /planes/{theirs}/api/v1/namespaces/default/secrets/canary HTTP/1.1\r\nHost: x\r\n\r\n");
    let target = format!("/planes/{own}/api/v1/namespaces/default/configmaps");
    let length = hidden.len();
    for request in [
        // Two lengths, a length beside chunks, chunks under another name.
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nX: a\r\n {hidden}"),
    ] {
        let answer = arena.raw(WithCertificate::Own, request.as_bytes()).await;
        // If the hidden one was read as a request at all, it was judged as any other.
        let codes: Vec<&str> = answer.text.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
        assert!(codes.iter().all(|code| *code != "200"), "{codes:?}: {request}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t03_revisions_and_continue_tokens_of_another_plane_give_nothing_of_it() {
    let arena = Arena::open().await;
    for number in 0..4 {
        let secret = serde_json::json!({"metadata": {"name": format!("more-{number}")}, "stringData": {"a": super::arena::CANARY}});
        arena.globex.make(&SECRETS, "default", &secret).await;
    }
    let one = ListOptions {
        limit: Some(1),
        ..ListOptions::default()
    };
    let page = arena.globex.client.list(&SECRETS, Some("default"), &one).await.unwrap();
    let token = page.continue_token.expect("there is more");
    let revision = page.resource_version;
    let own = arena.acme.plane;

    let mut flipped = token.clone().into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let flipped = String::from_utf8_lossy(&flipped).into_owned();
    let mut queries: Vec<String> = [token.as_str(), &flipped, "forged", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"]
        .iter()
        .map(|token| format!("continue={token}&limit=500"))
        .collect();
    queries.extend([
        "resourceVersion=0".to_owned(),
        format!("resourceVersion={revision}&resourceVersionMatch=Exact"),
        format!("resourceVersion={revision}&resourceVersionMatch=NotOlderThan"),
        "fieldSelector=metadata.namespace%3Ddefault".to_owned(),
        "labelSelector=canary".to_owned(),
    ]);
    for query in queries {
        for path in ["api/v1/secrets", "api/v1/namespaces/default/secrets", "api/v1/pods"] {
            let answer = arena
                .send("GET", &format!("/planes/{own}/{path}?{query}"), &[], "")
                .await;
            assert!(
                answer.code == 200 || is_refusal(answer.code),
                "{path}?{query}: {}",
                answer.text
            );
            assert!(
                !answer.text.contains("globex") && !answer.text.contains("more-"),
                "{path}?{query}: {}",
                answer.text
            );
        }
    }
    // Watches from any revision begin with one's own and end by their time.
    for query in [
        "resourceVersion=0",
        &format!("resourceVersion={revision}"),
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
    ] {
        let target = format!("/planes/{own}/api/v1/secrets?watch=true&timeoutSeconds=1&{query}");
        let answer = arena.send("GET", &target, &[], "").await;
        assert!(
            !answer.text.contains("globex") && !answer.text.contains("more-"),
            "{query}: {}",
            answer.text
        );
    }
}

/// What anybody may ask, as upstream's `system:public-info-viewer` and its health endpoints have it.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t21_without_a_credential_every_route_is_closed() {
    let arena = Arena::open().await;
    let mut routes: Vec<String> = [
        "/",
        "/api",
        "/apis",
        "/api/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/metrics",
        "/metrics/cadvisor",
        "/debug/pprof",
        "/debug/pprof/profile",
        "/debug/flags/v",
        "/logs",
        "/logs/",
        "/configz",
        "/statusz",
        "/flagz",
        "/swagger.json",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
        "/livez/ping",
        "/healthz/etcd",
        "/readyz?verbose",
        "/ui",
        "/control/tenants/globex/kubeconfig",
        "/control/images",
        "/pods",
        "/runningpods",
        "/exec",
        "/run",
        "/planes",
        "/planes/",
        "/p/planes",
        "/registry/secrets",
    ]
    .map(str::to_owned)
    .into();
    // The rest from the server's own table of what it serves.
    for kind in arena.house.below.discover().await.unwrap() {
        routes.push(kind.resource.path(Some("default"), None));
        routes.push(kind.resource.path(Some("default"), Some("canary")));
        routes.push(kind.resource.path(None, None));
    }
    routes.sort();
    routes.dedup();
    assert!(routes.len() > 150, "{}", routes.len());

    for prefix in [String::new(), format!("/planes/{}", arena.globex.plane)] {
        for route in &routes {
            let is_health = ["/livez", "/readyz", "/healthz"]
                .iter()
                .any(|health| route.starts_with(health));
            for method in ["GET", "POST", "DELETE"] {
                let target = format!("{prefix}{route}");
                let body = if method == "POST" { "{}" } else { "" };
                let answer = arena.send_by(WithCertificate::None, method, &target, &[], body).await;
                if PUBLIC.contains(&route.as_str()) || is_health {
                    assert!(
                        answer.text.len() < 2000,
                        "{target} says more than that it is well: {}",
                        answer.text
                    );
                    continue;
                }
                assert!(
                    matches!(answer.code, 401 | 403 | 404 | 405),
                    "{method} {target}: {}",
                    answer.text
                );
                if matches!(answer.code, 404 | 405) {
                    assert!(!route.starts_with("/api"), "{method} {target}: {}", answer.text);
                }
            }
        }
    }
}
