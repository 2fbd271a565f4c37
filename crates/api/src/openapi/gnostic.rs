//! Encodes an OpenAPI v2 document as `openapi.v2.Document` of gnostic's `OpenAPIv2.proto`, which is the only form that
//! client-go reads.
//!
//! Messages nest by length, so inner ones are written first. What JSON may hold and the message has no field for is
//! a vendor extension, whose value is YAML text; JSON is YAML.

use serde_json::Value;

/// A document, or a part of one: messages written one after the other merge into one.
pub fn document(tree: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &tree["swagger"]);
    if tree["info"].is_object() {
        out.message(2, |info| {
            info.text(1, &tree["info"]["title"]);
            info.text(2, &tree["info"]["version"]);
            info.text(3, &tree["info"]["description"]);
        });
    }
    if let Some(paths) = tree["paths"].as_object() {
        out.message(8, |out| {
            for (name, item) in paths {
                out.named(2, name, |out| path_item(out, item));
            }
        });
    }
    if let Some(definitions) = tree["definitions"].as_object() {
        out.message(9, |out| {
            for (name, definition) in definitions {
                out.named(1, name, |out| schema(out, definition));
            }
        });
    }
    if let Some(parameters) = tree["parameters"].as_object() {
        out.message(10, |out| {
            for (name, value) in parameters {
                out.named(1, name, |out| parameter(out, value));
            }
        });
    }
    for requirement in tree["security"].as_array().into_iter().flatten() {
        out.message(12, |out| {
            for (name, scopes) in requirement.as_object().into_iter().flatten() {
                out.named(1, name, |out| out.texts(1, scopes));
            }
        });
    }
    if let Some(definitions) = tree["securityDefinitions"].as_object() {
        out.message(13, |out| {
            for (name, definition) in definitions
                .iter()
                .filter(|(_, definition)| definition["type"] == "apiKey")
            {
                out.named(1, name, |out| {
                    out.message(2, |key| {
                        key.text(1, &definition["type"]);
                        key.text(2, &definition["name"]);
                        key.text(3, &definition["in"]);
                        key.text(4, &definition["description"]);
                    });
                });
            }
        });
    }
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, verb) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (6, "options"),
        (7, "head"),
        (8, "patch"),
    ] {
        if item[verb].is_object() {
            out.message(field, |out| operation(out, &item[verb]));
        }
    }
    parameters_items(out, 9, &item["parameters"]);
    out.extensions(10, item);
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(2, &operation["summary"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    parameters_items(out, 8, &operation["parameters"]);
    if let Some(responses) = operation["responses"].as_object() {
        out.message(9, |out| {
            for (code, response) in responses {
                out.named(1, code, |out| {
                    out.message(1, |out| {
                        out.text(1, &response["description"]);
                        if response["schema"].is_object() {
                            out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                        }
                    });
                });
            }
        });
    }
    out.texts(10, &operation["schemes"]);
    out.extensions(13, operation);
}

fn parameters_items(out: &mut Message, field: u32, parameters: &Value) {
    for item in parameters.as_array().into_iter().flatten() {
        out.message(field, |out| {
            if item["$ref"].is_string() {
                out.message(2, |reference| {
                    reference.text(1, &item["$ref"]);
                    reference.text(2, &item["description"]);
                });
            } else {
                out.message(1, |out| parameter(out, item));
            }
        });
    }
}

fn parameter(out: &mut Message, value: &Value) {
    if value["in"] == "body" {
        out.message(1, |body| {
            body.text(1, &value["description"]);
            body.text(2, &value["name"]);
            body.text(3, &value["in"]);
            body.flag(4, &value["required"]);
            if value["schema"].is_object() {
                body.message(5, |out| schema(out, &value["schema"]));
            }
            body.extensions(6, value);
        });
        return;
    }
    // Parameters in queries may be empty, and from there on their fields are numbered one higher.
    let (kind, shift) = match value["in"].as_str() {
        Some("header") => (1, 0),
        Some("query") => (3, 1),
        _ => (4, 0),
    };
    out.message(2, |out| {
        out.message(kind, |out| {
            out.flag(1, &value["required"]);
            out.text(2, &value["in"]);
            out.text(3, &value["description"]);
            out.text(4, &value["name"]);
            out.text(5 + shift, &value["type"]);
            out.text(6 + shift, &value["format"]);
            out.flag(19 + shift, &value["uniqueItems"]);
            out.extensions(22 + shift, value);
        });
    });
}

fn schema(out: &mut Message, schema_tree: &Value) {
    let Some(tree) = schema_tree.as_object() else { return };
    let value = |name: &str| tree.get(name).unwrap_or(&Value::Null);
    out.text(1, value("$ref"));
    out.text(2, value("format"));
    out.text(3, value("title"));
    out.text(4, value("description"));
    out.any(5, tree.get("default"));
    out.double(6, value("multipleOf"));
    out.double(7, value("maximum"));
    out.flag(8, value("exclusiveMaximum"));
    out.double(9, value("minimum"));
    out.flag(10, value("exclusiveMinimum"));
    out.integer(11, value("maxLength"));
    out.integer(12, value("minLength"));
    out.text(13, value("pattern"));
    out.integer(14, value("maxItems"));
    out.integer(15, value("minItems"));
    out.flag(16, value("uniqueItems"));
    out.integer(17, value("maxProperties"));
    out.integer(18, value("minProperties"));
    out.texts(19, value("required"));
    for item in value("enum").as_array().into_iter().flatten() {
        out.any(20, Some(item));
    }
    match value("additionalProperties") {
        Value::Bool(allowed) => out.message(21, |item| item.boolean(2, *allowed)),
        properties @ Value::Object(_) => out.message(21, |item| item.message(1, |out| schema(out, properties))),
        _ => {}
    }
    match value("type") {
        kind @ Value::String(_) => out.message(22, |item| item.text(1, kind)),
        kinds @ Value::Array(_) => out.message(22, |item| item.texts(1, kinds)),
        _ => {}
    }
    if value("items").is_object() {
        out.message(23, |items| items.message(1, |out| schema(out, value("items"))));
    }
    for part in value("allOf").as_array().into_iter().flatten() {
        out.message(24, |out| schema(out, part));
    }
    if let Some(properties) = value("properties").as_object() {
        out.message(25, |out| {
            for (name, property) in properties {
                out.named(1, name, |out| schema(out, property));
            }
        });
    }
    out.text(26, value("discriminator"));
    out.flag(27, value("readOnly"));
    out.any(30, tree.get("example"));
    out.extensions(31, schema_tree);
}

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// One entry of what JSON has as a map.
    fn named(&mut self, field: u32, name: &str, write: impl FnOnce(&mut Message)) {
        self.message(field, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, write);
        });
    }

    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, values: &Value) {
        for text in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn boolean(&mut self, field: u32, value: bool) {
        self.tag(field, VARINT);
        self.varint(u64::from(value));
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if *value == Value::Bool(true) {
            self.boolean(field, true);
        }
    }

    fn integer(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number != 0) {
            self.tag(field, VARINT);
            self.varint(number as u64);
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.tag(field, FIXED_64);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn any(&mut self, field: u32, value: Option<&Value>) {
        if let Some(value) = value {
            self.message(field, |any| any.bytes(2, format!("{value}\n").as_bytes()));
        }
    }

    fn extensions(&mut self, field: u32, tree: &Value) {
        let marks = tree
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.starts_with("x-"));
        for (name, value) in marks {
            self.message(field, |entry| {
                entry.bytes(1, name.as_bytes());
                entry.any(2, Some(value));
            });
        }
    }
}
