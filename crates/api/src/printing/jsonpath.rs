//! The part of JSONPath that printer columns use: `.spec.replicas`, `.a['b.c']`, `.items[0]`, `.items[*]`,
//! `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

#[derive(Clone, PartialEq, Debug)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Field(String),
    /// From the end where negative.
    Index(i64),
    All,
    /// Elements whose field has a value, or (not equal) has not.
    Filter {
        path: Vec<String>,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    /// `None` if it is not of the supported form.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest.strip_prefix('$').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                if after.is_empty() && steps.is_empty() {
                    return Some(JsonPath(steps));
                }
                let (name, after) = take_name(after)?;
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (step, after) = take_bracket(after)?;
                steps.push(step);
                rest = after;
            } else {
                return None;
            }
        }
        Some(JsonPath(steps))
    }

    /// The first value that it finds.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        find(&self.0, value)
    }
}

/// A name up to the next step; a backslash takes the next character as it is.
fn take_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' => return (!name.is_empty()).then_some((name, &text[at..])),
            c => name.push(c),
        }
    }
    (!name.is_empty()).then_some((name, ""))
}

/// What stands between brackets, and what follows.
fn take_bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(filter) = text.strip_prefix("?(") {
        let end = filter.find(")]")?;
        return Some((parse_filter(&filter[..end])?, &filter[end + 2..]));
    }
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let inner = &text[1..];
        let end = inner.find(quote)?;
        let after = inner[end + 1..].strip_prefix(']')?;
        return Some((Step::Field(inner[..end].to_owned()), after));
    }
    let end = text.find(']')?;
    let step = match text[..end].trim() {
        "*" => Step::All,
        index => Step::Index(index.parse().ok()?),
    };
    Some((step, &text[end + 1..]))
}

fn parse_filter(text: &str) -> Option<Step> {
    let (path, equal, value) = match text.split_once("==") {
        Some((path, value)) => (path, true, value),
        None => {
            let (path, value) = text.split_once("!=")?;
            (path, false, value)
        }
    };
    let path = path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
    let value = value.trim();
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = match quoted('"').or_else(|| quoted('\'')) {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(value).ok()?,
    };
    Some(Step::Filter { path, equal, value })
}

fn find<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    match step {
        Step::Field(name) => find(rest, value.get(name)?),
        Step::Index(index) => {
            let items = value.as_array()?;
            let at = if *index < 0 { items.len() as i64 + index } else { *index };
            find(rest, items.get(usize::try_from(at).ok()?)?)
        }
        Step::All => match value {
            Value::Array(items) => items.iter().find_map(|item| find(rest, item)),
            Value::Object(fields) => fields.values().find_map(|field| find(rest, field)),
            _ => None,
        },
        Step::Filter {
            path,
            equal,
            value: wanted,
        } => value
            .as_array()?
            .iter()
            .filter(|item| {
                let found = path.iter().fold(*item, |item, step| &item[step.as_str()]);
                (found == wanted) == *equal
            })
            .find_map(|item| find(rest, item)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_find_their_values() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "spec": {"replicas": 3, "list": ["p", "q"]},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.replicas", Some(json!(3))),
            (".metadata.labels['a.b/c']", Some(json!("x"))),
            (".metadata.labels.a\\.b/c", Some(json!("x"))),
            (".spec.list[1]", Some(json!("q"))),
            (".spec.list[-1]", Some(json!("q"))),
            (".spec.list[*]", Some(json!("p"))),
            (".status.conditions[?(@.type==\"Ready\")].status", Some(json!("True"))),
            (".status.conditions[?(@.type=='None')].status", None),
            (".status.conditions[?(@.type!='Ready')].status", Some(json!("False"))),
            (".spec.none.deeper", None),
        ] {
            let found = JsonPath::parse(path).unwrap().first(&object).cloned();
            assert_eq!(found, expected, "{path}");
        }
        for bad in ["", "spec", ".a[", ".a[x]", ".a..b", ".a[?(@.x)]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }
}
