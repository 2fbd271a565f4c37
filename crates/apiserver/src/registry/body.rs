//! Reading an object from a request's body.

use api::{
    Reason, Status,
    decode::{self, Strictness},
    patch::PatchType,
};
use bytes::Bytes;
use http::{Request, header};
use serde_json::Value;

use super::{Kind, refusals::bad_request, schema};
use crate::{Body, query::FieldValidation};

/// An object read from outside and what is to be told of it.
pub struct Read {
    /// In the version that was asked for.
    pub tree: Value,
    pub warnings: Vec<String>,
}

pub async fn bytes(request: Request<Body>) -> Result<Bytes, Status> {
    crate::http::body::read(request.into_body()).await
}

/// The content type without its parameters.
pub fn content_type(request: &Request<Body>) -> String {
    let value = request.headers().get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// How a patch is meant; a clear refusal of what is not served.
pub fn patch_type(request: &Request<Body>, kind: &Kind) -> Result<PatchType, Status> {
    let content_type = content_type(request);
    let supported = match kind {
        Kind::BuiltIn(_) => {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml"
        }
        Kind::Custom(_) => "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    };
    let refuse = || {
        Status::new(
            Reason::UnsupportedMediaType,
            format!("the body of the request was in an unknown format - accepted media types include: {supported}"),
        )
    };
    match PatchType::of_content_type(&content_type) {
        Some(PatchType::Strategic) if kind.custom().is_some() => Err(refuse()),
        Some(patch) => Ok(patch),
        None => Err(refuse()),
    }
}

/// A JSON body as a tree. Empty bodies are for the caller to judge.
pub fn json(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

/// Reads an object of that kind from a body, and does with what is odd about it as the client wants.
pub fn object(kind: &Kind, bytes: &[u8], validation: FieldValidation) -> Result<Read, Status> {
    let tree = json(bytes)?;
    let twice = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => decode::duplicates(bytes, &tree),
    };
    let (tree, mut strictness) = decoded(kind, tree)?;
    add_duplicates(&mut strictness, twice);
    let warnings = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn => strictness.problems,
        FieldValidation::Strict => match strictness.refusal(kind.resource()) {
            Some(refusal) => return Err(refusal),
            None => Vec::new(),
        },
    };
    Ok(Read { tree, warnings })
}

/// A field that is not known at all is told once.
pub fn add_duplicates(strictness: &mut Strictness, twice: Vec<String>) {
    for problem in twice {
        let unknown = problem.replacen("duplicate", "unknown", 1);
        if !strictness.problems.contains(&unknown) {
            strictness.problems.push(problem);
        }
    }
}

/// An object of that kind, made out of a tree: names checked, unknown fields dropped, wrong types refused.
pub fn decoded(kind: &Kind, mut tree: Value) -> Result<(Value, Strictness), Status> {
    let resource = kind.resource();
    if !tree.is_object() {
        return Err(bad_request(format!(
            "the object provided is unrecognized (must be of type {}): it is not a JSON object",
            resource.kind
        )));
    }
    let api_version = resource.api_version();
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", &resource.kind)] {
        match tree[field].as_str() {
            None | Some("") => tree[field] = wanted.into(),
            Some(given) if given == wanted => {}
            Some(given) if field == "apiVersion" => {
                return Err(bad_request(format!(
                    "the API version in the data ({given}) does not match the expected API version ({wanted})"
                )));
            }
            Some(given) => {
                return Err(bad_request(format!(
                    "{given} in version {:?} cannot be handled as a {wanted}: no kind {given:?} is registered for it",
                    resource.version
                )));
            }
        }
    }
    if tree["metadata"].is_null() {
        tree["metadata"] = Value::Object(serde_json::Map::new());
    }
    if !tree["metadata"].is_object() {
        return Err(api::decode::cannot_be_handled(
            resource,
            &format!(
                "json: cannot unmarshal {} into Go struct field {}.metadata of type v1.ObjectMeta",
                if tree["metadata"].is_array() { "array" } else { "string" },
                resource.kind
            ),
        ));
    }
    let strictness = match kind {
        Kind::BuiltIn(_) => api::decode::decode(resource, &mut tree)?,
        Kind::Custom(custom) => schema::decode(custom, &mut tree)?,
    };
    Ok((tree, strictness))
}
