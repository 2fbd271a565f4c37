//! Messages whose JSON is not the object of their fields.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Error, MAGIC, encode, envelope, read as plain,
    table::{Ref, named},
    text_of,
    wire::{Reader, Wire, Writer},
};

/// `None` if the message is an ordinary one.
pub fn read(message: Ref, bytes: &[u8], depth: usize) -> Option<Result<Value, Error>> {
    Some(match message.get().name {
        "meta.v1.Time" => time(bytes, Precision::Seconds),
        "meta.v1.MicroTime" => time(bytes, Precision::Micros),
        "quantity.Quantity" => quantity(bytes),
        "intstr.IntOrString" => int_or_string(bytes),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => raw(bytes, depth),
        name if name == "meta.v1.Verbs" || name.ends_with(".ExtraValue") => strings(bytes),
        "apiextensions.v1.JSONSchemaPropsOrBool" => schema_or(bytes, depth, Other::Bool),
        "apiextensions.v1.JSONSchemaPropsOrArray" => schema_or(bytes, depth, Other::Schemas),
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => schema_or(bytes, depth, Other::Strings),
        _ => return None,
    })
}

/// The other way, null being what was never set; `None` if the message is an ordinary one.
pub fn write(message: Ref, out: &mut Writer, found: &Value, depth: usize) -> Option<Result<(), Error>> {
    Some(match message.get().name {
        "meta.v1.Time" => write_time(out, found, Precision::Seconds),
        "meta.v1.MicroTime" => write_time(out, found, Precision::Micros),
        "quantity.Quantity" => write_quantity(out, found),
        "intstr.IntOrString" => write_int_or_string(out, found),
        "runtime.RawExtension" | "meta.v1.FieldsV1" | "apiextensions.v1.JSON" => write_raw(out, found),
        name if name == "meta.v1.Verbs" || name.ends_with(".ExtraValue") => write_strings(out, 1, found),
        "apiextensions.v1.JSONSchemaPropsOrBool" => write_schema_or(out, found, depth, Other::Bool),
        "apiextensions.v1.JSONSchemaPropsOrArray" => write_schema_or(out, found, depth, Other::Schemas),
        "apiextensions.v1.JSONSchemaPropsOrStringArray" => write_schema_or(out, found, depth, Other::Strings),
        _ => return None,
    })
}

fn write_time(out: &mut Writer, found: &Value, precision: Precision) -> Result<(), Error> {
    const SECOND: i128 = 1_000_000_000;
    if found.is_null() {
        return Ok(());
    }
    let at: Timestamp = text(found)?.parse().map_err(|_| Error::Unlike)?;
    let nanos = at.as_nanosecond();
    // The fraction is counted up from the second before it, also before 1970.
    let (seconds, rest) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    let rest = match precision {
        Precision::Seconds => 0,
        Precision::Micros => rest / 1_000 * 1_000,
    };
    out.number(1, seconds as i64 as u64);
    out.number(2, rest as u64);
    Ok(())
}

fn write_quantity(out: &mut Writer, found: &Value) -> Result<(), Error> {
    match found {
        Value::Null => out.text(1, "0"),
        Value::Number(number) => out.text(1, &number.to_string()),
        found => out.text(1, text(found)?),
    }
    Ok(())
}

fn write_int_or_string(out: &mut Writer, found: &Value) -> Result<(), Error> {
    let (is_text, number, text) = match found {
        Value::Null => (0, 0, ""),
        Value::String(text) => (1, 0, text.as_str()),
        found => (0, found.as_i64().ok_or(Error::Unlike)?, ""),
    };
    out.number(1, is_text);
    out.number(2, number as u64);
    out.text(3, text);
    Ok(())
}

fn write_raw(out: &mut Writer, found: &Value) -> Result<(), Error> {
    if found.is_null() {
        return Ok(());
    }
    let json = serde_json::to_vec(found).map_err(|_| Error::Unlike)?;
    out.bytes(1, &json);
    Ok(())
}

fn write_strings(out: &mut Writer, number: u32, found: &Value) -> Result<(), Error> {
    for one in found.as_array().ok_or(Error::Unlike)? {
        out.text(number, text(one)?);
    }
    Ok(())
}

fn write_schema_or(out: &mut Writer, found: &Value, depth: usize, other: Other) -> Result<(), Error> {
    let message = named("apiextensions.v1.JSONSchemaProps").ok_or(Error::Unlike)?;
    let schema = |out: &mut Writer, number: u32, found: &Value| {
        let fields = found.as_object().ok_or(Error::Unlike)?;
        out.nested(number, |out| encode::write(out, message, fields, depth + 1))
    };
    match (found, other) {
        (Value::Bool(allows), Other::Bool) => out.number(1, u64::from(*allows)),
        (found, Other::Bool) => {
            out.number(1, 1);
            schema(out, 2, found)?;
        }
        (Value::Array(list), Other::Schemas) => {
            for one in list {
                schema(out, 2, one)?;
            }
        }
        (found @ Value::Array(_), Other::Strings) => write_strings(out, 2, found)?,
        (found, Other::Schemas | Other::Strings) => schema(out, 1, found)?,
    }
    Ok(())
}

fn text(found: &Value) -> Result<&str, Error> {
    found.as_str().ok_or(Error::Unlike)
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
