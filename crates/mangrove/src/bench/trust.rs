//! Whom the load's connections trust, set up once for all of them.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// A client's side of TLS but for who it is.
#[derive(Clone)]
pub struct Trust {
    pub config: ClientConfig,
}

impl Trust {
    pub fn new(authority_pem: &str) -> anyhow::Result<Trust> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
            roots.add(certificate.context("reading an authority's certificate")?)?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), identity::tls::provider())
            .build()
            .context("reading an authority's certificate")?;
        let mut config = identity::tls::client_config(authority_pem, None)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.dangerous().set_certificate_verifier(Arc::new(Remembering {
            verifier,
            known: Mutex::default(),
        }));
        Ok(Trust { config })
    }
}

/// Judges a server's certificate when it is first seen: thousands of connections to one server are one user's in a thousand
/// places, each of whom would do this on a machine of its own. That the server holds the key is proved on each.
#[derive(Debug)]
struct Remembering {
    verifier: Arc<WebPkiServerVerifier>,
    known: Mutex<Option<(CertificateDer<'static>, ServerName<'static>)>>,
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some_and(|(certificate, called)| certificate == *leaf && called == *name) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.verifier.verify_server_cert(leaf, between, name, ocsp, now)?;
        let known = (leaf.clone().into_owned(), name.to_owned());
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
