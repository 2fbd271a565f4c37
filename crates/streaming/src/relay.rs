//! Carries one request on to an upstream and its answer back: plain answers stream through, an upgrade becomes a byte
//! pipe whose content the relay never looks at.

mod hop_by_hop;
mod splice;
mod upstream;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::body::{self, Body};
use crate::status;
use crate::upgrade;
pub use upstream::{Connect, Upstream};

/// Upgraded connections that one relay holds at most. Each costs two sockets and 64 KiB of copy buffers, so this is
/// 256 MiB and 8192 descriptors at worst; further ones are refused with 429.
pub const MAX_UPGRADES: usize = 4096;

/// Why a request was not answered by the upstream. [`RelayError::into_response`] makes the caller's answer of it.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The caller speaks HTTP/2, which cannot be upgraded; it should ask again over HTTP/1.1.
    #[error("an upgrade to {0:?} was asked over {1:?}; it needs an HTTP/1.1 connection")]
    NotUpgradable(String, Version),
    /// Nothing listens there, or the handshake failed. Asking again later may help.
    #[error("cannot connect to {target}: {source}")]
    Connect { target: String, source: std::io::Error },
    /// The upstream broke off before it answered.
    #[error("{target} did not answer: {source}")]
    Answer { target: String, source: hyper::Error },
    /// The upstream's answer to an upgrade is of no use.
    #[error("{target} switched to {got:?} where {wanted:?} was asked")]
    WrongProtocol {
        target: String,
        wanted: String,
        got: String,
    },
    /// The caller's own transport failed ([`Relay::relay_through`]).
    #[error("{target} did not answer: {reason}")]
    Transport { target: String, reason: String },
    /// [`MAX_UPGRADES`] are open.
    #[error("too many open streams")]
    Full,
}

impl RelayError {
    pub fn into_response(self) -> Response<Body> {
        let message = self.to_string();
        match self {
            RelayError::NotUpgradable(..) => status::bad_request(&message),
            RelayError::Full => status::failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", &message),
            RelayError::Connect { .. }
            | RelayError::Answer { .. }
            | RelayError::Transport { .. }
            | RelayError::WrongProtocol { .. } => status::failure(StatusCode::BAD_GATEWAY, "BadGateway", &message),
        }
    }
}

/// Owns the pipes of upgraded connections: they end with it. Cheap to clone; the last clone's drop ends them.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    pipes: TaskTracker,
    ended: CancellationToken,
    upgrades: Arc<Semaphore>,
    _end_on_drop: DropGuard,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay::new()
    }
}

impl Relay {
    pub fn new() -> Relay {
        Relay::with_limit(MAX_UPGRADES)
    }

    /// A relay that holds at most `upgrades_max` upgraded connections.
    pub fn with_limit(upgrades_max: usize) -> Relay {
        let ended = CancellationToken::new();
        Relay {
            inner: Arc::new(Inner {
                pipes: TaskTracker::new(),
                _end_on_drop: ended.clone().drop_guard(),
                ended,
                upgrades: Arc::new(Semaphore::new(upgrades_max)),
            }),
        }
    }

    /// How many upgraded connections are open now.
    pub fn open_upgrades(&self) -> usize {
        self.inner.pipes.len()
    }

    /// Sends `request` to `upstream` and returns its answer. The request's path and query are asked as they stand;
    /// scheme, host and hop-by-hop headers are replaced, and the caller's credentials are left out: what the
    /// upstream should see stands in [`Upstream::headers`].
    pub async fn relay(&self, mut request: Request<Body>, upstream: Upstream) -> Result<Response<Body>, RelayError> {
        let Some(protocol) = upgrade::asked(request.headers()) else {
            return self.plain(request, upstream).await;
        };
        if request.version() > Version::HTTP_11 || request.extensions().get::<hyper::upgrade::OnUpgrade>().is_none() {
            return Err(RelayError::NotUpgradable(protocol, request.version()));
        }
        let permit = Arc::clone(&self.inner.upgrades)
            .try_acquire_owned()
            .map_err(|_| RelayError::Full)?;

        let target = upstream.target();
        let caller = hyper::upgrade::on(&mut request);
        let (mut sender, connection) = open(&upstream).await?;
        let mut outgoing = rewrite(request, &upstream);
        upgrade::ask(outgoing.headers_mut(), &protocol);
        let connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
        let mut answer = sender
            .send_request(outgoing)
            .await
            .map_err(|source| RelayError::Answer {
                target: target.clone(),
                source,
            })?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(hold(answer, connection));
        }

