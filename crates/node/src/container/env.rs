//! A container's environment: literal values with `$(VAR)`, references, Services' variables.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::field::{self, NodeFacts};
use crate::pod::references::{Kind, Missing, Snapshot};

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvError {
    #[error(transparent)]
    Missing(#[from] Missing),
    #[error("couldn't find key {key} in {} {namespace}/{name}", match kind { Kind::Secret => "Secret", _ => "ConfigMap" })]
    NoKey {
        kind: Kind,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("variable {variable}: {problem}")]
    Field { variable: String, problem: String },
}

/// Variables in the order in which the container gets them: Services', `envFrom`, `env`. A later one wins.
pub fn of(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    references: &Snapshot,
    facts: &NodeFacts,
) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut result: Vec<(String, String)> = Vec::new();
    // What `$(VAR)` sees: all that has been said so far.
    let mut scope: BTreeMap<String, String> = services.clone();

    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let keys = if let Some(source) = &source.config_map_ref {
            references.get_optional(Kind::ConfigMap, &source.name, source.optional.unwrap_or(false))?
        } else if let Some(source) = &source.secret_ref {
            references.get_optional(Kind::Secret, &source.name, source.optional.unwrap_or(false))?
        } else {
            None
        };
        for (key, value) in keys.into_iter().flat_map(|keys| &keys.text) {
            let name = format!("{prefix}{key}");
            // Upstream lets any name through that has no `=` (RelaxedEnvironmentVariableValidation).
            if name.is_empty() || name.contains('=') {
                continue;
            }
            let value = String::from_utf8_lossy(value).into_owned();
            scope.insert(name.clone(), value.clone());
            set(&mut result, name, value);
        }
    }

    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &scope)),
            (_, Some(source)) => read(pod, container, namespace, &variable.name, source, references, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            scope.insert(variable.name.clone(), value.clone());
            set(&mut result, variable.name.clone(), value);
        }
    }

    let mut all: Vec<(String, String)> = services
        .iter()
        .filter(|(name, _)| !result.iter().any(|(given, _)| given == *name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    all.append(&mut result);
    Ok(all)
}

fn set(result: &mut Vec<(String, String)>, name: String, value: String) {
    result.retain(|(given, _)| *given != name);
    result.push((name, value));
}

fn read(
    pod: &Pod,
    container: &Container,
    namespace: &str,
    variable: &str,
    source: &EnvVarSource,
    references: &Snapshot,
    facts: &NodeFacts,
) -> Result<Option<String>, EnvError> {
    let key = |kind: Kind, name: &str, key: &str, optional: bool| -> Result<Option<String>, EnvError> {
        let Some(keys) = references.get_optional(kind, name, optional)? else {
            return Ok(None);
        };
        match keys.text.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(EnvError::NoKey {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        }
    };
    let field = |result: Option<String>, what: &str| {
        result.map(Some).ok_or_else(|| EnvError::Field {
            variable: variable.to_owned(),
            problem: format!("unsupported field {what:?}"),
        })
    };
    if let Some(source) = &source.config_map_key_ref {
        key(
            Kind::ConfigMap,
            &source.name,
            &source.key,
            source.optional.unwrap_or(false),
        )
    } else if let Some(source) = &source.secret_key_ref {
        key(
            Kind::Secret,
            &source.name,
            &source.key,
            source.optional.unwrap_or(false),
        )
    } else if let Some(source) = &source.field_ref {
        field(field::of(pod, &source.field_path, facts), &source.field_path)
    } else if let Some(source) = &source.resource_field_ref {
        field(field::resource(pod, Some(container), source, facts), &source.resource)
    } else {
        Err(EnvError::Field {
            variable: variable.to_owned(),
            problem: "no source that this node knows".to_owned(),
        })
    }
}

/// `$(VAR)` becomes the variable's value, `$$` one dollar; what is not known stays as written.
pub fn expand(text: &str, scope: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        result.push_str(&rest[..position]);
        let after = &rest[position + 1..];
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after_name)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match scope.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after_name;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::references::{Keys, Known, Reference};
    use serde_json::json;

    fn scope(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn dollar_parentheses_expand_as_upstream_does() {
        let scope = scope(&[("A", "one"), ("B", "$(A)")]);
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$(missing)", "$(missing)"),
            ("$(open", "$(open"),
            ("$A", "$A"),
            ("end$", "end$"),
            ("$$$$", "$$"),
        ] {
            assert_eq!(expand(text, &scope), expected, "{text}");
        }
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.0.insert(
            Reference {
                kind: Kind::ConfigMap,
                name: "settings".to_owned(),
            },
            Known::Present(
                Keys::of(
                    Kind::ConfigMap,
                    &json!({"data": {"COLOR": "green", "bad=name": "x"}, "binaryData": {"BIN": "AAE="}}),
                )
                .into(),
            ),
        );
        snapshot.0.insert(
            Reference {
                kind: Kind::Secret,
                name: "gone".to_owned(),
            },
            Known::Absent,
        );
        snapshot
    }

    fn environment(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "web", "uid": "u"},
            "spec": {"nodeName": "n1", "containers": [container]},
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let services = scope(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]);
        of(&pod, container, &services, &snapshot(), &NodeFacts::for_tests())
    }

    #[test]
    fn later_variables_see_and_override_earlier_ones() {
        let variables = environment(json!({
            "name": "m", "image": "x",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "P_COLOR", "value": "not $(P_COLOR)"},
                {"name": "HOST", "value": "$(KUBERNETES_SERVICE_HOST):443"},
                {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k", "optional": true}}},
                {"name": "EMPTY"},
            ],
        }))
        .unwrap();

        let expected = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("P_COLOR", "not green"),
            ("HOST", "10.96.0.1:443"),
            ("NS", "web"),
            ("NODE", "n1"),
            ("EMPTY", ""),
        ];
        assert_eq!(
            variables,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (env, message) in [
            (
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}),
                "secret \"gone\" not found",
            ),
            (
                json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}),
                "couldn't find key k in ConfigMap web/settings",
            ),
            (
                json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "other", "key": "k", "optional": true}}}),
                "configmap \"other\" has not been read yet",
            ),
            (
                json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.priority"}}}),
                "variable A: unsupported field \"spec.priority\"",
            ),
        ] {
            let error = environment(json!({"name": "m", "image": "x", "env": [env]})).unwrap_err();

            assert_eq!(error.to_string(), message);
        }
    }
}
