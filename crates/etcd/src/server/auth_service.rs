//! The service `etcdserverpb.Auth`: users, roles and what they may.

use super::{
    auth::{Caller, ROOT},
    member::Member,
    meta::{Auth, Change},
    status::{self, Status},
};
use crate::wire::{
    authpb::{Permission, Role, User},
    etcdserverpb::{
        AuthDisableResponse, AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest,
        AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
        AuthRoleGrantPermissionResponse, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
        AuthRoleRevokePermissionResponse, AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse,
        AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
        AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
        AuthUserListResponse, AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest,
        AuthenticateResponse,
    },
};

/// etcd's `--bcrypt-cost` default.
const BCRYPT_COST: u32 = 10;

type Decided = Result<Vec<Change>, Status>;

/// A password as it is kept.
async fn hashed(password: String, ready: String) -> Result<Vec<u8>, Status> {
    if !ready.is_empty() {
        return Ok(ready.into_bytes());
    }
    let hash = super::maintenance::blocking(move || bcrypt::hash(password, BCRYPT_COST)).await?;
    hash.map(String::into_bytes).map_err(|_| status::AUTH_FAILED)
}

fn user<'a>(auth: &'a Auth, name: &str) -> Result<&'a User, Status> {
    auth.users.get(name).ok_or(status::USER_NOT_FOUND)
}

fn role<'a>(auth: &'a Auth, name: &str) -> Result<&'a Role, Status> {
    auth.roles.get(name).ok_or(status::ROLE_NOT_FOUND)
}

impl Member {
    /// A change of who may what: one more revision of it.
    async fn change_auth(&self, caller: &Caller, decide: impl FnOnce(&Auth) -> Decided) -> Result<(), Status> {
        self.admin(caller)?;
        self.change_auth_unasked(decide).await
    }

    async fn change_auth_unasked(&self, decide: impl FnOnce(&Auth) -> Decided) -> Result<(), Status> {
        let change = self.meta.change(|state| {
            let mut changes = decide(&state.auth)?;
            let turned = changes.iter().any(|change| matches!(change, Change::Auth { .. }));
            if !changes.is_empty() && !turned {
                changes.push(Change::Auth {
                    enabled: state.auth.enabled,
                    revision: state.auth.revision + 1,
                });
            }
            Ok((changes, ()))
        });
        change.await
    }

