//! The shapes of built-in kinds: fields, their types, and how lists merge. Read once from the embedded definitions.

use std::{collections::HashMap, io::Read, sync::OnceLock};

use serde_json::Value;

static DATA: &[u8] = include_bytes!("../data/schema.json.gz");

/// A structure and its fields.
#[derive(Debug)]
pub struct Type {
    /// As in the definitions: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    fields: HashMap<Box<str>, Field>,
    /// Applied as a whole, never field by field.
    pub atomic: bool,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (&**name, field))
    }

    /// The last part of the name: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// One field of a structure.
#[derive(Debug)]
pub struct Field {
    pub shape: Shape,
    pub required: bool,
    pub list: ListKind,
    pub patch: PatchStrategy,
    /// The key by which a strategic patch merges the elements of the list; empty if it has none.
    pub merge_key: Box<str>,
    /// How a map or structure in this place is applied, if it says so.
    pub map: MapKind,
    /// What the field is when it is absent, as far as upstream's types say so.
    pub default: Option<Value>,
    /// Any JSON, which is applied as a whole.
    pub raw: bool,
}

/// `x-kubernetes-map-type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MapKind {
    /// As its type says; maps by their keys.
    #[default]
    Unmarked,
    Atomic,
    Granular,
}

/// What a value may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    Struct(TypeId),
    List(Box<Shape>),
    Map(Box<Shape>),
    String,
    /// Base64 in JSON.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    Int32,
    Int64,
    Double,
    Bool,
    /// Any JSON: raw extensions, default values.
    Any,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<Box<str>>),
}

/// `x-kubernetes-patch-strategy`, which may name several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TypeId(usize);

impl TypeId {
    pub fn get(self) -> &'static Type {
        &schema().types[self.0]
    }
}

struct Schema {
    types: Vec<Type>,
    by_kind: HashMap<(String, String, String), TypeId>,
}

/// The structure of a built-in kind; `None` for others.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let key = (group.to_owned(), version.to_owned(), kind.to_owned());
    schema().by_kind.get(&key).map(|id| id.get())
}

/// Any structure by the name of its definition.
pub fn of_definition(name: &str) -> Option<&'static Type> {
    schema().types.iter().find(|candidate| candidate.name == name)
}

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(DATA)
            .read_to_end(&mut text)
            .expect("the embedded schema is a gzip stream");
        let definitions: Value = serde_json::from_slice(&text).expect("the embedded schema is well formed");
        Schema::read(&definitions)
    })
}

impl Schema {
    fn read(definitions: &Value) -> Schema {
        let definitions = definitions.as_object().expect("definitions are a map");
        // Structures first, so that references can be resolved in one pass.
        let ids: HashMap<&str, TypeId> = definitions
            .iter()
            .filter(|(_, definition)| definition["properties"].is_object())
            .enumerate()
            .map(|(at, (name, _))| (name.as_str(), TypeId(at)))
            .collect();
        let mut types = Vec::with_capacity(ids.len());
        let mut by_kind = HashMap::new();
        for (name, definition) in definitions {
            let Some(properties) = definition["properties"].as_object() else {
                continue;
            };
            let required: Vec<&str> = definition["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let fields = properties
                .iter()
                .map(|(field, schema)| {
                    let field_schema = read_field(schema, required.contains(&field.as_str()), &ids);
                    (field.as_str().into(), field_schema)
                })
                .collect();
            // Options and watch events carry every group; only their own one names them.
            let kinds = definition["x-kubernetes-group-version-kind"].as_array();
            if let Some([kind]) = kinds.map(Vec::as_slice) {
                let text = |field: &str| kind[field].as_str().unwrap_or("").to_owned();
                by_kind.insert((text("group"), text("version"), text("kind")), TypeId(types.len()));
            } else if name.ends_with(".DeleteOptions") {
                by_kind.insert(
                    (String::new(), "v1".to_owned(), "DeleteOptions".to_owned()),
                    TypeId(types.len()),
                );
            }
            types.push(Type {
                name: name.clone(),
                fields,
                atomic: definition["x-kubernetes-map-type"] == "atomic",
            });
        }
        // Kinds that are asked, not listed, carry no mark in the definitions.
        for (definition, group, kind) in [("io.k8s.api.policy.v1.Eviction", "policy", "Eviction")] {
            if let Some(id) = ids.get(definition) {
                by_kind
                    .entry((group.to_owned(), "v1".to_owned(), kind.to_owned()))
                    .or_insert(*id);
            }
        }
        Schema { types, by_kind }
    }
}

fn read_field(schema: &Value, required: bool, ids: &HashMap<&str, TypeId>) -> Field {
    let list = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(
            schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|key| key.as_str().map(Box::from))
                .collect(),
        ),
        _ => ListKind::Atomic,
    };
    let mut patch = PatchStrategy::default();
    for strategy in schema["x-kubernetes-patch-strategy"].as_str().unwrap_or("").split(',') {
        match strategy {
            "merge" => patch.merge = true,
            "replace" => patch.replace = true,
            "retainKeys" => patch.retain_keys = true,
            _ => {}
        }
    }
    Field {
        shape: read_shape(schema, ids),
        required,
        list,
        patch,
        merge_key: schema["x-kubernetes-patch-merge-key"].as_str().unwrap_or("").into(),
        map: match schema["x-kubernetes-map-type"].as_str() {
            Some("atomic") => MapKind::Atomic,
            Some("granular") => MapKind::Granular,
            _ => MapKind::Unmarked,
        },
        default: schema.get("default").cloned(),
        raw: schema["$ref"]
            .as_str()
            .is_some_and(|name| name.ends_with(".RawExtension")),
    }
}

