//! Putting an applied configuration over an object: what it speaks of changes, all else stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{
    check::Problems,
    element::Element,
    shape::{Form, ListKind, Shape},
};

/// The object with all that the configuration says.
pub fn merge(shape: Shape<'_>, live: &Value, config: &Value) -> Result<Value, Problems> {
    Ok(walk(shape, Some(live), Some(config))?.unwrap_or(Value::Null))
}

/// `None` if nothing is left.
fn walk(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, Problems> {
    // If they are of different forms, the configuration's counts.
    let Some(form) = config.or(live).map(|value| shape.form(value)) else {
        return Ok(None);
    };
    let whole = || Ok(config.or(live).cloned());
    match form {
        Form::Scalar => whole(),
        Form::Map => {
            let (left, right) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            let empty = |fields: Option<&Map<String, Value>>| fields.is_none_or(Map::is_empty);
            if shape.is_atomic_map() || (empty(left) && empty(right)) {
                return whole();
            }
            maps(shape, left, right)
        }
        Form::List => {
            let (left, right) = (live.and_then(Value::as_array), config.and_then(Value::as_array));
            let empty = |items: Option<&Vec<Value>>| items.is_none_or(Vec::is_empty);
            if *shape.list() == ListKind::Atomic || (empty(left) && empty(right)) {
                return whole();
            }
            lists(
                shape,
                left.map(Vec::as_slice).unwrap_or_default(),
                right.map(Vec::as_slice).unwrap_or_default(),
            )
        }
    }
}

fn maps(
    shape: Shape<'_>,
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
) -> Result<Option<Value>, Problems> {
    let names: BTreeSet<&String> = live.into_iter().chain(config).flat_map(Map::keys).collect();
    let mut out = Map::new();
    for name in names {
        let (left, right) = (
            live.and_then(|fields| fields.get(name)),
            config.and_then(|fields| fields.get(name)),
        );
        let merged = walk(shape.child(name), left, right).map_err(|problems| problems.below(&Element::field(name)))?;
        if let Some(merged) = merged {
            out.insert(name.clone(), merged);
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

fn steps(shape: Shape<'_>, items: &[Value]) -> Result<Vec<Element>, Problems> {
    let step = |(at, item): (usize, &Value)| {
        shape
            .step(item)
            .map_err(|problem| Problems::of(format!("element {at}: {problem}")))
    };
    items.iter().enumerate().map(step).collect()
}

/// Elements in the order of the configuration, those it does not have where they were between them.
fn lists(shape: Shape<'_>, live: &[Value], config: &[Value]) -> Result<Option<Value>, Problems> {
    let (left, right) = (steps(shape, live)?, steps(shape, config)?);
    let mut configured: BTreeMap<&Element, &Value> = BTreeMap::new();
    for (step, item) in right.iter().zip(config) {
        if configured.insert(step, item).is_some() {
            return Err(Problems::of(format!("duplicate entries for key {step}")));
        }
    }
    // What is there twice is not merged with: the configuration replaces both.
    let mut present: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (step, item) in left.iter().zip(live) {
        present
            .entry(step)
            .and_modify(|found| *found = None)
            .or_insert(Some(item));
    }
    let mut shared: VecDeque<&Element> = right.iter().filter(|step| present.contains_key(step)).collect();
    let mut next = shared.pop_front();
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let mut add = |step: &Element, live: Option<&Value>, config: Option<&Value>| -> Result<(), Problems> {
        out.extend(walk(shape.element(), live, config).map_err(|problems| problems.below(step))?);
        Ok(())
    };
    let both = |step: &Element| (present.get(step).copied().flatten(), configured.get(step).copied());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let (Some(step), Some(wanted)) = (left.get(l), right.get(r)) {
            if step == wanted {
                merged.insert(step);
                let (live, config) = both(step);
                add(step, live, config)?;
                l += 1;
                r += 1;
                next = shared.pop_front();
                continue;
            }
            if configured.contains_key(step) && next.is_some_and(|next| next != step) {
                // It is in both, but not its turn.
                l += 1;
                continue;
            }
        }
        if let Some(step) = left.get(l) {
            if !configured.contains_key(step) {
                add(step, Some(&live[l]), None)?;
                l += 1;
                continue;
            }
            if merged.contains(step) {
                l += 1;
            }
        }
        if let Some(step) = right.get(r) {
            merged.insert(step);
            let (live, config) = both(step);
            add(step, live, config)?;
            r += 1;
            if next == Some(step) {
                next = shared.pop_front();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}
