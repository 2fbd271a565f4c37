//! Which files a ConfigMap, Secret, downward or projected volume holds, as a function of what it refers to. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::container::field::{self, NodeFacts};
use crate::pod::references::{Keys, Kind, Missing, Snapshot};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
}

/// Relative path to file.
pub type Payload = BTreeMap<String, File>;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PayloadError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("references non-existent {} key: {key}", kind.noun())]
    NoKey { kind: Kind, key: String },
    #[error("{0:?} is no relative path below the volume")]
    Path(String),
    #[error("unsupported field {0:?}")]
    Field(String),
    #[error("no token for audience {audience:?} yet: {problem}")]
    Token { audience: String, problem: String },
    #[error("conflicting paths: {0:?} is given twice")]
    Conflict(String),
}

/// One token that a Pod asks for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenRequest {
    /// Empty for the plane's own.
    pub audience: String,
    pub expiration_seconds: i64,
}

impl TokenRequest {
    pub fn of(source: &ServiceAccountTokenProjection) -> TokenRequest {
        TokenRequest {
            audience: source.audience.clone().unwrap_or_default(),
            expiration_seconds: source.expiration_seconds.unwrap_or(3600),
        }
    }

    /// All that a Pod's volumes ask for.
    pub fn all(pod: &Pod) -> Vec<TokenRequest> {
        let mut all: Vec<TokenRequest> = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .flat_map(|volume| {
                volume
                    .projected
                    .iter()
                    .flat_map(|projected| projected.sources.iter().flatten())
            })
            .filter_map(|source| source.service_account_token.as_ref())
            .map(TokenRequest::of)
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

/// What payloads are made from.
pub struct Sources<'a> {
    pub pod: &'a Pod,
    pub references: &'a Snapshot,
    pub facts: &'a NodeFacts,
    pub tokens: &'a BTreeMap<TokenRequest, Result<String, String>>,
}

/// Upstream's default for every such volume.
const DEFAULT_MODE: u32 = 0o644;

/// `None` if the volume is not of a kind that holds generated files.
pub fn of(volume: &Volume, sources: &Sources) -> Option<Result<Payload, PayloadError>> {
    let mode = |mode: Option<i32>| mode.map_or(DEFAULT_MODE, |mode| mode.unsigned_abs() & 0o7777);
    if let Some(source) = &volume.config_map {
        let optional = source.optional.unwrap_or(false);
        return Some(keys(
            Kind::ConfigMap,
            &source.name,
            source.items.as_deref(),
            optional,
            mode(source.default_mode),
            sources,
        ));
    }
    if let Some(source) = &volume.secret {
        return Some(keys(
            Kind::Secret,
            source.secret_name.as_deref().unwrap_or_default(),
            source.items.as_deref(),
            source.optional.unwrap_or(false),
            mode(source.default_mode),
            sources,
        ));
    }
    if let Some(source) = &volume.downward_api {
        return Some(downward(
            source.items.as_deref().unwrap_or_default(),
            mode(source.default_mode),
            sources,
        ));
    }
    let source = volume.projected.as_ref()?;
    let mode = mode(source.default_mode);
    let mut all = Payload::new();
    for projection in source.sources.iter().flatten() {
        match projected(projection, mode, sources) {
            Ok(payload) => {
                for (path, file) in payload {
                    if all.insert(path.clone(), file).is_some() {
                        return Some(Err(PayloadError::Conflict(path)));
                    }
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(all))
}

fn projected(projection: &VolumeProjection, mode: u32, sources: &Sources) -> Result<Payload, PayloadError> {
    if let Some(source) = &projection.config_map {
        let optional = source.optional.unwrap_or(false);
        keys(
            Kind::ConfigMap,
            &source.name,
            source.items.as_deref(),
            optional,
            mode,
            sources,
        )
    } else if let Some(source) = &projection.secret {
        let optional = source.optional.unwrap_or(false);
        keys(
            Kind::Secret,
            &source.name,
            source.items.as_deref(),
            optional,
            mode,
            sources,
        )
    } else if let Some(source) = &projection.downward_api {
        downward(source.items.as_deref().unwrap_or_default(), mode, sources)
    } else if let Some(source) = &projection.service_account_token {
        let request = TokenRequest::of(source);
        let token = match sources.tokens.get(&request) {
            Some(Ok(token)) => token,
            Some(Err(problem)) => {
                return Err(PayloadError::Token {
                    audience: request.audience,
                    problem: problem.clone(),
                });
            }
            None => {
                return Err(PayloadError::Token {
                    audience: request.audience,
                    problem: "not asked for".to_owned(),
                });
            }
        };
        // A Pod with users of its own keeps the token from others; its group is added by the volume's owner.
        let personal = token_owner(sources.pod).is_some() || fs_group(sources.pod).is_some();
        let file = File {
            data: token.clone().into_bytes(),
            mode: if personal { 0o600 } else { mode },
        };
        Ok(Payload::from([(checked(&source.path)?, file)]))
    } else {
        Err(PayloadError::Field("projected volume source".to_owned()))
    }
}

/// The user that all containers run as, if it is one.
pub fn token_owner(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|security| security.run_as_user);
    let mut users = crate::pod::references::containers(pod).map(|container| {
        container
            .security_context
            .as_ref()
            .and_then(|security| security.run_as_user)
            .or(of_pod)
    });
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then(|| u32::try_from(first).ok())
        .flatten()
}

pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

fn keys(
    kind: Kind,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
    sources: &Sources,
) -> Result<Payload, PayloadError> {
    let Some(keys) = sources.references.get_optional(kind, name, optional)? else {
        return Ok(Payload::new());
    };
    let keys: &Keys = keys;
    let mut payload = Payload::new();
    match items.filter(|items| !items.is_empty()) {
        None => {
            for (key, data) in keys.text.iter().chain(&keys.binary) {
                let data = data.clone();
                payload.insert(checked(key)?, File { data, mode });
            }
        }
        Some(items) => {
            for item in items {
                let Some(data) = keys.get(&item.key) else {
                    if optional {
                        continue;
                    }
                    let key = item.key.clone();
                    return Err(PayloadError::NoKey { kind, key });
                };
                let file = File {
                    data: data.to_vec(),
                    mode: item.mode.map_or(mode, |mode| mode.unsigned_abs() & 0o7777),
                };
                payload.insert(checked(&item.path)?, file);
            }
        }
    }
    Ok(payload)
}

fn downward(items: &[DownwardAPIVolumeFile], mode: u32, sources: &Sources) -> Result<Payload, PayloadError> {
    let mut payload = Payload::new();
    for item in items {
        let (value, what) = if let Some(source) = &item.field_ref {
            (
                field::of(sources.pod, &source.field_path, sources.facts),
                source.field_path.clone(),
            )
        } else if let Some(source) = &item.resource_field_ref {
            (
                field::resource(sources.pod, None, source, sources.facts),
                source.resource.clone(),
            )
        } else {
            (None, item.path.clone())
        };
        let file = File {
            data: value.ok_or(PayloadError::Field(what))?.into_bytes(),
            mode: item.mode.map_or(mode, |mode| mode.unsigned_abs() & 0o7777),
        };
        payload.insert(checked(&item.path)?, file);
    }
    Ok(payload)
}

/// The API refuses such paths too; a volume must not be left by one that slipped through. Names that start with `..`
/// are the writer's own.
fn checked(path: &str) -> Result<String, PayloadError> {
    let sound = !path.is_empty()
        && !path.starts_with("..")
        && !path.contains('\0')
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if sound {
        Ok(path.to_owned())
    } else {
        Err(PayloadError::Path(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::references::{Known, Reference};
    use serde_json::{Value, json};

    fn payload(volume: Value) -> Result<BTreeMap<String, (String, u32)>, PayloadError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web", "uid": "u", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "m", "image": "x", "resources": {"limits": {"memory": "1Gi"}}}]},
        }))
        .unwrap();
        let mut references = Snapshot::default();
        let mut put = |kind, name: &str, tree: Value| {
            references.0.insert(
                Reference {
                    kind,
                    name: name.to_owned(),
                },
                Known::Present(Keys::of(kind, &tree).into()),
            );
        };
        put(
            Kind::ConfigMap,
            "settings",
            json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Mw=="}}),
        );
        put(Kind::Secret, "key", json!({"data": {"k": "aGk="}}));
        put(Kind::ConfigMap, "evil", json!({"data": {"..data": "x"}}));
        references.0.insert(
            Reference {
                kind: Kind::Secret,
                name: "gone".to_owned(),
            },
            Known::Absent,
        );
        let tokens = BTreeMap::from([(
            TokenRequest {
                audience: String::new(),
                expiration_seconds: 3607,
            },
            Ok("jwt".to_owned()),
        )]);
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let sources = Sources {
            pod: &pod,
            references: &references,
            facts: &NodeFacts::for_tests(),
            tokens: &tokens,
        };
        Ok(of(&volume, &sources)
            .unwrap()?
            .into_iter()
            .map(|(path, file)| (path, (String::from_utf8(file.data).unwrap(), file.mode)))
            .collect())
    }

    fn files(list: &[(&str, &str, u32)]) -> BTreeMap<String, (String, u32)> {
        list.iter()
            .map(|(path, data, mode)| (path.to_string(), (data.to_string(), *mode)))
            .collect()
    }

    #[test]
    fn volumes_hold_what_they_refer_to() {
        for (volume, expected) in [
            (
                json!({"configMap": {"name": "settings"}}),
                files(&[("a", "1", 0o644), ("b", "2", 0o644), ("c", "3", 0o644)]),
            ),
            (
                json!({"configMap": {"name": "settings", "defaultMode": 0o600,
                    "items": [{"key": "a", "path": "deep/a"}, {"key": "c", "path": "c", "mode": 0o400}]}}),
                files(&[("deep/a", "1", 0o600), ("c", "3", 0o400)]),
            ),
            (json!({"secret": {"secretName": "key"}}), files(&[("k", "hi", 0o644)])),
            (json!({"secret": {"secretName": "gone", "optional": true}}), files(&[])),
            (
                json!({"downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "mem", "resourceFieldRef": {"containerName": "m", "resource": "limits.memory", "divisor": "1Mi"}}]}}),
                files(&[("labels", "a=\"b\"", 0o644), ("mem", "1024", 0o644)]),
            ),
            (
                json!({"projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "settings", "items": [{"key": "a", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}),
                files(&[
                    ("token", "jwt", 0o644),
                    ("ca.crt", "1", 0o644),
                    ("namespace", "web", 0o644),
                ]),
            ),
        ] {
            assert_eq!(payload(volume.clone()).unwrap(), expected, "{volume}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        for (volume, expected) in [
            (json!({"secret": {"secretName": "gone"}}), "secret \"gone\" not found"),
            (
                json!({"configMap": {"name": "settings", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent configmap key: z",
            ),
            (
                json!({"configMap": {"name": "settings", "items": [{"key": "a", "path": "../a"}]}}),
                "\"../a\" is no relative path below the volume",
            ),
            (
                json!({"configMap": {"name": "evil"}}),
                "\"..data\" is no relative path below the volume",
            ),
            (
                json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}),
                "no token for audience \"vault\" yet: not asked for",
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "settings"}}, {"configMap": {"name": "settings"}}]}}),
                "conflicting paths: \"a\" is given twice",
            ),
        ] {
            assert_eq!(payload(volume).unwrap_err().to_string(), expected);
        }
    }
}
