//! Values checked against the rules of a schema, in the words of upstream's validator.

use serde_json::{Number, Value, json};

use super::{Additional, Kind, Rules, Schema, formats};
use crate::{
    field::{self, Path},
    status::Cause,
};

pub fn check(schema: &Schema, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_value(schema, object, &Path::ROOT, &mut causes);
    causes
}

/// A path as upstream's validator writes it inside messages: nothing for the object itself.
fn shown(path: &Path) -> String {
    let text = path.to_string();
    if text == "<nil>" { String::new() } else { text }
}

fn fails(causes: &mut Vec<Cause>, path: &Path, value: impl Into<Value>, what: std::fmt::Arguments) {
    causes.push(field::invalid(
        path,
        value,
        format_args!("{} in body {what}", shown(path)),
    ));
}

fn check_value(schema: &Schema, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema.nullable || schema.kind.is_none()) {
        return;
    }
    if !check_type(schema, value, path, causes) {
        return;
    }
    let rules = &schema.rules;
    if !rules.allowed.is_empty() && !rules.allowed.contains(value) {
        let supported: Vec<String> = rules
            .allowed
            .iter()
            .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned))
            .collect();
        let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
        causes.push(field::not_supported(path, value.clone(), &supported));
    }
    match value {
        Value::String(text) => check_text(rules, text, path, causes),
        Value::Number(number) => check_number(rules, number, path, causes),
        Value::Array(items) => {
            check_count(rules.min_items, rules.max_items, items.len(), "items", path, causes);
            if let Some(schema) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    check_value(schema, item, &path.index(at), causes);
                }
            }
        }
        Value::Object(fields) => {
            check_count(
                rules.min_properties,
                rules.max_properties,
                fields.len(),
                "properties",
                path,
                causes,
            );
            for name in &rules.required {
                if !fields.contains_key(name) {
                    causes.push(field::required(&path.field(name), ""));
                }
            }
            for (name, field) in fields {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(schema), _) => check_value(schema, field, &path.field(name), causes),
                    (None, Additional::Of(schema)) => check_value(schema, field, &path.field(name), causes),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    check_junctors(rules, value, path, causes);
}

/// Whether the value has the type; says so if not.
fn check_type(schema: &Schema, value: &Value, path: &Path, causes: &mut Vec<Cause>) -> bool {
    let is_whole =
        |number: &Number| number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0);
    if schema.int_or_string {
        let good = match value {
            Value::String(_) => true,
            Value::Number(number) => is_whole(number),
            _ => false,
        };
        if !good {
            let detail = format!(
                "{} in body must be of type integer,string: {:?}",
                shown(path),
                type_name(value)
            );
            causes.push(field::type_invalid(path, type_name(value), detail));
        }
        return good;
    }
    let Some(kind) = schema.kind else { return true };
    let good = match (kind, value) {
        (Kind::Object, Value::Object(_))
        | (Kind::Array, Value::Array(_))
        | (Kind::String, Value::String(_))
        | (Kind::Number, Value::Number(_))
        | (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::Integer, Value::Number(number)) => is_whole(number),
        _ => false,
    };
    if !good {
        let detail = format!(
            "{} in body must be of type {}: {:?}",
            shown(path),
            kind.name(),
            type_name(value)
        );
        causes.push(field::type_invalid(path, type_name(value), detail));
    }
    good
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_text(rules: &Rules, text: &str, path: &Path, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(max) = rules.max_length.filter(|max| length > *max) {
        causes.push(field::too_long(path, usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = rules.min_length.filter(|min| length < *min) {
        fails(causes, path, text, format_args!("should be at least {min} chars long"));
    }
    if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        fails(causes, path, text, format_args!("should match '{pattern}'"));
    }
    if !formats::matches(&rules.format, text) {
        let detail = format!("{} in body must be of type {}: {text:?}", shown(path), rules.format);
        causes.push(field::type_invalid(path, text, detail));
    }
}

fn check_number(rules: &Rules, number: &Number, path: &Path, causes: &mut Vec<Cause>) {
    let value = || Value::Number(number.clone());
    let (below, above) = (
        |bound: &Number| compare(number, bound).is_lt(),
        |bound: &Number| compare(number, bound).is_gt(),
    );
    if let Some(max) = &rules.maximum {
        if rules.exclusive_maximum && !below(max) {
            fails(causes, path, value(), format_args!("should be less than {max}"));
        } else if above(max) {
            fails(
                causes,
                path,
                value(),
                format_args!("should be less than or equal to {max}"),
            );
        }
    }
    if let Some(min) = &rules.minimum {
        if rules.exclusive_minimum && !above(min) {
            fails(causes, path, value(), format_args!("should be greater than {min}"));
        } else if below(min) {
            fails(
                causes,
                path,
                value(),
                format_args!("should be greater than or equal to {min}"),
            );
        }
    }
    if let Some(factor) = &rules.multiple_of {
        let good = match (number.as_i64(), factor.as_i64()) {
            (Some(number), Some(factor)) if factor != 0 => number % factor == 0,
            _ => {
                let quotient = number.as_f64().unwrap_or(0.0) / factor.as_f64().unwrap_or(1.0);
                (quotient - quotient.round()).abs() < 1e-9
            }
        };
        if !good {
            fails(causes, path, value(), format_args!("should be a multiple of {factor}"));
        }
    }
    let fits = match rules.format.as_str() {
        "int32" => number.as_i64().is_none_or(|number| i32::try_from(number).is_ok()),
        _ => true,
    };
    if !fits {
        let detail = format!(
            "{} in body must be of type int32: {:?}",
            shown(path),
            type_name(&value())
        );
        causes.push(field::type_invalid(path, value(), detail));
    }
}

fn compare(one: &Number, other: &Number) -> std::cmp::Ordering {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let (one, other) = (one.as_f64().unwrap_or(0.0), other.as_f64().unwrap_or(0.0));
            one.total_cmp(&other)
        }
    }
}