fn read_shape(schema: &Value, ids: &HashMap<&str, TypeId>) -> Shape {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/definitions/");
        return match ids.get(name) {
            Some(id) => Shape::Struct(*id),
            None => match name.rsplit('.').next() {
                Some("Quantity") => Shape::Quantity,
                Some("Time") => Shape::Time,
                Some("MicroTime") => Shape::MicroTime,
                Some("IntOrString") => Shape::IntOrString,
                _ => Shape::Any,
            },
        };
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("array"), _) => Shape::List(Box::new(read_shape(&schema["items"], ids))),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            Shape::Map(Box::new(read_shape(&schema["additionalProperties"], ids)))
        }
        (Some("string"), Some("byte")) => Shape::Bytes,
        (Some("string"), _) => Shape::String,
        (Some("integer"), Some("int32")) => Shape::Int32,
        (Some("integer"), _) => Shape::Int64,
        (Some("number"), _) => Shape::Double,
        (Some("boolean"), _) => Shape::Bool,
        _ => Shape::Any,
    }
}

impl Shape {
    /// The type's name in upstream's language, as its decoding errors have it.
    pub fn go_name(&self) -> String {
        match self {
            Shape::Struct(id) => {
                let name = &id.get().name;
                let mut parts = name.rsplit('.');
                let short = parts.next().unwrap_or_default();
                format!("{}.{short}", parts.next().unwrap_or_default())
            }
            Shape::List(element) => format!("[]{}", element.go_name()),
            Shape::Map(value) => format!("map[string]{}", value.go_name()),
            Shape::String => "string".to_owned(),
            Shape::Bytes => "[]uint8".to_owned(),
            Shape::Time => "v1.Time".to_owned(),
            Shape::MicroTime => "v1.MicroTime".to_owned(),
            Shape::Quantity => "resource.Quantity".to_owned(),
            Shape::IntOrString => "intstr.IntOrString".to_owned(),
            Shape::Int32 => "int32".to_owned(),
            Shape::Int64 => "int64".to_owned(),
            Shape::Double => "float64".to_owned(),
            Shape::Bool => "bool".to_owned(),
            Shape::Any => "interface {}".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_know_how_they_merge() {
        let pod = of_kind("", "v1", "Pod").unwrap();
        let Shape::Struct(spec) = pod.field("spec").unwrap().shape else {
            panic!("a spec is a structure")
        };
        let containers = spec.get().field("containers").unwrap();
        let volumes = spec.get().field("volumes").unwrap();

        assert_eq!(&*containers.merge_key, "name");
        assert!(containers.patch.merge && containers.required);
        assert_eq!(containers.list, ListKind::Map(vec!["name".into()]));
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
    }

    #[test]
    fn every_stored_resource_has_a_schema() {
        for info in crate::table::resources() {
            let resource = &info.resource;
            assert!(
                of_kind(&resource.group, &resource.version, &resource.kind).is_some(),
                "{resource:?} has none"
            );
        }
    }
}
