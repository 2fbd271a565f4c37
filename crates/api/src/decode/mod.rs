//! Reading a built-in kind's JSON as upstream's typed decoder does: wrong types are refused, unknown fields are
//! named and dropped, nulls and empty collections vanish, amounts and times take their canonical form.

mod duplicates;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    Resource,
    quantity::Quantity,
    schema::{self, Field, Shape, Type},
    status::{Reason, Status},
};

pub use duplicates::duplicates;

/// Upstream's decoder goes no deeper; neither does ours (`serde_json` stops at 128 too).
const DEPTH_MAX: usize = 128;

/// What decoding found besides the object itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Strictness {
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub problems: Vec<String>,
}

impl Strictness {
    /// The refusal for `fieldValidation=Strict`; `None` if there is nothing to refuse.
    pub fn refusal(&self, resource: &Resource) -> Option<Status> {
        if self.problems.is_empty() {
            return None;
        }
        let problems = format!("strict decoding error: {}", self.problems.join(", "));
        Some(cannot_be_handled(resource, &problems))
    }
}

/// Normalizes an object of a built-in kind in place. Objects of other kinds are left as they are.
pub fn decode(resource: &Resource, object: &mut Value) -> Result<Strictness, Status> {
    let Some(kind) = schema::of_kind(&resource.group, &resource.version, &resource.kind) else {
        return Ok(Strictness::default());
    };
    decode_type(kind, object).map_err(|problem| cannot_be_handled(resource, &problem))
}

/// As [`decode`], for a structure that is no resource of its own, such as `Scale` or `DeleteOptions`.
pub fn decode_type(kind: &'static Type, object: &mut Value) -> Result<Strictness, String> {
    let mut decoder = Decoder {
        strictness: Strictness::default(),
        path: Vec::new(),
    };
    let Value::Object(fields) = object else {
        return Err(format!(
            "json: cannot unmarshal {} into Go value of type {}",
            json_name(object),
            go_type_name(kind)
        ));
    };
    decoder.structure(kind, fields)?;
    Ok(decoder.strictness)
}

/// `Pod in version "v1" cannot be handled as a Pod: ...`.
pub fn cannot_be_handled(resource: &Resource, problem: &str) -> Status {
    let (kind, version) = (&resource.kind, &resource.version);
    Status::new(
        Reason::BadRequest,
        format!("{kind} in version {version:?} cannot be handled as a {kind}: {problem}"),
    )
}

fn go_type_name(kind: &Type) -> String {
    let mut parts = kind.name.rsplit('.');
    let short = parts.next().unwrap_or_default();
    format!("{}.{short}", parts.next().unwrap_or_default())
}

fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

enum Step {
    Field(String),
    Index(usize),
}

struct Decoder {
    strictness: Strictness,
    path: Vec<Step>,
}

impl Decoder {
    fn structure(&mut self, kind: &'static Type, fields: &mut Map<String, Value>) -> Result<(), String> {
        if self.path.len() > DEPTH_MAX {
            return Err("exceeded max depth".to_owned());
        }
        let mut dropped = Vec::new();
        for (name, value) in fields.iter_mut() {
            let Some(field) = kind.field(name) else {
                let path = self.path_with(name);
                self.strictness.problems.push(format!("unknown field {path:?}"));
                dropped.push(name.clone());
                continue;
            };
            self.path.push(Step::Field(name.clone()));
            self.value(kind, field_shape(field), value)?;
            self.path.pop();
            if value.is_null() || (is_empty(value, &field.shape) && !field.required) {
                dropped.push(name.clone());
            }
        }
        for name in dropped {
            fields.remove(&name);
        }
        Ok(())
    }

