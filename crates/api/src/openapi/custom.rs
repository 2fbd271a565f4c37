//! What custom resources add to the documents: their schemas, and paths from which clients learn kinds and verbs.

use serde_json::{Map, Value, json};

use super::Custom;
use crate::resource::Scope;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Definitions and paths for the v2 document.
pub fn v2(custom: &[Custom]) -> Value {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for custom in custom {
        let flavour = Flavour::V2;
        add_schemas(&mut definitions, custom, flavour);
        add_paths(&mut paths, custom, flavour);
    }
    json!({"definitions": definitions, "paths": paths})
}

/// A v3 document of one group version.
pub fn v3(custom: &[Custom], meta_schemas: &Value) -> Value {
    let mut schemas = meta_schemas.as_object().cloned().unwrap_or_default();
    let mut paths = Map::new();
    for custom in custom {
        let flavour = Flavour::V3;
        add_schemas(&mut schemas, custom, flavour);
        add_paths(&mut paths, custom, flavour);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    V2,
    V3,
}

impl Flavour {
    fn reference(self, name: &str) -> Value {
        match self {
            Flavour::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Flavour::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A reference with a description of its own, which v3 has to wrap.
    fn described(self, name: &str, description: &str) -> Value {
        match self {
            Flavour::V2 => {
                let mut reference = self.reference(name);
                reference["description"] = json!(description);
                reference
            }
            Flavour::V3 => json!({"allOf": [self.reference(name)], "description": description}),
        }
    }

    fn parameter(self, place: &str, name: &str, kind: &str) -> Value {
        let required = place == "path";
        let mut parameter = match self {
            Flavour::V2 => json!({"name": name, "in": place, "type": kind, "uniqueItems": true}),
            Flavour::V3 => json!({"name": name, "in": place, "schema": {"type": kind, "uniqueItems": true}}),
        };
        if required {
            parameter["required"] = json!(true);
        }
        parameter
    }
}

/// `com.example.v1.CronTab` for the group `example.com`.
fn definition_name(custom: &Custom, kind: &str) -> String {
    let resource = &custom.info.resource;
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{kind}", parts.join("."), resource.version)
}

fn kinds(custom: &Custom, kind: &str) -> Value {
    let resource = &custom.info.resource;
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
                           convert recognized schemas to the latest internal value, and may reject unrecognized values. \
                           More info: \
                           https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer \
                    this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

fn add_schemas(schemas: &mut Map<String, Value>, custom: &Custom, flavour: Flavour) {
    let resource = &custom.info.resource;
    let kind = &*resource.kind;
    let mut schema = if custom.schema.is_object() {
        custom.schema.clone()
    } else {
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    };
    publish(&mut schema, flavour);
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true && schema.get("properties").is_none();
    schema["type"] = json!("object");
    if !(open && flavour == Flavour::V2 && !custom.schema.is_object()) {
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let metadata = flavour.described(&format!("{META}.ObjectMeta"), "Standard object's metadata.");
        schema["properties"]["metadata"] = metadata;
        schema["properties"]["apiVersion"] = json!({"type": "string", "description": API_VERSION});
        schema["properties"]["kind"] = json!({"type": "string", "description": KIND});
    }
    schema["x-kubernetes-group-version-kind"] = kinds(custom, kind);
    let name = definition_name(custom, kind);
    let list = json!({
        "type": "object",
        "description": format!("{} is a list of {kind}", custom.list_kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": flavour.described(&format!("{META}.ListMeta"), "Standard list metadata."),
            "items": {
                "type": "array",
                "description": format!("List of {}.", resource.plural),
                "items": flavour.reference(&name),
            },
        },
        "x-kubernetes-group-version-kind": kinds(custom, custom.list_kind),
    });
    schemas.insert(definition_name(custom, custom.list_kind), list);
    schemas.insert(name, schema);
}

/// Makes a structural schema fit for publishing: rules that only the server runs go, embedded resources get the
/// fields that they always have, and v2 loses what it can't say and what kubectl can't read.
fn publish(schema: &mut Value, flavour: Flavour) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        let properties = fields.entry("properties").or_insert_with(|| json!({}));
        for (name, value) in [
            ("apiVersion", json!({"type": "string", "description": API_VERSION})),
            ("kind", json!({"type": "string", "description": KIND})),
            (
                "metadata",
                flavour.described(&format!("{META}.ObjectMeta"), "Standard object's metadata."),
            ),
        ] {
            properties[name] = value;
        }
    }
    if flavour == Flavour::V2 {
        for junctor in ["allOf", "anyOf", "oneOf", "not"] {
            fields.remove(junctor);
        }
        let is = |fields: &Map<String, Value>, mark: &str| fields.get(mark) == Some(&Value::Bool(true));
        let preserves = is(fields, "x-kubernetes-preserve-unknown-fields");
        if is(fields, "x-kubernetes-int-or-string") {
            fields.remove("type");
        }
        if let Some(properties) = fields.get("properties").and_then(Value::as_object) {
            let nullable: Vec<String> = properties
                .iter()
                .filter(|(_, property)| property["nullable"] == true)
                .map(|(name, _)| name.clone())
                .collect();
            if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| !nullable.iter().any(|nullable| name == nullable));
            }
            if fields
                .get("required")
                .and_then(Value::as_array)
                .is_some_and(Vec::is_empty)
            {
                fields.remove("required");
            }
        }
        if is(fields, "nullable") || preserves {
            if is(fields, "nullable") {
                fields.remove("type");
                fields.remove("nullable");
            }
            fields.remove("items");
            fields.remove("properties");
        }
        let untyped = (fields.get("type") == Some(&json!("array")) && !fields.contains_key("items"))
            || (preserves && fields.get("type") == Some(&json!("object")));
        if untyped {
            fields.remove("type");
        }
    }
    for (name, value) in fields.iter_mut() {
        match name.as_str() {
            "properties" => value
                .as_object_mut()
                .into_iter()
                .flat_map(|properties| properties.values_mut())
                .for_each(|property| publish(property, flavour)),
            "items" | "additionalProperties" => publish(value, flavour),
            _ => {}
        }
    }
}

