//! Embedded resources are objects with a kind of their own.

use serde_json::Value;

use super::Schema;
use crate::{
    field::{self, Path},
    status::Cause,
};

pub fn check_embedded(schema: &Schema, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                for name in ["apiVersion", "kind"] {
                    if value[name].as_str().unwrap_or("").is_empty() {
                        causes.push(field::required(&path.field(name), "must not be empty"));
                    }
                }
                if !(value["metadata"].is_object() || value["metadata"].is_null()) {
                    let detail = "must be an object";
                    causes.push(field::invalid(
                        &path.field("metadata"),
                        value["metadata"].clone(),
                        detail,
                    ));
                }
            }
            for (name, field) in fields {
                if let Some(schema) = schema.of_field(name) {
                    check_embedded(schema, field, &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    check_embedded(schema, item, &path.index(at), causes);
                }
            }
        }
        _ => {}
    }
}
