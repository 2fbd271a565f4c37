//! TLS of the kubelet API and of probes.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, ServerConfig, SignatureScheme,
};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} is not PEM: {problem}")]
    Pem { what: &'static str, problem: String },
    #[error("{what} cannot be used: {problem}")]
    Unfit { what: &'static str, problem: String },
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Pem {
            what,
            problem: "there is no certificate in it".to_owned(),
        }),
        Err(error) => Err(TlsError::Pem {
            what,
            problem: error.to_string(),
        }),
    }
}

fn roots(pem: &[u8], what: &'static str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        store.add(certificate).map_err(unfit(what))?;
    }
    Ok(Arc::new(store))
}

fn key(pem: &[u8], what: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| TlsError::Pem {
        what,
        problem: error.to_string(),
    })
}

fn unfit<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TlsError {
    move |error| TlsError::Unfit {
        what,
        problem: error.to_string(),
    }
}

/// A server that talks only to clients with certificates of `client_ca`, over HTTP/1.1 (what upgrades need).
pub fn server(certificate: &[u8], private_key: &[u8], client_ca: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(client_ca, "the client CA")?, provider())
        .build()
        .map_err(unfit("the client CA"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unfit("TLS"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(certificate, "the serving certificate")?,
            key(private_key, "the serving key")?,
        )
        .map_err(unfit("the serving certificate"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client with a certificate. Without `server_ca` it talks to any server, as kube-apiserver does to kubelets whose
/// CA it is not told.
pub fn client(certificate: &[u8], private_key: &[u8], server_ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unfit("TLS"))?;
    let builder = match server_ca {
        Some(ca) => builder.with_root_certificates(roots(ca, "the server CA")?),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider()))),
    };
    let config = builder
        .with_client_auth_cert(
            certificates(certificate, "the client certificate")?,
            key(private_key, "the client key")?,
        )
        .map_err(unfit("the client certificate"))?;
    Ok(Arc::new(config))
}

/// Probes ask whether the container answers, not whether its certificate is good; as upstream's do.
pub fn asking_anyone() -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider())))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        tokio_rustls::rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        tokio_rustls::rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
