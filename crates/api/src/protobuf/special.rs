//! Messages whose JSON is not the object of their fields.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Error, MAGIC, envelope, read as plain,
    table::{Ref, named},
    text_of,
    wire::{Reader, Wire},
};

/// `None` if the message is an ordinary one.
pub fn read(message: Ref, bytes: &[u8], depth: usize) -> Option<Result<Value, Error>> {
    Some(match message.get().name {
        "meta.v1.Time" | "meta.v1.Timestamp" => time(bytes, Precision::Seconds),
        "meta.v1.MicroTime" => time(bytes, Precision::Micros),
        "meta.v1.Duration" => duration(bytes),
        "quantity.Quantity" | "quantity.QuantityValue" => quantity(bytes),
        "intstr.IntOrString" => int_or_string(bytes),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => raw(bytes, depth),
        name if name == "meta.v1.Verbs" || name.ends_with(".ExtraValue") => strings(bytes),
        "apiextensions.v1.JSONSchemaPropsOrBool" => schema_or(bytes, depth, Other::Bool),
        "apiextensions.v1.JSONSchemaPropsOrArray" => schema_or(bytes, depth, Other::Schemas),
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => schema_or(bytes, depth, Other::Strings),
        _ => return None,
    })
}

#[derive(PartialEq)]
enum Precision {
    Seconds,
    Micros,
}

/// An empty one is Go's zero time: null.
fn time(bytes: &[u8], precision: Precision) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(number)) => seconds = number as i64,
            (2, Wire::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    if precision == Precision::Seconds {
        nanos = 0;
    }
    let at = Timestamp::new(seconds, nanos).map_err(|_| Error::Broken)?;
    let text = match precision {
        Precision::Seconds => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Precision::Micros => at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    };
    Ok(text.into())
}

/// Go's `time.Duration.String`, for whole seconds and what is left of them.
fn duration(bytes: &[u8]) -> Result<Value, Error> {
    let mut nanos = 0_i64;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Varint(number)) = (number, wire) {
            nanos = number as i64;
        }
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = format!(".{rest:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let text = if hours > 0 {
        format!("{sign}{hours}h{minutes}m{seconds}{fraction}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{seconds}{fraction}s")
    } else {
        format!("{sign}{seconds}{fraction}s")
    };
    Ok(text.into())
}

fn quantity(bytes: &[u8]) -> Result<Value, Error> {
    let mut text = "0";
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            text = text_of(bytes)?;
        }
    }
    Ok(text.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number_value, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(number)) => is_text = number == 1,
            (2, Wire::Varint(number)) => number_value = number as i64 as i32,
            (3, Wire::Bytes(bytes)) => text = text_of(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number_value.into() })
}

/// JSON as bytes, or an object in protobuf.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut found = &[][..];
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            found = bytes;
        }
    }
    if found.is_empty() {
        return Ok(Value::Null);
    }
    match found.strip_prefix(MAGIC) {
        Some(body) if depth <= super::DEPTH_MAX => envelope(body, depth + 1),
        Some(_) => Err(Error::TooDeep),
        None => serde_json::from_slice(found).map_err(|_| Error::Broken),
    }
}

fn strings(bytes: &[u8]) -> Result<Value, Error> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(bytes)) = (number, wire) {
            list.push(Value::from(text_of(bytes)?));
        }
    }
    Ok(list.into())
}

#[derive(PartialEq)]
enum Other {
    Bool,
    Schemas,
    Strings,
}

fn schema_or(bytes: &[u8], depth: usize, other: Other) -> Result<Value, Error> {
    let message = named("apiextensions.v1.JSONSchemaProps").ok_or(Error::Broken)?;
    let (mut schema, mut list, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire, &other) {
            (1, Wire::Varint(number), Other::Bool) => allows = number != 0,
            (2, Wire::Bytes(bytes), Other::Bool) | (1, Wire::Bytes(bytes), Other::Schemas | Other::Strings) => {
                schema = Some(plain(message, bytes, depth + 1)?);
            }
            (2, Wire::Bytes(bytes), Other::Schemas) => list.push(plain(message, bytes, depth + 1)?),
            (2, Wire::Bytes(bytes), Other::Strings) => list.push(text_of(bytes)?.into()),
            _ => {}
        }
    }
    Ok(match (schema, other) {
        (Some(schema), _) => schema,
        (None, Other::Bool) => allows.into(),
        (None, _) => list.into(),
    })
}
