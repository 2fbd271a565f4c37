//! Certificate authorities and what they issue.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use world::Random;
use x509_parser::{extensions::ParsedExtension, prelude::FromDer};

use crate::{Error, der, new_key::NewKey, pem};

/// kubeadm's validity of an authority.
const CA_VALID_FOR: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Certificates begin this long before now, for peers whose clock is behind ours.
const BACKDATED_BY: Duration = Duration::from_secs(300);

/// A serial number's length; RFC 5280 allows 20 bytes.
const SERIAL_BYTES: usize = 16;

/// RFC 7093: the leftmost 160 bits of the key's SHA-256.
const KEY_ID_BYTES: usize = 20;

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// digitalSignature
const USAGE_OF_LEAF: (u8, &[u8]) = (7, &[0x80]);
/// digitalSignature, keyCertSign, cRLSign
const USAGE_OF_CA: (u8, &[u8]) = (1, &[0x86]);

/// An authority that signs: certificate and private key.
pub struct Ca {
    certificate_pem: String,
    key_pem: String,
    key: EcdsaKeyPair,
    /// The subject as it stands in the certificate, DER.
    name: Vec<u8>,
    key_id: Vec<u8>,
}

/// A name a server's certificate is good for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SubjectName {
    Dns(String),
    Ip(IpAddr),
}

impl SubjectName {
    /// An address if it reads as one, else a DNS name.
    pub fn of(text: &str) -> SubjectName {
        text.parse()
            .map_or_else(|_| SubjectName::Dns(text.to_owned()), SubjectName::Ip)
    }
}

/// A certificate with its private key, both in PEM.
#[derive(Clone)]
pub struct Certified {
    /// The leaf, then what stands between it and its authority.
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Certified {
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| Error::unreadable("a certificate", error))
    }

    pub fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| Error::unreadable("a private key", error))
    }

    /// In the form in which rustls serves it.
    pub fn to_rustls(&self) -> Result<Arc<rustls::sign::CertifiedKey>, Error> {
        let key = rustls::crypto::ring::sign::any_supported_type(&self.key()?)?;
        Ok(Arc::new(rustls::sign::CertifiedKey::new(self.chain()?, key)))
    }
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certified(key withheld)")
    }
}

impl Ca {
    /// A new authority, good for ten years from `now`.
    pub fn generate(name: &str, now: SystemTime, random: &dyn Random) -> Result<Ca, Error> {
        let new = NewKey::generate()?;
        let (key_pem, key) = (new.pem(), new.pair()?);
        let name = der::name(&[(der::COMMON_NAME, name)]);
        let key_id = key_id(key.public_key().as_ref());
        let extensions = [
            der::extension(BASIC_CONSTRAINTS, der::TRUE, &der::sequence(&[der::TRUE])),
            der::extension(KEY_USAGE, der::TRUE, &der::bit_string(USAGE_OF_CA.0, USAGE_OF_CA.1)),
            der::extension(SUBJECT_KEY_ID, &[], &der::octet_string(&key_id)),
        ];
        let mut ca = Ca {
            certificate_pem: String::new(),
            key_pem,
            key,
            name,
            key_id,
        };
        let point = ca.key.public_key().as_ref();
        ca.certificate_pem = ca.sign(&ca.name, point, CA_VALID_FOR, &extensions, now, random)?;
        Ok(ca)
    }

    /// The key has to be P-256 in PKCS #8, as [`Ca::key_pem`] writes it.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Ca, Error> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| Error::unreadable("an authority's certificate", error))?;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&certificate)
            .map_err(|error| Error::unreadable("an authority's certificate", error))?;
        let key = key_of(key_pem)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key().as_ref() {
            return Err(Error::unreadable(
                "an authority",
                "the key does not belong to the certificate",
            ));
        }
        let key_id = parsed
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        Ok(Ca {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            name: parsed.subject().as_raw().to_vec(),
            key_id: key_id.unwrap_or_else(|| self::key_id(key.public_key().as_ref())),
            key,
        })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A certificate for a server that is called by `names`.
    pub fn issue_server(
        &self,
        common_name: &str,
        names: &[SubjectName],
        valid_for: Duration,
        now: SystemTime,
        random: &dyn Random,
    ) -> Result<Certified, Error> {
        let names = names.iter().map(general_name).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let names = der::extension(SUBJECT_ALTERNATIVE_NAME, &[], &der::sequence(&names));
        let subject = der::name(&[(der::COMMON_NAME, common_name)]);
        self.issue(&subject, SERVER_AUTH, &[names], valid_for, now, random)
    }

