//! Who asks: a client certificate or a service-account token, each judged by the plane that the request is for.
//!
//! Nothing is kept from one request to the next: one HTTP/2 connection may carry requests for several planes, and
//! whoever is known on one of them is a stranger on the others (D8).

mod impersonation;
pub mod reviews;
mod service_account;

use std::sync::Arc;

use api::{PlaneId, Reason, Status};
use http::{HeaderMap, header};
use identity::{ClientCa, TokenKey};
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

/// Planes whose parsed keys are kept at hand; about 1 KiB each.
const KEYS_MAX: usize = 4096;

/// The certificates that a connection's client has proved to hold the key of, put on its requests by the listener.
#[derive(Clone)]
pub struct ClientChain(pub Arc<[CertificateDer<'static>]>);

/// A plane's keys, parsed.
pub struct Keys {
    pub clients: ClientCa,
    pub tokens: TokenKey,
}

/// Tells who asks.
pub struct Authenticator {
    keys: Bounded<PlaneId, Arc<Keys>>,
}

impl Default for Authenticator {
    fn default() -> Authenticator {
        Authenticator {
            keys: Bounded::new(KEYS_MAX),
        }
    }
}

impl Authenticator {
    pub fn keys(&self, plane: &Plane) -> Result<Arc<Keys>, Status> {
        if let Some(keys) = self.keys.get(&plane.id) {
            return Ok(keys);
        }
        let unreadable = |error: identity::Error| {
            tracing::error!(plane = %plane.id, %error, "a plane's keys can't be read");
            Status::new(Reason::InternalError, "the plane's keys can't be read")
        };
        let keys = Arc::new(Keys {
            clients: ClientCa::from_pem(&plane.record.ca_cert_pem).map_err(unreadable)?,
            tokens: TokenKey::from_pem(&plane.record.token_key_pem).map_err(unreadable)?,
        });
        self.keys.insert(plane.id, Arc::clone(&keys));
        Ok(keys)
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
            match self.keys(plane)?.clients.verify(&chain.0, planes.world().clock.wall()) {
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
    use super::*;

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