    pub(super) async fn auth_enable(&self) -> Result<AuthEnableResponse, Status> {
        let decided = self.change_auth_unasked(|auth| {
            if auth.enabled {
                return Ok(Vec::new());
            }
            let root = auth.users.get(ROOT).ok_or(status::ROOT_USER_NOT_EXIST)?;
            if !root.roles.iter().any(|role| role == ROOT) {
                return Err(status::ROOT_ROLE_NOT_EXIST);
            }
            // As etcd: turning it on changes nobody's rights.
            Ok(vec![Change::Auth {
                enabled: true,
                revision: auth.revision,
            }])
        });
        decided.await?;
        Ok(AuthEnableResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn auth_disable(&self, caller: &Caller) -> Result<AuthDisableResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            let off = Change::Auth {
                enabled: false,
                revision: auth.revision + 1,
            };
            Ok(if auth.enabled { vec![off] } else { Vec::new() })
        });
        decided.await?;
        Ok(AuthDisableResponse {
            header: Some(self.header()),
        })
    }

    pub(super) fn auth_status(&self) -> AuthStatusResponse {
        let auth = self.meta.auth();
        AuthStatusResponse {
            header: Some(self.header()),
            enabled: auth.enabled,
            auth_revision: auth.revision,
        }
    }

    pub(super) async fn authenticate(&self, request: AuthenticateRequest) -> Result<AuthenticateResponse, Status> {
        let auth = self.meta.auth();
        if !auth.enabled {
            return Err(status::AUTH_NOT_ENABLED);
        }
        let known = auth.users.get(&request.name).ok_or(status::AUTH_FAILED)?;
        if known.options.as_ref().is_some_and(|options| options.no_password) {
            return Err(status::AUTH_FAILED);
        }
        let hash = String::from_utf8_lossy(&known.password).into_owned();
        let password = request.password;
        let right = super::maintenance::blocking(move || bcrypt::verify(password, &hash)).await?;
        if !right.unwrap_or(false) {
            return Err(status::AUTH_FAILED);
        }
        Ok(AuthenticateResponse {
            header: Some(self.header()),
            token: self.tokens.give(&request.name, auth.revision)?,
        })
    }

    pub(super) async fn user_add(
        &self,
        request: AuthUserAddRequest,
        caller: &Caller,
    ) -> Result<AuthUserAddResponse, Status> {
        self.admin(caller)?;
        if request.name.is_empty() {
            return Err(status::USER_EMPTY);
        }
        let without = request.options.as_ref().is_some_and(|options| options.no_password);
        let password = if without {
            Vec::new()
        } else {
            hashed(request.password, request.hashed_password).await?
        };
        let added = User {
            name: request.name.clone().into(),
            password: password.into(),
            roles: Vec::new(),
            options: request.options,
        };
        let decided = self.change_auth(caller, |auth| {
            if auth.users.contains_key(&request.name) {
                return Err(status::USER_EXISTS);
            }
            Ok(vec![Change::User(request.name, Some(added))])
        });
        decided.await?;
        Ok(AuthUserAddResponse {
            header: Some(self.header()),
        })
    }

    pub(super) fn user_get(
        &self,
        request: &AuthUserGetRequest,
        caller: &Caller,
    ) -> Result<AuthUserGetResponse, Status> {
        let itself = self.auth_is_on() && caller.name(self).is_ok_and(|name| name == request.name);
        if !itself {
            self.admin(caller)?;
        }
        let auth = self.meta.auth();
        Ok(AuthUserGetResponse {
            header: Some(self.header()),
            roles: user(&auth, &request.name)?.roles.clone(),
        })
    }

    pub(super) fn user_list(&self, caller: &Caller) -> Result<AuthUserListResponse, Status> {
        self.admin(caller)?;
        Ok(AuthUserListResponse {
            header: Some(self.header()),
            users: self.meta.auth().users.keys().cloned().collect(),
        })
    }

    pub(super) async fn user_delete(
        &self,
        request: AuthUserDeleteRequest,
        caller: &Caller,
    ) -> Result<AuthUserDeleteResponse, Status> {
        let name = request.name.clone();
        let decided = self.change_auth(caller, |auth| {
            if auth.enabled && name == ROOT {
                return Err(status::INVALID_AUTH_MGMT);
            }
            user(auth, &name)?;
            Ok(vec![Change::User(name, None)])
        });
        decided.await?;
        self.tokens.forget(&request.name);
        Ok(AuthUserDeleteResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn user_change_password(
        &self,
        request: AuthUserChangePasswordRequest,
        caller: &Caller,
    ) -> Result<AuthUserChangePasswordResponse, Status> {
        self.admin(caller)?;
        let password = hashed(request.password, request.hashed_password).await?;
        let name = request.name.clone();
        let decided = self.change_auth(caller, |auth| {
            let mut changed = user(auth, &name)?.clone();
            changed.password = password.into();
            Ok(vec![Change::User(name, Some(changed))])
        });
        decided.await?;
        self.tokens.forget(&request.name);
        Ok(AuthUserChangePasswordResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn user_grant_role(
        &self,
        request: AuthUserGrantRoleRequest,
        caller: &Caller,
    ) -> Result<AuthUserGrantRoleResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            let mut changed = user(auth, &request.user)?.clone();
            if request.role != ROOT {
                role(auth, &request.role)?;
            }
            if let Err(at) = changed.roles.binary_search(&request.role) {
                changed.roles.insert(at, request.role);
            }
            Ok(vec![Change::User(request.user, Some(changed))])
        });
        decided.await?;
        Ok(AuthUserGrantRoleResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn user_revoke_role(
        &self,
        request: AuthUserRevokeRoleRequest,
        caller: &Caller,
    ) -> Result<AuthUserRevokeRoleResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            if auth.enabled && request.name == ROOT && request.role == ROOT {
                return Err(status::INVALID_AUTH_MGMT);
            }
            let mut changed = user(auth, &request.name)?.clone();
            let at = changed.roles.iter().position(|role| *role == request.role);
            changed.roles.remove(at.ok_or(status::ROLE_NOT_GRANTED)?);
            Ok(vec![Change::User(request.name, Some(changed))])
        });
        decided.await?;
        Ok(AuthUserRevokeRoleResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn role_add(
        &self,
        request: AuthRoleAddRequest,
        caller: &Caller,
    ) -> Result<AuthRoleAddResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            if request.name.is_empty() {
                return Err(status::ROLE_EMPTY);
            }
            if auth.roles.contains_key(&request.name) {
                return Err(status::ROLE_EXISTS);
            }
            let added = Role {
                name: request.name.clone().into(),
                key_permission: Vec::new(),
            };
            Ok(vec![Change::Role(request.name, Some(added))])
        });
        decided.await?;
        Ok(AuthRoleAddResponse {
            header: Some(self.header()),
        })
    }

    pub(super) fn role_get(
        &self,
        request: &AuthRoleGetRequest,
        caller: &Caller,
    ) -> Result<AuthRoleGetResponse, Status> {
        let auth = self.meta.auth();
        let own = self.auth_is_on() && {
            let name = caller.name(self)?;
            auth.users
                .get(&name)
                .is_some_and(|user| user.roles.contains(&request.role))
        };
        if !own {
            self.admin(caller)?;
        }
        let perm = match role(&auth, &request.role) {
            Ok(role) => role.key_permission.clone(),
            // Everybody has heard of it, and it may everything.
            Err(_) if request.role == ROOT => vec![Permission {
                perm_type: 2,
                key: bytes::Bytes::new(),
                range_end: bytes::Bytes::from_static(b"\0"),
            }],
            Err(status) => return Err(status),
        };
        Ok(AuthRoleGetResponse {
            header: Some(self.header()),
            perm,
        })
    }

    pub(super) fn role_list(&self, caller: &Caller) -> Result<AuthRoleListResponse, Status> {
        self.admin(caller)?;
        Ok(AuthRoleListResponse {
            header: Some(self.header()),
            roles: self.meta.auth().roles.keys().cloned().collect(),
        })
    }

    pub(super) async fn role_delete(
        &self,
        request: AuthRoleDeleteRequest,
        caller: &Caller,
    ) -> Result<AuthRoleDeleteResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            if auth.enabled && request.role == ROOT {
                return Err(status::INVALID_AUTH_MGMT);
            }
            role(auth, &request.role)?;
            let mut changes = vec![Change::Role(request.role.clone(), None)];
            for (name, user) in &auth.users {
                if user.roles.contains(&request.role) {
                    let mut changed = user.clone();
                    changed.roles.retain(|role| *role != request.role);
                    changes.push(Change::User(name.clone(), Some(changed)));
                }
            }
            Ok(changes)
        });
        decided.await?;
        Ok(AuthRoleDeleteResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn role_grant_permission(
        &self,
        request: AuthRoleGrantPermissionRequest,
        caller: &Caller,
    ) -> Result<AuthRoleGrantPermissionResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            let granted = request.perm.ok_or(status::PERMISSION_NOT_GIVEN)?;
            let mut changed = role(auth, &request.name)?.clone();
            let same = |other: &&mut Permission| other.key == granted.key && other.range_end == granted.range_end;
            match changed.key_permission.iter_mut().find(same) {
                Some(before) => *before = granted,
                None => {
                    changed.key_permission.push(granted);
                    changed.key_permission.sort_by(|one, other| one.key.cmp(&other.key));
                }
            }
            Ok(vec![Change::Role(request.name, Some(changed))])
        });
        decided.await?;
        Ok(AuthRoleGrantPermissionResponse {
            header: Some(self.header()),
        })
    }

    pub(super) async fn role_revoke_permission(
        &self,
        request: AuthRoleRevokePermissionRequest,
        caller: &Caller,
    ) -> Result<AuthRoleRevokePermissionResponse, Status> {
        let decided = self.change_auth(caller, |auth| {
            let mut changed = role(auth, &request.role)?.clone();
            let same = |other: &Permission| other.key == request.key && other.range_end == request.range_end;
            let at = changed.key_permission.iter().position(same);
            changed.key_permission.remove(at.ok_or(status::PERMISSION_NOT_GRANTED)?);
            Ok(vec![Change::Role(request.role, Some(changed))])
        });
        decided.await?;
        Ok(AuthRoleRevokePermissionResponse {
            header: Some(self.header()),
        })
    }
}
