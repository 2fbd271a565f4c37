//! The three patches of a document: JSON patch, JSON merge patch, and strategic merge patch.
//!
//! Each returns the patched tree; decoding, defaulting and validation are the caller's next steps.

mod strategic;

use serde_json::Value;

use crate::status::{Reason, Status};

pub use strategic::{strategic, strategic_type};

/// Upstream's cap on the operations of one JSON patch.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// How a patch body is to be read, by its content type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// Reads a content type without its parameters.
    pub fn of_content_type(content_type: &str) -> Option<PatchType> {
        match content_type {
            "application/json-patch+json" => Some(PatchType::Json),
            "application/merge-patch+json" => Some(PatchType::Merge),
            "application/strategic-merge-patch+json" => Some(PatchType::Strategic),
            "application/apply-patch+yaml" => Some(PatchType::Apply),
            _ => None,
        }
    }
}

/// Applies a JSON patch (RFC 6902).
pub fn json(original: &Value, patch: &[u8]) -> Result<Value, Status> {
    let operations: Vec<Value> = serde_json::from_slice(patch)
        .map_err(|error| Status::new(Reason::BadRequest, format!("error decoding patch: {error}")))?;
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!(
                "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
                operations.len()
            ),
        ));
    }
    let operations: json_patch::Patch = serde_json::from_value(Value::Array(operations))
        .map_err(|error| Status::new(Reason::BadRequest, format!("error decoding patch: {error}")))?;
    let mut patched = original.clone();
    json_patch::patch(&mut patched, &operations).map_err(|error| {
        Status::new(
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {error}"),
        )
    })?;
    Ok(patched)
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge(original: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::new(Reason::BadRequest, "invalid JSON document"));
    }
    let mut patched = original.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_is_all_or_nothing() {
        let original = json!({"a": {"b": 1}, "c": [1, 2]});

        let patched = json(
            &original,
            br#"[{"op":"add","path":"/c/-","value":3},{"op":"remove","path":"/a/b"}]"#,
        );
        let refused = json(
            &original,
            br#"[{"op":"remove","path":"/c/0"},{"op":"test","path":"/a/b","value":2}]"#,
        );
        let malformed = json(&original, br#"{"op":"remove"}"#);

        assert_eq!(patched.unwrap(), json!({"a": {}, "c": [1, 2, 3]}));
        assert_eq!(refused.unwrap_err().code(), 422);
        assert_eq!(malformed.unwrap_err().code(), 400);
    }

    #[test]
    fn a_json_patch_has_a_limit() {
        let body = |count| serde_json::to_vec(&vec![json!({"op": "test", "path": "", "value": {}}); count]).unwrap();

        assert!(json(&json!({}), &body(JSON_PATCH_OPERATIONS_MAX)).is_ok());
        assert_eq!(
            json(&json!({}), &body(JSON_PATCH_OPERATIONS_MAX + 1))
                .unwrap_err()
                .code(),
            413
        );
    }

    #[test]
    fn a_merge_patch_replaces_lists_and_removes_nulls() {
        let patched = merge(
            &json!({"a": [1], "b": {"c": 1}}),
            &json!({"a": [2], "b": {"c": null, "d": {"e": null}}}),
        );

        assert_eq!(patched.unwrap(), json!({"a": [2], "b": {"d": {}}}));
    }
}