    fn value(&mut self, parent: &'static Type, shape: &'static Shape, value: &mut Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match (shape, &mut *value) {
            (Shape::Struct(id), Value::Object(fields)) => self.structure(id.get(), fields),
            (Shape::List(element), Value::Array(items)) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.path.push(Step::Index(at));
                    self.value(parent, element, item)?;
                    self.path.pop();
                    if item.is_null() {
                        *item = zero(element);
                    }
                }
                Ok(())
            }
            (Shape::Map(element), Value::Object(entries)) => {
                for (key, entry) in entries.iter_mut() {
                    self.path.push(Step::Field(key.clone()));
                    self.value(parent, element, entry)?;
                    self.path.pop();
                    if entry.is_null() {
                        *entry = zero(element);
                    }
                }
                Ok(())
            }
            (Shape::String, Value::String(_)) | (Shape::Bool, Value::Bool(_)) | (Shape::Any, _) => Ok(()),
            (Shape::Bytes, Value::String(text)) => {
                use base64::{Engine, engine::general_purpose::STANDARD};
                // The decoder upstream skips line breaks in base64.
                text.retain(|c| c != '\n' && c != '\r');
                STANDARD
                    .decode(text.as_bytes())
                    .map(drop)
                    .map_err(|error| base64_problem(&error))
            }
            (Shape::Int32, Value::Number(number)) => match number.as_i64().and_then(|wide| i32::try_from(wide).ok()) {
                Some(_) => Ok(()),
                None => Err(self.mismatch(parent, &format!("number {number}"), shape)),
            },
            (Shape::Int64, Value::Number(number)) => match number.as_i64() {
                Some(_) => Ok(()),
                None => Err(self.mismatch(parent, &format!("number {number}"), shape)),
            },
            (Shape::Double, Value::Number(_)) => Ok(()),
            (Shape::IntOrString, Value::String(_)) => Ok(()),
            (Shape::IntOrString, Value::Number(number)) => {
                match number.as_i64().and_then(|wide| i32::try_from(wide).ok()) {
                    Some(_) => Ok(()),
                    None => Err(format!(
                        "json: cannot unmarshal number {number} into Go value of type int32"
                    )),
                }
            }
            (Shape::Quantity, Value::String(_) | Value::Number(_)) => {
                let text = match &*value {
                    Value::String(text) => text.trim().to_owned(),
                    other => other.to_string(),
                };
                let quantity: Quantity = text
                    .parse()
                    .map_err(|error: crate::quantity::Malformed| error.to_string())?;
                *value = Value::String(quantity.to_string());
                Ok(())
            }
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                let time: Timestamp = text.parse().map_err(|_| {
                    format!(
                        "parsing time {:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {:?} as \"2006\"",
                        text, text
                    )
                })?;
                *text = if *shape == Shape::Time {
                    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
                } else {
                    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
                };
                Ok(())
            }
            (_, other) => {
                let found = json_name(other);
                Err(self.mismatch(parent, found, shape))
            }
        }
    }

    fn mismatch(&self, parent: &Type, found: &str, shape: &Shape) -> String {
        let fields: Vec<&str> = self
            .path
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                Step::Index(_) => None,
            })
            .collect();
        format!(
            "json: cannot unmarshal {found} into Go struct field {}.{} of type {}",
            parent.short_name(),
            fields.join("."),
            shape.go_name()
        )
    }

    fn path_with(&self, name: &str) -> String {
        let mut text = String::new();
        for step in &self.path {
            push_step(&mut text, step);
        }
        push_step(&mut text, &Step::Field(name.to_owned()));
        text
    }
}

fn push_step(text: &mut String, step: &Step) {
    match step {
        Step::Field(name) => {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        Step::Index(at) => text.push_str(&format!("[{at}]")),
    }
}

fn field_shape(field: &'static Field) -> &'static Shape {
    &field.shape
}

/// Empty lists and maps are not written by upstream's encoder, so they read back as absent.
fn is_empty(value: &Value, shape: &Shape) -> bool {
    match (shape, value) {
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

/// What a null stands for where it can't be left out.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Quantity => Value::String("0".to_owned()),
        Shape::IntOrString | Shape::Int32 | Shape::Int64 | Shape::Double => Value::from(0),
        Shape::Bool => Value::Bool(false),
        Shape::Time | Shape::MicroTime | Shape::Any => Value::Null,
    }
}

fn base64_problem(error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(at) => *at,
        base64::DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource;

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "lables": {}},
            "spec": {"containers": [{"name": "a", "image": "b", "foo": 1}], "bar": {"x": 1}},
        });

        let found = decode(&resource::PODS, &mut pod).unwrap();

        assert_eq!(
            found.problems,
            [
                r#"unknown field "metadata.lables""#,
                r#"unknown field "spec.bar""#,
                r#"unknown field "spec.containers[0].foo""#
            ]
        );
        assert_eq!(pod["spec"], json!({"containers": [{"name": "a", "image": "b"}]}));
        assert_eq!(
            found.refusal(&resource::PODS).unwrap().message,
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
             \"metadata.lables\", unknown field \"spec.bar\", unknown field \"spec.containers[0].foo\""
        );
    }

    #[test]
    fn a_wrong_type_is_refused_in_upstreams_words() {
        let mut deployment = json!({"spec": {"replicas": "three"}});
        let mut pod = json!({"spec": {"containers": [{"name": "a", "env": [{"name": "A", "value": 1}]}]}});
        let mut labels = json!({"metadata": {"labels": "a=b"}});

        let deployment = decode(&resource::DEPLOYMENTS, &mut deployment).unwrap_err();
        let pod = decode(&resource::PODS, &mut pod).unwrap_err();
        let labels = decode(&resource::PODS, &mut labels).unwrap_err();

        assert_eq!(
            deployment.message,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
             struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            pod.message,
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field \
             EnvVar.spec.containers.env.value of type string"
        );
        assert_eq!(
            labels.message,
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field \
             ObjectMeta.metadata.labels of type map[string]string"
        );
    }

    #[test]
    fn values_take_their_canonical_form() {
        let mut pod = json!({
            "metadata": {"creationTimestamp": null, "labels": {}, "deletionTimestamp": "2024-01-01T01:00:00+01:00"},
            "spec": {
                "containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}, "env": []}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "securityContext": {},
            },
        });

        decode(&resource::PODS, &mut pod).unwrap();

        assert_eq!(
            pod,
            json!({
                "metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {
                    "containers": [{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "securityContext": {},
                },
            })
        );
    }
}
