//! One step of the path to a field: a field's name, or which element of a list.

use std::{cmp::Ordering, fmt};

use serde_json::Value;

/// A step. The order is that in which steps are written: names, then keys, values and positions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Element {
    /// A field of a structure, or a key of a map.
    Field(Box<str>),
    /// The element of a list of structures whose fields have these values; sorted by name.
    Key(Box<[(Box<str>, Scalar)]>),
    /// The element of a set.
    Value(Scalar),
    /// The element at a position. Nothing is owned by position; it is read because it may be written.
    Index(i64),
}

/// A step's text is not one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no element of a path")]
pub struct Malformed(pub String);

impl Element {
    pub fn field(name: &str) -> Element {
        Element::Field(name.into())
    }

    /// Reads `f:name`, `k:{...}`, `v:...` or `i:0`; `None` for a kind of step that is not known, which is passed over
    /// as upstream does.
    pub fn parse(text: &str) -> Result<Option<Element>, Malformed> {
        let malformed = || Malformed(text.to_owned());
        let (kind, rest) = text.split_at_checked(2).ok_or_else(malformed)?;
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| malformed());
        Ok(Some(match kind {
            "f:" => Element::field(rest),
            "v:" => Element::Value(Scalar(json(rest)?)),
            "i:" => Element::Index(rest.parse().map_err(|_| malformed())?),
            "k:" => match json(rest)? {
                // Fields of a JSON object come sorted.
                Value::Object(fields) => Element::Key(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.into_boxed_str(), Scalar(value)))
                        .collect(),
                ),
                _ => return Err(malformed()),
            },
            _ if kind.ends_with(':') => return Ok(None),
            _ => return Err(malformed()),
        }))
    }

    /// As [`Element::parse`] reads it.
    pub fn serialized(&self) -> String {
        match self {
            Element::Field(name) => ["f:", name].concat(),
            Element::Value(value) => format!("v:{}", value.json()),
            Element::Index(at) => format!("i:{at}"),
            Element::Key(fields) => {
                let mut text = String::from("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        text.push(',');
                    }
                    text.push_str(&json_text(&Value::String(name.to_string())));
                    text.push(':');
                    text.push_str(&value.json());
                }
                text.push('}');
                text
            }
        }
    }
}

/// As conflicts show it: `.spec`, `[name="web"]`, `[="x"]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(at) => write!(f, "[{at}]"),
            Element::Key(fields) => {
                write!(f, "[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                write!(f, "]")
            }
        }
    }
}

/// The steps to a field, as conflicts show them.
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}

/// A value that tells elements of a list apart. Numbers compare as numbers, whatever their form.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

impl Scalar {
    fn json(&self) -> String {
        json_text(&self.0)
    }
}

/// Upstream's writer does not leave these in text, for the sake of web pages.
fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => write!(f, "{text:?}"),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| Scalar(item.clone()).to_string()).collect();
                write!(f, "[{}]", items.join(","))
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    write!(f, "{name}={}", Scalar(value.clone()))?;
                }
                Ok(())
            }
            other => write!(f, "{other}"),
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Scalar) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Scalar) -> Ordering {
        compare(&self.0, &other.0)
    }
}

/// Whether two values are the same; `1` is `1.0`.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => compare(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|((name, left), (other, right))| name == other && equal(left, right))
        }
        _ => left == right,
    }
}

/// A total order: numbers, texts, truth values, lists, maps, null.
fn compare(left: &Value, right: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => {
                let float = |number: &serde_json::Number| number.as_f64().unwrap_or(0.0);
                float(left).total_cmp(&float(right))
            }
        },
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let differing = left.iter().zip(right).map(|(left, right)| compare(left, right));
            let first = differing.into_iter().find(|order| order.is_ne());
            first.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => {
            let differing = left
                .iter()
                .zip(right)
                .map(|((name, left), (other, right))| name.cmp(other).then_with(|| compare(left, right)));
            let first = differing.into_iter().find(|order| order.is_ne());
            first.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_read_and_written_as_upstream_has_them() {
        for text in [
            "f:spec",
            "f:",
            "f:a:b",
            r#"k:{"name":"web"}"#,
            r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            r#"v:"x""#,
            "v:1",
            "v:1.5",
            "v:true",
            "i:3",
            r#"v:"\u003ca\u0026b\u003e""#,
        ] {
            assert_eq!(Element::parse(text).unwrap().unwrap().serialized(), text);
        }
        assert_eq!(
            Element::parse(r#"k:{"protocol":"TCP","containerPort":80}"#)
                .unwrap()
                .unwrap()
                .serialized(),
            r#"k:{"containerPort":80,"protocol":"TCP"}"#
        );
        assert_eq!(Element::parse("x:new").unwrap(), None);
        for text in ["", "f", "field", "v:", "v:{", "k:[]", "i:x", "é:"] {
            assert!(Element::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn steps_are_shown_as_conflicts_have_them() {
        let shown = |text: &str| Element::parse(text).unwrap().unwrap().to_string();

        assert_eq!(shown("f:spec"), ".spec");
        assert_eq!(
            shown(r#"k:{"port":80,"protocol":"TCP"}"#),
            r#"[port=80,protocol="TCP"]"#
        );
        assert_eq!(shown(r#"v:"a""#), r#"[="a"]"#);
        assert_eq!(shown("i:0"), "[0]");
    }

    #[test]
    fn names_come_before_keys_before_values_before_positions() {
        let key = |port: Value| Element::Key(Box::new([("port".into(), Scalar(port))]));
        let mut elements = [
            Element::Index(0),
            Element::Value(Scalar(json!("b"))),
            Element::Value(Scalar(json!(10))),
            key(json!("x")),
            key(json!(443)),
            key(json!(80)),
            Element::field("b"),
            Element::field("a"),
        ];

        elements.sort();

        let texts: Vec<String> = elements.iter().map(Element::serialized).collect();
        assert_eq!(
            texts,
            [
                "f:a",
                "f:b",
                r#"k:{"port":80}"#,
                r#"k:{"port":443}"#,
                r#"k:{"port":"x"}"#,
                "v:10",
                r#"v:"b""#,
                "i:0"
            ]
        );
    }

    #[test]
    fn numbers_are_equal_whatever_their_form() {
        assert!(equal(&json!({"a": [1]}), &json!({"a": [1.0]})));
        assert!(!equal(&json!({"a": [1]}), &json!({"a": ["1"]})));
        assert!(!equal(&json!({"a": 1}), &json!({"b": 1})));
        assert_eq!(Scalar(json!(1)), Scalar(json!(1.0)));
    }
}
