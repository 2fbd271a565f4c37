//! The tokens that Pods have in projected volumes: minted by the plane for one Pod, kept in memory only, and renewed
//! when four fifths of their life (or a day) have passed, as upstream does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use api::resource;
use async_trait::async_trait;
use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::pod::observed::{Nanos, SECOND};
use crate::volume::payload::TokenRequest;

/// A token and when it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    pub token: String,
    pub expires_at: Nanos,
}

/// Who mints tokens for Pods.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    async fn mint(&self, pod: &Pod, request: &TokenRequest) -> Result<Token, String>;
}

/// The plane's own `serviceaccounts/token`.
pub struct PlaneTokens(pub Client);

#[async_trait]
impl TokenSource for PlaneTokens {
    async fn mint(&self, pod: &Pod, request: &TokenRequest) -> Result<Token, String> {
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let audiences: Vec<&str> = Some(request.audience.as_str())
            .filter(|audience| !audience.is_empty())
            .into_iter()
            .collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": request.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod",
                    "name": pod.metadata.name, "uid": pod.metadata.uid},
            },
        });
        let answer = self
            .0
            .create_sub(
                &resource::SERVICE_ACCOUNTS,
                pod.metadata.namespace.as_deref(),
                account,
                "token",
                &body,
            )
            .await
            .map_err(|error| error.to_string())?;
        let status = &answer.tree()["status"];
        let token = status["token"].as_str().ok_or("the plane answered without a token")?;
        let expires_at = status["expirationTimestamp"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .ok_or("the plane answered without the token's end")?;
        Ok(Token {
            token: token.to_owned(),
            expires_at: expires_at.as_second().saturating_mul(SECOND),
        })
    }
}

/// One Pod's tokens.
pub struct PodTokens {
    source: Arc<dyn TokenSource>,
    held: Mutex<HashMap<TokenRequest, Held>>,
}

#[derive(Clone)]
struct Held {
    token: Token,
    renew_at: Nanos,
}

/// Asked again after this long when the plane refuses or is away.
const RETRY: Nanos = 10 * SECOND;
/// Tokens that live longer are renewed daily.
const RENEW_AFTER_MAX: Nanos = 24 * 3600 * SECOND;

pub struct Current {
    pub tokens: BTreeMap<TokenRequest, Result<String, String>>,
    /// When to ask again.
    pub renew_at: Option<Nanos>,
}

impl PodTokens {
    pub fn new(source: Arc<dyn TokenSource>) -> PodTokens {
        PodTokens {
            source,
            held: Mutex::new(HashMap::new()),
        }
    }

    /// All tokens that the Pod asks for, fresh; an old one that is still good stands in when the plane is away.
    pub async fn current(&self, pod: &Pod, now: Nanos) -> Current {
        let mut current = Current {
            tokens: BTreeMap::new(),
            renew_at: None,
        };
        for request in TokenRequest::all(pod) {
            let held = self.lock().get(&request).cloned();
            let (result, again) = match held {
                Some(held) if now < held.renew_at => (Ok(held.token.token), held.renew_at),
                held => match self.source.mint(pod, &request).await {
                    Ok(token) => {
                        let renew_at = renewal(now, token.expires_at);
                        let fresh = Held {
                            token: token.clone(),
                            renew_at,
                        };
                        self.lock().insert(request.clone(), fresh);
                        (Ok(token.token), renew_at)
                    }
                    Err(problem) => match held.filter(|held| now < held.token.expires_at) {
                        Some(held) => (Ok(held.token.token), now + RETRY),
                        None => (Err(problem), now + RETRY),
                    },
                },
            };
            current.tokens.insert(request, result);
            current.renew_at = Some(current.renew_at.map_or(again, |earlier| earlier.min(again)));
        }
        current
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TokenRequest, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn renewal(now: Nanos, expires_at: Nanos) -> Nanos {
    let life = expires_at.saturating_sub(now).max(0);
    now + (life / 5 * 4).min(RENEW_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Mint {
        count: AtomicU32,
        away: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl TokenSource for Mint {
        async fn mint(&self, _: &Pod, request: &TokenRequest) -> Result<Token, String> {
            if self.away.load(Ordering::SeqCst) {
                return Err("away".to_owned());
            }
            let count = self.count.fetch_add(1, Ordering::SeqCst);
            Ok(Token {
                token: format!("t{count}"),
                expires_at: i64::from(count + 1) * request.expiration_seconds * SECOND,
            })
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_at_four_fifths_and_an_old_one_stands_in() {
        let mint = Arc::new(Mint::default());
        let tokens = PodTokens::new(mint.clone());
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [], "volumes": [
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1000}}]}}
        ]}}))
        .unwrap();
        let at = async |seconds: i64| {
            let current = tokens.current(&pod, seconds * SECOND).await;
            (
                current.tokens.into_values().next().unwrap(),
                current.renew_at.unwrap() / SECOND,
            )
        };

        assert_eq!(at(0).await, (Ok("t0".to_owned()), 800));
        assert_eq!(at(799).await, (Ok("t0".to_owned()), 800));
        mint.away.store(true, Ordering::SeqCst);
        assert_eq!(at(800).await, (Ok("t0".to_owned()), 810));
        assert_eq!(at(1000).await, (Err("away".to_owned()), 1010));
        mint.away.store(false, Ordering::SeqCst);
        assert_eq!(at(1200).await, (Ok("t1".to_owned()), 1200 + 640));
    }
}
