//! Which ConfigMaps, Secrets and claims a Pod names, and what they hold.

pub mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    ConfigMap,
    Secret,
    /// A PersistentVolumeClaim.
    Claim,
    /// A PersistentVolume, which is in no namespace; named by a claim.
    Volume,
}

impl Kind {
    /// As upstream writes it in its messages: `configmap "x" not found`.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
            Kind::Claim => "persistentvolumeclaim",
            Kind::Volume => "persistentvolume",
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    pub kind: Kind,
    pub name: String,
}

/// What an object holds: keys of a ConfigMap or Secret, or of a claim or volume what [`storage`] reads. `binary` is a
/// ConfigMap's `binaryData`, which variables don't see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keys {
    pub text: BTreeMap<String, Vec<u8>>,
    pub binary: BTreeMap<String, Vec<u8>>,
}

impl Keys {
    pub fn of(kind: Kind, tree: &Value) -> Keys {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let decode = |field: &str| -> BTreeMap<String, Vec<u8>> {
            let entries = tree[field].as_object().into_iter().flatten();
            entries
                .filter_map(|(key, value)| Some((key.clone(), STANDARD.decode(value.as_str()?).ok()?)))
                .collect()
        };
        match kind {
            Kind::Secret => Keys {
                text: decode("data"),
                binary: BTreeMap::new(),
            },
            Kind::ConfigMap => Keys {
                text: tree["data"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.as_bytes().to_vec())))
                    .collect(),
                binary: decode("binaryData"),
            },
            Kind::Claim => storage::claim(tree),
            Kind::Volume => storage::volume(tree),
        }
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.text.get(key).or_else(|| self.binary.get(key)).map(Vec::as_slice)
    }
}

/// What is known of a Pod's references at one moment.
#[derive(Clone, Default, Debug)]
pub struct Snapshot(pub BTreeMap<Reference, Known>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// The plane has said that there is none.
    Absent,
    Present(Arc<Keys>),
}

/// Why a reference can't be read now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Missing {
    #[error("{} \"{name}\" has not been read yet", kind.noun())]
    Unread { kind: Kind, name: String },
    #[error("{} \"{name}\" not found", kind.noun())]
    Absent { kind: Kind, name: String },
}

impl Snapshot {
    pub fn get(&self, kind: Kind, name: &str) -> Result<&Arc<Keys>, Missing> {
        let name = name.to_owned();
        match self.0.get(&Reference {
            kind,
            name: name.clone(),
        }) {
            None => Err(Missing::Unread { kind, name }),
            Some(Known::Absent) => Err(Missing::Absent { kind, name }),
            Some(Known::Present(keys)) => Ok(keys),
        }
    }

    /// As `get`, but an optional reference that is known to be absent is no error.
    pub fn get_optional(&self, kind: Kind, name: &str, optional: bool) -> Result<Option<&Arc<Keys>>, Missing> {
        match self.get(kind, name) {
            Ok(keys) => Ok(Some(keys)),
            Err(Missing::Absent { .. }) if optional => Ok(None),
            Err(missing) => Err(missing),
        }
    }
}

/// All that the Pod names in volumes, variables and pull secrets. What claims name in turn is [`storage::behind`] them.
pub fn wanted(pod: &Pod) -> BTreeSet<Reference> {
    let mut wanted = BTreeSet::new();
    let Some(spec) = &pod.spec else {
        return wanted;
    };
    let mut add = |kind: Kind, name: &str| {
        if !name.is_empty() {
            wanted.insert(Reference {
                kind,
                name: name.to_owned(),
            });
        }
    };
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            add(Kind::ConfigMap, &source.name);
        }
        if let Some(name) = storage::claim_of(pod, volume) {
            add(Kind::Claim, &name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) {
            add(Kind::Secret, name);
        }
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            if let Some(source) = &source.config_map {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret {
                add(Kind::Secret, &source.name);
            }
        }
    }
    for container in containers(pod) {
        for source in container.env_from.iter().flatten() {
            if let Some(source) = &source.config_map_ref {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret_ref {
                add(Kind::Secret, &source.name);
            }
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if let Some(source) = &source.config_map_key_ref {
                add(Kind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret_key_ref {
                add(Kind::Secret, &source.name);
            }
        }
    }
    for reference in spec.image_pull_secrets.iter().flatten() {
        add(Kind::Secret, &reference.name);
    }
    wanted
}

/// Init containers first, in their order, then the others.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_can_name_a_config_map_or_secret_is_seen() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "configMap": {"name": "volume"}},
                {"name": "b", "secret": {"secretName": "volume"}},
                {"name": "c", "projected": {"sources": [
                    {"configMap": {"name": "projected"}}, {"secret": {"name": "projected"}}]}},
            ],
            "initContainers": [{"name": "i", "image": "x", "envFrom": [{"configMapRef": {"name": "from"}}]}],
            "containers": [{"name": "m", "image": "x", "envFrom": [{"secretRef": {"name": "from"}}], "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "key", "key": "a"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "key", "key": "a"}}},
            ]}],
        }}))
        .unwrap();

        let names = |wanted_kind| -> Vec<String> {
            wanted(&pod)
                .into_iter()
                .filter(|reference| reference.kind == wanted_kind)
                .map(|reference| reference.name)
                .collect()
        };

        assert_eq!(names(Kind::ConfigMap), ["from", "key", "projected", "volume"]);
        assert_eq!(names(Kind::Secret), ["from", "key", "projected", "pull", "volume"]);
    }

    #[test]
    fn secrets_are_base64_and_config_maps_have_two_kinds_of_keys() {
        let secret = Keys::of(Kind::Secret, &json!({"data": {"a": "aGk=", "bad": "%"}}));
        let map = Keys::of(
            Kind::ConfigMap,
            &json!({"data": {"a": "hi"}, "binaryData": {"b": "AAE="}}),
        );

        assert_eq!(secret.get("a"), Some(&b"hi"[..]));
        assert_eq!(secret.get("bad"), None);
        assert_eq!(map.get("a"), Some(&b"hi"[..]));
        assert_eq!(map.get("b"), Some(&[0u8, 1][..]));
        assert!(!map.text.contains_key("b"));
    }
}
