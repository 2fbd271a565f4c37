//! Who asks, and whether they may (`server/auth/store.go`). While authentication is off, everybody may everything.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use keyspace::{Compare, Keep, KeyRange, LeaseId, Op, Previous, Put, Txn};

use super::{
    member::Member,
    meta::Auth,
    ranges,
    status::{self, Status},
    tokens::Who,
};
use crate::wire::authpb::{Permission, permission::Type};

pub const ROOT: &str = "root";

/// What a request says of who sent it.
#[derive(Clone, Default, Debug)]
pub struct Caller {
    token: Option<String>,
    /// The common name of the certificate that the client has shown the key of.
    common_name: Option<Arc<str>>,
}

impl Caller {
    pub fn of(headers: &HeaderMap, common_name: Option<Arc<str>>) -> Caller {
        let token = headers.get("token").or_else(|| headers.get("authorization"));
        Caller {
            token: token.and_then(|token| token.to_str().ok()).map(str::to_owned),
            common_name,
        }
    }

    pub(super) fn who(&self, member: &Member) -> Result<Who, Status> {
        let current = member.meta.state().auth.revision;
        match (&self.token, &self.common_name) {
            (Some(token), _) => member.tokens.who(token, current).ok_or(status::INVALID_AUTH_TOKEN),
            (None, Some(name)) => Ok(Who {
                name: name.to_string(),
                revision: current,
            }),
            (None, None) => Err(status::USER_EMPTY),
        }
    }

    /// The user's name.
    pub(super) fn name(&self, member: &Member) -> Result<String, Status> {
        Ok(self.who(member)?.name)
    }
}

/// The rights of a user who is not root.
struct Rights<'a> {
    permissions: Vec<&'a Permission>,
}

impl Rights<'_> {
    fn may(&self, kind: Type, keys: &KeyRange) -> Result<(), Status> {
        let covers = (self.permissions.iter())
            .filter(|permission| permission.perm_type == kind as i32 || permission.perm_type == Type::Readwrite as i32);
        let granted = covers
            .map(|permission| (permission.key.clone(), permission.range_end.clone()))
            .collect();
        if ranges::cover(granted, keys) {
            Ok(())
        } else {
            Err(status::PERMISSION_DENIED)
        }
    }
}

/// `None` if all is allowed.
fn rights<'a>(member: &Member, auth: &'a Auth, caller: &Caller) -> Result<Option<Rights<'a>>, Status> {
    if !auth.enabled {
        return Ok(None);
    }
    let Who { name, revision } = caller.who(member)?;
    if revision < auth.revision {
        return Err(status::AUTH_OLD_REVISION);
    }
    let user = auth.users.get(&name).ok_or(status::PERMISSION_DENIED)?;
    if user.roles.iter().any(|role| role == ROOT) {
        return Ok(None);
    }
    let roles = user.roles.iter().filter_map(|role| auth.roles.get(role));
    Ok(Some(Rights {
        permissions: roles.flat_map(|role| &role.key_permission).collect(),
    }))
}

fn with_rights(
    member: &Member,
    caller: &Caller,
    check: impl FnOnce(&Rights<'_>) -> Result<(), Status>,
) -> Result<(), Status> {
    if !member.auth_is_on() {
        return Ok(());
    }
    let auth = member.meta.auth();
    match rights(member, &auth, caller)? {
        None => Ok(()),
        Some(rights) => check(&rights),
    }
}

pub fn reads(member: &Member, caller: &Caller, keys: &KeyRange) -> Result<(), Status> {
    with_rights(member, caller, |rights| rights.may(Type::Read, keys))
}

pub fn puts(member: &Member, caller: &Caller, put: &Put) -> Result<(), Status> {
    with_rights(member, caller, |rights| rights.put(member, put))
}

pub fn writes(member: &Member, caller: &Caller, op: &Op) -> Result<(), Status> {
    with_rights(member, caller, |rights| rights.op(member, op))
}

pub fn transacts(member: &Member, caller: &Caller, txn: &Txn) -> Result<(), Status> {
    with_rights(member, caller, |rights| rights.txn(member, txn))
}

/// Whoever ends a lease deletes its keys; whoever attaches a key to it has them deleted with it.
pub fn uses_lease(member: &Member, caller: &Caller, lease: LeaseId) -> Result<(), Status> {
    with_rights(member, caller, |rights| rights.lease(member, lease))
}

/// Root alone, who as in etcd is not asked how old the token is (`IsAdminPermitted`).
pub fn admin(member: &Member, caller: &Caller) -> Result<(), Status> {
    if !member.auth_is_on() {
        return Ok(());
    }
    let name = caller.name(member)?;
    let auth = member.meta.auth();
    let user = auth.users.get(&name).ok_or(status::PERMISSION_DENIED)?;
    match user.roles.iter().any(|role| role == ROOT) {
        true => Ok(()),
        false => Err(status::PERMISSION_DENIED),
    }
}

/// Somebody who is known.
pub fn known(member: &Member, caller: &Caller) -> Result<(), Status> {
    with_rights(member, caller, |_| Ok(()))
}

impl Rights<'_> {
    fn put(&self, member: &Member, put: &Put) -> Result<(), Status> {
        let keys = KeyRange::one(put.key.clone());
        self.may(Type::Write, &keys)?;
        if put.previous == Previous::Return || matches!(put.keep, Keep::Value | Keep::Both) && !put.key.is_empty() {
            self.may(Type::Read, &keys)?;
        }
        put.lease.map_or(Ok(()), |lease| self.lease(member, lease))
    }

    fn lease(&self, member: &Member, lease: LeaseId) -> Result<(), Status> {
        let state = member.view().read().lease_state(lease, Duration::ZERO);
        let keys: Vec<Bytes> = state.map(|state| state.keys).unwrap_or_default();
        keys.into_iter()
            .try_for_each(|key| self.may(Type::Write, &KeyRange::one(key)))
    }

    fn op(&self, member: &Member, op: &Op) -> Result<(), Status> {
        match op {
            Op::Range(range) => self.may(Type::Read, &range.keys),
            Op::Put(put) => self.put(member, put),
            Op::Delete { keys, previous } => {
                self.may(Type::Write, keys)?;
                if *previous == Previous::Return {
                    self.may(Type::Read, keys)
                } else {
                    Ok(())
                }
            }
            Op::Txn(nested) => self.txn(member, nested),
        }
    }

    fn txn(&self, member: &Member, txn: &Txn) -> Result<(), Status> {
        for Compare { keys, .. } in &txn.compares {
            self.may(Type::Read, keys)?;
        }
        txn.success
            .iter()
            .chain(&txn.failure)
            .try_for_each(|op| self.op(member, op))
    }
}
