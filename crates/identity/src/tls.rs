//! How we speak TLS: `ring`, TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.

use std::{
    fmt,
    sync::{Arc, LazyLock, RwLock},
};

use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
    client::{Resumption, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};

use crate::{Certified, Error};

/// Kubernetes clients want HTTP/2; upgrades (exec, port-forward) need HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// `ring`, with the cheaper of its ciphers first, as Go's clients have it: processors know SHA-256 and not SHA-384.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::ring::default_provider();
        let costs_more = |suite: &SupportedCipherSuite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384;
        provider.cipher_suites.sort_by_key(costs_more);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Whether a server asks its clients for a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCertificates {
    /// Asked for, not required. Any is accepted: the handshake proves only that the client holds its key. Whom it
    /// names is judged per request, since one connection may carry requests for several authorities (D8).
    Requested,
    Ignored,
}

/// A server's side. The certificate comes from `resolver`: see [`Rotating`].
pub fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    clients: ClientCertificates,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        ClientCertificates::Requested => builder.with_client_cert_verifier(Arc::new(AnyCertificate {
            algorithms: provider().signature_verification_algorithms,
        })),
        ClientCertificates::Ignored => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Kubernetes' clients resume no sessions; to be ready for it costs two tickets a connection, and keeps certificates.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client's side: whom it trusts, and who it is.
pub fn client_config(authorities_pem: &str, identity: Option<&Certified>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| Error::unreadable("an authority's certificate", error))?)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain()?, identity.key()?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A server's certificate that can be replaced while the server runs; connections made after see the new one.
#[derive(Clone)]
pub struct Rotating(Arc<RwLock<Arc<CertifiedKey>>>);

impl Rotating {
    pub fn new(first: &Certified) -> Result<Rotating, Error> {
        Ok(Rotating(Arc::new(RwLock::new(first.to_rustls()?))))
    }

    pub fn replace(&self, next: &Certified) -> Result<(), Error> {
        let next = next.to_rustls()?;
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = next;
        Ok(())
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        Some(Arc::clone(&current))
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotating")
    }
}

/// Takes any certificate, with proof of possession. See [`ClientCertificates::Requested`].
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client picks what it has, and naming the authorities would tell one tenant of the others.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        time::{Duration, SystemTime},
    };

    use world::OsRandom;

    use super::*;
    use crate::{Ca, ClientCa, SubjectName};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[allow(clippy::disallowed_methods, reason = "rustls' client reads the machine's clock")]
    fn now() -> SystemTime {
        SystemTime::now()
    }

    /// Runs a handshake in memory and one message each way; gives the server's end.
    fn connect(
        client: ClientConfig,
        server: ServerConfig,
        name: &str,
    ) -> Result<rustls::ServerConnection, rustls::Error> {
        let mut client = rustls::ClientConnection::new(Arc::new(client), name.to_owned().try_into().unwrap()).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        client.writer().write_all(b"ping").unwrap();
        let mut got = Vec::new();
        while got.len() < 4 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = wire.as_slice();
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = wire.as_slice();
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
                client.process_new_packets()?;
            }
            let mut buffer = [0; 16];
            if let Ok(read) = server.reader().read(&mut buffer) {
                got.extend_from_slice(&buffer[..read]);
            }
        }
        Ok(server)
    }

    fn server_of(ca: &Ca, name: &str) -> ServerConfig {
        let certificate = ca
            .issue_server(name, &[SubjectName::of(name)], DAY, now(), &OsRandom)
            .unwrap();
        server_config(
            Arc::new(Rotating::new(&certificate).unwrap()),
            ClientCertificates::Requested,
        )
        .unwrap()
    }

    #[test]
    fn a_client_of_any_authority_is_let_in_and_judged_afterwards() {
        let (house, tenant) = (ca("house"), ca("tenant"));
        let jane = tenant.issue_client("jane", &["dev"], DAY, now(), &OsRandom).unwrap();
        let client = client_config(house.certificate_pem(), Some(&jane)).unwrap();

        let server = connect(client, server_of(&house, "kubernetes.default"), "kubernetes.default").unwrap();

        let chain = server.peer_certificates().unwrap();
        let checker = |ca: &Ca| ClientCa::from_pem(ca.certificate_pem()).unwrap();
        assert_eq!(checker(&tenant).verify(chain, now()).unwrap().user, "jane");
        assert!(checker(&house).verify(chain, now()).is_err());
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        let suite = server.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    #[test]
    fn a_client_without_a_certificate_is_let_in() {
        let house = ca("house");
        let client = client_config(house.certificate_pem(), None).unwrap();

        let server = connect(client, server_of(&house, "10.96.0.1"), "10.96.0.1").unwrap();

        assert!(server.peer_certificates().is_none());
    }

    #[test]
    fn a_client_does_not_trust_another_name_or_another_authority() {
        let (house, other) = (ca("house"), ca("other"));
        let client = |ca: &Ca| client_config(ca.certificate_pem(), None).unwrap();

        assert!(connect(client(&house), server_of(&house, "one"), "two").is_err());
        assert!(connect(client(&other), server_of(&house, "one"), "one").is_err());
    }

    fn ca(name: &str) -> Ca {
        Ca::generate(name, now(), &OsRandom).unwrap()
    }
}