        let callee = hyper::upgrade::on(&mut answer);
        let callee = async move {
            // Kept until the bytes are handed over: dropping it earlier would abort the connection.
            let callee = callee.await;
            drop(connection);
            callee
        };
        self.hand_over(permit, &target, &protocol, caller, answer.into_parts().0, callee)
    }

    /// As [`Relay::relay`], through a client that knows the way and brings its own credentials: `send` gets the request with its
    /// path as it stands and without the caller's credentials.
    pub async fn relay_through<S, F, E>(
        &self,
        mut request: Request<Body>,
        target: &str,
        send: S,
    ) -> Result<Response<Body>, RelayError>
    where
        S: FnOnce(Request<Body>) -> F,
        F: Future<Output = Result<Response<Body>, E>>,
        E: std::fmt::Display,
    {
        let failed = |error: E| RelayError::Transport {
            target: target.to_owned(),
            reason: error.to_string(),
        };
        let Some(protocol) = upgrade::asked(request.headers()) else {
            let mut answer = send(outgoing(request)).await.map_err(failed)?;
            hop_by_hop::strip(answer.headers_mut());
            *answer.version_mut() = Version::HTTP_11;
            answer.extensions_mut().clear();
            return Ok(answer);
        };
        if request.version() > Version::HTTP_11 || request.extensions().get::<hyper::upgrade::OnUpgrade>().is_none() {
            return Err(RelayError::NotUpgradable(protocol, request.version()));
        }
        let permit = Arc::clone(&self.inner.upgrades)
            .try_acquire_owned()
            .map_err(|_| RelayError::Full)?;
        let caller = hyper::upgrade::on(&mut request);
        let mut outgoing = outgoing(request);
        upgrade::ask(outgoing.headers_mut(), &protocol);
        let mut answer = send(outgoing).await.map_err(failed)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            hop_by_hop::strip(answer.headers_mut());
            return Ok(answer);
        }
        let callee = hyper::upgrade::on(&mut answer);
        self.hand_over(permit, target, &protocol, caller, answer.into_parts().0, callee)
    }

    /// Joins both upgraded connections, and tells the caller that it has been done.
    fn hand_over(
        &self,
        permit: OwnedSemaphorePermit,
        target: &str,
        protocol: &str,
        caller: hyper::upgrade::OnUpgrade,
        mut answer: http::response::Parts,
        callee: impl Future<Output = hyper::Result<hyper::upgrade::Upgraded>> + Send + 'static,
    ) -> Result<Response<Body>, RelayError> {
        let got = upgrade::asked(&answer.headers).unwrap_or_default();
        if !got.eq_ignore_ascii_case(protocol) {
            return Err(RelayError::WrongProtocol {
                target: target.to_owned(),
                wanted: protocol.to_owned(),
                got,
            });
        }
        let (ended, target) = (self.inner.ended.clone(), target.to_owned());
        self.inner.pipes.spawn(async move {
            let _permit = permit;
            let pipe = async move {
                let callee = callee.await;
                let (caller, callee) = (caller.await?, callee?);
                splice::splice(TokioIo::new(caller), TokioIo::new(callee)).await;
                Ok::<(), hyper::Error>(())
            };
            tokio::select! {
                () = ended.cancelled() => {}
                result = pipe => {
                    if let Err(error) = result {
                        tracing::debug!(%target, %error, "an upgraded connection was not handed over");
                    }
                }
            }
        });
        hop_by_hop::strip(&mut answer.headers);
        upgrade::ask(&mut answer.headers, &got);
        answer.version = Version::HTTP_11;
        answer.extensions.clear();
        Ok(Response::from_parts(answer, body::empty()))
    }

    async fn plain(&self, request: Request<Body>, upstream: Upstream) -> Result<Response<Body>, RelayError> {
        let (mut sender, connection) = open(&upstream).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
            Ok(())
        }));
        let answer = sender
            .send_request(rewrite(request, &upstream))
            .await
            .map_err(|source| RelayError::Answer {
                target: upstream.target(),
                source,
            })?;
        Ok(hold(answer, connection))
    }
}

type Connection = http1::Connection<TokioIo<Box<dyn upstream::Io>>, Body>;

async fn open(upstream: &Upstream) -> Result<(http1::SendRequest<Body>, Connection), RelayError> {
    let io = upstream.connect().await.map_err(|source| RelayError::Connect {
        target: upstream.target(),
        source,
    })?;
    http1::Builder::new()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|source| RelayError::Answer {
            target: upstream.target(),
            source,
        })
}

/// The request as the upstream should see it.
fn rewrite(request: Request<Body>, upstream: &Upstream) -> Request<Body> {
    let mut outgoing = outgoing(request);
    if let Ok(host) = HeaderValue::from_str(&upstream.host()) {
        outgoing.headers_mut().insert(header::HOST, host);
    }
    for (name, value) in &upstream.headers {
        outgoing.headers_mut().insert(name, value.clone());
    }
    outgoing
}

/// The request without what is between the caller and us.
fn outgoing(request: Request<Body>) -> Request<Body> {
    let (parts, body) = request.into_parts();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // A path that came in with a request is one that can go out.
    *outgoing.uri_mut() = Uri::try_from(path).unwrap_or_else(|_| Uri::from_static("/"));
    let mut headers = parts.headers;
    hop_by_hop::strip(&mut headers);
    strip_credentials(&mut headers);
    headers.remove(header::HOST);
    *outgoing.headers_mut() = headers;
    outgoing
}

/// Who the caller is to us is nothing to the upstream, which knows only us.
fn strip_credentials(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::COOKIE);
    let personal: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-") || name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in personal {
        headers.remove(name);
    }
}

/// The answer, holding the task that feeds it: a caller who goes away ends the upstream's work.
fn hold(answer: Response<hyper::body::Incoming>, connection: AbortOnDropHandle<hyper::Result<()>>) -> Response<Body> {
    let (mut parts, incoming) = answer.into_parts();
    hop_by_hop::strip(&mut parts.headers);
    // Set by hyper for this connection; the caller's may be another version.
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Response::from_parts(
        parts,
        body::boxed(Held {
            incoming,
            _connection: connection,
        }),
    )
}

struct Held {
    incoming: hyper::body::Incoming,
    _connection: AbortOnDropHandle<hyper::Result<()>>,
}

impl http_body::Body for Held {
    type Data = bytes::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, hyper::Error>>> {
        std::pin::Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.incoming.size_hint()
    }
}
