//! What is asked over plain HTTP on the same port: the JSON gateway, health, version, metrics.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    auth::Caller,
    grpc::{Body, unframed},
    json::TYPES,
    member::{CLUSTER_VERSION, Member, OVERHEAD_BYTES, VERSION},
    methods::{self, Kind},
    metrics,
    status::{Code, Status},
};
use crate::wire::etcdserverpb::AlarmType;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; version=0.0.4";

/// Paths of the gateway and the methods behind them.
const GATEWAY: &[(&str, &str)] = &[
    ("/v3/kv/range", "/etcdserverpb.KV/Range"),
    ("/v3/kv/put", "/etcdserverpb.KV/Put"),
    ("/v3/kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("/v3/kv/txn", "/etcdserverpb.KV/Txn"),
    ("/v3/kv/compaction", "/etcdserverpb.KV/Compact"),
    ("/v3/watch", "/etcdserverpb.Watch/Watch"),
    ("/v3/lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("/v3/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("/v3/kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("/v3/lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("/v3/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("/v3/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("/v3/kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("/v3/cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    ("/v3/cluster/member/remove", "/etcdserverpb.Cluster/MemberRemove"),
    ("/v3/cluster/member/update", "/etcdserverpb.Cluster/MemberUpdate"),
    ("/v3/cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    ("/v3/cluster/member/promote", "/etcdserverpb.Cluster/MemberPromote"),
    ("/v3/maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("/v3/maintenance/status", "/etcdserverpb.Maintenance/Status"),
    ("/v3/maintenance/defragment", "/etcdserverpb.Maintenance/Defragment"),
    ("/v3/maintenance/hash", "/etcdserverpb.Maintenance/Hash"),
    ("/v3/maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("/v3/maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    (
        "/v3/maintenance/transfer-leadership",
        "/etcdserverpb.Maintenance/MoveLeader",
    ),
    ("/v3/maintenance/downgrade", "/etcdserverpb.Maintenance/Downgrade"),
    ("/v3/auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("/v3/auth/disable", "/etcdserverpb.Auth/AuthDisable"),
    ("/v3/auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("/v3/auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("/v3/auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("/v3/auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("/v3/auth/user/list", "/etcdserverpb.Auth/UserList"),
    ("/v3/auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    ("/v3/auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword"),
    ("/v3/auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("/v3/auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("/v3/auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("/v3/auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("/v3/auth/role/list", "/etcdserverpb.Auth/RoleList"),
    ("/v3/auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("/v3/auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    ("/v3/auth/role/revoke", "/etcdserverpb.Auth/RoleRevokePermission"),
    ("/v3/lock/lock", "/v3lockpb.Lock/Lock"),
    ("/v3/lock/unlock", "/v3lockpb.Lock/Unlock"),
    ("/v3/election/campaign", "/v3electionpb.Election/Campaign"),
    ("/v3/election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("/v3/election/leader", "/v3electionpb.Election/Leader"),
    ("/v3/election/observe", "/v3electionpb.Election/Observe"),
    ("/v3/election/resign", "/v3electionpb.Election/Resign"),
];

fn with(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Plain(Some(body.into())));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub async fn answer(member: &Arc<Member>, request: Request<Incoming>, caller: Caller) -> Response<Body> {
    let path = request.uri().path();
    if let Some((_, method)) = GATEWAY.iter().find(|(known, _)| *known == path) {
        if request.method() != Method::POST {
            return with(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
        }
        return match gateway(member, method, request.into_body(), caller).await {
            Ok(response) => response,
            Err(status) => refusal(&status),
        };
    }
    told(member, &request)
}

/// What is no key's: health, version, metrics.
pub fn told(member: &Member, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return with(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
    }
    match request.uri().path() {
        "/health" => health(member, request.uri().query().unwrap_or("")),
        "/livez" | "/readyz" => match member.keyspace.health() {
            Ok(()) => with(StatusCode::OK, TEXT, "ok\n"),
            Err(error) => with(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{error}\n")),
        },
        "/version" => {
            let version = json!({"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION, "storage": CLUSTER_VERSION});
            with(StatusCode::OK, JSON, version.to_string())
        }
        "/metrics" => with(StatusCode::OK, TEXT, metrics::text(member)),
        _ => with(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
    }
}

/// `exclude=NOSPACE` names an alarm that is not asked for.
fn health(member: &Member, query: &str) -> Response<Body> {
    let is_excluded = |kind: AlarmType| {
        let mut excluded = query.split('&').filter_map(|pair| pair.strip_prefix("exclude="));
        excluded.any(|name| name == kind.as_str_name())
    };
    let failed = member.keyspace.health().err().map(|error| error.to_string());
    let alarm = |kind: AlarmType| {
        let is_told = member.alarm_is_on(kind) && !is_excluded(kind);
        is_told.then(|| format!("ALARM {}", kind.as_str_name()))
    };
    let why = failed.or_else(|| alarm(AlarmType::Nospace));
    match why.or_else(|| alarm(AlarmType::Corrupt)) {
        None => with(StatusCode::OK, JSON, r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let body = json!({"health": "false", "reason": reason}).to_string();
            with(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
        }
    }
}

fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with(code, JSON, described(status).to_string())
}

fn described(status: &Status) -> Value {
    json!({"error": status.text, "code": status.code as i32, "message": status.text})
}

async fn gateway(
    member: &Arc<Member>,
    method: &'static str,
    body: Incoming,
    caller: Caller,
) -> Result<Response<Body>, Status> {
    let wrong = |what: String| Status::new(Code::InvalidArgument, what);
    // A third more, for base64.
    let most = (member.options.request_bytes_max + OVERHEAD_BYTES) / 3 * 4;
    let body = Limited::new(body, most)
        .collect()
        .await
        .map_err(|error| wrong(error.to_string()))?;
    let body = body.to_bytes();
    let json = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?
    };
    let message = TYPES.request(method, &json).map_err(wrong)?;
    let broken = |what: String| Status::new(Code::Internal, what);
    let (_, kind) = methods::known(method).ok_or_else(|| methods::unknown(method))?;
    let messages = match kind {
        Kind::Unary => {
            let answer = methods::call(member, method, message, &caller).await?;
            let json = TYPES.response(method, unframed(answer)).map_err(broken)?;
            return Ok(with(StatusCode::OK, JSON, json.to_string()));
        }
        Kind::Stream => methods::stream(member, method, message, &caller).await?,
        Kind::Both => methods::both_of_one(member, method, message, caller).await?,
    };
    let lines = messages.map(move |gathered| {
        let mut out = Vec::new();
        match gathered {
            Err(status) => line(&mut out, &json!({"error": described(&status)})),
            Ok(mut gathered) => {
                // Several messages may come at once.
                while let Some(prefix) = gathered.first_chunk::<5>() {
                    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                    let message = unframed(gathered.split_to((5 + length).min(gathered.len())));
                    let json = TYPES.response(method, message).unwrap_or_default();
                    line(&mut out, &json!({"result": json}));
                }
            }
        }
        Ok(out.into())
    });
    let mut response = Response::new(Body::Lines(Box::pin(lines)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(response)
}

fn line(out: &mut Vec<u8>, json: &Value) {
    out.extend_from_slice(json.to_string().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_a_method() {
        for (path, method) in GATEWAY {
            assert!(methods::known(method).is_some(), "{path}");
            TYPES.request(method, &json!({})).unwrap();
        }
    }
}
