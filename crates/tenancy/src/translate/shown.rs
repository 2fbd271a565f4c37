//! The super cluster's public PriorityClasses, RuntimeClasses and definitions as tenants have them. Unlike Nodes and StorageClasses they are
//! written into each plane: a tenant has others of these kinds beside them.

use api::{Object, PlaneId, Resource, resource};
use serde_json::{Map, Value, json};

use crate::identity::{self, SHOWN, is_public};

/// The kinds that are shown by writing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Shown {
    PriorityClass,
    RuntimeClass,
    Definition,
}

impl Shown {
    pub const ALL: [Shown; 3] = [Shown::PriorityClass, Shown::RuntimeClass, Shown::Definition];

    pub fn resource(self) -> Resource {
        match self {
            Shown::PriorityClass => resource::PRIORITY_CLASSES,
            Shown::RuntimeClass => resource::RUNTIME_CLASSES,
            Shown::Definition => resource::CUSTOM_RESOURCE_DEFINITIONS,
        }
    }

    /// What the tenant's object should be; `None` if the tenant has none.
    pub fn up(self, plane: PlaneId, object: &Object) -> Option<Value> {
        // What every plane has of its own.
        if !is_public(object) || object.name().starts_with("system-") || object.is_deleting() {
            return None;
        }
        let resource = self.resource();
        let mut up = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": object.name(), "labels": {SHOWN: identity::shown(plane, object.uid())}},
        });
        for field in self.fields() {
            if !object.tree()[*field].is_null() {
                up[*field] = object.tree()[*field].clone();
            }
        }
        if self == Shown::Definition {
            // A webhook that converts is a Service below, which the tenant's plane can't and must not call.
            up["spec"]["conversion"] = json!({"strategy": "None"});
        }
        Some(up)
    }

    fn fields(self) -> &'static [&'static str] {
        match self {
            Shown::PriorityClass => &["description", "globalDefault", "preemptionPolicy", "value"],
            Shown::RuntimeClass => &["handler", "overhead", "scheduling"],
            Shown::Definition => &["spec"],
        }
    }

    /// A merge patch that makes the tenant's object follow; `None` if it does.
    pub fn drift(self, wanted: &Value, observed: &Object) -> Option<Value> {
        let mut patch = Map::new();
        for field in self.fields() {
            if !covers(&observed.tree()[*field], &wanted[*field]) {
                patch.insert((*field).to_owned(), wanted[*field].clone());
            }
        }
        let shown = &wanted["metadata"]["labels"][SHOWN];
        if observed.label(SHOWN) != shown.as_str() {
            patch.insert("metadata".to_owned(), json!({"labels": {SHOWN: shown}}));
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }
}

/// Whether all that is wanted is there; the server may have filled in more.
fn covers(observed: &Value, wanted: &Value) -> bool {
    match (observed, wanted) {
        (Value::Object(observed), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| value.is_null() || observed.get(key).is_some_and(|observed| covers(observed, value))),
        (Value::Array(observed), Value::Array(wanted)) => {
            observed.len() == wanted.len()
                && observed
                    .iter()
                    .zip(wanted)
                    .all(|(observed, wanted)| covers(observed, wanted))
        }
        // Absent and its zero value are the same to Kubernetes.
        (Value::Null, Value::Bool(false)) => true,
        _ => observed == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(labels: Value, name: &str) -> Object {
        Object::from_tree(
            json!({"metadata": {"name": name, "uid": "secret", "labels": labels}, "value": 10,
            "globalDefault": false, "description": "d"}),
        )
    }

    #[test]
    fn only_what_is_public_is_shown_and_nothing_that_planes_have_by_birth() {
        let plane = "a".repeat(16).parse().unwrap();
        let public = json!({identity::PUBLIC: "true"});

        assert_eq!(Shown::PriorityClass.up(plane, &class(json!({}), "high")), None);
        assert_eq!(
            Shown::PriorityClass.up(plane, &class(public.clone(), "system-node-critical")),
            None
        );
        let up = Shown::PriorityClass.up(plane, &class(public, "high")).unwrap();
        assert!(!up.to_string().contains("secret"));
        assert_eq!(Shown::PriorityClass.drift(&up, &Object::from_tree(up.clone())), None);
        let mut other = up.clone();
        other["description"] = "e".into();
        let patch = Shown::PriorityClass.drift(&up, &Object::from_tree(other)).unwrap();
        assert_eq!(patch, json!({"description": "d"}));
    }
}
