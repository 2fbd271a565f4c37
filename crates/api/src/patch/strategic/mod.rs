//! Strategic merge patch: a merge patch whose lists merge by the keys that the schema names.
//!
//! Directives: `$patch: delete|replace|merge`, `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`.

mod order;

use serde_json::{Map, Value};

use order::{check_order, in_order};

use crate::{
    Resource,
    schema::{self, Field, Shape, Type},
    status::{Reason, Status},
};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Tree = Map<String, Value>;

/// Applies a strategic merge patch to an object of a built-in kind. Custom resources have none (415).
pub fn strategic(resource: &Resource, original: &Value, patch: &Value) -> Result<Value, Status> {
    let kind = schema::of_kind(&resource.group, &resource.version, &resource.kind).ok_or_else(|| {
        Status::new(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )
    })?;
    strategic_type(kind, original, patch)
}

/// As [`strategic`], for a structure that is no resource of its own, such as `Scale`.
pub fn strategic_type(kind: &'static Type, original: &Value, patch: &Value) -> Result<Value, Status> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(Refused::Malformed("invalid JSON document".to_owned()).into());
    };
    let merged = merge_maps(original.clone(), patch.clone(), Some(kind))?;
    Ok(Value::Object(merged))
}

/// Why a patch was not applied: its form is wrong, or it doesn't fit the object.
#[derive(Debug)]
enum Refused {
    Malformed(String),
    Unprocessable(String),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        match refused {
            Refused::Malformed(message) => Status::new(Reason::BadRequest, message),
            Refused::Unprocessable(message) => Status::new(Reason::Invalid, message),
        }
    }
}

fn malformed(what: &str) -> Refused {
    Refused::Malformed(format!("invalid patch format of {what}"))
}

/// What the schema says of one field; without a schema maps merge and lists are replaced.
struct Meaning {
    inner: Option<&'static Type>,
    merge: bool,
    replace: bool,
    key: &'static str,
}

impl Meaning {
    fn of(kind: Option<&'static Type>, name: &str) -> Meaning {
        match kind.and_then(|kind| kind.field(name)) {
            Some(field) => Meaning {
                inner: inner(field),
                merge: field.patch.merge,
                replace: field.patch.replace,
                key: &field.merge_key,
            },
            None => Meaning {
                inner: None,
                merge: false,
                replace: false,
                key: "",
            },
        }
    }
}

