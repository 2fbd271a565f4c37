//! Lists that are sets or maps have no element twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Schema;
use crate::{
    field::{self, Path},
    schema::ListKind,
    status::Cause,
};

pub fn check(schema: &Schema, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(schema) = schema.of_field(name) {
                    check(schema, field, &path.field(name), causes);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list {
                ListKind::Atomic => {}
                ListKind::Set => repeated(items, path, causes),
                ListKind::Map(keys) => {
                    if let Some(at) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
                        let detail = "must be an object for an array of list-type map";
                        causes.push(field::invalid(&path.index(at), items[at].clone(), detail));
                    } else {
                        let keys: Vec<Value> = items.iter().map(|item| key_of(item, keys)).collect();
                        repeated(&keys, path, causes);
                    }
                }
            }
            if let Some(schema) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    check(schema, item, &path.index(at), causes);
                }
            }
        }
        _ => {}
    }
}

fn key_of(item: &Value, keys: &[Box<str>]) -> Value {
    let entries = keys
        .iter()
        .filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
    Value::Object(entries.collect::<Map<String, Value>>())
}

/// Says once of each value that it comes again, at its second place.
fn repeated(items: &[Value], path: &Path, causes: &mut Vec<Cause>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            causes.push(field::duplicate(&path.index(at), item.clone()));
        }
    }
}
