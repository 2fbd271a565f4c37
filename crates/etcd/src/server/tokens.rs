//! Tokens of users who have shown their password: remembered ones, as etcd's simple ones, or signed ones.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use world::World;

use super::{
    jwt::{Jwt, JwtError},
    status::{Code, Status},
};

/// As etcd's simple tokens: they last this long after their last use.
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// Whoever asks for more loses the oldest.
const TOKENS_MAX: usize = 10_000;

/// Which kind is given out, as etcd's `--auth-token` says it.
#[derive(Clone, Default, Debug)]
pub enum AuthToken {
    #[default]
    Simple,
    Jwt(Arc<Jwt>),
}

impl AuthToken {
    /// `simple`, or `jwt,sign-method=...,priv-key=...,pub-key=...,ttl=...`; `read` reads a file.
    pub fn of_flag(text: &str, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<AuthToken, JwtError> {
        match text.split_once(',').unwrap_or((text, "")) {
            // etcd takes options here and makes nothing of them.
            ("simple", _) => Ok(AuthToken::Simple),
            ("jwt", options) => Ok(AuthToken::Jwt(Arc::new(Jwt::of_options(options, read)?))),
            (other, _) => Err(JwtError::Options(format!("{other:?} is neither simple nor jwt"))),
        }
    }
}

/// Whom a request comes from, and as of which revision of users and roles that was so.
pub struct Who {
    pub name: String,
    pub revision: u64,
}

struct Token {
    user: String,
    used: Duration,
}

pub struct Tokens {
    world: World,
    kind: AuthToken,
    /// Simple ones that were given out. They end with the process, as etcd's do.
    given: Mutex<HashMap<String, Token>>,
}

impl Tokens {
    pub fn new(kind: AuthToken, world: &World) -> Tokens {
        Tokens {
            world: world.clone(),
            kind,
            given: Mutex::default(),
        }
    }

    fn given(&self) -> MutexGuard<'_, HashMap<String, Token>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `revision` is that of users and roles.
    pub fn give(&self, user: &str, revision: u64) -> Result<String, Status> {
        match &self.kind {
            AuthToken::Simple => Ok(self.give_simple(user)),
            AuthToken::Jwt(jwt) => {
                let signed = jwt.sign(user, revision, self.world.clock.wall());
                // etcd tells it without a code of its own.
                signed.map_err(|error| Status::new(Code::Unknown, error.to_string()))
            }
        }
    }

    fn give_simple(&self, user: &str) -> String {
        let mut bytes = [0; 16];
        self.world.random.fill(&mut bytes);
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let used = self.world.clock.monotonic();
        let mut given = self.given();
        if given.len() >= TOKENS_MAX {
            given.retain(|_, token| used.saturating_sub(token.used) < TOKEN_TTL);
            if given.len() >= TOKENS_MAX
                && let Some(oldest) = given
                    .iter()
                    .min_by_key(|(_, token)| token.used)
                    .map(|(token, _)| token.clone())
            {
                given.remove(&oldest);
            }
        }
        given.insert(
            token.clone(),
            Token {
                user: user.to_owned(),
                used,
            },
        );
        token
    }

    /// `None` if it is none of ours, or has ended. A remembered one is as good as what is known of users now.
    pub fn who(&self, token: &str, current: u64) -> Option<Who> {
        if let AuthToken::Jwt(jwt) = &self.kind {
            let (name, revision) = jwt.verify(token, self.world.clock.wall())?;
            return Some(Who { name, revision });
        }
        let now = self.world.clock.monotonic();
        let mut given = self.given();
        let known = given.get_mut(token)?;
        if now.saturating_sub(known.used) >= TOKEN_TTL {
            given.remove(token);
            return None;
        }
        known.used = now;
        Some(Who {
            name: known.user.clone(),
            revision: current,
        })
    }

    /// Signed ones are refused by their revision.
    pub fn forget(&self, user: &str) {
        self.given().retain(|_, token| token.user != user);
    }
}
