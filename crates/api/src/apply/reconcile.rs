//! Sets that were written before their type changed between owned as a whole and owned field by field.

use super::{
    element::Element,
    set::Set,
    shape::{Form, ListKind, Shape},
};

/// The set as the type has it now; `None` if nothing changes. What became a whole is owned as one by whoever owned
/// something of it.
pub fn reconcile(set: &Set, shape: Shape<'_>) -> Option<Set> {
    let mut wholes = Set::new();
    walk(set, false, shape, &mut Vec::new(), &mut wholes);
    (!wholes.is_empty()).then(|| set.clone().without(&wholes).union(wholes))
}

fn walk(set: &Set, is_leaf: bool, shape: Shape<'_>, path: &mut Vec<Element>, wholes: &mut Set) {
    match shape.fixed_form() {
        Some(Form::Map) => {
            if shape.is_open() {
                return;
            }
            if !is_leaf && shape.is_atomic_map() {
                if !set.is_empty() {
                    wholes.insert(path);
                }
                return;
            }
        }
        Some(Form::List) => {
            if !is_leaf && *shape.list() == ListKind::Atomic {
                wholes.insert(path);
                return;
            }
        }
        Some(Form::Scalar) | None => return,
    }
    for (element, node) in set.nodes() {
        let Some(inner) = shape.below(element) else { continue };
        path.push(element.clone());
        walk(&node.below, node.owned && node.below.is_empty(), inner, path, wholes);
        path.pop();
    }
}
