//! How an API server reaches into a Pod: it dials the kubelet API of the Pod's node.

use std::net::IpAddr;
use std::sync::Arc;

use api::{Object, resource};
use async_trait::async_trait;
use client::Client;
use http::{Response, StatusCode, Uri};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use streaming::{Body, Connect, PodBackend, PodStream, Relay, Subresource, Upstream, status};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::logs::{LogOptions, parse_bool};
use crate::query;
use crate::tls::{self, TlsError};

/// How the API server shows itself to kubelets, all PEM.
pub struct KubeletClientTls {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    /// Who signs for kubelets; without it any serving certificate will do.
    pub server_ca: Option<Vec<u8>>,
}

/// Streams of one plane's Pods, by way of their nodes' kubelets. Cheap to clone.
#[derive(Clone)]
pub struct KubeletBackend {
    client: Client,
    relay: Relay,
    tls: Arc<ClientConfig>,
    /// By which it shows itself to kubelets with an authority of their own.
    own: Arc<KubeletClientTls>,
}

/// On a Node: the authority of its kubelet's serving certificate, PEM.
pub const KUBELET_AUTHORITY: &str = "node.mangrove.io/kubelet-authority";

const DEFAULT_KUBELET_PORT: u64 = 10250;
/// Refusals of kubelets are a line.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

impl KubeletBackend {
    /// `client` reads Pods and Nodes of the plane.
    pub fn new(client: Client, tls: KubeletClientTls) -> Result<KubeletBackend, TlsError> {
        Ok(KubeletBackend {
            client,
            relay: Relay::new(),
            tls: tls::client(&tls.certificate, &tls.key, tls.server_ca.as_deref())?,
            own: Arc::new(tls),
        })
    }

    /// A node that joined brings an authority of its own and says on its Node which: who may write that is the node.
    fn tls_to(&self, node: &Object) -> Result<Arc<ClientConfig>, TlsError> {
        match node.annotation(KUBELET_AUTHORITY) {
            Some(authority) => tls::client(&self.own.certificate, &self.own.key, Some(authority.as_bytes())),
            None => Ok(Arc::clone(&self.tls)),
        }
    }

    async fn try_stream(&self, stream: PodStream) -> Result<Response<Body>, Response<Body>> {
        let pod = self
            .client
            .get(&resource::PODS, Some(&stream.namespace), &stream.name)
            .await
            .map_err(refused)?;
        let absent = || {
            let message = format!("pods {:?} not found", stream.name);
            status::failure(StatusCode::NOT_FOUND, "NotFound", &message)
        };
        if !stream.uid.is_empty() && pod.uid() != stream.uid {
            return Err(absent());
        }
        let view: Pod = pod.view().map_err(|error| internal(&error.to_string()))?;
        let pairs = query::parse(stream.request.uri().query().unwrap_or_default());
        let path = kubelet_path(&stream, pod.uid(), &view, &pairs).map_err(Refused::into_response)?;
        let node_name = view.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(node_name) = node_name.filter(|name| !name.is_empty()) else {
            let message = format!("pod {} does not have a host assigned", stream.name);
            return Err(status::bad_request(&message));
        };
        let node = self
            .client
            .get(&resource::NODES, None, node_name)
            .await
            .map_err(refused)?;
        let (host, port) = kubelet_of(&node).ok_or_else(|| internal(&format!("node {node_name:?} has no address")))?;

        let is_log = stream.subresource == Subresource::Log;
        let mut request = stream.request;
        *request.uri_mut() = Uri::try_from(path).map_err(|error| status::bad_request(&error.to_string()))?;
        let server_name = ServerName::try_from(host.clone()).map_err(|error| internal(&error.to_string()))?;
        let address = match host.parse::<IpAddr>() {
            Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        };
        let upstream = Upstream::from(Connect::Tls {
            address,
            server_name,
            config: self.tls_to(&node).map_err(|error| internal(&error.to_string()))?,
        });
        let response = match self.relay.relay(request, upstream).await {
            Ok(response) => response,
            Err(error) => return Err(error.into_response()),
        };
        if response.status().as_u16() < 400 || (!is_log && is_json(&response)) {
            return Ok(response);
        }
        Err(explained(response).await)
    }
}

