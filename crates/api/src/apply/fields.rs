//! `FieldsV1`: a set of fields as JSON.
//!
//! Each step is a key; `{}` means that the field is owned, `.` that it is owned along with something below it.

use serde_json::{Map, Value};

use super::{
    element::{Element, Malformed},
    set::Set,
};

const SELF: &str = ".";

/// Reads a set. Steps of a kind that is not known are passed over.
pub fn read(fields: &Value) -> Result<Set, Malformed> {
    match fields {
        Value::Null => Ok(Set::new()),
        Value::Object(fields) => Ok(read_object(fields)?.1),
        other => Err(Malformed(other.to_string())),
    }
}

/// Whether the object says that it is owned itself, and what is below it.
fn read_object(fields: &Map<String, Value>) -> Result<(bool, Set), Malformed> {
    let mut owned = false;
    let mut set = Set::new();
    for (key, value) in fields {
        if key == SELF {
            owned = true;
            continue;
        }
        let Some(element) = Element::parse(key)? else { continue };
        let Value::Object(value) = value else {
            return Err(Malformed(key.clone()));
        };
        let (below_owned, below) = read_object(value)?;
        set.attach(element, below_owned, below);
    }
    Ok((owned || set.is_empty(), set))
}

/// The set as a tree, as objects carry it.
pub fn write(set: &Set) -> Value {
    Value::Object(write_object(set, false))
}

fn write_object(set: &Set, owned: bool) -> Map<String, Value> {
    let mut fields = Map::new();
    if owned && !set.is_empty() {
        fields.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    for (element, node) in set.nodes() {
        fields.insert(
            element.serialized(),
            Value::Object(write_object(&node.below, node.owned)),
        );
    }
    fields
}

/// The same as text, in upstream's order of steps.
pub fn to_json(set: &Set) -> String {
    let mut text = String::new();
    write_text(set, false, &mut text);
    text
}

fn write_text(set: &Set, owned: bool, out: &mut String) {
    out.push('{');
    let mut first = true;
    let mut key = |text: &str, out: &mut String| {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(&Value::String(text.to_owned()).to_string());
        out.push(':');
    };
    if owned && !set.is_empty() {
        key(SELF, out);
        out.push_str("{}");
    }
    for (element, node) in set.nodes() {
        key(&element.serialized(), out);
        write_text(&node.below, node.owned, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_reads_back_as_it_was_written() {
        let text = concat!(
            r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"#,
            r#""k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{".":{},"#,
            r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{},"k:{\"containerPort\":443,\"protocol\":\"TCP\"}":{}}}},"#,
            r#""f:finalizers":{"v:\"x\"":{}},"f:replicas":{}}}"#
        );

        let set = read(&serde_json::from_str(text).unwrap()).unwrap();

        assert_eq!(to_json(&set), text);
        assert_eq!(read(&write(&set)).unwrap(), set);
        assert_eq!(write(&set), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_wrong_refused() {
        let known = read(&json!({"f:a": {}, "z:b": {"f:c": {}}})).unwrap();

        assert_eq!(to_json(&known), r#"{"f:a":{}}"#);
        assert_eq!(to_json(&read(&json!({})).unwrap()), "{}");
        for wrong in [json!("f:a"), json!({"f:a": 1}), json!({"a": {}}), json!({"k:1": {}})] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
