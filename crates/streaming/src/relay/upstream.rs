//! Where a relay may lead, and how to get there.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Connecting, the TLS handshake included, is given up after this long: a node that does not answer must not hold
/// its callers. Kubelet dialling in kube-apiserver has 30 s; our nodes are nearer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// An HTTP/1.1 server and what to tell it beyond the caller's request.
#[derive(Clone)]
pub struct Upstream {
    pub connect: Connect,
    /// Set on the request, over whatever the caller sent: our own credentials, for instance.
    pub headers: HeaderMap,
}

/// The way to an upstream.
#[derive(Clone)]
pub enum Connect {
    /// `address` is `host:port`.
    Tcp {
        address: String,
    },
    /// TLS with the given trust and client certificate; ALPN is fixed to HTTP/1.1, the only version with upgrades.
    Tls {
        address: String,
        server_name: ServerName<'static>,
        config: Arc<ClientConfig>,
    },
    Unix {
        path: PathBuf,
    },
}

impl From<Connect> for Upstream {
    fn from(connect: Connect) -> Upstream {
        Upstream {
            connect,
            headers: HeaderMap::new(),
        }
    }
}

impl Upstream {
    /// For people and logs.
    pub(crate) fn target(&self) -> String {
        match &self.connect {
            Connect::Tcp { address } => format!("http://{address}"),
            Connect::Tls { address, .. } => format!("https://{address}"),
            Connect::Unix { path } => format!("unix://{}", path.display()),
        }
    }

    /// The `Host` header.
    pub(crate) fn host(&self) -> String {
        match &self.connect {
            Connect::Tcp { address } | Connect::Tls { address, .. } => address.clone(),
            Connect::Unix { .. } => "localhost".to_owned(),
        }
    }

    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Io>> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.connect_slowly())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection within 10 s"))?
    }

    async fn connect_slowly(&self) -> io::Result<Box<dyn Io>> {
        match &self.connect {
            Connect::Tcp { address } => Ok(Box::new(dial(address).await?)),
            Connect::Tls {
                address,
                server_name,
                config,
            } => {
                let tcp = dial(address).await?;
                let tls = TlsConnector::from(http1_only(config))
                    .connect(server_name.clone(), tcp)
                    .await?;
                Ok(Box::new(tls))
            }
            Connect::Unix { path } => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

async fn dial(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    // Keystrokes are single small writes; they must not wait for each other.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn http1_only(config: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let only = [b"http/1.1".to_vec()];
    if config.alpn_protocols == only {
        return Arc::clone(config);
    }
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = only.to_vec();
    Arc::new(config)
}
