//! The network as a transport: TLS, credentials and connection pool of `kube`, below our own verbs.

use std::{path::Path, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy,
    client::legacy::connect::HttpConnector,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body as KubeBody, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::ServiceBuilder;

use crate::{Body, BoxError, Client, Error, body::read_body};

/// A server that does not take a connection in this time is treated as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that vanished without a word is noticed by the kernel after this and three probes; watches then reconnect.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE_RETRIES: u32 = 3;
/// Connections that a burst of requests needed are closed when nothing has needed them for so long.
const IDLE: Duration = Duration::from_secs(30);
/// kube-apiserver refuses bodies above 3 MiB; ours are read whole before they are sent.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// A kubeconfig, or what a Pod finds of its service account, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("kubeconfig {path} cannot be used: {source}")]
    Kubeconfig {
        path: String,
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("this is not a Pod with a service account: {0}")]
    InCluster(#[source] Box<kube::config::InClusterError>),
    #[error("credentials or certificates cannot be used: {0}")]
    Credentials(#[source] Box<kube::Error>),
}

impl Client {
    /// To the server of a kubeconfig's context (its current one if `None`).
    pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Client, Error> {
        let unusable = |source| ConfigError::Kubeconfig {
            path: path.display().to_string(),
            source: Box::new(source),
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
        from_parsed(kubeconfig, context, unusable).await
    }

    /// As [`Client::from_kubeconfig`], of a kubeconfig's text (as kept in a Secret).
    pub async fn from_kubeconfig_text(text: &str, context: Option<&str>) -> Result<Client, Error> {
        let unusable = |source| ConfigError::Kubeconfig {
            path: "(text)".to_owned(),
            source: Box::new(source),
        };
        let kubeconfig = Kubeconfig::from_yaml(text).map_err(unusable)?;
        from_parsed(kubeconfig, context, unusable).await
    }

    /// As a Pod, by its service account.
    pub fn in_cluster() -> Result<Client, Error> {
        let config = Config::incluster().map_err(|source| ConfigError::InCluster(Box::new(source)))?;
        from_config(config)
    }
}

async fn from_parsed(
    kubeconfig: Kubeconfig,
    context: Option<&str>,
    unusable: impl Fn(kube::config::KubeconfigError) -> ConfigError,
) -> Result<Client, Error> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(unusable)?;
    from_config(config)
}

fn from_config(config: Config) -> Result<Client, Error> {
    let credentials = |source| ConfigError::Credentials(Box::new(source));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(TCP_KEEPALIVE));
    connector.set_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES));
    let connector = config
        .rustls_https_connector_with_connector(connector)
        .map_err(credentials)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(credentials)?)
        .map_err(BoxError::from)
        .service(
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build::<_, KubeBody>(connector),
        );
    let kube = kube::Client::new(service, config.default_namespace);
    Ok(Client::new(tower::service_fn(move |request| {
        send(kube.clone(), request)
    })))
}

async fn send(kube: kube::Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, MAX_REQUEST_BYTES).await?;
    let response = kube.send(Request::from_parts(parts, KubeBody::from(body))).await?;
    Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let error = Client::from_kubeconfig(Path::new("/nowhere/config"), None)
            .await
            .unwrap_err();

        assert!(error.to_string().contains("/nowhere/config"), "{error}");
    }
}
