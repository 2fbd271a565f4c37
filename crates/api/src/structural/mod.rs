//! Structural schemas: what custom resource definitions say of their objects.
//!
//! A definition is checked by [`check_definition`] when it is written; its schema is compiled once ([`Schema`]) and
//! then prunes, defaults and validates objects. Rules in CEL (`x-kubernetes-validations`) are accepted in
//! definitions and **not evaluated yet**: an object that only such a rule would refuse is accepted.

mod definition;
mod formats;
mod lists;
mod merging;
mod normalize;
mod rules;
mod shape;
mod skeleton;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{schema::ListKind, status::Cause};

pub use definition::check_definition;
pub use merging::Others;

/// A compiled schema.
#[derive(Debug, Default)]
pub struct Schema {
    kind: Option<Kind>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown: bool,
    embedded: bool,
    properties: BTreeMap<String, Schema>,
    additional: Additional,
    items: Option<Box<Schema>>,
    default: Option<Value>,
    list: ListKind,
    atomic_map: bool,
    rules: Rules,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    fn parse(name: &str) -> Option<Kind> {
        Some(match name {
            "object" => Kind::Object,
            "array" => Kind::Array,
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
        }
    }
}

/// What properties that are not named may be.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    Absent,
    Anything,
    Nothing,
    Of(Box<Schema>),
}

/// Constraints of values.
#[derive(Debug, Default)]
struct Rules {
    required: Vec<String>,
    allowed: Vec<Value>,
    pattern: Option<regex::Regex>,
    format: String,
    minimum: Option<serde_json::Number>,
    maximum: Option<serde_json::Number>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<serde_json::Number>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

/// Memory that one compiled pattern may take; patterns come from tenants.
const PATTERN_BYTES_MAX: usize = 1 << 20;

fn compile_pattern(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build()
}

impl Schema {
    /// Compiles `openAPIV3Schema`; null (no schema) keeps everything. What [`check_definition`] would have refused
    /// is left out.
    pub fn compile(schema: &Value) -> Schema {
        if schema.is_null() {
            return Schema::open();
        }
        let flag = |name: &str| schema[name] == true;
        let text = |name: &str| schema[name].as_str().unwrap_or("");
        let count = |name: &str| schema[name].as_u64();
        let number = |name: &str| schema[name].as_number().cloned();
        let all = |name: &str| {
            schema[name]
                .as_array()
                .into_iter()
                .flatten()
                .map(Schema::compile)
                .collect()
        };
        let texts = |name: &str| -> Vec<String> {
            let items = schema[name].as_array().into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let properties = schema["properties"].as_object().into_iter().flatten();
        Schema {
            kind: Kind::parse(text("type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties: properties
                .map(|(name, property)| (name.clone(), Schema::compile(property)))
                .collect(),
            additional: match &schema["additionalProperties"] {
                Value::Bool(true) => Additional::Anything,
                Value::Bool(false) => Additional::Nothing,
                properties @ Value::Object(_) => Additional::Of(Box::new(Schema::compile(properties))),
                _ => Additional::Absent,
            },
            items: schema["items"]
                .is_object()
                .then(|| Box::new(Schema::compile(&schema["items"]))),
            default: schema.get("default").cloned(),
            list: match text("x-kubernetes-list-type") {
                "set" => ListKind::Set,
                "map" => ListKind::Map(
                    texts("x-kubernetes-list-map-keys")
                        .into_iter()
                        .map(String::into_boxed_str)
                        .collect(),
                ),
                _ => ListKind::Atomic,
            },
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            rules: Rules {
                required: texts("required"),
                allowed: schema["enum"].as_array().cloned().unwrap_or_default(),
                pattern: schema["pattern"]
                    .as_str()
                    .and_then(|pattern| compile_pattern(pattern).ok()),
                format: text("format").to_owned(),
                minimum: number("minimum"),
                maximum: number("maximum"),
                exclusive_minimum: flag("exclusiveMinimum"),
                exclusive_maximum: flag("exclusiveMaximum"),
                multiple_of: number("multipleOf"),
                min_length: count("minLength"),
                max_length: count("maxLength"),
                min_items: count("minItems"),
                max_items: count("maxItems"),
                min_properties: count("minProperties"),
                max_properties: count("maxProperties"),
                all_of: all("allOf"),
                any_of: all("anyOf"),
                one_of: all("oneOf"),
                not: schema["not"]
                    .is_object()
                    .then(|| Box::new(Schema::compile(&schema["not"]))),
            },
        }
    }

    /// One that keeps and accepts everything (`preserveUnknownFields`).
    pub fn open() -> Schema {
        Schema {
            preserve_unknown: true,
            ..Schema::default()
        }
    }

    /// Makes an object fit the schema in place, as every read from a request and from storage is: fields that are
    /// not described go, nulls that may not be go, defaults come. Says which fields went, as
    /// `unknown field "spec.foo"`.
    pub fn normalize(&self, object: &mut Value) -> Vec<String> {
        let unknown = self.prune(object);
        self.drop_nulls(object);
        self.apply_defaults(object);
        unknown
    }

    /// Whether there is anything to fill in.
    pub fn has_defaults(&self) -> bool {
        let additional = match &self.additional {
            Additional::Of(schema) => Some(&**schema),
            _ => None,
        };
        let inner = self.properties.values().chain(self.items.as_deref()).chain(additional);
        self.default.is_some() || inner.into_iter().any(Schema::has_defaults)
    }

    /// What is wrong with an object that has been normalized. `metadata` is checked elsewhere.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = rules::check(self, object);
        lists::check(self, object, &crate::field::Path::ROOT, &mut causes);
        shape::check_embedded(self, object, &crate::field::Path::ROOT, &mut causes);
        causes
    }
}

#[cfg(test)]
mod tests;