fn inner(field: &'static Field) -> Option<&'static Type> {
    let mut shape = &field.shape;
    if let Shape::List(element) = shape {
        shape = element;
    }
    match shape {
        Shape::Struct(id) => Some(id.get()),
        _ => None,
    }
}

fn merge_maps(mut original: Tree, mut patch: Tree, kind: Option<&'static Type>) -> Result<Tree, Refused> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Tree::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, kind)?;
    for (name, value) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM_LIST) {
            Some(list) => (list.to_owned(), true),
            None => (name, false),
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let Some(present) = original.get_mut(&name) else {
            if let Some(value) = without_directives(value).filter(|_| !deletes) {
                original.insert(name, value);
            }
            continue;
        };
        let meaning = Meaning::of(kind, &name);
        match (present.take(), value) {
            (Value::Object(old), Value::Object(new)) => {
                let merged = if meaning.replace {
                    new
                } else {
                    merge_maps(old, new, meaning.inner)?
                };
                *present = Value::Object(merged);
            }
            (Value::Array(old), Value::Array(new)) => {
                let merged = if meaning.merge || deletes {
                    merge_lists(old, new, &meaning, deletes)?
                } else {
                    new
                };
                *present = Value::Array(merged);
            }
            (old, _) if deletes => *present = old,
            (_, new) => match without_directives(new) {
                Some(new) => *present = new,
                None => {
                    original.remove(&name);
                }
            },
        }
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Tree) -> Refused {
    let shown = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    Refused::Unprocessable(format!(
        "unknown patch type: {shown} in map: {}",
        Value::Object(patch.clone())
    ))
}

/// `$retainKeys` names all fields that may stay: what is not listed goes.
fn retain_keys(original: &mut Tree, patch: &mut Tree) -> Result<(), Refused> {
    let Some(list) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(list) = list else {
        return Err(malformed("retainKeys"));
    };
    let listed = |name: &str| list.iter().any(|kept| kept == name);
    let set = patch.iter().filter(|(name, value)| {
        !value.is_null() && !name.starts_with(DELETE_FROM_LIST) && !name.starts_with(SET_ELEMENT_ORDER)
    });
    for (name, _) in set {
        if !listed(name) {
            return Err(malformed("retainKeys"));
        }
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// Merges the lists that come with an order, and takes both from the patch.
fn merge_ordered_lists(original: &mut Tree, patch: &mut Tree, kind: Option<&'static Type>) -> Result<(), Refused> {
    let ordered: Vec<String> = patch
        .keys()
        .filter_map(|name| name.strip_prefix(SET_ELEMENT_ORDER))
        .map(str::to_owned)
        .collect();
    for name in ordered {
        let Some(Value::Array(order)) = patch.remove(&format!("{SET_ELEMENT_ORDER}{name}")) else {
            return Err(malformed("setElementOrder list"));
        };
        let meaning = Meaning::of(kind, &name);
        let new = match patch.get(&name) {
            None | Some(Value::Null) => None,
            Some(Value::Array(new)) => Some(new.clone()),
            Some(_) => return Err(malformed("setElementOrder list")),
        };
        if let Some(new) = &new {
            check_order(new, &order, meaning.key)?;
        }
        let old = match original.get(&name) {
            None => None,
            Some(Value::Array(old)) => Some(old.clone()),
            Some(_) => return Err(malformed("setElementOrder list")),
        };
        let removed = patch.get(&name).is_some_and(Value::is_null);
        if removed {
            continue;
        }
        let merged = match (old.clone(), new) {
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if meaning.merge => merge_lists(old, new, &meaning, false)?,
            (Some(_), Some(new)) => new,
            (None, None) => continue,
        };
        patch.remove(&name);
        let server_order = old.unwrap_or_default();
        original.insert(name, Value::Array(in_order(merged, &order, &server_order, meaning.key)));
    }
    Ok(())
}

fn merge_lists(old: Vec<Value>, new: Vec<Value>, meaning: &Meaning, deletes: bool) -> Result<Vec<Value>, Refused> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    if old.iter().chain(&new).any(Value::is_array) {
        return Err(Refused::Unprocessable("lists of lists are not supported".to_owned()));
    }
    let maps = old.iter().chain(&new).any(Value::is_object);
    if maps && !old.iter().chain(&new).all(Value::is_object) {
        return Err(Refused::Unprocessable(
            "list element types are not identical".to_owned(),
        ));
    }
    if !maps {
        if deletes {
            return Ok(old.into_iter().filter(|item| !new.contains(item)).collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
        for item in old.iter().chain(&new) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(in_order(merged, &new, &old, ""));
    }
    let key = meaning.key;
    if key.is_empty() {
        let name = meaning.inner.map_or("list", |kind| kind.short_name());
        return Err(Refused::Unprocessable(format!(
            "cannot merge lists without merge key for {name}"
        )));
    }
    let (old, new) = apply_list_directives(old, new, key)?;
    let mut merged = old.clone();
    for item in &new {
        let value = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
        match merged.iter_mut().find(|candidate| candidate.get(key) == Some(value)) {
            Some(found) => {
                if let (Value::Object(found_map), Value::Object(item)) = (found.take(), item.clone()) {
                    *found = Value::Object(merge_maps(found_map, item, meaning.inner)?);
                }
            }
            None => merged.extend(without_directives(item.clone())),
        }
    }
    Ok(in_order(merged, &new, &old, key))
}

fn no_merge_key(item: &Value, key: &str) -> Refused {
    Refused::Unprocessable(format!("map: {item} does not contain declared merge key: {key}"))
}

/// Carries out `$patch` elements of a list and takes them out of the patch.
fn apply_list_directives(mut old: Vec<Value>, new: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Refused> {
    let mut rest = Vec::with_capacity(new.len());
    let mut replaces = false;
    for item in new {
        match item
            .get(DIRECTIVE)
            .map(|directive| directive.as_str().unwrap_or_default())
        {
            None => rest.push(item),
            Some("delete") => {
                let value = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                old.retain(|candidate| candidate.get(key) != Some(value));
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                return Err(Refused::Unprocessable(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => {
                return Err(Refused::Unprocessable(format!(
                    "unknown patch type: {other} in map: {item}"
                )));
            }
        }
    }
    Ok(if replaces { (rest, Vec::new()) } else { (old, rest) })
}

/// What is set and was absent before: nulls mean nothing there, and what carries a directive is not data.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => return None,
        Value::Object(fields) => {
            let is_directive = |name: &str| {
                name == RETAIN_KEYS || name.starts_with(SET_ELEMENT_ORDER) || name.starts_with(DELETE_FROM_LIST)
            };
            let kept = fields
                .into_iter()
                .filter(|(name, value)| !value.is_null() && !is_directive(name))
                .filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().filter_map(without_directives).collect()),
        other => other,
    })
}

#[cfg(test)]
mod tests;
