//! From kubectl's client-side apply: what it wrote and nobody changed since is no conflict for the same kubectl.

use serde_json::{Map, Value};

use super::{compare::compare, conflict::Conflict, fieldset::fields_of, set::Set, shape::Shape};

/// The name of kubectl's server-side apply, for which alone this is done.
pub const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Upstream's limit of all annotations of an object.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

fn last_applied(object: &Value) -> Option<&str> {
    let text = object["metadata"]["annotations"][ANNOTATION].as_str()?;
    (!text.is_empty()).then_some(text)
}

/// What the last client-side apply set and is still so; `None` if there was none, or in another version.
fn still_applied(shape: Shape<'_>, live: &Value) -> Option<Set> {
    let applied: Value = serde_json::from_str(last_applied(live)?).ok()?;
    if applied["apiVersion"] != live["apiVersion"] {
        return None;
    }
    let comparison = compare(shape, &applied, live).ok()?;
    Some(
        fields_of(shape, &applied)
            .difference(&comparison.modified)
            .difference(&comparison.added)
            .difference(&comparison.removed),
    )
}

/// The conflicts that stay.
pub fn unexplained(shape: Shape<'_>, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    let Some(allowed) = still_applied(shape, live) else {
        return conflicts;
    };
    conflicts
        .into_iter()
        .filter(|conflict| !allowed.contains(&conflict.path))
        .collect()
}

/// Keeps the annotation, if there is one, as client-side apply would have it.
pub fn keep_annotation(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut applied = config.clone();
    if let Some(annotations) = applied["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    if size(annotations) > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}

fn size(annotations: &Map<String, Value>) -> usize {
    let of = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    annotations.iter().map(of).sum()
}
