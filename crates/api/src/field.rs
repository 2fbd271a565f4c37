//! Field errors in upstream's words: `spec.containers[0].name: Required value`.

use std::fmt::{self, Display};

use serde_json::Value;

use crate::status::{Cause, Reason, Status};

/// Where in an object; written out only when something is wrong there.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    pub fn field(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    pub fn index(&'a self, at: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Index(at),
        }
    }

    /// A key of a map, written in brackets.
    pub fn key(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Key(name),
        }
    }

    fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top = match self.parent {
            Some(parent) if !parent.is_root() => {
                parent.fmt(f)?;
                false
            }
            _ => true,
        };
        match self.step {
            // What upstream writes for an error about the whole value.
            Step::Root => f.write_str("<nil>"),
            Step::Field(name) if top => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(name) => write!(f, "[{name}]"),
        }
    }
}

fn cause(reason: &'static str, path: &Path, words: &str, detail: impl Display) -> Cause {
    let detail = detail.to_string();
    let message = if detail.is_empty() {
        words.to_owned()
    } else {
        format!("{words}: {detail}")
    };
    Cause {
        reason,
        message,
        field: path.to_string(),
    }
}

fn with_value(reason: &'static str, path: &Path, words: &str, value: &Value, detail: impl Display) -> Cause {
    cause(reason, path, &format!("{words}: {}", Shown(value)), detail)
}

/// A refused value, as upstream shows it: strings quoted, structures as JSON.
struct Shown<'a>(&'a Value);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

pub fn required(path: &Path, detail: impl Display) -> Cause {
    cause("FieldValueRequired", path, "Required value", detail)
}

pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Display) -> Cause {
    with_value("FieldValueInvalid", path, "Invalid value", &value.into(), detail)
}

/// Something wrong with a whole structure, which is not shown.
pub fn invalid_whole(path: &Path, detail: impl Display) -> Cause {
    cause("FieldValueInvalid", path, "Invalid value", detail)
}

/// A value of another type than the schema asks for.
pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Display) -> Cause {
    with_value("FieldValueTypeInvalid", path, "Invalid value", &value.into(), detail)
}

pub fn duplicate(path: &Path, value: impl Into<Value>) -> Cause {
    with_value("FieldValueDuplicate", path, "Duplicate value", &value.into(), "")
}

pub fn not_found(path: &Path, value: impl Into<Value>) -> Cause {
    with_value("FieldValueNotFound", path, "Not found", &value.into(), "")
}

pub fn forbidden(path: &Path, detail: impl Display) -> Cause {
    cause("FieldValueForbidden", path, "Forbidden", detail)
}

pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Cause {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    with_value(
        "FieldValueNotSupported",
        path,
        "Unsupported value",
        &value.into(),
        format_args!("supported values: {}", supported.join(", ")),
    )
}

pub fn too_long(path: &Path, max_bytes: usize) -> Cause {
    let unit = if max_bytes == 1 { "byte" } else { "bytes" };
    let detail = format!("may not be more than {max_bytes} {unit}");
    cause("FieldValueTooLong", path, "Too long", detail)
}

pub fn too_many(path: &Path, actual: usize, max: usize) -> Cause {
    let unit = if max == 1 { "item" } else { "items" };
    let detail = format!("must have at most {max} {unit}");
    cause("FieldValueTooMany", path, &format!("Too many: {actual}"), detail)
}

/// The 422 answer for refused fields, as `Pod "one" is invalid: ...`. `group` and `kind` name the object's kind.
pub fn invalid_status(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
    let mut lines: Vec<String> = Vec::new();
    for cause in &causes {
        let line = format!("{}: {}", cause.field, cause.message);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let errors = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let qualified = if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    };
    let message = format!("{qualified} {name:?} is invalid: {errors}");
    let mut status = Status::new(Reason::Invalid, message).about(group, kind, name);
    status.causes = causes;
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_read_as_upstreams() {
        let spec = Path::ROOT.field("spec");
        let containers = spec.field("containers");
        let first = containers.index(0);
        let labels = Path::ROOT.field("metadata");
        let labels = labels.field("labels");
        let key = labels.key("a/b");

        let show = |cause: Cause| format!("{}: {}", cause.field, cause.message);

        assert_eq!(
            show(required(&first.field("name"), "")),
            "spec.containers[0].name: Required value"
        );
        assert_eq!(
            show(invalid(&key, "x y", "no")),
            r#"metadata.labels[a/b]: Invalid value: "x y": no"#
        );
        assert_eq!(
            show(not_supported(&spec.field("type"), "Foo", &["A", "B"])),
            r#"spec.type: Unsupported value: "Foo": supported values: "A", "B""#
        );
        assert_eq!(
            show(invalid(&spec, json!({"a": 1}), "no")),
            r#"spec: Invalid value: {"a":1}: no"#
        );
    }

    #[test]
    fn the_answer_names_the_kind_with_its_group() {
        let spec = Path::ROOT.field("spec");
        let one = invalid_status("apps", "Deployment", "web", vec![required(&spec, "")]);
        let two = invalid_status("", "Pod", "web", vec![required(&spec, ""), forbidden(&spec, "no")]);

        assert_eq!(one.message, r#"Deployment.apps "web" is invalid: spec: Required value"#);
        assert_eq!(one.code(), 422);
        assert_eq!(
            two.message,
            r#"Pod "web" is invalid: [spec: Required value, spec: Forbidden: no]"#
        );
    }
}
