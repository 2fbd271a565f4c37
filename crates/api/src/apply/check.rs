//! Whether a value fits its type, so that it can be merged.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use super::{
    element::Element,
    shape::{Form, ListKind, Shape, go_plain},
};

/// What does not fit, with the way to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(Vec<(String, String)>);

impl Problems {
    pub fn of(message: impl Into<String>) -> Problems {
        Problems(vec![(String::new(), message.into())])
    }

    /// The same, seen from further up.
    pub(super) fn below(mut self, element: &Element) -> Problems {
        for (path, _) in &mut self.0 {
            path.insert_str(0, &element.to_string());
        }
        self
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .0
            .iter()
            .map(|(path, message)| match path.as_str() {
                "" => message.clone(),
                path => format!("{path}: {message}"),
            })
            .collect();
        match texts.as_slice() {
            [one] => f.write_str(one),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|text| write!(f, "\n  {text}"))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Refuses what has the wrong type, fields that are not described, and elements that are there twice.
pub fn check(shape: Shape<'_>, value: &Value) -> Result<(), Problems> {
    let mut found = Vec::new();
    walk(shape, value, &mut Vec::new(), &mut found);
    if found.is_empty() { Ok(()) } else { Err(Problems(found)) }
}

type Found = Vec<(String, String)>;

fn walk(shape: Shape<'_>, value: &Value, path: &mut Vec<Element>, found: &mut Found) {
    let tell = |message: String, path: &[Element], found: &mut Found| {
        found.push((super::element::path_text(path), message));
    };
    match (shape.form(value), value) {
        (_, Value::Null) => {}
        (Form::Map, Value::Object(fields)) => map(shape, fields, path, found),
        (Form::List, Value::Array(items)) => list(shape, items, path, found),
        (Form::Map, other) => tell(format!("expected map, got &{{{}}}", go_plain(other)), path, found),
        (Form::List, other) => tell(format!("expected list, got &{{{}}}", go_plain(other)), path, found),
        (Form::Scalar, value) => {
            if let Some(problem) = shape.scalar_problem(value) {
                tell(problem, path, found);
            }
        }
    }
}

fn map(shape: Shape<'_>, fields: &Map<String, Value>, path: &mut Vec<Element>, found: &mut Found) {
    for (name, value) in fields {
        path.push(Element::field(name));
        match shape.field(name).or_else(|| shape.others()) {
            Some(inner) => walk(inner, value, path, found),
            None => {
                let problem = "field not declared in schema".to_owned();
                found.push((super::element::path_text(path), problem));
                path.pop();
                // As upstream, one of a map is told.
                return;
            }
        }
        path.pop();
    }
}

fn list(shape: Shape<'_>, items: &[Value], path: &mut Vec<Element>, found: &mut Found) {
    let mut seen = BTreeSet::new();
    for (at, item) in (0_i64..).zip(items) {
        let element = if *shape.list() == ListKind::Atomic {
            Element::Index(at)
        } else {
            match shape.step(item) {
                Ok(element) => element,
                Err(problem) => {
                    found.push((super::element::path_text(path), format!("element {at}: {problem}")));
                    return;
                }
            }
        };
        if !seen.insert(element.clone()) {
            found.push((
                super::element::path_text(path),
                format!("duplicate entries for key {element}"),
            ));
        }
        path.push(element);
        walk(shape.element(), item, path, found);
        path.pop();
    }
}