#[async_trait]
impl PodBackend for KubeletBackend {
    async fn stream(&self, stream: PodStream) -> Response<Body> {
        match self.try_stream(stream).await {
            Ok(response) | Err(response) => response,
        }
    }
}

fn is_json(response: &Response<Body>) -> bool {
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn internal(message: &str) -> Response<Body> {
    let message = format!("Internal error occurred: {message}");
    status::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
}

/// The plane's own refusal, passed on.
fn refused(error: client::Error) -> Response<Body> {
    match error.refusal() {
        Some(refusal) => {
            let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            status::failure(code, &refusal.reason, &refusal.message)
        }
        None => internal(&error.to_string()),
    }
}

/// A kubelet's plain refusal as a `Status`.
async fn explained(response: Response<Body>) -> Response<Body> {
    let code = response.status();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if bytes.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    match code {
        StatusCode::BAD_REQUEST => status::bad_request(&text),
        StatusCode::NOT_FOUND => status::failure(code, "NotFound", &text),
        StatusCode::UNPROCESSABLE_ENTITY => status::failure(code, "Invalid", &text),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => internal(&format!("the kubelet refused us: {text}")),
        _ => internal(&text),
    }
}

/// The kubelet's host and port.
fn kubelet_of(node: &Object) -> Option<(String, u16)> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    // The address is nearer to the truth than a name that somebody must resolve.
    let host = ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"]
        .iter()
        .find_map(|kind| {
            let found = addresses.iter().find(|address| address["type"] == *kind)?;
            found["address"].as_str()
        })?;
    let port = node
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(|port| port.as_u64())
        .filter(|port| *port > 0)
        .unwrap_or(DEFAULT_KUBELET_PORT);
    Some((host.to_owned(), u16::try_from(port).ok()?))
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Refused {
    BadRequest(String),
    Invalid(String),
}

impl Refused {
    fn into_response(self) -> Response<Body> {
        match self {
            Refused::BadRequest(message) => status::bad_request(&message),
            Refused::Invalid(message) => status::failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message),
        }
    }
}

/// The request's path and query as kubelet knows them.
fn kubelet_path(stream: &PodStream, uid: &str, pod: &Pod, pairs: &[(String, String)]) -> Result<String, Refused> {
    let namespace = query::encode(&stream.namespace);
    let name = query::encode(&stream.name);
    let uid = query::encode(uid);
    let is_true = |key: &str| -> Result<bool, Refused> {
        match pairs.iter().find(|(given, _)| given == key) {
            None => Ok(false),
            Some((_, value)) if value.is_empty() => Ok(true),
            Some((_, value)) => parse_bool(value)
                .ok_or_else(|| Refused::BadRequest(format!("{key} must be true or false, not {value:?}"))),
        }
    };
    let mut outgoing: Vec<(&str, &str)> = Vec::new();
    match stream.subresource {
        Subresource::Log => {
            let container = query::encode(&container_of(pod, &stream.name, pairs)?);
            let given = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            LogOptions::parse(given.clone(), jiff::Timestamp::UNIX_EPOCH)
                .map_err(|error| Refused::Invalid(format!("PodLogOptions {:?} is invalid: {error}", stream.name)))?;
            const KNOWN: [&str; 8] = [
                "follow",
                "previous",
                "timestamps",
                "tailLines",
                "sinceSeconds",
                "sinceTime",
                "limitBytes",
                "stream",
            ];
            outgoing.extend(given.filter(|(key, _)| KNOWN.contains(key)));
            Ok(with_query(
                format!("/containerLogs/{namespace}/{name}/{container}"),
                &outgoing,
            ))
        }
        Subresource::Exec | Subresource::Attach => {
            let container = query::encode(&container_of(pod, &stream.name, pairs)?);
            for (theirs, ours) in [
                ("stdin", "input"),
                ("stdout", "output"),
                ("stderr", "error"),
                ("tty", "tty"),
            ] {
                if is_true(theirs)? {
                    outgoing.push((ours, "1"));
                }
            }
            let verb = if stream.subresource == Subresource::Exec {
                "exec"
            } else {
                "attach"
            };
            if stream.subresource == Subresource::Exec {
                outgoing.extend(
                    pairs
                        .iter()
                        .filter(|(key, _)| key == "command")
                        .map(|(_, value)| ("command", value.as_str())),
                );
            }
            Ok(with_query(
                format!("/{verb}/{namespace}/{name}/{uid}/{container}"),
                &outgoing,
            ))
        }
        Subresource::PortForward => {
            outgoing.extend(
                pairs
                    .iter()
                    .filter(|(key, _)| key == "ports" || key == "port")
                    .map(|(_, value)| ("port", value.as_str())),
            );
            Ok(with_query(format!("/portForward/{namespace}/{name}/{uid}"), &outgoing))
        }
    }
}

