//! Connections: TCP or a Unix socket, with TLS or without, HTTP/2 and HTTP/1 on one port.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, header::CONTENT_TYPE};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OnceCell, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    auth::Caller,
    authority::Forgiving,
    counted::Counted,
    grpc::{self, Body, Messages, PREFIX_BYTES},
    member::{Member, OVERHEAD_BYTES},
    methods::{self, Kind},
    plain,
    status::{Code, Status},
    streams::{Arrived, together},
};

/// Open at once on one listener; kube-apiserver has about 150.
pub const CONNECTIONS_MAX: usize = 16 << 10;

/// Someone who connects and says nothing goes after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that has vanished is noticed by then.
const PING_INTERVAL: Duration = Duration::from_secs(120);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What a client may send before it is read. Room is used as it is needed, so it is bounded for a connection, not a stream.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

const HEADERS_BYTES_MAX: u32 = 16 << 10;

/// Which member a connection speaks with.
#[async_trait]
pub trait Members: Send + Sync + 'static {
    /// `common_name` is that of the certificate whose key the client has.
    async fn member(&self, common_name: Option<&str>) -> Result<Arc<Member>, Status>;
}

/// All connections speak with one.
#[async_trait]
impl Members for Arc<Member> {
    async fn member(&self, _common_name: Option<&str>) -> Result<Arc<Member>, Status> {
        Ok(self.clone())
    }
}

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How connections are taken.
#[derive(Clone)]
pub struct Doors {
    pub tls: Option<TlsAcceptor>,
    /// Requests at once on one connection.
    pub streams_max: u32,
    pub serves: Serves,
}

/// What is behind a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    All,
    /// Health, version and metrics, as `--listen-metrics-urls` has them: no key can be had there, whoever asks.
    Metrics,
}

/// Serves until it is dropped, and all its connections end with it.
pub async fn serve(listener: Listener, doors: Doors, members: Arc<dyn Members>) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (doors, members) = (doors.clone(), members.clone());
        match &listener {
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    // Small answers must not wait for one another.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(async move {
                        accepted(stream, doors, members).await;
                        drop(place);
                    });
                }
                Err(error) => refused(&error).await,
            },
            Listener::Unix(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(async move {
                        accepted(stream, doors, members).await;
                        drop(place);
                    });
                }
                Err(error) => refused(&error).await,
            },
        }
    }
}

async fn refused(error: &std::io::Error) {
    tracing::warn!(%error, "a connection can't be taken");
    // No descriptors are left, most likely: one is given back only by another connection's end.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn accepted(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    doors: Doors,
    members: Arc<dyn Members>,
) {
    let Some(tls) = &doors.tls else {
        return connection(stream, &doors, members, None).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let name = certificates.and_then(|chain| common_name(chain.first()?));
            connection(stream, &doors, members, name).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

fn common_name(certificate: &[u8]) -> Option<Arc<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.into())
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    doors: &Doors,
    members: Arc<dyn Members>,
    name: Option<Arc<str>>,
) {
    let arrived = Arrived::default();
    let mut builder = Builder::new(arrived.clone());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(doors.streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let requests = Requests {
        members,
        name,
        serves: doors.serves,
        member: Arc::default(),
    };
    let connection = builder
        .serve_connection(TokioIo::new(Forgiving::new(stream)), requests)
        .into_owned();
    if let Err(error) = together(connection, arrived).await {
        tracing::debug!(error, "a connection ended");
    }
}

/// Those of one connection.
struct Requests {
    members: Arc<dyn Members>,
    name: Option<Arc<str>>,
    serves: Serves,
    /// Found when first asked, and then the same for the whole connection.
    member: Arc<OnceCell<Result<Arc<Member>, Status>>>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (member, members, name) = (self.member.clone(), self.members.clone(), self.name.clone());
        let serves = self.serves;
        Box::pin(async move {
            let found = member
                .get_or_init(|| async { members.member(name.as_deref()).await })
                .await;
            Ok(match found {
                Ok(member) if serves == Serves::Metrics => plain::told(member, &request),
                Ok(member) => answer(member, request, name).await,
                Err(status) => grpc::refusal(status),
            })
        })
    }
}

async fn answer(member: &Arc<Member>, request: Request<Incoming>, name: Option<Arc<str>>) -> Response<Body> {
    let caller = Caller::of(request.headers(), name);
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |kind| kind.as_bytes());
    if !kind.starts_with(b"application/grpc") {
        return plain::answer(member, request, caller).await;
    }
    let path = request.uri().path();
    let Some((path, kind)) = methods::known(path) else {
        return grpc::refusal(&methods::unknown(path));
    };
    if let Some(encoding) = request.headers().get("grpc-encoding")
        && encoding != "identity"
    {
        // What is not unpacked can't burst.
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        let what = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
        return grpc::refusal(&Status::new(Code::Unimplemented, what));
    }
    let clock = &member.world.clock;
    let begun = clock.monotonic();
    member.metrics.started(path);
    let messages = Messages::new(request.into_body(), member.options.request_bytes_max + OVERHEAD_BYTES);
    let answered = match kind {
        Kind::Unary => {
            let answer = unary(member, path, messages, &caller).await;
            let code = answer.as_ref().map_or_else(|status| status.code as u16, |_| 0);
            let took = clock.monotonic().saturating_sub(begun);
            member.metrics.handled(path, code, took);
            return grpc::answer(answer);
        }
        Kind::Stream => match messages.single().await {
            Ok(message) => {
                member.metrics.received(message.len());
                methods::stream(member, path, message, &caller).await
            }
            Err(status) => Err(status),
        },
        Kind::Both => methods::both(member, path, messages, caller),
    };
    match answered {
        Ok(messages) => grpc::stream(Box::pin(Counted::new(member, path, begun, messages))),
        Err(status) => {
            let took = clock.monotonic().saturating_sub(begun);
            member.metrics.handled(path, status.code as u16, took);
            grpc::refusal(&status)
        }
    }
}

async fn unary(member: &Arc<Member>, path: &str, messages: Messages, caller: &Caller) -> Result<Bytes, Status> {
    let message = messages.single().await?;
    member.metrics.received(message.len());
    let answer = methods::call(member, path, message, caller).await?;
    member.metrics.sent(answer.len().saturating_sub(PREFIX_BYTES));
    Ok(answer)
}
