//! Acting as somebody else, for those who may (`Impersonate-*` headers).

use std::collections::BTreeMap;

use api::{Reason, Status};
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::{
    authz::{Attributes, Authorizer, ResourceTarget},
    context::Identity,
    planes::{Plane, Planes},
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// Each takes an authorization of its own.
const HEADERS_MAX: usize = 64;

/// Whom the request is made as: `user`, or whom the headers name if `user` may impersonate all of it.
pub async fn impersonate(
    authorizer: &Authorizer,
    planes: &Planes,
    plane: &Plane,
    user: Identity,
    headers: &HeaderMap,
) -> Result<Identity, Status> {
    let Some(wanted) = Wanted::read(headers)? else {
        return Ok(user);
    };
    for target in wanted.targets() {
        let attributes = Attributes::resource("impersonate", target);
        authorizer.require(planes, plane, &user, &attributes).await?;
    }
    Ok(wanted.identity())
}

#[derive(Debug, PartialEq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Result<Option<Wanted>, Status> {
        let bad = |why: &str| Status::new(Reason::BadRequest, why);
        let texts = |name: &str| -> Result<Vec<String>, Status> {
            let values = headers.get_all(name).iter();
            let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
            values
                .map(text)
                .collect::<Result<_, _>>()
                .map_err(|_| bad("an Impersonate header is not text"))
        };
        let mut extra = BTreeMap::new();
        for name in headers.keys().filter_map(|name| name.as_str().strip_prefix(EXTRA)) {
            let key = percent_decode_str(name).decode_utf8_lossy().to_lowercase();
            extra.insert(key, texts(&format!("{EXTRA}{name}"))?);
        }
        let user = texts(USER)?.into_iter().next().unwrap_or_default();
        let uid = texts(UID)?.into_iter().next().unwrap_or_default();
        let groups = texts(GROUP)?;
        if user.is_empty() {
            if !uid.is_empty() || !groups.is_empty() || !extra.is_empty() {
                return Err(bad(
                    "requested to impersonate groups, a uid or extra fields without impersonating a user",
                ));
            }
            return Ok(None);
        }
        if groups.len() + extra.values().map(Vec::len).sum::<usize>() > HEADERS_MAX {
            return Err(bad("too many Impersonate headers"));
        }
        Ok(Some(Wanted {
            user,
            uid,
            groups,
            extra,
        }))
    }

    /// What one has to be allowed to impersonate.
    fn targets(&self) -> Vec<ResourceTarget> {
        let target = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| ResourceTarget {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut targets = vec![match service_account(&self.user) {
            Some((namespace, name)) => target("", "serviceaccounts", "", namespace, name),
            None => target("", "users", "", "", &self.user),
        }];
        for group in &self.groups {
            targets.push(target("", "groups", "", "", group));
        }
        for (key, values) in &self.extra {
            for value in values {
                targets.push(target("authentication.k8s.io", "userextras", key, "", value));
            }
        }
        if !self.uid.is_empty() {
            targets.push(target("authentication.k8s.io", "uids", "", "", &self.uid));
        }
        targets
    }

    fn identity(self) -> Identity {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = service_account(&self.user)
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let common = if self.user == ANONYMOUS {
            UNAUTHENTICATED
        } else {
            AUTHENTICATED
        };
        if !groups
            .iter()
            .any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED)
        {
            groups.push(common.to_owned());
        }
        Identity {
            name: self.user,
            uid: self.uid,
            groups,
            extra: self.extra,
        }
    }
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<Wanted>, Status> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Wanted::read(&map)
    }

    #[test]
    fn nobody_is_impersonated_without_a_header() {
        assert_eq!(read(&[("accept", "*/*")]), Ok(None));
        assert_eq!(read(&[(GROUP, "dev")]).unwrap_err().code(), 400);
    }

    #[test]
    fn every_part_needs_a_right_of_its_own() {
        let wanted = read(&[
            (USER, "jane"),
            (GROUP, "dev"),
            (GROUP, "ops"),
            ("impersonate-extra-scopes%2fall", "view"),
        ]);

        let wanted = wanted.unwrap().unwrap();

        let targets: Vec<String> = wanted.targets().iter().map(ResourceTarget::combined).collect();
        assert_eq!(targets, ["users", "groups", "groups", "userextras/scopes/all"]);
        let identity = wanted.identity();
        assert_eq!(identity.groups, ["dev", "ops", AUTHENTICATED]);
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let wanted = read(&[(USER, "system:serviceaccount:web:default")]).unwrap().unwrap();

        assert_eq!(wanted.targets()[0].resource, "serviceaccounts");
        assert_eq!(wanted.targets()[0].namespace, "web");
        let identity = wanted.identity();
        assert_eq!(
            identity.groups,
            ["system:serviceaccounts", "system:serviceaccounts:web", AUTHENTICATED]
        );
    }
}
