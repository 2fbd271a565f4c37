//! Listeners: TLS connections to requests, for the two doors of D8.
//!
//! *People* name the plane by the path. For *Pods* it is fixed by the address that was dialled, before a byte is read,
//! and the serving certificate is that plane's own.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use api::{PlaneId, Status};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use identity::{
    Ca, SubjectName,
    tls::{self, ClientCertificates, Rotating},
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::handle::{Door, handle};
use crate::{
    Body,
    authn::ClientChain,
    context::PlaneRef,
    planes::{Bounded, Plane},
    server::ApiServer,
};

/// Connections of one door. Each costs some 30 KiB with its TLS state; file descriptors are the next limit.
const CONNECTIONS_MAX: usize = 10_000;

/// A client that has not finished its handshake by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client has to send its request's head within this (Go's `ReadHeaderTimeout` in kube-apiserver: 32 s).
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);

/// kube-apiserver's `MaxConcurrentStreams`.
const HTTP2_STREAMS_MAX: u32 = 250;

/// A peer that answers no ping is gone; watches would keep its connection for ever.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);

/// How long connections may take to end after the door was closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failed accept (no file descriptors left) the listener rests, or it would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Planes whose TLS set-up is kept at hand; about 8 KiB each.
const PLANE_CONFIGS_MAX: usize = 1024;

/// The serving certificates of planes live in memory alone.
const PLANE_CERTIFICATE_VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);

/// And are made anew long before their end.
const PLANE_CERTIFICATE_KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// By what name Pods call their API server, besides its address.
const PLANE_NAMES: [&str; 4] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Serves people, until `stop` is cancelled; then lets requests finish.
///
/// `tls` should ask for client certificates ([`ClientCertificates::Requested`]): they are judged per request.
pub async fn serve_people(listener: TcpListener, tls: ServerConfig, server: ApiServer, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let server = &server;
    accept(listener, server, stop, |stream| {
        let (acceptor, server) = (acceptor.clone(), server.clone());
        async move { Some((acceptor, stream, server, Door::People)) }
    })
    .await;
}

/// Serves Pods, until `stop` is cancelled; then lets requests finish. The plane is the one whose `kubernetes` Service
/// has the address that was dialled.
pub async fn serve_pods(listener: TcpListener, server: ApiServer, stop: CancellationToken) {
    serve_pods_at(listener, server, stop, None).await;
}

/// As [`serve_pods`], for the plane of one address alone, whatever address is dialled: where what is between here and the Pods
/// has changed it.
pub async fn serve_pods_of(address: Ipv4Addr, listener: TcpListener, server: ApiServer, stop: CancellationToken) {
    serve_pods_at(listener, server, stop, Some(address)).await;
}

async fn serve_pods_at(listener: TcpListener, server: ApiServer, stop: CancellationToken, only: Option<Ipv4Addr>) {
    let configs = Arc::new(PlaneConfigs {
        known: Bounded::new(PLANE_CONFIGS_MAX),
    });
    let server = &server;
    accept(listener, server, stop, |stream| {
        let (configs, server) = (Arc::clone(&configs), server.clone());
        async move {
            let address = match only {
                Some(address) => address.into(),
                None => stream.local_addr().ok()?.ip(),
            };
            match configs.of_address(&server, address).await {
                Ok(Some((door, config))) => Some((TlsAcceptor::from(config), stream, server, door)),
                // Nobody's address: there is no certificate to say so with.
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(%address, %error, "a Pod's connection was refused");
                    None
                }
            }
        }
    })
    .await;
}

type Prepared = (TlsAcceptor, TcpStream, ApiServer, Door);

