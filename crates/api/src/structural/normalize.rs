//! Pruning and defaulting: an object made to fit its schema.

use serde_json::{Map, Value};

use super::{Additional, Schema};

/// What every object has, whatever its schema says.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Drops what the schema does not describe. Says which fields went.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut pruner = Pruner {
            dropped: Vec::new(),
            path: Vec::new(),
        };
        if let Value::Object(fields) = object {
            pruner.object(fields, Some(self), true);
        }
        let mut dropped: Vec<String> = pruner
            .dropped
            .iter()
            .map(|path| format!("unknown field {path:?}"))
            .collect();
        dropped.sort();
        dropped
    }

    /// Drops nulls that the schema does not allow, where no default takes their place.
    pub fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, field| {
                    let Some(schema) = self.of_field(name) else { return true };
                    !field.is_null() || schema.nullable || schema.default.is_some() || schema.keeps_nulls()
                });
                for (name, field) in fields {
                    if let Some(schema) = self.of_field(name) {
                        schema.drop_nulls(field);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.drop_nulls(item));
                }
            }
            _ => {}
        }
    }

    /// A value of which nothing is known may be null.
    fn keeps_nulls(&self) -> bool {
        self.kind.is_none() && !self.int_or_string
    }

    /// Fills in what is absent and has a default.
    pub fn apply_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let Some(default) = &schema.default else { continue };
                    match fields.get(name) {
                        None => {
                            fields.insert(name.clone(), default.clone());
                        }
                        Some(Value::Null) if !schema.nullable => {
                            fields.insert(name.clone(), default.clone());
                        }
                        Some(_) => {}
                    }
                }
                for (name, field) in fields {
                    if let Some(schema) = self.of_field(name) {
                        schema.apply_default_of_null(field);
                        schema.apply_defaults(field);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for item in items {
                        schema.apply_default_of_null(item);
                        schema.apply_defaults(item);
                    }
                }
            }
            _ => {}
        }
    }

    fn apply_default_of_null(&self, value: &mut Value) {
        if value.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *value = default.clone();
        }
    }

    /// The schema of one field of an object.
    pub(super) fn of_field(&self, name: &str) -> Option<&Schema> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Additional::Of(schema)) => Some(schema),
            (None, _) => None,
        }
    }
}

enum Step {
    Field(String),
    Index(usize),
}

struct Pruner {
    dropped: Vec<String>,
    path: Vec<Step>,
}

impl Pruner {
    /// Without a schema nothing is kept, since nothing is described.
    fn value(&mut self, value: &mut Value, schema: Option<&Schema>) {
        match value {
            Value::Object(fields) => self.object(fields, schema, false),
            Value::Array(items) => {
                let schema = schema.and_then(|schema| match &schema.items {
                    Some(items) => Some(&**items),
                    // Where unknown fields are kept, elements of which nothing is said are too.
                    None => schema.preserve_unknown.then_some(schema),
                });
                for (at, item) in items.iter_mut().enumerate() {
                    self.path.push(Step::Index(at));
                    self.value(item, schema);
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, fields: &mut Map<String, Value>, schema: Option<&Schema>, root: bool) {
        let names: Vec<String> = fields.keys().cloned().collect();
        for name in names {
            let is_meta = META_FIELDS.contains(&name.as_str());
            if is_meta && (root || schema.is_some_and(|schema| schema.embedded)) {
                continue;
            }
            let inner = match schema {
                None => Inner::Unknown,
                Some(schema) => match (schema.properties.get(&name), &schema.additional) {
                    (Some(inner), _) => Inner::Described(inner),
                    (None, Additional::Of(inner)) => Inner::Described(inner),
                    (None, Additional::Anything) => Inner::Kept,
                    (None, _) if schema.preserve_unknown => Inner::Kept,
                    (None, _) => Inner::Unknown,
                },
            };
            self.path.push(Step::Field(name.clone()));
            match inner {
                Inner::Described(schema) => {
                    if let Some(field) = fields.get_mut(&name) {
                        self.value(field, Some(schema));
                    }
                }
                Inner::Kept => {}
                Inner::Unknown => {
                    let path = self.shown();
                    self.dropped.push(path);
                    fields.remove(&name);
                }
            }
            self.path.pop();
        }
    }

    fn shown(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
                Step::Index(at) => text.push_str(&format!("[{at}]")),
            }
        }
        text
    }
}

enum Inner<'a> {
    Described(&'a Schema),
    Kept,
    Unknown,
}