fn with_query(path: String, pairs: &[(&str, &str)]) -> String {
    if pairs.is_empty() {
        return path;
    }
    format!("{path}?{}", query::write(pairs.iter().copied()))
}

/// The container that is meant; in a Pod of one it need not be named.
fn container_of(pod: &Pod, name: &str, pairs: &[(String, String)]) -> Result<String, Refused> {
    let empty = Default::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let asked = pairs
        .iter()
        .find(|(key, _)| key == "container")
        .map(|(_, value)| value.as_str())
        .filter(|container| !container.is_empty());
    let main: Vec<&str> = spec
        .containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    let init: Vec<&str> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| container.name.as_str())
        .collect();
    match (asked, main.as_slice()) {
        (Some(asked), _) if main.contains(&asked) || init.contains(&asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(Refused::BadRequest(format!(
            "container {asked} is not valid for pod {name}"
        ))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(Refused::BadRequest(format!(
            "a container name must be specified for pod {name}"
        ))),
        (None, many) => {
            let also = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(Refused::BadRequest(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]{also}",
                many.join(" ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(subresource: Subresource, containers: &[&str], text: &str) -> Result<String, Refused> {
        let containers: Vec<_> = containers
            .iter()
            .map(|name| json!({"name": name, "image": "x"}))
            .collect();
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "init", "image": "x"}], "containers": containers}}))
        .unwrap();
        let stream = PodStream {
            plane: "super".into(),
            namespace: "n".into(),
            name: "p".into(),
            uid: "u".into(),
            node: "n1".into(),
            subresource,
            request: http::Request::new(streaming::body::empty()),
        };
        kubelet_path(&stream, "u", &pod, &query::parse(text))
    }

    #[test]
    fn parameters_become_kubelets() {
        for (subresource, text, expected) in [
            (
                Subresource::Exec,
                "container=a&stdin=true&stdout=true&tty=1&command=sh&command=-c&command=echo%20a%26b",
                "/exec/n/p/u/a?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20a%26b",
            ),
            (
                Subresource::Attach,
                "stdout=true&stderr=false",
                "/attach/n/p/u/a?output=1",
            ),
            (Subresource::PortForward, "ports=80", "/portForward/n/p/u?port=80"),
            (Subresource::PortForward, "", "/portForward/n/p/u"),
            (
                Subresource::Log,
                "container=init&follow=true&tailLines=5&pretty=true",
                "/containerLogs/n/p/init?follow=true&tailLines=5",
            ),
        ] {
            assert_eq!(path(subresource, &["a"], text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_container_must_be_named_where_there_are_several() {
        let bad = |message: &str| Err(Refused::BadRequest(message.to_owned()));

        assert_eq!(
            path(Subresource::Log, &["a", "b"], ""),
            bad(
                "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [init]"
            )
        );
        assert_eq!(
            path(Subresource::Log, &["a"], "container=z"),
            bad("container z is not valid for pod p")
        );
        assert_eq!(
            path(Subresource::Log, &["a"], "tailLines=-1"),
            Err(Refused::Invalid(
                "PodLogOptions \"p\" is invalid: tailLines must be a number of at least 0, not \"-1\"".to_owned()
            ))
        );
    }

    #[test]
    fn a_nodes_address_goes_before_its_name() {
        let node = Object::from_tree(json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.0.2.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}}));

        assert_eq!(kubelet_of(&node), Some(("192.0.2.1".to_owned(), 10251)));
        assert_eq!(
            kubelet_of(&Object::from_tree(json!({"status": {"addresses": []}}))),
            None
        );
    }
}
