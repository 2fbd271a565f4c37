//! The people's door without kubectl: one HTTP/2 connection with a credential, and what is sent over it byte by byte.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::{Certified, tls};
use rustls::pki_types::ServerName;
use serde_json::Value;
use testkit::kubectl::Kubectl;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a kubeconfig says.
#[derive(Clone)]
pub struct Access {
    pub address: SocketAddr,
    /// `/planes/<id>`, or nothing for the super plane.
    pub prefix: String,
    authority_pem: String,
    certified: Certified,
}

impl Access {
    pub fn of(kubectl: &Kubectl) -> Access {
        let config = kubectl.json(&["config", "view", "--raw", "--minify"]);
        let decode = |field: &Value| {
            let bytes = STANDARD.decode(field.as_str().expect("the kubeconfig has it")).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let server = cluster["server"].as_str().unwrap().strip_prefix("https://").unwrap();
        let (address, path) = server.split_once('/').unwrap_or((server, ""));
        Access {
            address: address.parse().unwrap(),
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("/{path}")
            },
            authority_pem: decode(&cluster["certificate-authority-data"]),
            certified: Certified {
                certificate_pem: decode(&user["client-certificate-data"]),
                key_pem: decode(&user["client-key-data"]),
            },
        }
    }

    pub async fn open(&self) -> std::io::Result<Door> {
        let config = tls::client_config(&self.authority_pem, Some(&self.certified)).map_err(std::io::Error::other)?;
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Door { sender })
    }
}

/// One connection.
pub struct Door {
    sender: SendRequest<Body>,
}

impl Door {
    pub async fn try_send(&mut self, request: Request<Body>) -> std::io::Result<(StatusCode, Bytes)> {
        let work = async {
            self.sender.ready().await?;
            let response: Response<_> = self.sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            Ok((parts.status, body.collect().await?.to_bytes()))
        };
        let answered: Result<Result<_, hyper::Error>, _> = tokio::time::timeout(PATIENCE, work).await;
        answered.map_err(std::io::Error::other)?.map_err(std::io::Error::other)
    }

    /// The status code, and the body as JSON (or as text where it is none).
    pub async fn send(&mut self, request: Request<Body>) -> (StatusCode, Value) {
        let line = format!("{} {}", request.method(), request.uri());
        let (status, body) = self
            .try_send(request)
            .await
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let value = serde_json::from_slice(&body);
        (
            status,
            value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())),
        )
    }

    pub async fn get(&mut self, path: &str) -> (StatusCode, Value) {
        self.send(request(Method::GET, path, "application/json", Bytes::new()))
            .await
    }

    pub async fn post(&mut self, path: &str, content_type: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
        self.send(request(Method::POST, path, content_type, body.into())).await
    }
}

pub fn request(method: Method, path: &str, content_type: &str, body: Bytes) -> Request<Body> {
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder()
        .method(method)
        .uri(format!("https://mangrove{path}"))
        .header("content-type", content_type);
    request.body(body).unwrap()
}

/// Runs asynchronous steps of a test on the test's own thread, which is the one on the test's machine.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}