    /// A certificate by which a client is `user` and belongs to `groups`.
    pub fn issue_client(
        &self,
        user: &str,
        groups: &[&str],
        valid_for: Duration,
        now: SystemTime,
        random: &dyn Random,
    ) -> Result<Certified, Error> {
        let mut subject: Vec<(&[u8], &str)> = groups.iter().map(|group| (der::ORGANIZATION, *group)).collect();
        subject.push((der::COMMON_NAME, user));
        self.issue(&der::name(&subject), CLIENT_AUTH, &[], valid_for, now, random)
    }

    fn issue(
        &self,
        subject: &[u8],
        usage: &[u8],
        more: &[Vec<u8>],
        valid_for: Duration,
        now: SystemTime,
        random: &dyn Random,
    ) -> Result<Certified, Error> {
        let key = NewKey::generate()?;
        let point = key.point();
        let mut extensions = vec![
            der::extension(BASIC_CONSTRAINTS, der::TRUE, &der::sequence(&[])),
            der::extension(KEY_USAGE, der::TRUE, &der::bit_string(USAGE_OF_LEAF.0, USAGE_OF_LEAF.1)),
            der::extension(EXTENDED_KEY_USAGE, &[], &der::sequence(&[&der::oid(usage)])),
            der::extension(SUBJECT_KEY_ID, &[], &der::octet_string(&key_id(point))),
            der::extension(
                AUTHORITY_KEY_ID,
                &[],
                &der::sequence(&[&der::implicit(0, &self.key_id)]),
            ),
        ];
        extensions.extend_from_slice(more);
        Ok(Certified {
            certificate_pem: self.sign(subject, point, valid_for, &extensions, now, random)?,
            key_pem: key.pem(),
        })
    }

    fn sign(
        &self,
        subject: &[u8],
        point: &[u8],
        valid_for: Duration,
        extensions: &[Vec<u8>],
        now: SystemTime,
        random: &dyn Random,
    ) -> Result<String, Error> {
        let mut serial = [0; SERIAL_BYTES];
        random.fill(&mut serial);
        // Positive, and of the same width whatever was drawn.
        serial[0] = serial[0] & 0x7f | 0x40;
        let time = |at| der::time(at).ok_or_else(|| Error::Issue("the time is outside of what X.509 can say".into()));
        let to_be_signed = der::sequence(&[
            // Version 3.
            &der::tagged(0, &der::unsigned(&[2])),
            &der::unsigned(&serial),
            der::ECDSA_SHA256,
            &self.name,
            &der::sequence(&[&time(now - BACKDATED_BY)?, &time(now + valid_for)?]),
            subject,
            &der::p256_public_key(point),
            &der::tagged(3, &der::tlv(0x30, &extensions.concat())),
        ]);
        let signature = self
            .key
            .sign(&SystemRandom::new(), &to_be_signed)
            .map_err(|_| Error::Issue("the authority's key can't sign".into()))?;
        let certificate = der::sequence(&[
            &to_be_signed,
            der::ECDSA_SHA256,
            &der::bit_string(0, signature.as_ref()),
        ]);
        Ok(pem::encode("CERTIFICATE", &certificate))
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca(key withheld)")
    }
}

/// SHA-256 of a certificate, in lower-case hex.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn general_name(name: &SubjectName) -> Result<Vec<u8>, Error> {
    match name {
        SubjectName::Dns(name) if name.is_ascii() && !name.is_empty() => Ok(der::implicit(2, name.as_bytes())),
        SubjectName::Dns(name) => Err(Error::Issue(format!("{name:?} is not a DNS name"))),
        SubjectName::Ip(IpAddr::V4(address)) => Ok(der::implicit(7, &address.octets())),
        SubjectName::Ip(IpAddr::V6(address)) => Ok(der::implicit(7, &address.octets())),
    }
}

fn key_id(point: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, point).as_ref()[..KEY_ID_BYTES].to_vec()
}

fn key_of(pem: &str) -> Result<EcdsaKeyPair, Error> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| Error::unreadable("an authority's key", error))?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der(), &SystemRandom::new())
        .map_err(|error| Error::unreadable("an authority's key", error))
}
