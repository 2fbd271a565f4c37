//! T4: tokens of others. T5: tokens and reviews that reach further. T6: certificates that say more.

use api::{Resource, resource::Scope};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use identity::{Claims, TokenKey};
use serde_json::{Value, json};

use super::arena::{Arena, WithCertificate, is_refusal};
use crate::harness::until;

fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_tokens_of_others_wrong_ones_and_forged_ones_are_refused() {
    let arena = Arena::open().await;
    let (acme, globex) = (&arena.acme, &arena.globex);
    let own = arena.token(acme, "default", json!({})).await.unwrap();
    let theirs = arena.token(globex, "robot", json!({})).await.unwrap();
    // The test itself tells tokens that are good.
    assert_eq!(arena.with_token(acme, &own).await, 403);
    assert_eq!(arena.with_token(globex, &theirs).await, 403);

    let their_claims = claims(&theirs);
    let own_key = TokenKey::from_pem(&arena.plane(acme).await.record.token_key_pem).unwrap();
    let their_key = TokenKey::from_pem(&arena.plane(globex).await.record.token_key_pem).unwrap();
    let mut forged = vec![
        ("of another tenant", own.clone()),
        (
            "signed by another, all of its claims",
            own_key.sign(&their_claims).unwrap(),
        ),
        (
            "for another audience",
            arena
                .token(globex, "robot", json!({"audiences": ["vault"]}))
                .await
                .unwrap(),
        ),
    ];
    let mut expired = their_claims.clone();
    (expired.exp, expired.iat, expired.nbf) = (1_000_000, 900_000, 900_000);
    forged.push(("expired", their_key.sign(&expired).unwrap()));
    let mut issuer = their_claims.clone();
    issuer.iss = "https://elsewhere.example".to_owned();
    forged.push(("of another issuer", their_key.sign(&issuer).unwrap()));
    let mut unbound = their_claims.clone();
    unbound.kubernetes.serviceaccount.uid = "6f8e1a1c-0000-4000-8000-000000000000".to_owned();
    forged.push(("of an account that is no more", their_key.sign(&unbound).unwrap()));
    // No algorithm, and the public key as a shared secret's.
    let payload = theirs.split('.').nth(1).unwrap();
    let id = their_key.public().id();
    for header in [
        json!({"alg": "none", "typ": "JWT"}),
        json!({"alg": "None", "kid": id}),
        json!({"alg": "HS256", "kid": id}),
        json!({"alg": "ES256", "kid": "../../../../etc/passwd"}),
        json!({"alg": "ES256", "kid": "'; drop table"}),
        json!({"alg": "ES256", "jwk": own_key.public().jwk()}),
        json!({"alg": "ES256", "jku": "http://127.0.0.1:1/keys"}),
    ] {
        let unsigned = format!("{}.{payload}", part(&header));
        let signature = theirs.split('.').nth(2).unwrap();
        forged.push(("unsigned", format!("{unsigned}.")));
        forged.push(("another's signature", format!("{unsigned}.{signature}")));
    }
    forged.push(("long", "a.".repeat(4000)));

    for (what, token) in &forged {
        assert!(
            is_refusal(arena.with_token(globex, token).await),
            "a token {what} was taken"
        );
    }
    for (what, token) in &forged {
        if *what != "of another tenant" {
            let code = arena.with_token(globex, token).await;
            assert!(matches!(code, 400 | 401 | 431), "a token {what} was known: {code}");
        }
    }
    // The super cluster knows none of them.
    let authorization = format!("Bearer {theirs}");
    let headers = [("Authorization", authorization.as_str())];
    let answer = arena
        .send_by(
            WithCertificate::None,
            "GET",
            "/api/v1/namespaces/default/secrets",
            &headers,
            "",
        )
        .await;
    assert_eq!(answer.code, 401, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t04_a_token_bound_to_a_pod_ends_with_it() {
    let arena = Arena::open().await;
    let acme = &arena.acme;
    let pod = acme.running("default", "pod-of-acme").await;
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()}});
    let token = arena.token(acme, "default", bound).await.unwrap();
    assert_eq!(arena.with_token(acme, &token).await, 403);

    acme.delete(&api::resource::PODS, "default", "pod-of-acme", Some(0))
        .await;
    acme.gone(&api::resource::PODS, "default", "pod-of-acme").await;

    assert_eq!(arena.with_token(acme, &token).await, 401);
    // Nor is one to be had for a Pod of another's.
    let theirs = arena.globex.running("default", "pod-of-globex").await;
    let bound =
        json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": theirs.name(), "uid": theirs.uid()}});
    arena.token(acme, "default", bound).await.unwrap_err();
}

