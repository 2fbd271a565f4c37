//! A server that ends streams as a CRI streaming server would, and one in front that relays to it as an API server
//! would.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use streaming::remote_command::{self, ExecStatus, Options, Session};
use streaming::{Body, Connect, Relay, body, port_forward, upgrade};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// A server on a port of its own; ends when dropped.
pub struct Served {
    pub address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

pub async fn serve<H, F>(handler: H) -> Served
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve_connection(tcp, handler.clone()));
        }
    });
    Served {
        address,
        _task: AbortOnDropHandle::new(task),
    }
}

pub async fn serve_connection<T, H, F>(io: T, handler: H)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await;
}

/// An API server with one Pod, `web`, whose streams it relays to `upstream`.
pub async fn front(upstream: Connect) -> (Served, Relay) {
    let relay = Relay::new();
    let to = relay.clone();
    let served = serve(move |request| {
        let (relay, upstream) = (to.clone(), upstream.clone());
        async move {
            let path = request.uri().path().to_owned();
            let json = match path.as_str() {
                "/api" => r#"{"kind":"APIVersions","versions":["v1"]}"#,
                "/apis" => r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
                "/api/v1" => {
                    r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"]}]}"#
                }
                "/api/v1/namespaces/default/pods/web" => {
                    r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"default"},"spec":{"containers":[{"name":"c","image":"i","tty":true,"stdin":true,"ports":[{"containerPort":80}]}]},"status":{"phase":"Running"}}"#
                }
                _ => {
                    let result = relay.relay(request.map(body::boxed), upstream.into()).await;
                    return result.unwrap_or_else(|error| error.into_response());
                }
            };
            let mut response = Response::new(body::full(json));
            response
                .headers_mut()
                .insert("content-type", "application/json".parse().unwrap());
            response
        }
    })
    .await;
    (served, relay)
}

/// Upgrades that clients of this process have asked of far ends.
pub static ASKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Ends streams by the last part of the path.
pub async fn far_end(mut request: Request<Incoming>) -> Response<Body> {
    ASKED.lock().unwrap().extend(upgrade::asked(request.headers()));
    let query = request.uri().query().unwrap_or_default().to_owned();
    let subresource = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match subresource.as_str() {
        "exec" | "attach" => match remote_command::accept(&mut request, Options::from_query(&query)) {
            Ok((response, session)) => {
                let command = if subresource == "attach" {
                    "cat".to_owned()
                } else {
                    command(&query)
                };
                tokio::spawn(async move {
                    if let Ok(session) = session.await {
                        run(session, &command).await;
                    }
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
        "portforward" => match port_forward::accept(&mut request, &port_forward::ports_from_query(&query)) {
            Ok((response, forwards)) => {
                tokio::spawn(async move {
                    let Ok(mut forwards) = forwards.await else { return };
                    while let Some(mut forward) = forwards.next().await {
                        tokio::spawn(async move {
                            if forward.port == 9 {
                                return forward.fail("nobody listens on port 9").await;
                            }
                            let mut asked = Vec::new();
                            let mut buffer = [0; 1000];
                            // Echoes lines in capitals, and ends with an empty one.
                            while let Ok(read @ 1..) = forward.read(&mut buffer).await {
                                asked.extend_from_slice(&buffer[..read]);
                                forward.write_all(&buffer[..read].to_ascii_uppercase()).await.unwrap();
                                if asked.ends_with(b"\n\n") {
                                    break;
                                }
                            }
                        });
                    }
                    forwards.close().await;
                });
                response
            }
            Err(refusal) => refusal.into_response(),
        },
        "log" => {
            let lines = futures::stream::unfold(0, |line| async move {
                if line == 3 {
                    return None;
                }
                if line == 2 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let text = Bytes::from(format!("line {line}\n"));
                Some((Ok::<_, Infallible>(Frame::data(text)), line + 1))
            });
            Response::new(body::boxed(StreamBody::new(lines)))
        }
        // For tests of what a relay passes on.
        "headers" => {
            let mut text = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            let sent = request.into_body().collect().await.unwrap().to_bytes();
            text += std::str::from_utf8(&sent).unwrap();
            Response::new(body::full(text))
        }
        _ => {
            let mut response = Response::new(body::full("no such stream"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn command(query: &str) -> String {
    let words: Vec<&str> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("command="))
        .collect();
    words.join(" ")
}

/// Commands that a Pod might have.
async fn run(mut session: Session, command: &str) {
    let (mut stdin, mut stdout) = (session.stdin.take(), session.stdout.take());
    let status = match (command, &mut stdin, &mut stdout) {
        ("cat", Some(stdin), Some(stdout)) => match tokio::io::copy(stdin, stdout).await {
            Ok(_) => ExecStatus::Code(0),
            Err(error) => ExecStatus::Failed(error.to_string()),
        },
        ("count", Some(stdin), Some(stdout)) => {
            let read = tokio::io::copy(stdin, &mut tokio::io::sink()).await.unwrap();
            stdout.write_all(read.to_string().as_bytes()).await.unwrap();
            ExecStatus::Code(0)
        }
        ("both", _, Some(stdout)) => {
            stdout.write_all(b"to stdout\n").await.unwrap();
            let stderr = session.stderr.as_mut().unwrap();
            stderr.write_all(b"to stderr\n").await.unwrap();
            ExecStatus::Code(0)
        }
        ("size", _, Some(stdout)) => {
            let size = session.resize.as_mut().unwrap().next().await.unwrap();
            let text = format!("{}x{}\n", size.width, size.height);
            stdout.write_all(text.as_bytes()).await.unwrap();
            ExecStatus::Code(0)
        }
        ("megabytes", _, Some(stdout)) => {
            for _ in 0..64 {
                stdout.write_all(&[b'x'; 100_000]).await.unwrap();
            }
            ExecStatus::Code(0)
        }
        ("forever", ..) => {
            session.gone().cancelled().await;
            return;
        }
        (command, ..) => match command.strip_prefix("exit ") {
            Some(code) => ExecStatus::Code(code.parse().unwrap()),
            None => ExecStatus::Failed(format!("no such command: {command}")),
        },
    };
    drop((stdin, stdout));
    session.finish(status).await;
}

pub async fn tcp_upstream() -> (Served, Connect) {
    let served = serve(far_end).await;
    let connect = Connect::Tcp {
        address: served.address.to_string(),
    };
    (served, connect)
}