fn check_count(min: Option<u64>, max: Option<u64>, count: usize, what: &str, path: &Path, causes: &mut Vec<Cause>) {
    if let Some(max) = max.filter(|max| count as u64 > *max) {
        causes.push(field::too_many(path, count, usize::try_from(max).unwrap_or(usize::MAX)));
    }
    if let Some(min) = min.filter(|min| (count as u64) < *min) {
        fails(
            causes,
            path,
            json!(count),
            format_args!("should have at least {min} {what}"),
        );
    }
}

fn check_junctors(rules: &Rules, value: &Value, path: &Path, causes: &mut Vec<Cause>) {
    let problems = |schema: &Schema| {
        let mut causes = Vec::new();
        check_value(schema, value, path, &mut causes);
        causes
    };
    // Upstream puts these at the object as a whole and names the place inside.
    let mut whole = |what: String| {
        causes.push(field::invalid(
            &Path::ROOT,
            "",
            format_args!("{:?} {what}", shown(path)),
        ));
    };
    let mut nested = Vec::new();
    if !rules.any_of.is_empty() {
        let found: Vec<Vec<Cause>> = rules.any_of.iter().map(problems).collect();
        if found.iter().all(|causes| !causes.is_empty()) {
            whole("must validate at least one schema (anyOf)".to_owned());
            nested.extend(best(found));
        }
    }
    if !rules.one_of.is_empty() {
        let found: Vec<Vec<Cause>> = rules.one_of.iter().map(problems).collect();
        match found.iter().filter(|causes| causes.is_empty()).count() {
            0 => {
                whole("must validate one and only one schema (oneOf). Found none valid".to_owned());
                nested.extend(best(found));
            }
            1 => {}
            many => whole(format!(
                "must validate one and only one schema (oneOf). Found {many} valid alternatives"
            )),
        }
    }
    let failed: Vec<Vec<Cause>> = rules
        .all_of
        .iter()
        .map(problems)
        .filter(|causes| !causes.is_empty())
        .collect();
    if !failed.is_empty() {
        whole("must validate all the schemas (allOf)".to_owned());
        nested.extend(failed.into_iter().flatten());
    }
    if let Some(not) = &rules.not
        && problems(not).is_empty()
    {
        whole("must not validate the schema (not)".to_owned());
    }
    causes.extend(nested);
}

/// The alternative that came closest.
fn best(found: Vec<Vec<Cause>>) -> Vec<Cause> {
    found.into_iter().min_by_key(Vec::len).unwrap_or_default()
}