/// Accepts connections and gives each a task of its own; they end with `stop`.
async fn accept<P, F>(listener: TcpListener, server: &ApiServer, stop: CancellationToken, prepare: P)
where
    P: Fn(TcpStream) -> F,
    F: Future<Output = Option<Prepared>> + Send + 'static,
{
    let clock = Arc::clone(&server.planes().world().clock);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let killed = CancellationToken::new();
    // Whatever becomes of this future, its connections don't outlive it.
    let _kill = killed.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => {
                let place = place.expect("the semaphore is never closed");
                tokio::select! {
                    () = stop.cancelled() => break,
                    accepted = listener.accept() => accepted.map(|(stream, _)| (stream, place)),
                }
            }
        };
        match accepted {
            Ok((stream, place)) => {
                let prepared = prepare(stream);
                let (stop, killed) = (stop.clone(), killed.clone());
                connections.spawn(async move {
                    let _place = place;
                    tokio::select! {
                        () = killed.cancelled() => {}
                        () = connection(prepared, stop) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = clock.sleep(DRAIN_TIMEOUT) => {}
    }
}

async fn connection(prepared: impl Future<Output = Option<Prepared>>, stop: CancellationToken) {
    let Some((acceptor, stream, server, door)) = prepared.await else {
        return;
    };
    // Answers are small and clients wait for each: no delay to gather more.
    let _ = stream.set_nodelay(true);
    let clock = Arc::clone(&server.planes().world().clock);
    let stream = tokio::select! {
        accepted = acceptor.accept(stream) => match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return;
            }
        },
        () = clock.sleep(HANDSHAKE_TIMEOUT) => return,
    };
    let chain = stream.get_ref().1.peer_certificates();
    let chain = chain.map(ClientChain::new);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| -> Body { body.map_err(Into::into).boxed_unsync() });
        request.extensions_mut().insert(door);
        if let Some(chain) = &chain {
            request.extensions_mut().insert(chain.clone());
        }
        let server = server.clone();
        // Boxed: the task of each stream is moved several times with all it holds.
        Box::pin(async move { Ok::<_, Infallible>(handle(&server, request).await) })
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(HTTP2_PING_EVERY);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

/// The TLS set-up of planes, made when a Pod first comes.
struct PlaneConfigs {
    /// With the moment when it was made.
    known: Bounded<PlaneId, (Duration, Arc<ServerConfig>)>,
}

impl PlaneConfigs {
    async fn of_address(
        &self,
        server: &ApiServer,
        address: IpAddr,
    ) -> Result<Option<(Door, Arc<ServerConfig>)>, Status> {
        let planes = server.planes();
        let address = match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => address,
                None => return Ok(None),
            },
        };
        let root = planes.root().await?;
        let (plane, plane_ref) = if root.record.kubernetes_service_ip == address {
            (root, PlaneRef::Root)
        } else {
            match planes.by_address(address).await? {
                Some(id) => (planes.open(id).await?, PlaneRef::One(id)),
                None => return Ok(None),
            }
        };
        let door = Door::Pods(plane_ref);
        let now = planes.world().clock.monotonic();
        if let Some((made, config)) = self.known.get(&plane.id)
            && now.saturating_sub(made) < PLANE_CERTIFICATE_KEPT_FOR
        {
            return Ok(Some((door, config)));
        }
        let config = plane_config(server, &plane, address)
            .map_err(|error| Status::new(api::Reason::InternalError, format!("plane {}: {error}", plane.id)))?;
        let config = Arc::new(config);
        self.known.insert(plane.id, (now, Arc::clone(&config)));
        Ok(Some((door, config)))
    }
}

fn plane_config(server: &ApiServer, plane: &Plane, address: Ipv4Addr) -> Result<ServerConfig, identity::Error> {
    let world = server.planes().world();
    let ca = Ca::from_pem(&plane.record.ca_cert_pem, &plane.record.ca_key_pem)?;
    let mut names: Vec<SubjectName> = PLANE_NAMES.map(SubjectName::of).to_vec();
    names.push(SubjectName::Ip(address.into()));
    let certificate = ca.issue_server(
        "kube-apiserver",
        &names,
        PLANE_CERTIFICATE_VALID_FOR,
        world.clock.wall(),
        &*world.random,
    )?;
    tls::server_config(Arc::new(Rotating::new(&certificate)?), ClientCertificates::Requested)
}
