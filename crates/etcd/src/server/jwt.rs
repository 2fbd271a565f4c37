//! Tokens that say who somebody is, signed instead of remembered: etcd's `--auth-token jwt,...` (`server/auth/jwt.go`).

use std::{
    collections::HashMap,
    fmt, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
        RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::{Value, json};
use x509_parser::{der_parser::parse_der, prelude::FromDer, x509::SubjectPublicKeyInfo};

/// etcd's default.
const TTL: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("auth: invalid auth options: {0}")]
    Options(String),
    #[error("auth: missing key data")]
    MissingKey,
    #[error("auth: public and private keys don't match")]
    KeyMismatch,
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    #[error(
        "auth: invalid auth signature method: {0:?} is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, \
         HS256, HS384, HS512"
    )]
    Method(String),
    #[error("auth: {file} can't be used: {why}")]
    Key { file: String, why: String },
}

/// How one method of JWT signs and verifies.
#[derive(Clone, Copy)]
enum Kind {
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed25519,
    Hmac(hmac::Algorithm),
}

fn kind(method: &str) -> Option<Kind> {
    Some(match method {
        "RS256" => Kind::Rsa(&RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Kind::Rsa(&RSA_PKCS1_SHA384, &RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Kind::Rsa(&RSA_PKCS1_SHA512, &RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Kind::Rsa(&RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
        "PS384" => Kind::Rsa(&RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
        "PS512" => Kind::Rsa(&RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
        "ES256" => Kind::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED),
        "ES384" => Kind::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED),
        "EdDSA" => Kind::Ed25519,
        "HS256" => Kind::Hmac(hmac::HMAC_SHA256),
        "HS384" => Kind::Hmac(hmac::HMAC_SHA384),
        "HS512" => Kind::Hmac(hmac::HMAC_SHA512),
        _ => return None,
    })
}

enum Signer {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Hmac(hmac::Key),
}

impl Signer {
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Signer::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Signer::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
            Signer::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
        }
    }

    fn public(&self) -> Option<Vec<u8>> {
        match self {
            Signer::Rsa(key, _) => Some(key.public_key().as_ref().to_vec()),
            Signer::Ecdsa(key) => Some(key.public_key().as_ref().to_vec()),
            Signer::Ed25519(key) => Some(key.public_key().as_ref().to_vec()),
            Signer::Hmac(_) => None,
        }
    }
}

enum Verifier {
    Public(UnparsedPublicKey<Vec<u8>>),
    Hmac(hmac::Key),
}

/// Signs tokens and knows its own.
pub struct Jwt {
    method: String,
    /// There is none where tokens are made elsewhere.
    signer: Option<Signer>,
    verifier: Verifier,
    ttl: Duration,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Jwt {
    /// `options` are those of the flag, behind `jwt,`; `read` reads a file.
    pub fn of_options(options: &str, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Jwt, JwtError> {
        let options = parsed(options)?;
        let method = *options
            .get("sign-method")
            .ok_or_else(|| JwtError::Method(String::new()))?;
        let kind = kind(method).ok_or_else(|| JwtError::Method(method.to_owned()))?;
        let ttl = match options.get("ttl") {
            None => TTL,
            Some(ttl) => super::duration::parse(ttl).map_err(JwtError::Options)?,
        };
        let file = |option: &str| {
            let file = *options.get(option).filter(|file| !file.is_empty())?;
            let bytes = read(Path::new(file)).map_err(|error| unusable(file, error));
            Some(bytes.map(|bytes| (file, bytes)))
        };
        let (private, public) = (file("priv-key").transpose()?, file("pub-key").transpose()?);
        let signer = (private.as_ref())
            .map(|(file, pem)| signer(kind, pem).map_err(|why| unusable(file, why)))
            .transpose()?;
        let verifier = match kind {
            Kind::Hmac(algorithm) => {
                let (_, secret) = private.as_ref().ok_or(JwtError::MissingKey)?;
                Verifier::Hmac(hmac::Key::new(algorithm, secret))
            }
            Kind::Rsa(_, algorithm) | Kind::Ecdsa(_, algorithm) => verifier(algorithm, public, signer.as_ref())?,
            Kind::Ed25519 => verifier(&ED25519, public, signer.as_ref())?,
        };
        let jwt = Jwt {
            method: method.to_owned(),
            signer,
            verifier,
            ttl,
        };
        jwt.has_keys_that_match()?;
        Ok(jwt)
    }

    fn has_keys_that_match(&self) -> Result<(), JwtError> {
        const PROBE: &[u8] = b"one pair?";
        let signed = self.signer.as_ref().map(|signer| signer.sign(PROBE));
        match signed {
            None => Ok(()),
            Some(Some(signature)) if self.is_signed(PROBE, &signature) => Ok(()),
            Some(_) => Err(JwtError::KeyMismatch),
        }
    }

    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(key) => key.verify(message, signature).is_ok(),
            Verifier::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }

    /// `revision` is that of users and roles: a token ends when they change.
    pub fn sign(&self, user: &str, revision: u64, now: SystemTime) -> Result<String, JwtError> {
        let signer = self.signer.as_ref().ok_or(JwtError::VerifyOnly)?;
        let ends = since_epoch(now) + self.ttl.as_secs();
        let header = json!({"alg": self.method, "typ": "JWT"});
        let claims = json!({"username": user, "revision": revision, "exp": ends});
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = signer.sign(signed.as_bytes()).ok_or(JwtError::KeyMismatch)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The user and the revision of users and roles that the token was made at.
    pub fn verify(&self, token: &str, now: SystemTime) -> Option<(String, u64)> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let json = |text: &str| serde_json::from_slice::<Value>(&part(text)?).ok();
        // The method is the server's to say, and not the token's.
        if json(header)?["alg"] != self.method.as_str() || !self.is_signed(signed.as_bytes(), &part(signature)?) {
            return None;
        }
        let claims = json(claims)?;
        let now = since_epoch(now) as f64;
        let is_over = claims
            .get("exp")
            .is_some_and(|ends| ends.as_f64().is_none_or(|ends| ends <= now));
        let is_early = claims
            .get("nbf")
            .is_some_and(|begins| begins.as_f64().is_none_or(|begins| begins > now));
        if is_over || is_early {
            return None;
        }
        let revision = claims["revision"].as_f64().filter(|revision| *revision >= 0.0)?;
        Some((claims["username"].as_str()?.to_owned(), revision as u64))
    }
}

fn since_epoch(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn unusable(file: &str, why: impl fmt::Display) -> JwtError {
    JwtError::Key {
        file: file.to_owned(),
        why: why.to_string(),
    }
}

fn parsed(options: &str) -> Result<HashMap<&str, &str>, JwtError> {
    const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];
    let mut parsed = HashMap::new();
    for option in options.split(',') {
        let wrong = |why: &str| JwtError::Options(format!("{option:?} {why}"));
        let (name, value) = option.split_once('=').ok_or_else(|| wrong("is no NAME=VALUE"))?;
        if !KNOWN.contains(&name) {
            return Err(wrong("is none of sign-method, pub-key, priv-key, ttl"));
        }
        if parsed.insert(name, value).is_some() {
            return Err(wrong("is given twice"));
        }
    }
    Ok(parsed)
}

fn signer(kind: Kind, pem: &[u8]) -> Result<Signer, String> {
    if let Kind::Hmac(algorithm) = kind {
        return Ok(Signer::Hmac(hmac::Key::new(algorithm, pem)));
    }
    let rejected = |error: ring::error::KeyRejected| error.to_string();
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    match (kind, key) {
        (Kind::Rsa(encoding, _), PrivateKeyDer::Pkcs8(der)) => {
            let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der());
            Ok(Signer::Rsa(key.map_err(rejected)?, encoding))
        }
        (Kind::Rsa(encoding, _), PrivateKeyDer::Pkcs1(der)) => {
            let key = RsaKeyPair::from_der(der.secret_pkcs1_der());
            Ok(Signer::Rsa(key.map_err(rejected)?, encoding))
        }
        (Kind::Ecdsa(algorithm, _), PrivateKeyDer::Pkcs8(der)) => {
            let key = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &SystemRandom::new());
            key.map(Signer::Ecdsa).map_err(rejected)
        }
        (Kind::Ecdsa(algorithm, _), PrivateKeyDer::Sec1(der)) => sec1(algorithm, der.secret_sec1_der()),
        (Kind::Ed25519, PrivateKeyDer::Pkcs8(der)) => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
            key.map(Signer::Ed25519).map_err(rejected)
        }
        _ => Err("the key is of another kind than sign-method".into()),
    }
}

