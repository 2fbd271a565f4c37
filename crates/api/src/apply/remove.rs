//! Taking fields out of an object.

use serde_json::Value;

use super::{
    element::Element,
    set::Set,
    shape::{Form, ListKind, Shape},
};

/// The object without these fields. Of what is owned as a whole nothing is taken out.
pub fn remove(shape: Shape<'_>, value: &Value, fields: &Set) -> Value {
    match (shape.form(value), value) {
        (Form::List, Value::Array(items)) => {
            if items.is_empty() || *shape.list() == ListKind::Atomic {
                return Value::Null;
            }
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match shape.step(item) {
                    Ok(step) if fields.owns(&step) => None,
                    Ok(step) => Some(below(shape.element(), item, fields, &step)),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        (Form::Map, Value::Object(entries)) => {
            if entries.is_empty() || shape.is_atomic_map() {
                return Value::Null;
            }
            let kept: serde_json::Map<String, Value> = entries
                .iter()
                .map(|(name, value)| (name, value, Element::field(name)))
                .filter(|(_, _, step)| !fields.owns(step))
                .map(|(name, value, step)| (name.clone(), below(shape.child(name), value, fields, &step)))
                .collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        (Form::Scalar, value) => value.clone(),
        _ => Value::Null,
    }
}

fn below(shape: Shape<'_>, value: &Value, fields: &Set, step: &Element) -> Value {
    match fields.below(step) {
        Some(fields) => remove(shape, value, fields),
        None => value.clone(),
    }
}
