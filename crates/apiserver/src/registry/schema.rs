//! Custom objects and their schemas: what is kept, filled in and refused.

use std::sync::LazyLock;

use api::{Status, decode::Strictness, schema::Type, status::Cause};
use serde_json::{Map, Value};

use crate::planes::CustomResource;

static OBJECT_META: LazyLock<Option<&'static Type>> =
    LazyLock::new(|| api::schema::of_definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));

/// Drops what the schema does not know, naming it. `metadata` is decoded as that of built-in kinds.
pub fn decode(custom: &CustomResource, tree: &mut Value) -> Result<Strictness, Status> {
    let mut strictness = Strictness::default();
    if let Some(schema) = *OBJECT_META {
        let decoded = api::decode::decode_type(schema, &mut tree["metadata"])
            .map_err(|problem| api::decode::cannot_be_handled(&custom.info.resource, &problem))?;
        let problems = decoded.problems.into_iter();
        strictness
            .problems
            .extend(problems.map(|problem| problem.replacen("field \"", "field \"metadata.", 1)));
    }
    strictness.problems.extend(custom.compiled.prune(tree));
    custom.compiled.drop_nulls(tree);
    Ok(strictness)
}

/// Fills in the schema's defaults.
pub fn default(custom: &CustomResource, tree: &mut Value) {
    custom.compiled.apply_defaults(tree);
    if !tree["metadata"].is_object() {
        tree["metadata"] = Value::Object(Map::new());
    }
}

/// What the schema refuses.
pub fn validate(custom: &CustomResource, tree: &Value) -> Vec<Cause> {
    custom.compiled.validate(tree)
}
