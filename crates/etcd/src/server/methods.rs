//! Which method of which service is asked for.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    auth::{self, Caller},
    grpc::{Messages, Outgoing, decode, framed},
    member::Member,
    status::{Code, Status},
    watch::Session,
};
use crate::wire::etcdserverpb::WatchRequest;

/// Methods that answer with a stream.
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Of `grpc.health.v1`: status 1 is SERVING, 2 is not.
#[derive(Clone, PartialEq, prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// How a method is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Unary,
    /// One message in, a stream out.
    Stream,
    /// Streams both ways.
    Both,
}

macro_rules! unary {
    ($($path:literal => |$member:ident, $request:ident, $caller:ident| $answer:expr;)*) => {
        /// The path as a constant, if it is that of a method.
        pub fn known(path: &str) -> Option<(&'static str, Kind)> {
            match path {
                $($path => Some(($path, Kind::Unary)),)*
                RANGE_STREAM => Some((RANGE_STREAM, Kind::Stream)),
                SNAPSHOT => Some((SNAPSHOT, Kind::Stream)),
                OBSERVE => Some((OBSERVE, Kind::Stream)),
                HEALTH_WATCH => Some((HEALTH_WATCH, Kind::Stream)),
                WATCH => Some((WATCH, Kind::Both)),
                KEEP_ALIVE => Some((KEEP_ALIVE, Kind::Both)),
                _ => None,
            }
        }

        /// One message in, one out, framed.
        pub async fn call(member: &Arc<Member>, path: &str, message: Bytes, caller: &Caller) -> Result<Bytes, Status> {
            let answer = answer(member, path, message, caller).await;
            member.note(&answer).await;
            answer
        }

        async fn answer(member: &Arc<Member>, path: &str, message: Bytes, caller: &Caller) -> Result<Bytes, Status> {
            match path {
                $($path => {
                    let ($member, $caller) = (member, caller);
                    let $request = decode(message)?;
                    Ok(framed(&$answer))
                })*
                _ => Err(unknown(path)),
            }
        }
    };
}

pub fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let known = SERVICES.contains(&service);
    Status::new(
        Code::Unimplemented,
        if known {
            format!("unknown method {method} for service {service}")
        } else {
            format!("unknown service {service}")
        },
    )
}

const SERVICES: [&str; 9] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
];

/// Methods whose requests say nothing that matters.
macro_rules! nothing {
    ($request:ident : $kind:ident) => {{
        let _: crate::wire::etcdserverpb::$kind = $request;
    }};
}