/// An elliptic curve's key as `openssl ecparam -genkey` writes it: version, private key, `[0]` curve, `[1]` public key.
fn sec1(algorithm: &'static EcdsaSigningAlgorithm, der: &[u8]) -> Result<Signer, String> {
    let wrong = || "it is no EC private key with its public key".to_owned();
    let (_, parsed) = parse_der(der).map_err(|_| wrong())?;
    let fields = parsed.as_sequence().map_err(|_| wrong())?;
    let private = fields
        .get(1)
        .and_then(|field| field.as_slice().ok())
        .ok_or_else(wrong)?;
    let last = fields
        .last()
        .and_then(|field| field.as_slice().ok())
        .ok_or_else(wrong)?;
    let (_, bits) = parse_der(last).map_err(|_| wrong())?;
    let public = bits.as_bitstring().map_err(|_| wrong())?;
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public.data, &SystemRandom::new());
    key.map(Signer::Ecdsa).map_err(|error| error.to_string())
}

fn verifier(
    algorithm: &'static dyn VerificationAlgorithm,
    file: Option<(&str, Vec<u8>)>,
    signer: Option<&Signer>,
) -> Result<Verifier, JwtError> {
    let key = match file {
        Some((file, pem)) => public(&pem).map_err(|why| unusable(file, why))?,
        None => signer.and_then(Signer::public).ok_or(JwtError::MissingKey)?,
    };
    Ok(Verifier::Public(signature::UnparsedPublicKey::new(algorithm, key)))
}

/// Of a public key or of a certificate, as ring wants it: what stands in the bit string.
fn public(pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "it has no public key and no certificate".to_owned();
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(pem) {
        let (_, key) = SubjectPublicKeyInfo::from_der(&key).map_err(|_| wrong())?;
        return Ok(key.subject_public_key.data.to_vec());
    }
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| wrong())?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| wrong())?;
    Ok(certificate.public_key().subject_public_key.data.to_vec())
}
