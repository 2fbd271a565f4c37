//! The streaming server: exec, attach and port-forward, asked for over CRI, carried over HTTP on loopback. A request
//! there is good for exactly what was asked for, once, and for a short time; the token in its path is the only key.

mod attach;
mod copy;
mod exec;
mod forward;
mod terminal;
mod urls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use streaming::port_forward::{self, Forward};
use streaming::remote_command::{self, ExecStatus, Options, Session};
use streaming::{Body, body};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, unix::pipe};
use tokio_util::task::AbortOnDropHandle;

use super::exec::{DRAIN_TIMEOUT, pipe as new_pipe, reader};
use super::records::Phase;
use super::runtime::{Inner, new_id};
use crate::error::{Doing, Error, Result};
use crate::supervisor::protocol::{Call, Family};
use copy::{copy_task, resize_task};
use terminal::Terminal;

/// The kubelet dials at once; what is not fetched within it never will be (containerd: one minute).
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// Tokens not yet used (containerd's cache has as many).
const MAX_TOKENS: usize = 1000;

pub struct StreamServer {
    address: OnceLock<SocketAddr>,
    tokens: Mutex<HashMap<String, (Instant, Wanted)>>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

#[derive(Clone)]
enum Wanted {
    Exec {
        container: String,
        args: Vec<String>,
        options: Options,
    },
    Attach {
        container: String,
        options: Options,
    },
    PortForward {
        sandbox: String,
        ports: Vec<u16>,
    },
}

impl StreamServer {
    pub fn new() -> StreamServer {
        StreamServer {
            address: OnceLock::new(),
            tokens: Mutex::new(HashMap::new()),
            task: OnceLock::new(),
        }
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, (Instant, Wanted)>> {
        self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub async fn start(&self, inner: Weak<Inner>) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .doing(|| "listen for streams")?;
        let address = listener.local_addr().doing(|| "listen for streams")?;
        let _ = self.address.set(address);
        let task = tokio::spawn(async move {
            loop {
                let Ok((connection, _)) = listener.accept().await else {
                    continue;
                };
                let _ = connection.set_nodelay(true);
                let inner = inner.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer(&inner, request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        let _ = self.task.set(AbortOnDropHandle::new(task));
        Ok(())
    }

    fn url(&self, kind: &str, wanted: Wanted) -> Result<String> {
        let address = self
            .address
            .get()
            .ok_or_else(|| Error::Precondition("the streaming server is not up".into()))?;
        let now = Instant::now();
        let mut tokens = self.tokens();
        tokens.retain(|_, (made, _)| now - *made < TOKEN_LIFETIME);
        if tokens.len() >= MAX_TOKENS {
            return Err(Error::Exhausted(format!("{MAX_TOKENS} streams wait to be fetched")));
        }
        let token = new_id();
        tokens.insert(token.clone(), (now, wanted));
        Ok(format!("http://{address}/{kind}/{token}"))
    }

    fn take(&self, path: &str) -> Option<Wanted> {
        let token = path.rsplit('/').next()?;
        let (made, wanted) = self.tokens().remove(token)?;
        (made.elapsed() < TOKEN_LIFETIME).then_some(wanted)
    }
}

fn answer(inner: &Weak<Inner>, mut request: Request<Incoming>) -> Response<Body> {
    let wanted = inner
        .upgrade()
        .and_then(|inner| Some((inner.streams.take(request.uri().path())?, inner)));
    let Some((wanted, inner)) = wanted else {
        let mut response = Response::new(body::full("no such stream, or it has been fetched before\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    match wanted {
        Wanted::Exec {
            container,
            args,
            options,
        } => match remote_command::accept(&mut request, options) {
            Ok((response, pending)) => {
                tokio::spawn(async move {
                    if let Ok(session) = pending.await {
                        inner.serve_exec(&container, args, options, session).await;
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
        Wanted::Attach { container, options } => match remote_command::accept(&mut request, options) {
            Ok((response, pending)) => {
                tokio::spawn(async move {
                    if let Ok(session) = pending.await {
                        inner.serve_attach(&container, options, session).await;
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
        Wanted::PortForward { sandbox, ports } => match port_forward::accept(&mut request, &ports) {
            Ok((response, pending)) => {
                tokio::spawn(async move {
                    let Ok(mut forwards) = pending.await else { return };
                    let mut running = tokio::task::JoinSet::new();
                    while let Some(forward) = forwards.next().await {
                        running.spawn(inner.clone().serve_forward(sandbox.clone(), forward));
                        while running.try_join_next().is_some() {}
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
    }
}
