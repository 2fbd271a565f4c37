//! The two doors of D8, over real TLS: who is known where, and who is not.

mod support;

use apiserver::{Body, Identity, full_body};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::json;
use streaming::{PodBackend, PodStream};
use support::{Connection, Fixture, at, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

#[tokio::test]
async fn on_one_connection_to_two_planes_each_request_is_judged_by_its_own_plane() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let (globex, _) = fixture.plane("globex").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);

    let mut connection = fixture.connect(Some(&admin)).await;

    assert_eq!(connection.get(&at(acme.id, "/apis")).await.0, StatusCode::OK);
    let (code, refusal) = connection.get(&at(globex.id, "/apis")).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert_eq!(refusal["reason"], "Unauthorized");
    assert_eq!(connection.get("/apis").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(connection.get(&at(acme.id, "/apis")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn strangers_see_health_and_version_and_nothing_else() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let mut connection = fixture.connect(None).await;

    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(connection.get(&at(acme.id, path)).await.0, StatusCode::OK, "{path}");
    }
    let (code, refusal) = connection.get(&at(acme.id, "/api/v1/namespaces/web/pods")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        refusal["message"],
        r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "web""#
    );
    assert_eq!(connection.get(&at(acme.id, "/metrics")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(
        connection.get("/planes/zzzzzzzzzzzzzzzz/version").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(connection.get("/planes/*/api/v1/pods").await.0, StatusCode::NOT_FOUND);
    let bad = [("authorization", "Bearer nonsense")];
    let (code, _) = connection.get_with(&at(acme.id, "/version"), &bad).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_pods_token_is_good_at_its_own_planes_door_alone() {
    let fixture = Fixture::start().await;
    let (acme, acme_door) = fixture.plane("acme").await;
    let (globex, globex_door) = fixture.plane("globex").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let mut people = fixture.connect(Some(&admin)).await;
    let (code, asked) = people
        .post(
            &at(acme.id, "/api/v1/namespaces/default/serviceaccounts/default/token"),
            &json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}}),
        )
        .await;
    assert_eq!(code, StatusCode::CREATED, "{asked}");
    let bearer = format!("Bearer {}", asked["status"]["token"].as_str().unwrap());
    let token = [("authorization", bearer.as_str())];

    let mut own = Connection::open(acme_door, "kubernetes.default.svc", &acme.ca_cert_pem, None).await;
    let mut other = Connection::open(globex_door, "kubernetes", &globex.ca_cert_pem, None).await;

    assert_eq!(own.get_with("/apis", &token).await.0, StatusCode::OK);
    assert_eq!(other.get_with("/apis", &token).await.0, StatusCode::UNAUTHORIZED);
    // The path never chooses a plane there.
    assert_eq!(
        own.get_with(&at(acme.id, "/apis"), &token).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        other.get_with(&at(acme.id, "/apis"), &token).await.0,
        StatusCode::NOT_FOUND
    );
    // By people's door too, at its own plane.
    let mut people = fixture.connect(None).await;
    assert_eq!(people.get_with(&at(acme.id, "/apis"), &token).await.0, StatusCode::OK);
    assert_eq!(
        people.get_with(&at(globex.id, "/apis"), &token).await.0,
        StatusCode::UNAUTHORIZED
    );
    let path = "/api/v1/namespaces/default/secrets";
    assert_eq!(own.get_with(path, &token).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_pods_door_has_its_planes_certificate_for_the_standard_names_and_the_address() {
    let fixture = Fixture::start().await;
    let (acme, door) = fixture.plane("acme").await;
    let (globex, _) = fixture.plane("globex").await;
    let address = acme.kubernetes_service_ip.to_string();

    for name in ["kubernetes", "kubernetes.default.svc.cluster.local", &address] {
        let opened = Connection::try_open(door, name, &acme.ca_cert_pem, None).await;
        assert!(opened.is_ok(), "{name}");
    }
    for (name, authority) in [("example.com", &acme.ca_cert_pem), ("kubernetes", &globex.ca_cert_pem)] {
        let opened = Connection::try_open(door, name, authority, None).await;
        assert!(opened.is_err(), "{name}");
    }
}

#[tokio::test]
async fn bad_bodies_get_a_status_and_the_connection_goes_on() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let mut connection = fixture.connect(Some(&admin)).await;
    let path = at(acme.id, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
    let deep = format!("{{\"spec\":{}", "[".repeat(1_000_000));

    for (media, body, expected) in [
        ("application/json", Bytes::from_static(b"{"), 400),
        ("application/json", Bytes::from_static(b"[]"), 400),
        ("application/json", Bytes::from_static(b"\xff\xfe"), 400),
        ("application/json", Bytes::from(deep.clone()), 400),
        ("application/yaml", Bytes::from(deep), 400),
        ("application/json", Bytes::from(vec![b' '; (3 << 20) + 1]), 413),
        ("application/vnd.kubernetes.protobuf", Bytes::from_static(b"{}"), 400),
        ("application/cbor", Bytes::from_static(b"\xd9\xd9\xf7"), 415),
    ] {
        let response = connection
            .send(request(Method::POST, &path, &[("content-type", media)], body))
            .await;
        assert_eq!(response.status().as_u16(), expected, "{media}");
        let status: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(status["kind"], "Status");
        assert!(response.headers().contains_key("audit-id"));
    }
    assert_eq!(connection.get(&at(acme.id, "/version")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn discovery_comes_in_both_forms_and_has_a_tag() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let mut connection = fixture.connect(Some(&admin)).await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

    let (_, legacy) = connection.get(&at(acme.id, "/apis")).await;
    let first = connection
        .send(request(
            Method::GET,
            &at(acme.id, "/apis"),
            &[("accept", aggregated)],
            Bytes::new(),
        ))
        .await;

    assert_eq!(legacy["kind"], "APIGroupList");
    let tree: serde_json::Value = serde_json::from_slice(first.body()).unwrap();
    assert_eq!(tree["kind"], "APIGroupDiscoveryList");
    let tag = first.headers()["etag"].to_str().unwrap();
    let again = connection
        .send(request(
            Method::GET,
            &at(acme.id, "/apis"),
            &[("accept", aggregated), ("if-none-match", tag)],
            Bytes::new(),
        ))
        .await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let (code, pods) = connection.get(&at(acme.id, "/api/v1")).await;
    assert_eq!((code, &pods["kind"]), (StatusCode::OK, &json!("APIResourceList")));
}

#[tokio::test]
async fn who_may_impersonate_acts_as_others_and_who_may_not_is_told() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let jane = fixture.user(&acme, "jane", &[]);
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let path = at(acme.id, "/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let as_joe = [
        ("impersonate-user", "joe"),
        ("impersonate-group", "dev"),
        ("content-type", "application/json"),
    ];
    let ask = || request(Method::POST, &path, &as_joe, review.to_string().into());

    let allowed = fixture.connect(Some(&admin)).await.send(ask()).await;
    let refused = fixture.connect(Some(&jane)).await.send(ask()).await;

    let answer: serde_json::Value = serde_json::from_slice(allowed.body()).unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "joe");
    assert_eq!(
        answer["status"]["userInfo"]["groups"],
        json!(["dev", "system:authenticated"])
    );
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let refusal: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(
        refusal["message"],
        r#"users "joe" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
}

#[tokio::test]
async fn callers_in_process_are_known_and_still_authorized() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let ask = |path: &str, who: Identity| {
        let mut asked: http::Request<Body> = http::Request::builder()
            .uri(path)
            .body(full_body(Bytes::new()))
            .unwrap();
        asked.extensions_mut().insert(who);
        fixture.server.clone().oneshot(asked)
    };
    let nobody = || Identity::new("nobody", &["system:authenticated"]);
    let master = || Identity::new("mangrove", &["system:masters"]);

    let secrets = at(acme.id, "/api/v1/secrets");
    assert_eq!(ask(&secrets, nobody()).await.unwrap().status(), StatusCode::FORBIDDEN);
    let all = "/planes/*/api/v1/pods";
    assert_eq!(ask(all, nobody()).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_ne!(ask(all, master()).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn access_reviews_answer_by_the_planes_own_roles() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let mut connection = fixture.connect(Some(&admin)).await;
    let path = at(acme.id, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    let review = |user: &str, verb: &str, resource: &str| {
        json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {
            "user": user, "groups": ["system:authenticated"],
            "resourceAttributes": {"verb": verb, "resource": resource, "group": ""}}})
    };

    let (_, scheduler) = connection
        .post(&path, &review("system:kube-scheduler", "list", "pods"))
        .await;
    let (_, joe) = connection.post(&path, &review("joe", "list", "pods")).await;

    assert_eq!(scheduler["status"]["allowed"], true);
    assert_eq!(
        scheduler["status"]["reason"],
        r#"RBAC: allowed by ClusterRoleBinding "system:kube-scheduler" of ClusterRole "system:kube-scheduler" to User "system:kube-scheduler""#
    );
    assert_eq!(joe["status"]["allowed"], false);
}

#[tokio::test]
async fn a_watch_is_counted_for_as_long_as_it_lasts() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let gauge = || {
        let text = fixture.server.edge().metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with("apiserver_longrunning_requests{"));
        line.map(str::to_owned)
    };
    let mut sender = support::http1(&fixture, Some(&admin)).await;
    let watch = request(
        Method::GET,
        &at(acme.id, "/api/v1/configmaps?watch=1"),
        &[("host", "localhost")],
        Bytes::new(),
    );

    let mut response = sender.send_request(watch).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"type\":\"ADDED\""));
    assert_eq!(gauge().unwrap(), "apiserver_longrunning_requests{verb=\"WATCH\"} 1");

    drop((response, sender));
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while gauge().unwrap() != "apiserver_longrunning_requests{verb=\"WATCH\"} 0" {
        assert!(tokio::time::Instant::now() < patience, "the watch never ends");
        tokio::task::yield_now().await;
    }
}

/// Upgrades whatever comes and says back what it hears.
struct Echo;

#[async_trait::async_trait]
impl PodBackend for Echo {
    async fn stream(&self, stream: PodStream) -> http::Response<Body> {
        let said = format!("{}/{}/{}", stream.plane, stream.namespace, stream.name);
        let mut request = stream.request;
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        http::Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .header("x-pod", said)
            .body(full_body(Bytes::new()))
            .unwrap()
    }
}

#[tokio::test]
async fn an_upgrade_into_a_pod_passes_the_whole_edge() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    fixture.server.set_pod_backend(std::sync::Arc::new(Echo));
    let admin = fixture.user(&acme, "admin", &["system:masters"]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "one", "image": "one:1"}]}});
    let pods = at(acme.id, "/api/v1/namespaces/default/pods");
    let (code, made) = fixture.connect(Some(&admin)).await.post(&pods, &pod).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let mut sender = support::http1(&fixture, Some(&admin)).await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "echo"), ("host", "localhost")];
    let ask = |sender: &mut hyper::client::conn::http1::SendRequest<Body>, path: &str| {
        sender.send_request(request(Method::POST, path, &upgrade, Bytes::new()))
    };

    let refused = ask(&mut sender, &format!("{pods}/two/exec?command=sh")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    drop(refused);
    let mut sender = support::http1(&fixture, Some(&admin)).await;
    let mut response = ask(&mut sender, &format!("{pods}/one/exec?command=sh")).await.unwrap();

    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-pod"], format!("{}/default/one", acme.id));
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn a_closed_door_lets_requests_finish_and_takes_no_more() {
    let fixture = Fixture::start().await;
    let (acme, _) = fixture.plane("acme").await;
    let mut connection = fixture.connect(None).await;
    assert_eq!(connection.get(&at(acme.id, "/version")).await.0, StatusCode::OK);

    fixture.close();

    let mut tries = 0;
    while tokio::net::TcpStream::connect(fixture.address).await.is_ok() {
        tokio::task::yield_now().await;
        tries += 1;
        assert!(tries < 10_000, "the door is still open");
    }
}
