//! What an etcd remembers besides keys: who it is, alarms, users and roles. In a keyspace of its own, so that it is as
//! durable as the keys and counts no revision of theirs.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use bytes::Bytes;
use keyspace::{KeyRange, Keyspace, Op, Options, Range, Txn};
use prost::Message;
use world::Random;

use super::status::Status;
use crate::wire::authpb::{Role, User};

const IDENTITY: &[u8] = b"identity";
const ALARM: &str = "alarm/";
const AUTH: &[u8] = b"auth";
const USER: &str = "user/";
const ROLE: &str = "role/";

/// What is said of users and roles.
#[derive(Clone, Default, Debug)]
pub struct Auth {
    pub enabled: bool,
    pub revision: u64,
    pub users: BTreeMap<String, User>,
    pub roles: BTreeMap<String, Role>,
}

#[derive(Clone, Default, Debug)]
pub struct State {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Kinds of alarms that are on.
    pub alarms: Vec<i32>,
    pub auth: Arc<Auth>,
}

pub struct Meta {
    keyspace: Arc<dyn Keyspace>,
    state: RwLock<State>,
    /// One change after another.
    changing: tokio::sync::Mutex<()>,
}

/// A change that is to be remembered.
pub enum Change {
    Alarm(i32, bool),
    Auth { enabled: bool, revision: u64 },
    User(String, Option<User>),
    Role(String, Option<Role>),
}

impl Meta {
    pub async fn open(keyspace: Arc<dyn Keyspace>, random: &dyn Random) -> Result<Meta, keyspace::Error> {
        let all = keyspace
            .range(Range::of(KeyRange::prefix("")), Options::default())
            .await?;
        let mut state = State::default();
        let mut auth = Auth::default();
        for kv in all.items {
            let text = String::from_utf8_lossy(&kv.key).into_owned();
            if kv.key == IDENTITY && kv.value.len() == 16 {
                (state.cluster_id, state.member_id) = numbers(&kv.value);
            } else if kv.key == AUTH && kv.value.len() == 16 {
                let (enabled, revision) = numbers(&kv.value);
                (auth.enabled, auth.revision) = (enabled != 0, revision);
            } else if let Some(kind) = text.strip_prefix(ALARM).and_then(|kind| kind.parse().ok()) {
                state.alarms.push(kind);
            } else if let Some(name) = text.strip_prefix(USER) {
                let user = User::decode(kv.value).map_err(damaged)?;
                auth.users.insert(name.to_owned(), user);
            } else if let Some(name) = text.strip_prefix(ROLE) {
                let role = Role::decode(kv.value).map_err(damaged)?;
                auth.roles.insert(name.to_owned(), role);
            }
        }
        auth.revision = auth.revision.max(1);
        if state.cluster_id == 0 {
            let mut bytes = [0; 16];
            random.fill(&mut bytes);
            (state.cluster_id, state.member_id) = numbers(&bytes);
            let op = Op::put(IDENTITY, bytes.to_vec());
            write(keyspace.as_ref(), vec![op]).await?;
        }
        state.auth = Arc::new(auth);
        Ok(Meta {
            keyspace,
            state: RwLock::new(state),
            changing: tokio::sync::Mutex::default(),
        })
    }

    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn auth(&self) -> Arc<Auth> {
        self.state().auth.clone()
    }

    /// What `decide` makes of what is known is durable when this returns.
    pub async fn change<T>(
        &self,
        decide: impl FnOnce(&State) -> Result<(Vec<Change>, T), Status>,
    ) -> Result<T, Status> {
        let _changing = self.changing.lock().await;
        let (changes, answer) = decide(&self.state())?;
        if changes.is_empty() {
            return Ok(answer);
        }
        let ops = changes.iter().map(op).collect();
        write(self.keyspace.as_ref(), ops).await?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().for_each(|change| apply(&mut state, change));
        Ok(answer)
    }
}

fn damaged(error: prost::DecodeError) -> keyspace::Error {
    keyspace::Error::Failed(format!("what is kept of users and roles is damaged: {error}"))
}

fn numbers(bytes: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        bytes[at..at + 8]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    (number(0), number(8))
}

async fn write(keyspace: &dyn Keyspace, ops: Vec<Op>) -> Result<(), keyspace::Error> {
    let txn = Txn {
        success: ops,
        ..Txn::default()
    };
    keyspace.txn(txn, Options::default()).await.map(drop)
}

/// Of a keyspace that nobody has opened yet.
pub async fn write_all(keyspace: &dyn Keyspace, changes: &[Change]) -> Result<(), keyspace::Error> {
    for some in changes.chunks(keyspace::TXN_OPS_MAX) {
        write(keyspace, some.iter().map(op).collect()).await?;
    }
    Ok(())
}

fn op(change: &Change) -> Op {
    let set = |key: String, value: Option<Vec<u8>>| match value {
        Some(value) => Op::put(key, value),
        None => Op::delete(key),
    };
    match change {
        Change::Alarm(kind, on) => set(format!("{ALARM}{kind}"), on.then(Vec::new)),
        Change::Auth { enabled, revision } => {
            let value = [u64::from(*enabled).to_be_bytes(), revision.to_be_bytes()].concat();
            Op::put(Bytes::from_static(AUTH), value)
        }
        Change::User(name, user) => set(format!("{USER}{name}"), user.as_ref().map(Message::encode_to_vec)),
        Change::Role(name, role) => set(format!("{ROLE}{name}"), role.as_ref().map(Message::encode_to_vec)),
    }
}

fn apply(state: &mut State, change: Change) {
    let auth = Arc::make_mut(&mut state.auth);
    match change {
        Change::Alarm(kind, on) => {
            state.alarms.retain(|other| *other != kind);
            if on {
                state.alarms.push(kind);
            }
        }
        Change::Auth { enabled, revision } => (auth.enabled, auth.revision) = (enabled, revision),
        Change::User(name, Some(user)) => drop(auth.users.insert(name, user)),
        Change::User(name, None) => drop(auth.users.remove(&name)),
        Change::Role(name, Some(role)) => drop(auth.roles.insert(name, role)),
        Change::Role(name, None) => drop(auth.roles.remove(&name)),
    }
}
