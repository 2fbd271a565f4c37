//! The Pod that a workload's template asks for.

use serde_json::{Map, Value, json};

/// What a Pod is called.
#[derive(Clone, Debug)]
pub enum Name {
    Exactly(String),
    /// The server completes it.
    BeginsWith(String),
}

/// A Pod of `template` that `owner` (an owner reference) controls.
pub fn pod(template: &Value, name: Name, owner: Value) -> Value {
    let mut metadata = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field).filter(|value| !value.is_null()) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    match name {
        Name::Exactly(name) => metadata.insert("name".to_owned(), json!(name)),
        Name::BeginsWith(prefix) => metadata.insert("generateName".to_owned(), json!(prefix)),
    };
    metadata.insert("ownerReferences".to_owned(), json!([owner]));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Sets one label, annotation or the like of what a controller makes.
pub fn set_metadata(object: &mut Value, map: &str, key: &str, value: &str) {
    let map = &mut object["metadata"][map];
    if !map.is_object() {
        *map = json!({});
    }
    map[key] = json!(value);
}

/// The list at `field`, made if there is none.
pub fn list<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let list = &mut object[field];
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut().expect("it was just made one")
}
