//! The ways in which a container can be asked something: by a command in it, by HTTP, by TCP, by gRPC. Probes and lifecycle
//! hooks share them.

mod grpc;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::cri::Runtime;
use crate::tls;
pub use grpc::grpc;

/// What an answer says. Only `Passed` is well; `Failed` is the container's word, `Broken` that it could not be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Passed,
    Failed(String),
    Broken(String),
}

/// As kubelet: more of an answer than this is not read.
const BODY_BYTES_MAX: usize = 10 << 10;
const USER_AGENT: &str = "kube-probe/1.36";

/// Where a container is and what it calls its ports.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub container_id: &'a str,
    pub container: &'a Container,
    /// On the node's network this is the node's own address.
    pub ip: Option<IpAddr>,
}

pub async fn exec(runtime: &Runtime, target: Target<'_>, action: &ExecAction, timeout: Duration) -> Outcome {
    let command = action.command.clone().unwrap_or_default();
    match runtime.exec_sync(target.container_id, &command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Outcome::Passed,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(BODY_BYTES_MAX);
            Outcome::Failed(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) => {
            let text = error.to_string();
            // A command that does not end in time has failed; the runtime says so in its own words.
            if text.contains("timed out") || text.contains("timeout") || text.contains("deadline") {
                Outcome::Failed(format!("command timed out: {text}"))
            } else {
                Outcome::Broken(text)
            }
        }
    }
}

pub async fn tcp(target: Target<'_>, action: &TCPSocketAction, timeout: Duration) -> Outcome {
    let address = match address(target, action.host.as_deref(), &action.port) {
        Ok(address) => address,
        Err(problem) => return Outcome::Broken(problem),
    };
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(format!("dial tcp {address}: {error}")),
        Err(_) => Outcome::Failed(format!("dial tcp {address}: i/o timeout")),
    }
}

pub async fn http_get(target: Target<'_>, action: &HTTPGetAction, timeout: Duration) -> Outcome {
    let address = match address(target, action.host.as_deref(), &action.port) {
        Ok(address) => address,
        Err(problem) => return Outcome::Broken(problem),
    };
    let https = action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!("{}://{address}{path}", if https { "https" } else { "http" });
    match tokio::time::timeout(timeout, ask(&address, https, &path, action)).await {
        Ok(Ok(status)) if (200..400).contains(&status) => Outcome::Passed,
        Ok(Ok(status)) => Outcome::Failed(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(Ask::Request(problem))) => Outcome::Broken(problem),
        Ok(Err(Ask::Network(problem))) => Outcome::Failed(format!("Get {url:?}: {problem}")),
        Err(_) => Outcome::Failed(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

fn address(target: Target<'_>, host: Option<&str>, port: &IntOrString) -> Result<String, String> {
    let port = match port {
        IntOrString::Int(port) => u16::try_from(*port).ok(),
        IntOrString::String(name) => target
            .container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .and_then(|port| u16::try_from(port.container_port).ok())
            .or_else(|| name.parse().ok()),
    };
    let port = port
        .filter(|port| *port > 0)
        .ok_or_else(|| "couldn't find the probe's port among the container's".to_owned())?;
    match (host.filter(|host| !host.is_empty()), target.ip) {
        (Some(host), _) => Ok(format!("{host}:{port}")),
        (None, Some(ip)) => Ok(SocketAddr::new(ip, port).to_string()),
        (None, None) => Err("the Pod has no address yet".to_owned()),
    }
}

enum Ask {
    /// The request can't be made at all.
    Request(String),
    Network(String),
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn ask(address: &str, https: bool, path: &str, action: &HTTPGetAction) -> Result<u16, Ask> {
    let network = |error: &dyn std::fmt::Display| Ask::Network(error.to_string());
    let tcp = TcpStream::connect(address).await.map_err(|error| network(&error))?;
    let io: Box<dyn Io> = if https {
        let host = address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host)
            .trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Ask::Request(error.to_string()))?;
        Box::new(
            TlsConnector::from(tls::asking_anyone())
                .connect(name, tcp)
                .await
                .map_err(|error| network(&error))?,
        )
    } else {
        Box::new(tcp)
    };

    let uri = Uri::try_from(path).map_err(|error| Ask::Request(error.to_string()))?;
    let mut request = Request::get(uri)
        .header(header::HOST, address)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    for header in action.http_headers.iter().flatten() {
        // A header of the Pod's own goes before ours.
        if let Some(headers) = request.headers_mut()
            && let Ok(name) = http::HeaderName::try_from(header.name.as_str())
        {
            headers.remove(&name);
        }
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| Ask::Request(error.to_string()))?;

    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| network(&error))?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| network(&error))?;
        let status = answer.status().as_u16();
        // Read so that the server can finish writing; how much there is does not matter.
        let _ = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        // The connection ends before the answer is read only when it breaks.
        result = connection => match result {
            Ok(()) => exchange.await,
            Err(error) => Err(network(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SECOND: Duration = Duration::from_secs(1);

    fn container(port: u16) -> Container {
        serde_json::from_value(json!({"name": "m", "image": "x", "ports": [{"name": "web", "containerPort": port}]}))
            .unwrap()
    }

    fn target(container: &Container) -> Target<'_> {
        Target {
            container_id: "c",
            container,
            ip: Some([127, 0, 0, 1].into()),
        }
    }

    fn action(tree: Value) -> HTTPGetAction {
        serde_json::from_value(tree).unwrap()
    }

    /// Answers one request with `status` and gives back what it was asked.
    async fn server(status: u16) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let count = socket.read(&mut piece).await.unwrap();
                asked.extend_from_slice(&piece[..count]);
            }
            let answer = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n\r\nok");
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (port, task)
    }

    #[tokio::test]
    async fn an_http_answer_from_200_to_399_passes() {
        for (status, expected) in [
            (200, Outcome::Passed),
            (302, Outcome::Passed),
            (
                503,
                Outcome::Failed("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ] {
            let (port, task) = server(status).await;
            let container = container(port);
            let action = action(json!({"port": "web", "path": "health?x=1",
                "httpHeaders": [{"name": "X-Own", "value": "1"}, {"name": "host", "value": "own.example"}]}));

            let outcome = http_get(target(&container), &action, SECOND).await;

            assert_eq!(outcome, expected);
            let asked = task.await.unwrap().to_lowercase();
            assert!(asked.starts_with("get /health?x=1 http/1.1\r\n"), "{asked}");
            assert!(
                asked.contains("x-own: 1") && asked.contains("host: own.example"),
                "{asked}"
            );
        }
    }

    #[tokio::test]
    async fn a_closed_port_fails_and_an_unknown_one_is_broken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let container = container(port);
        let named = |name: &str| TCPSocketAction {
            host: None,
            port: IntOrString::String(name.to_owned()),
        };

        assert_eq!(tcp(target(&container), &named("web"), SECOND).await, Outcome::Passed);
        drop(listener);
        assert!(matches!(
            tcp(target(&container), &named("web"), SECOND).await,
            Outcome::Failed(_)
        ));
        assert!(matches!(
            tcp(target(&container), &named("nope"), SECOND).await,
            Outcome::Broken(_)
        ));
        assert!(matches!(
            http_get(target(&container), &action(json!({"port": "web"})), SECOND).await,
            Outcome::Failed(_)
        ));
    }
}
