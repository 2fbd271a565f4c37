//! Service-account tokens: JWTs signed by ES256, with upstream's claims (`k8s.io/kubernetes/pkg/serviceaccount`).

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::{Error, der, new_key::NewKey};

/// Ours are below 2 KiB; what is far above is not one.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// How far the clock of the server that signed may be ahead of ours (go-jose's leeway). None is given at a token's end.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// A key that signs a plane's tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    key_pem: String,
    public: TokenPublicKey,
}

/// A key that checks tokens. Cheap to keep: the point and its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenPublicKey {
    /// `04 x y`.
    point: Vec<u8>,
    id: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Seconds since 1970, as `iat` and `nbf`.
    pub exp: u64,
    #[serde(default)]
    pub iat: u64,
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    #[serde(default)]
    pub nbf: u64,
    pub sub: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    pub serviceaccount: ObjectRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectRef {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a token is held against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    /// One of them has to be among the token's.
    pub audiences: &'a [&'a str],
    pub now: SystemTime,
}

/// Why a token was refused. Never shown to whom it was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    #[error("it is not a token of ours")]
    Malformed,
    #[error("none of the keys signed it")]
    Signature,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("its issuer is {0:?}")]
    Issuer(String),
    #[error("it is meant for {0:?}")]
    Audience(Vec<String>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

impl TokenKey {
    pub fn generate() -> Result<TokenKey, Error> {
        TokenKey::from_pem(&TokenKey::generate_pem()?)
    }

    /// A new key for whoever keeps it and signs later.
    pub fn generate_pem() -> Result<String, Error> {
        Ok(NewKey::generate()?.pem())
    }

    /// The key has to be P-256 in PKCS #8, as [`TokenKey::pem`] writes it.
    pub fn from_pem(key_pem: &str) -> Result<TokenKey, Error> {
        let der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| Error::unreadable("a token key", error))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der(), &SystemRandom::new())
            .map_err(|error| Error::unreadable("a token key", error))?;
        Ok(TokenKey {
            public: TokenPublicKey::of_point(key.public_key().as_ref()),
            key,
            key_pem: key_pem.to_owned(),
        })
    }

    pub fn pem(&self) -> &str {
        &self.key_pem
    }

    pub fn public(&self) -> &TokenPublicKey {
        &self.public
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, Error> {
        let header = json!({"alg": "ES256", "kid": self.public.id});
        let claims = serde_json::to_vec(claims).map_err(|error| Error::Issue(error.to_string()))?;
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| Error::Issue("the token key can't sign".into()))?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({})", self.public.id)
    }
}

impl TokenPublicKey {
    fn of_point(point: &[u8]) -> TokenPublicKey {
        let digest = ring::digest::digest(&ring::digest::SHA256, &der::p256_public_key(point));
        TokenPublicKey {
            point: point.to_vec(),
            id: encode(digest.as_ref()),
        }
    }

    /// The key's id as upstream forms it: the hash of its SubjectPublicKeyInfo.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn jwk(&self) -> Value {
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": encode(&self.point[1..33]), "y": encode(&self.point[33..65]),
        })
    }

    /// Checks signature, time, issuer and audience. Whether what the token is bound to still exists is for the caller.
    pub fn verify(&self, token: &str, expected: &Expected<'_>) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = decode(header)?;
        if header.alg != "ES256" || (!header.kid.is_empty() && header.kid != self.id) {
            return Err(TokenError::Signature);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims = decode(claims)?;
        expected.check(claims)
    }
}

impl Expected<'_> {
    fn check(&self, claims: Claims) -> Result<Claims, TokenError> {
        let now = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if now >= Duration::from_secs(claims.exp) {
            return Err(TokenError::Expired);
        }
        if now + CLOCK_SKEW < Duration::from_secs(claims.nbf) {
            return Err(TokenError::NotYet);
        }
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer(claims.iss));
        }
        if !claims
            .aud
            .iter()
            .any(|audience| self.audiences.contains(&audience.as_str()))
        {
            return Err(TokenError::Audience(claims.aud));
        }
        Ok(claims)
    }
}

/// The document of `/openid/v1/jwks`.
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a TokenPublicKey>) -> Value {
    json!({"keys": keys.into_iter().map(TokenPublicKey::jwk).collect::<Vec<_>>()})
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

/// RFC 7519: an audience is a string or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
    const START: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: START + 3600,
            iat: START,
            iss: ISSUER.to_owned(),
            jti: "0b9b7c1e".to_owned(),
            kubernetes: KubernetesClaims {
                namespace: "web".to_owned(),
                node: None,
                pod: Some(ObjectRef {
                    name: "one".to_owned(),
                    uid: "u1".to_owned(),
                }),
                secret: None,
                serviceaccount: ObjectRef {
                    name: "default".to_owned(),
                    uid: "u2".to_owned(),
                },
                warnafter: None,
            },
            nbf: START,
            sub: "system:serviceaccount:web:default".to_owned(),
        }
    }

    fn expected(at: u64) -> Expected<'static> {
        Expected {
            issuer: ISSUER,
            audiences: &[ISSUER],
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
        }
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let key = TokenKey::generate().unwrap();
        let token = key.sign(&claims()).unwrap();

        assert_eq!(key.public().verify(&token, &expected(START)), Ok(claims()));
        assert_eq!(key.public().verify(&token, &expected(START + 3599)), Ok(claims()));
        assert_eq!(
            key.public().verify(&token, &expected(START + 3600)),
            Err(TokenError::Expired)
        );
        assert_eq!(
            key.public().verify(&token, &expected(START - 61)),
            Err(TokenError::NotYet)
        );
    }

    #[test]
    fn a_token_is_good_for_its_issuer_audience_and_key_alone() {
        let key = TokenKey::generate().unwrap();
        let token = key.sign(&claims()).unwrap();
        let other = TokenKey::generate().unwrap();
        let mut elsewhere = expected(START);
        elsewhere.issuer = "https://elsewhere";
        let mut vault = expected(START);
        vault.audiences = &["vault"];

        assert_eq!(
            other.public().verify(&token, &expected(START)),
            Err(TokenError::Signature)
        );
        assert!(matches!(
            key.public().verify(&token, &elsewhere),
            Err(TokenError::Issuer(_))
        ));
        assert!(matches!(
            key.public().verify(&token, &vault),
            Err(TokenError::Audience(_))
        ));
    }

    #[test]
    fn a_changed_token_and_rubbish_are_refused() {
        let key = TokenKey::generate().unwrap();
        let token = key.sign(&claims()).unwrap();
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut root = claims();
        root.sub = "system:serviceaccount:kube-system:root".to_owned();
        parts[1] = encode(&serde_json::to_vec(&root).unwrap());
        let forged = parts.join(".");
        parts[0] = encode(br#"{"alg":"none"}"#);
        let unsigned = format!("{}.{}.", parts[0], parts[1]);

        for bad in [&forged, &unsigned, "", "..", "a.b.c", &"x".repeat(20_000)] {
            assert!(key.public().verify(bad, &expected(START)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_read_back_from_pem_is_the_same_key() {
        let key = TokenKey::generate().unwrap();
        let read = TokenKey::from_pem(key.pem()).unwrap();

        assert_eq!(key.public(), read.public());
        assert_eq!(jwks([key.public()])["keys"][0]["kid"], key.public().id());
    }
}
