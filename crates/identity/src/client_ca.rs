//! Judging a client's certificate against one authority.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{RootCertStore, server::WebPkiClientVerifier, server::danger::ClientCertVerifier};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use x509_parser::prelude::FromDer;

use crate::{Error, tls};

/// What is known of an authority by those who only check: its certificate.
#[derive(Clone)]
pub struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Whom a client's certificate names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The common name.
    pub user: String,
    /// The organizations.
    pub groups: Vec<String>,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl ClientCa {
    /// One certificate or several (while an authority is being replaced).
    pub fn from_pem(certificates_pem: &str) -> Result<ClientCa, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificates_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| Error::unreadable("an authority's certificate", error))?;
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .build()
            .map_err(|error| Error::unreadable("an authority's certificate", error))?;
        Ok(ClientCa { verifier })
    }

    /// Checks signatures, validity at `now` and that the leaf is meant for clients. That the client holds the leaf's
    /// key was proved in the handshake.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Subject, Error> {
        let (leaf, between) = chain
            .split_first()
            .ok_or_else(|| Error::Untrusted("there is none".into()))?;
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::Untrusted("the clock stands before 1970".into()))?;
        self.verifier
            .verify_client_cert(leaf, between, UnixTime::since_unix_epoch(since_epoch))
            .map_err(|error| Error::Untrusted(error.to_string()))?;
        subject(leaf)
    }
}

impl std::fmt::Debug for ClientCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCa")
    }
}

fn subject(leaf: &CertificateDer<'_>) -> Result<Subject, Error> {
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(leaf)
        .map_err(|error| Error::unreadable("the client's certificate", error))?;
    let user = leaf
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .next();
    let user = user.filter(|user| !user.is_empty());
    Ok(Subject {
        user: user
            .ok_or_else(|| Error::Untrusted("it has no common name".into()))?
            .to_owned(),
        groups: leaf
            .subject()
            .iter_organization()
            .filter_map(|group| group.as_str().ok())
            .map(str::to_owned)
            .collect(),
        not_after: SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use world::OsRandom;

    use super::*;
    use crate::Ca;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn ca(name: &str) -> Ca {
        Ca::generate(name, now(), &OsRandom).unwrap()
    }

    fn checker(ca: &Ca) -> ClientCa {
        ClientCa::from_pem(ca.certificate_pem()).unwrap()
    }

    #[test]
    fn a_client_is_who_its_certificate_says() {
        let ca = ca("plane");
        let client = ca
            .issue_client("jane", &["dev", "system:masters"], DAY, now(), &OsRandom)
            .unwrap();

        let subject = checker(&ca).verify(&client.chain().unwrap(), now()).unwrap();

        assert_eq!(subject.user, "jane");
        assert_eq!(subject.groups, ["dev", "system:masters"]);
    }

    #[test]
    fn an_authority_read_back_from_pem_signs_as_before() {
        let made = ca("plane");
        let read = Ca::from_pem(made.certificate_pem(), made.key_pem()).unwrap();
        let client = read.issue_client("jane", &[], DAY, now(), &OsRandom).unwrap();

        assert!(checker(&made).verify(&client.chain().unwrap(), now()).is_ok());
        assert!(Ca::from_pem(made.certificate_pem(), ca("other").key_pem()).is_err());
    }

    #[test]
    fn what_another_authority_of_the_same_name_signed_is_refused() {
        let client = ca("plane").issue_client("jane", &[], DAY, now(), &OsRandom).unwrap();

        let refused = checker(&ca("plane")).verify(&client.chain().unwrap(), now());

        assert!(matches!(refused, Err(Error::Untrusted(_))));
    }

    #[test]
    fn a_certificate_is_good_from_its_beginning_to_its_end() {
        let ca = ca("plane");
        let client = ca
            .issue_client("jane", &[], DAY, now(), &OsRandom)
            .unwrap()
            .chain()
            .unwrap();
        let checker = checker(&ca);

        assert!(checker.verify(&client, now() - Duration::from_secs(200)).is_ok());
        assert!(checker.verify(&client, now() - Duration::from_secs(400)).is_err());
        assert!(checker.verify(&client, now() + DAY - Duration::from_secs(1)).is_ok());
        assert!(checker.verify(&client, now() + DAY + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_servers_certificate_does_not_make_a_client() {
        let ca = ca("plane");
        let server = ca.issue_server("jane", &[], DAY, now(), &OsRandom).unwrap();

        assert!(checker(&ca).verify(&server.chain().unwrap(), now()).is_err());
    }

    #[test]
    fn no_chain_and_rubbish_are_refused_quietly() {
        let checker = checker(&ca("plane"));

        assert!(checker.verify(&[], now()).is_err());
        assert!(
            checker
                .verify(&[CertificateDer::from(vec![0x30, 0x80, 1, 2, 3])], now())
                .is_err()
        );
        assert!(ClientCa::from_pem("no pem").is_err());
    }
}
