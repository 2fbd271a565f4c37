//! The kubelet's HTTPS API: logs and streams of this node's containers, for the plane's API server alone.

mod access;
mod log;
mod stats;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use streaming::{Body, Relay, body};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::agent::context::Context;
use crate::agent::pods::Pods;
use crate::tls;
pub use crate::tls::TlsError;

/// Certificates of the API, all PEM.
pub struct KubeletTls {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    /// Who may sign for clients.
    pub client_ca: Vec<u8>,
}

/// Connections at once; each may hold one stream.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

struct Shared {
    context: Arc<Context>,
    pods: Pods,
    relay: Relay,
}

impl Server {
    pub(crate) fn new(context: Arc<Context>, pods: Pods, tls: KubeletTls) -> Result<Server, TlsError> {
        let config = tls::server(&tls.certificate, &tls.key, &tls.client_ca)?;
        Ok(Server {
            acceptor: TlsAcceptor::from(config),
            shared: Arc::new(Shared {
                context,
                pods,
                relay: Relay::new(),
            }),
        })
    }

    /// Never ends; its connections end with it.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) => {
                        let (acceptor, shared) = (self.acceptor.clone(), Arc::clone(&self.shared));
                        connections.spawn(async move {
                            let _permit = permit;
                            connection(tcp, acceptor, shared).await;
                        });
                    }
                    // Out of descriptors, most likely: others must end first.
                    Err(error) => {
                        tracing::warn!(%error, "kubelet's listener");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let _ = tcp.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%error, "kubelet: a handshake failed");
            return;
        }
        Err(_) => return,
    };
    let caller = access::caller(tls.get_ref().1.peer_certificates());
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (shared, caller) = (Arc::clone(&shared), caller.clone());
        async move {
            let request = request.map(body::boxed);
            let response = match caller.filter(access::is_allowed) {
                Some(_) => shared.answer(request).await,
                None => text(StatusCode::FORBIDDEN, "this client may not use the kubelet API"),
            };
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "kubelet: a connection broke");
    }
}

/// A plain answer, as kubelet gives them.
fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(body::full(message.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn json_answer(tree: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(body::full(tree.to_string()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

impl Shared {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let is_get = request.method() == Method::GET;
        match parts.as_slice() {
            ["healthz"] => text(StatusCode::OK, "ok"),
            ["pods"] if is_get => {
                let pods = self.pods.all();
                json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))
            }
            ["stats", "summary"] => stats::summary(&self.context).await,
            ["containerLogs", namespace, pod, container] if is_get => self.logs(&request, namespace, pod, container),
            ["exec", namespace, pod, container] => self.exec(request, namespace, pod, None, container).await,
            ["exec", namespace, pod, uid, container] => self.exec(request, namespace, pod, Some(uid), container).await,
            ["attach", namespace, pod, container] => self.attach(request, namespace, pod, None, container).await,
            ["attach", namespace, pod, uid, container] => {
                self.attach(request, namespace, pod, Some(uid), container).await
            }
            ["portForward", namespace, pod] => self.port_forward(request, namespace, pod, None).await,
            ["portForward", namespace, pod, uid] => self.port_forward(request, namespace, pod, Some(uid)).await,
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }
}
