//! The control socket: how commands of this program reach the running platform. The super plane's API as its
//! administrator, and kubeconfigs of tenants. Only root can open it; that is the whole authentication.

use std::{
    convert::Infallible,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use anyhow::Context;
use apiserver::{ApiServer, Body, Identity};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::wiring::{
    images::Images,
    kubeconfigs::{Access, Kubeconfigs},
};

/// A tenant's credential is asked for at `/control/tenants/<name>/kubeconfig`.
const TENANTS: &str = "/control/tenants/";

pub struct Control {
    pub api: ApiServer,
    pub kubeconfigs: Arc<Kubeconfigs>,
    pub images: Images,
}

/// Requests on the control socket are small.
const BODY_BYTES_MAX: usize = 64 << 10;

impl Control {
    /// Listens on the socket (in place of a killed platform's) and returns what serves it until cancelled.
    pub fn serve(self, socket: PathBuf, stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).with_context(|| format!("can't listen on {}", socket.display()))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("can't close {} to others", socket.display()))?;
        Ok(async move {
            self.accept(listener, &stop).await;
            let _ = std::fs::remove_file(&socket);
        })
    }

    async fn accept(self, listener: UnixListener, stop: &CancellationToken) {
        let control = Arc::new(self);
        let connections = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "the control socket can't accept");
                        continue;
                    }
                },
            };
            let (control, stop) = (control.clone(), stop.clone());
            connections.spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let control = control.clone();
                    // Boxed, or the compiler loses sight of its being `Send` (rust#100013).
                    let answer: BoxFuture<'static, _> = Box::pin(control.answer(request));
                    answer
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = stop.cancelled() => {}
                    done = connection => if let Err(error) = done {
                        tracing::debug!(%error, "a control connection ended");
                    },
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    /// What is not of the Kubernetes API.
    async fn control(&self, request: Request<hyper::body::Incoming>) -> anyhow::Result<Value> {
        let path = request.uri().path().to_owned();
        if let Some(name) = path
            .strip_prefix(TENANTS)
            .and_then(|rest| rest.strip_suffix("/kubeconfig"))
        {
            let access = self.kubeconfigs.tenant(name).await?;
            return Ok(serde_json::to_value(
                access.with_context(|| format!("there is no tenant {name:?}"))?,
            )?);
        }
        match (request.method(), path.as_str()) {
            (&Method::GET, "/control/images") => Ok(self.images.list()),
            (&Method::POST, "/control/images") => {
                let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
                let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
                let body: Value = serde_json::from_slice(&body).context("reading the request")?;
                self.images
                    .import(Path::new(body["archive"].as_str().context("which archive?")?))
                    .await
            }
            _ => anyhow::bail!("there is no control path {path}"),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
        if request.uri().path().starts_with("/control/") {
            return Ok(match self.control(request).await {
                Ok(answer) => text(StatusCode::OK, answer.to_string()),
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{error:#}")),
            });
        }
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Identity::new(
            "mangrove:admin",
            &["system:masters", "system:authenticated"],
        ));
        let request = Request::from_parts(parts, streaming::body::boxed(body));
        let answer: BoxFuture<'static, Result<Response<Body>, Infallible>> = self.api.clone().call(request);
        answer.await
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(streaming::body::full(text));
    *response.status_mut() = status;
    response
}

/// The other end: a service for `client::Client`, one connection a request.
#[derive(Clone)]
pub struct ControlSocket {
    path: Arc<Path>,
}

impl ControlSocket {
    pub fn new(path: PathBuf) -> ControlSocket {
        ControlSocket { path: path.into() }
    }

    /// A fresh credential for a tenant.
    pub async fn tenant_access(&self, name: &str) -> anyhow::Result<Access> {
        serde_json::from_value(self.get(&access_path(name)).await?).context(ANSWER)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Request::get(path).body(streaming::body::empty())).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Request::post(path).body(streaming::body::full(body.to_string())))
            .await
    }

    async fn ask(&self, request: http::Result<Request<Body>>) -> anyhow::Result<Value> {
        let request = request.context("that is no name of anything here")?;
        serde_json::from_slice(&answered(self.clone().call(request).await?).await?).context(ANSWER)
    }

    /// A connection for more than one request.
    pub async fn connect(&self) -> anyhow::Result<ControlConnection> {
        let stream = UnixStream::connect(&self.path).await.with_context(|| {
            format!(
                "can't reach the platform at {}: it is not running, or you are not root",
                self.path.display()
            )
        })?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender and the last response's body or, at the latest, with this program.
        tokio::spawn(connection);
        Ok(ControlConnection(sender))
    }
}

const ANSWER: &str = "reading the platform's answer";

async fn answered(response: Response<Body>) -> anyhow::Result<Bytes> {
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    anyhow::ensure!(status == StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// One request after the other.
pub struct ControlConnection(SendRequest<Body>);

impl ControlConnection {
    async fn send(&mut self, mut request: Request<Body>) -> anyhow::Result<Response<Body>> {
        request
            .headers_mut()
            .entry(http::header::HOST)
            .or_insert(http::HeaderValue::from_static("mangrove"));
        self.0.ready().await?;
        Ok(self.0.send_request(request).await?.map(streaming::body::boxed))
    }

    /// As [`ControlSocket::tenant_access`].
    pub async fn tenant_access(&mut self, name: &str) -> anyhow::Result<Access> {
        let request = Request::get(access_path(name)).body(streaming::body::empty());
        let response = self.send(request.context("that is no name of a tenant")?).await?;
        serde_json::from_slice(&answered(response).await?).context(ANSWER)
    }
}

fn access_path(tenant: &str) -> String {
    format!("{TENANTS}{tenant}/kubeconfig")
}

impl Service<Request<Body>> for ControlSocket {
    type Response = Response<Body>;
    type Error = anyhow::Error;
    type Future = BoxFuture<'static, anyhow::Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<anyhow::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let socket = self.clone();
        Box::pin(async move { socket.connect().await?.send(request).await })
    }
}

/// What a command prints for `-o json`.
pub fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Fields of a VirtualCluster that people see.
pub fn summary(tenant: &api::Object) -> serde_json::Value {
    let status = &tenant.tree()["status"];
    json!({
        "name": tenant.name(),
        "phase": status["phase"].as_str().unwrap_or("Pending"),
        "plane": status["plane"],
        "created": tenant.tree()["metadata"]["creationTimestamp"],
        "message": status["message"],
    })
}
