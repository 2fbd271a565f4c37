//! Whether a schema is structural: a skeleton of types, fields and elements, and alternatives that only constrain.

use serde_json::{Value, json};

use super::{
    Schema, compile_pattern,
    definition::{Check, list, text},
};
use crate::field::{self, Path};

/// Where in a schema one is; some things are allowed in some places only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Items,
    Field,
}

impl Check {
    pub(super) fn schema(&mut self, path: &Path, schema: &Value) {
        if schema["nullable"] == true {
            self.forbidden(&path.field("nullable"), "nullable cannot be true at the root");
        }
        self.structure(path, schema, Place::Root);
        self.completeness(path, schema, path, schema);
        if self.causes.is_empty() {
            self.defaults(path, schema, true);
        }
    }

    /// The skeleton of types, fields and elements.
    fn structure(&mut self, path: &Path, schema: &Value, place: Place) {
        let flag = |name: &str| schema[name] == true;
        let kind = text(&schema["type"]);
        let (embedded, int_or_string, preserves) = (
            flag("x-kubernetes-embedded-resource"),
            flag("x-kubernetes-int-or-string"),
            flag("x-kubernetes-preserve-unknown-fields"),
        );
        self.unsupported(path, schema);
        if kind == "array" && schema["items"].is_null() {
            self.required(&path.field("items"), "must be specified");
        }
        if schema["items"].is_object() {
            self.structure(&path.field("items"), &schema["items"], Place::Items);
        }
        let properties = path.field("properties");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = properties.key(name);
            if name == "metadata" && place == Place::Root {
                self.root_metadata(&path, property);
            } else {
                self.structure(&path, property, Place::Field);
            }
        }
        let additional = &schema["additionalProperties"];
        if !additional.is_null() {
            let path = path.field("additionalProperties");
            if place == Place::Root {
                self.forbidden(&path, "must not be used at the root");
            }
            if embedded {
                self.forbidden(&path, "must not be used if x-kubernetes-embedded-resource is set");
            }
            let has_properties = schema["properties"]
                .as_object()
                .is_some_and(|fields| !fields.is_empty());
            if has_properties && *additional != Value::Bool(true) {
                self.forbidden(&path, "additionalProperties and properties are mutual exclusive");
            }
            if additional.is_object() {
                self.structure(&path, additional, Place::Field);
            }
        }
        if int_or_string && preserves {
            let path = path.field("x-kubernetes-preserve-unknown-fields");
            self.invalid(&path, true, "must be false if x-kubernetes-int-or-string is true");
        }
        if int_or_string && embedded {
            let path = path.field("x-kubernetes-embedded-resource");
            self.invalid(&path, true, "must be false if x-kubernetes-int-or-string is true");
        }
        self.kind_of(path, kind, place, embedded, int_or_string || preserves);
        if place == Place::Root || embedded {
            for name in ["kind", "apiVersion"] {
                let property = &schema["properties"][name];
                if !property.is_null() && property["type"] != "string" {
                    let path = properties.key(name);
                    self.invalid(&path.field("type"), text(&property["type"]), "must be string");
                }
            }
        }
        if embedded && !preserves && schema["properties"].as_object().is_none_or(|fields| fields.is_empty()) {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            self.required(&properties, detail);
        }
        self.list_type(path, schema);
        self.rules(path, schema, true);
    }

    fn kind_of(&mut self, path: &Path, kind: &str, place: Place, embedded: bool, may_lack: bool) {
        const KINDS: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
        let path = path.field("type");
        if embedded && kind != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            if kind.is_empty() {
                self.required(&path, detail);
            } else {
                self.invalid(&path, kind, detail);
            }
        } else if kind.is_empty() && !may_lack {
            let detail = match place {
                Place::Root => "must not be empty at the root",
                Place::Items => "must not be empty for specified array items",
                Place::Field => "must not be empty for specified object fields",
            };
            self.required(&path, detail);
        }
        if place == Place::Root && !kind.is_empty() && kind != "object" {
            self.invalid(&path, kind, "must be object at the root");
        }
        if !kind.is_empty() && !KINDS.contains(&kind) {
            self.causes.push(field::not_supported(&path, kind, &KINDS));
        }
    }

    /// Of an object's own metadata a schema may constrain the name alone.
    fn root_metadata(&mut self, path: &Path, schema: &Value) {
        if schema["type"] != "object" {
            self.invalid(&path.field("type"), text(&schema["type"]), "must be object");
        }
        let named = |name: &String| matches!(name.as_str(), "name" | "generateName");
        let only_names = schema["properties"]
            .as_object()
            .is_none_or(|fields| fields.keys().all(named));
        let only_type = schema.as_object().is_none_or(|fields| {
            fields
                .keys()
                .all(|key| matches!(key.as_str(), "type" | "properties" | "description"))
        });
        if !only_names || !only_type {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                          specified";
            self.forbidden(path, detail);
        }
    }

    fn unsupported(&mut self, path: &Path, schema: &Value) {
        for (name, detail) in [
            ("id", "id is not supported"),
            ("additionalItems", "additionalItems is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("definitions", "definitions is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("$ref", "$ref is not supported"),
        ] {
            if !schema[name].is_null() {
                self.forbidden(&path.field(name), detail);
            }
        }
        if schema["items"].is_array() {
            self.forbidden(&path.field("items"), "items must be a schema object and not an array");
        }
        if schema["uniqueItems"] == true {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(&path.field("uniqueItems"), detail);
        }
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let path = path.field("x-kubernetes-preserve-unknown-fields");
            self.invalid(&path, false, "must be true or undefined");
        }
    }

    fn list_type(&mut self, path: &Path, schema: &Value) {
        let kind = text(&schema["type"]);
        for (mark, wanted, supported) in [
            ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
            ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ] {
            let Some(value) = schema[mark].as_str() else { continue };
            if kind != wanted {
                let detail = format!("must be {wanted} if {mark} is specified");
                if kind.is_empty() {
                    self.required(&path.field("type"), &detail);
                } else {
                    self.invalid(&path.field("type"), kind, detail);
                }
            }
            if !supported.contains(&value) {
                self.not_supported(&path.field(mark), &schema[mark], supported);
            }
        }
        let list_type = text(&schema["x-kubernetes-list-type"]);
        let keys = list(&schema["x-kubernetes-list-map-keys"]);
        let keys_path = path.field("x-kubernetes-list-map-keys");
        if !keys.is_empty() && list_type != "map" {
            let path = path.field("x-kubernetes-list-type");
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            if list_type.is_empty() {
                self.required(&path, detail);
            } else {
                self.invalid(&path, list_type, detail);
            }
        }
        let items = &schema["items"];
        let items_path = path.field("items");
        if matches!(list_type, "set" | "map") && items["nullable"] == true {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
            self.forbidden(&items_path.field("nullable"), &detail);
        }
        if list_type == "set" && items["type"] == "object" && items["x-kubernetes-map-type"] != "atomic" {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            self.invalid(&items_path.field("x-kubernetes-map-type"), Value::Null, detail);
        }
        if list_type != "map" {
            return;
        }
        if keys.is_empty() {
            self.required(&keys_path, "must not be empty if x-kubernetes-list-type is map");
        }
        if items.is_object() && items["type"] != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(&items_path.field("type"), text(&items["type"]), detail);
        }
        let properties = items_path.field("properties");
        for (at, key) in keys.iter().enumerate() {
            let key = text(key);
            let property = &items["properties"][key];
            if property.is_null() {
                let detail = "entries must all be names of item properties";
                self.invalid(&keys_path.index(at), key, detail);
                continue;
            }
            let property_path = properties.key(key);
            if matches!(text(&property["type"]), "object" | "array") {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(&property_path.field("type"), text(&property["type"]), detail);
            }
            let required = list(&items["required"]).iter().any(|name| name == key);
            if !required && property.get("default").is_none() {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                              required property";
                self.required(&property_path.field("default"), detail);
            }
        }
    }

    /// Patterns compile, and alternatives only constrain.
    fn rules(&mut self, path: &Path, schema: &Value, skeleton: bool) {
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(error) = compile_pattern(pattern)
        {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            self.invalid(&path.field("pattern"), pattern, detail);
        }
        // The one place where alternatives may name types.
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        for junctor in ["allOf", "anyOf", "oneOf"] {
            let parts_path = path.field(junctor);
            let int_or_string = schema["x-kubernetes-int-or-string"] == true && skeleton;
            if junctor == "anyOf" && int_or_string && schema["anyOf"] == either {
                continue;
            }
            for (at, part) in list(&schema[junctor]).iter().enumerate() {
                let part_path = parts_path.index(at);
                if junctor == "allOf" && at == 0 && int_or_string && part["anyOf"] == either {
                    continue;
                }
                self.alternative(&part_path, part);
            }
        }
        if schema["not"].is_object() {
            self.alternative(&path.field("not"), &schema["not"]);
        }
    }

    fn alternative(&mut self, path: &Path, part: &Value) {
        for (name, detail) in [
            ("type", "must be empty to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
        ] {
            if !part[name].is_null() && part[name] != "" {
                self.forbidden(&path.field(name), detail);
            }
        }
        for name in [
            "nullable",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
        ] {
            if part[name] == true {
                self.forbidden(&path.field(name), "must be false to be structural");
            }
        }
        self.rules(path, part, false);
        if part["items"].is_object() {
            self.alternative(&path.field("items"), &part["items"]);
        }
        let properties = path.field("properties");
        for (name, property) in part["properties"].as_object().into_iter().flatten() {
            let path = properties.key(name);
            if name == "metadata" {
                self.forbidden(&path, "must not be specified in a nested context");
            }
            self.alternative(&path, property);
        }
    }

    /// What alternatives at the root constrain is described by the skeleton; upstream does not ask it of others.
    fn completeness(&mut self, path: &Path, schema: &Value, part_path: &Path, part: &Value) {
        for junctor in ["allOf", "anyOf", "oneOf"] {
            let parts_path = part_path.field(junctor);
            for (at, part) in list(&part[junctor]).iter().enumerate() {
                self.described(path, schema, &parts_path.index(at), part);
            }
        }
        if part["not"].is_object() {
            self.described(path, schema, &part_path.field("not"), &part["not"]);
        }
    }

    fn described(&mut self, path: &Path, schema: &Value, part_path: &Path, part: &Value) {
        self.completeness(path, schema, part_path, part);
        if part["items"].is_object() {
            let (items, part_items) = (path.field("items"), part_path.field("items"));
            if schema["items"].is_null() {
                self.required(&items, &format!("because it is defined in {part_items}"));
            } else {
                self.described(&items, &schema["items"], &part_items, &part["items"]);
            }
        }
        let (properties, part_properties) = (path.field("properties"), part_path.field("properties"));
        for (name, property) in part["properties"].as_object().into_iter().flatten() {
            let (path, part_path) = (properties.key(name), part_properties.key(name));
            let own = &schema["properties"][name.as_str()];
            if own.is_null() {
                self.required(&path, &format!("because it is defined in {part_path}"));
            } else {
                self.described(&path, own, &part_path, property);
            }
        }
    }

    /// A default must itself fit the schema, and have nothing that would be pruned.
    fn defaults(&mut self, path: &Path, schema: &Value, root: bool) {
        if let Some(default) = schema.get("default") {
            let path = path.field("default");
            if root {
                self.forbidden(&path, "must not be set at the root");
            }
            let compiled = Schema::compile(schema);
            let mut pruned = json!({"value": default.clone()});
            // As a field, so that an object's own metadata is nothing special.
            let wrapped = Schema::compile(&json!({"type": "object", "properties": {"value": schema}}));
            if !wrapped.prune(&mut pruned).is_empty() {
                self.invalid(&path, default.clone(), "must not have unknown fields");
            }
            for mut cause in super::rules::check(&compiled, default) {
                cause.field = match cause.field.as_str() {
                    "<nil>" => path.to_string(),
                    inner => format!("{path}.{inner}"),
                };
                self.causes.push(cause);
            }
        }
        if schema["items"].is_object() {
            self.defaults(&path.field("items"), &schema["items"], false);
        }
        if schema["additionalProperties"].is_object() {
            self.defaults(
                &path.field("additionalProperties"),
                &schema["additionalProperties"],
                false,
            );
        }
        let properties = path.field("properties");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.defaults(&properties.key(name), property, false);
        }
    }
}
