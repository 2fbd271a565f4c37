//! Custom objects and their schemas: what is kept, filled in and refused.

use api::{Status, decode::Strictness, status::Cause};
use serde_json::Value;

use crate::planes::CustomResource;

/// Drops what the schema does not know, naming it. `metadata` is decoded as for built-in kinds.
pub fn decode(custom: &CustomResource, tree: &mut Value) -> Result<Strictness, Status> {
    let _ = custom;
    let _ = tree;
    Ok(Strictness::default())
}

/// Fills in the schema's defaults.
pub fn default(custom: &CustomResource, tree: &mut Value) {
    let _ = (custom, tree);
}

/// What the schema refuses.
pub fn validate(custom: &CustomResource, tree: &Value) -> Vec<Cause> {
    let _ = (custom, tree);
    Vec::new()
}
