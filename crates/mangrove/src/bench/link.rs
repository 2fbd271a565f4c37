//! One connection to an API server, HTTP/2 over TLS as Kubernetes clients have it, with as little between the measurement and the
//! wire as there can be.

use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::kubeconfig::{Credential, Entry};
use rustls::{pki_types::ServerName, sign::SingleCertAndKey};
use serde_json::Value;
use tokio::net::TcpStream;

use super::trust::Trust;

#[derive(Clone)]
pub struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// `https://host:port/prefix`
    server: Arc<str>,
    token: Option<Arc<str>>,
}

impl Link {
    pub async fn open(entry: &Entry) -> anyhow::Result<Link> {
        Link::trusting(&Trust::new(&entry.authority_pem)?, entry).await
    }

    /// As [`Link::open`], where many entries are of one authority.
    pub async fn trusting(trust: &Trust, entry: &Entry) -> anyhow::Result<Link> {
        let mut config = trust.config.clone();
        let token = match &entry.credential {
            Credential::Certificate(certified) => {
                config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified.to_rustls()?));
                None
            }
            Credential::Token(token) => Some(token.as_str().into()),
        };
        let uri: http::Uri = entry.server.parse().context("reading the server's address")?;
        let host = uri.host().context("the server's address has no host")?;
        let address = (host, uri.port_u16().unwrap_or(443));
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("can't reach {}", entry.server))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned()).context("reading the server's name")?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .with_context(|| format!("no TLS with {}", entry.server))?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            // A watch's or list's bytes must not wait for window updates of a default made for slow links.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends when the last clone of the sender has gone.
        tokio::spawn(connection);
        Ok(Link {
            sender,
            server: entry.server.trim_end_matches('/').into(),
            token,
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// A request that must be answered well; how many bytes came.
    async fn answered(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        self.answered(Method::GET, path, Bytes::new()).await
    }

    pub async fn create(&self, path: &str, body: &Value) -> anyhow::Result<Bytes> {
        self.create_bytes(path, body.to_string().into()).await
    }

    pub async fn create_bytes(&self, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        self.answered(Method::POST, path, body).await
    }

    /// What is not there already is gone.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let response = self.send(Method::DELETE, path, Bytes::new()).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            status => bail!("{path}: {status}"),
        }
    }

    pub async fn watch(&self, path: &str) -> anyhow::Result<Events> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("{path}: {}", response.status());
        }
        Ok(Events {
            body: response.into_body(),
            rest: BytesMut::new(),
        })
    }
}

/// A watch's events, one a line.
pub struct Events {
    body: Incoming,
    rest: BytesMut,
}

impl Events {
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        match self.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_slice(&line).context("reading a watch's event")?)),
            None => Ok(None),
        }
    }

    /// The event as it came.
    pub async fn next_line(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line = self.rest.split_to(end).freeze();
                self.rest.advance(1);
                return Ok(Some(line));
            }
            let Some(frame) = self.body.frame().await.transpose()? else {
                return Ok(None);
            };
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}
