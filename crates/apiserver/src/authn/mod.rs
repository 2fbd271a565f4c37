//! Who asks: a client certificate or a service-account token, each judged by the plane that the request is for.
//!
//! Each request is judged by the plane it is for: one HTTP/2 connection may carry requests for several planes, and
//! whoever is known on one of them is a stranger on the others (D8). What a connection keeps is the last verdict on its
//! certificate, by which keys it came about, and for how long it stands.

mod impersonation;
pub mod reviews;
mod service_account;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use api::{PlaneId, Reason, Status};
use http::{HeaderMap, header};
use identity::{ClientCa, Subject, TokenKey};
use rustls::pki_types::CertificateDer;

pub use impersonation::impersonate;
pub(crate) use service_account::find;
pub use service_account::{ISSUER, Verified, verify_token};

use crate::{
    context::Identity,
    planes::{Bounded, Plane, Planes},
};

pub const ANONYMOUS: &str = "system:anonymous";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const AUTHENTICATED: &str = "system:authenticated";

/// Planes whose parsed keys are kept at hand, of each of two kinds; about 1 KiB together.
const KEYS_MAX: usize = 4096;

/// A certificate found good is good for so long, or until it ends; a signature costs more than all else of a small request.
const VERDICT_STANDS: Duration = Duration::from_secs(10);

/// The certificates that a connection's client has proved to hold the key of, put on its requests by the listener.
#[derive(Clone)]
pub struct ClientChain(Arc<Chain>);

struct Chain {
    certificates: Box<[CertificateDer<'static>]>,
    last: Mutex<Option<Verdict>>,
}

/// That a plane's authority has signed a connection's certificate.
struct Verdict {
    authority: Arc<ClientCa>,
    subject: Subject,
    from: SystemTime,
    until: SystemTime,
}

impl ClientChain {
    pub fn new(certificates: &[CertificateDer<'_>]) -> ClientChain {
        ClientChain(Arc::new(Chain {
            certificates: certificates.iter().map(|one| one.clone().into_owned()).collect(),
            last: Mutex::new(None),
        }))
    }

    /// Whom the certificate names, if this authority has signed it and it is valid at `now`.
    fn subject(&self, authority: &Arc<ClientCa>, now: SystemTime) -> Result<Subject, identity::Error> {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = &*last
            && Arc::ptr_eq(&verdict.authority, authority)
            && (verdict.from..verdict.until).contains(&now)
        {
            return Ok(verdict.subject.clone());
        }
        let subject = authority.verify(&self.0.certificates, now)?;
        *last = Some(Verdict {
            authority: Arc::clone(authority),
            from: now,
            until: subject.not_after.min(now + VERDICT_STANDS),
            subject: subject.clone(),
        });
        Ok(subject)
    }
}

/// Tells who asks.
pub struct Authenticator {
    clients: Bounded<PlaneId, Arc<ClientCa>>,
    tokens: Bounded<PlaneId, Arc<TokenKey>>,
}

impl Default for Authenticator {
    fn default() -> Authenticator {
        Authenticator {
            clients: Bounded::new(KEYS_MAX),
            tokens: Bounded::new(KEYS_MAX),
        }
    }
}

impl Authenticator {
    /// The authority that signs certificates of the plane's users.
    fn clients(&self, plane: &Plane) -> Result<Arc<ClientCa>, Status> {
        at_hand(&self.clients, plane, || ClientCa::from_pem(&plane.record.ca_cert_pem))
    }

    /// The key that signs the plane's tokens.
    pub fn tokens(&self, plane: &Plane) -> Result<Arc<TokenKey>, Status> {
        at_hand(&self.tokens, plane, || TokenKey::from_pem(&plane.record.token_key_pem))
    }

    /// Whoever has no credential is anonymous; whoever has one that this plane does not know is refused.
    pub async fn authenticate(
        &self,
        planes: &Planes,
        plane: &Plane,
        chain: Option<&ClientChain>,
        headers: &HeaderMap,
    ) -> Result<Identity, Status> {
        let mut credential_refused = false;
        if let Some(chain) = chain {
            match chain.subject(&self.clients(plane)?, planes.world().clock.wall()) {
                Ok(subject) => return Ok(authenticated(subject.user, subject.groups)),
                Err(error) => {
                    tracing::debug!(plane = %plane.id, %error, "a client certificate was refused");
                    credential_refused = true;
                }
            }
        }
        if let Some(token) = bearer(headers) {
            match verify_token(self, planes, plane, token, &[ISSUER]).await? {
                Some(verified) => return Ok(verified.identity),
                None => credential_refused = true,
            }
        }
        if credential_refused {
            return Err(Status::new(Reason::Unauthorized, "Unauthorized"));
        }
        Ok(Identity::new(ANONYMOUS, &[UNAUTHENTICATED]))
    }
}

/// One of a plane's keys, parsed when it is first needed.
fn at_hand<K>(
    known: &Bounded<PlaneId, Arc<K>>,
    plane: &Plane,
    parse: impl FnOnce() -> Result<K, identity::Error>,
) -> Result<Arc<K>, Status> {
    if let Some(key) = known.get(&plane.id) {
        return Ok(key);
    }
    let key = parse().map_err(|error| {
        tracing::error!(plane = %plane.id, %error, "a plane's keys can't be read");
        Status::new(Reason::InternalError, "the plane's keys can't be read")
    })?;
    let key = Arc::new(key);
    known.insert(plane.id, Arc::clone(&key));
    Ok(key)
}

/// Everybody who has a name is in one group more.
fn authenticated(name: String, mut groups: Vec<String>) -> Identity {
    if name != ANONYMOUS && !groups.iter().any(|group| group == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    Identity {
        name,
        groups,
        ..Identity::default()
    }
}

/// The token of an `Authorization: Bearer` header. Anything else in that header is no credential to us, as upstream.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use identity::Ca;
    use rustls::pki_types::pem::PemObject;
    use world::OsRandom;

    use super::*;

    #[test]
    fn a_verdict_stands_for_its_authority_and_until_the_certificate_ends() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let [ours, theirs] = ["ours", "theirs"].map(|name| Ca::generate(name, now, &OsRandom).unwrap());
        let life = Duration::from_secs(5);
        let certified = ours.issue_client("ann", &["devs"], life, now, &OsRandom).unwrap();
        let [ours, theirs] = [ours, theirs].map(|ca| Arc::new(ClientCa::from_pem(ca.certificate_pem()).unwrap()));
        let chain = ClientChain::new(&[CertificateDer::from_pem_slice(certified.certificate_pem.as_bytes()).unwrap()]);

        assert_eq!(chain.subject(&ours, now).unwrap().user, "ann");
        assert_eq!(chain.subject(&ours, now + life / 2).unwrap().groups, ["devs"]);
        assert!(chain.subject(&theirs, now).is_err());
        assert!(chain.subject(&ours, now).is_ok());
        assert!(chain.subject(&ours, now + life * 2).is_err());
    }

    #[test]
    fn a_token_is_what_follows_bearer() {
        let token = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };

        assert_eq!(token("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(token("bearer  abc "), Some("abc".to_owned()));
        assert_eq!(token("Basic abc"), None);
        assert_eq!(token("Bearer "), None);
    }
}
