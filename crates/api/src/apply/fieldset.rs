//! The fields that a value speaks of.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    element::Element,
    set::Set,
    shape::{Form, ListKind, Shape},
};

/// All leaves and elements of a value. What can't be told apart is left out; [`super::check`] refuses it.
pub fn fields_of(shape: Shape<'_>, value: &Value) -> Set {
    walk(shape, value).1
}

/// Whether the value itself is owned, and what below it.
fn walk(shape: Shape<'_>, value: &Value) -> (bool, Set) {
    let mut set = Set::new();
    match (shape.form(value), value) {
        (Form::Scalar, _) => return (true, set),
        (Form::Map, _) if shape.is_atomic_map() => return (true, set),
        (Form::List, _) if *shape.list() == ListKind::Atomic => return (true, set),
        (Form::Map, Value::Object(fields)) => {
            for (name, value) in fields {
                let declared = shape.field(name);
                let (owned, below) = walk(declared.unwrap_or_else(|| shape.child(name)), value);
                let empty = value.is_null() || value.as_object().is_some_and(|fields| fields.is_empty());
                set.attach(Element::field(name), owned || empty || declared.is_none(), below);
            }
        }
        (Form::List, Value::Array(items)) => {
            let steps: Vec<Option<Element>> = items.iter().map(|item| shape.step(item).ok()).collect();
            let mut count: BTreeMap<&Element, usize> = BTreeMap::new();
            for step in steps.iter().flatten() {
                *count.entry(step).or_default() += 1;
            }
            for (step, item) in steps.iter().zip(items) {
                let Some(step) = step else { continue };
                // An element that is there twice is owned as a whole.
                let below = match count.get(step) {
                    Some(1) => walk(shape.element(), item).1,
                    _ => Set::new(),
                };
                set.attach(step.clone(), true, below);
            }
        }
        _ => {}
    }
    (false, set)
}

/// The set, and the structures' fields on the way to its members.
pub fn with_named_fields(set: &Set, shape: Option<Shape<'_>>) -> Set {
    let mut out = Set::new();
    for (element, node) in set.nodes() {
        let named = match (element, shape) {
            (Element::Field(name), Some(shape)) => !node.below.is_empty() && shape.field(name).is_some(),
            _ => false,
        };
        let inner = shape.and_then(|shape| shape.below(element));
        out.attach(
            element.clone(),
            node.owned || named,
            with_named_fields(&node.below, inner),
        );
    }
    out
}
