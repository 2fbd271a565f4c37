//! Service-account tokens: signed by the plane's own key, and good only while what they are bound to exists.

use std::{collections::BTreeMap, time::SystemTime};

use api::{Resource, Status, resource};
use identity::{Claims, Expected, ObjectRef};

use super::{AUTHENTICATED, Authenticator};
use crate::{
    context::Identity,
    planes::{Plane, Planes},
    registry::{Kind, Place},
};

/// Every plane's issuer, as its Pods reach it: what a plane is, no other plane's keys make so.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A token that was found good.
pub struct Verified {
    pub identity: Identity,
    /// Of those asked about, the audiences that the token is meant for.
    pub audiences: Vec<String>,
}

/// `None` if the token is not good here; an error only if that could not be found out.
pub async fn verify_token(
    authenticator: &Authenticator,
    planes: &Planes,
    plane: &Plane,
    token: &str,
    audiences: &[&str],
) -> Result<Option<Verified>, Status> {
    let now = planes.world().clock.wall();
    let expected = Expected {
        issuer: ISSUER,
        audiences,
        now,
    };
    let claims = match authenticator.tokens(plane)?.public().verify(token, &expected) {
        Ok(claims) => claims,
        Err(error) => {
            tracing::debug!(plane = %plane.id, %error, "a token was refused");
            return Ok(None);
        }
    };
    if !still_bound(plane, &claims, now).await? {
        return Ok(None);
    }
    let meant_for = |audience: &&&str| claims.aud.iter().any(|has| has == **audience);
    Ok(Some(Verified {
        audiences: audiences
            .iter()
            .filter(meant_for)
            .map(|&audience| audience.to_owned())
            .collect(),
        identity: identity(&claims),
    }))
}

/// The account, and the Pod, Secret or Node that the token is bound to, are there and are the same ones.
async fn still_bound(plane: &Plane, claims: &Claims, now: SystemTime) -> Result<bool, Status> {
    let kubernetes = &claims.kubernetes;
    let namespace = Some(kubernetes.namespace.as_str());
    if !exists(
        plane,
        &resource::SERVICE_ACCOUNTS,
        namespace,
        &kubernetes.serviceaccount,
        now,
    )
    .await?
    {
        return Ok(false);
    }
    for (resource, namespace, bound) in [
        (&resource::PODS, namespace, &kubernetes.pod),
        (&resource::SECRETS, namespace, &kubernetes.secret),
        // With a Pod, the node is told for information only.
        (
            &resource::NODES,
            None,
            if kubernetes.pod.is_some() {
                &None
            } else {
                &kubernetes.node
            },
        ),
    ] {
        if let Some(bound) = bound
            && !exists(plane, resource, namespace, bound, now).await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Upstream takes a token for a minute after the end of what it is bound to was due.
const AFTER_DELETION_SECONDS: u64 = 60;

async fn exists(
    plane: &Plane,
    resource: &Resource,
    namespace: Option<&str>,
    wanted: &ObjectRef,
    now: SystemTime,
) -> Result<bool, Status> {
    let Some(found) = find(plane, resource, namespace, &wanted.name).await? else {
        return Ok(false);
    };
    let ended = found
        .pointer("/metadata/deletionTimestamp")
        .and_then(|time| crate::registry::meta::parse_time(time.as_str()?))
        .is_some_and(|due| due + std::time::Duration::from_secs(AFTER_DELETION_SECONDS) < now);
    Ok(found.uid() == wanted.uid && !ended)
}

/// One object of a built-in resource as it is now.
pub(crate) async fn find(
    plane: &Plane,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<api::Object>, Status> {
    let Some(info) = api::table::find(&resource.group, &resource.version, &resource.plural) else {
        return Ok(None);
    };
    let kind = Kind::BuiltIn(info);
    let place = Place {
        plane,
        kind: &kind,
        namespace,
        name,
    };
    Ok(place.read().await?.stored.map(|stored| stored.object))
}

/// As upstream's `serviceaccount.UserInfo`.
fn identity(claims: &Claims) -> Identity {
    let kubernetes = &claims.kubernetes;
    let (namespace, account) = (&kubernetes.namespace, &kubernetes.serviceaccount);
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        }
    };
    if let Some(pod) = &kubernetes.pod {
        add("pod-name", pod.name.clone());
        add("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &kubernetes.node {
        add("node-name", node.name.clone());
        add("node-uid", node.uid.clone());
    }
    if !claims.jti.is_empty() {
        add("credential-id", format!("JTI={}", claims.jti));
    }
    Identity {
        name: format!("system:serviceaccount:{namespace}:{}", account.name),
        uid: account.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        extra,
    }
}