const TOKEN_REVIEWS: Resource = Resource::built_in(
    "authentication.k8s.io",
    "v1",
    "tokenreviews",
    "TokenReview",
    Scope::Cluster,
);
const ACCESS_REVIEWS: Resource = Resource::built_in(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
    Scope::Cluster,
);
const SIGNING_REQUESTS: Resource = Resource::built_in(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    Scope::Cluster,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t05_what_a_plane_says_of_tokens_and_rights_is_of_itself_alone() {
    let arena = Arena::open().await;
    let (acme, globex) = (&arena.acme, &arena.globex);
    // A token for whatever audience is one of this plane's accounts, and good nowhere else.
    let root = arena.house.planes.server.planes().root().await.unwrap();
    let super_account = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let super_token = arena
        .house
        .below
        .create_sub(
            &api::resource::SERVICE_ACCOUNTS,
            Some("default"),
            "default",
            "token",
            &super_account,
        )
        .await
        .unwrap();
    let super_token = super_token.tree()["status"]["token"].as_str().unwrap().to_owned();
    let super_audiences = claims(&super_token).aud;
    assert!(!root.record.token_key_pem.is_empty());
    let borrowed = arena
        .token(acme, "default", json!({"audiences": super_audiences}))
        .await
        .unwrap();
    for (place, target) in [
        ("the super cluster", "/api/v1/pods".to_owned()),
        ("another tenant", format!("/planes/{}/api/v1/pods", globex.plane)),
    ] {
        let authorization = format!("Bearer {borrowed}");
        let headers = [("Authorization", authorization.as_str())];
        let answer = arena.send_by(WithCertificate::None, "GET", &target, &headers, "").await;
        assert_eq!(answer.code, 401, "{place}: {}", answer.text);
    }

    // Others' tokens mean nothing to a review; others' users are nobody here.
    let theirs = arena.token(globex, "robot", json!({})).await.unwrap();
    for token in [&theirs, &super_token] {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let answer = acme.client.create(&TOKEN_REVIEWS, None, &review).await.unwrap();
        let status = &answer.tree()["status"];
        assert_ne!(status["authenticated"], true, "{status}");
        assert!(status["user"].is_null() || status["user"] == json!({}), "{status}");
    }
    let probe = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "system:serviceaccount:default:robot", "groups": ["system:authenticated"],
        "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default", "name": "canary"}}});
    let answer = acme.client.create(&ACCESS_REVIEWS, None, &probe).await.unwrap();
    assert_ne!(answer.tree()["status"]["allowed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t06_no_signing_request_becomes_a_certificate_that_reaches_beyond() {
    let arena = Arena::open().await;
    let acme = &arena.acme;
    // Of a request for O=system:masters; nothing has to read it.
    let request = base64::engine::general_purpose::STANDARD
        .encode("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n");
    let mut made = Vec::new();
    for (number, signer) in [
        "kubernetes.io/kube-apiserver-client",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "kubernetes.io/kubelet-serving",
        "mangrove.example/super",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("steal-{number}");
        let body = json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer,
            "usages": ["client auth"], "username": "admin", "groups": ["system:masters"]}});
        let Ok(object) = acme.client.create(&SIGNING_REQUESTS, None, &body).await else {
            continue;
        };
        made.push(name.clone());
        let approved = client::Patch::Merge(json!({"metadata": {"uid": object.uid()}, "status": {"conditions": [
            {"type": "Approved", "status": "True", "reason": "x", "message": "x"}]}}));
        let _ = acme
            .client
            .patch_sub(&SIGNING_REQUESTS, None, &name, "approval", &approved)
            .await;
    }
    // Loops have been round since: a Pod made later runs.
    acme.make_pod("default", "later", |_| {}).await;
    acme.running("default", "later").await;
    until(
        "all requests are seen",
        &acme.client,
        &SIGNING_REQUESTS,
        None,
        |requests| {
            let unsigned = requests
                .iter()
                .all(|request| request.tree()["status"]["certificate"].is_null());
            assert!(unsigned, "one was signed");
            (requests.len() == made.len()).then_some(())
        },
    )
    .await;

    // A plane's own CA makes certificates for its own plane alone, whatever they say.
    let target = format!(
        "/planes/{}/api/v1/namespaces/default/secrets/canary",
        arena.globex.plane
    );
    assert_eq!(arena.send("GET", &target, &[], "").await.code, 401);
    assert_eq!(arena.send("GET", "/api/v1/nodes", &[], "").await.code, 401);
}
