//! What a value is to server-side apply: a leaf, a map whose fields are owned one by one, or a list whose elements
//! are told apart by keys or by themselves. One view over built-in kinds and schemas of definitions.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element::{Element, Scalar};
use crate::{
    schema::{self, Field, MapKind, Type},
    structural::{self, Others},
};

pub use crate::schema::ListKind;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a>(Inner<'a>);

#[derive(Clone, Copy, Debug)]
enum Inner<'a> {
    /// A structure of a built-in kind.
    Struct(&'a Type, MapKind),
    /// Another value of one, and, if it is a field's own, what is marked there.
    BuiltIn(&'a schema::Shape, Option<&'a Field>),
    Custom(&'a structural::Schema, Custom),
    /// Anything: maps by their fields, all else as a whole.
    Deduced,
    /// Anything, as a whole.
    Whole,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Custom {
    /// A whole object, or one embedded in another: it has `metadata`.
    object: bool,
    /// Fields that are not described are kept, here or further up.
    preserves: bool,
}

/// How a value is gone through. What may be several things is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Map,
    List,
    Scalar,
}

impl<'a> Shape<'a> {
    pub fn of_type(kind: &'a Type) -> Shape<'a> {
        Shape(Inner::Struct(kind, MapKind::Unmarked))
    }

    /// Of the objects of a definition.
    pub fn of_schema(schema: &'a structural::Schema) -> Shape<'a> {
        let custom = Custom {
            object: true,
            preserves: schema.preserves_unknown(),
        };
        Shape(Inner::Custom(schema, custom))
    }

    /// Of objects about which nothing is known.
    pub fn deduced() -> Shape<'static> {
        Shape(Inner::Deduced)
    }

    /// How the value is gone through.
    pub fn form(self, value: &Value) -> Form {
        match self.fixed_form() {
            Some(form) => form,
            None => match value {
                Value::Object(_) | Value::Null => Form::Map,
                Value::Array(_) => Form::List,
                _ => Form::Scalar,
            },
        }
    }

    /// What only may be one thing.
    pub fn fixed_form(self) -> Option<Form> {
        match self.0 {
            Inner::Struct(..) => Some(Form::Map),
            Inner::BuiltIn(shape, _) => match shape {
                schema::Shape::Struct(_) | schema::Shape::Map(_) => Some(Form::Map),
                schema::Shape::List(_) => Some(Form::List),
                schema::Shape::Any => None,
                _ => Some(Form::Scalar),
            },
            Inner::Custom(schema, custom) if custom.object && schema.kind_name().is_none() => Some(Form::Map),
            Inner::Custom(schema, _) => schema.kind_name().map(|kind| match kind {
                "object" => Form::Map,
                "array" => Form::List,
                _ => Form::Scalar,
            }),
            Inner::Deduced | Inner::Whole => None,
        }
    }

    /// Whether a map is owned as a whole.
    pub fn is_atomic_map(self) -> bool {
        match self.0 {
            Inner::Struct(kind, mark) => atomic(mark, kind.atomic),
            Inner::BuiltIn(_, field) => field.is_some_and(|field| field.map == MapKind::Atomic),
            Inner::Custom(schema, _) => schema.is_atomic_map(),
            Inner::Deduced => false,
            Inner::Whole => true,
        }
    }

    /// How the elements of a list are told apart.
    pub fn list(self) -> &'a ListKind {
        match self.0 {
            Inner::BuiltIn(_, Some(field)) => &field.list,
            Inner::Custom(schema, _) => schema.list_kind(),
            _ => &ListKind::Atomic,
        }
    }

    /// A field of a structure that is described; `None` for keys of maps and what is not known.
    pub fn field(self, name: &str) -> Option<Shape<'a>> {
        match self.0 {
            Inner::Struct(kind, _) => kind.field(name).map(Shape::of_field),
            Inner::Custom(schema, custom) => {
                if custom.object {
                    match name {
                        "apiVersion" | "kind" => return Some(Shape(Inner::BuiltIn(&schema::Shape::String, None))),
                        "metadata" => return schema::of_definition(OBJECT_META).map(Shape::of_type),
                        _ => {}
                    }
                }
                schema.property(name).map(|inner| Shape::inner(inner, custom))
            }
            _ => None,
        }
    }

    fn of_field(field: &'a Field) -> Shape<'a> {
        match &field.shape {
            schema::Shape::Struct(id) => Shape(Inner::Struct(id.get(), field.map)),
            schema::Shape::Any if field.raw => Shape(Inner::Whole),
            shape => Shape(Inner::BuiltIn(shape, Some(field))),
        }
    }

    fn of_built_in(shape: &'a schema::Shape) -> Shape<'a> {
        match shape {
            schema::Shape::Struct(id) => Shape::of_type(id.get()),
            shape => Shape(Inner::BuiltIn(shape, None)),
        }
    }

    fn inner(schema: &'a structural::Schema, parent: Custom) -> Shape<'a> {
        let custom = Custom {
            object: schema.is_embedded(),
            preserves: parent.preserves || schema.preserves_unknown(),
        };
        Shape(Inner::Custom(schema, custom))
    }

    /// What fields that are not described may be; `None` if there must be none.
    pub fn others(self) -> Option<Shape<'a>> {
        match self.0 {
            Inner::Struct(..) => None,
            Inner::BuiltIn(schema::Shape::Map(value), _) => Some(Shape::of_built_in(value)),
            Inner::Custom(schema, custom) => match schema.others() {
                Others::Of(inner) => Some(Shape::inner(inner, custom)),
                Others::Anything => Some(Shape::deduced()),
                Others::Nothing => None,
                Others::Unsaid if custom.preserves || !schema.has_properties() && !custom.object => {
                    Some(Shape::deduced())
                }
                Others::Unsaid => None,
            },
            Inner::Whole => Some(Shape(Inner::Whole)),
            Inner::BuiltIn(..) | Inner::Deduced => Some(Shape::deduced()),
        }
    }

    /// A field, described or not.
    pub fn child(self, name: &str) -> Shape<'a> {
        self.field(name).or_else(|| self.others()).unwrap_or(Shape::deduced())
    }

    /// What the elements of a list are.
    pub fn element(self) -> Shape<'a> {
        match self.0 {
            Inner::BuiltIn(schema::Shape::List(element), _) => Shape::of_built_in(element),
            Inner::Custom(schema, custom) => match schema.element() {
                Some(inner) => Shape::inner(inner, custom),
                None => Shape(Inner::Whole),
            },
            _ => Shape(Inner::Whole),
        }
    }

    /// What upstream's types have in place of an absent field: structures and lists that are always there, if empty.
    pub fn absent(self, name: &str) -> Option<&'static Value> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
        static NULL: Value = Value::Null;
        let Inner::Struct(kind, _) = self.0 else { return None };
        let field = kind.field(name)?;
        match (&field.shape, &field.default) {
            (schema::Shape::Struct(_), Some(Value::Object(_))) => Some(&EMPTY),
            (schema::Shape::List(_) | schema::Shape::Map(_), _) if field.required => Some(&NULL),
            _ => None,
        }
    }

    fn default_of(self, name: &str) -> Option<&'a Value> {
        match self.0 {
            Inner::Struct(kind, _) => kind.field(name)?.default.as_ref(),
            Inner::Custom(schema, _) => schema.property(name)?.default_value(),
            _ => None,
        }
    }

    /// How one element of a list is told apart from the others.
    pub fn step(self, element: &Value) -> Result<Element, String> {
        match self.list() {
            ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
            ListKind::Set => match element {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(Element::Value(Scalar(scalar.clone()))),
            },
            ListKind::Map(keys) => self.key(keys, element),
        }
    }

    fn key(self, keys: &[Box<str>], element: &Value) -> Result<Element, String> {
        let fields = match element {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let kind = self.element();
        let mut key: Vec<(Box<str>, Scalar)> = keys
            .iter()
            .filter_map(|name| {
                let value = fields.get(&**name).or_else(|| kind.default_of(name))?;
                Some((name.clone(), Scalar(value.clone())))
            })
            .collect();
        if key.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                keys.join(" ")
            ));
        }
        key.sort();
        Ok(Element::Key(key.into()))
    }

    /// The type below a step of a set, if it is known.
    pub fn below(self, element: &Element) -> Option<Shape<'a>> {
        match element {
            Element::Field(name) => self.field(name).or_else(|| self.others()),
            Element::Key(_) => Some(self.element()),
            Element::Value(_) | Element::Index(_) => None,
        }
    }

    /// Whether nothing is described: such may have been owned by other rules before.
    pub fn is_open(self) -> bool {
        match self.0 {
            Inner::Deduced | Inner::Whole => true,
            Inner::BuiltIn(shape, _) => matches!(shape, schema::Shape::Any),
            Inner::Custom(schema, custom) => {
                !custom.object
                    && !schema.has_properties()
                    && schema.kind_name().is_none_or(|kind| kind == "object")
                    && matches!(schema.others(), Others::Anything | Others::Unsaid)
            }
            Inner::Struct(..) => false,
        }
    }

    /// What is wrong with a scalar, in upstream's words.
    pub fn scalar_problem(self, value: &Value) -> Option<String> {
        let name = match self.0 {
            Inner::BuiltIn(shape, _) => match shape {
                schema::Shape::String | schema::Shape::Bytes => "string",
                schema::Shape::Int32 | schema::Shape::Int64 | schema::Shape::Double => "number",
                schema::Shape::Bool => "boolean",
                _ => "",
            },
            Inner::Custom(schema, _) => schema.kind_name().unwrap_or(""),
            _ => "",
        };
        match (name, value) {
            (_, Value::Null)
            | ("string", Value::String(_))
            | ("number" | "integer", Value::Number(_))
            | ("boolean", Value::Bool(_)) => None,
            ("string", other) => Some(format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_syntax(other)
            )),
            ("number" | "integer", other) => Some(format!("expected numeric (int or float), got {}", go_type(other))),
            ("boolean", other) => Some(format!("expected boolean, got &{{{}}}", go_plain(other))),
            (_, Value::Object(_) | Value::Array(_)) => {
                Some(format!("expected any scalar, got &{{{}}}", go_plain(value)))
            }
            _ => None,
        }
    }
}

fn atomic(mark: MapKind, of_type: bool) -> bool {
    match mark {
        MapKind::Unmarked => of_type,
        MapKind::Atomic => true,
        MapKind::Granular => false,
    }
}

/// As `%T` prints what was read from JSON.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, field)| format!("{name:?}:{}", go_syntax(field)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// As `%v` prints it.
pub(super) fn go_plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, field)| format!("{name}:{}", go_plain(field)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}