unary! {
    "/etcdserverpb.KV/Range" => |member, request, caller| member.range(request, caller)?;
    "/etcdserverpb.KV/Put" => |member, request, caller| member.put(request, caller).await?;
    "/etcdserverpb.KV/Txn" => |member, request, caller| member.txn(request, caller).await?;
    "/etcdserverpb.KV/DeleteRange" => |member, request, caller| Box::pin(member.delete(request, caller)).await?;
    "/etcdserverpb.KV/Compact" => |member, request, caller| {
        auth::known(member, caller)?;
        Box::pin(member.compact(request)).await?
    };
    "/etcdserverpb.Lease/LeaseGrant" => |member, request, caller| {
        auth::known(member, caller)?;
        Box::pin(member.lease_grant(request)).await?
    };
    "/etcdserverpb.Lease/LeaseRevoke" => |member, request, caller| {
        Box::pin(member.lease_revoke(request, caller)).await?
    };
    "/etcdserverpb.Lease/LeaseTimeToLive" => |member, request, caller| {
        Box::pin(member.lease_time_to_live(request, caller)).await?
    };
    "/etcdserverpb.Lease/LeaseLeases" => |member, request, caller| {
        nothing!(request: LeaseLeasesRequest);
        auth::known(member, caller)?;
        member.lease_leases()
    };
    "/etcdserverpb.Cluster/MemberList" => |member, request, _caller| {
        nothing!(request: MemberListRequest);
        member.member_list()
    };
    "/etcdserverpb.Cluster/MemberAdd" => |member, request, caller| {
        member.admin(caller)?;
        member.member_add(&request)?
    };
    "/etcdserverpb.Cluster/MemberRemove" => |member, request, caller| {
        member.admin(caller)?;
        member.member_remove(&request)?
    };
    "/etcdserverpb.Cluster/MemberUpdate" => |member, request, caller| {
        member.admin(caller)?;
        member.member_update(&request)?
    };
    "/etcdserverpb.Cluster/MemberPromote" => |member, request, caller| {
        member.admin(caller)?;
        member.member_promote(&request)?
    };
    "/etcdserverpb.Maintenance/Alarm" => |member, request, caller| {
        auth::known(member, caller)?;
        Box::pin(member.alarm(request)).await?
    };
    "/etcdserverpb.Maintenance/Status" => |member, request, caller| {
        nothing!(request: StatusRequest);
        member.admin(caller)?;
        member.status()
    };
    "/etcdserverpb.Maintenance/Defragment" => |member, request, caller| {
        nothing!(request: DefragmentRequest);
        member.admin(caller)?;
        Box::pin(member.defragment()).await?
    };
    "/etcdserverpb.Maintenance/Hash" => |member, request, caller| {
        nothing!(request: HashRequest);
        member.admin(caller)?;
        Box::pin(member.hash()).await?
    };
    "/etcdserverpb.Maintenance/HashKV" => |member, request, caller| {
        member.admin(caller)?;
        Box::pin(member.hash_kv(request)).await?
    };
    "/etcdserverpb.Maintenance/MoveLeader" => |member, request, caller| {
        member.admin(caller)?;
        member.move_leader(&request)?
    };
    "/etcdserverpb.Maintenance/Downgrade" => |member, request, caller| {
        member.admin(caller)?;
        member.downgrade(&request)?
    };
    "/etcdserverpb.Auth/AuthEnable" => |member, request, _caller| {
        nothing!(request: AuthEnableRequest);
        Box::pin(member.auth_enable()).await?
    };
    "/etcdserverpb.Auth/AuthDisable" => |member, request, caller| {
        nothing!(request: AuthDisableRequest);
        Box::pin(member.auth_disable(caller)).await?
    };
    "/etcdserverpb.Auth/AuthStatus" => |member, request, _caller| {
        nothing!(request: AuthStatusRequest);
        member.auth_status()
    };
    "/etcdserverpb.Auth/Authenticate" => |member, request, _caller| Box::pin(member.authenticate(request)).await?;
    "/etcdserverpb.Auth/UserAdd" => |member, request, caller| Box::pin(member.user_add(request, caller)).await?;
    "/etcdserverpb.Auth/UserGet" => |member, request, caller| member.user_get(&request, caller)?;
    "/etcdserverpb.Auth/UserList" => |member, request, caller| {
        nothing!(request: AuthUserListRequest);
        member.user_list(caller)?
    };
    "/etcdserverpb.Auth/UserDelete" => |member, request, caller| Box::pin(member.user_delete(request, caller)).await?;
    "/etcdserverpb.Auth/UserChangePassword" => |member, request, caller| {
        Box::pin(member.user_change_password(request, caller)).await?
    };
    "/etcdserverpb.Auth/UserGrantRole" => |member, request, caller| {
        Box::pin(member.user_grant_role(request, caller)).await?
    };
    "/etcdserverpb.Auth/UserRevokeRole" => |member, request, caller| {
        Box::pin(member.user_revoke_role(request, caller)).await?
    };
    "/etcdserverpb.Auth/RoleAdd" => |member, request, caller| Box::pin(member.role_add(request, caller)).await?;
    "/etcdserverpb.Auth/RoleGet" => |member, request, caller| member.role_get(&request, caller)?;
    "/etcdserverpb.Auth/RoleList" => |member, request, caller| {
        nothing!(request: AuthRoleListRequest);
        member.role_list(caller)?
    };
    "/etcdserverpb.Auth/RoleDelete" => |member, request, caller| Box::pin(member.role_delete(request, caller)).await?;
    "/etcdserverpb.Auth/RoleGrantPermission" => |member, request, caller| {
        Box::pin(member.role_grant_permission(request, caller)).await?
    };
    "/etcdserverpb.Auth/RoleRevokePermission" => |member, request, caller| {
        Box::pin(member.role_revoke_permission(request, caller)).await?
    };
    "/v3lockpb.Lock/Lock" => |member, request, caller| Box::pin(member.lock(request, caller)).await?;
    "/v3lockpb.Lock/Unlock" => |member, request, caller| Box::pin(member.unlock(request, caller)).await?;
    "/v3electionpb.Election/Campaign" => |member, request, caller| Box::pin(member.campaign(request, caller)).await?;
    "/v3electionpb.Election/Proclaim" => |member, request, caller| Box::pin(member.proclaim(request, caller)).await?;
    "/v3electionpb.Election/Resign" => |member, request, caller| Box::pin(member.resign(request, caller)).await?;
    "/v3electionpb.Election/Leader" => |member, request, caller| member.leader(&request, caller)?;
    "/grpc.health.v1.Health/Check" => |member, request, _caller| health(member, &request)?;
}

fn health(member: &Member, request: &HealthRequest) -> Result<Health, Status> {
    if !request.service.is_empty() {
        return Err(Status::of(Code::NotFound, "unknown service"));
    }
    let healthy = member.keyspace.health().is_ok();
    Ok(Health {
        status: if healthy { 1 } else { 2 },
    })
}

/// One message in, many out.
pub async fn stream(member: &Arc<Member>, path: &str, message: Bytes, caller: &Caller) -> Result<Outgoing, Status> {
    match path {
        RANGE_STREAM => member.range_stream(decode(message)?, caller),
        SNAPSHOT => {
            member.admin(caller)?;
            member.snapshot().await
        }
        OBSERVE => member.observe(decode(message)?, caller),
        // It is told once, and stays so until the connection ends.
        HEALTH_WATCH => {
            let health = framed(&health(member, &decode(message)?)?);
            let told = futures::stream::once(async { Ok(health) });
            Ok(Box::pin(futures::StreamExt::chain(told, futures::stream::pending())))
        }
        _ => Err(unknown(path)),
    }
}

/// Many in, many out.
pub fn both(member: &Arc<Member>, path: &str, requests: Messages, caller: Caller) -> Result<Outgoing, Status> {
    match path {
        WATCH => Ok(Box::pin(Session::new(member.clone(), caller, requests))),
        KEEP_ALIVE => {
            auth::known(member, &caller)?;
            Ok(member.lease_keep_alive(requests))
        }
        _ => Err(unknown(path)),
    }
}

/// A stream both ways whose requests are one, for the JSON gateway.
pub async fn both_of_one(member: &Arc<Member>, path: &str, message: Bytes, caller: Caller) -> Result<Outgoing, Status> {
    match path {
        WATCH => {
            let _: WatchRequest = decode(message.clone())?;
            Ok(Box::pin(Session::new(
                member.clone(),
                caller,
                Messages::one_and_silence(&message),
            )))
        }
        KEEP_ALIVE => {
            auth::known(member, &caller)?;
            Ok(member.lease_keep_alive(Messages::one(&message)))
        }
        _ => Err(unknown(path)),
    }
}