fn add_paths(paths: &mut Map<String, Value>, custom: &Custom, flavour: Flavour) {
    let resource = &custom.info.resource;
    let root = format!("/apis/{}/{}", resource.group, resource.version);
    let namespaced = resource.scope == Scope::Namespaced;
    let collection = if namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    let mut parameters = Vec::new();
    if namespaced {
        parameters.push(flavour.parameter("path", "namespace", "string"));
    }
    let operations = Operations { custom, flavour };
    paths.insert(
        collection.clone(),
        json!({
            "parameters": parameters,
            "get": operations.operation("list", ""),
            "post": operations.operation("post", ""),
            "delete": operations.operation("deletecollection", ""),
        }),
    );
    if namespaced {
        paths.insert(
            format!("{root}/{}", resource.plural),
            json!({"get": operations.operation("list", "ForAllNamespaces")}),
        );
    }
    parameters.insert(0, flavour.parameter("path", "name", "string"));
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "parameters": parameters,
            "get": operations.operation("get", ""),
            "put": operations.operation("put", ""),
            "patch": operations.operation("patch", ""),
            "delete": operations.operation("delete", ""),
        }),
    );
    for sub in &custom.info.subresources {
        let suffix = if sub.name == "status" { "Status" } else { "Scale" };
        paths.insert(
            format!("{collection}/{{name}}/{}", sub.name),
            json!({
                "parameters": parameters,
                "get": operations.operation("get", suffix),
                "put": operations.operation("put", suffix),
                "patch": operations.operation("patch", suffix),
            }),
        );
    }
}

struct Operations<'a> {
    custom: &'a Custom<'a>,
    flavour: Flavour,
}

const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];

impl Operations<'_> {
    fn operation(&self, action: &str, suffix: &str) -> Value {
        let resource = &self.custom.info.resource;
        let kind = &*resource.kind;
        let own = if suffix == "Scale" {
            "io.k8s.api.autoscaling.v1.Scale".to_owned()
        } else {
            definition_name(self.custom, kind)
        };
        let (answer, verb) = match action {
            "list" => (definition_name(self.custom, self.custom.list_kind), "list"),
            "deletecollection" => (format!("{META}.Status"), "deleteCollection"),
            "delete" => (format!("{META}.Status"), "delete"),
            "post" => (own.clone(), "create"),
            "put" => (own.clone(), "replace"),
            "patch" => (own.clone(), "patch"),
            _ => (own.clone(), "read"),
        };
        let query: &[&str] = match action {
            "list" => &[
                "allowWatchBookmarks",
                "continue",
                "fieldSelector",
                "labelSelector",
                "limit",
                "resourceVersion",
                "resourceVersionMatch",
                "sendInitialEvents",
                "timeoutSeconds",
                "watch",
            ],
            "deletecollection" => &[
                "dryRun",
                "fieldSelector",
                "gracePeriodSeconds",
                "labelSelector",
                "propagationPolicy",
            ],
            "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
            "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
            "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
            _ => &["resourceVersion"],
        };
        let mut parameters: Vec<Value> = query
            .iter()
            .map(|name| {
                let kind = match *name {
                    "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
                    "watch" | "force" | "allowWatchBookmarks" | "sendInitialEvents" => "boolean",
                    _ => "string",
                };
                self.flavour.parameter("query", name, kind)
            })
            .collect();
        let group: String = resource.group.split('.').map(capital).collect();
        let mut operation = json!({
            "description": format!("{verb} {kind}{suffix}"),
            "operationId": format!("{verb}{group}{}{kind}{suffix}", capital(&resource.version)),
            "tags": [format!("{}_{}", resource.group.replace('.', "_"), resource.version)],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kinds(self.custom, kind)[0],
        });
        let body = match action {
            "post" | "put" => Some(own),
            "patch" => Some(format!("{META}.Patch")),
            "delete" | "deletecollection" => Some(format!("{META}.DeleteOptions")),
            _ => None,
        };
        let accepted: &[&str] = if action == "patch" { &PATCH_TYPES } else { &MEDIA_TYPES };
        match self.flavour {
            Flavour::V2 => {
                if let Some(body) = body {
                    let schema = self.flavour.reference(&body);
                    let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
                    if !action.starts_with("delete") {
                        parameter["required"] = json!(true);
                    }
                    parameters.insert(0, parameter);
                }
                operation["consumes"] = json!(accepted);
                operation["produces"] = json!(MEDIA_TYPES);
                operation["schemes"] = json!(["https"]);
                operation["responses"] = json!({
                    "200": {"description": "OK", "schema": self.flavour.reference(&answer)},
                    "401": {"description": "Unauthorized"},
                });
            }
            Flavour::V3 => {
                let content = |types: &[&str], name: &str| -> Value {
                    let entries = types
                        .iter()
                        .map(|media| ((*media).to_owned(), json!({"schema": self.flavour.reference(name)})));
                    Value::Object(entries.collect())
                };
                if let Some(body) = body {
                    operation["requestBody"] = json!({"content": content(accepted, &body)});
                }
                operation["responses"] = json!({
                    "200": {"description": "OK", "content": content(&MEDIA_TYPES, &answer)},
                    "401": {"description": "Unauthorized"},
                });
            }
        }
        operation["parameters"] = Value::Array(parameters);
        operation
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
