//! Getting to an etcd.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// `http://host:port` or `https://host:port`, members of one cluster.
    pub endpoints: Vec<String>,
    /// What all keys begin with in etcd. Empty for an etcd that is ours alone. One keyspace's prefix must not begin with
    /// another's: `/mangrove/a` and `/mangrove/b`, not `/mangrove` and `/mangrove/b`.
    pub prefix: String,
    /// Who signed the server's certificate. Needed for `https`.
    pub ca_pem: Option<Vec<u8>>,
    /// Our certificate, if the server wants one, with its key.
    pub certificate_pem: Option<Vec<u8>>,
    pub key_pem: Option<Vec<u8>>,
    /// Name and password, where the server has users.
    pub user: Option<(String, String)>,
}

impl EtcdOptions {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>, prefix: impl Into<String>) -> EtcdOptions {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: prefix.into(),
            ..EtcdOptions::default()
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options can't be right.
    #[error("etcd: {0}")]
    Options(String),
    /// Nobody answers, or not as an etcd; try again later.
    #[error("etcd at {endpoints}: {source}")]
    Unreachable {
        endpoints: String,
        source: etcd_client::Error,
    },
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// As the API server of Kubernetes does it, so that a dead connection is noticed within a minute.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Connected {
    pub client: Client,
    /// What the server says it is.
    pub version: String,
}

pub(crate) async fn connect(options: &EtcdOptions) -> Result<Connected, ConnectError> {
    if options.endpoints.is_empty() {
        return Err(ConnectError::Options("no endpoint is given".into()));
    }
    let identity = match (&options.certificate_pem, &options.key_pem) {
        (Some(certificate), Some(key)) => Some(Identity::from_pem(certificate, key)),
        (None, None) => None,
        _ => {
            return Err(ConnectError::Options(
                "a certificate needs its key, and a key its certificate".into(),
            ));
        }
    };
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        // A member that has lost its cluster ends its watches instead of keeping silent.
        .with_require_leader(true);
    if let Some((name, password)) = &options.user {
        connect = connect.with_user(name, password);
    }
    if options.ca_pem.is_some() || identity.is_some() {
        let mut tls = TlsOptions::new();
        if let Some(ca) = &options.ca_pem {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        connect = connect.with_tls(tls);
    } else if options
        .endpoints
        .iter()
        .any(|endpoint| endpoint.starts_with("https://"))
    {
        return Err(ConnectError::Options(
            "an https endpoint needs a CA to check it with".into(),
        ));
    }
    let unreachable = |source| ConnectError::Unreachable {
        endpoints: options.endpoints.join(","),
        source,
    };
    let client = Client::connect(&options.endpoints, Some(connect))
        .await
        .map_err(unreachable)?;
    // Connecting is lazy: only an answer shows that somebody is there.
    let mut maintenance = client.maintenance_client();
    let status = tokio::time::timeout(CONNECT_TIMEOUT * 2, maintenance.status()).await;
    let status = status.map_err(|_| unreachable(etcd_client::Error::IoError(std::io::ErrorKind::TimedOut.into())))?;
    let version = status.map_err(unreachable)?.version().to_owned();
    Ok(Connected { client, version })
}
