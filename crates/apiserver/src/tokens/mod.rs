//! Tokens of service accounts: made on request (`serviceaccounts/<name>/token`), and the documents by which others
//! check them.

use std::time::{Duration, SystemTime};

use api::{Object, Reason, Status, resource, status::Cause};
use identity::{Claims, KubernetesClaims, ObjectRef, TokenKey, jwks};
use serde_json::{Value, json};

use crate::{
    authn::{ISSUER, find},
    planes::{Plane, Planes},
    registry::meta,
};

/// Upstream's default and bounds of `spec.expirationSeconds`.
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;

/// Audiences and their length, so that a token stays one header's worth.
const AUDIENCES_MAX: usize = 32;

/// `POST .../serviceaccounts/<name>/token`: the request, with its status filled in.
pub async fn request(
    planes: &Planes,
    plane: &Plane,
    key: &TokenKey,
    namespace: &str,
    name: &str,
    mut request: Value,
) -> Result<Value, Status> {
    let spec = &request["spec"];
    let account = find(plane, &resource::SERVICE_ACCOUNTS, Some(namespace), name)
        .await?
        .ok_or_else(|| not_found("serviceaccounts", name))?;
    let seconds = match &spec["expirationSeconds"] {
        Value::Null => DEFAULT_SECONDS,
        value => value.as_i64().unwrap_or(0),
    };
    if seconds < MIN_SECONDS {
        return Err(invalid(name, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        return Err(invalid(name, "may not specify a duration larger than 2^32 seconds"));
    }
    let mut audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if audiences.len() > AUDIENCES_MAX {
        return Err(invalid(name, "may not name more than 32 audiences"));
    }
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let bound = bound(plane, namespace, name, &spec["boundObjectRef"]).await?;
    let world = planes.world();
    let now = seconds_since_epoch(world.clock.wall());
    let expires = now + seconds.unsigned_abs();
    let claims = Claims {
        aud: audiences.clone(),
        exp: expires,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: meta::random_uid(&*world.random),
        kubernetes: KubernetesClaims {
            namespace: namespace.to_owned(),
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
            serviceaccount: reference(&account),
            warnafter: None,
        },
        nbf: now,
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = key
        .sign(&claims)
        .map_err(|error| Status::new(Reason::InternalError, error.to_string()))?;
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"] = json!({
        "name": name, "namespace": namespace, "creationTimestamp": meta::now(&*world.clock),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({
        "token": token,
        "expirationTimestamp": meta::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(expires)),
    });
    Ok(request)
}

#[derive(Default)]
struct Bound {
    pod: Option<ObjectRef>,
    secret: Option<ObjectRef>,
    node: Option<ObjectRef>,
}

/// What the token is to end with.
async fn bound(plane: &Plane, namespace: &str, account: &str, wanted: &Value) -> Result<Bound, Status> {
    let mut bound = Bound::default();
    if !wanted.is_object() {
        return Ok(bound);
    }
    let text = |field: &str| wanted[field].as_str().unwrap_or_default();
    let (name, uid) = (text("name"), text("uid"));
    let (resource, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => (&resource::PODS, Some(namespace)),
        ("v1", "Secret") => (&resource::SECRETS, Some(namespace)),
        ("v1", "Node") => (&resource::NODES, None),
        (version, kind) => {
            return Err(Status::new(
                Reason::BadRequest,
                format!("cannot bind token to object of type {version}, Kind={kind}"),
            ));
        }
    };
    let found = find(plane, resource, namespace, name)
        .await?
        .ok_or_else(|| not_found(&resource.plural, name))?;
    if !uid.is_empty() && found.uid() != uid {
        return Err(Status::new(
            Reason::Conflict,
            format!(
                "Operation cannot be fulfilled on {} {name:?}: the UID in the bound object reference ({uid}) does not \
                 match the UID in record. The object might have been deleted and then recreated",
                resource.plural
            ),
        )
        .about("", &resource.plural, name));
    }
    match &*resource.kind {
        "Pod" => {
            let runs_as = found
                .pointer("/spec/serviceAccountName")
                .and_then(Value::as_str)
                .unwrap_or("default");
            if runs_as != account {
                return Err(Status::new(
                    Reason::BadRequest,
                    format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount \
                         name."
                    ),
                ));
            }
            let node = found
                .pointer("/spec/nodeName")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !node.is_empty() {
                let node_found = find(plane, &resource::NODES, None, node).await?;
                bound.node = Some(ObjectRef {
                    name: node.to_owned(),
                    uid: node_found.map(|node| node.uid().to_owned()).unwrap_or_default(),
                });
            }
            bound.pod = Some(reference(&found));
        }
        "Secret" => bound.secret = Some(reference(&found)),
        _ => bound.node = Some(reference(&found)),
    }
    Ok(bound)
}

fn reference(object: &Object) -> ObjectRef {
    ObjectRef {
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
    }
}

fn not_found(plural: &str, name: &str) -> Status {
    Status::new(Reason::NotFound, format!("{plural} {name:?} not found")).about("", plural, name)
}

fn invalid(name: &str, why: &str) -> Status {
    let message =
        format!("TokenRequest.authentication.k8s.io {name:?} is invalid: spec.expirationSeconds: Invalid value: {why}");
    let mut status = Status::new(Reason::Invalid, message).about("authentication.k8s.io", "TokenRequest", name);
    status.causes.push(Cause {
        reason: "FieldValueInvalid",
        message: why.to_owned(),
        field: "spec.expirationSeconds".to_owned(),
    });
    status
}

/// `/.well-known/openid-configuration`.
pub fn openid_configuration() -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// `/openid/v1/jwks`.
pub fn openid_keys(key: &TokenKey) -> Value {
    jwks([key.public()])
}

fn seconds_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
