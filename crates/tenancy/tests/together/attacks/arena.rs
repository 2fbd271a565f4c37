//! Two tenants on one platform, the people's door over TLS, and a recorder in place of the nodes. What the attacker receives is
//! searched for what only the victim knows.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::resource::{CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS};
use apiserver::{Plane, serve_people};
use async_trait::async_trait;
use client::{Source, Sources};
use http::Response;
use identity::{Ca, Certified, SubjectName, tls};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use streaming::{Body, PodBackend, PodStream};
use tenancy::NodeProxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{House, Tenant};

const DAY: Duration = Duration::from_secs(24 * 3600);
const PATIENCE: Duration = Duration::from_secs(30);

/// What only the victim has.
pub const CANARY: &str = "CANARY-7f3a91";

pub struct Arena {
    pub house: House,
    /// The attacker, administrator of its own plane.
    pub acme: Tenant,
    /// The victim.
    pub globex: Tenant,
    /// Pods that were streamed into: `super namespace/name`.
    pub reached: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
    authority_pem: String,
    admin: Certified,
    _stop: DropGuard,
}

struct Recorder(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl PodBackend for Recorder {
    async fn stream(&self, stream: PodStream) -> Response<Body> {
        let reached = format!("{}/{}", stream.namespace, stream.name);
        self.0.lock().unwrap().push(reached);
        Response::new(streaming::body::full("reached"))
    }
}

/// An answer: its code, and everything that was received.
pub struct Answer {
    pub code: u16,
    pub text: String,
}

impl Arena {
    pub async fn open() -> Arena {
        let house = House::open().await;
        let acme = house.tenant("acme").await;
        let globex = house.tenant("globex").await;
        let secret = json!({"metadata": {"name": "canary"}, "stringData": {"canary": CANARY}});
        globex.make(&SECRETS, "default", &secret).await;
        let settings = json!({"metadata": {"name": "canary"}, "data": {"canary": CANARY}});
        globex.make(&CONFIG_MAPS, "default", &settings).await;
        globex
            .make(&SERVICE_ACCOUNTS, "default", &json!({"metadata": {"name": "robot"}}))
            .await;
        for tenant in [&acme, &globex] {
            tenant
                .make_pod("default", &format!("pod-of-{}", tenant.name), |pod| {
                    pod["metadata"]["labels"]["canary"] = match tenant.name.as_str() {
                        "globex" => CANARY.into(),
                        _ => "none".into(),
                    };
                    pod["spec"]["volumes"] =
                        json!([{"name": "c", "secret": {"secretName": "canary", "optional": true}}]);
                })
                .await;
            tenant.running("default", &format!("pod-of-{}", tenant.name)).await;
        }

        let server = house.planes.server.clone();
        let reached = Arc::new(Mutex::new(Vec::new()));
        let shared = Source::Shared {
            id: house.planes.shared.clone(),
            client: house.below.clone(),
        };
        server.set_pod_backend(Arc::new(NodeProxy {
            super_client: house.below.clone(),
            planes: Sources::new(house.planes.world.clone(), [shared]),
            super_plane: house.planes.root.plane,
            super_cluster: house.super_cluster(),
            tenants: house.provisioner(),
            inner: Arc::new(Recorder(reached.clone())),
        }));
        let world = house.planes.world.clone();
        let (now, random) = (world.clock.wall(), &*world.random);
        let serving = Ca::generate("serving", now, random).unwrap();
        let names = [SubjectName::of("127.0.0.1")];
        let certificate = serving.issue_server("mangrove", &names, DAY, now, random).unwrap();
        let rotating = Arc::new(tls::Rotating::new(&certificate).unwrap());
        let config = tls::server_config(rotating, tls::ClientCertificates::Requested).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve_people(listener, config, server.clone(), stop.clone()));
        let plane = server.planes().open(acme.plane).await.unwrap();
        let ca = Ca::from_pem(&plane.record.ca_cert_pem, &plane.record.ca_key_pem).unwrap();
        let admin = ca.issue_client("admin", &["system:masters"], DAY, now, random).unwrap();
        Arena {
            house,
            acme,
            globex,
            reached,
            address,
            authority_pem: serving.certificate_pem().to_owned(),
            admin,
            _stop: stop.drop_guard(),
        }
    }

    pub async fn plane(&self, tenant: &Tenant) -> Arc<Plane> {
        self.house.planes.server.planes().open(tenant.plane).await.unwrap()
    }

    /// A TLS connection of HTTP/1.1, by the attacker's certificate or by none.
    pub async fn connect(&self, with_certificate: WithCertificate) -> TlsStream<TcpStream> {
        let own = (with_certificate == WithCertificate::Own).then_some(&self.admin);
        let mut config = tls::client_config(&self.authority_pem, own).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Sends bytes as they are, and reads all that comes until the other side ends. None of it is the victim's.
    pub async fn raw(&self, with_certificate: WithCertificate, request: &[u8]) -> Answer {
        let mut stream = self.connect(with_certificate).await;
        stream.write_all(request).await.unwrap();
        let mut received = Vec::new();
        // However it ends: what was received is what counts.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut received)).await;
        let text = String::from_utf8_lossy(&received).into_owned();
        assert!(
            !text.contains(CANARY),
            "the victim's secret is in the answer to {:?}",
            String::from_utf8_lossy(request)
        );
        let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { code, text }
    }

    /// One request as the attacker, with headers besides.
    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_by(WithCertificate::Own, method, target, headers, body).await
    }

    pub async fn send_by(
        &self,
        with_certificate: WithCertificate,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request.push_str("Host: mangrove\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.raw(with_certificate, request.as_bytes()).await
    }

    /// A token as the bearer's, at a plane.
    pub async fn with_token(&self, tenant: &Tenant, token: &str) -> u16 {
        let target = format!("/planes/{}/api/v1/namespaces/default/secrets", tenant.plane);
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", authorization.as_str())];
        self.send_by(WithCertificate::None, "GET", &target, &headers, "")
            .await
            .code
    }

    pub async fn token(&self, tenant: &Tenant, account: &str, spec: Value) -> Result<String, client::Error> {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let answer = tenant
            .client
            .create_sub(&SERVICE_ACCOUNTS, Some("default"), account, "token", &body)
            .await?;
        Ok(answer.tree()["status"]["token"].as_str().unwrap().to_owned())
    }

    /// The victim's Pod is as it was, and nobody has been in it.
    pub async fn victim_is_untouched(&self) {
        let pod = self.globex.running("default", "pod-of-globex").await;
        assert!(!pod.is_deleting());
        let below = self
            .house
            .super_object(&self.globex, &PODS, "pod-of-globex", |_| true)
            .await;
        let reached = self.reached.lock().unwrap().clone();
        assert!(
            !reached.iter().any(|one| one.starts_with(below.namespace())),
            "{reached:?}"
        );
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WithCertificate {
    Own,
    None,
}

pub fn is_refusal(code: u16) -> bool {
    matches!(
        code,
        400 | 401 | 403 | 404 | 405 | 406 | 410 | 413 | 414 | 415 | 422 | 431
    )
}
