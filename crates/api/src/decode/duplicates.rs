//! Fields that a JSON text has twice; a parsed tree no longer shows them.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// How many are named; a body full of duplicates does not make an answer as long.
const NAMED_MAX: usize = 64;

/// `duplicate field "spec.foo"` for every field that comes again, in order. Malformed text has none: parsing it says
/// what is wrong. `tree` is what the text was parsed to: if it has as many fields, none came twice.
pub fn duplicates(text: &[u8], tree: &Value) -> Vec<String> {
    if fields_of_text(text) == fields_of(tree) {
        return Vec::new();
    }
    let mut scan = Scan {
        path: String::new(),
        found: Vec::new(),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    match Seed(&mut scan).deserialize(&mut deserializer) {
        Ok(()) => scan.found,
        Err(_) => Vec::new(),
    }
}

/// Every colon outside of strings ends a field's name.
fn fields_of_text(text: &[u8]) -> usize {
    let (mut fields, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => fields += 1,
            _ => {}
        }
    }
    fields
}

fn fields_of(tree: &Value) -> usize {
    match tree {
        Value::Object(fields) => fields.len() + fields.values().map(fields_of).sum::<usize>(),
        Value::Array(items) => items.iter().map(fields_of).sum(),
        _ => 0,
    }
}

struct Scan {
    path: String,
    found: Vec<String>,
}

struct Seed<'a>(&'a mut Scan);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            if !seen.insert(key) && self.0.found.len() < NAMED_MAX {
                let problem = format!("duplicate field {:?}", self.0.path);
                if !self.0.found.contains(&problem) {
                    self.0.found.push(problem);
                }
            }
            map.next_value_seed(Seed(self.0))?;
            self.0.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        for at in 0usize.. {
            self.0.path.push_str(&format!("[{at}]"));
            let more = items.next_element_seed(Seed(self.0))?;
            self.0.path.truncate(length);
            if more.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Vec<String> {
        duplicates(text, &serde_json::from_slice(text).unwrap_or_default())
    }

    #[test]
    fn repeated_fields_are_named_by_path() {
        let text = br#"{"a":1,"spec":{"x":1,"list":[{"k":1},{"k":1,"k":2,"k":3}],"x":{"y":null}},"a":2}"#;

        assert_eq!(
            of(text),
            [
                r#"duplicate field "spec.list[1].k""#,
                r#"duplicate field "spec.x""#,
                r#"duplicate field "a""#,
            ]
        );
    }

    #[test]
    fn text_without_repetition_has_none() {
        assert!(of(br#"{"a":{"a":[true,1,-1,1.5,"s: \\": {",null]}}"#).is_empty());
        assert!(of(b"{\"a\":").is_empty());
        assert!(of("[".repeat(10_000).as_bytes()).is_empty());
    }
}
